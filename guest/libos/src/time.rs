//! Clocks and time spans.

use spore_machine::{processor, shared};

/// Nanoseconds of a second.
pub(crate) const SECOND_NS: u64 = 1_000_000_000;

/// CLOCK_MONOTONIC, in nanoseconds.
pub(crate) fn monotonic_ns() -> u64 {
    let clock = shared::clock();
    clock.monotonic_base_ns.wrapping_add(elapsed_ns(
        processor::time_stamp(),
        clock.tsc_base,
        clock.multiplier,
    ))
}

/// CLOCK_REALTIME, in nanoseconds since 1970.
pub(crate) fn realtime_ns() -> u64 {
    let clock = shared::clock();
    clock.realtime_base_ns.wrapping_add(elapsed_ns(
        processor::time_stamp(),
        clock.tsc_base,
        clock.multiplier,
    ))
}

/// How far CLOCK_REALTIME is before CLOCK_MONOTONIC, in nanoseconds, modulo 2^64.
pub(crate) fn realtime_lead_ns() -> u64 {
    let clock = shared::clock();
    clock.realtime_base_ns.wrapping_sub(clock.monotonic_base_ns)
}

/// Nanoseconds that so many ticks of the time-stamp counter take.
pub(crate) fn ticks_to_ns(ticks: u64) -> u64 {
    elapsed_ns(ticks, 0, shared::clock().multiplier)
}

/// Ticks of the time-stamp counter that fit into a number of nanoseconds.
pub(crate) fn ns_to_ticks(time_ns: u64) -> u64 {
    let multiplier = shared::clock().multiplier;
    // Spans of seconds, which is what is asked for, need no wide division.
    match u32::try_from(time_ns) {
        Ok(time_ns) => (u64::from(time_ns) << 32).checked_div(multiplier),
        Err(_) => (u128::from(time_ns) << 32)
            .checked_div(multiplier.into())
            .map(|ticks| u64::try_from(ticks).unwrap_or(u64::MAX)),
    }
    .unwrap_or(u64::MAX)
}

/// Nanoseconds between two readings of the time-stamp counter; 0 where the second is the earlier one.
fn elapsed_ns(now: u64, base: u64, multiplier: u64) -> u64 {
    let ticks = now.saturating_sub(base);
    ((u128::from(ticks) * u128::from(multiplier)) >> 32) as u64
}

/// A `struct timespec` as 16 bytes.
pub(crate) fn timespec(time_ns: u64) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&(time_ns / SECOND_NS).to_le_bytes());
    bytes[8..].copy_from_slice(&(time_ns % SECOND_NS).to_le_bytes());
    bytes
}

/// Nanoseconds of a `struct timespec`; `None` if it is not a valid time span.
pub(crate) fn parse_timespec(bytes: [u8; 16]) -> Option<u64> {
    let [seconds, nanoseconds] = [0, 8].map(|at| {
        let mut word = [0; 8];
        word.copy_from_slice(&bytes[at..at + 8]);
        u64::from_le_bytes(word)
    });
    if seconds > i64::MAX as u64 || nanoseconds >= SECOND_NS {
        return None;
    }
    Some(seconds.saturating_mul(SECOND_NS).saturating_add(nanoseconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timespec_survives_the_round_trip() {
        for time_ns in [0, 1, SECOND_NS - 1, SECOND_NS, 1_700_000_000_123_456_789] {
            assert_eq!(parse_timespec(timespec(time_ns)), Some(time_ns));
        }
    }

    #[test]
    fn negative_and_oversized_parts_are_refused() {
        let mut negative = [0xff; 16];
        negative[8..].fill(0);
        assert_eq!(parse_timespec(negative), None);
        let mut oversized = [0; 16];
        oversized[8..].copy_from_slice(&SECOND_NS.to_le_bytes());
        assert_eq!(parse_timespec(oversized), None);
    }

    #[test]
    fn elapsed_time_scales_and_never_runs_backwards() {
        let half_ns_a_tick = 1 << 31;
        assert_eq!(elapsed_ns(3_000, 1_000, half_ns_a_tick), 1_000);
        assert_eq!(elapsed_ns(1_000, 3_000, half_ns_a_tick), 0);
        assert_eq!(elapsed_ns(u64::MAX, 0, half_ns_a_tick), u64::MAX / 2);
    }
}
