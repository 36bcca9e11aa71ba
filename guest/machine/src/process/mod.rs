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
//! the image: the process page has it all, so that an image may go on in either form. That is also why nothing here comes
//! after a doorbell: a guest that is copied while it waits goes on behind it, where there may be no process page.
//!
//! * [`start`]: what happens between the monitor's jump into the image and the image's first instruction;
//! * [`signals`]: the handlers; [`translations`]: the cache; [`calls`]: the few system calls;
//! * [`missing`]: pages of a snapshot, copied when they are touched.

mod calls;
mod missing;
mod signals;
mod start;
mod translations;

use core::arch::{asm, global_asm};
use core::mem::offset_of;
use core::ptr::{addr_of, addr_of_mut, read_volatile};
use core::sync::atomic::{AtomicU32, Ordering};

use spore_abi::doorbell;
use spore_abi::layout::WINDOW_BASE;
use spore_abi::pages::GuestPage;
use spore_abi::process::{EXTENDED_STATE, PROCESS_PAGE, ProcessPage, stop, turn};

use crate::processor;

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

global_asm!(
    r#"
    .section .text.machine, "ax", @progbits
    // fn machine_process_doorbell(request: u32): leaves the registers with which its caller goes on. No tick changes them
    // then: the guest counts as stopped before.
    .balign 16
    .global machine_process_doorbell
machine_process_doorbell:
    movabs rax, {registers}
    mov dword ptr [rax + {is_stopped}], 1
    mov [rax + 8*3], rbx
    mov [rax + 8*4], rsp
    mov [rax + 8*5], rbp
    mov [rax + 8*12], r12
    mov [rax + 8*13], r13
    mov [rax + 8*14], r14
    mov [rax + 8*15], r15
    lea rcx, [rip + 2f]
    mov [rax + 8*16], rcx
    sub rsp, 8
    call machine_process_stand_still
    add rsp, 8
2:
    ret
"#,
    registers = const PROCESS_PAGE + offset_of!(ProcessPage, registers) as u64,
    is_stopped = const offset_of!(ProcessPage, is_stopped) - offset_of!(ProcessPage, registers),
);

unsafe extern "C" {
    safe fn machine_process_doorbell(request: u32);
}

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
        _ => machine_process_doorbell(request),
    }
}

/// Hands a request over.
// SAFETY: the name is the one that the code above calls; nothing else defines it.
#[unsafe(no_mangle)]
extern "C" fn machine_process_stand_still(request: u32) {
    store!(request, request);
    if load!(leaves_state) != 0 {
        leave_state();
    }
    hand_over(stop::DOORBELL);
    store!(is_stopped, 0);
}

/// Leaves what a snapshot needs besides the registers that every doorbell leaves. The library OS changes none of it while
/// no task runs, but for the low halves of the vector registers, which it keeps elsewhere.
fn leave_state() {
    store!(fs_base, processor::fs_base());
    store!(gs_base, processor::gs_base());
    let mask = load!(extended_state_mask);
    // SAFETY: the area is mapped for good, aligned, and large enough for what the monitor lets the mask name; no reference
    // to it exists.
    unsafe {
        asm!("xsave64 [{area}]", area = in(reg) EXTENDED_STATE, in("eax") mask as u32, in("edx") (mask >> 32) as u32,
            options(nostack, preserves_flags));
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
    turn_word().store(turn::MONITOR, Ordering::Release);
    calls::wake(turn_word());
    wait_for_turn();
}

/// Stands still while it is the monitor's turn.
fn wait_for_turn() {
    while turn_word().load(Ordering::Acquire) == turn::MONITOR {
        calls::wait(turn_word(), turn::MONITOR);
    }
}

fn turn_word() -> &'static AtomicU32 {
    // SAFETY: the word is aligned and mapped for good; both sides access it atomically.
    unsafe { AtomicU32::from_ptr(addr_of_mut!((*PAGE).turn)) }
}
