//! Results on their way to who asked for them (`X-Callback-Url`).
//!
//! The URL comes from whoever may call a function, and what it leads to may trust the daemon's machine. So unless the
//! gateway itself listens on a loopback address only, nothing is sent to loopback addresses, but for the gateway's own
//! port, nor to link-local ones, where clouds keep the credentials of a machine. What a name resolves to is judged, not
//! the name.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, HOST, HeaderMap, HeaderValue};
use http::{Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio_rustls::TlsConnector;

use crate::tls;

/// How long one attempt may take.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Pauses between attempts; one more attempt than there are pauses.
const PAUSES: [Duration; 4] = [
    Duration::from_secs(1),
    Duration::from_secs(4),
    Duration::from_secs(15),
    Duration::from_secs(60),
];
/// Longest URL in bytes.
const URL_BYTES_MAX: usize = 2048;
/// How much of an answer is read so that its sender is not disturbed; nobody reads it.
const ANSWER_BYTES_MAX: usize = 64 << 10;

/// Why a result cannot be sent.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CallbackError {
    #[error("`{url}` is not an http or https URL of a host, at most {URL_BYTES_MAX} bytes long")]
    Url { url: String },
    #[error("{host} cannot be found")]
    Resolve { host: String, source: io::Error },
    #[error("{host} is an address of this machine or link-local, where results are not sent")]
    Forbidden { host: String },
    #[error("{host} cannot be reached")]
    Connect { host: String, source: io::Error },
    #[error("{host} did not take the result")]
    Http { host: String, source: hyper::Error },
    #[error("{host} answered with {status}")]
    Status { host: String, status: StatusCode },
    #[error("{host} did not answer within {} s", TIMEOUT.as_secs())]
    TimedOut { host: String },
}

/// Where a result goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Target {
    /// As it was given.
    pub(crate) url: String,
    uri: Uri,
    host: String,
    port: u16,
    is_encrypted: bool,
}

impl Target {
    pub(crate) fn parse(url: &[u8]) -> Result<Self, CallbackError> {
        let wrong = || CallbackError::Url {
            url: String::from_utf8_lossy(url).chars().take(100).collect(),
        };
        if url.len() > URL_BYTES_MAX {
            return Err(wrong());
        }
        let uri = Uri::try_from(url).map_err(|_| wrong())?;
        let is_encrypted = match uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            _ => return Err(wrong()),
        };
        let host = uri.host().unwrap_or_default();
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        if host.is_empty() {
            return Err(wrong());
        }
        let port = uri.port_u16().unwrap_or(if is_encrypted { 443 } else { 80 });
        Ok(Self {
            url: String::from_utf8_lossy(url).into_owned(),
            uri,
            host,
            port,
            is_encrypted,
        })
    }

    fn host(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }
}

/// A result.
#[derive(Debug, Clone)]
pub(crate) struct CallbackResult {
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

/// Results that are on their way at a time. Others wait, and their functions with them.
const SENDING_MAX: usize = 64;

/// Sends results.
pub(crate) struct Callbacks {
    sending: Semaphore,
    /// The gateway's own address.
    local_address: SocketAddr,
    /// Made when it is first needed: the authorities of the machine are many.
    tls: tokio::sync::OnceCell<TlsConnector>,
}

impl Callbacks {
    pub(crate) fn new(local_address: SocketAddr) -> Self {
        Self {
            sending: Semaphore::new(SENDING_MAX),
            local_address,
            tls: tokio::sync::OnceCell::new(),
        }
    }

    /// Waits for the right to send a result.
    pub(crate) async fn turn(&self) -> Option<SemaphorePermit<'_>> {
        self.sending.acquire().await.ok()
    }

    /// Sends a result, several times if need be.
    pub(crate) async fn send(&self, target: &Target, result: &CallbackResult) -> Result<(), CallbackError> {
        let mut pauses = PAUSES.iter();
        loop {
            let timed_out = |_| CallbackError::TimedOut { host: target.host() };
            let sent = tokio::time::timeout(TIMEOUT, self.send_once(target, result)).await;
            let error = match sent.map_err(timed_out).flatten() {
                Ok(()) => return Ok(()),
                Err(error) => error,
            };
            let may_pass = match &error {
                CallbackError::Status { status, .. } => {
                    status.is_server_error() || *status == StatusCode::TOO_MANY_REQUESTS
                }
                CallbackError::Url { .. } | CallbackError::Forbidden { .. } => false,
                _ => true,
            };
            match pauses.next().filter(|_| may_pass) {
                Some(pause) => tokio::time::sleep(*pause).await,
                None => return Err(error),
            }
        }
    }

    async fn send_once(&self, target: &Target, result: &CallbackResult) -> Result<(), CallbackError> {
        let host = || target.host();
        let connect_error = |source| CallbackError::Connect { host: host(), source };
        let addresses = tokio::net::lookup_host((target.host.as_str(), target.port)).await;
        let addresses = addresses.map_err(|source| CallbackError::Resolve { host: host(), source })?;
        let allowed: Vec<_> = addresses.filter(|address| self.is_allowed(*address)).collect();
        if allowed.is_empty() {
            return Err(CallbackError::Forbidden { host: host() });
        }
        let stream = TcpStream::connect(&allowed[..]).await.map_err(connect_error)?;
        if target.is_encrypted {
            let name = ServerName::try_from(target.host.clone())
                .map_err(|error| connect_error(io::Error::other(error)))?;
            let tls = self
                .tls
                .get_or_try_init(|| async { tls::connector() })
                .await
                .map_err(connect_error)?;
            let stream = tls.connect(name, stream).await.map_err(connect_error)?;
            exchange(target, result, stream).await
        } else {
            exchange(target, result, stream).await
        }
    }

    fn is_allowed(&self, address: SocketAddr) -> bool {
        let ip = address.ip().to_canonical();
        if ip.is_unspecified() || ip.is_multicast() {
            return false;
        }
        if self.local_address.ip().to_canonical().is_loopback() {
            return true;
        }
        if ip.is_loopback() {
            return address.port() == self.local_address.port();
        }
        !match ip {
            IpAddr::V4(ip) => ip.is_link_local(),
            IpAddr::V6(ip) => ip.is_unicast_link_local(),
        }
    }
}

async fn exchange<S>(target: &Target, result: &CallbackResult, stream: S) -> Result<(), CallbackError>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let http_error = |source| CallbackError::Http {
        host: target.host(),
        source,
    };
    let (mut sender, driver) = http1::handshake(TokioIo::new(stream)).await.map_err(http_error)?;
    let driver = tokio::spawn(driver);
    let mut request = Request::new(Full::new(result.body.clone()));
    *request.method_mut() = Method::POST;
    *request.headers_mut() = result.headers.clone();
    // Of an empty result too: receivers may insist on a length (RFC 9110, section 8.6).
    let length = HeaderValue::from(result.body.len());
    request.headers_mut().insert(CONTENT_LENGTH, length);
    let path = target.uri.path_and_query().cloned();
    *request.uri_mut() = path.map_or_else(|| Uri::from_static("/"), Uri::from);
    let authority = target.uri.authority().map_or("", |authority| authority.as_str());
    // Whatever stands before the host is for nobody else to know.
    let authority = authority.rsplit('@').next().unwrap_or_default();
    if let Ok(authority) = HeaderValue::from_str(authority) {
        request.headers_mut().insert(HOST, authority);
    }
    let answer = sender.send_request(request).await;
    let status = match answer {
        Ok(answer) => {
            let status = answer.status();
            // So that its sender can finish; what it says is nobody's business.
            let _ = Limited::new(answer.into_body(), ANSWER_BYTES_MAX).collect().await;
            Ok(status)
        }
        Err(error) => Err(http_error(error)),
    };
    driver.abort();
    match status? {
        status if status.is_success() || status.is_redirection() => Ok(()),
        status => Err(CallbackError::Status {
            host: target.host(),
            status,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_checked() {
        let target = Target::parse(b"http://user@[::1]:81/a?b").expect("a URL");
        assert_eq!(
            (target.host.as_str(), target.port, target.is_encrypted),
            ("::1", 81, false)
        );
        let target = Target::parse(b"https://example.com").expect("a URL");
        assert_eq!(
            (target.host.as_str(), target.port, target.is_encrypted),
            ("example.com", 443, true)
        );
        let long = format!("http://a/{}", "a".repeat(URL_BYTES_MAX));
        for bad in [
            "",
            "/x",
            "a:80",
            "ftp://a/",
            "http://",
            "file:///etc/passwd",
            "http://a b/",
            &long,
        ] {
            assert!(Target::parse(bad.as_bytes()).is_err(), "{bad}");
        }
    }

    #[test]
    fn machines_own_addresses_are_for_local_callers() {
        let open = Callbacks::new("0.0.0.0:8080".parse().expect("an address"));
        let closed = Callbacks::new("127.0.0.1:8080".parse().expect("an address"));
        let cases = [
            ("10.0.0.1:80", true, true),
            ("93.184.216.34:443", true, true),
            ("127.0.0.1:8080", true, true),
            ("127.0.0.1:22", false, true),
            ("[::1]:22", false, true),
            ("[::ffff:127.0.0.1]:22", false, true),
            ("169.254.169.254:80", false, true),
            ("[fe80::1]:80", false, true),
            ("0.0.0.0:80", false, false),
            ("224.0.0.1:80", false, false),
        ];
        for (address, by_open, by_closed) in cases {
            let parsed = address.parse().expect("an address");
            assert_eq!(
                (open.is_allowed(parsed), closed.is_allowed(parsed)),
                (by_open, by_closed),
                "{address}"
            );
        }
    }
}
