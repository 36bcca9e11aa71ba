//! The daemon as a provider: what a gateway of OpenFaaS's sends to one, and what it makes of the answers.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use serde_json::{Value, json};
use spore_gateway::{BasicAuth, Role};
use spore_sandbox::fake::{FakeFunction, FakeSandbox, response};

mod support;

use support::{Fixture, deployment, static_program};

const USER: &str = "admin";
const PASSWORD: &str = "hush";

/// A provider with the credentials of the gateway in front of it, in files as OpenFaaS has them.
struct Provider {
    fixture: Fixture,
    _secrets: tempfile::TempDir,
}

impl Provider {
    async fn start() -> Self {
        let secrets = tempfile::tempdir().expect("a temporary folder");
        std::fs::write(secrets.path().join("basic-auth-user"), USER).expect("it is ours");
        std::fs::write(secrets.path().join("basic-auth-password"), PASSWORD).expect("it is ours");
        // It says which of the headers that a gateway adds have reached it.
        let function = FakeFunction::http(|request, _| async move {
            let header = |name: &str| {
                let value = request.headers().get(name);
                value
                    .map_or("none", |value| value.to_str().unwrap_or("?"))
                    .to_owned()
            };
            let seen = json!({
                "target": request.uri().to_string(), "call_id": header("x-call-id"), "start_time": header("x-start-time"),
                "host": header("x-forwarded-host"), "for": header("x-forwarded-for"), "agent": header("user-agent"),
            });
            response(200, seen.to_string())
        });
        let sandbox = FakeSandbox::new(move |_| function.clone());
        let basic_auth = BasicAuth::in_folder(secrets.path());
        let fixture = Fixture::start_with(sandbox, |config| config.role = Role::Provider).await;
        fixture.push("hello", &static_program()).await;
        let data = fixture.data;
        fixture.daemon.expect("it runs").shutdown().await;
        let mut config = support::config(&data);
        config.role = Role::Provider;
        config.basic_auth = basic_auth;
        let daemon = spore_gateway::Daemon::start(config, std::sync::Arc::new(fixture.sandbox.clone())).await;
        let daemon = daemon.expect("the daemon starts");
        let provider = Self {
            fixture: Fixture {
                address: daemon.local_address(),
                daemon: Some(daemon),
                sandbox: fixture.sandbox,
                data,
            },
            _secrets: secrets,
        };
        let deployment = deployment(json!({ "namespace": "openfaas-fn" }));
        let (answer, body) = provider
            .system(Method::POST, "/system/functions", &deployment)
            .await;
        assert_eq!(answer.status(), StatusCode::ACCEPTED, "{body}");
        provider
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> (Response<()>, String) {
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "127.0.0.1:8081");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let body = Full::new(Bytes::copy_from_slice(body.as_bytes()));
        let answer = self.fixture.send(request.body(body).expect("a request")).await;
        let (head, body) = answer.into_parts();
        let body = body.collect().await.expect("a whole body").to_bytes();
        (
            Response::from_parts(head, ()),
            String::from_utf8_lossy(&body).into_owned(),
        )
    }

    /// As a gateway asks its provider: with its credentials.
    async fn system(&self, method: Method, path: &str, body: &Value) -> (Response<()>, String) {
        let credentials = format!("Basic {}", STANDARD.encode(format!("{USER}:{PASSWORD}")));
        let body = if body.is_null() {
            String::new()
        } else {
            body.to_string()
        };
        self.send(method, path, &[("authorization", &credentials)], &body)
            .await
    }

    async fn status(&self) -> Value {
        let path = "/system/function/hello?namespace=openfaas-fn";
        let (answer, body) = self.system(Method::GET, path, &Value::Null).await;
        assert_eq!(answer.status(), StatusCode::OK, "{body}");
        serde_json::from_str(&body).expect("JSON")
    }

    async fn scale(&self, replicas: u64) {
        let body = json!({ "serviceName": "hello", "replicas": replicas, "namespace": "openfaas-fn" });
        let path = "/system/scale-function/hello?namespace=openfaas-fn";
        let (answer, body) = self.system(Method::POST, path, &body).await;
        assert_eq!(answer.status(), StatusCode::ACCEPTED, "{body}");
    }
}

#[tokio::test]
async fn an_invocation_comes_through_as_the_gateway_has_sent_it() {
    let provider = Provider::start().await;
    let headers = [
        ("x-call-id", "4f2c4a1e-0000-4000-8000-000000000001"),
        ("x-start-time", "1700000000123456789"),
        ("x-forwarded-host", "gateway:8080"),
        ("x-forwarded-for", "192.0.2.7:4242"),
        ("user-agent", "curl/8.0"),
    ];
    let (answer, body) = provider
        .send(Method::POST, "/function/hello.openfaas-fn/a/b?c=d", &headers, "x")
        .await;
    assert_eq!(answer.status(), StatusCode::OK, "{body}");
    let seen: Value = serde_json::from_str(&body).expect("JSON");
    let expected = json!({
        "target": "/a/b?c=d", "call_id": headers[0].1, "start_time": headers[1].1,
        "host": "gateway:8080", "for": "192.0.2.7:4242", "agent": "curl/8.0",
    });
    assert_eq!(seen, expected);
    // The gateway copies these over its own.
    for (name, value) in &headers[..2] {
        assert_eq!(answer.headers()[*name], *value);
        assert_eq!(answer.headers().get_all(*name).iter().count(), 1);
    }
    let (answer, _) = provider
        .send(Method::POST, "/function/nobody.openfaas-fn", &[], "")
        .await;
    assert_eq!(answer.status(), StatusCode::NOT_FOUND);
    assert_eq!(answer.headers()["x-openfaas-internal"], "proxy");
    let (answer, _) = provider
        .send(
            Method::from_bytes(b"PROPFIND").expect("a method"),
            "/function/hello",
            &[],
            "",
        )
        .await;
    assert_eq!(answer.status(), StatusCode::METHOD_NOT_ALLOWED);
}

#[tokio::test]
async fn what_is_the_gateways_is_not_here_and_the_rest_wants_credentials() {
    let provider = Provider::start().await;
    for path in [
        "/async-function/hello",
        "/ui/",
        "/",
        "/system/alert",
        "/system/async",
        "/system/triggers",
    ] {
        let (answer, body) = provider.system(Method::POST, path, &json!({})).await;
        assert_eq!(answer.status(), StatusCode::NOT_FOUND, "{path}: {body}");
        assert!(body.contains("ask the gateway"), "{path}: {body}");
    }
    for path in [
        "/system/functions",
        "/system/info",
        "/system/namespaces",
        "/system/namespace/a",
        "/system/secrets",
    ] {
        let (answer, body) = provider.send(Method::GET, path, &[], "").await;
        assert_eq!(answer.status(), StatusCode::UNAUTHORIZED, "{path}");
        assert_eq!(body.trim(), "invalid credentials");
    }
    let (answer, body) = provider.system(Method::GET, "/system/info", &Value::Null).await;
    assert_eq!(answer.status(), StatusCode::OK);
    let info: Value = serde_json::from_str(&body).expect("JSON");
    assert_eq!(info["provider"], "spore", "the provider's own form: {body}");
    for field in ["/orchestration", "/version/sha", "/version/release"] {
        let text = info.pointer(field).and_then(Value::as_str).unwrap_or_default();
        assert!(!text.is_empty(), "{field}: {body}");
    }
    // Prometheus and the gateway's own check of its health send none.
    for (method, path) in [
        (Method::GET, "/healthz"),
        (Method::HEAD, "/healthz"),
        (Method::GET, "/metrics"),
    ] {
        let (answer, _) = provider.send(method, path, &[], "").await;
        assert_eq!(answer.status(), StatusCode::OK, "{path}");
    }
    let (_, metrics) = provider.send(Method::GET, "/metrics", &[], "").await;
    for name in [
        r#"provider_http_requests_total{code="200",method="GET",path="/system/info"} 1"#,
        r#"provider_http_request_duration_seconds_count{code="202",method="POST",path="/system/functions"} 1"#,
        r#"pod_cpu_usage_seconds_total{function_name="hello",namespace="openfaas-fn"} "#,
        r#"pod_memory_working_set_bytes{function_name="hello",namespace="openfaas-fn"} "#,
        r#"spore_cold_starts_total{function_name="hello.openfaas-fn",from="image"} 0"#,
    ] {
        assert!(metrics.contains(name), "{name}\n{metrics}");
    }
}

#[tokio::test]
async fn a_function_is_available_on_demand_unless_it_was_scaled_to_zero() {
    let provider = Provider::start().await;
    // A gateway that finds none would scale it from zero before every cold start.
    let status = provider.status().await;
    assert_eq!(
        (&status["availableReplicas"], &status["replicas"]),
        (&json!(1), &json!(1))
    );
    assert_eq!(
        provider.fixture.sandbox.live().len(),
        0,
        "and yet there is no instance"
    );
    provider.scale(0).await;
    let status = provider.status().await;
    assert!(
        status.get("availableReplicas").is_none() && status.get("replicas").is_none(),
        "{status}"
    );
    // As a gateway does for an invocation; it asks until there is one.
    provider.scale(1).await;
    assert_eq!(provider.status().await["availableReplicas"], json!(1));
    provider
        .fixture
        .until("one instance", |fixture| fixture.sandbox.live().len() == 1)
        .await;
    provider.scale(2).await;
    provider
        .fixture
        .until("two instances", |fixture| fixture.sandbox.live().len() == 2)
        .await;
    // As an alert that is resolved: more than one was to be kept, and is not any more.
    provider.scale(0).await;
    provider
        .fixture
        .until("no instance", |fixture| fixture.sandbox.live().is_empty())
        .await;
}
