//! Unix sockets: streams, records, datagrams.
//!
//! A socket with a name is found through its [`Shared`] part: by an abstract name in [`Names`], by a path through the
//! socket node in the file system.

mod names;

pub(crate) use names::{Name, Names};

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::rc::{Rc, Weak};
use alloc::vec::Vec;
use core::cell::{Cell, RefCell};

use linux_raw_sys::net::AF_UNIX;

use super::address::is_unspecified_family;
use super::inbox::{Credentials, Inbox, Incoming};
use super::options::Options;
use super::pair::{self, End, Flavour};
use super::socket::{Attempt, Common, Condition, Form, Outgoing, Protocol, Socket};
use super::tcp::BACKLOG_MAX;
use crate::errno::Errno;
use crate::files::Readiness;
use crate::files::descriptors::OpenFile;
use crate::kernel::Kernel;
use crate::memory::Buffers;
use crate::task::WaitQueue;
use names::Hold;

/// Bytes of datagrams that wait in a socket, at most (`net.core.rmem_default`).
const DATAGRAM_BYTES: u64 = 212_992;
/// Datagrams that wait in a socket, at most (`net.unix.max_dgram_qlen`).
const DATAGRAMS: usize = 10;
/// The same between two sockets that are connected with each other: as many as the sender's buffer holds.
const DATAGRAMS_BETWEEN_TWO: usize = 277;

/// A connection that waits to be accepted.
struct Waiting {
    end: End,
    client: Name,
    credentials: Credentials,
}

/// The part of a socket that others reach.
pub(crate) struct Shared {
    form: Form,
    condition: Rc<Condition>,
    name: RefCell<Name>,
    /// Connections that wait to be accepted, while it listens.
    waiting: RefCell<Option<(VecDeque<Waiting>, usize)>>,
    /// Who listened, for the peers.
    credentials: Cell<Credentials>,
    /// Datagrams.
    inbox: RefCell<Inbox>,
    /// Who waits for room here.
    senders: WaitQueue,
    /// The socket whose datagrams alone are taken.
    peer: RefCell<Weak<Shared>>,
    is_read_shut: Cell<bool>,
    is_closed: Cell<bool>,
}

enum State {
    Idle,
    Listening,
    Connected(End),
}

/// A Unix socket.
pub(crate) struct Unix {
    shared: Rc<Shared>,
    hold: RefCell<Option<Hold>>,
    state: RefCell<State>,
    /// Name of the far end.
    remote: RefCell<Option<Name>>,
    peer_credentials: Cell<Credentials>,
    is_write_shut: Cell<bool>,
    /// It was connected to a datagram socket that is gone.
    has_lost_peer: Cell<bool>,
}

/// A fresh socket.
pub(crate) fn socket(kernel: &Kernel, form: Form) -> Socket {
    let condition = Condition::new(&kernel.ready);
    let form = if form == Form::Raw { Form::Datagram } else { form };
    Socket {
        protocol: Box::new(Unix::new(kernel, form, &condition)),
        common: Common {
            domain: AF_UNIX,
            form,
            protocol: 0,
            options: Options::default(),
            condition,
        },
    }
}

/// Two fresh sockets that are connected with each other.
pub(crate) fn socket_pair(kernel: &Kernel, form: Form) -> [Socket; 2] {
    let form = if form == Form::Raw { Form::Datagram } else { form };
    let conditions = [Condition::new(&kernel.ready), Condition::new(&kernel.ready)];
    let ends = flavour(form).map(|flavour| pair::connect(kernel, flavour, [&conditions[0], &conditions[1]]));
    let sockets = [0, 1].map(|side: usize| {
        let unix = Unix::new(kernel, form, &conditions[side]);
        if let Some(ends) = &ends {
            *unix.state.borrow_mut() = State::Connected(ends[side].clone());
        }
        *unix.remote.borrow_mut() = Some(Name::Unnamed);
        unix.peer_credentials.set(kernel.process.credentials());
        unix
    });
    let [first, second] = sockets;
    *first.shared.peer.borrow_mut() = Rc::downgrade(&second.shared);
    *second.shared.peer.borrow_mut() = Rc::downgrade(&first.shared);
    let mut conditions = conditions.into_iter();
    [first, second].map(|unix| Socket {
        common: Common {
            domain: AF_UNIX,
            form,
            protocol: 0,
            options: Options::default(),
            condition: conditions
                .next()
                .unwrap_or_else(|| Rc::clone(&unix.shared.condition)),
        },
        protocol: Box::new(unix),
    })
}

fn flavour(form: Form) -> Option<Flavour> {
    match form {
        Form::Stream => Some(Flavour::Unix),
        Form::Records => Some(Flavour::UnixRecords),
        Form::Datagram | Form::Raw => None,
    }
}

impl Shared {
    fn takes_only_from(&self, sender: &Rc<Self>) -> bool {
        let peer = self.peer.borrow().upgrade();
        peer.is_some_and(|peer| Rc::ptr_eq(&peer, sender))
    }

    /// Its socket is gone: datagram sockets that are connected to it hear of that when they next send.
    fn close(&self, discarded: &mut Vec<Rc<OpenFile>>) {
        self.is_closed.set(true);
        *self.name.borrow_mut() = Name::Unnamed;
        if let Some((waiting, _)) = self.waiting.borrow_mut().take() {
            for waiting in waiting {
                waiting.end.close(true, discarded);
            }
        }
        self.inbox.borrow_mut().clear(discarded);
        self.senders.wake();
    }

    /// Whether it takes no datagram of this length from `sender` now.
    fn is_full(&self, sender: &Rc<Self>, length: u64) -> bool {
        let inbox = self.inbox.borrow();
        let limit = if self.takes_only_from(sender) {
            DATAGRAMS_BETWEEN_TWO
        } else {
            DATAGRAMS
        };
        inbox.messages() > limit || (inbox.len() + length > DATAGRAM_BYTES && !inbox.is_empty())
    }
}

impl Unix {
    fn new(kernel: &Kernel, form: Form, condition: &Rc<Condition>) -> Self {
        Self {
            shared: Rc::new(Shared {
                form,
                condition: Rc::clone(condition),
                name: RefCell::new(Name::Unnamed),
                waiting: RefCell::new(None),
                credentials: Cell::new([0; 3]),
                inbox: RefCell::new(Inbox::of(kernel)),
                senders: WaitQueue::new(&kernel.ready),
                peer: RefCell::default(),
                is_read_shut: Cell::new(false),
                is_closed: Cell::new(false),
            }),
            hold: RefCell::new(None),
            state: RefCell::new(State::Idle),
            remote: RefCell::new(None),
            peer_credentials: Cell::new([0, u32::MAX, u32::MAX]),
            is_write_shut: Cell::new(false),
            has_lost_peer: Cell::new(false),
        }
    }

    fn is_datagram(&self) -> bool {
        flavour(self.shared.form).is_none()
    }

    /// The socket of a name.
    fn find(&self, kernel: &mut Kernel, name: &Name) -> Result<Rc<Shared>, Errno> {
        match name {
            Name::Unnamed => Err(Errno::EINVAL),
            Name::Abstract(name) => kernel
                .network
                .unix_names
                .find(self.shared.form, name)
                .ok_or(Errno::ECONNREFUSED),
            Name::Path(path) => super::find_socket_node(kernel, path)?
                .filter(|found| !found.is_closed.get())
                .ok_or(Errno::ECONNREFUSED),
        }
        .and_then(|found| {
            if found.form == self.shared.form {
                Ok(found)
            } else {
                Err(Errno::EPROTOTYPE)
            }
        })
    }

    fn connect_datagram(&self, kernel: &mut Kernel, name: &Name) -> Result<(), Errno> {
        let found = self.find(kernel, name)?;
        let only_peer = found.peer.borrow().upgrade();
        if only_peer.is_some_and(|peer| !Rc::ptr_eq(&peer, &self.shared)) {
            return Err(Errno::EPERM);
        }
        *self.shared.peer.borrow_mut() = Rc::downgrade(&found);
        self.has_lost_peer.set(false);
        *self.remote.borrow_mut() = Some(name.clone());
        Ok(())
    }

    fn connect_stream(&self, kernel: &mut Kernel, common: &Common, name: &Name) -> Result<(), Errno> {
        let Some(flavour) = flavour(self.shared.form) else {
            return Err(Errno::EOPNOTSUPP);
        };
        match &*self.state.borrow() {
            State::Idle => {}
            State::Connected(_) => return Err(Errno::EISCONN),
            State::Listening => return Err(Errno::EINVAL),
        }
        let found = self.find(kernel, name)?;
        let mut listening = found.waiting.borrow_mut();
        let (waiting, backlog) = listening.as_mut().ok_or(Errno::ECONNREFUSED)?;
        if waiting.len() > *backlog {
            found.senders.add_task(kernel.current);
            return Err(Errno::EAGAIN);
        }
        let far = Condition::new(&kernel.ready);
        far.passes_credentials
            .set(found.condition.passes_credentials.get());
        let [near, far] = pair::connect(kernel, flavour, [&common.condition, &far]);
        waiting.push_back(Waiting {
            end: far,
            client: self.shared.name.borrow().clone(),
            credentials: kernel.process.credentials(),
        });
        drop(listening);
        *self.state.borrow_mut() = State::Connected(near);
        *self.remote.borrow_mut() = Some(name.clone());
        self.peer_credentials.set(found.credentials.get());
        found.condition.moved.wake();
        Ok(())
    }

    fn send_datagram(
        &self,
        kernel: &mut Kernel,
        common: &Common,
        buffers: &mut Buffers,
        outgoing: &mut Outgoing,
    ) -> Result<u64, Errno> {
        let receiver = match &outgoing.destination {
            Some(bytes) => {
                let name = Name::parse(bytes)?;
                self.find(kernel, &name)?
            }
            None => {
                let peer = self.shared.peer.borrow().upgrade();
                match peer.filter(|peer| !peer.is_closed.get()) {
                    Some(peer) => peer,
                    None if self.remote.borrow().is_some() && !self.has_lost_peer.replace(true) => {
                        return Err(Errno::ECONNREFUSED);
                    }
                    None => return Err(Errno::ENOTCONN),
                }
            }
        };
        common.take_error()?;
        if self.is_write_shut.get() || receiver.is_read_shut.get() {
            return Err(Errno::EPIPE);
        }
        let only_peer = receiver.peer.borrow().upgrade();
        if only_peer.is_some_and(|peer| !Rc::ptr_eq(&peer, &self.shared)) {
            return Err(Errno::EPERM);
        }
        let length = buffers.remaining();
        if length > DATAGRAM_BYTES {
            return Err(Errno::EMSGSIZE);
        }
        if receiver.is_full(&self.shared, length) {
            receiver.senders.add_task(kernel.current);
            return Err(Errno::EAGAIN);
        }
        let source = match &*self.shared.name.borrow() {
            Name::Unnamed => None,
            name => Some(name.encode().into()),
        };
        let ancillary = &mut outgoing.ancillary;
        ancillary.credentials.get_or_insert(outgoing.sender);
        let mut inbox = receiver.inbox.borrow_mut();
        let done = inbox.push_message(kernel, buffers, source, ancillary)?;
        drop(inbox);
        receiver.condition.moved.wake();
        Ok(done)
    }
}

impl Protocol for Unix {
    fn bind(&self, kernel: &mut Kernel, _common: &Common, address: &[u8]) -> Result<(), Errno> {
        let mut name = Name::parse(address)?;
        if *self.shared.name.borrow() != Name::Unnamed {
            return Err(Errno::EINVAL);
        }
        if name == Name::Unnamed {
            name = Name::Abstract(
                kernel
                    .network
                    .unix_names
                    .made_up(self.shared.form)
                    .ok_or(Errno::ENOSPC)?,
            );
        }
        match &name {
            Name::Abstract(name) => {
                let hold = kernel.network.unix_names.claim(name, &self.shared)?;
                *self.hold.borrow_mut() = Some(hold);
            }
            Name::Path(path) => super::make_socket_node(kernel, path, &self.shared)?,
            Name::Unnamed => return Err(Errno::EINVAL),
        }
        *self.shared.name.borrow_mut() = name;
        Ok(())
    }

    fn listen(&self, kernel: &mut Kernel, _common: &Common, backlog: usize) -> Result<(), Errno> {
        if self.is_datagram() {
            return Err(Errno::EOPNOTSUPP);
        }
        let mut state = self.state.borrow_mut();
        if matches!(&*state, State::Connected(_)) || *self.shared.name.borrow() == Name::Unnamed {
            return Err(Errno::EINVAL);
        }
        let backlog = backlog.min(BACKLOG_MAX);
        let mut waiting = self.shared.waiting.borrow_mut();
        match waiting.as_mut() {
            Some((_, known)) => *known = backlog,
            None => *waiting = Some((VecDeque::new(), backlog)),
        }
        self.shared.credentials.set(kernel.process.credentials());
        *state = State::Listening;
        Ok(())
    }

    fn accept(&self, kernel: &mut Kernel, common: &Common) -> Result<Socket, Errno> {
        if self.is_datagram() {
            return Err(Errno::EOPNOTSUPP);
        }
        let mut listening = self.shared.waiting.borrow_mut();
        let (waiting, _) = listening.as_mut().ok_or(Errno::EINVAL)?;
        if self.shared.is_read_shut.get() && waiting.is_empty() {
            return Err(Errno::EINVAL);
        }
        let Waiting {
            end,
            client,
            credentials,
        } = waiting.pop_front().ok_or(Errno::EAGAIN)?;
        self.shared.senders.wake();
        let condition = Rc::clone(end.condition());
        let accepted = Self::new(kernel, self.shared.form, &condition);
        *accepted.shared.name.borrow_mut() = self.shared.name.borrow().clone();
        *accepted.state.borrow_mut() = State::Connected(end);
        *accepted.remote.borrow_mut() = Some(client);
        accepted.peer_credentials.set(credentials);
        Ok(Socket {
            common: common.accepted(&condition),
            protocol: Box::new(accepted),
        })
    }

    fn connect(
        &self,
        kernel: &mut Kernel,
        common: &Common,
        address: &[u8],
        _attempt: Attempt,
    ) -> Result<(), Errno> {
        if self.is_datagram() && is_unspecified_family(address) {
            *self.shared.peer.borrow_mut() = Weak::new();
            *self.remote.borrow_mut() = None;
            return Ok(());
        }
        let name = Name::parse(address)?;
        if self.is_datagram() {
            self.connect_datagram(kernel, &name)
        } else {
            self.connect_stream(kernel, common, &name)
        }
    }

    fn local(&self) -> Vec<u8> {
        self.shared.name.borrow().encode()
    }

    fn remote(&self) -> Result<Vec<u8>, Errno> {
        self.remote
            .borrow()
            .as_ref()
            .map(Name::encode)
            .ok_or(Errno::ENOTCONN)
    }

    fn send(
        &self,
        kernel: &mut Kernel,
        common: &Common,
        buffers: &mut Buffers,
        outgoing: &mut Outgoing,
    ) -> Result<u64, Errno> {
        if self.is_datagram() {
            return self.send_datagram(kernel, common, buffers, outgoing);
        }
        if outgoing.destination.is_some() && self.shared.form == Form::Stream {
            return Err(if self.remote.borrow().is_some() {
                Errno::EISCONN
            } else {
                Errno::EOPNOTSUPP
            });
        }
        let end = match &*self.state.borrow() {
            State::Connected(end) => end.clone(),
            State::Idle | State::Listening => return Err(Errno::ENOTCONN),
        };
        let ancillary = &mut outgoing.ancillary;
        if end.peer_wants_credentials() || self.shared.condition.passes_credentials.get() {
            ancillary.credentials.get_or_insert(outgoing.sender);
        }
        end.send(kernel, buffers, ancillary)
    }

    fn receive(
        &self,
        kernel: &mut Kernel,
        common: &Common,
        buffers: &mut Buffers,
        peek: bool,
    ) -> Result<Incoming, Errno> {
        if !self.is_datagram() {
            let end = match &*self.state.borrow() {
                State::Connected(end) => end.clone(),
                State::Idle | State::Listening if self.shared.form == Form::Records => {
                    return Err(Errno::ENOTCONN);
                }
                State::Idle | State::Listening => return Err(Errno::EINVAL),
            };
            return end.receive(kernel, buffers, peek);
        }
        common.take_error()?;
        match self.shared.inbox.borrow_mut().pull_message(kernel, buffers, peek) {
            Err(Errno::EAGAIN) if self.shared.is_read_shut.get() => Ok(Incoming::default()),
            Ok(incoming) => {
                if !peek {
                    self.shared.senders.wake();
                    if let Some(peer) = self.shared.peer.borrow().upgrade() {
                        peer.condition.moved.wake();
                    }
                }
                Ok(incoming)
            }
            other => other,
        }
    }

    fn shut(&self, _kernel: &mut Kernel, common: &Common, read: bool, write: bool) -> Result<(), Errno> {
        match &*self.state.borrow() {
            State::Connected(end) => end.shut(read, write),
            State::Idle | State::Listening => {
                if read {
                    self.shared.is_read_shut.set(true);
                }
                if write {
                    self.is_write_shut.set(true);
                }
                self.shared.senders.wake();
                common.condition.moved.wake();
            }
        }
        Ok(())
    }

    fn readiness(&self, _common: &Common) -> Readiness {
        match &*self.state.borrow() {
            State::Connected(end) => end.readiness(),
            State::Listening => {
                let waiting = self.shared.waiting.borrow();
                let is_empty = waiting.as_ref().is_none_or(|(waiting, _)| waiting.is_empty());
                if is_empty {
                    Readiness::empty()
                } else {
                    Readiness::READ
                }
            }
            State::Idle if self.is_datagram() => {
                let is_over = self.shared.is_read_shut.get();
                let peer = self.shared.peer.borrow().upgrade();
                let mut readiness = Readiness::empty();
                readiness.set(Readiness::READ, is_over || !self.shared.inbox.borrow().is_empty());
                readiness.set(Readiness::READ_HANG_UP, is_over);
                readiness.set(Readiness::HANG_UP, is_over && self.is_write_shut.get());
                let is_full = peer.is_some_and(|peer| {
                    let waiting = peer.inbox.borrow().messages();
                    let is_crowded = waiting > DATAGRAMS_BETWEEN_TWO / 4;
                    peer.is_full(&self.shared, 0) || (is_crowded && peer.takes_only_from(&self.shared))
                });
                readiness.set(Readiness::WRITE, !is_full);
                readiness
            }
            State::Idle => Readiness::WRITE | Readiness::HANG_UP,
        }
    }

    fn waiting_bytes(&self) -> u64 {
        match &*self.state.borrow() {
            State::Connected(end) => end.waiting_bytes(),
            State::Idle | State::Listening => self.shared.inbox.borrow().next_length().unwrap_or(0),
        }
    }

    fn unsent_bytes(&self) -> u64 {
        match &*self.state.borrow() {
            State::Connected(end) => end.unsent_bytes(),
            State::Idle | State::Listening => 0,
        }
    }

    fn is_listening(&self) -> bool {
        matches!(&*self.state.borrow(), State::Listening)
    }

    fn peer_credentials(&self) -> Credentials {
        self.peer_credentials.get()
    }

    fn close(&self, _common: &Common, discarded: &mut Vec<Rc<OpenFile>>) {
        if self.shared.is_closed.get() {
            return;
        }
        self.hold.borrow_mut().take();
        if let State::Connected(end) = self.state.replace(State::Idle) {
            end.close(false, discarded);
        }
        self.shared.close(discarded);
        if self.is_datagram()
            && let Some(peer) = self.shared.peer.borrow().upgrade()
        {
            // A peer that was connected to this very socket is told.
            let is_mutual = peer
                .peer
                .borrow()
                .upgrade()
                .is_some_and(|back| Rc::ptr_eq(&back, &self.shared));
            if is_mutual && !self.shared.inbox.borrow().is_empty() {
                peer.condition.error.set(Some(Errno::ECONNRESET));
            }
            peer.condition.moved.wake();
        }
    }
}
