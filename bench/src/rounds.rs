//! The order of measurements: in every round each subject once, in a new random order, so that what disturbs the
//! machine disturbs all alike. *Lone* rounds leave the machine idle for 100 ms before each measurement.

use std::time::{Duration, Instant};

use anyhow::Result;
use spore_evaluation::machine;

use crate::record::{Series, SubjectSamples, Unit};
use crate::subject::Subject;

/// Idle time before a lone measurement.
const LONE_IDLE: Duration = Duration::from_millis(100);
/// No series runs longer than this, whatever it measures.
const SERIES_TIME_MAX: Duration = Duration::from_secs(600);
/// Longest wait for an idle machine before a series.
const IDLE_WAIT_MAX: Duration = Duration::from_secs(60);
/// A subject that fails this often in a row is left out of the rest.
const FAILURES_MAX: u32 = 5;

/// Measures every subject up to `repetitions` times.
pub(crate) fn run(
    kind: &str,
    lone: bool,
    repetitions: u32,
    subjects: &mut [Box<dyn Subject>],
) -> Result<Series> {
    let mode = if lone { "lone" } else { "back-to-back" };
    let name = format!("{kind}-{mode}");
    eprintln!(
        "measuring {name}: {} subjects, {repetitions} rounds",
        subjects.len()
    );
    let mut samples: Vec<SubjectSamples> = subjects
        .iter()
        .map(|subject| SubjectSamples {
            name: subject.name().to_owned(),
            isolation: subject.isolation().to_owned(),
            samples: Vec::new(),
            failures: 0,
            failure: None,
        })
        .collect();
    let idle_share_before = machine::wait_for_idle(IDLE_WAIT_MAX)?;
    let start = Instant::now();
    let mut order: Vec<usize> = (0..subjects.len()).collect();
    for _ in 0..repetitions {
        if start.elapsed() > SERIES_TIME_MAX {
            break;
        }
        fastrand::shuffle(&mut order);
        for &index in &order {
            measure(&mut *subjects[index], &mut samples[index], lone);
        }
    }
    let meaning = subjects
        .first()
        .map(|subject| subject.meaning().to_owned())
        .unwrap_or_default();
    Ok(Series {
        name,
        meaning,
        unit: Unit::Nanoseconds,
        idle_share_before,
        subjects: samples,
    })
}

fn measure(subject: &mut dyn Subject, samples: &mut SubjectSamples, lone: bool) {
    if samples.failures >= FAILURES_MAX {
        return;
    }
    if lone {
        std::thread::sleep(LONE_IDLE);
    }
    match subject.measure() {
        Ok(sample) => samples.samples.push(sample.as_nanos() as u64),
        Err(error) => {
            samples.failures += 1;
            if samples.failure.is_none() {
                eprintln!("  {}: {error:#}", subject.name());
                samples.failure = Some(format!("{error:#}"));
            }
        }
    }
}
