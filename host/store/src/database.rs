//! The embedded database of a data directory, which goes on after a failure of the disk.
//!
//! ```text
//!   open ──work fails by the disk, or panics──> closed ──next work──> opened anew ──> open
//!     └─the file is another one than before─────^ ^         └─ cannot be opened: the error, and the next work tries
//!                                                 └──────────────┘
//! ```
//!
//! After a failed write the library takes no other until the file is opened anew, be there room on the disk again or
//! not. A damaged page can make it panic; nothing of what it held in memory is used after that.

use std::fs;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use redb::{ReadTransaction, ReadableDatabase, WriteTransaction};

use crate::RecordError;

/// A file that is shorter than this, in bytes, stays as it is.
const COMPACTED_BYTES_MIN: u64 = 16 << 20;

/// For nobody but the daemon's user.
const FILE_MODE: u32 = 0o600;

/// Why the database could not be opened.
pub(crate) enum DatabaseOpenError {
    /// Another process has it open.
    InUse,
    /// The file cannot be read, or is not a database.
    Library(Box<redb::Error>),
    /// It is damaged in a way that the library did not foresee.
    Damaged,
}

impl<E: Into<redb::Error>> From<E> for DatabaseOpenError {
    fn from(error: E) -> Self {
        match error.into() {
            redb::Error::DatabaseAlreadyOpen => Self::InUse,
            other => Self::Library(Box::new(other)),
        }
    }
}

/// The database. One piece of work is done after the other.
#[derive(Debug)]
pub(crate) struct Database {
    path: PathBuf,
    /// None after a failure.
    open: Mutex<Option<Open>>,
}

#[derive(Debug)]
struct Open {
    database: redb::Database,
    /// Device and inode of the file, if they could be had.
    identity: Option<(u64, u64)>,
}

impl Open {
    /// Opens the file and reads all of it, so that damage is found now and not in the middle of some change.
    fn new(
        path: &Path,
        open: impl FnOnce(&Path) -> Result<redb::Database, redb::DatabaseError>,
    ) -> Result<Self, DatabaseOpenError> {
        let opening = AssertUnwindSafe(|| {
            let mut database = open(path)?;
            if !database.check_integrity()? {
                tracing::warn!(path = %path.display(), "the database was damaged and has repaired itself");
            }
            if let Err(error) = give_back(&mut database, path) {
                tracing::warn!(path = %path.display(), %error, "what the database does not need any more could not be given back");
            }
            let identity = identity(path);
            Ok(Self { database, identity })
        });
        catch_unwind(opening).unwrap_or(Err(DatabaseOpenError::Damaged))
    }
}

/// Makes the file shorter if it is long and mostly empty: what was removed leaves pages that only the database uses again.
fn give_back(database: &mut redb::Database, path: &Path) -> Result<(), redb::Error> {
    let file_bytes = fs::metadata(path)?.len();
    if file_bytes < COMPACTED_BYTES_MIN {
        return Ok(());
    }
    let transaction = database.begin_write()?;
    let stats = transaction.stats()?;
    transaction.abort()?;
    let used_bytes = stats.allocated_pages().saturating_mul(stats.page_size() as u64);
    if used_bytes < file_bytes / 2 {
        database.compact()?;
    }
    Ok(())
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    let metadata = fs::metadata(path).ok()?;
    Some((metadata.dev(), metadata.ino()))
}

fn close(open: &mut Option<Open>) {
    let closed = open.take();
    // What it does at its end may fail as the work before did.
    let _ = catch_unwind(AssertUnwindSafe(|| drop(closed)));
}

impl Database {
    /// Opens the file, making it if it is not there.
    pub(crate) fn open(path: &Path) -> Result<Self, DatabaseOpenError> {
        let open = Open::new(path, |path| {
            // It holds secrets. The library makes the file with whatever mode the process's mask leaves.
            let mut options = fs::OpenOptions::new();
            options.read(true).write(true).create(true).truncate(false);
            let file = options.mode(FILE_MODE).open(path)?;
            if file.metadata()?.permissions().mode() & 0o077 != 0 {
                file.set_permissions(fs::Permissions::from_mode(FILE_MODE))?;
            }
            redb::Database::builder().create_file(file)
        })?;
        Ok(Self {
            path: path.to_owned(),
            open: Mutex::new(Some(open)),
        })
    }

    /// Does work that reads.
    pub(crate) fn read<T>(
        &self,
        work: impl FnOnce(&ReadTransaction) -> Result<T, redb::Error>,
    ) -> Result<T, RecordError> {
        self.with(|database| work(&database.begin_read()?))
    }

    /// Does work that writes. Its changes have reached the disk when this returns; if it fails there are none.
    pub(crate) fn write<T>(
        &self,
        work: impl FnOnce(&WriteTransaction) -> Result<T, redb::Error>,
    ) -> Result<T, RecordError> {
        self.with(|database| {
            let transaction = database.begin_write()?;
            let result = work(&transaction)?;
            transaction.commit()?;
            Ok(result)
        })
    }

    fn with<T>(
        &self,
        work: impl FnOnce(&redb::Database) -> Result<T, redb::Error>,
    ) -> Result<T, RecordError> {
        let mut guard = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if guard
            .as_ref()
            .is_some_and(|open| open.identity != identity(&self.path))
        {
            tracing::warn!(path = %self.path.display(), "the database was removed or replaced");
            close(&mut guard);
        }
        let result = {
            let open = self.opened(&mut guard)?;
            catch_unwind(AssertUnwindSafe(|| work(&open.database)))
        };
        if !matches!(result, Ok(Ok(_))) {
            close(&mut guard);
        }
        match result {
            Ok(result) => result.map_err(|error| self.failed(error)),
            Err(_) => Err(self.damaged()),
        }
    }

    /// Opens the file again if it was closed after a failure. A file that is gone is not made anew: an empty database
    /// would hide what was lost.
    fn opened<'a>(&self, open: &'a mut Option<Open>) -> Result<&'a Open, RecordError> {
        match open {
            Some(open) => Ok(open),
            None => {
                let again = Open::new(&self.path, |path| redb::Database::open(path));
                let again = again.map_err(|error| match error {
                    DatabaseOpenError::InUse => self.failed(redb::Error::DatabaseAlreadyOpen),
                    DatabaseOpenError::Library(error) => self.failed(*error),
                    DatabaseOpenError::Damaged => self.damaged(),
                })?;
                tracing::info!(path = %self.path.display(), "the database was opened again");
                Ok(open.insert(again))
            }
        }
    }

    fn failed(&self, error: redb::Error) -> RecordError {
        let path = self.path.clone();
        match error {
            redb::Error::Io(source) => RecordError::Io { path, source },
            redb::Error::Corrupted(_) => RecordError::Damaged { path },
            other => RecordError::Database {
                path,
                source: Box::new(other),
            },
        }
    }

    fn damaged(&self) -> RecordError {
        RecordError::Damaged {
            path: self.path.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use redb::TableDefinition;

    use super::*;

    const TABLE: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("test");

    #[test]
    fn room_that_is_not_needed_is_given_back_at_the_next_opening() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("test.redb");
        let opened = || Database::open(&path).unwrap_or_else(|_| panic!("it is a database"));
        let length = || fs::metadata(&path).unwrap().len();
        let value = vec![7; 1 << 20];
        let database = opened();
        for number in 0..40 {
            let insert = |transaction: &WriteTransaction| {
                transaction.open_table(TABLE)?.insert(number, value.as_slice())?;
                Ok(())
            };
            database.write(insert).unwrap();
        }
        drop(database);
        let long = length();
        assert!(long > 40 << 20);
        let database = opened();
        assert!(length() > 40 << 20, "all of it is needed");
        let remove = |transaction: &WriteTransaction| {
            let mut table = transaction.open_table(TABLE)?;
            for number in 1..40 {
                table.remove(number)?;
            }
            Ok(())
        };
        database.write(remove).unwrap();
        drop(database);
        let database = opened();
        assert!(length() < 16 << 20, "{} after {long}", length());
        let read = |transaction: &ReadTransaction| {
            let found = transaction.open_table(TABLE)?.get(0)?;
            Ok(found.map(|found| found.value().to_vec()))
        };
        assert_eq!(database.read(read).unwrap(), Some(value));
    }
}
