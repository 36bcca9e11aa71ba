//! Intervals by resampling (bootstrap, percentile method), seeded.
//!
//! Samples of one round were taken one after the other and have more in common than samples of different rounds: the
//! machine was hot, or busy with something else. So whole rounds are drawn, with replacement, and never single samples: the
//! interval says what other rounds would have given.

use super::quantile_of;

/// Bounds between which a figure lies with the probability that was asked for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Interval {
    /// Lower bound.
    pub low: f64,
    /// Upper bound.
    pub high: f64,
}

impl Interval {
    /// Whether all of it is above `bound`, or all of it below its reciprocal: for ratios.
    pub fn is_beyond(&self, bound: f64) -> bool {
        self.low > bound || self.high < 1.0 / bound
    }
}

/// How intervals are made.
#[derive(Debug, Clone, Copy)]
pub struct Resampling {
    /// Probability that the figure lies within, 0 to 1.
    pub confidence: f64,
    /// How often rounds are drawn anew.
    pub repetitions: usize,
    /// Where the draws begin: the same seed gives the same interval.
    pub seed: u64,
}

impl Default for Resampling {
    fn default() -> Self {
        Self {
            confidence: 0.95,
            repetitions: 1000,
            seed: 1,
        }
    }
}

/// Samples by the round in which they were taken.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Rounds(Vec<Vec<f64>>);

impl Rounds {
    /// Samples with the round of each; rounds without samples do not count.
    pub fn new(rounds: &[u32], values: &[f64]) -> Self {
        let mut grouped = std::collections::BTreeMap::<u32, Vec<f64>>::new();
        for (round, value) in rounds.iter().zip(values) {
            grouped.entry(*round).or_default().push(*value);
        }
        Self(grouped.into_values().collect())
    }

    /// The median of all samples; `None` if there are none.
    pub fn median(&self) -> Option<f64> {
        quantile_of(&mut self.0.concat(), 0.5)
    }

    /// Medians of so many draws, each of as many rounds as there are.
    fn medians(&self, draws: usize, random: &mut fastrand::Rng) -> Vec<f64> {
        let mut drawn = Vec::new();
        let mut draw = || {
            drawn.clear();
            for _ in &self.0 {
                drawn.extend_from_slice(&self.0[random.usize(..self.0.len())]);
            }
            quantile_of(&mut drawn, 0.5)
        };
        (0..draws).filter_map(|_| draw()).collect()
    }
}

/// The interval of the median of samples; `None` if there are none.
pub fn of_median(samples: &Rounds, how: Resampling) -> Option<Interval> {
    let mut random = fastrand::Rng::with_seed(how.seed);
    within(samples.medians(how.repetitions, &mut random), how.confidence)
}

/// The interval of the median of `b` divided by that of `a`; `None` if there are no samples of one, or only zeros of `a`.
pub fn of_ratio(a: &Rounds, b: &Rounds, how: Resampling) -> Option<Interval> {
    let mut random = fastrand::Rng::with_seed(how.seed);
    let of_a = a.medians(how.repetitions, &mut random);
    let of_b = b.medians(how.repetitions, &mut random);
    let ratios = of_a.iter().zip(&of_b).map(|(a, b)| b / a);
    within(ratios.filter(|ratio| ratio.is_finite()).collect(), how.confidence)
}

/// What lies between the outer parts of the figures.
fn within(mut figures: Vec<f64>, confidence: f64) -> Option<Interval> {
    let outside = (1.0 - confidence) / 2.0;
    let low = quantile_of(&mut figures, outside)?;
    let high = quantile_of(&mut figures, 1.0 - outside)?;
    Some(Interval { low, high })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rounds(values: &[f64]) -> Rounds {
        let numbers: Vec<u32> = (0..values.len() as u32).collect();
        Rounds::new(&numbers, values)
    }

    #[test]
    fn samples_of_one_round_stay_together() {
        let same_round = Rounds::new(&[3, 3, 3], &[1.0, 2.0, 9.0]);
        let found = of_median(&same_round, Resampling::default());
        assert_eq!(
            found,
            Some(Interval { low: 2.0, high: 2.0 }),
            "there is one round to draw"
        );
        let three = of_median(&rounds(&[1.0, 2.0, 9.0]), Resampling::default()).expect("there are samples");
        assert!(three.low < three.high);
    }

    #[test]
    fn nothing_has_no_interval() {
        assert_eq!(of_median(&rounds(&[]), Resampling::default()), None);
        assert_eq!(
            of_ratio(&rounds(&[0.0]), &rounds(&[1.0]), Resampling::default()),
            None
        );
    }

    /// Of 300 experiments whose truth is known, at least nine in ten intervals of 95 % hold it.
    #[test]
    fn intervals_hold_the_truth_as_often_as_they_say() {
        let mut random = fastrand::Rng::with_seed(7);
        let hits = (0..300).filter(|&seed| {
            let samples: Vec<f64> = (0..40).map(|_| random.f64()).collect();
            let how = Resampling {
                seed,
                repetitions: 400,
                ..Resampling::default()
            };
            let found = of_median(&rounds(&samples), how).expect("there are samples");
            (found.low..=found.high).contains(&0.5)
        });
        let hits = hits.count();
        assert!((270..300).contains(&hits), "{hits} of 300");
    }

    proptest! {
        #[test]
        fn an_interval_is_made_of_samples_and_the_same_for_the_same_seed(
            samples in prop::collection::vec(1.0_f64..1e6, 1..60),
            seed in any::<u64>(),
        ) {
            let how = Resampling { seed, repetitions: 50, ..Resampling::default() };
            let samples = rounds(&samples);
            let found = of_median(&samples, how).expect("there are samples");
            prop_assert!(found.low <= found.high);
            let all = samples.0.concat();
            prop_assert!(all.contains(&found.low) && all.contains(&found.high));
            prop_assert_eq!(of_median(&samples, how), Some(found));
        }

        #[test]
        fn a_factor_of_all_samples_is_the_factor_of_the_interval(
            samples in prop::collection::vec(1.0_f64..1e6, 1..40),
            factor in 0.1_f64..10.0,
        ) {
            let how = Resampling { repetitions: 50, ..Resampling::default() };
            let scaled: Vec<f64> = samples.iter().map(|sample| sample * factor).collect();
            let plain = of_median(&rounds(&samples), how).expect("there are samples");
            let found = of_median(&rounds(&scaled), how).expect("there are samples");
            prop_assert!((found.low / plain.low - factor).abs() < 1e-9 * factor);
            prop_assert!((found.high / plain.high - factor).abs() < 1e-9 * factor);
        }
    }
}
