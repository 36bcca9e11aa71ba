//! A blocking HTTP/1.1 client on hyper: one connection, one request at a time, every method with or without a body.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::runtime::Runtime;

/// How long a request may take in all unless said otherwise.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(60);

/// Why a request got no whole answer.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// The client could not set itself up.
    #[error("the client has no runtime")]
    Runtime(#[source] std::io::Error),
    /// Nothing listens there, or the host has no descriptors left.
    #[error("no connection to {address}")]
    Connect {
        /// Where to.
        address: SocketAddr,
        /// What the host said.
        #[source]
        source: std::io::Error,
    },
    /// The connection ended in the middle, or what came was not HTTP.
    #[error("the exchange was cut off")]
    Exchange(#[source] hyper::Error),
    /// The answer was not complete in time.
    #[error("no whole answer within {} ms", after.as_millis())]
    TimedOut {
        /// The time that it had.
        after: Duration,
    },
}

/// A whole answer.
#[derive(Debug, Clone)]
pub struct Answer {
    /// Status code.
    pub status: StatusCode,
    /// Header fields.
    pub headers: HeaderMap,
    /// Body, with the transfer coding removed.
    pub body: Bytes,
}

impl Answer {
    /// The body as text, invalid UTF-8 replaced.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON; panics with the text if it is none.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("not JSON ({error}), status {}: {}", self.status, self.text()))
    }

    /// The value of a header field as text, empty if it is missing.
    pub fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
    }
}

/// A request for `path` without a body.
pub fn request(method: Method, path: &str) -> Request<Bytes> {
    with_body(method, path, Bytes::new())
}

/// A request for `path` with a body.
pub fn with_body(method: Method, path: &str, body: impl Into<Bytes>) -> Request<Bytes> {
    let built = Request::builder().method(method).uri(path).body(body.into());
    built.expect("the paths in tests are valid")
}

/// Asks a function so often at the same time, and returns the bodies of the answers: no request gets its whole body before
/// all of them have an instance, so that each has one of its own.
pub fn ask_at_once(
    gateway: SocketAddr,
    function: &str,
    count: usize,
    timeout: Duration,
) -> std::io::Result<Vec<String>> {
    let head = format!(
        "POST /function/{function} HTTP/1.1\r\nHost: test\r\nContent-Length: 1\r\nExpect: 100-continue\r\n\r\n"
    );
    let open = |_| {
        let mut stream = std::net::TcpStream::connect(gateway)?;
        stream.set_read_timeout(Some(timeout))?;
        stream.write_all(head.as_bytes())?;
        Ok(BufReader::new(stream))
    };
    let mut streams = (0..count).map(open).collect::<std::io::Result<Vec<_>>>()?;
    // The gateway asks for the body when it has an instance for it.
    for stream in &mut streams {
        expect(stream, "HTTP/1.1 100 ")?;
    }
    for stream in &mut streams {
        stream.get_mut().write_all(b"x")?;
    }
    let answer = |mut stream: BufReader<std::net::TcpStream>| {
        let length = expect(&mut stream, "HTTP/1.1 200 ")?;
        let mut body = vec![0; length];
        stream.read_exact(&mut body)?;
        Ok(String::from_utf8_lossy(&body).into_owned())
    };
    streams.into_iter().map(answer).collect()
}

/// Reads the head of an answer, which has to begin so; its length as announced.
fn expect(stream: &mut impl BufRead, start: &str) -> std::io::Result<usize> {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if stream.read_line(&mut head)? == 0 {
            break;
        }
    }
    if !head.starts_with(start) {
        return Err(std::io::Error::other(format!("not {start:?}: {head:?}")));
    }
    let lower = head.to_lowercase();
    let length = lower
        .lines()
        .find_map(|line| line.strip_prefix("content-length:"));
    Ok(length.and_then(|text| text.trim().parse().ok()).unwrap_or(0))
}

/// A kept connection.
pub struct Connection {
    runtime: Runtime,
    sender: SendRequest<Full<Bytes>>,
    host: String,
    timeout: Duration,
}

impl Connection {
    /// Connects, and from then on gives every request `timeout` to be answered whole.
    pub fn open(address: SocketAddr, timeout: Duration) -> Result<Connection, RequestError> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(RequestError::Runtime)?;
        let sender = runtime.block_on(async {
            let stream = TcpStream::connect(address).await;
            let stream = stream.map_err(|source| RequestError::Connect { address, source })?;
            stream
                .set_nodelay(true)
                .map_err(|source| RequestError::Connect { address, source })?;
            let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
            let (sender, connection) = handshake.map_err(RequestError::Exchange)?;
            tokio::spawn(connection);
            Ok(sender)
        })?;
        Ok(Connection {
            runtime,
            sender,
            host: address.to_string(),
            timeout,
        })
    }

    /// Sends a request and waits for the last byte of its answer.
    pub fn send(&mut self, mut request: Request<Bytes>) -> Result<Answer, RequestError> {
        if !request.headers().contains_key(http::header::HOST) {
            let host = self
                .host
                .parse()
                .expect("a socket address is a valid header value");
            request.headers_mut().insert(http::header::HOST, host);
        }
        let after = self.timeout;
        let sender = &mut self.sender;
        let exchange = async {
            sender.ready().await?;
            let (head, body) = sender.send_request(request.map(Full::new)).await?.into_parts();
            let body = body.collect().await?.to_bytes();
            Ok(Answer {
                status: head.status,
                headers: head.headers,
                body,
            })
        };
        self.runtime
            .block_on(async { tokio::time::timeout(after, exchange).await })
            .map_err(|_| RequestError::TimedOut { after })?
            .map_err(RequestError::Exchange)
    }
}

/// Sends one request on a connection of its own.
pub fn send(address: SocketAddr, request: Request<Bytes>) -> Result<Answer, RequestError> {
    Connection::open(address, DEFAULT_TIMEOUT)?.send(request)
}
