//! Paths as calls name them, opening, and the working directory.

use alloc::rc::Rc;
use alloc::vec::Vec;

use linux_raw_sys::general as linux;

use super::{Arguments, CallResult, Failure};
use crate::errno::Errno;
use crate::files::Metadata;
use crate::files::tree::Entry;
use crate::files::tree::opening;
use crate::files::tree::walk::{Follow, Found, Limits, Link, Target, link, walk};
use crate::kernel::Kernel;

/// Longest path, with its zero.
const PATH_BYTES_MAX: usize = 4096;
/// `AT_FDCWD`: the working directory.
pub(super) const WORKING_DIRECTORY: u64 = linux::AT_FDCWD as u64;

/// Reads a path.
pub(super) fn read_path(kernel: &mut Kernel, address: u64) -> Result<Vec<u8>, Errno> {
    kernel
        .process
        .space
        .read_string(address, PATH_BYTES_MAX - 1, Errno::ENAMETOOLONG)
}

/// The directory that a call's descriptor names, for the paths that begin there.
pub(super) fn base(kernel: &Kernel, descriptor: u64, path: &[u8]) -> Result<Rc<Entry>, Errno> {
    if path.first() == Some(&b'/') {
        return Ok(Rc::clone(&kernel.tree.root));
    }
    if descriptor as u32 as i32 == linux::AT_FDCWD {
        return Ok(Rc::clone(&kernel.process.directory));
    }
    let open = kernel.process.files.get(u64::from(descriptor as u32))?;
    open.location.clone().ok_or(Errno::ENOTDIR)
}

/// Where the path of a call leads.
pub(super) fn find(
    kernel: &mut Kernel,
    descriptor: u64,
    address: u64,
    follow: Follow,
) -> Result<Found, Errno> {
    let path = read_path(kernel, address)?;
    let base = base(kernel, descriptor, &path)?;
    walk(kernel, &base, &path, follow)
}

/// What the path of a call leads to; `flags` are `AT_*` flags.
pub(super) fn resolve(
    kernel: &mut Kernel,
    descriptor: u64,
    address: u64,
    flags: u64,
) -> Result<Target, Errno> {
    let path = read_path(kernel, address)?;
    if path.is_empty() && flags & u64::from(linux::AT_EMPTY_PATH) != 0 {
        return itself(kernel, descriptor);
    }
    let follow = match flags & u64::from(linux::AT_SYMLINK_NOFOLLOW) {
        0 => Follow::All,
        _ => Follow::NotLast,
    };
    let base = base(kernel, descriptor, &path)?;
    walk(kernel, &base, &path, follow)?.target()
}

/// What a descriptor itself names.
pub(super) fn itself(kernel: &Kernel, descriptor: u64) -> Result<Target, Errno> {
    if descriptor as u32 as i32 == linux::AT_FDCWD {
        return Ok(Target::Entry(Rc::clone(&kernel.process.directory)));
    }
    let open = kernel.process.files.get(u64::from(descriptor as u32))?;
    Ok(match &open.location {
        Some(entry) => Target::Entry(Rc::clone(entry)),
        None => Target::Open(open),
    })
}

/// What `stat` shows of a target.
pub(super) fn metadata(target: &Target) -> Metadata {
    match target {
        Target::Entry(entry) => entry.node.metadata(),
        Target::Open(open) => open.metadata(),
    }
}

fn open_at(
    kernel: &mut Kernel,
    descriptor: u64,
    path_address: u64,
    flags: u32,
    permissions: u32,
    limits: Option<(Follow, Limits)>,
) -> CallResult {
    let path = read_path(kernel, path_address)?;
    let starts_at_descriptor = limits.is_some_and(|(_, limits)| limits.in_root);
    let base = base(kernel, descriptor, if starts_at_descriptor { b"" } else { &path })?;
    // Without a descriptor for it, no file must be made.
    if !kernel.process.files.has_room() {
        return Err(Errno::EMFILE.into());
    }
    let opened = opening::open(kernel, &base, &path, flags, permissions, limits)?;
    let open = opened.ok_or(Failure::Wait)?;
    let close_on_exec = flags & linux::O_CLOEXEC != 0;
    Ok(kernel.process.files.add(open, close_on_exec, 0)?)
}

pub(super) fn open(kernel: &mut Kernel, [path, flags, mode, ..]: Arguments) -> CallResult {
    open_at(kernel, WORKING_DIRECTORY, path, flags as u32, mode as u32, None)
}

pub(super) fn creat(kernel: &mut Kernel, [path, mode, ..]: Arguments) -> CallResult {
    let flags = linux::O_CREAT | linux::O_WRONLY | linux::O_TRUNC;
    open_at(kernel, WORKING_DIRECTORY, path, flags, mode as u32, None)
}

pub(super) fn openat(kernel: &mut Kernel, [descriptor, path, flags, mode, ..]: Arguments) -> CallResult {
    open_at(kernel, descriptor, path, flags as u32, mode as u32, None)
}

pub(super) fn openat2(kernel: &mut Kernel, [descriptor, path, how, size, ..]: Arguments) -> CallResult {
    const HOW_BYTES: u64 = 24;
    const NO_XDEV: u64 = 1;
    const NO_MAGIC_LINKS: u64 = 2;
    const NO_LINKS: u64 = 4;
    const BENEATH: u64 = 8;
    const IN_ROOT: u64 = 16;
    const CACHED: u64 = 32;
    const FLAGS_KNOWN: u32 = 0o37_777_703;
    if size < HOW_BYTES {
        return Err(Errno::EINVAL.into());
    }
    for offset in HOW_BYTES..size.min(4097) {
        if kernel.process.space.read_array::<1>(how.wrapping_add(offset))? != [0] {
            return Err(Errno::E2BIG.into());
        }
    }
    if size > 4096 {
        return Err(Errno::E2BIG.into());
    }
    let [flags, mode, resolve] = [0, 8, 16].map(|at| kernel.process.space.read_u64(how.wrapping_add(at)));
    let (flags, mode, resolve) = (flags?, mode?, resolve?);
    let makes = linux::O_CREAT | linux::O_TMPFILE & !linux::O_DIRECTORY;
    let flags = u32::try_from(flags).map_err(|_| Errno::EINVAL)?;
    let known = NO_XDEV | NO_MAGIC_LINKS | NO_LINKS | BENEATH | IN_ROOT | CACHED;
    let is_wrong = flags & !FLAGS_KNOWN != 0
        || mode & !0o7777 != 0
        || (mode != 0 && flags & makes == 0)
        || resolve & !known != 0
        || resolve & (BENEATH | IN_ROOT) == BENEATH | IN_ROOT;
    if is_wrong {
        return Err(Errno::EINVAL.into());
    }
    if resolve & CACHED != 0 {
        return Err(Errno::EAGAIN.into());
    }
    let follow = match () {
        () if resolve & NO_LINKS != 0 => Follow::None,
        () => opening::follow_of(flags),
    };
    let limits = Limits {
        beneath: resolve & BENEATH != 0,
        in_root: resolve & IN_ROOT != 0,
        no_magic: resolve & (NO_MAGIC_LINKS | NO_LINKS) != 0,
        one_device: resolve & NO_XDEV != 0,
    };
    open_at(
        kernel,
        descriptor,
        path,
        flags,
        mode as u32,
        Some((follow, limits)),
    )
}

pub(super) fn access(kernel: &mut Kernel, descriptor: u64, path: u64, mode: u64, flags: u64) -> CallResult {
    let known = linux::AT_EACCESS | linux::AT_SYMLINK_NOFOLLOW | linux::AT_EMPTY_PATH;
    if mode & !7 != 0 || flags & !u64::from(known) != 0 {
        return Err(Errno::EINVAL.into());
    }
    let target = resolve(kernel, descriptor, path, flags)?;
    if mode & u64::from(linux::W_OK) != 0
        && let Target::Entry(entry) = &target
        && entry.node.is_read_only()
    {
        return Err(Errno::EROFS.into());
    }
    let metadata = metadata(&target);
    // Root may read and write everything else, and execute what anybody may.
    let is_directory = metadata.mode & linux::S_IFMT == linux::S_IFDIR;
    if mode & u64::from(linux::X_OK) != 0 && !is_directory && metadata.mode & 0o111 == 0 {
        return Err(Errno::EACCES.into());
    }
    Ok(0)
}

pub(super) fn readlink(
    kernel: &mut Kernel,
    descriptor: u64,
    path: u64,
    address: u64,
    size: u64,
) -> CallResult {
    if (size as u32 as i32) <= 0 {
        return Err(Errno::EINVAL.into());
    }
    let flags = u64::from(linux::AT_SYMLINK_NOFOLLOW | linux::AT_EMPTY_PATH);
    let is_own = read_path(kernel, path)?.is_empty();
    let entry = match resolve(kernel, descriptor, path, flags)? {
        // An empty path names the link that a descriptor holds.
        Target::Entry(entry) if entry.node.is_link() => entry,
        _ if is_own => return Err(Errno::ENOENT.into()),
        _ => return Err(Errno::EINVAL.into()),
    };
    let text = match link(kernel, &entry)? {
        Link::Text(text) => text,
        Link::Target(Target::Entry(entry)) => entry.path(),
        Link::Target(Target::Open(open)) => open.label(),
    };
    let length = text.len().min(size as usize);
    kernel.process.space.write(address, &text[..length])?;
    Ok(length as u64)
}

pub(super) fn getcwd(kernel: &mut Kernel, [address, size, ..]: Arguments) -> CallResult {
    let directory = Rc::clone(&kernel.process.directory);
    if directory.is_removed() {
        return Err(Errno::ENOENT.into());
    }
    let mut path = directory.path();
    path.push(0);
    if path.len() > PATH_BYTES_MAX {
        return Err(Errno::ENAMETOOLONG.into());
    }
    if size < path.len() as u64 {
        return Err(Errno::ERANGE.into());
    }
    kernel.process.space.write(address, &path)?;
    Ok(path.len() as u64)
}

pub(super) fn chdir(kernel: &mut Kernel, [path, ..]: Arguments) -> CallResult {
    match resolve(kernel, WORKING_DIRECTORY, path, 0)? {
        Target::Entry(entry) if entry.node.is_directory() => kernel.process.directory = entry,
        _ => return Err(Errno::ENOTDIR.into()),
    }
    Ok(0)
}

pub(super) fn fchdir(kernel: &mut Kernel, [descriptor, ..]: Arguments) -> CallResult {
    let open = kernel.process.files.get(descriptor)?;
    match &open.location {
        Some(entry) if entry.node.is_directory() => kernel.process.directory = Rc::clone(entry),
        _ => return Err(Errno::ENOTDIR.into()),
    }
    Ok(0)
}
