//! How many instances a function's load asks for, and when it may have none. Pure.
//!
//! What a load is depends on [`LoadKind`], but each is the growth of a number over time: of the requests that have begun, or
//! of how many there were at a time, multiplied by how long. Its mean over the last [`LOAD_WINDOW`], divided by what one
//! instance is to bear, is how many instances are wanted; they come down only when nothing higher was wanted for the
//! *down window*.
//!
//! ```text
//!            load in the window, or wanted within the down window
//!   quiet ──────────────────────────────────────────────> judged every second
//!     ^                                                        │
//!     └──── no load in the window, nothing wanted any more ────┘
//! ```

use std::collections::VecDeque;
use std::time::Duration;

use crate::demand::Demand;

/// Over which time a load is the mean.
pub const LOAD_WINDOW: Duration = Duration::from_secs(10);

/// How often the load is judged while there is any.
pub const JUDGEMENT_PAUSE: Duration = Duration::from_secs(1);

/// What a function's load is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LoadKind {
    /// Requests that begin, in a second.
    RequestsPerSecond,
    /// Requests under way, those that wait for an instance included.
    InFlight,
    /// Processor time that instances use, in thousandths of one processor.
    Processor,
    /// Invocations that nobody waits for and that have not been answered.
    Queued,
}

/// How much of a load one instance is to bear.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ScaleTarget {
    /// Which load.
    pub kind: LoadKind,
    /// How much of it, in thousandths; not zero.
    pub per_instance_thousandths: u64,
}

/// How many instances there are beyond those that requests ask for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Scaling {
    /// What is kept started under load; nothing beyond the minimum without it.
    pub target: Option<ScaleTarget>,
    /// For how long instances are kept that a higher load has asked for.
    pub down_window: Duration,
    /// After so long without a request under way no instance is kept, whatever the minimum; until then at least one is.
    /// Without it the minimum counts all the time.
    pub zero_after: Option<Duration>,
}

/// What has grown by how much at a moment.
#[derive(Debug, Clone, Copy)]
struct Sample {
    at: Duration,
    /// The load, multiplied by nanoseconds.
    total: u128,
}

/// Judges the load of one function.
#[derive(Debug, Default)]
pub(crate) struct Load {
    /// The load so far, multiplied by nanoseconds.
    total: u128,
    /// What there is at a time, since when.
    level: usize,
    since: Duration,
    /// One for each judgement, oldest first; the first is the only one that may be older than the window.
    samples: VecDeque<Sample>,
    next_at: Option<Duration>,
    wanted: Demand,
    down_window: Duration,
}

impl Load {
    /// From now on there is so much at a time.
    pub(crate) fn set_level(&mut self, now: Duration, level: usize) {
        self.total += self.level as u128 * now.saturating_sub(self.since).as_nanos();
        (self.level, self.since) = (level, now);
        if level > 0 {
            self.wake(now, self.total);
        }
    }

    /// A request has begun.
    pub(crate) fn count(&mut self, now: Duration) {
        self.add(now, Duration::from_secs(1).as_nanos());
    }

    /// Instances have used so much processor time.
    pub(crate) fn use_processor(&mut self, now: Duration, used: Duration) {
        if !used.is_zero() {
            self.add(now, used.as_nanos() * 1000);
        }
    }

    fn add(&mut self, now: Duration, amount: u128) {
        let before = self.total;
        self.total += amount;
        self.wake(now, before);
    }

    /// After a time without load there is some.
    fn wake(&mut self, now: Duration, total: u128) {
        if self.next_at.is_none() {
            self.samples.push_back(Sample { at: now, total });
            self.next_at = Some(now.saturating_add(JUDGEMENT_PAUSE));
        }
    }

    /// Judges the load if it is time to; what it wants is then in [`Load::wanted`].
    pub(crate) fn judge(&mut self, now: Duration, scaling: &Scaling) {
        let Some(target) = scaling.target else {
            *self = Self::default();
            return;
        };
        self.down_window = scaling.down_window;
        if self.next_at.is_none_or(|next| next > now) {
            return;
        }
        self.set_level(now, self.level);
        let begin = now.saturating_sub(LOAD_WINDOW);
        while self.samples.get(1).is_some_and(|second| second.at <= begin) {
            self.samples.pop_front();
        }
        let base = self.samples.front().map_or(self.total, |sample| sample.total);
        let grown = self.total.saturating_sub(base);
        // Loads are small numbers: a million for ten seconds is 10^16 nanoseconds.
        let thousandths = grown.saturating_mul(1000) / LOAD_WINDOW.as_nanos();
        let per_instance = u128::from(target.per_instance_thousandths.max(1));
        let wanted = usize::try_from(thousandths.div_ceil(per_instance)).unwrap_or(usize::MAX);
        self.wanted.set(now, wanted, self.down_window);
        self.samples.push_back(Sample {
            at: now,
            total: self.total,
        });
        let is_quiet = grown == 0 && self.level == 0 && self.wanted.peak() == 0;
        self.next_at = (!is_quiet).then(|| now.saturating_add(JUDGEMENT_PAUSE));
        if is_quiet {
            self.samples.clear();
        }
    }

    /// How many instances the load asks for, as of the last judgement.
    pub(crate) fn wanted(&self) -> usize {
        self.wanted.peak()
    }

    /// When it is to be judged next.
    pub(crate) fn next_at(&self) -> Option<Duration> {
        self.next_at
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn scaling(kind: LoadKind, thousandths: u64, down_seconds: u64) -> Scaling {
        Scaling {
            target: Some(ScaleTarget {
                kind,
                per_instance_thousandths: thousandths,
            }),
            down_window: Duration::from_secs(down_seconds),
            zero_after: None,
        }
    }

    /// Judges whenever it is time to, up to then.
    fn pass(load: &mut Load, until: Duration, scaling: &Scaling) {
        while let Some(next) = load.next_at().filter(|next| *next <= until) {
            load.judge(next, scaling);
        }
    }

    #[test]
    fn a_steady_rate_asks_for_its_share_and_a_pause_for_nothing() {
        let scaling = scaling(LoadKind::RequestsPerSecond, 45_000, 0);
        let mut load = Load::default();
        let mut now = Duration::ZERO;
        for _ in 0..200 * 20 {
            now += Duration::from_millis(5);
            load.count(now);
            pass(&mut load, now, &scaling);
        }
        assert_eq!(load.wanted(), 5, "200 requests a second, 45 for each");
        pass(&mut load, now + Duration::from_secs(60), &scaling);
        assert_eq!((load.wanted(), load.next_at()), (0, None));
    }

    #[test]
    fn what_is_under_way_counts_by_how_long() {
        let scaling = scaling(LoadKind::InFlight, 2_000, 30);
        let mut load = Load::default();
        load.set_level(Duration::from_secs(100), 8);
        pass(&mut load, Duration::from_secs(105), &scaling);
        assert_eq!(load.wanted(), 2, "eight for half of the window");
        pass(&mut load, Duration::from_secs(120), &scaling);
        assert_eq!(load.wanted(), 4);
        load.set_level(Duration::from_secs(120), 0);
        pass(&mut load, Duration::from_secs(149), &scaling);
        assert_eq!(load.wanted(), 4, "within the down window");
        pass(&mut load, Duration::from_secs(200), &scaling);
        assert_eq!((load.wanted(), load.next_at()), (0, None));
    }

    #[test]
    fn processor_time_counts_in_thousandths() {
        let scaling = scaling(LoadKind::Processor, 450_000, 0);
        let mut load = Load::default();
        for second in 1..=20 {
            load.use_processor(Duration::from_secs(second), Duration::from_millis(1300));
            pass(&mut load, Duration::from_secs(second), &scaling);
        }
        assert_eq!(load.wanted(), 3, "1300 thousandths, 450 for each");
    }

    proptest! {
        /// Against the same sum, made in the simple way.
        #[test]
        fn the_mean_is_that_of_the_window(
            steps in prop::collection::vec((0u64..4_000, 0usize..50), 1..60),
            thousandths in 1u64..60_000,
        ) {
            let scaling = scaling(LoadKind::InFlight, thousandths, 0);
            let mut load = Load::default();
            let mut history = vec![(Duration::ZERO, 0)];
            let mut now = Duration::ZERO;
            for (milliseconds, level) in steps {
                let then = now + Duration::from_millis(milliseconds);
                while let Some(next) = load.next_at().filter(|next| *next <= then) {
                    load.judge(next, &scaling);
                    if next < LOAD_WINDOW {
                        continue;
                    }
                    let begin = next - LOAD_WINDOW;
                    let ends = history.iter().skip(1).map(|(at, _)| *at).chain([next]);
                    let nanoseconds: u128 = history.iter().zip(ends).map(|((since, level), end)| {
                        end.saturating_sub((*since).max(begin)).as_nanos() * *level as u128
                    }).sum();
                    let expected = (nanoseconds * 1000 / LOAD_WINDOW.as_nanos()).div_ceil(u128::from(thousandths));
                    // The window begins at a judgement, which is at most a pause before its true beginning.
                    let at_most = 50 * JUDGEMENT_PAUSE.as_nanos() * 1000 / LOAD_WINDOW.as_nanos() / u128::from(thousandths) + 1;
                    let wanted = load.wanted() as u128;
                    prop_assert!((expected..=expected + at_most).contains(&wanted), "{wanted} instead of {expected}");
                }
                now = then;
                load.set_level(now, level);
                history.push((now, level));
            }
        }
    }
}
