//! Many invocations at once, good and bad: no error that was not asked for, and nothing left behind.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http::{Method, StatusCode};
use spore_test_harness::client::{self, Connection};
use spore_test_harness::daemon::Daemon;
use spore_test_harness::{process, program, wait_until};

use crate::{Test, faults, with_functions};

pub(crate) const TESTS: &[Test] = with_functions![
    ten_thousand_invocations_leave_nothing,
    crashing_invocations_leave_nothing
];

const CALLERS: usize = 16;

/// The process and its two sockets.
const DESCRIPTORS_OF_MONITOR: usize = 3;

/// What a daemon holds when it is idle; the same before and after, or something leaked.
#[derive(Debug, PartialEq, Eq)]
struct Holdings {
    processes: usize,
    virtual_machines: usize,
    descriptors: usize,
}

impl Holdings {
    /// Waits until all instances are gone, and counts what is left.
    fn when_idle(daemon: &Daemon) -> Holdings {
        let idle = wait_until(Duration::from_secs(30), || daemon.descendants().is_empty());
        assert!(idle, "30 s after the last invocation: {:?}", daemon.descendants());
        let count = || Holdings {
            processes: daemon.descendants().len(),
            virtual_machines: process::virtual_machines(daemon.pid()),
            // The daemon keeps monitors ready, as many as were needed lately.
            descriptors: process::open_descriptors(daemon.pid())
                - daemon.waiting_monitors().len() * DESCRIPTORS_OF_MONITOR,
        };
        // The callers' connections are closed a moment after they left.
        let mut last = count();
        wait_until(Duration::from_secs(2), || {
            let now = count();
            let is_settled = now == last;
            last = now;
            is_settled && {
                std::thread::sleep(Duration::from_millis(200));
                count() == last
            }
        });
        last
    }
}

/// Calls `path` of a function `total` times from 16 callers at once and counts how the calls ended.
fn call_many(daemon: &Daemon, path: &str, total: usize) -> BTreeMap<String, usize> {
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        let caller = || {
            let mut outcomes = BTreeMap::new();
            let mut connection = None;
            while next.fetch_add(1, Ordering::Relaxed) < total {
                let outcome = call_once(daemon, &mut connection, path);
                *outcomes.entry(outcome).or_insert(0) += 1;
            }
            outcomes
        };
        let callers: Vec<_> = (0..CALLERS).map(|_| scope.spawn(caller)).collect();
        let mut sum = BTreeMap::new();
        for (outcome, count) in callers
            .into_iter()
            .flat_map(|caller| caller.join().expect("no caller panics"))
        {
            *sum.entry(outcome).or_insert(0) += count;
        }
        sum
    })
}

/// One call on the caller's kept connection, and what became of it.
fn call_once(daemon: &Daemon, connection: &mut Option<Connection>, path: &str) -> String {
    let open = || Connection::open(daemon.address(), client::DEFAULT_TIMEOUT);
    let mut current = match connection.take().map_or_else(open, Ok) {
        Ok(current) => current,
        Err(error) => return format!("no connection: {error:?}"),
    };
    match current.send(client::request(Method::GET, path)) {
        Ok(answer) => {
            if answer.header("connection") != "close" {
                *connection = Some(current);
            }
            match answer.status {
                StatusCode::OK => "200".to_owned(),
                status => format!("{} {}", status.as_u16(), answer.text().trim_end()),
            }
        }
        Err(error) => format!("cut off: {error:?}"),
    }
}

fn ten_thousand_invocations_leave_nothing() {
    let wanted = std::env::var("SPORE_TEST_INVOCATIONS");
    let total = wanted.map_or(10_000, |text| {
        text.parse().expect("SPORE_TEST_INVOCATIONS is a number")
    });
    let daemon = Daemon::start_with(&["--idle-timeout", "1s"]);
    daemon.deploy("httpd", &program::build("httpd"), &[]);
    call_many(&daemon, "/function/httpd/", 4 * CALLERS);
    let before = Holdings::when_idle(&daemon);
    let outcomes = call_many(&daemon, "/function/httpd/", total);
    assert_eq!(
        outcomes,
        BTreeMap::from([("200".to_owned(), total)]),
        "{}",
        daemon.log()
    );
    assert_eq!(Holdings::when_idle(&daemon), before);
}

fn crashing_invocations_leave_nothing() {
    let total = 200;
    let daemon = Daemon::start_with(&["--idle-timeout", "1s"]);
    faults::deploy_misbehave(&daemon, &[]);
    call_many(&daemon, "/function/misbehave/null-call", CALLERS);
    let before = Holdings::when_idle(&daemon);
    let outcomes = call_many(&daemon, "/function/misbehave/null-call", total);
    let crashed: usize = outcomes
        .iter()
        .filter(|(what, _)| is_crash(what))
        .map(|(_, count)| count)
        .sum();
    assert_eq!(
        crashed, total,
        "each caller is told of its own crash: {outcomes:?}"
    );
    assert_eq!(Holdings::when_idle(&daemon), before);
    assert_eq!(
        daemon.get("/function/misbehave/").status,
        StatusCode::OK,
        "the function still answers"
    );
}

fn is_crash(outcome: &str) -> bool {
    outcome.starts_with("502 ") && outcome.contains("crashed")
}
