//! The thread that writes and removes files of snapshots. It is the only one that writes, has the lowest priority, and
//! begins when the answers that a snapshot was made for have left.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use rustix::process::setpriority_process;
use spore_monitor::chain;

use super::folder::{Disk as _, Entry, Folder, PARTIAL};
use super::identity::Identity;
use super::writing::{Memory, WriteError, Writing};
use crate::snapshots::{Cell, Resident};

/// How long the first answers have the machine for themselves.
const DELAY: Duration = Duration::from_secs(1);
/// When a file is tried again that could not be written, for want of room for example.
const RETRY_DELAY: Duration = Duration::from_secs(60);
/// Most files.
const FILES_MAX: usize = 256;
/// Most bytes of all of them.
const BYTES_MAX: u64 = 8 << 30;
/// What a file may take of the room that is left on the disk: 1 in so many.
const SHARE_OF_ROOM: u64 = 2;
/// The lowest priority (setpriority(2)).
const NICEST: i32 = 19;
/// Length of a file's name: a digest in hexadecimal digits.
const NAME_LENGTH: usize = 64;

/// What the thread is asked for.
#[derive(Debug)]
pub(super) enum Order {
    /// These are deployed, by the names of their files.
    Retain {
        deployed: HashMap<String, Identity>,
        /// Nobody wants these any more.
        freed: Vec<Cell>,
    },
    /// Write this one's file, if it is still wanted then.
    Write(Weak<Resident>),
}

/// Why there is no file of a snapshot.
#[derive(Debug, thiserror::Error)]
enum KeepError {
    #[error("its {bytes} bytes are more than all files together may have")]
    TooLarge { bytes: u64 },
    #[error("its {bytes} bytes are more than half of the room on the disk")]
    NoRoom { bytes: u64 },
    #[error("the folder cannot be read")]
    Folder(#[source] std::io::Error),
    #[error(transparent)]
    Write(#[from] WriteError),
}

/// What the thread has.
pub(super) struct Keeper {
    path: PathBuf,
    /// None until it is known what is deployed: the folder may be another daemon's before.
    folder: Option<Folder>,
    deployed: HashMap<String, Identity>,
    /// What is to be written, and when.
    due: Vec<(Instant, Weak<Resident>)>,
}

impl Keeper {
    pub(super) fn new(path: PathBuf) -> Self {
        Self {
            path,
            folder: None,
            deployed: HashMap::new(),
            due: Vec::new(),
        }
    }

    pub(super) fn run(mut self, queue: &Receiver<Order>) {
        // Of this thread alone. It would work with another one too.
        let _ = setpriority_process(None, NICEST);
        loop {
            let order = match self.due.iter().map(|(at, _)| at).min() {
                Some(at) => queue.recv_timeout(at.saturating_duration_since(Instant::now())),
                None => queue.recv().map_err(|_| RecvTimeoutError::Disconnected),
            };
            match order {
                Ok(Order::Retain { deployed, freed }) => {
                    drop(freed);
                    self.retain(deployed);
                }
                Ok(Order::Write(resident)) => self.due.push((Instant::now() + DELAY, resident)),
                Err(RecvTimeoutError::Timeout) => self.write_due(),
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
    }

    /// Removes what belongs to no function any more.
    fn retain(&mut self, deployed: HashMap<String, Identity>) {
        if self.folder.is_none() {
            match Folder::open(&self.path) {
                Ok(folder) => self.folder = Some(folder),
                Err(error) => {
                    tracing::warn!(%error, "snapshots are not kept: {} cannot be used", self.path.display());
                    return;
                }
            }
        }
        let Some(folder) = &self.folder else { return };
        let entries = folder.entries().unwrap_or_else(|error| {
            tracing::warn!(%error, "{} cannot be read", self.path.display());
            Vec::new()
        });
        for Entry { name, .. } in entries {
            let is_half = name.ends_with(PARTIAL);
            let has_changed = || match (deployed.get(&name), self.deployed.get(&name)) {
                (None, _) => true,
                // Of what was deployed before the daemon's start, the file itself tells when it is needed.
                (Some(_), None) => false,
                (Some(now), Some(before)) => now != before,
            };
            if is_half || name.len() == NAME_LENGTH && has_changed() {
                self.remove(folder, &name);
            }
        }
        self.deployed = deployed;
    }

    fn remove(&self, folder: &Folder, name: &str) {
        if let Err(error) = folder.remove(name) {
            tracing::warn!(%error, "{} cannot be removed", self.path.join(name).display());
        }
    }

    /// Writes what is due.
    fn write_due(&mut self) {
        let now = Instant::now();
        let (due, later) = std::mem::take(&mut self.due)
            .into_iter()
            .partition(|(at, _)| *at <= now);
        self.due = later;
        let due: Vec<(Instant, Weak<Resident>)> = due;
        for resident in due.into_iter().filter_map(|(_, resident)| resident.upgrade()) {
            if !self.write(&resident) {
                let again = Instant::now() + RETRY_DELAY;
                self.due.push((again, Arc::downgrade(&resident)));
            }
        }
    }

    /// Writes a snapshot's file; whether there is nothing left to do.
    fn write(&self, resident: &Resident) -> bool {
        let (Some(folder), Some((function, name, identity))) = (&self.folder, resident.filing().begin())
        else {
            return true;
        };
        // It may have been replaced or removed meanwhile.
        if self.deployed.get(name) != Some(identity) || resident.filing().is_distrusted() {
            return true;
        }
        match self.keep(folder, name, identity, resident) {
            Ok(bytes) => {
                tracing::info!(function, bytes, "its snapshot is in a file");
                true
            }
            Err(error) => {
                let reason = chain(&error);
                tracing::warn!(
                    function,
                    "its snapshot is in memory only, and in no file: {reason}"
                );
                matches!(
                    error,
                    KeepError::TooLarge { .. } | KeepError::Write(WriteError::Unfit(_))
                )
            }
        }
    }

    fn keep(
        &self,
        folder: &Folder,
        name: &str,
        identity: &Identity,
        resident: &Resident,
    ) -> Result<u64, KeepError> {
        let data = resident
            .data()
            .map_err(|error| KeepError::Write(WriteError::Memory(error)))?;
        let memory = Memory {
            file: resident.memory(),
            entries: resident.entries(),
        };
        let writing = Writing::new(identity, &resident.contents(), memory, &data)?;
        let bytes = writing.file_bytes();
        if bytes > BYTES_MAX {
            return Err(KeepError::TooLarge { bytes });
        }
        let entries = folder.entries().map_err(KeepError::Folder)?;
        for name in surplus(entries, name, bytes) {
            self.remove(folder, &name);
        }
        let available_bytes = folder.available_bytes().map_err(KeepError::Folder)?;
        if bytes > available_bytes / SHARE_OF_ROOM {
            return Err(KeepError::NoRoom { bytes });
        }
        writing.write(folder, name)?;
        Ok(bytes)
    }
}

/// Which files have to go so that one of this name and so many bytes can be there: those that were not used for longest.
fn surplus(mut entries: Vec<Entry>, name: &str, bytes: u64) -> Vec<String> {
    entries.retain(|entry| entry.name != name);
    entries.sort_by_key(|entry| std::cmp::Reverse(entry.used));
    let mut left = BYTES_MAX.saturating_sub(bytes);
    let stays = |(index, entry): (usize, &Entry)| {
        let fits = index + 1 < FILES_MAX && entry.bytes <= left;
        left = if fits { left - entry.bytes } else { 0 };
        fits
    };
    let staying = entries.iter().enumerate().map(stays).take_while(|&stays| stays);
    let staying = staying.count();
    entries.drain(staying..).map(|entry| entry.name).collect()
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;

    fn entries(count: usize, bytes: u64) -> Vec<Entry> {
        let entry = |index: usize| Entry {
            name: index.to_string(),
            bytes,
            used: SystemTime::UNIX_EPOCH + Duration::from_secs(index as u64 + 1),
        };
        (0..count).map(entry).collect()
    }

    #[test]
    fn the_files_that_were_not_used_for_longest_go_first() {
        let nothing: [&str; 0] = [];
        assert_eq!(surplus(entries(FILES_MAX - 1, 1), "new", 1), nothing);
        assert_eq!(surplus(entries(FILES_MAX, 1), "new", 1), ["0"]);
        assert_eq!(surplus(entries(FILES_MAX, 1), "7", 1), nothing, "it is replaced");
        assert_eq!(surplus(entries(4, BYTES_MAX / 4), "new", 1), ["0"]);
        assert_eq!(
            surplus(entries(4, BYTES_MAX / 4), "new", BYTES_MAX / 2),
            ["1", "0"]
        );
        assert_eq!(surplus(entries(2, 1), "new", BYTES_MAX), ["1", "0"]);
        let mut mixed = entries(3, 1);
        mixed[1].bytes = BYTES_MAX;
        assert_eq!(
            surplus(mixed, "new", 1),
            ["1", "0"],
            "none is older than one that goes"
        );
    }
}
