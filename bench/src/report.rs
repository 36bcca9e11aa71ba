//! The report: a table for each series, and the promised figures with what was found.

use std::fmt::Write;

use crate::machine::Machine;
use crate::record::{Series, SubjectSamples};
use crate::statistics::quantile;

/// Name of the subject that everything is compared with.
const OWN: &str = "spore";

/// The machine, then p50, p99, count and ratio of each subject in each series.
pub(crate) fn render(machine: &Machine, series: &[Series]) -> String {
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = writeln!(
        text,
        "{}, {} processors, {} MiB, Linux {}",
        machine.processor,
        machine.processors,
        machine.memory_kib / 1024,
        machine.kernel
    );
    let _ = writeln!(
        text,
        "commit {}, {}; host probe: {}",
        machine.commit, machine.date, machine.probe
    );
    for peer in &machine.peers {
        let _ = writeln!(text, "peer: {peer}");
    }
    for one in series {
        let _ = write!(text, "\n{}", render_series(one));
    }
    text
}

fn render_series(series: &Series) -> String {
    let own_p50 = p50_of(series, OWN);
    let idle = series.idle_share_before * 100.0;
    let mut text = format!(
        "{}: {} (machine {idle:.0} % idle before)\n",
        series.name, series.meaning
    );
    let _ = writeln!(
        text,
        "  {:<10} {:>10} {:>10} {:>7} {:>10}  isolation",
        "", "p50 ms", "p99 ms", "n", "to spore"
    );
    let mut subjects: Vec<_> = series.subjects.iter().collect();
    subjects.sort_by_key(|subject| quantile(&subject.samples_ns, 0.5).unwrap_or(u64::MAX));
    for subject in subjects {
        let _ = writeln!(text, "{}", render_subject(subject, own_p50));
    }
    text
}

fn render_subject(subject: &SubjectSamples, own_p50: Option<u64>) -> String {
    let count = subject.samples_ns.len();
    let quantiles = quantile(&subject.samples_ns, 0.5).zip(quantile(&subject.samples_ns, 0.99));
    let mut line = match quantiles {
        None => format!(
            "  {:<10} {:>10} {:>10} {count:>7} {:>10}",
            subject.name, "-", "-", "-"
        ),
        Some((p50, p99)) => {
            let ratio = own_p50.map_or("-".to_owned(), |own| format!("{:.3}", p50 as f64 / own as f64));
            format!(
                "  {:<10} {:>10.3} {:>10.3} {count:>7} {ratio:>10}",
                subject.name,
                ms(p50),
                ms(p99)
            )
        }
    };
    let _ = write!(line, "  {}", subject.isolation);
    if let Some(failure) = &subject.failure {
        let _ = write!(line, "; failed {} times: {failure}", subject.failures);
    }
    line
}

fn ms(ns: u64) -> f64 {
    ns as f64 / 1e6
}

fn p50_of(series: &Series, name: &str) -> Option<u64> {
    let subject = series.subjects.iter().find(|subject| subject.name == name)?;
    quantile(&subject.samples_ns, 0.5)
}

/// A promised figure of SPECIFICATION.md and what was found.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Promise {
    what: &'static str,
    unit: &'static str,
    at_most: f64,
    found: Option<f64>,
}

impl Promise {
    /// Whether the figure was measured and is met.
    pub(crate) fn is_kept(&self) -> bool {
        self.found.is_some_and(|found| found <= self.at_most)
    }
}

/// The promises that these series can check.
pub(crate) fn promises(series: &[Series]) -> Vec<Promise> {
    let p50 = |name: &str, subject: &str| {
        let series = series.iter().find(|series| series.name == name)?;
        p50_of(series, subject).map(|ns| ns as f64)
    };
    let own_ms = |name: &str| p50(name, OWN).map(|ns| ns / 1e6);
    let compute = p50("compute-back-to-back", OWN).zip(p50("compute-back-to-back", "process"));
    let promise = |what, unit, at_most, found| Promise {
        what,
        unit,
        at_most,
        found,
    };
    vec![
        promise(
            "image boot through the gateway, p50, back to back",
            "ms",
            15.0,
            own_ms("start-back-to-back"),
        ),
        promise(
            "image boot through the gateway, p50, lone",
            "ms",
            15.0,
            own_ms("start-lone"),
        ),
        promise(
            "warm invocation, p50, back to back",
            "ms",
            0.5,
            own_ms("warm-back-to-back"),
        ),
        promise("warm invocation, p50, lone", "ms", 0.5, own_ms("warm-lone")),
        promise(
            "compute loop, guest to native, p50",
            "times",
            1.05,
            compute.map(|(own, native)| own / native),
        ),
    ]
}

/// One line for each promise.
pub(crate) fn render_promises(promises: &[Promise]) -> String {
    let line = |promise: &Promise| {
        let found = promise.found.map_or("not measured".to_owned(), |found| {
            format!("{found:.3} {}", promise.unit)
        });
        let verdict = if promise.is_kept() { "kept" } else { "NOT KEPT" };
        format!(
            "{:<52} at most {:>6} {:<5}  {found:>14}  {verdict}\n",
            promise.what, promise.at_most, promise.unit
        )
    };
    promises.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series(name: &str, own_ns: &[u64], process_ns: &[u64]) -> Series {
        let subject = |name: &str, samples_ns: &[u64]| SubjectSamples {
            name: name.to_owned(),
            isolation: String::new(),
            samples_ns: samples_ns.to_vec(),
            failures: 0,
            failure: None,
        };
        let subjects = vec![subject("spore", own_ns), subject("process", process_ns)];
        Series {
            name: name.to_owned(),
            meaning: String::new(),
            idle_share_before: 1.0,
            subjects,
        }
    }

    #[test]
    fn a_promise_that_was_not_measured_is_not_kept() {
        assert!(promises(&[]).iter().all(|promise| !promise.is_kept()));
    }

    #[test]
    fn a_promise_is_judged_by_the_median_and_includes_its_bound() {
        let all = promises(&[series("start-lone", &[15_000_000, 1, 99_000_000], &[])]);
        assert!(all[1].is_kept(), "{all:?}");
        let all = promises(&[series("start-lone", &[15_000_001, 1, 99_000_000], &[])]);
        assert!(!all[1].is_kept(), "{all:?}");
        let all = promises(&[series("compute-back-to-back", &[106], &[100])]);
        assert!(!all[4].is_kept(), "{all:?}");
    }

    #[test]
    fn the_table_shows_ratios_and_subjects_without_samples() {
        let text = render_series(&series("start-lone", &[2_000_000], &[4_000_000]));
        assert!(text.contains("2.000") && text.contains("1.000"), "{text}");
        let text = render_series(&series("start-lone", &[2_000_000], &[]));
        assert!(text.contains('-'), "{text}");
    }
}
