//! How much an instance may log: a token bucket. Pure.

use std::time::Duration;

/// Bytes that may be logged at once after a pause.
pub const BURST_BYTES: f64 = 1_048_576.0;
/// Bytes that may be logged each second in the long run.
pub const RATE_BYTES_PER_S: f64 = 262_144.0;
/// What each frame and each line feed costs on top of the text. The daemon makes a record with instance, time and
/// source of every line, which has about this size; and a frame, however short, has to be taken out of the ring.
/// Without it a function that writes empty lines would make the daemon write a hundred times what it is charged for.
pub const OVERHEAD_BYTES: usize = 128;

/// How often a line may say that output was dropped.
const REPORT_INTERVAL_S: f64 = 1.0;
/// What such a line costs.
const REPORT_BYTES: f64 = 256.0;

/// What may be logged now, and what was dropped because it was more.
#[derive(Debug)]
pub struct Allowance {
    bytes: f64,
    dropped_bytes: u64,
    /// Until when nothing is said of dropped bytes, in seconds from now.
    quiet_s: f64,
}

/// What the text of a frame costs.
pub fn cost(text: &[u8]) -> f64 {
    let lines = text.iter().filter(|&&byte| byte == b'\n').count();
    (text.len() + OVERHEAD_BYTES * (1 + lines)) as f64
}

impl Default for Allowance {
    fn default() -> Self {
        Self::new()
    }
}

impl Allowance {
    /// A full one.
    #[must_use]
    pub fn new() -> Self {
        Self {
            bytes: BURST_BYTES,
            dropped_bytes: 0,
            quiet_s: 0.0,
        }
    }

    /// Lets time pass.
    pub fn grow(&mut self, elapsed: Duration) {
        let elapsed_s = elapsed.as_secs_f64();
        self.bytes = (self.bytes + elapsed_s * RATE_BYTES_PER_S).min(BURST_BYTES);
        self.quiet_s = (self.quiet_s - elapsed_s).max(0.0);
    }

    /// Whether something of this cost may pass; it is charged for then.
    pub fn admit(&mut self, cost: f64) -> bool {
        let fits = cost <= self.bytes;
        if fits {
            self.bytes -= cost;
        }
        fits
    }

    /// Takes a charge back: what was admitted could not leave.
    pub fn refund(&mut self, cost: f64) {
        self.bytes = (self.bytes + cost).min(BURST_BYTES);
    }

    /// Counts bytes that the log will never see.
    pub fn count_dropped(&mut self, bytes: u64) {
        self.dropped_bytes = self.dropped_bytes.saturating_add(bytes);
    }

    /// The bytes dropped since the last report, if there are any.
    pub fn dropped_bytes(&self) -> Option<u64> {
        (self.dropped_bytes > 0).then_some(self.dropped_bytes)
    }

    /// The bytes dropped since the last report, if a line about them may pass now. The count stays until
    /// [`Allowance::reported`].
    pub fn to_report(&self) -> Option<u64> {
        let may = self.bytes >= REPORT_BYTES && self.quiet_s == 0.0;
        self.dropped_bytes().filter(|_| may)
    }

    /// The line about dropped bytes is on its way.
    pub fn reported(&mut self) {
        self.dropped_bytes = 0;
        self.bytes = (self.bytes - REPORT_BYTES).max(0.0);
        self.quiet_s = REPORT_INTERVAL_S;
    }

    /// How long until a line about dropped bytes may pass; none if there is nothing to say, or it may pass now.
    pub fn until_report(&self) -> Option<Duration> {
        if self.dropped_bytes == 0 || self.to_report().is_some() {
            return None;
        }
        let missing_s = (REPORT_BYTES - self.bytes) / RATE_BYTES_PER_S;
        // A little more, so that rounding never makes it a little less.
        Some(Duration::from_secs_f64(missing_s.max(self.quiet_s) + 0.001))
    }

    /// The instance ends: a line about dropped bytes may pass at once.
    pub fn allow_last_report(&mut self) {
        self.bytes = self.bytes.max(REPORT_BYTES);
        self.quiet_s = 0.0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Offers frames of one line; how many bytes of text pass.
    fn offer(allowance: &mut Allowance, frames: usize, frame: &[u8]) -> usize {
        let mut passed = 0;
        for _ in 0..frames {
            if allowance.admit(cost(frame)) {
                passed += frame.len();
            } else {
                allowance.count_dropped(frame.len() as u64);
            }
        }
        passed
    }

    #[test]
    fn a_burst_passes_then_the_rate_holds_and_the_rest_is_counted() {
        let frame = [b'x'; 1024];
        let mut allowance = Allowance::new();
        let passed = offer(&mut allowance, 2000, &frame);
        assert_eq!(passed, BURST_BYTES as usize / (1024 + OVERHEAD_BYTES) * 1024);
        let dropped = (2000 * 1024 - passed) as u64;
        assert_eq!(allowance.dropped_bytes(), Some(dropped));
        allowance.grow(Duration::from_secs(1));
        assert_eq!(allowance.to_report(), Some(dropped));
        assert_eq!(
            allowance.to_report(),
            Some(dropped),
            "the count stays until it was said"
        );
        allowance.reported();
        assert_eq!((allowance.to_report(), allowance.until_report()), (None, None));
        allowance.count_dropped(7);
        assert_eq!(allowance.to_report(), None, "it was said a moment ago");
        let wait = allowance.until_report().unwrap();
        allowance.grow(wait);
        assert_eq!(allowance.to_report(), Some(7));
        assert!(offer(&mut allowance, 2000, &frame) <= 2 * RATE_BYTES_PER_S as usize);
        allowance.grow(Duration::from_secs(1_000_000_000));
        assert!(allowance.bytes <= BURST_BYTES);
    }

    #[test]
    fn short_frames_and_empty_lines_cost_what_they_make_the_daemon_do() {
        let lines = 10_000;
        assert!(offer(&mut Allowance::new(), lines, b"x") <= BURST_BYTES as usize / OVERHEAD_BYTES);
        let empty_lines = [b'\n'; 4096];
        let passed = offer(&mut Allowance::new(), lines, &empty_lines);
        assert!(passed <= BURST_BYTES as usize / OVERHEAD_BYTES, "{passed} lines");
    }

    #[test]
    fn what_could_not_leave_is_not_charged() {
        let mut allowance = Allowance::new();
        assert!(allowance.admit(1000.0));
        allowance.refund(1000.0);
        assert_eq!(allowance.bytes, BURST_BYTES);
    }
}
