//! Text of snapshots in large pages, one copy of each: functions of the same image mostly have the same.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use spore_monitor::{RootFiles, Text, lay_out_text};

/// Memory that all text takes at most, in bytes; what comes then stays in small pages.
const BYTES_MAX: u64 = 1 << 30;
/// How much is compared at a time, in bytes.
const STEP_BYTES: usize = 1 << 20;

/// The texts that snapshots have.
#[derive(Debug, Default)]
pub(crate) struct Texts {
    known: Mutex<Vec<Weak<Text>>>,
}

impl Texts {
    /// The text of a snapshot in `memory`, which changes accordingly, of a program in `root`; none if it has none, or all
    /// together have too much.
    pub(crate) fn of(
        &self,
        memory: &File,
        root: &RootFiles,
        offers: &[(u64, u64)],
    ) -> io::Result<Option<Arc<Text>>> {
        if self.live().iter().map(|text| text.bytes).sum::<u64>() >= BYTES_MAX {
            return Ok(None);
        }
        let Some(text) = lay_out_text(memory, root, offers)? else {
            return Ok(None);
        };
        for known in self.live() {
            if known.bytes == text.bytes && is_same(&known.file, &text.file)? {
                return Ok(Some(known));
            }
        }
        let text = Arc::new(text);
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.push(Arc::downgrade(&text));
        Ok(Some(text))
    }

    fn live(&self) -> Vec<Arc<Text>> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|text| text.strong_count() > 0);
        known.iter().filter_map(Weak::upgrade).collect()
    }
}

/// Whether two files of the same length hold the same.
fn is_same(one: &File, other: &File) -> io::Result<bool> {
    let mut buffers = [vec![0; STEP_BYTES], vec![0; STEP_BYTES]];
    let mut at = 0;
    loop {
        let [ours, theirs] = &mut buffers;
        let length = one.read_at(ours, at)?;
        if length == 0 {
            return Ok(true);
        }
        other.read_exact_at(&mut theirs[..length], at)?;
        if ours[..length] != theirs[..length] {
            return Ok(false);
        }
        at += length as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshots::empty_file;

    const ENTRY: u64 = 0x4018;
    const TABLE: u64 = 0x5000;

    /// A snapshot that offers a large page, of which the first small one is filled with this.
    fn snapshot(filled_with: u8) -> File {
        let memory = File::from(empty_file().unwrap());
        memory.set_len(4 << 20).unwrap();
        let table: Vec<u8> = (0..512_u64)
            .flat_map(|index| (((2 << 20) + index * 4096) | 5).to_ne_bytes())
            .collect();
        memory.write_all_at(&table, TABLE).unwrap();
        memory.write_all_at(&(TABLE | 7).to_ne_bytes(), ENTRY).unwrap();
        memory.write_all_at(&[filled_with; 4096], 2 << 20).unwrap();
        memory
    }

    #[test]
    fn the_same_text_is_there_once_and_goes_with_its_last_user() {
        let texts = Texts::default();
        let root = RootFiles::new(File::from(empty_file().unwrap()), None).unwrap();
        let of = |filled_with| {
            texts
                .of(&snapshot(filled_with), &root, &[(ENTRY, TABLE)])
                .unwrap()
                .unwrap()
        };
        let (first, second, other) = (of(1), of(1), of(2));
        assert!(Arc::ptr_eq(&first, &second));
        assert!(!Arc::ptr_eq(&first, &other));
        assert_eq!(texts.live().len(), 2);
        drop((first, second));
        assert_eq!(texts.live().len(), 1);
        assert!(texts.of(&snapshot(1), &root, &[]).unwrap().is_none());
    }
}
