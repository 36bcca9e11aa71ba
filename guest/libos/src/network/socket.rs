//! Sockets as the program sees them: what all kinds have in common.
//!
//! What a kind does is behind [`Protocol`]: TCP, UDP, Unix sockets, netlink.

use alloc::boxed::Box;
use alloc::rc::Rc;
use alloc::vec::Vec;
use core::cell::Cell;

use linux_raw_sys::net::{AF_INET, AF_INET6, SO_PASSCRED, SOL_SOCKET};

use super::inbox::{Ancillary, Credentials, Incoming};
use super::options::Options;
use crate::errno::Errno;
use crate::files::descriptors::OpenFile;
use crate::files::{File, Kind, Readiness};
use crate::kernel::Kernel;
use crate::memory::Buffers;
use crate::task::{ReadyQueue, WaitQueue};

/// How data is cut up (`SOCK_…`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    Stream,
    Datagram,
    Raw,
    Records,
}

impl Form {
    /// The number of the type.
    pub(crate) fn number(self) -> u32 {
        match self {
            Self::Stream => 1,
            Self::Datagram => 2,
            Self::Raw => 3,
            Self::Records => 5,
        }
    }
}

/// What a socket shares with those that it is connected with.
pub(crate) struct Condition {
    /// It has changed.
    pub(crate) moved: WaitQueue,
    /// What went wrong and was not told yet (`SO_ERROR`).
    pub(crate) error: Cell<Option<Errno>>,
    /// It wants to know who writes (`SO_PASSCRED`).
    pub(crate) passes_credentials: Cell<bool>,
}

impl Condition {
    /// Of a fresh socket.
    pub(crate) fn new(ready: &Rc<ReadyQueue>) -> Rc<Self> {
        Rc::new(Self {
            moved: WaitQueue::new(ready),
            error: Cell::new(None),
            passes_credentials: Cell::new(false),
        })
    }
}

/// What every socket has, whatever its kind.
pub(crate) struct Common {
    /// Address family (`AF_…`).
    pub(crate) domain: u32,
    pub(crate) form: Form,
    /// Number of the protocol, as `SO_PROTOCOL` shows it.
    pub(crate) protocol: u32,
    pub(crate) options: Options,
    pub(crate) condition: Rc<Condition>,
}

impl Common {
    /// The socket that `accept` makes of a connection.
    pub(crate) fn accepted(&self, condition: &Rc<Condition>) -> Self {
        let passes = self.options.is_set(SOL_SOCKET, SO_PASSCRED);
        condition.passes_credentials.set(passes);
        Self {
            options: self.options.clone(),
            condition: Rc::clone(condition),
            ..*self
        }
    }

    /// Takes the error that was not told yet.
    pub(crate) fn take_error(&self) -> Result<(), Errno> {
        self.condition.error.take().map_or(Ok(()), Err)
    }
}

/// How `connect` is called.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Attempt {
    pub(crate) non_blocking: bool,
    /// The same call has waited already.
    pub(crate) is_retry: bool,
}

/// What is sent beside the bytes.
#[derive(Default)]
pub(crate) struct Outgoing {
    /// Where to, if the call says so.
    pub(crate) destination: Option<Vec<u8>>,
    pub(crate) ancillary: Ancillary,
    /// Who sends.
    pub(crate) sender: Credentials,
}

/// What a kind of socket does. A call that cannot be served at once answers `EAGAIN`, `connect` answers `EINPROGRESS`;
/// the caller then waits for the socket's [`Condition`] to move.
pub(crate) trait Protocol {
    /// `bind`.
    fn bind(&self, kernel: &mut Kernel, common: &Common, address: &[u8]) -> Result<(), Errno>;

    /// `listen`.
    fn listen(&self, _kernel: &mut Kernel, _common: &Common, _backlog: usize) -> Result<(), Errno> {
        Err(Errno::EOPNOTSUPP)
    }

    /// `accept`: the next connected socket.
    fn accept(&self, _kernel: &mut Kernel, _common: &Common) -> Result<Socket, Errno> {
        Err(Errno::EOPNOTSUPP)
    }

    /// `connect`.
    fn connect(
        &self,
        kernel: &mut Kernel,
        common: &Common,
        address: &[u8],
        attempt: Attempt,
    ) -> Result<(), Errno>;

    /// Its own address.
    fn local(&self) -> Vec<u8>;

    /// The far end's address.
    fn remote(&self) -> Result<Vec<u8>, Errno>;

    /// Sends as much as there is room for, or a datagram.
    fn send(
        &self,
        kernel: &mut Kernel,
        common: &Common,
        buffers: &mut Buffers,
        outgoing: &mut Outgoing,
    ) -> Result<u64, Errno>;

    /// Receives what is there; `peek` leaves it there.
    fn receive(
        &self,
        kernel: &mut Kernel,
        common: &Common,
        buffers: &mut Buffers,
        peek: bool,
    ) -> Result<Incoming, Errno>;

    /// `shutdown`.
    fn shut(&self, kernel: &mut Kernel, common: &Common, read: bool, write: bool) -> Result<(), Errno>;

    /// What it is ready for; errors that were not told yet are added by the caller.
    fn readiness(&self, common: &Common) -> Readiness;

    /// Bytes that can be read at once (`FIONREAD`).
    fn waiting_bytes(&self) -> u64;

    /// Bytes that were sent and not read by the far end (`SIOCOUTQ`).
    fn unsent_bytes(&self) -> u64 {
        0
    }

    /// Whether it listens.
    fn is_listening(&self) -> bool {
        false
    }

    /// Whether it is connected, as `TCP_INFO` tells it.
    fn is_connected(&self) -> bool {
        self.remote().is_ok()
    }

    /// Who is at the far end (`SO_PEERCRED`).
    fn peer_credentials(&self) -> Credentials {
        [0, u32::MAX, u32::MAX]
    }

    /// An option has changed.
    fn option_changed(&self, _common: &Common) {}

    /// The socket is gone; files that were under way to it go to `discarded`.
    fn close(&self, common: &Common, discarded: &mut Vec<Rc<OpenFile>>);
}

/// A socket.
pub(crate) struct Socket {
    pub(crate) common: Common,
    pub(crate) protocol: Box<dyn Protocol>,
}

impl Socket {
    /// How long a read waits (SO_RCVTIMEO); `None` is for ever.
    pub(crate) fn receive_timeout_ns(&self) -> Option<u64> {
        self.common.options.receive_timeout_ns.get()
    }

    /// How long a write waits (SO_SNDTIMEO); `None` is for ever.
    pub(crate) fn send_timeout_ns(&self) -> Option<u64> {
        self.common.options.send_timeout_ns.get()
    }

    /// Whether it is one of the internet's.
    pub(crate) fn is_internet(&self) -> bool {
        [AF_INET, AF_INET6].contains(&self.common.domain)
    }

    /// Whether bytes flow without borders.
    pub(crate) fn is_byte_stream(&self) -> bool {
        self.common.form == Form::Stream
    }
}

impl File for Socket {
    fn kind(&self) -> Kind {
        Kind::Socket
    }

    fn read(&self, kernel: &mut Kernel, buffers: &mut Buffers) -> Result<u64, Errno> {
        let incoming = self.protocol.receive(kernel, &self.common, buffers, false)?;
        kernel.network.discarded.extend(incoming.ancillary.rights);
        Ok(incoming.count)
    }

    fn write(&self, kernel: &mut Kernel, buffers: &mut Buffers) -> Result<u64, Errno> {
        let mut outgoing = Outgoing {
            sender: kernel.process.credentials(),
            ..Outgoing::default()
        };
        self.protocol.send(kernel, &self.common, buffers, &mut outgoing)
    }

    fn is_stream(&self) -> bool {
        self.is_byte_stream()
    }

    fn readiness(&self) -> Readiness {
        let mut readiness = self.protocol.readiness(&self.common);
        if self.common.condition.error.get().is_some() {
            readiness |= Readiness::ERROR;
        }
        readiness
    }

    fn wait_queue(&self) -> Option<&WaitQueue> {
        Some(&self.common.condition.moved)
    }

    fn release(&self, kernel: &mut Kernel) {
        let mut discarded = Vec::new();
        self.protocol.close(&self.common, &mut discarded);
        kernel.network.discarded.append(&mut discarded);
    }

    fn waiting_bytes(&self) -> Option<u64> {
        Some(self.protocol.waiting_bytes())
    }

    fn as_socket(&self) -> Option<&Socket> {
        Some(self)
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        // Nothing is left to do if it was released.
        self.protocol.close(&self.common, &mut Vec::new());
    }
}
