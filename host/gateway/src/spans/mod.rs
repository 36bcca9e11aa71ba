//! Spans of invocations for OpenTelemetry, where an endpoint takes them (`spore serve --otlp-endpoint`).
//!
//! ```text
//!   the caller's span, if it has one
//!   └─ POST /function/NAME         from the request to the last byte of the answer
//!      └─ invoke NAME              one for each link of a chain, and for each attempt of a queued invocation
//!         ├─ wait for an instance
//!         │  └─ start an instance  of a cold start; below it one span for each stage that the sandbox knows of
//!         └─ execute NAME          this one is the parent of whatever the function records
//! ```
//!
//! An invocation that nobody waits for begins with a span of its acceptance, or of its trigger; those of its attempts are
//! below that. What a caller does not sample is not recorded, and its trace goes on unchanged. A span is sent when it has ended,
//! in batches, by a thread of its own; what cannot be sent in time is dropped. Without an endpoint nothing of this is there
//! but a look whether there is one.

mod sender;

use std::borrow::Cow;
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant, SystemTime};

use http::header::{HeaderMap, HeaderValue};
use http::{Method, StatusCode};
use opentelemetry::trace::{SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceId, TraceState};
use opentelemetry::{InstrumentationScope, KeyValue};
use opentelemetry_otlp::{ExporterBuildError, Protocol, SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{BatchSpanProcessor, SpanData, SpanEvents, SpanLinks, SpanProcessor};
use spore_sandbox::StartStages;
use uuid::Uuid;

use crate::trace::{self, TRACE_PARENT, TRACE_STATE};
use sender::Sender;

/// What this daemon is called unless `OTEL_SERVICE_NAME` says otherwise.
const SERVICE: &str = "spore";
/// Where an endpoint takes spans.
const TRACES_PATH: &str = "/v1/traces";
/// Longest path that a span shows, in characters.
const PATH_CHARACTERS_MAX: usize = 256;
/// How long the last spans may take to be sent when the daemon stops.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(5);

/// Why no spans can be sent.
#[derive(Debug, thiserror::Error)]
pub enum SpansError {
    /// The endpoint is none.
    #[error("`{endpoint}` is no endpoint for traces: write it like http://127.0.0.1:4318")]
    Endpoint {
        /// As it was given.
        endpoint: String,
    },
    /// A setting of OpenTelemetry's is not valid.
    #[error("traces cannot be sent to {endpoint}")]
    Exporter {
        /// Where to.
        endpoint: String,
        /// Why.
        #[source]
        source: ExporterBuildError,
    },
    /// The certificates of this machine cannot be used.
    #[error("traces cannot be sent over TLS")]
    Tls(#[source] std::io::Error),
}

/// Takes spans that have ended.
#[derive(Debug)]
pub(crate) struct Spans {
    processor: BatchSpanProcessor,
    scope: InstrumentationScope,
}

impl Spans {
    /// Spans are sent to this endpoint, a URL without the path of traces. To be called in a runtime, which sends them.
    pub(crate) fn start(endpoint: &str) -> Result<Arc<Self>, SpansError> {
        let endpoint = endpoint.trim_end_matches('/').to_owned();
        let sender = Sender::to(&endpoint)?;
        let exporter = SpanExporter::builder()
            .with_http()
            .with_http_client(sender)
            .with_endpoint(format!("{endpoint}{TRACES_PATH}"))
            .with_protocol(Protocol::HttpBinary)
            .build();
        let exporter = exporter.map_err(|source| SpansError::Exporter { endpoint, source })?;
        let mut processor = BatchSpanProcessor::builder(exporter).build();
        let mut resource = Resource::builder();
        if std::env::var_os("OTEL_SERVICE_NAME").is_none() {
            resource = resource.with_service_name(SERVICE);
        }
        let version = KeyValue::new("service.version", env!("CARGO_PKG_VERSION"));
        processor.set_resource(&resource.with_attribute(version).build());
        Ok(Arc::new(Self {
            processor,
            scope: InstrumentationScope::builder(SERVICE).build(),
        }))
    }

    /// Sends what is left. Blocks.
    pub(crate) fn shutdown(&self) {
        if let Err(error) = self.processor.shutdown_with_timeout(SHUTDOWN_TIMEOUT) {
            tracing::warn!(%error, "the last spans could not be sent");
        }
    }

    /// Begins the span of a request that has come with these headers, which name it from now on. None if its caller does
    /// not want it recorded.
    pub(crate) fn request(
        self: &Arc<Self>,
        headers: &mut HeaderMap,
        method: &Method,
        path: &str,
    ) -> Option<OpenSpan> {
        // What follows the function's name is the function's business.
        let route: Vec<&str> = path.splitn(4, '/').take(3).collect();
        let name = shortened(&format!("{method} {}", route.join("/")));
        let mut span = self.begin(headers, SpanKind::Server, name)?;
        let path = shortened(path);
        span.attributes = vec![
            KeyValue::new("http.request.method", method.to_string()),
            KeyValue::new("url.path", path),
        ];
        Some(span)
    }

    /// The same of a call that a trigger makes.
    pub(crate) fn trigger(self: &Arc<Self>, headers: &mut HeaderMap, function: &str) -> Option<OpenSpan> {
        self.begin(headers, SpanKind::Producer, format!("trigger {function}"))
    }

    /// Begins the span of an invocation; the headers name that of its execution from now on.
    pub(crate) fn invocation(
        self: &Arc<Self>,
        headers: &mut HeaderMap,
        function: &str,
    ) -> Option<Arc<InvocationSpan>> {
        let mut open = self.begin(headers, SpanKind::Internal, format!("invoke {function}"))?;
        open.attributes
            .push(KeyValue::new("faas.name", function.to_owned()));
        let execution = new_span();
        put(headers, open.context.trace_id(), execution);
        Some(Arc::new(InvocationSpan {
            open,
            execution,
            function: function.to_owned(),
        }))
    }

    fn begin(self: &Arc<Self>, headers: &mut HeaderMap, kind: SpanKind, name: String) -> Option<OpenSpan> {
        let caller = trace::caller(headers);
        let (trace, parent) = match caller {
            Some(caller) if !caller.is_sampled => return None,
            Some(caller) => (
                TraceId::from_hex(caller.trace).ok()?,
                SpanId::from_hex(caller.span).ok()?,
            ),
            None => (TraceId::from_bytes(*Uuid::new_v4().as_bytes()), SpanId::INVALID),
        };
        if parent == SpanId::INVALID {
            // It belongs to the trace that ends here.
            headers.remove(&TRACE_STATE);
        }
        let state = headers.get(&TRACE_STATE).and_then(|value| value.to_str().ok());
        let state: TraceState = state.and_then(|state| state.parse().ok()).unwrap_or_default();
        let id = new_span();
        put(headers, trace, id);
        Some(OpenSpan {
            spans: self.clone(),
            context: SpanContext::new(trace, id, TraceFlags::SAMPLED, false, state),
            parent,
            kind,
            name: name.into(),
            began: (Instant::now(), SystemTime::now()),
            attributes: Vec::new(),
            status: AtomicU16::new(0),
            end: OnceLock::new(),
        })
    }
}

fn new_span() -> SpanId {
    SpanId::from_bytes(fastrand::u64(1..).to_be_bytes())
}

fn put(headers: &mut HeaderMap, trace: TraceId, span: SpanId) {
    if let Ok(value) = HeaderValue::from_str(&format!("00-{trace}-{span}-01")) {
        headers.insert(TRACE_PARENT, value);
    }
}

fn shortened(text: &str) -> String {
    text.chars().take(PATH_CHARACTERS_MAX).collect()
}

/// A span that has not ended; it ends when it is dropped.
pub(crate) struct OpenSpan {
    spans: Arc<Spans>,
    context: SpanContext,
    parent: SpanId,
    kind: SpanKind,
    name: Cow<'static, str>,
    began: (Instant, SystemTime),
    attributes: Vec<KeyValue>,
    /// Of the answer; 0 as long as there is none.
    status: AtomicU16,
    /// When it has ended, if that was before it is dropped.
    end: OnceLock<Instant>,
}

impl OpenSpan {
    /// The answer has begun.
    pub(crate) fn answered(&self, status: StatusCode) {
        self.status.store(status.as_u16(), Ordering::Relaxed);
    }

    fn time(&self, moment: Instant) -> SystemTime {
        let (instant, time) = self.began;
        match moment.checked_duration_since(instant) {
            Some(later) => time + later,
            None => time - instant.duration_since(moment),
        }
    }

    /// Records a span below this one, of the same trace.
    fn record(&self, below: Below) {
        let context = SpanContext::new(
            self.context.trace_id(),
            below.id,
            TraceFlags::SAMPLED,
            false,
            self.context.trace_state().clone(),
        );
        self.spans.processor.on_end(SpanData {
            span_context: context,
            parent_span_id: below.parent,
            parent_span_is_remote: false,
            span_kind: below.kind,
            name: below.name,
            start_time: self.time(below.start),
            end_time: self.time(below.end.max(below.start)),
            attributes: below.attributes,
            dropped_attributes_count: 0,
            events: SpanEvents::default(),
            links: SpanLinks::default(),
            status: below.status,
            instrumentation_scope: self.spans.scope.clone(),
        });
    }
}

impl Drop for OpenSpan {
    fn drop(&mut self) {
        let code = self.status.load(Ordering::Relaxed);
        let mut attributes = std::mem::take(&mut self.attributes);
        if code != 0 {
            attributes.push(KeyValue::new("http.response.status_code", i64::from(code)));
        }
        let end = self.end.get().copied().unwrap_or_else(Instant::now);
        let (start, end) = (self.began.1, self.time(end));
        self.spans.processor.on_end(SpanData {
            span_context: self.context.clone(),
            parent_span_id: self.parent,
            parent_span_is_remote: self.kind == SpanKind::Server,
            span_kind: self.kind.clone(),
            name: self.name.clone(),
            start_time: start,
            end_time: end,
            attributes,
            dropped_attributes_count: 0,
            events: SpanEvents::default(),
            links: SpanLinks::default(),
            status: match code {
                500.. => Status::error(""),
                _ => Status::Unset,
            },
            instrumentation_scope: self.spans.scope.clone(),
        });
    }
}

/// A span that has ended, below another one.
struct Below {
    id: SpanId,
    parent: SpanId,
    kind: SpanKind,
    name: Cow<'static, str>,
    start: Instant,
    end: Instant,
    attributes: Vec<KeyValue>,
    status: Status,
}

impl Below {
    fn new(parent: SpanId, name: impl Into<Cow<'static, str>>, start: Instant, end: Instant) -> Self {
        Self {
            id: new_span(),
            parent,
            kind: SpanKind::Internal,
            name: name.into(),
            start,
            end,
            attributes: Vec::new(),
            status: Status::Unset,
        }
    }
}

/// The span of an invocation, from the request to the last byte of the answer.
pub(crate) struct InvocationSpan {
    open: OpenSpan,
    /// Names the execution to the function.
    execution: SpanId,
    function: String,
}

impl InvocationSpan {
    /// The answer has begun.
    pub(crate) fn answered(&self, status: StatusCode) {
        self.open.answered(status);
    }

    /// No instance was to be had.
    pub(crate) fn waited_in_vain(&self, asked: Instant) {
        let mut waited = Below::new(
            self.open.context.span_id(),
            "wait for an instance",
            asked,
            Instant::now(),
        );
        waited.status = Status::error("no instance");
        self.open.record(waited);
    }

    /// The instance that was asked for at `asked` was leased.
    pub(crate) fn leased(self: &Arc<Self>, asked: Instant, leased: Instant, is_cold: bool) -> ExecutionSpan {
        let mut waited = Below::new(self.open.context.span_id(), "wait for an instance", asked, leased);
        waited.attributes.push(KeyValue::new("faas.coldstart", is_cold));
        let wait = waited.id;
        self.open.record(waited);
        ExecutionSpan {
            invocation: self.clone(),
            wait,
            asked,
            leased,
            has_ended: false,
        }
    }
}

/// What an instance does with an invocation. Dropped before it has ended, it has failed.
pub(crate) struct ExecutionSpan {
    invocation: Arc<InvocationSpan>,
    wait: SpanId,
    asked: Instant,
    leased: Instant,
    has_ended: bool,
}

impl ExecutionSpan {
    /// The last byte of the answer has come.
    pub(crate) fn ended(&mut self, answered: Instant) {
        self.has_ended = true;
        // What is still to be told of its start is told later.
        let _ = self.invocation.open.end.set(answered);
        self.record(self.invocation.execution, answered, Status::Unset);
    }

    fn record(&self, id: SpanId, end: Instant, status: Status) {
        let InvocationSpan { open, function, .. } = &*self.invocation;
        let mut execution = Below::new(
            open.context.span_id(),
            format!("execute {function}"),
            self.leased,
            end,
        );
        execution.id = id;
        execution.kind = SpanKind::Client;
        execution.status = status;
        open.record(execution);
    }

    /// The start of the instance, which the invocation waited for, went through these stages.
    pub(crate) fn started(&self, stages: &StartStages) {
        let open = &self.invocation.open;
        let within = |moment: Option<Instant>| Some(moment?.clamp(self.asked, self.leased));
        let begun = within(stages.begun).unwrap_or(self.asked);
        let start = Below::new(self.wait, "start an instance", begun, self.leased);
        let parent = start.id;
        open.record(start);
        let reached = [
            ("take a shell", within(stages.shell_taken)),
            ("put memory in place", within(stages.mapped)),
            ("enter the guest", within(stages.first_instruction)),
            ("start the program", Some(self.leased)),
        ];
        let mut from = begun;
        for (name, moment) in reached {
            // The time of a stage that is not known is in the next one.
            if let Some(moment) = moment {
                open.record(Below::new(parent, name, from, moment.max(from)));
                from = moment.max(from);
            }
        }
        if let Some(entered) = stages.handler_entered {
            let delivered = Below::new(
                self.invocation.execution,
                "deliver the request",
                self.leased,
                entered,
            );
            open.record(delivered);
        }
    }
}

impl Drop for ExecutionSpan {
    fn drop(&mut self) {
        if !self.has_ended {
            // Another attempt may have the one that the function was told.
            self.record(
                new_span(),
                Instant::now(),
                Status::error("the answer is not complete"),
            );
        }
    }
}
