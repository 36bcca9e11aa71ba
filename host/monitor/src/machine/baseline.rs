//! What of a processor only a guest at ring 0 can change, to see that none has.

use std::ops::RangeInclusive;

use kvm_bindings::{Msrs, kvm_debugregs, kvm_msr_entry, kvm_vcpu_events, kvm_xcrs};
use kvm_ioctls::{Kvm, VcpuFd};

use super::{MSR_TIME_STAMP, MachineError, kvm_error};

/// Registers that KVM may keep and does not list (KVM API, KVM_GET_MSR_INDEX_LIST): of memory types, of machine checks, and
/// its own, those of PVM among them.
const UNLISTED: [RangeInclusive<u32>; 7] = [
    0x4b56_4d00..=0x4b56_4d1f,
    0x4b56_4df0..=0x4b56_4dff,
    0x200..=0x20f,
    0x250..=0x26f,
    0x280..=0x29f,
    0x2ff..=0x2ff,
    0x400..=0x47f,
];
/// Registers that change by themselves: the time (MSR_IA32_TSC_ADJUST tells whether it was changed), Hyper-V's run time
/// and reference counter.
const CHANGING: [u32; 3] = [MSR_TIME_STAMP, 0x4000_0010, 0x4000_0020];
/// Bases of FS and GS: the program sets them, and they are put back with the segments.
const BASES: [u32; 2] = [0xc000_0100, 0xc000_0101];

/// Registers that are read at once: KVM takes fewer than 256.
const READ_MAX: usize = 128;

/// The values, as they were before the guest ran.
#[derive(Debug, PartialEq)]
pub(super) struct Baseline {
    model_specific: Vec<(u32, u64)>,
    debug: kvm_debugregs,
    control: kvm_xcrs,
    events: kvm_vcpu_events,
}

impl Baseline {
    /// Reads all that can be read.
    pub(super) fn take(kvm: &Kvm, processor: &VcpuFd) -> Result<Self, MachineError> {
        let listed = kvm
            .get_msr_index_list()
            .map_err(kvm_error("list model-specific registers"))?;
        let unlisted = UNLISTED.into_iter().flatten();
        let mut indices: Vec<u32> = listed.as_slice().iter().copied().chain(unlisted).collect();
        indices.retain(|index| !CHANGING.contains(index) && !BASES.contains(index));
        indices.sort_unstable();
        indices.dedup();
        let (mut model_specific, mut left) = (Vec::new(), &indices[..]);
        while !left.is_empty() {
            // KVM stops at the first that this processor does not have.
            let values = read(processor, left)?;
            left = left.get(values.len() + 1..).unwrap_or_default();
            model_specific.extend(values);
        }
        Self::with(processor, model_specific)
    }

    /// What of that is another value now, if anything is.
    pub(super) fn change(&self, processor: &VcpuFd) -> Result<Option<&'static str>, MachineError> {
        let indices: Vec<u32> = self.model_specific.iter().map(|(index, _)| *index).collect();
        let now = Self::with(processor, read(processor, &indices)?)?;
        Ok(if self.model_specific != now.model_specific {
            Some("model-specific registers")
        } else if self.debug != now.debug {
            Some("debug registers")
        } else if self.control != now.control {
            Some("extended control registers")
        } else if self.events != now.events {
            Some("pending events")
        } else {
            None
        })
    }

    fn with(processor: &VcpuFd, model_specific: Vec<(u32, u64)>) -> Result<Self, MachineError> {
        Ok(Self {
            model_specific,
            debug: processor
                .get_debug_regs()
                .map_err(kvm_error("read debug registers"))?,
            control: processor
                .get_xcrs()
                .map_err(kvm_error("read extended control registers"))?,
            events: without_last_exception(
                processor
                    .get_vcpu_events()
                    .map_err(kvm_error("tell its events"))?,
            ),
        })
    }
}

/// Registers from the first one on, as far as this processor has them.
fn read(processor: &VcpuFd, indices: &[u32]) -> Result<Vec<(u32, u64)>, MachineError> {
    let mut values = Vec::with_capacity(indices.len());
    for part in indices.chunks(READ_MAX) {
        let entry = |&index: &u32| kvm_msr_entry {
            index,
            ..Default::default()
        };
        let entries: Vec<_> = part.iter().map(entry).collect();
        let mut registers = Msrs::from_entries(&entries).map_err(|_| MachineError::Features)?;
        let count = processor
            .get_msrs(&mut registers)
            .map_err(kvm_error("read model-specific registers"))?;
        let read = registers.as_slice().iter().take(count);
        values.extend(read.map(|entry| (entry.index, entry.data)));
        if count < part.len() {
            break;
        }
    }
    Ok(values)
}

/// KVM goes on telling which exception it has raised last, when nothing follows from it any more.
fn without_last_exception(mut events: kvm_vcpu_events) -> kvm_vcpu_events {
    if events.exception.injected == 0 && events.exception.pending == 0 {
        events.exception = Default::default();
        (events.exception_has_payload, events.exception_payload) = (0, 0);
    }
    events
}
