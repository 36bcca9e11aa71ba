//! How many instances there are: scaling, starts ahead of demand, one invocation each.

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
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
    as_many_wait_ahead_as_an_author_asks_for,
    every_invocation_finds_a_booted_instance_pristine,
    every_invocation_finds_a_clone_pristine,
    labels_let_a_function_sleep_and_keep_others_awake,
    load_keeps_as_many_as_the_target_asks_for,
    processor_time_is_a_load,
    an_instance_serves_as_many_at_a_time_as_its_author_allows,
    what_is_too_much_is_told_at_once,
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

fn as_many_wait_ahead_as_an_author_asks_for() {
    let daemon = Daemon::start_with(&["--idle-timeout", "0s"]);
    let image = program::build("cloned");
    daemon.deploy("cloned", &image, &["--snapshot", "--max", "3", "--ahead", "2"]);
    let mut seen = BTreeSet::new();
    for _ in 0..6 {
        until_instances(&daemon, "cloned", 2);
        let answer = daemon.get("/function/cloned");
        let text = answer.text();
        assert_eq!(
            (answer.status, answer.header("x-spore-start")),
            (StatusCode::OK, "warm"),
            "{text}\n{}",
            daemon.log()
        );
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[3], "1", "it was asked before: {text}");
        assert!(seen.insert(lines[2].to_owned()), "it has answered before: {text}");
    }
    daemon.deploy("cloned", &image, &["--snapshot", "--max", "3", "--ahead", "0"]);
    until_instances(&daemon, "cloned", 0);
    assert_eq!(daemon.get("/function/cloned").header("x-spore-start"), "cold");
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

fn labels_let_a_function_sleep_and_keep_others_awake() {
    let daemon = Daemon::start_with(&["--idle-timeout", "60s"]);
    let labels = [
        "--label",
        "com.openfaas.scale.zero=true",
        "--label",
        "com.openfaas.scale.zero-duration=2s",
    ];
    daemon.deploy("httpd", &program::build("httpd"), &labels);
    until_instances(&daemon, "httpd", 1);
    until_instances(&daemon, "httpd", 0);
    // What is under way is no idleness, however long it takes.
    std::thread::scope(|scope| {
        let answer = scope.spawn(|| daemon.get("/function/httpd/sleep?ms=5000"));
        assert!(wait_until(PATIENCE, || number(&daemon, "httpd", "replicas") == 1));
        let answer = answer.join().expect("it answers");
        assert_eq!(
            (answer.status, answer.text().as_str()),
            (StatusCode::OK, "slept\n")
        );
    });
    assert_eq!(number(&daemon, "httpd", "replicas"), 1);
    until_instances(&daemon, "httpd", 0);
    let never = ["--label", "com.openfaas.scale.zero=false"];
    daemon.deploy("httpd", &program::build("httpd"), &never);
    until_instances(&daemon, "httpd", 1);

    let bad = ["--label", "com.openfaas.scale.down.window=10m"];
    let program = program::build("httpd");
    let mut arguments = vec!["deploy", "other", "--binary", program.to_str().expect("a path")];
    arguments.extend(bad);
    let refused = daemon.spore(&arguments);
    let error = String::from_utf8_lossy(&refused.stderr);
    assert!(
        !refused.status.success() && error.contains("com.openfaas.scale.down.window is `10m`: write"),
        "{error}"
    );
}

fn load_keeps_as_many_as_the_target_asks_for() {
    let daemon = Daemon::start_with(&["--idle-timeout", "1s"]);
    let labels = [
        "--label",
        "com.openfaas.scale.type=rps",
        "--label",
        "com.openfaas.scale.target=5",
        "--label",
        "com.openfaas.scale.target-proportion=1.0",
        "--max",
        "3",
    ];
    daemon.deploy("httpd", &program::build("httpd"), &labels);
    let metrics = daemon.get("/metrics").text();
    let target = r#"gateway_service_target{function_name="httpd.openfaas-fn",scaling_type="rps"} 5"#;
    assert!(metrics.contains(target), "{metrics}");
    // One after the other, so that demand alone asks for one.
    let is_reached = wait_until(Duration::from_secs(60), || {
        daemon.get("/function/httpd");
        std::thread::sleep(Duration::from_millis(20));
        number(&daemon, "httpd", "availableReplicas") == 3
    });
    assert!(is_reached, "{}", daemon.log());
    until_instances(&daemon, "httpd", 0);
}

fn processor_time_is_a_load() {
    let daemon = Daemon::start_with(&["--idle-timeout", "1s"]);
    let labels = [
        "--label",
        "com.openfaas.scale.type=cpu",
        "--label",
        "com.openfaas.scale.target=50",
        "--max",
        "3",
    ];
    daemon.deploy("compute", &program::build("compute"), &labels);
    // One after the other, so that demand alone asks for one.
    let is_reached = wait_until(Duration::from_secs(60), || {
        let answer = daemon.get("/function/compute?iterations=20000000");
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
        number(&daemon, "compute", "availableReplicas") == 3
    });
    assert!(is_reached, "{}", daemon.log());
    until_instances(&daemon, "compute", 0);
}

/// Begins an invocation that is under way until its body is complete.
fn begun(daemon: &Daemon) -> TcpStream {
    let mut stream = TcpStream::connect(daemon.address()).expect("the daemon listens");
    let request =
        "POST /function/httpd/echo HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 4\r\n\r\nab";
    stream.write_all(request.as_bytes()).expect("the daemon reads it");
    let (mut answer, mut piece) = (Vec::new(), [0; 1000]);
    while !answer.ends_with(b"\r\n\r\nab") {
        let read = stream.read(&mut piece).expect("the daemon answers");
        assert!(read > 0, "{}", String::from_utf8_lossy(&answer));
        answer.extend(&piece[..read]);
    }
    stream
}

fn end(mut stream: TcpStream) {
    stream.write_all(b"cd").expect("the daemon reads it");
    let mut rest = String::new();
    stream.read_to_string(&mut rest).expect("the daemon answers");
    assert_eq!(rest, "cd");
}

fn an_instance_serves_as_many_at_a_time_as_its_author_allows() {
    let daemon = Daemon::start();
    let options = ["--annotation", "dev.spore.concurrency=4", "--max", "2"];
    daemon.deploy("httpd", &program::build("httpd"), &options);
    let mut streams: Vec<_> = (0..4).map(|_| begun(&daemon)).collect();
    assert_eq!(number(&daemon, "httpd", "replicas"), 1, "{}", daemon.log());
    let metrics = daemon.get("/metrics").text();
    let under_way = r#"gateway_function_invocation_inflight{function_name="httpd.openfaas-fn"} 4"#;
    assert!(metrics.contains(under_way), "{metrics}");
    let identity = daemon.get("/function/httpd/identity").text();
    until_instances(&daemon, "httpd", 2);
    streams.drain(..).for_each(end);
    // One that breaks off ends its instance only when the others have ended.
    let mut streams: Vec<_> = (0..8).map(|_| begun(&daemon)).collect();
    until_instances(&daemon, "httpd", 2);
    drop(streams.pop());
    drop(streams.remove(0));
    streams.into_iter().for_each(end);
    let again = daemon.get("/function/httpd/identity").text();
    assert_ne!(again, identity, "both were stopped");
    for (annotations, says) in [
        (
            &["dev.spore.isolation-per-request=true"][..],
            "leave one of both out",
        ),
        (&["dev.spore.protocol=lambda"], "one event at a time"),
    ] {
        let program = program::build("httpd");
        let mut arguments = vec!["deploy", "httpd", "--binary", program.to_str().expect("a path")];
        arguments.extend(["--annotation", "dev.spore.concurrency=4"]);
        annotations
            .iter()
            .for_each(|annotation| arguments.extend(["--annotation", annotation]));
        let refused = daemon.spore(&arguments);
        let error = String::from_utf8_lossy(&refused.stderr);
        assert!(!refused.status.success() && error.contains(says), "{error}");
    }
}

fn what_is_too_much_is_told_at_once() {
    let daemon = Daemon::start();
    let options = ["--env", "max_inflight=2", "--max", "1"];
    daemon.deploy("httpd", &program::build("httpd"), &options);
    let first = begun(&daemon);
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| daemon.get("/function/httpd"));
        let is_waiting = || {
            let metrics = daemon.get("/metrics").text();
            metrics.contains(r#"spore_requests_waiting{function_name="httpd.openfaas-fn"} 1"#)
        };
        assert!(wait_until(PATIENCE, is_waiting));
        let refused = daemon.get("/function/httpd");
        assert_eq!(
            (refused.status, refused.header("x-openfaas-internal")),
            (StatusCode::TOO_MANY_REQUESTS, "faas-middleware")
        );
        let says = "Concurrent request limit exceeded. Max concurrent requests: 2";
        assert!(refused.text().contains(says), "{}", refused.text());
        assert!(refused.header("retry-after").parse::<u64>().is_ok());
        end(first);
        assert_eq!(waiting.join().expect("it answers").status, StatusCode::OK);
    });
}
