//! Namespaces, secrets and alerts through the API.

use http::{Method, StatusCode};
use serde_json::{Value, json};
use spore_sandbox::InstanceSpec;
use spore_sandbox::fake::{FakeFunction, response};

mod support;

use support::{Fixture, deployment, static_program};

const SECRETS: &str = "/system/secrets";
const FUNCTIONS: &str = "/system/functions";

async fn fixture() -> Fixture {
    let fixture = Fixture::start(FakeFunction::echo()).await;
    fixture.push("hello", &static_program()).await;
    fixture
}

async fn listed(fixture: &Fixture, path: &str) -> Value {
    let (status, body) = fixture.get(path).await;
    assert_eq!(status, StatusCode::OK, "{body}");
    serde_json::from_str(&body).expect("JSON")
}

/// Sends a request and compares the status of its answer, whose body is returned.
async fn expect(fixture: &Fixture, method: Method, path: &str, body: Value, expected: u16) -> String {
    let (status, text) = fixture.json(method.clone(), path, &body).await;
    assert_eq!(status.as_u16(), expected, "{method} {path} {body}: {text}");
    text
}

/// Files of the secrets that new instances of a function find.
fn given(fixture: &Fixture, function: &str) -> Vec<(String, Vec<u8>)> {
    let specs = fixture.sandbox.deployed();
    let spec = specs.into_iter().find(|spec| spec.function == function);
    let files = |spec: InstanceSpec| {
        let secrets = spec.secrets.into_iter();
        secrets
            .map(|secret| (secret.name, secret.value.to_vec()))
            .collect()
    };
    spec.map(files).expect("it is deployed")
}

#[tokio::test]
async fn namespaces_are_made_described_changed_and_removed() {
    let mut fixture = fixture().await;
    assert_eq!(
        listed(&fixture, "/system/namespaces").await,
        json!(["openfaas-fn"])
    );
    let team = json!({ "name": "team", "labels": { "openfaas": "1" }, "annotations": { "openfaas": "1" } });
    expect(&fixture, Method::POST, "/system/namespace/", team.clone(), 201).await;
    expect(&fixture, Method::POST, "/system/namespace/", team.clone(), 409).await;
    expect(
        &fixture,
        Method::POST,
        "/system/namespace/",
        json!({ "name": "A.b" }),
        400,
    )
    .await;
    fixture.restart().await;
    assert_eq!(
        listed(&fixture, "/system/namespaces").await,
        json!(["openfaas-fn", "team"])
    );
    assert_eq!(listed(&fixture, "/system/namespace/team").await, team);
    let changed = json!({ "name": "team", "labels": {} });
    expect(&fixture, Method::PUT, "/system/namespaces/team", changed, 202).await;
    let now = listed(&fixture, "/system/namespace/team").await;
    assert_eq!(now, json!({ "name": "team", "labels": {}, "annotations": {} }));
    expect(
        &fixture,
        Method::PUT,
        "/system/namespace/team",
        json!({ "name": "other" }),
        400,
    )
    .await;
    expect(&fixture, Method::PUT, "/system/namespace/other", json!({}), 404).await;

    let function = deployment(json!({ "namespace": "team" }));
    expect(&fixture, Method::POST, FUNCTIONS, function, 202).await;
    let refused = expect(&fixture, Method::DELETE, "/system/namespace/team", json!({}), 409).await;
    assert!(refused.contains("hello"), "{refused}");
    let name = json!({ "functionName": "hello", "namespace": "team" });
    expect(&fixture, Method::DELETE, FUNCTIONS, name, 202).await;
    let body = json!({ "name": "team", "annotations": { "openfaas": "1" } });
    expect(
        &fixture,
        Method::DELETE,
        "/system/namespace/team",
        body.clone(),
        202,
    )
    .await;
    expect(&fixture, Method::DELETE, "/system/namespace/team", body, 404).await;
    expect(
        &fixture,
        Method::DELETE,
        "/system/namespace/openfaas-fn",
        json!({}),
        400,
    )
    .await;
    assert_eq!(
        fixture.get("/system/namespace/team").await.0,
        StatusCode::NOT_FOUND
    );
}

#[tokio::test]
async fn functions_of_namespaces_are_apart() {
    let mut fixture = fixture().await;
    let elsewhere = deployment(json!({ "namespace": "team" }));
    let refused = expect(&fixture, Method::POST, FUNCTIONS, elsewhere.clone(), 400).await;
    assert!(refused.contains("make that first"), "{refused}");
    expect(&fixture, Method::PUT, FUNCTIONS, elsewhere.clone(), 404).await;
    expect(
        &fixture,
        Method::POST,
        "/system/namespace/",
        json!({ "name": "team" }),
        201,
    )
    .await;
    expect(&fixture, Method::POST, FUNCTIONS, deployment(json!({})), 202).await;
    expect(&fixture, Method::POST, FUNCTIONS, elsewhere, 202).await;
    fixture.restart().await;
    for (path, expected) in [
        (FUNCTIONS, "openfaas-fn"),
        ("/system/functions?namespace=openfaas-fn", "openfaas-fn"),
        ("/system/functions?namespace=team", "team"),
    ] {
        let list = listed(&fixture, path).await;
        assert_eq!(list.as_array().map(Vec::len), Some(1), "{list}");
        assert_eq!(
            (&list[0]["name"], &list[0]["namespace"]),
            (&json!("hello"), &json!(expected))
        );
        assert_eq!(list[0]["labels"]["faas_function"], "hello");
    }
    assert_eq!(
        fixture.get("/system/functions?namespace=other").await.0,
        StatusCode::NOT_FOUND
    );
    for path in [
        "/system/function/hello.team",
        "/system/function/hello?namespace=team",
    ] {
        assert_eq!(listed(&fixture, path).await["namespace"], "team");
    }
    for name in ["hello", "hello.openfaas-fn", "hello.team"] {
        let (answer, body) = fixture
            .call(Method::POST, &format!("/function/{name}"), name)
            .await;
        assert_eq!((answer.status(), body.as_str()), (StatusCode::OK, name));
    }
    assert_eq!(
        fixture.get("/function/hello.other").await.0,
        StatusCode::NOT_FOUND
    );
    let scale = json!({ "serviceName": "hello", "replicas": 2, "namespace": "team" });
    expect(&fixture, Method::POST, "/system/scale-function/hello", scale, 202).await;
    fixture
        .until("two instances of the one that is scaled", |fixture| {
            let live = fixture.sandbox.live();
            live.iter().filter(|id| id.starts_with("hello.team-")).count() == 2
        })
        .await;
    let name = json!({ "functionName": "hello" });
    expect(
        &fixture,
        Method::DELETE,
        "/system/functions?namespace=team",
        name,
        202,
    )
    .await;
    assert_eq!(fixture.get("/function/hello.team").await.0, StatusCode::NOT_FOUND);
    assert_eq!(fixture.get("/function/hello").await.0, StatusCode::OK);
}

#[tokio::test]
async fn secrets_are_kept_given_to_functions_and_never_shown() {
    let reader =
        FakeFunction::http(
            |_, control| async move { response(200, control.spec().secrets[0].value.to_vec()) },
        );
    let mut fixture = Fixture::start(reader).await;
    fixture.push("hello", &static_program()).await;
    let secret = |value: &str| json!({ "name": "key", "value": value });
    let with_key = deployment(json!({ "secrets": ["key", "raw", "key"] }));
    let refused = expect(&fixture, Method::POST, FUNCTIONS, with_key.clone(), 400).await;
    assert!(
        refused.contains("key") && refused.contains("make it first"),
        "{refused}"
    );
    expect(&fixture, Method::POST, SECRETS, secret("hush"), 201).await;
    expect(&fixture, Method::POST, SECRETS, secret("other"), 409).await;
    let raw = json!({ "name": "raw", "rawValue": "AAH/" });
    expect(&fixture, Method::POST, SECRETS, raw, 201).await;
    expect(&fixture, Method::POST, FUNCTIONS, with_key, 202).await;
    fixture.restart().await;
    let files = |key: &str| {
        [("key", key.as_bytes()), ("raw", &[0, 1, 255])]
            .map(|(name, value)| (name.to_owned(), value.to_vec()))
    };
    assert_eq!(given(&fixture, "hello"), files("hush"));
    let named = |name: &str| json!({ "name": name, "namespace": "openfaas-fn" });
    assert_eq!(
        listed(&fixture, SECRETS).await,
        json!([named("key"), named("raw")])
    );
    for path in [SECRETS, FUNCTIONS, "/system/function/hello"] {
        assert!(!fixture.get(path).await.1.contains("hush"), "{path}");
    }

    assert_eq!(fixture.get("/function/hello").await.1, "hush");
    expect(&fixture, Method::PUT, SECRETS, secret("new"), 202).await;
    assert_eq!(given(&fixture, "hello"), files("new"));
    assert_eq!(
        fixture.get("/function/hello").await.1,
        "new",
        "from a new instance"
    );
    expect(
        &fixture,
        Method::PUT,
        SECRETS,
        json!({ "name": "b", "value": "c" }),
        404,
    )
    .await;

    let refused = expect(&fixture, Method::DELETE, SECRETS, json!({ "name": "key" }), 409).await;
    assert!(refused.contains("hello"), "{refused}");
    expect(
        &fixture,
        Method::DELETE,
        FUNCTIONS,
        json!({ "functionName": "hello" }),
        202,
    )
    .await;
    for name in ["key", "raw"] {
        expect(&fixture, Method::DELETE, SECRETS, json!({ "name": name }), 202).await;
    }
    expect(&fixture, Method::DELETE, SECRETS, json!({ "name": "key" }), 404).await;
    assert_eq!(listed(&fixture, SECRETS).await, json!([]));
}

#[tokio::test]
async fn secrets_belong_to_their_namespace_and_bad_ones_are_refused() {
    let fixture = fixture().await;
    let elsewhere = json!({ "name": "key", "value": "a", "namespace": "team" });
    expect(&fixture, Method::POST, SECRETS, elsewhere.clone(), 400).await;
    expect(
        &fixture,
        Method::POST,
        "/system/namespace/",
        json!({ "name": "team" }),
        201,
    )
    .await;
    expect(&fixture, Method::POST, SECRETS, elsewhere, 201).await;
    assert_eq!(listed(&fixture, SECRETS).await, json!([]));
    let list = listed(&fixture, "/system/secrets?namespace=team").await;
    assert_eq!(list, json!([{ "name": "key", "namespace": "team" }]));
    let wanting = deployment(json!({ "secrets": ["key"] }));
    expect(&fixture, Method::POST, FUNCTIONS, wanting, 400).await;
    let refused = expect(&fixture, Method::DELETE, "/system/namespace/team", json!({}), 409).await;
    assert!(refused.contains("key"), "{refused}");
    for bad in [
        json!({ "name": "a/b", "value": "c" }),
        json!({ "name": "..", "value": "c" }),
        json!({ "name": "", "value": "c" }),
        json!({ "name": "a" }),
        json!({ "name": "a", "rawValue": "!" }),
        json!({ "name": "a", "value": "x".repeat((64 << 10) + 1) }),
    ] {
        expect(&fixture, Method::POST, SECRETS, bad, 400).await;
    }
    let names = ["a", "b", "c"];
    for name in names {
        let large = json!({ "name": name, "value": "x".repeat(60 << 10) });
        expect(&fixture, Method::POST, SECRETS, large, 201).await;
    }
    let refused = expect(
        &fixture,
        Method::POST,
        FUNCTIONS,
        deployment(json!({ "secrets": names })),
        400,
    )
    .await;
    assert!(refused.contains("131072"), "{refused}");
}

#[tokio::test]
async fn the_database_is_for_its_user_only() {
    use std::os::unix::fs::PermissionsExt;
    let mut fixture = fixture().await;
    let database = fixture.data.path().join("spore.redb");
    let mode = || {
        std::fs::metadata(&database)
            .expect("it is there")
            .permissions()
            .mode()
    };
    assert_eq!(mode() & 0o777, 0o600);
    std::fs::set_permissions(&database, std::fs::Permissions::from_mode(0o644)).expect("it is ours");
    fixture.restart().await;
    assert_eq!(mode() & 0o777, 0o600, "one of an earlier version too");
}

#[tokio::test]
async fn alerts_scale_functions() {
    let labels = json!({ "labels": { "com.openfaas.scale.min": "1", "com.openfaas.scale.max": "4" } });
    let fixture = Fixture::with_hello(FakeFunction::echo(), labels).await;
    let alert = |status: &str, function: &str| {
        json!({ "status": status, "receiver": "scale-up", "alerts": [
            { "status": status, "labels": { "alertname": "APIHighInvocationRate", "function_name": function } },
        ]})
    };
    let replicas = async |expected: u64| {
        for _ in 0..1000 {
            if listed(&fixture, "/system/function/hello").await["replicas"] == json!(expected) {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        panic!("there are never {expected} instances");
    };
    replicas(1).await;
    let path = "/system/alert";
    expect(
        &fixture,
        Method::POST,
        path,
        alert("firing", "hello.openfaas-fn"),
        200,
    )
    .await;
    replicas(2).await;
    expect(&fixture, Method::POST, path, alert("resolved", "hello"), 200).await;
    replicas(1).await;
    expect(&fixture, Method::POST, path, alert("firing", "nobody"), 200).await;
    expect(&fixture, Method::POST, path, alert("burning", "hello"), 400).await;
    assert_eq!(fixture.get(path).await.0, StatusCode::METHOD_NOT_ALLOWED);
}
