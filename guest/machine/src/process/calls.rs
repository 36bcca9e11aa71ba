//! The system calls that the process form makes. Those that it still makes once the seccomp program is there are
//! `futex`, `mmap`, `munmap` and `rt_sigreturn` (see the monitor's `process/filter.rs`).

use core::arch::asm;
use core::sync::atomic::AtomicU32;

pub(super) const MMAP: u64 = 9;
pub(super) const MUNMAP: u64 = 11;
pub(super) const RT_SIGACTION: u64 = 13;
pub(super) const RT_SIGPROCMASK: u64 = 14;
pub(super) const SIGALTSTACK: u64 = 131;
pub(super) const PRCTL: u64 = 157;
const FUTEX: u64 = 202;
pub(super) const EXIT_GROUP: u64 = 231;

const FUTEX_WAIT: u64 = 0;
const FUTEX_WAKE: u64 = 1;

/// Error numbers of Linux, negated, as system calls return them.
pub(super) const ENOMEM: i64 = -12;

/// Makes a system call.
///
/// # Safety
///
/// As the call says. What it does to memory must be nothing that the language forbids.
pub(super) unsafe fn system_call(number: u64, arguments: [u64; 6]) -> i64 {
    let [a, b, c, d, e, f] = arguments;
    let result: i64;
    // SAFETY: the registers are those of the system call convention; the caller answers for what it does.
    unsafe {
        asm!("syscall", inlateout("rax") number as i64 => result, in("rdi") a, in("rsi") b, in("rdx") c,
            in("r10") d, in("r8") e, in("r9") f, lateout("rcx") _, lateout("r11") _, options(nostack));
    }
    result
}

/// Wakes whoever waits at a word.
pub(super) fn wake(word: &AtomicU32) {
    // SAFETY: changes no memory of ours.
    unsafe { system_call(FUTEX, [word.as_ptr() as u64, FUTEX_WAKE, 1, 0, 0, 0]) };
}

/// Waits at a word as long as it has this value, or until a signal comes.
pub(super) fn wait(word: &AtomicU32, value: u32) {
    // SAFETY: changes no memory of ours.
    unsafe { system_call(FUTEX, [word.as_ptr() as u64, FUTEX_WAIT, value.into(), 0, 0, 0]) };
}
