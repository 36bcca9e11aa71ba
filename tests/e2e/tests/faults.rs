//! Whatever a function does, only its own instance ends, its caller is told why, and its log has the report.

use std::path::Path;
use std::time::{Duration, Instant};

use http::{Method, StatusCode};
use spore_test_harness::client::{self, Answer};
use spore_test_harness::daemon::Daemon;
use spore_test_harness::{program, repository, wait_until};

use crate::{Test, with_functions};

pub(crate) const TESTS: &[Test] = with_functions![
    a_missing_system_call_is_named_once_and_counted,
    crashes_are_reported_with_place_and_symbol,
    a_hang_ends_at_the_timeout,
    exhausted_memory_ends_only_the_instance,
    an_exit_is_reported,
    a_gigabyte_of_output_hurts_nobody,
    a_scribble_over_all_memory_hurts_nobody,
    a_crash_in_the_middle_of_a_body_is_no_clean_end,
    a_function_that_never_listens_is_not_ready,
    a_program_that_exits_at_once_is_reported,
];

/// A daemon with the misbehaving function, and one that has to stay unaffected and whose instance is kept.
struct Neighbours {
    daemon: Daemon,
    identity: String,
}

impl Neighbours {
    fn start(options: &[&str]) -> Neighbours {
        let daemon = Daemon::start();
        deploy_misbehave(&daemon, options);
        daemon.deploy("neighbour", &program::build("httpd"), &[]);
        let identity = daemon.get("/function/neighbour/identity").text();
        Neighbours { daemon, identity }
    }

    /// Asks the misbehaving function for one of its crimes.
    fn misbehave(&self, path: &str) -> Answer {
        self.daemon.get(&format!("/function/misbehave{path}"))
    }

    /// Checks the one-line reason that the caller got, and that everybody else is as before.
    fn check(&self, answer: &Answer, status: StatusCode, reason: &[&str]) {
        let text = answer.text();
        assert_eq!(answer.status, status, "{text}\n{}", self.daemon.log());
        assert_eq!(
            text.trim_end().lines().count(),
            1,
            "the reason is one line: {text:?}"
        );
        assert!(
            text.starts_with("misbehave: "),
            "the reason names the function: {text:?}"
        );
        for part in reason {
            assert!(text.contains(part), "{part:?} is missing in {text:?}");
        }
        assert_eq!(
            answer.header("x-openfaas-internal"),
            "proxy",
            "the answer is the platform's own"
        );
        self.check_others();
    }

    fn check_others(&self) {
        let identity = self.daemon.get("/function/neighbour/identity").text();
        assert_eq!(
            identity, self.identity,
            "the neighbour's instance is the same one as before"
        );
        let again = self.misbehave("/");
        assert_eq!(
            again.status,
            StatusCode::OK,
            "a fresh instance of the function answers: {}",
            again.text()
        );
        assert_eq!(self.daemon.get("/healthz").status, StatusCode::OK);
    }
}

/// Builds and deploys `examples/misbehave-c` from a copy, since several tests may build it at once.
pub(crate) fn deploy_misbehave(daemon: &Daemon, options: &[&str]) {
    let folder = tempfile::tempdir().expect("the temporary folder is writable");
    let copy = folder.path().join("misbehave");
    copy_sources(&repository().join("examples/misbehave-c"), &copy);
    daemon.spore_ok(&[&["deploy", copy.to_str().expect("UTF-8")], options].concat());
}

fn copy_sources(from: &Path, to: &Path) {
    std::fs::create_dir(to).expect("the temporary folder is writable");
    for entry in std::fs::read_dir(from).expect("the example is there") {
        let path = entry.expect("the example is readable").path();
        if path.is_file() {
            let name = path.file_name().expect("a file has a name");
            std::fs::copy(&path, to.join(name)).expect("the temporary folder is writable");
        }
    }
}

/// Ways to crash, and what the caller's line and the log have to say about each.
const CRASHES: &[(&str, &[&str])] = &[
    ("/null-call", &["0x0"]),
    ("/null-write", &["0x0", "write_null"]),
    ("/stack-overflow", &["recurse"]),
    (
        "/illegal-instruction",
        &["illegal instruction", "run_illegal_instruction"],
    ),
    ("/privileged-instruction", &["run_privileged_instruction"]),
    ("/divide-by-zero", &["divi", "divide_by_zero"]),
    ("/abort", &["abort"]),
];

fn crashes_are_reported_with_place_and_symbol() {
    let neighbours = Neighbours::start(&[]);
    for (path, report) in CRASHES {
        let answer = neighbours.misbehave(path);
        neighbours.check(&answer, StatusCode::BAD_GATEWAY, &["crashed"]);
        let text = answer.text();
        let log = neighbours
            .daemon
            .wait_for_log("misbehave", text.trim_start_matches("misbehave: ").trim_end());
        for part in *report {
            assert!(
                text.contains(part) || log.contains(part),
                "{path}: {part:?} is missing in {text:?} and\n{log}"
            );
        }
    }
    let log = neighbours.daemon.spore_ok(&["logs", "misbehave"]);
    assert!(
        log.to_lowercase().contains("rip"),
        "the report has the registers:\n{log}"
    );
}

fn a_hang_ends_at_the_timeout() {
    let neighbours = Neighbours::start(&["--timeout", "2s"]);
    neighbours.misbehave("/");
    let start = Instant::now();
    let answer = neighbours.misbehave("/hang");
    let elapsed = start.elapsed();
    neighbours.check(&answer, StatusCode::GATEWAY_TIMEOUT, &["2000 ms"]);
    assert!(
        elapsed >= Duration::from_secs(2) && elapsed < Duration::from_secs(20),
        "{elapsed:?}"
    );
    neighbours.daemon.wait_for_log("misbehave", "2000 ms");
}

fn exhausted_memory_ends_only_the_instance() {
    let neighbours = Neighbours::start(&["--memory", "64Mi"]);
    let answer = neighbours.misbehave("/exhaust-memory");
    // The program decides what a failed allocation means to it: the example gives up, which is its own exit or crash.
    assert!(
        answer.status.is_server_error(),
        "{} {}",
        answer.status,
        answer.text()
    );
    neighbours.check_others();
}

fn an_exit_is_reported() {
    let neighbours = Neighbours::start(&[]);
    let answer = neighbours.daemon.get("/function/misbehave/exit-status");
    neighbours.check(&answer, StatusCode::BAD_GATEWAY, &["exited with status 3"]);
    neighbours
        .daemon
        .wait_for_log("misbehave", "exited with status 3");
    let answer = neighbours.daemon.get("/function/neighbour/exit?code=7");
    assert!(
        answer.text().contains("exited with status 7"),
        "{}",
        answer.text()
    );
}

fn a_gigabyte_of_output_hurts_nobody() {
    // Less than this client waits for an answer: that of a timeout has to reach it.
    let neighbours = Neighbours::start(&["--timeout", "30s"]);
    let answer = neighbours.misbehave("/print-gigabyte");
    // It may finish or run into its timeout; the log is bounded either way, and says what was dropped.
    assert!(
        answer.status == StatusCode::OK || answer.status.is_server_error(),
        "{}",
        answer.status
    );
    neighbours.check_others();
    let log = neighbours.daemon.wait_for_log("misbehave", "dropped");
    assert!(log.len() < 64 << 20, "{} bytes of log", log.len());
}

fn a_scribble_over_all_memory_hurts_nobody() {
    let neighbours = Neighbours::start(&["--timeout", "20s"]);
    let answer = neighbours.misbehave("/scribble");
    assert!(
        answer.status.is_server_error(),
        "{} {}",
        answer.status,
        answer.text()
    );
    neighbours.check_others();
}

fn a_crash_in_the_middle_of_a_body_is_no_clean_end() {
    let neighbours = Neighbours::start(&[]);
    let request = client::request(Method::GET, "/function/neighbour/die?after=100000");
    let outcome = neighbours.daemon.send(request);
    assert!(
        outcome.is_err(),
        "the caller must see that the body was cut off: {outcome:?}"
    );
    neighbours
        .daemon
        .wait_for_log("neighbour", "exited with status 3");
    assert_eq!(
        neighbours.daemon.get("/function/neighbour/").status,
        StatusCode::OK
    );
}

fn a_function_that_never_listens_is_not_ready() {
    let daemon = Daemon::start();
    // It listens on 8080, whatever the deployment says: the port given here is never served.
    let program = program::build("compute");
    daemon.deploy(
        "deaf",
        &program,
        &["--port", "9", "--env", "PORT=8080", "--timeout", "3s"],
    );
    let answer = daemon.get("/function/deaf");
    assert!(
        answer.status.is_server_error(),
        "{} {}",
        answer.status,
        answer.text()
    );
    assert!(
        answer.text().contains("deaf") && answer.text().contains("ready"),
        "{}",
        answer.text()
    );
    // It has 10 s in all to become ready, whether somebody waits or not, and may then be asked in vain to stop.
    let gone = wait_until(Duration::from_secs(30), || daemon.descendants().is_empty());
    assert!(
        gone,
        "the failed instance left processes: {:?}",
        daemon.descendants()
    );
}

fn a_program_that_exits_at_once_is_reported() {
    let daemon = Daemon::start();
    daemon.deploy("quitter", &program::build("quitter"), &[]);
    let answer = daemon.get("/function/quitter");
    assert!(
        answer.status.is_server_error(),
        "{} {}",
        answer.status,
        answer.text()
    );
    assert!(
        answer.text().contains("exited with status 9"),
        "{}",
        answer.text()
    );
    daemon.wait_for_log("quitter", "nothing to do");
}

fn a_missing_system_call_is_named_once_and_counted() {
    let daemon = Daemon::start();
    let idle = ["--annotation", "dev.spore.idle-timeout=1s"];
    daemon.deploy("httpd", &program::build("httpd"), &idle);
    for _ in 0..3 {
        assert_eq!(daemon.get("/function/httpd/missing").text(), "1");
    }
    let log = daemon.wait_for_log("httpd", "3 system calls failed with ENOSYS");
    assert_eq!(log.matches("system call swapoff").count(), 1, "{log}");
}
