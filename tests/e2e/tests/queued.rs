//! Invocations that nobody waits for: accepted, tried until they are answered, and their results delivered.

use std::time::Duration;

use http::{Method, StatusCode};
use serde_json::Value;
use spore_test_harness::callbacks::Callbacks;
use spore_test_harness::client::{Answer, with_body};
use spore_test_harness::daemon::Daemon;
use spore_test_harness::nats::NatsServer;
use spore_test_harness::{program, wait_until};

/// Where the queue is kept, in a test.
pub(crate) enum Place {
    Disk,
    Nats(NatsServer),
}

impl Place {
    fn nats() -> Self {
        Self::Nats(NatsServer::start().expect("nats-server is installed"))
    }

    fn start(&self) -> Daemon {
        match self {
            Self::Disk => Daemon::start(),
            Self::Nats(server) => Daemon::start_with(&["--queue", &server.url()]),
        }
    }
}

/// The same tests for each place.
macro_rules! in_each_place {
    ($($name:ident),+ $(,)?) => {
        pub(crate) mod on_disk {
            $(fn $name() {
                super::$name(&super::Place::Disk);
            })+
            pub(crate) const TESTS: &[crate::Test] = crate::with_functions![$($name),+];
        }
        pub(crate) mod on_nats {
            $(fn $name() {
                super::$name(&super::Place::nats());
            })+
            pub(crate) const TESTS: &[crate::Test] = crate::with_tools![$($name: ["nats-server"]),+];
        }
    };
}

in_each_place![
    results_are_sent_to_who_asked_for_them,
    what_fails_is_tried_again_and_then_kept,
    accepted_invocations_outlive_a_kill,
    what_cannot_be_accepted_is_refused,
    the_command_line_knows_them,
];

const TIMEOUT: Duration = Duration::from_secs(30);

fn daemon_with_httpd(place: &Place, options: &[&str]) -> Daemon {
    let daemon = place.start();
    daemon.deploy("httpd", &program::build("httpd"), options);
    daemon
}

/// An invocation with a call ID, whose result goes to the receiver.
pub(crate) fn send(daemon: &Daemon, callbacks: &Callbacks, call_id: &str, path: &str, body: &str) -> Answer {
    let mut request = with_body(
        Method::POST,
        &format!("/async-function/httpd{path}"),
        body.to_owned(),
    );
    let headers = request.headers_mut();
    headers.insert("x-call-id", call_id.parse().expect("a header's value"));
    headers.insert(
        "x-callback-url",
        callbacks.url().parse().expect("a header's value"),
    );
    daemon.send(request).expect("the daemon answers")
}

pub(crate) fn listed(daemon: &Daemon, query: &str) -> Vec<Value> {
    let answer = daemon.get(&format!("/system/async{query}"));
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
    answer.json().as_array().expect("a list").clone()
}

fn results_are_sent_to_who_asked_for_them(place: &Place) {
    let daemon = daemon_with_httpd(place, &[]);
    let callbacks = Callbacks::start();
    let accepted = send(&daemon, &callbacks, "one", "/echo", "to and fro");
    assert_eq!(
        (accepted.status, accepted.text().as_str()),
        (StatusCode::ACCEPTED, "")
    );
    assert_eq!(accepted.header("x-call-id"), "one");
    assert!(accepted.header("x-start-time").parse::<u64>().is_ok());
    let received = callbacks.wait_for("one", TIMEOUT);
    assert_eq!(received.body, b"to and fro");
    let header = |name: &str| {
        received
            .headers
            .get(name)
            .map(|value| value.to_str().expect("text").to_owned())
    };
    assert_eq!(header("x-function-status").as_deref(), Some("200"));
    assert_eq!(header("x-function-name").as_deref(), Some("httpd.openfaas-fn"));
    assert_eq!(header("x-retry").as_deref(), Some("0"));
    assert!(header("x-duration-seconds").is_some_and(|text| text.parse::<f64>().is_ok()));
    // An answer without a body has a length too.
    send(&daemon, &callbacks, "empty", "/echo", "");
    assert!(callbacks.wait_for("empty", TIMEOUT).body.is_empty());
    // A client's own mistake is an answer like any other.
    send(&daemon, &callbacks, "two", "/status?code=404", "");
    let received = callbacks.wait_for("two", TIMEOUT);
    assert_eq!(received.headers["x-function-status"], "404");
    assert!(
        wait_until(TIMEOUT, || listed(&daemon, "").is_empty()),
        "{:?}",
        listed(&daemon, "")
    );
}

fn what_fails_is_tried_again_and_then_kept(place: &Place) {
    let annotations = [
        "--annotation",
        "com.openfaas.retry.attempts=3",
        "--annotation",
        "com.openfaas.retry.min_wait=0s",
        "--annotation",
        "com.openfaas.retry.max_wait=1s",
    ];
    let daemon = daemon_with_httpd(place, &annotations);
    let callbacks = Callbacks::start();
    send(&daemon, &callbacks, "fails", "/status?code=500", "kept");
    let received = callbacks.wait_for("fails", TIMEOUT);
    assert_eq!(received.headers["x-function-status"], "500");
    assert_eq!(
        (&received.headers["x-retry"], &received.headers["x-retry-max"]),
        (&"2".parse().expect("ok"), &"2".parse().expect("ok"))
    );
    assert!(wait_until(TIMEOUT, || listed(&daemon, "?state=dead").len() == 1));
    let dead = &listed(&daemon, "?function=httpd")[0];
    assert_eq!(
        (&dead["state"], &dead["attempts"], &dead["last"]["status"]),
        (&"dead".into(), &3.into(), &500.into())
    );
    assert!(listed(&daemon, "?state=alive").is_empty());
    let shown = daemon.get("/system/async/fails").json();
    assert_eq!(shown[0]["body"], "a2VwdA==");
    // By hand it is tried once more, as often as at first.
    let again = daemon.send_body(Method::POST, "/system/async/fails/retry", "");
    assert_eq!(again.status, StatusCode::ACCEPTED);
    assert!(wait_until(TIMEOUT, || callbacks.count("fails") == 2));
    assert!(wait_until(TIMEOUT, || listed(&daemon, "?state=dead").len() == 1));
    // And so is one whose function is gone in the meantime, in vain.
    daemon.spore_ok(&["remove", "httpd"]);
    daemon.send_body(Method::POST, "/system/async/fails/retry", "");
    assert!(wait_until(TIMEOUT, || callbacks.count("fails") == 3));
    assert!(wait_until(TIMEOUT, || listed(&daemon, "?state=dead").len() == 1));
    let dropped = daemon.send_body(Method::DELETE, "/system/async?state=dead", "");
    assert_eq!(dropped.json()["dropped"], 1);
    assert_eq!(daemon.get("/system/async/fails").status, StatusCode::NOT_FOUND);
}

fn accepted_invocations_outlive_a_kill(place: &Place) {
    let mut daemon = daemon_with_httpd(place, &[]);
    let callbacks = Callbacks::start();
    let calls: Vec<String> = (0..200).map(|number| format!("call-{number}")).collect();
    for (number, call_id) in calls.iter().enumerate() {
        let accepted = send(&daemon, &callbacks, call_id, "/echo", call_id);
        assert_eq!(accepted.status, StatusCode::ACCEPTED, "{}", accepted.text());
        if number % 50 == 49 {
            daemon.kill();
            daemon.start_again();
        }
    }
    for call_id in &calls {
        assert_eq!(callbacks.wait_for(call_id, TIMEOUT).body, call_id.as_bytes());
    }
    assert!(wait_until(TIMEOUT, || listed(&daemon, "").is_empty()));
    let twice = calls
        .iter()
        .filter(|call_id| callbacks.count(call_id) > 1)
        .count();
    assert!(
        twice <= 4 * 20,
        "{twice} were sent twice, more than could be running at four kills"
    );
}

fn what_cannot_be_accepted_is_refused(place: &Place) {
    let daemon = daemon_with_httpd(place, &[]);
    let callbacks = Callbacks::start();
    let status = |method, path: &str, body: Vec<u8>| {
        let answer = daemon.send_body(method, path, body);
        (answer.status.as_u16(), answer.text())
    };
    assert_eq!(status(Method::POST, "/async-function/nobody", vec![]).0, 404);
    assert_eq!(status(Method::GET, "/async-function/httpd", vec![]).0, 405);
    assert_eq!(
        status(Method::POST, "/async-function/httpd", vec![0; (1 << 20) + 1]).0,
        413
    );
    assert_eq!(
        status(Method::DELETE, "/async-function/no-such-call", vec![]).0,
        404
    );
    assert_eq!(
        status(Method::POST, "/system/async/no-such-call/retry", vec![]).0,
        404
    );
    assert_eq!(status(Method::DELETE, "/system/async", vec![]).0, 400);
    assert_eq!(status(Method::GET, "/system/async?state=odd", vec![]).0, 422);
    assert_eq!(status(Method::GET, "/system/asynchronous", vec![]).0, 404);
    let mut request = with_body(Method::POST, "/async-function/httpd", "");
    request
        .headers_mut()
        .insert("x-callback-url", "ftp://a/".parse().expect("a header's value"));
    let refused = daemon.send(request).expect("the daemon answers");
    assert_eq!(refused.status, StatusCode::BAD_REQUEST);
    assert!(
        refused.text().contains("`ftp://a/` is not an http or https URL"),
        "{}",
        refused.text()
    );
    drop(callbacks);
}

fn the_command_line_knows_them(place: &Place) {
    let daemon = daemon_with_httpd(place, &["--annotation", "com.openfaas.retry.attempts=1"]);
    let callbacks = Callbacks::start();
    let arguments = [
        "invoke",
        "httpd",
        "--async",
        "--path",
        "/status?code=500",
        "--callback",
        callbacks.url(),
        "--data",
        "x",
    ];
    let call_id = daemon.spore_ok(&arguments).trim().to_owned();
    callbacks.wait_for(&call_id, TIMEOUT);
    assert!(wait_until(TIMEOUT, || daemon
        .spore_ok(&["async", "list", "--dead"])
        .contains(&call_id)));
    let table = daemon.spore_ok(&["async", "list"]);
    assert!(table.contains("dead") && table.contains("500"), "{table}");
    assert!(
        daemon
            .spore_ok(&["async", "show", &call_id])
            .contains("\"attempts\": 1")
    );
    daemon.spore_ok(&["async", "retry", &call_id]);
    assert!(wait_until(TIMEOUT, || callbacks.count(&call_id) == 2));
    assert!(wait_until(TIMEOUT, || daemon
        .spore_ok(&["async", "list", "--dead"])
        .contains(&call_id)));
    assert_eq!(
        daemon.spore_ok(&["async", "drop", &call_id]),
        format!("{call_id} dropped\n")
    );
    let gone = daemon.spore(&["async", "show", &call_id]);
    assert!(!gone.status.success() && String::from_utf8_lossy(&gone.stderr).contains(&call_id));
}
