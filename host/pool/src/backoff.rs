//! Slows down starts that no request asks for while instances of a function keep failing. Pure.

use std::time::Duration;

/// Delay after the first failure; doubles with each further one.
const FIRST_DELAY: Duration = Duration::from_secs(1);
/// Longest delay.
const LONGEST_DELAY: Duration = Duration::from_secs(60);

/// Failures in a row, and when the next start is allowed.
#[derive(Debug, Default)]
pub(crate) struct Backoff {
    failures: u32,
    retry_at: Option<Duration>,
}

impl Backoff {
    /// An instance has failed to start or has ended by itself.
    pub(crate) fn failed(&mut self, now: Duration) {
        let delay = FIRST_DELAY
            .saturating_mul(1 << self.failures.min(16))
            .min(LONGEST_DELAY);
        self.failures += 1;
        self.retry_at = Some(now.saturating_add(delay));
    }

    /// An invocation was answered in full.
    pub(crate) fn worked(&mut self) {
        *self = Self::default();
    }

    /// Whether a start is allowed now.
    pub(crate) fn allows(&self, now: Duration) -> bool {
        self.retry_at.is_none_or(|retry_at| retry_at <= now)
    }

    /// When a start is allowed, if not at all times.
    pub(crate) fn retry_at(&self) -> Option<Duration> {
        self.retry_at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delay_doubles_up_to_a_minute_and_work_resets_it() {
        let mut backoff = Backoff::default();
        assert!(backoff.allows(Duration::ZERO));
        let delays: Vec<u64> = (0..8)
            .map(|_| {
                backoff.failed(Duration::from_secs(100));
                backoff.retry_at().expect("a failure sets a time").as_secs() - 100
            })
            .collect();
        assert_eq!(delays, [1, 2, 4, 8, 16, 32, 60, 60]);
        assert!(!backoff.allows(Duration::from_secs(159)));
        assert!(backoff.allows(Duration::from_secs(160)));
        backoff.worked();
        assert!(backoff.allows(Duration::ZERO));
    }
}
