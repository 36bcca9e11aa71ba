//! `kill -9` of the daemon at random moments while invocations are accepted that nobody waits for.
//!
//! Each that was accepted is executed, and twice only if it was running when a daemon was killed; on the disk, and on a NATS
//! server.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use fastrand::Rng;
use http::{Method, StatusCode};
use spore_test_harness::callbacks::Callbacks;
use spore_test_harness::client::{Connection, with_body};
use spore_test_harness::daemon::Daemon;
use spore_test_harness::nats::NatsServer;
use spore_test_harness::{program, wait_until};

use crate::deployments::setting;
use crate::{Needs, Test, tests};

pub(crate) const TESTS: &[Test] = tests![Needs::Nothing; accepted_invocations_survive_kills_at_any_moment];
pub(crate) const TESTS_ON_NATS: &[Test] =
    tests![Needs::Tool("nats-server"); accepted_invocations_survive_kills_at_any_moment_on_nats];

const KILLS: usize = 5;
/// Invocations that are accepted, for each kill.
const ACCEPTED_PER_KILL: usize = 200;
const LONGEST_LIFE_MS: u64 = 500;
const CALLERS: usize = 8;
/// Invocations of one function that run at a time, and results that are on their way.
const RUNNING_MAX: usize = 20 + 64;
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
const DRAIN_TIMEOUT: Duration = Duration::from_secs(300);

/// Sends invocations until enough are accepted or the daemon is gone.
fn send(
    address: SocketAddr,
    url: &str,
    wanted: usize,
    next: &AtomicUsize,
    accepted: &Mutex<BTreeSet<String>>,
) {
    let accepted_so_far = || accepted.lock().unwrap_or_else(PoisonError::into_inner).len();
    let Ok(mut connection) = Connection::open(address, REQUEST_TIMEOUT) else {
        return;
    };
    while accepted_so_far() < wanted {
        let call_id = format!("call-{}", next.fetch_add(1, Ordering::Relaxed));
        let mut request = with_body(Method::POST, "/async-function/httpd/echo", call_id.clone());
        let headers = request.headers_mut();
        headers.insert("x-call-id", call_id.parse().expect("a header's value"));
        headers.insert("x-callback-url", url.parse().expect("a header's value"));
        match connection.send(request) {
            Ok(answer) => {
                assert_eq!(answer.status, StatusCode::ACCEPTED, "{}", answer.text());
                accepted
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .insert(call_id);
            }
            // It was killed; whether this one was accepted is not known.
            Err(_) => return,
        }
    }
}

fn accepted_invocations_survive_kills_at_any_moment() {
    survive_kills(Daemon::start());
}

fn accepted_invocations_survive_kills_at_any_moment_on_nats() {
    let server = NatsServer::start().expect("nats-server is installed");
    survive_kills(Daemon::start_with(&["--queue", &server.url()]));
}

fn survive_kills(mut daemon: Daemon) {
    let seed = setting("SPORE_FAULTS_SEED").unwrap_or_else(|| fastrand::u64(..));
    let kills = setting("SPORE_FAULTS_KILLS").map_or(KILLS, |kills| kills as usize);
    let wanted = setting("SPORE_FAULTS_QUEUED").map_or(kills * ACCEPTED_PER_KILL, |wanted| wanted as usize);
    println!("SPORE_FAULTS_SEED={seed} SPORE_FAULTS_KILLS={kills} SPORE_FAULTS_QUEUED={wanted}");
    let mut random = Rng::with_seed(seed);
    daemon.deploy("httpd", &program::build("httpd"), &[]);
    let callbacks = Callbacks::start();
    let next = Arc::new(AtomicUsize::new(0));
    let accepted = Arc::new(Mutex::new(BTreeSet::new()));
    let callers = |address| {
        let (next, accepted, url) = (next.clone(), accepted.clone(), callbacks.url().to_owned());
        let caller = move || send(address, &url, wanted, &next, &accepted);
        let callers = std::iter::repeat_n(caller, CALLERS);
        callers.map(std::thread::spawn).collect::<Vec<_>>()
    };
    let join = |callers: Vec<JoinHandle<()>>| {
        callers
            .into_iter()
            .for_each(|caller| caller.join().expect("a caller does not panic"));
    };
    for _ in 0..kills {
        let callers = callers(daemon.address());
        std::thread::sleep(Duration::from_millis(random.u64(..LONGEST_LIFE_MS)));
        daemon.kill();
        join(callers);
        daemon.start_again();
    }
    join(callers(daemon.address()));
    let accepted = accepted.lock().unwrap_or_else(PoisonError::into_inner).clone();
    assert!(accepted.len() >= wanted, "{} were accepted", accepted.len());
    let is_empty = || {
        daemon
            .get("/system/async?limit=1")
            .json()
            .as_array()
            .is_some_and(Vec::is_empty)
    };
    assert!(wait_until(DRAIN_TIMEOUT, is_empty), "{}", daemon.log());
    let lost: Vec<_> = accepted
        .iter()
        .filter(|call_id| callbacks.count(call_id) == 0)
        .collect();
    assert!(
        lost.is_empty(),
        "{} of {} are lost: {:?}",
        lost.len(),
        accepted.len(),
        &lost[..lost.len().min(5)]
    );
    let (invocations, results) = callbacks.counts();
    let again = results - invocations;
    println!(
        "{} accepted, none lost, {again} results came again after {kills} kills",
        accepted.len()
    );
    assert!(
        again <= kills * RUNNING_MAX,
        "{again} results came again after {kills} kills"
    );
}
