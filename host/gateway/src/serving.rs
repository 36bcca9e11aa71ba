//! One connection of a client, from its first byte to its last.
//!
//! ```text
//!  plain ──first bytes──> HTTP/1.1, or HTTP/2 if they are its preface
//!  TLS ──handshake──> the protocol that it agreed on
//! ```

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::header::{HOST, HeaderValue};
use http::{Request, StatusCode};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::graceful::Watcher;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use crate::reply;
use crate::routes::Gateway;

/// How long a client may take to send the head of a request; bounds idle connections too.
const HEAD_TIMEOUT: Duration = Duration::from_secs(75);
/// The same for a client whose request is refused in any case.
const REFUSED_HEAD_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a TLS handshake may take.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the other side of a silent HTTP/2 connection may take to show that it is there.
const PING_TIMEOUT: Duration = Duration::from_secs(20);
/// Most requests that one HTTP/2 connection has at a time.
const STREAMS_MAX: u32 = 250;
/// What an HTTP/2 connection begins with (RFC 9113, 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// So many bytes of it no request of HTTP/1.1 begins with.
const PREFACE_BYTES_MIN: usize = 4;

/// Serves a connection until its end, or the daemon's.
pub(crate) async fn serve(stream: TcpStream, peer: SocketAddr, gateway: Arc<Gateway>, watcher: Watcher) {
    let mut stopping = gateway.stopping.clone();
    let begun = async {
        match &gateway.tls {
            None => plain(stream).await.map(Begun::Plain),
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
async fn plain(stream: TcpStream) -> io::Result<(TcpStream, bool)> {
    let mut first = [0; PREFACE.len()];
    let length = tokio::time::timeout(HEAD_TIMEOUT, stream.peek(&mut first)).await??;
    let is_http2 = length >= PREFACE_BYTES_MIN && PREFACE.starts_with(&first[..length]);
    Ok((stream, is_http2))
}

/// Answers one request that there are too many connections.
pub(crate) async fn refuse(stream: TcpStream, max_connections: usize) {
    let service = service_fn(move |_| async move {
        let line = format!(
            "{max_connections} connections are open, which is all that the daemon's limit of open files allows: \
             close some, try again later, or raise it (ulimit -n, LimitNOFILE)"
        );
        let answer = reply::retry_soon(reply::text(StatusCode::SERVICE_UNAVAILABLE, &line));
        Ok::<_, Infallible>(answer)
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .keep_alive(false)
        .header_read_timeout(REFUSED_HEAD_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service);
    // The client's doing: it sent no request, or went away.
    let _ = connection.await;
}

pub(crate) async fn serve_http1<S>(stream: S, peer: SocketAddr, gateway: Arc<Gateway>, watcher: Watcher)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let service = service_fn(move |request| {
        let gateway = gateway.clone();
        async move { Ok::<_, Infallible>(gateway.answer(request, peer).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service);
    told(peer, watcher.watch(connection).await);
}

async fn serve_http2<S>(stream: S, peer: SocketAddr, gateway: Arc<Gateway>, watcher: Watcher)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let service = service_fn(move |request| {
        let gateway = gateway.clone();
        async move { Ok::<_, Infallible>(gateway.answer(with_host(request), peer).await) }
    });
    let connection = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS_MAX)
        .keep_alive_interval(HEAD_TIMEOUT)
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
