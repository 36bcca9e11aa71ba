//! Clones: what is new in each of them, and what functions can do before the snapshot and after it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use http::StatusCode;
use spore_test_harness::daemon::Daemon;
use spore_test_harness::program;

use crate::{Test, with_functions};

pub(crate) const TESTS: &[Test] = with_functions![
    a_thousand_clones_draw_no_number_twice,
    clocks_are_right_in_clones_of_an_old_snapshot,
    what_waits_goes_on_where_the_snapshot_stopped,
    the_clock_is_right_where_no_snapshot_is_made,
    hooks_are_called_before_the_snapshot_and_in_each_clone,
    a_hook_that_fails_ends_the_instance,
    functions_in_c_have_hooks_of_their_own,
    clones_wait_for_those_that_watch_the_generation,
    who_never_waits_is_booted,
    an_instance_that_is_reset_is_a_new_clone,
];

/// Instances are removed as soon as they have answered: each request finds a new one.
const CLONED: &[&str] = &["--annotation", "dev.spore.idle-timeout=0s", "--snapshot"];
/// How much a clock of a clone may be beside that of the host.
const CLOCK_ERROR: Duration = Duration::from_millis(5);

/// What `programs/fresh.c` tells: lines of a name and a value.
type Told = BTreeMap<String, String>;

fn ask(daemon: &Daemon, function: &str, path: &str) -> Told {
    let answer = daemon.get(&format!("/function/{function}{path}"));
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
    assert_eq!(answer.header("x-spore-start"), "cold");
    told(&answer.text())
}

fn told(text: &str) -> Told {
    let pairs = text
        .lines()
        .map(|line| line.split_once(' ').expect("a name and a value"));
    pairs
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

/// A number that was told.
fn number(told: &Told, name: &str) -> i128 {
    told[name].parse().expect("a number")
}

fn since_1970() -> Duration {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("it is after 1970")
}

fn a_thousand_clones_draw_no_number_twice() {
    const CLONES: usize = 1000;
    let daemon = Daemon::start();
    daemon.deploy("fresh", &program::build("fresh"), CLONED);
    let told: Vec<Told> = (0..CLONES).map(|_| ask(&daemon, "fresh", "/")).collect();
    for name in ["getrandom", "urandom", "random", "uuid", "boot_id", "AT_RANDOM"] {
        let values: BTreeSet<&String> = told.iter().map(|told| &told[name]).collect();
        assert_eq!(values.len(), CLONES, "{name}");
    }
    for told in &told {
        // Of three pages the second is not for clones; the others are, though the first was not to be for a while.
        assert_eq!(told["pages"], "42 0 42");
        assert_eq!(told["generation"], "1 1 1 4");
    }
    let log = daemon.spore_ok(&["logs", "fresh"]);
    // Neither the program nor its C library, which is musl, draws anything before it is ready.
    assert!(!log.contains("random bytes were drawn"), "{log}");
    let booted = log.matches("booted").count();
    assert_eq!(booted, 1);
}

/// Asks for the clocks, and checks that of the day against the host's.
fn ask_for_clocks(daemon: &Daemon, function: &str) -> Told {
    let before = since_1970();
    let told = ask(daemon, function, "/clocks");
    let after = since_1970();
    let shown = Duration::from_nanos(told["realtime"].parse().expect("nanoseconds"));
    assert!(
        (before - CLOCK_ERROR..=after + CLOCK_ERROR).contains(&shown),
        "{shown:?} is not between {before:?} and {after:?}"
    );
    told
}

/// A snapshot is an hour old when it is made.
fn clocks_are_right_in_clones_of_an_old_snapshot() {
    let daemon = Daemon::start();
    daemon.deploy("fresh", &program::build("fresh"), CLONED);
    for _ in 0..10 {
        let told = ask_for_clocks(&daemon, "fresh");
        assert!(number(&told, "age") >= 3600, "{told:?}");
        assert_eq!(told["timed_out"], "2", "what was due half an hour ago is over");
        assert_eq!(
            told["timers"], "1 0",
            "a time has come, and a time span has not passed"
        );
    }
}

fn what_waits_goes_on_where_the_snapshot_stopped() {
    const SLEEP_MS: i128 = 4000;
    let daemon = Daemon::start();
    daemon.deploy("fresh", &program::build("fresh"), CLONED);
    let started = Instant::now();
    ask(&daemon, "fresh", "/clocks");
    let slept = ask(&daemon, "fresh", "/sleep");
    assert!(number(&slept, "slept") >= SLEEP_MS, "{slept:?}");
    while started.elapsed().as_millis() < SLEEP_MS.unsigned_abs() + 500 {
        std::thread::sleep(Duration::from_millis(50));
    }
    let told = ask(&daemon, "fresh", "/clocks");
    assert_eq!(told["asleep"], "1", "{told:?}");
    assert!(number(&told, "since_start") < SLEEP_MS, "{told:?}");
}

fn the_clock_is_right_where_no_snapshot_is_made() {
    let outside = std::net::TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let address = outside.local_addr().expect("it is bound");
    let daemon = Daemon::start();
    let (variable, rule) = (format!("OUTSIDE={}", address.port()), address.to_string());
    let options = [CLONED, &["--env", &variable, "--allow-egress", &rule]].concat();
    daemon.deploy("connected", &program::build("cloned"), &options);
    for _ in 0..2 {
        let before = since_1970().as_secs();
        let answer = daemon.get("/function/connected");
        let after = since_1970().as_secs();
        let text = answer.text();
        let shown: u64 = text.lines().nth(4).expect("six lines").parse().expect("seconds");
        assert!((before..=after).contains(&shown), "{before} {shown} {after}");
    }
}

fn hooks_are_called_before_the_snapshot_and_in_each_clone() {
    let daemon = Daemon::start();
    let variables = ["SPORE_BEFORE_SNAPSHOT=/prepare", "SPORE_AFTER_RESTORE=/prepare"];
    for (name, set, expected) in [
        ("both", &variables[..], "2"),
        ("before", &variables[..1], "1"),
        ("after", &variables[1..], "1"),
        ("none", &[], "0"),
    ] {
        let mut options = CLONED.to_vec();
        options.extend(set.iter().flat_map(|variable| ["--env", variable]));
        daemon.deploy(name, &program::build("fresh"), &options);
        for _ in 0..3 {
            let told = ask(&daemon, name, "/");
            assert_eq!(told["prepared"], expected, "{name}");
        }
    }
}

fn a_hook_that_fails_ends_the_instance() {
    let daemon = Daemon::start();
    let program = program::build("fresh");
    let deploy = |name: &str, variables: &[&str]| {
        let mut options = CLONED.to_vec();
        options.extend(variables.iter().flat_map(|variable| ["--env", variable]));
        daemon.deploy(name, &program, &options);
        daemon.get(&format!("/function/{name}"))
    };
    let answer = deploy("path", &["SPORE_AFTER_RESTORE=prepare"]);
    assert_ne!(answer.status, StatusCode::OK);
    assert!(answer.text().contains("SPORE_AFTER_RESTORE"), "{}", answer.text());
    for variable in ["SPORE_BEFORE_SNAPSHOT", "SPORE_AFTER_RESTORE"] {
        let name = if variable.contains("BEFORE") {
            "before"
        } else {
            "after"
        };
        let answer = deploy(name, &[&format!("{variable}=/prepare"), "FAILS=/prepare"]);
        assert_ne!(answer.status, StatusCode::OK);
        let expected = format!("the hook of {variable} was answered with status 500");
        daemon.wait_for_log(name, &expected);
        assert!(answer.text().contains(&expected), "{}", answer.text());
    }
}

fn functions_in_c_have_hooks_of_their_own() {
    let folder = tempfile::tempdir().expect("the temporary folder is writable");
    let handler = r#"
        #include <spore.h>
        static int before, after, asked;
        int before_snapshot(void) { before++; return 0; }
        int after_restore(void) { after++; return 0; }
        int handle(const struct spore_request *request, struct spore_response *response) {
            (void)request;
            return spore_response_printf(response, "%d %d %d", before, after, ++asked);
        }
    "#;
    let write = |name: &str, text: &str| {
        std::fs::write(folder.path().join(name), text).expect("the temporary folder is writable");
    };
    write("handler.c", handler);
    write("spore.toml", "name = \"hooks\"\nlang = \"c\"\n");
    let daemon = Daemon::start();
    daemon.spore_ok(&[&["deploy", folder.path().to_str().expect("UTF-8")], CLONED].concat());
    let expected = "1 1 1";
    for _ in 0..3 {
        assert_eq!(daemon.get("/function/hooks").text(), expected);
    }
}

fn clones_wait_for_those_that_watch_the_generation() {
    let daemon = Daemon::start();
    let options = [CLONED, &["--env", "WATCHES=1"]].concat();
    daemon.deploy("watching", &program::build("fresh"), &options);
    let answer = daemon.get("/function/watching");
    assert_ne!(answer.status, StatusCode::OK);
    assert!(answer.text().contains("has not confirmed"), "{}", answer.text());
}

fn who_never_waits_is_booted() {
    let daemon = Daemon::start();
    let options = [CLONED, &["--env", "POLLS=1"]].concat();
    daemon.deploy("polling", &program::build("fresh"), &options);
    for _ in 0..3 {
        assert_eq!(ask(&daemon, "polling", "/")["generation"], "0 0 0 -1");
    }
    daemon.wait_for_log("polling", "it accepts connections without ever waiting for one");
}

fn an_instance_that_is_reset_is_a_new_clone() {
    const INVOCATIONS: usize = 20;
    let daemon = Daemon::start();
    let options = [
        "--snapshot",
        "--isolation-per-request",
        "--env",
        "SPORE_AFTER_RESTORE=/prepare",
    ];
    daemon.deploy("reset", &program::build("fresh"), &options);
    let mut drawn = BTreeSet::new();
    for _ in 0..INVOCATIONS {
        let before = since_1970();
        let answer = daemon.get("/function/reset/clocks");
        let after = since_1970();
        let clocks = told(&answer.text());
        let shown = Duration::from_nanos(clocks["realtime"].parse().expect("nanoseconds"));
        assert!(
            (before - CLOCK_ERROR..=after + CLOCK_ERROR).contains(&shown),
            "{shown:?}"
        );
        let told = told(&daemon.get("/function/reset/").text());
        assert_eq!(told["prepared"], "1");
        drawn.insert((told["getrandom"].clone(), told["AT_RANDOM"].clone()));
    }
    assert_eq!(drawn.len(), INVOCATIONS);
}
