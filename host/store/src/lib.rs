//! What the daemon keeps on disk, under one directory.
//!
//! ```text
//! DIR/spore.redb           function records, image tags, manifests' media types; locked while a daemon runs
//! DIR/blobs/sha256/HEX     manifests, configurations and layers, as in an OCI image layout
//! DIR/uploads/             blobs that are being pushed, images that are being unpacked; emptied at start-up
//! DIR/derived/HEX/         from the image whose manifest has that digest: its program alone as `program`, or
//!                          its root file system as `root.erofs`
//! DIR/logs/NAME.NS/        lines that the function's instances wrote
//! ```
//!
//! A file appears under its final name only complete and synchronised, so that a power cut or `kill -9` leaves
//! nothing half-made that is believed later. Everything here blocks, except where a function is `async`.

mod archive;
mod deployment;
mod digest;
mod elf;
mod files;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod images;
mod logs;
mod program;
mod records;
mod reference;
mod unpack;

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use deployment::{FunctionDeployment, FunctionRecord, Resources};
pub use digest::{Digest, DigestParseError};
pub use elf::ElfError;
pub use images::{
    FinishError, ImageStore, MAX_BLOB_BYTES, MAX_MANIFEST_BYTES, Manifest, ManifestError, Upload,
};
pub use logs::{FunctionLog, LogQuery, LogReader, LogRecord, LogStore};
pub use program::{DeriveError, Program};
pub use records::{RecordError, Records};
pub use reference::{ImageReference, ReferenceParseError, Selector, is_repository, is_tag};
pub use unpack::LayerError;

const DATABASE_FILE: &str = "spore.redb";
const DATABASE_ADVICE: &str = "put a copy of it back, or move it away to start without functions and images";

/// Why a data directory could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it open.
    #[error("the data directory {} is used by another daemon: stop that one, or name another directory", directory.display())]
    InUse {
        /// The data directory.
        directory: PathBuf,
    },
    /// Something else lies where a folder should be.
    #[error("{} is not a folder: move it away, or name another data directory", path.display())]
    NotAFolder {
        /// What is no folder.
        path: PathBuf,
    },
    /// A file or folder of it could not be made or opened.
    #[error("cannot use {}", path.display())]
    Files {
        /// What could not be made or opened.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The database could not be opened.
    #[error("cannot open the database {}: {DATABASE_ADVICE}", path.display())]
    Database {
        /// The database file.
        path: PathBuf,
        /// Why.
        #[source]
        source: Box<redb::Error>,
    },
    /// The database is damaged in a way that its library did not foresee.
    #[error("the database {} is damaged: {DATABASE_ADVICE}", path.display())]
    Damaged {
        /// The database file.
        path: PathBuf,
    },
}

/// An open data directory. Only one process at a time can have it open.
#[derive(Debug)]
pub struct Store {
    /// Function records.
    pub records: Records,
    /// Images by digest.
    pub images: ImageStore,
    /// Logs of the functions.
    pub logs: LogStore,
}

impl Store {
    /// Opens the directory, making it and what is missing in it.
    pub fn open(directory: &Path) -> Result<Self, OpenError> {
        make_folder(directory)?;
        // The library panics over some kinds of damage; nothing of it is used after that.
        let opening = AssertUnwindSafe(|| open_database(directory));
        let (database, records) = catch_unwind(opening).unwrap_or_else(|_| {
            let path = directory.join(DATABASE_FILE);
            Err(OpenError::Damaged { path })
        })?;
        let images = ImageStore::open(directory, database)?;
        let logs = directory.join("logs");
        make_folder(&logs)?;
        let logs = LogStore::open(&logs).map_err(|source| OpenError::Files { path: logs, source })?;
        Ok(Self {
            records,
            images,
            logs,
        })
    }
}

fn open_database(directory: &Path) -> Result<(Arc<redb::Database>, Records), OpenError> {
    let path = directory.join(DATABASE_FILE);
    let database = redb::Database::create(&path).map_err(|error| match error {
        redb::DatabaseError::DatabaseAlreadyOpen => OpenError::InUse {
            directory: directory.to_owned(),
        },
        other => OpenError::Database {
            path: path.clone(),
            source: Box::new(other.into()),
        },
    })?;
    let database = Arc::new(database);
    let records = Records::new(database.clone()).map_err(|source| OpenError::Database { path, source })?;
    Ok((database, records))
}

/// Makes the folder, and those above it, unless it is there.
pub(crate) fn make_folder(path: &Path) -> Result<(), OpenError> {
    std::fs::create_dir_all(path).map_err(|source| {
        let path = path.to_owned();
        if path.exists() {
            OpenError::NotAFolder { path }
        } else {
            OpenError::Files { path, source }
        }
    })
}
