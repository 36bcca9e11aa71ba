//! Which files of a folder are to be told of. Pure: no clock, no disk.
//!
//! ```text
//!   seen for the first time, or another fingerprint ──> unsettled ──QUIET without change──> told, known
//!                                                        ^   │
//!                                                        └───┘ another fingerprint
//! ```

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::time::Duration;

/// How long a file must not change before it is told of, so that one that is being written is told of once.
pub const QUIET: Duration = Duration::from_millis(500);

/// What tells one state of a file from another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fingerprint {
    /// Number of the file in its file system.
    pub inode: u64,
    /// Its length in bytes.
    pub bytes: u64,
    /// When it was changed, in nanoseconds since 1970.
    pub modified_ns: i128,
}

/// What has happened to a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// It was not there before.
    Created,
    /// It was.
    Changed,
}

impl Change {
    /// As functions are told.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Changed => "changed",
        }
    }
}

#[derive(Debug, Clone, Copy)]
struct Unsettled {
    fingerprint: Fingerprint,
    since: Duration,
}

/// What is known of a folder.
#[derive(Debug, Default)]
pub struct Settling {
    known: BTreeMap<OsString, Fingerprint>,
    unsettled: BTreeMap<OsString, Unsettled>,
}

impl Settling {
    /// Files that are there already, of which nobody is told.
    #[must_use]
    pub fn new(files: BTreeMap<OsString, Fingerprint>) -> Self {
        Self {
            known: files,
            unsettled: BTreeMap::new(),
        }
    }

    /// Takes what there is now, and says which files are to be told of. `now` is the time since any moment.
    pub fn look(
        &mut self,
        now: Duration,
        files: &BTreeMap<OsString, Fingerprint>,
    ) -> Vec<(OsString, Change)> {
        self.known.retain(|name, _| files.contains_key(name));
        self.unsettled.retain(|name, _| files.contains_key(name));
        let mut settled = Vec::new();
        for (name, fingerprint) in files {
            let known = self.known.get(name);
            if known == Some(fingerprint) {
                self.unsettled.remove(name);
                continue;
            }
            let change = if known.is_some() {
                Change::Changed
            } else {
                Change::Created
            };
            let fresh = Unsettled {
                fingerprint: *fingerprint,
                since: now,
            };
            let unsettled = self.unsettled.entry(name.clone()).or_insert(fresh);
            if unsettled.fingerprint != *fingerprint {
                *unsettled = fresh;
            } else if unsettled.since + QUIET <= now {
                self.unsettled.remove(name);
                self.known.insert(name.clone(), *fingerprint);
                settled.push((name.clone(), change));
            }
        }
        settled
    }

    /// A file was told of in vain: it is told of again.
    pub fn forget(&mut self, name: &OsString) {
        self.known.remove(name);
    }

    /// When to look again although nothing seems to have changed.
    #[must_use]
    pub fn next_at(&self) -> Option<Duration> {
        self.unsettled
            .values()
            .map(|unsettled| unsettled.since + QUIET)
            .min()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn fingerprint(version: u64) -> Fingerprint {
        Fingerprint {
            inode: 1,
            bytes: version,
            modified_ns: i128::from(version),
        }
    }

    #[test]
    fn a_file_is_told_of_once_it_rests() {
        let at = Duration::from_millis;
        let folder = |version: u64| BTreeMap::from([(OsString::from("a"), fingerprint(version))]);
        let mut settling = Settling::new(BTreeMap::new());
        assert_eq!(settling.look(at(0), &folder(1)), []);
        assert_eq!(settling.look(at(400), &folder(2)), [], "it is still written");
        assert_eq!(settling.look(at(700), &folder(2)), []);
        assert_eq!(settling.next_at(), Some(at(900)));
        assert_eq!(
            settling.look(at(900), &folder(2)),
            [("a".into(), Change::Created)]
        );
        assert_eq!(
            (settling.look(at(5000), &folder(2)), settling.next_at()),
            (vec![], None)
        );
        settling.look(at(6000), &folder(3));
        assert_eq!(
            settling.look(at(7000), &folder(3)),
            [("a".into(), Change::Changed)]
        );
        settling.look(at(8000), &BTreeMap::new());
        settling.look(at(9000), &folder(3));
        assert_eq!(
            settling.look(at(9500), &folder(3)),
            [("a".into(), Change::Created)]
        );
    }

    proptest! {
        /// Whoever looks often enough is told of each state that lasts, and of none twice in a row.
        #[test]
        fn what_rests_is_told_of_exactly_once(states in prop::collection::vec((0usize..3, 0u64..3, 1u64..1200), 1..80)) {
            let names = ["a", "b", "c"].map(OsString::from);
            let mut settling = Settling::new(BTreeMap::new());
            let mut files: BTreeMap<OsString, Fingerprint> = BTreeMap::new();
            let mut told: BTreeMap<OsString, Fingerprint> = BTreeMap::new();
            let mut now = 0;
            for (which, version, lasts) in states {
                match version {
                    0 => drop(files.remove(&names[which])),
                    version => drop(files.insert(names[which].clone(), fingerprint(version))),
                }
                told.retain(|name, _| files.contains_key(name));
                for _ in 0..lasts / 50 + 1 {
                    now += 50;
                    for (name, change) in settling.look(Duration::from_millis(now), &files) {
                        let before = told.insert(name.clone(), files[&name]);
                        prop_assert_ne!(before, Some(files[&name]), "told twice");
                        prop_assert_eq!(change == Change::Changed, before.is_some());
                    }
                }
                if settling.next_at().is_none() {
                    prop_assert_eq!(&told, &files);
                }
            }
            for _ in 0..20 {
                now += 50;
                for (name, _) in settling.look(Duration::from_millis(now), &files) {
                    told.insert(name.clone(), files[&name]);
                }
            }
            prop_assert_eq!(told, files);
        }
    }
}
