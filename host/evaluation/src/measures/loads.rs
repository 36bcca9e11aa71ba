//! Requests by schedule: at a rate, and a trace that is replayed, with what of the processors' time is the functions'.
//!
//! *Utilisation* is the processor time that the work of the requests takes in a process that does nothing else, measured
//! before, divided by the time that all processors were busy during the replay, less what this client took. What is not
//! work is starts, ends, the gateway, sandboxes, and whatever else the machine did. Every sandbox does the same work, so
//! whoever needs more time for the same work has less utilisation.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::BufReader;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::warm::with_instances;
use super::{MeasureError, Reading};
use crate::client::{Ask, ask_once};
use crate::context::Context;
use crate::load::schedule::{Due, Outcome, drive};
use crate::load::synthetic;
use crate::load::trace::Trace;
use crate::machine::{processor_ticks, read};
use crate::processes::{available_bytes, own_ticks, tick_ms};
use crate::record::Unit;
use crate::targets::subject::{Subject, deploy_function, function_name};
use crate::workloads::HELLO;

/// Instances that serve the open loop.
const INSTANCES: u32 = 4;
/// Time for what was done to come to rest.
const SETTLE: Duration = Duration::from_millis(200);
/// How often memory is looked at while a load is replayed.
const MEMORY_PERIOD: Duration = Duration::from_millis(50);

/// Poisson arrivals for some slices, to instances that are there; functions start more of them if they need any.
pub(super) fn open_loop(
    context: &Context,
    subject: &Subject,
    rate: u32,
) -> Result<Vec<Reading>, MeasureError> {
    let seconds = (context.configuration.slice_ms * 6) as f64 / 1000.0;
    let mut random = fastrand::Rng::with_seed(context.configuration.seed);
    let mut at = 0.0;
    let times: Vec<Duration> = std::iter::from_fn(|| {
        at -= (1.0 - random.f64()).ln() / f64::from(rate.max(1));
        (at < seconds).then(|| Duration::from_secs_f64(at))
    })
    .collect();
    let path = if subject.has_workloads() {
        format!("/{HELLO}")
    } else {
        String::new()
    };
    let outcomes = with_instances(context, subject, INSTANCES, |context, held| {
        let due = |(index, at): (usize, &Duration)| Due {
            at: *at,
            place: held.places[index % held.places.len()].clone(),
            ask: Ask::get(&path),
        };
        let schedule: Vec<Due> = times.iter().enumerate().map(due).collect();
        Ok(drive(&context.clock, &schedule))
    })?;
    let outcomes = answered(outcomes)?;
    Ok(vec![
        Reading::times("load", outcomes.iter().map(|outcome| outcome.elapsed)),
        Reading::times("load-late", outcomes.iter().map(|outcome| outcome.late)),
    ])
}

/// All of them, if none has failed.
fn answered(outcomes: Vec<Outcome>) -> Result<Vec<Outcome>, MeasureError> {
    let mut kept = Vec::new();
    for mut outcome in outcomes {
        match outcome.answer.take() {
            Some(Ok(answer)) => kept.push(Outcome {
                answer: Some(Ok(answer)),
                ..outcome
            }),
            Some(Err(error)) => return Err(error.into()),
            None => return Err(crate::client::AskError::TimedOut.into()),
        }
    }
    Ok(kept)
}

/// The trace of a configuration.
fn trace(context: &Context) -> Result<Trace, MeasureError> {
    let load = &context.configuration.load;
    let whole = match &load.trace {
        Some(path) => {
            let build = |error: Box<dyn std::error::Error + Send + Sync>| MeasureError::Build(error);
            let file = File::open(path).map_err(|error| build(Box::new(error)))?;
            Trace::read(BufReader::new(file)).map_err(|error| build(Box::new(error)))?
        }
        None => {
            let mut random = fastrand::Rng::with_seed(context.configuration.seed);
            let functions = synthetic::functions(load.functions, &mut random);
            let length_ms = f64::from(load.seconds) * 1000.0 * load.compression;
            synthetic::trace(
                &functions,
                length_ms,
                load.rate_max / load.compression,
                &mut random,
            )
        }
    };
    let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    Ok(whole.compressed(load, processors))
}

/// Nanoseconds that a round of the loop takes in a process: the least of some askings, for nothing else can be in that.
fn spin_ns(context: &mut Context, subject: &Subject) -> Result<f64, MeasureError> {
    const ROUNDS: f64 = 3e6;
    const ASKINGS: usize = 7;
    if let Some(found) = context.spin_ns {
        return Ok(found);
    }
    let bare = context.bare_of(subject)?;
    let least = with_instances(context, &bare, 1, |context, held| {
        let mut least = f64::INFINITY;
        for _ in 0..ASKINGS {
            let ask = Ask::get(&format!("/spin?n={ROUNDS}"));
            let (_, answer) = context.clock.block_on(ask_once(&held.places[0], &ask))?;
            let elapsed = answer.number("elapsed_ns");
            least = least.min(elapsed.ok_or_else(|| MeasureError::NoTime {
                what: "spin".to_owned(),
            })?);
        }
        Ok(least)
    })?;
    context.spin_ns = Some(least / ROUNDS);
    Ok(least / ROUNDS)
}

/// Replays the trace, with idle instances kept for so many seconds.
pub(super) fn replay(
    context: &mut Context,
    subject: &Subject,
    keep_alive_s: u32,
) -> Result<Vec<Reading>, MeasureError> {
    let Some(function) = subject.kept_function().map(str::to_owned) else {
        return Err(MeasureError::NotApplicable);
    };
    let spin_ns = spin_ns(context, subject)?;
    let trace = trace(context)?;
    let annotations = annotations_of(context, &function)?;
    let names: Vec<String> = (0..trace.functions.len())
        .map(|index| function_name(&subject.target, subject.language, &format!("load{index}")))
        .collect();
    for name in &names {
        deploy_function(
            context,
            name,
            subject.language,
            &annotations,
            &format!("{keep_alive_s}s"),
        )?;
    }
    let result = prepare(context, &names).and_then(|()| replay_on(context, &trace, &names, spin_ns));
    for name in &names {
        let (clock, gateway) = context.gateway_mut()?;
        gateway.remove(clock, name)?;
    }
    result
}

/// The annotations of the target, as the gateway has them.
fn annotations_of(context: &Context, function: &str) -> Result<BTreeMap<String, String>, MeasureError> {
    let gateway = context.gateway()?;
    let status = gateway.get(&context.clock, &format!("/system/function/{function}"))?;
    Ok(serde_json::from_value(status["annotations"].clone()).unwrap_or_default())
}

/// Each is asked once or twice, so that snapshots are there, and has no instance afterwards.
fn prepare(context: &Context, names: &[String]) -> Result<(), MeasureError> {
    let gateway = context.gateway()?;
    for name in names {
        for _ in 0..2 {
            context
                .clock
                .block_on(ask_once(&gateway.function(name), &Ask::get("/hello")))?;
            gateway.scale(&context.clock, name, 0)?;
        }
    }
    std::thread::sleep(SETTLE);
    Ok(())
}

fn replay_on(
    context: &Context,
    trace: &Trace,
    names: &[String],
    spin_ns: f64,
) -> Result<Vec<Reading>, MeasureError> {
    let gateway = context.gateway()?;
    let schedule: Vec<Due> = trace
        .events
        .iter()
        .map(|event| Due {
            at: Duration::from_secs_f64(event.at_ms / 1000.0),
            place: gateway.function(&names[event.function]),
            ask: Ask::get(&format!("/spin?n={:.0}", event.duration_ms * 1e6 / spin_ns)),
        })
        .collect();
    let before = available_bytes()?;
    let is_over = Arc::new(AtomicBool::new(false));
    let watcher = {
        let is_over = Arc::clone(&is_over);
        std::thread::spawn(move || {
            let mut used = Vec::new();
            while !is_over.load(Ordering::Relaxed) {
                used.extend(available_bytes().map(|now| before as f64 - now as f64));
                std::thread::sleep(MEMORY_PERIOD);
            }
            used
        })
    };
    let busy_before = busy_ms()?;
    let outcomes = drive(&context.clock, &schedule);
    std::thread::sleep(SETTLE);
    let busy_after = busy_ms()?;
    is_over.store(true, Ordering::Relaxed);
    let used = watcher.join().unwrap_or_default();
    let outcomes = answered(outcomes)?;
    let busy = (busy_after.0 - busy_before.0) - (busy_after.1 - busy_before.1);
    let work_ms: f64 = trace.events.iter().map(|event| event.duration_ms).sum();
    let is_cold = |outcome: &&Outcome| match &outcome.answer {
        Some(Ok(answer)) => answer.header("x-spore-start") == Some("cold"),
        _ => false,
    };
    let cold = outcomes.iter().filter(is_cold).count() as f64 / outcomes.len().max(1) as f64;
    let beyond = outcomes.iter().map(|outcome| {
        let work = Duration::from_secs_f64(trace.events[outcome.index].duration_ms / 1000.0);
        outcome.elapsed.saturating_sub(work)
    });
    let average = used.iter().sum::<f64>() / used.len().max(1) as f64;
    Ok(vec![
        Reading::new("utilisation", Unit::Share, vec![work_ms / busy.max(tick_ms())]),
        Reading::times("replay", beyond),
        Reading::new("replay-memory", Unit::Bytes, vec![average.max(0.0)]),
        Reading::new("replay-cold-share", Unit::Share, vec![cold]),
    ])
}

/// Milliseconds that all processors were busy, and those of this process.
fn busy_ms() -> Result<(f64, f64), MeasureError> {
    let (idle, all) = processor_ticks(&read("/proc/stat")?);
    let own = own_ticks(&read("/proc/self/stat")?).unwrap_or(0);
    Ok(((all - idle) as f64 * tick_ms(), own as f64 * tick_ms()))
}
