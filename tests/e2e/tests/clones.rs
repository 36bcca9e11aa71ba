//! Clones: instances that are copies of one that was booted once.

use std::collections::BTreeSet;
use std::net::TcpListener;
use std::time::{SystemTime, UNIX_EPOCH};

use http::StatusCode;
use spore_test_harness::daemon::Daemon;
use spore_test_harness::{kvm_is_usable, program};

use crate::{Test, with_functions};

pub(crate) const TESTS: &[Test] = with_functions![
    clones_share_the_past_and_nothing_since,
    what_no_snapshot_holds_is_booted,
    another_configuration_is_another_snapshot,
    what_a_program_had_is_still_there,
    a_snapshot_goes_on_in_the_other_form,
];

/// Instances are removed as soon as they have answered: each request finds a new one.
const CLONED: &[&str] = &["--annotation", "dev.spore.idle-timeout=0s", "--snapshot"];

/// What `programs/cloned.c` tells.
struct Told {
    drawn_before: String,
    drawn: String,
    boot_id: String,
    asked: u32,
    realtime_s: u64,
    running_s: i64,
}

fn ask(daemon: &Daemon, function: &str) -> Told {
    let answer = daemon.get(&format!("/function/{function}"));
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
    assert_eq!(answer.header("x-spore-start"), "cold");
    let text = answer.text();
    let lines: Vec<&str> = text.lines().collect();
    let [drawn_before, drawn, boot_id, asked, realtime_s, running_s] = lines[..] else {
        panic!("{text}");
    };
    Told {
        drawn_before: drawn_before.to_owned(),
        drawn: drawn.to_owned(),
        boot_id: boot_id.to_owned(),
        asked: asked.parse().expect("a number"),
        realtime_s: realtime_s.parse().expect("a number"),
        running_s: running_s.parse().expect("a number"),
    }
}

fn distinct<'a>(told: &'a [Told], value: impl Fn(&'a Told) -> &'a String) -> usize {
    told.iter().map(value).collect::<BTreeSet<_>>().len()
}

fn boots(daemon: &Daemon, function: &str) -> usize {
    daemon.spore_ok(&["logs", function]).matches("booted").count()
}

fn clones_share_the_past_and_nothing_since() {
    const CLONES: usize = 20;
    let daemon = Daemon::start();
    daemon.deploy("cloned", &program::build("cloned"), CLONED);
    let told: Vec<Told> = (0..CLONES).map(|_| ask(&daemon, "cloned")).collect();
    assert_eq!(distinct(&told, |told| &told.drawn), CLONES);
    assert_eq!(distinct(&told, |told| &told.boot_id), CLONES);
    assert!(told.iter().all(|told| told.asked == 1), "each is a pristine one");
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    for told in &told {
        assert!(
            told.realtime_s.abs_diff(now.as_secs()) < 60,
            "{}",
            told.realtime_s
        );
        assert!(told.running_s >= 0);
    }
    assert_eq!(
        distinct(&told, |told| &told.drawn_before),
        1,
        "drawn once, at the only boot"
    );
    assert_eq!(boots(&daemon, "cloned"), 1);
    daemon.wait_for_log("cloned", "16 random bytes were drawn before the snapshot");
}

fn what_no_snapshot_holds_is_booted() {
    let outside = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let address = outside.local_addr().expect("it is bound");
    let daemon = Daemon::start();
    let (variable, rule) = (format!("OUTSIDE={}", address.port()), address.to_string());
    let options = [CLONED, &["--env", &variable, "--allow-egress", &rule]].concat();
    daemon.deploy("connected", &program::build("cloned"), &options);
    let told: Vec<Told> = (0..3).map(|_| ask(&daemon, "connected")).collect();
    assert_eq!(distinct(&told, |told| &told.drawn_before), 3, "each was booted");
    let log = daemon.spore_ok(&["logs", "connected"]);
    assert!(
        log.contains("no snapshot can be made, so each instance is booted: it has connected to the outside"),
        "{log}"
    );
}

fn another_configuration_is_another_snapshot() {
    let daemon = Daemon::start();
    daemon.deploy("cloned", &program::build("cloned"), CLONED);
    let first = ask(&daemon, "cloned");
    daemon.deploy(
        "cloned",
        &program::build("cloned"),
        &[CLONED, &["--env", "KEY=value"]].concat(),
    );
    let second = ask(&daemon, "cloned");
    assert_ne!(first.drawn_before, second.drawn_before);
}

/// Asks clones of `programs/kept.c`, of which the first one tells the others what memory they will need.
fn ask_what_is_kept(daemon: &Daemon) {
    for _ in 0..4 {
        let answer = daemon.get("/function/kept");
        assert_eq!(answer.header("x-spore-start"), "cold");
        assert_eq!(answer.text(), "kept\n");
    }
}

fn what_a_program_had_is_still_there() {
    let daemon = Daemon::start();
    daemon.deploy("kept", &program::build("kept"), CLONED);
    ask_what_is_kept(&daemon);
}

fn a_snapshot_goes_on_in_the_other_form() {
    if !kvm_is_usable() {
        return;
    }
    let daemon = Daemon::start();
    for (first, second) in [("vm", "process"), ("process", "vm")] {
        let variable = format!("FIRST={first}");
        let deploy = |name: &str, form: &str| {
            let options = [CLONED, &["--isolation", form, "--env", &variable]].concat();
            daemon.deploy(name, &program::build(name), &options);
        };
        deploy("cloned", first);
        let before = ask(&daemon, "cloned");
        deploy("cloned", second);
        let told: Vec<Told> = (0..3).map(|_| ask(&daemon, "cloned")).collect();
        for told in &told {
            let log = daemon.spore_ok(&["logs", "cloned"]);
            assert_eq!(told.drawn_before, before.drawn_before, "{log}");
            assert!(told.running_s >= 0 && told.asked == 1);
        }
        assert_eq!(distinct(&told, |told| &told.drawn), 3);
        deploy("kept", first);
        ask_what_is_kept(&daemon);
        deploy("kept", second);
        ask_what_is_kept(&daemon);
    }
}
