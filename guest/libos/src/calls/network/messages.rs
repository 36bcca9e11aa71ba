//! Sending and receiving.

use alloc::rc::Rc;

use linux_raw_sys::general::{SIGPIPE, UIO_MAXIOV};
use linux_raw_sys::net::{
    MSG_CMSG_CLOEXEC, MSG_DONTWAIT, MSG_ERRQUEUE, MSG_NOSIGNAL, MSG_OOB, MSG_PEEK, MSG_TRUNC, MSG_WAITALL,
};

use super::super::transfer::{Patience, wait_for};
use super::super::{Arguments, CallResult, Failure};
use super::{control, read_address, with_socket, write_address};
use crate::errno::Errno;
use crate::files::descriptors::OpenFile;
use crate::kernel::Kernel;
use crate::memory::Buffers;
use crate::network::inbox::{Ancillary, Incoming};
use crate::network::socket::{Form, Outgoing, Socket};
use crate::signals::SignalInfo;
use crate::time::{monotonic_ns, parse_timespec};

/// `MSG_WAITFORONE` of `recvmmsg`: after the first message, wait for no more.
const MSG_WAITFORONE: u32 = 0x1_0000;
/// Most messages of one `sendmmsg` or `recvmmsg` (`UIO_MAXIOV`).
const MESSAGES_MAX: u64 = 1024;
/// Length of a `struct mmsghdr`.
const MMSGHDR_BYTES: u64 = 64;

/// A `struct msghdr`.
struct Header {
    address: u64,
    name: u64,
    name_length: u32,
    vector: u64,
    vector_count: u64,
    control: u64,
    control_length: u64,
}

impl Header {
    fn read(kernel: &mut Kernel, address: u64) -> Result<Self, Errno> {
        let bytes: [u8; 56] = kernel.process.space.read_array(address)?;
        let word = |at: usize| {
            let mut word = [0; 8];
            word.copy_from_slice(&bytes[at..at + 8]);
            u64::from_le_bytes(word)
        };
        Ok(Self {
            address,
            name: word(0),
            name_length: word(8) as u32,
            vector: word(16),
            vector_count: word(24),
            control: word(32),
            control_length: word(40),
        })
    }

    fn buffers(&self, kernel: &mut Kernel) -> Result<Buffers, Errno> {
        if self.vector_count > u64::from(UIO_MAXIOV) {
            return Err(Errno::EMSGSIZE);
        }
        Buffers::vector(&mut kernel.process.space, self.vector, self.vector_count)
    }
}

/// Sends all of the buffers, waiting for room in between if the call may wait.
fn send(
    kernel: &mut Kernel,
    open: &Rc<OpenFile>,
    socket: &Socket,
    mut buffers: Buffers,
    mut outgoing: Outgoing,
    flags: u32,
) -> CallResult {
    if flags & MSG_OOB != 0 {
        return Err(Errno::EOPNOTSUPP.into());
    }
    let wanted = buffers.remaining();
    let before = kernel.task().memory.progress;
    buffers.skip(before);
    if before > 0 {
        // It has left with the first bytes.
        outgoing.ancillary = Ancillary::default();
    }
    let non_blocking = open.is_non_blocking() || flags & MSG_DONTWAIT != 0;
    loop {
        match socket
            .protocol
            .send(kernel, &socket.common, &mut buffers, &mut outgoing)
        {
            Ok(done) if !socket.is_byte_stream() => return Ok(done),
            Ok(done) if done == 0 || buffers.remaining() == 0 => return Ok(wanted - buffers.remaining()),
            Ok(_) => {}
            Err(error) => {
                let done = wanted - buffers.remaining();
                if error == Errno::EAGAIN {
                    kernel.task().memory.progress = done;
                    let patience = Patience::new(non_blocking, socket.send_timeout_ns());
                    match wait_for(kernel, socket, patience) {
                        Failure::Errno(_) if done > 0 => return Ok(done),
                        failure => return Err(failure),
                    }
                }
                if done > 0 {
                    return Ok(done);
                }
                let tells = matches!(socket.common.form, Form::Stream | Form::Records);
                if error == Errno::EPIPE && tells && flags & MSG_NOSIGNAL == 0 {
                    let info = SignalInfo::sent(SIGPIPE, 0, kernel.process.id);
                    kernel.raise_thread(kernel.current, info);
                }
                return Err(error.into());
            }
        }
    }
}

/// Receives, waiting for data if the call may wait.
fn receive(
    kernel: &mut Kernel,
    open: &Rc<OpenFile>,
    socket: &Socket,
    mut buffers: Buffers,
    flags: u32,
) -> Result<Incoming, Failure> {
    if flags & MSG_ERRQUEUE != 0 {
        return Err(Errno::EAGAIN.into());
    }
    if flags & MSG_OOB != 0 {
        return Err(Errno::EINVAL.into());
    }
    let non_blocking = open.is_non_blocking() || flags & MSG_DONTWAIT != 0;
    let peek = flags & MSG_PEEK != 0;
    let waits_for_all = flags & MSG_WAITALL != 0 && socket.is_byte_stream();
    let patience = Patience::new(non_blocking, socket.receive_timeout_ns());
    let before = if waits_for_all && !peek {
        kernel.task().memory.progress
    } else {
        0
    };
    buffers.skip(before);
    let mut total = before;
    loop {
        let failure = match socket
            .protocol
            .receive(kernel, &socket.common, &mut buffers, peek)
        {
            Ok(mut incoming) => {
                total += incoming.count;
                let is_short = incoming.count > 0 && buffers.remaining() > 0;
                let goes_on = waits_for_all && incoming.may_go_on && is_short;
                if !goes_on || (peek && non_blocking) {
                    incoming.count = total;
                    incoming.full = incoming.full.max(total);
                    return Ok(incoming);
                }
                if !peek {
                    continue;
                }
                // All is to be seen at once: look again when more has come.
                match wait_for(kernel, socket, patience) {
                    Failure::Errno(_) => {
                        incoming.count = total;
                        return Ok(incoming);
                    }
                    waits => return Err(waits),
                }
            }
            Err(Errno::EAGAIN) => {
                if !peek {
                    kernel.task().memory.progress = total;
                }
                wait_for(kernel, socket, patience)
            }
            Err(error) => Failure::Errno(error),
        };
        return match failure {
            Failure::Errno(_) if total > 0 => Ok(Incoming {
                count: total,
                full: total,
                ..Incoming::default()
            }),
            failure => Err(failure),
        };
    }
}

/// What a receiving call returns.
fn returned(socket: &Socket, incoming: &Incoming, flags: u32) -> u64 {
    if flags & MSG_TRUNC != 0 && !socket.is_byte_stream() {
        incoming.full
    } else {
        incoming.count
    }
}

fn sender(kernel: &Kernel) -> [u32; 3] {
    kernel.process.credentials()
}

pub(in super::super) fn sendto(kernel: &mut Kernel, arguments: Arguments) -> CallResult {
    let [descriptor, address, length, flags, name, name_length] = arguments;
    with_socket(kernel, descriptor, |kernel, open, socket| {
        let destination = match name {
            0 => None,
            name => Some(read_address(kernel, name, name_length)?),
        };
        let outgoing = Outgoing {
            destination,
            ancillary: Ancillary::default(),
            sender: sender(kernel),
        };
        let buffers = Buffers::single(address, length);
        send(kernel, open, socket, buffers, outgoing, flags as u32)
    })
}

pub(in super::super) fn recvfrom(kernel: &mut Kernel, arguments: Arguments) -> CallResult {
    let [descriptor, address, length, flags, name, name_length] = arguments;
    with_socket(kernel, descriptor, |kernel, open, socket| {
        let flags = flags as u32;
        let buffers = Buffers::single(address, length);
        let mut incoming = receive(kernel, open, socket, buffers, flags)?;
        kernel.network.discarded.append(&mut incoming.ancillary.rights);
        if name != 0 {
            let source = incoming.source.as_deref().unwrap_or_default();
            write_address(kernel, source, name, name_length)?;
        }
        Ok(returned(socket, &incoming, flags))
    })
}

fn send_message(
    kernel: &mut Kernel,
    open: &Rc<OpenFile>,
    socket: &Socket,
    address: u64,
    flags: u32,
) -> CallResult {
    let header = Header::read(kernel, address)?;
    let destination = match (header.name, header.name_length) {
        (0, _) | (_, 0) => None,
        (name, length) => Some(read_address(kernel, name, u64::from(length))?),
    };
    let buffers = header.buffers(kernel)?;
    let ancillary = if header.control == 0 {
        Ancillary::default()
    } else {
        control::read(kernel, socket, header.control, header.control_length)?
    };
    let outgoing = Outgoing {
        destination,
        ancillary,
        sender: sender(kernel),
    };
    send(kernel, open, socket, buffers, outgoing, flags)
}

fn receive_message(
    kernel: &mut Kernel,
    open: &Rc<OpenFile>,
    socket: &Socket,
    address: u64,
    flags: u32,
) -> CallResult {
    let header = Header::read(kernel, address)?;
    let buffers = header.buffers(kernel)?;
    let mut incoming = receive(kernel, open, socket, buffers, flags)?;
    let result = returned(socket, &incoming, flags);
    let ancillary = core::mem::take(&mut incoming.ancillary);
    let closes = flags & MSG_CMSG_CLOEXEC != 0;
    let room = if header.control == 0 {
        0
    } else {
        header.control_length
    };
    let (control_length, control_flags) =
        control::write(kernel, socket, ancillary, (header.control, room), closes)?;
    let mut told = flags & MSG_CMSG_CLOEXEC | control_flags;
    if incoming.is_record && incoming.count < incoming.full {
        told |= MSG_TRUNC;
    }
    if header.name != 0 {
        let source = incoming.source.as_deref().unwrap_or_default();
        let length = source.len().min(header.name_length as usize);
        kernel.process.space.write(header.name, &source[..length])?;
        let place = header.address.wrapping_add(8);
        kernel
            .process
            .space
            .write(place, &(source.len() as u32).to_le_bytes())?;
    }
    let place = header.address.wrapping_add(40);
    kernel.process.space.write(place, &control_length.to_le_bytes())?;
    let place = header.address.wrapping_add(48);
    kernel.process.space.write(place, &told.to_le_bytes())?;
    Ok(result)
}

pub(in super::super) fn sendmsg(
    kernel: &mut Kernel,
    [descriptor, message, flags, ..]: Arguments,
) -> CallResult {
    with_socket(kernel, descriptor, |kernel, open, socket| {
        send_message(kernel, open, socket, message, flags as u32)
    })
}

pub(in super::super) fn recvmsg(
    kernel: &mut Kernel,
    [descriptor, message, flags, ..]: Arguments,
) -> CallResult {
    with_socket(kernel, descriptor, |kernel, open, socket| {
        receive_message(kernel, open, socket, message, flags as u32)
    })
}

/// Runs `work` on each `struct mmsghdr` and leaves the lengths there; how many were done. What is done stays done when
/// the call waits in between.
fn each_message(
    kernel: &mut Kernel,
    address: u64,
    count: u64,
    mut work: impl FnMut(&mut Kernel, u64, u64) -> CallResult,
) -> CallResult {
    let count = count.min(MESSAGES_MAX);
    loop {
        let index = kernel.task().memory.count;
        if index >= count {
            return Ok(count);
        }
        let place = address.wrapping_add(index * MMSGHDR_BYTES);
        match work(kernel, place, index) {
            Ok(length) => {
                let length = (length as u32).to_le_bytes();
                kernel.process.space.write(place.wrapping_add(56), &length)?;
                let memory = &mut kernel.task().memory;
                memory.count = index + 1;
                memory.progress = 0;
            }
            Err(Failure::Errno(_)) if index > 0 => return Ok(index),
            Err(failure) => return Err(failure),
        }
    }
}

pub(in super::super) fn sendmmsg(
    kernel: &mut Kernel,
    [descriptor, messages, count, flags, ..]: Arguments,
) -> CallResult {
    with_socket(kernel, descriptor, |kernel, open, socket| {
        each_message(kernel, messages, u64::from(count as u32), |kernel, place, _| {
            send_message(kernel, open, socket, place, flags as u32)
        })
    })
}

pub(in super::super) fn recvmmsg(
    kernel: &mut Kernel,
    [descriptor, messages, count, flags, timeout, _]: Arguments,
) -> CallResult {
    with_socket(kernel, descriptor, |kernel, open, socket| {
        let deadline_ns = match timeout {
            0 => None,
            timeout => {
                let bytes = kernel.process.space.read_array(timeout)?;
                let span_ns = parse_timespec(bytes).ok_or(Errno::EINVAL)?;
                Some(monotonic_ns().saturating_add(span_ns))
            }
        };
        let flags = flags as u32;
        each_message(
            kernel,
            messages,
            u64::from(count as u32),
            |kernel, place, index| {
                // As on Linux the time is looked at after each message only.
                if index > 0 && deadline_ns.is_some_and(|deadline_ns| monotonic_ns() >= deadline_ns) {
                    return Err(Errno::EAGAIN.into());
                }
                let stops = index > 0 && flags & MSG_WAITFORONE != 0;
                let flags = flags & !MSG_WAITFORONE | if stops { MSG_DONTWAIT } else { 0 };
                receive_message(kernel, open, socket, place, flags)
            },
        )
    })
}
