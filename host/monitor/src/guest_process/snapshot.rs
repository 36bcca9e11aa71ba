//! A guest's process that becomes a snapshot, or goes on from one.
//!
//! Two processes map a guest's memory, at several places, and must see the same: so a copy of a snapshot has a file of its
//! own, to which the snapshot's pages are copied. That is done here for what the monitor touches as well, and for what
//! copies are known to touch; the guest copies the others itself before it maps them (`process/missing.rs` in the image).

use std::fs::File;
use std::io;
use std::mem::offset_of;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;

use spore_abi::layout::{FREE_GPA, PAGE_BYTES};
use spore_abi::process::{self as abi, ProcessPage};

use super::missing::Missing;
use super::{GuestProcess, ProcessError, host_error};
use crate::features::Features;
use crate::memory::Region;
use crate::protocol::{ProcessorState, SNAPSHOT_EXTENTS_MAX, Snapshot};

/// Where `xsave` says which components are not in their initial state (Intel SDM volume 1, 13.4.2).
const COMPONENTS: usize = 512;
/// What is copied at once.
const BUFFER_BYTES: usize = 64 << 10;
const EXTENDED_STATE: u64 = abi::EXTENDED_STATE - abi::PROCESS_PAGE;
/// Flags with which a guest goes on behind a doorbell: none but the one that is always set.
const FLAGS: u64 = 2;

macro_rules! field {
    ($field:ident) => {
        offset_of!(ProcessPage, $field) as u64
    };
}

fn unusable(reason: impl Into<String>) -> ProcessError {
    ProcessError::Snapshot(reason.into())
}

/// Fills the empty memory of `ram_bytes` in this file with what is needed of a snapshot to begin with; what is missing then.
pub(super) fn fill(
    file: BorrowedFd<'_>,
    snapshot: &Snapshot,
    ram: &OwnedFd,
    ram_bytes: u64,
) -> Result<Missing, ProcessError> {
    let failed = host_error::<io::Error>("copy a snapshot");
    let file = File::from(file.try_clone_to_owned().map_err(&failed)?);
    let ram = File::from(ram.try_clone().map_err(&failed)?);
    if file.metadata().map_err(&failed)?.len() != ram_bytes {
        return Err(unusable("its memory has another size"));
    }
    if snapshot.extents.len() > SNAPSHOT_EXTENTS_MAX {
        return Err(unusable("it consists of too many parts"));
    }
    if snapshot.text_bytes != 0 {
        return Err(unusable(
            "its text is in large pages, which a process does not map",
        ));
    }
    let mut missing = Missing::none_of(ram_bytes);
    let mut buffer = vec![0; BUFFER_BYTES];
    for &(start, length) in &snapshot.extents {
        let is_whole = start.is_multiple_of(PAGE_BYTES) && length.is_multiple_of(PAGE_BYTES);
        let end = start
            .checked_add(length)
            .filter(|&end| is_whole && end <= ram_bytes);
        let Some(end) = end else {
            return Err(unusable("a part of it is beyond its end"));
        };
        copy(&file, &ram, (start, end.min(FREE_GPA)), &mut buffer).map_err(&failed)?;
        missing.add((start.max(FREE_GPA), end));
    }
    for &stretch in snapshot.written.iter().flatten() {
        for range in missing.take(stretch) {
            copy(&file, &ram, range, &mut buffer).map_err(&failed)?;
        }
    }
    Ok(missing)
}

/// Copies those pages of a range, start and end, that are not zero.
fn copy(from: &File, to: &File, (start, end): (u64, u64), buffer: &mut [u8]) -> io::Result<()> {
    let mut at = start;
    while at < end {
        let count = (end - at).min(buffer.len() as u64);
        let bytes = &mut buffer[..count as usize];
        from.read_exact_at(bytes, at)?;
        let (pages, _) = bytes.as_chunks::<{ PAGE_BYTES as usize }>();
        let mut place = at;
        for run in pages.chunk_by(|one, other| is_zero(one) == is_zero(other)) {
            if !run.first().is_none_or(is_zero) {
                to.write_all_at(run.as_flattened(), place)?;
            }
            place += run.as_flattened().len() as u64;
        }
        at += count;
    }
    Ok(())
}

fn is_zero(page: &[u8; PAGE_BYTES as usize]) -> bool {
    let (words, _) = page.as_chunks::<16>();
    words.iter().all(|word| u128::from_ne_bytes(*word) == 0)
}

/// Lets a guest that waits for its first turn go on with these registers.
pub(super) fn set_state(
    area: &Region,
    state: &ProcessorState,
    here: &Features,
    mask: u64,
) -> Result<(), ProcessError> {
    if let Some(missing) = state.features.missing_in(here) {
        return Err(unusable(format!(
            "this processor has not all that it needs: {missing}"
        )));
    }
    let mut extended = Vec::with_capacity(abi::EXTENDED_STATE_BYTES as usize);
    extended.extend(state.extended_state.iter().flat_map(|word| word.to_ne_bytes()));
    if extended.len() as u64 != abi::EXTENDED_STATE_BYTES {
        return Err(unusable("its extended registers have another size"));
    }
    // KVM tells of components that no guest has, and the processor takes none that are not enabled.
    for (byte, mask) in extended[COMPONENTS..].iter_mut().zip(mask.to_le_bytes()) {
        *byte &= mask;
    }
    area.write_bytes(EXTENDED_STATE, &extended)?;
    area.write(field!(first_registers), state.registers())?;
    area.write(field!(fs_base), state.fs_base)?;
    area.write(field!(gs_base), state.gs_base)?;
    area.write(field!(top_table_gpa), state.top_table_gpa)?;
    area.write(field!(goes_on), 1_u32)?;
    Ok(())
}

impl GuestProcess {
    /// What a snapshot needs to know of the processor. The guest has left it in the process page, at a doorbell; it is
    /// copied once, and is checked where it is used.
    pub(crate) fn state(&self) -> Result<ProcessorState, ProcessError> {
        let registers = self.registers()?;
        let mut extended = vec![0; abi::EXTENDED_STATE_BYTES as usize];
        self.area.read_bytes(EXTENDED_STATE, &mut extended)?;
        let words = extended.as_chunks::<4>().0;
        Ok(ProcessorState {
            general: registers.general,
            instruction_pointer: registers.rip,
            flags: FLAGS,
            fs_base: self.area.read(field!(fs_base))?,
            gs_base: self.area.read(field!(gs_base))?,
            top_table_gpa: self.area.read(field!(top_table_gpa))?,
            extended_state: words.iter().map(|word| u32::from_ne_bytes(*word)).collect(),
            features: self.features.clone(),
        })
    }

    /// The stretches (start and length) of a copy's memory that it has copied from its snapshot since it began.
    pub(crate) fn copied(&self) -> Result<Vec<(u64, u64)>, ProcessError> {
        let Some(missing) = &self.missing else {
            return Ok(Vec::new());
        };
        Ok(missing.copied(&self.area)?)
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use std::os::unix::fs::MetadataExt;

    use super::super::files::fixed_memory;
    use super::*;

    const PAGE: u64 = PAGE_BYTES;

    fn snapshot(extents: &[(u64, u64)], written: Option<Vec<(u64, u64)>>) -> Snapshot {
        let processor = ProcessorState {
            general: [0; 16],
            instruction_pointer: 0,
            flags: FLAGS,
            fs_base: 0,
            gs_base: 0,
            top_table_gpa: 0,
            extended_state: Vec::new(),
            features: Features::default(),
        };
        Snapshot {
            extents: extents.to_vec(),
            processor,
            text_bytes: 0,
            written,
        }
    }

    fn files(bytes: u64) -> [OwnedFd; 2] {
        [(); 2].map(|()| fixed_memory(c"spore-test", bytes).unwrap())
    }

    #[test]
    fn a_copy_begins_with_what_is_needed_at_once() {
        const FREE_PAGE: u64 = FREE_GPA / PAGE;
        let bytes = FREE_GPA + 64 * PAGE;
        let [file, ram] = files(bytes);
        let file = File::from(file);
        let filled = [
            0,
            1,
            7,
            20,
            21,
            FREE_PAGE,
            FREE_PAGE + 9,
            FREE_PAGE + 10,
            FREE_PAGE + 63,
        ];
        for page in filled {
            file.write_all_at(&[page as u8 | 1], page * PAGE + 4095).unwrap();
        }
        let extents = [(0, 8 * PAGE), (16 * PAGE, bytes - 16 * PAGE)];
        let written = vec![(FREE_GPA + 8 * PAGE, 2 * PAGE), (bytes, PAGE)];
        let snapshot = snapshot(&extents, Some(written));
        let mut missing = fill(file.as_fd(), &snapshot, &ram, bytes).unwrap();
        let ram = File::from(ram);
        let is_there = |page: &u64| {
            let mut byte = [0];
            ram.read_exact_at(&mut byte, page * PAGE + 4095).unwrap();
            byte[0] == *page as u8 | 1
        };
        let there: Vec<u64> = filled.into_iter().filter(is_there).collect();
        assert_eq!(there, [0, 1, 7, 20, 21, FREE_PAGE + 9]);
        assert_eq!(
            ram.metadata().unwrap().blocks(),
            6 * 8,
            "pages that are zero take no memory"
        );
        assert_eq!(
            missing.take((0, bytes)),
            [(FREE_GPA, FREE_GPA + 8 * PAGE), (FREE_GPA + 10 * PAGE, bytes)]
        );
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let bytes = 8 * PAGE;
        let [file, ram] = files(bytes);
        for extent in [
            (0, bytes + PAGE),
            (u64::MAX - PAGE + 1, PAGE),
            (u64::MAX, 1),
            (1, PAGE),
            (0, 1),
        ] {
            let refused = fill(file.as_fd(), &snapshot(&[extent], None), &ram, bytes);
            assert!(matches!(refused, Err(ProcessError::Snapshot(_))), "{extent:?}");
        }
        let whole = snapshot(&[(0, bytes)], None);
        assert!(fill(file.as_fd(), &whole, &ram, 2 * bytes).is_err());
        let many = snapshot(&vec![(0, PAGE); SNAPSHOT_EXTENTS_MAX + 1], None);
        assert!(fill(file.as_fd(), &many, &ram, bytes).is_err());
    }
}
