//! The tick: a timer signal that takes the processor out of the guest.
//!
//! A signal that arrives just before `KVM_RUN` would be lost if its handler did nothing; so the handler sets
//! `immediate_exit` in the page shared with KVM, which makes the next `KVM_RUN` return at once (KVM API 5, kvm_run).

use std::io;
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicPtr, Ordering};

/// How long the guest may run before the monitor looks after the rings.
const TICK_MICROSECONDS: i64 = 10_000;

static TARGET: AtomicPtr<u8> = AtomicPtr::new(ptr::null_mut());
static IS_ARMED: AtomicBool = AtomicBool::new(false);

extern "C" fn on_tick(_signal: libc::c_int) {
    IS_ARMED.store(false, Ordering::Relaxed);
    let target = TARGET.load(Ordering::Relaxed);
    if !target.is_null() {
        // SAFETY: points to `immediate_exit` of the process's one virtual processor, whose page stays mapped until
        // the process ends (the machine is never dropped while kicks are armed). The kernel reads it, nobody else.
        unsafe { ptr::write_volatile(target, 1) };
    }
}

/// Takes the place that a tick sets. There is one virtual processor in a process.
pub(crate) fn set_target(immediate_exit: &mut u8) {
    TARGET.store(ptr::from_mut(immediate_exit), Ordering::Relaxed);
}

/// Forgets the place, before its page goes away.
pub(crate) fn clear_target() {
    TARGET.store(ptr::null_mut(), Ordering::Relaxed);
}

/// Installs the handler.
pub(crate) fn install() -> io::Result<()> {
    // SAFETY: an all-zero sigaction is valid; the handler only touches atomics and the page named above, which is
    // allowed in a signal handler.
    let result = unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = on_tick as *const () as usize;
        libc::sigaction(libc::SIGALRM, &action, ptr::null_mut())
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Makes sure that a tick comes within its time. It costs a system call only when the last one has come.
pub(crate) fn arm() {
    if IS_ARMED.swap(true, Ordering::Relaxed) {
        return;
    }
    let zero = libc::timeval {
        tv_sec: 0,
        tv_usec: 0,
    };
    let timer = libc::itimerval {
        it_interval: zero,
        it_value: libc::timeval {
            tv_sec: 0,
            tv_usec: TICK_MICROSECONDS,
        },
    };
    // SAFETY: a valid timer value; the previous one is not asked for.
    unsafe { libc::setitimer(libc::ITIMER_REAL, &timer, ptr::null_mut()) };
}
