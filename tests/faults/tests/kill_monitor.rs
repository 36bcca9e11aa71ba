//! A monitor that is killed or hangs: its caller is told, and nobody else notices.

use http::StatusCode;
use rustix::process::Signal;
use spore_test_harness::daemon::Daemon;
use spore_test_harness::program;

use crate::fixtures::{
    Neighbour, Pending, Raw, check_failure, deploy_faults, monitor, monitors, signal, wait_for_end,
    wait_until_it_computes,
};
use crate::{Needs, Test, tests};

pub(crate) const TESTS: &[Test] = tests![Needs::Nothing;
    a_kill_in_the_middle_of_a_request_is_a_bad_gateway,
    a_kill_in_the_middle_of_an_answer_cuts_it_short,
    a_kill_in_the_middle_of_an_upload_is_a_bad_gateway,
    a_kill_while_idle_or_booting_is_not_noticed,
    a_monitor_that_hangs_ends_at_the_time_limit,
];

/// A daemon with the function that is hit and its neighbour.
struct Scene {
    daemon: Daemon,
    neighbour: Neighbour,
}

impl Scene {
    fn start(options: &[&str]) -> Self {
        let daemon = Daemon::start();
        daemon.deploy("hit", &program::build("httpd"), options);
        deploy_faults(&daemon, "faults", options);
        let neighbour = Neighbour::start(&daemon);
        Self { daemon, neighbour }
    }

    fn kill(&self, function: &str) {
        let monitor = monitor(&self.daemon, function);
        signal(monitor, Signal::KILL);
        wait_for_end(monitor);
    }

    /// The functions serve as before, and so did the neighbour.
    fn check(self) {
        for function in ["hit", "faults"] {
            let again = self.daemon.get(&format!("/function/{function}/"));
            assert_eq!(again.status, StatusCode::OK, "{}", again.text());
        }
        self.neighbour.check();
    }
}

fn a_kill_in_the_middle_of_a_request_is_a_bad_gateway() {
    let scene = Scene::start(&[]);
    let request = Pending::get(&scene.daemon, "/function/faults/spin");
    wait_until_it_computes(monitor(&scene.daemon, "faults"));
    scene.kill("faults");
    check_failure(
        &request.answer(),
        StatusCode::BAD_GATEWAY,
        &["faults: ", "the monitor process", "killed"],
    );
    scene.daemon.wait_for_log("faults", "killed");
    scene.check();
}

fn a_kill_in_the_middle_of_an_answer_cuts_it_short() {
    let scene = Scene::start(&[]);
    // With a length, in chunks, and up to the end of the connection: the caller gets chunks for the last one too.
    for (function, path, ends) in [
        ("hit", "/bytes?count=1000000000", &b""[..]),
        ("hit", "/chunked?count=1000000000", b"0\r\n\r\n"),
        ("faults", "/endless", b"0\r\n\r\n"),
    ] {
        let request =
            format!("GET /function/{function}{path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n");
        let mut caller = Raw::send(scene.daemon.address(), &request);
        let head = caller.read_until("\r\n\r\n");
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        scene.kill(function);
        let tail = caller.read_tail();
        assert!(
            ends.is_empty() || !tail.ends_with(ends),
            "{path} seems to be complete: {}",
            String::from_utf8_lossy(&tail)
        );
        // The pool has heard of the end before the next round looks for the monitor.
        assert_eq!(
            scene.daemon.get(&format!("/function/{function}/")).status,
            StatusCode::OK
        );
    }
    // While a body up to the end of the connection that ends well is complete.
    let whole = scene.daemon.get("/function/faults/two-parts");
    assert_eq!(whole.text(), "first second");
    scene.check();
}

fn a_kill_in_the_middle_of_an_upload_is_a_bad_gateway() {
    let scene = Scene::start(&[]);
    assert_eq!(scene.daemon.get("/function/hit/").status, StatusCode::OK);
    // All of it is read before the answer. So much has been sent only when the instance has read of it: the buffers on the way
    // hold less. An instance that has read nothing is replaced, and nobody is told.
    let head = "POST /function/hit/inspect HTTP/1.1\r\nHost: test\r\nContent-Length: 100000000\r\n\r\n";
    let mut caller = Raw::send(scene.daemon.address(), head);
    caller.write(&vec![b'x'; 32 << 20]);
    scene.kill("hit");
    let answer = caller.read_until("killed");
    assert!(answer.starts_with("HTTP/1.1 502"), "{answer}");
    scene.check();
}

fn a_kill_while_idle_or_booting_is_not_noticed() {
    let scene = Scene::start(&[]);
    assert_eq!(scene.daemon.get("/function/hit/").status, StatusCode::OK);
    scene.kill("hit");
    let answer = scene.daemon.get("/function/hit/");
    assert_eq!(
        answer.status,
        StatusCode::OK,
        "another instance: {}",
        answer.text()
    );

    // The first monitor is lost before it is ready; the request did not reach it and is given to another one. That one
    // is lost too, which is enough: the caller may try again.
    deploy_faults(&scene.daemon, "boots", &["--env", "START=spin"]);
    let request = Pending::get(&scene.daemon, "/function/boots/");
    let first = monitor(&scene.daemon, "boots");
    wait_until_it_computes(first);
    signal(first, Signal::KILL);
    wait_for_end(first);
    let second = monitor(&scene.daemon, "boots");
    assert_ne!(first, second);
    wait_until_it_computes(second);
    signal(second, Signal::KILL);
    let answer = request.answer();
    check_failure(&answer, StatusCode::SERVICE_UNAVAILABLE, &["boots: ", "killed"]);
    assert!(!answer.header("retry-after").is_empty(), "a retry may help");
    assert!(monitors(&scene.daemon, "boots").is_empty());
    scene.check();
}

fn a_monitor_that_hangs_ends_at_the_time_limit() {
    let scene = Scene::start(&["--timeout", "1s"]);
    for (function, path) in [("hit", "/"), ("faults", "/spin")] {
        assert_eq!(
            scene.daemon.get(&format!("/function/{function}/")).status,
            StatusCode::OK
        );
        let stopped = monitor(&scene.daemon, function);
        signal(stopped, Signal::STOP);
        let answer = scene.daemon.get(&format!("/function/{function}{path}"));
        check_failure(&answer, StatusCode::GATEWAY_TIMEOUT, &["1000 ms"]);
        wait_for_end(stopped);
        scene.daemon.wait_for_log(function, "1000 ms");
    }
    scene.check();
}
