//! `setsockopt`, `getsockopt`, and the requests of `ioctl` that sockets have.

use alloc::vec::Vec;

use linux_raw_sys::ioctl as requests;
use linux_raw_sys::net::{self, SOL_SOCKET};

use super::super::{Arguments, CallResult};
use super::with_socket;
use crate::errno::Errno;
use crate::kernel::Kernel;
use crate::network::netlink::{INTERFACES, Interface};
use crate::network::options::V6_ONLY;
use crate::network::socket::{Form, Socket};
use crate::time::SECOND_NS;

const TCP: u32 = net::IPPROTO_TCP as u32;
const IP: u32 = net::IPPROTO_IP as u32;
const IPV6: u32 = net::IPPROTO_IPV6 as u32;
const SOL_NETLINK: u32 = 270;
const TCP_CONGESTION: u32 = 13;
const TCP_INFO: u32 = 11;
/// Length of a `struct tcp_info`.
const TCP_INFO_BYTES: usize = 104;
const IP_MEMBERSHIPS: core::ops::RangeInclusive<u32> = 35..=48;
/// The `struct ifreq`: a name of 16 bytes, then 24 bytes that depend on the request.
const IFREQ_BYTES: usize = 40;

/// Whether a socket knows the options of a level.
fn check_level(socket: &Socket, level: u32) -> Result<(), Errno> {
    let is_known = match level {
        SOL_SOCKET => true,
        TCP => socket.is_internet() && socket.common.form == Form::Stream,
        IP => socket.is_internet(),
        IPV6 => socket.common.domain == net::AF_INET6,
        SOL_NETLINK => socket.common.domain == net::AF_NETLINK,
        _ => false,
    };
    match () {
        () if is_known => Ok(()),
        () if socket.is_internet() => Err(Errno::ENOPROTOOPT),
        () => Err(Errno::EOPNOTSUPP),
    }
}

pub(in super::super) fn setsockopt(kernel: &mut Kernel, arguments: Arguments) -> CallResult {
    let [descriptor, level, name, address, length, _] = arguments;
    with_socket(kernel, descriptor, |kernel, _, socket| {
        let (level, name, length) = (level as u32, name as u32, length as u32);
        if length > i32::MAX as u32 {
            return Err(Errno::EINVAL.into());
        }
        check_level(socket, level)?;
        match (level, name) {
            (SOL_SOCKET, net::SO_RCVTIMEO_OLD | net::SO_RCVTIMEO_NEW) => {
                let timeout_ns = read_timeout(kernel, address, length)?;
                socket.common.options.receive_timeout_ns.set(timeout_ns);
            }
            (SOL_SOCKET, net::SO_SNDTIMEO_OLD | net::SO_SNDTIMEO_NEW) => {
                let timeout_ns = read_timeout(kernel, address, length)?;
                socket.common.options.send_timeout_ns.set(timeout_ns);
            }
            (SOL_SOCKET, net::SO_LINGER) => {
                if length < 8 {
                    return Err(Errno::EINVAL.into());
                }
                let is_on = kernel.process.space.read_u32(address)? != 0;
                let seconds = kernel
                    .process
                    .space
                    .read_u32(address.wrapping_add(4))?
                    .cast_signed();
                let options = &socket.common.options;
                options.linger.set(is_on.then_some(seconds));
                if is_on {
                    options.linger_seconds.set(seconds);
                }
            }
            // There is one way only.
            (SOL_SOCKET, net::SO_BINDTODEVICE) | (TCP, TCP_CONGESTION) | (SOL_NETLINK, _) => {}
            (IP, name) if IP_MEMBERSHIPS.contains(&name) => return Err(Errno::ENODEV.into()),
            (IPV6, 20 | 21) => return Err(Errno::ENODEV.into()),
            _ => set_number(kernel, socket, (level, name), address, length)?,
        }
        Ok(0)
    })
}

fn set_number(
    kernel: &mut Kernel,
    socket: &Socket,
    (level, name): (u32, u32),
    address: u64,
    length: u32,
) -> Result<(), Errno> {
    let options = &socket.common.options;
    options.get(level, name)?;
    let value = match length {
        4.. => kernel.process.space.read_u32(address)?.cast_signed(),
        // Single bytes are taken for the options of IP.
        1..4 if level == IP => i32::from(kernel.process.space.read_array::<1>(address)?[0]),
        _ => return Err(Errno::EINVAL),
    };
    if (level, name) == V6_ONLY && is_bound(socket) {
        return Err(Errno::EINVAL);
    }
    options.set(level, name, value)?;
    if (level, name) == (SOL_SOCKET, net::SO_PASSCRED) {
        socket.common.condition.passes_credentials.set(value != 0);
    }
    socket.protocol.option_changed(&socket.common);
    Ok(())
}

fn is_bound(socket: &Socket) -> bool {
    matches!(socket.protocol.local()[..], [_, _, high, low, ..] if high != 0 || low != 0)
}

/// A `struct timeval`; zero means for ever.
fn read_timeout(kernel: &mut Kernel, address: u64, length: u32) -> Result<Option<u64>, Errno> {
    if length < 16 {
        return Err(Errno::EINVAL);
    }
    let seconds = kernel.process.space.read_u64(address)?;
    let microseconds = kernel.process.space.read_u64(address.wrapping_add(8))?;
    if microseconds >= 1_000_000 {
        return Err(Errno::EDOM);
    }
    if seconds > i64::MAX as u64 {
        // Negative: not at all, which the shortest span comes to.
        return Ok(Some(1));
    }
    let span_ns = seconds
        .saturating_mul(SECOND_NS)
        .saturating_add(microseconds * 1000);
    Ok(Some(span_ns).filter(|&span_ns| span_ns > 0))
}

fn encode_timeout(timeout_ns: Option<u64>) -> Vec<u8> {
    let span_ns = timeout_ns.unwrap_or(0);
    let mut bytes = (span_ns / SECOND_NS).to_le_bytes().to_vec();
    bytes.extend_from_slice(&(span_ns % SECOND_NS / 1000).to_le_bytes());
    bytes
}

/// A `struct tcp_info`, of which only the state and the shape of the network are told.
fn tcp_info(socket: &Socket) -> Vec<u8> {
    const ESTABLISHED: u8 = 1;
    const CLOSED: u8 = 7;
    const LISTENING: u8 = 10;
    let mut bytes = alloc::vec![0; TCP_INFO_BYTES];
    bytes[0] = match () {
        () if socket.protocol.is_listening() => LISTENING,
        () if socket.protocol.is_connected() => ESTABLISHED,
        () => CLOSED,
    };
    for (at, value) in [(8, 200_000_u32), (16, 65_483), (20, 536), (68, 1000), (80, 10)] {
        bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
    }
    bytes
}

fn option_value(socket: &Socket, level: u32, name: u32) -> Result<Vec<u8>, Errno> {
    let common = &socket.common;
    let number = |value: u32| value.to_le_bytes().to_vec();
    let options = &common.options;
    Ok(match (level, name) {
        (SOL_SOCKET, net::SO_TYPE) => number(common.form.number()),
        (SOL_SOCKET, net::SO_DOMAIN) => number(common.domain),
        (SOL_SOCKET, net::SO_PROTOCOL) => number(common.protocol),
        (SOL_SOCKET, net::SO_ERROR) => number(common.condition.error.take().map_or(0, |error| error.0)),
        (SOL_SOCKET, net::SO_ACCEPTCONN) => number(u32::from(socket.protocol.is_listening())),
        (SOL_SOCKET, net::SO_SNDLOWAT) => number(1),
        (SOL_SOCKET, net::SO_LINGER) => {
            let mut bytes = number(u32::from(options.linger.get().is_some()));
            bytes.extend_from_slice(&options.linger_seconds.get().to_le_bytes());
            bytes
        }
        (SOL_SOCKET, net::SO_RCVTIMEO_OLD | net::SO_RCVTIMEO_NEW) => {
            encode_timeout(options.receive_timeout_ns.get())
        }
        (SOL_SOCKET, net::SO_SNDTIMEO_OLD | net::SO_SNDTIMEO_NEW) => {
            encode_timeout(options.send_timeout_ns.get())
        }
        (SOL_SOCKET, net::SO_PEERCRED) => {
            let credentials = socket.protocol.peer_credentials();
            credentials.iter().flat_map(|value| value.to_le_bytes()).collect()
        }
        (SOL_SOCKET, net::SO_PEERNAME) => socket.protocol.remote()?,
        (SOL_SOCKET, net::SO_COOKIE) => alloc::vec![1, 0, 0, 0, 0, 0, 0, 0],
        (SOL_SOCKET, net::SO_BINDTODEVICE) => Vec::new(),
        (TCP, TCP_INFO) => tcp_info(socket),
        (TCP, TCP_CONGESTION) => b"cubic\0\0\0\0\0\0\0\0\0\0\0".to_vec(),
        (SOL_NETLINK, _) => number(0),
        _ => options.get(level, name)?.to_le_bytes().to_vec(),
    })
}

pub(in super::super) fn getsockopt(kernel: &mut Kernel, arguments: Arguments) -> CallResult {
    let [descriptor, level, name, address, length_address, _] = arguments;
    with_socket(kernel, descriptor, |kernel, _, socket| {
        let (level, name) = (level as u32, name as u32);
        let room = kernel.process.space.read_u32(length_address)?;
        if room > i32::MAX as u32 {
            return Err(Errno::EINVAL.into());
        }
        check_level(socket, level).map_err(|_| Errno::EOPNOTSUPP)?;
        let value = option_value(socket, level, name)?;
        let length = value.len().min(room as usize);
        kernel.process.space.write(address, &value[..length])?;
        kernel
            .process
            .space
            .write(length_address, &(length as u32).to_le_bytes())?;
        Ok(0)
    })
}

/// The requests that every socket answers, whatever its kind.
pub(in super::super) fn ioctl(
    kernel: &mut Kernel,
    socket: &Socket,
    request: u32,
    argument: u64,
) -> CallResult {
    const SIOCOUTQ: u32 = requests::TIOCOUTQ;
    const SIOCGIFNAME: u32 = 0x8910;
    const SIOCGIFCONF: u32 = 0x8912;
    const OF_ONE_INTERFACE: core::ops::RangeInclusive<u32> = 0x8913..=0x8942;
    match request {
        SIOCOUTQ => {
            let count = socket.protocol.unsent_bytes().min(i32::MAX as u64) as u32;
            kernel.process.space.write(argument, &count.to_le_bytes())?;
            Ok(0)
        }
        SIOCGIFCONF => interface_list(kernel, argument),
        SIOCGIFNAME => {
            let index = kernel.process.space.read_u32(argument.wrapping_add(16))?;
            let interface = INTERFACES.iter().find(|interface| interface.index == index);
            let name = padded_name(interface.ok_or(Errno::ENODEV)?);
            kernel.process.space.write(argument, &name)?;
            Ok(0)
        }
        request if OF_ONE_INTERFACE.contains(&request) => one_interface(kernel, request, argument),
        _ => Err(Errno::ENOTTY.into()),
    }
}

fn padded_name(interface: &Interface) -> [u8; 16] {
    let mut name = [0; 16];
    name[..interface.name.len()].copy_from_slice(interface.name);
    name
}

/// A `struct sockaddr_in` in the 24 bytes of a request.
fn address_field(v4: [u8; 4]) -> [u8; 24] {
    let mut bytes = [0; 24];
    bytes[0] = net::AF_INET as u8;
    bytes[4..8].copy_from_slice(&v4);
    bytes
}

/// `SIOCGIFCONF`: fills the `struct ifconf`.
fn interface_list(kernel: &mut Kernel, argument: u64) -> CallResult {
    let room = kernel.process.space.read_u32(argument)? as usize;
    let buffer = kernel.process.space.read_u64(argument.wrapping_add(8))?;
    let mut bytes = Vec::new();
    for interface in &INTERFACES {
        bytes.extend_from_slice(&padded_name(interface));
        bytes.extend_from_slice(&address_field(interface.v4));
    }
    let length = if buffer == 0 {
        bytes.len()
    } else {
        let length = (room / IFREQ_BYTES * IFREQ_BYTES).min(bytes.len());
        kernel.process.space.write(buffer, &bytes[..length])?;
        length
    };
    kernel
        .process
        .space
        .write(argument, &(length as u32).to_le_bytes())?;
    Ok(0)
}

fn one_interface(kernel: &mut Kernel, request: u32, argument: u64) -> CallResult {
    let name: [u8; 16] = kernel.process.space.read_array(argument)?;
    let interface = INTERFACES
        .iter()
        .find(|interface| padded_name(interface)[..15] == name[..15])
        .ok_or(Errno::ENODEV)?;
    let mut field = [0; 24];
    match request {
        0x8913 => field[..2].copy_from_slice(&(interface.flags as u16).to_le_bytes()), // SIOCGIFFLAGS
        0x8915 => field = address_field(interface.v4),                                 // SIOCGIFADDR
        0x8919 => {
            // SIOCGIFBRDADDR
            let [a, b, c, _] = interface.v4;
            field = address_field(if interface.index == 1 {
                [0; 4]
            } else {
                [a, b, c, 255]
            });
        }
        0x891b => {
            // SIOCGIFNETMASK
            let mask = u32::MAX << (32 - u32::from(interface.v4_prefix));
            field = address_field(mask.to_be_bytes());
        }
        0x891d => {}                                                        // SIOCGIFMETRIC
        0x8921 => field[..4].copy_from_slice(&interface.mtu.to_le_bytes()), // SIOCGIFMTU
        0x8927 => {
            // SIOCGIFHWADDR
            let kind: u16 = if interface.index == 1 { 772 } else { 1 };
            field[..2].copy_from_slice(&kind.to_le_bytes());
            field[2..8].copy_from_slice(&interface.hardware_address);
        }
        0x8933 => field[..4].copy_from_slice(&interface.index.to_le_bytes()), // SIOCGIFINDEX
        0x8942 => field[..4].copy_from_slice(&1000_u32.to_le_bytes()),        // SIOCGIFTXQLEN
        _ => return Err(Errno::EPERM.into()),
    }
    kernel.process.space.write(argument.wrapping_add(16), &field)?;
    Ok(0)
}
