//! How much all instances of a function together may log. Pure.
//!
//! Each sandbox limits what one instance logs; but a function that ends all the time gets a new instance, with a new
//! allowance, as often as somebody calls it.

use std::time::Instant;

/// Bytes that may be stored at once after a pause: twice what the files of a log hold.
const BURST_BYTES: f64 = 33_554_432.0;
/// Bytes that may be stored each second in the long run.
const RATE_BYTES_PER_S: f64 = 2_097_152.0;

/// What may be stored now.
#[derive(Debug)]
pub(super) struct Allowance {
    bytes: f64,
    grown_at: Option<Instant>,
}

impl Default for Allowance {
    fn default() -> Self {
        Self {
            bytes: BURST_BYTES,
            grown_at: None,
        }
    }
}

impl Allowance {
    /// Whether so many bytes may be stored; they are charged for then.
    pub(super) fn admit(&mut self, bytes: usize, now: Instant) -> bool {
        let since = self.grown_at.replace(now).unwrap_or(now);
        let elapsed_s = now.saturating_duration_since(since).as_secs_f64();
        self.bytes = (self.bytes + elapsed_s * RATE_BYTES_PER_S).min(BURST_BYTES);
        let fits = bytes as f64 <= self.bytes;
        if fits {
            self.bytes -= bytes as f64;
        }
        fits
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// Offers lines of a kilobyte; how many are admitted.
    fn offer(allowance: &mut Allowance, lines: usize, now: Instant) -> usize {
        (0..lines).filter(|_| allowance.admit(1024, now)).count()
    }

    #[test]
    fn a_burst_passes_then_the_rate_holds() {
        let start = Instant::now();
        let mut allowance = Allowance::default();
        assert_eq!(offer(&mut allowance, 100_000, start), 32768);
        assert_eq!(offer(&mut allowance, 100_000, start), 0);
        let later = start + Duration::from_secs(1);
        assert_eq!(offer(&mut allowance, 100_000, later), 2048);
        let much_later = start + Duration::from_secs(1_000_000);
        assert_eq!(offer(&mut allowance, 100_000, much_later), 32768);
    }
}
