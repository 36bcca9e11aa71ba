//! Sends requests at the times that a schedule says, whatever became of earlier ones (an open loop), and takes their time from
//! then: a request that could not be sent in time has waited, and that counts.
//!
//! ```text
//!   a thread that sleeps ──due──> the runtime ──a connection for each request──> target
//! ```
//!
//! Timers of the runtime are as coarse as a millisecond; those of the system are not, so a thread waits for the times.

use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use crate::client::{Answer, Ask, AskError, Place, ask_once};
use crate::context::Clock;

/// So many requests may be without an answer; what comes then is given up, and counted.
const OPEN_MAX: usize = 2000;
/// Until the first request.
const LEAD: Duration = Duration::from_millis(20);

/// A request with its time.
#[derive(Debug, Clone)]
pub(crate) struct Due {
    pub(crate) at: Duration,
    pub(crate) place: Place,
    pub(crate) ask: Ask,
}

/// What became of a request.
pub(crate) struct Outcome {
    /// Its index in the schedule.
    pub(crate) index: usize,
    /// From when it should have been sent to the last byte of its answer.
    pub(crate) elapsed: Duration,
    /// How late it was sent.
    pub(crate) late: Duration,
    /// The answer; none was waited for if there were too many.
    pub(crate) answer: Option<Result<Answer, AskError>>,
}

/// Sends all of them; returns when the last one has its answer.
pub(crate) fn drive(clock: &Clock, schedule: &[Due]) -> Vec<Outcome> {
    let (sender, mut receiver) = tokio::sync::mpsc::unbounded_channel();
    let begun = Instant::now() + LEAD;
    let times: Vec<Duration> = schedule.iter().map(|due| due.at).collect();
    let waiter = std::thread::spawn(move || {
        for (index, at) in times.into_iter().enumerate() {
            std::thread::sleep((begun + at).saturating_duration_since(Instant::now()));
            if sender.send(index).is_err() {
                return;
            }
        }
    });
    let outcomes = clock.block_on(async {
        let (mut open, mut outcomes) = (JoinSet::new(), Vec::with_capacity(schedule.len()));
        let mut is_over = false;
        while !is_over || !open.is_empty() {
            tokio::select! {
                due = receiver.recv(), if !is_over => match due {
                    None => is_over = true,
                    Some(index) if open.len() >= OPEN_MAX => outcomes.push(Outcome {
                        index,
                        elapsed: Duration::ZERO,
                        late: Duration::ZERO,
                        answer: None,
                    }),
                    Some(index) => {
                        let Due { at, place, ask } = schedule[index].clone();
                        open.spawn(send(index, begun + at, place, ask));
                    }
                },
                Some(done) = open.join_next() => outcomes.extend(done),
            }
        }
        outcomes
    });
    let _ = waiter.join(); // it has sent everything
    outcomes
}

async fn send(index: usize, intended: Instant, place: Place, ask: Ask) -> Outcome {
    let late = intended.elapsed();
    let answer = ask_once(&place, &ask).await.map(|(_, answer)| answer);
    Outcome {
        index,
        elapsed: intended.elapsed(),
        late,
        answer: Some(answer),
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::TcpListener;

    use super::*;

    /// A server that stalls for a while makes all requests of that while late, not only the one that it stalled on.
    #[test]
    fn a_stall_is_seen_by_every_request_that_came_during_it() {
        const STALL: Duration = Duration::from_millis(300);
        let listener = TcpListener::bind("127.0.0.1:0").expect("there are ports");
        let address = listener.local_addr().expect("it has one");
        let server = std::thread::spawn(move || {
            for index in 0..10 {
                let (mut stream, _) = listener.accept().expect("ten come");
                if index == 0 {
                    std::thread::sleep(STALL);
                }
                let mut request = [0; 1000];
                let _ = stream.read(&mut request).expect("a request comes");
                stream
                    .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")
                    .expect("it is read");
            }
        });
        let schedule: Vec<Due> = (0..10)
            .map(|index| Due {
                at: Duration::from_millis(index * 10),
                place: Place::new(address, ""),
                ask: Ask::get("/"),
            })
            .collect();
        let clock = Clock::new().expect("there is a runtime");
        let outcomes = drive(&clock, &schedule);
        server.join().expect("it served all");
        assert_eq!(outcomes.len(), 10);
        assert!(
            outcomes
                .iter()
                .all(|outcome| matches!(outcome.answer, Some(Ok(_))))
        );
        for outcome in &outcomes {
            let came = Duration::from_millis(outcome.index as u64 * 10);
            assert!(outcome.elapsed + came >= STALL, "{:?}", outcome.elapsed);
        }
    }
}
