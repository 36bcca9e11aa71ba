//! What instances take of this machine: memory, and processor time.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use spore_sandbox::Instance;

use crate::errors::ApiError;
use crate::functions::Function;

/// Most instances of a function whose memory is measured for one answer: each takes the kernel up to a millisecond.
const MEASURED_MAX: usize = 32;

/// How long a function is looked at to see what processor time it uses.
const WINDOW: Duration = Duration::from_millis(200);

/// How many instances say what memory they take, and how much that is. Blocks.
pub(crate) fn memory(instances: &[Arc<dyn Instance>]) -> (usize, u64) {
    let known = instances
        .iter()
        .take(MEASURED_MAX)
        .filter_map(|instance| instance.memory_bytes());
    known.fold((0, 0_u64), |(count, sum), bytes| {
        (count + 1, sum.saturating_add(bytes))
    })
}

/// The processor time that instances have used since each was started, by their identifiers. Blocks.
pub(crate) fn processor_times(instances: &[Arc<dyn Instance>]) -> Vec<(String, Duration)> {
    let times = instances
        .iter()
        .map(|instance| Some((instance.id().to_owned(), instance.processor_time()?)));
    times.flatten().collect()
}

/// What each instance had used, by its identifier.
#[derive(Debug, Default)]
pub(crate) struct Used(BTreeMap<String, Duration>);

impl Used {
    /// How much was used since then. What a new instance has used counts in full.
    pub(crate) fn since(&self, times: &[(String, Duration)]) -> Duration {
        let before = |instance: &str| self.0.get(instance).copied().unwrap_or_default();
        let used = times
            .iter()
            .map(|(instance, time)| time.saturating_sub(before(instance)));
        used.sum()
    }

    /// Notes what instances have used by now.
    pub(crate) fn note(&mut self, times: Vec<(String, Duration)>) {
        self.0.extend(times);
    }
}

/// The processor time of a function: what its instances had used whenever they were looked at.
#[derive(Debug, Default)]
pub(crate) struct ProcessorTotal {
    last: Used,
    total: Duration,
}

impl ProcessorTotal {
    /// Adds what was used since the last look.
    fn add(&mut self, times: Vec<(String, Duration)>) -> Duration {
        self.total += self.last.since(&times);
        self.last = Used::default();
        self.last.note(times);
        self.total
    }
}

/// What a function takes now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Usage {
    /// Of instances beyond those that are measured, each takes what the measured ones do on average.
    pub(crate) memory_bytes: u64,
    /// Never less than before.
    pub(crate) processor: Duration,
}

/// Looks at the instances of these functions.
pub(crate) async fn of(functions: Vec<Arc<Function>>) -> Result<Vec<Usage>, ApiError> {
    let looking =
        tokio::task::spawn_blocking(move || functions.iter().map(|function| look(function)).collect());
    Ok(looking.await?)
}

/// What a function takes while it is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rate {
    /// As [`Usage::memory_bytes`].
    pub(crate) memory_bytes: u64,
    /// Thousandths of one processor.
    pub(crate) processor_millis: u64,
}

/// Looks at the instances of a function twice.
pub(crate) async fn rate_of(function: Arc<Function>) -> Result<Rate, ApiError> {
    let (before, begun) = (of(vec![Arc::clone(&function)]).await?, Instant::now());
    tokio::time::sleep(WINDOW).await;
    let after = of(vec![function]).await?;
    let [before, after] = [before, after].map(|usage| usage.first().copied().unwrap_or_default());
    let used = after.processor.saturating_sub(before.processor);
    let share = used.as_secs_f64() / begun.elapsed().as_secs_f64();
    Ok(Rate {
        memory_bytes: after.memory_bytes,
        processor_millis: (share * 1000.0).round() as u64,
    })
}

fn look(function: &Function) -> Usage {
    let instances = function.pool.ready_instances();
    let (measured, bytes) = memory(&instances);
    let times = processor_times(&instances);
    let mut total = function.processor.lock().unwrap_or_else(PoisonError::into_inner);
    Usage {
        memory_bytes: of_all(bytes, measured, instances.len()),
        processor: total.add(times),
    }
}

fn of_all(bytes: u64, measured: usize, all: usize) -> u64 {
    let whole = u128::from(bytes) * all as u128 / (measured.max(1) as u128);
    u64::try_from(whole).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(pairs: &[(&str, u64)]) -> Vec<(String, Duration)> {
        let pair = |(name, seconds): &(&str, u64)| ((*name).to_owned(), Duration::from_secs(*seconds));
        pairs.iter().map(pair).collect()
    }

    #[test]
    fn what_was_counted_is_not_counted_again() {
        let used = Used(seconds(&[("a", 5), ("gone", 9)]).into_iter().collect());
        assert_eq!(
            used.since(&seconds(&[("a", 7), ("new", 1)])),
            Duration::from_secs(3)
        );
        assert_eq!(used.since(&seconds(&[("a", 4)])), Duration::ZERO);
    }

    #[test]
    fn a_total_outlives_the_instances_that_it_counts() {
        let mut total = ProcessorTotal::default();
        assert_eq!(total.add(seconds(&[("a", 5), ("b", 1)])), Duration::from_secs(6));
        assert_eq!(total.add(seconds(&[("a", 7)])), Duration::from_secs(8));
        assert_eq!(total.add(Vec::new()), Duration::from_secs(8));
        assert_eq!(total.add(seconds(&[("c", 2)])), Duration::from_secs(10));
    }

    #[test]
    fn those_beyond_the_measured_ones_count_as_the_others_do() {
        assert_eq!(of_all(0, 0, 5), 0);
        assert_eq!(of_all(300, 3, 3), 300);
        assert_eq!(of_all(3200, 32, 100), 10_000);
        assert_eq!(of_all(u64::MAX, 1, 2), u64::MAX);
    }
}
