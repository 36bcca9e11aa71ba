//! Isolation per request by instances that are reset in place: whatever an invocation does, the next one finds nothing of
//! it, in the same monitor process where that can be, and else in another one.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http::StatusCode;
use spore_test_harness::daemon::Daemon;
use spore_test_harness::{guests_are_processes, program, wait_until};

use crate::{Test, with_functions};

pub(crate) const TESTS: &[Test] = with_functions![
    hundreds_of_invocations_find_a_pristine_instance_in_a_few_monitors,
    failures_between_resets_leave_nothing,
    nothing_of_the_machine_is_left,
    a_machine_that_was_changed_is_not_used_again,
    resets_can_be_switched_off,
];

const RESET: &[&str] = &["--snapshot", "--isolation-per-request"];
const PATIENCE: Duration = Duration::from_secs(20);

/// The monitors that have an instance.
fn monitors(daemon: &Daemon) -> BTreeSet<i32> {
    let processes = daemon.descendants().into_iter();
    processes.map(|process| process.pid).collect()
}

/// The only monitor that has an instance, when it has been reset.
fn monitor(daemon: &Daemon) -> i32 {
    let mut seen = BTreeSet::new();
    let is_one = wait_until(PATIENCE, || {
        seen = monitors(daemon);
        seen.len() == 1
    });
    assert!(is_one, "{seen:?}\n{}", daemon.log());
    seen.pop_first().expect("there is one")
}

fn hundreds_of_invocations_find_a_pristine_instance_in_a_few_monitors() {
    const INVOCATIONS: usize = 400;
    const INSTANCES_MAX: usize = 8;
    let daemon = Daemon::start();
    let options = [RESET, &["--max", "8"]].concat();
    daemon.deploy("cloned", &program::build("cloned"), &options);
    let (begun, told, seen) = (
        AtomicUsize::new(0),
        Mutex::new(Vec::new()),
        Mutex::new(BTreeSet::new()),
    );
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while begun.fetch_add(1, Ordering::Relaxed) < INVOCATIONS {
                    let answer = daemon.get("/function/cloned");
                    assert_eq!(
                        answer.status,
                        StatusCode::OK,
                        "{}\n{}",
                        answer.text(),
                        daemon.log()
                    );
                    told.lock().expect("a lock").push(answer.text());
                    if begun.load(Ordering::Relaxed).is_multiple_of(8) {
                        seen.lock().expect("a lock").extend(monitors(&daemon));
                    }
                }
            });
        }
    });
    let told = told.into_inner().expect("a lock");
    let lines: Vec<Vec<&str>> = told.iter().map(|text| text.lines().collect()).collect();
    let distinct = |line: usize| {
        lines
            .iter()
            .map(|lines| lines[line])
            .collect::<BTreeSet<_>>()
            .len()
    };
    assert!(
        lines.iter().all(|lines| lines[3] == "1"),
        "each is asked for the first time"
    );
    assert_eq!(distinct(1), INVOCATIONS, "random numbers are drawn twice");
    assert_eq!(distinct(2), INVOCATIONS, "boots have the same number");
    let running = lines
        .iter()
        .map(|lines| lines[5].parse::<i64>().expect("a number"));
    assert!(running.min() >= Some(0), "time goes back");
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .expect("after 1970")
        .as_secs();
    for lines in &lines {
        let told: u64 = lines[4].parse().expect("a number");
        assert!(now.abs_diff(told) < 60, "{told} at {now}");
    }
    if !guests_are_processes() {
        let seen = seen.into_inner().expect("a lock");
        // The first one may not have been a clone.
        assert!(seen.len() <= INSTANCES_MAX + 1, "{} monitors", seen.len());
        assert_eq!(distinct(0), 1, "drawn once, at the only boot");
    }
}

fn failures_between_resets_leave_nothing() {
    let daemon = Daemon::start();
    let options = [RESET, &["--max", "2", "--timeout", "1s"]].concat();
    daemon.deploy("httpd", &program::build("httpd"), &options);
    let failures = [
        ("/exit?code=3", StatusCode::BAD_GATEWAY),
        ("/sleep?ms=3000", StatusCode::GATEWAY_TIMEOUT),
        ("/log?lines=200", StatusCode::OK),
        ("/close", StatusCode::OK),
    ];
    for (path, status) in failures.into_iter().cycle().take(12) {
        for _ in 0..5 {
            let answer = daemon.get("/function/httpd/count");
            assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
            assert_eq!(answer.text(), "1", "before {path}");
        }
        let answer = daemon.get(&format!("/function/httpd{path}"));
        assert_eq!(answer.status, status, "{path}: {}", answer.text());
    }
    let is_told = wait_until(PATIENCE, || {
        daemon.spore_ok(&["logs", "httpd"]).matches("line 199").count() == 6
    });
    assert!(is_told, "what is logged before a reset is in the log");
}

fn nothing_of_the_machine_is_left() {
    if guests_are_processes() {
        return;
    }
    let daemon = Daemon::start();
    let options = [RESET, &["--max", "1", "--memory", "64Mi"]].concat();
    daemon.deploy("hostile", &program::build("hostile"), &options);
    let ask = |crime: &str| {
        let answer = daemon.get(&format!("/function/hostile/{crime}"));
        (answer.status, answer.text())
    };
    daemon.deploy("used", &program::build("hostile"), &["--memory", "64Mi"]);
    assert_eq!(daemon.get("/function/used/leave-marks").text(), "survived\n");
    assert_eq!(daemon.get("/function/used/find-marks").text(), "it marks\n");
    daemon.spore_ok(&["remove", "used"]);
    let survived = (StatusCode::OK, "survived\n".to_owned());
    assert_eq!(ask("nothing"), survived);
    let first = monitor(&daemon);
    for _ in 0..3 {
        assert_eq!(ask("leave-marks"), survived);
        assert_eq!(
            monitor(&daemon),
            first,
            "{}",
            daemon.spore_ok(&["logs", "hostile"])
        );
        assert_eq!(ask("nothing"), survived);
        assert_eq!(ask("leave-marks"), survived);
    }
    assert_eq!(monitor(&daemon), first);
    // It looks at more memory than is put back, and is the last one here.
    assert_eq!(ask("find-marks"), survived);
}

fn a_machine_that_was_changed_is_not_used_again() {
    if guests_are_processes() {
        return;
    }
    let daemon = Daemon::start();
    let options = [RESET, &["--max", "1"]].concat();
    daemon.deploy("hostile", &program::build("hostile"), &options);
    let ask = |crime: &str| {
        let answer = daemon.get(&format!("/function/hostile/{crime}"));
        assert_eq!(
            (answer.status, answer.text()),
            (StatusCode::OK, "survived\n".to_owned()),
            "{crime}"
        );
    };
    for (crime, said) in [
        (
            "other-descriptors",
            "cannot be used again: it has changed the tables of its processor",
        ),
        (
            "other-registers",
            "cannot be used again: it has changed model-specific registers",
        ),
    ] {
        ask("nothing");
        let before = monitor(&daemon);
        ask(crime);
        daemon.wait_for_log("hostile", said);
        ask("nothing");
        assert_ne!(monitor(&daemon), before, "{crime}");
    }
}

fn resets_can_be_switched_off() {
    let daemon = Daemon::start();
    let options = [
        RESET,
        &["--max", "1", "--annotation", "dev.spore.reset-in-place=false"],
    ]
    .concat();
    daemon.deploy("cloned", &program::build("cloned"), &options);
    let mut seen = BTreeSet::new();
    for _ in 0..5 {
        let answer = daemon.get("/function/cloned");
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
        assert_eq!(answer.text().lines().nth(3), Some("1"));
        let is_another = wait_until(PATIENCE, || {
            monitors(&daemon).iter().any(|monitor| !seen.contains(monitor))
        });
        assert!(is_another, "{seen:?}");
        seen.extend(monitors(&daemon));
    }
}
