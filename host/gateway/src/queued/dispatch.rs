//! Runs what is in the queue.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HOST, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};
use http::{Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt, Limited};
use spore_queue::{Attempt, Delivery, Message, Outcome, Verdict};
use tokio::task::JoinSet;

use crate::chain;
use crate::errors::{InvokeError, one_line};
use crate::headers::{CALL_ID, DURATION_SECONDS, INTERNAL, remove_hop_by_hop};
use crate::queued::callback::{CallbackError, CallbackResult, Target};
use crate::reply::Answer;
use crate::request_body::CallerBody;
use crate::routes::Gateway;
use crate::settings::retry_policy;
use crate::trace::{self, TRACE_PARENT};

/// Longest result that is kept for its callback, in bytes.
const RESULT_BYTES_MAX: usize = 4 << 20;
/// How much of an answer that is the platform's own is shown with the invocation, in bytes.
const ERROR_BYTES_MAX: usize = 1000;

const FUNCTION_STATUS: HeaderName = HeaderName::from_static("x-function-status");
const FUNCTION_NAME: HeaderName = HeaderName::from_static("x-function-name");
const RETRY: HeaderName = HeaderName::from_static("x-retry");
const RETRY_MAX: HeaderName = HeaderName::from_static("x-retry-max");

/// Runs invocations until the daemon stops; those under way then may finish for as long as it waits.
pub(crate) async fn dispatch(gateway: Arc<Gateway>, grace: Duration) {
    let mut stopping = gateway.stopping.clone();
    let mut running = JoinSet::new();
    loop {
        let turn = tokio::select! {
            turn = gateway.queue.next(|function| gateway.functions.find(function).is_some()) => turn,
            _ = stopping.wait_for(|stopping| *stopping) => break,
        };
        while running.try_join_next().is_some() {}
        let gateway = gateway.clone();
        running.spawn(async move {
            if let Some(delivery) = turn.begin().await {
                run(&gateway, delivery).await;
            }
        });
    }
    let all = async { while running.join_next().await.is_some() {} };
    if tokio::time::timeout(grace, all).await.is_err() {
        tracing::warn!("queued invocations are broken off; they run again at the next start");
    }
}

/// One attempt's answer, in full.
struct Ended {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
    is_internal: bool,
    is_final: bool,
}

/// One attempt, and what follows from it.
async fn run(gateway: &Gateway, delivery: Delivery) {
    let message = &delivery.message;
    let function = gateway.functions.find(&message.function);
    let policy = function
        .as_ref()
        .map(|function| retry_policy(&function.record().deployment));
    let policy = policy.and_then(Result::ok).unwrap_or_default();
    let started = Instant::now();
    let result = match (function, request(&delivery)) {
        (Some(function), Some(request)) => {
            let answer = chain::answer_of(&gateway.functions, &function, request, started).await;
            collect(answer, message.callback.is_some()).await
        }
        (Some(_), None) => Ended {
            is_final: true,
            ..internal(StatusCode::BAD_REQUEST, "the kept request is not valid")
        },
        (None, _) => {
            let name = message.function.clone();
            let answer = InvokeError::UnknownFunction { name }.answer();
            Ended {
                is_final: true,
                ..collect(answer, true).await
            }
        }
    };
    let attempts = message.attempts + 1;
    let outcome = Outcome {
        status: result.status.as_u16(),
        is_internal: result.is_internal,
        is_final: result.is_final,
        retry_after: retry_after(&result.headers),
    };
    let attempt = Attempt {
        status: outcome.status,
        ended_ms: now_ms(),
        error: result.is_internal.then(|| shortened(&result.body)),
    };
    let verdict = policy.verdict(&outcome, attempts, fastrand::f64());
    tracing::debug!(
        function = message.function,
        call_id = message.call_id,
        trace = trace::of(parent(message).as_ref()),
        ?verdict,
        "a queued invocation was run"
    );
    if message.callback.is_some() && !matches!(verdict, Verdict::Again { .. }) {
        // A receiver that is slow or gone keeps nobody else waiting.
        let _turn = gateway.callbacks.turn().await;
        delivery.release();
        call_back(
            gateway,
            message,
            result,
            attempts,
            policy.attempts,
            started.elapsed(),
        )
        .await;
    }
    match verdict {
        Verdict::Answered => delivery.answered().await,
        Verdict::Again { after } => delivery.again(attempt, after).await,
        Verdict::Dead => delivery.bury(attempt).await,
    }
}

/// The trace in which it was accepted, as it was sent.
fn parent(message: &Message) -> Option<HeaderValue> {
    let found = message
        .headers
        .iter()
        .find(|(name, _)| *name == TRACE_PARENT.as_str());
    found.and_then(|(_, value)| HeaderValue::from_str(value).ok())
}

/// The request as it was accepted.
fn request(delivery: &Delivery) -> Option<Request<CallerBody>> {
    let message = &delivery.message;
    let mut request = Request::new(CallerBody::kept(delivery.body.clone()));
    *request.method_mut() = Method::from_bytes(message.method.as_bytes()).ok()?;
    *request.uri_mut() = message.path.parse().unwrap_or(Uri::from_static("/"));
    for (name, value) in &message.headers {
        let value: Option<Vec<u8>> = value.chars().map(|c| u8::try_from(u32::from(c)).ok()).collect();
        let value = HeaderValue::from_bytes(&value?).ok()?;
        request
            .headers_mut()
            .append(HeaderName::from_bytes(name.as_bytes()).ok()?, value);
    }
    Some(request)
}

fn internal(status: StatusCode, line: &str) -> Ended {
    Ended {
        status,
        headers: HeaderMap::new(),
        body: Bytes::copy_from_slice(line.as_bytes()),
        is_internal: true,
        is_final: false,
    }
}

/// Reads an answer to its end, which is when the instance is free again. Without a callback nobody reads the body of a
/// function's answer.
async fn collect(answer: Answer, is_wanted: bool) -> Ended {
    let (head, mut body) = answer.into_parts();
    let is_internal = head.headers.contains_key(INTERNAL);
    let bytes = if is_wanted || is_internal {
        match Limited::new(&mut body, RESULT_BYTES_MAX).collect().await {
            Ok(bytes) => bytes.to_bytes(),
            Err(error) if error.is::<http_body_util::LengthLimitError>() => {
                let line = format!(
                    "the answer is longer than the {RESULT_BYTES_MAX} bytes that are kept for a callback"
                );
                return Ended {
                    is_final: true,
                    ..internal(StatusCode::BAD_GATEWAY, &line)
                };
            }
            Err(error) => return internal(StatusCode::BAD_GATEWAY, &one_line(&*error)),
        }
    } else {
        while let Some(frame) = body.frame().await {
            if let Err(error) = frame {
                return internal(StatusCode::BAD_GATEWAY, &one_line(&error));
            }
        }
        Bytes::new()
    };
    Ended {
        status: head.status,
        headers: head.headers,
        body: bytes,
        is_internal,
        is_final: false,
    }
}

/// Seconds of `Retry-After`; a date is left to the policy.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds))
}

fn shortened(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(&body[..body.len().min(ERROR_BYTES_MAX)]);
    text.trim_end().to_owned()
}

async fn call_back(
    gateway: &Gateway,
    message: &Message,
    result: Ended,
    attempts: u32,
    attempts_max: u32,
    took: Duration,
) {
    let Some(url) = &message.callback else { return };
    let mut headers = result.headers;
    remove_hop_by_hop(&mut headers);
    headers.remove(HOST);
    headers.remove(http::header::CONTENT_LENGTH);
    headers
        .entry(CONTENT_TYPE)
        .or_insert(HeaderValue::from_static("text/plain"));
    let texts = [
        (CALL_ID, message.call_id.clone()),
        (DURATION_SECONDS, format!("{:.6}", took.as_secs_f64())),
        (FUNCTION_STATUS, result.status.as_u16().to_string()),
        (FUNCTION_NAME, message.function.clone()),
        (RETRY, (attempts - 1).to_string()),
        (RETRY_MAX, (attempts_max - 1).to_string()),
    ];
    for (name, text) in texts {
        if let Ok(value) = HeaderValue::from_str(&text) {
            headers.insert(name, value);
        }
    }
    // The receiver is told the trace that its sender was in.
    if let Some(parent) = parent(message) {
        headers.insert(TRACE_PARENT, parent);
    }
    let result = CallbackResult {
        headers,
        body: result.body,
    };
    let sent: Result<(), CallbackError> = async {
        let target = Target::parse(url.as_bytes())?;
        gateway.callbacks.send(&target, &result).await
    }
    .await;
    if let Err(error) = sent {
        let line = format!(
            "the result of invocation {} was not sent: {}",
            message.call_id,
            one_line(&error)
        );
        match gateway.functions.find(&message.function) {
            Some(function) => function.tell(line),
            None => tracing::warn!("{line}"),
        }
    }
}

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
