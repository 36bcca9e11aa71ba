//! Descriptors, reading and writing, paths.

use alloc::rc::Rc;
use alloc::vec::Vec;

use linux_raw_sys::general as linux;
use linux_raw_sys::ioctl::{FIOCLEX, FIONBIO, FIONCLEX, FIONREAD};

use super::{Arguments, CallResult, Failure};
use crate::errno::Errno;
use crate::files::descriptors::{DESCRIPTORS_MAX, OpenFile};
use crate::files::event::EventCounter;
use crate::files::{File, devices, pipe};
use crate::kernel::Kernel;
use crate::memory::Buffers;
use crate::network::socket::Socket;
use crate::signals::SignalInfo;
use crate::time::monotonic_ns;

/// Longest path, with its zero.
const PATH_BYTES_MAX: usize = 4096;

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

fn read_from(kernel: &mut Kernel, descriptor: u64, mut buffers: Buffers) -> CallResult {
    let open = kernel.process.files.get(descriptor)?;
    if open.flags.get() & linux::O_ACCMODE == linux::O_WRONLY {
        return Err(Errno::EBADF.into());
    }
    match open.file.read(kernel, &mut buffers) {
        Err(Errno::EAGAIN) => {
            let timeout_ns = open.file.as_socket().and_then(Socket::receive_timeout_ns);
            Err(wait_for(
                kernel,
                &*open.file,
                Patience::new(open.is_non_blocking(), timeout_ns),
            ))
        }
        other => Ok(other?),
    }
}

fn write_to(kernel: &mut Kernel, descriptor: u64, buffers: Buffers) -> CallResult {
    let open = kernel.process.files.get(descriptor)?;
    if open.flags.get() & linux::O_ACCMODE == linux::O_RDONLY {
        return Err(Errno::EBADF.into());
    }
    send_all(kernel, &open, buffers, open.is_non_blocking(), true)
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
                if done > 0 {
                    return Ok(done);
                }
                if error == Errno::EPIPE && raises_signal {
                    kernel.raise_thread(
                        kernel.current,
                        SignalInfo::sent(linux::SIGPIPE, 0, kernel.process.id),
                    );
                }
                return Err(error.into());
            }
        }
    }
}

pub(super) fn read(kernel: &mut Kernel, [descriptor, address, length, ..]: Arguments) -> CallResult {
    read_from(kernel, descriptor, Buffers::single(address, length))
}

pub(super) fn write(kernel: &mut Kernel, [descriptor, address, length, ..]: Arguments) -> CallResult {
    write_to(kernel, descriptor, Buffers::single(address, length))
}

pub(super) fn readv(kernel: &mut Kernel, [descriptor, address, count, ..]: Arguments) -> CallResult {
    let buffers = Buffers::vector(&mut kernel.process.space, address, count)?;
    read_from(kernel, descriptor, buffers)
}

pub(super) fn writev(kernel: &mut Kernel, [descriptor, address, count, ..]: Arguments) -> CallResult {
    let buffers = Buffers::vector(&mut kernel.process.space, address, count)?;
    write_to(kernel, descriptor, buffers)
}

/// `lseek`, `pread64`, `pwrite64`: none of the files has a position.
pub(super) fn seek(kernel: &mut Kernel, [descriptor, ..]: Arguments) -> CallResult {
    kernel.process.files.get(descriptor)?;
    Err(Errno::ESPIPE.into())
}

/// Lets go of an open file; the last one to do so releases it.
fn let_go(kernel: &mut Kernel, open: Rc<OpenFile>) {
    if Rc::strong_count(&open) == 1 {
        open.file.release(kernel);
    }
}

pub(super) fn close(kernel: &mut Kernel, [descriptor, ..]: Arguments) -> CallResult {
    let open = kernel.process.files.remove(descriptor)?;
    let_go(kernel, open);
    Ok(0)
}

fn path(kernel: &mut Kernel, address: u64) -> Result<Vec<u8>, Errno> {
    kernel
        .process
        .space
        .read_string(address, PATH_BYTES_MAX - 1, Errno::ENAMETOOLONG)
}

pub(super) fn open(kernel: &mut Kernel, path_address: u64, flags: u64) -> CallResult {
    let path = path(kernel, path_address)?;
    let file = devices::by_path(&path).ok_or(Errno::ENOENT)?;
    let flags = flags as u32;
    if flags & linux::O_DIRECTORY != 0 {
        return Err(Errno::ENOTDIR.into());
    }
    if flags & linux::O_CREAT != 0 && flags & linux::O_EXCL != 0 {
        return Err(Errno::EEXIST.into());
    }
    let status = flags & (linux::O_ACCMODE | linux::O_NONBLOCK | linux::O_APPEND);
    add(kernel, file, status, flags & linux::O_CLOEXEC != 0)
}

/// Gives a new file the lowest descriptor.
pub(super) fn add(kernel: &mut Kernel, file: Rc<dyn File>, status: u32, close_on_exec: bool) -> CallResult {
    Ok(kernel
        .process
        .files
        .add(OpenFile::new(file, status), close_on_exec, 0)?)
}

/// `struct stat` (asm/stat.h) of a file that has neither size nor times.
fn encode_stat(mode: u32) -> [u8; 144] {
    let mut bytes = [0; 144];
    bytes[16..24].copy_from_slice(&1_u64.to_le_bytes());
    bytes[24..28].copy_from_slice(&mode.to_le_bytes());
    bytes[56..64].copy_from_slice(&4096_u64.to_le_bytes());
    bytes
}

pub(super) fn fstat(kernel: &mut Kernel, [descriptor, address, ..]: Arguments) -> CallResult {
    let open = kernel.process.files.get(descriptor)?;
    kernel
        .process
        .space
        .write(address, &encode_stat(open.file.kind().mode() | 0o600))?;
    Ok(0)
}

pub(super) fn stat(kernel: &mut Kernel, path_address: u64, address: u64) -> CallResult {
    let path = path(kernel, path_address)?;
    let mode = match path.as_slice() {
        b"/" | b"/dev" => linux::S_IFDIR | 0o755,
        other => devices::by_path(other).ok_or(Errno::ENOENT)?.kind().mode() | 0o666,
    };
    kernel.process.space.write(address, &encode_stat(mode))?;
    Ok(0)
}

pub(super) fn newfstatat(kernel: &mut Kernel, arguments: Arguments) -> CallResult {
    let [descriptor, path_address, address, flags, ..] = arguments;
    if flags & u64::from(linux::AT_EMPTY_PATH) != 0 && path(kernel, path_address)?.is_empty() {
        return fstat(kernel, [descriptor, address, 0, 0, 0, 0]);
    }
    stat(kernel, path_address, address)
}

pub(super) fn access(kernel: &mut Kernel, path_address: u64) -> CallResult {
    let path = path(kernel, path_address)?;
    let exists = matches!(path.as_slice(), b"/" | b"/dev") || devices::by_path(&path).is_some();
    if exists { Ok(0) } else { Err(Errno::ENOENT.into()) }
}

pub(super) fn readlink(kernel: &mut Kernel, path_address: u64) -> CallResult {
    let path = path(kernel, path_address)?;
    let exists = matches!(path.as_slice(), b"/" | b"/dev") || devices::by_path(&path).is_some();
    Err(if exists { Errno::EINVAL } else { Errno::ENOENT }.into())
}

pub(super) fn getcwd(kernel: &mut Kernel, [address, length, ..]: Arguments) -> CallResult {
    let path = b"/\0";
    if length < path.len() as u64 {
        return Err(Errno::ERANGE.into());
    }
    kernel.process.space.write(address, path)?;
    Ok(path.len() as u64)
}

pub(super) fn ioctl(kernel: &mut Kernel, [descriptor, request, argument, ..]: Arguments) -> CallResult {
    let open = kernel.process.files.get(descriptor)?;
    match request as u32 {
        FIONBIO => {
            let enabled = kernel.process.space.read_u32(argument)? != 0;
            let rest = open.flags.get() & !linux::O_NONBLOCK;
            open.flags.set(rest | if enabled { linux::O_NONBLOCK } else { 0 });
        }
        FIOCLEX => kernel.process.files.set_close_on_exec(descriptor, true)?,
        FIONCLEX => kernel.process.files.set_close_on_exec(descriptor, false)?,
        FIONREAD => {
            let socket = open.file.as_socket().ok_or(Errno::ENOTTY)?;
            let count = socket.stream().map_or(0, |stream| stream.waiting_bytes());
            kernel.process.space.write(argument, &count.to_le_bytes())?;
        }
        // Nothing here is a terminal.
        _ => return Err(Errno::ENOTTY.into()),
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
        linux::F_SETFL => {
            let changeable = linux::O_NONBLOCK | linux::O_APPEND;
            open.flags
                .set(open.flags.get() & !changeable | argument as u32 & changeable);
            Ok(0)
        }
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
    let open = kernel.process.files.get(old)?;
    if old == new || flags & !u64::from(linux::O_CLOEXEC) != 0 {
        return Err(Errno::EINVAL.into());
    }
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
    let (reader, writer) = pipe::new(&kernel.ready, &kernel.budget).ok_or(Errno::ENFILE)?;
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

/// Limits of `getrlimit(RLIMIT_NOFILE)`.
pub(super) const DESCRIPTOR_LIMIT: u64 = DESCRIPTORS_MAX as u64;
