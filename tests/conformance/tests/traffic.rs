//! What goes in and what comes out: bodies, logs, and callers who do not wait.

use std::io::Write;
use std::net::{Shutdown, TcpStream};

use http::{Method, StatusCode};
use spore_test_harness::client;
use spore_test_harness::wait_until;

use crate::life::{PATIENCE, answer, deploy, deploy_program, replicas, short_timeout};
use crate::{Test, daemon};

pub(crate) const TESTS: &[Test] = &[
    ("large_bodies_go_both_ways", large_bodies),
    ("what_a_function_writes_is_in_its_log", logs),
    ("a_flood_of_output_is_bounded_and_counted", flood),
    ("a_caller_who_goes_away_ends_the_invocation", disconnect),
];

const LARGE_BYTES: usize = 16 << 20;

fn large_bodies(kind: &'static str) {
    let daemon = daemon(kind);
    deploy(&daemon, kind, "web", &[]);
    let body: Vec<u8> = (0..LARGE_BYTES).map(|index| (index * 31 % 251) as u8).collect();
    let echoed = daemon.send_body(Method::POST, "/function/web/echo", body.clone());
    assert_eq!(echoed.status, StatusCode::OK, "{}", daemon.log());
    assert!(
        echoed.body.as_ref() == body,
        "{} bytes came back",
        echoed.body.len()
    );
    for path in ["bytes", "chunked"] {
        let bytes = daemon.get(&format!("/function/web/{path}?count={LARGE_BYTES}"));
        assert_eq!(
            (bytes.status, bytes.body.len()),
            (StatusCode::OK, LARGE_BYTES),
            "{path}"
        );
    }
}

fn logs(kind: &'static str) {
    let daemon = daemon(kind);
    deploy(&daemon, kind, "web", &[]);
    answer(&daemon, "web/log?lines=50");
    let is_whole = || {
        let log = daemon.spore_ok(&["logs", "web", "--tail", "1000"]);
        let count = |source: &str| log.lines().filter(|line| line.contains(source)).count();
        // What unikernels write goes to one console.
        count("stdout") >= 50 && (count("stderr") >= 50 || crate::sandbox(kind) == "foreign")
    };
    assert!(
        wait_until(PATIENCE, is_whole),
        "{}",
        daemon.spore_ok(&["logs", "web"])
    );
}

/// The program writes without an end until its invocation times out.
fn flood(kind: &'static str) {
    let daemon = daemon(kind);
    deploy_program(&daemon, kind, "faults", "faults", &short_timeout(kind));
    let flooded = daemon.get("/function/faults/flood");
    assert!(flooded.status.is_server_error(), "{}", flooded.text());
    daemon.wait_for_log("faults", "bytes of output were dropped");
    assert_eq!(answer(&daemon, "faults"), "ok\n");
}

fn disconnect(kind: &'static str) {
    let daemon = daemon(kind);
    deploy(&daemon, kind, "web", &[]);
    let before = answer(&daemon, "web/identity");
    let mut stream = TcpStream::connect(daemon.address()).expect("the gateway listens");
    let request = "GET /function/web/sleep?ms=600000 HTTP/1.1\r\nHost: test\r\n\r\n";
    stream.write_all(request.as_bytes()).expect("the gateway reads");
    let is_busy = || {
        let metrics = client::send(daemon.address(), client::request(Method::GET, "/metrics"));
        let metrics = metrics.expect("metrics").text();
        metrics
            .lines()
            .any(|line| line.starts_with("spore_instances_idle{") && line.ends_with(" 0"))
            && replicas(&daemon, "web") == 1
    };
    assert!(wait_until(PATIENCE, is_busy), "{}", daemon.get("/metrics").text());
    stream.shutdown(Shutdown::Both).expect("the stream is open");
    drop(stream);
    assert!(
        wait_until(PATIENCE, || replicas(&daemon, "web") == 0),
        "{}",
        daemon.log()
    );
    assert_ne!(
        answer(&daemon, "web/identity"),
        before,
        "nobody waits for what was left"
    );
}
