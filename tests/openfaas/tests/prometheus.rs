//! What Prometheus thinks of the metrics.

use std::io::Write;
use std::process::{Command, Stdio};

use http::{Method, StatusCode};
use spore_test_harness::daemon::Daemon;
use spore_test_harness::{program, wait_until};
use std::time::Duration;

use crate::{Test, tools};

pub(crate) const TESTS: &[Test] = &[(
    "prometheus::metrics_are_clean_and_right",
    tools::promtool,
    metrics,
)];

fn metrics() {
    let daemon = Daemon::start();
    daemon.deploy("httpd", &program::build("httpd"), &[]);
    for path in ["/", "/", "/status?code=418"] {
        daemon.get(&format!("/function/httpd{path}"));
    }
    assert_eq!(daemon.get("/function/nobody").status, StatusCode::NOT_FOUND);
    daemon.send_body(Method::POST, "/async-function/httpd/status?code=500", "");
    let page = || daemon.get("/metrics").text();
    let has = |line: &str| page().lines().any(|found| found == line);
    for line in [
        r#"gateway_function_invocation_total{function_name="httpd.openfaas-fn",code="200"} 2"#,
        r#"gateway_function_invocation_total{function_name="httpd.openfaas-fn",code="418"} 1"#,
        r#"gateway_functions_seconds_count{function_name="httpd.openfaas-fn",code="200"} 2"#,
        r#"gateway_service_count{function_name="httpd.openfaas-fn"} 1"#,
        r#"spore_cold_starts_total{function_name="httpd.openfaas-fn",from="image"} 1"#,
    ] {
        assert!(has(line), "{line}\n{}", page());
    }
    // The one that failed waits for its next attempt.
    let waiting =
        r#"queue_worker_pending_messages{queue_name="default",function_name="httpd.openfaas-fn"} 1"#;
    let started = r#"gateway_function_invocation_started{function_name="httpd.openfaas-fn"} 4"#;
    let is_there = || has(waiting) && has(started);
    assert!(wait_until(Duration::from_secs(10), is_there), "{}", page());
    let idle = r#"gateway_function_invocation_inflight{function_name="httpd.openfaas-fn"} 0"#;
    assert!(wait_until(Duration::from_secs(10), || has(idle)), "{}", page());

    let tool = tools::promtool().as_ref().expect("it is there");
    let mut checker = Command::new(tool)
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool can be run");
    let mut input = checker.stdin.take().expect("it is a pipe");
    input.write_all(page().as_bytes()).expect("it reads");
    drop(input);
    let output = checker.wait_with_output().expect("it ends");
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    assert!(
        output.status.success() && said.trim().is_empty(),
        "{said}\n{}",
        page()
    );
}
