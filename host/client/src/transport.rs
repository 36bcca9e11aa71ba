//! Connections to the gateway, and the bodies that go over them.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{AUTHORIZATION, HOST, HeaderValue};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{Request, Response, Uri};
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

/// Body of a request.
pub type RequestBody = http_body_util::combinators::UnsyncBoxBody<Bytes, io::Error>;

/// Longest explanation of an error that is read from the gateway, in bytes.
const MAX_MESSAGE_BYTES: usize = 64 * 1024;

/// Pieces in which a body with progress is sent, in bytes.
const PIECE_BYTES: usize = 64 * 1024;

/// The same for a body from a file.
const FILE_PIECE_BYTES: usize = 256 * 1024;

/// A gateway's address. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Client {
    is_tls: bool,
    authority: Authority,
    /// Path before that of every request, without a slash at its end; usually empty.
    prefix: String,
    /// Sent with every request but those to functions.
    authorization: Option<HeaderValue>,
    /// Where functions and secrets are that are named without; none is the gateway's default.
    namespace: Option<String>,
}

/// Why a text is no address of a gateway.
#[derive(Debug, thiserror::Error)]
pub enum AddressError {
    /// Not a URL.
    #[error("\"{address}\" is no address of a gateway: write it like http://127.0.0.1:8080")]
    NotAnAddress {
        /// The text as given.
        address: String,
    },
    /// A URL of another scheme than `http` and `https`.
    #[error(
        "\"{address}\" asks for {scheme}: write it like http://127.0.0.1:8080 or https://gateway.example.com"
    )]
    UnsupportedScheme {
        /// The text as given.
        address: String,
        /// The scheme that it asks for.
        scheme: String,
    },
}

/// Why there is no answer from the gateway.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// Nobody listens at the address.
    #[error("no gateway at {url}: start one with `spore serve`, or name one with --gateway or OPENFAAS_URL")]
    NoGateway {
        /// Address of the gateway.
        url: String,
        /// The refusal.
        #[source]
        source: io::Error,
    },
    /// No connection for another reason: name not found, network down.
    #[error("the gateway at {url} cannot be reached")]
    Connect {
        /// Address of the gateway.
        url: String,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// The other side speaks no TLS, or has no certificate that this machine trusts.
    #[error(
        "the gateway at {url} cannot be trusted: SSL_CERT_FILE may name a file with the certificate of the authority \
         that has signed its own"
    )]
    Tls {
        /// Address of the gateway.
        url: String,
        /// What is wrong.
        #[source]
        source: io::Error,
    },
    /// The connection broke, or what answers does not speak HTTP.
    #[error("the exchange with {url} broke off")]
    Exchange {
        /// Address of the gateway.
        url: String,
        /// What broke.
        #[source]
        source: hyper::Error,
    },
    /// A path, query, method or header that HTTP cannot carry.
    #[error("the request cannot be expressed in HTTP")]
    NotHttp(#[source] http::Error),
}

impl Client {
    /// Reads a gateway's address such as `http://127.0.0.1:8080` or `127.0.0.1:8080`.
    pub fn new(address: &str) -> Result<Self, AddressError> {
        let invalid = || AddressError::NotAnAddress {
            address: address.to_owned(),
        };
        let with_scheme = if address.contains("://") {
            address.to_owned()
        } else {
            format!("http://{address}")
        };
        let uri: Uri = with_scheme.parse().map_err(|_| invalid())?;
        let scheme = uri.scheme().ok_or_else(invalid)?;
        if *scheme != Scheme::HTTP && *scheme != Scheme::HTTPS {
            return Err(AddressError::UnsupportedScheme {
                address: address.to_owned(),
                scheme: scheme.to_string(),
            });
        }
        let authority = uri.authority().ok_or_else(invalid)?.clone();
        if authority.host().is_empty() || authority.as_str().contains('@') || uri.query().is_some() {
            return Err(invalid());
        }
        Ok(Self {
            is_tls: *scheme == Scheme::HTTPS,
            authority,
            prefix: uri.path().trim_end_matches('/').to_owned(),
            authorization: None,
            namespace: None,
        })
    }

    /// The same for the functions and secrets of a namespace.
    #[must_use]
    pub fn in_namespace(mut self, namespace: Option<String>) -> Self {
        self.namespace = namespace.filter(|namespace| !namespace.is_empty());
        self
    }

    /// The namespace that it is for; none is the gateway's default.
    pub fn namespace(&self) -> Option<&str> {
        self.namespace.as_deref()
    }

    /// A function's name as it is known among those of all namespaces.
    pub fn full_name(&self, function: &str) -> String {
        match &self.namespace {
            Some(namespace) => format!("{function}.{namespace}"),
            None => function.to_owned(),
        }
    }

    /// Where a function is invoked.
    pub fn function_url(&self, function: &str) -> String {
        format!("{}/function/{}", self.url(), self.full_name(function))
    }

    /// The same with credentials, which go with every request but those to functions.
    #[must_use]
    pub fn with_credentials(mut self, user: &str, password: &str) -> Self {
        let token = STANDARD.encode(format!("{user}:{password}"));
        // Base64 is always a valid value.
        self.authorization = HeaderValue::from_str(&format!("Basic {token}")).ok();
        if let Some(value) = &mut self.authorization {
            value.set_sensitive(true);
        }
        self
    }

    /// Whether what is sent can be read on the way by others than this machine's.
    pub fn is_exposed(&self) -> bool {
        let host = host_name(&self.authority);
        let address: Option<std::net::IpAddr> = host.parse().ok();
        let is_loopback = host == "localhost" || address.is_some_and(|address| address.is_loopback());
        !self.is_tls && !is_loopback
    }

    /// The value of the header that says who asks, if anybody in particular does.
    pub fn authorization(&self) -> Option<String> {
        let value = self.authorization.as_ref()?.to_str().ok()?;
        Some(value.to_owned())
    }

    /// The address, as a URL without a slash at its end.
    pub fn url(&self) -> String {
        let scheme = if self.is_tls { "https" } else { "http" };
        format!("{scheme}://{}{}", self.authority, self.prefix)
    }

    /// Sends a request and waits for the head of the answer. The request's URI holds only path and query; the path is
    /// taken below the gateway's address.
    pub async fn send(&self, mut request: Request<RequestBody>) -> Result<Response<Incoming>, RequestError> {
        let path = request.uri().path_and_query().map_or("/", PathAndQuery::as_str);
        let path = path.to_owned();
        if let Some(authorization) = &self.authorization
            && !path.starts_with("/function/")
        {
            request.headers_mut().insert(AUTHORIZATION, authorization.clone());
        }
        *request.uri_mut() = format!("{}{path}", self.prefix)
            .parse()
            .map_err(|error: http::uri::InvalidUri| RequestError::NotHttp(error.into()))?;
        if !request.headers().contains_key(HOST) {
            let host = HeaderValue::from_str(self.authority.as_str())
                .map_err(|error| RequestError::NotHttp(error.into()))?;
            request.headers_mut().insert(HOST, host);
        }
        let stream = self.connect().await?;
        let exchange_error = |source| RequestError::Exchange {
            url: self.url(),
            source,
        };
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(exchange_error)?;
        // Its errors also reach the answer or its body, where they are handled.
        tokio::spawn(connection);
        sender.send_request(request).await.map_err(exchange_error)
    }

    async fn connect(&self) -> Result<Box<dyn Stream>, RequestError> {
        let host = host_name(&self.authority);
        let default_port = if self.is_tls { 443 } else { 80 };
        let port = self.authority.port_u16().unwrap_or(default_port);
        let stream = TcpStream::connect((host, port)).await.map_err(|source| {
            let url = self.url();
            match source.kind() {
                io::ErrorKind::ConnectionRefused => RequestError::NoGateway { url, source },
                _ => RequestError::Connect { url, source },
            }
        })?;
        // Failing to set it costs some milliseconds at worst.
        let _ = stream.set_nodelay(true);
        if !self.is_tls {
            return Ok(Box::new(stream));
        }
        match crate::tls::handshake(host, stream).await {
            Ok(stream) => Ok(Box::new(stream)),
            Err(source) => Err(RequestError::Tls {
                url: self.url(),
                source,
            }),
        }
    }
}

/// What a connection goes over.
trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

fn host_name(authority: &Authority) -> &str {
    authority.host().trim_start_matches('[').trim_end_matches(']')
}

/// A body that is known as a whole.
pub fn full(content: impl Into<Bytes>) -> RequestBody {
    Full::new(content.into())
        .map_err(|never| match never {})
        .boxed_unsync()
}

/// A body whose pieces arrive over time, for example from standard input. An error aborts the request.
pub fn streamed(pieces: mpsc::Receiver<io::Result<Bytes>>) -> RequestBody {
    PieceBody { pieces }.boxed_unsync()
}

/// A body that tells `progress` the number of bytes of each piece as it is handed to the connection.
pub fn with_progress(content: Bytes, progress: Arc<dyn Fn(u64) + Send + Sync>) -> RequestBody {
    ProgressBody {
        rest: content,
        progress,
    }
    .boxed_unsync()
}

/// A body that is read from a file as it is sent; must be called within a runtime. `progress` hears of each piece. A
/// file that cannot be read or is shorter than `length` aborts the request.
pub fn from_file(path: PathBuf, length: u64, progress: Arc<dyn Fn(u64) + Send + Sync>) -> RequestBody {
    // A few pieces ahead of the connection.
    let (sender, pieces) = mpsc::channel(4);
    tokio::task::spawn_blocking(move || {
        let result = read_pieces(&path, length, &sender);
        if let Err(error) = result {
            // The request may have been given up.
            let _ = sender.blocking_send(Err(error));
        }
    });
    FileBody {
        pieces,
        rest: length,
        progress,
    }
    .boxed_unsync()
}

fn read_pieces(path: &Path, length: u64, sender: &mpsc::Sender<io::Result<Bytes>>) -> io::Result<()> {
    let mut file = File::open(path)?.take(length);
    while file.limit() > 0 {
        let mut piece = Vec::with_capacity(FILE_PIECE_BYTES);
        file.by_ref()
            .take(FILE_PIECE_BYTES as u64)
            .read_to_end(&mut piece)?;
        if piece.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if sender.blocking_send(Ok(piece.into())).is_err() {
            break;
        }
    }
    Ok(())
}

/// Reads what the gateway says about an error: trimmed text, at most 64 KiB of it.
pub async fn read_message(mut body: Incoming) -> String {
    let mut text = Vec::new();
    while let Some(Ok(frame)) = body.frame().await {
        if let Some(data) = frame.data_ref() {
            text.extend_from_slice(data);
        }
        if text.len() >= MAX_MESSAGE_BYTES {
            text.truncate(MAX_MESSAGE_BYTES);
            break;
        }
    }
    String::from_utf8_lossy(&text).trim().to_owned()
}

struct PieceBody {
    pieces: mpsc::Receiver<io::Result<Bytes>>,
}

impl HttpBody for PieceBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        self.pieces
            .poll_recv(context)
            .map(|piece| piece.map(|piece| piece.map(Frame::data)))
    }
}

struct ProgressBody {
    rest: Bytes,
    progress: Arc<dyn Fn(u64) + Send + Sync>,
}

impl HttpBody for ProgressBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        if self.rest.is_empty() {
            return Poll::Ready(None);
        }
        let length = self.rest.len().min(PIECE_BYTES);
        let piece = self.rest.split_to(length);
        (self.progress)(piece.len() as u64);
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.rest.len() as u64)
    }
}

struct FileBody {
    pieces: mpsc::Receiver<io::Result<Bytes>>,
    rest: u64,
    progress: Arc<dyn Fn(u64) + Send + Sync>,
}

impl HttpBody for FileBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        if self.rest == 0 {
            return Poll::Ready(None);
        }
        let piece = match self.pieces.poll_recv(context) {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(piece) => piece.unwrap_or_else(|| Err(io::ErrorKind::UnexpectedEof.into())),
        };
        Poll::Ready(Some(piece.map(|piece| {
            self.rest = self.rest.saturating_sub(piece.len() as u64);
            (self.progress)(piece.len() as u64);
            Frame::data(piece)
        })))
    }

    fn is_end_stream(&self) -> bool {
        self.rest == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.rest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_as_people_write_them() {
        for (address, url) in [
            ("http://127.0.0.1:8080", "http://127.0.0.1:8080"),
            ("http://127.0.0.1:8080/", "http://127.0.0.1:8080"),
            ("localhost:8080", "http://localhost:8080"),
            ("http://[::1]:80", "http://[::1]:80"),
            ("http://gateway/base/", "http://gateway/base"),
            ("https://gateway/", "https://gateway"),
        ] {
            assert_eq!(Client::new(address).unwrap().url(), url);
        }
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for address in [
            "",
            "http://",
            "http:// x",
            "http://user@host",
            "http://host/?query",
        ] {
            assert!(
                matches!(Client::new(address), Err(AddressError::NotAnAddress { .. })),
                "{address}"
            );
        }
        assert!(matches!(
            Client::new("ftp://host"),
            Err(AddressError::UnsupportedScheme { .. })
        ));
    }

    #[test]
    fn passwords_are_exposed_by_plain_connections_to_elsewhere() {
        for (address, is_exposed) in [
            ("http://127.0.0.1:8080", false),
            ("http://[::1]:8080", false),
            ("localhost:8080", false),
            ("https://gateway", false),
            ("http://gateway", true),
            ("http://10.0.0.1", true),
        ] {
            assert_eq!(
                Client::new(address).unwrap().is_exposed(),
                is_exposed,
                "{address}"
            );
        }
        let client = Client::new("gateway").unwrap().with_credentials("admin", "hush");
        assert!(!format!("{client:?}").contains("YWRtaW46aHVzaA"), "{client:?}");
    }
}
