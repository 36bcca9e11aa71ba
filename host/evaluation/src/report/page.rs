//! The page: one HTML document with everything in it, plots as SVG, nothing from elsewhere, no script.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::chart::{Axis, Bar, Line, bars, escape, lines};
use super::text::head;
use super::{by_measure, number, scale};
use crate::measures::{axis, meaning};
use crate::record::{Run, Series, Unit};
use crate::statistics::bootstrap::{Resampling, Rounds, of_median};
use crate::statistics::{distribution, summary};

/// Points of a distribution that are drawn.
const DISTRIBUTION_POINTS: usize = 200;
const STYLE: &str = include_str!("page.css");

/// The page of a run.
pub fn render(run: &Run) -> String {
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
         <title>spore bench, {}</title><style>{STYLE}</style></head><body>\n<h1>spore bench</h1>",
        escape(&run.machine.date)
    );
    // Writing to a string cannot fail.
    for line in head(run).lines() {
        let _ = write!(page, "<p>{}</p>", escape(line));
    }
    for peer in &run.machine.peers {
        let _ = write!(page, "<span class=\"quiet\">{}</span><br>", escape(peer));
    }
    page.push_str(&targets(run));
    for (measure, series) in by_measure(run) {
        page.push_str(&section(run, measure, &series));
    }
    page.push_str(&missing(run));
    page.push_str("</body></html>\n");
    page
}

fn targets(run: &Run) -> String {
    let mut text = "<h2>Targets</h2><div class=\"scroll\"><table><tr><th>target</th><th>around the function</th><th>accelerator</th><th>settings</th></tr>".to_owned();
    for target in &run.targets {
        let settings: Vec<String> = target
            .settings
            .iter()
            .map(|(key, value)| format!("{key}={value}"))
            .collect();
        let what = match &target.left_out {
            Some(reason) => format!("<i>left out: {}</i>", escape(reason)),
            None => escape(&target.isolation),
        };
        let _ = write!(
            text,
            "<tr><td>{}</td><td class=\"text\">{what}</td><td class=\"name\">{}</td><td class=\"text\">{}</td></tr>",
            escape(&target.name),
            escape(&target.accelerator),
            escape(&settings.join(", "))
        );
    }
    text + "</table></div>"
}

fn missing(run: &Run) -> String {
    let failed = run.series.iter().filter(|series| series.failures > 0);
    let failed = failed.map(|series| {
        let reason = series.failure.as_deref().unwrap_or_default();
        let what = format!(
            "{} of {} in {}",
            series.key.measure, series.key.workload, series.key.target
        );
        (what, format!("failed {} times, first: {reason}", series.failures))
    });
    let left_out = run
        .left_out
        .iter()
        .map(|one| (one.what.clone(), one.reason.clone()));
    let mut rows = left_out.chain(failed).peekable();
    if rows.peek().is_none() {
        return String::new();
    }
    let mut text = "<h2>What is missing</h2><table>".to_owned();
    for (what, reason) in rows {
        let _ = write!(
            text,
            "<tr><td>{}</td><td class=\"text\">{}</td></tr>",
            escape(&what),
            escape(&reason)
        );
    }
    text + "</table>"
}

/// Which colour a target has: that of its place in the list.
fn colour(run: &Run, target: &str) -> usize {
    let found = run.targets.iter().position(|record| record.name == target);
    found.unwrap_or(run.targets.len())
}

fn section(run: &Run, measure: &str, series: &[&Series]) -> String {
    let mut workloads: BTreeMap<&str, Vec<&Series>> = BTreeMap::new();
    for one in series {
        workloads.entry(&one.key.workload).or_default().push(one);
    }
    let mut text = format!(
        "<h2>{}</h2><p>{}.</p><div class=\"plots\">",
        escape(measure),
        escape(meaning(measure))
    );
    for (workload, series) in &workloads {
        for plot in plots(run, measure, series) {
            let _ = write!(
                text,
                "<div class=\"plot\"><h3>{}</h3>{plot}</div>",
                escape(workload)
            );
        }
    }
    text + "</div>" + &table(series)
}

/// Over an axis a line for each target; without one, bars of medians, and distributions where there are samples enough.
fn plots(run: &Run, measure: &str, series: &[&Series]) -> Vec<String> {
    let Some(first) = series.first() else {
        return Vec::new();
    };
    let (unit, factor) = scale(first.unit);
    let spread = if is_wide(series) {
        Axis::Logarithmic
    } else {
        Axis::Linear
    };
    let points: std::collections::BTreeSet<u64> = series
        .iter()
        .filter_map(|one| one.key.at.map(f64::to_bits))
        .collect();
    if points.len() > 1 {
        let name = format!(
            "{unit}, p50{}",
            if has_band(first) { " and up to p95" } else { "" }
        );
        let x_axis = if measure.starts_with("chain") || points.contains(&0) {
            Axis::Linear
        } else {
            Axis::Logarithmic
        };
        return vec![lines(
            &over_axis(run, series, factor),
            axis(measure),
            &name,
            x_axis,
            spread,
        )];
    }
    let mut plots = vec![bars(
        &medians(run, series, factor),
        &format!("{unit}, p50 with its 95 % interval"),
        spread,
    )];
    if first.unit == Unit::Nanoseconds && series.iter().any(|one| one.values.len() >= 8) {
        let mut all: Vec<Line> = series
            .iter()
            .map(|one| Line {
                name: one.key.target.clone(),
                colour: colour(run, &one.key.target),
                points: distribution(&one.values, DISTRIBUTION_POINTS)
                    .into_iter()
                    .map(|(value, share)| (value / factor, share))
                    .collect(),
                upper: Vec::new(),
            })
            .collect();
        all.sort_by_key(|line| line.colour);
        plots.push(lines(
            &all,
            unit,
            "share of samples",
            Axis::Logarithmic,
            Axis::Linear,
        ));
    }
    plots
}

fn has_band(series: &Series) -> bool {
    series.unit == Unit::Nanoseconds
}

/// Whether medians differ by so much that the lesser ones would not be seen.
fn is_wide(series: &[&Series]) -> bool {
    let medians = series
        .iter()
        .filter_map(|one| summary(&one.values).map(|found| found.p50));
    let (low, high) = medians.fold((f64::INFINITY, 0.0_f64), |(low, high), median| {
        (low.min(median), high.max(median))
    });
    low > 0.0 && high / low > 20.0
}

fn over_axis(run: &Run, series: &[&Series], factor: f64) -> Vec<Line> {
    let mut by_target: BTreeMap<&str, Vec<&Series>> = BTreeMap::new();
    for one in series {
        by_target.entry(&one.key.target).or_default().push(one);
    }
    let mut all = Vec::new();
    for (target, mut series) in by_target {
        series.sort_by(|a, b| a.key.at.unwrap_or(0.0).total_cmp(&b.key.at.unwrap_or(0.0)));
        let mut line = Line {
            name: target.to_owned(),
            colour: colour(run, target),
            ..Line::default()
        };
        for one in series {
            let Some(found) = summary(&one.values) else {
                continue;
            };
            line.points.push((one.key.at.unwrap_or(0.0), found.p50 / factor));
            if has_band(one) {
                line.upper.push(found.p95 / factor);
            }
        }
        all.push(line);
    }
    all.sort_by_key(|line| line.colour);
    all
}

fn medians(run: &Run, series: &[&Series], factor: f64) -> Vec<Bar> {
    let mut all: Vec<Bar> = series
        .iter()
        .filter_map(|one| {
            let rounds = Rounds::new(&one.rounds, &one.values);
            let interval = of_median(&rounds, Resampling::default())?;
            let at = one.key.at.map_or(String::new(), |at| format!(", {at}"));
            Some(Bar {
                name: format!("{}{at}", one.key.target),
                colour: colour(run, &one.key.target),
                value: rounds.median()? / factor,
                interval: (interval.low / factor, interval.high / factor),
            })
        })
        .collect();
    all.sort_by(|a, b| a.value.total_cmp(&b.value));
    all
}

fn table(series: &[&Series]) -> String {
    let (unit, factor) = series.first().map_or(("", 1.0), |series| scale(series.unit));
    let name = series.first().map_or("", |series| axis(&series.key.measure));
    let mut text = format!(
        "<details><summary>Figures ({unit})</summary><div class=\"scroll\"><table><tr><th>workload</th><th>target</th><th>{name}</th>\
         <th>n</th><th>average</th><th>deviation</th><th>min</th><th>p50</th><th>p95</th><th>p99</th><th>max</th></tr>"
    );
    for one in series {
        let Some(found) = summary(&one.values) else {
            continue;
        };
        let at = one.key.at.map_or(String::new(), |at| at.to_string());
        let _ = write!(
            text,
            "<tr><td>{}</td><td class=\"name\">{}</td><td>{at}</td><td>{}</td>",
            escape(&one.key.workload),
            escape(&one.key.target),
            found.count
        );
        let figures = [
            found.average,
            found.deviation,
            found.minimum,
            found.p50,
            found.p95,
            found.p99,
            found.maximum,
        ];
        for value in figures {
            let _ = write!(text, "<td>{}</td>", number(value / factor));
        }
        text.push_str("</tr>");
    }
    text + "</table></div></details>"
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::configuration::Configuration;
    use crate::machine::Machine;
    use crate::record::{Key, TargetRecord};

    fn run() -> Run {
        let mut run = Run::new(Configuration::quick(), Machine::default());
        run.targets.push(TargetRecord {
            name: "vm".into(),
            isolation: "a <virtual> machine".into(),
            accelerator: "KVM, pvm".into(),
            settings: BTreeMap::new(),
            details: serde_json::Value::Null,
            left_out: None,
        });
        for (measure, at) in [("cold-lone", None), ("warm", Some(1.0)), ("warm", Some(2.0))] {
            let key = Key {
                measure: measure.into(),
                workload: "c/hello".into(),
                target: "vm".into(),
                at,
            };
            let series = run.series_mut(&key, Unit::Nanoseconds);
            series.values = (1..20).map(|value| f64::from(value) * 1e5).collect();
            series.rounds = (1..20).collect();
        }
        run.leave_out("runc", "it is <not> there");
        run
    }

    #[test]
    fn the_page_has_plots_and_loads_nothing() {
        let page = render(&run());
        assert_eq!(
            page.matches("<svg").count(),
            3,
            "bars and distribution, and a line"
        );
        assert_eq!(page.matches("<svg").count(), page.matches("</svg>").count());
        for from_elsewhere in ["http:", "https:", "src=", "href=", "<script", "url(", "@import"] {
            assert!(!page.contains(from_elsewhere), "{from_elsewhere}");
        }
        assert!(page.contains("it is &lt;not&gt; there") && page.contains("a &lt;virtual&gt; machine"));
        assert!(page.contains("class=\"band"), "latency over callers has its band");
    }
}
