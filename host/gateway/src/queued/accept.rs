//! `POST /async-function/NAME[.NAMESPACE][/path]`

use std::error::Error;
use std::net::SocketAddr;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use http::header::HeaderName;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use spore_queue::{AcceptError, Message, State};

use crate::chain::{self, ChainError};
use crate::client_body::{ClientBody, ClientBodyError};
use crate::errors::{InvokeError, shown};
use crate::functions::Function;
use crate::headers::Stamps;
use crate::invoke::{split_target, to_function};
use crate::names::excerpt;
use crate::queued::callback::{CallbackError, Target};
use crate::reply::{self, Answer};
use crate::routes::Gateway;

const CALLBACK_URL: HeaderName = HeaderName::from_static("x-callback-url");

/// Why an invocation was not accepted.
#[derive(Debug, thiserror::Error)]
enum QueueingError {
    #[error("X-Callback-Url is not valid")]
    Callback(#[from] CallbackError),
    #[error(
        "the request's body is longer than {limit_bytes} bytes: send it to /function/, or start the daemon with a higher \
         --async-body-limit"
    )]
    TooLong { limit_bytes: usize },
    #[error("the request's body could not be read")]
    Body(#[source] Box<dyn Error + Send + Sync>),
    #[error("the invocation was not accepted")]
    Queue(#[from] AcceptError),
    #[error(transparent)]
    Chain(#[from] ChainError),
}

impl QueueingError {
    fn answer(&self, data: &Path) -> Answer {
        let status = match self {
            Self::Chain(error) => return error.answer(),
            Self::Body(source) => source
                .downcast_ref::<ClientBodyError>()
                .map_or(StatusCode::BAD_REQUEST, ClientBodyError::status),
            Self::Callback(_) => StatusCode::BAD_REQUEST,
            Self::TooLong { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Queue(error) => accept_status(error),
        };
        let (status, line, retry_helps) = shown(self, status, data);
        let is_transient = matches!(
            self,
            Self::Queue(AcceptError::Full(_) | AcceptError::Closed | AcceptError::Nats(_))
        );
        let answer = reply::text(status, &line);
        if retry_helps || is_transient {
            reply::retry_soon(answer)
        } else {
            answer
        }
    }
}

/// What it means for a caller that the queue has not accepted something.
pub(crate) fn accept_status(error: &AcceptError) -> StatusCode {
    match error {
        AcceptError::Full(_) => StatusCode::TOO_MANY_REQUESTS,
        AcceptError::TooLong { .. } => StatusCode::PAYLOAD_TOO_LARGE,
        AcceptError::Record(_) => StatusCode::INTERNAL_SERVER_ERROR,
        AcceptError::Nats(_) | AcceptError::Closed => StatusCode::SERVICE_UNAVAILABLE,
    }
}

/// Accepts an invocation; the answer says so once it is kept.
#[utoipa::path(
    post,
    path = "/async-function/{name}",
    params(("name" = String, Path, description = "NAME or NAME.NAMESPACE, and the path behind it"), ("X-Callback-Url" = Option<String>, Header, description = "Where the result is sent")),
    request_body = Vec<u8>,
    responses(
        (status = 202, description = "The invocation is kept, and will be run"),
        (status = 400, description = "The callback is not a URL, or the body broke off"),
        (status = 404, description = "There is no such function"),
        (status = 408, description = "The body stood still"),
        (status = 413, description = "The body is too long"),
        (status = 429, description = "Too many invocations wait"),
        (status = 500, description = "It could not be written"),
        (status = 503, description = "The daemon stops, or the NATS server that keeps the queue is away"),
        (status = 507, description = "The disk is full"),
    ),
    security(())
)]
pub(crate) async fn accept(gateway: &Gateway, mut request: Request<ClientBody>, peer: SocketAddr) -> Answer {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let stamps = Stamps::new(request.headers(), since_epoch.as_nanos());
    let span = gateway.functions.spans.as_ref().and_then(|spans| {
        let (method, path) = (request.method().clone(), request.uri().path().to_owned());
        spans.request(request.headers_mut(), &method, &path)
    });
    let (name, path) = split_target(request.uri(), "/async-function/");
    let mut answer = match gateway.functions.find(name) {
        None => InvokeError::UnknownFunction { name: excerpt(name) }.answer(),
        Some(function) => {
            let request = to_function(request, path, peer, &stamps);
            let accepted_ms = u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX);
            queue(gateway, &function, request, accepted_ms).await.map_or_else(
                |error| error.answer(&gateway.data),
                |()| reply::empty(StatusCode::ACCEPTED),
            )
        }
    };
    stamps.put(answer.headers_mut());
    if let Some(span) = span {
        span.answered(answer.status());
    }
    answer
}

async fn queue(
    gateway: &Gateway,
    function: &Function,
    request: Request<ClientBody>,
    accepted_ms: u64,
) -> Result<(), QueueingError> {
    let (head, body) = request.into_parts();
    chain::check(&gateway.functions, function, &head.headers)?;
    let callback = head.headers.get(CALLBACK_URL).filter(|url| !url.is_empty());
    let callback = callback.map(|url| Target::parse(url.as_bytes())).transpose()?;
    let limit_bytes = gateway.functions.config.max_queued_body_bytes;
    let body = match Limited::new(body, limit_bytes).collect().await {
        Ok(body) => body.to_bytes(),
        Err(error) if error.is::<LengthLimitError>() => return Err(QueueingError::TooLong { limit_bytes }),
        Err(error) => return Err(QueueingError::Body(error)),
    };
    let call_id = head.headers.get(crate::headers::CALL_ID);
    let message = Message {
        call_id: call_id.map(|id| text(id.as_bytes())).unwrap_or_default(),
        function: function.id.key(),
        method: head.method.to_string(),
        path: head.uri.to_string(),
        headers: kept(&head.headers),
        callback: callback.map(|target| target.url),
        body_bytes: body.len() as u64,
        accepted_ms,
        state: State::Waiting { due_ms: accepted_ms },
        attempts: 0,
        last: None,
    };
    Ok(gateway.queue.accept(message, body).await?)
}

/// Bytes as characters of the same number.
fn text(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| char::from(*byte)).collect()
}

fn kept(headers: &HeaderMap) -> Vec<(String, String)> {
    let headers = headers.iter();
    headers
        .map(|(name, value)| (name.as_str().to_owned(), text(value.as_bytes())))
        .collect()
}
