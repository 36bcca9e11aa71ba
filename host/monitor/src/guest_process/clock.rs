//! What a virtual machine's makers are told by KVM and a process has to find out: the rate of the time-stamp counter, and
//! the processor's extended state.

use std::time::{Duration, Instant};

use crate::features::{STATE_LEAF, cpuid};
use crate::machine::StateLeaf;

/// Leaf in which a hypervisor says how fast the counter is, in kilohertz, and how many such leaves there are.
const HYPERVISOR_LEAF: u32 = 0x4000_0000;
const HYPERVISOR_CLOCK_LEAF: u32 = 0x4000_0010;
/// Leaf in which the processor says what the counter counts (Intel SDM volume 2, CPUID).
const COUNTER_LEAF: u32 = 0x15;
/// Feature bit of leaf 1 (ecx): there is a hypervisor.
const HAS_HYPERVISOR: u32 = 1 << 31;
/// How long the counter is watched if nobody says how fast it is. What is left of the error is corrected whenever the
/// guest's clocks are set.
const WATCHED: Duration = Duration::from_millis(2);

/// Rate of the time-stamp counter, in kilohertz.
pub fn time_stamp_khz() -> u64 {
    told_khz().unwrap_or_else(watched_khz)
}

fn told_khz() -> Option<u64> {
    if cpuid(1, 0).ecx & HAS_HYPERVISOR != 0 && cpuid(HYPERVISOR_LEAF, 0).eax >= HYPERVISOR_CLOCK_LEAF {
        let khz = cpuid(HYPERVISOR_CLOCK_LEAF, 0).eax;
        if khz != 0 {
            return Some(khz.into());
        }
    }
    if cpuid(0, 0).eax < COUNTER_LEAF {
        return None;
    }
    let leaf = cpuid(COUNTER_LEAF, 0);
    let is_told = leaf.eax != 0 && leaf.ebx != 0 && leaf.ecx != 0;
    is_told.then(|| u64::from(leaf.ecx) * u64::from(leaf.ebx) / u64::from(leaf.eax) / 1000)
}

fn watched_khz() -> u64 {
    let (started, first) = (Instant::now(), crate::start::time_stamp());
    while started.elapsed() < WATCHED {
        std::hint::spin_loop();
    }
    let (elapsed, ticks) = (started.elapsed(), crate::start::time_stamp().wrapping_sub(first));
    ticks * 1_000_000 / (elapsed.as_nanos() as u64).max(1)
}

/// A part of the leaf that describes the extended state, as far as the kernel has enabled it.
pub(crate) fn state_leaf(index: u32) -> Option<StateLeaf> {
    /// Feature bit of leaf 1 (ecx): the kernel has enabled `xsave`.
    const HAS_XSAVE: u32 = 1 << 27;
    if cpuid(1, 0).ecx & HAS_XSAVE == 0 {
        return None;
    }
    let leaf = cpuid(STATE_LEAF, index);
    let (mut eax, mut edx) = (leaf.eax, leaf.edx);
    if index == 0 {
        let (low, high): (u32, u32);
        // SAFETY: reads a register that is readable where the feature bit above is set.
        unsafe {
            core::arch::asm!("xgetbv", in("ecx") 0, out("eax") low, out("edx") high, options(nomem, nostack, preserves_flags));
        }
        (eax, edx) = (eax & low, edx & high);
    }
    Some(StateLeaf {
        eax,
        ebx: leaf.ebx,
        edx,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_is_what_is_seen() {
        let seen = watched_khz();
        let told = time_stamp_khz();
        // Within a few per cent: other tests run beside this one.
        assert!(told.abs_diff(seen) < seen / 20, "{told} and {seen}");
    }
}
