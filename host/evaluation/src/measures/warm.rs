//! Instances that are there: requests of one and several callers, and work inside.

use std::time::{Duration, Instant};

use super::cold::LONE_IDLE;
use super::{MeasureError, Reading};
use crate::client::{Ask, Connection};
use crate::context::Context;
use crate::record::Unit;
use crate::targets::subject::{Held, Subject};
use crate::workloads::{HELLO, Workload};

/// Requests of each caller before any is counted.
const UNCOUNTED: usize = 3;
/// Lone requests in a round.
const LONE: usize = 3;
/// Requests of each caller in a slice that are kept at most; all are counted.
const KEPT_MAX: usize = 200;
/// Askings of a workload in a round.
const ASKINGS: usize = 3;

/// Runs something with instances that are ended afterwards, whatever comes of it.
pub(super) fn with_instances<T>(
    context: &Context,
    subject: &Subject,
    instances: u32,
    work: impl FnOnce(&Context, &Held) -> Result<T, MeasureError>,
) -> Result<T, MeasureError> {
    let held = subject.hold(context, instances)?;
    let result = work(context, &held);
    let released = subject.release(context, held);
    let value = result?;
    released.map(|()| value)
}

/// The request that does nothing; a URL is asked as it is.
fn hello(subject: &Subject) -> Ask {
    if subject.has_workloads() {
        Ask::get(&format!("/{HELLO}"))
    } else {
        Ask::get("")
    }
}

/// So many callers, each asking again as soon as it has its answer; one alone also after idleness.
pub(super) fn callers(
    context: &Context,
    subject: &Subject,
    count: u32,
) -> Result<Vec<Reading>, MeasureError> {
    let slice = Duration::from_millis(context.configuration.slice_ms);
    let ask = hello(subject);
    with_instances(context, subject, count, |context, held| {
        context.clock.block_on(async {
            let mut connections = Vec::new();
            for index in 0..count as usize {
                let place = &held.places[index % held.places.len()];
                connections.push(Connection::open(place).await?);
            }
            for connection in &mut connections {
                for _ in 0..UNCOUNTED {
                    connection.ask(&ask).await?;
                }
            }
            let mut readings = Vec::new();
            if count == 1 {
                let mut lone = Vec::new();
                for _ in 0..LONE {
                    std::thread::sleep(LONE_IDLE);
                    let begun = Instant::now();
                    connections[0].ask(&ask).await?;
                    lone.push(begun.elapsed());
                }
                readings.push(Reading::times("warm-lone", lone));
            }
            let mut callers = tokio::task::JoinSet::new();
            let begun = Instant::now();
            for connection in connections {
                callers.spawn(caller(connection, ask.clone(), begun, slice));
            }
            let answers: Result<Vec<_>, MeasureError> = callers.join_all().await.into_iter().collect();
            let elapsed = begun.elapsed();
            let answers = answers?;
            let total: usize = answers.iter().map(|(answered, _)| answered).sum();
            let rate = total as f64 / elapsed.as_secs_f64();
            readings.push(Reading::times(
                "warm",
                answers.into_iter().flat_map(|(_, times)| times),
            ));
            readings.push(Reading::new("throughput", Unit::PerSecond, vec![rate]));
            Ok(readings)
        })
    })
}

async fn caller(
    mut connection: Connection,
    ask: Ask,
    begun: Instant,
    slice: Duration,
) -> Result<(usize, Vec<Duration>), MeasureError> {
    let (mut count, mut times) = (0, Vec::new());
    while begun.elapsed() < slice || count == 0 {
        let sent = Instant::now();
        connection.ask(&ask).await?;
        if times.len() < KEPT_MAX {
            times.push(sent.elapsed());
        }
        count += 1;
    }
    Ok((count, times))
}

/// Work inside an instance, timed there.
pub(super) fn inside(
    context: &mut Context,
    subject: &Subject,
    workload: Workload,
) -> Result<Vec<Reading>, MeasureError> {
    if !subject.has_workloads() {
        return Err(MeasureError::NotApplicable);
    }
    let what = format!("{}/{}", subject.language.name(), workload.name());
    let ask = workload.ask(subject.language);
    let (times, check) = with_instances(context, subject, 1, |context, held| {
        context.clock.block_on(async {
            let mut connection = Connection::open(&held.places[0]).await?;
            let (mut times, mut check) = (Vec::new(), 0.0);
            for index in 0..=ASKINGS {
                let begun = Instant::now();
                let answer = connection.ask(&ask).await?;
                let elapsed = begun.elapsed().as_nanos() as f64;
                let time = if workload.is_timed_outside() {
                    check = answer.body.len() as f64;
                    Some(elapsed)
                } else {
                    check = answer.number("check").unwrap_or(f64::NAN);
                    answer.number("elapsed_ns")
                };
                // The first one prepares: a file, a compiler that looks on.
                if index > 0 {
                    times.push(time.ok_or_else(|| MeasureError::NoTime { what: what.clone() })?);
                }
            }
            Ok((times, check))
        })
    })?;
    // Amounts differ between languages for some workloads, the answers of targets never.
    let expected = context.checks.entry(what.clone()).or_insert(check);
    if check != *expected {
        return Err(MeasureError::WrongAnswer {
            what,
            found: check,
            expected: *expected,
        });
    }
    Ok(vec![Reading::new("inside", Unit::Nanoseconds, times)])
}
