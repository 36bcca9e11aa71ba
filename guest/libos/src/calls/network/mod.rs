//! Sockets: making, naming, connecting.
//!
//! [`messages`] sends and receives; [`options`] has `setsockopt`, `getsockopt` and `ioctl`.

mod control;
mod messages;
mod options;

pub(super) use messages::{recvfrom, recvmmsg, recvmsg, sendmmsg, sendmsg, sendto};
pub(super) use options::{getsockopt, ioctl, setsockopt};

use alloc::boxed::Box;
use alloc::rc::Rc;
use alloc::vec;
use alloc::vec::Vec;

use linux_raw_sys::general as linux;
use linux_raw_sys::net;

use super::descriptors::{add, close};
use super::transfer::{Patience, wait_for};
use super::{Arguments, CallResult, Failure};
use crate::errno::Errno;
use crate::files::descriptors::OpenFile;
use crate::kernel::Kernel;
use crate::network::address::Family;
use crate::network::netlink::Netlink;
use crate::network::options::Options;
use crate::network::socket::{Attempt, Common, Condition, Form, Protocol, Socket};
use crate::network::tcp::Tcp;
use crate::network::udp::Udp;
use crate::network::unix;

const SOCK_TYPE_MASK: u32 = 0xf;
/// One more than the highest type of socket.
const SOCK_MAX: u32 = 11;
const SOCK_CLOEXEC: u32 = linux::O_CLOEXEC;
const SOCK_NONBLOCK: u32 = linux::O_NONBLOCK;
/// Longest `struct sockaddr` that is taken.
const ADDRESS_BYTES_MAX: u64 = 128;
/// One more than the highest address family.
const AF_MAX: u64 = 46;
const IPPROTO_TCP: u64 = net::IPPROTO_TCP as u64;
const IPPROTO_UDP: u64 = net::IPPROTO_UDP as u64;

/// Runs `work` on the socket behind a descriptor.
fn with_socket<R>(
    kernel: &mut Kernel,
    descriptor: u64,
    work: impl FnOnce(&mut Kernel, &Rc<OpenFile>, &Socket) -> Result<R, Failure>,
) -> Result<R, Failure> {
    let open = kernel.process.files.get(descriptor)?;
    if open.flags.get() & linux::O_PATH != 0 {
        return Err(Errno::EBADF.into());
    }
    let socket = open.file.as_socket().ok_or(Errno::ENOTSOCK)?;
    work(kernel, &open, socket)
}

/// The form and the flags in the type that `socket` is given.
fn parse_kind(kind: u64) -> Result<(Form, u32), Errno> {
    let kind = kind as u32;
    if kind & !(SOCK_TYPE_MASK | SOCK_CLOEXEC | SOCK_NONBLOCK) != 0 || kind & SOCK_TYPE_MASK >= SOCK_MAX {
        return Err(Errno::EINVAL);
    }
    let form = match kind & SOCK_TYPE_MASK {
        net::SOCK_STREAM => Form::Stream,
        net::SOCK_DGRAM => Form::Datagram,
        net::SOCK_RAW => Form::Raw,
        net::SOCK_SEQPACKET => Form::Records,
        _ => return Err(Errno::ESOCKTNOSUPPORT),
    };
    Ok((form, kind & !SOCK_TYPE_MASK))
}

fn add_socket(kernel: &mut Kernel, socket: Socket, flags: u32) -> CallResult {
    let status = linux::O_RDWR | flags & SOCK_NONBLOCK;
    add(kernel, Rc::new(socket), status, flags & SOCK_CLOEXEC != 0)
}

pub(super) fn socket(kernel: &mut Kernel, [domain, kind, protocol, ..]: Arguments) -> CallResult {
    if domain >= AF_MAX {
        return Err(Errno::EAFNOSUPPORT.into());
    }
    let (form, flags) = parse_kind(kind)?;
    let socket = match domain as u32 {
        net::AF_INET => internet(kernel, Family::V4, form, protocol)?,
        net::AF_INET6 => internet(kernel, Family::V6, form, protocol)?,
        net::AF_UNIX if protocol > 1 => return Err(Errno::EPROTONOSUPPORT.into()),
        net::AF_UNIX => unix::socket(kernel, form),
        net::AF_NETLINK => netlink(kernel, form, protocol)?,
        _ => return Err(Errno::EAFNOSUPPORT.into()),
    };
    add_socket(kernel, socket, flags)
}

fn internet(kernel: &Kernel, family: Family, form: Form, protocol: u64) -> Result<Socket, Errno> {
    let domain = match family {
        Family::V4 => net::AF_INET,
        Family::V6 => net::AF_INET6,
    };
    let condition = Condition::new(&kernel.ready);
    let (own, number): (Box<dyn Protocol>, u64) = match (form, protocol) {
        (Form::Stream, 0 | IPPROTO_TCP) => (Box::new(Tcp::new(family)), IPPROTO_TCP),
        (Form::Datagram, 0 | IPPROTO_UDP) => (Box::new(Udp::new(kernel, family, &condition)), IPPROTO_UDP),
        (Form::Stream | Form::Datagram, _) => return Err(Errno::EPROTONOSUPPORT),
        // Raw packets need a network that has packets.
        (Form::Raw, _) => return Err(Errno::EPERM),
        (Form::Records, _) => return Err(Errno::ESOCKTNOSUPPORT),
    };
    let options = Options::default();
    if form == Form::Stream {
        // The middle values of net.ipv4.tcp_wmem and tcp_rmem.
        options.preset(net::SOL_SOCKET, net::SO_SNDBUF, 16_384);
        options.preset(net::SOL_SOCKET, net::SO_RCVBUF, 131_072);
    }
    Ok(Socket {
        common: Common {
            domain,
            form,
            protocol: number as u32,
            options,
            condition,
        },
        protocol: own,
    })
}

fn netlink(kernel: &Kernel, form: Form, protocol: u64) -> Result<Socket, Errno> {
    if !matches!(form, Form::Raw | Form::Datagram) {
        return Err(Errno::ESOCKTNOSUPPORT);
    }
    if protocol != 0 {
        return Err(Errno::EPROTONOSUPPORT);
    }
    Ok(Socket {
        common: Common {
            domain: net::AF_NETLINK,
            form,
            protocol: 0,
            options: Options::default(),
            condition: Condition::new(&kernel.ready),
        },
        protocol: Box::new(Netlink::new(kernel)),
    })
}

pub(super) fn socketpair(
    kernel: &mut Kernel,
    [domain, kind, protocol, address, ..]: Arguments,
) -> CallResult {
    if domain >= AF_MAX {
        return Err(Errno::EAFNOSUPPORT.into());
    }
    let (form, flags) = parse_kind(kind)?;
    match domain as u32 {
        net::AF_UNIX if protocol > 1 => return Err(Errno::EPROTONOSUPPORT.into()),
        net::AF_UNIX => {}
        net::AF_INET | net::AF_INET6 | net::AF_NETLINK => return Err(Errno::EOPNOTSUPP.into()),
        _ => return Err(Errno::EAFNOSUPPORT.into()),
    }
    let [first, second] = unix::socket_pair(kernel, form);
    let first = add_socket(kernel, first, flags)?;
    let second = match add_socket(kernel, second, flags) {
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

/// The `struct sockaddr` that a program gives.
fn read_address(kernel: &mut Kernel, address: u64, length: u64) -> Result<Vec<u8>, Errno> {
    let length = u64::from(length as u32);
    if length > ADDRESS_BYTES_MAX {
        return Err(Errno::EINVAL);
    }
    let mut bytes = vec![0; length as usize];
    kernel.process.space.read(address, &mut bytes)?;
    Ok(bytes)
}

pub(super) fn bind(kernel: &mut Kernel, [descriptor, address, length, ..]: Arguments) -> CallResult {
    with_socket(kernel, descriptor, |kernel, _, socket| {
        let address = read_address(kernel, address, length)?;
        socket.protocol.bind(kernel, &socket.common, &address)?;
        Ok(0)
    })
}

pub(super) fn listen(kernel: &mut Kernel, [descriptor, backlog, ..]: Arguments) -> CallResult {
    with_socket(kernel, descriptor, |kernel, _, socket| {
        // Negative is as many as possible.
        let backlog = backlog as u32 as usize;
        socket.protocol.listen(kernel, &socket.common, backlog)?;
        Ok(0)
    })
}

pub(super) fn accept4(kernel: &mut Kernel, arguments: Arguments) -> CallResult {
    let [descriptor, address, length_address, flags, ..] = arguments;
    let flags = flags as u32;
    if flags & !(SOCK_CLOEXEC | SOCK_NONBLOCK) != 0 {
        return Err(Errno::EINVAL.into());
    }
    with_socket(kernel, descriptor, |kernel, open, socket| {
        // Without a descriptor for it, the connection must stay in the backlog.
        if !kernel.process.files.has_room() {
            return Err(Errno::EMFILE.into());
        }
        match socket.protocol.accept(kernel, &socket.common) {
            Err(Errno::EAGAIN) => {
                let patience = Patience::new(open.is_non_blocking(), socket.receive_timeout_ns());
                Err(wait_for(kernel, socket, patience))
            }
            Err(error) => Err(error.into()),
            Ok(accepted) => {
                if address != 0 {
                    let remote = accepted.protocol.remote().unwrap_or_default();
                    write_address(kernel, &remote, address, length_address)?;
                }
                add_socket(kernel, accepted, flags)
            }
        }
    })
}

pub(super) fn connect(kernel: &mut Kernel, [descriptor, address, length, ..]: Arguments) -> CallResult {
    with_socket(kernel, descriptor, |kernel, open, socket| {
        let address = read_address(kernel, address, length)?;
        let non_blocking = open.is_non_blocking();
        let attempt = Attempt {
            non_blocking,
            is_retry: kernel.task().memory.progress == 1,
        };
        match socket.protocol.connect(kernel, &socket.common, &address, attempt) {
            Ok(()) => Ok(0),
            Err(error @ (Errno::EINPROGRESS | Errno::EAGAIN)) => {
                if error == Errno::EINPROGRESS {
                    kernel.task().memory.progress = 1;
                }
                let patience = Patience::new(non_blocking, socket.send_timeout_ns());
                match wait_for(kernel, socket, patience) {
                    Failure::Errno(_) => Err(error.into()),
                    waits => Err(waits),
                }
            }
            Err(error) => Err(error.into()),
        }
    })
}

/// Writes an address as `accept` and `getsockname` do: cut off at the given length, with the full length returned.
fn write_address(kernel: &mut Kernel, value: &[u8], address: u64, length_address: u64) -> Result<(), Errno> {
    let room = kernel.process.space.read_u32(length_address)?;
    if room > i32::MAX as u32 {
        return Err(Errno::EINVAL);
    }
    kernel
        .process
        .space
        .write(address, &value[..value.len().min(room as usize)])?;
    kernel
        .process
        .space
        .write(length_address, &(value.len() as u32).to_le_bytes())
}

pub(super) fn getsockname(kernel: &mut Kernel, [descriptor, address, length, ..]: Arguments) -> CallResult {
    with_socket(kernel, descriptor, |kernel, _, socket| {
        write_address(kernel, &socket.protocol.local(), address, length)?;
        Ok(0)
    })
}

pub(super) fn getpeername(kernel: &mut Kernel, [descriptor, address, length, ..]: Arguments) -> CallResult {
    with_socket(kernel, descriptor, |kernel, _, socket| {
        let remote = socket.protocol.remote()?;
        write_address(kernel, &remote, address, length)?;
        Ok(0)
    })
}

pub(super) fn shutdown(kernel: &mut Kernel, [descriptor, how, ..]: Arguments) -> CallResult {
    with_socket(kernel, descriptor, |kernel, _, socket| {
        let (read, write) = match how as u32 {
            0 => (true, false),
            1 => (false, true),
            2 => (true, true),
            _ => return Err(Errno::EINVAL.into()),
        };
        socket.protocol.shut(kernel, &socket.common, read, write)?;
        Ok(0)
    })
}
