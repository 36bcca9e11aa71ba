//! Requests to registries: HTTPS with the machine's certificates, redirects that are checked, and time limits.

use std::io;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, HOST, LOCATION, USER_AGENT};
use http::{HeaderValue, Method, Request, Response, Uri};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::{ClientConfig, RootCertStore};

use crate::endpoint::Endpoint;
use crate::error::RegistryError;

/// How long a connection may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a registry may say nothing.
pub(crate) const SILENCE_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a connection is kept that nobody uses.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);
/// How often one request may be sent elsewhere.
const REDIRECTS_MAX: usize = 5;
/// Longest text of an error that is read, in bytes.
const MESSAGE_BYTES_MAX: usize = 16 << 10;
/// As much of it is shown, in characters.
const MESSAGE_SHOWN: usize = 300;

/// Body of a request.
pub(crate) type Body = UnsyncBoxBody<Bytes, io::Error>;

type HttpClient = Client<HttpsConnector<HttpConnector>, Body>;

/// A body that is known as a whole.
pub(crate) fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into())
        .map_err(|never| match never {})
        .boxed_unsync()
}

/// Makes requests.
#[derive(Clone)]
pub(crate) struct Transport {
    /// Made when it is needed for the first time: reading the machine's certificates takes a while.
    client: Arc<OnceLock<HttpClient>>,
}

impl Transport {
    pub(crate) fn new() -> Self {
        Self {
            client: Arc::default(),
        }
    }

    fn client(&self) -> Result<&HttpClient, RegistryError> {
        if let Some(client) = self.client.get() {
            return Ok(client);
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let settings = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots())
            .with_no_client_auth();
        let mut connector = HttpConnector::new();
        connector.enforce_http(false);
        connector.set_connect_timeout(Some(CONNECT_TIMEOUT));
        connector.set_nodelay(true);
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(settings)
            .https_or_http()
            .enable_http1()
            .wrap_connector(connector);
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_TIMEOUT)
            .build(connector);
        Ok(self.client.get_or_init(|| client))
    }

    /// Sends a request to an absolute address on behalf of a registry, and follows where that leads.
    pub(crate) async fn send(
        &self,
        endpoint: &Endpoint,
        method: Method,
        address: Uri,
        headers: &[(http::HeaderName, HeaderValue)],
        body: &(dyn Fn() -> Body + Sync),
    ) -> Result<Response<Incoming>, RegistryError> {
        let mut address = address;
        let first = address.authority().cloned();
        for _ in 0..=REDIRECTS_MAX {
            if !endpoint.allows(&address) {
                return Err(RegistryError::BadRedirect {
                    registry: endpoint.to_string(),
                    target: address.to_string().chars().take(MESSAGE_SHOWN).collect(),
                });
            }
            let mut request = Request::builder()
                .method(method.clone())
                .uri(address.clone())
                .header(USER_AGENT, concat!("spore/", env!("CARGO_PKG_VERSION")));
            for (name, value) in headers {
                // Whoever it leads to is somebody else.
                if name != AUTHORIZATION || address.authority() == first.as_ref() {
                    request = request.header(name, value);
                }
            }
            let response = self.exchange(endpoint, request.body(body())?).await?;
            let is_read = matches!(method, Method::GET | Method::HEAD);
            if !(response.status().is_redirection() && is_read) {
                return Ok(response);
            }
            let location = response
                .headers()
                .get(LOCATION)
                .and_then(|location| location.to_str().ok());
            address =
                resolve(&address, location.unwrap_or_default()).ok_or_else(|| RegistryError::Protocol {
                    registry: endpoint.to_string(),
                    what: "it leads to no address",
                })?;
        }
        Err(RegistryError::Protocol {
            registry: endpoint.to_string(),
            what: "it leads from one address to the next",
        })
    }

    async fn exchange(
        &self,
        endpoint: &Endpoint,
        mut request: Request<Body>,
    ) -> Result<Response<Incoming>, RegistryError> {
        // The library would take the user's part of an address along.
        if let Some(authority) = request.uri().authority().cloned() {
            let host = HeaderValue::from_str(authority.as_str()).map_err(http::Error::from)?;
            request.headers_mut().insert(HOST, host);
        }
        let answer = self.client()?.request(request);
        match tokio::time::timeout(SILENCE_TIMEOUT, answer).await {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(source)) => Err(RegistryError::Unreachable {
                registry: endpoint.to_string(),
                source,
            }),
            Err(_) => Err(silent(endpoint)),
        }
    }
}

pub(crate) fn silent(endpoint: &Endpoint) -> RegistryError {
    RegistryError::Silent {
        registry: endpoint.to_string(),
        after: SILENCE_TIMEOUT,
    }
}

/// The machine's certificates, or those of the crate where it has none.
fn roots() -> RootCertStore {
    let mut roots = RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs();
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        tracing::info!(
            "this machine has no certificates of its own; those that Spore brings are used for registries"
        );
        roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    }
    roots
}

/// Where an address leads that may be relative to another.
pub(crate) fn resolve(base: &Uri, location: &str) -> Option<Uri> {
    if location.starts_with('/') && !location.starts_with("//") {
        let mut parts = base.clone().into_parts();
        parts.path_and_query = Some(location.parse().ok()?);
        return Uri::from_parts(parts).ok();
    }
    let uri: Uri = location.parse().ok()?;
    (uri.scheme().is_some() && !uri.authority()?.as_str().contains('@')).then_some(uri)
}

/// The next piece of a body; none at its end.
pub(crate) async fn piece(endpoint: &Endpoint, body: &mut Incoming) -> Result<Option<Bytes>, RegistryError> {
    loop {
        let frame = tokio::time::timeout(SILENCE_TIMEOUT, body.frame()).await;
        let Some(frame) = frame.map_err(|_| silent(endpoint))? else {
            return Ok(None);
        };
        let frame = frame.map_err(|source| RegistryError::Broken {
            registry: endpoint.to_string(),
            source,
        })?;
        if let Ok(data) = frame.into_data() {
            return Ok(Some(data));
        }
    }
}

/// A body as a whole, which must not be longer than the limit.
pub(crate) async fn read(
    endpoint: &Endpoint,
    mut body: Incoming,
    limit_bytes: usize,
    what: &str,
) -> Result<Vec<u8>, RegistryError> {
    let mut bytes = Vec::new();
    while let Some(piece) = piece(endpoint, &mut body).await? {
        if bytes.len() + piece.len() > limit_bytes {
            return Err(RegistryError::TooLong {
                what: what.to_owned(),
                limit_bytes: limit_bytes as u64,
            });
        }
        bytes.extend_from_slice(&piece);
    }
    Ok(bytes)
}

/// What a registry says about an error, in one short line.
pub(crate) async fn message(endpoint: &Endpoint, body: Incoming) -> String {
    let text = read(endpoint, body, MESSAGE_BYTES_MAX, "a message")
        .await
        .unwrap_or_default();
    shown(&text)
}

/// The messages in an error as the specification has them, or the text as it is.
pub(crate) fn shown(text: &[u8]) -> String {
    #[derive(serde::Deserialize)]
    struct Errors {
        errors: Vec<Error>,
    }
    #[derive(serde::Deserialize)]
    struct Error {
        #[serde(default)]
        code: String,
        #[serde(default)]
        message: String,
    }
    let text = match serde_json::from_slice::<Errors>(text) {
        Ok(Errors { errors }) => {
            let messages = errors.into_iter().map(|error| match error.message {
                message if message.is_empty() => error.code,
                message => message,
            });
            messages.collect::<Vec<_>>().join("; ")
        }
        // A page of HTML helps nobody.
        Err(_) if text.trim_ascii_start().starts_with(b"<") => String::new(),
        Err(_) => String::from_utf8_lossy(text).into_owned(),
    };
    let printable = |c: char| if c.is_control() { ' ' } else { c };
    text.trim().chars().map(printable).take(MESSAGE_SHOWN).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_may_be_relative() {
        let base: Uri = "https://a.example/v2/x?y=1".parse().expect("a URI");
        let to = |location| resolve(&base, location).map(|uri| uri.to_string());
        assert_eq!(to("/v2/z?q=2").as_deref(), Some("https://a.example/v2/z?q=2"));
        assert_eq!(to("https://b.example/c").as_deref(), Some("https://b.example/c"));
        for bad in [
            "",
            "z",
            "//b.example/c",
            "https://user@b.example/",
            "https:///x",
            "\n",
        ] {
            assert_eq!(to(bad), None, "{bad}");
        }
    }

    #[test]
    fn messages_are_short_lines() {
        let json = br#"{"errors":[{"code":"DENIED","message":"no"},{"code":"UNKNOWN"}]}"#;
        assert_eq!(shown(json), "no; UNKNOWN");
        assert_eq!(shown(b" plain\ntext "), "plain text");
        assert_eq!(shown(b"<html>long</html>"), "");
        assert_eq!(shown("x".repeat(1000).as_bytes()).len(), MESSAGE_SHOWN);
    }
}
