//! The network: sockets over streams that the monitor opens.
//!
//! There is no TCP/IP stack. A stream slot is a pair of byte rings shared with the monitor, which connects it to the
//! gateway; `accept` on the function's port takes the next one.
//!
//! * [`stream`]: one slot in use;
//! * [`socket`]: what the program sees;
//! * [`address`]: `struct sockaddr`.

pub(crate) mod address;
pub(crate) mod socket;
pub(crate) mod stream;

use alloc::collections::{BTreeMap, VecDeque};
use alloc::rc::{Rc, Weak};
use alloc::vec::Vec;

use spore_abi::layout::STREAM_SLOTS;
use spore_machine::shared;

use crate::task::ReadyQueue;
use address::Family;
use socket::Listener;
use stream::Stream;

/// All streams and listeners.
pub(crate) struct Network {
    streams: Vec<Option<Weak<Stream>>>,
    listeners: BTreeMap<(Family, u16), Weak<Listener>>,
    /// Streams that came in before anybody listened.
    early: VecDeque<Rc<Stream>>,
    function_port: u16,
    next_port: u16,
    ready: Rc<ReadyQueue>,
}

/// First port that `bind` to port 0 gives.
const FIRST_FREE_PORT: u16 = 32_768;

impl Network {
    /// A network without streams, for a function on this port.
    pub(crate) fn new(function_port: u16, ready: &Rc<ReadyQueue>) -> Self {
        Self {
            streams: (0..STREAM_SLOTS).map(|_| None).collect(),
            listeners: BTreeMap::new(),
            early: VecDeque::new(),
            function_port,
            next_port: FIRST_FREE_PORT,
            ready: Rc::clone(ready),
        }
    }

    /// Takes note of what the host has changed.
    pub(crate) fn pump(&mut self) {
        let mut changed = shared::take_changed_slots();
        while changed != 0 {
            let slot = changed.trailing_zeros() as usize;
            changed &= changed - 1;
            let known = self.streams[slot].as_ref().and_then(Weak::upgrade);
            match known {
                Some(stream) if stream.is_current() => stream.moved.wake(),
                _ => self.welcome(slot),
            }
        }
    }

    /// A new stream is in this slot.
    fn welcome(&mut self, slot: usize) {
        let Some(stream) = Stream::accept(slot, &self.ready) else {
            return;
        };
        self.streams[slot] = Some(Rc::downgrade(&stream));
        match self.listener(self.function_port) {
            Some(listener) => listener.offer(stream),
            None => self.early.push_back(stream),
        }
    }

    /// Who listens on this port, IPv4 first.
    fn listener(&self, port: u16) -> Option<Rc<Listener>> {
        [Family::V4, Family::V6]
            .iter()
            .find_map(|&family| self.listeners.get(&(family, port))?.upgrade())
    }

    /// Whether somebody listens on the function's port.
    pub(crate) fn is_function_listening(&self) -> bool {
        self.listener(self.function_port).is_some()
    }

    /// A free port.
    pub(crate) fn free_port(&mut self) -> Option<u16> {
        for _ in FIRST_FREE_PORT..=u16::MAX {
            let port = self.next_port;
            self.next_port = port.checked_add(1).unwrap_or(FIRST_FREE_PORT);
            if self.listener(port).is_none() {
                return Some(port);
            }
        }
        None
    }

    /// Whether a listener of this family has this port.
    pub(crate) fn is_taken(&self, family: Family, port: u16) -> bool {
        self.listeners
            .get(&(family, port))
            .is_some_and(|listener| listener.strong_count() > 0)
    }

    /// Lets `listener` take what comes in on `port`.
    pub(crate) fn listen(&mut self, family: Family, port: u16, listener: &Rc<Listener>) {
        self.listeners.retain(|_, listener| listener.strong_count() > 0);
        self.listeners.insert((family, port), Rc::downgrade(listener));
        if port == self.function_port {
            shared::set_listening(true);
            for stream in self.early.drain(..) {
                listener.offer(stream);
            }
        }
    }
}
