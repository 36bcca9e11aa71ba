//! The byte routines that the compiler calls. The Linux target leaves them to the C library, which is not here.
//!
//! `rep movsb` and `rep stosb` are the fast forms on every processor that is served (ERMS, FSRM).

use core::arch::global_asm;

global_asm!(
    r#"
    .section .text.bytes, "ax", @progbits
    .balign 16
    .global memcpy
memcpy:
    mov rax, rdi
    mov rcx, rdx
    rep movsb
    ret

    .balign 16
    .global memmove
memmove:
    mov rax, rdi
    mov rcx, rdx
    mov r8, rdi
    sub r8, rsi
    cmp r8, rdx
    jb 2f
    rep movsb
    ret
2:  // The target begins within the source: from the end.
    lea rdi, [rdi + rdx - 1]
    lea rsi, [rsi + rdx - 1]
    std
    rep movsb
    cld
    ret

    .balign 16
    .global memset
memset:
    mov r8, rdi
    mov eax, esi
    mov rcx, rdx
    rep stosb
    mov rax, r8
    ret

    .balign 16
    .global memcmp
    .global bcmp
memcmp:
bcmp:
    mov rcx, rdx
    xor eax, eax
    xor edx, edx
    test rcx, rcx
    jz 3f
    repe cmpsb
    je 3f
    movzx eax, byte ptr [rdi - 1]
    movzx edx, byte ptr [rsi - 1]
    sub eax, edx
3:
    ret

    .balign 16
    .global strlen
strlen:
    xor eax, eax
4:  cmp byte ptr [rdi + rax], 0
    je 5f
    inc rax
    jmp 4b
5:  ret
"#
);
