//! One connection of a client, from its first byte to its last.
//!
//! ```text
//!  plain ──first bytes──> HTTP/1.1, or HTTP/2 if they are its preface
//!  TLS ──handshake──> the protocol that it agreed on
//!
//!  HTTP/1.1: requests ──last answer──> closed
//!                 │ └─ it came before the request's end ──> lingering ──client ends, or a bound──> closed
//!                 └─ it switched protocols ──> tunnel
//! ```
//!
//! A connection that is closed while bytes have come that nobody has read is reset by the kernel, and a reset takes away from
//! the client what it has not read yet: the very answer that says why. So after an answer to half a request the gateway's own
//! side alone is closed, and what the client still sends is read and dropped for a while.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::header::{HOST, HeaderValue};
use http::{Request, StatusCode};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::graceful::Watcher;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::client_body::{BodyDue, ClientBody};
use crate::reply;
use crate::routes::Gateway;
use crate::upgrade::Tunnel;

/// The same for a client whose request is refused in any case.
const REFUSED_HEAD_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a TLS handshake may take.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the other side of a silent HTTP/2 connection may take to show that it is there.
const PING_TIMEOUT: Duration = Duration::from_secs(20);
/// How long a client that has its answer already may go on sending the request, in all.
const LINGER_TIMEOUT: Duration = Duration::from_secs(30);
/// How long it may say nothing meanwhile.
const LINGER_SILENCE_TIMEOUT: Duration = Duration::from_secs(5);
/// How much it may send, in bytes. Those who do not look for an answer before they have sent all get none to a longer body.
const LINGER_BYTES_MAX: u64 = 256 << 20;
/// How much of that is read at once.
const LINGER_PIECE_BYTES: usize = 32 << 10;
/// Most requests that one HTTP/2 connection has at a time.
const STREAMS_MAX: u32 = 250;
/// What an HTTP/2 connection begins with (RFC 9113, 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// So many bytes of it no request of HTTP/1.1 begins with.
const PREFACE_BYTES_MIN: usize = 4;

/// What a client may take its time for, and how much it may send.
pub(crate) struct Bounds {
    /// Longest head of a request, in bytes.
    pub(crate) head_bytes_max: u32,
    /// How long it may take; bounds idle connections too.
    pub(crate) head_timeout: Duration,
    /// How long a body may stand still.
    pub(crate) body_timeout: Duration,
}

/// Serves a connection until its end, or the daemon's.
pub(crate) async fn serve(stream: TcpStream, peer: SocketAddr, gateway: Arc<Gateway>, watcher: Watcher) {
    let mut stopping = gateway.stopping.clone();
    let begun = async {
        match &gateway.tls {
            None => plain(stream, gateway.bounds.head_timeout).await.map(Begun::Plain),
            Some(tls) => {
                let handshake = tls.acceptor().accept(stream);
                let stream = tokio::time::timeout(HANDSHAKE_TIMEOUT, handshake).await??;
                let is_http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
                Ok(Begun::Tls(Box::new(stream), is_http2))
            }
        }
    };
    let begun = tokio::select! {
        begun = begun => begun,
        // Nothing was asked for yet.
        _ = stopping.wait_for(|stopping| *stopping) => return,
    };
    match begun {
        Ok(Begun::Plain((stream, false))) => serve_http1(stream, peer, gateway, watcher).await,
        Ok(Begun::Plain((stream, true))) => serve_http2(stream, peer, gateway, watcher).await,
        Ok(Begun::Tls(stream, false)) => serve_http1(stream, peer, gateway, watcher).await,
        Ok(Begun::Tls(stream, true)) => serve_http2(stream, peer, gateway, watcher).await,
        // The client's doing: it went away, sent nothing, or speaks something else.
        Err(error) => tracing::debug!(%peer, %error, "a connection broke before its first request"),
    }
}

/// A connection whose protocol is known; with whether that is HTTP/2.
enum Begun {
    Plain((TcpStream, bool)),
    Tls(Box<tokio_rustls::server::TlsStream<TcpStream>>, bool),
}

/// Looks at the first bytes without taking them.
async fn plain(stream: TcpStream, timeout: Duration) -> io::Result<(TcpStream, bool)> {
    let mut first = [0; PREFACE.len()];
    let length = tokio::time::timeout(timeout, stream.peek(&mut first)).await??;
    let is_http2 = length >= PREFACE_BYTES_MIN && PREFACE.starts_with(&first[..length]);
    Ok((stream, is_http2))
}

/// Answers one request that there are too many connections.
pub(crate) async fn refuse(stream: TcpStream, max_connections: usize) {
    let body_due = BodyDue::default();
    let due = body_due.clone();
    let service = service_fn(move |request: Request<Incoming>| {
        due.note(request.body());
        async move {
            let line = format!(
                "{max_connections} connections are open, which is all that the daemon's limit of open files allows: \
                 close some, try again later, or raise it (ulimit -n, LimitNOFILE)"
            );
            let answer = reply::retry_soon(reply::text(StatusCode::SERVICE_UNAVAILABLE, &line));
            Ok::<_, Infallible>(answer)
        }
    });
    let mut connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .keep_alive(false)
        .header_read_timeout(REFUSED_HEAD_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service);
    // An error is the client's doing: it sent no request, or went away.
    if (&mut connection).await.is_ok() && body_due.is_due() {
        linger(connection.into_parts().io.into_inner(), REFUSED_HEAD_TIMEOUT).await;
    }
}

/// Reads and drops what a client sends whose answer was sent and whose connection is closed on this side, until it closes its
/// own or has come to a bound.
async fn linger<S: AsyncRead + Unpin>(mut stream: S, timeout: Duration) {
    let deadline = Instant::now() + timeout;
    let mut piece = vec![0; LINGER_PIECE_BYTES];
    let mut left_bytes = LINGER_BYTES_MAX;
    while left_bytes > 0 {
        let until = deadline.min(Instant::now() + LINGER_SILENCE_TIMEOUT);
        match tokio::time::timeout_at(until, stream.read(&mut piece)).await {
            Ok(Ok(count @ 1..)) => left_bytes = left_bytes.saturating_sub(count as u64),
            _ => return,
        }
    }
}

pub(crate) async fn serve_http1<S>(stream: S, peer: SocketAddr, gateway: Arc<Gateway>, watcher: Watcher)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (head_bytes_max, head_timeout) = (
        gateway.bounds.head_bytes_max as usize,
        gateway.bounds.head_timeout,
    );
    let mut stopping = gateway.stopping.clone();
    // What the connection becomes after its last answer, if that says so.
    let upgrade: Arc<Mutex<Option<Box<Tunnel>>>> = Arc::default();
    let tunnel = upgrade.clone();
    let body_due = BodyDue::default();
    let due = body_due.clone();
    let service = service_fn(move |request: Request<Incoming>| {
        let (gateway, upgrade) = (gateway.clone(), upgrade.clone());
        let body_timeout = gateway.bounds.body_timeout;
        let request = request.map(|body| ClientBody::new(body, body_timeout).tell(&due));
        async move {
            let mut answer = gateway.answer(request, peer).await;
            if let Some(tunnel) = answer.body_mut().take_tunnel() {
                *upgrade.lock().unwrap_or_else(PoisonError::into_inner) = Some(tunnel);
            }
            Ok::<_, Infallible>(answer)
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(head_timeout)
        .max_header_size(head_bytes_max)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = Box::new(connection.with_upgrades());
    let stopped = async { drop(stopping.wait_for(|stopping| *stopping).await) };
    let ended = tokio::select! {
        result = &mut *connection => Some(result),
        () = stopped => None,
    };
    let result = match ended {
        Some(result) => result,
        None => {
            Pin::new(&mut *connection).graceful_shutdown();
            (&mut *connection).await
        }
    };
    // The answer was sent whole, and the request has not come so. Whoever's answer broke off is told so by the reset.
    let was_answered = result
        .as_ref()
        .map_or_else(hyper::Error::is_parse, |()| body_due.is_due());
    // If it broke, it still holds the other end of what the tunnel waits for.
    let parts = connection.into_parts();
    if let Some(parts) = parts.filter(|_| was_answered) {
        linger(parts.io.into_inner(), LINGER_TIMEOUT).await;
    }
    // The daemon waits for those who are watched before it stops; a tunnel has no end of its own.
    drop(watcher);
    told(peer, result);
    let tunnel = tunnel.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some(tunnel) = tunnel {
        tunnel.run().await;
    }
}

async fn serve_http2<S>(stream: S, peer: SocketAddr, gateway: Arc<Gateway>, watcher: Watcher)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (head_bytes_max, head_timeout) = (gateway.bounds.head_bytes_max, gateway.bounds.head_timeout);
    let service = service_fn(move |request| {
        let gateway = gateway.clone();
        async move {
            let request = with_host(request).map(|body| ClientBody::new(body, gateway.bounds.body_timeout));
            let mut answer = gateway.answer(request, peer).await;
            if let Some(tunnel) = answer.body_mut().take_tunnel() {
                // It lasts no longer than the connection whose stream it is, and that has no end as long as it lasts.
                let mut stopping = gateway.stopping.clone();
                tokio::spawn(async move {
                    tokio::select! {
                        () = tunnel.run() => {}
                        _ = stopping.wait_for(|stopping| *stopping) => {}
                    }
                });
            }
            Ok::<_, Infallible>(answer)
        }
    });
    let connection = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS_MAX)
        .max_header_list_size(head_bytes_max)
        .enable_connect_protocol()
        .keep_alive_interval(head_timeout)
        .keep_alive_timeout(PING_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service);
    told(peer, watcher.watch(connection).await);
}

/// The request with the header that HTTP/2 has put into its target.
fn with_host(mut request: Request<Incoming>) -> Request<Incoming> {
    if !request.headers().contains_key(HOST)
        && let Some(authority) = request.uri().authority()
        && let Ok(host) = HeaderValue::from_str(authority.as_str())
    {
        request.headers_mut().insert(HOST, host);
    }
    request
}

fn told(peer: SocketAddr, result: hyper::Result<()>) {
    if let Err(error) = result {
        // The client's doing, or a function's whose answer broke off.
        tracing::debug!(%peer, error = &error as &dyn std::error::Error, "a connection broke");
    }
}
