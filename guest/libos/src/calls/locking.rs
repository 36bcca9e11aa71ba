//! `flock` and the locks of `fcntl`.

use alloc::rc::Rc;

use linux_raw_sys::general as linux;

use super::{Arguments, CallResult, Failure};
use crate::errno::Errno;
use crate::files::descriptors::OpenFile;
use crate::files::locks::{Lock, Owner};
use crate::files::tree::Entry;
use crate::kernel::Kernel;

/// The number under which the locks of an open file are kept.
fn node_of(open: &OpenFile) -> Result<Rc<Entry>, Errno> {
    open.location.clone().ok_or(Errno::EINVAL)
}

/// Takes a lock, or waits for it.
fn take(kernel: &mut Kernel, entry: &Entry, lock: Lock, waits: bool, refused: Errno) -> CallResult {
    let volume = &entry.node.volume;
    if volume.locks.conflict(entry.node.number, &lock).is_some() {
        if !waits {
            return Err(refused.into());
        }
        volume.locks.wait(kernel.current);
        return Err(Failure::Wait);
    }
    match volume.locks.lock(entry.node.number, lock) {
        Ok(()) => Ok(0),
        Err(_) => Err(Errno::ENOLCK.into()),
    }
}

pub(super) fn flock(kernel: &mut Kernel, [descriptor, operation, ..]: Arguments) -> CallResult {
    let open = kernel.process.files.get(descriptor)?;
    if open.flags.get() & linux::O_PATH != 0 {
        return Err(Errno::EBADF.into());
    }
    let operation = operation as u32;
    let owner = Owner::Whole(Rc::as_ptr(&open).addr());
    let is_exclusive = match operation & !linux::LOCK_NB {
        linux::LOCK_UN => {
            if let Some(entry) = &open.location {
                entry
                    .node
                    .volume
                    .locks
                    .unlock(entry.node.number, owner, 0, u64::MAX);
            }
            return Ok(0);
        }
        linux::LOCK_SH => false,
        linux::LOCK_EX => true,
        _ => return Err(Errno::EINVAL.into()),
    };
    // What has no place in the tree nobody else can open.
    let Some(entry) = open.location.clone() else {
        return Ok(0);
    };
    let lock = Lock {
        owner,
        start: 0,
        end: u64::MAX,
        is_exclusive,
    };
    let waits = operation & linux::LOCK_NB == 0;
    take(kernel, &entry, lock, waits, Errno::EAGAIN)
}

/// The bytes that a `struct flock` names.
fn range(kernel: &mut Kernel, open: &OpenFile, address: u64) -> Result<(u16, u64, u64), Errno> {
    let bytes = kernel.process.space.read_array::<32>(address)?;
    let word = |at: usize| i64::from_le_bytes(core::array::from_fn(|index| bytes[at + index]));
    let kind = u16::from_le_bytes([bytes[0], bytes[1]]);
    let base = match u32::from(u16::from_le_bytes([bytes[2], bytes[3]])) {
        linux::SEEK_SET => 0,
        linux::SEEK_CUR => open.position.get(),
        linux::SEEK_END => open.file.size().unwrap_or(0),
        _ => return Err(Errno::EINVAL),
    };
    let start = base.cast_signed().checked_add(word(8)).ok_or(Errno::EOVERFLOW)?;
    let length = word(16);
    let (start, end) = match length {
        0 => (start, i64::MAX),
        1.. => (start, start.checked_add(length).ok_or(Errno::EOVERFLOW)?),
        _ => (start.checked_add(length).ok_or(Errno::EINVAL)?, start),
    };
    let start = u64::try_from(start).map_err(|_| Errno::EINVAL)?;
    let end = if length == 0 {
        u64::MAX
    } else {
        end.cast_unsigned()
    };
    Ok((kind, start, end))
}

/// `fcntl` with one of the lock commands.
pub(super) fn fcntl_lock(kernel: &mut Kernel, open: &Rc<OpenFile>, command: u32, address: u64) -> CallResult {
    let is_of_open = [linux::F_OFD_GETLK, linux::F_OFD_SETLK, linux::F_OFD_SETLKW].contains(&command);
    let (kind, start, end) = range(kernel, open, address)?;
    if is_of_open && kernel.process.space.read_u32(address.wrapping_add(24))? != 0 {
        return Err(Errno::EINVAL.into());
    }
    let owner = if is_of_open {
        Owner::Open(Rc::as_ptr(open).addr())
    } else {
        Owner::Process(kernel.process.id)
    };
    let kind = u32::from(kind);
    let lock = Lock {
        owner,
        start,
        end,
        is_exclusive: kind == linux::F_WRLCK,
    };
    if ![linux::F_RDLCK, linux::F_WRLCK, linux::F_UNLCK].contains(&kind) {
        return Err(Errno::EINVAL.into());
    }
    let entry = node_of(open)?;
    let locks = &entry.node.volume.locks;
    if [linux::F_GETLK, linux::F_OFD_GETLK].contains(&command) {
        if kind == linux::F_UNLCK {
            return Err(Errno::EINVAL.into());
        }
        let found = locks.conflict(entry.node.number, &lock);
        return report(kernel, address, found);
    }
    if kind == linux::F_UNLCK {
        locks.unlock(entry.node.number, owner, start, end);
        return Ok(0);
    }
    let has_access = if lock.is_exclusive {
        open.is_writable()
    } else {
        open.is_readable()
    };
    if !has_access {
        return Err(Errno::EBADF.into());
    }
    let waits = [linux::F_SETLKW, linux::F_OFD_SETLKW].contains(&command);
    take(kernel, &entry, lock, waits, Errno::EAGAIN)
}

/// Says what is in the way of a lock.
fn report(kernel: &mut Kernel, address: u64, found: Option<Lock>) -> CallResult {
    let Some(lock) = found else {
        kernel
            .process
            .space
            .write(address, &(linux::F_UNLCK as u16).to_le_bytes())?;
        return Ok(0);
    };
    let kind = if lock.is_exclusive {
        linux::F_WRLCK
    } else {
        linux::F_RDLCK
    };
    let length = if lock.end == u64::MAX {
        0
    } else {
        lock.end - lock.start
    };
    let process = match lock.owner {
        Owner::Process(process) => process,
        _ => u32::MAX,
    };
    let mut bytes = [0; 32];
    bytes[..2].copy_from_slice(&(kind as u16).to_le_bytes());
    bytes[8..16].copy_from_slice(&lock.start.to_le_bytes());
    bytes[16..24].copy_from_slice(&length.to_le_bytes());
    bytes[24..28].copy_from_slice(&process.to_le_bytes());
    kernel.process.space.write(address, &bytes)?;
    Ok(0)
}
