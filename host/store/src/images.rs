//! Images by digest: blobs in files, tags and media types in the database.
//!
//! ```text
//!  begin_upload ──> Upload ──append*──> finish ──digest right──> blobs/sha256/HEX
//!                     └─ dropped, or digest wrong: nothing is left
//! ```

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use redb::{TableDefinition, TableError};
use sha2::{Digest as _, Sha256};
use tempfile::NamedTempFile;

use crate::database::Database;
use crate::files::persist;
use crate::layered::Making;
use crate::manifests::{AnyManifest, choose_platform, digest_of};
use crate::reference::Selector;
use crate::{Digest, OpenError, RecordError, make_folder};

/// Longest blob that is taken, in bytes.
pub const MAX_BLOB_BYTES: u64 = 2 << 30;
/// Longest manifest that is taken, in bytes; the OCI distribution specification asks for 4 MiB.
pub const MAX_MANIFEST_BYTES: usize = 4 << 20;

/// Key: `REPOSITORY:TAG`; value: digest of the manifest.
pub(crate) const TAGS: TableDefinition<'_, &str, &str> = TableDefinition::new("tags");
/// Key: digest of the manifest; value: its media type.
pub(crate) const MANIFESTS: TableDefinition<'_, &str, &str> = TableDefinition::new("manifests");

/// Why an upload could not be finished.
#[derive(Debug, thiserror::Error)]
pub enum FinishError {
    /// What arrived is something else than announced.
    #[error("the content has digest {found}, not {expected}")]
    DigestMismatch {
        /// Digest of what arrived.
        found: Digest,
        /// Digest as announced.
        expected: Digest,
    },
    /// The file could not be written.
    #[error("the blob could not be stored")]
    Io(#[from] io::Error),
}

/// Why a manifest was not taken or found.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// Not a manifest that this store understands.
    #[error("it is neither an OCI image manifest nor an OCI image index")]
    Invalid(#[source] serde_json::Error),
    /// A blob that it names was not pushed before.
    #[error("it names {digest}, which was not pushed")]
    UnknownBlob {
        /// Digest of the missing blob, as written in the manifest.
        digest: String,
    },
    /// The digest in its address is not its own.
    #[error("the manifest has digest {found}, not {expected}")]
    DigestMismatch {
        /// Digest of what arrived.
        found: Digest,
        /// Digest as announced.
        expected: Digest,
    },
    /// The file could not be written.
    #[error("the manifest could not be stored")]
    Io(#[from] io::Error),
    /// The database could not be written.
    #[error("the manifest could not be recorded")]
    Record(#[from] RecordError),
}

/// A stored manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// Digest of its bytes.
    pub digest: Digest,
    /// Media type under which it was pushed.
    pub media_type: String,
    /// Its bytes, exactly as pushed.
    pub bytes: Vec<u8>,
}

/// A blob on its way in. Dropping it removes what was written.
#[derive(Debug)]
pub struct Upload {
    file: NamedTempFile,
    hasher: Sha256,
    written_bytes: u64,
}

impl Upload {
    /// Adds to the end.
    pub fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes)?;
        self.hasher.update(bytes);
        self.written_bytes += bytes.len() as u64;
        Ok(())
    }

    /// Bytes that were added up to now.
    pub fn written_bytes(&self) -> u64 {
        self.written_bytes
    }
}

/// The images.
#[derive(Debug, Clone)]
pub struct ImageStore {
    pub(crate) blobs: PathBuf,
    pub(crate) uploads: PathBuf,
    pub(crate) downloads: PathBuf,
    pub(crate) derived: PathBuf,
    pub(crate) database: Arc<Database>,
    /// Blobs whose content was compared with their digest, and what their files looked like.
    verified: Arc<Mutex<HashMap<Digest, Stamp>>>,
    /// Blobs that somebody stored or asked for since the daemon started, and when: what is being pushed or pulled is not
    /// named by any manifest yet.
    pub(crate) used: Arc<Mutex<HashMap<Digest, Instant>>>,
    pub(crate) making: Making,
}

/// Length and time of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    bytes: u64,
    modified: (i64, i64),
}

impl Stamp {
    fn of(file: &File) -> io::Result<Self> {
        let metadata = file.metadata()?;
        Ok(Self {
            bytes: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
        })
    }
}

impl ImageStore {
    pub(crate) fn open(directory: &Path, database: Arc<Database>) -> Result<Self, OpenError> {
        let blobs = directory.join("blobs/sha256");
        let uploads = directory.join("uploads");
        let downloads = directory.join("downloads");
        let derived = directory.join("derived");
        if uploads.is_dir() {
            // What an earlier daemon did not finish; nobody else can be writing, the database is locked.
            fs::remove_dir_all(&uploads).map_err(|source| {
                let path = uploads.clone();
                OpenError::Files { path, source }
            })?;
        }
        for folder in [&blobs, &uploads, &downloads, &derived] {
            make_folder(folder)?;
        }
        let store = Self {
            blobs,
            uploads,
            downloads,
            derived,
            database,
            verified: Arc::default(),
            used: Arc::default(),
            making: Making::default(),
        };
        store.remove_old_downloads();
        Ok(store)
    }

    pub(crate) fn blob_path(&self, digest: Digest) -> PathBuf {
        self.blobs.join(digest.to_hex())
    }

    /// The file of a blob, whether it is there or not.
    #[must_use]
    pub fn blob_file(&self, digest: Digest) -> PathBuf {
        self.blob_path(digest)
    }

    /// Begins a blob.
    pub fn begin_upload(&self) -> io::Result<Upload> {
        let file = NamedTempFile::new_in(&self.uploads)?;
        Ok(Upload {
            file,
            hasher: Sha256::new(),
            written_bytes: 0,
        })
    }

    /// Ends a blob: it is stored if its digest is as expected.
    pub fn finish_upload(&self, upload: Upload, expected: Digest) -> Result<(), FinishError> {
        let found = Digest::from_hasher(upload.hasher);
        if found != expected {
            return Err(FinishError::DigestMismatch { found, expected });
        }
        let path = self.blob_path(expected);
        persist(upload.file, &path)?;
        self.note_stored(expected, &File::open(path)?)?;
        Ok(())
    }

    /// Notes that a blob was compared with its digest, and is wanted.
    pub(crate) fn note_stored(&self, digest: Digest, file: &File) -> io::Result<()> {
        self.note_verified(digest, Stamp::of(file)?);
        self.note_used(digest);
        Ok(())
    }

    /// Notes that somebody wants a blob.
    pub fn note_used(&self, digest: Digest) {
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        used.insert(digest, Instant::now());
    }

    fn note_verified(&self, digest: Digest, stamp: Stamp) {
        let mut verified = self.verified.lock().unwrap_or_else(PoisonError::into_inner);
        verified.insert(digest, stamp);
    }

    /// Length in bytes of a blob that need not be pushed; none if it is not there. Its content is compared with its digest
    /// the first time, and when its file was written since: one that is damaged is removed, so that it is pushed again.
    pub fn intact_blob(&self, digest: Digest) -> io::Result<Option<u64>> {
        // First, so that it is not collected between the look and the answer.
        self.note_used(digest);
        let Some((file, _)) = self.open_blob(digest)? else {
            let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
            used.remove(&digest);
            return Ok(None);
        };
        let stamp = Stamp::of(&file)?;
        let known = {
            let verified = self.verified.lock().unwrap_or_else(PoisonError::into_inner);
            verified.get(&digest).copied()
        };
        if known != Some(stamp) {
            if Digest::of_reader(file)? != digest {
                self.remove_damaged(digest)?;
                return Ok(None);
            }
            self.note_verified(digest, stamp);
        }
        Ok(Some(stamp.bytes))
    }

    /// Opens a blob; none if it is not there. The second part is its length in bytes.
    pub fn open_blob(&self, digest: Digest) -> io::Result<Option<(File, u64)>> {
        match File::open(self.blob_path(digest)) {
            Ok(file) => {
                let length = file.metadata()?.len();
                Ok(Some((file, length)))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Removes a blob whose content is not its own any more, so that it can be pushed again.
    pub(crate) fn remove_damaged(&self, digest: Digest) -> io::Result<()> {
        tracing::error!(%digest, "a damaged blob is removed");
        fs::remove_file(self.blob_path(digest))
    }

    /// Reads a blob that is at most `limit` bytes long; none if it is not there.
    pub(crate) fn read_blob(&self, digest: Digest, limit: usize) -> io::Result<Option<Vec<u8>>> {
        let Some((file, length)) = self.open_blob(digest)? else {
            return Ok(None);
        };
        if length > limit as u64 {
            return Err(io::Error::new(
                io::ErrorKind::FileTooLarge,
                format!("{digest} has more than {limit} bytes"),
            ));
        }
        let mut bytes = Vec::with_capacity(limit.min(length as usize));
        file.take(limit as u64).read_to_end(&mut bytes)?;
        Ok(Some(bytes))
    }

    /// Stores a manifest whose blobs were pushed before, and points the tag to it if it is pushed under one.
    pub fn put_manifest(
        &self,
        repository: &str,
        selector: &Selector,
        media_type: &str,
        bytes: &[u8],
    ) -> Result<Digest, ManifestError> {
        let found = Digest::of(bytes);
        if let Selector::Digest(expected) = *selector
            && expected != found
        {
            return Err(ManifestError::DigestMismatch { found, expected });
        }
        let manifest = AnyManifest::parse(bytes).map_err(ManifestError::Invalid)?;
        for digest in manifest.referenced() {
            self.require(&digest)?;
        }
        self.write_manifest(repository, selector, media_type, bytes)
    }

    /// Stores an index of which only the image for this platform is stored, as it is after a pull.
    pub fn put_pulled_index(
        &self,
        repository: &str,
        selector: &Selector,
        media_type: &str,
        bytes: &[u8],
    ) -> Result<Digest, ManifestError> {
        let manifest = AnyManifest::parse(bytes).map_err(ManifestError::Invalid)?;
        if let AnyManifest::Index(index) = &manifest
            && let Some(here) = choose_platform(index)
        {
            self.require(here.digest().as_ref())?;
        }
        self.write_manifest(repository, selector, media_type, bytes)
    }

    fn require(&self, digest: &str) -> Result<(), ManifestError> {
        let is_there = digest.parse().is_ok_and(|digest| self.blob_path(digest).exists());
        if is_there {
            return Ok(());
        }
        Err(ManifestError::UnknownBlob {
            digest: digest.to_owned(),
        })
    }

    fn write_manifest(
        &self,
        repository: &str,
        selector: &Selector,
        media_type: &str,
        bytes: &[u8],
    ) -> Result<Digest, ManifestError> {
        let digest = Digest::of(bytes);
        self.note_used(digest);
        let mut upload = self.begin_upload()?;
        upload.append(bytes)?;
        persist(upload.file, &self.blob_path(digest))?;
        self.record(repository, selector, media_type, digest)?;
        Ok(digest)
    }

    /// Parses a stored manifest; none if it is not stored.
    pub fn parsed_manifest(&self, digest: Digest) -> Result<Option<AnyManifest>, ManifestError> {
        let Some(bytes) = self.read_blob(digest, MAX_MANIFEST_BYTES)? else {
            return Ok(None);
        };
        AnyManifest::parse(&bytes)
            .map(Some)
            .map_err(ManifestError::Invalid)
    }

    /// The manifest of the image that is meant here, if the one with this digest is that of an index.
    pub fn platform_manifest(&self, digest: Digest) -> Result<Option<Digest>, ManifestError> {
        Ok(match self.parsed_manifest(digest)? {
            Some(AnyManifest::Index(index)) => choose_platform(&index).and_then(digest_of),
            Some(AnyManifest::Image(_)) => Some(digest),
            None => None,
        })
    }

    fn record(
        &self,
        repository: &str,
        selector: &Selector,
        media_type: &str,
        digest: Digest,
    ) -> Result<(), RecordError> {
        let digest = digest.to_string();
        self.database.write(|transaction| {
            transaction
                .open_table(MANIFESTS)?
                .insert(digest.as_str(), media_type)?;
            if let Selector::Tag(tag) = selector {
                transaction
                    .open_table(TAGS)?
                    .insert(format!("{repository}:{tag}").as_str(), digest.as_str())?;
            }
            Ok(())
        })
    }

    /// The digest that the selector chooses; none if no manifest was pushed under it.
    pub fn resolve(&self, repository: &str, selector: &Selector) -> Result<Option<Digest>, RecordError> {
        self.database.read(|transaction| {
            let text = match selector {
                Selector::Digest(digest) => Some(digest.to_string()),
                Selector::Tag(tag) => match transaction.open_table(TAGS) {
                    Ok(tags) => tags
                        .get(format!("{repository}:{tag}").as_str())?
                        .map(|digest| digest.value().to_owned()),
                    Err(TableError::TableDoesNotExist(_)) => None,
                    Err(error) => return Err(error.into()),
                },
            };
            let Some(digest) = text.and_then(|text| text.parse::<Digest>().ok()) else {
                return Ok(None);
            };
            Ok(media_type(transaction, digest)?.map(|_| digest))
        })
    }

    /// The manifest that the selector chooses; none if none was pushed under it.
    pub fn manifest(&self, repository: &str, selector: &Selector) -> Result<Option<Manifest>, ManifestError> {
        let Some(digest) = self.resolve(repository, selector)? else {
            return Ok(None);
        };
        let media_type = self
            .database
            .read(|transaction| media_type(transaction, digest))?;
        let bytes = self.read_blob(digest, MAX_MANIFEST_BYTES)?;
        Ok(media_type.zip(bytes).map(|(media_type, bytes)| Manifest {
            digest,
            media_type,
            bytes,
        }))
    }

    /// Tags of a repository, in order.
    pub fn tags(&self, repository: &str) -> Result<Vec<String>, RecordError> {
        self.database.read(|transaction| {
            let table = match transaction.open_table(TAGS) {
                Ok(table) => table,
                Err(TableError::TableDoesNotExist(_)) => return Ok(Vec::new()),
                Err(error) => return Err(error.into()),
            };
            let prefix = format!("{repository}:");
            let mut tags = Vec::new();
            for row in table.range(prefix.as_str()..)? {
                let (key, _) = row?;
                let Some(tag) = key.value().strip_prefix(&prefix) else {
                    break;
                };
                tags.push(tag.to_owned());
            }
            Ok(tags)
        })
    }
}

pub(crate) fn media_type(
    transaction: &redb::ReadTransaction,
    digest: Digest,
) -> Result<Option<String>, redb::Error> {
    match transaction.open_table(MANIFESTS) {
        Ok(table) => Ok(table
            .get(digest.to_string().as_str())?
            .map(|media_type| media_type.value().to_owned())),
        Err(TableError::TableDoesNotExist(_)) => Ok(None),
        Err(error) => Err(error.into()),
    }
}
