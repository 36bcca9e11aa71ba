//! Whether two runs differ: series by series, medians with intervals of their ratio.
//!
//! ```text
//!                        interval of B's median / A's median
//!   differs (less)   ├──────┤ │             │
//!   agrees                    │   ├──────┤  │
//!   agrees               ├────┼─────┤       │       what the interval does not rule out is no difference
//!   differs (more)            │             │ ├─────┤
//!                      1/(1+tolerance)   1+tolerance
//! ```
//!
//! The interval is of draws of whole rounds ([`super::bootstrap`]), and so knows how rounds of *one* run differ. What
//! differs between runs besides (where the kernel has put things, what the host's other guests do) is what the tolerance is
//! for. A hundred series are compared at a time, so the confidence has to be high for none to differ by chance.

use super::bootstrap::{Interval, Resampling, Rounds, of_ratio};
use crate::record::{Key, Run, Series, Unit};

/// Tells of this client, not of what is measured.
const OF_THE_CLIENT: &str = "load-late";
/// A series with fewer samples says too little to be compared.
const SAMPLES_MIN: usize = 3;

/// When series differ.
#[derive(Debug, Clone, Copy)]
pub struct Criterion {
    /// How intervals are made.
    pub resampling: Resampling,
    /// By which part of A's median the other may be more, or the other way round, and still agree.
    pub tolerance: f64,
}

impl Default for Criterion {
    fn default() -> Self {
        Self {
            resampling: Resampling {
                confidence: 0.99,
                ..Resampling::default()
            },
            tolerance: 0.25,
        }
    }
}

/// What became of the comparison of two series.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The interval does not rule out that they are the same, within the tolerance.
    Agrees,
    /// All of the interval is above the tolerance.
    More,
    /// All of it is below.
    Less,
    /// There are too few samples of one of them.
    Unknown,
}

/// Two series of the same key.
#[derive(Debug, Clone, PartialEq)]
pub struct Comparison {
    /// What was measured.
    pub key: Key,
    /// What the numbers count.
    pub unit: Unit,
    /// Medians of both.
    pub medians: [f64; 2],
    /// Interval of the second median divided by the first.
    pub ratio: Option<Interval>,
    /// What follows.
    pub verdict: Verdict,
}

impl Comparison {
    /// Whether the two differ beyond the interval.
    pub fn differs(&self) -> bool {
        matches!(self.verdict, Verdict::More | Verdict::Less)
    }
}

/// Compares what both runs have, in the order of the first; and the keys that only one of them has.
pub fn compare(a: &Run, b: &Run, criterion: Criterion) -> (Vec<Comparison>, Vec<Key>) {
    let other = |series: &Series, run: &Run| run.series.iter().position(|one| one.key == series.key);
    let mut compared = Vec::new();
    let mut lonely = Vec::new();
    let is_shown = |series: &&Series| series.key.measure != OF_THE_CLIENT;
    for series in a.series.iter().filter(is_shown) {
        match other(series, b) {
            Some(index) => compared.push(compare_series(series, &b.series[index], criterion)),
            None => lonely.push(series.key.clone()),
        }
    }
    let only_b = b.series.iter().filter(|series| other(series, a).is_none());
    lonely.extend(only_b.map(|series| series.key.clone()));
    (compared, lonely)
}

/// Compares two series, whatever they are of.
pub fn compare_series(a: &Series, b: &Series, criterion: Criterion) -> Comparison {
    let rounds = [a, b].map(|series| Rounds::new(&series.rounds, &series.values));
    let medians = [0, 1].map(|index: usize| rounds[index].median().unwrap_or(0.0));
    let has_enough = a.values.len() >= SAMPLES_MIN && b.values.len() >= SAMPLES_MIN;
    let ratio = of_ratio(&rounds[0], &rounds[1], criterion.resampling);
    let verdict = match ratio {
        _ if has_enough && medians[0] == medians[1] => Verdict::Agrees,
        Some(interval) if has_enough => {
            let is_beyond = interval.is_beyond(1.0 + criterion.tolerance);
            match (is_beyond, interval.low > 1.0) {
                (false, _) => Verdict::Agrees,
                (true, true) => Verdict::More,
                (true, false) => Verdict::Less,
            }
        }
        _ => Verdict::Unknown,
    };
    Comparison {
        key: a.key.clone(),
        unit: a.unit,
        medians,
        ratio,
        verdict,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn series(values: &[f64]) -> Series {
        Series {
            key: Key {
                measure: "cold-lone".into(),
                workload: "c/hello".into(),
                target: "vm".into(),
                at: None,
            },
            unit: Unit::Nanoseconds,
            rounds: (0..values.len() as u32).collect(),
            values: values.to_vec(),
            failures: 0,
            failure: None,
        }
    }

    fn noisy(random: &mut fastrand::Rng, median: f64, count: usize) -> Series {
        let values: Vec<f64> = (0..count)
            .map(|_| median * (1.0 + 0.4 * (random.f64() - 0.5)))
            .collect();
        series(&values)
    }

    #[test]
    fn two_of_the_same_agree_and_a_slower_one_is_flagged() {
        let mut random = fastrand::Rng::with_seed(3);
        for _ in 0..100 {
            let a = noisy(&mut random, 1e6, 20);
            let same = compare_series(&a, &noisy(&mut random, 1e6, 20), Criterion::default());
            assert_eq!(same.verdict, Verdict::Agrees, "{same:?}");
            let slower = compare_series(&a, &noisy(&mut random, 2e6, 20), Criterion::default());
            assert_eq!(slower.verdict, Verdict::More, "{slower:?}");
            let faster = compare_series(&a, &noisy(&mut random, 5e5, 20), Criterion::default());
            assert_eq!(faster.verdict, Verdict::Less, "{faster:?}");
        }
    }

    #[test]
    fn too_few_samples_tell_nothing_and_equal_ones_agree() {
        let few = series(&[1.0, 1.0]);
        let compared = compare_series(&few, &series(&[9.0; 9]), Criterion::default());
        assert_eq!(compared.verdict, Verdict::Unknown);
        let zeros = series(&[0.0; 5]);
        assert_eq!(
            compare_series(&zeros, &zeros, Criterion::default()).verdict,
            Verdict::Agrees
        );
    }

    proptest! {
        #[test]
        fn a_series_agrees_with_itself(values in prop::collection::vec(1.0_f64..1e9, 3..60)) {
            let a = series(&values);
            prop_assert_eq!(compare_series(&a, &a, Criterion::default()).verdict, Verdict::Agrees);
        }

        #[test]
        fn more_one_way_is_less_the_other_way(
            values in prop::collection::vec(1.0_f64..2.0, 5..40),
            factor in 5.0_f64..50.0,
        ) {
            let scaled: Vec<f64> = values.iter().map(|value| value * factor).collect();
            let (a, b) = (series(&values), series(&scaled));
            prop_assert_eq!(compare_series(&a, &b, Criterion::default()).verdict, Verdict::More);
            prop_assert_eq!(compare_series(&b, &a, Criterion::default()).verdict, Verdict::Less);
        }
    }
}
