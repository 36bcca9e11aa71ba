//! The machine under the library OS: everything that needs `unsafe` in the guest.
//!
//! One virtual processor, always at CPL 3, one address space. The library OS never runs in parallel with itself and
//! is never interrupted: the monitor delivers upcalls only while the *program* runs. That is why plain cells guard
//! the few global things here, and why the interfaces can be safe functions.
//!
//! ```text
//!                   run(&mut Context)
//!   library OS  ───────────────────────>  program
//!       ^                                    │ `syscall`  -> entry.rs, registers into the Context
//!       └────────────── Trap ────────────────┘ fault, kick -> monitor -> upcall entry, registers into the host page
//! ```
//!
//! * [`context`]: the program's registers and [`context::run`];
//! * [`shared`]: the pages and rings shared with the monitor, and the doorbell;
//! * [`paging`]: edits the page tables;
//! * [`user`]: copies from and to the program's memory, surviving page faults;
//! * [`heap`]: the library OS's own memory;
//! * [`entry`]: where traps and rewritten call sites land; [`identity`]: answers that rewritten sites read themselves;
//! * [`processor`]: time-stamp counter, segment bases, extended register state;
//! * [`vdso`]: code that the program runs to read the clocks;
//! * `process`: what takes the place of ring 0 where there is no virtual machine.

#![no_std]

extern crate alloc;

pub mod context;
pub mod entry;
pub mod heap;
pub mod identity;
pub mod paging;
#[cfg(not(feature = "simulation"))]
mod process;
pub mod processor;
pub mod shared;
#[cfg(feature = "simulation")]
pub mod simulation;
pub mod user;
pub mod vdso;

/// The boundary between memory that the library OS keeps for itself and memory that programs get.
///
/// Everything in RAM below it (shared pages, image, page tables, rings, heap) is refused by [`paging`] and [`user`],
/// whatever a program asks for.
pub mod reserved {
    use core::sync::atomic::{AtomicU64, Ordering};

    use spore_abi::layout;

    static END_GPA: AtomicU64 = AtomicU64::new(layout::RAM_BYTES_MAX);

    /// Guest-physical end of the reserved part.
    #[must_use]
    pub fn end_gpa() -> u64 {
        END_GPA.load(Ordering::Relaxed)
    }

    pub(crate) fn set_end_gpa(gpa: u64) {
        END_GPA.store(gpa, Ordering::Relaxed);
    }

    /// Whether a range of virtual addresses touches the reserved part.
    #[must_use]
    pub fn overlaps(address: u64, length: u64) -> bool {
        let end = address.saturating_add(length);
        address < layout::WINDOW_BASE + end_gpa() && end > layout::WINDOW_BASE
    }
}
