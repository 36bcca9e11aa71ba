//! What the daemon keeps on disk, under one directory.
//!
//! ```text
//! DIR/spore.redb           function records, namespaces, secrets, image tags, manifests' media types; locked while a daemon
//!                          runs; for the daemon's user only
//! DIR/queue.redb           invocations that nobody waits for
//! DIR/blobs/sha256/HEX     manifests, configurations and layers, as in an OCI image layout
//! DIR/credentials/         name and password of clients, if the daemon has made them itself
//! DIR/uploads/             blobs that are being pushed, images that are being unpacked; emptied at start-up
//! DIR/downloads/HEX        blobs that are being pulled: the next try goes on with what is there
//! DIR/derived/HEX/         from the image whose manifest has that digest: its program alone as `program`, or
//!                          its root file system as `root.erofs`, or as `head.erofs` what that is beside a base; what
//!                          that file is known by as `seal.json`, and programs that were found in it as `checked.json`
//! DIR/derived/bases/HEX/   root file systems of the lower layers that images have in common
//! DIR/snapshots/           the sandbox's, if it keeps any; nothing of this store's
//! DIR/logs/NAME.NS/        lines that the function's instances wrote
//! ```
//!
//! A file appears under its final name only complete and synchronised, so that a power cut or `kill -9` leaves
//! nothing half-made that is believed later. Everything here blocks, except where a function is `async`.

mod archive;
mod check;
mod collect;
mod commands;
mod credentials;
mod database;
mod deployment;
mod derived;
mod describe;
mod digest;
mod downloads;
mod elf;
mod files;
mod foreign;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod images;
mod layered;
mod logs;
mod manifests;
mod namespaces;
mod program;
mod protocol;
mod queue;
mod records;
mod reference;
mod secrets;
mod unikernels;
mod unpack;
mod users;

use std::fs::{File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use archive::{ArchiveEntry, read_archive};
pub use check::CheckReport;
pub use collect::{CollectError, Collected, NamedImage};
pub use credentials::{CredentialFolder, PASSWORD_FILE, USER_FILE};
use database::{Database, DatabaseOpenError};
pub use deployment::{FunctionDeployment, FunctionRecord, Resources};
pub use describe::{DerivedDescription, ImageDescription, ImageOutline, LayerDescription};
pub use digest::{Digest, DigestParseError};
pub use downloads::Download;
pub use elf::ElfError;
pub use images::{
    FinishError, ImageStore, MAX_BLOB_BYTES, MAX_MANIFEST_BYTES, Manifest, ManifestError, Upload,
};
pub use logs::{FunctionLog, LogQuery, LogReader, LogRecord, LogStore};
pub use manifests::{AnyManifest, choose_platform, digest_of, platform_of, platforms};
pub use namespaces::{NamespaceRecord, Namespaces};
pub use program::{DeriveError, Program};
pub use protocol::Protocol;
pub use queue::{QueueChange, QueueStore};
pub use records::{RecordError, Records};
pub use reference::{ImageReference, ReferenceParseError, Selector, is_repository, is_tag};
pub use secrets::Secrets;
pub use unikernels::{Unikernel, UnikernelFormat};
pub use unpack::LayerError;

const DATABASE_FILE: &str = "spore.redb";
const QUEUE_FILE: &str = "queue.redb";
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
    /// Namespaces other than the default one.
    pub namespaces: Namespaces,
    /// Secrets of functions.
    pub secrets: Secrets,
    /// Images by digest.
    pub images: ImageStore,
    /// Credentials that the daemon has made for itself.
    pub credentials: CredentialFolder,
    /// Logs of the functions.
    pub logs: LogStore,
    /// Invocations that nobody waits for.
    pub queue: QueueStore,
    /// Held for as long as the directory is used. The database has a lock of its own, which it gives up for a moment
    /// when it is opened anew.
    _lock: Option<File>,
}

impl Store {
    /// Opens the directory, making it and what is missing in it.
    pub fn open(directory: &Path) -> Result<Self, OpenError> {
        make_folder(directory)?;
        let lock = lock(directory)?;
        let open = |file| {
            let path = directory.join(file);
            Database::open(&path).map_err(|error| match error {
                DatabaseOpenError::InUse => OpenError::InUse {
                    directory: directory.to_owned(),
                },
                DatabaseOpenError::Library(source) => OpenError::Database { path, source },
                DatabaseOpenError::Damaged => OpenError::Damaged { path },
            })
        };
        let database = Arc::new(open(DATABASE_FILE)?);
        let queue = QueueStore::new(open(QUEUE_FILE)?);
        let images = ImageStore::open(directory, database.clone())?;
        let logs = directory.join("logs");
        make_folder(&logs)?;
        let logs = LogStore::open(&logs).map_err(|source| OpenError::Files { path: logs, source })?;
        Ok(Self {
            records: Records::new(database.clone()),
            namespaces: Namespaces::new(database.clone()),
            secrets: Secrets::new(database),
            images,
            credentials: CredentialFolder::new(directory),
            logs,
            queue,
            _lock: lock,
        })
    }
}

/// Locks the directory; none where folders cannot be locked, as on some network file systems.
fn lock(directory: &Path) -> Result<Option<File>, OpenError> {
    let files_error = |source| OpenError::Files {
        path: directory.to_owned(),
        source,
    };
    let folder = File::open(directory).map_err(files_error)?;
    match folder.try_lock() {
        Ok(()) => Ok(Some(folder)),
        Err(TryLockError::WouldBlock) => Err(OpenError::InUse {
            directory: directory.to_owned(),
        }),
        Err(TryLockError::Error(_)) => Ok(None),
    }
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
