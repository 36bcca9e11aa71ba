//! Unpacks the layers of an image, which may be hostile, into a private folder.
//!
//! ```text
//!   layer 0 ──entries in order──> folder
//!   layer 1 ──> .wh.NAME          removes NAME of the layers below
//!               .wh..wh..opq      removes everything of the layers below in its folder
//!               folder            joins a folder that is there
//!               anything else     takes the place of what is there
//! ```
//!
//! Every path is resolved by the kernel as if the folder were the root (`RESOLVE_IN_ROOT`): a symbolic link may say
//! what it likes, and leads to a place inside. Nobody else can reach the folder meanwhile. Owners become whoever runs
//! the daemon; set-id bits are dropped; the owner may always enter folders and read files, so that the result can be
//! packed and removed again. Devices, pipes and extended attributes are left out.

use std::collections::btree_map::Entry as BTreeEntry;
use std::collections::{BTreeMap, HashSet};
use std::fs::File;
use std::io::{self, BufWriter, Read, Seek};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{
    AtFlags, CWD, Dir, FileType, Mode, OFlags, ResolveFlags, Timespec, Timestamps, UTIME_OMIT, chmodat,
    fchmod, futimens, linkat, mkdirat, openat, openat2, readlinkat, statat, symlinkat, unlinkat, utimensat,
};
use rustix::io::Errno;
use tar::EntryType;

use crate::archive::{self, Bounds, Entry, shown};

/// What all layers of an image may hold: entries, and bytes of files.
const BOUNDS: Bounds = Bounds {
    entries: 500_000,
    bytes: 4 << 30,
};
/// Longest path from the host's root to a folder, in bytes; links can make longer ones than any entry names.
const DEPTH_BYTES_MAX: usize = 3500;
/// Paths of folders whose times are noted, in bytes.
const FOLDER_PATH_BYTES_MAX: usize = 64 << 20;
/// Time of folders that no layer says one of.
const NO_TIME: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 0,
};
/// How much of a file is copied at a time.
const COPY_BYTES_MIN: u64 = 8 << 10;
const COPY_BYTES_MAX: u64 = 1 << 20;
/// The kernel asks to try again when something was renamed anywhere on the host.
const TRIES: usize = 1000;

const OPAQUE: &[u8] = b".wh..wh..opq";
const WHITEOUT: &[u8] = b".wh.";

/// Why layers could not be unpacked, or a file in them not be found.
#[derive(Debug, thiserror::Error)]
pub enum LayerError {
    /// Not a tar archive, plain or compressed by gzip or zstd, or a damaged one.
    #[error("layer {layer} cannot be read: it must be a tar archive, plain or compressed with gzip or zstd")]
    Unreadable {
        /// Number of the layer, from 0 at the bottom.
        layer: usize,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// An entry's path leads out of the image.
    #[error("layer {layer} holds the path `{path}`, which leads out of the image")]
    Escapes {
        /// Number of the layer, from 0 at the bottom.
        layer: usize,
        /// The path.
        path: String,
    },
    /// An entry cannot be put where it says.
    #[error("layer {layer} cannot be unpacked at `{path}`")]
    Unpack {
        /// Number of the layer, from 0 at the bottom.
        layer: usize,
        /// The path.
        path: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The layers unpack to too much.
    #[error("with `{path}` of layer {layer} the image holds more than {} bytes or {} files", BOUNDS.bytes, BOUNDS.entries)]
    TooLarge {
        /// Number of the layer, from 0 at the bottom.
        layer: usize,
        /// The entry that is too much.
        path: String,
    },
    /// The file is not there.
    #[error("the image has no file `{path}`")]
    NotFound {
        /// The path that was looked for.
        path: String,
    },
    /// What is there is not a file.
    #[error("`{path}` is not a regular file in the image")]
    NotFile {
        /// The path that was looked for.
        path: String,
    },
    /// The path leads through too many symbolic links.
    #[error("`{path}` leads through too many symbolic links in the image")]
    TooManyLinks {
        /// The path that was looked for.
        path: String,
    },
}

/// A folder that layers are unpacked into.
pub(crate) struct Unpacker {
    root: OwnedFd,
    /// The folder of the entry before, whose neighbours come next as a rule.
    last: Option<(Vec<u8>, OwnedFd)>,
    /// Names that the current layer has written, each with its folder's inode number: its whiteouts spare them.
    written: HashSet<(u64, Vec<u8>)>,
    /// Times of folders, set at the end because every entry changes them.
    folder_times: BTreeMap<Vec<u8>, Timespec>,
    folder_path_bytes: usize,
    left: Bounds,
    /// Devices and pipes, left out.
    pub(crate) skipped: u64,
}

/// What went wrong with an entry.
enum Problem {
    Io(io::Error),
    TooLarge,
    Escapes(Vec<u8>),
}

impl From<io::Error> for Problem {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<Errno> for Problem {
    fn from(error: Errno) -> Self {
        Self::Io(error.into())
    }
}

impl Unpacker {
    /// Unpacks into `root`, an empty folder that only this process can enter.
    pub(crate) fn new(root: &Path) -> io::Result<Self> {
        let flags = OFlags::DIRECTORY | OFlags::PATH | OFlags::CLOEXEC;
        Ok(Self {
            root: openat(CWD, root, flags, Mode::empty())?,
            last: None,
            written: HashSet::new(),
            folder_times: BTreeMap::new(),
            folder_path_bytes: 0,
            left: BOUNDS,
            skipped: 0,
        })
    }

    /// Unpacks the next layer upwards.
    pub(crate) fn add(&mut self, layer: usize, reader: impl Read + Seek) -> Result<(), LayerError> {
        self.written.clear();
        let mut at = None;
        let result = archive::read(reader, self.left, |entry, content| {
            let path = entry.path.clone();
            self.add_entry(entry, content).inspect_err(|_| at = Some(path))
        });
        result.map_err(|problem| match (problem, at) {
            (Problem::TooLarge, path) => LayerError::TooLarge {
                layer,
                path: shown(&path.unwrap_or_default()),
            },
            (Problem::Escapes(path), _) => LayerError::Escapes {
                layer,
                path: shown(&path),
            },
            (Problem::Io(source), None) => LayerError::Unreadable { layer, source },
            (Problem::Io(source), Some(path)) => LayerError::Unpack {
                layer,
                path: shown(&path),
                source,
            },
        })
    }

    /// Sets what could not be set before.
    pub(crate) fn finish(&mut self) {
        self.last = None;
        self.folder_times.entry(Vec::new()).or_insert(NO_TIME);
        for (path, time) in std::mem::take(&mut self.folder_times).into_iter().rev() {
            // A folder that a whiteout has removed needs no time, and no time is worth failing for.
            if let Ok(folder) = self.open(&path, OFlags::DIRECTORY | OFlags::RDONLY) {
                let _ = futimens(&folder, &times(time));
            }
        }
    }

    /// Makes a folder and those above it, unless they are there.
    pub(crate) fn make_folder(&mut self, path: &str) -> io::Result<()> {
        let components = normalise(path.as_bytes()).ok_or(io::ErrorKind::InvalidInput)?;
        self.folder(&components)
            .map(drop)
            .map_err(|problem| match problem {
                Problem::Io(error) => error,
                Problem::TooLarge | Problem::Escapes(_) => io::ErrorKind::StorageFull.into(),
            })
    }

    /// Opens a regular file of the image to read it, following symbolic links inside the image.
    pub(crate) fn open_file(&self, path: &str) -> Result<File, LayerError> {
        let wanted = || path.to_owned();
        let opened = self.open(path.as_bytes(), OFlags::RDONLY | OFlags::NONBLOCK);
        match opened.map(File::from) {
            Ok(file) if file.metadata().is_ok_and(|metadata| metadata.is_file()) => Ok(file),
            Ok(_) => Err(LayerError::NotFile { path: wanted() }),
            Err(Errno::LOOP) => Err(LayerError::TooManyLinks { path: wanted() }),
            Err(_) => Err(LayerError::NotFound { path: wanted() }),
        }
    }

    /// The same for one that need not be there.
    pub(crate) fn open_if_there(&self, path: &str) -> io::Result<Option<File>> {
        match self.open(path.as_bytes(), OFlags::RDONLY | OFlags::NONBLOCK) {
            Ok(file) => {
                let file = File::from(file);
                Ok(file.metadata()?.is_file().then_some(file))
            }
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Whether `file` is all that the image holds besides folders.
    pub(crate) fn holds_only(&self, file: &File) -> io::Result<bool> {
        let wanted = rustix::fs::fstat(file)?.st_ino;
        let mut open = vec![self.open(b".", OFlags::DIRECTORY | OFlags::RDONLY)?];
        let mut found = 0;
        while let Some(folder) = open.pop() {
            for entry in Dir::read_from(&folder)? {
                let entry = entry?;
                let name = entry.file_name();
                if matches!(name.to_bytes(), b"." | b"..") {
                    continue;
                }
                let status = statat(&folder, name, AtFlags::SYMLINK_NOFOLLOW)?;
                if FileType::from_raw_mode(status.st_mode) == FileType::Directory {
                    open.push(openat(&folder, name, below_flags(), Mode::empty())?);
                    continue;
                }
                found += 1;
                if found > 1 || status.st_ino != wanted {
                    return Ok(false);
                }
            }
        }
        Ok(found == 1)
    }

    fn add_entry(&mut self, entry: Entry, content: &mut dyn Read) -> Result<(), Problem> {
        self.charge_entry()?;
        let components = normalise(&entry.path).ok_or_else(|| Problem::Escapes(entry.path.clone()))?;
        let Some((name, above)) = components.split_last() else {
            // The root itself.
            if entry.kind == EntryType::Directory {
                let mode = Mode::from_raw_mode(entry.mode & 0o1777 | 0o700);
                chmodat(&self.root, c".", mode, AtFlags::empty())?;
                self.note_time(Vec::new(), Some(time(&entry)))?;
            }
            return Ok(());
        };
        let name = *name;
        let folder = self.folder(above)?;
        if name == OPAQUE {
            return Ok(self.clear(folder.as_fd())?);
        }
        if let Some(hidden) = name.strip_prefix(WHITEOUT) {
            if matches!(hidden, b"" | b"." | b"..") {
                let text = "it hides nothing that can have a name";
                return Err(io::Error::new(io::ErrorKind::InvalidData, text).into());
            }
            return Ok(self.hide(folder.as_fd(), hidden)?);
        }
        let folder_inode = rustix::fs::fstat(&folder)?.st_ino;
        if entry.kind != EntryType::Directory || !is_folder(folder.as_fd(), name)? {
            self.last = None;
            remove(folder.as_fd(), name, &mut |_, _| false)?;
        }
        match entry.kind {
            EntryType::Regular | EntryType::Continuous => {
                self.write_file(folder.as_fd(), name, &entry, content)?;
            }
            EntryType::Directory => {
                self.write_folder(folder.as_fd(), name, &entry, components.join(&b'/'))?
            }
            EntryType::Symlink => {
                symlinkat(&*entry.link, &folder, name)?;
                utimensat(&folder, name, &times(time(&entry)), AtFlags::SYMLINK_NOFOLLOW)?;
            }
            EntryType::Link => self.write_link(folder.as_fd(), name, &entry)?,
            _ => {
                self.skipped += 1;
                return Ok(());
            }
        }
        self.written.insert((folder_inode, name.to_vec()));
        if matches!(entry.kind, EntryType::Regular | EntryType::Continuous) {
            self.last = Some((above.join(&b'/'), folder));
        }
        Ok(())
    }

    fn write_file(
        &mut self,
        folder: BorrowedFd<'_>,
        name: &[u8],
        entry: &Entry,
        content: &mut dyn Read,
    ) -> Result<(), Problem> {
        self.left.bytes = self
            .left
            .bytes
            .checked_sub(entry.bytes)
            .ok_or(Problem::TooLarge)?;
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = openat(folder, name, flags, Mode::from_raw_mode(0o600))?;
        // The copy takes the writer's buffer: few calls for what is large.
        let capacity = entry.bytes.clamp(COPY_BYTES_MIN, COPY_BYTES_MAX) as usize;
        let mut file = BufWriter::with_capacity(capacity, File::from(file));
        let copied = io::copy(&mut content.take(entry.bytes), &mut file)?;
        if copied != entry.bytes {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
        let file = file.into_inner().map_err(io::IntoInnerError::into_error)?;
        fchmod(&file, Mode::from_raw_mode(entry.mode & 0o777 | 0o400))?;
        futimens(&file, &times(time(entry)))?;
        Ok(())
    }

    fn write_folder(
        &mut self,
        folder: BorrowedFd<'_>,
        name: &[u8],
        entry: &Entry,
        path: Vec<u8>,
    ) -> Result<(), Problem> {
        make_one(folder, name)?;
        // It is a folder: a link would have been removed.
        let mode = Mode::from_raw_mode(entry.mode & 0o1777 | 0o700);
        chmodat(folder, name, mode, AtFlags::empty())?;
        self.note_time(path, Some(time(entry)))
    }

    fn write_link(&mut self, folder: BorrowedFd<'_>, name: &[u8], entry: &Entry) -> Result<(), Problem> {
        let components = normalise(&entry.link).ok_or_else(|| Problem::Escapes(entry.link.clone()))?;
        let Some((target, above)) = components.split_last() else {
            return Err(io::Error::from(io::ErrorKind::InvalidData).into());
        };
        let flags = OFlags::DIRECTORY | OFlags::PATH;
        let target_folder = self.open(&above.join(&b'/'), flags)?;
        // The last component is not followed: a link to a link is the same link.
        linkat(&target_folder, *target, folder, name, AtFlags::empty())?;
        Ok(())
    }

    /// Opens a path of the image.
    fn open(&self, path: &[u8], flags: OFlags) -> Result<OwnedFd, Errno> {
        let path = if path.is_empty() { b"." } else { path };
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        let flags = flags | OFlags::CLOEXEC;
        for _ in 0..TRIES {
            match openat2(&self.root, path, flags, Mode::empty(), resolve) {
                Err(Errno::AGAIN | Errno::INTR) => {}
                result => return result,
            }
        }
        Err(Errno::AGAIN)
    }

    /// The folder at these components, made where it is missing.
    fn folder(&mut self, components: &[&[u8]]) -> Result<OwnedFd, Problem> {
        let path = components.join(&b'/');
        if let Some((last, folder)) = self.last.take()
            && last == path
        {
            return Ok(folder);
        }
        let flags = OFlags::DIRECTORY | OFlags::PATH;
        match self.open(&path, flags) {
            Err(Errno::NOENT) => {}
            result => return Ok(result?),
        }
        // The first of the folders that is missing: resolving each path from the root takes as long as the path is.
        let mut folder = self.open(b".", flags)?;
        let (mut there, mut missing) = (0, components.len());
        while missing - there > 1 {
            let middle = there + (missing - there) / 2;
            match self.open(&components[..middle].join(&b'/'), flags) {
                Ok(found) => (there, folder) = (middle, found),
                Err(Errno::NOENT) => missing = middle,
                Err(error) => return Err(error.into()),
            }
        }
        for number in there..components.len() {
            // A folder that no entry names takes as much of the host as one that an entry does.
            self.charge_entry()?;
            make_one(folder.as_fd(), components[number])?;
            folder = openat(
                &folder,
                components[number],
                flags | OFlags::NOFOLLOW | OFlags::CLOEXEC,
                Mode::empty(),
            )?;
            self.note_time(components[..=number].join(&b'/'), None)?;
        }
        Ok(folder)
    }

    fn charge_entry(&mut self) -> Result<(), Problem> {
        self.left.entries = self.left.entries.checked_sub(1).ok_or(Problem::TooLarge)?;
        Ok(())
    }

    /// Notes a folder's time for the end; none if no entry says one.
    fn note_time(&mut self, path: Vec<u8>, time: Option<Timespec>) -> Result<(), Problem> {
        let bytes = path.len();
        match (self.folder_times.entry(path), time) {
            (BTreeEntry::Occupied(mut noted), Some(time)) => drop(noted.insert(time)),
            (BTreeEntry::Occupied(_), None) => {}
            (BTreeEntry::Vacant(place), time) => {
                self.folder_path_bytes += bytes;
                if self.folder_path_bytes > FOLDER_PATH_BYTES_MAX {
                    return Err(Problem::TooLarge);
                }
                place.insert(time.unwrap_or(NO_TIME));
            }
        }
        Ok(())
    }

    /// Applies an opaque whiteout.
    fn clear(&mut self, folder: BorrowedFd<'_>) -> Result<(), Errno> {
        self.last = None;
        let folder = openat(folder, c".", below_flags(), Mode::empty())?;
        for name in names(&folder)? {
            self.hide(folder.as_fd(), &name)?;
        }
        Ok(())
    }

    /// Applies a whiteout. What the current layer has written stays.
    fn hide(&mut self, folder: BorrowedFd<'_>, name: &[u8]) -> Result<(), Errno> {
        self.last = None;
        let written = &self.written;
        remove(folder, name, &mut |folder, name| {
            written.contains(&(folder, name.to_vec()))
        })
    }
}

fn below_flags() -> OFlags {
    OFlags::DIRECTORY | OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC
}

fn is_folder(folder: BorrowedFd<'_>, name: &[u8]) -> Result<bool, Errno> {
    match statat(folder, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(status) => Ok(FileType::from_raw_mode(status.st_mode) == FileType::Directory),
        Err(Errno::NOENT) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Makes a folder unless there is one, but none so deep that its path would be unwieldy.
fn make_one(folder: BorrowedFd<'_>, name: &[u8]) -> Result<(), Errno> {
    use std::os::fd::AsRawFd;
    let path = format!("/proc/self/fd/{}", folder.as_raw_fd());
    let depth = readlinkat(CWD, path, Vec::new())?.to_bytes().len() + 1 + name.len();
    if depth > DEPTH_BYTES_MAX {
        return Err(Errno::NAMETOOLONG);
    }
    match mkdirat(folder, name, Mode::from_raw_mode(0o755)) {
        Err(Errno::EXIST) if is_folder(folder, name)? => Ok(()),
        result => result,
    }
}

fn names(folder: &OwnedFd) -> Result<Vec<Vec<u8>>, Errno> {
    let mut names = Vec::new();
    for entry in Dir::read_from(folder)? {
        let name = entry?.file_name().to_bytes().to_vec();
        if !matches!(&*name, b"." | b"..") {
            names.push(name);
        }
    }
    Ok(names)
}

/// Removes what has this name, with everything in it that is not to be spared. Nothing there is no error. The depth of
/// folders, and so that of the recursion, is bounded when they are made.
fn remove(
    folder: BorrowedFd<'_>,
    name: &[u8],
    spare: &mut dyn FnMut(u64, &[u8]) -> bool,
) -> Result<(), Errno> {
    let status = match statat(folder, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(status) => status,
        Err(Errno::NOENT) => return Ok(()),
        Err(error) => return Err(error),
    };
    let is_spared = spare(rustix::fs::fstat(folder)?.st_ino, name);
    if FileType::from_raw_mode(status.st_mode) != FileType::Directory {
        return if is_spared {
            Ok(())
        } else {
            unlinkat(folder, name, AtFlags::empty())
        };
    }
    let inner = openat(folder, name, below_flags(), Mode::empty())?;
    for name in names(&inner)? {
        remove(inner.as_fd(), &name, spare)?;
    }
    if is_spared {
        return Ok(());
    }
    match unlinkat(folder, name, AtFlags::REMOVEDIR) {
        // Something in it was spared.
        Err(Errno::NOTEMPTY | Errno::EXIST) => Ok(()),
        result => result,
    }
}

fn time(entry: &Entry) -> Timespec {
    Timespec {
        tv_sec: entry.modified_s,
        tv_nsec: entry.modified_ns.into(),
    }
}

fn times(modified: Timespec) -> Timestamps {
    Timestamps {
        last_access: Timespec {
            tv_sec: 0,
            tv_nsec: UTIME_OMIT,
        },
        last_modification: modified,
    }
}

/// The components of a path without empty and `.` ones; none if there is a `..`.
fn normalise(path: &[u8]) -> Option<Vec<&[u8]>> {
    let components = path.split(|&byte| byte == b'/');
    let components: Vec<_> = components
        .filter(|component| !matches!(*component, b"" | b"."))
        .collect();
    (!components.contains(&&b".."[..])).then_some(components)
}

#[cfg(test)]
#[path = "unpack_tests.rs"]
mod tests;
