//! What KVM and the processor tell of the processor that guests have.
//!
//! Where this machine is a guest itself, each `cpuid` is an exit, and KVM alone executes dozens of them to say what it supports:
//! together they took more than half of what a machine takes to be made. So the daemon reads this once, and tells each of its
//! monitors ([`crate::protocol::Preparation::processor`]).

use core::arch::x86_64::CpuidResult;

use kvm_bindings::{CpuId, KVM_MAX_CPUID_ENTRIES, kvm_cpuid_entry2};
use kvm_ioctls::{Error, Kvm};
use serde::{Deserialize, Serialize};

use crate::features::{self, Features, STATE_LEAF};
use crate::machine::{ExtendedState, StateLeaf, extended_state};

/// The processor of guests that are virtual machines.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Processor {
    leaves: Vec<Leaf>,
    pub(crate) extended_state: ExtendedState,
    pub(crate) features: Features,
    /// Type of the task-state segment.
    pub(crate) task_state_type: u8,
}

/// A leaf of `cpuid`, or a part of one, as KVM has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Leaf {
    function: u32,
    index: u32,
    flags: u32,
    registers: [u32; 4],
}

impl Processor {
    /// Asks KVM and the processor.
    ///
    /// # Errors
    ///
    /// If `/dev/kvm` cannot be opened, or does not tell.
    pub fn read() -> Result<Self, Error> {
        Self::of(&Kvm::new()?)
    }

    pub(crate) fn of(kvm: &Kvm) -> Result<Self, Error> {
        let supported = kvm.get_supported_cpuid(KVM_MAX_CPUID_ENTRIES)?;
        let leaves = supported.as_slice().iter().map(|entry| Leaf {
            function: entry.function,
            index: entry.index,
            flags: entry.flags,
            registers: [entry.eax, entry.ebx, entry.ecx, entry.edx],
        });
        let leaves: Vec<_> = leaves.collect();
        let leaf = |function, index| {
            let mut leaves = leaves.iter();
            let leaf = leaves.find(|leaf| leaf.function == function && leaf.index == index)?;
            let [eax, ebx, ecx, edx] = leaf.registers;
            Some(CpuidResult { eax, ebx, ecx, edx })
        };
        let extended_state = extended_state(|index| leaf(STATE_LEAF, index).map(StateLeaf::from));
        let features = if features::has_hardware_virtualisation() {
            Features::new(leaf, extended_state)
        } else {
            Features::new(features::known_leaf, extended_state)
        };
        Ok(Self {
            extended_state,
            features,
            task_state_type: task_state_type(),
            leaves,
        })
    }

    /// What programs of guests see of it.
    #[must_use]
    pub fn features(&self) -> &Features {
        &self.features
    }

    /// What KVM is to let a guest's `cpuid` say. Fails if it is more than KVM takes.
    pub(crate) fn leaves(&self) -> Result<CpuId, Error> {
        let entries = self.leaves.iter().map(|leaf| {
            let [eax, ebx, ecx, edx] = leaf.registers;
            kvm_cpuid_entry2 {
                function: leaf.function,
                index: leaf.index,
                flags: leaf.flags,
                eax,
                ebx,
                ecx,
                edx,
                ..Default::default()
            }
        });
        let entries: Vec<_> = entries.collect();
        CpuId::from_entries(&entries).map_err(|_| Error::new(libc::E2BIG))
    }
}

/// Type of the task-state segment: a busy one, as after a task switch, and as VT-x demands (Intel SDM volume 3,
/// 27.3.1.2). QEMU's software emulation of AMD-V takes the I/O bitmap only from one that is not busy
/// (`helper_check_io`), so there it is that.
fn task_state_type() -> u8 {
    const AVAILABLE: u8 = 9;
    const BUSY: u8 = 11;
    const HYPERVISOR_LEAF: u32 = 0x4000_0000;
    let leaf = features::cpuid(HYPERVISOR_LEAF, 0);
    let name = [leaf.ebx, leaf.ecx, leaf.edx].map(u32::to_le_bytes);
    if name.concat() == b"TCGTCGTCGTCG" {
        AVAILABLE
    } else {
        BUSY
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_is_what_kvm_says() {
        let Ok(kvm) = Kvm::new() else {
            // There is no KVM here.
            return;
        };
        let read = Processor::of(&kvm).unwrap();
        let told: Processor = postcard::from_bytes(&postcard::to_stdvec(&read).unwrap()).unwrap();
        assert_eq!(told, read);
        let supported = kvm.get_supported_cpuid(KVM_MAX_CPUID_ENTRIES).unwrap();
        let told = told.leaves().unwrap();
        assert_eq!(told.as_slice().len(), supported.as_slice().len());
        // Some leaves tell of the core on which they are read.
        let of_features = |leaves: &CpuId| leaves.as_slice().iter().find(|leaf| leaf.function == 7).copied();
        assert_eq!(of_features(&told), of_features(&supported));
    }
}
