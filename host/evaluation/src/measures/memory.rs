//! What instances hold, and what they compute while nobody asks: all processes behind them, whichever those are.

use std::time::{Duration, Instant};

use super::warm::with_instances;
use super::{MeasureError, Reading};
use crate::client::{Ask, ask_once};
use crate::context::Context;
use crate::processes::available_bytes;
use crate::record::Unit;
use crate::targets::subject::Subject;

/// Time for what was done to come to rest.
const SETTLE: Duration = Duration::from_millis(300);
/// How long each instance works for its one request, so that each request goes to one of its own.
const WORK_MS: u32 = 150;

/// So many instances that have answered.
pub(super) fn instances(
    context: &Context,
    subject: &Subject,
    count: u32,
) -> Result<Vec<Reading>, MeasureError> {
    if !subject.has_workloads() || count == 0 {
        return Err(MeasureError::NotApplicable);
    }
    std::thread::sleep(SETTLE);
    let before = (context.family(), available_bytes()?);
    // Processes are counted by themselves; a daemon and what it has started, by how much more they hold.
    let (private_before, proportional_before) = match subject.kept_function() {
        Some(_) => before.0.memory(),
        None => (0.0, 0.0),
    };
    with_instances(context, subject, count, |context, held| {
        let asked: Result<Vec<_>, MeasureError> = context.clock.block_on(async {
            let mut asks = tokio::task::JoinSet::new();
            for index in 0..count as usize {
                let place = held.places[index % held.places.len()].clone();
                asks.spawn(
                    async move { Ok(ask_once(&place, &Ask::get(&format!("/sleep?n={WORK_MS}"))).await?) },
                );
            }
            asks.join_all().await.into_iter().collect()
        });
        asked?;
        std::thread::sleep(SETTLE);
        let (family, available) = (held.family(context), available_bytes()?);
        let each = |now: f64, before: f64| (now - before) / f64::from(count);
        let machine = each(before.1 as f64, available as f64);
        let mut readings = vec![Reading::new("memory-machine", Unit::Bytes, vec![machine])];
        // Without processes there is nothing to see: a daemon elsewhere.
        if family.without(&before.0).len() > 0 {
            let (private, proportional) = family.memory();
            let of = |measure, value: f64| Reading::new(measure, Unit::Bytes, vec![value.max(0.0)]);
            readings.push(of("memory-private", each(private, private_before)));
            readings.push(of("memory-proportional", each(proportional, proportional_before)));
        }
        let idle = Duration::from_millis(context.configuration.idle_ms);
        let (begun, family) = (Instant::now(), held.family(context));
        std::thread::sleep(idle);
        let computed_ms = held.family(context).computed_ms_since(&family);
        let each_second = computed_ms / begun.elapsed().as_secs_f64();
        readings.push(Reading::new(
            "idle-processor",
            Unit::MillisecondsPerSecond,
            vec![each_second],
        ));
        Ok(readings)
    })
}
