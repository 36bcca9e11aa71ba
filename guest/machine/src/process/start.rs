//! From the monitor's jump into the image to the image's first instruction.
//!
//! The monitor has made this process as a copy of itself and mapped what the layout names. Everything else that the copy
//! has brought along is unmapped here, where it is not needed any more; then the last doors are closed.

use core::arch::global_asm;

use spore_abi::layout::{
    IMAGE_BYTES_MAX, IMAGE_GPA, MODULES_BASE, MONITOR_BASE, PAGE_BYTES, USER_END, WINDOW_BASE,
};
use spore_abi::process::{AREA_BYTES, FILTER, RAM_ALIAS_BASE, SIGNAL_STACK, SIGNAL_STACK_BYTES, TICK_SIGNAL};

use super::calls::{EXIT_GROUP, MUNMAP, PRCTL, RT_SIGACTION, RT_SIGPROCMASK, SIGALTSTACK, system_call};
use super::{load, signals};
use crate::{processor, shared};

const PR_SET_SECCOMP: u64 = 22;
const SECCOMP_MODE_FILTER: u64 = 2;
const PR_SET_SYSCALL_USER_DISPATCH: u64 = 59;
const PR_SYS_DISPATCH_ON: u64 = 1;

const SIGSYS: u64 = 31;
/// SIGILL, SIGTRAP, SIGBUS, SIGFPE, SIGSEGV, and the tick.
const OTHERS: [u64; 6] = [4, 5, 7, 8, 11, TICK_SIGNAL as u64];
const SA_SIGINFO: u64 = 4;
const SA_RESTORER: u64 = 0x0400_0000;
const SA_ONSTACK: u64 = 0x0800_0000;
const SA_NODEFER: u64 = 0x4000_0000;
const SIG_SETMASK: u64 = 2;
const SIGNAL_SET_BYTES: u64 = 8;

global_asm!(
    r#"
    .section .text.machine, "ax", @progbits
    .balign 16
    .global machine_process_entry
machine_process_entry:
    xor ebp, ebp
    call machine_process_start
    jmp machine_start
"#
);

/// The kernel's `struct sigaction`.
#[repr(C)]
struct Action {
    handler: u64,
    flags: u64,
    restorer: u64,
    mask: u64,
}

/// The kernel's `stack_t`.
#[repr(C)]
struct SignalStack {
    start: u64,
    flags: u64,
    bytes: u64,
}

/// The kernel's `struct sock_fprog`.
#[repr(C)]
struct Filter {
    length: u64,
    program: u64,
}

/// Leaves nothing of the monitor, and locks the process.
// SAFETY: the name is the one that the code above calls; nothing else defines it.
#[unsafe(no_mangle)]
extern "C" fn machine_process_start() {
    processor::set_fs_base(0);
    processor::set_gs_base(0);
    unmap_all_others();
    install_handlers();

    if load!(uses_dispatch) != 0 {
        let range = [WINDOW_BASE + IMAGE_GPA, IMAGE_BYTES_MAX];
        let arguments = [
            PR_SET_SYSCALL_USER_DISPATCH,
            PR_SYS_DISPATCH_ON,
            range[0],
            range[1],
            0,
            0,
        ];
        // SAFETY: changes what system calls of others do, and no memory.
        must(unsafe { system_call(PRCTL, arguments) });
    }
    let filter = Filter {
        length: load!(filter_length).into(),
        program: FILTER,
    };
    // SAFETY: the kernel reads the program, which the monitor has put there.
    must(unsafe {
        system_call(
            PRCTL,
            [
                PR_SET_SECCOMP,
                SECCOMP_MODE_FILTER,
                &raw const filter as u64,
                0,
                0,
                0,
            ],
        )
    });
}

fn install_handlers() {
    let stack = SignalStack {
        start: SIGNAL_STACK,
        flags: 0,
        bytes: SIGNAL_STACK_BYTES,
    };
    // SAFETY: nothing but the handlers uses this memory once this function's callers have returned, which they do
    // before the first signal can come: all are blocked, and none of the instructions until then faults.
    must(unsafe { system_call(SIGALTSTACK, [&raw const stack as u64, 0, 0, 0, 0, 0]) });
    let flags = SA_SIGINFO | SA_RESTORER | SA_ONSTACK;
    let call = Action {
        handler: signals::call_handler(),
        flags: flags | SA_NODEFER,
        restorer: signals::restorer(),
        mask: 0,
    };
    let other = Action {
        handler: signals::handler(),
        flags,
        restorer: signals::restorer(),
        mask: u64::MAX,
    };
    let all = OTHERS.iter().map(|&signal| (signal, &other));
    for (signal, action) in all.chain([(SIGSYS, &call)]) {
        let arguments = [
            signal,
            core::ptr::from_ref(action) as u64,
            0,
            SIGNAL_SET_BYTES,
            0,
            0,
        ];
        // SAFETY: the handlers are made to be called by the kernel at any instruction outside of themselves.
        must(unsafe { system_call(RT_SIGACTION, arguments) });
    }
    let none = 0_u64;
    let arguments = [SIG_SETMASK, &raw const none as u64, 0, SIGNAL_SET_BYTES, 0, 0];
    // SAFETY: the handlers are there.
    must(unsafe { system_call(RT_SIGPROCMASK, arguments) });
}

/// Unmaps all that is not the guest's.
fn unmap_all_others() {
    let boot = shared::boot();
    let modules_end = MODULES_BASE + boot.root_bytes.next_multiple_of(PAGE_BYTES);
    for (start, end) in [
        (0, MONITOR_BASE),
        (MONITOR_BASE + AREA_BYTES, RAM_ALIAS_BASE),
        (RAM_ALIAS_BASE + boot.ram_bytes, WINDOW_BASE),
        (WINDOW_BASE + boot.ram_bytes, MODULES_BASE),
        (modules_end, USER_END),
    ] {
        unmap(start, end);
    }
}

/// Unmaps a range. Pages that the kernel keeps in every process (newer ones seal those of the vDSO) stay.
fn unmap(start: u64, end: u64) {
    // SAFETY: nothing of the image lies there.
    let result = unsafe { system_call(MUNMAP, [start, end - start, 0, 0, 0, 0]) };
    if result == 0 || end - start <= PAGE_BYTES {
        return;
    }
    let middle = (start + (end - start) / 2) & !(PAGE_BYTES - 1);
    if start < middle {
        unmap(start, middle);
    }
    unmap(middle, end);
}

/// Ends the process if a call has failed that must not. Its status tells the monitor the error's number.
fn must(result: i64) {
    if result < 0 {
        // SAFETY: ends the process. The seccomp program, which has no such call, is not there yet.
        unsafe { system_call(EXIT_GROUP, [result.unsigned_abs(), 0, 0, 0, 0, 0]) };
        // SAFETY: an exception, with or without a handler, that the monitor hears of.
        unsafe { core::arch::asm!("ud2", options(noreturn)) };
    }
}
