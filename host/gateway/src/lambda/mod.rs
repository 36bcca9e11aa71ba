//! Functions that speak the protocol of AWS Lambda: a request becomes an event, and what the function posts an answer.
//!
//! ```text
//!   request ──body read, at most 6 MiB──> event ──as any request──> the instance's Runtime API ──> the program
//!   answer  <──made of what it posted─── 200 a response │ 500 an error │ a stream, passed on as it comes
//! ```
//!
//! The Runtime API itself is the sandbox's ([`spore_sandbox::InstanceSpec::serves_runtime_api`]). To the rest of the gateway
//! an event is a request like any other, with the same pool, deadline and second attempts.

mod answer;
mod event;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use http::{HeaderName, Method, Request, Response, StatusCode, Uri};
use http_body::Body as _;
use http_body_util::BodyExt as _;
use jiff::Timestamp;
use serde::de::IgnoredAny;
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::body::{GatewayBody, StreamedBody};
use crate::connection::{FunctionBody, FunctionBodyError};
use crate::errors::InvokeError;
use crate::reply::{self, Answer};
use crate::request_body::{CallerBody, CallerBodyError};
pub(crate) use answer::AnswerError;
use answer::FunctionError;

/// Longest event, and longest response that is no stream, in bytes.
pub(crate) const PAYLOAD_BYTES_MAX: usize = 6 << 20;
/// Longest body that is read to its end although it is too long, in bytes.
const IGNORED_BYTES_MAX: usize = 32 << 20;
/// Longest head of a streamed answer, in bytes.
const PRELUDE_BYTES_MAX: usize = 64 << 10;
/// What ends that head.
const PRELUDE_END: [u8; 8] = [0; 8];
/// Longest body that takes no permit, in bytes.
const SMALL_BYTES_MAX: u64 = 64 << 10;
/// Longer bodies that are in memory at a time.
static LARGE: Semaphore = Semaphore::const_new(32);

const REQUEST_ID: HeaderName = HeaderName::from_static("lambda-runtime-aws-request-id");
const DEADLINE: HeaderName = HeaderName::from_static("lambda-runtime-deadline-ms");
const ARN: HeaderName = HeaderName::from_static("lambda-runtime-invoked-function-arn");
const TRACE: HeaderName = HeaderName::from_static("lambda-runtime-trace-id");
const RESPONSE_MODE: HeaderName = HeaderName::from_static("lambda-runtime-function-response-mode");
const ERROR_TYPE: HeaderName = HeaderName::from_static("lambda-runtime-function-error-type");
/// What Go's library says of that error, in base64.
const ERROR_BODY: HeaderName = HeaderName::from_static("lambda-runtime-function-error-body");
const FUNCTION_ERROR: HeaderName = HeaderName::from_static("x-amz-function-error");
/// Type of a streamed answer that begins with its head.
const WITH_PRELUDE: &str = "application/vnd.awslambda.http-integration-response";

/// What an event is made of.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum EventForm {
    /// The request as a whole; the response is made an answer of HTTP.
    #[default]
    Http,
    /// The request's body; the response is the answer's body.
    Raw,
}

impl EventForm {
    /// The form of this name, if there is one.
    pub(crate) fn from_name(name: &str) -> Option<Self> {
        match name {
            "http" => Some(Self::Http),
            "raw" => Some(Self::Raw),
            _ => None,
        }
    }
}

/// Region of functions that are told none.
pub(crate) const DEFAULT_REGION: &str = "us-east-1";

/// What programs find in their environment on Lambda, besides what the sandbox adds; before what the user sets.
pub(crate) fn environment(name: &str, memory_bytes: u64) -> Vec<(&'static str, String)> {
    let memory_mb = (memory_bytes >> 20).max(1);
    [
        ("_HANDLER", "bootstrap".to_owned()),
        ("LAMBDA_TASK_ROOT", "/var/task".to_owned()),
        ("LAMBDA_RUNTIME_DIR", "/var/runtime".to_owned()),
        ("AWS_REGION", DEFAULT_REGION.to_owned()),
        ("AWS_DEFAULT_REGION", DEFAULT_REGION.to_owned()),
        ("AWS_LAMBDA_FUNCTION_NAME", name.to_owned()),
        ("AWS_LAMBDA_FUNCTION_VERSION", "$LATEST".to_owned()),
        ("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", memory_mb.to_string()),
        ("AWS_LAMBDA_INITIALIZATION_TYPE", "on-demand".to_owned()),
        ("AWS_LAMBDA_LOG_GROUP_NAME", format!("/aws/lambda/{name}")),
        ("AWS_LAMBDA_LOG_STREAM_NAME", "spore".to_owned()),
    ]
    .into()
}

/// A request that was read in full, as its function gets it. The permit is for its memory.
pub(crate) struct EventRequest {
    pub(crate) request: Request<CallerBody>,
    pub(crate) permit: Option<SemaphorePermit<'static>>,
}

/// Reads a request and makes it an event, within `timeout`.
pub(crate) async fn event_request(
    function: &str,
    region: &str,
    form: EventForm,
    request: Request<CallerBody>,
    timeout: Duration,
) -> Result<EventRequest, InvokeError> {
    let reading = read(function, request);
    let read = tokio::time::timeout(timeout, reading).await;
    let (head, body, permit) = read.map_err(|_| InvokeError::SlowEvent {
        function: function.to_owned(),
        after: timeout,
    })??;
    let id = event::request_id(&head.headers);
    let event = match form {
        EventForm::Http => Bytes::from(event::event(function, &id, &head, &body, Timestamp::now())),
        EventForm::Raw if body.trim_ascii().is_empty() => Bytes::from_static(b"{}"),
        EventForm::Raw => {
            serde_json::from_slice::<IgnoredAny>(&body).map_err(|source| InvokeError::BadEvent {
                function: function.to_owned(),
                source,
            })?;
            body
        }
    };
    if event.len() > PAYLOAD_BYTES_MAX {
        return Err(InvokeError::LongEvent {
            function: function.to_owned(),
        });
    }
    let mut made = Request::new(CallerBody::kept(event));
    *made.method_mut() = Method::POST;
    *made.uri_mut() = Uri::from_static("/");
    let arn = format!("arn:aws:lambda:{region}:000000000000:function:{function}");
    let fields = [
        (REQUEST_ID, Some(id)),
        (ARN, Some(arn)),
        (TRACE, event::trace(&head.headers)),
    ];
    for (name, value) in fields {
        // Names and regions that are no header values are left out; the program does without.
        if let Some(value) = value.and_then(|value| HeaderValue::from_str(&value).ok()) {
            made.headers_mut().insert(name, value);
        }
    }
    made.headers_mut().insert(DEADLINE, HeaderValue::from_static("0"));
    Ok(EventRequest {
        request: made,
        permit,
    })
}

async fn read(
    function: &str,
    request: Request<CallerBody>,
) -> Result<(http::request::Parts, Bytes, Option<SemaphorePermit<'static>>), InvokeError> {
    let (head, body) = request.into_parts();
    let is_small = body
        .size_hint()
        .upper()
        .is_some_and(|upper| upper <= SMALL_BYTES_MAX);
    let permit = match is_small {
        true => None,
        false => LARGE.acquire().await.ok(),
    };
    let body = kept(body).await.map_err(|source| InvokeError::BadRequestBody {
        function: function.to_owned(),
        source,
    })?;
    let body = body.ok_or_else(|| InvokeError::LongEvent {
        function: function.to_owned(),
    })?;
    Ok((head, body, permit))
}

/// All of a body; none if it is too long. Most of what is too much is read all the same: few clients look for an answer before
/// they have sent everything.
async fn kept(mut body: CallerBody) -> Result<Option<Bytes>, CallerBodyError> {
    let is_too_long = |length: usize| length > PAYLOAD_BYTES_MAX;
    let mut kept = BytesMut::new();
    let mut length = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
    let was_announced = is_too_long(length);
    if length > IGNORED_BYTES_MAX {
        return Ok(None);
    }
    length = 0;
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame?.into_data() else { continue };
        length += data.len();
        if length > IGNORED_BYTES_MAX {
            return Ok(None);
        }
        if !was_announced && !is_too_long(length) {
            kept.extend_from_slice(&data);
        }
    }
    Ok((!was_announced && !is_too_long(length)).then(|| kept.freeze()))
}

/// Tells the program until when it may take, if this is an event.
pub(crate) fn set_deadline(headers: &mut HeaderMap, timeout: Duration) {
    if let Some(deadline) = headers.get_mut(DEADLINE) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let ms = u64::try_from((now + timeout).as_millis()).unwrap_or(u64::MAX);
        *deadline = HeaderValue::from(ms);
    }
}

/// The answer to the client, made of what the program has posted.
pub(crate) async fn answer(
    function: &str,
    form: EventForm,
    posted: Response<FunctionBody>,
) -> Result<Answer, InvokeError> {
    let (head, body) = posted.into_parts();
    let is_streamed = is_kind(&head.headers, WITH_PRELUDE)
        || head
            .headers
            .get(RESPONSE_MODE)
            .is_some_and(|mode| mode.as_bytes().eq_ignore_ascii_case(b"streaming"));
    let kind = head.headers.get(CONTENT_TYPE).cloned();
    match head.status {
        StatusCode::OK if is_streamed => streamed(function, form, kind, body).await,
        StatusCode::OK => {
            let (response, trailers) = collected(function, body).await?;
            if let Some(error) = failure_in(&trailers) {
                return Ok(failed(&error));
            }
            match form {
                EventForm::Raw => Ok(with_type(Response::new(GatewayBody::full(response)), kind)),
                EventForm::Http => {
                    let answer = answer::answer(&response).map_err(|source| bad(function, source))?;
                    Ok(answer.map(GatewayBody::full))
                }
            }
        }
        StatusCode::INTERNAL_SERVER_ERROR => {
            let (posted, _) = collected(function, body).await?;
            let kind = head.headers.get(ERROR_TYPE).and_then(|kind| kind.to_str().ok());
            match form {
                // Whoever sends events sees what the function says, as with Lambda's own API.
                EventForm::Raw if serde_json::from_slice::<IgnoredAny>(&posted).is_ok() => {
                    Ok(marked(with_type(
                        Response::new(GatewayBody::full(posted)),
                        Some(HeaderValue::from_static("application/json")),
                    )))
                }
                _ => Ok(failed(&FunctionError::of(&posted, kind))),
            }
        }
        _ => Err(InvokeError::NoAnswer {
            function: function.to_owned(),
        }),
    }
}

fn is_kind(headers: &HeaderMap, wanted: &str) -> bool {
    let kind = headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    kind.is_some_and(|kind| kind.eq_ignore_ascii_case(wanted))
}

fn with_type(mut answer: Answer, kind: Option<HeaderValue>) -> Answer {
    if let Some(kind) = kind {
        answer.headers_mut().insert(CONTENT_TYPE, kind);
    }
    answer
}

fn bad(function: &str, source: AnswerError) -> InvokeError {
    InvokeError::BadResponse {
        function: function.to_owned(),
        source,
    }
}

/// The answer that tells of an error of the function's own.
fn failed(error: &FunctionError) -> Answer {
    marked(reply::json(StatusCode::BAD_GATEWAY, error))
}

fn marked(mut answer: Answer) -> Answer {
    *answer.status_mut() = StatusCode::BAD_GATEWAY;
    let unhandled = HeaderValue::from_static("Unhandled");
    answer.headers_mut().insert(FUNCTION_ERROR, unhandled);
    answer
}

/// An error that comes behind a response which was under way.
fn failure_in(trailers: &HeaderMap) -> Option<FunctionError> {
    let kind = trailers.get(ERROR_TYPE)?.to_str().ok()?;
    let said = trailers.get(ERROR_BODY).map_or(&b""[..], HeaderValue::as_bytes);
    let said = STANDARD.decode(said).unwrap_or_default();
    (!kind.is_empty()).then(|| FunctionError::of(&said, Some(kind)))
}

/// All of a body that is no stream, and what comes behind it.
async fn collected(function: &str, mut body: FunctionBody) -> Result<(Bytes, HeaderMap), InvokeError> {
    let too_long = || InvokeError::LongResponse {
        function: function.to_owned(),
    };
    if body.size_hint().lower() > PAYLOAD_BYTES_MAX as u64 {
        return Err(too_long());
    }
    let mut collected = BytesMut::new();
    let mut trailers = HeaderMap::new();
    while let Some(frame) = next_frame(function, &mut body).await? {
        match frame.into_data() {
            Ok(data) if collected.len() + data.len() > PAYLOAD_BYTES_MAX => return Err(too_long()),
            Ok(data) => collected.extend_from_slice(&data),
            Err(frame) => trailers.extend(frame.into_trailers().unwrap_or_default()),
        }
    }
    Ok((collected.freeze(), trailers))
}

async fn next_frame(
    function: &str,
    body: &mut FunctionBody,
) -> Result<Option<http_body::Frame<Bytes>>, InvokeError> {
    let frame = std::future::poll_fn(|context| body.poll_frame(context)).await;
    frame.transpose().map_err(|error| {
        let function = function.to_owned();
        match error {
            FunctionBodyError::Ended(cause) => InvokeError::Ended { function, cause },
            FunctionBodyError::TimedOut { after } => InvokeError::Ended {
                function,
                cause: spore_sandbox::EndCause::TimedOut { after },
            },
            FunctionBodyError::BadRequestBody(source) => InvokeError::BadRequestBody {
                function,
                source: *source,
            },
            FunctionBodyError::Broken(_) | FunctionBodyError::Failed { .. } => {
                InvokeError::NoAnswer { function }
            }
        }
    })
}

/// An answer whose body is passed on as it comes.
async fn streamed(
    function: &str,
    form: EventForm,
    kind: Option<HeaderValue>,
    mut body: FunctionBody,
) -> Result<Answer, InvokeError> {
    let has_prelude = kind
        .as_ref()
        .is_some_and(|kind| kind.as_bytes().eq_ignore_ascii_case(WITH_PRELUDE.as_bytes()));
    if form == EventForm::Raw || !has_prelude {
        let answer = Response::new(StreamedBody::new(Bytes::new(), body).into());
        return Ok(with_type(answer, kind));
    }
    let mut read = BytesMut::new();
    let end = loop {
        let found = read
            .windows(PRELUDE_END.len())
            .position(|window| window == PRELUDE_END);
        if let Some(end) = found.filter(|end| *end <= PRELUDE_BYTES_MAX) {
            break end;
        }
        if read.len() > PRELUDE_BYTES_MAX {
            return Err(InvokeError::LongPrelude {
                function: function.to_owned(),
            });
        }
        match next_frame(function, &mut body).await? {
            Some(frame) => {
                if let Ok(data) = frame.into_data() {
                    read.extend_from_slice(&data);
                }
            }
            None => {
                return Err(InvokeError::LongPrelude {
                    function: function.to_owned(),
                });
            }
        }
    };
    let prelude = read.split_to(end);
    let first = read.split_off(PRELUDE_END.len()).freeze();
    let answer = answer::prelude(&prelude).map_err(|source| bad(function, source))?;
    Ok(answer.map(|_| StreamedBody::new(first, body).into()))
}

/// For the fuzz targets.
#[cfg(feature = "fuzzing")]
pub(crate) mod fuzzing {
    /// What a program has posted, made an answer, a head or an error; whatever it is.
    pub(crate) fn posted(bytes: &[u8]) {
        if let Ok(made) = super::answer::answer(bytes) {
            assert!((200..600).contains(&made.status().as_u16()), "a final status");
            assert!(made.body().len() <= bytes.len(), "nothing grows");
            assert!(!made.headers().contains_key(http::header::TRANSFER_ENCODING));
            assert!(!made.headers().contains_key(http::header::CONTENT_LENGTH));
        }
        let _ = super::answer::prelude(bytes);
        let error = serde_json::to_vec(&super::FunctionError::of(bytes, None)).expect("it has JSON");
        assert!(error.len() <= 64 << 10, "an error is short");
    }
}
