//! Block devices made of roots, for monitors whose devices are one file of whole sectors.
//!
//! QEMU reads base and head where they are ([`crate::disk`]), and fills the last sector of a program. Firecracker and Cloud Hypervisor do
//! neither. So a copy is made when the first instance of a function needs it, and kept until no function has it and no instance
//! runs on it.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use spore_sandbox::{InstanceSpec, Root};
use tempfile::TempPath;

use crate::disk::{DiskError, PAGE_BYTES, SECTOR_BYTES, is_whole};

/// The files of a root: itself, or the head, and the base if it has one.
type Files = (PathBuf, Option<PathBuf>);

/// What was made.
#[derive(Debug)]
pub(crate) struct Images {
    folder: PathBuf,
    /// Locked while one is made, which may take long.
    made: Mutex<HashMap<Files, Arc<TempPath>>>,
}

impl Images {
    /// Uses a folder, which is there when the first root is asked for.
    pub(crate) fn new(folder: PathBuf) -> Self {
        Self {
            folder,
            made: Mutex::default(),
        }
    }

    /// The block device of a root; none if its file is that. May block.
    pub(crate) fn get(&self, root: &Root) -> io::Result<Option<Arc<TempPath>>> {
        if root.base().is_none() && fs::metadata(root.path())?.len().is_multiple_of(SECTOR_BYTES) {
            return Ok(None);
        }
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(path) = made.get(&files(root)) {
            return Ok(Some(Arc::clone(path)));
        }
        let mut file = tempfile::Builder::new()
            .prefix("root-")
            .tempfile_in(&self.folder)?;
        match root.base() {
            Some(base) => join(base, root.path(), file.as_file_mut())?,
            None => fill(root.path(), file.as_file_mut())?,
        }
        let path = Arc::new(file.into_temp_path());
        made.insert(files(root), Arc::clone(&path));
        Ok(Some(path))
    }

    /// Forgets what none of these has; what an instance runs on goes with it.
    pub(crate) fn retain(&self, deployed: &[InstanceSpec]) {
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        made.retain(|kept, _| deployed.iter().any(|spec| files(&spec.root) == *kept));
    }
}

fn files(root: &Root) -> Files {
    (root.path().to_owned(), root.base().map(Path::to_owned))
}

/// Puts base and head together, as they are described in [`crate::disk`].
fn join(base: &Path, head: &Path, target: &mut File) -> io::Result<()> {
    let (mut base, mut head) = (File::open(base)?, File::open(head)?);
    if !is_whole(base.metadata()?.len()) || !is_whole(head.metadata()?.len()) {
        return Err(io::Error::other(DiskError::NotWhole));
    }
    io::copy(&mut (&mut head).take(PAGE_BYTES), target)?;
    base.seek(SeekFrom::Start(PAGE_BYTES))?;
    io::copy(&mut base, target)?;
    io::copy(&mut head, target)?;
    Ok(())
}

/// Copies a program, and fills the last sector with zeroes.
fn fill(program: &Path, target: &mut File) -> io::Result<()> {
    let bytes = io::copy(&mut File::open(program)?, target)?;
    target.set_len(bytes.next_multiple_of(SECTOR_BYTES))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roots_are_put_together_once_and_go_when_nobody_has_them() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str, pages: &[u8]| {
            let path = folder.path().join(name);
            let bytes: Vec<u8> = pages
                .iter()
                .flat_map(|&page| [page; PAGE_BYTES as usize])
                .collect();
            fs::write(&path, bytes).unwrap();
            path
        };
        let (base, head) = (file("base", &[1, 2, 3]), file("head", &[4, 5]));
        let root = Root::Layered {
            base,
            head: head.clone(),
        };
        let images = Images::new(folder.path().to_owned());
        let path = images.get(&root).unwrap().unwrap();
        let bytes = fs::read(&*path).unwrap();
        let pages: Vec<_> = bytes.chunks(PAGE_BYTES as usize).map(|page| page[0]).collect();
        assert_eq!(pages, [4, 2, 3, 5]);
        assert!(Arc::ptr_eq(&path, &images.get(&root).unwrap().unwrap()));
        images.retain(&[]);
        assert!(path.exists(), "an instance runs on it");
        let name = path.to_path_buf();
        drop(path);
        assert!(!name.exists());
        fs::write(&head, "no page").unwrap();
        assert!(images.get(&root).is_err());
    }

    #[test]
    fn the_last_sector_of_a_program_is_filled() {
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("program");
        let root = Root::Program(program.clone());
        let images = Images::new(folder.path().to_owned());
        for (bytes, filled) in [(1, Some(512)), (512, None), (513, Some(1024))] {
            fs::write(&program, vec![7; bytes]).unwrap();
            let image = images.get(&root).unwrap();
            let content = image.map(|path| fs::read(&*path).unwrap());
            assert_eq!(content.as_ref().map(Vec::len), filled);
            assert!(content.is_none_or(|content| content[..bytes].iter().all(|&byte| byte == 7)));
            images.retain(&[]);
        }
    }
}
