//! Blobs on their way in from another registry. What has arrived stays when the transfer breaks off or the daemon ends,
//! and the next try goes on from there.
//!
//! ```text
//!  begin_download ──> Download ──append*──> finish ──digest right──> blobs/sha256/HEX
//!       ^                 │                    └──digest wrong: nothing is left
//!       └──── dropped: downloads/HEX ──a day without a try, or prune──> gone
//! ```

use std::fs::{self, File, OpenOptions};
use std::io::{self, Seek, SeekFrom, Write};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use sha2::{Digest as _, Sha256};

use crate::Digest;
use crate::digest::hash;
use crate::files::sync_directory;
use crate::images::{FinishError, ImageStore};

/// How long a download that was broken off is kept.
const KEPT: Duration = Duration::from_secs(24 * 3600);

/// A blob on its way in. One at a time for each digest.
#[derive(Debug)]
pub struct Download {
    /// Locked while this is there.
    file: File,
    path: PathBuf,
    hasher: Sha256,
    written_bytes: u64,
}

impl Download {
    /// Adds to the end.
    ///
    /// # Errors
    ///
    /// If the file cannot be written.
    pub fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes)?;
        self.hasher.update(bytes);
        self.written_bytes += bytes.len() as u64;
        Ok(())
    }

    /// Bytes that are there, from earlier tries too.
    #[must_use]
    pub fn written_bytes(&self) -> u64 {
        self.written_bytes
    }

    /// Begins again with nothing.
    ///
    /// # Errors
    ///
    /// If the file cannot be written.
    pub fn restart(&mut self) -> io::Result<()> {
        self.file.set_len(0)?;
        self.file.rewind()?;
        self.hasher = Sha256::new();
        self.written_bytes = 0;
        Ok(())
    }
}

impl ImageStore {
    /// Begins a download, or goes on with one that was broken off. Waits for whoever downloads the same.
    ///
    /// # Errors
    ///
    /// If the file cannot be made or read.
    pub fn begin_download(&self, digest: Digest) -> io::Result<Download> {
        let path = self.downloads.join(digest.to_hex());
        let mut file = loop {
            let file = OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .open(&path)?;
            file.lock()?;
            // Whoever held the lock may have made it a blob, or removed it.
            let is_same = fs::metadata(&path).is_ok_and(|there| {
                file.metadata()
                    .is_ok_and(|here| (here.dev(), here.ino()) == (there.dev(), there.ino()))
            });
            if is_same {
                break file;
            }
        };
        let (hasher, written_bytes) = hash(&file)?;
        file.seek(SeekFrom::Start(written_bytes))?;
        Ok(Download {
            file,
            path,
            hasher,
            written_bytes,
        })
    }

    /// Ends a download: the blob is stored if its digest is as expected, and nothing is left otherwise.
    ///
    /// # Errors
    ///
    /// If it is another digest, or the file cannot be written.
    pub fn finish_download(&self, download: Download, expected: Digest) -> Result<(), FinishError> {
        let found = Digest::from_hasher(download.hasher);
        if found != expected {
            fs::remove_file(&download.path)?;
            return Err(FinishError::DigestMismatch { found, expected });
        }
        download.file.sync_all()?;
        fs::rename(&download.path, self.blob_path(expected))?;
        sync_directory(&self.blobs)?;
        self.note_stored(expected, &download.file)?;
        Ok(())
    }

    /// Removes downloads that nobody works on and that are older than `age`; bytes that were freed.
    pub(crate) fn remove_downloads(&self, age: Duration) -> io::Result<u64> {
        let mut freed_bytes = 0;
        for entry in fs::read_dir(&self.downloads)? {
            let entry = entry?;
            let metadata = entry.metadata()?;
            let is_young = metadata
                .modified()
                .and_then(|modified| {
                    SystemTime::now()
                        .duration_since(modified)
                        .map_err(io::Error::other)
                })
                .is_ok_and(|since| since < age);
            let file = File::open(entry.path())?;
            if !is_young && file.try_lock().is_ok() {
                fs::remove_file(entry.path())?;
                freed_bytes += metadata.len();
            }
        }
        Ok(freed_bytes)
    }

    /// Removes what was given up long ago.
    pub(crate) fn remove_old_downloads(&self) {
        if let Err(error) = self.remove_downloads(KEPT) {
            tracing::warn!(%error, "old downloads could not be removed");
        }
    }
}
