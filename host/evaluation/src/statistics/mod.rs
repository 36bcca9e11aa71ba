//! Figures of samples: pure, and the same for the same samples.
//!
//! - [`bootstrap`]: how far a figure of few samples can be trusted;
//! - [`comparison`]: whether two runs differ by more than that.

pub mod bootstrap;
pub mod comparison;

use std::cmp::Ordering;

/// The sample at `fraction` (0 to 1) of the sorted samples: the smallest one that at least that part of them does
/// not exceed. `None` if there are none.
pub fn quantile<T: Copy + PartialOrd>(samples: &[T], fraction: f64) -> Option<T> {
    let mut sorted = samples.to_vec();
    quantile_of(&mut sorted, fraction)
}

/// The same of samples that may be put into another order.
pub(crate) fn quantile_of<T: Copy + PartialOrd>(samples: &mut [T], fraction: f64) -> Option<T> {
    if samples.is_empty() {
        return None;
    }
    let rank = (fraction * samples.len() as f64).ceil() as usize;
    let index = rank.clamp(1, samples.len()) - 1;
    let by_value = |a: &T, b: &T| a.partial_cmp(b).unwrap_or(Ordering::Equal);
    Some(*samples.select_nth_unstable_by(index, by_value).1)
}

/// What is told of a series, in the unit of its samples.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Summary {
    /// Number of samples.
    pub count: usize,
    /// Their average.
    pub average: f64,
    /// Standard deviation of these samples (not an estimate for others): 0 if there is one.
    pub deviation: f64,
    /// The least.
    pub minimum: f64,
    /// Quantiles, each the smallest sample that this share of all does not exceed.
    pub p50: f64,
    /// See `p50`.
    pub p95: f64,
    /// See `p50`.
    pub p99: f64,
    /// The greatest.
    pub maximum: f64,
}

/// The figures of samples; `None` if there are none.
pub fn summary(samples: &[f64]) -> Option<Summary> {
    let count = samples.len();
    let mut sorted = samples.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    let (minimum, maximum) = (*sorted.first()?, *sorted.last()?);
    let average = samples.iter().sum::<f64>() / count as f64;
    let variance = samples
        .iter()
        .map(|sample| (sample - average).powi(2))
        .sum::<f64>()
        / count as f64;
    let at = |fraction: f64| sorted[((fraction * count as f64).ceil() as usize).clamp(1, count) - 1];
    Some(Summary {
        count,
        average,
        deviation: variance.sqrt(),
        minimum,
        p50: at(0.5),
        p95: at(0.95),
        p99: at(0.99),
        maximum,
    })
}

/// At most so many points `(value, share of samples that are not greater)` of the distribution of samples, from the least to
/// the greatest.
pub fn distribution(samples: &[f64], points: usize) -> Vec<(f64, f64)> {
    let mut sorted = samples.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    let count = sorted.len();
    let shown = points.min(count);
    let index = |point: usize| {
        if shown < 2 {
            count - 1
        } else {
            point * (count - 1) / (shown - 1)
        }
    };
    (0..shown)
        .map(index)
        .map(|index| (sorted[index], (index + 1) as f64 / count as f64))
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn quantiles_are_samples() {
        let samples: Vec<u64> = (1..=100).rev().collect();
        assert_eq!(quantile(&samples, 0.5), Some(50));
        assert_eq!(quantile(&samples, 0.99), Some(99));
        assert_eq!(quantile(&samples, 0.0), Some(1));
        assert_eq!(quantile(&samples, 1.0), Some(100));
        assert_eq!(quantile(&[7], 0.5), Some(7));
        assert_eq!(quantile::<u64>(&[], 0.5), None);
    }

    #[test]
    fn with_few_samples_the_99th_percentile_is_the_maximum() {
        assert_eq!(quantile(&[3, 1, 2], 0.99), Some(3));
    }

    #[test]
    fn a_summary_is_that_of_textbooks() {
        let found = summary(&[2.0, 4.0, 4.0, 4.0, 5.0, 5.0, 7.0, 9.0]).expect("there are samples");
        assert_eq!((found.count, found.average, found.deviation), (8, 5.0, 2.0));
        assert_eq!((found.minimum, found.p50, found.maximum), (2.0, 4.0, 9.0));
        assert_eq!(summary(&[]), None);
    }

    proptest! {
        #[test]
        fn a_quantile_has_its_share_of_samples_at_or_below(
            samples in prop::collection::vec(0_u32..1000, 1..200),
            fraction in 0.0..=1.0,
        ) {
            let found = quantile(&samples, fraction).expect("there are samples");
            let at_most = samples.iter().filter(|&&sample| sample <= found).count();
            let below = samples.iter().filter(|&&sample| sample < found).count();
            prop_assert!(samples.contains(&found));
            prop_assert!(at_most as f64 >= fraction * samples.len() as f64);
            prop_assert!(below == 0 || (below as f64) < fraction * samples.len() as f64);
        }

        #[test]
        fn figures_are_in_order_and_do_not_depend_on_the_samples_order(
            mut samples in prop::collection::vec(-1e9_f64..1e9, 1..200),
        ) {
            let found = summary(&samples).expect("there are samples");
            let ordered = [found.minimum, found.p50, found.p95, found.p99, found.maximum];
            prop_assert!(ordered.is_sorted());
            prop_assert!(found.deviation <= (found.maximum - found.minimum) / 2.0 + 1e-3);
            samples.reverse();
            let again = summary(&samples).expect("there are samples");
            prop_assert_eq!(found.p95, again.p95);
            prop_assert!((found.average - again.average).abs() < 1e-3);
        }

        #[test]
        fn a_distribution_rises_from_the_least_to_all(
            samples in prop::collection::vec(0.0_f64..1e6, 1..300),
            points in 2_usize..50,
        ) {
            let found = distribution(&samples, points);
            prop_assert!(found.len() <= points);
            prop_assert!(found.is_sorted_by(|a, b| a.0 <= b.0 && a.1 < b.1));
            prop_assert_eq!(found.last().map(|last| last.1), Some(1.0));
        }
    }
}
