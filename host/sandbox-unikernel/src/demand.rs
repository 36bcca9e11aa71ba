//! How many monitor processes should wait: as many as were taken within a while, between bounds.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// How many wait even if none was ever taken.
pub(crate) const READY_MIN: usize = 2;
/// How many wait at most.
pub(crate) const READY_MAX: usize = 32;
/// How long a process that was taken counts.
const WHILE: Duration = Duration::from_secs(10);

/// The times at which processes were taken.
#[derive(Debug, Default)]
pub(crate) struct Demand {
    /// In order; more than [`READY_MAX`] change nothing.
    taken: VecDeque<Instant>,
}

impl Demand {
    /// One was taken.
    pub(crate) fn note(&mut self, now: Instant) {
        if self.taken.len() == READY_MAX {
            self.taken.pop_front();
        }
        self.taken.push_back(now);
    }

    /// How many should wait.
    pub(crate) fn ready(&mut self, now: Instant) -> usize {
        while self
            .taken
            .front()
            .is_some_and(|&at| now.duration_since(at) > WHILE)
        {
            self.taken.pop_front();
        }
        self.taken.len().max(READY_MIN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_wait_as_were_taken_lately() {
        let start = Instant::now();
        let mut demand = Demand::default();
        assert_eq!(demand.ready(start), READY_MIN);
        for second in 0..5 {
            demand.note(start + Duration::from_secs(second));
        }
        assert_eq!(demand.ready(start + Duration::from_secs(5)), 5);
        assert_eq!(demand.ready(start + Duration::from_millis(12_500)), READY_MIN);
        for _ in 0..1000 {
            demand.note(start + Duration::from_secs(20));
        }
        assert_eq!(demand.ready(start + Duration::from_secs(20)), READY_MAX);
        assert_eq!(demand.ready(start + Duration::from_secs(31)), READY_MIN);
    }
}
