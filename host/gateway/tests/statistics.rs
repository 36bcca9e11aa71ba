//! Statistics of functions, with the fake sandbox: what is counted, what is not, and since when.

mod support;

use std::time::Duration;

use http::{Method, StatusCode};
use serde_json::{Value, json};
use spore_sandbox::fake::{FakeFunction, response};
use support::{Fixture, static_program};

const STAGES: [&str; 6] = [
    "queued",
    "shellTaken",
    "mapped",
    "firstInstruction",
    "handlerEntered",
    "answer",
];

async fn statistics(fixture: &Fixture) -> Value {
    let (status, body) = fixture.get("/system/function/hello/stats").await;
    assert_eq!(status, StatusCode::OK, "{body}");
    serde_json::from_str(&body).expect("JSON")
}

/// The statistics when the stages of so many cold starts are known, which they are a moment after the answers.
async fn statistics_of(fixture: &Fixture, cold_starts: u64) -> Value {
    for _ in 0..1000 {
        let statistics = statistics(fixture).await;
        if statistics["coldStart"]["whole"]["count"] == cold_starts {
            return statistics;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!(
        "{cold_starts} cold starts were not counted: {}",
        statistics(fixture).await
    );
}

/// Numbers of cold initialisations, cold executions and warm ones.
fn counts(statistics: &Value) -> [u64; 3] {
    [
        &statistics["initialisation"]["cold"],
        &statistics["execution"]["cold"],
        &statistics["execution"]["warm"],
    ]
    .map(|durations| durations["count"].as_u64().expect("a number"))
}

/// Answers, crashes or breaks off as the path says.
fn moody() -> FakeFunction {
    FakeFunction::http(|request, control| async move {
        if request.uri().path() == "/crash" {
            control.crash("null call");
            std::future::pending::<()>().await;
        }
        response(200, "hello")
    })
}

#[tokio::test]
async fn cold_and_warm_invocations_are_counted_apart() {
    let fixture = Fixture::with_hello(moody(), json!({})).await;
    let before = statistics(&fixture).await;
    assert_eq!(
        (&before["name"], &before["namespace"]),
        (&json!("hello"), &json!("openfaas-fn"))
    );
    assert_eq!(counts(&before), [0, 0, 0]);
    assert_eq!(
        before["execution"]["warm"],
        json!({ "count": 0 }),
        "there are no figures of nothing"
    );

    for _ in 0..4 {
        assert_eq!(fixture.get("/function/hello").await.0, StatusCode::OK);
    }
    let after = statistics_of(&fixture, 1).await;
    assert_eq!(counts(&after), [1, 1, 3]);
    let warm = &after["execution"]["warm"];
    let figure = |name: &str| warm[name].as_f64().expect("a number");
    assert!(figure("averageSeconds") <= figure("maximumSeconds"), "{warm}");
    assert!(figure("p50Seconds") <= figure("p95Seconds"), "{warm}");
    assert!(figure("p95Seconds") <= figure("p99Seconds"), "{warm}");
    assert!(figure("p99Seconds") <= figure("maximumSeconds"), "{warm}");
    assert!(
        figure("standardDeviationSeconds") <= figure("maximumSeconds"),
        "{warm}"
    );
    assert_eq!(after["since"], before["since"]);
}

#[tokio::test]
async fn stages_that_the_sandbox_knows_add_up_to_the_whole() {
    let fixture = Fixture::with_hello(
        moody().start_delay(Duration::from_millis(20)),
        json!({ "annotations": { "dev.spore.idle-timeout": "0s" } }),
    )
    .await;
    for _ in 0..3 {
        assert_eq!(fixture.get("/function/hello").await.0, StatusCode::OK);
    }
    let statistics = statistics_of(&fixture, 3).await;
    assert_eq!(counts(&statistics), [3, 3, 0]);
    let stages = &statistics["coldStart"];
    let known = STAGES.map(|stage| stages[stage]["count"].as_u64().expect("a number"));
    assert_eq!(known, [3, 0, 0, 3, 0, 3], "a fake knows no more");
    let average = |durations: &Value| durations["averageSeconds"].as_f64().unwrap_or(0.0);
    let sum: f64 = STAGES.iter().map(|stage| average(&stages[*stage])).sum();
    let whole = average(&stages["whole"]);
    assert!((sum - whole).abs() < 1e-6, "{sum} of {whole}");
    assert!(
        average(&stages["firstInstruction"]) >= 0.02,
        "the delay of the start is in the stage that it delays: {stages}"
    );
    let parts = average(&statistics["initialisation"]["cold"]) + average(&statistics["execution"]["cold"]);
    assert!(parts <= whole + 1e-6, "{parts} of {whole}");
}

#[tokio::test]
async fn answers_that_are_none_are_not_counted() {
    let fixture = Fixture::with_hello(moody(), json!({})).await;
    assert_eq!(
        fixture.get("/function/hello/crash").await.0,
        StatusCode::BAD_GATEWAY
    );
    assert_eq!(fixture.get("/function/hello").await.0, StatusCode::OK);
    let statistics = statistics_of(&fixture, 1).await;
    assert_eq!(
        counts(&statistics),
        [2, 1, 0],
        "two instances were started, one has answered"
    );
}

#[tokio::test]
async fn counting_begins_anew_with_each_deployment_and_each_daemon() {
    let mut fixture = Fixture::with_hello(moody(), json!({})).await;
    assert_eq!(fixture.get("/function/hello").await.0, StatusCode::OK);
    let first = statistics_of(&fixture, 1).await;

    let (status, body) = fixture
        .json(Method::PUT, "/system/functions", &support::deployment(json!({})))
        .await;
    assert_eq!(status, StatusCode::ACCEPTED, "{body}");
    let second = statistics(&fixture).await;
    assert_eq!(counts(&second), [0, 0, 0]);
    assert_ne!(second["since"], first["since"]);

    assert_eq!(fixture.get("/function/hello").await.0, StatusCode::OK);
    statistics_of(&fixture, 1).await;
    fixture.restart().await;
    let third = statistics(&fixture).await;
    assert_eq!(counts(&third), [0, 0, 0]);
    assert_ne!(third["since"], second["since"]);

    let removal = json!({ "functionName": "hello" });
    let (status, body) = fixture.json(Method::DELETE, "/system/functions", &removal).await;
    assert_eq!(status, StatusCode::ACCEPTED, "{body}");
    let (status, body) = fixture.get("/system/function/hello/stats").await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    assert_eq!(body, "the function `hello` does not exist\n");
}

#[tokio::test]
async fn a_function_that_does_not_exist_and_another_method_are_refused() {
    let fixture = Fixture::start(FakeFunction::echo()).await;
    fixture.push("hello", &static_program()).await;
    let (status, body) = fixture.get("/system/function/hello/stats").await;
    assert_eq!(status, StatusCode::NOT_FOUND, "{body}");
    fixture.deploy(json!({})).await;
    let (status, _) = fixture.get("/system/function/hello.openfaas-fn/stats").await;
    assert_eq!(status, StatusCode::OK);
    let (status, _) = fixture.get("/system/function/hello/stats?namespace=other").await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    let (answer, _) = fixture
        .call(Method::POST, "/system/function/hello/stats", "")
        .await;
    assert_eq!(answer.status(), StatusCode::METHOD_NOT_ALLOWED);
}
