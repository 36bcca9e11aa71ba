//! Updates under load: no caller notices, and nothing old answers afterwards.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use http::{Method, StatusCode};
use serde_json::json;
use spore_test_harness::client::{self, Connection, with_body};
use spore_test_harness::daemon::Daemon;
use spore_test_harness::program;

use crate::{Test, with_functions, with_tools};

pub(crate) const TESTS: &[Test] = with_functions![
    updates_under_load_fail_no_request_and_leave_nothing_old,
    a_secret_that_changes_under_load_fails_no_request,
    updates_of_commands_fail_no_request,
];
pub(crate) const TESTS_WITH_WRK: &[Test] = with_tools![an_update_under_wrk_fails_no_request: ["wrk"]];

const CALLERS: usize = 8;
const UPDATES: u64 = 10;
/// What the contract allows after an update has been acknowledged.
const OLD_ANSWERS: Duration = Duration::from_secs(5);

/// What callers saw: how many answers in all, and those that must not have been.
struct Seen {
    answers: AtomicU64,
    failures: Mutex<BTreeMap<String, usize>>,
}

/// Calls the function from several connections while `change` is made once for each version. What an answer says as its
/// version must be no older than what was acknowledged [`OLD_ANSWERS`] before its request.
fn under_load(
    daemon: &Daemon,
    path: &str,
    version_of: impl Fn(&str) -> Option<u64> + Sync,
    change: impl Fn(u64),
) -> Seen {
    let seen = Seen {
        answers: AtomicU64::new(0),
        failures: Mutex::default(),
    };
    let is_over = AtomicBool::new(false);
    let acknowledged: Mutex<Vec<(Instant, u64)>> = Mutex::default();
    let required_at = |when: Instant| {
        let acknowledged = acknowledged.lock().expect("nobody panics");
        let all = acknowledged.iter();
        let old = all.filter(|(at, _)| when.duration_since(*at) >= OLD_ANSWERS);
        old.map(|(_, version)| *version).max().unwrap_or(0)
    };
    std::thread::scope(|scope| {
        for _ in 0..CALLERS {
            scope.spawn(|| {
                let mut connection = None;
                while !is_over.load(Ordering::Relaxed) {
                    let required = required_at(Instant::now());
                    let outcome = ask(daemon.address(), &mut connection, path);
                    seen.answers.fetch_add(1, Ordering::Relaxed);
                    let failure = match outcome {
                        Ok(text) => match version_of(&text) {
                            Some(version) if version >= required => continue,
                            version => format!("{version:?} although {required} was acknowledged"),
                        },
                        Err(failure) => failure,
                    };
                    *seen
                        .failures
                        .lock()
                        .expect("nobody panics")
                        .entry(failure)
                        .or_default() += 1;
                }
            });
        }
        for version in 1..=UPDATES {
            std::thread::sleep(Duration::from_millis(300));
            change(version);
            acknowledged
                .lock()
                .expect("nobody panics")
                .push((Instant::now(), version));
        }
        // All but the newest must have gone by then.
        std::thread::sleep(OLD_ANSWERS + Duration::from_secs(2));
        is_over.store(true, Ordering::Relaxed);
    });
    seen
}

fn ask(address: SocketAddr, connection: &mut Option<Connection>, path: &str) -> Result<String, String> {
    let open = || Connection::open(address, client::DEFAULT_TIMEOUT);
    let mut current = connection
        .take()
        .map_or_else(open, Ok)
        .map_err(|error| format!("{error:?}"))?;
    let answer = current
        .send(client::request(Method::GET, path))
        .map_err(|error| format!("cut off: {error:?}"))?;
    if answer.header("connection") != "close" {
        *connection = Some(current);
    }
    match answer.status {
        StatusCode::OK => Ok(answer.text()),
        status => Err(format!("{} {}", status.as_u16(), answer.text().trim())),
    }
}

fn update(daemon: &Daemon, body: &serde_json::Value) {
    let answer = daemon.send_body(Method::PUT, "/system/functions", body.to_string());
    assert_eq!(answer.status, StatusCode::ACCEPTED, "{}", answer.text());
}

fn image_of(daemon: &Daemon, function: &str) -> serde_json::Value {
    daemon.get(&format!("/system/function/{function}")).json()["image"].clone()
}

fn is_without_failures(daemon: &Daemon, seen: &Seen) {
    let failures = seen.failures.lock().expect("nobody panics");
    let answers = seen.answers.load(Ordering::Relaxed);
    println!("{answers} answers, {failures:?}");
    assert!(
        failures.is_empty(),
        "of {answers}: {failures:?}\n{}",
        daemon.log()
    );
    assert!(answers > 100, "{answers} answers are no load");
}

/// The version that httpd's `/environment` shows.
fn version_in_environment(text: &str) -> Option<u64> {
    let mut lines = text.lines();
    lines.find_map(|line| line.strip_prefix("VERSION="))?.parse().ok()
}

fn updates_under_load_fail_no_request_and_leave_nothing_old() {
    for more in [&[][..], &["--snapshot"]] {
        let daemon = Daemon::start();
        let options = [&["--env", "VERSION=0"], more].concat();
        daemon.deploy("httpd", &program::build("httpd"), &options);
        let (image, annotations) = (image_of(&daemon, "httpd"), more.contains(&"--snapshot"));
        let change = |version: u64| {
            let body = json!({
                "service": "httpd", "image": image, "envVars": { "VERSION": version.to_string() },
                "annotations": { "dev.spore.snapshot": annotations.to_string() },
            });
            update(&daemon, &body);
        };
        let seen = under_load(
            &daemon,
            "/function/httpd/environment",
            version_in_environment,
            change,
        );
        is_without_failures(&daemon, &seen);
    }
}

fn a_secret_that_changes_under_load_fails_no_request() {
    let daemon = Daemon::start();
    let secret = |version: u64| json!({ "name": "key", "value": version.to_string() }).to_string();
    let made = daemon.send(with_body(Method::POST, "/system/secrets", secret(0)));
    assert!(made.is_ok_and(|answer| answer.status.is_success()));
    daemon.deploy("secrets", &program::build("secrets"), &["--secret", "key"]);
    let version_of = |text: &str| text.split(' ').nth(2)?.lines().next()?.parse().ok();
    let seen = under_load(&daemon, "/function/secrets", version_of, |version| {
        let answer = daemon.send_body(Method::PUT, "/system/secrets", secret(version));
        assert_eq!(answer.status, StatusCode::ACCEPTED, "{}", answer.text());
    });
    is_without_failures(&daemon, &seen);
}

fn updates_of_commands_fail_no_request() {
    let daemon = Daemon::start();
    let options = ["--fprocess", "busybox env", "--env", "VERSION=0"];
    daemon.deploy("env", Path::new("/bin/busybox"), &options);
    let image = image_of(&daemon, "env");
    let seen = under_load(&daemon, "/function/env", version_in_environment, |version| {
        let body = json!({
            "service": "env", "image": image, "envProcess": "busybox env",
            "envVars": { "VERSION": version.to_string() },
        });
        update(&daemon, &body);
    });
    is_without_failures(&daemon, &seen);
}

fn an_update_under_wrk_fails_no_request() {
    let daemon = Daemon::start();
    daemon.deploy("httpd", &program::build("httpd"), &["--env", "VERSION=0"]);
    let image = image_of(&daemon, "httpd");
    let url = format!("http://{}/function/httpd/environment", daemon.address());
    let load = Command::new("wrk")
        .args(["-t", "2", "-c", "16", "-d", "8s", "--timeout", "20s", &url])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("wrk can be run");
    for version in 1..=UPDATES {
        std::thread::sleep(Duration::from_millis(500));
        let body = json!({
            "service": "httpd", "image": image, "envVars": { "VERSION": version.to_string() },
        });
        update(&daemon, &body);
    }
    let output = load.wait_with_output().expect("wrk is our child");
    let report = String::from_utf8_lossy(&output.stdout).into_owned();
    println!("{report}");
    assert!(
        output.status.success() && report.contains("requests in"),
        "{report}"
    );
    for failure in ["Non-2xx", "Socket errors"] {
        assert!(!report.contains(failure), "{report}\n{}", daemon.log());
    }
}
