//! TCP sockets.
//!
//! ```text
//!            ┌──────────── connect fails ───────────┐
//!            v                                      │
//!   idle (bound or not) ──connect──> connecting ──> connected
//!            │                           │ (listener's backlog is full, or the host is asked)
//!            └──listen──> listening ──accept──> a new, connected socket
//! ```

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::rc::{Rc, Weak};
use alloc::vec::Vec;
use core::cell::{Cell, RefCell};

use linux_raw_sys::net::{SO_REUSEADDR, SO_REUSEPORT, SOL_SOCKET};
use spore_abi::pages::egress_kind;

use super::address::{self, Address, Family, Host};
use super::egress::{Asking, Outcome};
use super::inbox::Incoming;
use super::options::V6_ONLY;
use super::pair::{self, End, Flavour};
use super::ports::{Claim, Wish};
use super::socket::{Attempt, Common, Condition, Outgoing, Protocol, Socket};
use super::stream::Stream;
use crate::errno::Errno;
use crate::files::Readiness;
use crate::files::descriptors::OpenFile;
use crate::kernel::Kernel;
use crate::memory::Buffers;
use crate::task::ReadyQueue;

/// Most connections that wait to be accepted (`net.core.somaxconn`).
pub(crate) const BACKLOG_MAX: usize = 4096;

/// What carries a connection.
#[derive(Clone)]
enum Line {
    /// Another socket of the program.
    Inside(End),
    /// A stream of the host's.
    Outside(Rc<Stream>),
}

/// A connection that waits to be accepted.
struct Waiting {
    line: Line,
    local: (Host, u16),
    remote: (Host, u16),
}

/// Connections that wait to be accepted.
pub(crate) struct Listener {
    waiting: RefCell<VecDeque<Waiting>>,
    backlog: Cell<usize>,
    condition: Rc<Condition>,
}

impl Listener {
    /// One of the library OS's own.
    pub(super) fn of_library_os(ready: &Rc<ReadyQueue>, backlog: usize) -> Rc<Self> {
        Rc::new(Self {
            waiting: RefCell::default(),
            backlog: Cell::new(backlog),
            condition: Condition::new(ready),
        })
    }

    /// The next connection of the program's, for the library OS.
    pub(super) fn take(&self) -> Option<End> {
        match self.accept()?.line {
            Line::Inside(end) => Some(end),
            Line::Outside(_) => None,
        }
    }

    /// Adds a stream of the host's.
    pub(super) fn offer(&self, stream: Rc<Stream>, port: u16) {
        // Streams have no port of their own at the far end; any constant one serves programs that print it.
        let loopback = Address::loopback(Family::V4, port).canonical();
        self.waiting.borrow_mut().push_back(Waiting {
            line: Line::Outside(stream),
            local: (loopback, port),
            remote: (loopback, super::GATEWAY_PORT),
        });
        self.condition.moved.wake();
    }

    /// Adds a connection of the program's own; one that is beyond the backlog is not established yet.
    pub(super) fn connect(&self, end: End, local: (Host, u16), remote: (Host, u16)) {
        let mut waiting = self.waiting.borrow_mut();
        end.set_established(waiting.len() <= self.backlog.get());
        waiting.push_back(Waiting {
            line: Line::Inside(end),
            local,
            remote,
        });
        drop(waiting);
        self.condition.moved.wake();
    }

    fn accept(&self) -> Option<Waiting> {
        let mut waiting = self.waiting.borrow_mut();
        let first = waiting.pop_front()?;
        if let Some(Waiting {
            line: Line::Inside(end),
            ..
        }) = waiting.get(self.backlog.get())
        {
            end.set_established(true);
        }
        Some(first)
    }

    fn close(&self, discarded: &mut Vec<Rc<OpenFile>>) {
        for waiting in core::mem::take(&mut *self.waiting.borrow_mut()) {
            if let Line::Inside(end) = waiting.line {
                end.refuse(discarded);
            }
        }
    }
}

enum State {
    Idle,
    Listening(Rc<Listener>),
    Connecting(Line),
    /// The host is asked to connect.
    Asking(Rc<Asking>),
    Connected(Line),
    Closed,
}

/// A TCP socket.
pub(crate) struct Tcp {
    state: RefCell<State>,
    claim: RefCell<Option<Claim<Listener>>>,
    /// The program has chosen the port, so that it stays when a connection fails.
    is_bound: Cell<bool>,
    local: Cell<(Host, u16)>,
    remote: Cell<(Host, u16)>,
    family: Family,
    /// The connection came about (or failed) and `connect` has not said so.
    is_untold: Cell<bool>,
}

fn wish(common: &Common, host: Host) -> Wish {
    Wish {
        host,
        is_v6_only: common.options.is_set(V6_ONLY.0, V6_ONLY.1),
        reuses_address: common.options.is_set(SOL_SOCKET, SO_REUSEADDR),
        reuses_port: common.options.is_set(SOL_SOCKET, SO_REUSEPORT),
    }
}

impl Tcp {
    /// A socket that is neither bound nor connected.
    pub(crate) fn new(family: Family) -> Self {
        Self::with(family, State::Idle, unspecified(family), unspecified(family))
    }

    fn with(family: Family, state: State, local: (Host, u16), remote: (Host, u16)) -> Self {
        Self {
            state: RefCell::new(state),
            claim: RefCell::new(None),
            is_bound: Cell::new(false),
            local: Cell::new(local),
            remote: Cell::new(remote),
            family,
            is_untold: Cell::new(false),
        }
    }

    /// Claims a port if it has none.
    fn claim_port(&self, kernel: &Kernel, common: &Common, host: Host) -> Result<u16, Errno> {
        let mut claim = self.claim.borrow_mut();
        if claim.is_none() {
            let ports = &kernel.network.tcp_ports;
            *claim = ports.claim(0, wish(common, host), Weak::new());
        }
        claim.as_ref().map(Claim::port).ok_or(Errno::EADDRNOTAVAIL)
    }

    fn fail(&self, error: Errno) -> Errno {
        *self.state.borrow_mut() = State::Idle;
        self.is_untold.set(false);
        if !self.is_bound.get() {
            self.claim.borrow_mut().take();
            self.local.set(unspecified(self.family));
        }
        error
    }

    /// Takes note of how a connection that was under way has come out: an error if it still is.
    fn settle(&self, common: &Common) -> Result<(), Errno> {
        let mut state = self.state.borrow_mut();
        let line = match &*state {
            State::Connecting(line @ Line::Inside(end)) if end.is_established() && !end.is_reset() => {
                Some(line.clone())
            }
            State::Connecting(line @ Line::Outside(_)) => Some(line.clone()),
            State::Connecting(_) => None,
            State::Asking(asking) => match asking.outcome() {
                Outcome::Open(stream) => Some(Line::Outside(stream)),
                Outcome::Waiting | Outcome::Failed(_) => None,
            },
            _ => return Ok(()),
        };
        if let Some(line) = line {
            *state = State::Connected(line);
            return Ok(());
        }
        drop(state);
        match common.condition.error.take() {
            Some(error) => Err(self.fail(error)),
            None => Err(Errno::EINPROGRESS),
        }
    }

    fn connect_inside(
        &self,
        kernel: &mut Kernel,
        common: &Common,
        (host, port): (Host, u16),
    ) -> Result<(), Errno> {
        let host = local_target(host);
        let listener = kernel.network.tcp_ports.listener(host, port);
        let source = match self.local.get() {
            (bound, _) if !address::is_unspecified(bound) => bound,
            _ => host,
        };
        let own_port = self.claim_port(kernel, common, source)?;
        let Some(listener) = listener else {
            return Err(Errno::ECONNREFUSED);
        };
        let far = Condition::new(&kernel.ready);
        let [near, far] = pair::connect(kernel, Flavour::Tcp, [&common.condition, &far]);
        self.local.set((source, own_port));
        self.remote.set((host, port));
        listener.connect(far, (host, port), (source, own_port));
        let line = Line::Inside(near.clone());
        *self.state.borrow_mut() = if near.is_established() {
            State::Connected(line)
        } else {
            State::Connecting(line)
        };
        Ok(())
    }

    fn connect_outside(
        &self,
        kernel: &mut Kernel,
        common: &Common,
        target: (Host, u16),
    ) -> Result<(), Errno> {
        if address::is_group(target.0) {
            return Err(self.fail(Errno::ENETUNREACH));
        }
        let source = match self.local.get().0 {
            host if address::is_unspecified(host) => address::mapped(address::INTERFACE_V4),
            host => host,
        };
        let port = self.claim_port(kernel, common, source)?;
        self.local.set((source, port));
        self.remote.set(target);
        let condition = &common.condition;
        let asking = kernel
            .network
            .egress
            .ask(egress_kind::STREAM, target, condition, None);
        kernel.notify_due = true;
        *self.state.borrow_mut() = State::Asking(asking);
        Err(Errno::EINPROGRESS)
    }

    fn start(
        &self,
        kernel: &mut Kernel,
        common: &Common,
        target: &Address,
        attempt: Attempt,
    ) -> Result<(), Errno> {
        let host = target.canonical();
        if target.family == Family::V6 && address::is_v4(host) && common.options.is_set(V6_ONLY.0, V6_ONLY.1)
        {
            return Err(Errno::ENETUNREACH);
        }
        let goes_out = !address::is_local(host)
            || (kernel.network.reaches_host_loopback
                && address::is_loopback(host)
                && kernel.network.tcp_ports.listener(host, target.port).is_none());
        if goes_out {
            return self.connect_outside(kernel, common, (host, target.port));
        }
        let result = self.connect_inside(kernel, common, (host, target.port));
        match result {
            Ok(()) if attempt.non_blocking => {
                // As on Linux the answer never comes before the call is over.
                self.is_untold.set(true);
                common.condition.moved.wake();
                Err(Errno::EINPROGRESS)
            }
            Ok(()) => self.settle(common),
            Err(error) if attempt.non_blocking && error == Errno::ECONNREFUSED => {
                self.fail(error);
                common.condition.error.set(Some(error));
                self.is_untold.set(true);
                common.condition.moved.wake();
                Err(Errno::EINPROGRESS)
            }
            Err(error) => Err(self.fail(error)),
        }
    }

    /// The line to the other side, for a call that moves bytes. A socket that has none and no error to tell gives
    /// `unconnected`.
    fn usable_line(&self, common: &Common, unconnected: Errno) -> Result<Line, Errno> {
        match self.settle(common) {
            Ok(()) => {}
            Err(Errno::EINPROGRESS) => return Err(Errno::EAGAIN),
            Err(error) => return Err(error),
        }
        match self.line() {
            Err(Errno::ENOTCONN) => {
                common.take_error()?;
                Err(unconnected)
            }
            line => line,
        }
    }

    fn line(&self) -> Result<Line, Errno> {
        match &*self.state.borrow() {
            State::Connected(line) => Ok(line.clone()),
            State::Connecting(_) | State::Asking(_) => Err(Errno::EAGAIN),
            State::Idle | State::Listening(_) | State::Closed => Err(Errno::ENOTCONN),
        }
    }
}

fn unspecified(family: Family) -> (Host, u16) {
    (Address::unspecified(family).canonical(), 0)
}

/// Where a connection to an address of this machine goes: to the unspecified address is to loopback.
fn local_target(host: Host) -> Host {
    match host {
        host if host == [0; 16] => Address::loopback(Family::V6, 0).canonical(),
        host if address::is_unspecified(host) => Address::loopback(Family::V4, 0).canonical(),
        host => host,
    }
}

impl Protocol for Tcp {
    fn bind(&self, kernel: &mut Kernel, common: &Common, address: &[u8]) -> Result<(), Errno> {
        let address = Address::parse(address, self.family)?;
        let host = address.canonical();
        if self.claim.borrow().is_some() || !matches!(&*self.state.borrow(), State::Idle) {
            return Err(Errno::EINVAL);
        }
        if !address::is_local(host) {
            return Err(Errno::EADDRNOTAVAIL);
        }
        let ports = &kernel.network.tcp_ports;
        let claim = ports.claim(address.port, wish(common, host), Weak::new());
        let claim = claim.ok_or(Errno::EADDRINUSE)?;
        self.local.set((host, claim.port()));
        *self.claim.borrow_mut() = Some(claim);
        self.is_bound.set(true);
        Ok(())
    }

    fn listen(&self, kernel: &mut Kernel, common: &Common, backlog: usize) -> Result<(), Errno> {
        let backlog = backlog.min(BACKLOG_MAX);
        match &*self.state.borrow() {
            State::Idle => {}
            State::Listening(listener) => {
                listener.backlog.set(backlog);
                return Ok(());
            }
            State::Connecting(_) | State::Asking(_) | State::Connected(_) | State::Closed => {
                return Err(Errno::EINVAL);
            }
        }
        let (host, _) = self.local.get();
        let port = self
            .claim_port(kernel, common, host)
            .map_err(|_| Errno::EADDRINUSE)?;
        self.local.set((host, port));
        let listener = Rc::new(Listener {
            waiting: RefCell::default(),
            backlog: Cell::new(backlog),
            condition: Rc::clone(&common.condition),
        });
        let is_alone = match &*self.claim.borrow() {
            Some(claim) => claim.listen(wish(common, host), Rc::downgrade(&listener)),
            None => false,
        };
        if !is_alone {
            return Err(Errno::EADDRINUSE);
        }
        *self.state.borrow_mut() = State::Listening(listener);
        kernel.network.listening(port);
        Ok(())
    }

    fn accept(&self, _kernel: &mut Kernel, common: &Common) -> Result<Socket, Errno> {
        let state = self.state.borrow();
        let State::Listening(listener) = &*state else {
            return Err(Errno::EINVAL);
        };
        let waiting = listener.accept().ok_or(Errno::EAGAIN)?;
        let condition = match &waiting.line {
            Line::Inside(end) => Rc::clone(end.condition()),
            Line::Outside(stream) => Rc::clone(&stream.condition),
        };
        let (mut local, mut remote) = (waiting.local, waiting.remote);
        if matches!(&waiting.line, Line::Outside(_)) {
            // What comes from the gateway looks as if it came over the listener's own family.
            let loopback = Address::loopback(self.family, 0).canonical();
            (local.0, remote.0) = (loopback, loopback);
        }
        let connected = State::Connected(waiting.line);
        Ok(Socket {
            common: common.accepted(&condition),
            protocol: Box::new(Self::with(self.family, connected, local, remote)),
        })
    }

    fn connect(
        &self,
        kernel: &mut Kernel,
        common: &Common,
        address: &[u8],
        attempt: Attempt,
    ) -> Result<(), Errno> {
        if address::is_unspecified_family(address) {
            self.disconnect(kernel, common);
            return Ok(());
        }
        let target = Address::parse(address, self.family)?;
        let is_under_way = matches!(&*self.state.borrow(), State::Connecting(_) | State::Asking(_));
        if is_under_way {
            return match self.settle(common) {
                Err(Errno::EINPROGRESS) if !attempt.is_retry => Err(Errno::EALREADY),
                Ok(()) => {
                    self.is_untold.set(false);
                    Ok(())
                }
                other => other,
            };
        }
        match &*self.state.borrow() {
            State::Connected(_) if self.is_untold.take() || attempt.is_retry => return Ok(()),
            State::Connected(_) | State::Listening(_) => return Err(Errno::EISCONN),
            State::Connecting(_) | State::Asking(_) => return Err(Errno::EALREADY),
            State::Closed => return Err(Errno::EINVAL),
            State::Idle => {}
        }
        if self.is_untold.take() {
            return Err(common.condition.error.take().unwrap_or(Errno::ECONNABORTED));
        }
        self.start(kernel, common, &target, attempt)
    }

    fn local(&self) -> Vec<u8> {
        let (host, port) = self.local.get();
        Address::shown(self.family, host, port).encode()
    }

    fn remote(&self) -> Result<Vec<u8>, Errno> {
        match &*self.state.borrow() {
            State::Connected(Line::Inside(end)) if end.is_reset() => Err(Errno::ENOTCONN),
            State::Connected(_) => {
                let (host, port) = self.remote.get();
                Ok(Address::shown(self.family, host, port).encode())
            }
            _ => Err(Errno::ENOTCONN),
        }
    }

    fn send(
        &self,
        kernel: &mut Kernel,
        common: &Common,
        buffers: &mut Buffers,
        outgoing: &mut Outgoing,
    ) -> Result<u64, Errno> {
        match self.usable_line(common, Errno::EPIPE)? {
            Line::Inside(end) => end.send(kernel, buffers, &mut outgoing.ancillary),
            Line::Outside(stream) => stream.write(kernel, buffers),
        }
    }

    fn receive(
        &self,
        kernel: &mut Kernel,
        common: &Common,
        buffers: &mut Buffers,
        peek: bool,
    ) -> Result<Incoming, Errno> {
        match self.usable_line(common, Errno::ENOTCONN)? {
            Line::Inside(end) => end.receive(kernel, buffers, peek),
            Line::Outside(stream) => {
                let count = stream.read(kernel, buffers, peek)?;
                Ok(Incoming {
                    count,
                    full: count,
                    may_go_on: count > 0,
                    ..Incoming::default()
                })
            }
        }
    }

    fn shut(&self, _kernel: &mut Kernel, common: &Common, read: bool, write: bool) -> Result<(), Errno> {
        let listener = match &*self.state.borrow() {
            State::Listening(listener) => Some(Rc::clone(listener)),
            _ => None,
        };
        if let Some(listener) = listener {
            if read {
                if let Some(claim) = &*self.claim.borrow() {
                    claim.stop_listening();
                }
                // Nothing passes files over TCP.
                listener.close(&mut Vec::new());
                *self.state.borrow_mut() = State::Idle;
                common.condition.moved.wake();
            }
            return Ok(());
        }
        match self.settle(common).and_then(|()| self.line()) {
            Ok(Line::Inside(end)) if end.is_reset() => return Err(Errno::ENOTCONN),
            Ok(Line::Inside(end)) => end.shut(read, write),
            Ok(Line::Outside(stream)) => stream.shut(read, write),
            Err(_) => return Err(Errno::ENOTCONN),
        }
        Ok(())
    }

    fn readiness(&self, common: &Common) -> Readiness {
        match &*self.state.borrow() {
            // A connection that could not be made leaves both directions shut.
            State::Idle if self.is_untold.get() => {
                Readiness::READ | Readiness::READ_HANG_UP | Readiness::WRITE | Readiness::HANG_UP
            }
            State::Idle | State::Closed => Readiness::WRITE | Readiness::HANG_UP,
            State::Listening(listener) if listener.waiting.borrow().is_empty() => Readiness::empty(),
            State::Listening(_) => Readiness::READ,
            State::Connecting(Line::Inside(end)) if end.is_established() || end.is_reset() => end.readiness(),
            State::Connecting(_) | State::Asking(_) if common.condition.error.get().is_some() => {
                Readiness::READ | Readiness::READ_HANG_UP | Readiness::WRITE | Readiness::HANG_UP
            }
            State::Asking(asking) => match asking.outcome() {
                Outcome::Open(stream) => stream.readiness(),
                Outcome::Waiting | Outcome::Failed(_) => Readiness::empty(),
            },
            State::Connecting(_) => Readiness::empty(),
            State::Connected(Line::Inside(end)) => end.readiness(),
            State::Connected(Line::Outside(stream)) => stream.readiness(),
        }
    }

    fn waiting_bytes(&self) -> u64 {
        match self.line() {
            Ok(Line::Inside(end)) => end.waiting_bytes(),
            Ok(Line::Outside(stream)) => u64::from(stream.waiting_bytes()),
            Err(_) => 0,
        }
    }

    fn unsent_bytes(&self) -> u64 {
        match self.line() {
            Ok(Line::Inside(end)) => end.unsent_bytes(),
            Ok(Line::Outside(stream)) => u64::from(stream.unsent_bytes()),
            Err(_) => 0,
        }
    }

    fn is_listening(&self) -> bool {
        matches!(&*self.state.borrow(), State::Listening(_))
    }

    fn close(&self, common: &Common, discarded: &mut Vec<Rc<OpenFile>>) {
        let aborts = common.options.linger.get() == Some(0);
        match self.state.replace(State::Closed) {
            State::Listening(listener) => listener.close(discarded),
            State::Connecting(Line::Inside(end)) | State::Connected(Line::Inside(end)) => {
                end.close(aborts, discarded);
            }
            // The stream closes itself.
            State::Connecting(Line::Outside(_)) | State::Connected(Line::Outside(_)) => {}
            State::Idle | State::Asking(_) | State::Closed => {}
        }
        self.claim.borrow_mut().take();
    }
}

impl Tcp {
    fn disconnect(&self, kernel: &mut Kernel, common: &Common) {
        let is_connection = matches!(
            &*self.state.borrow(),
            State::Connecting(_) | State::Asking(_) | State::Connected(_)
        );
        if !is_connection {
            return;
        }
        if let State::Connecting(Line::Inside(end)) | State::Connected(Line::Inside(end)) =
            self.state.replace(State::Idle)
        {
            end.close(true, &mut kernel.network.discarded);
        }
        self.fail(Errno::ENOTCONN);
        common.condition.moved.wake();
    }
}
