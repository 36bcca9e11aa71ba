//! The process form: what the ring-0 stubs and the doorbell are in a virtual machine, the image does by itself.
//!
//! ```text
//!   program ── `syscall` ──> SIGSYS ─────────────────────────────> system-call entry of the library OS
//!   program ── exception ──> SIGSEGV … ──┬─ the tables allow it ──> mapped, the instruction runs again
//!                                        └─ they do not ──────────> upcall entry of the library OS
//!   monitor ── tick ───────> SIGALRM ──────> stop ──> monitor ──> goes on, perhaps at the upcall entry
//!   library OS ── doorbell ─┬─ translations ──> served here
//!                           └─ all else ──────> stop ──> monitor ──> goes on
//! ```
//!
//! The page tables are the truth here as well; the mappings of the process are a cache of what they say, filled at faults
//! and emptied where a processor's would be ([`translations`]).
//!
//! *Stop* hands the turn to the monitor, and waits for it, at a futex in the process page. Nothing here keeps state in
//! the image: the process page has it all, so that an image may go on in either form.
//!
//! * [`start`]: what happens between the monitor's jump into the image and the image's first instruction;
//! * [`signals`]: the handlers; [`translations`]: the cache; [`calls`]: the few system calls.

mod calls;
mod signals;
mod start;
mod translations;

use core::ptr::{addr_of, addr_of_mut, read_volatile};
use core::sync::atomic::{AtomicU32, Ordering};

use spore_abi::doorbell;
use spore_abi::layout::{IMAGE_GPA, WINDOW_BASE};
use spore_abi::pages::{GuestPage, Registers};
use spore_abi::process::{PROCESS_PAGE, ProcessPage, stop, turn};

const PAGE: *mut ProcessPage = PROCESS_PAGE as *mut ProcessPage;

/// Reads a place in the process page.
macro_rules! load {
    ($field:ident) => {
        // SAFETY: the monitor maps the process page at this address before the first instruction, for good; every bit
        // pattern is a valid value of these types. Only the process form gets here.
        unsafe { core::ptr::read_volatile(core::ptr::addr_of!((*$crate::process::PAGE).$field)) }
    };
}
use load;

/// Writes a place in the process page.
macro_rules! store {
    ($field:ident, $value:expr) => {
        // SAFETY: as for `load`; nothing holds a reference into the page.
        unsafe { core::ptr::write_volatile(core::ptr::addr_of_mut!((*$crate::process::PAGE).$field), $value) }
    };
}
use store;

/// What `out` to the doorbell's port does in a virtual machine.
pub(crate) fn ring(request: u32) {
    match request {
        doorbell::FLUSH_TRANSLATIONS => translations::forget_all(),
        doorbell::SWITCH_TABLES => {
            let page = (WINDOW_BASE + spore_abi::layout::GUEST_PAGE_GPA) as *const GuestPage;
            // SAFETY: the guest page is mapped for good, with this layout.
            let top_gpa = unsafe { read_volatile(addr_of!((*page).top_table_gpa)) };
            translations::switch_tables(top_gpa);
        }
        _ => {
            store!(is_stopped, 1);
            store!(request, request);
            // Whoever asks where the guest is learns that it is in the library OS.
            let registers = Registers {
                rip: WINDOW_BASE + IMAGE_GPA,
                ..Registers::default()
            };
            store!(registers, registers);
            hand_over(stop::DOORBELL);
            store!(is_stopped, 0);
        }
    }
}

/// Forgets the translations of some ranges (start and end).
pub(crate) fn forget(ranges: &[(u64, u64)]) {
    for &(start, end) in ranges {
        translations::forget(start, end);
    }
}

/// Stands still until it is the guest's turn again.
fn hand_over(reason: u32) {
    store!(stop, reason);
    // SAFETY: the word is aligned and mapped for good; both sides access it atomically.
    let word = unsafe { AtomicU32::from_ptr(addr_of_mut!((*PAGE).turn)) };
    word.store(turn::MONITOR, Ordering::Release);
    calls::wake(word);
    while word.load(Ordering::Acquire) == turn::MONITOR {
        calls::wait(word, turn::MONITOR);
    }
}
