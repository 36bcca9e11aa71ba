//! The signal handlers: what the ring-0 stubs are in a virtual machine.
//!
//! All run on the stack of the signal handlers. A system call leaves its handler by a jump, which saves a call of the
//! kernel: nothing is blocked in that handler, so that there is nothing to put back but registers. In the others every
//! signal is blocked; they return.

use core::arch::global_asm;
use core::mem::offset_of;
use core::ptr::{addr_of_mut, write_volatile};

use spore_abi::layout::{HOST_PAGE_GPA, IMAGE_BYTES_MAX, IMAGE_GPA, USER_END, WINDOW_BASE};
use spore_abi::pages::{HostPage, Registers, Upcall, upcall_kind};
use spore_abi::process::{PROCESS_PAGE, ProcessPage, TICK_SIGNAL, stop};

use super::translations::{self, Resolved, Wanted};
use super::{hand_over, load, store};

const SIGBUS: i32 = 7;
const SIGSYS: i32 = 31;

const GENERAL_PROTECTION: u32 = 13;
const PAGE_FAULT: u32 = 14;
/// Error code bits of a page fault (Intel SDM volume 3, 4.7).
const WAS_PRESENT: u64 = 1;
const WAS_WRITE: u64 = 1 << 1;
const WAS_BY_USER: u64 = 1 << 2;
const WAS_FETCH: u64 = 1 << 4;
/// Error code of a general protection fault by `int 0x80`: the gate that is not there.
const GATE_80: u64 = 0x80 << 3 | 2;
/// Length of `int 0x80`.
const GATE_CALL_BYTES: u64 = 2;

/// `AUDIT_ARCH_X86_64`: the system call was a 64-bit one.
const ARCHITECTURE: u32 = 0xc000_003e;

/// `struct ucontext` of x86-64 (Linux, `arch/x86/include/uapi/asm/sigcontext.h`), as far as it is used.
#[repr(C)]
pub(super) struct SignalContext {
    flags: u64,
    link: u64,
    stack: [u64; 3],
    /// r8 … r15, rdi, rsi, rbp, rbx, rdx, rax, rcx, rsp, rip, flags.
    registers: [u64; 18],
    segments: u64,
    error_code: u64,
    vector: u64,
    mask: u64,
    fault_address: u64,
    /// Where the kernel has put the extended state, as `xsave` lays it out.
    extended_state: u64,
}

const _: () = assert!(offset_of!(SignalContext, registers) == 40);

/// Place in [`SignalContext::registers`] of each register in the hardware's order.
const ORDER: [usize; 16] = [13, 14, 12, 11, 15, 10, 9, 8, 0, 1, 2, 3, 4, 5, 6, 7];
const RIP: usize = 16;
const FLAGS: usize = 17;

global_asm!(
    r#"
    .section .text.machine, "ax", @progbits
    // void handler(int, siginfo_t *, ucontext_t *) for SIGSYS: goes on at the library OS's entry with the program's
    // registers, rip in rcx and flags in r11, as `syscall` does.
    .balign 16
    .global machine_process_call
machine_process_call:
    cmp dword ptr [rsi + 28], {architecture}
    jne machine_process_signal
    mov rax, [rdx + {rip}]
    shr rax, 47
    jnz machine_process_signal
    mov r10, rdx
    mov rdi, [r10 + {extended_state}]
    movabs rcx, {mask}
    mov eax, [rcx]
    mov edx, [rcx + 4]
    xrstor64 [rdi]
    push 2
    popfq
    mov r8,  [r10 + 40 + 8*0]
    mov r9,  [r10 + 40 + 8*1]
    mov r12, [r10 + 40 + 8*4]
    mov r13, [r10 + 40 + 8*5]
    mov r14, [r10 + 40 + 8*6]
    mov r15, [r10 + 40 + 8*7]
    mov rdi, [r10 + 40 + 8*8]
    mov rsi, [r10 + 40 + 8*9]
    mov rbp, [r10 + 40 + 8*10]
    mov rbx, [r10 + 40 + 8*11]
    mov rdx, [r10 + 40 + 8*12]
    mov rax, [r10 + 40 + 8*13]
    mov rcx, [r10 + {rip}]
    mov r11, [r10 + {flags}]
    mov rsp, [r10 + 40 + 8*15]
    mov r10, [r10 + 40 + 8*2]
    jmp machine_system_call_entry

    .balign 16
    .global machine_process_return
machine_process_return:
    mov eax, 15
    syscall
    ud2
"#,
    architecture = const ARCHITECTURE,
    rip = const offset_of!(SignalContext, registers) + 8 * RIP,
    flags = const offset_of!(SignalContext, registers) + 8 * FLAGS,
    extended_state = const offset_of!(SignalContext, extended_state),
    mask = const PROCESS_PAGE + offset_of!(ProcessPage, extended_state_mask) as u64,
);

unsafe extern "C" {
    fn machine_process_call();
    fn machine_process_return();
    fn machine_upcall_entry();
    fn machine_user_copy_start();
    fn machine_user_copy_end();
    fn machine_user_copy_failed();
}

/// Handler of system calls.
pub(super) fn call_handler() -> u64 {
    machine_process_call as *const () as u64
}

/// Handler of everything else.
pub(super) fn handler() -> u64 {
    machine_process_signal as *const () as u64
}

/// Where handlers return to.
pub(super) fn restorer() -> u64 {
    machine_process_return as *const () as u64
}

/// Every signal but system calls.
///
/// # Safety
///
/// Called by the kernel, or by the handler above, with what the kernel has put on the stack of the signal handlers.
// SAFETY: the name is the one that the code above jumps to; nothing else defines it.
#[unsafe(no_mangle)]
unsafe extern "C" fn machine_process_signal(signal: i32, _information: u64, context: *mut SignalContext) {
    // SAFETY: the kernel has made it for this very call; nobody else has a reference to it.
    let context = unsafe { &mut *context };
    if signal == TICK_SIGNAL {
        tick(context);
    } else {
        exception(context, signal);
    }
}

/// The monitor wants to look after the guest.
fn tick(context: &mut SignalContext) {
    // It looks after it already.
    if load!(is_stopped) != 0 {
        return;
    }
    store!(is_stopped, 1);
    store!(registers, context.registers());
    hand_over(stop::TICK);
    context.set_registers(&load!(registers));
    store!(is_stopped, 0);
}

/// The interrupted code has raised an exception.
fn exception(context: &mut SignalContext, signal: i32) {
    let mut registers = context.registers();
    let mut vector = context.vector as u32;
    let mut error_code = context.error_code;
    let mut fault_address = context.fault_address;
    match signal {
        // A call at one of the fixed addresses that old programs use: in a virtual machine nothing is there.
        SIGSYS if registers.rip >= USER_END => {
            (vector, error_code, fault_address) = (PAGE_FAULT, WAS_BY_USER | WAS_FETCH, registers.rip);
        }
        // A 32-bit system call.
        SIGSYS => {
            (vector, error_code) = (GENERAL_PROTECTION, GATE_80);
            registers.rip = registers.rip.wrapping_sub(GATE_CALL_BYTES);
        }
        SIGBUS if vector == PAGE_FAULT => {
            return stop_for_good(stop::LOST_MEMORY, vector, error_code, fault_address, registers);
        }
        _ if vector == PAGE_FAULT => {
            let wanted = Wanted {
                write: error_code & WAS_WRITE != 0,
                execute: error_code & WAS_FETCH != 0,
            };
            match translations::resolve(fault_address, wanted) {
                Resolved::Mapped => return,
                Resolved::Lost => {
                    return stop_for_good(stop::LOST_MEMORY, vector, error_code, fault_address, registers);
                }
                Resolved::Forbidden { is_present } => {
                    error_code = error_code & !WAS_PRESENT | u64::from(is_present);
                }
            }
        }
        _ => {}
    }

    let address = |routine: unsafe extern "C" fn()| routine as *const () as u64;
    if (address(machine_user_copy_start)..address(machine_user_copy_end)).contains(&registers.rip) {
        context.registers[RIP] = address(machine_user_copy_failed);
        return;
    }
    let image = WINDOW_BASE + IMAGE_GPA;
    if (image..image + IMAGE_BYTES_MAX).contains(&registers.rip) {
        return stop_for_good(stop::EXCEPTION, vector, error_code, fault_address, registers);
    }
    let upcall = Upcall {
        kind: upcall_kind::FAULT,
        vector,
        error_code,
        fault_address,
        registers,
    };
    let host = (WINDOW_BASE + HOST_PAGE_GPA) as *mut HostPage;
    // SAFETY: the host page is mapped for good; nothing holds a reference into it.
    unsafe { write_volatile(addr_of_mut!((*host).upcall), upcall) };
    context.set_registers(&Registers {
        rip: address(machine_upcall_entry),
        rflags: 2,
        ..registers
    });
}

/// Reports what nothing can go on after.
fn stop_for_good(reason: u32, vector: u32, error_code: u64, fault_address: u64, registers: Registers) {
    store!(is_stopped, 1);
    store!(vector, vector);
    store!(error_code, error_code);
    store!(fault_address, fault_address);
    store!(registers, registers);
    loop {
        hand_over(reason);
    }
}

impl SignalContext {
    fn registers(&self) -> Registers {
        Registers {
            general: ORDER.map(|place| self.registers[place]),
            rip: self.registers[RIP],
            rflags: self.registers[FLAGS],
        }
    }

    fn set_registers(&mut self, registers: &Registers) {
        for (place, value) in ORDER.into_iter().zip(registers.general) {
            self.registers[place] = value;
        }
        self.registers[RIP] = registers.rip;
        self.registers[FLAGS] = registers.rflags;
    }
}
