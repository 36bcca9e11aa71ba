//! What a monitor says about its start, as moments of this process.

use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};
use spore_monitor::protocol::Milestones;
use spore_sandbox::StartStages;

/// The stages with what the monitor says, which may be wrong: nothing is ahead of now.
pub(crate) fn told(known: StartStages, milestones: &Milestones) -> StartStages {
    let now_ns = monotonic_ns();
    let now = Instant::now();
    let moment = |at_ns: u64| {
        let since = Duration::from_nanos(now_ns.saturating_sub(at_ns));
        now.checked_sub(since)
    };
    StartStages {
        mapped: moment(milestones.mapped_ns),
        first_instruction: moment(milestones.first_instruction_ns),
        handler_entered: milestones.first_read_ns.and_then(moment),
        ..known
    }
}

/// CLOCK_MONOTONIC, which is the same in a monitor: it has no time namespace of its own.
fn monotonic_ns() -> u64 {
    let time = clock_gettime(ClockId::Monotonic);
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec.unsigned_abs() as u32)
        .as_nanos()
        .try_into()
        .unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_of_the_monitor_are_moments_here_whatever_it_says() {
        let (before, before_ns) = (Instant::now(), monotonic_ns());
        let milestones = Milestones {
            mapped_ns: before_ns,
            first_instruction_ns: u64::MAX,
            first_read_ns: Some(0),
        };
        let known = StartStages {
            begun: Some(before),
            ..StartStages::default()
        };
        let stages = told(known, &milestones);
        let after = Instant::now();
        assert_eq!(stages.begun, Some(before));
        let mapped = stages.mapped.expect("it was told");
        // Both clocks were read one after the other.
        assert!(mapped >= before && mapped <= after, "{mapped:?} {before:?}");
        assert!(stages.first_instruction.expect("it was told") <= after);
        assert!(stages.handler_entered.is_none_or(|read| read < before));
        let silent = Milestones {
            first_read_ns: None,
            ..milestones
        };
        assert_eq!(told(known, &silent).handler_entered, None);
    }
}
