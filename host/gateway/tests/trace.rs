//! The trace of an invocation: with the function, in the queue, in the log.

use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use serde_json::{Value, json};

mod support;

use support::{Fixture, Seen, watching};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

async fn send(fixture: &Fixture, method: Method, path: &str, headers: &[(&str, &str)]) -> StatusCode {
    let mut request = Request::builder()
        .method(method)
        .uri(path)
        .header("host", "gateway");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let answer = fixture
        .send(request.body(Full::new(Bytes::new())).expect("a request"))
        .await;
    let status = answer.status();
    answer.into_body().collect().await.expect("a whole body");
    status
}

fn header(seen: &Seen, index: usize, name: &str) -> Option<String> {
    let seen = seen.lock().expect("nobody panicked");
    let value = seen[index].get(name)?;
    Some(value.to_str().expect("text").to_owned())
}

#[tokio::test]
async fn a_callers_trace_reaches_the_function_and_without_one_a_new_one_does() {
    let (function, seen) = watching();
    let fixture = Fixture::with_hello(function, json!({})).await;
    let headers = [("traceparent", PARENT), ("tracestate", "vendor=1")];
    send(&fixture, Method::GET, "/function/hello", &headers).await;
    assert_eq!(header(&seen, 0, "traceparent").as_deref(), Some(PARENT));
    assert_eq!(header(&seen, 0, "tracestate").as_deref(), Some("vendor=1"));
    let headers = [("traceparent", "00-nonsense"), ("tracestate", "vendor=1")];
    send(&fixture, Method::GET, "/function/hello", &headers).await;
    send(&fixture, Method::GET, "/function/hello", &[]).await;
    let made = [1, 2].map(|index| header(&seen, index, "traceparent").expect("one was made"));
    assert_ne!(made[0], made[1]);
    assert!(
        made.iter()
            .all(|one| one.len() == PARENT.len() && one.ends_with("-01")),
        "{made:?}"
    );
    assert_eq!(header(&seen, 1, "tracestate"), None);
}

#[tokio::test]
async fn every_attempt_of_a_queued_invocation_is_in_its_trace() {
    let (function, seen) = watching();
    let annotations = json!({ "com.openfaas.retry.min_wait": "0s", "com.openfaas.retry.max_wait": "1s" });
    let fixture = Fixture::with_hello(function, json!({ "annotations": annotations })).await;
    let status = send(
        &fixture,
        Method::POST,
        "/async-function/hello/again",
        &[("traceparent", PARENT)],
    )
    .await;
    assert_eq!(status, StatusCode::ACCEPTED);
    fixture
        .until("a second attempt", |_| {
            seen.lock().expect("nobody panicked").len() == 2
        })
        .await;
    for index in [0, 1] {
        assert_eq!(header(&seen, index, "traceparent").as_deref(), Some(PARENT));
    }
}

#[tokio::test]
async fn the_log_names_invocation_and_trace_of_what_was_not_answered() {
    let (function, _seen) = watching();
    let fixture = Fixture::with_hello(function, json!({})).await;
    let long = "i".repeat(3000);
    for call_id in ["mine", long.as_str()] {
        let headers = [("traceparent", PARENT), ("x-call-id", call_id)];
        let status = send(&fixture, Method::GET, "/function/hello/crash", &headers).await;
        assert_eq!(status, StatusCode::BAD_GATEWAY);
    }
    let mut log = String::new();
    for _ in 0..1000 {
        log = fixture.get("/system/logs?name=hello").await.1;
        if log.matches("was not answered").count() == 2 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let lines: Vec<Value> = log
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    let told = |start: String| {
        lines
            .iter()
            .any(|line| line["text"].as_str().is_some_and(|text| text.starts_with(&start)))
    };
    assert!(
        told(format!(
            "invocation mine (trace {TRACE}) was not answered: hello: the function crashed: null call"
        )),
        "{log}"
    );
    let cut = "i".repeat(100);
    assert!(told(format!("invocation {cut} (trace {TRACE})")), "{log}");
}
