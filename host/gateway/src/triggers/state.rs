//! Up to when schedules were kept, on disk, for those that make up for what the daemon missed.
//!
//! The file is written after calls were accepted and now and then between, always in full and under another name first, so
//! that it is there whole or not at all.

use std::io::Write as _;
use std::path::PathBuf;
use std::{fs, io};

use jiff::Timestamp;

/// Where that is written.
#[derive(Debug, Clone)]
pub(super) struct KeptUntil {
    path: PathBuf,
}

impl KeptUntil {
    /// In the data folder.
    pub(super) fn of(data: &std::path::Path) -> Self {
        Self {
            path: data.join("schedules-kept-until"),
        }
    }

    /// The time, if it was ever written, and whole.
    pub(super) fn read(&self) -> Option<Timestamp> {
        let text = fs::read_to_string(&self.path).ok()?;
        let milliseconds = text.strip_suffix('\n')?.parse().ok()?;
        Timestamp::from_millisecond(milliseconds).ok()
    }

    /// Writes the time. Blocks.
    pub(super) fn write(&self, time: Timestamp) -> io::Result<()> {
        let new = self.path.with_extension("new");
        let mut file = fs::File::create(&new)?;
        writeln!(file, "{}", time.as_millisecond())?;
        file.sync_data()?;
        fs::rename(new, &self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_whole_is_nothing() {
        let folder = tempfile::tempdir().expect("a folder");
        let kept = KeptUntil::of(folder.path());
        assert_eq!(kept.read(), None);
        let time = Timestamp::from_millisecond(1_700_000_000_123).expect("within range");
        kept.write(time).expect("written");
        assert_eq!(kept.read(), Some(time));
        for damaged in ["", "17", "x\n", "99999999999999999999\n"] {
            fs::write(&kept.path, damaged).expect("written");
            assert_eq!(kept.read(), None, "{damaged}");
        }
    }
}
