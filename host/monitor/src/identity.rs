//! What a snapshot depends on besides its function: the library OS that is in it, and the processor that it has seen.

use kvm_bindings::KVM_MAX_CPUID_ENTRIES;
use kvm_ioctls::Kvm;

use crate::features::cpuid;
pub use crate::image::library_os;
use crate::probe::ProbeError;

/// Leaves that tell of the core on which they are read, of its caches and of its neighbours: no program finds the same in
/// them for long, whatever machine it is on.
const LEAVES_OF_A_CORE: [u32; 8] = [0x2, 0x4, 0xb, 0x18, 0x1a, 0x1f, 0x8000_001d, 0x8000_001e];
/// The leaf whose EBX has the number of the core in its highest byte.
const LEAF_OF_FEATURES: u32 = 1;
/// Leaves and parts of them that a program reads from the processor itself where its guest is not virtualised by it.
const NATIVE_LEAVES: [(u32, u32); 7] = [
    (1, 0),
    (7, 0),
    (7, 1),
    (0xd, 0),
    (0xd, 1),
    (0x8000_0001, 0),
    (0x8000_0008, 0),
];

/// The features of the processor as guests see them, and what their extended state looks like: numbers that are the same as
/// long as a program finds the same processor.
///
/// # Errors
///
/// If `/dev/kvm` cannot be opened, or does not tell.
pub fn processor_features() -> Result<Vec<u32>, ProbeError> {
    let kvm = Kvm::new().map_err(ProbeError::NoKvm)?;
    let unusable = |error: kvm_ioctls::Error| ProbeError::Unusable(Box::new(error));
    let supported = kvm.get_supported_cpuid(KVM_MAX_CPUID_ENTRIES).map_err(unusable)?;
    let mut numbers = Vec::new();
    let mut add = |leaf: u32, part: u32, [eax, ebx, ecx, edx]: [u32; 4]| {
        let ebx = if leaf == LEAF_OF_FEATURES {
            ebx & 0xff_ffff
        } else {
            ebx
        };
        numbers.extend([leaf, part, eax, ebx, ecx, edx]);
    };
    for entry in supported.as_slice() {
        if !LEAVES_OF_A_CORE.contains(&entry.function) {
            let registers = [entry.eax, entry.ebx, entry.ecx, entry.edx];
            add(entry.function, entry.index, registers);
        }
    }
    for (leaf, part) in NATIVE_LEAVES {
        // It answers for leaves that it does not have.
        let found = cpuid(leaf, part);
        add(leaf, part, [found.eax, found.ebx, found.ecx, found.edx]);
    }
    Ok(numbers)
}

#[cfg(test)]
mod tests {
    use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

    use super::*;

    #[test]
    fn features_are_the_same_on_each_core() {
        let Ok(first) = processor_features() else {
            // There is no KVM here.
            return;
        };
        assert!(!first.is_empty());
        let all = sched_getaffinity(None).unwrap();
        for core in (0..CpuSet::MAX_CPU).filter(|&core| all.is_set(core)) {
            let mut one = CpuSet::new();
            one.set(core);
            sched_setaffinity(None, &one).unwrap();
            assert_eq!(processor_features().unwrap(), first, "core {core}");
        }
        sched_setaffinity(None, &all).unwrap();
    }
}
