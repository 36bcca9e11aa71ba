//! The tick: a timer signal that takes the processor out of the guest.
//!
//! A signal that arrives just before `KVM_RUN` would be lost if its handler did nothing; so the handler sets
//! `immediate_exit` in the page shared with KVM, which makes the next `KVM_RUN` return at once (KVM API 5, kvm_run).
//!
//! The handler has a mapping of that page of its own. The one that kvm-ioctls has is lent out as `&mut kvm_run` while
//! the processor runs, which is when the handler writes: a pointer into that one would be an alias of it.

use std::ffi::c_void;
use std::io;
use std::mem::offset_of;
use std::os::fd::BorrowedFd;
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicPtr, Ordering};

use kvm_bindings::kvm_run;
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
use spore_abi::layout::PAGE_BYTES;

const _: () = assert!(offset_of!(kvm_run, immediate_exit) < PAGE_BYTES as usize);

/// How long the guest may run before the monitor looks after the rings.
const TICK_MICROSECONDS: i64 = 10_000;

static TARGET: AtomicPtr<u8> = AtomicPtr::new(ptr::null_mut());
static IS_ARMED: AtomicBool = AtomicBool::new(false);

extern "C" fn on_tick(_signal: libc::c_int) {
    IS_ARMED.store(false, Ordering::Relaxed);
    let target = TARGET.load(Ordering::Relaxed);
    if !target.is_null() {
        // SAFETY: a place in the mapping of an [`ImmediateExit`], which forgets it here before it unmaps it. Nobody has
        // a reference to it; the kernel reads it through a mapping of its own.
        unsafe { ptr::write_volatile(target, 1) };
    }
}

/// The place that a tick sets. There is one virtual processor in a process.
pub(crate) struct ImmediateExit {
    page: *mut c_void,
}

impl ImmediateExit {
    /// Lets ticks end `KVM_RUN` of this processor from now on.
    pub(crate) fn of(processor: BorrowedFd<'_>) -> io::Result<Self> {
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new mapping at an address of the kernel's choice touches nothing that exists.
        let page = unsafe {
            mmap(
                ptr::null_mut(),
                PAGE_BYTES as usize,
                protection,
                MapFlags::SHARED,
                processor,
                0,
            )
        }?;
        let immediate_exit = Self { page };
        TARGET.store(immediate_exit.place(), Ordering::Relaxed);
        Ok(immediate_exit)
    }

    fn place(&self) -> *mut u8 {
        // SAFETY: the offset lies within the page (asserted above), which is mapped as long as `self` lives.
        unsafe { self.page.cast::<u8>().add(offset_of!(kvm_run, immediate_exit)) }
    }

    /// Lets the next `KVM_RUN` return at once, as if a tick had come.
    pub(crate) fn set(&self) {
        // SAFETY: as in the handler.
        unsafe { ptr::write_volatile(self.place(), 1) };
    }

    /// Forgets a tick that has come.
    pub(crate) fn clear(&self) {
        // SAFETY: as in the handler.
        unsafe { ptr::write_volatile(self.place(), 0) };
    }
}

impl Drop for ImmediateExit {
    fn drop(&mut self) {
        TARGET.store(ptr::null_mut(), Ordering::Relaxed);
        // SAFETY: our own mapping, which the handler does not know any more; it runs on this very thread.
        let _ = unsafe { munmap(self.page, PAGE_BYTES as usize) };
    }
}

/// Installs the handler.
pub(crate) fn install() -> io::Result<()> {
    // SAFETY: an all-zero sigaction is valid; the handler only touches atomics and the page named above, which is
    // allowed in a signal handler.
    let result = unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = on_tick as *const () as usize;
        // `KVM_RUN` and `poll` end with EINTR all the same, as they must: the kernel starts neither again.
        action.sa_flags = libc::SA_RESTART;
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
