//! From the monitor's jump into the image to the image's first instruction.
//!
//! The monitor has made this process as a copy of itself and mapped what the layout names. Everything else that the copy
//! has brought along is unmapped here, where it is not needed any more; then the last doors are closed, and the process
//! waits for its first turn. All that is believed up to there comes from the process page and the image's code: memory may
//! be a snapshot, and so some guest's word.

use core::arch::global_asm;
use core::mem::offset_of;

use spore_abi::layout::{
    IMAGE_BYTES_MAX, IMAGE_GPA, MODULES_BASE, MONITOR_BASE, PAGE_BYTES, USER_END, WINDOW_BASE,
};
use spore_abi::process::{
    AREA_BYTES, EXTENDED_STATE, FILTER, PROCESS_PAGE, ProcessPage, RAM_ALIAS_BASE, SIGNAL_STACK,
    SIGNAL_STACK_BYTES, SNAPSHOT_BASE, TICK_SIGNAL,
};

use super::calls::{EXIT_GROUP, MUNMAP, PRCTL, RT_SIGACTION, RT_SIGPROCMASK, SIGALTSTACK, system_call};
use super::{load, signals, translations, wait_for_turn};
use crate::processor;

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
    test al, al
    jnz 2f
    jmp machine_start
    // Goes on with the registers of a snapshot.
2:
    movabs rdi, {page}
    movabs rsi, {state}
    mov eax, [rdi + {mask}]
    mov edx, [rdi + {mask} + 4]
    xrstor64 [rsi]
    mov rax, [rdi + {fs_base}]
    wrfsbase rax
    mov rax, [rdi + {gs_base}]
    wrgsbase rax
    mov rax, [rdi + {registers} + 8*16]
    mov [rip + machine_saved_rip], rax
    push qword ptr [rdi + {registers} + 8*17]
    popfq
    mov rax, [rdi + {registers} + 8*0]
    mov rcx, [rdi + {registers} + 8*1]
    mov rdx, [rdi + {registers} + 8*2]
    mov rbx, [rdi + {registers} + 8*3]
    mov rsp, [rdi + {registers} + 8*4]
    mov rbp, [rdi + {registers} + 8*5]
    mov rsi, [rdi + {registers} + 8*6]
    mov r8,  [rdi + {registers} + 8*8]
    mov r9,  [rdi + {registers} + 8*9]
    mov r10, [rdi + {registers} + 8*10]
    mov r11, [rdi + {registers} + 8*11]
    mov r12, [rdi + {registers} + 8*12]
    mov r13, [rdi + {registers} + 8*13]
    mov r14, [rdi + {registers} + 8*14]
    mov r15, [rdi + {registers} + 8*15]
    mov rdi, [rdi + {registers} + 8*7]
    jmp [rip + machine_saved_rip]
"#,
    page = const PROCESS_PAGE,
    state = const EXTENDED_STATE,
    mask = const offset_of!(ProcessPage, extended_state_mask),
    fs_base = const offset_of!(ProcessPage, fs_base),
    gs_base = const offset_of!(ProcessPage, gs_base),
    registers = const offset_of!(ProcessPage, first_registers),
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

/// Leaves nothing of the monitor, locks the process, and waits for its first turn; whether it goes on with the registers of
/// a snapshot.
// SAFETY: the name is the one that the code above calls; nothing else defines it.
#[unsafe(no_mangle)]
extern "C" fn machine_process_start() -> bool {
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
    wait_for_turn();
    let goes_on = load!(goes_on) != 0;
    if goes_on {
        // The tables may have marks of another process, and what they say of the window is not known.
        translations::forget_all();
    }
    goes_on
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
    let ram_bytes = load!(ram_bytes);
    let snapshot_bytes = if load!(goes_on) != 0 { ram_bytes } else { 0 };
    let modules_end = MODULES_BASE + load!(module_bytes);
    for (start, end) in [
        (0, MONITOR_BASE),
        (MONITOR_BASE + AREA_BYTES, RAM_ALIAS_BASE),
        (RAM_ALIAS_BASE + ram_bytes, SNAPSHOT_BASE),
        (SNAPSHOT_BASE + snapshot_bytes, WINDOW_BASE),
        (WINDOW_BASE + ram_bytes, MODULES_BASE),
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
