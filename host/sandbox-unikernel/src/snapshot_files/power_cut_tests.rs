//! Power cuts: whenever the writing of a file stops, the old file or the new one is there afterwards, whole.
//!
//! The disk here does what disks may do. What was written and not synchronised reaches it or not, in part or as rubbish;
//! a new name that was not synchronised holds or does not. That the process alone ends, by SIGKILL, is the case in which
//! everything holds that was done.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io::{self, Write as _};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;

use super::folder::{Disk, Folder, PARTIAL};
use super::format::Contents;
use super::samples::{IDENTITY, contents};
use super::writing::{Memory, WriteError, Writing};
use crate::snapshots::empty_file;

const NAME: &str = "0123";
const PAGE_BYTES: u64 = 4096;

/// What is in a file, and what of it has reached the disk.
#[derive(Debug, Clone, Default)]
struct Bytes {
    now: Vec<u8>,
    durable: Vec<u8>,
}

/// A folder in memory.
#[derive(Debug, Default)]
struct Model {
    files: Vec<Bytes>,
    /// Names as they are, and as they were when the folder was synchronised last.
    names: BTreeMap<String, usize>,
    durable_names: BTreeMap<String, usize>,
    /// Calls that are carried out before the power is cut.
    calls_left: usize,
}

/// The folder as the writer sees it.
struct Cut(RefCell<Model>);

impl Cut {
    fn call<T>(&self, call: impl FnOnce(&mut Model) -> T) -> io::Result<T> {
        let mut model = self.0.borrow_mut();
        match model.calls_left.checked_sub(1) {
            Some(left) => {
                model.calls_left = left;
                Ok(call(&mut model))
            }
            None => Err(io::ErrorKind::BrokenPipe.into()),
        }
    }
}

impl Disk for Cut {
    type File = usize;

    fn create(&self, name: &str) -> io::Result<usize> {
        self.call(|model| {
            model.files.push(Bytes::default());
            let file = model.files.len() - 1;
            model.names.insert(name.to_owned(), file);
            file
        })
    }

    fn write_at(&self, &file: &usize, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.call(|model| {
            let (now, start) = (&mut model.files[file].now, offset as usize);
            now.resize(now.len().max(start + bytes.len()), 0);
            now[start..start + bytes.len()].copy_from_slice(bytes);
        })
    }

    fn sync(&self, &file: &usize) -> io::Result<()> {
        self.call(|model| {
            let file = &mut model.files[file];
            file.durable.clone_from(&file.now);
        })
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.call(|model| {
            let file = model.names.remove(from).expect("it was made");
            model.names.insert(to.to_owned(), file);
        })
    }

    fn sync_folder(&self) -> io::Result<()> {
        self.call(|model| model.durable_names.clone_from(&model.names))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.call(|model| {
            model.names.remove(name);
        })
    }
}

impl Model {
    /// What is on the disk when there is power again.
    fn after_power_cut(&self, random: &mut fastrand::Rng) -> BTreeMap<String, Vec<u8>> {
        // Names reach the disk in order, or not yet.
        let names = if random.bool() {
            &self.names
        } else {
            &self.durable_names
        };
        let contents = |&file: &usize| self.files[file].after_power_cut(random);
        let contents: Vec<_> = names.values().map(contents).collect();
        names.keys().cloned().zip(contents).collect()
    }

    fn as_it_was(&self) -> BTreeMap<String, Vec<u8>> {
        let contents = |(name, &file): (&String, &usize)| (name.clone(), self.files[file].now.clone());
        self.names.iter().map(contents).collect()
    }
}

impl Bytes {
    fn after_power_cut(&self, random: &mut fastrand::Rng) -> Vec<u8> {
        let mut bytes = self.durable.clone();
        if self.now == self.durable {
            return bytes;
        }
        // A length between the two, then each block old, new, or what was on the disk before.
        let lengths = bytes.len().min(self.now.len())..=bytes.len().max(self.now.len());
        bytes.resize(random.usize(lengths), 0);
        for (index, block) in bytes.chunks_mut(512).enumerate() {
            let new = self.now.get(index * 512..).unwrap_or_default();
            match random.u8(..3) {
                0 => {}
                1 => block.iter_mut().zip(new).for_each(|(old, new)| *old = *new),
                _ => block.fill(random.u8(..)),
            }
        }
        bytes
    }
}

/// A memory of 16 pages; those with these numbers are filled with a byte.
fn memory(pages: &[u64], byte: u8) -> OwnedFd {
    let file = std::fs::File::from(empty_file().unwrap());
    file.set_len(16 * PAGE_BYTES).unwrap();
    for page in pages {
        file.write_all_at(&[byte; PAGE_BYTES as usize], page * PAGE_BYTES)
            .unwrap();
    }
    // One that is there, and zero.
    file.write_all_at(&[0; PAGE_BYTES as usize], 6 * PAGE_BYTES)
        .unwrap();
    file.into()
}

fn write(disk: &impl Disk, contents: &Contents, memory: &OwnedFd) -> Result<(), WriteError> {
    let data = [(0, 16 * PAGE_BYTES)];
    Writing::new(&IDENTITY, contents, plain(memory.as_fd()), &data)?.write(disk, NAME)
}

/// A memory in which nothing has changed.
fn plain(file: BorrowedFd<'_>) -> Memory<'_> {
    Memory { file, entries: &[] }
}

fn byte_at(memory: &OwnedFd, page: u64) -> u8 {
    let mut byte = [0];
    rustix::io::pread(memory, &mut byte, page * PAGE_BYTES).unwrap();
    byte[0]
}

/// What a daemon finds that starts with this in its folder: the value of a page of the memory.
fn found(disk: &BTreeMap<String, Vec<u8>>) -> Option<(Contents, u8)> {
    let folder = tempfile::tempdir().unwrap();
    for (name, bytes) in disk {
        std::fs::write(folder.path().join(name), bytes).unwrap();
    }
    let found = super::read(folder.path(), NAME, &IDENTITY).expect("what is there is whole");
    found.map(|(memory, contents)| {
        assert_eq!(byte_at(&memory, 6), 0);
        let byte = byte_at(&memory, 3);
        assert_eq!(byte, byte_at(&memory, 11));
        (contents, byte)
    })
}

#[test]
fn a_power_cut_leaves_the_old_file_or_the_new_one() {
    let mut random = fastrand::Rng::with_seed(1);
    let (old, new) = (contents(None), contents(Some(vec![(0, PAGE_BYTES)])));
    let (old_memory, new_memory) = (memory(&[3, 11], 7), memory(&[1, 2, 3, 11, 12], 9));
    for has_old in [false, true] {
        let (mut old_seen, mut new_seen) = (0, 0);
        let mut calls = 0;
        loop {
            let disk = Cut(RefCell::default());
            disk.0.borrow_mut().calls_left = usize::MAX;
            if has_old {
                write(&disk, &old, &old_memory).unwrap();
            }
            disk.0.borrow_mut().calls_left = calls;
            let written = write(&disk, &new, &new_memory);
            let model = disk.0.borrow();
            let is_done = written.is_ok();
            let before = has_old.then(|| (old.clone(), 7));
            let after = Some((new.clone(), 9));
            let mut states: Vec<_> = (0..50).map(|_| model.after_power_cut(&mut random)).collect();
            // The process alone has ended.
            states.push(model.as_it_was());
            for state in states {
                let state = found(&state);
                if state == after {
                    new_seen += 1;
                } else {
                    assert_eq!(state, before, "after {calls} calls");
                    assert!(!is_done, "what was done is there");
                    old_seen += 1;
                }
            }
            calls += 1;
            if is_done {
                break;
            }
        }
        // Made, tables, two stretches, header, synchronised, a new name, synchronised.
        assert_eq!(calls, 8 + 1, "a stop after each call was tried");
        assert!(old_seen > 100 && new_seen > 50, "{old_seen} {new_seen}");
    }
}

#[test]
fn a_failed_write_leaves_nothing_behind_where_the_disk_still_works() {
    let folder = tempfile::tempdir().unwrap();
    let disk = Folder::open(&folder.path().join("snapshots")).unwrap();
    write(&disk, &contents(None), &memory(&[3, 11], 7)).unwrap();
    // Of this memory there is less than is asked for.
    let short = std::fs::File::from(memory(&[3], 1));
    let data = [(0, 16 * PAGE_BYTES)];
    let writing = Writing::new(&IDENTITY, &contents(None), plain(short.as_fd()), &data).unwrap();
    short.set_len(PAGE_BYTES).unwrap();
    assert!(matches!(writing.write(&disk, NAME), Err(WriteError::Memory(_))));
    let names: Vec<_> = disk
        .entries()
        .unwrap()
        .into_iter()
        .map(|entry| entry.name)
        .collect();
    assert_eq!(names, [NAME]);
    let (memory, _) = super::read(&folder.path().join("snapshots"), NAME, &IDENTITY)
        .unwrap()
        .unwrap();
    assert_eq!(byte_at(&memory, 3), 7);
}

#[test]
fn what_is_no_regular_file_is_not_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(NAME);
    assert!(super::read(folder.path(), NAME, &IDENTITY).unwrap().is_none());
    std::os::unix::fs::symlink("elsewhere", &path).unwrap();
    assert!(super::read(folder.path(), NAME, &IDENTITY).is_err());
    std::fs::remove_file(&path).unwrap();
    std::fs::create_dir(&path).unwrap();
    assert!(super::read(folder.path(), NAME, &IDENTITY).is_err());
    let disk = Folder::open(folder.path()).unwrap();
    assert!(disk.entries().unwrap().is_empty());
    let mut half = std::fs::File::create(folder.path().join(format!("{NAME}{PARTIAL}"))).unwrap();
    half.write_all(b"half").unwrap();
    assert_eq!(disk.entries().unwrap().len(), 1);
}

#[test]
fn what_has_changed_since_the_capture_is_written_as_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let disk = Folder::open(folder.path()).unwrap();
    let changed = memory(&[3, 11], 7);
    let entries = [
        (3 * PAGE_BYTES, u64::from_ne_bytes([5; 8])),
        (3 * PAGE_BYTES + 4088, 0),
        // Nothing is there.
        (5 * PAGE_BYTES, 0),
        (16 * PAGE_BYTES, 1),
        (u64::MAX - 7, 1),
    ];
    let memory = Memory {
        file: changed.as_fd(),
        entries: &entries,
    };
    let data = [(3 * PAGE_BYTES, PAGE_BYTES), (11 * PAGE_BYTES, PAGE_BYTES)];
    let writing = Writing::new(&IDENTITY, &contents(None), memory, &data).unwrap();
    writing.write(&disk, NAME).unwrap();
    let (read, _) = super::read(folder.path(), NAME, &IDENTITY).unwrap().unwrap();
    let mut page = [0; PAGE_BYTES as usize];
    rustix::io::pread(&read, &mut page, 3 * PAGE_BYTES).unwrap();
    assert_eq!(
        (&page[..8], page[8], page[4087], &page[4088..]),
        (&[5; 8][..], 7, 7, &[0; 8][..])
    );
    assert_eq!(byte_at(&read, 11), 7);
}
