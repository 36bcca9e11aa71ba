//! How many instances there are: scaling, starts ahead of demand, one invocation each, over real HTTP.

mod support;

use std::collections::BTreeSet;
use std::time::Duration;

use http::{Method, StatusCode};
use serde_json::{Value, json};
use spore_sandbox::fake::FakeFunction;
use support::Fixture;

/// Replicas, and how many of them are ready.
async fn replicas(fixture: &Fixture) -> (u64, u64) {
    let (status, text) = fixture.get("/system/function/hello").await;
    assert_eq!(status, StatusCode::OK, "{text}");
    let function: Value = serde_json::from_str(&text).expect("JSON");
    let number = |field: &str| function[field].as_u64().unwrap_or(0);
    (number("replicas"), number("availableReplicas"))
}

/// Waits until there are so many, all of them ready.
async fn until_replicas(fixture: &Fixture, wanted: u64) {
    for _ in 0..500 {
        if replicas(fixture).await == (wanted, wanted) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("{:?} instead of {wanted}", replicas(fixture).await);
}

async fn scale(fixture: &Fixture, path: &str, body: Value) -> (StatusCode, String) {
    fixture.json(Method::POST, path, &body).await
}

async fn post(fixture: &Fixture, path: &str) -> (StatusCode, String) {
    let (response, text) = fixture.call(Method::POST, path, "").await;
    (response.status(), text)
}

#[tokio::test]
async fn a_function_is_scaled_up_and_down_until_it_is_deployed_again() {
    let max = json!({ "labels": { "com.openfaas.scale.max": "4" } });
    let fixture = Fixture::with_hello(FakeFunction::echo(), max).await;
    for (path, name, wanted) in [
        ("/system/scale-function/hello", "hello", 4),
        ("/system/scale-function/hello.openfaas-fn", "hello.openfaas-fn", 1),
        ("/system/scale-function/hello?namespace=openfaas-fn", "", 3),
    ] {
        let body = json!({ "serviceName": name, "replicas": wanted, "namespace": "openfaas-fn" });
        let (status, text) = scale(&fixture, path, body).await;
        assert_eq!((status, text.as_str()), (StatusCode::ACCEPTED, ""), "{path}");
        until_replicas(&fixture, wanted).await;
    }
    let again = support::deployment(json!({ "envVars": { "A": "1" } }));
    let (status, text) = fixture.json(Method::PUT, "/system/functions", &again).await;
    assert_eq!(status, StatusCode::ACCEPTED, "{text}");
    until_replicas(&fixture, 0).await;
    assert_eq!(
        scale(&fixture, "/system/scale-function/hello", json!({ "replicas": 2 }))
            .await
            .0,
        202
    );
    until_replicas(&fixture, 2).await;
    let zero = json!({ "service": "hello", "replicas": 0 });
    assert_eq!(scale(&fixture, "/system/scale-function/hello", zero).await.0, 202);
    assert_eq!(
        replicas(&fixture).await,
        (0, 0),
        "at once, since none had anything to do"
    );
    fixture
        .until("nothing lives", |f| f.sandbox.live().is_empty())
        .await;
    let (response, _) = fixture.call(Method::GET, "/function/hello", "").await;
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(response.headers()["x-spore-start"], "cold");
}

#[tokio::test]
async fn what_cannot_be_scaled_is_refused_with_what_to_do() {
    let max = json!({ "labels": { "com.openfaas.scale.max": "4" } });
    let fixture = Fixture::with_hello(FakeFunction::echo(), max).await;
    let hello = "/system/scale-function/hello";
    for (path, body, status, says) in [
        (hello, json!({ "replicas": 5 }), 400, "maximum, which is 4"),
        (
            hello,
            json!({ "replicas": 1u64 << 40 }),
            400,
            "maximum, which is 4",
        ),
        (hello, json!({ "replicas": -1 }), 400, "JSON"),
        (hello, json!({ "replicas": 1.5 }), 400, "JSON"),
        (hello, json!({ "serviceName": "hello" }), 400, "replicas"),
        (hello, json!([]), 400, "JSON"),
        (
            hello,
            json!({ "serviceName": "other", "replicas": 1 }),
            400,
            "other",
        ),
        (hello, json!({ "replicas": 1, "namespace": "x" }), 404, "hello.x"),
        (
            "/system/scale-function/hello?namespace=x",
            json!({ "replicas": 1 }),
            404,
            "hello.x",
        ),
        (
            "/system/scale-function/nobody",
            json!({ "replicas": 1 }),
            404,
            "nobody",
        ),
        ("/system/scale-function/", json!({ "replicas": 1 }), 404, "exist"),
    ] {
        let (found, text) = scale(&fixture, path, body.clone()).await;
        assert_eq!(found, status, "{path} {body}: {text}");
        assert!(text.contains(says), "{path} {body}: {text}");
    }
    let (status, _) = fixture.get(hello).await;
    assert_eq!(status, StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(fixture.sandbox.started(), 0);
}

#[tokio::test]
async fn instances_are_started_ahead_of_demand() {
    let max = json!({ "labels": { "com.openfaas.scale.max": "3" } });
    let fixture = Fixture::with_hello(FakeFunction::echo(), max).await;
    let (status, text) = post(&fixture, "/system/function/hello/pre-boot/2").await;
    assert_eq!(
        (status, text.as_str()),
        (StatusCode::ACCEPTED, r#"{"started":2}"#)
    );
    let (status, text) = post(&fixture, "/pre-boot/3?function=hello").await;
    assert_eq!(
        (status, text.as_str()),
        (StatusCode::ACCEPTED, r#"{"started":1}"#)
    );
    until_replicas(&fixture, 3).await;
    let (response, _) = fixture.call(Method::GET, "/function/hello", "").await;
    assert_eq!(response.headers()["x-spore-start"], "warm");
    for (path, status, says) in [
        ("/system/function/hello/pre-boot/4", 400, "maximum, which is 3"),
        ("/system/function/hello/pre-boot/-1", 400, "-1"),
        ("/system/function/hello/pre-boot/many", 400, "many"),
        ("/system/function/hello/pre-boot/", 400, "number"),
        ("/system/function/nobody/pre-boot/1", 404, "nobody"),
        ("/pre-boot/1", 400, "function=NAME"),
        ("/pre-boot/1?function=nobody", 404, "nobody"),
    ] {
        let (found, text) = post(&fixture, path).await;
        assert_eq!(found, status, "{path}: {text}");
        assert!(text.contains(says), "{path}: {text}");
    }
    let (status, _) = fixture.get("/system/function/hello/pre-boot/1").await;
    assert_eq!(status, StatusCode::METHOD_NOT_ALLOWED);
}

#[tokio::test]
async fn instances_that_could_not_stay_are_not_started_ahead() {
    let settings = json!({ "annotations": { "dev.spore.idle-timeout": "0s" } });
    let fixture = Fixture::with_hello(FakeFunction::echo(), settings).await;
    let (status, text) = post(&fixture, "/system/function/hello/pre-boot/1").await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert!(text.contains("idle-timeout"), "{text}");
}

#[tokio::test]
async fn each_invocation_has_an_instance_of_its_own_which_was_there_before() {
    let settings = json!({ "annotations": { "dev.spore.isolation-per-request": "true" } });
    let fixture = Fixture::with_hello(FakeFunction::echo(), settings).await;
    let mut seen = BTreeSet::new();
    for round in 0..10 {
        let (response, _) = fixture.call(Method::GET, "/function/hello", "").await;
        let start = response.headers()["x-spore-start"].to_str().expect("text");
        assert_eq!(start, if round == 0 { "cold" } else { "warm" });
        until_replicas(&fixture, 1).await;
        fixture
            .until("the used one has ended", |f| f.sandbox.live().len() == 1)
            .await;
        assert!(
            seen.insert(fixture.sandbox.live()),
            "the instance of round {round} was there before"
        );
    }
}
