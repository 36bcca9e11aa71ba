//! Making, removing and renaming files, and their attributes.

use alloc::rc::Rc;

use linux_raw_sys::general as linux;

use super::paths::{WORKING_DIRECTORY, find, itself, read_path, resolve};
use super::transfer::position;
use super::{Arguments, CallResult};
use crate::errno::Errno;
use crate::files::metadata::device_number;
use crate::files::tree::change::{self, Renaming};
use crate::files::tree::walk::{Follow, Target};
use crate::files::{File, Kind};
use crate::kernel::Kernel;
use crate::time::{SECOND_NS, realtime_ns};

pub(super) fn mkdirat(kernel: &mut Kernel, descriptor: u64, path: u64, mode: u64) -> CallResult {
    let found = find(kernel, descriptor, path, Follow::NotLast)?;
    let permissions = mode as u32 & 0o1777 & !kernel.process.file_mode_mask;
    change::make(&found, linux::S_IFDIR | permissions, 0)?;
    Ok(0)
}

pub(super) fn mknodat(kernel: &mut Kernel, descriptor: u64, path: u64, mode: u64, device: u64) -> CallResult {
    let mode = mode as u32;
    let kind = match mode & linux::S_IFMT {
        0 => linux::S_IFREG,
        linux::S_IFDIR => return Err(Errno::EPERM.into()),
        kind => kind,
    };
    if Kind::of_mode(kind).is_none() || kind == linux::S_IFLNK {
        return Err(Errno::EINVAL.into());
    }
    let found = find(kernel, descriptor, path, Follow::NotLast)?;
    let permissions = mode & 0o7777 & !kernel.process.file_mode_mask;
    let device = device as u32;
    let rdev = device_number(device >> 8 & 0xfff, device & 0xff | device >> 12 & 0xf_ff00);
    change::make(&found, kind | permissions, rdev)?;
    Ok(0)
}

pub(super) fn unlinkat(kernel: &mut Kernel, descriptor: u64, path: u64, flags: u64) -> CallResult {
    if flags & !u64::from(linux::AT_REMOVEDIR) != 0 {
        return Err(Errno::EINVAL.into());
    }
    let found = find(kernel, descriptor, path, Follow::NotLast)?;
    if flags == 0 {
        change::unlink(&found)?;
    } else {
        change::remove_directory(&found)?;
    }
    Ok(0)
}

pub(super) fn renameat2(
    kernel: &mut Kernel,
    [from_base, from, to_base, to, flags, _]: Arguments,
) -> CallResult {
    let how = match u32::try_from(flags).map_err(|_| Errno::EINVAL)? {
        0 => Renaming::Replace,
        linux::RENAME_NOREPLACE => Renaming::NoReplace,
        linux::RENAME_EXCHANGE => Renaming::Exchange,
        _ => return Err(Errno::EINVAL.into()),
    };
    let from = find(kernel, from_base, from, Follow::NotLast)?;
    let to = find(kernel, to_base, to, Follow::NotLast)?;
    change::rename(&from, &to, how)?;
    Ok(0)
}

pub(super) fn linkat(kernel: &mut Kernel, [from_base, from, to_base, to, flags, _]: Arguments) -> CallResult {
    let known = linux::AT_SYMLINK_FOLLOW | linux::AT_EMPTY_PATH;
    if flags & !u64::from(known) != 0 {
        return Err(Errno::EINVAL.into());
    }
    let follow = match flags & u64::from(linux::AT_SYMLINK_FOLLOW) {
        0 => u64::from(linux::AT_SYMLINK_NOFOLLOW),
        _ => 0,
    };
    let empty = flags & u64::from(linux::AT_EMPTY_PATH);
    let Target::Entry(entry) = resolve(kernel, from_base, from, follow | empty)? else {
        return Err(Errno::EXDEV.into());
    };
    // A file whose last name is gone gets none any more, unless it was made without one.
    if entry.node.links() == 0 && entry.name().first() != Some(&b'#') {
        return Err(Errno::ENOENT.into());
    }
    let found = find(kernel, to_base, to, Follow::NotLast)?;
    change::link(&entry.node, &found)?;
    Ok(0)
}

pub(super) fn symlinkat(kernel: &mut Kernel, text: u64, descriptor: u64, path: u64) -> CallResult {
    let text = read_path(kernel, text)?;
    if text.is_empty() {
        return Err(Errno::ENOENT.into());
    }
    let found = find(kernel, descriptor, path, Follow::NotLast)?;
    change::make_link(&found, &text)?;
    Ok(0)
}

/// Attributes of what is read-only cannot be changed.
fn check_changeable(target: &Target) -> Result<(), Errno> {
    match target {
        Target::Entry(entry) if entry.node.is_read_only() => Err(Errno::EROFS),
        _ => Ok(()),
    }
}

fn set_permissions(target: &Target, mode: u64) -> CallResult {
    check_changeable(target)?;
    match target {
        // Links have none of their own.
        Target::Entry(entry) if entry.node.is_link() => return Err(Errno::EOPNOTSUPP.into()),
        Target::Entry(entry) => {
            entry.node.set_permissions(mode as u32);
            entry.notify(linux::IN_ATTRIB);
        }
        Target::Open(open) => {
            if let Some(file) = open.file.as_memory_file() {
                file.set_permissions(mode as u32);
            }
        }
    }
    Ok(0)
}

pub(super) fn chmodat(kernel: &mut Kernel, descriptor: u64, path: u64, mode: u64, flags: u64) -> CallResult {
    let known = linux::AT_SYMLINK_NOFOLLOW | linux::AT_EMPTY_PATH;
    if flags & !u64::from(known) != 0 {
        return Err(Errno::EINVAL.into());
    }
    let target = resolve(kernel, descriptor, path, flags)?;
    set_permissions(&target, mode)
}

/// What a descriptor names that is not only a path.
fn opened(kernel: &Kernel, descriptor: u64) -> Result<Target, Errno> {
    let open = kernel.process.files.get(descriptor)?;
    if open.flags.get() & linux::O_PATH != 0 {
        return Err(Errno::EBADF);
    }
    itself(kernel, descriptor)
}

pub(super) fn fchmod(kernel: &mut Kernel, [descriptor, mode, ..]: Arguments) -> CallResult {
    let target = opened(kernel, descriptor)?;
    set_permissions(&target, mode)
}

fn set_owner(target: &Target, uid: u64, gid: u64) -> CallResult {
    check_changeable(target)?;
    let given = |id: u64| Some(id as u32).filter(|&id| id != u32::MAX);
    if let Target::Entry(entry) = target {
        entry.node.set_owner(given(uid), given(gid));
        entry.notify(linux::IN_ATTRIB);
    }
    Ok(0)
}

pub(super) fn chownat(kernel: &mut Kernel, [descriptor, path, uid, gid, flags, _]: Arguments) -> CallResult {
    let known = linux::AT_SYMLINK_NOFOLLOW | linux::AT_EMPTY_PATH;
    if flags & !u64::from(known) != 0 {
        return Err(Errno::EINVAL.into());
    }
    let target = resolve(kernel, descriptor, path, flags)?;
    set_owner(&target, uid, gid)
}

pub(super) fn fchown(kernel: &mut Kernel, [descriptor, uid, gid, ..]: Arguments) -> CallResult {
    let target = opened(kernel, descriptor)?;
    set_owner(&target, uid, gid)
}

fn set_times(target: &Target, accessed_ns: Option<u64>, modified_ns: Option<u64>) -> CallResult {
    check_changeable(target)?;
    if let Target::Entry(entry) = target {
        entry.node.set_times(accessed_ns, modified_ns);
        entry.notify(linux::IN_ATTRIB);
    }
    Ok(0)
}

/// One of the times of `utimensat`; `None` leaves it as it is.
fn wanted_time(kernel: &mut Kernel, address: u64) -> Result<Option<u64>, Errno> {
    let seconds = kernel.process.space.read_u64(address)?;
    let nanoseconds = kernel.process.space.read_u64(address.wrapping_add(8))?;
    match u32::try_from(nanoseconds) {
        Ok(linux::UTIME_NOW) => Ok(Some(realtime_ns())),
        Ok(linux::UTIME_OMIT) => Ok(None),
        _ if nanoseconds >= SECOND_NS => Err(Errno::EINVAL),
        // Times before 1970 are as 1970.
        _ if seconds > i64::MAX as u64 => Ok(Some(0)),
        _ => Ok(Some(
            seconds.saturating_mul(SECOND_NS).saturating_add(nanoseconds),
        )),
    }
}

pub(super) fn utimensat(kernel: &mut Kernel, [descriptor, path, times, flags, ..]: Arguments) -> CallResult {
    let known = linux::AT_SYMLINK_NOFOLLOW | linux::AT_EMPTY_PATH;
    if flags & !u64::from(known) != 0 {
        return Err(Errno::EINVAL.into());
    }
    let (accessed_ns, modified_ns) = if times == 0 {
        let now_ns = realtime_ns();
        (Some(now_ns), Some(now_ns))
    } else {
        let accessed_ns = wanted_time(kernel, times)?;
        (accessed_ns, wanted_time(kernel, times.wrapping_add(16))?)
    };
    let target = if path == 0 {
        if descriptor as u32 as i32 == linux::AT_FDCWD {
            return Err(Errno::EFAULT.into());
        }
        opened(kernel, descriptor)?
    } else {
        resolve(kernel, descriptor, path, flags)?
    };
    if accessed_ns.is_none() && modified_ns.is_none() {
        return Ok(0);
    }
    set_times(&target, accessed_ns, modified_ns)
}

/// `futimesat`, `utimes`: seconds and microseconds.
pub(super) fn utimes_at(kernel: &mut Kernel, descriptor: u64, path: u64, times: u64) -> CallResult {
    let mut wanted = [realtime_ns(); 2];
    if times != 0 {
        for (index, place) in wanted.iter_mut().enumerate() {
            let address = times.wrapping_add(index as u64 * 16);
            let seconds = kernel.process.space.read_u64(address)?;
            let microseconds = kernel.process.space.read_u64(address.wrapping_add(8))?;
            if microseconds >= 1_000_000 {
                return Err(Errno::EINVAL.into());
            }
            let seconds = seconds.min(i64::MAX as u64);
            *place = seconds
                .saturating_mul(SECOND_NS)
                .saturating_add(microseconds * 1000);
        }
    }
    let target = if path == 0 {
        opened(kernel, descriptor)?
    } else {
        resolve(kernel, descriptor, path, 0)?
    };
    set_times(&target, Some(wanted[0]), Some(wanted[1]))
}

/// `utime`: seconds.
pub(super) fn utime(kernel: &mut Kernel, [path, times, ..]: Arguments) -> CallResult {
    let mut wanted = [realtime_ns(); 2];
    if times != 0 {
        for (index, place) in wanted.iter_mut().enumerate() {
            let seconds = kernel
                .process
                .space
                .read_u64(times.wrapping_add(index as u64 * 8))?;
            *place = seconds.min(i64::MAX as u64).saturating_mul(SECOND_NS);
        }
    }
    let target = resolve(kernel, WORKING_DIRECTORY, path, 0)?;
    set_times(&target, Some(wanted[0]), Some(wanted[1]))
}

pub(super) fn truncate(kernel: &mut Kernel, [path, length, ..]: Arguments) -> CallResult {
    let length = position(length)?;
    match resolve(kernel, WORKING_DIRECTORY, path, 0)? {
        Target::Entry(entry) if entry.node.is_directory() => Err(Errno::EISDIR.into()),
        Target::Entry(entry) if entry.node.kind() == Kind::Regular => {
            Rc::clone(&entry).truncate(kernel, length)?;
            Ok(0)
        }
        Target::Open(open) => {
            open.file.truncate(kernel, length)?;
            Ok(0)
        }
        Target::Entry(_) => Err(Errno::EINVAL.into()),
    }
}
