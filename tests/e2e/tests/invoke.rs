//! What a caller sends reaches the function, and what the function answers reaches the caller.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use http::{Method, StatusCode};
use spore_test_harness::client::{self, Answer, Connection, with_body};
use spore_test_harness::daemon::Daemon;
use spore_test_harness::program::{self, Native};

use crate::{Test, with_functions};

pub(crate) const TESTS: &[Test] = with_functions![
    an_unmodified_linux_program_answers_as_it_does_natively,
    bodies_of_eight_mebibytes_pass_whole,
    bodies_are_streamed_both_ways,
    a_call_id_is_given_or_kept,
    a_connection_is_kept_between_invocations,
    the_environment_and_the_log_of_a_function_are_its_own,
    instances_serve_one_invocation_at_a_time,
    a_full_pool_makes_callers_wait,
    instances_never_share_randomness,
    the_clock_is_the_hosts,
    corners_of_system_calls_are_as_on_linux,
    a_function_from_the_template_answers,
];

/// A daemon with the ordinary Linux server as function `httpd`.
fn daemon_with_httpd(options: &[&str]) -> Daemon {
    let daemon = Daemon::start();
    daemon.deploy("httpd", &program::build("httpd"), options);
    daemon
}

/// Method, path with query, and body of requests that the program answers alike wherever it runs.
const REQUESTS: &[(&str, &str, &str)] = &[
    ("GET", "/", ""),
    ("HEAD", "/", ""),
    ("GET", "/inspect?", ""),
    ("GET", "/inspect?a=b&c=%20d", ""),
    ("POST", "/inspect?x=1", "a body"),
    ("PUT", "/inspect", "another body"),
    ("PATCH", "/inspect", "p"),
    ("DELETE", "/inspect", ""),
    ("OPTIONS", "/inspect", ""),
    ("POST", "/echo", "sent back as it is"),
    ("GET", "/header?name=x-test-one", ""),
    ("GET", "/header?name=x-test-absent", ""),
    ("GET", "/status?code=201", ""),
    ("GET", "/status?code=404", ""),
    ("GET", "/status?code=503", ""),
    ("GET", "/bytes?count=0", ""),
    ("GET", "/bytes?count=100000", ""),
    ("GET", "/chunked?count=100000", ""),
    ("GET", "/close", ""),
    ("GET", "/no/such/path", ""),
];

fn comparable(answer: &Answer) -> (StatusCode, String, String, String) {
    let header = |name| answer.header(name).to_owned();
    (
        answer.status,
        header("content-type"),
        header("x-program"),
        answer.text(),
    )
}

fn an_unmodified_linux_program_answers_as_it_does_natively() {
    let daemon = daemon_with_httpd(&[]);
    let native = Native::start(&program::build("httpd"), &[]);
    for &(method, path, body) in REQUESTS {
        let method: Method = method.parse().expect("a method");
        let request = |path: &str| {
            let mut request = with_body(method.clone(), path, body);
            request
                .headers_mut()
                .insert("X-Test-One", "first".parse().expect("a header value"));
            request.headers_mut().insert(
                "X-Test-Two",
                "second, with, commas".parse().expect("a header value"),
            );
            request
        };
        let expected = client::send(native.address(), request(path)).expect("the native program answers");
        let found = daemon.send(request(&format!("/function/httpd{path}")));
        let found = found.unwrap_or_else(|error| panic!("{method} {path}: {error:?}\n{}", daemon.log()));
        assert_eq!(comparable(&found), comparable(&expected), "{method} {path}");
    }
}

/// Bytes that repeat at no power of two, so that a lost or doubled page shows.
fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|i| (i % 251) as u8).collect()
}

fn bodies_of_eight_mebibytes_pass_whole() {
    let daemon = daemon_with_httpd(&[]);
    let body = pattern(8 << 20);
    let answer = daemon.send_body(Method::POST, "/function/httpd/echo", body.clone());
    assert_eq!(answer.status, StatusCode::OK);
    assert!(
        answer.body == body,
        "8 MiB came back changed ({} bytes)",
        answer.body.len()
    );
    for path in [
        "/function/httpd/bytes?count=8388608",
        "/function/httpd/chunked?count=8388608",
    ] {
        let answer = daemon.get(path);
        let expected: Vec<u8> = (0..8 << 20).map(|i| b'a' + (i % 26) as u8).collect();
        assert!(
            answer.body == expected,
            "{path}: {} bytes came",
            answer.body.len()
        );
    }
}

fn bodies_are_streamed_both_ways() {
    let daemon = daemon_with_httpd(&[]);
    let mut stream = TcpStream::connect(daemon.address()).expect("the gateway listens");
    stream
        .set_read_timeout(Some(Duration::from_secs(20)))
        .expect("a timeout can be set");
    let head = "POST /function/httpd/echo HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n";
    stream.write_all(head.as_bytes()).expect("the gateway reads");
    let mut seen = Vec::new();
    for word in ["first", "second", "third"] {
        // The next word is sent only after this one came back: neither side waits for the end of the body.
        let chunk = format!("{:x}\r\n{word}\r\n", word.len());
        stream.write_all(chunk.as_bytes()).expect("the gateway reads");
        while !String::from_utf8_lossy(&seen).contains(word) {
            let mut piece = [0; 4096];
            let length = stream
                .read(&mut piece)
                .unwrap_or_else(|error| panic!("{word:?} did not come back: {error}"));
            assert_ne!(length, 0, "the stream ended before {word:?} came back");
            seen.extend_from_slice(&piece[..length]);
        }
    }
    stream.write_all(b"0\r\n\r\n").expect("the gateway reads");
    let answer = String::from_utf8_lossy(&seen).into_owned();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

fn a_call_id_is_given_or_kept() {
    let daemon = daemon_with_httpd(&[]);
    let given = daemon.get("/function/httpd/header?name=x-call-id");
    assert_eq!(
        given.header("x-call-id"),
        given.text(),
        "caller and function see the same identifier"
    );
    assert!(
        given.header("x-call-id").len() >= 32,
        "a UUID, not {:?}",
        given.header("x-call-id")
    );
    assert!(
        given
            .header("x-start-time")
            .parse::<u64>()
            .is_ok_and(|ns| ns > 1_700_000_000_000_000_000)
    );
    let mut request = client::request(Method::GET, "/function/httpd/header?name=x-call-id");
    request.headers_mut().insert(
        "X-Call-Id",
        "chosen-by-the-caller".parse().expect("a header value"),
    );
    let kept = daemon.send(request).expect("an answer");
    assert_eq!(
        (kept.text().as_str(), kept.header("x-call-id")),
        ("chosen-by-the-caller", "chosen-by-the-caller")
    );
}

fn a_connection_is_kept_between_invocations() {
    let daemon = daemon_with_httpd(&[]);
    let mut connection =
        Connection::open(daemon.address(), client::DEFAULT_TIMEOUT).expect("the gateway listens");
    let identities: Vec<String> = (0..5)
        .map(|_| {
            connection
                .send(client::request(Method::GET, "/function/httpd/identity"))
                .expect("an answer")
                .text()
        })
        .collect();
    assert!(
        identities.iter().all(|identity| *identity == identities[0]),
        "one warm instance serves them all"
    );
    let first_after_close = connection.send(client::request(Method::GET, "/function/httpd/close"));
    assert_eq!(first_after_close.expect("an answer").status, StatusCode::OK);
    // The function closed its own connection, which is none of the caller's business.
    let after = connection
        .send(client::request(Method::GET, "/function/httpd/identity"))
        .expect("an answer");
    assert_eq!(
        after.text(),
        identities[0],
        "the instance outlives its connection"
    );
}

fn the_environment_and_the_log_of_a_function_are_its_own() {
    let daemon = daemon_with_httpd(&["--env", "GREETING=good day", "--env", "EMPTY="]);
    let environment = daemon.get("/function/httpd/environment").text();
    let lines: Vec<&str> = environment.lines().collect();
    assert!(
        lines.contains(&"GREETING=good day") && lines.contains(&"EMPTY="),
        "{environment}"
    );
    daemon.get("/function/httpd/log?lines=3");
    let log = daemon.wait_for_log("httpd", "stderr line 3 of 3");
    for line in ["stdout line 1 of 3", "stdout line 3 of 3", "stderr line 1 of 3"] {
        assert!(log.contains(line), "{line:?} is missing in:\n{log}");
    }
}

/// Invokes `path` this many times at once and returns the answers.
fn at_once(daemon: &Daemon, times: usize, path: &str) -> Vec<Answer> {
    std::thread::scope(|scope| {
        let callers: Vec<_> = (0..times).map(|_| scope.spawn(|| daemon.get(path))).collect();
        callers
            .into_iter()
            .map(|caller| caller.join().expect("the caller got an answer"))
            .collect()
    })
}

fn instances_serve_one_invocation_at_a_time() {
    let daemon = daemon_with_httpd(&[]);
    let answers = at_once(&daemon, 3, "/function/httpd/sleep?ms=1500");
    assert!(answers.iter().all(|answer| answer.status == StatusCode::OK));
    let status = daemon.get("/system/function/httpd").json();
    assert_eq!(
        status["availableReplicas"], 3,
        "three sleepers at once need three instances: {status}"
    );
}

fn a_full_pool_makes_callers_wait() {
    let daemon = daemon_with_httpd(&["--max", "1"]);
    daemon.get("/function/httpd/");
    let start = Instant::now();
    let answers = at_once(&daemon, 3, "/function/httpd/sleep?ms=300");
    assert!(answers.iter().all(|answer| answer.status == StatusCode::OK));
    assert!(
        start.elapsed() >= Duration::from_millis(900),
        "one instance, one invocation at a time"
    );
    assert_eq!(
        daemon.get("/system/function/httpd").json()["availableReplicas"],
        1
    );
}

fn instances_never_share_randomness() {
    let daemon = daemon_with_httpd(&["--annotation", "dev.spore.idle-timeout=0s"]);
    let answers: Vec<Answer> = (0..6).map(|_| daemon.get("/function/httpd/identity")).collect();
    assert!(
        answers
            .iter()
            .all(|answer| answer.header("x-spore-start") == "cold"),
        "each has its own instance"
    );
    let identities: std::collections::HashSet<String> = answers.iter().map(Answer::text).collect();
    assert_eq!(identities.len(), 6, "{identities:?}");
    assert!(
        identities.iter().all(|identity| identity.len() == 32),
        "{identities:?}"
    );
}

fn a_function_from_the_template_answers() {
    let daemon = Daemon::start();
    let folder = tempfile::tempdir().expect("the temporary folder is writable");
    let source = folder.path().join("greeter");
    let source = source.to_str().expect("UTF-8");
    daemon.spore_ok(&["new", "greeter", "--lang", "c", "--directory", source]);
    daemon.spore_ok(&["deploy", source]);
    let answer = daemon.send_body(Method::POST, "/function/greeter", "world");
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
    assert!(answer.text().contains("You sent 5 bytes"), "{}", answer.text());
    assert!(daemon.get("/function/greeter?name=Ada").text().contains("Ada"));
    let printed = daemon.spore_ok(&["invoke", "greeter", "--data", "world"]);
    assert_eq!(
        printed,
        answer.text(),
        "the command line prints the body as it came"
    );
    let list = daemon.spore_ok(&["list", "--json"]);
    let list: serde_json::Value = serde_json::from_str(&list).expect("--json prints JSON");
    assert_eq!(list[0]["name"], "greeter", "{list}");
}

fn the_clock_is_the_hosts() {
    let daemon = daemon_with_httpd(&[]);
    for _ in 0..3 {
        let before_ms = unix_time_ms();
        let guest_ms: u128 = daemon
            .get("/function/httpd/clock")
            .text()
            .parse()
            .expect("a number");
        let after_ms = unix_time_ms();
        // One millisecond for rounding down, one for the precision of the counter's rate.
        let range = before_ms - 2..=after_ms + 2;
        assert!(range.contains(&guest_ms), "{guest_ms} is not in {range:?}");
        // Long enough for the monitor to set the guest's clock anew.
        std::thread::sleep(std::time::Duration::from_millis(1100));
    }
}

fn unix_time_ms() -> u128 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.expect("after 1970").as_millis()
}

fn corners_of_system_calls_are_as_on_linux() {
    let corners = program::build("corners");
    let native = Native::start(&corners, &[]);
    let expected = client::send(native.address(), client::request(Method::GET, "/")).expect("an answer");
    let daemon = Daemon::start();
    daemon.deploy("corners", &corners, &[]);
    let found = daemon.get("/function/corners");
    assert!(expected.text().lines().count() > 50, "{}", expected.text());
    for (expected, found) in expected.text().lines().zip(found.text().lines()) {
        assert_eq!(found, expected);
    }
    assert_eq!(found.text(), expected.text());
}
