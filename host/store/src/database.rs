//! The embedded database of a data directory, which goes on after a failure of the disk.
//!
//! ```text
//!   open ──work fails by the disk, or panics──> suspect ──next work──> opened anew ──> open
//!                                                  ^         └─ cannot be opened: the error, and the next work tries
//!                                                  └──────────────┘
//! ```
//!
//! After a failed write the library takes no other until the file is opened anew, be there room on the disk again or
//! not. A damaged page can make it panic; nothing of what it held in memory is used after that.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{PoisonError, RwLock};

use redb::{ReadTransaction, ReadableDatabase, WriteTransaction};

use crate::RecordError;

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

/// The database.
#[derive(Debug)]
pub(crate) struct Database {
    path: PathBuf,
    /// None while it is suspect.
    open: RwLock<Option<redb::Database>>,
}

impl Database {
    /// Opens the file, making it if it is not there, and checks all of it.
    pub(crate) fn open(path: &Path) -> Result<Self, DatabaseOpenError> {
        let database = open_whole(|| redb::Database::create(path))?;
        Ok(Self {
            path: path.to_owned(),
            open: RwLock::new(Some(database)),
        })
    }

    /// Does work that reads.
    pub(crate) fn read<T>(
        &self,
        work: impl Fn(&ReadTransaction) -> Result<T, redb::Error>,
    ) -> Result<T, RecordError> {
        self.with(|database| work(&database.begin_read()?))
    }

    /// Does work that writes. Its changes have reached the disk when this returns; if it fails there are none.
    pub(crate) fn write<T>(
        &self,
        work: impl Fn(&WriteTransaction) -> Result<T, redb::Error>,
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
        self.open_anew()?;
        let guard = self.open.read().unwrap_or_else(PoisonError::into_inner);
        let Some(database) = guard.as_ref() else {
            // Another thread's work has failed in between.
            return Err(self.failed(redb::Error::PreviousIo));
        };
        let result = catch_unwind(AssertUnwindSafe(|| work(database)));
        drop(guard);
        match result {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) => {
                let error = self.failed(error);
                self.close();
                Err(error)
            }
            Err(_) => {
                self.close();
                Err(self.damaged())
            }
        }
    }

    /// Opens the file again if it was closed after a failure. A file that is gone is not made anew: an empty database
    /// would hide what was lost.
    fn open_anew(&self) -> Result<(), RecordError> {
        if self.open.read().unwrap_or_else(PoisonError::into_inner).is_some() {
            return Ok(());
        }
        let mut guard = self.open.write().unwrap_or_else(PoisonError::into_inner);
        if guard.is_none() {
            let opened = open_whole(|| redb::Database::open(&self.path));
            *guard = Some(opened.map_err(|error| match error {
                DatabaseOpenError::InUse => self.failed(redb::Error::DatabaseAlreadyOpen),
                DatabaseOpenError::Library(error) => self.failed(*error),
                DatabaseOpenError::Damaged => self.damaged(),
            })?);
            tracing::info!(path = %self.path.display(), "the database was opened again after a failure");
        }
        Ok(())
    }

    fn close(&self) {
        let closed = self.open.write().unwrap_or_else(PoisonError::into_inner).take();
        // What it does at its end may fail as the work before did.
        let _ = catch_unwind(AssertUnwindSafe(|| drop(closed)));
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

/// Opens a database and reads all of it, so that damage is found now and not in the middle of some change.
fn open_whole(
    open: impl FnOnce() -> Result<redb::Database, redb::DatabaseError>,
) -> Result<redb::Database, DatabaseOpenError> {
    let opening = AssertUnwindSafe(|| {
        let mut database = open()?;
        if !database.check_integrity()? {
            tracing::warn!("the database was damaged and has repaired itself");
        }
        Ok(database)
    });
    catch_unwind(opening).unwrap_or(Err(DatabaseOpenError::Damaged))
}
