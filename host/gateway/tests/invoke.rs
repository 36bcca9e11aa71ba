//! Invocations over real HTTP: headers, streaming, failures, timeouts, limits.

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Frame;
use serde_json::json;
use spore_sandbox::fake::{FakeBody, FakeFunction, FakeSandbox, response};
use spore_sandbox::{StartError, StopReason};
use support::{Fixture, deployment, static_program};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

/// A body made of what is sent to the other half; an error breaks it.
fn channel_body() -> (mpsc::Sender<std::io::Result<Frame<Bytes>>>, FakeBody) {
    let (sender, mut receiver) = mpsc::channel(1);
    let stream = futures_stream(move |context| receiver.poll_recv(context));
    (sender, StreamBody::new(stream).boxed())
}

/// A stream from a poll function, to spare a dependency.
fn futures_stream<T, F>(poll: F) -> PollStream<F>
where
    F: FnMut(&mut std::task::Context<'_>) -> std::task::Poll<Option<T>> + Unpin,
{
    PollStream(poll)
}

struct PollStream<F>(F);

impl<T, F> futures_core::Stream for PollStream<F>
where
    F: FnMut(&mut std::task::Context<'_>) -> std::task::Poll<Option<T>> + Unpin,
{
    type Item = T;

    fn poll_next(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<T>> {
        (self.0)(context)
    }
}

/// Answers with what it was asked, one header or part a line.
fn mirror() -> FakeFunction {
    FakeFunction::http(|request, _| async move {
        let mut text = format!("{} {}\n", request.method(), request.uri());
        for (name, value) in request.headers() {
            text.push_str(&format!("{name}: {}\n", value.to_str().unwrap_or("?")));
        }
        let body = request
            .into_body()
            .collect()
            .await
            .expect("a whole body")
            .to_bytes();
        text.push_str(&format!("body: {}", body.len()));
        response(200, text)
    })
}

#[tokio::test]
async fn request_and_response_pass_with_the_right_headers() {
    let fixture = Fixture::with_hello(mirror(), json!({})).await;
    let request = Request::builder()
        .method("PATCH")
        .uri("/function/hello.openfaas-fn/a/b%20c?x=1&y=/")
        .header("host", "gateway.example")
        .header("content-type", "text/csv")
        .header("x-call-id", "call-7")
        .header("x-own", "kept")
        .header("connection", "x-private, keep-alive")
        .header("x-private", "dropped")
        .body(Full::new(Bytes::from_static(b"1,2,3")))
        .expect("a request");
    let answer = fixture.send(request).await;
    assert_eq!(answer.status(), StatusCode::OK);
    let headers = answer.headers().clone();
    assert_eq!(headers["x-call-id"], "call-7");
    assert_eq!(
        headers["content-type"], "text/csv",
        "the request's type stands in for a missing one"
    );
    assert_eq!(headers["x-spore-start"], "cold");
    assert!(
        headers["x-start-time"]
            .to_str()
            .expect("text")
            .parse::<u64>()
            .expect("a number")
            > 1_600_000_000_000_000_000
    );
    assert!(
        headers["x-duration-seconds"]
            .to_str()
            .expect("text")
            .parse::<f64>()
            .expect("a number")
            < 60.0
    );
    let body = answer
        .into_body()
        .collect()
        .await
        .expect("a whole body")
        .to_bytes();
    let text = String::from_utf8(body.to_vec()).expect("text");
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[0], "PATCH /a/b%20c?x=1&y=/");
    assert!(
        lines.contains(&"x-own: kept") && lines.contains(&"x-forwarded-host: gateway.example"),
        "{text}"
    );
    assert!(
        lines
            .iter()
            .any(|line| line.starts_with("x-forwarded-for: 127.0.0.1:")),
        "{text}"
    );
    assert!(
        lines.contains(&"x-call-id: call-7") && lines.contains(&"body: 5"),
        "{text}"
    );
    assert!(
        !text.contains("x-private") && !text.contains("connection:"),
        "{text}"
    );
}

#[tokio::test]
async fn a_function_can_be_asked_in_one_form_whatever_callers_ask() {
    let settings = json!({ "annotations": { "dev.spore.invoke": "POST /invoke" } });
    let fixture = Fixture::with_hello(mirror(), settings).await;
    let (_, body) = fixture.call(Method::PUT, "/function/hello/a?b=c", "1234").await;
    let lines: Vec<&str> = body.lines().collect();
    assert_eq!(lines[0], "POST /invoke");
    for line in ["x-forwarded-method: PUT", "x-forwarded-uri: /a?b=c", "body: 4"] {
        assert!(lines.contains(&line), "{line}: {body}");
    }
    let refused = [
        (
            json!({ "dev.spore.invoke": "/invoke" }),
            "write it like `POST /invoke`",
        ),
        (
            json!({ "dev.spore.invoke": "POST /invoke", "dev.spore.protocol": "lambda" }),
            "which this one is not",
        ),
    ];
    for (annotations, reason) in refused {
        let changed = deployment(json!({ "annotations": annotations }));
        let (answer, body) = fixture
            .call(Method::PUT, "/system/functions", changed.to_string())
            .await;
        assert_eq!(answer.status(), StatusCode::BAD_REQUEST, "{body}");
        assert!(body.contains(reason), "{body}");
    }
}

#[tokio::test]
async fn second_invocation_is_warm_and_uses_the_same_connection() {
    let fixture = Fixture::with_hello(FakeFunction::echo(), json!({})).await;
    for round in 0..5 {
        let (answer, body) = fixture
            .call(Method::POST, "/function/hello", format!("round {round}"))
            .await;
        assert_eq!(body, format!("round {round}"));
        assert_eq!(
            answer.headers()["x-spore-start"],
            if round == 0 { "cold" } else { "warm" }
        );
        assert_eq!(answer.headers()["x-call-id"].len(), 36);
    }
    assert_eq!((fixture.sandbox.started(), fixture.sandbox.connections()), (1, 1));
}

#[tokio::test]
async fn connection_that_the_function_closed_while_idle_is_replaced() {
    let function = FakeFunction::http(|_, _| async {
        let mut answer = response(200, "bye");
        answer
            .headers_mut()
            .insert("connection", "close".parse().expect("a value"));
        answer
    });
    let fixture = Fixture::with_hello(function, json!({})).await;
    for _ in 0..3 {
        assert_eq!(
            fixture.get("/function/hello").await,
            (StatusCode::OK, "bye".to_owned())
        );
    }
    assert_eq!((fixture.sandbox.started(), fixture.sandbox.connections()), (1, 3));
    // One that breaks its promise: it keeps the connection alive, answers once and closes it.
    let liar = FakeFunction::raw(|mut stream, _| async move {
        let mut buffer = [0; 4096];
        let _ = stream.read(&mut buffer).await;
        let _ = stream
            .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
            .await;
    });
    let fixture = Fixture::with_hello(liar, json!({})).await;
    for _ in 0..3 {
        assert_eq!(
            fixture.get("/function/hello").await,
            (StatusCode::OK, "ok".to_owned())
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!((fixture.sandbox.started(), fixture.sandbox.connections()), (1, 3));
}

#[tokio::test]
async fn head_and_bodiless_answers_pass() {
    let function = FakeFunction::http(|request, _| async move {
        let status = if request.uri().path() == "/204" { 204 } else { 200 };
        let body = if status == 204 { "" } else { "hello" };
        response(status, body)
    });
    let fixture = Fixture::with_hello(function, json!({})).await;
    let (answer, body) = fixture.call(Method::HEAD, "/function/hello", "").await;
    assert_eq!((answer.status(), body.as_str()), (StatusCode::OK, ""));
    assert_eq!(answer.headers()["content-length"], "5");
    let (answer, _) = fixture.call(Method::GET, "/function/hello/204", "").await;
    assert_eq!(answer.status(), StatusCode::NO_CONTENT);
    assert!(!answer.headers().contains_key("content-type"));
    assert_eq!(fixture.sandbox.connections(), 1);
}

#[tokio::test]
async fn large_body_streams_through_both_ways() {
    const PIECES: usize = 1024;
    const PIECE: usize = 64 << 10;
    let fixture = Fixture::with_hello(FakeFunction::echo(), json!({})).await;
    let (sender, body) = channel_body();
    let answer = fixture.send(
        Request::post("/function/hello")
            .header("host", "x")
            .body(body)
            .expect("a request"),
    );
    let upload = tokio::spawn(async move {
        for number in 0..PIECES {
            let piece = Bytes::from(vec![number as u8; PIECE]);
            sender
                .send(Ok(Frame::data(piece)))
                .await
                .expect("the other half reads");
        }
    });
    let mut body = answer.await.into_body();
    let mut received = 0;
    while let Some(frame) = body.frame().await {
        for byte in frame.expect("a frame").into_data().expect("data") {
            assert_eq!(byte, (received / PIECE) as u8);
            received += 1;
        }
    }
    upload.await.expect("no panic");
    assert_eq!(received, PIECES * PIECE);
}

#[tokio::test]
async fn pieces_arrive_as_they_are_written() {
    let fixture = Fixture::with_hello(FakeFunction::echo(), json!({})).await;
    let (sender, body) = channel_body();
    let request = Request::post("/function/hello")
        .header("host", "x")
        .body(body)
        .expect("a request");
    sender
        .send(Ok(Frame::data(Bytes::from_static(b"ping"))))
        .await
        .expect("sends");
    let mut body = fixture.send(request).await.into_body();
    for _ in 0..3 {
        let frame = body.frame().await.expect("a frame").expect("no error");
        assert_eq!(
            frame.into_data().expect("data"),
            "ping",
            "though the request is not over"
        );
        sender
            .send(Ok(Frame::data(Bytes::from_static(b"ping"))))
            .await
            .expect("sends");
    }
}

#[tokio::test]
async fn crash_and_exit_before_the_answer_give_502_with_the_cause() {
    let function = FakeFunction::http(|request, control| async move {
        match request.uri().path() {
            "/crash" => control.crash("page fault at 0x0 in handle"),
            "/exit" => control.exit(3),
            _ => return response(200, "fine"),
        }
        // What has ended answers nothing.
        std::future::pending().await
    });
    let fixture = Fixture::with_hello(function, json!({})).await;
    for (path, line) in [
        (
            "crash",
            "hello: the function crashed: page fault at 0x0 in handle\n",
        ),
        ("exit", "hello: the function exited with status 3\n"),
    ] {
        let (answer, body) = fixture
            .call(Method::GET, &format!("/function/hello/{path}"), "")
            .await;
        assert_eq!((answer.status(), body.as_str()), (StatusCode::BAD_GATEWAY, line));
        assert_eq!(answer.headers()["x-openfaas-internal"], "proxy");
        assert!(answer.headers().contains_key("x-call-id"));
    }
    assert_eq!(
        fixture.get("/function/hello").await,
        (StatusCode::OK, "fine".to_owned())
    );
    assert_eq!(fixture.sandbox.started(), 3);
}

#[tokio::test]
async fn crash_while_idle_is_not_seen_by_the_next_caller() {
    let function = FakeFunction::http(|_, control| async move {
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(30)).await;
            control.crash("afterthought");
        });
        response(200, "fine")
    });
    let fixture = Fixture::with_hello(function, json!({})).await;
    for _ in 0..3 {
        assert_eq!(fixture.get("/function/hello").await.0, StatusCode::OK);
        tokio::time::sleep(Duration::from_millis(60)).await;
    }
    assert_eq!(fixture.sandbox.started(), 3);
}

#[tokio::test]
async fn crash_in_the_middle_of_the_body_breaks_the_clients_connection() {
    let function = FakeFunction::http(|_, control| async move {
        let (sender, body) = channel_body();
        tokio::spawn(async move {
            let _ = sender.send(Ok(Frame::data(Bytes::from_static(b"half")))).await;
            tokio::time::sleep(Duration::from_millis(20)).await;
            control.crash("in the middle");
        });
        Response::new(body)
    });
    let fixture = Fixture::with_hello(function, json!({})).await;
    let request = Request::get("/function/hello")
        .header("host", "x")
        .body(Full::<Bytes>::default())
        .expect("ok");
    let answer = fixture.send(request).await;
    assert_eq!(answer.status(), StatusCode::OK);
    assert!(
        answer.into_body().collect().await.is_err(),
        "a broken body must not look whole"
    );
    fixture
        .until("the end of the instance", |fixture| {
            fixture.sandbox.live().is_empty()
        })
        .await;
}

#[tokio::test]
async fn instance_whose_end_is_reported_after_its_connection_broke_is_not_stopped() {
    let function = FakeFunction::raw(|mut stream, control| async move {
        let mut buffer = [0; 4096];
        let _ = stream.read(&mut buffer).await;
        let _ = stream
            .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf")
            .await;
        drop(stream);
        tokio::time::sleep(Duration::from_millis(100)).await;
        control.exit(3);
    });
    let fixture = Fixture::with_hello(function, json!({})).await;
    let request = Request::get("/function/hello")
        .header("host", "x")
        .body(Full::<Bytes>::default());
    // The connection breaks before or after the head has arrived.
    if let Ok(answer) = fixture.try_send(request.expect("a request")).await {
        assert!(answer.into_body().collect().await.is_err());
    }
    fixture
        .until("the end of the instance", |fixture| {
            fixture.sandbox.live().is_empty()
        })
        .await;
    assert_eq!(
        fixture.sandbox.stops(),
        [],
        "it ended by itself, and so its log says"
    );
}

#[tokio::test]
async fn function_that_is_not_ready_within_the_timeout_is_told_from_busy_instances() {
    let slow = FakeFunction::echo().start_delay(Duration::from_secs(5));
    let settings = json!({ "annotations": { "dev.spore.timeout": "200ms" } });
    let fixture = Fixture::with_hello(slow, settings).await;
    let (answer, body) = fixture.call(Method::GET, "/function/hello", "").await;
    assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
    let line = "hello: the function was not ready (listening on port 9000) within 200 ms\n";
    assert_eq!(body, line);
    assert!(answer.headers().contains_key("retry-after"));
}

#[tokio::test]
async fn crash_in_a_body_without_length_is_no_clean_end_either() {
    let function = FakeFunction::raw(|mut stream, control| async move {
        let mut buffer = [0; 4096];
        let _ = stream.read(&mut buffer).await;
        let _ = stream.write_all(b"HTTP/1.0 200 OK\r\n\r\nhalf").await;
        if buffer.starts_with(b"GET /crash") {
            control.crash("in the middle");
        }
    });
    let fixture = Fixture::with_hello(function, json!({})).await;
    assert_eq!(
        fixture.get("/function/hello/whole").await,
        (StatusCode::OK, "half".to_owned())
    );
    let request = Request::get("/function/hello/crash")
        .header("host", "x")
        .body(Full::<Bytes>::default());
    // The connection breaks before or after the head, as the crash is noticed.
    if let Ok(answer) = fixture.try_send(request.expect("a request")).await {
        assert!(answer.into_body().collect().await.is_err());
    }
}

#[tokio::test]
async fn timeout_before_and_within_the_answer_stops_the_instance() {
    let settings = json!({ "annotations": { "dev.spore.timeout": "200ms" } });
    let fixture = Fixture::with_hello(FakeFunction::hanging(), settings.clone()).await;
    let (status, body) = fixture.get("/function/hello").await;
    assert_eq!(status, StatusCode::GATEWAY_TIMEOUT);
    assert_eq!(body, "hello: the function did not answer within 200 ms\n");
    let stopped = StopReason::TimedOut {
        after: Duration::from_millis(200),
    };
    fixture
        .until("the stop", |fixture| fixture.sandbox.stops() == [stopped])
        .await;

    let endless = FakeFunction::http(|_, _| async {
        let (sender, body) = channel_body();
        tokio::spawn(async move {
            while sender
                .send(Ok(Frame::data(Bytes::from_static(b"more"))))
                .await
                .is_ok()
            {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        });
        Response::new(body)
    });
    let fixture = Fixture::with_hello(endless, settings).await;
    let request = Request::get("/function/hello")
        .header("host", "x")
        .body(Full::<Bytes>::default())
        .expect("ok");
    assert!(fixture.send(request).await.into_body().collect().await.is_err());
    fixture
        .until("the stop", |fixture| fixture.sandbox.stops() == [stopped])
        .await;
}

#[tokio::test]
async fn client_that_leaves_frees_the_instance() {
    let settings = json!({ "labels": { "com.openfaas.scale.max": "1" } });
    let calls = Arc::new(AtomicUsize::new(0));
    let function = FakeFunction::http(move |_, _| {
        let first = calls.fetch_add(1, Ordering::SeqCst) == 0;
        async move {
            if first {
                std::future::pending::<()>().await;
            }
            response(200, "free")
        }
    });
    let fixture = Fixture::with_hello(function, settings).await;
    let mut client = TcpStream::connect(fixture.address).await.expect("a connection");
    client
        .write_all(b"GET /function/hello HTTP/1.1\r\nhost: x\r\n\r\n")
        .await
        .expect("writes");
    fixture
        .until("the invocation", |fixture| fixture.sandbox.connections() == 1)
        .await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    drop(client);
    assert_eq!(
        fixture.get("/function/hello").await,
        (StatusCode::OK, "free".to_owned())
    );
    assert_eq!(fixture.sandbox.stops(), [StopReason::CallerGone]);
}

#[tokio::test]
async fn client_that_leaves_in_the_middle_of_the_answer_frees_the_instance() {
    let silent = FakeFunction::http(|_, _| async {
        let (sender, body) = channel_body();
        tokio::spawn(async move {
            let _ = sender.send(Ok(Frame::data(Bytes::from_static(b"first")))).await;
            sender.closed().await;
        });
        Response::new(body)
    });
    let fixture = Fixture::with_hello(silent, json!({})).await;
    let mut client = TcpStream::connect(fixture.address).await.expect("a connection");
    client
        .write_all(b"GET /function/hello HTTP/1.1\r\nhost: x\r\n\r\n")
        .await
        .expect("writes");
    let mut buffer = [0; 4096];
    while !String::from_utf8_lossy(&buffer).contains("first") {
        assert_ne!(client.read(&mut buffer).await.expect("reads"), 0);
    }
    drop(client);
    fixture
        .until("the stop", |fixture| {
            fixture.sandbox.stops() == [StopReason::CallerGone]
        })
        .await;
}

#[tokio::test]
async fn what_is_not_http_gives_502() {
    let garbage = FakeFunction::raw(|mut stream, _| async move {
        let mut buffer = [0; 4096];
        let _ = stream.read(&mut buffer).await;
        let _ = stream.write_all(b"SSH-2.0-nonsense\r\n\r\n").await;
        std::future::pending::<()>().await;
    });
    let fixture = Fixture::with_hello(garbage, json!({})).await;
    let (status, body) = fixture.get("/function/hello").await;
    assert_eq!(status, StatusCode::BAD_GATEWAY);
    assert!(
        body.starts_with("hello: the function's answer is not HTTP/1.1"),
        "{body}"
    );

    let silent = FakeFunction::raw(|mut stream, _| async move {
        let mut buffer = [0; 4096];
        let _ = stream.read(&mut buffer).await;
    });
    let fixture = Fixture::with_hello(silent, json!({})).await;
    let answer = fixture.get("/function/hello").await;
    let line = "hello: the function closed the connection without an answer\n";
    assert_eq!(answer, (StatusCode::BAD_GATEWAY, line.to_owned()));
}

#[tokio::test]
async fn failed_starts_say_whose_fault_it_is() {
    let bad = FakeFunction::echo().start_error(|| StartError::BadProgram {
        reason: "no entry point".to_owned(),
    });
    let fixture = Fixture::with_hello(bad, json!({})).await;
    let (answer, body) = fixture.call(Method::GET, "/function/hello", "").await;
    assert_eq!(answer.status(), StatusCode::BAD_GATEWAY);
    let line = "hello: no instance could be started: the program cannot run here: no entry point\n";
    assert_eq!(body, line);
    assert!(!answer.headers().contains_key("retry-after"));

    let host = FakeFunction::echo().start_error(|| StartError::Host {
        what: "make a virtual machine",
        source: std::io::ErrorKind::OutOfMemory.into(),
    });
    let fixture = Fixture::with_hello(host, json!({})).await;
    let (answer, body) = fixture.call(Method::GET, "/function/hello", "").await;
    assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE, "{body}");
    assert!(answer.headers().contains_key("retry-after"));
    // The line reaches its file a moment after it was written.
    let mut log = String::new();
    for _ in 0..1000 {
        log = fixture.get("/system/logs?name=hello").await.1;
        if !log.is_empty() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(log.contains("make a virtual machine"), "{log}");
}

#[tokio::test]
async fn unknown_function_is_404() {
    let fixture = Fixture::start(FakeFunction::echo()).await;
    for path in [
        "/function/nobody",
        "/function/.openfaas-fn",
        "/function/",
        "/function/nobody.elsewhere/x",
    ] {
        let (answer, body) = fixture.call(Method::POST, path, "x").await;
        assert_eq!(answer.status(), StatusCode::NOT_FOUND, "{path}: {body}");
        assert_eq!(answer.headers()["x-openfaas-internal"], "proxy");
        assert!(answer.headers().contains_key("x-call-id") && answer.headers().contains_key("x-start-time"));
    }
}

/// Counts how many invocations run at a time, in all and per instance.
fn counting(most: Arc<AtomicUsize>) -> impl Fn() -> FakeFunction + Send + Sync + 'static {
    let running = Arc::new(AtomicUsize::new(0));
    move || {
        let (running, most) = (running.clone(), most.clone());
        let here = Arc::new(AtomicUsize::new(0));
        FakeFunction::http(move |_, _| {
            let (running, most, here) = (running.clone(), most.clone(), here.clone());
            async move {
                assert_eq!(
                    here.fetch_add(1, Ordering::SeqCst),
                    0,
                    "two invocations on one instance"
                );
                most.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                tokio::time::sleep(Duration::from_millis(2)).await;
                running.fetch_sub(1, Ordering::SeqCst);
                here.fetch_sub(1, Ordering::SeqCst);
                response(200, "done")
            }
        })
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrency_stays_below_the_maximum_and_nothing_is_lost() {
    let most = Arc::new(AtomicUsize::new(0));
    let function = counting(most.clone());
    let fixture = Fixture::start_with(FakeSandbox::new(move |_| function()), |_| {}).await;
    fixture.push("hello", &static_program()).await;
    fixture
        .deploy(json!({ "labels": { "com.openfaas.scale.max": "3" } }))
        .await;
    let fixture = Arc::new(fixture);
    let callers = (0..16).map(|_| {
        let fixture = fixture.clone();
        tokio::spawn(async move {
            for _ in 0..20 {
                assert_eq!(
                    fixture.get("/function/hello").await,
                    (StatusCode::OK, "done".to_owned())
                );
            }
        })
    });
    for caller in callers.collect::<Vec<_>>() {
        caller.await.expect("no panic");
    }
    assert_eq!(most.load(Ordering::SeqCst), 3);
    assert!(fixture.sandbox.live().len() <= 3);
    let (_, list) = fixture.get("/system/functions").await;
    let list: serde_json::Value = serde_json::from_str(&list).expect("JSON");
    assert_eq!(list[0]["invocationCount"], 320);
}

#[tokio::test]
async fn full_queue_is_429() {
    let sandbox = FakeSandbox::new(|_| FakeFunction::hanging());
    let fixture = Fixture::start_with(sandbox, |config| config.max_waiting = 1).await;
    fixture.push("hello", &static_program()).await;
    let labels = json!({ "com.openfaas.scale.max": "1" });
    fixture
        .deploy(json!({ "labels": labels, "annotations": { "dev.spore.timeout": "2s" } }))
        .await;
    let fixture = Arc::new(fixture);
    let call = |fixture: Arc<Fixture>| tokio::spawn(async move { fixture.get("/function/hello").await.0 });
    let busy = call(fixture.clone());
    fixture
        .until("the first invocation", |fixture| {
            fixture.sandbox.connections() == 1
        })
        .await;
    let waiting = call(fixture.clone());
    tokio::time::sleep(Duration::from_millis(100)).await;
    let (answer, body) = fixture.call(Method::GET, "/function/hello", "").await;
    assert_eq!(answer.status(), StatusCode::TOO_MANY_REQUESTS, "{body}");
    assert_eq!(answer.headers()["retry-after"], "1");
    assert_eq!(busy.await.expect("no panic"), StatusCode::GATEWAY_TIMEOUT);
    // It waited for the first one and then had its own two seconds, or gave up waiting at the same moment.
    let second = waiting.await.expect("no panic");
    assert!(
        matches!(
            second,
            StatusCode::GATEWAY_TIMEOUT | StatusCode::SERVICE_UNAVAILABLE
        ),
        "{second}"
    );
}

#[tokio::test]
async fn idle_instances_are_removed_and_zero_means_after_each_invocation() {
    let settings = json!({ "annotations": { "dev.spore.idle-timeout": "100ms" } });
    let fixture = Fixture::with_hello(FakeFunction::echo(), settings).await;
    fixture.get("/function/hello").await;
    assert_eq!(fixture.sandbox.live().len(), 1);
    fixture
        .until("the removal", |fixture| fixture.sandbox.live().is_empty())
        .await;
    let settings = json!({ "annotations": { "dev.spore.idle-timeout": "0" } });
    let (status, body) = fixture
        .json(Method::PUT, "/system/functions", &deployment(settings))
        .await;
    assert_eq!(status, StatusCode::ACCEPTED, "{body}");
    for _ in 0..3 {
        let (answer, _) = fixture.call(Method::GET, "/function/hello", "").await;
        assert_eq!(answer.headers()["x-spore-start"], "cold");
    }
    assert_eq!(fixture.sandbox.started(), 4);
}

#[tokio::test]
async fn update_swaps_at_once_and_lets_the_old_invocation_end() {
    let sandbox = FakeSandbox::new(|spec| {
        let version = spec
            .environment
            .iter()
            .find(|(name, _)| name == "VERSION")
            .map(|(_, value)| value.clone());
        FakeFunction::http(move |request, _| {
            let version = version.clone().unwrap_or_default();
            async move {
                if request.uri().path() == "/slow" {
                    tokio::time::sleep(Duration::from_millis(300)).await;
                }
                response(200, version)
            }
        })
    });
    let fixture = Fixture::start_with(sandbox, |_| {}).await;
    fixture.push("hello", &static_program()).await;
    fixture.deploy(json!({ "envVars": { "VERSION": "0" } })).await;
    let fixture = Arc::new(fixture);
    for version in 1..6 {
        let old = tokio::spawn({
            let fixture = fixture.clone();
            async move { fixture.get("/function/hello/slow").await }
        });
        tokio::time::sleep(Duration::from_millis(50)).await;
        let update = deployment(json!({ "envVars": { "VERSION": version.to_string() } }));
        assert_eq!(
            fixture.json(Method::PUT, "/system/functions", &update).await.0,
            StatusCode::ACCEPTED
        );
        for _ in 0..3 {
            assert_eq!(
                fixture.get("/function/hello").await,
                (StatusCode::OK, version.to_string())
            );
        }
        let old = old.await.expect("no panic");
        assert_eq!(
            old,
            (StatusCode::OK, (version - 1).to_string()),
            "the old invocation ended well"
        );
    }
    fixture
        .until("the end of old instances", |fixture| {
            fixture.sandbox.live().len() == 1
        })
        .await;
}
