//! Moving bytes between files without the program's memory: `sendfile`, `splice`, `tee`, `copy_file_range`.

use alloc::rc::Rc;

use spore_abi::layout::PAGE_BYTES;
use spore_machine::user::Place;

use super::transfer::{Patience, position, read_open, readable, wait_for, writable, write_open};
use super::{Arguments, CallResult, Failure};
use crate::errno::Errno;
use crate::files::descriptors::OpenFile;
use crate::files::{File, Kind, Positions};
use crate::kernel::Kernel;
use crate::memory::Buffers;
use crate::signals::SignalInfo;
use linux_raw_sys::general as linux;

/// Memory through which bytes go.
const SCRATCH_BYTES: u64 = 16 * PAGE_BYTES;
/// What one call copies between files at most.
const COPY_BYTES_MAX: u64 = 64 << 20;

/// A piece of RAM for the time of a call.
struct Scratch {
    frames: crate::memory::frames::SharedFrames,
    gpa: u64,
    bytes: u64,
}

impl Scratch {
    fn new(kernel: &Kernel) -> Result<Self, Errno> {
        let (gpa, bytes) = kernel
            .frames
            .borrow_mut()
            .take_some(SCRATCH_BYTES)
            .ok_or(Errno::ENOMEM)?;
        Ok(Self {
            frames: Rc::clone(&kernel.frames),
            gpa,
            bytes,
        })
    }

    fn buffers(&self, length: u64) -> Buffers {
        Buffers::at_place(Place::Frame(self.gpa), length.min(self.bytes))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        self.frames.borrow_mut().give_back(self.gpa, self.bytes);
    }
}

/// A position that a call gives by address; `None` if it gives none.
fn given_position(kernel: &mut Kernel, address: u64) -> Result<Option<u64>, Errno> {
    if address == 0 {
        return Ok(None);
    }
    let at = kernel.process.space.read_u64(address)?;
    position(at).map(Some)
}

/// Stores where a call has got to.
fn store_position(kernel: &mut Kernel, address: u64, at: Option<u64>) -> Result<(), Errno> {
    match at {
        Some(at) => kernel.process.space.write(address, &at.to_le_bytes()),
        None => Ok(()),
    }
}

pub(super) fn sendfile(kernel: &mut Kernel, [to, from, offset, count, ..]: Arguments) -> CallResult {
    let from = readable(kernel, from)?;
    let to = writable(kernel, to)?;
    let start = given_position(kernel, offset)?;
    if from.file.positions() != Positions::Kept || from.file.kind() != Kind::Regular {
        let error = if start.is_some() {
            Errno::ESPIPE
        } else {
            Errno::EINVAL
        };
        return Err(error.into());
    }
    if to.flags.get() & linux::O_APPEND != 0 {
        return Err(Errno::EINVAL.into());
    }
    let first = start.unwrap_or_else(|| from.position.get());
    let done = copy(kernel, &from, first, &to, None, count)?;
    match start {
        Some(start) => store_position(kernel, offset, Some(start + done))?,
        None => from.position.set(first + done),
    }
    Ok(done)
}

/// Copies from a position of one file to another one; waits only if nothing was copied.
fn copy(
    kernel: &mut Kernel,
    from: &Rc<OpenFile>,
    start: u64,
    to: &Rc<OpenFile>,
    to_start: Option<u64>,
    count: u64,
) -> CallResult {
    let scratch = Scratch::new(kernel)?;
    let wanted = count.min(COPY_BYTES_MAX);
    let mut total = 0;
    while total < wanted {
        let length = (wanted - total).min(scratch.bytes);
        let at = start.checked_add(total).ok_or(Errno::EOVERFLOW)?;
        let read = match from.file.read_at(kernel, at, &mut scratch.buffers(length)) {
            Ok(0) => break,
            Ok(read) => read,
            Err(error) if total == 0 => return Err(error.into()),
            Err(_) => break,
        };
        let to_at = to_start.map(|start| start.saturating_add(total));
        match write_part(kernel, to, scratch.buffers(read), to_at) {
            Ok(written) => {
                total += written;
                if written < read {
                    break;
                }
            }
            Err(failure) if total == 0 => return Err(failure),
            Err(_) => break,
        }
    }
    Ok(total)
}

/// Writes once, as much as goes; waits only if that is nothing.
fn write_part(kernel: &mut Kernel, to: &Rc<OpenFile>, mut buffers: Buffers, at: Option<u64>) -> CallResult {
    if to.file.positions() != Positions::None {
        return write_open(kernel, to, buffers, at, false);
    }
    // A pipe takes small writes as a whole or not at all; here, a part will do.
    if let Some(pipe) = to.file.as_pipe()
        && pipe.has_readers()
        && pipe.room() > 0
    {
        buffers.limit(pipe.room());
    }
    match to.file.write(kernel, &mut buffers) {
        Ok(done) => Ok(done),
        Err(Errno::EAGAIN) => {
            let patience = Patience::new(to.is_non_blocking(), None);
            Err(wait_for(kernel, &*to.file, patience))
        }
        Err(error) => {
            if error == Errno::EPIPE {
                let info = SignalInfo::sent(linux::SIGPIPE, 0, kernel.process.id);
                kernel.raise_thread(kernel.current, info);
            }
            Err(error.into())
        }
    }
}

pub(super) fn copy_file_range(kernel: &mut Kernel, arguments: Arguments) -> CallResult {
    let [from, from_offset, to, to_offset, count, flags] = arguments;
    if flags != 0 {
        return Err(Errno::EINVAL.into());
    }
    let from = readable(kernel, from)?;
    let to = writable(kernel, to)?;
    for open in [&from, &to] {
        match open.file.kind() {
            Kind::Regular => {}
            Kind::Directory => return Err(Errno::EISDIR.into()),
            _ => return Err(Errno::EINVAL.into()),
        }
    }
    if to.flags.get() & linux::O_APPEND != 0 {
        return Err(Errno::EBADF.into());
    }
    let from_given = given_position(kernel, from_offset)?;
    let to_given = given_position(kernel, to_offset)?;
    let from_start = from_given.unwrap_or_else(|| from.position.get());
    let to_start = to_given.unwrap_or_else(|| to.position.get());
    let is_same =
        from.metadata().inode == to.metadata().inode && from.metadata().device == to.metadata().device;
    if is_same && from_start < to_start.saturating_add(count) && to_start < from_start.saturating_add(count) {
        return Err(Errno::EINVAL.into());
    }
    let done = copy(kernel, &from, from_start, &to, Some(to_start), count)?;
    match from_given {
        Some(start) => store_position(kernel, from_offset, Some(start + done))?,
        None => from.position.set(from_start + done),
    }
    match to_given {
        Some(start) => store_position(kernel, to_offset, Some(start + done))?,
        None => to.position.set(to_start + done),
    }
    Ok(done)
}

const SPLICE_NONBLOCK: u64 = 2;
const SPLICE_FLAGS: u64 = 15;

pub(super) fn splice(kernel: &mut Kernel, arguments: Arguments) -> CallResult {
    let [from, from_offset, to, to_offset, count, flags] = arguments;
    if flags & !SPLICE_FLAGS != 0 {
        return Err(Errno::EINVAL.into());
    }
    let from = readable(kernel, from)?;
    let to = writable(kernel, to)?;
    if count == 0 {
        return Ok(0);
    }
    let is_impatient = flags & SPLICE_NONBLOCK != 0;
    let (from_pipe, to_pipe) = (from.file.as_pipe(), to.file.as_pipe());
    if (from_pipe.is_some() && from_offset != 0) || (to_pipe.is_some() && to_offset != 0) {
        return Err(Errno::ESPIPE.into());
    }
    match (from_pipe, to_pipe) {
        (None, None) => Err(Errno::EINVAL.into()),
        (Some(source), Some(target)) if source.is_same_pipe(target) => Err(Errno::EINVAL.into()),
        (Some(_), _) => {
            let at = given_position(kernel, to_offset)?;
            if at.is_some() && to.file.positions() == Positions::None {
                return Err(Errno::ESPIPE.into());
            }
            if to.flags.get() & linux::O_APPEND != 0 {
                return Err(Errno::EINVAL.into());
            }
            let done = from_pipe_to(kernel, &from, &to, at, count, is_impatient, true)?;
            store_position(kernel, to_offset, at.map(|at| at + done))?;
            Ok(done)
        }
        (None, Some(_)) => {
            let at = given_position(kernel, from_offset)?;
            if at.is_some() && from.file.positions() == Positions::None {
                return Err(Errno::ESPIPE.into());
            }
            let done = to_pipe_from(kernel, &from, at, &to, count, is_impatient)?;
            store_position(kernel, from_offset, at.map(|at| at + done))?;
            Ok(done)
        }
    }
}

fn wait_unless(kernel: &mut Kernel, is_impatient: bool, open: &OpenFile, file: &dyn File) -> Failure {
    let patience = Patience::new(is_impatient || open.is_non_blocking(), None);
    wait_for(kernel, file, patience)
}

/// Moves (or, for `tee`, copies) from a pipe.
fn from_pipe_to(
    kernel: &mut Kernel,
    from: &Rc<OpenFile>,
    to: &Rc<OpenFile>,
    at: Option<u64>,
    count: u64,
    is_impatient: bool,
    takes: bool,
) -> CallResult {
    let pipe = from.file.as_pipe().ok_or(Errno::EINVAL)?;
    let waiting = from.file.waiting_bytes().unwrap_or(0);
    if waiting == 0 {
        if !pipe.has_writers() {
            return Ok(0);
        }
        return Err(wait_unless(kernel, is_impatient, from, &*from.file));
    }
    if let Some(target) = to.file.as_pipe()
        && target.has_readers()
        && target.room() == 0
    {
        return Err(wait_unless(kernel, is_impatient, to, &*to.file));
    }
    let scratch = Scratch::new(kernel)?;
    let length = pipe.copy_out(kernel, &mut scratch.buffers(count.min(waiting)))?;
    let done = write_part(kernel, to, scratch.buffers(length), at)?;
    if takes {
        pipe.discard(done);
    }
    Ok(done)
}

/// Moves from a file to a pipe, as much as fits.
fn to_pipe_from(
    kernel: &mut Kernel,
    from: &Rc<OpenFile>,
    at: Option<u64>,
    to: &Rc<OpenFile>,
    count: u64,
    is_impatient: bool,
) -> CallResult {
    let pipe = to.file.as_pipe().ok_or(Errno::EINVAL)?;
    if pipe.has_readers() && pipe.room() == 0 {
        return Err(wait_unless(kernel, is_impatient, to, &*to.file));
    }
    let scratch = Scratch::new(kernel)?;
    let room = if pipe.has_readers() { pipe.room() } else { count };
    let read = read_open(kernel, from, scratch.buffers(count.min(room)), at)?;
    if read == 0 {
        return Ok(0);
    }
    write_part(kernel, to, scratch.buffers(read), None)
}

pub(super) fn tee(kernel: &mut Kernel, [from, to, count, flags, ..]: Arguments) -> CallResult {
    if flags & !SPLICE_FLAGS != 0 {
        return Err(Errno::EINVAL.into());
    }
    let from = readable(kernel, from)?;
    let to = writable(kernel, to)?;
    let (Some(source), Some(target)) = (from.file.as_pipe(), to.file.as_pipe()) else {
        return Err(Errno::EINVAL.into());
    };
    if source.is_same_pipe(target) {
        return Err(Errno::EINVAL.into());
    }
    if count == 0 {
        return Ok(0);
    }
    from_pipe_to(
        kernel,
        &from,
        &to,
        None,
        count,
        flags & SPLICE_NONBLOCK != 0,
        false,
    )
}

pub(super) fn vmsplice(
    kernel: &mut Kernel,
    [descriptor, address, count, flags, ..]: Arguments,
) -> CallResult {
    if flags & !SPLICE_FLAGS != 0 {
        return Err(Errno::EINVAL.into());
    }
    let open = kernel.process.files.get(descriptor)?;
    let pipe = open.file.as_pipe().ok_or(Errno::EBADF)?;
    let writes = pipe.writes() && open.is_writable();
    let buffers = Buffers::vector(&mut kernel.process.space, address, count)?;
    if writes {
        return super::transfer::send_all(
            kernel,
            &open,
            buffers,
            open.is_non_blocking() || flags & SPLICE_NONBLOCK != 0,
            true,
        );
    }
    read_open(kernel, &open, buffers, None)
}
