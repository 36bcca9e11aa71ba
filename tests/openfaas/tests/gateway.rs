//! OpenFaaS's own gateway with this daemon as its provider. It listens on the ports 8080 and 8082 of this machine, which
//! cannot be chosen, so these must be free.

use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{Method, StatusCode};
use serde_json::json;
use spore_test_harness::client::{self, Answer, with_body};
use spore_test_harness::daemon::Daemon;
use spore_test_harness::{program, wait_until};

use crate::{Test, once, tools};

pub(crate) const TESTS: &[Test] = &[("gateway::has_this_daemon_as_its_provider", usable, provider)];

const ADDRESS: ([u8; 4], u16) = ([127, 0, 0, 1], 8080);
const PASSWORD: &str = "hush";
const PATIENCE: Duration = Duration::from_secs(20);

/// The gateway, if its ports are free too.
fn usable() -> &'static Result<PathBuf, String> {
    static FOUND: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    once(&FOUND, || {
        let path = tools::gateway().clone()?;
        for port in [8080, 8082] {
            TcpListener::bind(("0.0.0.0", port))
                .map_err(|error| format!("the gateway's port {port} is not free: {error}"))?;
        }
        Ok(path)
    })
}

/// A process that ends with its value.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Asks the gateway.
fn ask(method: Method, path: &str, body: &str) -> Result<Answer, client::RequestError> {
    let mut request = with_body(method, path, body.to_owned());
    let credentials = format!("Basic {}", STANDARD.encode(format!("admin:{PASSWORD}")));
    let credentials = credentials.parse().expect("a header");
    request.headers_mut().insert("authorization", credentials);
    client::send(ADDRESS.into(), request)
}

fn provider() {
    let secrets = tempfile::tempdir().expect("the temporary folder is writable");
    std::fs::write(secrets.path().join("basic-auth-user"), "admin").expect("it is ours");
    std::fs::write(secrets.path().join("basic-auth-password"), PASSWORD).expect("it is ours");
    let folder = secrets.path().to_str().expect("the temporary folder is UTF-8");
    let mut daemon = Daemon::start();
    daemon.deploy("httpd", &program::build("httpd"), &[]);
    daemon.spore_ok(&["remove", "httpd"]);
    daemon.stop();
    daemon.start_again_as(spore_test_harness::daemon::Setup {
        options: ["--role", "provider", "--secrets", folder]
            .map(str::to_owned)
            .to_vec(),
        ..Default::default()
    });
    let gateway = Command::new(usable().as_ref().expect("it is there"))
        .env("functions_provider_url", format!("http://{}/", daemon.address()))
        .env("basic_auth", "true")
        .env("secret_mount_path", secrets.path())
        .env("direct_functions", "false")
        .env("scale_from_zero", "true")
        .env("faas_prometheus_host", "127.0.0.1")
        .env("faas_prometheus_port", "1")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    let _gateway = Running(gateway.expect("the gateway can be run"));
    let is_ready = || ask(Method::GET, "/healthz", "").is_ok_and(|answer| answer.status == StatusCode::OK);
    assert!(
        wait_until(PATIENCE, is_ready),
        "the gateway does not answer: {}",
        daemon.log()
    );

    let info = ask(Method::GET, "/system/info", "").expect("an answer").json();
    assert_eq!(info["provider"]["provider"], "spore", "{info}");
    let deployment = json!({ "service": "hello", "image": "httpd:latest" }).to_string();
    let deployed = ask(Method::POST, "/system/functions", &deployment).expect("an answer");
    assert!(deployed.status.is_success(), "{}", deployed.text());
    let invoke = || ask(Method::POST, "/function/hello.openfaas-fn/inspect?a=b", "body").expect("an answer");
    let answer = invoke();
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
    assert!(answer.text().contains("query a=b"), "{}", answer.text());
    assert!(!answer.header("x-call-id").is_empty());
    // Scaled to zero by hand, it is scaled up by the gateway before the invocation.
    let scale = json!({ "serviceName": "hello", "replicas": 0, "namespace": "openfaas-fn" }).to_string();
    let scaled = ask(Method::POST, "/system/scale-function/hello", &scale).expect("an answer");
    assert!(scaled.status.is_success(), "{}", scaled.text());
    let answer = invoke();
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
    let missing = ask(Method::POST, "/function/nobody.openfaas-fn", "").expect("an answer");
    assert_eq!(missing.status, StatusCode::NOT_FOUND, "{}", missing.text());
    let body = json!({ "functionName": "hello" }).to_string();
    let removed = ask(Method::DELETE, "/system/functions", &body).expect("an answer");
    assert!(removed.status.is_success(), "{}", removed.text());
}
