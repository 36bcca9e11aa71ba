//! Quantiles of samples.

/// The sample at `fraction` (0 to 1) of the sorted samples: the smallest one that at least that part of them does
/// not exceed. `None` if there are none.
pub(crate) fn quantile(samples: &[u64], fraction: f64) -> Option<u64> {
    let mut sorted = samples.to_vec();
    sorted.sort_unstable();
    let rank = (fraction * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.clamp(1, sorted.len().max(1)) - 1).copied()
}

#[cfg(test)]
mod tests {
    use super::quantile;

    #[test]
    fn quantiles_are_samples() {
        let samples: Vec<u64> = (1..=100).rev().collect();
        assert_eq!(quantile(&samples, 0.5), Some(50));
        assert_eq!(quantile(&samples, 0.99), Some(99));
        assert_eq!(quantile(&samples, 0.0), Some(1));
        assert_eq!(quantile(&samples, 1.0), Some(100));
        assert_eq!(quantile(&[7], 0.5), Some(7));
        assert_eq!(quantile(&[], 0.5), None);
    }

    #[test]
    fn with_few_samples_the_99th_percentile_is_the_maximum() {
        assert_eq!(quantile(&[3, 1, 2], 0.99), Some(3));
    }
}
