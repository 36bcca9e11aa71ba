//! The network: sockets over queues in memory and over streams that the monitor opens.
//!
//! There is no TCP/IP stack. Sockets of the program that talk to each other share queues of bytes. A stream slot is a
//! pair of byte rings shared with the monitor, which connects it to the gateway; `accept` on the function's port takes
//! the next one.
//!
//! ```text
//!   socket ──Protocol──> tcp ──┬─> pair ──> inbox ──> bytes     sockets of the program among each other
//!                        unix ─┘             ^
//!                        udp ────────────────┘
//!                        tcp, udp ────> stream                  the host
//!                        netlink ─────> inbox                   the library OS's own answers
//! ```
//!
//! * [`socket`]: what the program sees, and what each kind of socket does behind it;
//! * [`tcp`], [`udp`], [`unix`], [`netlink`]: the kinds;
//! * [`pair`], [`inbox`], [`bytes`]: what has been sent and not read yet;
//! * [`ports`]: who has which port;
//! * [`stream`]: one slot in use; [`egress`]: asking for one;
//! * [`hook`]: requests of the library OS's own; [`runtime_api`]: a server of its own;
//! * [`address`], [`names`], [`options`]: addresses, files about names, socket options.

pub(crate) mod address;
mod bytes;
mod egress;
pub(crate) mod hook;
pub(crate) mod inbox;
pub(crate) mod names;
pub(crate) mod netlink;
pub(crate) mod options;
mod pair;
mod ports;
mod runtime_api;
pub(crate) mod socket;
pub(crate) mod stream;
pub(crate) mod tcp;
pub(crate) mod udp;
pub(crate) mod unix;

use alloc::collections::VecDeque;
use alloc::rc::{Rc, Weak};
use alloc::vec::Vec;

use spore_abi::layout::STREAM_SLOTS;
use spore_abi::pages::{boot_flags, host_slot_flags};
use spore_machine::shared;

use linux_raw_sys::general::S_IFSOCK;

use crate::errno::Errno;
use crate::files::descriptors::OpenFile;
use crate::files::tree::change;
use crate::files::tree::node::Body;
use crate::files::tree::walk::{Follow, walk};
use crate::kernel::Kernel;
use crate::task::ReadyQueue;
use egress::Egress;
use ports::Ports;
use runtime_api::RuntimeApi;
use socket::Condition;
use stream::Stream;
use tcp::Listener;
use udp::Receiver;
use unix::Names;

/// Port of the far end of the streams that the gateway opens.
const GATEWAY_PORT: u16 = 32_768;
/// Messages that wait in one socket, at most.
const MESSAGES_MAX: usize = 512;

/// All streams, and who can be reached by which address.
pub(crate) struct Network {
    streams: Vec<Option<Weak<Stream>>>,
    tcp_ports: Rc<Ports<Listener>>,
    udp_ports: Rc<Ports<Receiver>>,
    unix_names: Rc<Names>,
    egress: Egress,
    /// Loopback addresses on which nobody listens here are those of the host.
    reaches_host_loopback: bool,
    /// Streams that came in before anybody listened, or before they may be passed on.
    early: VecDeque<Rc<Stream>>,
    /// No stream may be passed on now.
    is_held: bool,
    /// A command waits for the first stream.
    awaits_command_stream: bool,
    /// The host learns that somebody listens as soon as that is so, and not when the program waits.
    tells_listening: bool,
    function_port: u16,
    /// The program asks for its invocations there.
    runtime_api: Option<RuntimeApi>,
    ready: Rc<ReadyQueue>,
    /// Files that were under way between sockets and that nobody will receive: the kernel lets go of them.
    pub(crate) discarded: Vec<Rc<OpenFile>>,
}

impl Network {
    /// A network without streams, for a function on this port.
    pub(crate) fn new(function_port: u16, ready: &Rc<ReadyQueue>) -> Self {
        let tcp_ports = Ports::new(false);
        let flags = shared::boot().flags;
        let becomes_snapshot = flags & boot_flags::BECOMES_SNAPSHOT != 0;
        let runtime_api = match flags & boot_flags::RUNTIME_API {
            0 => None,
            _ => RuntimeApi::new(&tcp_ports, ready, !becomes_snapshot),
        };
        Self {
            streams: (0..STREAM_SLOTS).map(|_| None).collect(),
            tcp_ports,
            udp_ports: Ports::new(true),
            unix_names: Rc::default(),
            egress: Egress::default(),
            reaches_host_loopback: flags & boot_flags::LOOPBACK_EGRESS != 0,
            early: VecDeque::new(),
            is_held: false,
            awaits_command_stream: shared::boot().flags & boot_flags::COMMAND != 0,
            tells_listening: !becomes_snapshot,
            function_port,
            runtime_api,
            ready: Rc::clone(ready),
            discarded: Vec::new(),
        }
    }

    /// Takes note of what the host has changed.
    pub(crate) fn pump(&mut self) {
        let streams = &mut self.streams;
        self.egress.pump(&self.ready, |slot, stream| {
            if let Some(place) = streams.get_mut(slot) {
                *place = Some(Rc::downgrade(stream));
            }
        });
        let mut changed = shared::take_changed_slots();
        while changed != 0 {
            let slot = changed.trailing_zeros() as usize;
            changed &= changed - 1;
            let known = self.streams[slot].as_ref().and_then(Weak::upgrade);
            match known {
                Some(stream) if stream.is_current() => stream.condition.moved.wake(),
                _ => self.welcome(slot),
            }
        }
        if let Some(runtime_api) = &mut self.runtime_api {
            runtime_api.serve();
            if self.tells_listening && runtime_api.is_waited_for() {
                self.tells_listening = false;
                shared::set_listening(true);
            }
        }
    }

    /// A new stream is in this slot.
    fn welcome(&mut self, slot: usize) {
        if shared::host_slot(slot).flags & host_slot_flags::EGRESS != 0 {
            // An answer names it.
            return;
        }
        let Some(stream) = Stream::accept(slot, Condition::new(&self.ready)) else {
            return;
        };
        self.streams[slot] = Some(Rc::downgrade(&stream));
        match &mut self.runtime_api {
            Some(runtime_api) if !self.is_held => return runtime_api.offer(stream),
            Some(_) => return self.early.push_back(stream),
            None => {}
        }
        match self.tcp_ports.any_listener(self.function_port) {
            Some(listener) if !self.is_held => listener.offer(stream, self.function_port),
            _ => self.early.push_back(stream),
        }
    }

    /// The first stream, once it is there.
    pub(crate) fn take_for_command(&mut self) -> Option<Rc<Stream>> {
        let stream = self.early.pop_front()?;
        self.awaits_command_stream = false;
        Some(stream)
    }

    /// Whether somebody listens on the function's port, a command waits, or an invocation is waited for in another way.
    pub(crate) fn is_function_listening(&self) -> bool {
        if let Some(runtime_api) = &self.runtime_api {
            return runtime_api.is_waited_for();
        }
        self.awaits_command_stream || self.tcp_ports.any_listener(self.function_port).is_some()
    }

    /// A socket listens on `port` now.
    fn listening(&mut self, port: u16) {
        if port == self.function_port && self.runtime_api.is_none() {
            if self.tells_listening {
                shared::set_listening(true);
            }
            self.set_held(self.is_held);
        }
    }

    /// Sets whether streams that come in wait, whoever listens; passes on those that need not.
    pub(crate) fn set_held(&mut self, is_held: bool) {
        self.is_held = is_held;
        if let Some(runtime_api) = &mut self.runtime_api {
            if !is_held {
                self.early.drain(..).for_each(|stream| runtime_api.offer(stream));
                runtime_api.serve();
            }
            return;
        }
        if !is_held && let Some(listener) = self.tcp_ports.any_listener(self.function_port) {
            for stream in self.early.drain(..) {
                listener.offer(stream, self.function_port);
            }
        }
    }
}

/// Makes the node of a socket in the file system.
fn make_socket_node(kernel: &mut Kernel, path: &[u8], socket: &Rc<unix::Shared>) -> Result<(), Errno> {
    let base = Rc::clone(&kernel.process.directory);
    let found = walk(kernel, &base, path, Follow::NotLast)?;
    let permissions = 0o777 & !kernel.process.file_mode_mask;
    let made = change::make(&found, S_IFSOCK | permissions, 0);
    let entry = made.map_err(|error| {
        if error == Errno::EEXIST {
            Errno::EADDRINUSE
        } else {
            error
        }
    })?;
    if let Body::Socket(place) = &entry.node.body {
        place.replace(Rc::downgrade(socket));
    }
    Ok(())
}

/// The socket behind a node in the file system; none if nobody has it open any more.
fn find_socket_node(kernel: &mut Kernel, path: &[u8]) -> Result<Option<Rc<unix::Shared>>, Errno> {
    let base = Rc::clone(&kernel.process.directory);
    let entry = walk(kernel, &base, path, Follow::All)?.entry()?;
    Ok(match &entry.node.body {
        Body::Socket(place) => place.borrow().upgrade(),
        _ => None,
    })
}
