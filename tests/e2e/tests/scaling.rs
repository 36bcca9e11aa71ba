//! How many instances there are: scaling, starts ahead of demand, one invocation each.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http::{Method, StatusCode};
use spore_test_harness::daemon::Daemon;
use spore_test_harness::{process, program, wait_until};

use crate::{Test, with_functions};

pub(crate) const TESTS: &[Test] = with_functions![
    the_command_line_scales_up_and_down,
    the_api_scales_up_and_down,
    instances_are_started_ahead_of_demand,
    every_invocation_finds_a_booted_instance_pristine,
    every_invocation_finds_a_clone_pristine,
];

/// Longest wait for something that takes some milliseconds.
const PATIENCE: Duration = Duration::from_secs(20);

fn number(daemon: &Daemon, function: &str, field: &str) -> u64 {
    let status = daemon.get(&format!("/system/function/{function}")).json();
    status[field].as_u64().unwrap_or(0)
}

/// Waits until so many instances are ready, and none is left over.
fn until_instances(daemon: &Daemon, function: &str, wanted: u64) {
    let is_reached = wait_until(PATIENCE, || {
        number(daemon, function, "availableReplicas") == wanted
            && number(daemon, function, "replicas") == wanted
            && process::guests(daemon.pid()) as u64 == wanted
    });
    assert!(
        is_reached,
        "{} replicas and {} guests instead of {wanted}\n{}",
        number(daemon, function, "replicas"),
        process::guests(daemon.pid()),
        daemon.log()
    );
}

fn the_command_line_scales_up_and_down() {
    let mut daemon = Daemon::start_with(&["--idle-timeout", "1s"]);
    daemon.deploy("httpd", &program::build("httpd"), &["--min", "1", "--max", "3"]);
    assert_eq!(
        daemon.spore_ok(&["scale", "httpd", "3"]),
        "httpd has 3 instances\n"
    );
    assert_eq!(number(&daemon, "httpd", "availableReplicas"), 3, "it has waited");
    until_instances(&daemon, "httpd", 3);
    std::thread::sleep(Duration::from_secs(2)); // idle for longer than idle ones are kept
    until_instances(&daemon, "httpd", 3);
    let list = daemon.spore_ok(&["list"]);
    assert!(list.contains("httpd   3 "), "{list}");
    let description = daemon.spore_ok(&["describe", "httpd"]);
    assert!(description.contains("3 (3 available)"), "{description}");

    let json = daemon.spore_ok(&["scale", "httpd", "0", "--json"]);
    let json: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!((&json["name"], &json["replicas"]), (&"httpd".into(), &0.into()));
    until_instances(&daemon, "httpd", 0);
    let first = daemon.get("/function/httpd");
    assert_eq!(
        (first.status, first.header("x-spore-start")),
        (StatusCode::OK, "cold")
    );
    until_instances(&daemon, "httpd", 0);

    daemon.spore_ok(&["scale", "httpd", "2", "--no-wait"]);
    until_instances(&daemon, "httpd", 2);
    for (arguments, says) in [
        (&["scale", "httpd", "4"], "maximum, which is 3"),
        (&["scale", "nobody", "1"], "no function nobody"),
    ] {
        let output = daemon.spore(arguments);
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && error.contains(says), "{error}");
    }
    assert!(daemon.stop().success(), "{}", daemon.log());
    daemon.start_again();
    until_instances(&daemon, "httpd", 1);
}

fn the_api_scales_up_and_down() {
    let daemon = Daemon::start();
    daemon.deploy("httpd", &program::build("httpd"), &[]);
    let scale = |replicas: u64| {
        let body = format!(r#"{{"serviceName":"httpd","replicas":{replicas}}}"#);
        daemon
            .send_body(Method::POST, "/system/scale-function/httpd", body)
            .status
    };
    for replicas in [4, 2, 3, 0] {
        assert_eq!(scale(replicas), StatusCode::ACCEPTED);
        until_instances(&daemon, "httpd", replicas);
    }
    assert_eq!(
        scale(21),
        StatusCode::BAD_REQUEST,
        "20 are the most if nothing is said"
    );
    // An instance that is one too many ends with its invocation, which ends well.
    std::thread::scope(|scope| {
        let answer = scope.spawn(|| daemon.get("/function/httpd/sleep?ms=1500"));
        assert!(wait_until(PATIENCE, || number(
            &daemon,
            "httpd",
            "availableReplicas"
        ) == 1));
        assert_eq!(scale(0), StatusCode::ACCEPTED);
        assert_eq!(number(&daemon, "httpd", "replicas"), 1);
        assert_eq!(answer.join().expect("it answers").text(), "slept\n");
    });
    until_instances(&daemon, "httpd", 0);
}

fn instances_are_started_ahead_of_demand() {
    let daemon = Daemon::start_with(&["--idle-timeout", "2s"]);
    daemon.deploy("httpd", &program::build("httpd"), &["--max", "4"]);
    let answer = daemon.send_body(Method::POST, "/system/function/httpd/pre-boot/3", "");
    assert_eq!(answer.text(), r#"{"started":3}"#);
    let is_ready = wait_until(PATIENCE, || number(&daemon, "httpd", "availableReplicas") == 3);
    assert!(is_ready, "{}", daemon.log());
    let first = daemon.get("/function/httpd");
    assert_eq!(
        (first.status, first.header("x-spore-start")),
        (StatusCode::OK, "warm")
    );
    until_instances(&daemon, "httpd", 0);
}

/// Asks a function that counts 30 times, 4 at a time, and then at leisure: each instance must be asked for the first
/// time, and at leisure it must have been started before the request came.
fn all_are_pristine(options: &[&str]) {
    const INVOCATIONS: usize = 30;
    let daemon = Daemon::start();
    let options = [&["--isolation-per-request"], options].concat();
    daemon.deploy("cloned", &program::build("cloned"), &options);
    let (begun, boot_ids) = (AtomicUsize::new(0), Mutex::new(BTreeSet::new()));
    let ask = || {
        let answer = daemon.get("/function/cloned");
        let text = answer.text();
        assert_eq!(answer.status, StatusCode::OK, "{text}\n{}", daemon.log());
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[3], "1", "it was asked before: {text}");
        let is_new = boot_ids.lock().expect("a lock").insert(lines[2].to_owned());
        assert!(is_new, "two have answered as the same instance: {text}");
        answer
    };
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while begun.fetch_add(1, Ordering::Relaxed) < INVOCATIONS {
                    ask();
                }
            });
        }
    });
    for _ in 0..5 {
        let is_prepared = wait_until(PATIENCE, || number(&daemon, "cloned", "availableReplicas") >= 1);
        assert!(is_prepared, "no instance waits for a request\n{}", daemon.log());
        assert_eq!(ask().header("x-spore-start"), "warm");
    }
    assert_eq!(boot_ids.lock().expect("a lock").len(), INVOCATIONS + 5);
    daemon.spore_ok(&["scale", "cloned", "0"]);
    until_instances(&daemon, "cloned", 0);
}

fn every_invocation_finds_a_booted_instance_pristine() {
    all_are_pristine(&[]);
}

fn every_invocation_finds_a_clone_pristine() {
    all_are_pristine(&["--snapshot"]);
}
