//! Sends batches of spans by HTTP, on the daemon's own runtime.

use std::io;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::header::{HOST, HeaderValue};
use http::{Request, Response, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use opentelemetry_http::{HttpClient, HttpError};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::runtime::Handle;
use tokio_rustls::TlsConnector;

use super::SpansError;
use crate::tls;

/// How long sending a batch may take.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Longest answer that is read, in bytes.
const ANSWER_BYTES_MAX: usize = 64 << 10;

/// Sends to one endpoint. The thread that has the spans waits for what tasks of the runtime do.
pub(super) struct Sender {
    runtime: Handle,
    host: String,
    port: u16,
    authority: HeaderValue,
    tls: Option<(TlsConnector, ServerName<'static>)>,
}

impl std::fmt::Debug for Sender {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Sender")
            .field("host", &self.host)
            .field("port", &self.port)
            .finish_non_exhaustive()
    }
}

impl Sender {
    pub(super) fn to(endpoint: &str) -> Result<Self, SpansError> {
        let wrong = || SpansError::Endpoint {
            endpoint: endpoint.chars().take(200).collect(),
        };
        let uri: Uri = endpoint.parse().map_err(|_| wrong())?;
        let is_encrypted = match uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            _ => return Err(wrong()),
        };
        let authority = uri.authority().ok_or_else(wrong)?;
        let host = authority.host().trim_start_matches('[').trim_end_matches(']');
        if host.is_empty() || authority.as_str().contains('@') || uri.query().is_some() {
            return Err(wrong());
        }
        let tls = if is_encrypted {
            let name = ServerName::try_from(host.to_owned()).map_err(|_| wrong())?;
            Some((tls::connector().map_err(SpansError::Tls)?, name))
        } else {
            None
        };
        Ok(Self {
            runtime: Handle::current(),
            host: host.to_owned(),
            port: authority
                .port_u16()
                .unwrap_or(if is_encrypted { 443 } else { 80 }),
            authority: HeaderValue::from_str(authority.as_str()).map_err(|_| wrong())?,
            tls,
        })
    }
}

#[async_trait]
impl HttpClient for Sender {
    async fn send_bytes(&self, mut request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let path = request.uri().path_and_query().cloned();
        *request.uri_mut() = path.map_or_else(|| Uri::from_static("/"), Uri::from);
        request.headers_mut().insert(HOST, self.authority.clone());
        let (host, port, tls) = (self.host.clone(), self.port, self.tls.clone());
        let sending = async move {
            let stream = TcpStream::connect((host.as_str(), port)).await?;
            match tls {
                Some((tls, name)) => exchange(tls.connect(name, stream).await?, request).await,
                None => exchange(stream, request).await,
            }
        };
        // A timer can be made in a task of the runtime only.
        let sending = self
            .runtime
            .spawn(async move { tokio::time::timeout(TIMEOUT, sending).await });
        let timed_out =
            |_| io::Error::new(io::ErrorKind::TimedOut, "the endpoint for traces does not answer");
        sending.await?.map_err(timed_out)?
    }
}

async fn exchange<S>(stream: S, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (mut sender, driver) = http1::handshake(TokioIo::new(stream)).await?;
    let driver = tokio::spawn(driver);
    let answered = async {
        let answer = sender.send_request(request.map(Full::new)).await?;
        let (head, body) = answer.into_parts();
        let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await?.to_bytes();
        Ok(Response::from_parts(head, body))
    };
    let answered = answered.await;
    driver.abort();
    answered
}
