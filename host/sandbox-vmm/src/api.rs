//! Carries requests to a monitor: HTTP on the socket of its programming interface.
//!
//! The monitor is confined because the guest may have taken it over, so what it answers is bounded and believed no more than the guest.

use std::io;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HOST};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::UnixStream;

use crate::requests::Request;

/// Longest answer that is read, in bytes.
const ANSWER_BYTES_MAX: usize = 16 << 10;
/// Longest reason that is told, in characters.
pub(crate) const REASON_CHARS_MAX: usize = 400;
/// How often it is looked whether the socket is there.
const PAUSE: Duration = Duration::from_millis(1);

/// Why a monitor has not done what it was asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ApiError {
    #[error("its programming interface cannot be reached")]
    Unreachable(#[source] io::Error),
    #[error("it does not answer when it is told {what}")]
    Unanswered {
        what: &'static str,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    #[error("it refuses {what} (status {status}): {reason}")]
    Refused {
        what: &'static str,
        status: u16,
        reason: String,
    },
}

/// A monitor's programming interface.
#[derive(Debug)]
pub(crate) struct Api(SendRequest<Full<Bytes>>);

impl Api {
    /// Connects as soon as there is somebody. Whoever calls it gives up in time.
    pub(crate) async fn connect(socket: &Path) -> Result<Self, ApiError> {
        let stream = loop {
            match UnixStream::connect(socket).await {
                Ok(stream) => break stream,
                Err(error)
                    if matches!(
                        error.kind(),
                        // Not yet made, and made but nobody listens.
                        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
                    ) =>
                {
                    tokio::time::sleep(PAUSE).await;
                }
                Err(error) => return Err(ApiError::Unreachable(error)),
            }
        };
        let connected = http1::handshake(TokioIo::new(stream)).await;
        let (sender, connection) =
            connected.map_err(|error| ApiError::Unreachable(io::Error::other(error)))?;
        // It ends with the monitor, or when nothing more is sent.
        tokio::spawn(connection);
        Ok(Self(sender))
    }

    /// Makes a request, which has to succeed.
    pub(crate) async fn ask(&mut self, request: &Request) -> Result<(), ApiError> {
        let what = request.what;
        let unanswered = |source| ApiError::Unanswered { what, source };
        let body = request.body.as_ref().map(Value::to_string).unwrap_or_default();
        let message = http::Request::builder()
            .method(request.method.clone())
            .uri(request.path)
            .header(HOST, "localhost")
            .header(CONTENT_TYPE, "application/json")
            .body(Full::from(body))
            .map_err(|error| unanswered(error.into()))?;
        let answer = self.0.send_request(message).await;
        let (head, body) = answer.map_err(|error| unanswered(error.into()))?.into_parts();
        let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await;
        let body = body.map_err(unanswered)?.to_bytes();
        if head.status.is_success() {
            return Ok(());
        }
        Err(ApiError::Refused {
            what,
            status: head.status.as_u16(),
            reason: reason(&body),
        })
    }
}

/// What a refusal says: Firecracker an object with its reason, Cloud Hypervisor a list, the outermost first.
pub(crate) fn reason(body: &[u8]) -> String {
    let text = match serde_json::from_slice(body) {
        Ok(Value::Object(object)) => object
            .get("fault_message")
            .and_then(Value::as_str)
            .map(str::to_owned),
        Ok(Value::Array(reasons)) => {
            let reasons: Vec<_> = reasons.iter().filter_map(Value::as_str).collect();
            Some(reasons.join(": "))
        }
        _ => None,
    };
    let text = text.unwrap_or_else(|| String::from_utf8_lossy(body).into_owned());
    let text: String = text
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(REASON_CHARS_MAX)
        .collect();
    text.trim().to_owned()
}
