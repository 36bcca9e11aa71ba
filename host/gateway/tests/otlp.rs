//! Spans as a collector of OpenTelemetry's receives them: by OTLP over HTTP, in its own messages.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message as _;
use serde_json::json;
use spore_sandbox::fake::{FakeFunction, FakeSandbox};
use tokio::net::TcpListener;

mod support;

use support::{Fixture, Seen, deployment, static_program, watching};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const CALLER: &str = "00f067aa0ba902b7";

/// Takes what is exported.
struct Collector {
    endpoint: String,
    received: Arc<Mutex<Vec<ExportTraceServiceRequest>>>,
}

impl Collector {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let endpoint = format!("http://{}", listener.local_addr().expect("an address"));
        let received: Arc<Mutex<Vec<_>>> = Arc::default();
        let kept = received.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let kept = kept.clone();
                let service = service_fn(move |request: Request<hyper::body::Incoming>| {
                    let kept = kept.clone();
                    async move {
                        assert_eq!(request.uri().path(), "/v1/traces");
                        assert_eq!(request.headers()["content-type"], "application/x-protobuf");
                        let body = request.into_body().collect().await?.to_bytes();
                        let message = ExportTraceServiceRequest::decode(body).expect("it is OTLP");
                        kept.lock().expect("nobody panicked").push(message);
                        Ok::<_, hyper::Error>(Response::new(Full::new(Bytes::new())))
                    }
                });
                let connection = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service);
                tokio::spawn(connection);
            }
        });
        Self { endpoint, received }
    }

    /// All spans, once the daemon has stopped.
    fn spans(&self) -> Vec<Span> {
        let received = self.received.lock().expect("nobody panicked");
        let scopes = received
            .iter()
            .flat_map(|message| &message.resource_spans)
            .flat_map(|resource| &resource.scope_spans);
        scopes.flat_map(|scope| scope.spans.clone()).collect()
    }

    fn service(&self) -> Option<String> {
        let received = self.received.lock().expect("nobody panicked");
        let resource = received.first()?.resource_spans.first()?.resource.clone()?;
        let found = resource
            .attributes
            .into_iter()
            .find(|attribute| attribute.key == "service.name");
        match found?.value?.value? {
            Value::StringValue(name) => Some(name),
            _ => None,
        }
    }
}

fn id(bytes: &[u8]) -> String {
    hex::encode(bytes)
}

/// The one span of this name.
fn named<'a>(spans: &'a [Span], name: &str) -> &'a Span {
    let found: Vec<_> = spans.iter().filter(|span| span.name == name).collect();
    let names: Vec<_> = spans.iter().map(|span| &span.name).collect();
    assert_eq!(found.len(), 1, "{name} among {names:?}");
    found[0]
}

fn attribute(span: &Span, key: &str) -> Option<Value> {
    let found = span.attributes.iter().find(|attribute| attribute.key == key)?;
    found.value.clone()?.value
}

fn is_below(child: &Span, parent: &Span) {
    assert_eq!(child.trace_id, parent.trace_id, "{}", child.name);
    assert_eq!(
        child.parent_span_id, parent.span_id,
        "{} below {}",
        child.name, parent.name
    );
    assert!(
        parent.start_time_unix_nano <= child.start_time_unix_nano
            && child.start_time_unix_nano <= child.end_time_unix_nano,
        "{child:?} in {parent:?}"
    );
}

fn told(seen: &Seen, index: usize) -> String {
    let seen = seen.lock().expect("nobody panicked");
    let value = seen[index]["traceparent"].to_str().expect("text");
    value.to_owned()
}

struct Scene {
    fixture: Fixture,
    collector: Collector,
    seen: Seen,
}

impl Scene {
    async fn start() -> Self {
        let collector = Collector::start().await;
        let (function, seen) = watching();
        let endpoint = collector.endpoint.clone();
        let sandbox = FakeSandbox::new(move |_| function.clone());
        let fixture = Fixture::start_with(sandbox, |config| config.otlp_endpoint = Some(endpoint)).await;
        fixture.push("hello", &static_program()).await;
        fixture.deploy(json!({})).await;
        Self {
            fixture,
            collector,
            seen,
        }
    }

    async fn send(&self, method: Method, path: &str, headers: &[(&str, &str)]) -> StatusCode {
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "gateway");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(Bytes::new())).expect("a request");
        let answer = self.fixture.send(request).await;
        let status = answer.status();
        answer.into_body().collect().await.expect("a whole body");
        status
    }

    /// Stops the daemon, which sends what it has.
    async fn spans(&mut self) -> Vec<Span> {
        self.fixture.daemon.take().expect("it runs").shutdown().await;
        self.collector.spans()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invocation_is_a_tree_of_spans_in_its_callers_trace() {
    let mut scene = Scene::start().await;
    let caller = format!("00-{TRACE}-{CALLER}-01");
    let headers = [("traceparent", caller.as_str()), ("tracestate", "vendor=1")];
    let status = scene
        .send(Method::POST, "/function/hello/a/b?c=d", &headers)
        .await;
    assert_eq!(status, StatusCode::OK);
    let spans = scene.spans().await;
    assert_eq!(scene.collector.service().as_deref(), Some("spore"));
    let request = named(&spans, "POST /function/hello");
    assert_eq!(
        (id(&request.trace_id), id(&request.parent_span_id)),
        (TRACE.into(), CALLER.into())
    );
    assert_eq!(request.trace_state, "vendor=1");
    assert_eq!(
        attribute(request, "http.response.status_code"),
        Some(Value::IntValue(200))
    );
    assert_eq!(
        attribute(request, "url.path"),
        Some(Value::StringValue("/function/hello/a/b".into()))
    );
    let invocation = named(&spans, "invoke hello");
    is_below(invocation, request);
    let waited = named(&spans, "wait for an instance");
    is_below(waited, invocation);
    assert_eq!(attribute(waited, "faas.coldstart"), Some(Value::BoolValue(true)));
    let started = named(&spans, "start an instance");
    is_below(started, waited);
    is_below(named(&spans, "start the program"), started);
    let execution = named(&spans, "execute hello");
    is_below(execution, invocation);
    assert!(waited.end_time_unix_nano <= execution.start_time_unix_nano);
    // The function goes on from there.
    let expected = format!("00-{TRACE}-{}-01", id(&execution.span_id));
    assert_eq!(told(&scene.seen, 0), expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_its_caller_does_not_sample_is_not_recorded() {
    let mut scene = Scene::start().await;
    let caller = format!("00-{TRACE}-{CALLER}-00");
    scene
        .send(Method::GET, "/function/hello", &[("traceparent", &caller)])
        .await;
    assert_eq!(told(&scene.seen, 0), caller);
    scene.send(Method::GET, "/function/hello", &[]).await;
    let spans = scene.spans().await;
    let root = named(&spans, "GET /function/hello");
    assert!(root.parent_span_id.is_empty(), "{root:?}");
    assert!(spans.iter().all(|span| id(&span.trace_id) != TRACE));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_execution_that_fails_says_so() {
    let mut scene = Scene::start().await;
    let status = scene.send(Method::GET, "/function/hello/crash", &[]).await;
    assert_eq!(status, StatusCode::BAD_GATEWAY);
    let spans = scene.spans().await;
    let is_error = |span: &Span| span.status.as_ref().is_some_and(|status| status.code == 2);
    assert!(is_error(named(&spans, "execute hello")));
    assert!(is_error(named(&spans, "GET /function/hello")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chain_is_one_trace() {
    let mut scene = Scene::start().await;
    scene.fixture.push("next", &static_program()).await;
    let mut next = deployment(json!({}));
    next["service"] = "next".into();
    next["image"] = "next:latest".into();
    let (status, body) = scene.fixture.json(Method::POST, "/system/functions", &next).await;
    assert_eq!(status, StatusCode::ACCEPTED, "{body}");
    let status = scene
        .send(Method::POST, "/function/hello", &[("x-spore-chain", "next")])
        .await;
    assert_eq!(status, StatusCode::OK);
    let spans = scene.spans().await;
    let request = named(&spans, "POST /function/hello");
    for (index, name) in ["hello", "next"].into_iter().enumerate() {
        let invocation = named(&spans, &format!("invoke {name}"));
        is_below(invocation, request);
        let execution = named(&spans, &format!("execute {name}"));
        is_below(execution, invocation);
        let told = told(&scene.seen, index);
        assert_eq!(
            told,
            format!("00-{}-{}-01", id(&request.trace_id), id(&execution.span_id))
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn attempts_of_a_queued_invocation_are_in_the_trace_of_its_acceptance() {
    let mut scene = Scene::start().await;
    let settings = json!({ "annotations": { "com.openfaas.retry.min_wait": "10ms" } });
    let (status, body) = scene
        .fixture
        .json(Method::PUT, "/system/functions", &deployment(settings))
        .await;
    assert!(status.is_success(), "{body}");
    let status = scene.send(Method::POST, "/async-function/hello/again", &[]).await;
    assert_eq!(status, StatusCode::ACCEPTED);
    let seen = scene.seen.clone();
    scene
        .fixture
        .until("a second attempt", |_| {
            seen.lock().expect("nobody panicked").len() == 2
        })
        .await;
    let spans = scene.spans().await;
    let accepted = named(&spans, "POST /async-function/hello");
    let attempts: Vec<_> = spans.iter().filter(|span| span.name == "invoke hello").collect();
    assert_eq!(attempts.len(), 2);
    for attempt in attempts {
        assert_eq!(attempt.trace_id, accepted.trace_id);
        assert_eq!(attempt.parent_span_id, accepted.span_id);
    }
    let executions: BTreeMap<_, _> = spans
        .iter()
        .filter(|span| span.name == "execute hello")
        .map(|span| (id(&span.span_id), span))
        .collect();
    for index in 0..2 {
        let told = told(&scene.seen, index);
        let span = told.split('-').nth(2).expect("a span");
        assert!(executions.contains_key(span), "{told}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_is_not_there_disturbs_nobody() {
    let (function, _) = watching();
    let sandbox = FakeSandbox::new(move |_| function.clone());
    let endpoint = Some("http://127.0.0.1:1".to_owned());
    let mut fixture = Fixture::start_with(sandbox, |config| config.otlp_endpoint = endpoint).await;
    fixture.push("hello", &static_program()).await;
    fixture.deploy(json!({})).await;
    for _ in 0..20 {
        assert_eq!(fixture.get("/function/hello").await.0, StatusCode::OK);
    }
    fixture.daemon.take().expect("it runs").shutdown().await;
}

#[tokio::test]
async fn an_endpoint_that_is_none_is_refused_at_the_start() {
    for endpoint in [
        "collector:4318",
        "ftp://a",
        "http://",
        "http://a@b",
        "http://a/?b",
    ] {
        let data = tempfile::tempdir().expect("a temporary folder");
        let mut config = support::config(&data);
        config.otlp_endpoint = Some(endpoint.to_owned());
        let sandbox = Arc::new(FakeSandbox::new(|_| FakeFunction::echo()));
        let started = spore_gateway::Daemon::start(config, sandbox).await;
        let error = started.err().expect("it is refused").to_string();
        assert!(error.contains("http://127.0.0.1:4318"), "{endpoint}: {error}");
    }
}
