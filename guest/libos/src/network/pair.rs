//! Two sockets of the program that are connected with each other: TCP over loopback, and Unix sockets.
//!
//! ```text
//!            ┌──────────── Pair ─────────────┐
//!   end 0 ── │ half 0: what end 0 reads      │
//!            │ half 1: what end 1 reads      │ ── end 1
//!            └───────────────────────────────┘
//!   each half:  open ──shut by its reader, or ended by the other side──> ... ──closed (its socket is gone)
//! ```

use alloc::rc::Rc;
use alloc::vec::Vec;
use core::cell::{Cell, RefCell};

use super::inbox::{Ancillary, Inbox, Incoming};
use super::socket::Condition;
use crate::errno::Errno;
use crate::files::Readiness;
use crate::files::descriptors::OpenFile;
use crate::kernel::Kernel;
use crate::memory::Buffers;

/// Bytes that wait in one direction of a TCP connection, at most.
const TCP_BYTES: u64 = 1 << 20;
/// The same for Unix sockets (`net.core.wmem_default`).
const UNIX_BYTES: u64 = 212_992;

/// What kind of connection it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flavour {
    Tcp,
    /// A Unix stream.
    Unix,
    /// Unix records (`SOCK_SEQPACKET`).
    UnixRecords,
}

struct Half {
    inbox: RefCell<Inbox>,
    /// Of the socket that reads from here.
    condition: Rc<Condition>,
    /// The socket reads no more.
    is_read_shut: Cell<bool>,
    /// The socket writes no more.
    is_write_shut: Cell<bool>,
    /// The other side writes no more.
    is_ended: Cell<bool>,
    /// The other side has cut the connection.
    is_reset: Cell<bool>,
    /// The socket is gone.
    is_closed: Cell<bool>,
    /// Somebody had no room to write to here.
    is_starving: Cell<bool>,
}

struct Pair {
    halves: [Half; 2],
    flavour: Flavour,
    /// The listener has room for it (`true` from the start if none is involved).
    is_established: Cell<bool>,
}

/// One end.
#[derive(Clone)]
pub(crate) struct End {
    pair: Rc<Pair>,
    side: usize,
}

/// Two ends, with the conditions of their sockets.
pub(crate) fn connect(kernel: &Kernel, flavour: Flavour, conditions: [&Rc<Condition>; 2]) -> [End; 2] {
    let halves = conditions.map(|condition| Half {
        inbox: RefCell::new(Inbox::of(kernel)),
        condition: Rc::clone(condition),
        is_read_shut: Cell::new(false),
        is_write_shut: Cell::new(false),
        is_ended: Cell::new(false),
        is_reset: Cell::new(false),
        is_closed: Cell::new(false),
        is_starving: Cell::new(false),
    });
    let pair = Rc::new(Pair {
        halves,
        flavour,
        is_established: Cell::new(true),
    });
    [0, 1].map(|side| End {
        pair: Rc::clone(&pair),
        side,
    })
}

impl Pair {
    fn capacity(&self) -> u64 {
        match self.flavour {
            Flavour::Tcp => TCP_BYTES,
            Flavour::Unix | Flavour::UnixRecords => UNIX_BYTES,
        }
    }

    /// Whether so few bytes wait that a writer is told that it may go on, as Linux decides it.
    fn is_writable(&self, waiting: u64) -> bool {
        match self.flavour {
            Flavour::Tcp => waiting * 3 <= self.capacity() * 2,
            Flavour::Unix | Flavour::UnixRecords => waiting * 4 <= self.capacity(),
        }
    }
}

impl End {
    fn own(&self) -> &Half {
        &self.pair.halves[self.side]
    }

    fn peer(&self) -> &Half {
        &self.pair.halves[1 - self.side]
    }

    /// Condition of this end's socket.
    pub(crate) fn condition(&self) -> &Rc<Condition> {
        &self.own().condition
    }

    /// Whether the listener has room for the connection.
    pub(crate) fn is_established(&self) -> bool {
        self.pair.is_established.get()
    }

    /// Sets whether the listener has room for the connection.
    pub(crate) fn set_established(&self, established: bool) {
        if self.pair.is_established.replace(established) != established {
            self.peer().condition.moved.wake();
        }
    }

    /// Whether the socket at the other end wants to know who writes.
    pub(crate) fn peer_wants_credentials(&self) -> bool {
        self.peer().condition.passes_credentials.get()
    }

    /// Whether the connection was cut.
    pub(crate) fn is_reset(&self) -> bool {
        self.own().is_reset.get()
    }

    /// Writes as much as there is room for, or a record as a whole.
    pub(crate) fn send(
        &self,
        kernel: &mut Kernel,
        buffers: &mut Buffers,
        ancillary: &mut Ancillary,
    ) -> Result<u64, Errno> {
        let (own, peer) = (self.own(), self.peer());
        if let Some(error) = own.condition.error.take() {
            return Err(error);
        }
        if own.is_write_shut.get() {
            return Err(Errno::EPIPE);
        }
        if self.pair.flavour == Flavour::Tcp && peer.is_closed.get() {
            // It leaves, and the answer is that nobody is there.
            let count = buffers.remaining();
            buffers.skip(count);
            own.condition.error.set(Some(Errno::EPIPE));
            own.is_write_shut.set(true);
            own.condition.moved.wake();
            return Ok(count);
        }
        let mut inbox = peer.inbox.borrow_mut();
        let room = self.pair.capacity().saturating_sub(inbox.len());
        let done = if self.pair.flavour == Flavour::UnixRecords {
            if buffers.remaining() > self.pair.capacity() {
                return Err(Errno::EMSGSIZE);
            }
            if buffers.remaining() > room || inbox.messages() > super::MESSAGES_MAX {
                peer.is_starving.set(true);
                return Err(Errno::EAGAIN);
            }
            inbox.push_message(kernel, buffers, None, ancillary)?
        } else {
            if buffers.remaining() == 0 {
                return Ok(0);
            }
            if room == 0 || inbox.messages() > super::MESSAGES_MAX {
                peer.is_starving.set(true);
                return Err(Errno::EAGAIN);
            }
            inbox.push_stream(kernel, buffers, room, ancillary)?
        };
        drop(inbox);
        peer.condition.moved.wake();
        Ok(done)
    }

    /// Reads what is there.
    pub(crate) fn receive(
        &self,
        kernel: &mut Kernel,
        buffers: &mut Buffers,
        peek: bool,
    ) -> Result<Incoming, Errno> {
        let own = self.own();
        let mut inbox = own.inbox.borrow_mut();
        let before = inbox.len();
        let pulled = match self.pair.flavour {
            Flavour::UnixRecords => inbox.pull_message(kernel, buffers, peek),
            Flavour::Tcp | Flavour::Unix => inbox.pull_stream(kernel, buffers, peek),
        };
        let after = inbox.len();
        drop(inbox);
        match pulled {
            Ok(incoming) => {
                self.tell_writer(before, after);
                Ok(incoming)
            }
            Err(Errno::EAGAIN) => {
                let is_over = own.is_ended.get() || own.is_read_shut.get();
                if self.pair.flavour == Flavour::Tcp && own.is_ended.get() && !own.is_reset.get() {
                    return Ok(Incoming::default());
                }
                match own.condition.error.take() {
                    Some(error) => Err(error),
                    None if is_over => Ok(Incoming::default()),
                    None => Err(Errno::EAGAIN),
                }
            }
            Err(error) => Err(error),
        }
    }

    /// Wakes whoever writes to here, if there is room again now that fewer bytes wait than before.
    fn tell_writer(&self, before: u64, after: u64) {
        let own = self.own();
        let is_writable = self.pair.is_writable(after);
        let gets_writable = !self.pair.is_writable(before) && is_writable;
        if gets_writable || (own.is_starving.get() && is_writable) {
            own.is_starving.set(false);
            self.peer().condition.moved.wake();
        }
    }

    /// Writes bytes of the library OS's: all or none.
    pub(crate) fn send_own(&self, bytes: &[u8]) -> Result<(), Errno> {
        let peer = self.peer();
        peer.inbox.borrow_mut().push_own_bytes(bytes)?;
        peer.condition.moved.wake();
        Ok(())
    }

    /// Reads bytes for the library OS; how many.
    pub(crate) fn receive_own(&self, bytes: &mut [u8]) -> usize {
        let mut inbox = self.own().inbox.borrow_mut();
        let before = inbox.len();
        let count = inbox.pull_own_bytes(bytes);
        let after = inbox.len();
        drop(inbox);
        self.tell_writer(before, after);
        count
    }

    /// Whether the other side writes no more.
    pub(crate) fn has_peer_ended(&self) -> bool {
        self.own().is_ended.get()
    }

    /// No more reading, no more writing, or both.
    pub(crate) fn shut(&self, read: bool, write: bool) {
        let (own, peer) = (self.own(), self.peer());
        if read {
            own.is_read_shut.set(true);
            if self.pair.flavour != Flavour::Tcp {
                peer.is_write_shut.set(true);
            }
        }
        if write {
            own.is_write_shut.set(true);
            peer.is_ended.set(true);
        }
        own.condition.moved.wake();
        peer.condition.moved.wake();
    }

    /// The socket is gone; `abort` cuts the connection even if everything was read.
    pub(crate) fn close(&self, abort: bool, discarded: &mut Vec<Rc<OpenFile>>) {
        let (own, peer) = (self.own(), self.peer());
        if own.is_closed.replace(true) {
            return;
        }
        let mut inbox = own.inbox.borrow_mut();
        let is_cut = abort || !inbox.is_empty();
        inbox.clear(discarded);
        drop(inbox);
        if peer.is_closed.get() {
            return;
        }
        let is_tcp = self.pair.flavour == Flavour::Tcp;
        if is_cut {
            peer.condition.error.set(Some(Errno::ECONNRESET));
            peer.is_reset.set(true);
        }
        if is_cut || !is_tcp {
            peer.is_write_shut.set(true);
        }
        peer.is_ended.set(true);
        peer.condition.moved.wake();
    }

    /// The listener is gone before the connection was accepted.
    pub(crate) fn refuse(&self, discarded: &mut Vec<Rc<OpenFile>>) {
        if !self.is_established() {
            self.peer().condition.error.set(Some(Errno::ECONNREFUSED));
        }
        self.close(true, discarded);
    }

    /// What it is ready for.
    pub(crate) fn readiness(&self) -> Readiness {
        let (own, peer) = (self.own(), self.peer());
        let is_over = own.is_ended.get() || own.is_read_shut.get();
        let is_write_shut = own.is_write_shut.get();
        let is_writable = self.pair.is_writable(peer.inbox.borrow().len());
        let mut readiness = Readiness::empty();
        readiness.set(Readiness::READ, is_over || !own.inbox.borrow().is_empty());
        readiness.set(Readiness::READ_HANG_UP, is_over);
        readiness.set(Readiness::WRITE, is_writable || is_write_shut);
        readiness.set(Readiness::HANG_UP, is_over && is_write_shut);
        readiness.set(Readiness::ERROR, own.condition.error.get().is_some());
        readiness
    }

    /// Bytes that can be read at once; for records, those of the next one.
    pub(crate) fn waiting_bytes(&self) -> u64 {
        let inbox = self.own().inbox.borrow();
        match self.pair.flavour {
            Flavour::UnixRecords => inbox.next_length().unwrap_or(0),
            Flavour::Tcp | Flavour::Unix => inbox.len(),
        }
    }

    /// Bytes that the other side has not read yet.
    pub(crate) fn unsent_bytes(&self) -> u64 {
        self.peer().inbox.borrow().len()
    }
}
