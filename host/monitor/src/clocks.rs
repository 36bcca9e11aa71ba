//! The clocks of a guest, as they stand to those of the host.
//!
//! ```text
//!                    booted            booted to become a snapshot               a clone
//!   CLOCK_REALTIME   the host's        [`SNAPSHOT_AGE`] behind the host's        the host's
//!   CLOCK_MONOTONIC  the host's        the host's                                goes on where the snapshot stopped
//! ```

use std::time::{Duration, Instant};

use spore_abi::pages::Clock;

use crate::run::host_clocks_ns;
use crate::start::time_stamp;

/// How old a snapshot is when it is made: so far behind is CLOCK_REALTIME of an instance that becomes one, until it has
/// to do with the outside. What is done anew after some time is so done in clones, whenever they are made: generators of
/// random numbers draw a new seed. OpenSSL's, the slowest known, does so after an hour.
const SNAPSHOT_AGE: Duration = Duration::from_secs(3660);
/// How often the guest's clocks are set anew, at most.
const REFRESH: Duration = Duration::from_secs(1);

/// The clocks of a guest.
#[derive(Debug)]
pub(crate) struct Clocks {
    shown: Clock,
    set_at: Instant,
    /// How far CLOCK_MONOTONIC is before the host's, modulo 2^64.
    lead_ns: u64,
    /// How far CLOCK_REALTIME is behind the host's.
    behind_ns: u64,
}

impl Clocks {
    /// Those of a guest that is booted; `becomes_snapshot` if that is why. `time_stamp_khz` is the rate of the time-stamp
    /// counter.
    pub(crate) fn booted(time_stamp_khz: u64, becomes_snapshot: bool) -> Self {
        let behind_ns = match becomes_snapshot {
            true => SNAPSHOT_AGE.as_nanos() as u64,
            false => 0,
        };
        Self::new(time_stamp_khz, 0, behind_ns, 0)
    }

    /// Those of a clone of a guest that had `recorded` when it stopped.
    pub(crate) fn resumed(time_stamp_khz: u64, recorded: &Clock) -> Self {
        let (monotonic_ns, _) = host_clocks_ns();
        let lead_ns = recorded.monotonic_base_ns.wrapping_sub(monotonic_ns);
        Self::new(time_stamp_khz, lead_ns, 0, recorded.sequence.wrapping_add(1))
    }

    fn new(time_stamp_khz: u64, lead_ns: u64, behind_ns: u64, sequence: u64) -> Self {
        let mut clocks = Self {
            shown: Clock {
                tsc_base: 0,
                monotonic_base_ns: 0,
                realtime_base_ns: 0,
                multiplier: (1_000_000_u64 << 32) / time_stamp_khz.max(1),
                sequence,
            },
            set_at: Instant::now(),
            lead_ns,
            behind_ns,
        };
        clocks.read();
        clocks
    }

    fn read(&mut self) {
        self.shown.tsc_base = time_stamp();
        let (monotonic_ns, realtime_ns) = host_clocks_ns();
        self.shown.monotonic_base_ns = monotonic_ns.wrapping_add(self.lead_ns);
        self.shown.realtime_base_ns = realtime_ns.saturating_sub(self.behind_ns);
        self.set_at = Instant::now();
    }

    /// What the guest is shown.
    pub(crate) fn shown(&self) -> Clock {
        self.shown
    }

    /// CLOCK_MONOTONIC of the guest, in nanoseconds.
    pub(crate) fn monotonic_ns(&self) -> u64 {
        host_clocks_ns().0.wrapping_add(self.lead_ns)
    }

    /// What the guest is to be shown from now on, if it was shown something else for long enough.
    pub(crate) fn refreshed(&mut self) -> Option<Clock> {
        (self.set_at.elapsed() >= REFRESH).then(|| self.renewed())
    }

    /// What the guest is to be shown from now on: its clocks as they are, so that they never drift apart from the host's;
    /// CLOCK_MONOTONIC never goes back.
    pub(crate) fn renewed(&mut self) -> Clock {
        let before = self.shown;
        self.read();
        let ticks = self.shown.tsc_base.saturating_sub(before.tsc_base);
        let elapsed_ns = (u128::from(ticks) * u128::from(before.multiplier)) >> 32;
        let reached_ns = before.monotonic_base_ns.saturating_add(elapsed_ns as u64);
        self.shown.monotonic_base_ns = self.shown.monotonic_base_ns.max(reached_ns);
        self.shown.sequence = before.sequence.wrapping_add(1);
        self.shown
    }

    /// The guest becomes no snapshot, or none any more: what it is to be shown from now on, if it was shown another time.
    pub(crate) fn catch_up(&mut self) -> Option<Clock> {
        (std::mem::take(&mut self.behind_ns) != 0).then(|| self.renewed())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KHZ: u64 = 2_000_000;
    const SECOND_NS: u64 = 1_000_000_000;

    #[test]
    fn a_snapshot_is_old_from_the_start_and_its_clones_are_not() {
        let mut original = Clocks::booted(KHZ, true);
        let recorded = original.renewed();
        let (_, realtime_ns) = host_clocks_ns();
        let age_ns = realtime_ns - recorded.realtime_base_ns;
        assert!(age_ns >= SNAPSHOT_AGE.as_nanos() as u64, "{age_ns}");

        let clone = Clocks::resumed(KHZ, &recorded).shown();
        let (_, realtime_ns) = host_clocks_ns();
        assert!(realtime_ns - clone.realtime_base_ns < SECOND_NS);
        assert_ne!(clone.sequence, recorded.sequence);

        let caught_up = original.catch_up().unwrap();
        assert!(realtime_ns.abs_diff(caught_up.realtime_base_ns) < SECOND_NS);
        assert!(caught_up.monotonic_base_ns >= recorded.monotonic_base_ns);
        assert!(original.catch_up().is_none(), "once");
    }

    #[test]
    fn clones_go_on_where_the_snapshot_stopped_whatever_it_says() {
        let recorded = Clocks::booted(KHZ, true).shown();
        for monotonic_base_ns in [0, 1, recorded.monotonic_base_ns, 1 << 60, u64::MAX] {
            let recorded = Clock {
                monotonic_base_ns,
                ..recorded
            };
            let mut clone = Clocks::resumed(KHZ, &recorded);
            let passed_ns = clone.shown().monotonic_base_ns.wrapping_sub(monotonic_base_ns);
            assert!(passed_ns < SECOND_NS, "{passed_ns}");
            assert!(clone.monotonic_ns().wrapping_sub(monotonic_base_ns) < SECOND_NS);
            clone.renewed();
        }
    }
}
