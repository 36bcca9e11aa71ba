//! TCP/IP to a guest, in the daemon: streams to its ports, over the cable to its network card.
//!
//! ```text
//!   caller ── Stream ── socket ─┐
//!   caller ── Stream ── socket ─┴─ interface (smoltcp) ── drive (a task) ── frames ──> QEMU ──> network card ──> guest
//! ```
//!
//! The guest reaches nobody by it: there is no socket that listens, and nothing that passes packets on.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::phy::{self, Device, DeviceCapabilities, Medium};
use smoltcp::socket::tcp;
use smoltcp::time::Instant;
use smoltcp::wire::{HardwareAddress, IpCidr, Ipv4Cidr};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::net::UnixStream;
use tokio::sync::Notify;

use super::command_line::Addresses;
use super::link::{self, Decoder, NoFrame, PACKET_BYTES_MAX, Taken};

/// Streams that may be open at a time.
const STREAMS_MAX: usize = 256;
/// Room of a stream in each direction, in bytes.
const ROOM_BYTES: usize = 64 << 10;
/// Packets that may wait until QEMU takes them, and bytes of their frames.
const PACKETS_MAX: usize = 64;
const OUT_BYTES_MAX: usize = 256 << 10;
const READ_BYTES: usize = 64 << 10;
/// The first of the ports that streams come from.
const FIRST_PORT: u16 = 49_152;

/// Packets on their way.
#[derive(Default)]
struct Packets {
    incoming: VecDeque<Vec<u8>>,
    outgoing: VecDeque<Vec<u8>>,
}

struct Incoming(Vec<u8>);

impl phy::RxToken for Incoming {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, take: F) -> R {
        take(&self.0)
    }
}

struct Outgoing<'a>(&'a mut VecDeque<Vec<u8>>);

impl phy::TxToken for Outgoing<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, length: usize, write: F) -> R {
        let mut packet = vec![0; length];
        let written = write(&mut packet);
        self.0.push_back(packet);
        written
    }
}

impl Device for Packets {
    type RxToken<'a> = Incoming;
    type TxToken<'a> = Outgoing<'a>;

    fn receive(&mut self, _: Instant) -> Option<(Incoming, Outgoing<'_>)> {
        let packet = self.incoming.pop_front()?;
        Some((Incoming(packet), Outgoing(&mut self.outgoing)))
    }

    fn transmit(&mut self, _: Instant) -> Option<Outgoing<'_>> {
        (self.outgoing.len() < PACKETS_MAX).then_some(Outgoing(&mut self.outgoing))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ip;
        capabilities.max_transmission_unit = PACKET_BYTES_MAX;
        capabilities
    }
}

struct Stack {
    interface: Interface,
    sockets: SocketSet<'static>,
    packets: Packets,
    /// Sockets that nobody has any more.
    dropped: Vec<SocketHandle>,
    open: usize,
    port: u16,
    is_over: bool,
}

struct Shared {
    stack: Mutex<Stack>,
    /// A stream has something to send, or has room again.
    changed: Notify,
    addresses: Addresses,
    begun: std::time::Instant,
}

/// The daemon's end of the cable.
#[derive(Clone)]
pub(crate) struct Network(Arc<Shared>);

impl Network {
    /// With our address on it.
    pub(crate) fn new(addresses: Addresses) -> Self {
        let mut packets = Packets::default();
        let mut configuration = Config::new(HardwareAddress::Ip);
        // Numbers of packets and sequences need not be secret to the guest, which sees them all.
        configuration.random_seed = u64::from(std::process::id());
        let mut interface = Interface::new(configuration, &mut packets, Instant::ZERO);
        let own = Ipv4Cidr::new(addresses.gateway, addresses.prefix);
        interface.update_ip_addrs(|list| {
            // There is room for one.
            let _ = list.push(IpCidr::Ipv4(own));
        });
        Self(Arc::new(Shared {
            stack: Mutex::new(Stack {
                interface,
                sockets: SocketSet::new(Vec::new()),
                packets,
                dropped: Vec::new(),
                open: 0,
                port: FIRST_PORT,
                is_over: false,
            }),
            changed: Notify::new(),
            addresses,
            begun: std::time::Instant::now(),
        }))
    }

    /// Connects to a port of the guest.
    pub(crate) async fn connect(&self, port: u16) -> io::Result<Stream> {
        let stream = self.open(port)?;
        std::future::poll_fn(|context| stream.poll_connected(context)).await?;
        Ok(stream)
    }

    pub(crate) fn open(&self, port: u16) -> io::Result<Stream> {
        let mut stack = self.0.stack();
        if stack.is_over {
            return Err(io::ErrorKind::NotConnected.into());
        }
        if stack.open >= STREAMS_MAX {
            return Err(io::Error::other("too many streams are open to the instance"));
        }
        let room = || tcp::SocketBuffer::new(vec![0; ROOM_BYTES]);
        let mut socket = tcp::Socket::new(room(), room());
        // What is written goes at once, and what has arrived is acknowledged at once.
        socket.set_nagle_enabled(false);
        socket.set_ack_delay(None);
        let from = stack.port;
        stack.port = from.checked_add(1).unwrap_or(FIRST_PORT);
        let to = (self.0.addresses.guest, port);
        let connected = socket.connect(stack.interface.context(), to, from);
        connected.map_err(|error| io::Error::other(error.to_string()))?;
        let handle = stack.sockets.add(socket);
        stack.open += 1;
        drop(stack);
        self.0.changed.notify_one();
        Ok(Stream {
            shared: Arc::clone(&self.0),
            handle,
        })
    }

    /// Carries frames until the other end of the cable is gone, or does not keep to its rules. All streams fail then.
    pub(crate) async fn drive(&self, cable: UnixStream) -> Result<(), NoFrame> {
        let carried = self.carry(cable).await;
        let mut stack = self.0.stack();
        stack.is_over = true;
        for (_, socket) in stack.sockets.iter_mut() {
            let smoltcp::socket::Socket::Tcp(socket) = socket;
            socket.abort();
        }
        carried
    }

    async fn carry(&self, mut cable: UnixStream) -> Result<(), NoFrame> {
        let (mut from, mut to) = cable.split();
        let (mut decoder, mut bytes, mut out) = (Decoder::default(), vec![0; READ_BYTES], Vec::new());
        loop {
            let delay = self.turn(&mut out);
            tokio::select! {
                count = from.read(&mut bytes) => {
                    let Ok(count @ 1..) = count else {
                        return Ok(());
                    };
                    decoder.push(&bytes[..count]);
                    self.take(&mut decoder, &mut out)?;
                }
                count = to.write(&out), if !out.is_empty() => {
                    let Ok(count @ 1..) = count else {
                        return Ok(());
                    };
                    out.drain(..count);
                }
                () = self.0.changed.notified() => {}
                () = tokio::time::sleep(delay.unwrap_or_default()), if delay.is_some() => {}
            }
        }
    }

    /// Takes what the guest has sent.
    pub(crate) fn take(&self, decoder: &mut Decoder, out: &mut Vec<u8>) -> Result<(), NoFrame> {
        let mut stack = self.0.stack();
        while let Some(frame) = decoder.next()? {
            match link::take(frame) {
                Taken::Packet(packet) => stack.packets.incoming.push_back(packet),
                Taken::Answer(answer) if out.len() < OUT_BYTES_MAX => link::push(&answer, out),
                Taken::Answer(_) | Taken::Nothing => {}
            }
        }
        Ok(())
    }

    /// Lets all happen that is due; how long nothing is.
    pub(crate) fn turn(&self, out: &mut Vec<u8>) -> Option<Duration> {
        let mut guard = self.0.stack();
        let stack = &mut *guard;
        let elapsed_us = self.0.begun.elapsed().as_micros();
        let now = Instant::from_micros(i64::try_from(elapsed_us).unwrap_or(i64::MAX));
        stack.interface.poll(now, &mut stack.packets, &mut stack.sockets);
        while out.len() < OUT_BYTES_MAX
            && let Some(packet) = stack.packets.outgoing.pop_front()
        {
            link::push(&link::frame(&packet), out);
        }
        // They have said that they end.
        for handle in stack.dropped.drain(..) {
            stack.sockets.remove(handle);
            stack.open -= 1;
        }
        if !stack.packets.outgoing.is_empty() {
            // QEMU takes what there is first.
            return None;
        }
        let delay = stack.interface.poll_delay(now, &stack.sockets);
        delay.map(Duration::from)
    }
}

impl Shared {
    fn stack(&self) -> MutexGuard<'_, Stack> {
        self.stack.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A stream to a port of the guest. What the guest has to be told when it is dropped, it is told.
pub(crate) struct Stream {
    shared: Arc<Shared>,
    handle: SocketHandle,
}

impl Stream {
    fn with<R>(&self, work: impl FnOnce(&mut tcp::Socket<'static>) -> R) -> R {
        work(self.shared.stack().sockets.get_mut(self.handle))
    }

    fn poll_connected(&self, context: &Context<'_>) -> Poll<io::Result<()>> {
        self.with(|socket| match socket.state() {
            tcp::State::Established | tcp::State::CloseWait => Poll::Ready(Ok(())),
            tcp::State::SynSent => {
                socket.register_send_waker(context.waker());
                Poll::Pending
            }
            _ => Poll::Ready(Err(io::ErrorKind::ConnectionRefused.into())),
        })
    }

    /// Whether the guest may still want to hear of it.
    pub(crate) fn is_open(&self) -> bool {
        self.with(|socket| socket.state() == tcp::State::Established)
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read: Poll<io::Result<bool>> = self.with(|socket| {
            let taken = socket.recv(|bytes| {
                let count = bytes.len().min(buffer.remaining());
                buffer.put_slice(&bytes[..count]);
                (count, count)
            });
            match taken {
                Ok(0) if buffer.remaining() > 0 => {
                    socket.register_recv_waker(context.waker());
                    Poll::Pending
                }
                Ok(_) => Poll::Ready(Ok(true)),
                Err(tcp::RecvError::Finished) => Poll::Ready(Ok(false)),
                Err(tcp::RecvError::InvalidState) => Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
            }
        });
        read.map(|read| {
            // There is room for more.
            if read? {
                self.shared.changed.notify_one();
            }
            Ok(())
        })
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = self.with(|socket| match socket.send_slice(bytes) {
            Ok(0) if !bytes.is_empty() => {
                socket.register_send_waker(context.waker());
                Poll::Pending
            }
            Ok(count) => Poll::Ready(Ok(count)),
            Err(tcp::SendError::InvalidState) => Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
        });
        if written.is_ready() {
            self.shared.changed.notify_one();
        }
        written
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.with(tcp::Socket::close);
        self.shared.changed.notify_one();
        Poll::Ready(Ok(()))
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        let mut stack = self.shared.stack();
        stack.sockets.get_mut::<tcp::Socket<'_>>(self.handle).abort();
        stack.dropped.push(self.handle);
        drop(stack);
        self.shared.changed.notify_one();
    }
}
