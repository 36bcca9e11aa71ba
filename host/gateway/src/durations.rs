//! Durations of one kind, kept as a histogram: pure, and bounded in memory.
//!
//! Number, average, standard deviation and maximum are exact; quantiles are at most a hundredth, or a microsecond, too
//! high. A histogram takes memory with the first duration, and more as longer ones come: about 4 KiB up to 16 ms, 13 KiB
//! at most.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

/// Decimal digits of a quantile that are right.
const SIGNIFICANT_DIGITS: u8 = 2;
/// Longer ones count as so long in quantiles, in microseconds.
const LONGEST_US: u64 = 3600 * 1_000_000;

/// What was recorded of durations of one kind.
#[derive(Debug, Default)]
pub(crate) struct Durations {
    /// In microseconds. None before the first.
    buckets: Option<Histogram<u32>>,
    count: u64,
    average_ns: f64,
    /// Sum of the squared distances from the average, kept up by Welford's method, which loses no digits.
    squares_ns: f64,
    maximum: Duration,
}

/// What can be told of durations of one kind. Without any there is only their number.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Summary {
    pub(crate) count: u64,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub(crate) figures: Option<Figures>,
}

/// Figures of at least one duration, in seconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Figures {
    pub(crate) average_seconds: f64,
    /// Of these durations, not an estimate for others: 0 if there is one only.
    pub(crate) standard_deviation_seconds: f64,
    pub(crate) p50_seconds: f64,
    pub(crate) p95_seconds: f64,
    pub(crate) p99_seconds: f64,
    pub(crate) maximum_seconds: f64,
}

impl Durations {
    /// Counts one.
    pub(crate) fn record(&mut self, duration: Duration) {
        if self.buckets.is_none() {
            // Fails only for numbers of digits that there are not.
            self.buckets = Histogram::new(SIGNIFICANT_DIGITS).ok();
        }
        if let Some(buckets) = &mut self.buckets {
            let duration_us = u64::try_from(duration.as_micros()).unwrap_or(LONGEST_US);
            // Fails only where it may not grow.
            let _ = buckets.record(duration_us.min(LONGEST_US));
        }
        let duration_ns = duration.as_secs_f64() * 1e9;
        self.count += 1;
        let distance_ns = duration_ns - self.average_ns;
        self.average_ns += distance_ns / self.count as f64;
        self.squares_ns += distance_ns * (duration_ns - self.average_ns);
        self.maximum = self.maximum.max(duration);
    }

    /// What can be told of them.
    pub(crate) fn summary(&self) -> Summary {
        let figures = self.buckets.as_ref().map(|buckets| {
            let maximum_seconds = self.maximum.as_secs_f64();
            let quantile = |share| (buckets.value_at_quantile(share) as f64 / 1e6).min(maximum_seconds);
            Figures {
                average_seconds: self.average_ns / 1e9,
                standard_deviation_seconds: (self.squares_ns / self.count as f64).sqrt() / 1e9,
                p50_seconds: quantile(0.5),
                p95_seconds: quantile(0.95),
                p99_seconds: quantile(0.99),
                maximum_seconds,
            }
        });
        Summary {
            count: self.count,
            figures,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// From below a microsecond to beyond the longest that is told apart.
    fn any_duration() -> impl Strategy<Value = Duration> {
        prop_oneof![
            0..1_000_u64,
            0..1_000_000_u64,
            0..20_000_000_000_u64,
            0..5_000_000_000_000_u64
        ]
        .prop_map(Duration::from_nanos)
    }

    /// The smallest duration that at least this share of all does not exceed.
    fn exact(sorted: &[Duration], share: f64) -> f64 {
        let rank = (share * sorted.len() as f64).ceil().max(1.0) as usize;
        sorted[rank - 1].as_secs_f64()
    }

    fn assert_close(shown: f64, exact: f64, scale: f64) -> Result<(), TestCaseError> {
        prop_assert!(
            (shown - exact).abs() <= 1e-9 * scale + 1e-9,
            "{shown} for {exact}"
        );
        Ok(())
    }

    proptest! {
        #[test]
        fn figures_are_those_of_the_samples(samples in prop::collection::vec(any_duration(), 1..400)) {
            let mut durations = Durations::default();
            samples.iter().for_each(|sample| durations.record(*sample));
            let Summary { count, figures: Some(figures) } = durations.summary() else {
                panic!("there are some");
            };
            let mut sorted = samples.clone();
            sorted.sort_unstable();
            prop_assert_eq!(count, samples.len() as u64);
            prop_assert_eq!(figures.maximum_seconds, sorted[sorted.len() - 1].as_secs_f64());
            for (shown, share) in [
                (figures.p50_seconds, 0.5),
                (figures.p95_seconds, 0.95),
                (figures.p99_seconds, 0.99),
            ] {
                let exact = exact(&sorted, share).min(LONGEST_US as f64 / 1e6);
                prop_assert!(
                    shown >= exact - 1.1e-6 && shown <= exact * 1.01 + 1.1e-6,
                    "{} is shown for the {} quantile {}", shown, share, exact
                );
                prop_assert!(shown <= figures.maximum_seconds);
            }
            let seconds: Vec<f64> = samples.iter().map(Duration::as_secs_f64).collect();
            let average = seconds.iter().sum::<f64>() / seconds.len() as f64;
            let variance = seconds.iter().map(|one| (one - average).powi(2)).sum::<f64>() / seconds.len() as f64;
            assert_close(figures.average_seconds, average, figures.maximum_seconds)?;
            assert_close(figures.standard_deviation_seconds, variance.sqrt(), figures.maximum_seconds)?;
        }
    }

    #[test]
    fn without_any_there_is_a_number_only() {
        let nothing = Durations::default();
        assert_eq!(
            serde_json::to_value(nothing.summary()).expect("JSON"),
            serde_json::json!({ "count": 0 })
        );
        assert!(nothing.buckets.is_none(), "it takes no memory yet");
    }

    #[test]
    fn one_alone_is_every_quantile() {
        let mut durations = Durations::default();
        durations.record(Duration::from_nanos(1_234_567));
        let figures = durations.summary().figures.expect("there is one");
        assert_eq!(figures.p50_seconds, figures.p99_seconds);
        assert_eq!(figures.maximum_seconds, 0.001_234_567);
        assert_eq!(figures.standard_deviation_seconds, 0.0);
    }

    #[test]
    fn memory_is_bounded() {
        const COUNTER_BYTES: usize = size_of::<u32>();
        let mut durations = Durations::default();
        let bytes = |durations: &Durations| {
            let buckets = durations.buckets.as_ref().expect("there are some");
            buckets.distinct_values() * COUNTER_BYTES
        };
        durations.record(Duration::from_millis(16));
        assert!(bytes(&durations) <= 4 << 10, "{}", bytes(&durations));
        durations.record(Duration::MAX);
        assert!(bytes(&durations) <= 13 << 10, "{}", bytes(&durations));
    }
}
