//! One invocation, from the request at the gateway to the head of the response.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use http::header::{CONTENT_TYPE, HeaderValue, UPGRADE};
use http::uri::PathAndQuery;
use http::{Method, Request, Response, StatusCode, Uri, Version};
use hyper::body::Incoming;
use spore_pool::AcquireError;
use spore_sandbox::{ConnectError, EndCause, StartError, StopReason};
use spore_store::Protocol;
use tokio::time::Sleep;

use crate::body::GatewayBody;
use crate::chain;
use crate::client_body::ClientBody;
use crate::connection::{
    ExchangeError, FunctionBody, FunctionConnection, FunctionLease, OpenError, Running, end_report,
};
use crate::errors::{Fault, InvokeError, one_line};
use crate::exec;
use crate::functions::{Function, Functions};
use crate::headers::{self, CALL_ID, DURATION_SECONDS, START, Stamps};
use crate::lambda;
use crate::provider;
use crate::reply::Answer;
use crate::request_body::{CallerBody, CallerBodyError, Replay, RequestBody};
use crate::spans::InvocationSpan;
use crate::statistics::{CALL_ID_CHARACTERS_MAX, FunctionStatistics, Recording};
use crate::trace::{self, TRACE_PARENT};
use crate::upgrade::Asked;

/// How often an instance that turns out to have ended while it was idle is replaced by another one.
const MAX_ENDED_INSTANCES: usize = 3;

/// Answers a request to `/function/…`; `target` is the path behind that.
pub(crate) async fn invoke(
    functions: &Functions,
    mut request: Request<ClientBody>,
    peer: SocketAddr,
) -> Answer {
    let started = Instant::now();
    let now_ns = provider::start_time_ns(functions.config.role, request.headers()).unwrap_or_else(|| {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        now.map_or(0, |since| since.as_nanos())
    });
    let stamps = Stamps::new(request.headers(), now_ns);
    let (name, path) = split_target(request.uri(), "/function/");
    let found = functions.find(name).ok_or_else(|| InvokeError::UnknownFunction {
        name: name.chars().take(130).collect(),
    });
    let span = functions.spans.as_ref().and_then(|spans| {
        let (method, path) = (request.method().clone(), request.uri().path().to_owned());
        spans.request(request.headers_mut(), &method, &path)
    });
    let mut answer = match found {
        Err(error) => error.answer(),
        Ok(function) => {
            let is_connect = request.method() == Method::CONNECT;
            let asked = Asked::take(&mut request);
            let is_stream = asked.as_ref().is_some_and(Asked::is_stream);
            if is_connect && !(is_stream && chain::is_server_alone(&function, request.headers())) {
                // Whatever 2xx were the answer, it would mean that bytes of the protocol follow.
                let function = function.name.clone();
                return InvokeError::NoTunnel { function }.answer();
            }
            let mut request = to_function(request, path, peer, &stamps);
            let limit = functions.config.max_body_bytes;
            match limit.map_or(Ok(()), |limit_bytes| request.body_mut().limit(limit_bytes)) {
                Ok(()) => {
                    let mut request = request.map(CallerBody::Client);
                    if let Some(asked) = asked {
                        asked.put(&mut request);
                    }
                    chain::answer_of(functions, &function, request, started).await
                }
                Err(source) => {
                    let (function, source) = (function.name.clone(), source.into());
                    InvokeError::BadRequestBody { function, source }.answer()
                }
            }
        }
    };
    stamps.put(answer.headers_mut());
    if let Some(span) = &span {
        span.answered(answer.status());
    }
    answer.map(|body| body.traced(span))
}

/// What a function answers to a request that is its own already, or why it does not.
pub(crate) async fn answer_of(
    functions: &Functions,
    function: &Arc<Function>,
    mut request: Request<CallerBody>,
    started: Instant,
) -> Answer {
    function.invocations.fetch_add(1, Ordering::Relaxed);
    let spans = functions.spans.as_ref();
    let span = spans.and_then(|spans| spans.invocation(request.headers_mut(), &function.name));
    let [call_id, parent] = [CALL_ID, TRACE_PARENT].map(|name| request.headers().get(name).cloned());
    let answer = invoke_function(functions, function, request, started, span.as_ref())
        .await
        .unwrap_or_else(|error| {
            if error.fault() == Fault::Function {
                function.tell(failed_line(&error, call_id.as_ref(), parent.as_ref()));
            }
            error.answer()
        });
    function.counts.record(answer.status(), started.elapsed());
    if let Some(span) = span {
        span.answered(answer.status());
    }
    answer
}

/// What the function's log says of an invocation that it has not answered: which one, and of which trace.
fn failed_line(error: &InvokeError, call_id: Option<&HeaderValue>, parent: Option<&HeaderValue>) -> String {
    let call_id = call_id.and_then(|id| id.to_str().ok()).unwrap_or_default();
    let call_id: String = call_id.chars().take(CALL_ID_CHARACTERS_MAX).collect();
    let (trace, line) = (trace::of(parent), one_line(error));
    format!("invocation {call_id} (trace {trace}) was not answered: {line}")
}

/// Name of the function, and path with query as the function sees them, of a target below `prefix`.
pub(crate) fn split_target<'a>(uri: &'a Uri, prefix: &str) -> (&'a str, PathAndQuery) {
    let target = uri.path_and_query().map_or("", PathAndQuery::as_str);
    let target = target.strip_prefix(prefix).unwrap_or_default();
    let end = target.find(['/', '?']).unwrap_or(target.len());
    let (name, rest) = target.split_at(end);
    let path = if rest.starts_with('/') {
        PathAndQuery::try_from(rest)
    } else {
        PathAndQuery::try_from(format!("/{rest}"))
    };
    (name, path.unwrap_or(PathAndQuery::from_static("/")))
}

/// A client's request as the function sees it.
pub(crate) fn to_function<B>(
    request: Request<B>,
    path: PathAndQuery,
    peer: SocketAddr,
    stamps: &Stamps,
) -> Request<B> {
    let (mut parts, body) = request.into_parts();
    parts.uri = Uri::from(path);
    parts.version = Version::HTTP_11;
    headers::to_function(&mut parts.headers, peer, stamps);
    // What belongs to the client's connection, such as a pending upgrade, stays there.
    parts.extensions.clear();
    Request::from_parts(parts, body)
}

async fn invoke_function(
    functions: &Functions,
    function: &Arc<Function>,
    mut request: Request<CallerBody>,
    started: Instant,
    span: Option<&Arc<InvocationSpan>>,
) -> Result<Answer, InvokeError> {
    if function.protocol() != Protocol::Http {
        Asked::forget(&mut request);
    }
    if let Some(settings) = function.exec() {
        let invocation = Invocation::new(functions, function, span);
        return exec::invoke(invocation, &settings, request, started).await;
    }
    let lambda = function.lambda();
    let asked = request.extensions_mut().remove::<Asked>();
    let request_type = request.headers().get(CONTENT_TYPE).cloned();
    let head_only = request.method() == Method::HEAD;
    let mut invocation = Invocation::new(functions, function, span);
    let timeout = invocation.timeout;
    let (event, request) = match &lambda {
        None => (None, function.asked(request)),
        Some(settings) => {
            let name = &function.name;
            let made = lambda::event_request(name, &settings.region, settings.form, request, timeout).await?;
            (Some(made.permit), made.request)
        }
    };
    let (running, deadline, response) = invocation.run(request).await?;
    let cold = running.lease.is_cold();
    if cold {
        function.counts.cold.fetch_add(1, Ordering::Relaxed);
    }
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        let upgrade = Upgrade {
            asked,
            function,
            cold,
            started,
        };
        return upgrade.answer(response, running, deadline).await;
    }
    if let Some(status) = asked.filter(Asked::is_stream).map(|_| response.status())
        && status.is_success()
    {
        // To a CONNECT it would mean that bytes of the protocol follow.
        running.lease.discard(StopReason::CallerGone);
        let function = function.name.clone();
        return Err(InvokeError::NoUpgrade { function, status });
    }
    let response = FunctionBody::new(response, running, deadline, timeout);
    if let Some(settings) = lambda {
        let answer = lambda::answer(&function.name, settings.form, response).await?;
        drop(event);
        return Ok(stamped(answer, request_type, head_only, cold, started));
    }
    Ok(to_client(response, request_type, head_only, cold, started))
}

/// An answer by which the function switches protocols.
struct Upgrade<'a> {
    asked: Option<Asked>,
    function: &'a Function,
    cold: bool,
    started: Instant,
}

impl Upgrade<'_> {
    async fn answer(
        self,
        response: Response<Incoming>,
        running: Running,
        deadline: Pin<Box<Sleep>>,
    ) -> Result<Answer, InvokeError> {
        let function = self.function.name.clone();
        let Some(asked) = self.asked else {
            running.lease.discard(StopReason::NotNeeded);
            return Err(InvokeError::UnaskedUpgrade { function });
        };
        let (mut parts, _) = response.into_parts();
        let protocol = parts.headers.get(UPGRADE).cloned();
        head_to_client(&mut parts, None, self.cold, self.started);
        asked.answer(protocol, &mut parts);
        let idle_timeout = self.function.upgrade_idle_timeout();
        let tunnel = running.into_tunnel(asked, deadline, idle_timeout).await;
        let tunnel = tunnel.ok_or(InvokeError::NoAnswer { function })?;
        Ok(Response::from_parts(
            parts,
            GatewayBody::Upgraded(Some(Box::new(tunnel))),
        ))
    }
}

fn to_client(
    response: Response<FunctionBody>,
    request_type: Option<HeaderValue>,
    head_only: bool,
    cold: bool,
    started: Instant,
) -> Answer {
    let is_over = response.body().is_end_stream();
    let answer = response.map(|body| match is_over {
        // A body that is over already needs no driving; and its length, if any, is that of the GET.
        true => GatewayBody::empty(),
        false => GatewayBody::Function(Box::new(body)),
    });
    stamped(answer, request_type, head_only, cold, started)
}

/// An answer with what every client of a function finds.
fn stamped(
    answer: Answer,
    request_type: Option<HeaderValue>,
    head_only: bool,
    cold: bool,
    started: Instant,
) -> Answer {
    let (mut parts, body) = answer.into_parts();
    head_to_client(&mut parts, request_type, cold, started);
    let body = if head_only { GatewayBody::empty() } else { body };
    Response::from_parts(parts, body)
}

/// Makes the head of a function's answer that of the client's.
pub(crate) fn head_to_client(
    parts: &mut http::response::Parts,
    request_type: Option<HeaderValue>,
    cold: bool,
    started: Instant,
) {
    let bodiless = matches!(
        parts.status,
        StatusCode::SWITCHING_PROTOCOLS | StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED
    );
    headers::to_client(&mut parts.headers, request_type, !bodiless);
    parts.version = Version::HTTP_11;
    parts.extensions.clear();
    let seconds = format!("{:.6}", started.elapsed().as_secs_f64());
    if let Ok(seconds) = HeaderValue::from_str(&seconds) {
        parts.headers.insert(DURATION_SECONDS, seconds);
    }
    parts.headers.insert(
        START,
        HeaderValue::from_static(if cold { "cold" } else { "warm" }),
    );
}

/// An invocation that looks for an instance which answers.
pub(crate) struct Invocation<'a> {
    functions: &'a Functions,
    pub(crate) function: &'a Arc<Function>,
    /// Those of the version that there was when the request came.
    statistics: Arc<FunctionStatistics>,
    pub(crate) timeout: Duration,
    span: Option<&'a Arc<InvocationSpan>>,
    ended_instances: usize,
    /// An instance was lost before the request could reach it, and another one was asked for. Once is enough.
    has_started_again: bool,
}

/// A request as it came, to be sent once more if need be.
struct Original {
    head: http::request::Parts,
    replay: Replay,
}

/// What answers, until when, and the head of the answer.
type Answering = (Running, Pin<Box<Sleep>>, Response<Incoming>);

impl<'a> Invocation<'a> {
    pub(crate) fn new(
        functions: &'a Functions,
        function: &'a Arc<Function>,
        span: Option<&'a Arc<InvocationSpan>>,
    ) -> Self {
        Self {
            functions,
            function,
            statistics: function.statistics(),
            timeout: function.timeout(),
            span,
            ended_instances: 0,
            has_started_again: false,
        }
    }

    /// Whether another instance may be asked for, which is so once.
    pub(crate) fn may_start_again(&mut self) -> bool {
        !std::mem::replace(&mut self.has_started_again, true)
    }

    pub(crate) fn name(&self) -> String {
        self.function.name.clone()
    }

    pub(crate) async fn lease(
        &mut self,
        head: &http::request::Parts,
    ) -> Result<(FunctionLease, Recording), InvokeError> {
        let asked = Instant::now();
        let mut leased = self.function.pool.acquire(self.timeout).await;
        if let Err(AcquireError::StartFailed(error)) = &leased
            && !self.has_started_again
            && (is_lost(error) || self.functions.mend(self.function).await?)
        {
            self.has_started_again = true;
            leased = self.function.pool.acquire(self.timeout).await;
        }
        let lease = leased.map_err(|source| {
            if let Some(span) = self.span {
                span.waited_in_vain(asked);
            }
            self.no_instance(source)
        })?;
        let recording = Recording::begin(
            Arc::clone(&self.statistics),
            asked,
            lease.is_cold(),
            head.headers.get(CALL_ID),
            self.span,
        );
        Ok((lease, recording))
    }

    fn no_instance(&self, source: AcquireError) -> InvokeError {
        let function = self.name();
        match (&source, self.function.max_inflight()) {
            (AcquireError::QueueFull { .. }, Some(limit)) => InvokeError::TooManyInflight { function, limit },
            _ => InvokeError::NoInstance { function, source },
        }
    }

    /// Sends the request to an instance and waits for the head of the response.
    async fn run(&mut self, request: Request<CallerBody>) -> Result<Answering, InvokeError> {
        let (head, body) = request.into_parts();
        let (body, replay) = RequestBody::new(body);
        let original = Original { head, replay };
        let mut request = Request::from_parts(original.head.clone(), body);
        loop {
            let (mut lease, recording) = self.lease(&original.head).await?;
            // The deadline is the function's own: waiting for an instance does not count.
            let mut deadline = Box::pin(tokio::time::sleep(self.timeout));
            lambda::set_deadline(request.headers_mut(), self.timeout);
            if let Some(mut kept) = lease.take_connection() {
                lease.instance();
                match kept.exchange(request, &mut deadline).await {
                    Ok(response) => {
                        original.replay.may_stall();
                        return Ok((Running::new(lease, kept, recording), deadline, response));
                    }
                    Err(ExchangeError::NotSent(again)) => request = *again,
                    Err(other) => {
                        request = self.again(lease, kept, other, &original).await?;
                        continue;
                    }
                }
            }
            let opening = FunctionConnection::open(lease.instance());
            let opened = tokio::select! {
                opened = opening => opened,
                () = &mut deadline => return Err(self.timed_out(lease)),
            };
            let mut connection = match opened {
                Ok(connection) => connection,
                Err(error) => {
                    self.not_opened(lease, error)?;
                    continue;
                }
            };
            match connection.exchange(request, &mut deadline).await {
                Ok(response) => {
                    original.replay.may_stall();
                    return Ok((Running::new(lease, connection, recording), deadline, response));
                }
                Err(error) => request = self.again(lease, connection, error, &original).await?,
            }
        }
    }

    /// The request for another instance, if this one has surely not begun to read it; otherwise why there is no response.
    async fn again(
        &mut self,
        lease: FunctionLease,
        connection: FunctionConnection,
        error: ExchangeError,
        original: &Original,
    ) -> Result<Request<RequestBody>, InvokeError> {
        let (error, is_unread) = self.failed(lease, connection, error).await;
        if !is_unread || std::mem::replace(&mut self.has_started_again, true) {
            return Err(error);
        }
        let body = original.replay.again().ok_or(error)?;
        tracing::debug!(
            function = self.function.name,
            "a request is given to another instance"
        );
        Ok(Request::from_parts(original.head.clone(), body))
    }

    pub(crate) fn timed_out(&self, lease: FunctionLease) -> InvokeError {
        lease.discard(StopReason::TimedOut { after: self.timeout });
        InvokeError::Ended {
            function: self.name(),
            cause: EndCause::TimedOut { after: self.timeout },
        }
    }

    /// Lets the invocation look for another instance if this one has ended while it was idle.
    pub(crate) fn not_opened(&mut self, lease: FunctionLease, error: OpenError) -> Result<(), InvokeError> {
        let cold = lease.is_cold();
        let function = self.name();
        if let OpenError::Connect(source @ ConnectError::Host(_)) = error {
            // The host's shortage is none of the instance's fault.
            lease.leave();
            return Err(InvokeError::Unreachable { function, source });
        }
        lease.discard(StopReason::NotNeeded);
        match error {
            OpenError::Connect(ConnectError::Ended(report)) => {
                self.ended_instances += 1;
                let is_first = !std::mem::replace(&mut self.has_started_again, true);
                if cold && !is_first || self.ended_instances > MAX_ENDED_INSTANCES {
                    return Err(InvokeError::Ended {
                        function,
                        cause: report.cause,
                    });
                }
                Ok(())
            }
            OpenError::Connect(source) => Err(InvokeError::Unreachable { function, source }),
            OpenError::Handshake(source) => Err(InvokeError::BadAnswer { function, source }),
        }
    }

    /// Finds out why there is no response, and whether the program has surely not read any of the request, and discards
    /// the instance.
    async fn failed(
        &self,
        mut lease: FunctionLease,
        connection: FunctionConnection,
        error: ExchangeError,
    ) -> (InvokeError, bool) {
        let request_start = connection.close();
        let source = match error {
            ExchangeError::DeadlinePassed => return (self.timed_out(lease), false),
            ExchangeError::NotSent(_) => None,
            ExchangeError::Broken(source) => Some(source),
        };
        let function = self.name();
        if let Some(source) = source {
            if source.is_user() {
                lease.discard(StopReason::CallerGone);
                let source = CallerBodyError::of(source);
                return (InvokeError::BadRequestBody { function, source }, false);
            }
            if source.is_parse() {
                lease.discard(StopReason::NotNeeded);
                return (InvokeError::BadAnswer { function, source }, false);
            }
        }
        let report = end_report(&mut lease).await;
        lease.discard(StopReason::NotNeeded);
        match report {
            Some(report) => {
                // What was read is known of one stream only.
                let is_unread = !self.function.is_shared() && request_start.is_unread(&report);
                let cause = report.cause;
                (InvokeError::Ended { function, cause }, is_unread)
            }
            None => (InvokeError::NoAnswer { function }, false),
        }
    }
}

/// Whether the sandbox has lost an instance before it was ready, which the next one need not meet.
fn is_lost(error: &StartError) -> bool {
    matches!(error, StartError::EndedEarly(report) if matches!(report.cause, EndCause::SandboxFailed { .. }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_split_as_the_function_sees_them() {
        let cases = [
            ("/function/hello", "hello", "/"),
            ("/function/hello/", "hello", "/"),
            ("/function/hello?a=1", "hello", "/?a=1"),
            ("/function/hello/a%20b/c?x=/y", "hello", "/a%20b/c?x=/y"),
            ("/function/hello.openfaas-fn//x", "hello.openfaas-fn", "//x"),
            ("/function/.openfaas-fn", ".openfaas-fn", "/"),
            ("/function/", "", "/"),
        ];
        for (uri, name, path) in cases {
            let uri: Uri = uri.parse().expect("a valid URI");
            let split = split_target(&uri, "/function/");
            assert_eq!((split.0, split.1.as_str()), (name, path), "{uri}");
        }
    }
}
