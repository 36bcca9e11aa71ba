//! Whether the images in the store are whole: every file compared with its digest, every name followed to its end.

use std::fs::{self, File};
use std::io;

use crate::collect::{CollectError, digest_of_name};
use crate::derived::is_sealed;
use crate::{Digest, Store};

/// What a look at everything has found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CheckReport {
    /// Blobs that were read.
    pub blobs: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Images that have a name or are used by a function.
    pub images: u64,
    /// Programs and root file systems that were made from images.
    pub derived: u64,
    /// What is wrong, a line each; none if all is whole.
    pub problems: Vec<String>,
}

impl Store {
    /// Reads all of the images. It changes nothing, and takes as long as the disk needs.
    ///
    /// # Errors
    ///
    /// If the folders or the database cannot be read at all; what is wrong with single files is in the report.
    pub fn check_images(&self) -> Result<CheckReport, CollectError> {
        let mut report = CheckReport::default();
        self.check_blobs(&mut report)?;
        for image in self.named_images()? {
            report.images += 1;
            let shown = image
                .names
                .first()
                .cloned()
                .unwrap_or_else(|| image.digest.to_string());
            let users = match image.functions.as_slice() {
                [] => String::new(),
                functions => format!(" (used by {})", functions.join(", ")),
            };
            match self.images.missing(image.digest) {
                Ok(missing) => {
                    let lines = missing.into_iter();
                    let lines =
                        lines.map(|digest| format!("image {shown}{users}: its part {digest} is not stored"));
                    report.problems.extend(lines);
                }
                Err(error) => {
                    let line = format!(
                        "image {shown}{users}: its manifest cannot be read: {}",
                        cause(&error)
                    );
                    report.problems.push(line);
                }
            }
        }
        self.check_derived(&mut report)?;
        Ok(report)
    }

    fn check_blobs(&self, report: &mut CheckReport) -> Result<(), CollectError> {
        for entry in fs::read_dir(&self.images.blobs)? {
            let entry = entry?;
            let Some(expected) = digest_of_name(&entry.file_name()) else {
                report
                    .problems
                    .push(format!("{}: not a blob's name", entry.path().display()));
                continue;
            };
            let read = File::open(entry.path()).and_then(|file| {
                let bytes = file.metadata()?.len();
                Ok((Digest::of_reader(file)?, bytes))
            });
            match read {
                Ok((found, bytes)) => {
                    report.blobs += 1;
                    report.bytes += bytes;
                    if found != expected {
                        let line = format!("blob {expected} is damaged: its content has the digest {found}");
                        report.problems.push(line);
                    }
                }
                // Removed meanwhile, as may be.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => report
                    .problems
                    .push(format!("blob {expected} cannot be read: {error}")),
            }
        }
        Ok(())
    }

    /// Half-made folders are no problem: nobody believes them, and they are made again when they are needed.
    fn check_derived(&self, report: &mut CheckReport) -> Result<(), CollectError> {
        for entry in self.images.derived_folders()? {
            let path = entry.path();
            match is_sealed(&path) {
                Ok(Some(true)) => report.derived += 1,
                Ok(None) => {}
                Ok(Some(false)) => {
                    report.derived += 1;
                    let line = "it is not as it was made; the next deployment or start makes it again";
                    report.problems.push(format!("{}: {line}", path.display()));
                }
                Err(error) => report
                    .problems
                    .push(format!("{} cannot be read: {error}", path.display())),
            }
        }
        Ok(())
    }
}

/// The innermost cause of an error.
fn cause(error: &dyn std::error::Error) -> String {
    error.source().map_or_else(|| error.to_string(), cause)
}
