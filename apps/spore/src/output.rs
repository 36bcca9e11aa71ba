//! What people see: errors with their causes, progress, tables, ages.

use std::io::IsTerminal;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Prints an error and what led to it on standard error, one cause a line.
pub(crate) fn print_error(error: &anyhow::Error) {
    let (start, end) = if std::io::stderr().is_terminal() {
        ("\x1b[1;31m", "\x1b[0m")
    } else {
        ("", "")
    };
    eprintln!("{start}error:{end} {error}");
    let mut shown = error.to_string();
    for cause in error.chain().skip(1) {
        // Transparent errors repeat the text of what they wrap.
        let text = cause.to_string();
        if text != shown {
            eprintln!("  because: {}", text.trim_end());
            shown = text;
        }
    }
}

/// A spinner with a text, drawn only if standard error is a terminal.
pub(crate) fn spinner(message: String) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(None, draw_target()).with_message(message);
    bar.enable_steady_tick(Duration::from_millis(100));
    bar
}

/// A bar that counts bytes, drawn only if standard error is a terminal.
pub(crate) fn byte_bar(total_bytes: u64, message: String) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(Some(total_bytes), draw_target()).with_message(message);
    // The template is a constant that the test below checks; the default style is as good if it were wrong.
    if let Ok(style) = ProgressStyle::with_template(BYTE_BAR_TEMPLATE) {
        bar.set_style(style);
    }
    bar
}

const BYTE_BAR_TEMPLATE: &str = "{msg} [{bar:30}] {bytes}/{total_bytes}";

fn draw_target() -> ProgressDrawTarget {
    if std::io::stderr().is_terminal() {
        ProgressDrawTarget::stderr()
    } else {
        ProgressDrawTarget::hidden()
    }
}

/// A table with left-aligned columns; the first row is its head.
pub(crate) fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns)
        .map(|column| {
            rows.iter()
                .filter_map(|row| row.get(column))
                .map(|cell| cell.chars().count())
                .max()
                .unwrap_or(0)
        })
        .collect();
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            line.push_str(&format!("{cell:width$}   "));
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// An age in its largest unit, for example `5m`.
pub(crate) fn age(age: Duration) -> String {
    let seconds = age.as_secs();
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3_600 => format!("{}m", seconds / 60),
        3_600..86_400 => format!("{}h", seconds / 3_600),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// A duration with three digits that count, for example `1.25 ms`.
pub(crate) fn seconds(seconds: f64) -> String {
    let (value, unit) = match seconds {
        // What rounds up to the next unit is shown in that.
        ..0.000_999_5 => (seconds * 1e6, "µs"),
        ..0.999_5 => (seconds * 1e3, "ms"),
        _ => (seconds, "s"),
    };
    let decimals = match value {
        _ if unit == "µs" => 0,
        ..9.995 => 2,
        ..99.95 => 1,
        _ => 0,
    };
    format!("{value:.decimals$} {unit}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_lines_have_no_trailing_space() {
        let rows = [
            vec!["NAME".into(), "AGE".into()],
            vec!["a-long-name".into(), "5m".into()],
        ];
        assert_eq!(table(&rows), "NAME          AGE\na-long-name   5m\n");
        assert_eq!(table(&[]), "");
    }

    #[test]
    fn ages_use_the_largest_unit() {
        let shown = [0, 59, 60, 3_599, 3_600, 86_399, 86_400, 864_000].map(|s| age(Duration::from_secs(s)));
        assert_eq!(shown, ["0s", "59s", "1m", "59m", "1h", "23h", "1d", "10d"]);
    }

    #[test]
    fn durations_have_three_digits_and_a_unit() {
        let shown = [
            0.0,
            0.000_002_4,
            0.000_999_4,
            0.000_999_6,
            0.012_345,
            0.123_45,
            0.999_6,
            12.345,
            600.0,
        ]
        .map(seconds);
        assert_eq!(
            shown,
            [
                "0 µs", "2 µs", "999 µs", "1.00 ms", "12.3 ms", "123 ms", "1.00 s", "12.3 s", "600 s"
            ]
        );
    }

    #[test]
    fn the_template_of_the_bar_is_valid() {
        assert!(ProgressStyle::with_template(BYTE_BAR_TEMPLATE).is_ok());
    }
}
