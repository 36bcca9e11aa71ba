//! Reading, writing, positions.

use alloc::rc::Rc;

use linux_raw_sys::general as linux;

use super::{Arguments, CallResult, Failure};
use crate::errno::Errno;
use crate::files::contents::FILE_BYTES_MAX;
use crate::files::descriptors::OpenFile;
use crate::files::{File, Kind, Positions};
use crate::kernel::Kernel;
use crate::memory::Buffers;
use crate::network::socket::Socket;
use crate::signals::SignalInfo;
use crate::time::monotonic_ns;

/// How long a call may wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Patience {
    /// Not at all.
    None,
    /// This many nanoseconds in all.
    Span(u64),
    /// For ever.
    Endless,
}

impl Patience {
    /// What an open file's flags and a socket's time-out say.
    pub(super) fn new(non_blocking: bool, timeout_ns: Option<u64>) -> Self {
        match timeout_ns {
            _ if non_blocking => Self::None,
            Some(timeout_ns) => Self::Span(timeout_ns),
            None => Self::Endless,
        }
    }
}

/// Waits for `file` to move, as long as the call may.
pub(super) fn wait_for(kernel: &mut Kernel, file: &dyn File, patience: Patience) -> Failure {
    let Some(queue) = file.wait_queue() else {
        return Failure::Errno(Errno::EAGAIN);
    };
    match patience {
        Patience::None => return Failure::Errno(Errno::EAGAIN),
        Patience::Span(span_ns) => {
            let now_ns = monotonic_ns();
            let deadline_ns = *kernel
                .task()
                .memory
                .deadline_ns
                .get_or_insert(now_ns.saturating_add(span_ns));
            if now_ns >= deadline_ns {
                return Failure::Errno(Errno::EAGAIN);
            }
        }
        Patience::Endless => {}
    }
    queue.add_task(kernel.current);
    Failure::Wait
}

/// The open file behind a descriptor that is to be read.
pub(super) fn readable(kernel: &Kernel, descriptor: u64) -> Result<Rc<OpenFile>, Errno> {
    let open = kernel.process.files.get(descriptor)?;
    if open.is_readable() {
        Ok(open)
    } else {
        Err(Errno::EBADF)
    }
}

/// The open file behind a descriptor that is to be written.
pub(super) fn writable(kernel: &Kernel, descriptor: u64) -> Result<Rc<OpenFile>, Errno> {
    let open = kernel.process.files.get(descriptor)?;
    if open.is_writable() {
        Ok(open)
    } else {
        Err(Errno::EBADF)
    }
}

/// Reads at the open file's position, or at one of its own.
pub(super) fn read_open(
    kernel: &mut Kernel,
    open: &Rc<OpenFile>,
    mut buffers: Buffers,
    position: Option<u64>,
) -> CallResult {
    if open.file.kind() == Kind::Directory {
        return Err(Errno::EISDIR.into());
    }
    match (open.file.positions(), position) {
        (Positions::None, Some(_)) => return Err(Errno::ESPIPE.into()),
        (Positions::None, None) | (Positions::Ignored, _) => {}
        (Positions::Kept, position) => {
            let start = position.unwrap_or_else(|| open.position.get());
            let done = open.file.read_at(kernel, start, &mut buffers)?;
            if position.is_none() {
                open.position.set(start.saturating_add(done));
            }
            return Ok(done);
        }
    }
    match open.file.read(kernel, &mut buffers) {
        Err(Errno::EAGAIN) => {
            let timeout_ns = open.file.as_socket().and_then(Socket::receive_timeout_ns);
            let patience = Patience::new(open.is_non_blocking(), timeout_ns);
            Err(wait_for(kernel, &*open.file, patience))
        }
        other => Ok(other?),
    }
}

/// Writes at the open file's position, or at one of its own; `appends` writes at the end whatever the position.
pub(super) fn write_open(
    kernel: &mut Kernel,
    open: &Rc<OpenFile>,
    mut buffers: Buffers,
    position: Option<u64>,
    appends: bool,
) -> CallResult {
    match (open.file.positions(), position) {
        (Positions::None, Some(_)) => Err(Errno::ESPIPE.into()),
        (Positions::Kept, position) => {
            let appends = appends || open.flags.get() & linux::O_APPEND != 0;
            let start = match (appends, position) {
                (true, _) => open.file.size().unwrap_or(0),
                (false, Some(position)) => position,
                (false, None) => open.position.get(),
            };
            if buffers.remaining() == 0 {
                return Ok(0);
            }
            let done = open.file.write_at(kernel, start, &mut buffers)?;
            if position.is_none() {
                open.position.set(start.saturating_add(done));
            }
            Ok(done)
        }
        _ => send_all(kernel, open, buffers, open.is_non_blocking(), true),
    }
}

/// Writes all of the buffers, waiting for room in between if the call may wait. A broken pipe raises SIGPIPE.
pub(super) fn send_all(
    kernel: &mut Kernel,
    open: &Rc<OpenFile>,
    mut buffers: Buffers,
    non_blocking: bool,
    raises_signal: bool,
) -> CallResult {
    let wanted = buffers.remaining();
    buffers.skip(kernel.task().memory.progress);
    let timeout_ns = open.file.as_socket().and_then(Socket::send_timeout_ns);
    loop {
        match open.file.write(kernel, &mut buffers) {
            Ok(done) if !open.file.is_stream() => return Ok(done),
            Ok(_) if buffers.remaining() == 0 => return Ok(wanted),
            Ok(0) => return Ok(wanted - buffers.remaining()),
            Ok(_) => {}
            Err(error) => {
                let done = wanted - buffers.remaining();
                if error == Errno::EAGAIN {
                    kernel.task().memory.progress = done;
                    match wait_for(kernel, &*open.file, Patience::new(non_blocking, timeout_ns)) {
                        Failure::Errno(_) if done > 0 => return Ok(done),
                        failure => return Err(failure),
                    }
                }
                if error == Errno::EPIPE && raises_signal {
                    let info = SignalInfo::sent(linux::SIGPIPE, 0, kernel.process.id);
                    kernel.raise_thread(kernel.current, info);
                }
                if done > 0 {
                    return Ok(done);
                }
                return Err(error.into());
            }
        }
    }
}

/// A position that a program names.
pub(super) fn position(value: u64) -> Result<u64, Errno> {
    if value > FILE_BYTES_MAX {
        return Err(Errno::EINVAL);
    }
    Ok(value)
}

pub(super) fn read(kernel: &mut Kernel, [descriptor, address, length, ..]: Arguments) -> CallResult {
    let open = readable(kernel, descriptor)?;
    read_open(kernel, &open, Buffers::single(address, length), None)
}

pub(super) fn write(kernel: &mut Kernel, [descriptor, address, length, ..]: Arguments) -> CallResult {
    let open = writable(kernel, descriptor)?;
    write_open(kernel, &open, Buffers::single(address, length), None, false)
}

pub(super) fn pread64(kernel: &mut Kernel, [descriptor, address, length, at, ..]: Arguments) -> CallResult {
    let at = position(at)?;
    let open = readable(kernel, descriptor)?;
    read_open(kernel, &open, Buffers::single(address, length), Some(at))
}

pub(super) fn pwrite64(kernel: &mut Kernel, [descriptor, address, length, at, ..]: Arguments) -> CallResult {
    let at = position(at)?;
    let open = writable(kernel, descriptor)?;
    write_open(kernel, &open, Buffers::single(address, length), Some(at), false)
}

pub(super) fn readv(kernel: &mut Kernel, [descriptor, address, count, ..]: Arguments) -> CallResult {
    let open = readable(kernel, descriptor)?;
    let buffers = Buffers::vector(&mut kernel.process.space, address, count)?;
    read_open(kernel, &open, buffers, None)
}

pub(super) fn writev(kernel: &mut Kernel, [descriptor, address, count, ..]: Arguments) -> CallResult {
    let open = writable(kernel, descriptor)?;
    let buffers = Buffers::vector(&mut kernel.process.space, address, count)?;
    write_open(kernel, &open, buffers, None, false)
}

pub(super) fn preadv(kernel: &mut Kernel, [descriptor, address, count, at, ..]: Arguments) -> CallResult {
    let at = position(at)?;
    let open = readable(kernel, descriptor)?;
    let buffers = Buffers::vector(&mut kernel.process.space, address, count)?;
    read_open(kernel, &open, buffers, Some(at))
}

pub(super) fn pwritev(kernel: &mut Kernel, [descriptor, address, count, at, ..]: Arguments) -> CallResult {
    let at = position(at)?;
    let open = writable(kernel, descriptor)?;
    let buffers = Buffers::vector(&mut kernel.process.space, address, count)?;
    write_open(kernel, &open, buffers, Some(at), false)
}

/// The position and the flags of `preadv2` and `pwritev2`; position -1 is the open file's own.
fn extended(at: u64, flags: u64, known: u32) -> Result<(Option<u64>, u32), Errno> {
    let flags = u32::try_from(flags).map_err(|_| Errno::EOPNOTSUPP)?;
    if flags & !known != 0 {
        return Err(Errno::EOPNOTSUPP);
    }
    let at = if at == u64::MAX { None } else { Some(position(at)?) };
    Ok((at, flags))
}

const RWF_READ: u32 = linux::RWF_HIPRI | linux::RWF_NOWAIT;
const RWF_WRITE: u32 =
    linux::RWF_HIPRI | linux::RWF_DSYNC | linux::RWF_SYNC | linux::RWF_NOWAIT | linux::RWF_APPEND;

pub(super) fn preadv2(kernel: &mut Kernel, arguments: Arguments) -> CallResult {
    let [descriptor, address, count, at, _, flags] = arguments;
    let (at, _) = extended(at, flags, RWF_READ)?;
    let open = readable(kernel, descriptor)?;
    let buffers = Buffers::vector(&mut kernel.process.space, address, count)?;
    read_open(kernel, &open, buffers, at)
}

pub(super) fn pwritev2(kernel: &mut Kernel, arguments: Arguments) -> CallResult {
    let [descriptor, address, count, at, _, flags] = arguments;
    let (at, flags) = extended(at, flags, RWF_WRITE)?;
    let open = writable(kernel, descriptor)?;
    let buffers = Buffers::vector(&mut kernel.process.space, address, count)?;
    write_open(kernel, &open, buffers, at, flags & linux::RWF_APPEND != 0)
}

pub(super) fn lseek(kernel: &mut Kernel, [descriptor, offset, whence, ..]: Arguments) -> CallResult {
    let open = kernel.process.files.get(descriptor)?;
    if open.flags.get() & linux::O_PATH != 0 {
        return Err(Errno::EBADF.into());
    }
    match open.file.positions() {
        Positions::None => return Err(Errno::ESPIPE.into()),
        Positions::Ignored => return Ok(0),
        Positions::Kept => {}
    }
    let offset = offset.cast_signed();
    let size = open.file.size().unwrap_or(FILE_BYTES_MAX).cast_signed();
    let target = match u32::try_from(whence).map_err(|_| Errno::EINVAL)? {
        linux::SEEK_SET => Some(offset),
        linux::SEEK_CUR => open.position.get().cast_signed().checked_add(offset),
        linux::SEEK_END => size.checked_add(offset),
        kind @ (linux::SEEK_DATA | linux::SEEK_HOLE) => {
            let from = u64::try_from(offset).map_err(|_| Errno::ENXIO)?;
            let found = open.file.seek_data(from, kind == linux::SEEK_HOLE)?;
            Some(found.cast_signed())
        }
        _ => return Err(Errno::EINVAL.into()),
    };
    let target = target.ok_or(Errno::EOVERFLOW)?;
    let target = u64::try_from(target).map_err(|_| Errno::EINVAL)?;
    open.position.set(target);
    Ok(target)
}

pub(super) fn fsync(kernel: &mut Kernel, [descriptor, ..]: Arguments) -> CallResult {
    let open = kernel.process.files.get(descriptor)?;
    open.file.sync()?;
    Ok(0)
}

pub(super) fn ftruncate(kernel: &mut Kernel, [descriptor, length, ..]: Arguments) -> CallResult {
    let length = position(length)?;
    let open = kernel.process.files.get(descriptor)?;
    if open.flags.get() & linux::O_PATH != 0 {
        return Err(Errno::EBADF.into());
    }
    if !open.is_writable() {
        return Err(Errno::EINVAL.into());
    }
    open.file.truncate(kernel, length)?;
    Ok(0)
}

pub(super) fn fallocate(
    kernel: &mut Kernel,
    [descriptor, mode, offset, length, ..]: Arguments,
) -> CallResult {
    let open = writable(kernel, descriptor)?;
    if position(offset).is_err() || position(length).is_err() || length == 0 {
        return Err(Errno::EINVAL.into());
    }
    let mode = u32::try_from(mode).map_err(|_| Errno::EOPNOTSUPP)?;
    open.file.allocate(kernel, mode, offset, length)?;
    Ok(0)
}

pub(super) fn fadvise64(kernel: &mut Kernel, [descriptor, _, length, advice, ..]: Arguments) -> CallResult {
    let open = kernel.process.files.get(descriptor)?;
    if open.file.kind() == Kind::Pipe {
        return Err(Errno::ESPIPE.into());
    }
    if length.cast_signed() < 0 || advice > 5 {
        return Err(Errno::EINVAL.into());
    }
    Ok(0)
}

pub(super) fn sync_file_range(
    kernel: &mut Kernel,
    [descriptor, offset, length, flags, ..]: Arguments,
) -> CallResult {
    let open = kernel.process.files.get(descriptor)?;
    if flags > 7 || offset.cast_signed() < 0 || length.cast_signed() < 0 {
        return Err(Errno::EINVAL.into());
    }
    if open.file.kind() == Kind::Pipe {
        return Err(Errno::ESPIPE.into());
    }
    Ok(0)
}
