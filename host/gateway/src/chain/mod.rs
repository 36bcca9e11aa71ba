//! Functions whose answers are the requests of others, run one after the other without leaving the daemon (docs/chains.md).
//!
//! ```text
//!   request ──> first ──2xx, its body──> second ──2xx──> … ──> last ──> status, headers and body of the answer
//!                 │                        │
//!                 └──── any other status, or no answer at all: the answer, with the link's name
//! ```
//!
//! A list is of the function that was called, by its annotation, or else of the request, by its header; lists of the other
//! links do not count. Whoever called drives all links in one task, as it drives one function.

mod body;
mod links;

use std::sync::Arc;
use std::time::Instant;

use http::header::{
    CONTENT_ENCODING, CONTENT_LANGUAGE, CONTENT_TYPE, HOST, HeaderMap, HeaderName, HeaderValue, USER_AGENT,
};
use http::{Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt as _, Limited};
use spore_store::Protocol;

use crate::body::GatewayBody;
use crate::errors::one_line;
use crate::functions::{Function, Functions};
use crate::headers::{
    CALL_ID, DURATION_SECONDS, FAULT, FORWARDED_FOR, FORWARDED_HOST, INTERNAL, START, START_TIME,
};
use crate::invoke;
use crate::names::excerpt;
use crate::reply::{self, Answer};
use crate::request_body::CallerBody;
use crate::trace::{TRACE_PARENT, TRACE_STATE};
use crate::upgrade::Asked;
pub(crate) use body::LinkBody;
pub(crate) use links::{LinksError, of_deployment};

/// Of a request: the functions that the answer goes on to. Of an answer: the links that have answered.
pub(crate) const CHAIN: HeaderName = HeaderName::from_static("x-spore-chain");
/// The link whose answer ended the chain early.
const FAILED: HeaderName = HeaderName::from_static("x-spore-chain-failed");
/// More context of a caller's trace.
const BAGGAGE: HeaderName = HeaderName::from_static("baggage");
/// Longest line that says why a link was not answered, in bytes.
const LINE_BYTES_MAX: usize = 64 << 10;

/// What goes from the first request to those of the other links.
const KEPT_OF_REQUEST: [HeaderName; 9] = [
    CALL_ID,
    START_TIME,
    TRACE_PARENT,
    TRACE_STATE,
    BAGGAGE,
    FORWARDED_FOR,
    FORWARDED_HOST,
    HOST,
    USER_AGENT,
];
/// What goes with the body.
const KEPT_OF_ANSWER: [HeaderName; 3] = [CONTENT_TYPE, CONTENT_ENCODING, CONTENT_LANGUAGE];

/// Why a chain was not begun, or not ended.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ChainError {
    #[error(transparent)]
    Links(#[from] LinksError),
    #[error("the header {CHAIN} is no text")]
    NotText,
    #[error(
        "{function} has a chain of its own (annotation {}): leave the header {CHAIN} out",
        links::ANNOTATION
    )]
    HasItsOwn { function: String },
    #[error("link {position} of {length} of the chain, {name}: no function is named so")]
    Unknown {
        position: usize,
        length: usize,
        name: String,
    },
    #[error("link {position} of {length} of the chain, {name}: the answer broke off: {line}")]
    BrokenOff {
        position: usize,
        length: usize,
        name: String,
        line: String,
    },
}

impl ChainError {
    /// The answer to the caller.
    pub(crate) fn answer(&self) -> Answer {
        let (status, fault) = match self {
            Self::Links(_) | Self::NotText | Self::HasItsOwn { .. } => (StatusCode::BAD_REQUEST, "caller"),
            Self::Unknown { .. } | Self::BrokenOff { .. } => (StatusCode::BAD_GATEWAY, "function"),
        };
        let mut answer = reply::text(status, &one_line(self));
        let headers = answer.headers_mut();
        headers.insert(INTERNAL, HeaderValue::from_static("proxy"));
        headers.insert(FAULT, HeaderValue::from_static(fault));
        if let Self::Unknown { name, .. } | Self::BrokenOff { name, .. } = self {
            put(headers, FAILED, name);
        }
        answer
    }
}

/// The names of the functions that the answer to a request goes on to; none if it is the last one.
fn names(function: &Function, headers: &HeaderMap) -> Result<Option<Arc<[String]>>, ChainError> {
    let own = function.chain();
    let Some(asked) = headers.get(CHAIN) else {
        return Ok(own);
    };
    if own.is_some() {
        let function = function.name.clone();
        return Err(ChainError::HasItsOwn { function });
    }
    let text = asked.to_str().map_err(|_| ChainError::NotText)?;
    let names = links::parse(text, &function.id.key(), "the header x-spore-chain")?;
    Ok(Some(names.into()))
}

fn find(functions: &Functions, first: &str, names: &[String]) -> Result<Vec<Arc<Function>>, ChainError> {
    let length = names.len() + 1;
    let all = names.iter().enumerate();
    all.map(|(index, name)| {
        let unknown = || ChainError::Unknown {
            position: index + 2,
            length,
            name: excerpt(name),
        };
        debug_assert_ne!(name, first, "a list leads back to its beginning");
        functions.find(name).ok_or_else(unknown)
    })
    .collect()
}

/// Whether a chain can be begun for a request, if it asks for one.
pub(crate) fn check(
    functions: &Functions,
    function: &Function,
    headers: &HeaderMap,
) -> Result<(), ChainError> {
    match names(function, headers)? {
        Some(names) => find(functions, &function.id.key(), &names).map(drop),
        None => Ok(()),
    }
}

/// Whether a request to a function goes to a server, and its answer to the caller.
pub(crate) fn is_server_alone(function: &Function, headers: &HeaderMap) -> bool {
    function.protocol() == Protocol::Http && function.chain().is_none() && !headers.contains_key(CHAIN)
}

/// What a function answers, or the last one of its chain.
pub(crate) async fn answer_of(
    functions: &Functions,
    function: &Arc<Function>,
    mut request: Request<CallerBody>,
    started: Instant,
) -> Answer {
    let names = match names(function, request.headers()) {
        Ok(Some(names)) => names,
        Ok(None) => return invoke::answer_of(functions, function, request, started).await,
        Err(error) => return error.answer(),
    };
    request.headers_mut().remove(CHAIN);
    // What a connection becomes is no request to the next one.
    Asked::forget(&mut request);
    // They ask the first one about itself.
    if matches!(*request.method(), Method::HEAD | Method::OPTIONS) {
        return invoke::answer_of(functions, function, request, started).await;
    }
    match find(functions, &function.id.key(), &names) {
        Ok(links) => run(functions, function, &links, request, started).await,
        Err(error) => error.answer(),
    }
}

async fn run(
    functions: &Functions,
    first: &Arc<Function>,
    others: &[Arc<Function>],
    request: Request<CallerBody>,
    started: Instant,
) -> Answer {
    let mut kept = HeaderMap::new();
    for name in KEPT_OF_REQUEST {
        if let Some(value) = request.headers().get(&name) {
            kept.insert(name, value.clone());
        }
    }
    let length = others.len() + 1;
    let mut answered = first.name.clone();
    let mut is_cold = false;
    let mut link = first;
    let mut answer = invoke::answer_of(functions, first, request, started).await;
    for (index, next) in others.iter().enumerate() {
        is_cold |= was_cold(&answer);
        if !answer.status().is_success() || answer.headers().contains_key(INTERNAL) {
            return failed(answer, link, index + 1, length).await;
        }
        let (head, body) = answer.into_parts();
        let request = match body::hand_over(body).await {
            Ok(body) => next_request(&kept, &head.headers, body),
            Err(error) => {
                let error = ChainError::BrokenOff {
                    position: index + 1,
                    length,
                    name: link.name.clone(),
                    line: one_line(&error),
                };
                return error.answer();
            }
        };
        answered = format!("{answered},{}", next.name);
        link = next;
        answer = invoke::answer_of(functions, link, request, Instant::now()).await;
    }
    if answer.headers().contains_key(INTERNAL) {
        return failed(answer, link, length, length).await;
    }
    is_cold |= was_cold(&answer);
    let headers = answer.headers_mut();
    put(headers, CHAIN, &answered);
    put(
        headers,
        DURATION_SECONDS,
        &format!("{:.6}", started.elapsed().as_secs_f64()),
    );
    if is_cold {
        headers.insert(START, HeaderValue::from_static("cold"));
    }
    answer
}

fn was_cold(answer: &Answer) -> bool {
    answer.headers().get(START).is_some_and(|start| start == "cold")
}

/// The request of a link that has another one before it.
fn next_request(kept: &HeaderMap, answered: &HeaderMap, body: CallerBody) -> Request<CallerBody> {
    let mut request = Request::new(body);
    *request.method_mut() = Method::POST;
    *request.uri_mut() = Uri::from_static("/");
    request.headers_mut().clone_from(kept);
    for name in KEPT_OF_ANSWER {
        if let Some(value) = answered.get(&name) {
            request.headers_mut().insert(name, value.clone());
        }
    }
    request
}

/// The answer of a link that ended the chain. What the function says stays as it is; what the gateway says about it names
/// the link.
async fn failed(answer: Answer, link: &Function, position: usize, length: usize) -> Answer {
    let (mut head, mut body) = answer.into_parts();
    put(&mut head.headers, FAILED, &link.name);
    if head.headers.contains_key(INTERNAL) {
        let line = Limited::new(&mut body, LINE_BYTES_MAX).collect().await;
        let line = line.map(|line| line.to_bytes()).unwrap_or_default();
        let line = String::from_utf8_lossy(&line);
        let text = format!("link {position} of {length} of the chain, {line}");
        head.headers.remove(http::header::CONTENT_LENGTH);
        body = GatewayBody::full(text);
    }
    Answer::from_parts(head, body)
}

fn put(headers: &mut HeaderMap, name: HeaderName, text: &str) {
    if let Ok(value) = HeaderValue::from_str(text) {
        headers.insert(name, value);
    }
}
