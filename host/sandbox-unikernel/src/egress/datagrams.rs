//! Datagrams of an instance: each comes with where it goes to, over a stream from the monitor.
//!
//! What goes to the platform's name server is answered here; the rest is judged one by one.

use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::io::Errno;
use spore_monitor::protocol::{DATAGRAM_BYTES_MAX, DATAGRAM_HEADER_BYTES, DatagramHeader};
use tokio::net::{UdpSocket, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use super::dns::{self, Answer};
use super::{Desk, policy};

/// Address of the name server that instances see, and its port.
const NAME_SERVER: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(169, 254, 1, 53)), 53);
/// Questions that are looked up at a time, for each way.
const QUESTIONS_MAX: usize = 16;
/// Places that answers are taken from, for each way; the oldest are forgotten.
const PEERS_MAX: usize = 64;
/// Bytes that wait to be taken by the monitor; what comes when there are more is dropped.
const OUTGOING_BYTES_MAX: usize = 128 << 10;

/// A way for datagrams between an instance and the outside.
pub(super) struct Way {
    desk: Arc<Desk>,
    stream: UnixStream,
    sockets: [Option<UdpSocket>; 2],
    /// Where the instance has sent to.
    peers: VecDeque<SocketAddr>,
    incoming: Vec<u8>,
    outgoing: VecDeque<u8>,
    questions: Arc<Semaphore>,
    answers: (mpsc::Sender<Vec<u8>>, mpsc::Receiver<Vec<u8>>),
    _permit: OwnedSemaphorePermit,
}

/// A header that no monitor of ours passes on.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct DamagedHeader;

/// Takes the first whole datagram from what has come in, if there is one, with where it goes to.
pub(crate) fn take_datagram(incoming: &mut Vec<u8>) -> Result<Option<(SocketAddr, Vec<u8>)>, DamagedHeader> {
    let Some(header) = incoming.first_chunk::<DATAGRAM_HEADER_BYTES>() else {
        return Ok(None);
    };
    let header = DatagramHeader::decode(*header).ok_or(DamagedHeader)?;
    let end = DATAGRAM_HEADER_BYTES + usize::from(header.length);
    let Some(data) = incoming.get(DATAGRAM_HEADER_BYTES..end).map(<[u8]>::to_vec) else {
        return Ok(None);
    };
    incoming.drain(..end);
    let target = SocketAddr::new(policy::address(header.address), header.port);
    Ok(Some((target, data)))
}

/// Receives from a socket, if there is one.
async fn receive(socket: Option<&UdpSocket>, buffer: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
    match socket {
        Some(socket) => socket.recv_from(buffer).await,
        None => std::future::pending().await,
    }
}

impl Way {
    /// A new way, and the monitor's end of it.
    pub(super) fn open(desk: &Arc<Desk>) -> Result<(Self, OwnedFd), Errno> {
        let permit = Arc::clone(&desk.ways)
            .try_acquire_owned()
            .map_err(|_| Errno::NOBUFS)?;
        let (ours, theirs) = UnixStream::pair().map_err(|error| super::errno(&error))?;
        let theirs = theirs.into_std().map_err(|error| super::errno(&error))?;
        let way = Self {
            desk: Arc::clone(desk),
            stream: ours,
            sockets: [None, None],
            peers: VecDeque::new(),
            incoming: Vec::new(),
            outgoing: VecDeque::new(),
            questions: Arc::new(Semaphore::new(QUESTIONS_MAX)),
            answers: mpsc::channel(QUESTIONS_MAX),
            _permit: permit,
        };
        Ok((way, theirs.into()))
    }

    /// Serves it until the monitor closes its end, or says what no monitor of ours says.
    pub(super) async fn serve(mut self) {
        let mut buffers = [0, 1].map(|_| vec![0; usize::from(u16::MAX)]);
        let [v4, v6] = &mut buffers;
        let mut part = vec![0; 16 << 10];
        loop {
            loop {
                match take_datagram(&mut self.incoming) {
                    Ok(Some((target, data))) => self.send(target, data).await,
                    Ok(None) => break,
                    // Nothing that follows can be understood.
                    Err(DamagedHeader) => return,
                }
                // A ring holds thousands of small ones: others want to be served meanwhile.
                tokio::task::yield_now().await;
            }
            let has_outgoing = !self.outgoing.is_empty();
            tokio::select! {
                ready = self.stream.readable() => {
                    if ready.is_err() {
                        return;
                    }
                    match self.stream.try_read(&mut part) {
                        Ok(0) => return,
                        Ok(count) => self.incoming.extend_from_slice(&part[..count]),
                        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                        Err(_) => return,
                    }
                }
                ready = self.stream.writable(), if has_outgoing => {
                    if ready.is_err() {
                        return;
                    }
                    match self.stream.try_write(self.outgoing.make_contiguous()) {
                        Ok(count) => drop(self.outgoing.drain(..count)),
                        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                        Err(_) => return,
                    }
                }
                Some(answer) = self.answers.1.recv() => self.give(NAME_SERVER, &answer),
                // An error here tells of a datagram that did not arrive.
                Ok((length, source)) = receive(self.sockets[0].as_ref(), v4) => {
                    self.take(source, &v4[..length]);
                }
                Ok((length, source)) = receive(self.sockets[1].as_ref(), v6) => {
                    self.take(source, &v6[..length]);
                }
            }
        }
    }

    async fn send(&mut self, target: SocketAddr, data: Vec<u8>) {
        if target == NAME_SERVER {
            self.ask(data);
            return;
        }
        if !self.peers.contains(&target) {
            if !self.desk.allows(target).await {
                self.desk.denied(&format!("a datagram to {target}"));
                self.give_error(target, Errno::ACCESS);
                return;
            }
            self.peers.push_back(target);
            if self.peers.len() > PEERS_MAX {
                self.peers.pop_front();
            }
        }
        let (index, any) = match target {
            SocketAddr::V4(_) => (0, SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0))),
            SocketAddr::V6(_) => (1, SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0))),
        };
        if self.sockets[index].is_none() {
            self.sockets[index] = UdpSocket::bind(any).await.ok();
        }
        let Some(socket) = &self.sockets[index] else {
            self.give_error(target, Errno::NOBUFS);
            return;
        };
        if let Err(error) = socket.send_to(&data, target).await {
            self.give_error(target, super::errno(&error));
        }
    }

    /// Looks the name in a question up; the answer comes through the channel.
    fn ask(&self, packet: Vec<u8>) {
        let Some(query) = dns::parse(&packet) else { return };
        let Ok(permit) = Arc::clone(&self.questions).try_acquire_owned() else {
            return;
        };
        let (desk, answers) = (Arc::clone(&self.desk), self.answers.0.clone());
        tokio::spawn(async move {
            let _permit = permit;
            let reply = if desk.policy().names(&query.name) {
                match desk.look_up(&query.name).await {
                    Ok(addresses) => dns::reply(&packet, query.wanted, Answer::Addresses(&addresses)),
                    Err(error) if error.to_string().contains("not known") => {
                        dns::reply(&packet, query.wanted, Answer::NoSuchName)
                    }
                    Err(_) => dns::reply(&packet, query.wanted, Answer::Failed),
                }
            } else {
                desk.denied(&format!("the name {}", query.name));
                // That it does not exist is the one answer on which no program waits and asks again.
                dns::reply(&packet, query.wanted, Answer::NoSuchName)
            };
            if let Some(reply) = reply {
                // Nobody waits any more if the way is closed.
                let _ = answers.send(reply).await;
            }
        });
    }

    /// A datagram has come in: it is passed on if the instance has sent to its source.
    fn take(&mut self, source: SocketAddr, data: &[u8]) {
        let source = SocketAddr::new(source.ip().to_canonical(), source.port());
        if self.peers.contains(&source) {
            self.give(source, data);
        }
    }

    fn give(&mut self, source: SocketAddr, data: &[u8]) {
        let Some(length) = u16::try_from(data.len())
            .ok()
            .filter(|&length| length <= DATAGRAM_BYTES_MAX)
        else {
            return;
        };
        self.push(source, length, 0, data);
    }

    fn give_error(&mut self, target: SocketAddr, error: Errno) {
        let error = u16::try_from(error.raw_os_error()).unwrap_or(u16::MAX);
        self.push(target, 0, error, &[]);
    }

    fn push(&mut self, peer: SocketAddr, length: u16, error: u16, data: &[u8]) {
        if self.outgoing.len() + DATAGRAM_HEADER_BYTES + data.len() > OUTGOING_BYTES_MAX {
            return;
        }
        let header = DatagramHeader {
            length,
            error,
            port: peer.port(),
            address: policy::bytes(peer.ip()),
        };
        self.outgoing.extend(header.encode());
        self.outgoing.extend(data);
    }
}
