//! The few instructions between program and library OS.
//!
//! Order of registers in a context: rax, rcx, rdx, rbx, rsp, rbp, rsi, rdi, r8 … r15, rip, rflags (as in
//! `spore_abi::pages::Registers`), then fs and gs base, then xmm0 … xmm15.
//!
//! The library OS is compiled for the ordinary Linux target and so uses SSE, but nothing wider: legacy SSE
//! instructions leave the upper halves of vector registers alone. Saving xmm0–15 here is therefore enough; the full
//! state is exchanged only when another task is switched to (`processor::ExtendedState`).
//!
//! Nothing here touches the program's stack: its red zone is live.

use core::arch::global_asm;

global_asm!(
    r#"
    .macro machine_vector_state instruction
        \instruction 0, 0xa0
        \instruction 1, 0xb0
        \instruction 2, 0xc0
        \instruction 3, 0xd0
        \instruction 4, 0xe0
        \instruction 5, 0xf0
        \instruction 6, 0x100
        \instruction 7, 0x110
        \instruction 8, 0x120
        \instruction 9, 0x130
        \instruction 10, 0x140
        \instruction 11, 0x150
        \instruction 12, 0x160
        \instruction 13, 0x170
        \instruction 14, 0x180
        \instruction 15, 0x190
    .endm
    .macro machine_load_vector number, offset
        movaps xmm\number, [rdi + \offset]
    .endm
    .macro machine_save_vector number, offset
        movaps [rsp + \offset], xmm\number
    .endm

    .section .data.machine, "aw", @progbits
    .balign 64
machine_context:    .quad 0
machine_stack:      .quad 0
machine_saved_rcx:  .quad 0
machine_saved_r11:  .quad 0
machine_saved_rsp:  .quad 0
machine_saved_rip:  .quad 0
machine_trap:       .long 0

    .section .bss.machine_boot_stack, "aw", @nobits
    .balign 4096
machine_boot_stack:
    .skip {boot_stack_bytes}
machine_boot_stack_top:

    .section .image_header, "a", @progbits
    .quad {image_magic}
    .quad {abi_version}
    .quad machine_start
    .quad machine_process_entry
    .quad machine_system_call_entry
    .quad machine_upcall_entry
    .quad machine_user_copy_start
    .quad machine_user_copy_end
    .quad machine_user_copy_failed
    .quad machine_image_end
    .quad machine_image_data_end

    .section .text.machine, "ax", @progbits
    .balign 16
    .global machine_start
machine_start:
    lea rsp, [rip + machine_boot_stack_top]
    xor ebp, ebp
    call machine_main
    ud2

    // fn machine_run(context: *mut Context) -> u32
    .balign 16
    .global machine_run
machine_run:
    push rbx
    push rbp
    push r12
    push r13
    push r14
    push r15
    mov [rip + machine_stack], rsp
    mov [rip + machine_context], rdi
    machine_vector_state machine_load_vector
    mov rax, [rdi + 0x80]
    mov [rip + machine_saved_rip], rax
    push qword ptr [rdi + 0x88]
    popfq
    mov rax, [rdi + 0x00]
    mov rcx, [rdi + 0x08]
    mov rdx, [rdi + 0x10]
    mov rbx, [rdi + 0x18]
    mov rsp, [rdi + 0x20]
    mov rbp, [rdi + 0x28]
    mov rsi, [rdi + 0x30]
    mov r8,  [rdi + 0x40]
    mov r9,  [rdi + 0x48]
    mov r10, [rdi + 0x50]
    mov r11, [rdi + 0x58]
    mov r12, [rdi + 0x60]
    mov r13, [rdi + 0x68]
    mov r14, [rdi + 0x70]
    mov r15, [rdi + 0x78]
    mov rdi, [rdi + 0x38]
    jmp [rip + machine_saved_rip]

    // Where `syscall` lands: rcx and r11 hold the program's rip and rflags, everything else is the program's.
    // Hardware virtualisation enters at CPL 0 and leaves it at once; a PVM host enters at CPL 3, as does `process/signals.rs`.
    .balign 16
    .global machine_system_call_entry
machine_system_call_entry:
    mov [rip + machine_saved_rcx], rcx
    mov ecx, cs
    test cl, 3
    jz 2f
1:
    mov [rip + machine_saved_rsp], rsp
    mov rsp, [rip + machine_context]
    mov dword ptr [rip + machine_trap], {trap_system_call}
4:
    mov [rsp + 0x00], rax
    mov [rsp + 0x10], rdx
    mov [rsp + 0x18], rbx
    mov [rsp + 0x28], rbp
    mov [rsp + 0x30], rsi
    mov [rsp + 0x38], rdi
    mov [rsp + 0x40], r8
    mov [rsp + 0x48], r9
    mov [rsp + 0x50], r10
    mov [rsp + 0x58], r11
    mov [rsp + 0x60], r12
    mov [rsp + 0x68], r13
    mov [rsp + 0x70], r14
    mov [rsp + 0x78], r15
    mov [rsp + 0x88], r11
    mov rcx, [rip + machine_saved_rcx]
    mov [rsp + 0x08], rcx
    mov [rsp + 0x80], rcx
    mov rcx, [rip + machine_saved_rsp]
    mov [rsp + 0x20], rcx
    machine_vector_state machine_save_vector
    cld
    mov eax, [rip + machine_trap]
    jmp machine_return
2:
    mov [rip + machine_saved_r11], r11
    lea rcx, [rip + 3f]
    mov r11d, 2
    sysretq
3:
    mov r11, [rip + machine_saved_r11]
    jmp 1b

    // Where rewritten call sites land: as for `syscall` at CPL 3, but r11 does not hold the flags yet.
    .balign 16
    .global machine_rewritten_call_entry
machine_rewritten_call_entry:
    mov [rip + machine_saved_rcx], rcx
    mov [rip + machine_saved_rsp], rsp
    mov rsp, [rip + machine_stack]
    pushfq
    pop r11
    mov rsp, [rip + machine_context]
    mov dword ptr [rip + machine_trap], {trap_rewritten_call}
    jmp 4b

    // Where the monitor delivers faults and kicks, always at CPL 3; in the process form, the signal handlers deliver faults. The integer registers are in the host page.
    .balign 16
    .global machine_upcall_entry
machine_upcall_entry:
    mov rsp, [rip + machine_context]
    machine_vector_state machine_save_vector
    cld
    mov eax, {trap_upcall}
machine_return:
    mov rsp, [rip + machine_stack]
    pop r15
    pop r14
    pop r13
    pop r12
    pop rbp
    pop rbx
    ret

    // fn machine_user_copy(to: *mut u8, from: *const u8, length: usize) -> usize, the bytes not copied
    .balign 16
    .global machine_user_copy
machine_user_copy:
    mov rcx, rdx
    .global machine_user_copy_start
machine_user_copy_start:
    rep movsb
    .global machine_user_copy_end
machine_user_copy_end:
    xor eax, eax
    ret
    .global machine_user_copy_failed
machine_user_copy_failed:
    mov rax, rcx
    ret
"#,
    boot_stack_bytes = const 256 * 1024,
    image_magic = const spore_abi::pages::IMAGE_MAGIC,
    abi_version = const spore_abi::ABI_VERSION as u64,
    trap_system_call = const TRAP_SYSTEM_CALL,
    trap_rewritten_call = const TRAP_REWRITTEN_CALL,
    trap_upcall = const TRAP_UPCALL,
);

unsafe extern "C" {
    fn machine_rewritten_call_entry();
}

/// Where rewritten call sites jump to, with the number of the system call in rax and the return address in rcx.
#[must_use]
pub fn rewritten_call_entry() -> u64 {
    machine_rewritten_call_entry as *const () as u64
}

/// `machine_run` returned because of a system call.
pub(crate) const TRAP_SYSTEM_CALL: u32 = 1;
/// `machine_run` returned because of an upcall.
pub(crate) const TRAP_UPCALL: u32 = 2;
/// `machine_run` returned because of a system call at a rewritten site.
pub(crate) const TRAP_REWRITTEN_CALL: u32 = 3;
