//! What a folder holds, without reading its files.

use std::fs::{self, Metadata};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::image::IMAGE_BYTES_MAX;

/// Most files and folders.
const ENTRIES_MAX: u64 = 2_000_000;

/// Why a folder cannot become a root file system.
#[derive(Debug, thiserror::Error)]
pub enum SurveyError {
    /// It is not there, or no folder.
    #[error("{} is no folder: name one that holds a root file system", folder.display())]
    NoFolder {
        /// The folder as given.
        folder: PathBuf,
    },
    /// It is the root of this machine.
    #[error(
        "the root of this machine cannot be a function's: name a folder that holds what the program needs"
    )]
    HostRoot,
    /// It holds too much.
    #[error(
        "{} holds more than {ENTRIES_MAX} files or {IMAGE_BYTES_MAX} bytes, which is too much for a root file system",
        folder.display()
    )]
    TooLarge {
        /// The folder as given.
        folder: PathBuf,
    },
    /// Something in it cannot be looked at.
    #[error("{} cannot be read", path.display())]
    Io {
        /// What cannot be read.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Survey {
    /// Changes with every change of the folder: a digest of names, sizes, modes, owners, times and inode numbers.
    pub key: String,
    /// Files, folders and links.
    pub entries: u64,
    /// Total length of the files.
    pub bytes: u64,
}

/// Looks at everything in `folder`, whose symbolic links are not followed, and checks that it is not too much.
///
/// # Errors
///
/// If the folder is missing, unreadable or too large, or is `/`.
pub fn survey(folder: &Path) -> Result<Survey, SurveyError> {
    let root = match folder.canonicalize() {
        Ok(root) if root.is_dir() => root,
        _ => {
            return Err(SurveyError::NoFolder {
                folder: folder.to_owned(),
            });
        }
    };
    if root == Path::new("/") {
        return Err(SurveyError::HostRoot);
    }
    let mut hasher = Sha256::new();
    let mut survey = Survey {
        key: String::new(),
        entries: 0,
        bytes: 0,
    };
    let mut open = vec![root];
    while let Some(path) = open.pop() {
        let failed = |source| SurveyError::Io {
            path: path.clone(),
            source,
        };
        let metadata = path.symlink_metadata().map_err(failed)?;
        hash_folder(&mut hasher, &path, &metadata);
        let mut entries = fs::read_dir(&path)
            .and_then(Iterator::collect::<io::Result<Vec<_>>>)
            .map_err(failed)?;
        entries.sort_by_key(fs::DirEntry::file_name);
        for entry in entries {
            let metadata = entry.metadata().map_err(failed)?;
            survey.entries += 1;
            if metadata.is_dir() {
                open.push(entry.path());
                continue;
            }
            hash(&mut hasher, entry.file_name().as_bytes(), &metadata);
            if metadata.is_file() {
                survey.bytes = survey.bytes.saturating_add(metadata.len());
            }
        }
        if survey.entries > ENTRIES_MAX || survey.bytes > IMAGE_BYTES_MAX {
            return Err(SurveyError::TooLarge {
                folder: folder.to_owned(),
            });
        }
    }
    survey.key = hex::encode(hasher.finalize());
    Ok(survey)
}

fn hash_folder(hasher: &mut Sha256, path: &Path, metadata: &Metadata) {
    hash(hasher, path.as_os_str().as_bytes(), metadata);
}

fn hash(hasher: &mut Sha256, name: &[u8], metadata: &Metadata) {
    hasher.update((name.len() as u64).to_le_bytes());
    hasher.update(name);
    let numbers = [
        metadata.dev(),
        metadata.ino(),
        metadata.size(),
        u64::from(metadata.mode()),
        u64::from(metadata.uid()),
        u64::from(metadata.gid()),
        metadata.mtime() as u64,
        metadata.mtime_nsec() as u64,
        // Changes with every change, also where somebody has set the time of modification back.
        metadata.ctime() as u64,
        metadata.ctime_nsec() as u64,
    ];
    for number in numbers {
        hasher.update(number.to_le_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::os::unix::fs::symlink;

    #[test]
    fn every_change_changes_the_key() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        let key = || survey(root).unwrap().key;
        let mut keys = vec![key()];
        let mut changed = || {
            let new = key();
            assert!(!keys.contains(&new));
            keys.push(new);
        };
        fs::create_dir(root.join("d")).unwrap();
        changed();
        fs::write(root.join("d/f"), "one").unwrap();
        changed();
        fs::write(root.join("d/f"), "four").unwrap();
        changed();
        symlink("f", root.join("d/l")).unwrap();
        changed();
        fs::rename(root.join("d/f"), root.join("d/g")).unwrap();
        changed();
        assert_eq!(survey(root).unwrap(), survey(root).unwrap());
        assert_eq!(
            (survey(root).unwrap().entries, survey(root).unwrap().bytes),
            (3, 4)
        );
    }

    #[test]
    fn what_can_be_no_root_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let missing = survey(&folder.path().join("missing"));
        assert!(matches!(missing, Err(SurveyError::NoFolder { .. })));
        assert!(matches!(survey(Path::new("/")), Err(SurveyError::HostRoot)));
        assert!(matches!(survey(Path::new("/tmp/..")), Err(SurveyError::HostRoot)));
        let huge = std::fs::File::create(folder.path().join("huge")).unwrap();
        huge.set_len(IMAGE_BYTES_MAX + 1).unwrap();
        assert!(matches!(survey(folder.path()), Err(SurveyError::TooLarge { .. })));
    }
}
