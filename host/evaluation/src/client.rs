//! The client that measures: HTTP/1.1 over plain TCP, each connection on the one thread of its runtime.
//!
//! Times are taken from before the connection is opened (or, on a kept one, before the request is sent) to when the last byte
//! of the answer was read.

use std::net::{SocketAddr, ToSocketAddrs};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{AUTHORIZATION, HOST, HeaderMap, HeaderValue};
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// How long anything may take to give its whole answer.
pub(crate) const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
/// Of an answer that is an error, so much is kept, in characters.
const TEXT_MAX: usize = 300;

/// Why there was no answer to count.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// Nobody listens there.
    #[error("no connection to {address}")]
    Connect {
        /// Where to.
        address: SocketAddr,
        /// What the system says.
        #[source]
        source: std::io::Error,
    },
    /// The connection broke, or what answers speaks no HTTP/1.1.
    #[error("the exchange broke off")]
    Exchange(#[source] hyper::Error),
    /// The request cannot be expressed in HTTP.
    #[error("the request cannot be expressed in HTTP")]
    NotHttp(#[source] http::Error),
    /// The answer was not whole in time.
    #[error("no whole answer within {} s", ANSWER_TIMEOUT.as_secs())]
    TimedOut,
    /// The answer was an error.
    #[error("{status}: {text}")]
    Refused {
        /// Its status.
        status: StatusCode,
        /// What it says.
        text: String,
    },
}

/// Why a URL cannot be measured.
#[derive(Debug, thiserror::Error)]
pub enum PlaceError {
    /// It is none that this client can speak to.
    #[error(
        "\"{url}\" cannot be measured: write it like http://127.0.0.1:8080/function/hello (plain HTTP: what ends TLS would be \
         measured too)"
    )]
    NotHttp {
        /// As given.
        url: String,
    },
    /// Its host has no address.
    #[error("\"{url}\" has no address")]
    NoAddress {
        /// As given.
        url: String,
        /// What the system says.
        #[source]
        source: std::io::Error,
    },
}

/// Where requests go: an address, the host that is named there, and the path before that of each request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) address: SocketAddr,
    host: String,
    prefix: String,
    authorization: Option<HeaderValue>,
}

impl Place {
    pub(crate) fn new(address: SocketAddr, prefix: &str) -> Self {
        Self {
            address,
            host: address.to_string(),
            prefix: prefix.trim_end_matches('/').to_owned(),
            authorization: None,
        }
    }

    /// Reads a URL such as `http://127.0.0.1:8080/function/hello`.
    pub(crate) fn parse(url: &str) -> Result<Self, PlaceError> {
        let not_http = || PlaceError::NotHttp { url: url.to_owned() };
        let uri: http::Uri = url.parse().map_err(|_| not_http())?;
        let authority = uri.authority().ok_or_else(not_http)?;
        if uri.scheme_str() != Some("http") || authority.as_str().contains('@') || uri.query().is_some() {
            return Err(not_http());
        }
        let no_address = |source| PlaceError::NoAddress {
            url: url.to_owned(),
            source,
        };
        let port = authority.port_u16().unwrap_or(80);
        let host = authority.host().trim_start_matches('[').trim_end_matches(']');
        let mut addresses = (host, port).to_socket_addrs().map_err(no_address)?;
        Ok(Self {
            address: addresses.next().ok_or_else(not_http)?,
            host: authority.to_string(),
            prefix: uri.path().trim_end_matches('/').to_owned(),
            authorization: None,
        })
    }

    /// The same host with another path before that of each request.
    pub(crate) fn with_prefix(&self, prefix: &str) -> Self {
        Self {
            prefix: prefix.to_owned(),
            ..self.clone()
        }
    }

    /// The same with name and password.
    pub(crate) fn with_authorization(self, authorization: Option<HeaderValue>) -> Self {
        Self {
            authorization,
            ..self
        }
    }

    fn request(&self, method: Method, path: &str, body: Bytes) -> Result<Request<Full<Bytes>>, AskError> {
        let path = match (self.prefix.as_str(), path) {
            ("", "") => "/".to_owned(),
            (prefix, path) => format!("{prefix}{path}"),
        };
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, &self.host);
        let request = match &self.authorization {
            Some(value) => request.header(AUTHORIZATION, value),
            None => request,
        };
        request.body(Full::new(body)).map_err(AskError::NotHttp)
    }
}

/// A whole answer with a status of success.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// The number behind `name=` in the body.
    pub(crate) fn number(&self, name: &str) -> Option<f64> {
        let text = std::str::from_utf8(&self.body).ok()?;
        let mut words = text.split_whitespace();
        let number: f64 = words
            .find_map(|word| word.strip_prefix(name)?.strip_prefix('='))?
            .parse()
            .ok()?;
        number.is_finite().then_some(number)
    }
}

/// What a request asks for.
#[derive(Debug, Clone)]
pub(crate) struct Ask {
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) body: Bytes,
    /// A header field besides.
    pub(crate) header: Option<(&'static str, String)>,
}

impl Ask {
    pub(crate) fn get(path: &str) -> Self {
        Self::new(Method::GET, path, Bytes::new())
    }

    pub(crate) fn new(method: Method, path: &str, body: impl Into<Bytes>) -> Self {
        Self {
            method,
            path: path.to_owned(),
            body: body.into(),
            header: None,
        }
    }
}

/// A kept connection.
pub(crate) struct Connection {
    sender: SendRequest<Full<Bytes>>,
    place: Place,
}

impl Connection {
    /// Connects; has to be called in a runtime.
    pub(crate) async fn open(place: &Place) -> Result<Self, AskError> {
        let connect = |source| AskError::Connect {
            address: place.address,
            source,
        };
        let stream = TcpStream::connect(place.address).await.map_err(connect)?;
        stream.set_nodelay(true).map_err(connect)?;
        let (sender, connection) = handshake(TokioIo::new(stream))
            .await
            .map_err(AskError::Exchange)?;
        tokio::spawn(connection);
        Ok(Self {
            sender,
            place: place.clone(),
        })
    }

    /// Sends a request and reads the whole answer.
    pub(crate) async fn ask(&mut self, ask: &Ask) -> Result<Answer, AskError> {
        let mut request = self
            .place
            .request(ask.method.clone(), &ask.path, ask.body.clone())?;
        if let Some((name, value)) = &ask.header {
            let value = HeaderValue::from_str(value).map_err(|error| AskError::NotHttp(error.into()))?;
            request.headers_mut().insert(*name, value);
        }
        let exchange = async {
            self.sender.ready().await?;
            let (head, body) = self.sender.send_request(request).await?.into_parts();
            Ok((head, body.collect().await?.to_bytes()))
        };
        let exchanged = tokio::time::timeout(ANSWER_TIMEOUT, exchange).await;
        let (head, body) = exchanged
            .map_err(|_| AskError::TimedOut)?
            .map_err(AskError::Exchange)?;
        if !head.status.is_success() {
            let text = String::from_utf8_lossy(&body);
            return Err(AskError::Refused {
                status: head.status,
                text: text.trim().chars().take(TEXT_MAX).collect(),
            });
        }
        Ok(Answer {
            headers: head.headers,
            body,
        })
    }
}

/// Asks once on a connection of its own; the time from before it is opened to the last byte.
pub(crate) async fn ask_once(place: &Place, ask: &Ask) -> Result<(Duration, Answer), AskError> {
    let begun = Instant::now();
    let mut connection = Connection::open(place).await?;
    let answer = connection.ask(ask).await?;
    Ok((begun.elapsed(), answer))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_read() {
        let place = Place::parse("http://127.0.0.1:81/function/hello/").expect("it is one");
        let request = place
            .request(Method::GET, "/x?n=1", Bytes::new())
            .expect("it is one");
        assert_eq!(request.uri().path(), "/function/hello/x");
        assert_eq!(request.headers()[HOST], "127.0.0.1:81");
        assert_eq!(place.address.port(), 81);
        let bare = Place::parse("http://127.0.0.1").expect("it is one");
        let request = bare.request(Method::GET, "", Bytes::new()).expect("it is one");
        assert_eq!((request.uri().path(), bare.address.port()), ("/", 80));
        for url in [
            "https://127.0.0.1/",
            "127.0.0.1:80",
            "",
            "http://a@127.0.0.1/",
            "http://127.0.0.1/?a=b",
        ] {
            assert!(
                matches!(Place::parse(url), Err(PlaceError::NotHttp { .. })),
                "{url}"
            );
        }
    }

    #[test]
    fn numbers_are_found_in_answers() {
        let answer = Answer {
            headers: HeaderMap::new(),
            body: Bytes::from_static(b"elapsed_ns=12 checksum=00ff x=NaN\n"),
        };
        assert_eq!(answer.number("elapsed_ns"), Some(12.0));
        assert_eq!((answer.number("elapsed"), answer.number("x")), (None, None));
    }
}
