//! What a program can see of a processor, and has adapted itself to when it started: a snapshot can go on only where all of
//! that is there.

use core::arch::x86_64::CpuidResult;

use serde::{Deserialize, Serialize};

use crate::guest_process::state_leaf;
use crate::machine::{ExtendedState, StateLeaf, extended_state};
use crate::processor::Processor;

/// A register of the answer of `cpuid`.
#[derive(Debug, Clone, Copy)]
enum Register {
    Eax,
    Ebx,
    Ecx,
    Edx,
}

/// Words of `cpuid` with bits for what can be used at CPL 3: leaf, index, register, and those bits (Intel SDM volume 2,
/// CPUID; AMD64 APM volume 3, appendix E). Left out is what only a kernel can use, what needs a state that no guest has (AMX,
/// protection keys, shadow stacks), and what every x86-64 processor has.
const WORDS: [(u32, u32, Register, u32); 10] = [
    // SSE3 to RDRAND.
    (1, 0, Register::Ecx, 0x7ed8_3203),
    // FSGSBASE to AVX-512.
    (7, 0, Register::Ebx, 0xfdaf_0b39),
    // AVX-512 to ENQCMD.
    (7, 0, Register::Ecx, 0x3a40_5f63),
    // AVX-512, fast short moves, user interrupts, SERIALIZE, TSX.
    (7, 0, Register::Edx, 0x0081_413c),
    // SHA-512 to AVX-IFMA.
    (7, 1, Register::Eax, 0x0080_1c37),
    (7, 1, Register::Edx, 0x0028_4430),
    // XSAVEOPT, XSAVEC, XGETBV with 1.
    (0xd, 1, Register::Eax, 0x7),
    // LAHF to TBM.
    (0x8000_0001, 0, Register::Ecx, 0x2021_09e1),
    // RDTSCP and the older ones.
    (0x8000_0001, 0, Register::Edx, 0xc840_0000),
    // CLZERO, RDPRU.
    (0x8000_0008, 0, Register::Ebx, 0x11),
];
/// The parts of the extended state that a guest may have beyond the first two.
const COMPONENTS: [u32; 4] = [2, 5, 6, 7];
/// The leaf that describes the extended state.
pub(crate) const STATE_LEAF: u32 = 0xd;

/// What programs of a guest can see and use of its processor.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Features {
    /// In the order of [`WORDS`].
    words: [u32; WORDS.len()],
    /// In the order of [`COMPONENTS`]: where `xsave` puts it, in the upper half, and its size, both in bytes; 0 if it is not
    /// enabled.
    components: [u64; COMPONENTS.len()],
}

impl Features {
    /// What `leaf` (with its index) tells, of a guest with this extended state.
    pub(crate) fn new(leaf: impl Fn(u32, u32) -> Option<CpuidResult>, state: ExtendedState) -> Self {
        let word = |(number, index, register, mask)| {
            let word = leaf(number, index).map_or(0, |leaf| match register {
                Register::Eax => leaf.eax,
                Register::Ebx => leaf.ebx,
                Register::Ecx => leaf.ecx,
                Register::Edx => leaf.edx,
            });
            word & mask
        };
        let component = |component: u32| match leaf(STATE_LEAF, component) {
            Some(leaf) if state.mask >> component & 1 != 0 => u64::from(leaf.ebx) << 32 | u64::from(leaf.eax),
            _ => 0,
        };
        Self {
            words: WORDS.map(word),
            components: COMPONENTS.map(component),
        }
    }

    /// What of this is not there where guests have `here`, in words; none if all is.
    #[must_use]
    pub fn missing_in(&self, here: &Self) -> Option<String> {
        let words = WORDS.iter().zip(self.words.iter().zip(&here.words));
        let words = words.filter_map(|((leaf, index, register, mask), (wanted, there))| {
            let missing = wanted & mask & !there;
            let register = format!("{register:?}").to_lowercase();
            (missing != 0).then(|| format!("bits {missing:#x} of cpuid leaf {leaf:#x}.{index} {register}"))
        });
        let components = COMPONENTS
            .iter()
            .zip(self.components.iter().zip(&here.components));
        let components = components
            .filter(|(_, (wanted, there))| **wanted != 0 && wanted != there)
            .map(|(component, _)| format!("extended state component {component} at its place"));
        let missing: Vec<_> = words.chain(components).collect();
        (!missing.is_empty()).then(|| missing.join(", "))
    }
}

/// What guests have that are processes.
#[must_use]
pub fn of_processes() -> Features {
    Features::new(known_leaf, extended_state(state_leaf))
}

/// What guests have that are virtual machines; none if there can be no virtual machines here.
#[must_use]
pub fn of_machines() -> Option<Features> {
    Processor::read().ok().map(|processor| processor.features)
}

/// What the processor itself tells.
pub(crate) fn cpuid(leaf: u32, index: u32) -> CpuidResult {
    #[allow(unused_unsafe, reason = "safe since Rust 1.94, unsafe before")]
    // SAFETY: every 64-bit processor has CPUID.
    unsafe {
        core::arch::x86_64::__cpuid_count(leaf, index)
    }
}

/// The same where there is such a leaf: beyond the last one the processor repeats that.
pub(crate) fn known_leaf(leaf: u32, index: u32) -> Option<CpuidResult> {
    const EXTENDED: u32 = 0x8000_0000;
    (cpuid(leaf & EXTENDED, 0).eax >= leaf).then(|| cpuid(leaf, index))
}

/// Whether the processor has VT-x or AMD-V. Guests of a KVM that does without see the processor itself: nothing stops their
/// `cpuid`.
pub(crate) fn has_hardware_virtualisation() -> bool {
    const VT_X: u32 = 1 << 5;
    const AMD_V: u32 = 1 << 2;
    cpuid(1, 0).ecx & VT_X != 0 || known_leaf(0x8000_0001, 0).is_some_and(|leaf| leaf.ecx & AMD_V != 0)
}

impl From<CpuidResult> for StateLeaf {
    fn from(leaf: CpuidResult) -> Self {
        Self {
            eax: leaf.eax,
            ebx: leaf.ebx,
            edx: leaf.edx,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn features(words: u32, component: u32) -> Features {
        let leaf = |number, _| {
            let words = if number == STATE_LEAF { component } else { words };
            Some(CpuidResult {
                eax: words,
                ebx: words,
                ecx: words,
                edx: words,
            })
        };
        let state = ExtendedState {
            mask: if component == 0 { 3 } else { 0xe7 },
            bytes: 0,
        };
        Features::new(leaf, state)
    }

    #[test]
    fn a_snapshot_goes_on_where_nothing_is_missing() {
        let [none, some, all] = [0, 0x0f0f_0f0f, u32::MAX].map(|words| features(words, 0));
        for (wanted, here, goes_on) in [
            (&none, &none, true),
            (&none, &all, true),
            (&some, &all, true),
            (&all, &all, true),
            (&all, &some, false),
            (&some, &none, false),
        ] {
            assert_eq!(wanted.missing_in(here).is_none(), goes_on, "{wanted:?} {here:?}");
        }
        let missing = all.missing_in(&none).unwrap();
        assert!(missing.contains("leaf 0x7.0 ebx"), "{missing}");
    }

    #[test]
    fn the_extended_state_must_be_laid_out_alike() {
        let [without, here, elsewhere] = [0, 0x240, 0x340].map(|component| features(0, component));
        assert!(without.missing_in(&here).is_none());
        assert!(here.missing_in(&here).is_none());
        assert!(here.missing_in(&without).is_some());
        assert!(here.missing_in(&elsewhere).unwrap().contains("component 2"));
    }

    /// What is told by a processor of AMD's with AVX-512 (of a PVM host) and by QEMU's emulation of `max` with AMD-V (of the lane):
    /// neither is shown all that the other is.
    #[test]
    fn snapshots_of_unlike_processors_are_refused_with_reasons() {
        let told = |words: [u32; WORDS.len()]| Features {
            words,
            components: [0x240_0000_0100, 0, 0, 0],
        };
        let newer = told([
            0xfffa_3203,
            0xf1bf_07ab,
            0x0040_5fc6,
            0x10,
            0x20,
            0,
            0xf,
            0x0040_03f3,
            0x2fd3_fbff,
            0x5002_0005,
        ]);
        let emulated = told([
            0xfed8_320b,
            0x01c8_43a9,
            0x8001_021c,
            0,
            0,
            0,
            0x5,
            0x75,
            0xedd3_fbfd,
            0,
        ]);
        let there = newer.missing_in(&emulated).unwrap();
        assert!(
            there.contains("bits 0xf0270000 of cpuid leaf 0x7.0 ebx"),
            "{there}"
        );
        let here = emulated.missing_in(&newer).unwrap();
        assert_eq!(here, "bits 0xc0000000 of cpuid leaf 0x80000001.0 edx", "3DNow!");
    }
}
