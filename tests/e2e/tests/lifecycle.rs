//! Instances come and go with their callers, functions stay, and nothing outlives the daemon.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use http::StatusCode;
use spore_test_harness::daemon::{Daemon, binary};
use spore_test_harness::{process, program, wait_until};

use crate::{Test, with_functions};

pub(crate) const TESTS: &[Test] = with_functions![
    functions_survive_a_restart,
    functions_survive_a_kill_and_no_monitor_does,
    a_graceful_stop_leaves_no_process,
    a_client_that_leaves_frees_the_instance,
    idle_instances_are_removed,
    a_removed_function_leaves_no_process,
    an_invocation_in_flight_survives_a_replacement,
    two_daemons_cannot_share_their_data,
];

fn functions_survive_a_restart() {
    let mut daemon = Daemon::start();
    daemon.deploy(
        "httpd",
        &program::build("httpd"),
        &["--env", "GREETING=kept", "--label", "team=blue"],
    );
    let before = daemon.get("/system/function/httpd").json();
    assert!(daemon.stop().success(), "{}", daemon.log());
    daemon.start_again();
    let after = daemon.get("/system/function/httpd").json();
    for field in ["name", "image", "labels", "annotations", "envVars", "createdAt"] {
        assert_eq!(after[field], before[field], "{field}");
    }
    assert!(
        daemon
            .get("/function/httpd/environment")
            .text()
            .contains("GREETING=kept")
    );
}

fn functions_survive_a_kill_and_no_monitor_does() {
    let mut daemon = Daemon::start();
    daemon.deploy("httpd", &program::build("httpd"), &[]);
    assert_eq!(daemon.get("/function/httpd").status, StatusCode::OK);
    let monitors = daemon.descendants();
    assert!(!monitors.is_empty(), "an instance has a process");
    daemon.kill();
    let gone = wait_until(Duration::from_secs(2), || {
        !monitors.iter().any(|monitor| monitor.is_alive())
    });
    assert!(
        gone,
        "2 s after kill -9 of the daemon, of {monitors:?} some are alive"
    );
    daemon.start_again();
    assert_eq!(
        daemon.get("/function/httpd").status,
        StatusCode::OK,
        "what was deployed is there again"
    );
}

fn a_graceful_stop_leaves_no_process() {
    let mut daemon = Daemon::start();
    daemon.deploy("httpd", &program::build("httpd"), &[]);
    daemon.get("/function/httpd");
    let monitors = daemon.descendants();
    assert!(daemon.stop().success(), "{}", daemon.log());
    assert!(
        !monitors.iter().any(|monitor| monitor.is_alive()),
        "monitors outlive the daemon: {monitors:?}"
    );
}

fn available_replicas(daemon: &Daemon, function: &str) -> u64 {
    let status = daemon.get(&format!("/system/function/{function}")).json();
    status["availableReplicas"].as_u64().unwrap_or(0)
}

fn a_client_that_leaves_frees_the_instance() {
    let daemon = Daemon::start();
    daemon.deploy("httpd", &program::build("httpd"), &["--max", "1"]);
    let identity = daemon.get("/function/httpd/identity").text();
    let mut stream = TcpStream::connect(daemon.address()).expect("the gateway listens");
    let request = "GET /function/httpd/sleep?ms=30000 HTTP/1.1\r\nHost: test\r\n\r\n";
    stream.write_all(request.as_bytes()).expect("the gateway reads");
    std::thread::sleep(Duration::from_millis(300)); // the function sleeps by now
    drop(stream);
    // The only instance there may be was in use for 30 s: an answer before that shows that it was freed.
    let start = Instant::now();
    let after = daemon.get("/function/httpd/identity");
    assert_eq!(after.status, StatusCode::OK, "{}", after.text());
    assert!(start.elapsed() < Duration::from_secs(15), "{:?}", start.elapsed());
    assert_ne!(
        after.text(),
        identity,
        "the instance that worked for the one who left is discarded"
    );
    assert_eq!(available_replicas(&daemon, "httpd"), 1);
}

fn idle_instances_are_removed() {
    let daemon = Daemon::start_with(&["--idle-timeout", "1s"]);
    daemon.deploy("httpd", &program::build("httpd"), &[]);
    let first = daemon.get("/function/httpd/identity").text();
    assert_eq!(
        daemon.get("/function/httpd/identity").text(),
        first,
        "kept for the moment"
    );
    let gone = wait_until(Duration::from_secs(15), || daemon.descendants().is_empty());
    assert!(gone, "idle for long, still there: {:?}", daemon.descendants());
    assert_eq!(available_replicas(&daemon, "httpd"), 0);
    assert_ne!(
        daemon.get("/function/httpd/identity").text(),
        first,
        "a new instance for a new request"
    );
}

fn a_removed_function_leaves_no_process() {
    let daemon = Daemon::start();
    daemon.deploy("httpd", &program::build("httpd"), &["--min", "2"]);
    let started = wait_until(Duration::from_secs(15), || {
        available_replicas(&daemon, "httpd") == 2
    });
    assert!(
        started,
        "--min 2 keeps two instances: {}",
        available_replicas(&daemon, "httpd")
    );
    assert_eq!(process::guests(daemon.pid()), 2);
    daemon.spore_ok(&["remove", "httpd"]);
    let gone = wait_until(Duration::from_secs(15), || daemon.descendants().is_empty());
    assert!(gone, "removed, still there: {:?}", daemon.descendants());
    assert_eq!(process::guests(daemon.pid()), 0);
}

fn an_invocation_in_flight_survives_a_replacement() {
    let daemon = Daemon::start();
    daemon.deploy("server", &program::build("httpd"), &[]);
    daemon.get("/function/server");
    let mut stream = TcpStream::connect(daemon.address()).expect("the gateway listens");
    stream
        .set_read_timeout(Some(Duration::from_secs(20)))
        .expect("a timeout can be set");
    let request = "GET /function/server/sleep?ms=2000 HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n";
    stream.write_all(request.as_bytes()).expect("the gateway reads");
    std::thread::sleep(Duration::from_millis(300)); // the old version has the request by now
    daemon.deploy("server", &program::build("compute"), &[]);
    assert!(
        daemon
            .get("/function/server?iterations=10")
            .text()
            .starts_with("elapsed_ns=")
    );
    let mut answer = String::new();
    stream
        .read_to_string(&mut answer)
        .expect("the old version still answers");
    assert!(
        answer.starts_with("HTTP/1.1 200") && answer.ends_with("slept\n"),
        "{answer}"
    );
}

fn two_daemons_cannot_share_their_data() {
    let daemon = Daemon::start();
    let data = daemon.data();
    let errors = tempfile::NamedTempFile::new().expect("the temporary folder is writable");
    let file = errors.reopen().expect("a temporary file can be opened again");
    let mut command = Command::new(binary());
    command
        .args(["serve", "--listen", "127.0.0.1:0", "--data"])
        .arg(&data)
        .stdout(Stdio::null())
        .stderr(file);
    let mut second = command.spawn().expect("the spore binary can be run");
    let ended = wait_until(Duration::from_secs(20), || !matches!(second.try_wait(), Ok(None)));
    if !ended {
        second.kill().expect("the second daemon is our child");
    }
    let status = second.wait().expect("the second daemon is our child");
    let error = std::fs::read_to_string(errors.path()).expect("a temporary file is readable");
    assert!(
        ended && !status.success(),
        "the second daemon must not start: {error}"
    );
    assert!(
        error.contains(data.to_str().expect("UTF-8")),
        "the error names the folder: {error}"
    );
    assert_eq!(
        daemon.get("/healthz").status,
        StatusCode::OK,
        "the first one goes on"
    );
}
