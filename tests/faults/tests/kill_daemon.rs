//! `kill -9` of the daemon: no monitor outlives it, and the next one has everything.

use http::StatusCode;
use rustix::process::Signal;
use spore_test_harness::client::{Answer, RequestError};
use spore_test_harness::daemon::Daemon;
use spore_test_harness::process::ProcessIdentity;
use spore_test_harness::{program, wait_until};
use std::time::Duration;

use crate::fixtures::{Pending, deploy_faults, monitor, signal, wait_until_it_computes};
use crate::{Needs, Test, tests};

pub(crate) const TESTS: &[Test] = tests![Needs::Nothing;
    monitors_end_with_the_daemon_whatever_they_do,
    every_setting_is_there_after_a_kill,
    leftovers_are_removed_at_the_next_start,
];

/// What the issue allows a monitor whose daemon is gone.
const ORPHAN_TIMEOUT: Duration = Duration::from_secs(2);

fn kill_and_see_monitors_end(daemon: &mut Daemon, monitors: &[ProcessIdentity]) {
    daemon.kill();
    let gone = wait_until(ORPHAN_TIMEOUT, || {
        !monitors.iter().any(|monitor| monitor.is_alive())
    });
    let left: Vec<_> = monitors.iter().filter(|monitor| monitor.is_alive()).collect();
    assert!(
        gone,
        "2 s after kill -9 of the daemon, of {monitors:?} are left: {left:?}"
    );
}

fn broken_off(request: Pending) {
    let outcome: Result<Answer, RequestError> = request.outcome();
    assert!(outcome.is_err(), "nobody was there to answer: {outcome:?}");
}

fn monitors_end_with_the_daemon_whatever_they_do() {
    let mut daemon = Daemon::start();
    for (name, start) in [
        ("idle", ""),
        ("computes", ""),
        ("floods", ""),
        ("boots", "spin"),
        ("stopped", ""),
    ] {
        let start = format!("START={start}");
        let environment: &[&str] = if start == "START=" {
            &[]
        } else {
            &["--env", &start]
        };
        deploy_faults(&daemon, name, environment);
    }
    assert_eq!(daemon.get("/function/idle").status, StatusCode::OK);
    assert_eq!(daemon.get("/function/stopped").status, StatusCode::OK);
    let requests = [
        Pending::get(&daemon, "/function/computes/spin"),
        Pending::get(&daemon, "/function/floods/flood"),
        Pending::get(&daemon, "/function/boots"),
    ];
    for name in ["computes", "floods", "boots"] {
        wait_until_it_computes(monitor(&daemon, name));
    }
    signal(monitor(&daemon, "stopped"), Signal::STOP);
    let monitors = daemon.descendants();
    assert!(monitors.len() >= 5, "{monitors:?}: {}", daemon.log());
    kill_and_see_monitors_end(&mut daemon, &monitors);
    requests.into_iter().for_each(broken_off);
    daemon.start_again();
    assert_eq!(daemon.get("/function/idle").status, StatusCode::OK);
}

fn every_setting_is_there_after_a_kill() {
    let mut daemon = Daemon::start();
    let program = program::build("httpd");
    for (name, options) in [
        ("plain", &[][..]),
        (
            "set",
            &[
                "--env",
                "GREETING=kept",
                "--label",
                "team=blue",
                "--memory",
                "96Mi",
                "--timeout",
                "7s",
                "--max",
                "2",
                "--annotation",
                "dev.spore.idle-timeout=5s",
            ],
        ),
        ("kept", &["--min", "1"]),
    ] {
        daemon.deploy(name, &program, options);
    }
    let describe = |daemon: &Daemon| {
        let mut all =
            ["plain", "set", "kept"].map(|name| daemon.get(&format!("/system/function/{name}")).json());
        for function in &mut all {
            // What runs at the moment is no setting.
            for field in ["replicas", "availableReplicas"] {
                function.as_object_mut().expect("an object").remove(field);
            }
        }
        all
    };
    let before = describe(&daemon);
    daemon.kill();
    daemon.start_again();
    assert_eq!(describe(&daemon), before);
    let environment = daemon.get("/function/set/environment").text();
    assert!(environment.contains("GREETING=kept"), "{environment}");
    let again = wait_until(Duration::from_secs(15), || {
        daemon.get("/system/function/kept").json()["availableReplicas"] == 1
    });
    assert!(again, "--min 1 holds after a restart too");
}

fn leftovers_are_removed_at_the_next_start() {
    let mut daemon = Daemon::start();
    daemon.deploy("httpd", &program::build("httpd"), &[]);
    daemon.kill();
    // What a daemon leaves that is killed in the middle of a push, of unpacking, of deriving and of a removal.
    let data = daemon.data();
    let write = |path: &str| {
        let path = data.join(path);
        std::fs::create_dir_all(path.parent().expect("it has one")).expect("writable");
        std::fs::write(path, "half of it").expect("writable");
    };
    let empty = "0".repeat(64);
    write("uploads/.tmpHalf");
    write("uploads/unpacked-half/usr/bin/program");
    write("logs/removed.openfaas-fn/current.jsonl");
    std::fs::create_dir_all(data.join("derived").join(&empty)).expect("writable");
    daemon.start_again();
    assert_eq!(daemon.get("/function/httpd").status, StatusCode::OK);
    let uploads = std::fs::read_dir(data.join("uploads"))
        .expect("it is there")
        .count();
    assert_eq!(uploads, 0, "half uploads are removed");
    // The name may be used again, by another function that has nothing to do with the log.
    daemon.deploy("removed", &program::build("httpd"), &[]);
    let log = daemon.spore_ok(&["logs", "removed"]);
    assert!(!log.contains("half of it") && !log.contains("damaged"), "{log}");
}
