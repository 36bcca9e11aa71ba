//! Many requests over a few kept connections: each must get the whole, right answer.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http::Method;
use spore_test_harness::client::{self, Answer, Connection};

const CONNECTIONS: usize = 8;
const REQUESTS: usize = 1000;
/// How long one request may wait and be answered.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Requests a path 1,000 times over 8 connections; what became of those that did not get the expected answer.
pub(crate) fn run(address: SocketAddr, path: &str, expected: &Answer) -> Vec<String> {
    let next = AtomicUsize::new(0);
    let outcomes = std::thread::scope(|scope| {
        let callers: Vec<_> = (0..CONNECTIONS)
            .map(|_| scope.spawn(|| caller(address, path, expected, &next)))
            .collect();
        let joined = callers
            .into_iter()
            .flat_map(|caller| caller.join().expect("no caller panics"));
        joined.fold(BTreeMap::new(), |mut sum, outcome| {
            *sum.entry(outcome).or_insert(0_usize) += 1;
            sum
        })
    });
    let lines = outcomes
        .into_iter()
        .map(|(outcome, count)| format!("under load, {count} times: {outcome}"));
    lines.collect()
}

/// One connection's requests, and what went wrong.
fn caller(address: SocketAddr, path: &str, expected: &Answer, next: &AtomicUsize) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut kept = None;
    while next.fetch_add(1, Ordering::Relaxed) < REQUESTS {
        let connection = kept.take().map_or_else(|| Connection::open(address, TIMEOUT), Ok);
        let outcome = connection.and_then(|mut connection| {
            let answer = connection.send(client::request(Method::GET, path))?;
            // The gateway says so if it does.
            let closes = answer.header("connection").eq_ignore_ascii_case("close");
            kept = (!closes).then_some(connection);
            Ok(answer)
        });
        match outcome {
            Ok(answer) if answer.status == expected.status && answer.body == expected.body => {}
            Ok(answer) if answer.status == expected.status => wrong.push("another body".to_owned()),
            Ok(answer) => wrong.push(format!("{} {}", answer.status, answer.text().trim_end())),
            Err(error) => wrong.push(crate::chain(error)),
        }
    }
    wrong
}
