//! Requests that turn their connection into something else, such as a WebSocket (RFC 9110, 7.8; RFC 8441).
//!
//! ```text
//!   client                       gateway                          instance
//!     GET, Upgrade: P  ────────────> GET, Upgrade: P ───────────────> program
//!     (HTTP/2: CONNECT, :protocol P)
//!     101 (HTTP/2: 200) <─────────── 101 <─────────────────────────── program
//!     bytes <══════════════════════ Tunnel ══════════════════════════> bytes
//! ```
//!
//! The tunnel is the rest of the invocation: its instance serves nobody else. It ends when both sides have ended; when one
//! has, and the other says nothing for [`HALF_CLOSED_TIMEOUT`]; or when neither says anything for the function's time limit
//! for idle connections.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::{Buf as _, Bytes, BytesMut};
use http::header::{
    CONNECTION, HeaderMap, HeaderName, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, UPGRADE,
};
use http::{Method, Request, StatusCode, Version};
use hyper::ext::Protocol;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use spore_sandbox::StopReason;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};
use uuid::Uuid;

use crate::connection::{Counted, FunctionLease};

/// How long the other side may say nothing once one has ended.
const HALF_CLOSED_TIMEOUT: Duration = Duration::from_secs(10);
/// Most bytes that are read at once.
const PIECE_BYTES_MAX: usize = 16 << 10;

/// What a request asks its connection to become.
#[derive(Clone)]
pub(crate) struct Asked {
    protocol: HeaderValue,
    client: OnUpgrade,
    /// By a stream of HTTP/2.
    is_stream: bool,
}

impl Asked {
    /// What this request asks for; none if that is nothing, or nothing that is passed on: other versions of HTTP are spoken
    /// by the gateway itself or not at all.
    pub(crate) fn take<B>(request: &mut Request<B>) -> Option<Self> {
        let is_stream = request.version() == Version::HTTP_2 && request.method() == Method::CONNECT;
        let protocol = if is_stream {
            let protocol = request.extensions_mut().remove::<Protocol>()?;
            let mut names = protocol.as_str().split(',').map(str::trim);
            if !names.all(is_passed_on) {
                return None;
            }
            HeaderValue::from_str(protocol.as_str()).ok()?
        } else {
            of_headers(request.version(), request.headers())?.clone()
        };
        let client = request.extensions_mut().remove::<OnUpgrade>()?;
        Some(Self {
            protocol,
            client,
            is_stream,
        })
    }

    /// Asks for the same in the request to the function.
    pub(crate) fn put<B>(self, request: &mut Request<B>) {
        let headers = request.headers_mut();
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(UPGRADE, self.protocol.clone());
        if self.is_stream {
            // HTTP/2 needs none of this; a function that speaks HTTP/1.1 does.
            let key = STANDARD.encode(Uuid::new_v4().as_bytes());
            if let Ok(key) = HeaderValue::from_str(&key) {
                headers.insert(SEC_WEBSOCKET_KEY, key);
            }
            *request.method_mut() = Method::GET;
        }
        request.extensions_mut().insert(self);
    }

    /// Takes it back out of a request to a function that is no server.
    pub(crate) fn forget<B>(request: &mut Request<B>) {
        if request.extensions_mut().remove::<Self>().is_some() {
            for name in [CONNECTION, UPGRADE] {
                request.headers_mut().remove(name);
            }
        }
    }

    /// Whether it is a stream of HTTP/2 that is asked for.
    pub(crate) fn is_stream(&self) -> bool {
        self.is_stream
    }

    /// Makes the head of the function's answer that of the client's.
    pub(crate) fn answer(&self, protocol: Option<HeaderValue>, parts: &mut http::response::Parts) {
        if self.is_stream {
            parts.status = StatusCode::OK;
            parts.headers.remove(SEC_WEBSOCKET_ACCEPT);
            return;
        }
        parts
            .headers
            .insert(CONNECTION, HeaderValue::from_static("upgrade"));
        let protocol = protocol.unwrap_or_else(|| self.protocol.clone());
        parts.headers.insert(UPGRADE, protocol);
    }
}

/// The protocol that the headers of a request ask for.
fn of_headers(version: Version, headers: &HeaderMap) -> Option<&HeaderValue> {
    let mut protocols = headers.get_all(UPGRADE).iter();
    let protocol = protocols.next().filter(|_| version == Version::HTTP_11)?;
    let is_one = protocols.next().is_none();
    let mut names = protocol.to_str().ok()?.split(',').map(str::trim);
    is_one
        .then_some(protocol)
        .filter(|_| lists(headers, &CONNECTION, "upgrade") && names.all(is_passed_on))
}

fn is_passed_on(protocol: &str) -> bool {
    let name = protocol.split('/').next().unwrap_or_default();
    !name.is_empty()
        && !["h2c", "h2", "http", "tls"]
            .iter()
            .any(|other| name.eq_ignore_ascii_case(other))
}

/// Whether the values of a header, which are lists, hold this word.
pub(crate) fn lists(headers: &HeaderMap, name: &HeaderName, word: &str) -> bool {
    let values = headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok());
    let mut words = values.flat_map(|value| value.split(','));
    words.any(|other| other.trim().eq_ignore_ascii_case(word))
}

/// An upgraded connection between a client and an instance.
pub(crate) struct Tunnel {
    pub(crate) asked: Asked,
    /// With what was read of it already.
    pub(crate) function: (Counted, Bytes),
    pub(crate) lease: FunctionLease,
    pub(crate) idle_timeout: Duration,
}

/// Why a tunnel has ended before its time.
enum TunnelError {
    Client,
    Function,
    Idle,
}

impl Tunnel {
    /// Passes bytes on until the end.
    pub(crate) async fn run(self) {
        let Ok(client) = self.asked.client.await else {
            // The client has gone before it could read the answer.
            return self.lease.discard(StopReason::CallerGone);
        };
        let (stream, first) = self.function;
        let mut passing = Passing {
            client: TokioIo::new(client),
            function: stream,
            upstream: Direction::new(Bytes::new()),
            downstream: Direction::new(first),
            last_byte: Instant::now(),
            idle_timeout: self.idle_timeout,
            waiting: Box::pin(tokio::time::sleep(self.idle_timeout)),
        };
        let ended = std::future::poll_fn(|context| passing.poll(context)).await;
        drop(passing);
        match ended {
            Ok(()) => self.lease.finish(None),
            Err(TunnelError::Client) => self.lease.discard(StopReason::CallerGone),
            Err(TunnelError::Function | TunnelError::Idle) => self.lease.discard(StopReason::NotNeeded),
        }
    }
}

/// A tunnel that is open.
struct Passing {
    client: TokioIo<Upgraded>,
    function: Counted,
    upstream: Direction,
    downstream: Direction,
    last_byte: Instant,
    idle_timeout: Duration,
    waiting: Pin<Box<Sleep>>,
}

impl Passing {
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Result<(), TunnelError>> {
        let before = (self.upstream.progress, self.downstream.progress);
        let (client, function) = (&mut self.client, &mut self.function);
        let up = self.upstream.poll(context, client, function);
        let down = self.downstream.poll(context, function, client);
        match (up, down) {
            (Poll::Ready(Ok(())), Poll::Ready(Ok(()))) => return Poll::Ready(Ok(())),
            (Poll::Ready(Err(End::Reader)), _) | (_, Poll::Ready(Err(End::Writer))) => {
                return Poll::Ready(Err(TunnelError::Client));
            }
            (Poll::Ready(Err(End::Writer)), _) | (_, Poll::Ready(Err(End::Reader))) => {
                return Poll::Ready(Err(TunnelError::Function));
            }
            (Poll::Pending, _) | (_, Poll::Pending) => {}
        }
        if before != (self.upstream.progress, self.downstream.progress) {
            self.last_byte = Instant::now();
        }
        self.poll_idle(context)
    }

    fn poll_idle(&mut self, context: &mut Context<'_>) -> Poll<Result<(), TunnelError>> {
        loop {
            let is_half_closed = self.upstream.is_read || self.downstream.is_read;
            let timeout = match is_half_closed {
                true => self.idle_timeout.min(HALF_CLOSED_TIMEOUT),
                false => self.idle_timeout,
            };
            let Some(deadline) = self.last_byte.checked_add(timeout) else {
                return Poll::Pending;
            };
            // A timer that rings too early is set again then, one that would ring too late now.
            if deadline < self.waiting.deadline() {
                self.waiting.as_mut().reset(deadline);
            }
            ready!(self.waiting.as_mut().poll(context));
            if deadline <= Instant::now() {
                return Poll::Ready(Err(TunnelError::Idle));
            }
            self.waiting.as_mut().reset(deadline);
        }
    }
}

/// Which end of a direction has failed.
enum End {
    Reader,
    Writer,
}

/// Bytes on their way from one side to the other. Nothing is allocated while there are none.
struct Direction {
    unsent: BytesMut,
    /// The reader's side has ended.
    is_read: bool,
    /// Moves with each byte, and with each side's end.
    progress: u64,
    is_over: bool,
}

impl Direction {
    fn new(first: Bytes) -> Self {
        Self {
            unsent: BytesMut::from(first),
            is_read: false,
            progress: 0,
            is_over: false,
        }
    }

    /// Moves bytes as far as possible without waiting; ready when the end of the one side was passed on to the other.
    fn poll(
        &mut self,
        context: &mut Context<'_>,
        from: &mut (impl AsyncRead + Unpin),
        to: &mut (impl AsyncWrite + Unpin),
    ) -> Poll<Result<(), End>> {
        while !self.is_over {
            if !self.unsent.is_empty() {
                let written = ready!(Pin::new(&mut *to).poll_write(context, &self.unsent));
                let written = written.and_then(|count| match count {
                    0 => Err(io::ErrorKind::WriteZero.into()),
                    count => Ok(count),
                });
                self.unsent.advance(written.map_err(|_| End::Writer)?);
                self.progress += 1;
            } else if self.is_read {
                ready!(Pin::new(&mut *to).poll_shutdown(context)).map_err(|_| End::Writer)?;
                self.is_over = true;
            } else {
                self.unsent = BytesMut::new();
                let Poll::Ready(read) = self.read(context, from) else {
                    ready!(Pin::new(&mut *to).poll_flush(context)).map_err(|_| End::Writer)?;
                    return Poll::Pending;
                };
                read.map_err(|_| End::Reader)?;
                self.progress += 1;
            }
        }
        Poll::Ready(Ok(()))
    }

    fn read(
        &mut self,
        context: &mut Context<'_>,
        from: &mut (impl AsyncRead + Unpin),
    ) -> Poll<io::Result<()>> {
        let mut piece = [std::mem::MaybeUninit::uninit(); PIECE_BYTES_MAX];
        let mut piece = ReadBuf::uninit(&mut piece);
        ready!(Pin::new(from).poll_read(context, &mut piece))?;
        self.is_read = piece.filled().is_empty();
        self.unsent.extend_from_slice(piece.filled());
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asks(version: Version, pairs: &[(&'static str, &'static str)]) -> bool {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, HeaderValue::from_static(value));
        }
        of_headers(version, &headers).is_some()
    }

    #[test]
    fn only_whole_requests_for_foreign_protocols_are_passed_on() {
        let connection = ("connection", "keep-alive, Upgrade");
        for protocol in ["websocket", "WebSocket", "echo/1", "tcp, echo"] {
            assert!(
                asks(Version::HTTP_11, &[connection, ("upgrade", protocol)]),
                "{protocol}"
            );
        }
        for protocol in ["h2c", "HTTP/2.0", "TLS/1.0", "websocket, h2c", "", ","] {
            assert!(
                !asks(Version::HTTP_11, &[connection, ("upgrade", protocol)]),
                "{protocol}"
            );
        }
        let websocket = ("upgrade", "websocket");
        assert!(!asks(Version::HTTP_10, &[connection, websocket]));
        assert!(!asks(Version::HTTP_11, &[websocket]), "not for this connection");
        assert!(!asks(Version::HTTP_11, &[connection]));
        assert!(
            !asks(Version::HTTP_11, &[connection, websocket, websocket]),
            "two of them"
        );
    }
}
