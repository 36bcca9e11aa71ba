//! A run, and the comparison of two, as text.

use std::fmt::Write as _;

use super::{by_measure, number, scale};
use crate::measures::{axis, meaning};
use crate::record::{Key, Run, Series};
use crate::statistics::bootstrap::{Resampling, Rounds, of_median};
use crate::statistics::comparison::{Comparison, Verdict};
use crate::statistics::summary;

/// All figures of a run, a table for each measure, and what was left out.
pub fn render(run: &Run) -> String {
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = writeln!(text, "{}", head(run));
    for target in &run.targets {
        let what = match &target.left_out {
            Some(reason) => format!("left out: {reason}"),
            None => format!("{}; accelerator: {}", target.isolation, target.accelerator),
        };
        let _ = writeln!(text, "  {:<14} {what}", target.name);
    }
    for (measure, series) in by_measure(run) {
        let _ = write!(text, "\n{}", table(measure, &series));
    }
    let failed = run.series.iter().filter(|series| series.failures > 0);
    for (index, series) in failed.enumerate() {
        if index == 0 {
            text.push_str("\nfailures\n");
        }
        let reason = series.failure.as_deref().unwrap_or_default();
        let _ = writeln!(
            text,
            "  {}: {} times, first: {reason}",
            name(&series.key),
            series.failures
        );
    }
    for (index, left_out) in run.left_out.iter().enumerate() {
        if index == 0 {
            text.push_str("\nleft out\n");
        }
        let _ = writeln!(text, "  {}: {}", left_out.what, left_out.reason);
    }
    text
}

/// What was measured, where and when.
pub(super) fn head(run: &Run) -> String {
    let machine = &run.machine;
    let kvm = machine.probe["kvm_kind"].as_str().unwrap_or("none");
    let state = if run.is_complete {
        ""
    } else {
        ", not all of what was planned"
    };
    format!(
        "{}, {} processors, {} MiB, Linux {}; KVM: {kvm}\nSpore {}, commit {}, program {}; {}, {:.0} s{state}",
        machine.processor,
        machine.processors,
        machine.memory_kib / 1024,
        machine.kernel,
        machine.version,
        if machine.commit.is_empty() {
            "unknown"
        } else {
            &machine.commit
        },
        machine.program_sha256.get(..12).unwrap_or("unknown"),
        run.started_at,
        run.elapsed_s,
    )
}

fn table(measure: &str, series: &[&Series]) -> String {
    let (unit, factor) = series.first().map_or(("", 1.0), |series| scale(series.unit));
    let mut text = format!("{measure} ({unit}): {}\n", meaning(measure));
    let heads = [
        "average",
        "deviation",
        "p50",
        "p50, 95 % interval",
        "p95",
        "p99",
        "max",
        "n",
    ];
    let _ = write!(text, "  {:<16} {:<14} {:>10}", "", "", axis(measure));
    for head in heads {
        let width = if head.contains(',') { 20 } else { 9 };
        let _ = write!(text, " {head:>width$}");
    }
    text.push('\n');
    let mut ordered = series.to_vec();
    ordered.sort_by(|a, b| {
        let at = |series: &Series| series.key.at.unwrap_or(0.0);
        a.key.workload.cmp(&b.key.workload).then(at(a).total_cmp(&at(b)))
    });
    for series in ordered {
        let Some(found) = summary(&series.values) else {
            continue;
        };
        let rounds = Rounds::new(&series.rounds, &series.values);
        let interval = of_median(&rounds, Resampling::default());
        let interval = interval.map_or(String::new(), |interval| {
            format!(
                "{} - {}",
                number(interval.low / factor),
                number(interval.high / factor)
            )
        });
        let at = series.key.at.map_or(String::new(), |at| at.to_string());
        let _ = write!(
            text,
            "  {:<16} {:<14} {at:>10}",
            series.key.workload, series.key.target
        );
        for value in [found.average, found.deviation, found.p50] {
            let _ = write!(text, " {:>9}", number(value / factor));
        }
        let _ = write!(text, " {interval:>20}");
        for value in [found.p95, found.p99, found.maximum] {
            let _ = write!(text, " {:>9}", number(value / factor));
        }
        let _ = writeln!(text, " {:>9}", found.count);
    }
    text
}

/// MEASURE of LANGUAGE/WORKLOAD in TARGET, at POINT.
fn name(key: &Key) -> String {
    let at = key
        .at
        .map_or(String::new(), |at| format!(", {at} {}", axis(&key.measure)));
    format!("{} of {} in {}{at}", key.measure, key.workload, key.target)
}

/// What differs between two runs, or with `all` everything that was compared.
pub fn render_comparison(a: &Run, b: &Run, compared: &[Comparison], lonely: &[Key], all: bool) -> String {
    let mut text = format!("A: {}\nB: {}\n", head(a), head(b));
    if a.machine.host != b.machine.host || a.machine.kernel != b.machine.kernel {
        text.push_str("They are of different machines or kernels: what differs may be those.\n");
    }
    let count = |verdict: Verdict| compared.iter().filter(|one| one.verdict == verdict).count();
    let _ = writeln!(
        text,
        "\n{} compared: {} agree, {} are more in B, {} are less, {} have too few samples",
        compared.len(),
        count(Verdict::Agrees),
        count(Verdict::More),
        count(Verdict::Less),
        count(Verdict::Unknown)
    );
    for one in compared.iter().filter(|one| all || one.differs()) {
        let (unit, factor) = scale(one.unit);
        let word = match one.verdict {
            Verdict::Agrees => "agrees",
            Verdict::More => "MORE",
            Verdict::Less => "LESS",
            Verdict::Unknown => "unknown",
        };
        let interval = one.ratio.map_or(String::new(), |ratio| {
            format!(", B/A {} - {}", number(ratio.low), number(ratio.high))
        });
        let [before, after] = one.medians.map(|median| number(median / factor));
        let _ = writeln!(
            text,
            "  {word:<7} {}: {before} -> {after} {unit}{interval}",
            name(&one.key)
        );
    }
    if !lonely.is_empty() {
        let _ = writeln!(text, "  {} series are in one of them only", lonely.len());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::configuration::Configuration;
    use crate::machine::Machine;
    use crate::record::Unit;
    use crate::statistics::comparison::{Criterion, compare};

    fn run_with(values: &[f64]) -> Run {
        let mut run = Run::new(Configuration::quick(), Machine::default());
        let key = Key {
            measure: "warm".into(),
            workload: "c/hello".into(),
            target: "vm".into(),
            at: Some(4.0),
        };
        let series = run.series_mut(&key, Unit::Nanoseconds);
        series.values = values.to_vec();
        series.rounds = (0..values.len() as u32).collect();
        run.leave_out("runc", "the daemon knows no sandbox runc");
        run
    }

    #[test]
    fn figures_and_what_is_missing_are_in_the_text() {
        let text = render(&run_with(&[1e6, 2e6, 3e6]));
        assert!(text.contains("warm (ms): "), "{text}");
        let line = text
            .lines()
            .find(|line| line.contains("c/hello"))
            .expect("there is one");
        let words: Vec<&str> = line.split_whitespace().collect();
        assert_eq!(words[..6], ["c/hello", "vm", "4", "2.00", "0.816", "2.00"]);
        assert!(text.contains("runc: the daemon knows no sandbox runc"));
    }

    #[test]
    fn a_comparison_names_what_differs() {
        let (a, b) = (run_with(&[1e6; 9]), run_with(&[3e6; 9]));
        let (compared, lonely) = compare(&a, &b, Criterion::default());
        let text = render_comparison(&a, &b, &compared, &lonely, false);
        assert!(
            text.contains("MORE    warm of c/hello in vm, 4 callers: 1.00 -> 3.00 ms, B/A 3.00 - 3.00"),
            "{text}"
        );
        let (compared, lonely) = compare(&a, &a, Criterion::default());
        let text = render_comparison(&a, &a, &compared, &lonely, false);
        assert!(text.contains("1 agree") && !text.contains("MORE"), "{text}");
    }
}
