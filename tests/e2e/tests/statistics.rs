//! Statistics: what `spore stats` and the API tell of instances that were started and invoked.

use std::time::Duration;

use http::StatusCode;
use serde_json::Value;
use spore_test_harness::daemon::Daemon;
use spore_test_harness::{program, wait_until};

use crate::{Test, with_functions};

pub(crate) const TESTS: &[Test] = with_functions![
    cold_and_warm_invocations_are_counted_with_all_stages,
    clones_tell_their_stages_too,
    a_hundred_invocations_at_once_are_all_counted,
    nothing_yet_and_a_function_that_is_gone_are_said,
];

const STAGES: [&str; 6] = [
    "queued",
    "shellTaken",
    "mapped",
    "firstInstruction",
    "handlerEntered",
    "answer",
];
/// Of averages that are added up, in seconds.
const ROUNDING: f64 = 1e-6;

fn statistics(daemon: &Daemon, function: &str) -> Value {
    let answer = daemon.get(&format!("/system/function/{function}/stats"));
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
    answer.json()
}

fn count(durations: &Value) -> u64 {
    durations["count"].as_u64().expect("a number")
}

fn average(durations: &Value) -> f64 {
    durations["averageSeconds"].as_f64().expect("a number")
}

/// The statistics when all of so many cold starts are counted; a stage is known a moment after the answer.
fn statistics_of(daemon: &Daemon, function: &str, cold_starts: u64) -> Value {
    let mut last = Value::Null;
    let counted = wait_until(Duration::from_secs(30), || {
        last = statistics(daemon, function);
        count(&last["coldStart"]["whole"]) == cold_starts
    });
    assert!(counted, "{cold_starts} cold starts: {last:#}");
    last
}

/// Every cold start went through every stage, and the stages are all that there was.
fn check_stages(statistics: &Value, cold_starts: u64) {
    let stages = &statistics["coldStart"];
    for stage in STAGES {
        assert_eq!(count(&stages[stage]), cold_starts, "{stage}: {statistics:#}");
    }
    let sum: f64 = STAGES.iter().map(|stage| average(&stages[*stage])).sum();
    let whole = average(&stages["whole"]);
    assert!((sum - whole).abs() < ROUNDING, "{sum} of {whole}: {statistics:#}");
    let initialisation = average(&statistics["initialisation"]["cold"]);
    let execution = average(&statistics["execution"]["cold"]);
    assert!(initialisation + execution <= whole + ROUNDING, "{statistics:#}");
    // The program does something before it reads a request, and something before it has answered it.
    for stage in ["handlerEntered", "answer"] {
        assert!(average(&stages[stage]) > 0.0, "{stage}: {statistics:#}");
    }
}

fn cold_and_warm_invocations_are_counted_with_all_stages() {
    let daemon = Daemon::start();
    daemon.deploy("httpd", &program::build("httpd"), &[]);
    for _ in 0..10 {
        assert_eq!(daemon.get("/function/httpd").status, StatusCode::OK);
    }
    let statistics = statistics_of(&daemon, "httpd", 1);
    assert_eq!(count(&statistics["initialisation"]["cold"]), 1);
    assert_eq!(count(&statistics["execution"]["cold"]), 1);
    assert_eq!(count(&statistics["execution"]["warm"]), 9);
    check_stages(&statistics, 1);
    // The instance is ready before it is leased, and enters its handler after.
    let stages = &statistics["coldStart"];
    let until_running: f64 = STAGES[..4].iter().map(|stage| average(&stages[*stage])).sum();
    let initialisation = average(&statistics["initialisation"]["cold"]);
    let until_entered = until_running + average(&stages["handlerEntered"]);
    assert!(
        until_running <= initialisation && initialisation <= until_entered,
        "{statistics:#}"
    );

    let shown = daemon.spore_ok(&["stats", "httpd"]);
    for row in [
        "execution, warm",
        "first guest instruction",
        "handler entered",
        "whole",
    ] {
        assert!(shown.lines().any(|line| line.starts_with(row)), "{row}: {shown}");
    }
    let json: Value = serde_json::from_str(&daemon.spore_ok(&["stats", "httpd", "--json"])).expect("JSON");
    assert_eq!(json, statistics);
}

fn clones_tell_their_stages_too() {
    let daemon = Daemon::start();
    let options = ["--annotation", "dev.spore.idle-timeout=0s", "--snapshot"];
    daemon.deploy("cloned", &program::build("cloned"), &options);
    for _ in 0..10 {
        let answer = daemon.get("/function/cloned");
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
    }
    let statistics = statistics_of(&daemon, "cloned", 10);
    assert_eq!(count(&statistics["execution"]["cold"]), 10);
    assert_eq!(count(&statistics["execution"]["warm"]), 0);
    check_stages(&statistics, 10);
}

fn a_hundred_invocations_at_once_are_all_counted() {
    let daemon = Daemon::start();
    daemon.deploy("httpd", &program::build("httpd"), &["--max", "20"]);
    call_a_hundred_times_at_once(&daemon);
    daemon.deploy("httpd", &program::build("httpd"), &["--snapshot"]);
    call_a_hundred_times_at_once(&daemon);
}

fn call_a_hundred_times_at_once(daemon: &Daemon) {
    const CALLERS: u64 = 100;
    let cold: u64 = std::thread::scope(|scope| {
        let caller = || {
            let answer = daemon.get("/function/httpd");
            assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
            u64::from(answer.header("x-spore-start") == "cold")
        };
        let callers: Vec<_> = (0..CALLERS).map(|_| scope.spawn(caller)).collect();
        callers
            .into_iter()
            .map(|caller| caller.join().expect("no caller fails"))
            .sum()
    });
    assert!((1..=CALLERS).contains(&cold));
    let statistics = statistics_of(daemon, "httpd", cold);
    assert_eq!(count(&statistics["initialisation"]["cold"]), cold);
    assert_eq!(count(&statistics["execution"]["cold"]), cold);
    assert_eq!(count(&statistics["execution"]["warm"]), CALLERS - cold);
    check_stages(&statistics, cold);
}

fn nothing_yet_and_a_function_that_is_gone_are_said() {
    let daemon = Daemon::start();
    daemon.deploy("httpd", &program::build("httpd"), &[]);
    let shown = daemon.spore_ok(&["stats", "httpd"]);
    assert!(
        shown.starts_with("httpd has not answered anything yet"),
        "{shown}"
    );
    assert_eq!(daemon.get("/function/httpd").status, StatusCode::OK);
    assert!(daemon.spore_ok(&["stats", "httpd"]).contains("execution, cold"));

    daemon.deploy("httpd", &program::build("httpd"), &[]);
    let shown = daemon.spore_ok(&["stats", "httpd"]);
    assert!(
        shown.starts_with("httpd has not answered anything yet"),
        "{shown}"
    );

    daemon.spore_ok(&["remove", "httpd"]);
    assert_eq!(
        daemon.get("/system/function/httpd/stats").status,
        StatusCode::NOT_FOUND
    );
    let refused = daemon.spore(&["stats", "httpd"]);
    assert!(!refused.status.success());
    let error = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(error.contains("there is no function httpd"), "{error}");
}
