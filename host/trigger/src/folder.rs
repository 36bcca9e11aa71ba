//! Folders whose files are told of, below one that the operator has named.
//!
//! Whoever writes there may do so in order to have other files read: no symbolic link is followed, and nothing but an
//! ordinary file is opened. Names that begin with a dot are left out, so that a file can be written under such a name and then
//! be renamed.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use notify::{RecommendedWatcher, RecursiveMode, Watcher as _};
use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, ResolveFlags, fstat, openat, openat2, statat};

use crate::settling::Fingerprint;

/// Most files in a folder.
pub const FILES_MAX: usize = 10_000;

/// Why a folder cannot be watched, or a file not be told of.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    /// The folder is not there, or cannot be used.
    #[error("the folder {} cannot be opened: make it first", path.display())]
    Open {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Its names cannot be read.
    #[error("the folder {} cannot be read", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It has too many files.
    #[error("the folder {} has more than {FILES_MAX} files: move those away that are done", path.display())]
    TooMany {
        /// Which.
        path: PathBuf,
    },
    /// The kernel does not tell of changes.
    #[error("changes in the folder {} cannot be watched", path.display())]
    Watch {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: notify::Error,
    },
    /// A file cannot be read.
    #[error("the file {} cannot be read", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file is something else, such as a link.
    #[error("{} is no ordinary file", path.display())]
    NoFile {
        /// Which.
        path: PathBuf,
    },
    /// A file is too long.
    #[error("the file {} is longer than {limit_bytes} bytes (spore serve --async-body-limit)", path.display())]
    TooLong {
        /// Which.
        path: PathBuf,
        /// What is allowed.
        limit_bytes: usize,
    },
}

/// The folder that the operator has named.
#[derive(Debug)]
pub struct Root {
    path: PathBuf,
    descriptor: OwnedFd,
}

impl Root {
    /// Opens it.
    pub fn open(path: &Path) -> Result<Self, FolderError> {
        let error = |source| FolderError::Open {
            path: path.to_owned(),
            source,
        };
        let path = path.canonicalize().map_err(error)?;
        let flags = OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::RDONLY;
        let descriptor = openat(CWD, &path, flags, Mode::empty()).map_err(|errno| error(errno.into()))?;
        Ok(Self { path, descriptor })
    }

    /// Opens a folder below it.
    pub fn folder(&self, path: &Path) -> Result<Folder, FolderError> {
        let flags = OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::RDONLY;
        let below = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        let opened = openat2(&self.descriptor, path, flags, Mode::empty(), below);
        let descriptor = opened.map_err(|errno| FolderError::Open {
            path: self.path.join(path),
            source: errno.into(),
        })?;
        Ok(Folder {
            whole: self.path.join(path),
            path: path.to_owned(),
            descriptor,
        })
    }
}

impl Root {
    /// Whether the folder's path still leads to it, and not to another one.
    ///
    /// # Errors
    ///
    /// As [`Root::folder`] has them.
    pub fn leads_to(&self, folder: &Folder) -> Result<bool, FolderError> {
        let now = self.folder(&folder.path)?;
        let identity = |folder: &Folder| {
            let found = fstat(&folder.descriptor).map_err(|errno| FolderError::Read {
                path: folder.whole.clone(),
                source: errno.into(),
            });
            found.map(|found| (found.st_dev, found.st_ino))
        };
        Ok(identity(&now)? == identity(folder)?)
    }
}

/// A folder that is watched.
#[derive(Debug)]
pub struct Folder {
    whole: PathBuf,
    path: PathBuf,
    descriptor: OwnedFd,
}

impl Folder {
    /// Its path below the root.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The files that it has now.
    pub fn files(&self) -> Result<BTreeMap<OsString, Fingerprint>, FolderError> {
        let error = |errno: rustix::io::Errno| FolderError::Read {
            path: self.whole.clone(),
            source: errno.into(),
        };
        let mut files = BTreeMap::new();
        for entry in Dir::read_from(&self.descriptor).map_err(error)? {
            let entry = entry.map_err(error)?;
            let name = entry.file_name();
            if name.to_bytes().starts_with(b".") {
                continue;
            }
            // One that has just gone is none.
            let Ok(stat) = statat(&self.descriptor, name, AtFlags::SYMLINK_NOFOLLOW) else {
                continue;
            };
            if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
                continue;
            }
            if files.len() == FILES_MAX {
                let path = self.whole.clone();
                return Err(FolderError::TooMany { path });
            }
            let fingerprint = Fingerprint {
                inode: stat.st_ino,
                bytes: u64::try_from(stat.st_size).unwrap_or_default(),
                modified_ns: i128::from(stat.st_mtime) * 1_000_000_000 + i128::from(stat.st_mtime_nsec),
            };
            files.insert(OsString::from_vec(name.to_bytes().to_vec()), fingerprint);
        }
        Ok(files)
    }

    /// Content of a file.
    pub fn read(&self, name: &OsStr, limit_bytes: usize) -> Result<Bytes, FolderError> {
        let path = || self.path.join(name);
        let error = |source| FolderError::File { path: path(), source };
        // Without NONBLOCK a pipe would keep whoever opens it.
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOFOLLOW;
        let below = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        let opened = openat2(&self.descriptor, name.as_bytes(), flags, Mode::empty(), below);
        let file = opened.map_err(|errno| error(errno.into()))?;
        let stat = fstat(&file).map_err(|errno| error(errno.into()))?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile || name.as_bytes().contains(&b'/') {
            return Err(FolderError::NoFile { path: path() });
        }
        let mut content = Vec::new();
        let mut limited = File::from(file).take(limit_bytes as u64 + 1);
        limited.read_to_end(&mut content).map_err(error)?;
        if content.len() > limit_bytes {
            return Err(FolderError::TooLong {
                path: path(),
                limit_bytes,
            });
        }
        Ok(content.into())
    }

    /// Calls `wake` when something may have changed, until what is returned is dropped.
    pub fn watch(&self, wake: impl Fn() + Send + 'static) -> Result<RecommendedWatcher, FolderError> {
        let error = |source| FolderError::Watch {
            path: self.whole.clone(),
            source,
        };
        // After an error something may have been missed.
        let report = move |event: notify::Result<notify::Event>| {
            if event.map_or(true, |event| !event.kind.is_access()) {
                wake();
            }
        };
        let mut watcher = notify::recommended_watcher(report).map_err(error)?;
        watcher
            .watch(&self.whole, RecursiveMode::NonRecursive)
            .map_err(error)?;
        Ok(watcher)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn nothing_but_ordinary_files_below_the_root_is_read() {
        let outside = tempfile::tempdir().expect("a folder");
        std::fs::write(outside.path().join("secret"), "secret").expect("written");
        let root = tempfile::tempdir().expect("a folder");
        let folder = root.path().join("incoming");
        std::fs::create_dir(&folder).expect("made");
        std::fs::write(folder.join("file"), "content").expect("written");
        std::fs::write(folder.join(".hidden"), "content").expect("written");
        std::fs::create_dir(folder.join("below")).expect("made");
        symlink(outside.path().join("secret"), folder.join("link")).expect("made");
        symlink(outside.path(), root.path().join("outside")).expect("made");
        let root = Root::open(root.path()).expect("it is there");
        let opened = root.folder(Path::new("incoming")).expect("it is there");
        let files = opened.files().expect("it can be read");
        assert_eq!(files.keys().collect::<Vec<_>>(), ["file"]);
        assert_eq!(opened.read(OsStr::new("file"), 7).expect("read"), "content");
        assert!(matches!(
            opened.read(OsStr::new("file"), 6),
            Err(FolderError::TooLong { .. })
        ));
        for name in ["link", "below", "missing", "../incoming/file", "below/../file"] {
            assert!(opened.read(OsStr::new(name), 100).is_err(), "{name}");
        }
        for path in ["outside", "missing", "incoming/file", "../x"] {
            assert!(root.folder(Path::new(path)).is_err(), "{path}");
        }
    }
}
