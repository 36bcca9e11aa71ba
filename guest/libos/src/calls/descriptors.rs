//! Descriptors: closing, duplicating, flags, and files that are made without a path.

use alloc::rc::Rc;

use linux_raw_sys::general as linux;
use linux_raw_sys::ioctl::{FIOASYNC, FIOCLEX, FIONBIO, FIONCLEX, FIONREAD};

use super::{Arguments, CallResult, locking};
use crate::errno::Errno;
use crate::files::descriptors::{DESCRIPTORS_MAX, OpenFile};
use crate::files::event::EventCounter;
use crate::files::memory::MemoryFile;
use crate::files::{File, generation, pipe};
use crate::kernel::Kernel;

/// Limits of `getrlimit(RLIMIT_NOFILE)`.
pub(super) const DESCRIPTOR_LIMIT: u64 = DESCRIPTORS_MAX as u64;
/// Longest name of a memory file.
const MEMORY_FILE_NAME_BYTES: usize = 249;

/// Lets go of an open file; the last one to do so releases it.
pub(crate) fn let_go(kernel: &mut Kernel, open: Rc<OpenFile>) {
    if let Some(entry) = &open.location {
        let node = &entry.node;
        node.volume.locks.release_process(node.number, kernel.process.id);
    }
    if Rc::strong_count(&open) == 1 {
        open.file.release(kernel);
    }
}

/// Lets go of the files that were under way between sockets and that nobody will receive. What is under way to one of
/// those comes after it.
pub(super) fn let_go_of_discarded(kernel: &mut Kernel) {
    while let Some(open) = kernel.network.discarded.pop() {
        let_go(kernel, open);
    }
}

pub(super) fn close(kernel: &mut Kernel, [descriptor, ..]: Arguments) -> CallResult {
    let open = kernel.process.files.remove(descriptor)?;
    let_go(kernel, open);
    Ok(0)
}

pub(super) fn close_range(kernel: &mut Kernel, [first, last, flags, ..]: Arguments) -> CallResult {
    const UNSHARE: u64 = 2;
    const CLOEXEC: u64 = 4;
    if flags & !(UNSHARE | CLOEXEC) != 0 || first as u32 > last as u32 {
        return Err(Errno::EINVAL.into());
    }
    let end = u64::from(last as u32).min(DESCRIPTOR_LIMIT - 1);
    for descriptor in u64::from(first as u32)..=end {
        if flags & CLOEXEC != 0 {
            // Absent numbers are passed over.
            let _ = kernel.process.files.set_close_on_exec(descriptor, true);
        } else if let Ok(open) = kernel.process.files.remove(descriptor) {
            let_go(kernel, open);
        }
    }
    Ok(0)
}

/// Gives a new file the lowest descriptor.
pub(super) fn add(kernel: &mut Kernel, file: Rc<dyn File>, status: u32, close_on_exec: bool) -> CallResult {
    Ok(kernel
        .process
        .files
        .add(OpenFile::new(file, status), close_on_exec, 0)?)
}

pub(super) fn ioctl(kernel: &mut Kernel, [descriptor, request, argument, ..]: Arguments) -> CallResult {
    let open = kernel.process.files.get(descriptor)?;
    match request as u32 {
        FIONBIO => {
            let enabled = kernel.process.space.read_u32(argument)? != 0;
            let rest = open.flags.get() & !linux::O_NONBLOCK;
            open.flags.set(rest | if enabled { linux::O_NONBLOCK } else { 0 });
        }
        // Nobody is signalled.
        FIOASYNC => {}
        FIOCLEX => kernel.process.files.set_close_on_exec(descriptor, true)?,
        FIONCLEX => kernel.process.files.set_close_on_exec(descriptor, false)?,
        FIONREAD
            if open
                .file
                .as_socket()
                .is_some_and(|socket| socket.protocol.is_listening()) =>
        {
            return Err(Errno::EINVAL.into());
        }
        FIONREAD => {
            let count = match open.file.size() {
                Some(size) => size.saturating_sub(open.position.get()),
                None => open.file.waiting_bytes().ok_or(Errno::ENOTTY)?,
            };
            let count = count.min(i32::MAX as u64) as u32;
            kernel.process.space.write(argument, &count.to_le_bytes())?;
        }
        generation::SET_TRACKING => match open.file.as_watcher() {
            Some(watcher) => watcher.set_tracked(argument != 0),
            None => return Err(Errno::ENOTTY.into()),
        },
        request => match open.file.as_socket() {
            Some(socket) => return super::network::ioctl(kernel, socket, request, argument),
            // Nothing here is a terminal.
            None => return Err(Errno::ENOTTY.into()),
        },
    }
    Ok(0)
}

pub(super) fn fcntl(kernel: &mut Kernel, [descriptor, command, argument, ..]: Arguments) -> CallResult {
    let open = kernel.process.files.get(descriptor)?;
    match command as u32 {
        linux::F_DUPFD => Ok(kernel.process.files.add(open, false, argument)?),
        linux::F_DUPFD_CLOEXEC => Ok(kernel.process.files.add(open, true, argument)?),
        linux::F_GETFD => Ok(u64::from(kernel.process.files.close_on_exec(descriptor)?)),
        linux::F_SETFD => {
            kernel
                .process
                .files
                .set_close_on_exec(descriptor, argument & u64::from(linux::FD_CLOEXEC) != 0)?;
            Ok(0)
        }
        linux::F_GETFL => Ok(u64::from(open.flags.get())),
        _ if open.flags.get() & linux::O_PATH != 0 => Err(Errno::EBADF.into()),
        linux::F_SETFL => {
            let changeable =
                linux::O_NONBLOCK | linux::O_APPEND | linux::FASYNC | linux::O_DIRECT | linux::O_NOATIME;
            open.flags
                .set(open.flags.get() & !changeable | argument as u32 & changeable);
            Ok(0)
        }
        linux::F_ADD_SEALS => {
            let file = open.file.as_memory_file().ok_or(Errno::EINVAL)?;
            if !open.is_writable() {
                return Err(Errno::EPERM.into());
            }
            file.add_seals(argument as u32)?;
            Ok(0)
        }
        linux::F_GET_SEALS => {
            let file = open.file.as_memory_file().ok_or(Errno::EINVAL)?;
            Ok(u64::from(file.seals()))
        }
        linux::F_GETLK
        | linux::F_SETLK
        | linux::F_SETLKW
        | linux::F_OFD_GETLK
        | linux::F_OFD_SETLK
        | linux::F_OFD_SETLKW => locking::fcntl_lock(kernel, &open, command as u32, argument),
        linux::F_GETPIPE_SZ => {
            let pipe = open.file.as_pipe().ok_or(Errno::EBADF)?;
            Ok(pipe.capacity() as u64)
        }
        linux::F_SETPIPE_SZ => {
            let pipe = open.file.as_pipe().ok_or(Errno::EBADF)?;
            let wanted = usize::try_from(argument as u32).map_err(|_| Errno::EINVAL)?;
            Ok(pipe.set_capacity(&kernel.budget, wanted)? as u64)
        }
        // Whom to signal: taken note of by nobody.
        linux::F_SETOWN | linux::F_SETSIG | linux::F_GETOWN | linux::F_GETSIG => Ok(0),
        _ => Err(Errno::EINVAL.into()),
    }
}

pub(super) fn dup(kernel: &mut Kernel, [descriptor, ..]: Arguments) -> CallResult {
    let open = kernel.process.files.get(descriptor)?;
    Ok(kernel.process.files.add(open, false, 0)?)
}

pub(super) fn dup2(kernel: &mut Kernel, [old, new, ..]: Arguments) -> CallResult {
    let open = kernel.process.files.get(old)?;
    if old == new {
        return Ok(new);
    }
    replace(kernel, new, open, false)
}

pub(super) fn dup3(kernel: &mut Kernel, [old, new, flags, ..]: Arguments) -> CallResult {
    if old == new || flags & !u64::from(linux::O_CLOEXEC) != 0 {
        return Err(Errno::EINVAL.into());
    }
    let open = kernel.process.files.get(old)?;
    replace(kernel, new, open, flags != 0)
}

fn replace(kernel: &mut Kernel, number: u64, open: Rc<OpenFile>, close_on_exec: bool) -> CallResult {
    if let Some(previous) = kernel.process.files.set(number, open, close_on_exec)? {
        let_go(kernel, previous);
    }
    Ok(number)
}

pub(super) fn pipe2(kernel: &mut Kernel, [address, flags, ..]: Arguments) -> CallResult {
    let flags = flags as u32;
    if flags & !(linux::O_CLOEXEC | linux::O_NONBLOCK | linux::O_DIRECT) != 0 {
        return Err(Errno::EINVAL.into());
    }
    let number = kernel.next_inode();
    let (reader, writer) = pipe::new(&kernel.ready, &kernel.budget, number).ok_or(Errno::ENFILE)?;
    let status = flags & linux::O_NONBLOCK;
    let close_on_exec = flags & linux::O_CLOEXEC != 0;
    let first = add(kernel, Rc::new(reader), linux::O_RDONLY | status, close_on_exec)?;
    let second = match add(kernel, Rc::new(writer), linux::O_WRONLY | status, close_on_exec) {
        Ok(second) => second,
        Err(failure) => {
            close(kernel, [first, 0, 0, 0, 0, 0])?;
            return Err(failure);
        }
    };
    let mut numbers = [0; 8];
    numbers[..4].copy_from_slice(&(first as u32).to_le_bytes());
    numbers[4..].copy_from_slice(&(second as u32).to_le_bytes());
    if let Err(error) = kernel.process.space.write(address, &numbers) {
        for descriptor in [first, second] {
            close(kernel, [descriptor, 0, 0, 0, 0, 0])?;
        }
        return Err(error.into());
    }
    Ok(0)
}

pub(super) fn eventfd2(kernel: &mut Kernel, [count, flags, ..]: Arguments) -> CallResult {
    let flags = flags as u32;
    if flags & !(linux::EFD_CLOEXEC | linux::EFD_NONBLOCK | linux::EFD_SEMAPHORE) != 0 {
        return Err(Errno::EINVAL.into());
    }
    let counter = EventCounter::new(
        count & 0xffff_ffff,
        flags & linux::EFD_SEMAPHORE != 0,
        &kernel.ready,
    );
    let status = linux::O_RDWR | flags & linux::O_NONBLOCK;
    add(kernel, Rc::new(counter), status, flags & linux::EFD_CLOEXEC != 0)
}

pub(super) fn memfd_create(kernel: &mut Kernel, [name, flags, ..]: Arguments) -> CallResult {
    let flags = u32::try_from(flags).map_err(|_| Errno::EINVAL)?;
    let known = linux::MFD_CLOEXEC | linux::MFD_ALLOW_SEALING | linux::MFD_NOEXEC_SEAL | linux::MFD_EXEC;
    let both = linux::MFD_NOEXEC_SEAL | linux::MFD_EXEC;
    if flags & !known != 0 || flags & both == both {
        return Err(Errno::EINVAL.into());
    }
    let name = kernel
        .process
        .space
        .read_string(name, MEMORY_FILE_NAME_BYTES, Errno::EINVAL)?;
    let inode = kernel.next_inode();
    let can_be_sealed = flags & (linux::MFD_ALLOW_SEALING | linux::MFD_NOEXEC_SEAL) != 0;
    let file = MemoryFile::new(&kernel.frames, name, can_be_sealed, inode);
    if flags & linux::MFD_NOEXEC_SEAL != 0 {
        file.set_permissions(0o666);
        file.add_seals(linux::F_SEAL_EXEC)?;
    }
    let close_on_exec = flags & linux::MFD_CLOEXEC != 0;
    add(
        kernel,
        Rc::new(file),
        linux::O_RDWR | linux::O_LARGEFILE,
        close_on_exec,
    )
}
