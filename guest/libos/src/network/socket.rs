//! Sockets as the program sees them.
//!
//! ```text
//!   fresh ──bind──> bound ──listen──> listening ──accept──> a new, connected socket
//!     └────────────────────listen (any port)──┘
//! ```

use alloc::collections::VecDeque;
use alloc::rc::Rc;
use core::cell::{Cell, RefCell};

use super::address::{Address, Family};
use super::stream::Stream;
use crate::errno::Errno;
use crate::files::{File, Kind, Readiness};
use crate::kernel::Kernel;
use crate::memory::Buffers;
use crate::task::{ReadyQueue, WaitQueue};

/// Streams that wait to be accepted.
pub(crate) struct Listener {
    backlog: RefCell<VecDeque<Rc<Stream>>>,
    moved: Rc<WaitQueue>,
}

impl Listener {
    /// Adds a stream.
    pub(super) fn offer(&self, stream: Rc<Stream>) {
        self.backlog.borrow_mut().push_back(stream);
        self.moved.wake();
    }
}

enum State {
    Fresh,
    Bound,
    Listening(Rc<Listener>),
    Connected(Rc<Stream>),
}

/// A TCP socket.
pub(crate) struct Socket {
    state: RefCell<State>,
    local: Cell<Address>,
    remote: Cell<Address>,
    receive_timeout_ns: Cell<Option<u64>>,
    send_timeout_ns: Cell<Option<u64>>,
    /// Shared with the listener or the stream that the socket has.
    moved: Rc<WaitQueue>,
}

impl Socket {
    /// A socket that is neither bound nor connected.
    pub(crate) fn new(family: Family, ready: &Rc<ReadyQueue>) -> Self {
        Self {
            state: RefCell::new(State::Fresh),
            local: Cell::new(Address::unspecified(family)),
            remote: Cell::new(Address::unspecified(family)),
            receive_timeout_ns: Cell::new(None),
            send_timeout_ns: Cell::new(None),
            moved: Rc::new(WaitQueue::new(ready)),
        }
    }

    /// Its address family.
    pub(crate) fn family(&self) -> Family {
        self.local.get().family
    }

    /// Its own address.
    pub(crate) fn local(&self) -> Address {
        self.local.get()
    }

    /// The far end's address.
    pub(crate) fn remote(&self) -> Result<Address, Errno> {
        match &*self.state.borrow() {
            State::Connected(_) => Ok(self.remote.get()),
            _ => Err(Errno::ENOTCONN),
        }
    }

    /// Whether it listens.
    pub(crate) fn is_listening(&self) -> bool {
        matches!(&*self.state.borrow(), State::Listening(_))
    }

    /// `bind`.
    pub(crate) fn bind(&self, kernel: &mut Kernel, mut address: Address) -> Result<(), Errno> {
        let mut state = self.state.borrow_mut();
        if !matches!(&*state, State::Fresh) {
            return Err(Errno::EINVAL);
        }
        let is_unspecified = address.host == [0; 16];
        let is_loopback = address.host == Address::loopback(address.family, 0).host;
        if !is_unspecified && !is_loopback {
            return Err(Errno::EADDRNOTAVAIL);
        }
        if address.port == 0 {
            address.port = kernel.network.free_port().ok_or(Errno::EADDRINUSE)?;
        } else if kernel.network.is_taken(address.family, address.port) {
            return Err(Errno::EADDRINUSE);
        }
        self.local.set(address);
        *state = State::Bound;
        Ok(())
    }

    /// `listen`.
    pub(crate) fn listen(&self, kernel: &mut Kernel) -> Result<(), Errno> {
        let mut state = self.state.borrow_mut();
        match &*state {
            State::Listening(_) => return Ok(()),
            State::Connected(_) => return Err(Errno::EINVAL),
            State::Fresh => {
                let port = kernel.network.free_port().ok_or(Errno::EADDRINUSE)?;
                self.local.set(Address {
                    port,
                    ..self.local.get()
                });
            }
            State::Bound if kernel.network.is_taken(self.family(), self.local.get().port) => {
                return Err(Errno::EADDRINUSE);
            }
            State::Bound => {}
        }
        let listener = Rc::new(Listener {
            backlog: RefCell::default(),
            moved: Rc::clone(&self.moved),
        });
        kernel
            .network
            .listen(self.family(), self.local.get().port, &listener);
        *state = State::Listening(listener);
        Ok(())
    }

    /// `accept`: the next connected socket.
    pub(crate) fn accept(&self) -> Result<Self, Errno> {
        let state = self.state.borrow();
        let State::Listening(listener) = &*state else {
            return Err(Errno::EINVAL);
        };
        let stream = listener.backlog.borrow_mut().pop_front().ok_or(Errno::EAGAIN)?;
        let local = Address::loopback(self.family(), self.local.get().port);
        // Streams have no port of their own at the far end; any constant one serves programs that print it.
        let remote = Address::loopback(self.family(), super::FIRST_FREE_PORT);
        let moved = Rc::clone(&stream.moved);
        Ok(Self {
            state: RefCell::new(State::Connected(stream)),
            local: Cell::new(local),
            remote: Cell::new(remote),
            receive_timeout_ns: self.receive_timeout_ns.clone(),
            send_timeout_ns: self.send_timeout_ns.clone(),
            moved,
        })
    }

    /// How long a read waits (SO_RCVTIMEO); `None` is for ever.
    pub(crate) fn receive_timeout_ns(&self) -> Option<u64> {
        self.receive_timeout_ns.get()
    }

    /// How long a write waits (SO_SNDTIMEO); `None` is for ever.
    pub(crate) fn send_timeout_ns(&self) -> Option<u64> {
        self.send_timeout_ns.get()
    }

    /// Sets how long a read or a write waits.
    pub(crate) fn set_timeout(&self, receives: bool, timeout_ns: Option<u64>) {
        let place = if receives {
            &self.receive_timeout_ns
        } else {
            &self.send_timeout_ns
        };
        place.set(timeout_ns);
    }

    /// The stream of a connected socket.
    pub(crate) fn stream(&self) -> Result<Rc<Stream>, Errno> {
        match &*self.state.borrow() {
            State::Connected(stream) => Ok(Rc::clone(stream)),
            _ => Err(Errno::ENOTCONN),
        }
    }
}

impl File for Socket {
    fn kind(&self) -> Kind {
        Kind::Socket
    }

    fn waiting_bytes(&self) -> Option<u64> {
        Some(
            self.stream()
                .map_or(0, |stream| u64::from(stream.waiting_bytes())),
        )
    }

    fn read(&self, kernel: &mut Kernel, buffers: &mut Buffers) -> Result<u64, Errno> {
        self.stream()?.read(kernel, buffers, false)
    }

    fn write(&self, kernel: &mut Kernel, buffers: &mut Buffers) -> Result<u64, Errno> {
        let stream = self.stream().map_err(|_| Errno::EPIPE)?;
        stream.write(kernel, buffers)
    }

    fn readiness(&self) -> Readiness {
        match &*self.state.borrow() {
            State::Fresh | State::Bound => Readiness::WRITE | Readiness::HANG_UP,
            State::Listening(listener) if listener.backlog.borrow().is_empty() => Readiness::empty(),
            State::Listening(_) => Readiness::READ,
            State::Connected(stream) => stream.readiness(),
        }
    }

    fn wait_queue(&self) -> Option<&WaitQueue> {
        Some(&self.moved)
    }

    fn as_socket(&self) -> Option<&Socket> {
        Some(self)
    }
}
