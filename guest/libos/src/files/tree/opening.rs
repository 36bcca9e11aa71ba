//! From entries to open files.

use alloc::rc::Rc;
use alloc::vec::Vec;

use linux_raw_sys::general::{
    IN_ISDIR, IN_OPEN, O_ACCMODE, O_CREAT, O_DIRECTORY, O_EXCL, O_LARGEFILE, O_NOFOLLOW, O_PATH, O_RDONLY,
    O_TMPFILE, O_TRUNC, S_IFREG,
};

use super::node::Body;
use super::walk::{Follow, Found, Last, Limits, Target, walk, walk_within};
use super::{Entry, change};
use crate::errno::Errno;
use crate::files::descriptors::OpenFile;
use crate::files::{File, Kind, devices, generated, generation};
use crate::kernel::Kernel;

/// Flags that stay with an open file and that `fcntl(F_GETFL)` shows.
const CREATION_FLAGS: u32 =
    O_CREAT | O_EXCL | linux_raw_sys::general::O_NOCTTY | O_TRUNC | linux_raw_sys::general::O_CLOEXEC;

/// Opens what a path names; `None` if that has to wait, and the task is in a wait queue.
pub(crate) fn open(
    kernel: &mut Kernel,
    base: &Rc<Entry>,
    path: &[u8],
    flags: u32,
    permissions: u32,
    limits: Option<(Follow, Limits)>,
) -> Result<Option<Rc<OpenFile>>, Errno> {
    let is_exclusive = flags & O_CREAT != 0 && flags & O_EXCL != 0;
    let (follow, limits) = limits.unwrap_or_else(|| (follow_of(flags), Limits::default()));
    if flags & (O_PATH | O_CREAT | O_DIRECTORY) == O_CREAT | O_DIRECTORY {
        return Err(Errno::EINVAL);
    }
    if flags & (O_PATH | O_CREAT) == O_CREAT && path.ends_with(b"/") {
        let end = path
            .iter()
            .rposition(|&byte| byte != b'/')
            .map_or(1, |last| last + 1);
        walk_within(kernel, base, &path[..end], follow, limits)?;
        return Err(Errno::EISDIR);
    }
    let found = walk_within(kernel, base, path, follow, limits)?;
    if flags & O_TMPFILE == O_TMPFILE {
        return open_nameless(&found, flags, permissions).map(Some);
    }
    if flags & O_PATH == 0 && flags & O_CREAT != 0 {
        if found.target.is_some() && is_exclusive {
            return Err(Errno::EEXIST);
        }
        if found.target.is_none() {
            return open_new(kernel, &found, flags, permissions).map(Some);
        }
        if !matches!(found.last, Last::Name(_)) {
            return Err(Errno::EISDIR);
        }
    }
    match found.target()? {
        Target::Entry(entry) => open_entry(kernel, &entry, flags),
        Target::Open(open) => {
            if flags & O_DIRECTORY != 0 {
                return Err(Errno::ENOTDIR);
            }
            let file = Rc::clone(&open.file).reopened(flags)?;
            if flags & O_TRUNC != 0 && file.size().is_some() {
                file.truncate(kernel, 0)?;
            }
            Ok(Some(OpenFile::new(file, flags & !CREATION_FLAGS)))
        }
    }
}

/// Which symbolic links opening with these flags follows.
pub(crate) fn follow_of(flags: u32) -> Follow {
    let is_exclusive = flags & O_CREAT != 0 && flags & O_EXCL != 0;
    if flags & O_NOFOLLOW != 0 || is_exclusive {
        Follow::NotLast
    } else {
        Follow::All
    }
}

/// `O_TMPFILE`: a file without a name in a directory's file system.
fn open_nameless(found: &Found, flags: u32, permissions: u32) -> Result<Rc<OpenFile>, Errno> {
    let directory = found.entry()?;
    if !directory.node.is_directory() {
        return Err(Errno::ENOTDIR);
    }
    if flags & O_ACCMODE == O_RDONLY {
        return Err(Errno::EINVAL);
    }
    if directory.node.directory().is_none() {
        return Err(Errno::EOPNOTSUPP);
    }
    if directory.node.is_read_only() {
        return Err(Errno::EROFS);
    }
    let node = change::nameless(&directory.node.volume, directory.node.device, permissions)?;
    node.set_links(0);
    // What may get a name later is known by its present one.
    let mut name = if flags & O_EXCL == 0 {
        alloc::vec![b'#']
    } else {
        Vec::new()
    };
    name.extend_from_slice(crate::text::text!("{}", node.number).as_bytes());
    let entry = Entry::new(&name, Some(&directory), node);
    entry.set_removed();
    Ok(OpenFile::located(
        Rc::clone(&entry) as Rc<dyn File>,
        entry,
        flags & !CREATION_FLAGS | O_LARGEFILE,
    ))
}

fn open_new(kernel: &mut Kernel, found: &Found, flags: u32, permissions: u32) -> Result<Rc<OpenFile>, Errno> {
    if flags & O_DIRECTORY != 0 {
        return Err(Errno::EINVAL);
    }
    let permissions = permissions & 0o7777 & !kernel.process.file_mode_mask;
    let entry = change::make(found, S_IFREG | permissions, 0)?;
    entry.notify(IN_OPEN);
    Ok(OpenFile::located(
        Rc::clone(&entry) as Rc<dyn File>,
        entry,
        flags & !CREATION_FLAGS | O_LARGEFILE,
    ))
}

/// Opens an entry; `None` if that has to wait, and the task is in a wait queue.
pub(crate) fn open_entry(
    kernel: &mut Kernel,
    entry: &Rc<Entry>,
    flags: u32,
) -> Result<Option<Rc<OpenFile>>, Errno> {
    let node = &entry.node;
    if flags & O_DIRECTORY != 0 && !node.is_directory() {
        return Err(Errno::ENOTDIR);
    }
    let itself = || Rc::clone(entry) as Rc<dyn File>;
    if flags & O_PATH != 0 {
        let kept = O_PATH | O_DIRECTORY | O_NOFOLLOW;
        return Ok(Some(OpenFile::located(itself(), Rc::clone(entry), flags & kept)));
    }
    let wants_writing = flags & O_ACCMODE != O_RDONLY;
    if node.is_directory() && (wants_writing || flags & O_CREAT != 0) {
        return Err(Errno::EISDIR);
    }
    if node.is_link() {
        return Err(Errno::ELOOP);
    }
    let file = match &node.body {
        Body::Regular(_) if node.is_read_only() && (wants_writing || flags & O_TRUNC != 0) => {
            return Err(Errno::EROFS);
        }
        Body::Regular(_) => {
            if flags & O_TRUNC != 0 {
                itself().truncate(kernel, 0)?;
            }
            itself()
        }
        Body::Directory(_) => itself(),
        Body::Generated(_) if node.is_directory() => itself(),
        Body::Generated(generated) => generated::open(kernel, *generated)?,
        Body::Fifo(fifo) => match fifo.open(kernel, flags)? {
            Some(end) => Rc::new(end),
            None => return Ok(None),
        },
        Body::Device(rdev) if generation::is_meant(*rdev) => Rc::new(kernel.clones.generation.watch(flags)),
        Body::Device(rdev) => {
            devices::by_number(node.kind() == Kind::CharacterDevice, *rdev).ok_or(Errno::ENXIO)?
        }
        Body::Socket(_) | Body::Link(_) => return Err(Errno::ENXIO),
    };
    entry.notify(IN_OPEN | if node.is_directory() { IN_ISDIR } else { 0 });
    let kept = flags & !CREATION_FLAGS | O_LARGEFILE;
    Ok(Some(OpenFile::located(file, Rc::clone(entry), kept)))
}

/// Opens the file that a path names to execute it: a regular file that may be executed. The path is looked up from
/// the process's working directory.
pub(crate) fn open_program(kernel: &mut Kernel, path: &[u8]) -> Result<Rc<dyn File>, Errno> {
    let base = Rc::clone(&kernel.process.directory);
    open_program_at(kernel, &base, path, Follow::All)
}

/// The same from another directory.
pub(crate) fn open_program_at(
    kernel: &mut Kernel,
    base: &Rc<Entry>,
    path: &[u8],
    follow: Follow,
) -> Result<Rc<dyn File>, Errno> {
    match walk(kernel, base, path, follow)?.target()? {
        Target::Entry(entry) => executable(entry),
        Target::Open(open) if open.file.size().is_some() => Ok(Rc::clone(&open.file)),
        Target::Open(_) => Err(Errno::EACCES),
    }
}

/// The file of an entry, if it may be executed.
pub(crate) fn executable(entry: Rc<Entry>) -> Result<Rc<dyn File>, Errno> {
    if entry.node.is_link() {
        return Err(Errno::ELOOP);
    }
    if entry.node.kind() != Kind::Regular || entry.node.mode() & 0o111 == 0 {
        return Err(Errno::EACCES);
    }
    Ok(entry)
}
