//! What people read of a run: text for a terminal, and a page with plots that needs nothing from elsewhere.

mod chart;
pub mod page;
pub mod text;

use std::path::Path;

use crate::record::{RecordError, Run, Series, Unit, write_file};

/// The name of the page in the folder of a run.
pub const PAGE: &str = "report.html";

/// Writes the page of a run into its folder.
///
/// # Errors
///
/// If it cannot be written.
pub fn write_page(run: &Run, folder: &Path) -> Result<(), RecordError> {
    write_file(&folder.join(PAGE), page::render(run).as_bytes())
}

/// A unit for people and by what values are divided for it.
const fn scale(unit: Unit) -> (&'static str, f64) {
    match unit {
        Unit::Nanoseconds => ("ms", 1e6),
        Unit::Bytes => ("KiB", 1024.0),
        Unit::PerSecond => ("1/s", 1.0),
        Unit::Share => ("%", 0.01),
        Unit::MillisecondsPerSecond => ("ms/s", 1.0),
    }
}

/// The measures of a run in the order of their meanings, each with its series.
fn by_measure(run: &Run) -> Vec<(&'static str, Vec<&Series>)> {
    let of = |name: &&'static str| -> Vec<&Series> {
        let all = run.series.iter();
        all.filter(|series| series.key.measure == *name && !series.values.is_empty())
            .collect()
    };
    let names = crate::measures::MEANINGS.iter().map(|(name, ..)| *name);
    names
        .map(|name| (name, of(&name)))
        .filter(|(_, series)| !series.is_empty())
        .collect()
}

/// A number with three digits that count, without an exponent.
fn number(value: f64) -> String {
    if value == 0.0 || !value.is_finite() {
        return "0".to_owned();
    }
    let digits = value.abs().log10().floor();
    let decimals = (2.0 - digits).clamp(0.0, 6.0) as usize;
    format!("{value:.decimals$}")
}

#[cfg(test)]
mod tests {
    use super::number;

    #[test]
    fn numbers_have_three_digits() {
        let shown = [0.0, 0.001234, 1.2345, 12.345, 123.45, 123_456.7].map(number);
        assert_eq!(shown, ["0", "0.00123", "1.23", "12.3", "123", "123457"]);
    }
}
