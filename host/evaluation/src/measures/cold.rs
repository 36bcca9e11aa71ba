//! Fresh instances: one by one, at once, and as many as can be had.

use std::time::{Duration, Instant};

use super::{MeasureError, Reading};
use crate::client::{Ask, ask_once};
use crate::context::Context;
use crate::record::Unit;
use crate::targets::subject::Subject;
use crate::workloads::HELLO;

/// Idleness before a lone request.
pub(super) const LONE_IDLE: Duration = Duration::from_millis(100);
/// Requests back to back in a round: the first follows on others and is not counted.
const BACK_TO_BACK: usize = 4;
/// Callers that ask for fresh instances all the time.
const CALLERS: usize = 4;

fn hello() -> Ask {
    Ask::get(&format!("/{HELLO}"))
}

/// One after idleness, and some after each other.
pub(super) fn one_by_one(context: &Context, subject: &Subject) -> Result<Vec<Reading>, MeasureError> {
    std::thread::sleep(LONE_IDLE);
    let lone = subject.fresh(context, &hello(), true)?;
    let mut following = Vec::new();
    for index in 0..BACK_TO_BACK {
        let answer = subject.fresh(context, &hello(), false)?;
        if index > 0 {
            following.push(answer.elapsed);
        }
    }
    let mut readings = vec![
        Reading::times("cold-lone", [lone.elapsed]),
        Reading::times("cold-back-to-back", following),
    ];
    readings.extend(
        lone.initialisation
            .map(|time| Reading::times("initialisation", [time])),
    );
    Ok(readings)
}

/// So many at once.
pub(super) fn burst(context: &Context, subject: &Subject, count: u32) -> Result<Vec<Reading>, MeasureError> {
    std::thread::sleep(LONE_IDLE);
    let begun = Instant::now();
    let times = subject.fresh_at_once(context, &hello(), count)?;
    let last = begun.elapsed();
    Ok(vec![
        Reading::times("burst", times),
        Reading::times("burst-last", [last]),
    ])
}

/// As many as some callers can have, for a slice.
pub(super) fn sustained(context: &Context, subject: &Subject) -> Result<Vec<Reading>, MeasureError> {
    let place = match subject.fresh_function() {
        Some(function) => Some(context.gateway()?.function(function)),
        None if subject.has_workloads() => None,
        None => return Err(MeasureError::NotApplicable),
    };
    let slice = Duration::from_millis(context.configuration.slice_ms * 4);
    let begun = Instant::now();
    let mut count = 0_usize;
    let Some(place) = place else {
        while begun.elapsed() < slice {
            count += subject.fresh_at_once(context, &hello(), CALLERS as u32)?.len();
        }
        return Ok(vec![rate(count, begun.elapsed())]);
    };
    let counts: Result<Vec<usize>, MeasureError> = context.clock.block_on(async {
        let mut callers = tokio::task::JoinSet::new();
        for _ in 0..CALLERS {
            let place = place.clone();
            callers.spawn(async move {
                let mut count = 0;
                while begun.elapsed() < slice {
                    ask_once(&place, &hello()).await?;
                    count += 1;
                }
                Ok(count)
            });
        }
        callers.join_all().await.into_iter().collect()
    });
    let elapsed = begun.elapsed();
    count += counts?.iter().sum::<usize>();
    Ok(vec![rate(count, elapsed)])
}

fn rate(count: usize, elapsed: Duration) -> Reading {
    let each_second = count as f64 / elapsed.as_secs_f64();
    Reading::new("cold-rate", Unit::PerSecond, vec![each_second])
}
