//! Netlink sockets, as far as programs ask which interfaces and addresses there are (`NETLINK_ROUTE`).

use alloc::rc::Rc;
use alloc::vec::Vec;
use core::cell::{Cell, RefCell};

use linux_raw_sys::net::AF_NETLINK;

use super::address::INTERFACE_V4;
use super::inbox::{Inbox, Incoming};
use super::socket::{Attempt, Common, Condition, Outgoing, Protocol};
use crate::errno::Errno;
use crate::files::Readiness;
use crate::files::descriptors::OpenFile;
use crate::kernel::Kernel;
use crate::memory::Buffers;

/// Longest request that is read.
const REQUEST_BYTES_MAX: u64 = 4096;
/// Length of a `struct nlmsghdr`.
const HEADER_BYTES: usize = 16;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLM_F_ACK: u16 = 4;
const NLM_F_MULTI: u16 = 2;
const NLM_F_DUMP: u16 = 0x300;
const RTM_NEWLINK: u16 = 16;
const RTM_GETLINK: u16 = 18;
const RTM_NEWADDR: u16 = 20;
const RTM_GETADDR: u16 = 22;
const RTM_NEWROUTE: u16 = 24;
const RTM_GETROUTE: u16 = 26;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;

/// A network interface.
pub(crate) struct Interface {
    pub(crate) index: u32,
    pub(crate) name: &'static [u8],
    /// `IFF_…`
    pub(crate) flags: u32,
    /// `ARPHRD_…`
    hardware: u16,
    pub(crate) hardware_address: [u8; 6],
    pub(crate) mtu: u32,
    pub(crate) v4: [u8; 4],
    pub(crate) v4_prefix: u8,
    v6: Option<[u8; 16]>,
}

/// The interfaces that there are.
pub(crate) const INTERFACES: [Interface; 2] = [
    Interface {
        index: 1,
        name: b"lo",
        flags: 0x1_0049, // up, loopback, running, lower up
        hardware: 772,
        hardware_address: [0; 6],
        mtu: 65_536,
        v4: [127, 0, 0, 1],
        v4_prefix: 8,
        v6: Some([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]),
    },
    Interface {
        index: 2,
        name: b"eth0",
        flags: 0x1_1043, // up, broadcast, running, multicast, lower up
        hardware: 1,
        hardware_address: [0x02, 0, 0, 0, 0, 0x02],
        mtu: 1500,
        v4: INTERFACE_V4,
        v4_prefix: 24,
        v6: None,
    },
];

/// A netlink socket.
pub(crate) struct Netlink {
    inbox: RefCell<Inbox>,
    port: Cell<u32>,
    groups: Cell<u32>,
}

impl Netlink {
    /// A socket that is not bound.
    pub(crate) fn new(kernel: &Kernel) -> Self {
        Self {
            inbox: RefCell::new(Inbox::of(kernel)),
            port: Cell::new(0),
            groups: Cell::new(0),
        }
    }

    fn address(port: u32, groups: u32) -> Vec<u8> {
        let mut bytes = (AF_NETLINK as u16).to_le_bytes().to_vec();
        bytes.extend_from_slice(&[0, 0]);
        bytes.extend_from_slice(&port.to_le_bytes());
        bytes.extend_from_slice(&groups.to_le_bytes());
        bytes
    }

    fn answer(&self, request: &[u8], condition: &Condition) -> Result<(), Errno> {
        let kernels = Self::address(0, 0);
        for packet in answers(request, self.port.get()) {
            let mut inbox = self.inbox.borrow_mut();
            if inbox.messages() >= super::MESSAGES_MAX {
                return Err(Errno::ENOBUFS);
            }
            inbox.push_own_message(&packet, Some(kernels.as_slice().into()))?;
        }
        condition.moved.wake();
        Ok(())
    }
}

fn word(bytes: &[u8], at: usize) -> u32 {
    let mut word = [0; 4];
    if let Some(part) = bytes.get(at..at + 4) {
        word.copy_from_slice(part);
    }
    u32::from_le_bytes(word)
}

/// The packets that answer a request.
fn answers(request: &[u8], port: u32) -> Vec<Vec<u8>> {
    let mut packets = Vec::new();
    let mut rest = request;
    while rest.len() >= HEADER_BYTES {
        let length = word(rest, 0) as usize;
        if length < HEADER_BYTES || length > rest.len() {
            break;
        }
        let message = &rest[..length];
        answer_one(message, port, &mut packets);
        rest = &rest[length.next_multiple_of(4).min(rest.len())..];
    }
    packets
}

fn answer_one(message: &[u8], port: u32, packets: &mut Vec<Vec<u8>>) {
    let kind_and_flags = word(message, 4);
    let (kind, flags) = (kind_and_flags as u16, (kind_and_flags >> 16) as u16);
    let sequence = word(message, 8);
    let family = message.get(HEADER_BYTES).copied().unwrap_or(0);
    let wanted_index = word(message, HEADER_BYTES + 4);
    let is_dump = flags & NLM_F_DUMP != 0;
    let reply = Reply { sequence, port };
    let mut found = Vec::new();
    match kind {
        RTM_GETLINK => {
            for interface in &INTERFACES {
                if is_dump || wanted_index == interface.index {
                    found.extend(reply.link(interface, is_dump));
                }
            }
            if !is_dump && found.is_empty() {
                packets.push(reply.error(message, Errno::ENODEV.0));
                return;
            }
        }
        RTM_GETADDR if is_dump => {
            for interface in &INTERFACES {
                if family != AF_INET6 {
                    found.extend(reply.address(interface, AF_INET, &interface.v4, interface.v4_prefix));
                }
                if let (true, Some(v6)) = (family != AF_INET, &interface.v6) {
                    found.extend(reply.address(interface, AF_INET6, v6, 128));
                }
            }
        }
        RTM_GETROUTE if is_dump => {
            if family != AF_INET6 {
                found.extend(reply.default_route());
            }
        }
        _ => {
            packets.push(reply.error(message, Errno::EOPNOTSUPP.0));
            return;
        }
    }
    if !found.is_empty() {
        packets.push(found);
    }
    if is_dump {
        packets.push(reply.message(NLMSG_DONE, NLM_F_MULTI, &[0; 4]));
    } else if flags & NLM_F_ACK != 0 {
        packets.push(reply.error(message, 0));
    }
}

struct Reply {
    sequence: u32,
    port: u32,
}

fn attribute(body: &mut Vec<u8>, kind: u16, value: &[u8]) {
    body.extend_from_slice(&(4 + value.len() as u16).to_le_bytes());
    body.extend_from_slice(&kind.to_le_bytes());
    body.extend_from_slice(value);
    body.resize(body.len().next_multiple_of(4), 0);
}

impl Reply {
    fn message(&self, kind: u16, flags: u16, body: &[u8]) -> Vec<u8> {
        let length = (HEADER_BYTES + body.len()) as u32;
        let mut bytes = length.to_le_bytes().to_vec();
        bytes.extend_from_slice(&kind.to_le_bytes());
        bytes.extend_from_slice(&flags.to_le_bytes());
        bytes.extend_from_slice(&self.sequence.to_le_bytes());
        bytes.extend_from_slice(&self.port.to_le_bytes());
        bytes.extend_from_slice(body);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    fn error(&self, request: &[u8], errno: u32) -> Vec<u8> {
        let mut body = 0_u32.wrapping_sub(errno).to_le_bytes().to_vec();
        body.extend_from_slice(&request[..HEADER_BYTES]);
        self.message(NLMSG_ERROR, 0, &body)
    }

    /// `struct ifinfomsg` with attributes.
    fn link(&self, interface: &Interface, is_dump: bool) -> Vec<u8> {
        let mut body = alloc::vec![0, 0];
        body.extend_from_slice(&interface.hardware.to_le_bytes());
        body.extend_from_slice(&interface.index.to_le_bytes());
        body.extend_from_slice(&interface.flags.to_le_bytes());
        body.extend_from_slice(&0_u32.to_le_bytes());
        attribute(&mut body, 1, &interface.hardware_address); // IFLA_ADDRESS
        let is_loopback = interface.index == 1;
        attribute(&mut body, 2, &[if is_loopback { 0 } else { 0xff }; 6]); // IFLA_BROADCAST
        let mut name = interface.name.to_vec();
        name.push(0);
        attribute(&mut body, 3, &name); // IFLA_IFNAME
        attribute(&mut body, 4, &interface.mtu.to_le_bytes()); // IFLA_MTU
        attribute(&mut body, 13, &1000_u32.to_le_bytes()); // IFLA_TXQLEN
        attribute(&mut body, 16, &[if is_loopback { 0 } else { 6 }]); // IFLA_OPERSTATE
        let flags = if is_dump { NLM_F_MULTI } else { 0 };
        self.message(RTM_NEWLINK, flags, &body)
    }

    /// `struct ifaddrmsg` with attributes.
    fn address(&self, interface: &Interface, family: u8, address: &[u8], prefix: u8) -> Vec<u8> {
        let is_loopback = interface.index == 1;
        let scope = if is_loopback { 254 } else { 0 };
        let mut body = alloc::vec![family, prefix, 0x80, scope];
        body.extend_from_slice(&interface.index.to_le_bytes());
        attribute(&mut body, 1, address); // IFA_ADDRESS
        if family == AF_INET {
            attribute(&mut body, 2, address); // IFA_LOCAL
            if !is_loopback {
                let [a, b, c, _] = interface.v4;
                attribute(&mut body, 4, &[a, b, c, 255]); // IFA_BROADCAST
            }
            let mut name = interface.name.to_vec();
            name.push(0);
            attribute(&mut body, 3, &name); // IFA_LABEL
        }
        attribute(&mut body, 8, &0x80_u32.to_le_bytes()); // IFA_FLAGS: permanent
        self.message(RTM_NEWADDR, NLM_F_MULTI, &body)
    }

    /// `struct rtmsg` of the way out.
    fn default_route(&self) -> Vec<u8> {
        let mut body = alloc::vec![AF_INET, 0, 0, 0, 254, 3, 0, 1, 0, 0, 0, 0];
        attribute(&mut body, 15, &254_u32.to_le_bytes()); // RTA_TABLE
        attribute(&mut body, 5, &[169, 254, 1, 1]); // RTA_GATEWAY
        attribute(&mut body, 4, &2_u32.to_le_bytes()); // RTA_OIF
        self.message(RTM_NEWROUTE, NLM_F_MULTI, &body)
    }
}

impl Protocol for Netlink {
    fn bind(&self, kernel: &mut Kernel, _common: &Common, address: &[u8]) -> Result<(), Errno> {
        if address.len() < 12 || word(address, 0) as u16 != AF_NETLINK as u16 {
            return Err(Errno::EINVAL);
        }
        let port = word(address, 4);
        self.port.set(if port == 0 { kernel.process.id } else { port });
        self.groups.set(word(address, 8));
        Ok(())
    }

    fn connect(&self, _: &mut Kernel, _: &Common, _: &[u8], _: Attempt) -> Result<(), Errno> {
        Ok(())
    }

    fn local(&self) -> Vec<u8> {
        Self::address(self.port.get(), self.groups.get())
    }

    fn remote(&self) -> Result<Vec<u8>, Errno> {
        Ok(Self::address(0, 0))
    }

    fn send(
        &self,
        kernel: &mut Kernel,
        common: &Common,
        buffers: &mut Buffers,
        _outgoing: &mut Outgoing,
    ) -> Result<u64, Errno> {
        let length = buffers.remaining();
        if length > REQUEST_BYTES_MAX {
            return Err(Errno::EMSGSIZE);
        }
        let mut request = alloc::vec![0; length as usize];
        let taken = buffers.take(&mut kernel.process.space, &mut request)?;
        if self.port.get() == 0 {
            self.port.set(kernel.process.id);
        }
        self.answer(&request[..taken as usize], &common.condition)?;
        Ok(length)
    }

    fn receive(
        &self,
        kernel: &mut Kernel,
        _common: &Common,
        buffers: &mut Buffers,
        peek: bool,
    ) -> Result<Incoming, Errno> {
        self.inbox.borrow_mut().pull_message(kernel, buffers, peek)
    }

    fn shut(&self, _: &mut Kernel, _: &Common, _: bool, _: bool) -> Result<(), Errno> {
        Err(Errno::EOPNOTSUPP)
    }

    fn readiness(&self, _common: &Common) -> Readiness {
        let mut readiness = Readiness::WRITE;
        readiness.set(Readiness::READ, !self.inbox.borrow().is_empty());
        readiness
    }

    fn waiting_bytes(&self) -> u64 {
        self.inbox.borrow().next_length().unwrap_or(0)
    }

    fn close(&self, _common: &Common, discarded: &mut Vec<Rc<OpenFile>>) {
        self.inbox.borrow_mut().clear(discarded);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(kind: u16, flags: u16, family: u8) -> Vec<u8> {
        let mut bytes = 20_u32.to_le_bytes().to_vec();
        bytes.extend_from_slice(&kind.to_le_bytes());
        bytes.extend_from_slice(&flags.to_le_bytes());
        bytes.extend_from_slice(&[7, 0, 0, 0, 0, 0, 0, 0, family, 0, 0, 0]);
        bytes
    }

    /// Kinds of the messages in all packets; each must be as long as it says.
    fn kinds(packets: &[Vec<u8>]) -> Vec<u16> {
        let mut kinds = Vec::new();
        for packet in packets {
            let mut rest = packet.as_slice();
            while !rest.is_empty() {
                let length = word(rest, 0) as usize;
                assert_eq!(word(rest, 8), 7);
                kinds.push(word(rest, 4) as u16);
                rest = &rest[length.next_multiple_of(4)..];
            }
        }
        kinds
    }

    #[test]
    fn dumps_end_with_done() {
        let links = answers(&request(RTM_GETLINK, 0x301, 0), 1);
        assert_eq!(kinds(&links), [RTM_NEWLINK, RTM_NEWLINK, NLMSG_DONE]);
        let all = answers(&request(RTM_GETADDR, 0x301, 0), 1);
        assert_eq!(kinds(&all), [RTM_NEWADDR, RTM_NEWADDR, RTM_NEWADDR, NLMSG_DONE]);
        let v6 = answers(&request(RTM_GETADDR, 0x301, AF_INET6), 1);
        assert_eq!(kinds(&v6), [RTM_NEWADDR, NLMSG_DONE]);
    }

    #[test]
    fn what_is_not_served_is_an_error_and_what_is_damaged_is_passed_over() {
        assert_eq!(kinds(&answers(&request(99, 1, 0), 1)), [NLMSG_ERROR]);
        let whole = request(RTM_GETLINK, 0x301, 0);
        for length in 0..whole.len() {
            assert!(answers(&whole[..length], 1).is_empty());
        }
        assert!(answers(&[0; 64], 1).is_empty());
    }
}
