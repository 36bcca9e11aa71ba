//! Traces like those of a large platform, seeded: functions whose triggers, rates, regularity and durations are distributed
//! as was published of Azure Functions (Shahrad et al., "Serverless in the Wild", 2020, and the distributions that
//! `ServerlessBench` has derived of the same data).
//!
//! The figures below are quantiles of these distributions; between them values are interpolated by their logarithms. A
//! function's requests come as a renewal process: the times between them have its rate as their mean and its coefficient of
//! variation, by a gamma distribution (constant where that is nought). A day's rhythm is not in it.

use fastrand::Rng;

use super::trace::{Event, Trace};

/// Share of values that are not greater, and the value.
type Quantiles = &'static [(f64, f64)];

/// Mean duration of a function, in milliseconds. The ends are ours: a millisecond, and ten minutes, at which the platform
/// ends functions.
pub const DURATION_MS: Quantiles = &[
    (0.0, 1.0),
    (0.10, 20.0),
    (0.25, 125.0),
    (0.50, 670.0),
    (0.75, 3120.0),
    (0.90, 16_555.0),
    (0.95, 42_295.0),
    (0.99, 222_620.0),
    (1.0, 600_000.0),
];
/// Requests of a function in a day. Above the 99th percentile, values are such that the few that are asked most have the share
/// of all requests that was published: [`SHARES_OF_TOP`].
pub const CALLS_PER_DAY: Quantiles = &[
    (0.0, 0.07),
    (0.10, 0.15),
    (0.25, 0.9),
    (0.50, 5.0),
    (0.75, 120.0),
    (0.90, 1300.0),
    (0.95, 3500.0),
    (0.99, 90_000.0),
    (0.9927, 150_000.0),
    (0.9984, 700_000.0),
    (0.99974, 5.5e6),
    (1.0, 7e7),
];
/// Which share of the functions makes which share of all requests.
pub const SHARES_OF_TOP: &[(f64, f64)] = &[(0.00026, 0.5), (0.0016, 0.75), (0.0073, 0.9), (0.09, 0.99)];
/// Coefficient of variation of the time between requests, of functions that only timers start.
pub const VARIATION_OF_TIMERS: Quantiles =
    &[(0.0, 0.001), (0.50, 0.03), (0.75, 0.29), (0.90, 0.80), (1.0, 3.0)];
/// The same of all others.
pub const VARIATION_OF_OTHERS: Quantiles = &[(0.0, 0.3), (0.50, 1.7), (0.75, 3.7), (0.90, 8.5), (1.0, 33.0)];
/// Which share of the functions is started by what.
pub const TRIGGERS: &[(Trigger, f64)] = &[
    (Trigger::Http, 0.55),
    (Trigger::Queue, 0.152),
    (Trigger::Event, 0.022),
    (Trigger::Orchestration, 0.069),
    (Trigger::Timer, 0.156),
    (Trigger::Storage, 0.028),
    (Trigger::Other, 0.022),
];
const DAY_MS: f64 = 86_400_000.0;
/// A trace holds so many requests at most.
const EVENTS_MAX: usize = 2_000_000;
/// Durations of one function differ by so much, as the standard deviation of their logarithm.
const DURATION_SPREAD: f64 = 0.3;
/// Below this coefficient of variation the times are taken to be all the same.
const REGULAR: f64 = 0.01;

/// What starts a function.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trigger {
    /// A request.
    Http,
    /// A message.
    Queue,
    /// An event.
    Event,
    /// Another function that orchestrates.
    Orchestration,
    /// Time.
    Timer,
    /// A file.
    Storage,
    /// Something else.
    Other,
}

/// A function of a synthetic trace.
#[derive(Debug, Clone, PartialEq)]
pub struct Behaviour {
    /// What starts it.
    pub trigger: Trigger,
    /// How often, in a day on average.
    pub calls_per_day: f64,
    /// How irregularly: the standard deviation of the time between two requests divided by their mean.
    pub variation: f64,
    /// How long it works, in milliseconds: the median.
    pub duration_ms: f64,
}

/// The value that this share of all does not exceed.
pub fn quantile_at(quantiles: Quantiles, share: f64) -> f64 {
    let above = quantiles.partition_point(|(at, _)| *at < share);
    let (Some(&(high, top)), Some(&(low, bottom))) =
        (quantiles.get(above), quantiles.get(above.saturating_sub(1)))
    else {
        return quantiles.last().map_or(0.0, |(_, value)| *value);
    };
    if high <= low {
        return top;
    }
    let part = (share - low) / (high - low);
    (bottom.ln() + part * (top.ln() - bottom.ln())).exp()
}

/// So many functions. Rates are drawn from equal parts of the distribution, one from each, so that few functions are spread as
/// many would be.
pub fn functions(count: u32, random: &mut Rng) -> Vec<Behaviour> {
    let mut parts: Vec<u32> = (0..count).collect();
    random.shuffle(&mut parts);
    let mut durations = parts.clone();
    random.shuffle(&mut durations);
    let share = |part: u32, random: &mut Rng| (f64::from(part) + random.f64()) / f64::from(count);
    let one = |(rate, duration): (u32, u32)| {
        let trigger = trigger(random.f64());
        let variation = match trigger {
            Trigger::Timer => VARIATION_OF_TIMERS,
            _ => VARIATION_OF_OTHERS,
        };
        Behaviour {
            trigger,
            calls_per_day: quantile_at(CALLS_PER_DAY, share(rate, random)),
            variation: quantile_at(variation, random.f64()),
            duration_ms: quantile_at(DURATION_MS, share(duration, random)),
        }
    };
    parts.into_iter().zip(durations).map(one).collect()
}

fn trigger(mut share: f64) -> Trigger {
    for (trigger, part) in TRIGGERS {
        if share < *part {
            return *trigger;
        }
        share -= part;
    }
    Trigger::Other
}

/// The requests of functions within `length_ms`; none of them is asked more often than `rate_max` times in each second.
pub fn trace(functions: &[Behaviour], length_ms: f64, rate_max: f64, random: &mut Rng) -> Trace {
    let mut trace = Trace::default();
    for (index, function) in functions.iter().enumerate() {
        trace.functions.push(format!("f{index:04}"));
        let mean_ms = (DAY_MS / function.calls_per_day).max(1000.0 / rate_max);
        // Where in its cycle it is at the beginning is chance.
        let mut at_ms = gap(mean_ms, function.variation, random) * random.f64();
        while at_ms < length_ms && trace.events.len() < EVENTS_MAX {
            let spread = DURATION_SPREAD * normal(random);
            trace.events.push(Event {
                at_ms,
                function: index,
                duration_ms: function.duration_ms * spread.exp(),
            });
            at_ms += gap(mean_ms, function.variation, random);
        }
    }
    trace.events.sort_by(|a, b| a.at_ms.total_cmp(&b.at_ms));
    trace
}

/// The time to the next request.
fn gap(mean_ms: f64, variation: f64, random: &mut Rng) -> f64 {
    if variation < REGULAR {
        return mean_ms;
    }
    let shape = 1.0 / (variation * variation);
    // Bursts of a gamma distribution can be so close that a loop over them would not end.
    (gamma(shape, random) * mean_ms / shape).max(mean_ms * 1e-4)
}

/// A value of the gamma distribution with scale 1 (Marsaglia and Tsang, 2000; for shapes below 1 by their power of a uniform
/// value).
fn gamma(shape: f64, random: &mut Rng) -> f64 {
    if shape < 1.0 {
        let lifted = gamma(shape + 1.0, random);
        return lifted * positive(random).powf(1.0 / shape);
    }
    let d = shape - 1.0 / 3.0;
    let c = 1.0 / (9.0 * d).sqrt();
    loop {
        let x = normal(random);
        let v = (1.0 + c * x).powi(3);
        if v > 0.0 && positive(random).ln() < 0.5 * x * x + d - d * v + d * v.ln() {
            return d * v;
        }
    }
}

/// A value of the standard normal distribution (Box and Muller).
fn normal(random: &mut Rng) -> f64 {
    (-2.0 * positive(random).ln()).sqrt() * (std::f64::consts::TAU * random.f64()).cos()
}

/// A value above 0, up to 1.
fn positive(random: &mut Rng) -> f64 {
    1.0 - random.f64()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MANY: u32 = 20_000;

    /// Asserts that as many values are at or below each quantile as it says.
    fn assert_distributed(values: &[f64], quantiles: Quantiles) {
        for (share, value) in quantiles
            .iter()
            .filter(|(share, _)| (0.05..0.995).contains(share))
        {
            let below = values.iter().filter(|found| *found <= value).count() as f64 / values.len() as f64;
            // Four standard deviations of a share.
            let tolerance = 4.0 * (share * (1.0 - share) / values.len() as f64).sqrt();
            assert!(
                (below - share).abs() < tolerance,
                "{below} of values are up to {value}, not {share}"
            );
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(8))]

        #[test]
        fn functions_are_distributed_as_was_published(seed in any::<u64>()) {
            let all = functions(MANY, &mut fastrand::Rng::with_seed(seed));
            let rates: Vec<f64> = all.iter().map(|function| function.calls_per_day).collect();
            assert_distributed(&rates, CALLS_PER_DAY);
            let durations: Vec<f64> = all.iter().map(|function| function.duration_ms).collect();
            assert_distributed(&durations, DURATION_MS);
            let (timers, others): (Vec<_>, Vec<_>) =
                all.iter().partition(|function| function.trigger == Trigger::Timer);
            let of = |some: &[&Behaviour]| some.iter().map(|function| function.variation).collect::<Vec<_>>();
            assert_distributed(&of(&timers), VARIATION_OF_TIMERS);
            assert_distributed(&of(&others), VARIATION_OF_OTHERS);
            for (trigger, share) in TRIGGERS {
                let found = all.iter().filter(|function| function.trigger == *trigger).count() as f64 / f64::from(MANY);
                prop_assert!((found - share).abs() < 0.02, "{:?}: {}", trigger, found);
            }
        }

        #[test]
        fn few_functions_make_most_requests(seed in any::<u64>()) {
            let all = functions(200_000, &mut fastrand::Rng::with_seed(seed));
            let mut rates: Vec<f64> = all.iter().map(|function| function.calls_per_day).collect();
            rates.sort_by(|a, b| b.total_cmp(a));
            let total: f64 = rates.iter().sum();
            for (top, share) in SHARES_OF_TOP {
                let count = (top * rates.len() as f64) as usize;
                let found = rates[..count].iter().sum::<f64>() / total;
                prop_assert!((found - share).abs() < 0.06, "{} of functions make {}, not {}", top, found, share);
            }
        }

        #[test]
        fn requests_come_as_often_and_as_irregularly_as_they_should(
            seed in any::<u64>(),
            variation in prop::sample::select(vec![0.0, 0.3, 1.0, 2.0]),
        ) {
            let mut random = fastrand::Rng::with_seed(seed);
            let gaps: Vec<f64> = (0..40_000).map(|_| gap(50.0, variation, &mut random)).collect();
            let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
            let deviation = (gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / gaps.len() as f64).sqrt();
            prop_assert!((mean / 50.0 - 1.0).abs() < 0.08, "mean {}", mean);
            prop_assert!((deviation / mean - variation).abs() < 0.1 * variation.max(0.1), "variation {}", deviation / mean);
        }

        #[test]
        fn the_same_seed_gives_the_same_trace(seed in any::<u64>()) {
            let make = || {
                let mut random = fastrand::Rng::with_seed(seed);
                let all = functions(30, &mut random);
                trace(&all, 3_600_000.0, 5.0, &mut random)
            };
            let (first, again) = (make(), make());
            prop_assert!(first.events.is_sorted_by(|a, b| a.at_ms <= b.at_ms));
            prop_assert!(first.events.iter().all(|event| event.at_ms < 3_600_000.0 && event.duration_ms > 0.0));
            prop_assert_eq!(first, again);
        }
    }

    #[test]
    fn values_between_quantiles_are_between_them() {
        assert!((quantile_at(DURATION_MS, 0.5) - 670.0).abs() < 1e-9);
        let between = quantile_at(DURATION_MS, 0.6);
        assert!(between > 670.0 && between < 3120.0);
        assert!((quantile_at(DURATION_MS, 1.0) - 600_000.0).abs() < 1e-3);
        assert!((quantile_at(DURATION_MS, 0.0) - 1.0).abs() < 1e-9);
    }
}
