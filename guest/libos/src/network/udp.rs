//! UDP sockets.

use alloc::rc::Rc;
use alloc::vec::Vec;
use core::cell::{Cell, RefCell};

use linux_raw_sys::net::{SO_BROADCAST, SO_RCVBUF, SO_REUSEADDR, SO_REUSEPORT, SOL_SOCKET};
use spore_abi::layout::STREAM_RING_BYTES;
use spore_abi::pages::egress_kind;
use spore_abi::ring::{DATAGRAM_HEADER_BYTES, DatagramHeader};

use super::address::{self, Address, Family, Host};
use super::bytes::ByteQueue;
use super::egress::{Asking, Outcome};
use super::inbox::{Ancillary, Inbox, Incoming};
use super::options::V6_ONLY;
use super::ports::{Claim, Wish};
use super::socket::{Attempt, Common, Condition, Outgoing, Protocol};
use super::stream::Stream;
use crate::errno::Errno;
use crate::files::Readiness;
use crate::files::descriptors::OpenFile;
use crate::kernel::Kernel;
use crate::memory::Buffers;

/// Longest datagram.
const DATAGRAM_BYTES_MAX: u64 = 65_507;

/// What gets datagrams.
pub(crate) struct Receiver {
    inbox: RefCell<Inbox>,
    /// Bytes that may wait, at most.
    capacity: Cell<u64>,
    condition: Rc<Condition>,
    family: Family,
}

/// A UDP socket.
pub(crate) struct Udp {
    receiver: Rc<Receiver>,
    claim: RefCell<Option<Claim<Receiver>>>,
    local: Cell<(Host, u16)>,
    /// The host that the program has bound, which outlasts connections.
    bound: Cell<Option<Host>>,
    remote: Cell<Option<(Host, u16)>>,
    has_chosen_port: Cell<bool>,
    /// The way to and from the outside, once something was sent there.
    outside: RefCell<Option<Rc<Asking>>>,
    is_read_shut: Cell<bool>,
    is_write_shut: Cell<bool>,
}

impl Receiver {
    /// Takes a datagram, or drops it for want of room.
    fn take(&self, kernel: &mut Kernel, buffers: &mut Buffers, source: (Host, u16)) -> Result<u64, Errno> {
        let mut inbox = self.inbox.borrow_mut();
        let length = buffers.remaining();
        let is_full = inbox.len() + length > self.capacity.get() && !inbox.is_empty();
        if is_full || inbox.messages() >= super::MESSAGES_MAX {
            buffers.skip(length);
            return Ok(length);
        }
        let source = Address::shown(self.family, source.0, source.1).encode();
        let mut nothing = Ancillary::default();
        match inbox.push_message(kernel, buffers, Some(source.into()), &mut nothing) {
            // Full in another way: dropped too.
            Err(Errno::ENOBUFS) => {}
            other => {
                other?;
            }
        }
        drop(inbox);
        self.condition.moved.wake();
        Ok(length)
    }
}

impl Udp {
    /// A socket that is neither bound nor connected.
    pub(crate) fn new(kernel: &Kernel, family: Family, condition: &Rc<Condition>) -> Self {
        Self {
            receiver: Rc::new(Receiver {
                inbox: RefCell::new(Inbox::of(kernel)),
                capacity: Cell::new(212_992),
                condition: Rc::clone(condition),
                family,
            }),
            claim: RefCell::new(None),
            local: Cell::new((Address::unspecified(family).canonical(), 0)),
            bound: Cell::new(None),
            remote: Cell::new(None),
            has_chosen_port: Cell::new(false),
            outside: RefCell::new(None),
            is_read_shut: Cell::new(false),
            is_write_shut: Cell::new(false),
        }
    }

    fn family(&self) -> Family {
        self.receiver.family
    }

    fn claim_port(&self, kernel: &Kernel, common: &Common, host: Host, port: u16) -> Result<(), Errno> {
        let mut claim = self.claim.borrow_mut();
        if claim.is_some() {
            return Ok(());
        }
        let wish = Wish {
            host,
            is_v6_only: common.options.is_set(V6_ONLY.0, V6_ONLY.1),
            reuses_address: common.options.is_set(SOL_SOCKET, SO_REUSEADDR),
            reuses_port: common.options.is_set(SOL_SOCKET, SO_REUSEPORT),
        };
        let ports = &kernel.network.udp_ports;
        *claim = ports.claim(port, wish, Rc::downgrade(&self.receiver));
        let port = claim.as_ref().map(Claim::port).ok_or(Errno::EADDRINUSE)?;
        self.local.set((host, port));
        Ok(())
    }

    fn target(&self, common: &Common, bytes: &[u8]) -> Result<(Host, u16), Errno> {
        let address = match Address::parse(bytes, self.family()) {
            // A socket of IPv6 takes addresses of IPv4 too, as Linux has it.
            Err(Errno::EAFNOSUPPORT | Errno::EINVAL) if self.family() == Family::V6 => {
                Address::parse(bytes, Family::V4)?
            }
            other => other?,
        };
        let host = match address.canonical() {
            host if host == [0; 16] => Address::loopback(Family::V6, 0).canonical(),
            host if address::is_unspecified(host) => Address::loopback(Family::V4, 0).canonical(),
            host => host,
        };
        if host == address::mapped([255; 4]) && !common.options.is_set(SOL_SOCKET, SO_BROADCAST) {
            return Err(Errno::EACCES);
        }
        Ok((host, address.port))
    }

    /// Sends a datagram to the outside. Before the way there is open, datagrams wait in the outbox or are dropped.
    fn send_outside(
        &self,
        kernel: &mut Kernel,
        common: &Common,
        buffers: &mut Buffers,
        (address, port): (Host, u16),
    ) -> Result<u64, Errno> {
        if address::is_group(address) {
            return Err(Errno::ENETUNREACH);
        }
        let length = buffers.remaining();
        let header = DatagramHeader {
            length: length as u16,
            error: 0,
            port,
            address,
        };
        let known = self.outside.borrow().clone();
        let asking = match known.as_ref().map(|asking| asking.outcome()) {
            Some(Outcome::Open(stream)) => return stream.write_datagram(kernel, header, buffers),
            Some(Outcome::Failed(error)) => {
                self.outside.borrow_mut().take();
                return Err(error);
            }
            Some(Outcome::Waiting) => known,
            None => Some(self.ask_outside(kernel, common)),
        };
        let outbox = asking.as_ref().and_then(|asking| asking.outbox.as_ref());
        if let Some(outbox) = outbox {
            let mut outbox = outbox.borrow_mut();
            let before = outbox.len();
            let needed = DATAGRAM_HEADER_BYTES as u64 + length;
            let has_room = before + needed <= u64::from(STREAM_RING_BYTES);
            if has_room && outbox.push_bytes(&header.encode()).is_ok() {
                let pushed = match length {
                    0 => Ok(0),
                    length => outbox.push(&mut kernel.process.space, buffers, length),
                };
                if pushed != Ok(length) {
                    outbox.cut(before);
                    return pushed.and(Err(Errno::EFAULT));
                }
            }
        }
        buffers.skip(buffers.remaining());
        Ok(length)
    }

    /// Asks for the way to and from the outside.
    fn ask_outside(&self, kernel: &mut Kernel, common: &Common) -> Rc<Asking> {
        let outbox = ByteQueue::new(&kernel.frames);
        let nowhere = ([0; 16], 0);
        let (kind, condition) = (egress_kind::DATAGRAMS, &common.condition);
        let asking = kernel.network.egress.ask(kind, nowhere, condition, Some(outbox));
        *self.outside.borrow_mut() = Some(Rc::clone(&asking));
        kernel.notify_due = true;
        asking
    }

    /// The datagram that has come in first from the outside.
    fn next_outside(&self) -> Option<(Rc<Stream>, DatagramHeader)> {
        let outside = self.outside.borrow();
        let Outcome::Open(stream) = outside.as_ref()?.outcome() else {
            return None;
        };
        let header = stream.next_datagram()?;
        Some((stream, header))
    }

    /// Receives a datagram from the outside. Those that a connected socket is not to hear are dropped.
    fn receive_outside(
        &self,
        kernel: &mut Kernel,
        buffers: &mut Buffers,
        peek: bool,
    ) -> Result<Incoming, Errno> {
        while let Some((stream, header)) = self.next_outside() {
            let source = (header.address, header.port);
            let is_meant = self.remote.get().is_none_or(|remote| remote == source);
            if header.error != 0 || !is_meant {
                stream.consume_datagram(header);
                if header.error != 0 && self.remote.get() == Some(source) {
                    return Err(Errno(u32::from(header.error)));
                }
                continue;
            }
            let count = stream.copy_datagram(kernel, header, buffers)?;
            if !peek {
                stream.consume_datagram(header);
                kernel.notify_due = true;
            }
            let source = Address::shown(self.family(), header.address, header.port).encode();
            return Ok(Incoming {
                count,
                full: u64::from(header.length),
                source: Some(source.into()),
                is_record: true,
                ..Incoming::default()
            });
        }
        Err(Errno::EAGAIN)
    }

    /// Forgets the peer, and the local address that was chosen for it: what is connected to next may need another. As on
    /// Linux a port that the program did not choose is given back.
    fn disconnect(&self) {
        self.remote.set(None);
        let unspecified = Address::unspecified(self.family()).canonical();
        let host = self.bound.get().unwrap_or(unspecified);
        if !self.has_chosen_port.get() {
            self.claim.borrow_mut().take();
            self.local.set((host, 0));
            return;
        }
        self.local.set((host, self.local.get().1));
        if let Some(claim) = &*self.claim.borrow() {
            claim.connect(None, None);
        }
    }

    /// The address that a datagram to `target` comes from.
    fn source(&self, target: Host) -> (Host, u16) {
        let (host, port) = self.local.get();
        if address::is_unspecified(host) {
            (source_for(target), port)
        } else {
            (host, port)
        }
    }
}

/// The address of this machine that talks to `target`.
fn source_for(target: Host) -> Host {
    if address::is_local(target) {
        target
    } else {
        address::mapped(address::INTERFACE_V4)
    }
}

impl Protocol for Udp {
    fn bind(&self, kernel: &mut Kernel, common: &Common, address: &[u8]) -> Result<(), Errno> {
        let address = Address::parse(address, self.family())?;
        let host = address.canonical();
        if self.claim.borrow().is_some() {
            return Err(Errno::EINVAL);
        }
        if !address::is_local(host) && !address::is_group(host) {
            return Err(Errno::EADDRNOTAVAIL);
        }
        self.claim_port(kernel, common, host, address.port)?;
        self.has_chosen_port.set(address.port != 0);
        self.bound.set(Some(host));
        Ok(())
    }

    fn connect(
        &self,
        kernel: &mut Kernel,
        common: &Common,
        address: &[u8],
        _attempt: Attempt,
    ) -> Result<(), Errno> {
        if address::is_unspecified_family(address) {
            self.disconnect();
            return Ok(());
        }
        let (host, port) = self.target(common, address)?;
        self.claim_port(kernel, common, self.local.get().0, 0)?;
        let source = self.source(host);
        self.local.set(source);
        self.remote.set(Some((host, port)));
        if let Some(claim) = &*self.claim.borrow() {
            claim.connect(Some((host, port)), Some(source.0));
        }
        Ok(())
    }

    fn local(&self) -> Vec<u8> {
        let (host, port) = self.local.get();
        Address::shown(self.family(), host, port).encode()
    }

    fn remote(&self) -> Result<Vec<u8>, Errno> {
        let (host, port) = self.remote.get().ok_or(Errno::ENOTCONN)?;
        Ok(Address::shown(self.family(), host, port).encode())
    }

    fn send(
        &self,
        kernel: &mut Kernel,
        common: &Common,
        buffers: &mut Buffers,
        outgoing: &mut Outgoing,
    ) -> Result<u64, Errno> {
        let target = match &outgoing.destination {
            Some(bytes) => self.target(common, bytes)?,
            None => self.remote.get().ok_or(Errno::EDESTADDRREQ)?,
        };
        if target.1 == 0 {
            return Err(Errno::EINVAL);
        }
        if buffers.remaining() > DATAGRAM_BYTES_MAX {
            return Err(Errno::EMSGSIZE);
        }
        if self.is_write_shut.get() {
            return Err(Errno::EPIPE);
        }
        common.take_error()?;
        self.claim_port(kernel, common, self.local.get().0, 0)?;
        let source = self.source(target.0);
        let receiver = if address::is_local(target.0) {
            kernel.network.udp_ports.receiver(target.0, target.1, source)
        } else {
            None
        };
        let goes_out = !address::is_local(target.0)
            || (kernel.network.reaches_host_loopback && address::is_loopback(target.0));
        match receiver {
            None if goes_out => self.send_outside(kernel, common, buffers, target),
            Some(receiver) => receiver.take(kernel, buffers, source),
            None => {
                if self.remote.get() == Some(target) {
                    common.condition.error.set(Some(Errno::ECONNREFUSED));
                    common.condition.moved.wake();
                }
                let length = buffers.remaining();
                buffers.skip(length);
                Ok(length)
            }
        }
    }

    fn receive(
        &self,
        kernel: &mut Kernel,
        common: &Common,
        buffers: &mut Buffers,
        peek: bool,
    ) -> Result<Incoming, Errno> {
        common.take_error()?;
        let inside = self
            .receiver
            .inbox
            .borrow_mut()
            .pull_message(kernel, buffers, peek);
        let pulled = match inside {
            Err(Errno::EAGAIN) => self.receive_outside(kernel, buffers, peek),
            other => other,
        };
        match pulled {
            Err(Errno::EAGAIN) if self.is_read_shut.get() => Ok(Incoming::default()),
            other => other,
        }
    }

    fn shut(&self, _kernel: &mut Kernel, common: &Common, read: bool, write: bool) -> Result<(), Errno> {
        if self.remote.get().is_none() {
            return Err(Errno::ENOTCONN);
        }
        self.is_read_shut.set(self.is_read_shut.get() || read);
        self.is_write_shut.set(self.is_write_shut.get() || write);
        common.condition.moved.wake();
        Ok(())
    }

    fn readiness(&self, _common: &Common) -> Readiness {
        let is_over = self.is_read_shut.get();
        let mut readiness = Readiness::WRITE;
        let is_waiting = !self.receiver.inbox.borrow().is_empty() || self.next_outside().is_some();
        readiness.set(Readiness::READ, is_over || is_waiting);
        readiness.set(Readiness::READ_HANG_UP, is_over);
        readiness.set(Readiness::HANG_UP, is_over && self.is_write_shut.get());
        readiness
    }

    fn waiting_bytes(&self) -> u64 {
        let outside = || self.next_outside().map(|(_, header)| u64::from(header.length));
        let inside = self.receiver.inbox.borrow().next_length();
        inside.or_else(outside).unwrap_or(0)
    }

    fn option_changed(&self, common: &Common) {
        if let Ok(bytes) = common.options.get(SOL_SOCKET, SO_RCVBUF) {
            self.receiver.capacity.set(u64::from(bytes.unsigned_abs()));
        }
    }

    fn close(&self, _common: &Common, discarded: &mut Vec<Rc<OpenFile>>) {
        self.claim.borrow_mut().take();
        self.receiver.inbox.borrow_mut().clear(discarded);
        self.outside.borrow_mut().take();
    }
}
