//! Streams to a guest's program, over the channel.
//!
//! ```text
//!   caller ── Ingress ══ pipe in memory ══ carry (a task for each stream) ── frames ──> channel
//!                                            ^── events: what the guest has sent of this stream
//! ```
//!
//! A guest that sends more than it was given room for, or of streams that there are none of, does not keep to the rules, and ends.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use spore_abi::microvm::{CONTENT_BYTES_MAX, Kind, STREAMS_MAX, WINDOW_BYTES};
use tokio::io::{
    AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, DuplexStream, ReadBuf, duplex,
};
use tokio::sync::{Semaphore, mpsc, oneshot};

use crate::frames::Frame;

/// Room between a caller and its stream's task, in bytes.
const PIPE_BYTES: usize = 64 << 10;

/// What a caller has of a stream.
pub(crate) struct Ingress {
    pipe: DuplexStream,
    has_failed: Arc<AtomicBool>,
    /// Dropped with it, which the task sees.
    _held: oneshot::Sender<()>,
}

impl AsyncRead for Ingress {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.remaining();
        ready!(Pin::new(&mut self.pipe).poll_read(context, buffer))?;
        if before > 0 && buffer.remaining() == before && self.has_failed.load(Ordering::SeqCst) {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Ingress {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.pipe).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.pipe).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.pipe).poll_shutdown(context)
    }
}

/// What the guest has sent of a stream.
enum Event {
    Data(Vec<u8>),
    Close,
    Reset,
}

/// A stream, as far as frames of the guest are concerned.
struct Entry {
    events: mpsc::UnboundedSender<Event>,
    /// A permit for each byte that may be sent to the guest.
    credit: Arc<Semaphore>,
    /// Bytes that the guest has sent and was not told of that there is room for more.
    pending: Arc<AtomicUsize>,
    has_failed: Arc<AtomicBool>,
    /// The guest has said that it sends no more.
    is_closed: bool,
}

/// The guest does not keep to the rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Misconduct;

/// All streams of an instance.
pub(crate) struct Streams {
    frames: mpsc::Sender<Frame>,
    entries: Mutex<Vec<Option<Entry>>>,
}

impl Streams {
    /// None yet; what goes to the guest goes to `frames`.
    pub(crate) fn new(frames: mpsc::Sender<Frame>) -> Self {
        Self {
            frames,
            entries: Mutex::default(),
        }
    }

    fn entries(&self) -> MutexGuard<'_, Vec<Option<Entry>>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens a stream; none if there are too many.
    pub(crate) fn open(&self) -> Option<Ingress> {
        let (pipe, far) = duplex(PIPE_BYTES);
        let (held, gone) = oneshot::channel();
        let (events, incoming) = mpsc::unbounded_channel();
        let entry = Entry {
            events,
            credit: Arc::new(Semaphore::new(WINDOW_BYTES)),
            pending: Arc::default(),
            has_failed: Arc::default(),
            is_closed: false,
        };
        let has_failed = Arc::clone(&entry.has_failed);
        let mut carrier = Carrier {
            number: 0,
            frames: self.frames.clone(),
            credit: Arc::clone(&entry.credit),
            pending: Arc::clone(&entry.pending),
            has_failed: Arc::clone(&has_failed),
        };
        let mut entries = self.entries();
        let free = entries.iter().position(Option::is_none).unwrap_or(entries.len());
        carrier.number = u16::try_from(free).ok().filter(|&number| number < STREAMS_MAX)?;
        match entries.get_mut(free) {
            Some(place) => *place = Some(entry),
            None => entries.push(Some(entry)),
        }
        drop(entries);
        tokio::spawn(carrier.run(far, gone, incoming));
        Some(Ingress {
            pipe,
            has_failed,
            _held: held,
        })
    }

    /// Takes a frame of the guest that is about a stream. Returns at once.
    pub(crate) fn take(&self, frame: Frame) -> Result<(), Misconduct> {
        let mut entries = self.entries();
        let place = entries.get_mut(usize::from(frame.stream)).ok_or(Misconduct)?;
        let entry = place.as_mut().ok_or(Misconduct)?;
        // What takes no room could be sent without end, and would be kept.
        let is_free = frame.kind == Kind::Data && frame.content.is_empty();
        let is_end = matches!(frame.kind, Kind::Close | Kind::Reset);
        if is_free || entry.is_closed && (is_end || frame.kind == Kind::Data) {
            return Err(Misconduct);
        }
        entry.is_closed |= is_end;
        // Where the task is gone, nobody reads; the guest is told so.
        match frame.kind {
            Kind::Data => {
                let length = frame.content.len();
                if entry.pending.fetch_add(length, Ordering::SeqCst) + length > WINDOW_BYTES {
                    return Err(Misconduct);
                }
                drop(entry.events.send(Event::Data(frame.content)));
            }
            Kind::Close => drop(entry.events.send(Event::Close)),
            Kind::Reset => drop(entry.events.send(Event::Reset)),
            Kind::Credit => {
                let bytes = frame
                    .content
                    .try_into()
                    .map(u32::from_le_bytes)
                    .map_err(|_| Misconduct)?;
                if bytes as usize > WINDOW_BYTES - entry.credit.available_permits().min(WINDOW_BYTES) {
                    return Err(Misconduct);
                }
                entry.credit.add_permits(bytes as usize);
            }
            Kind::Over => *place = None,
            _ => return Err(Misconduct),
        }
        Ok(())
    }

    /// The instance has ended: all streams fail.
    pub(crate) fn fail(&self) {
        for entry in std::mem::take(&mut *self.entries()).into_iter().flatten() {
            entry.has_failed.store(true, Ordering::SeqCst);
            // The task ends with its events.
            entry.credit.close();
        }
    }
}

/// Moves the bytes of a stream.
struct Carrier {
    number: u16,
    frames: mpsc::Sender<Frame>,
    credit: Arc<Semaphore>,
    pending: Arc<AtomicUsize>,
    has_failed: Arc<AtomicBool>,
}

/// The other side is not there any more.
struct Gone;

impl Carrier {
    async fn send(&self, kind: Kind, content: impl Into<Vec<u8>>) -> Result<(), Gone> {
        let frame = Frame::new(kind, self.number, content);
        self.frames.send(frame).await.map_err(|_| Gone)
    }

    async fn run(
        self,
        far: DuplexStream,
        gone: oneshot::Receiver<()>,
        incoming: mpsc::UnboundedReceiver<Event>,
    ) {
        let (from_caller, to_caller) = tokio::io::split(far);
        if self.send(Kind::Open, []).await.is_err() {
            self.has_failed.store(true, Ordering::SeqCst);
            return;
        }
        let both = async {
            // What has ended on one side may go on on the other.
            tokio::try_join!(self.up(from_caller), self.down(to_caller, incoming))
        };
        tokio::select! {
            _ = both => {}
            // Nothing is ever sent: it ends when the caller has dropped the stream.
            _ = gone => {}
        }
        // Its answer frees the number. Fails only with the instance.
        let _ = self.send(Kind::Reset, []).await;
    }

    /// From the caller to the guest.
    async fn up(&self, mut from: impl AsyncRead + Unpin) -> Result<(), Gone> {
        let mut bytes = vec![0; CONTENT_BYTES_MAX];
        loop {
            let count = from.read(&mut bytes).await.map_err(|_| Gone)?;
            if count == 0 {
                return self.send(Kind::Close, []).await;
            }
            let permits = self.credit.acquire_many(count as u32).await.map_err(|_| Gone)?;
            permits.forget();
            self.send(Kind::Data, &bytes[..count]).await?;
        }
    }

    /// From the guest to the caller.
    async fn down(
        &self,
        mut to: impl AsyncWrite + Unpin,
        mut incoming: mpsc::UnboundedReceiver<Event>,
    ) -> Result<(), Gone> {
        loop {
            match incoming.recv().await {
                Some(Event::Data(bytes)) => {
                    to.write_all(&bytes).await.map_err(|_| Gone)?;
                    self.pending.fetch_sub(bytes.len(), Ordering::SeqCst);
                    self.send(Kind::Credit, (bytes.len() as u32).to_le_bytes())
                        .await?;
                }
                Some(Event::Close) => return to.shutdown().await.map_err(|_| Gone),
                Some(Event::Reset) => {
                    self.has_failed.store(true, Ordering::SeqCst);
                    return Err(Gone);
                }
                // The instance has ended.
                None => return Err(Gone),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn expect(frames: &mut mpsc::Receiver<Frame>, kind: Kind) -> Vec<u8> {
        let frame = frames.recv().await.unwrap();
        assert_eq!((frame.kind, frame.stream), (kind, 0));
        frame.content
    }

    #[tokio::test]
    async fn bytes_go_both_ways_and_the_number_is_used_again() {
        let (sender, mut frames) = mpsc::channel(16);
        let streams = Streams::new(sender);
        let mut stream = streams.open().unwrap();
        expect(&mut frames, Kind::Open).await;
        stream.write_all(b"question").await.unwrap();
        assert_eq!(expect(&mut frames, Kind::Data).await, b"question");
        streams.take(Frame::new(Kind::Data, 0, *b"answer")).unwrap();
        let mut bytes = [0; 6];
        stream.read_exact(&mut bytes).await.unwrap();
        assert_eq!(&bytes, b"answer");
        assert_eq!(expect(&mut frames, Kind::Credit).await, 6_u32.to_le_bytes());
        streams.take(Frame::new(Kind::Close, 0, [])).unwrap();
        assert_eq!(stream.read(&mut bytes).await.unwrap(), 0);
        drop(stream);
        // The end of what the caller sends may be seen before it is seen that the caller is gone.
        loop {
            match frames.recv().await.unwrap().kind {
                Kind::Close => {}
                Kind::Reset => break,
                kind => panic!("{kind:?}"),
            }
        }
        assert!(streams.entries()[0].is_some());
        streams.take(Frame::new(Kind::Over, 0, [])).unwrap();
        let _stream = streams.open().unwrap();
        expect(&mut frames, Kind::Open).await;
    }

    #[tokio::test]
    async fn an_end_that_is_not_meant_is_an_error() {
        let (sender, _frames) = mpsc::channel(16);
        let streams = Streams::new(sender);
        let (mut reset, mut ended) = (streams.open().unwrap(), streams.open().unwrap());
        streams.take(Frame::new(Kind::Data, 0, *b"half")).unwrap();
        streams.take(Frame::new(Kind::Reset, 0, [])).unwrap();
        streams.fail();
        let mut bytes = Vec::new();
        assert!(reset.read_to_end(&mut bytes).await.is_err());
        assert!(ended.read_to_end(&mut bytes).await.is_err());
    }

    #[tokio::test]
    async fn a_guest_ends_a_stream_once_and_sends_nothing_for_free() {
        let (sender, _frames) = mpsc::channel(16);
        let streams = Streams::new(sender);
        let _streams = [streams.open().unwrap(), streams.open().unwrap()];
        assert_eq!(streams.take(Frame::new(Kind::Data, 0, [])), Err(Misconduct));
        for (stream, end) in [(0, Kind::Close), (1, Kind::Reset)] {
            streams.take(Frame::new(end, stream, [])).unwrap();
            for frame in [
                Frame::new(Kind::Data, stream, [0]),
                Frame::new(Kind::Close, stream, []),
                Frame::new(Kind::Reset, stream, []),
            ] {
                assert_eq!(streams.take(frame.clone()), Err(Misconduct), "{frame:?}");
            }
            // The other direction goes on.
            streams
                .take(Frame::new(Kind::Credit, stream, 0_u32.to_le_bytes()))
                .unwrap();
            streams.take(Frame::new(Kind::Over, stream, [])).unwrap();
        }
    }

    #[tokio::test]
    async fn a_guest_that_breaks_the_rules_is_told_from_one_that_does_not() {
        let (sender, _frames) = mpsc::channel(16);
        let streams = Streams::new(sender);
        let _stream = streams.open().unwrap();
        for frame in [
            Frame::new(Kind::Data, 1, []),
            Frame::new(Kind::Data, 7, []),
            Frame::new(Kind::Credit, 0, 1_u32.to_le_bytes()),
            Frame::new(Kind::Credit, 0, []),
            Frame::new(Kind::Open, 0, []),
        ] {
            assert_eq!(streams.take(frame.clone()), Err(Misconduct), "{frame:?}");
        }
        let all = vec![0; WINDOW_BYTES];
        streams.take(Frame::new(Kind::Data, 0, all)).unwrap();
        assert_eq!(streams.take(Frame::new(Kind::Data, 0, [0])), Err(Misconduct));
    }
}
