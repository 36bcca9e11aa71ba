//! inotify.

use alloc::rc::Rc;

use linux_raw_sys::general as linux;

use super::descriptors::add;
use super::paths::{WORKING_DIRECTORY, resolve};
use super::{Arguments, CallResult};
use crate::errno::Errno;
use crate::files::notify::Inotify;
use crate::files::tree::walk::Target;
use crate::kernel::Kernel;

pub(super) fn inotify_init1(kernel: &mut Kernel, [flags, ..]: Arguments) -> CallResult {
    let flags = u32::try_from(flags).map_err(|_| Errno::EINVAL)?;
    if flags & !(linux::IN_CLOEXEC | linux::IN_NONBLOCK) != 0 {
        return Err(Errno::EINVAL.into());
    }
    let instance = Inotify::new(&kernel.ready, &kernel.budget);
    let status = linux::O_RDONLY | flags & linux::IN_NONBLOCK;
    add(kernel, Rc::new(instance), status, flags & linux::IN_CLOEXEC != 0)
}

pub(super) fn inotify_add_watch(kernel: &mut Kernel, [descriptor, path, mask, ..]: Arguments) -> CallResult {
    let mask = mask as u32;
    let both = linux::IN_MASK_ADD | linux::IN_MASK_CREATE;
    if mask & linux::IN_ALL_EVENTS == 0 || mask & both == both {
        return Err(Errno::EINVAL.into());
    }
    let open = kernel.process.files.get(descriptor)?;
    let instance = open.file.as_inotify().ok_or(Errno::EINVAL)?;
    let flags = match mask & linux::IN_DONT_FOLLOW {
        0 => 0,
        _ => u64::from(linux::AT_SYMLINK_NOFOLLOW),
    };
    let Target::Entry(entry) = resolve(kernel, WORKING_DIRECTORY, path, flags)? else {
        return Err(Errno::EPERM.into());
    };
    if mask & linux::IN_ONLYDIR != 0 && !entry.node.is_directory() {
        return Err(Errno::ENOTDIR.into());
    }
    Ok(u64::from(instance.watch(&entry.node, mask)?.cast_unsigned()))
}

pub(super) fn inotify_rm_watch(kernel: &mut Kernel, [descriptor, watch, ..]: Arguments) -> CallResult {
    let open = kernel.process.files.get(descriptor)?;
    let instance = open.file.as_inotify().ok_or(Errno::EINVAL)?;
    instance.remove((watch as u32).cast_signed())?;
    Ok(0)
}
