//! Sockets.

use alloc::rc::Rc;
use alloc::vec;

use linux_raw_sys::general as linux;
use linux_raw_sys::net;

use super::files::{Patience, add, send_all, wait_for};
use super::{Arguments, CallResult, Failure};
use crate::errno::Errno;
use crate::files::descriptors::OpenFile;
use crate::kernel::Kernel;
use crate::memory::Buffers;
use crate::network::address::{Address, Family};
use crate::network::socket::Socket;
use crate::time::SECOND_NS;

const SOCK_TYPE_MASK: u32 = 0xf;
const SOCK_STREAM: u32 = 1;
const SOCK_CLOEXEC: u32 = linux::O_CLOEXEC;
const SOCK_NONBLOCK: u32 = linux::O_NONBLOCK;
const MSG_PEEK: u64 = 2;
const MSG_DONTWAIT: u64 = 0x40;
const MSG_WAITALL: u64 = 0x100;
const MSG_NOSIGNAL: u64 = 0x4000;
/// What `SO_SNDBUF` and `SO_RCVBUF` say: the size of a stream's ring.
const BUFFER_BYTES: u32 = spore_abi::layout::STREAM_RING_BYTES;
/// Longest `struct sockaddr` that is read.
const ADDRESS_BYTES_MAX: u64 = 128;

/// Runs `work` on the socket behind a descriptor.
fn with_socket<R>(
    kernel: &mut Kernel,
    descriptor: u64,
    work: impl FnOnce(&mut Kernel, &Rc<OpenFile>, &Socket) -> Result<R, Failure>,
) -> Result<R, Failure> {
    let open = kernel.process.files.get(descriptor)?;
    let socket = open.file.as_socket().ok_or(Errno::ENOTSOCK)?;
    work(kernel, &open, socket)
}

pub(super) fn socket(kernel: &mut Kernel, [domain, kind, protocol, ..]: Arguments) -> CallResult {
    let family = match u32::try_from(domain) {
        Ok(net::AF_INET) => Family::V4,
        Ok(net::AF_INET6) => Family::V6,
        _ => return Err(Errno::EAFNOSUPPORT.into()),
    };
    let kind = kind as u32;
    if kind & !(SOCK_TYPE_MASK | SOCK_CLOEXEC | SOCK_NONBLOCK) != 0 {
        return Err(Errno::EINVAL.into());
    }
    if kind & SOCK_TYPE_MASK != SOCK_STREAM {
        return Err(Errno::ESOCKTNOSUPPORT.into());
    }
    if protocol != 0 && protocol != net::IPPROTO_TCP as u64 {
        return Err(Errno::EPROTONOSUPPORT.into());
    }
    let socket = Socket::new(family, &kernel.ready);
    add(
        kernel,
        Rc::new(socket),
        linux::O_RDWR | kind & SOCK_NONBLOCK,
        kind & SOCK_CLOEXEC != 0,
    )
}

pub(super) fn bind(kernel: &mut Kernel, [descriptor, address, length, ..]: Arguments) -> CallResult {
    with_socket(kernel, descriptor, |kernel, _, socket| {
        let mut bytes = vec![0; length.min(ADDRESS_BYTES_MAX) as usize];
        kernel.process.space.read(address, &mut bytes)?;
        let address = Address::parse(&bytes, socket.family())?;
        socket.bind(kernel, address)?;
        Ok(0)
    })
}

pub(super) fn listen(kernel: &mut Kernel, [descriptor, ..]: Arguments) -> CallResult {
    with_socket(kernel, descriptor, |kernel, _, socket| {
        socket.listen(kernel)?;
        Ok(0)
    })
}

pub(super) fn accept4(kernel: &mut Kernel, arguments: Arguments) -> CallResult {
    let [descriptor, address, length_address, flags, ..] = arguments;
    let flags = flags as u32;
    if flags & !(SOCK_CLOEXEC | SOCK_NONBLOCK) != 0 {
        return Err(Errno::EINVAL.into());
    }
    // Without a descriptor for it, the stream must stay in the backlog.
    if !kernel.process.files.has_room() {
        return Err(Errno::EMFILE.into());
    }
    with_socket(kernel, descriptor, |kernel, open, socket| match socket.accept() {
        Err(Errno::EAGAIN) => {
            let patience = Patience::new(open.is_non_blocking(), socket.receive_timeout_ns());
            Err(wait_for(kernel, socket, patience))
        }
        Err(error) => Err(error.into()),
        Ok(accepted) => {
            if address != 0 {
                write_address(kernel, &accepted.remote()?, address, length_address)?;
            }
            let status = linux::O_RDWR | flags & SOCK_NONBLOCK;
            add(kernel, Rc::new(accepted), status, flags & SOCK_CLOEXEC != 0)
        }
    })
}

/// There is nowhere to connect to: no egress, and no listener of the program's own is reachable by address.
pub(super) fn connect(kernel: &mut Kernel, [descriptor, ..]: Arguments) -> CallResult {
    with_socket(kernel, descriptor, |_, _, socket| {
        let is_connected = socket.stream().is_ok();
        Err(if is_connected {
            Errno::EISCONN
        } else {
            Errno::ENETUNREACH
        }
        .into())
    })
}

/// Writes an address as `accept` and `getsockname` do: cut off at the given length, with the full length returned.
fn write_address(
    kernel: &mut Kernel,
    value: &Address,
    address: u64,
    length_address: u64,
) -> Result<(), Errno> {
    let room = kernel.process.space.read_u32(length_address)?;
    if room > i32::MAX as u32 {
        return Err(Errno::EINVAL);
    }
    let bytes = value.encode();
    kernel
        .process
        .space
        .write(address, &bytes[..bytes.len().min(room as usize)])?;
    kernel
        .process
        .space
        .write(length_address, &(bytes.len() as u32).to_le_bytes())
}

pub(super) fn getsockname(kernel: &mut Kernel, [descriptor, address, length, ..]: Arguments) -> CallResult {
    with_socket(kernel, descriptor, |kernel, _, socket| {
        write_address(kernel, &socket.local(), address, length)?;
        Ok(0)
    })
}

pub(super) fn getpeername(kernel: &mut Kernel, [descriptor, address, length, ..]: Arguments) -> CallResult {
    with_socket(kernel, descriptor, |kernel, _, socket| {
        let remote = socket.remote()?;
        write_address(kernel, &remote, address, length)?;
        Ok(0)
    })
}

/// Time-outs are kept; other options tune a network that is not there, and those that servers set are accepted.
pub(super) fn setsockopt(kernel: &mut Kernel, arguments: Arguments) -> CallResult {
    let [descriptor, level, name, address, length, _] = arguments;
    with_socket(kernel, descriptor, |kernel, _, socket| {
        let known = [
            net::SOL_SOCKET,
            net::IPPROTO_TCP as u32,
            net::IPPROTO_IP as u32,
            net::IPPROTO_IPV6 as u32,
        ];
        let level = u32::try_from(level)
            .ok()
            .filter(|level| known.contains(level))
            .ok_or(Errno::ENOPROTOOPT)?;
        let receives = match (level, name as u32) {
            (net::SOL_SOCKET, net::SO_RCVTIMEO_OLD | net::SO_RCVTIMEO_NEW) => true,
            (net::SOL_SOCKET, net::SO_SNDTIMEO_OLD | net::SO_SNDTIMEO_NEW) => false,
            _ => return Ok(0),
        };
        if length < 16 {
            return Err(Errno::EINVAL.into());
        }
        let seconds = kernel.process.space.read_u64(address)?;
        let microseconds = kernel.process.space.read_u64(address.wrapping_add(8))?;
        if seconds > i64::MAX as u64 || microseconds >= 1_000_000 {
            return Err(Errno(linux_raw_sys::errno::EDOM).into());
        }
        let span_ns = seconds
            .saturating_mul(SECOND_NS)
            .saturating_add(microseconds * 1000);
        // Zero means for ever.
        socket.set_timeout(receives, Some(span_ns).filter(|&span_ns| span_ns > 0));
        Ok(0)
    })
}

pub(super) fn getsockopt(kernel: &mut Kernel, arguments: Arguments) -> CallResult {
    let [descriptor, level, name, address, length_address, _] = arguments;
    with_socket(kernel, descriptor, |kernel, _, socket| {
        let value = match (level as u32, name as u32) {
            (net::SOL_SOCKET, net::SO_TYPE) => SOCK_STREAM,
            (net::SOL_SOCKET, net::SO_DOMAIN) => match socket.family() {
                Family::V4 => net::AF_INET,
                Family::V6 => net::AF_INET6,
            },
            (net::SOL_SOCKET, net::SO_PROTOCOL) => net::IPPROTO_TCP as u32,
            (net::SOL_SOCKET, net::SO_ACCEPTCONN) => u32::from(socket.is_listening()),
            (net::SOL_SOCKET, net::SO_SNDBUF | net::SO_RCVBUF) => BUFFER_BYTES,
            (net::SOL_SOCKET, _) => 0,
            (level, _) if level == net::IPPROTO_TCP as u32 => 0,
            _ => return Err(Errno::ENOPROTOOPT.into()),
        };
        let room = kernel.process.space.read_u32(length_address)?.min(4) as usize;
        kernel
            .process
            .space
            .write(address, &value.to_le_bytes()[..room])?;
        kernel
            .process
            .space
            .write(length_address, &(room as u32).to_le_bytes())?;
        Ok(0)
    })
}

fn send(kernel: &mut Kernel, descriptor: u64, buffers: Buffers, flags: u64) -> CallResult {
    with_socket(kernel, descriptor, |kernel, open, socket| {
        socket.stream().map_err(|_| Errno::ENOTCONN)?;
        let non_blocking = open.is_non_blocking() || flags & MSG_DONTWAIT != 0;
        send_all(kernel, open, buffers, non_blocking, flags & MSG_NOSIGNAL == 0)
    })
}

fn receive(kernel: &mut Kernel, descriptor: u64, mut buffers: Buffers, flags: u64) -> CallResult {
    with_socket(kernel, descriptor, |kernel, open, socket| {
        let stream = socket.stream()?;
        let non_blocking = open.is_non_blocking() || flags & MSG_DONTWAIT != 0;
        let peek = flags & MSG_PEEK != 0;
        let patience = Patience::new(non_blocking, socket.receive_timeout_ns());
        let before = kernel.task().memory.progress;
        buffers.skip(before);
        let mut total = before;
        loop {
            match stream.read(kernel, &mut buffers, peek) {
                Ok(count) => {
                    total += count;
                    let wants_more =
                        flags & MSG_WAITALL != 0 && !peek && count > 0 && buffers.remaining() > 0;
                    if !wants_more {
                        return Ok(total);
                    }
                }
                Err(Errno::EAGAIN) => {
                    kernel.task().memory.progress = total;
                    match wait_for(kernel, socket, patience) {
                        Failure::Errno(_) if total > 0 => return Ok(total),
                        failure => return Err(failure),
                    }
                }
                Err(_) if total > 0 => return Ok(total),
                Err(error) => return Err(error.into()),
            }
        }
    })
}

pub(super) fn sendto(kernel: &mut Kernel, [descriptor, address, length, flags, ..]: Arguments) -> CallResult {
    send(kernel, descriptor, Buffers::single(address, length), flags)
}

pub(super) fn recvfrom(kernel: &mut Kernel, arguments: Arguments) -> CallResult {
    let [descriptor, address, length, flags, _, length_address] = arguments;
    let count = receive(kernel, descriptor, Buffers::single(address, length), flags)?;
    if length_address != 0 {
        // A connected stream reports no address.
        kernel.process.space.write(length_address, &0_u32.to_le_bytes())?;
    }
    Ok(count)
}

/// The buffers of a `struct msghdr`.
fn message_buffers(kernel: &mut Kernel, message: u64) -> Result<Buffers, Errno> {
    let vector = kernel.process.space.read_u64(message.wrapping_add(16))?;
    let count = kernel.process.space.read_u64(message.wrapping_add(24))?;
    Buffers::vector(&mut kernel.process.space, vector, count)
}

pub(super) fn sendmsg(kernel: &mut Kernel, [descriptor, message, flags, ..]: Arguments) -> CallResult {
    let buffers = message_buffers(kernel, message)?;
    send(kernel, descriptor, buffers, flags)
}

pub(super) fn recvmsg(kernel: &mut Kernel, [descriptor, message, flags, ..]: Arguments) -> CallResult {
    let buffers = message_buffers(kernel, message)?;
    let count = receive(kernel, descriptor, buffers, flags)?;
    // No address, no control data, no flags.
    kernel
        .process
        .space
        .write(message.wrapping_add(8), &0_u32.to_le_bytes())?;
    kernel
        .process
        .space
        .write(message.wrapping_add(40), &0_u64.to_le_bytes())?;
    kernel
        .process
        .space
        .write(message.wrapping_add(48), &0_u32.to_le_bytes())?;
    Ok(count)
}

pub(super) fn shutdown(kernel: &mut Kernel, [descriptor, how, ..]: Arguments) -> CallResult {
    with_socket(kernel, descriptor, |_, _, socket| {
        let (read, write) = match how {
            0 => (true, false),
            1 => (false, true),
            2 => (true, true),
            _ => return Err(Errno::EINVAL.into()),
        };
        socket.stream()?.shut(read, write);
        Ok(0)
    })
}
