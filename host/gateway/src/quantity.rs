//! Numbers with units as users write them: Kubernetes quantities of memory, and durations as Go writes them.

use std::time::Duration;

/// Bytes in a Kubernetes quantity such as `128Mi`, `64M`, `1e6` or `1000000`, rounded up; none if it is not one.
#[must_use]
pub fn parse_memory(text: &str) -> Option<u64> {
    const SUFFIXES: [(&str, f64); 13] = [
        ("Ki", 1024.0),
        ("Mi", 1048576.0),
        ("Gi", 1073741824.0),
        ("Ti", 1099511627776.0),
        ("Pi", 1125899906842624.0),
        ("Ei", 1152921504606846976.0),
        ("m", 1e-3),
        ("k", 1e3),
        ("M", 1e6),
        ("G", 1e9),
        ("T", 1e12),
        ("P", 1e15),
        ("E", 1e18),
    ];
    let suffix = SUFFIXES
        .iter()
        .find_map(|(suffix, factor)| Some((text.strip_suffix(suffix)?, *factor)));
    let (number, factor) = suffix.unwrap_or((text, 1.0));
    let bytes = (parse_number(number, factor == 1.0)? * factor).ceil();
    (bytes < u64::MAX as f64).then_some(bytes as u64)
}

/// Thousandths of one processor in a Kubernetes quantity such as `500m`, `0.5` or `2`, rounded up; none if it is not
/// one.
pub(crate) fn parse_processor_millis(text: &str) -> Option<u32> {
    let (number, factor) = match text.strip_suffix('m') {
        Some(number) => (number, 1.0),
        None => (text, 1000.0),
    };
    let millis = (parse_number(number, false)? * factor).ceil();
    (millis <= f64::from(u32::MAX)).then_some(millis as u32)
}

/// A decimal number without sign; an exponent only where allowed.
fn parse_number(text: &str, exponent: bool) -> Option<f64> {
    let allowed =
        |c: char| c.is_ascii_digit() || c == '.' || (exponent && matches!(c, 'e' | 'E' | '+' | '-'));
    let plausible = text.starts_with(|c: char| c.is_ascii_digit() || c == '.') && text.chars().all(allowed);
    plausible.then(|| text.parse().ok())?
}

/// A duration: whole seconds such as `30`, or Go's form such as `1m30s`, `500ms`; none if it is neither.
pub(crate) fn parse_duration(text: &str) -> Option<Duration> {
    if let Ok(seconds) = text.parse::<u64>() {
        return Some(Duration::from_secs(seconds));
    }
    let mut rest = text;
    let mut seconds = 0.0;
    while !rest.is_empty() {
        let unit_at = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number = parse_number(&rest[..unit_at], false)?;
        rest = &rest[unit_at..];
        let number_at = rest
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .unwrap_or(rest.len());
        let unit = match &rest[..number_at] {
            "ns" => 1e-9,
            "us" | "µs" | "μs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return None,
        };
        rest = &rest[number_at..];
        seconds += number * unit;
    }
    if text.is_empty() {
        None
    } else {
        Duration::try_from_secs_f64(seconds).ok()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn memory_in_all_forms() {
        let cases = [
            ("128Mi", 128 << 20),
            ("5Mi", 5 << 20),
            ("64M", 64_000_000),
            ("1e3", 1000),
            ("1000", 1000),
        ];
        for (text, bytes) in
            cases
                .into_iter()
                .chain([("1.5Ki", 1536), ("1500m", 2), ("0", 0), ("1Gi", 1 << 30)])
        {
            assert_eq!(parse_memory(text), Some(bytes), "{text}");
        }
        for bad in [
            "", "Mi", "-1Mi", "1 Mi", "1MB", "1e3Mi", "inf", "nan", "99999Ei", ".",
        ] {
            assert_eq!(parse_memory(bad), None, "{bad}");
        }
    }

    #[test]
    fn processor_time_in_all_forms() {
        for (text, millis) in [
            ("500m", 500),
            ("0.5", 500),
            ("2", 2000),
            ("0.0001", 1),
            ("1.5m", 2),
            ("0", 0),
        ] {
            assert_eq!(parse_processor_millis(text), Some(millis), "{text}");
        }
        for bad in ["", "m", "-1", "1k", "1e3", "99999999999", "one"] {
            assert_eq!(parse_processor_millis(bad), None, "{bad}");
        }
    }

    #[test]
    fn durations_in_all_forms() {
        for (text, ms) in [
            ("30", 30_000),
            ("0", 0),
            ("1m30s", 90_000),
            ("500ms", 500),
            ("1.5h", 5_400_000),
            ("0s", 0),
        ] {
            assert_eq!(parse_duration(text), Some(Duration::from_millis(ms)), "{text}");
        }
        for bad in [
            "",
            "s",
            "1x",
            "-1s",
            "1s2",
            "1..s",
            "1e3s",
            "99999999999999999999h",
        ] {
            assert_eq!(parse_duration(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn nothing_panics(text in "[0-9a-zA-Zµ.+ -]{0,30}") {
            let _ = parse_memory(&text);
            let _ = parse_processor_millis(&text);
            let _ = parse_duration(&text);
        }

        #[test]
        fn whole_numbers_are_exact(number in 0u64..1 << 40) {
            prop_assert_eq!(parse_memory(&format!("{number}")), Some(number));
            prop_assert_eq!(parse_memory(&format!("{number}Ki")), Some(number << 10));
        }
    }
}
