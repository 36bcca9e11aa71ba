//! Functions whose answers are the requests of others: what goes from link to link, and what does not.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use serde_json::json;
use spore_sandbox::fake::{FakeFunction, FakeSandbox, response};

mod support;

use support::{Fixture, static_program};

const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

/// What the functions got: name, method, path, headers.
type Seen = Arc<Mutex<Vec<(String, Method, String, HeaderMap)>>>;

/// Functions that append their names to what they get. `teapot` answers 418, `crash` not at all.
async fn appending() -> (Fixture, Seen) {
    let seen = Seen::default();
    let kept = seen.clone();
    let sandbox = FakeSandbox::new(move |spec| {
        let (name, kept) = (spec.function.clone(), kept.clone());
        FakeFunction::http(move |request, control| {
            let (name, kept) = (name.clone(), kept.clone());
            async move {
                let (head, body) = request.into_parts();
                kept.lock().expect("nobody panicked").push((
                    name.clone(),
                    head.method,
                    head.uri.to_string(),
                    head.headers,
                ));
                if name == "crash" {
                    control.crash("null call");
                    std::future::pending::<()>().await;
                }
                let body = body
                    .collect()
                    .await
                    .map(|body| body.to_bytes())
                    .unwrap_or_default();
                let status = if name == "teapot" { 418 } else { 200 };
                let mut answer = response(status, [&body[..], name.as_bytes()].concat());
                let headers = answer.headers_mut();
                headers.insert("content-type", format!("text/{name}").parse().expect("a value"));
                headers.insert("content-encoding", "identity".parse().expect("a value"));
                headers.insert("set-cookie", name.parse().expect("a value"));
                answer
            }
        })
    });
    let fixture = Fixture::start_with(sandbox, |_| {}).await;
    fixture.push("hello", &static_program()).await;
    (fixture, seen)
}

async fn deploy(fixture: &Fixture, name: &str, chain: Option<&str>) -> (StatusCode, String) {
    let mut deployment = json!({ "service": name, "image": "hello" });
    if let Some(chain) = chain {
        deployment["annotations"] = json!({ "dev.spore.chain": chain });
    }
    fixture.json(Method::POST, "/system/functions", &deployment).await
}

async fn send(
    fixture: &Fixture,
    method: Method,
    path: &str,
    headers: &[(&str, &str)],
    body: impl Into<Bytes>,
) -> (Response<()>, Bytes) {
    let mut request = Request::builder()
        .method(method)
        .uri(path)
        .header("host", "gateway");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(Full::new(body.into())).expect("a request");
    let (head, body): (_, Incoming) = fixture.send(request).await.into_parts();
    let body = body.collect().await.expect("a whole body").to_bytes();
    (Response::from_parts(head, ()), body)
}

#[tokio::test]
async fn body_type_and_trace_go_on_and_nothing_that_is_for_the_first_alone() {
    let (fixture, seen) = appending().await;
    for (name, chain) in [("a", Some("b,c")), ("b", Some("a")), ("c", None)] {
        assert_eq!(deploy(&fixture, name, chain).await.0, StatusCode::ACCEPTED);
    }
    let headers = [
        ("traceparent", PARENT),
        ("tracestate", "vendor=1"),
        ("x-call-id", "mine"),
        ("authorization", "Bearer secret"),
        ("cookie", "secret"),
        ("content-type", "text/first"),
    ];
    let (answer, body) = send(&fixture, Method::PUT, "/function/a/path?query", &headers, "x").await;
    assert_eq!((answer.status(), &body[..]), (StatusCode::OK, &b"xabc"[..]));
    assert_eq!(
        [
            "content-type",
            "set-cookie",
            "x-spore-chain",
            "x-call-id",
            "x-spore-start"
        ]
        .map(|name| answer.headers()[name].to_str().expect("text")),
        ["text/c", "c", "a,b,c", "mine", "cold"]
    );
    let seen = std::mem::take(&mut *seen.lock().expect("nobody panicked"));
    let calls: Vec<_> = seen
        .iter()
        .map(|(name, method, path, _)| (name.as_str(), method.as_str(), path.as_str()))
        .collect();
    assert_eq!(
        calls,
        [
            ("a", "PUT", "/path?query"),
            ("b", "POST", "/"),
            ("c", "POST", "/")
        ],
        "the list of `b` does not count"
    );
    for (index, (name, _, _, headers)) in seen.iter().enumerate() {
        assert_eq!(headers["traceparent"], PARENT, "{name}");
        assert_eq!(
            (&headers["tracestate"], &headers["x-call-id"]),
            (&"vendor=1".parse().expect("ok"), &"mine".parse().expect("ok"))
        );
        assert_eq!(headers.contains_key("authorization"), index == 0);
        assert_eq!(headers.contains_key("cookie"), index == 0);
        assert_eq!(headers["content-type"], ["text/first", "text/a", "text/b"][index]);
        assert!(!headers.contains_key("x-spore-chain") && !headers.contains_key("set-cookie"));
    }
    // Of whom something is asked about the first one alone.
    let (answer, _) = send(&fixture, Method::HEAD, "/function/a", &[], "").await;
    assert_eq!(
        (&answer.headers()["content-type"], answer.status()),
        (&"text/a".parse().expect("ok"), StatusCode::OK)
    );
}

#[tokio::test]
async fn a_link_that_does_not_answer_with_success_ends_the_chain() {
    let (fixture, seen) = appending().await;
    for name in ["a", "teapot", "crash", "c"] {
        assert_eq!(deploy(&fixture, name, None).await.0, StatusCode::ACCEPTED);
    }
    let through = async |links: &'static str| {
        let headers = [("x-spore-chain", links)];
        let (answer, body) = send(&fixture, Method::POST, "/function/a", &headers, "x").await;
        let failed = answer.headers().get("x-spore-chain-failed");
        let failed = failed.map(|name| name.to_str().expect("text").to_owned());
        let body = String::from_utf8_lossy(&body).into_owned();
        (answer.status().as_u16(), failed, body)
    };
    assert_eq!(
        through("teapot,c").await,
        (418, Some("teapot".to_owned()), "xateapot".to_owned())
    );
    let (status, failed, body) = through("crash,c").await;
    assert_eq!((status, failed.as_deref()), (502, Some("crash")));
    assert!(body.starts_with("link 2 of 3 of the chain, crash: "), "{body}");
    let seen_before = seen.lock().expect("nobody panicked").len();
    let (status, _, body) = through("c,nobody").await;
    assert_eq!(status, 502, "{body}");
    assert!(
        body.contains("link 3 of 3 of the chain, nobody.openfaas-fn: no function"),
        "{body}"
    );
    for links in ["a", "c,c", "C", ""] {
        let (status, _, body) = through(links).await;
        assert_eq!(status, 400, "{links}: {body}");
    }
    assert_eq!(
        seen.lock().expect("nobody panicked").len(),
        seen_before,
        "nothing has run"
    );
    assert_eq!(deploy(&fixture, "own", Some("a")).await.0, StatusCode::ACCEPTED);
    let headers = [("x-spore-chain", "c")];
    let (answer, _) = send(&fixture, Method::POST, "/function/own", &headers, "x").await;
    assert_eq!(answer.status(), StatusCode::BAD_REQUEST, "it has one of its own");
    let (answer, body) = send(
        &fixture,
        Method::POST,
        "/async-function/a",
        &[("x-spore-chain", "nobody")],
        "x",
    )
    .await;
    assert_eq!(answer.status(), StatusCode::BAD_GATEWAY, "{body:?}");
    for bad in ["own2,b,own2", "", "b,,c", "b,B"] {
        let (status, body) = deploy(&fixture, "own2", Some(bad)).await;
        assert_eq!(status, StatusCode::BAD_REQUEST);
        assert!(body.contains("dev.spore.chain"), "{body}");
    }
}

#[tokio::test]
async fn seventeen_functions_are_a_chain_and_long_bodies_pass_it() {
    let (fixture, _) = appending().await;
    let names: Vec<String> = (0..17).map(|number| format!("f{number}")).collect();
    for name in &names {
        assert_eq!(deploy(&fixture, name, None).await.0, StatusCode::ACCEPTED);
    }
    let links = names[1..].join(",");
    let headers = [("x-spore-chain", links.as_str())];
    let long: Bytes = (0..3_000_000u32)
        .map(|number| number as u8)
        .collect::<Vec<_>>()
        .into();
    let (answer, body) = send(&fixture, Method::POST, "/function/f0", &headers, long.clone()).await;
    assert_eq!(answer.status(), StatusCode::OK);
    assert!(
        body == [&long[..], names.concat().as_bytes()].concat(),
        "{} bytes",
        body.len()
    );
    let more = format!("{links},f99");
    let (answer, _) = send(
        &fixture,
        Method::POST,
        "/function/f0",
        &[("x-spore-chain", &more)],
        "x",
    )
    .await;
    assert_eq!(answer.status(), StatusCode::BAD_REQUEST);
}
