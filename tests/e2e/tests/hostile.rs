//! Guests that attack what they share with the monitor: forged indices, impossible sizes, doorbells that ask for
//! nothing, page tables of their own, code at ring 0 of their own machine. Each ends its own instance at most, and is
//! told of in one line.

use std::process::{Command, Output, Stdio};
use std::time::Duration;

use http::StatusCode;
use spore_test_harness::daemon::{Daemon, binary};
use spore_test_harness::{guests_are_processes, isolation_options, program, wait_until};

use crate::{Test, with_functions};

pub(crate) const TESTS: &[Test] = with_functions![
    crimes_of_a_single_run_are_reported,
    crimes_of_a_function_end_its_own_instance_only,
];

/// A crime that the instance survives.
const SURVIVED: &str = "survived";
/// A crime whose outcome depends on what the library OS does with its own ruins.
const ANYTHING: &str = "";

/// A crime of `tests/programs/hostile.c`; what is said of it by `spore run`, and what the caller of a function is told.
struct Crime(&'static str, &'static str, &'static str);

const STREAM: &str = "are impossible";
const LOG: &str = "the log ring is damaged";
const NOTHING_THERE: &str = "where nothing is";
const NO_TABLE: &str = "where none can be";
const TRIPLE: &str = "triple fault";
const OUTSIDE: &str = "are not within the guest's memory";

const CRIMES: &[Crime] = &[
    Crime("tail-beyond", SURVIVED, STREAM),
    Crime("tail-far-beyond", SURVIVED, STREAM),
    Crime("tail-back", SURVIVED, STREAM),
    Crime("head-beyond", SURVIVED, STREAM),
    Crime("head-back", SURVIVED, STREAM),
    Crime("tail-back-while-blocked", SURVIVED, ANYTHING),
    Crime("generations", SURVIVED, ANYTHING),
    Crime("log-tail-beyond", LOG, LOG),
    Crime("log-tail-back", LOG, LOG),
    Crime("log-empty-frame", LOG, LOG),
    Crime("log-long-frame", LOG, LOG),
    Crime("log-unknown-origin", LOG, LOG),
    Crime("log-garbage", LOG, LOG),
    Crime(
        "unknown-request",
        "unknown request 4294967295",
        "unknown request 4294967295",
    ),
    Crime(
        "narrow-doorbell",
        "a doorbell of the wrong width",
        "a doorbell of the wrong width",
    ),
    Crime("many-doorbells", "doorbell", "doorbell"),
    Crime(
        "other-port",
        "general protection fault",
        "general protection fault",
    ),
    Crime("table-at-the-end", NO_TABLE, NO_TABLE),
    Crime("table-of-ones", NO_TABLE, NO_TABLE),
    Crime("guest-page-of-ones", LOG, LOG),
    Crime("table-unaligned", NO_TABLE, NO_TABLE),
    Crime("table-in-the-monitor", NO_TABLE, NO_TABLE),
    Crime("table-of-garbage", ANYTHING, ANYTHING),
    Crime("wait-for-ever", SURVIVED, ANYTHING),
    Crime("exit-unknown", "the library OS failed", "the library OS failed"),
    Crime("exit-faulted", "unexpected exception", "unexpected exception"),
    Crime("exit-signalled", "signal 4294967280", "signal 4294967280"),
    Crime("exit-bad-program", "cannot run here", ANYTHING),
    Crime("egress-flood", ANYTHING, ANYTHING),
    Crime("datagram-garbage", ANYTHING, ANYTHING),
    Crime("guest-page", ANYTHING, ANYTHING),
    Crime("host-page", ANYTHING, ANYTHING),
    Crime("boot-page", ANYTHING, ANYTHING),
    Crime("stream-rings", ANYTHING, ANYTHING),
    Crime("library-os", "in the library OS", ANYTHING),
    Crime("page-tables", ANYTHING, ANYTHING),
    Crime(
        "monitors-area",
        "segmentation fault: write to",
        "segmentation fault: write to",
    ),
    Crime(
        "root-module",
        "segmentation fault: write to",
        "segmentation fault: write to",
    ),
    Crime("nowhere", NOTHING_THERE, NOTHING_THERE),
    Crime("write-nowhere", NOTHING_THERE, NOTHING_THERE),
    Crime("host-addresses", NOTHING_THERE, NOTHING_THERE),
    Crime("shared-root", NOTHING_THERE, NOTHING_THERE),
    Crime("port-of-exceptions", "outside of a stub", "outside of a stub"),
    Crime("port-of-nobody", "port 0x20", "port 0x20"),
    Crime("frame-at-the-end", OUTSIDE, OUTSIDE),
    Crime("frame-at-0", OUTSIDE, OUTSIDE),
    Crime("halt", "the processor stopped", "the processor stopped"),
    Crime("port-at-ring-0", "port 0x60", "port 0x60"),
    Crime("no-tables", TRIPLE, TRIPLE),
    Crime("no-long-mode", ANYTHING, ANYTHING),
];

/// Crimes that only a function can commit: alone, its output would have no limit.
const CRIMES_OF_FUNCTIONS: &[Crime] = &[Crime("log-flood", ANYTHING, ANYTHING)];

/// What is said of a crime where guests are processes: there is no port, no physical memory and no ring 0, and what comes
/// of the attempt is a matter of the library OS.
fn expected_here(expected: &'static str) -> &'static str {
    if guests_are_processes() && expected != LOG && expected != STREAM {
        ANYTHING
    } else {
        expected
    }
}

fn run(crime: &str) -> Output {
    let mut command = Command::new(binary());
    command
        .args(["run", "--memory", "64Mi"])
        .args(isolation_options());
    command
        .arg(program::build("hostile"))
        .arg(crime)
        .stdin(Stdio::null());
    command.output().expect("the spore binary can be run")
}

fn crimes_of_a_single_run_are_reported() {
    let file = program::build("hostile");
    let before = std::fs::read(&file).expect("the program was built");
    for Crime(crime, expected, _) in CRIMES {
        let (output, expected) = (run(crime), expected_here(expected));
        let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        let said = said.concat();
        assert!(
            said.contains(expected),
            "{crime}: {expected:?} is missing in {said:?}"
        );
        assert!(!said.contains("panicked"), "{crime}: {said}");
        let has_ended = !said.contains(SURVIVED);
        assert_eq!(
            output.status.code() == Some(0),
            !has_ended,
            "{crime}: {} {said}",
            output.status
        );
        assert!(
            said.len() < 16 << 10,
            "{crime}: {} bytes are said of it",
            said.len()
        );
    }
    let after = std::fs::read(&file).expect("the program is still there");
    assert!(before == after, "the file that is everybody's root has changed");
}

fn crimes_of_a_function_end_its_own_instance_only() {
    let daemon = Daemon::start();
    daemon.deploy("hostile", &program::build("hostile"), &["--timeout", "5s"]);
    daemon.deploy("neighbour", &program::build("httpd"), &[]);
    let identity = daemon.get("/function/neighbour/identity").text();
    for Crime(crime, _, expected) in CRIMES.iter().chain(CRIMES_OF_FUNCTIONS) {
        let expected = expected_here(expected);
        let answer = daemon.get(&format!("/function/hostile/{crime}"));
        let text = answer.text();
        match answer.status {
            StatusCode::OK => assert_eq!(text, "survived\n", "{crime}"),
            StatusCode::BAD_GATEWAY | StatusCode::GATEWAY_TIMEOUT => {
                assert!(text.starts_with("hostile: "), "{crime}: {text:?}");
                assert_eq!(text.trim_end().lines().count(), 1, "{crime}: {text:?}");
                assert!(text.len() < 1024, "{crime}: {text:?}");
            }
            other => panic!("{crime}: {other} {text:?}\n{}", daemon.log()),
        }
        assert!(
            text.contains(expected),
            "{crime}: {expected:?} is missing in {text:?}"
        );
        let again = daemon.get("/function/neighbour/identity").text();
        assert_eq!(
            again, identity,
            "{crime}: the neighbour's instance is another one"
        );
        // What its answer was made of may have come before its end: then the next caller finds the same instance.
        let mut fresh = String::new();
        let is_answered = wait_until(Duration::from_secs(10), || {
            let answer = daemon.get("/function/hostile/nothing");
            fresh = answer.text();
            answer.status == StatusCode::OK
        });
        assert!(is_answered, "{crime}: {fresh}");
    }
    assert_eq!(daemon.get("/healthz").status, StatusCode::OK);
    let said = daemon.log();
    assert!(!said.contains("panicked"), "{said}");
    assert!(said.len() < 16 << 10, "the daemon says little of it:\n{said}");
    let log = daemon.spore_ok(&["logs", "hostile"]);
    assert!(log.len() < 20 << 20, "{} bytes of log", log.len());
    // One instance of each function, and no monitor that has lost its guest.
    let processes = if guests_are_processes() { 4 } else { 2 };
    let settled = wait_until(Duration::from_secs(10), || {
        daemon.descendants().len() <= processes
    });
    assert!(settled, "{:?}", daemon.descendants());
}
