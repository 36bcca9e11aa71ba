//! The queue on a NATS server: what is not so on a disk. What is the same is tested by `queued`.

use std::path::Path;
use std::time::Duration;

use http::{Method, StatusCode};
use spore_test_harness::callbacks::Callbacks;
use spore_test_harness::daemon::{Daemon, Setup, data_folder, failed_start_as};
use spore_test_harness::nats::NatsServer;
use spore_test_harness::{program, wait_until};

use crate::queued::{listed, send};
use crate::{Test, with_tools};

pub(crate) const TESTS: &[Test] = with_tools![
    without_the_server_nothing_is_accepted_and_nothing_lost: ["nats-server"],
    daemons_share_a_queue_and_take_over: ["nats-server"],
    what_the_server_does_not_take_is_refused: ["nats-server"],
    messages_of_others_are_left_alone: ["nats-server"],
    messages_that_nobody_can_read_are_removed: ["nats-server"],
    the_server_may_ask_for_credentials: ["nats-server"],
];

const TIMEOUT: Duration = Duration::from_secs(30);
/// What a daemon runs is taken over when it has been silent for half a minute.
const TAKE_OVER_TIMEOUT: Duration = Duration::from_secs(120);

fn server() -> NatsServer {
    NatsServer::start().expect("nats-server is installed")
}

fn daemon(server: &NatsServer, options: &[&str]) -> Daemon {
    let daemon = Daemon::start_with(&[&["--queue", &server.url()], options].concat());
    daemon.deploy("httpd", &program::build("httpd"), &[]);
    daemon
}

fn without_the_server_nothing_is_accepted_and_nothing_lost() {
    let mut server = server();
    let daemon = daemon(&server, &[]);
    let callbacks = Callbacks::start();
    // Under way while the server goes, and to be ended when it is back.
    send(&daemon, &callbacks, "early", "/sleep?ms=1500", "");
    assert!(wait_until(TIMEOUT, || listed(&daemon, "")
        .first()
        .is_some_and(|shown| shown["state"] == "running")));
    server.kill();
    // One that was on its way when the server went may have been taken by it all the same, and runs when it is back.
    let refused = || send(&daemon, &callbacks, "refused", "/echo", "x");
    assert!(wait_until(TIMEOUT, || refused().status == StatusCode::SERVICE_UNAVAILABLE));
    let answer = refused();
    assert!(answer.text().contains("NATS server"), "{}", answer.text());
    assert_eq!(answer.header("retry-after"), "1");
    let list = daemon.get("/system/async");
    assert_eq!(list.status, StatusCode::SERVICE_UNAVAILABLE, "{}", list.text());
    // Whoever waits for the answer does not need it.
    assert_eq!(
        daemon.send_body(Method::POST, "/function/httpd/echo", "x").text(),
        "x"
    );
    callbacks.wait_for("early", TIMEOUT);
    server.start_again();
    let accepted = || send(&daemon, &callbacks, "late", "/echo", "x").status == StatusCode::ACCEPTED;
    assert!(wait_until(TIMEOUT, accepted), "{}", daemon.log());
    callbacks.wait_for("late", TIMEOUT);
    let is_empty = || {
        let answer = daemon.get("/system/async");
        answer.status == StatusCode::OK && answer.json().as_array().is_some_and(Vec::is_empty)
    };
    assert!(
        wait_until(TIMEOUT, is_empty),
        "{}\n{}",
        daemon.get("/system/async").text(),
        daemon.log()
    );
    assert_eq!(callbacks.count("early"), 1);
}

fn daemons_share_a_queue_and_take_over() {
    let server = server();
    let (mut first, second) = (daemon(&server, &[]), daemon(&server, &[]));
    let callbacks = Callbacks::start();
    let slow: Vec<String> = (0..30).map(|number| format!("slow-{number}")).collect();
    for call_id in &slow {
        let accepted = send(&first, &callbacks, call_id, "/sleep?ms=3000", "");
        assert_eq!(accepted.status, StatusCode::ACCEPTED, "{}", accepted.text());
    }
    assert_eq!(listed(&second, "").len(), slow.len());
    let is_seen_running = || {
        let list = listed(&second, "");
        list.iter().any(|shown| shown["state"] == "running")
    };
    assert!(wait_until(TIMEOUT, is_seen_running), "{:?}", listed(&second, ""));
    first.kill();
    for call_id in &slow {
        callbacks.wait_for(call_id, TAKE_OVER_TIMEOUT);
    }
    assert!(wait_until(TIMEOUT, || listed(&second, "").is_empty()));
    // One that is running elsewhere, or waits there, can be dropped here.
    first.start_again();
    let annotation = [
        "--annotation",
        "com.openfaas.retry.min_wait=1h",
        "--annotation",
        "com.openfaas.retry.max_wait=1h",
    ];
    first.deploy("httpd", &program::build("httpd"), &annotation);
    second.deploy("httpd", &program::build("httpd"), &annotation);
    send(&first, &callbacks, "waits", "/status?code=500", "");
    let waits = || {
        let list = listed(&second, "");
        list.first()
            .is_some_and(|shown| shown["attempts"] == 1 && shown["state"] == "waiting")
    };
    assert!(wait_until(TIMEOUT, waits), "{:?}", listed(&second, ""));
    let dropped = second.send_body(Method::DELETE, "/async-function/waits", "");
    assert_eq!(dropped.status, StatusCode::ACCEPTED, "{}", dropped.text());
    assert!(wait_until(TIMEOUT, || first.get("/system/async/waits").status
        == StatusCode::NOT_FOUND));
}

fn what_the_server_does_not_take_is_refused() {
    let server = server();
    let daemon = daemon(&server, &["--async-body-limit", "4Mi"]);
    let callbacks = Callbacks::start();
    let refused = send(&daemon, &callbacks, "long", "/echo", &"x".repeat(1 << 20));
    assert_eq!(refused.status, StatusCode::PAYLOAD_TOO_LARGE);
    assert!(refused.text().contains("max_payload"), "{}", refused.text());
    let almost = "x".repeat((1 << 20) - 4096);
    let accepted = send(&daemon, &callbacks, "almost", "/echo", &almost);
    assert_eq!(accepted.status, StatusCode::ACCEPTED, "{}", accepted.text());
    assert_eq!(callbacks.wait_for("almost", TIMEOUT).body, almost.as_bytes());
}

fn messages_of_others_are_left_alone() {
    let server = server();
    let mut daemon = daemon(&server, &[]);
    let callbacks = Callbacks::start();
    let garbage = |key: &str| {
        server.publish(&format!("spore.queue.call.{key}"), b"{}");
        server.publish(&format!("spore.queue.state.{key}"), &[0xff; 1000]);
    };
    garbage("odd");
    garbage(&"0".repeat(32));
    server.publish("spore.queue.told.gone", b"nothing");
    server.publish("spore.queue.told.beat", &[b'x'; 100_000]);
    send(&daemon, &callbacks, "one", "/echo", "x");
    callbacks.wait_for("one", TIMEOUT);
    let told = || daemon.log().contains("is not one of the queue's");
    assert!(wait_until(TIMEOUT, told), "{}", daemon.log());
    assert!(wait_until(TIMEOUT, || listed(&daemon, "").is_empty()));
    daemon.kill();
    daemon.start_again();
    send(&daemon, &callbacks, "two", "/echo", "x");
    callbacks.wait_for("two", TIMEOUT);
}

fn messages_that_nobody_can_read_are_removed() {
    let server = server();
    let mut daemon = daemon(&server, &[]);
    let callbacks = Callbacks::start();
    let unreadable = |key: &str| {
        let headers = b"NATS/1.0\r\nSpore-Call: \xff\xfe\r\n\r\n";
        server.publish_with(&format!("spore.queue.call.{key}"), headers, b"x");
    };
    let removed = |daemon: &Daemon| daemon.log().matches("so it is removed").count();
    // While the stream is followed, and while nobody does.
    unreadable("first");
    assert!(wait_until(TIMEOUT, || removed(&daemon) >= 1), "{}", daemon.log());
    let accepted = |daemon: &Daemon, call_id| {
        let answer = send(daemon, &callbacks, call_id, "/echo", "x");
        answer.status == StatusCode::ACCEPTED
    };
    assert!(
        wait_until(TIMEOUT, || accepted(&daemon, "one")),
        "{}",
        daemon.log()
    );
    callbacks.wait_for("one", TIMEOUT);
    daemon.kill();
    unreadable("second");
    unreadable("third");
    daemon.start_again();
    assert!(
        wait_until(TIMEOUT, || accepted(&daemon, "two")),
        "{}",
        daemon.log()
    );
    callbacks.wait_for("two", TIMEOUT);
    assert!(wait_until(TIMEOUT, || listed(&daemon, "").is_empty()));
    daemon.kill();
    daemon.start_again();
    assert!(
        wait_until(TIMEOUT, || accepted(&daemon, "three")),
        "{}",
        daemon.log()
    );
    callbacks.wait_for("three", TIMEOUT);
}

fn the_server_may_ask_for_credentials() {
    let server = NatsServer::start_with(&["--user", "ada", "--pass", "secret"]);
    let server = server.expect("nats-server is installed");
    let start = |options: &[&str]| Setup {
        options: options.iter().map(|&option| option.to_owned()).collect(),
        ..Setup::default()
    };
    let failed = |options: &[&str]| failed_start_as(data_folder().path(), &start(options));
    let error = failed(&["--queue", &server.url()]);
    assert!(error.contains("refuses the credentials"), "{error}");
    let wrong = format!("nats://ada:wrong-one@{}", server.address());
    let error = failed(&["--queue", &wrong]);
    assert!(
        error.contains("refuses the credentials") && !error.contains("wrong-one"),
        "{error}"
    );
    let folder = tempfile::tempdir().expect("the temporary folder is writable");
    let file = folder.path().join("credentials");
    let in_file = |text: &str, file: &Path| {
        std::fs::write(file, text).expect("it is ours");
        file.to_str().expect("a path").to_owned()
    };
    let error = failed(&[
        "--queue",
        &server.url(),
        "--queue-credentials",
        &in_file("two words", &file),
    ]);
    assert!(error.contains("has no credentials for NATS"), "{error}");
    let error = failed(&["--queue", "nats://a/b.c"]);
    assert!(error.contains("cannot name a queue"), "{error}");

    let callbacks = Callbacks::start();
    let right = format!("nats://ada:secret@{}", server.address());
    let credentials = in_file("ada:secret\n", &file);
    for options in [
        vec!["--queue", &right],
        vec!["--queue", &server.url(), "--queue-credentials", &credentials],
    ] {
        let daemon = Daemon::start_with(&options);
        daemon.deploy("httpd", &program::build("httpd"), &[]);
        let call_id = format!("with-{}", options.len());
        let accepted = send(&daemon, &callbacks, &call_id, "/echo", "x");
        assert_eq!(accepted.status, StatusCode::ACCEPTED, "{}", accepted.text());
        callbacks.wait_for(&call_id, TIMEOUT);
        assert!(!daemon.log().contains("secret"), "{}", daemon.log());
    }
}
