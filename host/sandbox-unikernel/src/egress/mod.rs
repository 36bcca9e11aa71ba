//! Egress: the daemon decides where an instance may connect to, and connects.
//!
//! ```text
//!   monitor ──Connect──> Egress ──policy──> denied: EACCES and a line in the log
//!                          │                allowed: a socket, which goes to the monitor
//!                          └── Datagrams: a socket pair; datagrams.rs sends and receives for the instance
//! ```
//!
//! Everything that comes from a monitor is checked like a stranger's: numbers are bounded, names compared, addresses
//! normalised before they are judged.

pub(crate) mod datagrams;
pub(crate) mod dns;
pub(crate) mod foreground;
pub(crate) mod policy;

use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::io::Errno;
use spore_monitor::protocol::{Connect, ConnectKind, Request};
use spore_sandbox::EgressRule;
use tokio::net::{TcpStream, lookup_host};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;

use policy::Policy;

/// How long a connection may take to come about.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a name may take to be looked up.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(5);
/// How long the addresses of a rule's name are not looked up again for a connection that they do not allow.
const LOOKUP_INTERVAL: Duration = Duration::from_secs(10);
/// Names that are looked up for one connection, at most.
const LOOKUPS_MAX: usize = 16;
/// Connections and ways for datagrams that come about or are served at a time, for each instance.
const TASKS_MAX: usize = 64;
/// The same with those that are only refused: more has no monitor of ours, which waits for the answers.
const REFUSALS_MAX: usize = 4 * TASKS_MAX;
/// Ways for datagrams of one instance.
const DATAGRAM_WAYS_MAX: usize = 48;
/// Lines about denied connections that may come at once, and how long it takes until one more may.
const LINES_BURST: u32 = 10;
const LINE_INTERVAL: Duration = Duration::from_secs(2);

/// Takes a line for the function's log.
pub(crate) type Say = Box<dyn Fn(String) + Send + Sync>;

/// What is decided for one instance.
pub(crate) struct Desk {
    policy: Mutex<Policy>,
    looked_up: Mutex<Option<Instant>>,
    lines: Mutex<Lines>,
    say: Say,
    ways: Arc<Semaphore>,
}

struct Lines {
    left: u32,
    since: Instant,
    unsaid: u64,
}

/// The requests of one instance that are being served. Dropping it ends them.
pub(crate) struct Egress {
    desk: Arc<Desk>,
    tasks: JoinSet<()>,
}

/// Whether a rule lets instances reach loopback addresses of this host.
#[must_use]
pub fn reaches_loopback(rules: &[EgressRule]) -> bool {
    Policy::new(rules.to_vec()).reaches_loopback()
}

impl Egress {
    /// These rules; `say` takes lines for the function's log.
    pub(crate) fn new(rules: Vec<EgressRule>, say: Say) -> Self {
        Self {
            desk: Arc::new(Desk {
                policy: Mutex::new(Policy::new(rules)),
                looked_up: Mutex::new(None),
                lines: Mutex::new(Lines {
                    left: LINES_BURST,
                    since: Instant::now(),
                    unsaid: 0,
                }),
                say,
                ways: Arc::new(Semaphore::new(DATAGRAM_WAYS_MAX)),
            }),
            tasks: JoinSet::new(),
        }
    }

    /// Ends all requests: no answer is on its way any more when this returns.
    pub(crate) async fn end(&mut self) {
        self.tasks.shutdown().await;
    }

    /// Serves a request. `answer` passes the outcome on to the monitor.
    pub(crate) fn serve<F: Future<Output = ()> + Send>(
        &mut self,
        connect: Connect,
        answer: impl FnOnce(Request, Option<OwnedFd>) -> F + Send + 'static,
    ) {
        while self.tasks.try_join_next().is_some() {}
        if self.tasks.len() >= REFUSALS_MAX {
            return;
        }
        let place = connect.place;
        let respond = move |result: Result<OwnedFd, Errno>| match result {
            Ok(socket) => (Request::Connected { place, error: 0 }, Some(socket)),
            Err(error) => {
                let error = u16::try_from(error.raw_os_error()).unwrap_or(u16::MAX);
                (Request::Connected { place, error }, None)
            }
        };
        let desk = Arc::clone(&self.desk);
        let is_crowded = self.tasks.len() >= TASKS_MAX;
        self.tasks.spawn(async move {
            if is_crowded {
                let (request, socket) = respond(Err(Errno::NOBUFS));
                return answer(request, socket).await;
            }
            match connect.kind {
                ConnectKind::Stream => {
                    let target = SocketAddr::new(policy::address(connect.address), connect.port);
                    let (request, socket) = respond(desk.connect(target).await);
                    answer(request, socket).await;
                }
                ConnectKind::Datagrams => match datagrams::Way::open(&desk) {
                    Ok((way, socket)) => {
                        let (request, socket) = respond(Ok(socket));
                        answer(request, socket).await;
                        way.serve().await;
                    }
                    Err(error) => {
                        let (request, socket) = respond(Err(error));
                        answer(request, socket).await;
                    }
                },
            }
        });
    }
}

/// Whether an address is one of this host's: the way to it then starts at it.
fn is_own(address: IpAddr) -> bool {
    let any: SocketAddr = match address {
        IpAddr::V4(_) => ([0; 4], 0).into(),
        IpAddr::V6(_) => ([0_u16; 8], 0).into(),
    };
    // Nothing is sent: it only asks the host for the way.
    let socket = std::net::UdpSocket::bind(any);
    let source = socket.and_then(|socket| {
        socket.connect((address, 9))?;
        socket.local_addr()
    });
    source.is_ok_and(|source| source.ip() == address)
}

/// The error number that an instance gets to see.
fn errno(error: &io::Error) -> Errno {
    match Errno::from_io_error(error) {
        Some(errno) => errno,
        None if error.kind() == io::ErrorKind::TimedOut => Errno::TIMEDOUT,
        None => Errno::HOSTUNREACH,
    }
}

impl Desk {
    fn policy(&self) -> std::sync::MutexGuard<'_, Policy> {
        self.policy.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether an instance may send to this place. Names of rules are looked up if they decide it.
    async fn allows(&self, target: SocketAddr) -> bool {
        let is_own = is_own(target.ip());
        let allows = || self.policy().allows(target.ip(), target.port(), is_own);
        if allows() {
            return true;
        }
        let names = self.policy().names_for(target.port());
        if names.is_empty() || !self.may_look_up() {
            return false;
        }
        for name in names.iter().take(LOOKUPS_MAX) {
            // What cannot be looked up allows nothing.
            let _ = self.look_up(name).await;
        }
        allows()
    }

    fn may_look_up(&self) -> bool {
        let mut last = self.looked_up.lock().unwrap_or_else(PoisonError::into_inner);
        let may = last.is_none_or(|last| last.elapsed() >= LOOKUP_INTERVAL);
        if may {
            *last = Some(Instant::now());
        }
        may
    }

    /// The addresses of a rule's name, which are remembered.
    async fn look_up(&self, name: &str) -> io::Result<Vec<IpAddr>> {
        let found = timeout(LOOKUP_TIMEOUT, lookup_host((name, 0)))
            .await
            .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
        let mut addresses: Vec<IpAddr> = found.map(|found| found.ip().to_canonical()).collect();
        addresses.dedup();
        self.policy().learn(name, &addresses);
        Ok(addresses)
    }

    async fn connect(&self, target: SocketAddr) -> Result<OwnedFd, Errno> {
        if !self.allows(target).await {
            self.denied(&format!("a connection to {target}"));
            // On loopback nobody listens, as far as a program can tell.
            return Err(if target.ip().is_loopback() {
                Errno::CONNREFUSED
            } else {
                Errno::ACCESS
            });
        }
        let stream = match timeout(CONNECT_TIMEOUT, TcpStream::connect(target)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return Err(errno(&error)),
            Err(_) => return Err(Errno::TIMEDOUT),
        };
        // Only packets would be sent later without.
        let _ = stream.set_nodelay(true);
        stream
            .into_std()
            .map(OwnedFd::from)
            .map_err(|error| errno(&error))
    }

    /// Says in the function's log that something was denied, unless that was said too often lately.
    fn denied(&self, what: &str) {
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        let earned = lines.since.elapsed().as_secs() / LINE_INTERVAL.as_secs();
        if earned > 0 {
            lines.left = LINES_BURST.min(
                lines
                    .left
                    .saturating_add(u32::try_from(earned).unwrap_or(LINES_BURST)),
            );
            lines.since = Instant::now();
        }
        if lines.left == 0 {
            lines.unsaid += 1;
            return;
        }
        lines.left -= 1;
        let unsaid = match std::mem::take(&mut lines.unsaid) {
            0 => String::new(),
            count => format!(" ({count} more were denied before)"),
        };
        drop(lines);
        // A name may hold anything.
        let what: String = what
            .chars()
            .map(|c| if c.is_control() { '?' } else { c })
            .collect();
        (self.say)(format!(
            "{what} was denied: no egress rule allows it (--allow-egress){unsaid}"
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::io::Read;
    use std::net::TcpListener;

    use tokio::sync::oneshot;

    fn egress(rules: &str) -> (Egress, Arc<Mutex<Vec<String>>>) {
        let lines = Arc::new(Mutex::new(Vec::new()));
        let taken = Arc::clone(&lines);
        let say = Box::new(move |line| taken.lock().unwrap().push(line));
        (Egress::new(EgressRule::parse_list(rules).unwrap(), say), lines)
    }

    async fn connect(egress: &mut Egress, address: IpAddr, port: u16) -> (Request, Option<OwnedFd>) {
        let (sender, receiver) = oneshot::channel();
        let request = Connect {
            place: 5,
            kind: ConnectKind::Stream,
            address: policy::bytes(address),
            port,
        };
        egress.serve(request, |request, socket| async {
            let _ = sender.send((request, socket));
        });
        receiver.await.unwrap()
    }

    #[tokio::test]
    async fn what_a_rule_names_is_connected_and_nothing_else() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (mut egress, lines) = egress(&format!("127.0.0.1:{}", address.port()));
        let (request, socket) = connect(&mut egress, address.ip(), address.port()).await;
        assert_eq!(request, Request::Connected { place: 5, error: 0 });
        drop(socket.unwrap());
        let (mut peer, _) = listener.accept().unwrap();
        assert_eq!(peer.read(&mut [0; 1]).unwrap(), 0);

        let other = address.port().checked_add(1).unwrap_or(1);
        let (request, socket) = connect(&mut egress, address.ip(), other).await;
        assert!(matches!(request, Request::Connected { error: 111, .. }) && socket.is_none());
        let (request, _) = connect(&mut egress, "192.0.2.1".parse().unwrap(), 80).await;
        assert!(
            matches!(request, Request::Connected { error: 13, .. }),
            "{request:?}"
        );
        {
            let lines = lines.lock().unwrap();
            assert_eq!(lines.len(), 2);
            assert!(lines[1].contains("192.0.2.1:80"), "{lines:?}");
        }

        drop(listener);
        let (request, _) = connect(&mut egress, address.ip(), address.port()).await;
        assert!(
            matches!(request, Request::Connected { error: 111, .. }),
            "{request:?}"
        );
    }

    #[tokio::test]
    async fn a_monitor_that_hears_no_answer_is_not_answered_for_ever() {
        let (mut egress, _) = egress("");
        let request = Connect {
            place: 5,
            kind: ConnectKind::Stream,
            address: [1; 16],
            port: 80,
        };
        for _ in 0..10_000 {
            egress.serve(request, |_, _| std::future::pending());
        }
        assert_eq!(egress.tasks.len(), REFUSALS_MAX);
    }

    #[tokio::test]
    async fn lines_about_denied_connections_are_bounded() {
        let (mut egress, lines) = egress("");
        for _ in 0..50 {
            connect(&mut egress, "192.0.2.1".parse().unwrap(), 80).await;
        }
        assert!(lines.lock().unwrap().len() <= LINES_BURST as usize + 1);
    }

    #[test]
    fn what_was_denied_is_told_in_one_line() {
        let (egress, lines) = egress("");
        egress.desk.denied("the name a\nb\x1b[2J");
        let lines = lines.lock().unwrap();
        assert!(lines[0].starts_with("the name a?b?[2J was denied"), "{lines:?}");
    }

    #[test]
    fn loopback_is_the_hosts_own() {
        assert!(is_own("127.0.0.1".parse().unwrap()));
        assert!(!is_own("192.0.2.1".parse().unwrap()));
    }
}
