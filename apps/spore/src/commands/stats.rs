//! `spore stats`.

use std::process::ExitCode;

use jiff::{RoundMode, Timestamp, TimestampRound, Unit};
use spore_client::Client;
use spore_client::statistics::{Durations, FunctionStatistics};

use crate::arguments::StatsArguments;
use crate::output;

/// Shows how long a function's instances took.
pub(crate) async fn run(client: &Client, arguments: &StatsArguments) -> anyhow::Result<ExitCode> {
    let statistics = client
        .statistics(arguments.name.as_str())
        .await
        .or_else(|error| super::functions::not_found(error, &arguments.name))?;
    if arguments.json {
        return super::print_json(&serde_json::to_value(statistics)?);
    }
    super::print(&shown(&statistics))
}

fn shown(statistics: &FunctionStatistics) -> String {
    let since = whole_seconds(&statistics.since);
    let FunctionStatistics {
        name,
        initialisation,
        execution,
        cold_start,
        ..
    } = statistics;
    if initialisation.cold.count + execution.cold.count + execution.warm.count == 0 {
        return format!("{name} has not answered anything yet, since {since}\n");
    }
    let times = [
        ("initialisation, cold", &initialisation.cold),
        ("execution, cold", &execution.cold),
        ("execution, warm", &execution.warm),
    ];
    let mut text = format!("{name} since {since}\n\n{}", table("", &times));
    if cold_start.whole.count > 0 {
        let stages = [
            ("queued", &cold_start.queued),
            ("shell taken", &cold_start.shell_taken),
            ("mapped", &cold_start.mapped),
            ("first guest instruction", &cold_start.first_instruction),
            ("handler entered", &cold_start.handler_entered),
            ("answer", &cold_start.answer),
            ("whole", &cold_start.whole),
        ];
        text.push('\n');
        text.push_str(&table("COLD START", &stages));
    }
    text
}

/// A time without parts of a second, if it is one.
fn whole_seconds(time: &str) -> String {
    let rounded = time.parse::<Timestamp>().and_then(|time| {
        time.round(
            TimestampRound::new()
                .smallest(Unit::Second)
                .mode(RoundMode::Trunc),
        )
    });
    rounded.map_or_else(|_| time.to_owned(), |time| time.to_string())
}

fn table(title: &str, rows: &[(&str, &Durations)]) -> String {
    let head = [
        title,
        "COUNT",
        "AVERAGE",
        "DEVIATION",
        "P50",
        "P95",
        "P99",
        "MAXIMUM",
    ]
    .map(str::to_owned)
    .to_vec();
    let rows = rows.iter().map(|(name, durations)| {
        let figures = durations.figures.map(|figures| {
            [
                figures.average_seconds,
                figures.standard_deviation_seconds,
                figures.p50_seconds,
                figures.p95_seconds,
                figures.p99_seconds,
                figures.maximum_seconds,
            ]
            .map(output::seconds)
        });
        let mut row = vec![(*name).to_owned(), durations.count.to_string()];
        row.extend(figures.unwrap_or_else(|| std::array::from_fn(|_| "-".to_owned())));
        row
    });
    output::table(&std::iter::once(head).chain(rows).collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use spore_client::statistics::Figures;

    use super::*;

    fn durations(count: u64, seconds: f64) -> Durations {
        let figures = Figures {
            average_seconds: seconds,
            p50_seconds: seconds,
            p95_seconds: seconds,
            p99_seconds: seconds,
            maximum_seconds: seconds,
            ..Figures::default()
        };
        Durations {
            count,
            figures: (count > 0).then_some(figures),
        }
    }

    #[test]
    fn nothing_yet_is_said_plainly() {
        let statistics = FunctionStatistics {
            name: "hello".into(),
            since: "2026-01-01T00:00:00.987654321Z".into(),
            ..FunctionStatistics::default()
        };
        assert_eq!(
            shown(&statistics),
            "hello has not answered anything yet, since 2026-01-01T00:00:00Z\n"
        );
    }

    #[test]
    fn every_row_has_its_unit_and_stages_come_with_a_cold_start() {
        let mut statistics = FunctionStatistics {
            name: "hello".into(),
            since: "2026-01-01T00:00:00Z".into(),
            ..FunctionStatistics::default()
        };
        statistics.execution.warm = durations(12, 0.000_25);
        let text = shown(&statistics);
        let row = |text: &str, name: &str| {
            let line = text
                .lines()
                .find(|line| line.starts_with(name))
                .map(str::to_owned);
            line.unwrap_or_else(|| panic!("no row {name} in {text}"))
        };
        let cells = |line: &str| {
            line.split("   ")
                .map(str::trim)
                .filter(|cell| !cell.is_empty())
                .count()
        };
        assert_eq!(cells(&row(&text, "execution, warm")), 8);
        assert!(row(&text, "execution, warm").contains("250 µs"), "{text}");
        assert_eq!(cells(&row(&text, "execution, cold")), 8);
        assert!(!text.contains("COLD START"), "{text}");
        statistics.cold_start.whole = durations(1, 1.5);
        let text = shown(&statistics);
        assert!(row(&text, "whole").contains("1.50 s"), "{text}");
        assert!(row(&text, "mapped").contains(" 0 "), "{text}");
    }
}
