//! Snapshots: the memory of instances that were booted once and stopped when they were ready. Others are private copies.
//!
//! ```text
//!   start ──> cell of this function as it is configured ──empty──> boot within an empty file ──> sealed file + registers
//!               └──filled──> clone                                   └── cannot be captured ──> every instance is booted
//! ```
//!
//! A snapshot lives in memory, for as long as its function is deployed or until too many others were made; the files of
//! `snapshot_files` outlive that. Whoever starts an instance while its snapshot is being made waits for that.

use std::collections::{HashMap, VecDeque};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt as _;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use rustix::fs::{SealFlags, SeekFrom, fcntl_add_seals, fstat, seek};
use rustix::io::Errno;
use spore_monitor::features::Features;
use spore_monitor::protocol::{
    self, Captured, ProcessorState, SNAPSHOT_EXTENTS_MAX, STOCK_BYTES_MAX, Snapshot,
};
use spore_monitor::{RootFiles, Text};
use spore_sandbox::{InstanceSpec, Isolation, StartError};
use tokio::sync::OnceCell;

use crate::snapshot_files::{Contents, Filing};
use crate::supply::Stock;
use crate::texts::Texts;

/// How many snapshots are kept; beyond that the one that was made first goes.
const KEPT: usize = 64;
/// Stretches with a gap that is not longer than this, in bytes, are one: each takes a mapping in every copy.
const GAP_BYTES: u64 = 128 << 10;

/// Memory that a copy gets ahead at most, in bytes.
const AHEAD_BYTES_MAX: u64 = 16 << 20;
const PAGE_BYTES: u64 = 4096;

/// The snapshot of a function, once it is known whether there can be one.
pub(crate) type Cell = Arc<OnceCell<Option<Arc<Resident>>>>;

/// A snapshot.
#[derive(Debug)]
pub(crate) struct Resident {
    /// Nobody can write to it any more.
    file: OwnedFd,
    file_bytes: u64,
    /// The files of the root.
    root: RootFiles,
    extents: Vec<(u64, u64)>,
    processor: ProcessorState,
    /// See [`Captured::text_offers`].
    text_offers: Vec<(u64, u64)>,
    /// What the entries were that they name, which lead to the text now: address and value.
    entries: Vec<(u64, u64)>,
    /// Its text in large pages, if there is any.
    text: Option<Arc<Text>>,
    /// What copies need while they give their first answer ([`Snapshot::written`]), when one has.
    written: OnceLock<Vec<(u64, u64)>>,
    stock: OnceLock<Stock>,
    filing: Filing,
}

/// The snapshots of all functions.
#[derive(Default)]
pub(crate) struct Snapshots {
    known: Mutex<Known>,
    /// What they have of text in large pages.
    pub(crate) texts: Arc<Texts>,
}

#[derive(Default)]
struct Known {
    cells: VecDeque<(InstanceSpec, Cell)>,
    /// What there may be snapshots of, by the name of the function; of everything before that was told.
    deployed: Option<HashMap<String, InstanceSpec>>,
}

impl Snapshots {
    /// The snapshot that was made of instances like this one in another form, if there is one.
    pub(crate) fn of_other_form(&self, spec: &InstanceSpec) -> Option<Arc<Resident>> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let is_other = |key: &InstanceSpec| key.isolation != spec.isolation && is_alike(key, spec);
        let (_, cell) = known.cells.iter().find(|(key, _)| is_other(key))?;
        cell.get().cloned().flatten()
    }

    /// The place for the snapshot of instances like this one; none if they are not deployed any more.
    pub(crate) fn cell(&self, spec: &InstanceSpec) -> Option<Cell> {
        // Everything that an instance can see of its configuration is in here but its own name.
        let key = InstanceSpec {
            instance: String::new(),
            ..spec.clone()
        };
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let Known { cells, deployed } = &mut *known;
        let is_unknown = |deployed: &HashMap<_, _>| deployed.get(&key.function) != Some(&key);
        if deployed.as_ref().is_some_and(is_unknown) {
            return None;
        }
        cells.retain(|(known, cell)| *known != key || !is_distrusted(cell));
        if let Some((_, cell)) = cells.iter().find(|(known, _)| *known == key) {
            return Some(Arc::clone(cell));
        }
        if cells.len() >= KEPT {
            cells.pop_front();
        }
        let cell = Cell::default();
        cells.push_back((key, Arc::clone(&cell)));
        Some(cell)
    }

    /// Keeps the snapshots of these only, in whichever form, from now on. Returns the others: their memory is free when they are dropped and
    /// their last copy has ended.
    pub(crate) fn retain(&self, deployed: &[InstanceSpec]) -> Vec<Cell> {
        let by_name = |spec: &InstanceSpec| (spec.function.clone(), spec.clone());
        let deployed: HashMap<_, _> = deployed.iter().map(by_name).collect();
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let cells = std::mem::take(&mut known.cells).into_iter();
        let (kept, freed): (_, VecDeque<_>) = cells.partition(|(key, _)| {
            deployed
                .get(&key.function)
                .is_some_and(|spec| is_alike(spec, key))
        });
        known.cells = kept;
        known.deployed = Some(deployed);
        freed.into_iter().map(|(_, cell)| cell).collect()
    }
}

/// Whether instances differ in nothing but their names and their forms.
fn is_alike(one: &InstanceSpec, other: &InstanceSpec) -> bool {
    let alike = InstanceSpec {
        instance: one.instance.clone(),
        isolation: one.isolation,
        ..other.clone()
    };
    alike == *one
}

fn is_distrusted(cell: &Cell) -> bool {
    matches!(cell.get(), Some(Some(resident)) if resident.filing.is_distrusted())
}

impl Resident {
    /// A snapshot within a file to which nobody writes any more.
    pub(crate) fn new(
        file: OwnedFd,
        captured: Captured,
        root: RootFiles,
        texts: &Texts,
        filing: Filing,
    ) -> io::Result<Self> {
        let file = File::from(file);
        let entries = offered_entries(&file, &captured.text_offers)?;
        let text = texts.of(&file, &root, &captured.text_offers)?;
        let file = OwnedFd::from(file);
        // Refused if somebody could still write to it.
        fcntl_add_seals(
            &file,
            SealFlags::WRITE | SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL,
        )?;
        let extents = joined(&stretches(&file)?, GAP_BYTES);
        Ok(Self {
            file_bytes: fstat(&file)?.st_size.unsigned_abs(),
            file,
            root,
            extents,
            processor: captured.processor,
            text_offers: captured.text_offers,
            entries,
            text,
            written: OnceLock::new(),
            stock: OnceLock::new(),
            filing,
        })
    }

    /// What a copy needs that is not there where guests have these features; none if it can go on there.
    pub(crate) fn missing_in(&self, isolation: Isolation, here: &Features) -> Option<String> {
        if isolation == Isolation::Process && self.text.is_some() {
            return Some("its text is in large pages, which a process does not map".to_owned());
        }
        self.processor.features.missing_in(here)
    }

    /// The files that a monitor needs for that: of the root, of the memory, and of the text.
    pub(crate) fn files(&self) -> Vec<BorrowedFd<'_>> {
        let text = self.text.as_ref().map(|text| text.file.as_fd());
        let root = self.root.files();
        root.chain([self.file.as_fd()]).chain(text).collect()
    }

    /// What is made ready before it is known whose copy it is for: of what copies need, the first, if that is known.
    pub(crate) fn stock(&self) -> Stock {
        let places = protocol::Stock {
            pages: Vec::new(),
            program_bytes: self.root.bytes(),
            text_bytes: self.text.as_ref().map_or(0, |text| text.bytes),
        };
        let Some(written) = self.written.get() else {
            return Arc::new(places);
        };
        let mut bytes = 0;
        let is_room = |(_, length): &(u64, u64)| {
            let is_room = bytes < STOCK_BYTES_MAX;
            bytes += length;
            is_room
        };
        let stock = || {
            Arc::new(protocol::Stock {
                pages: written.iter().copied().take_while(is_room).collect(),
                ..places
            })
        };
        Arc::clone(self.stock.get_or_init(stock))
    }

    /// What a monitor needs to know to make a copy. Without room it gets nothing ahead.
    pub(crate) fn snapshot(&self, has_room: bool) -> Snapshot {
        let written = self.written.get();
        Snapshot {
            extents: self.extents.clone(),
            processor: self.processor.clone(),
            text_bytes: self.text.as_ref().map_or(0, |text| text.bytes),
            written: written.map(|written| if has_room { written.clone() } else { Vec::new() }),
        }
    }

    /// Takes what a monitor says that its guest has needed. It may be wrong: then copies are slower or larger, within
    /// bounds.
    pub(crate) fn note_written(self: &Arc<Self>, stretches: &[(u64, u64)]) {
        if self.set_written(stretches) {
            self.filing.has_changed(self);
        }
    }

    /// The same, of what its file says. Whether it was not known before: another copy may have been first.
    pub(crate) fn set_written(&self, stretches: &[(u64, u64)]) -> bool {
        self.written.set(ahead(stretches, self.file_bytes)).is_ok()
    }

    /// What becomes of its file.
    pub(crate) fn filing(&self) -> &Filing {
        &self.filing
    }

    /// What its file has besides the memory.
    pub(crate) fn contents(&self) -> Contents {
        Contents {
            memory_bytes: self.file_bytes,
            captured: Captured {
                processor: self.processor.clone(),
                text_offers: self.text_offers.clone(),
            },
            written: self.written.get().cloned(),
        }
    }

    /// Its memory.
    pub(crate) fn memory(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    /// What has changed in it since it was captured: words (address and value) as they were.
    pub(crate) fn entries(&self) -> &[(u64, u64)] {
        &self.entries
    }

    /// The stretches of its memory that hold something.
    pub(crate) fn data(&self) -> io::Result<Vec<(u64, u64)>> {
        stretches(&self.file)
    }
}

/// The entries of page tables that these offers name, as they are: address and value.
fn offered_entries(memory: &File, offers: &[(u64, u64)]) -> io::Result<Vec<(u64, u64)>> {
    let memory_bytes = memory.metadata()?.len();
    let mut entries = Vec::new();
    for &(entry_gpa, _) in offers {
        let mut value = [0; 8];
        // One that makes no sense stays as it is.
        let end = entry_gpa.checked_add(value.len() as u64);
        if entry_gpa.is_multiple_of(8) && end.is_some_and(|end| end <= memory_bytes) {
            memory.read_exact_at(&mut value, entry_gpa)?;
            entries.push((entry_gpa, u64::from_ne_bytes(value)));
        }
    }
    Ok(entries)
}

/// The stretches of a memory of so many bytes for which copies get memory ahead: from the first one on as far as they make
/// sense and the bound allows.
fn ahead(stretches: &[(u64, u64)], memory_bytes: u64) -> Vec<(u64, u64)> {
    let mut end = 0;
    let makes_sense = |&&(start, length): &&(u64, u64)| {
        let is_page = start.is_multiple_of(PAGE_BYTES) && length.is_multiple_of(PAGE_BYTES) && length > 0;
        let is_in_order = start >= end;
        end = start.saturating_add(length);
        is_page && is_in_order && end <= memory_bytes
    };
    let sensible: Vec<_> = stretches.iter().take_while(makes_sense).copied().collect();
    let mut left = AHEAD_BYTES_MAX;
    let fits = |&(_, length): &(u64, u64)| {
        let fits = length <= left;
        left = left.saturating_sub(length);
        fits
    };
    // What lies between them counts too.
    joined(&sensible, PAGE_BYTES)
        .into_iter()
        .take_while(fits)
        .collect()
}

/// An empty file in memory.
pub(crate) fn empty_file() -> io::Result<OwnedFd> {
    spore_monitor::memory_file(c"spore-snapshot")
}

/// What is said of a monitor that does with its memory what nobody has asked for.
pub(crate) fn unasked() -> StartError {
    let source = io::Error::other("it has not done with the memory what it was asked to");
    StartError::Host {
        what: "agreeing with the monitor about a snapshot",
        source,
    }
}

/// The stretches of a file that hold something (lseek(2), SEEK_DATA).
fn stretches(file: &OwnedFd) -> io::Result<Vec<(u64, u64)>> {
    let mut found = Vec::new();
    let mut at = 0;
    loop {
        let start = match seek(file, SeekFrom::Data(at)) {
            Ok(start) => start,
            // Nothing more.
            Err(Errno::NXIO) => return Ok(found),
            Err(error) => return Err(error.into()),
        };
        at = seek(file, SeekFrom::Hole(start))?;
        found.push((start, at - start));
    }
}

/// Joins stretches (start and length) with small gaps, and more of them if there would be too many.
fn joined(stretches: &[(u64, u64)], gap_bytes: u64) -> Vec<(u64, u64)> {
    let mut joined: Vec<(u64, u64)> = Vec::new();
    for &(start, length) in stretches {
        match joined.last_mut() {
            Some((last, last_length)) if start - (*last + *last_length) <= gap_bytes => {
                *last_length = start + length - *last;
            }
            _ => joined.push((start, length)),
        }
    }
    if joined.len() > SNAPSHOT_EXTENTS_MAX {
        return self::joined(&joined, gap_bytes.saturating_mul(2));
    }
    joined
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stretches_of_a_file_are_found() {
        let file = empty_file().unwrap();
        let file = std::fs::File::from(file);
        file.set_len(1 << 20).unwrap();
        for page in [0, 1, 7, 200] {
            file.write_all_at(&[1], page * 4096).unwrap();
        }
        let found = stretches(&file.into()).unwrap();
        assert_eq!(found, [(0, 8192), (7 * 4096, 4096), (200 * 4096, 4096)]);
        assert_eq!(joined(&found, 4096), found);
        assert_eq!(joined(&found, 5 * 4096), [(0, 8 * 4096), (200 * 4096, 4096)]);
    }

    #[test]
    fn memory_ahead_is_bounded_whatever_a_monitor_says() {
        let page = PAGE_BYTES;
        let all = [(0, page), (2 * page, page), (9 * page, 3 * page)];
        assert_eq!(ahead(&all, 1 << 30), [(0, 3 * page), (9 * page, 3 * page)]);
        assert_eq!(ahead(&all, 11 * page), [(0, 3 * page)], "beyond the end");
        for bad in [
            (8 * page + 1, page),
            (8 * page, 1),
            (page, page),
            (u64::MAX - 4095, page),
            (8 * page, 0),
        ] {
            assert_eq!(ahead(&[(0, 2 * page), bad], 1 << 30), [(0, 2 * page)], "{bad:?}");
        }
        let scattered: Vec<_> = (0..8192).map(|index| (index << 20, page)).collect();
        let bytes: u64 = ahead(&scattered, 16 << 30).iter().map(|(_, length)| length).sum();
        assert!(bytes <= AHEAD_BYTES_MAX, "{bytes}");
        assert!(ahead(&[(0, AHEAD_BYTES_MAX + page)], 1 << 30).is_empty());
    }

    #[test]
    fn what_is_not_deployed_any_more_has_no_place() {
        let spec = |function: &str, memory_bytes| InstanceSpec {
            function: function.to_owned(),
            instance: String::new(),
            root: spore_sandbox::Root::Program("program".into()),
            root_digest: None,
            arguments: Vec::new(),
            environment: Vec::new(),
            working_directory: "/".to_owned(),
            user: spore_sandbox::User::default(),
            secrets: Vec::new(),
            rewrites_calls: true,
            is_cloned: true,
            is_reset: false,
            egress: Vec::new(),
            port: 8080,
            serves_runtime_api: false,
            command: None,
            unikernel: None,
            memory_bytes,
            isolation: None,
            sandbox: spore_sandbox::SandboxKind::Unikernel,
            processor_millis: 1000,
            ready_timeout: std::time::Duration::from_secs(1),
        };
        let snapshots = Snapshots::default();
        let [a, b] = ["a", "b"].map(|name| snapshots.cell(&spec(name, 1)).expect("nobody has told"));
        let named = InstanceSpec {
            instance: "a-1".to_owned(),
            ..spec("a", 1)
        };
        assert!(Arc::ptr_eq(&a, &snapshots.cell(&named).unwrap()));
        let freed = snapshots.retain(&[spec("a", 1), spec("b", 2)]);
        assert!(freed.len() == 1 && Arc::ptr_eq(&freed[0], &b));
        assert!(Arc::ptr_eq(&a, &snapshots.cell(&named).unwrap()));
        assert!(snapshots.cell(&spec("b", 1)).is_none(), "it was replaced");
        assert!(snapshots.cell(&spec("b", 2)).is_some());
        assert!(snapshots.cell(&spec("c", 1)).is_none());
        assert_eq!(snapshots.retain(&[]).len(), 2);
        assert!(snapshots.cell(&named).is_none());
    }

    #[test]
    fn there_are_never_too_many_stretches() {
        let many: Vec<_> = (0..10_000).map(|index| (index * 1_000_000, 4096)).collect();
        let joined = joined(&many, GAP_BYTES);
        assert!((1..=SNAPSHOT_EXTENTS_MAX).contains(&joined.len()));
        assert_eq!(joined[0].0, 0);
        let last = joined.last().unwrap();
        assert_eq!(last.0 + last.1, 9_999 * 1_000_000 + 4096);
    }
}
