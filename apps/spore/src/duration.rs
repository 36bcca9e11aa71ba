//! Durations as people write them on the command line: `90`, `90s`, `1m30s`, `500ms`.

use std::time::Duration;

/// Reads a duration: a whole number of seconds, or numbers with units.
pub(crate) fn parse(text: &str) -> Result<Duration, String> {
    let problem = || format!("\"{text}\" is no duration: write it like 30s, 1m30s or 500ms");
    if let Ok(seconds) = text.parse() {
        return Ok(Duration::from_secs(seconds));
    }
    let duration: jiff::SignedDuration = text.parse().map_err(|_| problem())?;
    duration.try_into().map_err(|_| problem())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usual_forms_are_read() {
        for (text, milliseconds) in [
            ("90", 90_000),
            ("90s", 90_000),
            ("1m30s", 90_000),
            ("500ms", 500),
            ("2h", 7_200_000),
            ("0", 0),
            ("0s", 0),
        ] {
            assert_eq!(parse(text), Ok(Duration::from_millis(milliseconds)), "{text}");
        }
        for text in ["", "s", "-5s", "5 apples", "-1"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
