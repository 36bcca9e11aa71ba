//! The report: a table for each series, and the promised figures with what was found.

use std::fmt::Write;

use spore_evaluation::machine::Machine;
use spore_evaluation::statistics::quantile;

use crate::density::Step;
use crate::record::{Series, SubjectSamples, Unit};
use crate::runtimes::CALLS_QUOTED;
use crate::templates::{BOOT, TO_THE_ANSWER};

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
    let (unit, factor) = match series.unit {
        Unit::Nanoseconds => ("ms", 1e-6),
        Unit::Bytes => ("MiB", 1.0 / 1024.0 / 1024.0),
    };
    let _ = writeln!(
        text,
        "  {:<18} {:>10} {:>10} {:>7} {:>10}  isolation",
        "",
        format!("p50 {unit}"),
        format!("p99 {unit}"),
        "n",
        "to spore"
    );
    let mut subjects: Vec<_> = series.subjects.iter().collect();
    subjects.sort_by_key(|subject| quantile(&subject.samples, 0.5).unwrap_or(u64::MAX));
    for subject in subjects {
        let _ = writeln!(text, "{}", render_subject(subject, own_p50, factor));
    }
    text
}

/// `factor` makes what is shown of a sample.
fn render_subject(subject: &SubjectSamples, own_p50: Option<u64>, factor: f64) -> String {
    let count = subject.samples.len();
    let quantiles = quantile(&subject.samples, 0.5).zip(quantile(&subject.samples, 0.99));
    let mut line = match quantiles {
        None => format!(
            "  {:<18} {:>10} {:>10} {count:>7} {:>10}",
            subject.name, "-", "-", "-"
        ),
        Some((p50, p99)) => {
            let ratio = own_p50.map_or("-".to_owned(), |own| format!("{:.3}", p50 as f64 / own as f64));
            format!(
                "  {:<18} {:>10.3} {:>10.3} {count:>7} {ratio:>10}",
                subject.name,
                p50 as f64 * factor,
                p99 as f64 * factor
            )
        }
    };
    let _ = write!(line, "  {}", subject.isolation);
    if let Some(failure) = &subject.failure {
        let _ = write!(line, "; failed {} times: {failure}", subject.failures);
    }
    line
}

fn p50_of(series: &Series, name: &str) -> Option<u64> {
    quantile_of(series, name, 0.5)
}

fn quantile_of(series: &Series, name: &str, share: f64) -> Option<u64> {
    let subject = series.subjects.iter().find(|subject| subject.name == name)?;
    quantile(&subject.samples, share)
}

/// A table of what instances take when there are many.
pub(crate) fn render_density(steps: &[Step]) -> String {
    let mut text = String::new();
    if steps.is_empty() {
        return text;
    }
    let _ = writeln!(
        text,
        "\ndensity: KiB for each instance, before | after it was asked"
    );
    let _ = writeln!(
        text,
        "  {:<7} {:>6} {:>15} {:>13} {:>13} {:>6} {:>9} {:>8} {:>8} {:>8}  idle: ms/s, machine",
        "", "n", "machine", "PSS", "private", "daemon", "answered", "start s", "ask s", "end s"
    );
    let kib = |bytes: i64| (bytes as f64 / 1024.0).round();
    let both = |bytes: [u64; 2]| bytes.map(|bytes| kib(bytes as i64));
    for step in steps {
        let name = format!("  {:<7} {:>6}", step.program, step.instances);
        let machine = step.machine_bytes.map(kib);
        let (proportional, private) = (both(step.proportional_bytes), both(step.private_bytes));
        let seconds = [step.started_ms, step.answered_ms, step.ended_ms].map(|ms| ms as f64 / 1000.0);
        let _ = writeln!(
            text,
            "{name} {:>7} {:>7} {:>6} {:>6} {:>6} {:>6} {:>6} {:>9} {:>8.2} {:>8.2} {:>8.2}  {:.1}, {:.0} % busy",
            machine[0],
            machine[1],
            proportional[0],
            proportional[1],
            private[0],
            private[1],
            kib(step.daemon_bytes),
            step.answered,
            seconds[0],
            seconds[1],
            seconds[2],
            step.idle_ms_per_s,
            step.idle_busy_share * 100.0
        );
        let kernel = step.kernel_bytes.iter();
        let kernel: Vec<_> = kernel
            .map(|(name, bytes)| format!("{name} {}", kib(*bytes)))
            .collect();
        let _ = writeln!(text, "  {:<14} the kernel's: {}", "", kernel.join(", "));
        if let Some(wanted) = step.wanted {
            let _ = writeln!(text, "  {:<14} memory does not suffice for {wanted}", "");
        }
    }
    text
}

/// The promises that many instances can check, by the largest number of them in C.
pub(crate) fn promises_of_density(steps: &[Step]) -> Vec<Promise> {
    let largest = steps
        .iter()
        .filter(|step| step.program == "C")
        .max_by_key(|step| step.instances);
    let promise = |what: &str, unit, at_most, found: Option<f64>| Promise {
        what: what.to_owned(),
        unit,
        at_most,
        found,
    };
    vec![
        promise(
            "private memory of an idle copy in C",
            "KiB",
            512.0,
            largest.map(|step| step.private_bytes[0] as f64 / 1024.0),
        ),
        promise(
            "instances in C that do not answer",
            "",
            0.0,
            largest.map(|step| f64::from(step.instances.saturating_sub(step.answered))),
        ),
    ]
}

/// A promised figure of SPECIFICATION.md and what was found.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Promise {
    pub(crate) what: String,
    pub(crate) unit: &'static str,
    pub(crate) at_most: f64,
    pub(crate) found: Option<f64>,
}

impl Promise {
    /// Whether the figure was measured and is met.
    pub(crate) fn is_kept(&self) -> bool {
        self.found.is_some_and(|found| found <= self.at_most)
    }
}

/// What is promised of cold starts of a program by copy, in milliseconds: name, series, p50 back to back, p50 lone, p99 lone.
const COLD_STARTS: [(&str, &str, [f64; 3]); 4] = [
    ("C", "cold-c", [0.9, 1.2, 2.5]),
    ("Go", "cold-go", [1.2, 1.6, 3.5]),
    ("Python", "cold-python", [2.0, 2.5, 5.0]),
    ("Node", "cold-node", [3.0, 4.0, 7.0]),
];

/// Within how many milliseconds a stored image is to be deployed, besides a boot for its snapshot.
const DEPLOYMENT_MS: f64 = 150.0;
/// In which languages that is measured, and the series.
const DEPLOYMENTS: [(&str, &str); 3] = [
    ("C", "deploy-c-back-to-back"),
    ("Python", "deploy-python-back-to-back"),
    ("Node", "deploy-node-back-to-back"),
];

/// The promises that these series can check.
pub(crate) fn promises(series: &[Series]) -> Vec<Promise> {
    let share_of = |name: &str, subject: &str, share| {
        let series = series.iter().find(|series| series.name == name)?;
        quantile_of(series, subject, share).map(|ns| ns as f64)
    };
    let p50 = |name: &str, subject: &str| share_of(name, subject, 0.5);
    let own_ms = |name: &str| p50(name, OWN).map(|ns| ns / 1e6);
    let ratio = |name: &str| {
        let both = p50(name, OWN).zip(p50(name, "process"))?;
        Some(both.0 / both.1)
    };
    let added_mib = |name: &str| {
        let both = p50(name, OWN).zip(p50(name, "process"))?;
        Some((both.0 - both.1) / 1024.0 / 1024.0)
    };
    let neighbour = || {
        let p99 = |subject| share_of("neighbour-back-to-back", subject, 0.99);
        Some(p99(OWN)? / p99("spore, alone")?)
    };
    let to_shared = |name: &str| Some(p50(name, OWN)? / p50(name, "shared")?);
    let getpid_ns = p50("getpid-back-to-back", OWN).map(|ns| ns / CALLS_QUOTED as f64);
    let promise = |what: &str, unit, at_most, found| Promise {
        what: what.to_owned(),
        unit,
        at_most,
        found,
    };
    let cold = COLD_STARTS.iter().flat_map(|(name, series, bounds)| {
        let [back_to_back, lone] = ["back-to-back", "lone"].map(|mode| format!("{series}-{mode}"));
        let of = |figure: &str, at_most, ns: Option<f64>| Promise {
            what: format!("cold start of {name} by copy, {figure}"),
            unit: "ms",
            at_most,
            found: ns.map(|ns| ns / 1e6),
        };
        [
            of("p50, back to back", bounds[0], p50(&back_to_back, OWN)),
            of("p50, lone", bounds[1], p50(&lone, OWN)),
            of("p99, lone", bounds[2], share_of(&lone, OWN, 0.99)),
        ]
    });
    let mut promises = vec![
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
            "warm invocation beside one that spins, to alone, p99",
            "times",
            2.0,
            neighbour(),
        ),
        promise(
            "isolation per request, C, to shared, p50",
            "times",
            3.0,
            to_shared("isolation-c-back-to-back"),
        ),
        promise(
            "isolation per request, Python, to shared, p50",
            "times",
            3.0,
            to_shared("isolation-python-back-to-back"),
        ),
        promise(
            "compute loop, guest to native, p50",
            "times",
            1.05,
            ratio("compute-back-to-back"),
        ),
        promise(
            "loop in Go, guest to native, p50",
            "times",
            1.03,
            ratio("compute-go-back-to-back"),
        ),
        promise(
            "loop in Python, guest to native, p50",
            "times",
            1.03,
            ratio("compute-python-back-to-back"),
        ),
        promise(
            "loop in Node, guest to native, p50",
            "times",
            1.03,
            ratio("compute-node-back-to-back"),
        ),
        promise(
            "objects in Python, guest to native, p50",
            "times",
            1.10,
            ratio("objects-python-back-to-back"),
        ),
        promise("rewritten getpid, p50", "ns", 30.0, getpid_ns),
        promise(
            "clock_gettime, guest to native, p50",
            "times",
            1.2,
            ratio("clock-back-to-back"),
        ),
        // 0.8 of native throughput is 1.25 of native time.
        promise(
            "read of a cached file, guest to native, p50",
            "times",
            1.25,
            ratio("read-back-to-back"),
        ),
        promise(
            "start of Python, guest to native, p50",
            "times",
            2.0,
            ratio("start-python-back-to-back"),
        ),
        promise(
            "start of Node, guest to native, p50",
            "times",
            2.0,
            ratio("start-node-back-to-back"),
        ),
        promise(
            "private memory added to a Go server",
            "MiB",
            4.0,
            added_mib("memory-go"),
        ),
        promise(
            "private memory added to a Python server",
            "MiB",
            4.0,
            added_mib("memory-python"),
        ),
    ];
    promises.extend(cold);
    promises.extend(DEPLOYMENTS.iter().flat_map(|(language, name)| {
        let alone = own_ms(name);
        let whole = p50(name, TO_THE_ANSWER).zip(p50(name, BOOT));
        let promise = |what: String, found| Promise {
            what,
            unit: "ms",
            at_most: DEPLOYMENT_MS,
            found,
        };
        [
            promise(format!("deployment of a stored image in {language}, p50"), alone),
            promise(
                format!("the same to its first answer, less a boot, {language}, p50"),
                whole.map(|(all, boot)| (all - boot) / 1e6),
            ),
        ]
    }));
    promises
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
            samples: samples_ns.to_vec(),
            failures: 0,
            failure: None,
        };
        let subjects = vec![subject("spore", own_ns), subject("process", process_ns)];
        Series {
            name: name.to_owned(),
            meaning: String::new(),
            unit: Unit::Nanoseconds,
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
        let compute = all
            .iter()
            .find(|promise| promise.what.starts_with("compute loop"));
        assert!(
            compute.is_some_and(|promise| promise.found.is_some() && !promise.is_kept()),
            "{all:?}"
        );
    }

    #[test]
    fn memory_is_judged_by_the_difference_and_calls_one_by_one() {
        let mib = 1024 * 1024;
        let all = promises(&[series("memory-go", &[14 * mib], &[10 * mib])]);
        let go = all.iter().find(|promise| promise.what.ends_with("Go server"));
        assert!(go.is_some_and(Promise::is_kept), "{all:?}");
        let all = promises(&[
            series("memory-go", &[15 * mib], &[10 * mib]),
            series("getpid-back-to-back", &[30_000], &[]),
        ]);
        let go = all.iter().find(|promise| promise.what.ends_with("Go server"));
        assert!(!go.is_some_and(Promise::is_kept), "{all:?}");
        let calls = all.iter().find(|promise| promise.what.contains("getpid"));
        assert_eq!(calls.and_then(|promise| promise.found), Some(30.0));
    }

    #[test]
    fn the_largest_number_of_instances_is_judged() {
        let step = |instances, answered, private_kib: u64| Step {
            program: "C".to_owned(),
            instances,
            answered,
            private_bytes: [private_kib << 10; 2],
            ..Step::default()
        };
        let fewer = Step {
            wanted: Some(5000),
            ..step(1000, 1000, 512)
        };
        let all = promises_of_density(&[step(1, 1, 600), step(100, 99, 512)]);
        assert_eq!(
            all.iter().map(Promise::is_kept).collect::<Vec<_>>(),
            [true, false]
        );
        let all = promises_of_density(&[step(100, 99, 512), fewer.clone()]);
        assert!(all.iter().all(Promise::is_kept));
        assert!(promises_of_density(&[]).iter().all(|promise| !promise.is_kept()));
        assert!(render_density(&[step(1, 1, 600), fewer]).contains("not suffice for 5000"));
        assert_eq!(render_density(&[]), "");
    }

    #[test]
    fn the_table_shows_ratios_and_subjects_without_samples() {
        let text = render_series(&series("start-lone", &[2_000_000], &[4_000_000]));
        assert!(text.contains("2.000") && text.contains("1.000"), "{text}");
        let text = render_series(&series("start-lone", &[2_000_000], &[]));
        assert!(text.contains('-'), "{text}");
    }
}
