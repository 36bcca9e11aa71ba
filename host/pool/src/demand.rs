//! How many instances were busy at a time lately. Pure.

use std::collections::VecDeque;
use std::time::Duration;

/// The highest number of busy instances within a span of time that ends now.
#[derive(Debug, Default)]
pub(crate) struct Demand {
    level: usize,
    /// Levels above the current one, each with the time until which it held: times ascend, levels descend. A level that
    /// came later and was as high makes an earlier one superfluous, so there is at most one entry for each level.
    earlier: VecDeque<(Duration, usize)>,
}

impl Demand {
    /// From now on so many instances are busy; what is as old as `span` is forgotten.
    pub(crate) fn set(&mut self, now: Duration, level: usize, span: Duration) {
        if level < self.level {
            while self.earlier.back().is_some_and(|(_, old)| *old <= self.level) {
                self.earlier.pop_back();
            }
            self.earlier.push_back((now, self.level));
        }
        self.level = level;
        while self
            .earlier
            .front()
            .is_some_and(|(until, _)| until.saturating_add(span) <= now)
        {
            self.earlier.pop_front();
        }
        while self.earlier.back().is_some_and(|(_, old)| *old <= level) {
            self.earlier.pop_back();
        }
    }

    /// The highest number within the span, as of the last [`Demand::set`].
    pub(crate) fn peak(&self) -> usize {
        self.earlier.front().map_or(self.level, |(_, level)| *level)
    }

    /// When the peak falls if nothing else happens.
    pub(crate) fn falls_at(&self, span: Duration) -> Option<Duration> {
        let (until, _) = self.earlier.front()?;
        Some(until.saturating_add(span))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPAN: Duration = Duration::from_secs(10);

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn the_peak_is_forgotten_step_by_step() {
        let mut demand = Demand::default();
        for (second, level) in [(0, 3), (1, 5), (2, 2), (3, 4), (4, 1), (5, 0)] {
            demand.set(at(second), level, SPAN);
        }
        let mut seen = Vec::new();
        for next in (12..=15).map(at) {
            if demand.falls_at(SPAN) != Some(next) {
                continue;
            }
            seen.push((next.as_secs(), demand.peak()));
            demand.set(next, 0, SPAN);
        }
        assert_eq!(seen, [(12, 5), (14, 4), (15, 1)]);
        assert_eq!((demand.peak(), demand.falls_at(SPAN)), (0, None));
    }

    #[test]
    fn what_lasts_is_never_forgotten_and_repetition_takes_no_memory() {
        let mut demand = Demand::default();
        for second in 0..1000 {
            demand.set(at(second), (second % 3) as usize, SPAN);
            assert!(demand.earlier.len() <= 2, "{:?}", demand.earlier);
        }
        demand.set(at(2000), 7, SPAN);
        demand.set(at(9000), 7, SPAN);
        assert_eq!((demand.peak(), demand.falls_at(SPAN)), (7, None));
    }
}
