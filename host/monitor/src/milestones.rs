//! How an instance came to its first answer, told when that has left: nobody who waits for the answer waits for this.

use spore_abi::layout::GUEST_PAGE_GPA;
use spore_abi::pages::GuestPage;

use crate::protocol::{Event, Milestones};
use crate::run::{Failure, Instance, host_clocks_ns};
use crate::start;

impl Instance {
    /// Tells the daemon, once and after the first bytes of the first answer, how it came to that.
    pub(crate) fn tell_milestones(&mut self) -> Result<(), Failure> {
        if !self.streams.has_answered() {
            return Ok(());
        }
        let Some(milestones) = self.milestones.take() else {
            return Ok(());
        };
        let place = GUEST_PAGE_GPA + std::mem::offset_of!(GuestPage, first_read_time_stamp) as u64;
        let stamp: u64 = self.machine.ram().read(place)?;
        let first_read_ns = (stamp != 0).then(|| {
            let ((now_ns, _), now) = (host_clocks_ns(), start::time_stamp());
            let read_ns = time_of(stamp, now, now_ns, self.clocks.shown().multiplier);
            // The guest may say anything, but it has not read before it ran.
            read_ns.max(milestones.first_instruction_ns)
        });
        let told = Milestones {
            first_read_ns,
            ..milestones
        };
        Ok(start::send(&self.control, &Event::Answered(told))?)
    }
}

/// CLOCK_MONOTONIC at a time stamp, from both as they are now; now if the stamp is ahead. `multiplier` as in
/// [`spore_abi::pages::Clock`].
fn time_of(stamp: u64, now: u64, now_ns: u64, multiplier: u64) -> u64 {
    let past_ns = (u128::from(now.saturating_sub(stamp)) * u128::from(multiplier)) >> 32;
    now_ns.saturating_sub(u64::try_from(past_ns).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_stamps_become_times_whatever_they_are() {
        // Two ticks a nanosecond.
        let multiplier = 1 << 31;
        assert_eq!(time_of(1_000, 5_000, 10_000, multiplier), 8_000);
        assert_eq!(time_of(5_000, 5_000, 10_000, multiplier), 10_000);
        assert_eq!(
            time_of(u64::MAX, 5_000, 10_000, multiplier),
            10_000,
            "ahead of now"
        );
        assert_eq!(time_of(1, u64::MAX, 10_000, multiplier), 0, "before all time");
        assert_eq!(time_of(1, u64::MAX, 10_000, u64::MAX), 0);
    }
}
