//! The dashboard's files, and what a browser may do that holds its user's credentials.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{
    AUTHORIZATION, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, HOST,
    IF_NONE_MATCH, LOCATION, ORIGIN, REFERRER_POLICY, WWW_AUTHENTICATE, X_CONTENT_TYPE_OPTIONS,
};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use serde_json::{Value, json};
use spore_gateway::BasicAuth;
use spore_sandbox::fake::{FakeFunction, FakeSandbox, response};

mod support;

use support::Fixture;

/// Sends a request with these headers besides the host's.
async fn ask(
    fixture: &Fixture,
    method: Method,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> Response<Incoming> {
    let mut request = Request::builder()
        .method(method)
        .uri(path)
        .header(HOST, fixture.address.to_string());
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let body = Full::new(Bytes::copy_from_slice(body.as_bytes()));
    fixture.send(request.body(body).expect("a request")).await
}

async fn text(response: Response<Incoming>) -> String {
    let body = response.into_body().collect().await.expect("a whole body");
    String::from_utf8_lossy(&body.to_bytes()).into_owned()
}

/// What another file names in quotes that ends so.
fn named(content: &str, ending: &str) -> Vec<String> {
    let names = content.split('"').filter(|text| text.ends_with(ending));
    names
        .map(|name| name.trim_start_matches("./").to_owned())
        .collect()
}

#[tokio::test]
async fn every_file_that_the_page_needs_is_there_and_none_from_elsewhere() {
    let fixture = Fixture::start(FakeFunction::echo()).await;
    let mut open = vec![String::new()];
    let mut seen = Vec::new();
    while let Some(name) = open.pop() {
        if seen.contains(&name) {
            continue;
        }
        let answer = ask(&fixture, Method::GET, &format!("/ui/{name}"), &[], "").await;
        assert_eq!(answer.status(), StatusCode::OK, "{name}");
        let kind = answer.headers()[CONTENT_TYPE].to_str().expect("text").to_owned();
        let expected = match name.rsplit('.').next() {
            Some("js") => "text/javascript; charset=utf-8",
            Some("css") => "text/css; charset=utf-8",
            Some("svg") => "image/svg+xml",
            _ => "text/html; charset=utf-8",
        };
        assert_eq!(kind, expected, "{name}");
        for (header, value) in [
            (X_CONTENT_TYPE_OPTIONS, "nosniff"),
            (REFERRER_POLICY, "no-referrer"),
            (CACHE_CONTROL, "no-cache"),
        ] {
            assert_eq!(answer.headers()[header], value, "{name}");
        }
        let policy = answer.headers()[CONTENT_SECURITY_POLICY]
            .to_str()
            .expect("text")
            .to_owned();
        for directive in [
            "default-src 'self'",
            "frame-ancestors 'none'",
            "require-trusted-types-for 'script'",
        ] {
            assert!(policy.contains(directive), "{name}: {policy}");
        }
        assert!(!policy.contains("unsafe"), "{name}: {policy}");
        let content = text(answer).await;
        let foreign = content
            .split("http")
            .skip(1)
            .filter(|rest| rest.starts_with("://") || rest.starts_with("s://"));
        // The name of SVG's elements is no address that is asked.
        let foreign: Vec<_> = foreign
            .filter(|rest| !rest.starts_with("://www.w3.org/2000/svg"))
            .collect();
        assert!(foreign.is_empty(), "{name}: {foreign:?}");
        for way in [
            "innerHTML",
            "outerHTML",
            "insertAdjacentHTML",
            "document.write",
            "eval(",
        ] {
            assert!(
                !content.contains(way),
                "{name} makes markup or code of text: {way}"
            );
        }
        for ending in [".js", ".css", ".svg"] {
            open.extend(named(&content, ending));
        }
        seen.push(name);
    }
    assert!(seen.len() > 10, "{seen:?}");
}

#[tokio::test]
async fn a_file_that_a_browser_has_is_not_sent_again() {
    let fixture = Fixture::start(FakeFunction::echo()).await;
    let first = ask(&fixture, Method::GET, "/ui/app.js", &[], "").await;
    let tag = first.headers()[ETAG].to_str().expect("text").to_owned();
    let content = text(first).await;
    for (sent, status) in [
        (tag.clone(), 304),
        (format!("W/{tag}"), 304),
        (format!("\"other\", {tag}"), 304),
        ("*".to_owned(), 304),
        ("\"other\"".to_owned(), 200),
        (String::new(), 200),
    ] {
        let answer = ask(
            &fixture,
            Method::GET,
            "/ui/app.js",
            &[(IF_NONE_MATCH.as_str(), &sent)],
            "",
        )
        .await;
        assert_eq!(answer.status().as_u16(), status, "{sent}");
        assert_eq!(answer.headers()[ETAG], tag.as_str());
        assert_eq!(text(answer).await.is_empty(), status == 304, "{sent}");
    }
    let head = ask(&fixture, Method::HEAD, "/ui/app.js", &[], "").await;
    let length = head.headers()[CONTENT_LENGTH].to_str().expect("text").to_owned();
    assert_eq!(length, content.len().to_string());
    let other = ask(&fixture, Method::GET, "/ui/", &[], "").await;
    assert_ne!(other.headers()[ETAG], tag.as_str());
}

#[tokio::test]
async fn the_root_leads_there_and_nothing_else_is_below() {
    let fixture = Fixture::start(FakeFunction::echo()).await;
    for path in ["/", "/ui"] {
        let answer = ask(&fixture, Method::GET, path, &[], "").await;
        assert_eq!(
            (answer.status(), &answer.headers()[LOCATION]),
            (StatusCode::FOUND, &"/ui/".parse().expect("ok"))
        );
    }
    for path in [
        "/ui/nothing",
        "/ui/../Cargo.toml",
        "/ui/%2e%2e/lib.rs",
        "/ui//app.js",
        "/ui/app.js/",
    ] {
        let answer = ask(&fixture, Method::GET, path, &[], "").await;
        assert_eq!(answer.status(), StatusCode::NOT_FOUND, "{path}");
    }
    let answer = ask(&fixture, Method::POST, "/ui/app.js", &[], "").await;
    assert_eq!(answer.status(), StatusCode::METHOD_NOT_ALLOWED);
}

#[tokio::test]
async fn pages_of_other_sites_change_nothing() {
    let fixture = Fixture::with_hello(FakeFunction::echo(), json!({})).await;
    let own = format!("http://{}", fixture.address);
    let removal = json!({ "functionName": "hello" }).to_string();
    for headers in [
        vec![("sec-fetch-site", "cross-site")],
        vec![("sec-fetch-site", "same-site"), (ORIGIN.as_str(), own.as_str())],
        vec![(ORIGIN.as_str(), "http://evil.example")],
        vec![(ORIGIN.as_str(), "null")],
    ] {
        for (method, path, body) in [
            (Method::DELETE, "/system/functions", removal.as_str()),
            (Method::POST, "/system/scale-function/hello", r#"{"replicas":3}"#),
            (Method::POST, "/system/async/x/retry", ""),
            (Method::POST, "/pre-boot/1?function=hello", ""),
            (Method::POST, "/v2/hello/blobs/uploads/", ""),
        ] {
            let answer = ask(&fixture, method.clone(), path, &headers, body).await;
            assert_eq!(
                answer.status(),
                StatusCode::FORBIDDEN,
                "{method} {path} {headers:?}"
            );
        }
        // What changes nothing is answered, and functions are open to pages of any site, as they always were.
        let read = ask(&fixture, Method::GET, "/system/functions", &headers, "").await;
        assert_eq!(read.status(), StatusCode::OK);
        let invoked = ask(&fixture, Method::POST, "/function/hello", &headers, "hi").await;
        assert_eq!(text(invoked).await, "hi");
    }
    assert_eq!(
        fixture.get("/system/function/hello").await.0,
        StatusCode::OK,
        "it is still there"
    );
    let headers = [("sec-fetch-site", "same-origin"), (ORIGIN.as_str(), own.as_str())];
    let answer = ask(&fixture, Method::DELETE, "/system/functions", &headers, &removal).await;
    assert_eq!(answer.status(), StatusCode::ACCEPTED, "{}", text(answer).await);
}

#[tokio::test]
async fn the_gateways_credentials_guard_the_dashboard_and_never_reach_a_function() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    std::fs::write(folder.path().join("basic-auth-user"), "admin").expect("it is ours");
    std::fs::write(folder.path().join("basic-auth-password"), "hush").expect("it is ours");
    let shows = FakeFunction::http(|request, _| async move {
        let sent = request
            .headers()
            .get(AUTHORIZATION)
            .map(|value| value.to_str().unwrap_or("?").to_owned());
        response(200, format!("{sent:?}"))
    });
    let mut open = Fixture::with_hello(shows.clone(), json!({})).await;
    open.daemon.take().expect("it runs").shutdown().await;
    let data = open.data.path().to_owned();
    let fixture = Fixture::start_with(FakeSandbox::new(move |_| shows.clone()), |config| {
        config.data = data;
        config.basic_auth = BasicAuth::in_folder(folder.path());
    })
    .await;
    let right = format!("Basic {}", STANDARD.encode("admin:hush"));
    let other = format!("Basic {}", STANDARD.encode("ada:function"));
    for path in ["/", "/ui/", "/ui/app.js", "/system/function/hello/activity"] {
        let refused = ask(&fixture, Method::GET, path, &[], "").await;
        assert_eq!(refused.status(), StatusCode::UNAUTHORIZED, "{path}");
        assert!(
            refused.headers().contains_key(WWW_AUTHENTICATE),
            "a browser asks its user"
        );
        let answer = ask(
            &fixture,
            Method::GET,
            path,
            &[(AUTHORIZATION.as_str(), &right)],
            "",
        )
        .await;
        assert!(
            matches!(answer.status(), StatusCode::OK | StatusCode::FOUND),
            "{path}"
        );
    }
    for (sent, found) in [(&right, "None".to_owned()), (&other, format!("Some({other:?})"))] {
        let answer = ask(
            &fixture,
            Method::POST,
            "/function/hello",
            &[(AUTHORIZATION.as_str(), sent)],
            "",
        )
        .await;
        assert_eq!(text(answer).await, found);
    }
}

#[tokio::test]
async fn activity_tells_the_latest_invocations_and_is_bounded() {
    let failing = FakeFunction::http(|request, _| async move {
        let status = if request.uri().path() == "/bad" { 500 } else { 200 };
        response(status, "done")
    });
    let fixture = Fixture::with_hello(failing, json!({})).await;
    for number in 0..300 {
        let path = if number < 3 {
            "/function/hello/bad"
        } else {
            "/function/hello"
        };
        let long = "i".repeat(500);
        ask(&fixture, Method::GET, path, &[("x-call-id", &long)], "").await;
    }
    let mut activity = Value::Null;
    for _ in 0..1000 {
        let (status, body) = fixture.get("/system/function/hello/activity").await;
        assert_eq!(status, StatusCode::OK, "{body}");
        activity = serde_json::from_str(&body).expect("JSON");
        if activity["coldStarts"]
            .as_array()
            .is_some_and(|starts| !starts.is_empty())
        {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    assert_eq!(activity["invocationCount"], 300);
    assert_eq!(activity["answers"], json!({ "200": 297, "500": 3 }));
    let cold = activity["coldStartCount"].as_u64().expect("a number");
    assert!(cold >= 1);
    let invocations = activity["invocations"].as_array().expect("a list");
    let kinds = |kind: &str| invocations.iter().filter(|one| one["start"] == kind).count() as u64;
    assert_eq!(kinds("cold"), cold);
    assert_eq!(kinds("warm"), (300 - cold).min(256));
    let ages: Vec<_> = invocations
        .iter()
        .map(|one| one["agoSeconds"].as_f64().expect("a number"))
        .collect();
    assert!(ages.is_sorted_by(|a, b| a >= b), "the oldest first");
    let newest = invocations.last().expect("there are some");
    assert_eq!(
        (&newest["start"], &newest["number"]),
        (&json!("warm"), &json!(299 - cold))
    );
    let start = &activity["coldStarts"][0];
    assert_eq!(start["callId"], "i".repeat(100), "cut");
    assert_eq!(start["stages"]["mapped"], Value::Null, "a fake knows of none");
    assert!(activity["instances"].get("memoryBytes").is_none());
    assert_eq!(activity["instances"]["max"], 20);
    let (status, _) = fixture.get("/system/function/nobody/activity").await;
    assert_eq!(status, StatusCode::NOT_FOUND);
}
