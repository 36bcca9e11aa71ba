//! How many monitor processes should wait, and when the next one is to be made: pure.
//!
//! As many wait as were taken within a while, between bounds, each made for what was asked for then. When nothing happens for a while, some
//! more are made for nobody in particular, as many as take little of the machine's memory: a burst finds them, and so do starts one
//! after the other, beside which none is made.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// How many wait even if none was ever taken.
pub(crate) const READY_MIN: usize = 2;
/// How many wait at most.
pub(crate) const READY_MAX: usize = 64;
/// How long a process that was taken counts.
const WHILE: Duration = Duration::from_secs(10);
/// How long the start of an instance has the machine for itself before the next process is made ready, unless the start
/// after that would have to wait for it.
const REFILL_DELAY: Duration = Duration::from_millis(20);
/// For how long no process must have been taken before more are made than are needed.
const QUIET: Duration = Duration::from_secs(1);
/// How often those are ended that wait in vain.
const SHRINK_PAUSE: Duration = Duration::from_secs(1);

/// Which part of the machine's memory processes may take that nobody needs: one of so many.
const SPARE_SHARE: u64 = 512;
/// What one takes by itself, in bytes: kernel memory, and pages of its own.
const SPARE_BYTES: u64 = 1 << 20;
/// One of so many descriptors that the daemon may have there may be such a process for; each takes some.
const DESCRIPTORS_SHARE: u64 = 64;

/// What is to be done when no order comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    /// One more is made for what was asked for, after this time.
    Make(Duration),
    /// One more is made for nobody in particular, after this time.
    MakeSpare(Duration),
    /// It is looked again whether some wait in vain, after this time.
    Look(Duration),
    /// Nothing.
    Wait,
}

/// How many there are, or are to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Waiting {
    /// Made for what was asked for.
    pub(crate) needed: usize,
    /// Made for nobody in particular.
    pub(crate) spare: usize,
}

/// The times at which processes were taken.
#[derive(Debug)]
pub(crate) struct Demand {
    /// In order; more than [`READY_MAX`] change nothing.
    taken: VecDeque<Instant>,
    /// How many may wait that nobody needs.
    spare: usize,
}

impl Demand {
    /// Nobody has taken one; for a machine with so much memory, in bytes, and a daemon that may have so many descriptors.
    pub(crate) fn new(memory_bytes: u64, descriptors: u64) -> Self {
        let spare = (memory_bytes / SPARE_SHARE / SPARE_BYTES).min(descriptors / DESCRIPTORS_SHARE);
        Self {
            taken: VecDeque::new(),
            spare: usize::try_from(spare).map_or(READY_MAX, |spare| spare.min(READY_MAX)),
        }
    }

    /// One was taken.
    pub(crate) fn note(&mut self, now: Instant) {
        if self.taken.len() == READY_MAX {
            self.taken.pop_front();
        }
        self.taken.push_back(now);
    }

    /// How many are needed.
    fn needed(&mut self, now: Instant) -> usize {
        while self
            .taken
            .front()
            .is_some_and(|&at| now.duration_since(at) > WHILE)
        {
            self.taken.pop_front();
        }
        self.taken.len().max(READY_MIN)
    }

    /// How many are to wait. `is_plenty`: the machine has memory to spare.
    pub(crate) fn enough(&mut self, now: Instant, is_plenty: bool) -> Waiting {
        Waiting {
            needed: self.needed(now),
            spare: if is_plenty { self.spare } else { 0 },
        }
    }

    /// What is next, while these wait. `is_exhausted`: no more can be had now.
    pub(crate) fn next(
        &mut self,
        waiting: Waiting,
        now: Instant,
        is_plenty: bool,
        is_exhausted: bool,
    ) -> Next {
        let enough = self.enough(now, is_plenty);
        let missing = if is_exhausted {
            None
        } else {
            self.missing(waiting, enough, now)
        };
        // The need passes with time.
        let passes = waiting.needed > READY_MIN || waiting.spare > enough.spare;
        missing.unwrap_or(if passes {
            Next::Look(SHRINK_PAUSE)
        } else {
            Next::Wait
        })
    }

    /// What is to be made next, if anything is.
    fn missing(&self, waiting: Waiting, enough: Waiting, now: Instant) -> Option<Next> {
        if waiting.needed + waiting.spare < READY_MIN {
            return Some(Next::Make(Duration::ZERO));
        }
        if waiting.needed < enough.needed {
            return Some(Next::Make(REFILL_DELAY));
        }
        if waiting.spare < enough.spare {
            let quiet = self.taken.back().map_or(QUIET, |&at| now.duration_since(at));
            let pause = REFILL_DELAY.max(QUIET.saturating_sub(quiet));
            return Some(Next::MakeSpare(pause));
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    fn waiting(needed: usize, spare: usize) -> Waiting {
        Waiting { needed, spare }
    }

    #[test]
    fn as_many_wait_as_were_taken_lately() {
        let start = Instant::now();
        let mut demand = Demand::new(0, u64::MAX);
        let ready = |demand: &mut Demand, after_ms| {
            let enough = demand.enough(start + Duration::from_millis(after_ms), true);
            assert_eq!(enough.spare, 0);
            enough.needed
        };
        assert_eq!(ready(&mut demand, 0), READY_MIN);
        for second in 0..5 {
            demand.note(start + Duration::from_secs(second));
        }
        assert_eq!(ready(&mut demand, 5_000), 5);
        assert_eq!(ready(&mut demand, 12_500), READY_MIN);
        for _ in 0..1000 {
            demand.note(start + Duration::from_secs(20));
        }
        assert_eq!(ready(&mut demand, 20_000), READY_MAX);
        assert_eq!(ready(&mut demand, 31_000), READY_MIN);
    }

    #[test]
    fn some_more_wait_where_there_is_room() {
        let now = Instant::now();
        for (memory_bytes, spare) in [(0, 0), (GIB, 2), (4 * GIB, 8), (24 * GIB, 48), (u64::MAX, 64)] {
            let mut demand = Demand::new(memory_bytes, u64::MAX);
            assert_eq!(
                demand.enough(now, true),
                waiting(READY_MIN, spare),
                "{memory_bytes}"
            );
            assert_eq!(demand.enough(now, false), waiting(READY_MIN, 0));
        }
        for (descriptors, spare) in [(0, 0), (128, 2), (1024, 16), (1 << 20, 64)] {
            assert_eq!(Demand::new(u64::MAX, descriptors).enough(now, true).spare, spare);
        }
    }

    #[test]
    fn nobody_is_made_beside_a_start_unless_the_next_start_would_wait() {
        let now = Instant::now();
        let mut demand = Demand::new(4 * GIB, u64::MAX);
        let next = |demand: &mut Demand, needed, spare, now, is_plenty| {
            demand.next(waiting(needed, spare), now, is_plenty, false)
        };
        assert_eq!(next(&mut demand, 0, 0, now, true), Next::Make(Duration::ZERO));
        assert_eq!(next(&mut demand, 0, 8, now, true), Next::Make(REFILL_DELAY));
        assert_eq!(
            next(&mut demand, 2, 0, now, true),
            Next::MakeSpare(REFILL_DELAY),
            "it was quiet"
        );
        assert_eq!(next(&mut demand, 2, 0, now, false), Next::Wait);
        assert_eq!(next(&mut demand, 2, 8, now, true), Next::Wait);
        assert_eq!(next(&mut demand, 3, 8, now, true), Next::Look(SHRINK_PAUSE));
        assert_eq!(next(&mut demand, 2, 8, now, false), Next::Look(SHRINK_PAUSE));
        for _ in 0..4 {
            demand.note(now);
        }
        assert_eq!(next(&mut demand, 1, 0, now, true), Next::Make(Duration::ZERO));
        assert_eq!(next(&mut demand, 3, 8, now, true), Next::Make(REFILL_DELAY));
        assert_eq!(next(&mut demand, 4, 7, now, true), Next::MakeSpare(QUIET));
        let later = now + Duration::from_millis(700);
        let rest = Duration::from_millis(300);
        assert_eq!(next(&mut demand, 4, 7, later, true), Next::MakeSpare(rest));
        assert_eq!(
            next(&mut demand, 4, 8, later, true),
            Next::Look(SHRINK_PAUSE),
            "the need passes"
        );
        let (few, many) = (waiting(0, 0), waiting(3, 0));
        assert_eq!(demand.next(few, later, true, true), Next::Wait, "none can be had");
        assert_eq!(
            demand.next(many, later, true, true),
            Next::Look(SHRINK_PAUSE),
            "and the need passes all the same"
        );
        let much_later = now + 2 * WHILE;
        assert_eq!(
            next(&mut demand, 2, 7, much_later, true),
            Next::MakeSpare(REFILL_DELAY)
        );
    }
}
