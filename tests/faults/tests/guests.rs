//! Guests that misbehave: only their own function is concerned, its callers are told, and its log says why.

use std::time::Duration;

use http::StatusCode;
use spore_test_harness::client::Answer;
use spore_test_harness::daemon::Daemon;

use crate::fixtures::{Neighbour, check_failure, deploy_faults};
use crate::{Needs, Test, tests};

pub(crate) const TESTS: &[Test] = tests![Needs::Nothing;
    a_guest_that_exhausts_its_memory_is_alone,
    a_guest_that_cannot_start_is_not_started_over_and_over,
    a_guest_that_floods_its_log_is_alone,
    a_guest_that_never_becomes_ready_is_alone,
    a_request_that_a_retiring_guest_did_not_read_is_served_by_another,
    a_request_that_a_guest_began_to_read_is_not_repeated,
];

fn a_guest_that_exhausts_its_memory_is_alone() {
    let daemon = Daemon::start();
    deploy_faults(&daemon, "greedy", &["--memory", "64Mi"]);
    let neighbour = Neighbour::start(&daemon);
    for _ in 0..3 {
        let answer = daemon.get("/function/greedy/memory");
        check_failure(&answer, StatusCode::BAD_GATEWAY, &["greedy: ", "67108864 bytes"]);
    }
    daemon.wait_for_log("greedy", "67108864 bytes");
    assert_eq!(daemon.get("/function/greedy/").status, StatusCode::OK);
    neighbour.check();
}

fn a_guest_that_cannot_start_is_not_started_over_and_over() {
    let daemon = Daemon::start();
    let neighbour = Neighbour::start(&daemon);
    deploy_faults(&daemon, "quits", &["--env", "START=exit", "--min", "2"]);
    let answer = daemon.get("/function/quits");
    check_failure(
        &answer,
        StatusCode::BAD_GATEWAY,
        &["quits: ", "exited with status 7"],
    );
    daemon.wait_for_log("quits", "it cannot start");
    std::thread::sleep(Duration::from_secs(4));
    let starts = daemon
        .spore_ok(&["logs", "quits"])
        .matches("it cannot start")
        .count();
    // Two at a time, and pauses of 1 s, 2 s, and so on between them.
    assert!((2..=12).contains(&starts), "{starts} starts in 4 s");
    neighbour.check();
}

fn a_guest_that_floods_its_log_is_alone() {
    let daemon = Daemon::start();
    deploy_faults(&daemon, "floods", &["--timeout", "3s"]);
    let neighbour = Neighbour::start(&daemon);
    let answer = daemon.get("/function/floods/flood");
    check_failure(&answer, StatusCode::GATEWAY_TIMEOUT, &["floods: ", "3000 ms"]);
    let log = daemon.wait_for_log("floods", "bytes of output were dropped");
    assert!(log.len() < 64 << 20, "{} bytes of log", log.len());
    neighbour.check();
}

fn a_guest_that_never_becomes_ready_is_alone() {
    let daemon = Daemon::start();
    let neighbour = Neighbour::start(&daemon);
    for start in ["sleep", "spin"] {
        let name = format!("never-{start}");
        deploy_faults(
            &daemon,
            &name,
            &["--env", &format!("START={start}"), "--timeout", "2s"],
        );
        let answer = daemon.get(&format!("/function/{name}"));
        check_failure(
            &answer,
            StatusCode::SERVICE_UNAVAILABLE,
            &[&name, "not ready", "8080"],
        );
        daemon.wait_for_log(&name, "not ready");
    }
    neighbour.check();
}

fn a_request_that_a_retiring_guest_did_not_read_is_served_by_another() {
    let daemon = Daemon::start();
    deploy_faults(&daemon, "retires", &["--max", "1"]);
    // The program does not read while it waits for its end, so each second request meets an instance that never will.
    for _ in 0..5 {
        let first = daemon.get("/function/retires/retire?ms=300");
        assert_eq!(first.status, StatusCode::OK, "{}", first.text());
        let second: Answer = daemon.get("/function/retires/");
        assert_eq!(second.status, StatusCode::OK, "{}", second.text());
        assert_eq!(second.header("x-spore-start"), "cold", "another instance answers");
    }
}

fn a_request_that_a_guest_began_to_read_is_not_repeated() {
    let daemon = Daemon::start();
    deploy_faults(&daemon, "quits", &[]);
    let answer = daemon.get("/function/quits/half");
    check_failure(
        &answer,
        StatusCode::BAD_GATEWAY,
        &["quits: ", "exited with status 4"],
    );
    let log = daemon.wait_for_log("quits", "exited with status 4");
    // The invocation that was not answered has a line of its own, which names the same reason.
    let ends = |line: &&str| line.contains("exited with status 4") && !line.contains("was not answered");
    assert_eq!(log.lines().filter(ends).count(), 1, "{log}");
}
