//! The folder with the files, and the calls that change it: so few that a test can stop after each of them.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

use rustix::fs::{
    AtFlags, Dir, FileType, Mode, OFlags, fstat, fstatvfs, mkdir, open, openat, renameat, statat, unlinkat,
};
use rustix::io::Errno;

/// What the name of a file ends with that is being written.
pub(super) const PARTIAL: &str = ".partial";
/// Nobody but the daemon's user reads what functions have in memory.
const FILE_MODE: u32 = 0o600;
const FOLDER_MODE: u32 = 0o700;

/// Changes of a folder. Names are those of files right in it.
pub(super) trait Disk {
    /// An open file.
    type File;
    /// Makes an empty file, in place of one that is there.
    fn create(&self, name: &str) -> io::Result<Self::File>;
    /// Writes bytes at a place.
    fn write_at(&self, file: &Self::File, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// Waits until what was written has reached the disk.
    fn sync(&self, file: &Self::File) -> io::Result<()>;
    /// Gives a file another name, in place of the one that had it.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// Waits until new names have reached the disk.
    fn sync_folder(&self) -> io::Result<()>;
    /// Removes a file.
    fn remove(&self, name: &str) -> io::Result<()>;
}

/// A folder of the host's.
#[derive(Debug)]
pub(super) struct Folder(OwnedFd);

/// A file in it.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) name: String,
    /// What it takes of the disk, in bytes.
    pub(super) bytes: u64,
    /// When it was written or loaded last.
    pub(super) used: SystemTime,
}

impl Folder {
    /// Opens the folder, which is made if it is not there.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        match mkdir(path, Mode::from_raw_mode(FOLDER_MODE)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(Self(open(path, flags, Mode::empty())?))
    }

    /// The regular files.
    pub(super) fn entries(&self) -> io::Result<Vec<Entry>> {
        let mut entries = Vec::new();
        for found in Dir::read_from(&self.0)? {
            let found = found?;
            // A name of ours is plain text.
            let Ok(name) = found.file_name().to_str() else {
                continue;
            };
            let Ok(status) = statat(&self.0, name, AtFlags::SYMLINK_NOFOLLOW) else {
                // Somebody was faster.
                continue;
            };
            if FileType::from_raw_mode(status.st_mode) != FileType::RegularFile {
                continue;
            }
            let since = Duration::new(
                u64::try_from(status.st_mtime).unwrap_or_default(),
                u32::try_from(status.st_mtime_nsec).unwrap_or_default(),
            );
            entries.push(Entry {
                name: name.to_owned(),
                bytes: u64::try_from(status.st_size).unwrap_or_default(),
                used: SystemTime::UNIX_EPOCH + since,
            });
        }
        Ok(entries)
    }

    /// Room that is left on its disk for users without rights, in bytes.
    pub(super) fn available_bytes(&self) -> io::Result<u64> {
        let status = fstatvfs(&self.0)?;
        Ok(status.f_bavail.saturating_mul(status.f_frsize))
    }
}

/// A file to be read, with its length in bytes; none if there is none of this name. That it was used is noted.
pub(super) fn open_file(folder: &Path, name: &str) -> io::Result<Option<(File, u64)>> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = match open(folder.join(name), flags, Mode::empty()) {
        Ok(file) => File::from(file),
        Err(Errno::NOENT) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let status = fstat(&file)?;
    if FileType::from_raw_mode(status.st_mode) != FileType::RegularFile {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    // Without it, it is only forgotten sooner.
    let _ = file.set_modified(SystemTime::now());
    Ok(Some((file, u64::try_from(status.st_size).unwrap_or_default())))
}

impl Disk for Folder {
    type File = File;

    fn create(&self, name: &str) -> io::Result<File> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(openat(&self.0, name, flags, Mode::from_raw_mode(FILE_MODE))?.into())
    }

    fn write_at(&self, file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
        file.write_all_at(bytes, offset)
    }

    fn sync(&self, file: &File) -> io::Result<()> {
        file.sync_all()
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        Ok(renameat(&self.0, from, &self.0, to)?)
    }

    fn sync_folder(&self) -> io::Result<()> {
        Ok(rustix::fs::fsync(&self.0)?)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        Ok(unlinkat(&self.0, name, AtFlags::empty())?)
    }
}
