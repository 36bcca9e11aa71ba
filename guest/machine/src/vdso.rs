//! Code for the vDSO: clocks read without a system call, straight from the host page.
//!
//! It is position-independent and copied into a page of the program's: a fault in there is the program's. The sequence
//! number changes with every change of the clocks, which the host makes only while the processor stands still; so equal
//! numbers before and after mean that nothing has changed in between.

use core::arch::global_asm;
use core::mem::offset_of;

use spore_abi::layout::{HOST_PAGE_GPA, WINDOW_BASE};
use spore_abi::pages::{Clock, HostPage};

global_asm!(
    r#"
    // Leaves nanoseconds of the clock whose base is at r10 in rax. Uses rdx, r8, r9.
    .macro machine_vdso_now
        movabs r8, {clock}
    77:
        mov r9, [r8 + {sequence}]
        lfence
        rdtsc
        shl rdx, 32
        or rax, rdx
        sub rax, [r8 + {tsc_base}]
        jae 78f
        xor eax, eax
    78:
        mul qword ptr [r8 + {multiplier}]
        shrd rax, rdx, 32
        add rax, [r8 + r10]
        cmp r9, [r8 + {sequence}]
        jne 77b
    .endm
    // Splits the nanoseconds in rax into seconds in rdx and the rest in rax. Uses rcx.
    .macro machine_vdso_split
        mov r9, rax
        shr rax, 9
        movabs rcx, {second_reciprocal}
        mul rcx
        shr rdx, 11
        imul rcx, rdx, 1000000000
        mov rax, r9
        sub rax, rcx
    .endm

    .section .rodata.machine_vdso, "a", @progbits
    .balign 16
machine_vdso_start:

    // int clock_gettime(clockid_t, struct timespec *)
    .balign 16
machine_vdso_clock_gettime:
    cmp edi, 7
    ja 9f
    mov eax, 0xf3
    bt eax, edi
    jnc 9f
    mov r10d, {monotonic}
    mov ecx, {realtime}
    mov eax, 0x21
    bt eax, edi
    cmovc r10d, ecx
    machine_vdso_now
    machine_vdso_split
    mov [rsi], rdx
    mov [rsi + 8], rax
    xor eax, eax
    ret
9:  mov eax, 228
    syscall
    ret

    // int gettimeofday(struct timeval *, struct timezone *)
    .balign 16
machine_vdso_gettimeofday:
    test rdi, rdi
    jz 8f
    mov r10d, {realtime}
    machine_vdso_now
    machine_vdso_split
    mov [rdi], rdx
    mov r9, rax
    movabs rcx, {thousand_reciprocal}
    shr rax, 3
    mul rcx
    shr rdx, 4
    mov [rdi + 8], rdx
8:  test rsi, rsi
    jz 7f
    mov qword ptr [rsi], 0
7:  xor eax, eax
    ret

    // time_t time(time_t *)
    .balign 16
machine_vdso_time:
    mov r10d, {realtime}
    machine_vdso_now
    machine_vdso_split
    test rdi, rdi
    jz 6f
    mov [rdi], rdx
6:  mov rax, rdx
    ret

    // int getcpu(unsigned *, unsigned *, void *): there is one processor
    .balign 16
machine_vdso_getcpu:
    test rdi, rdi
    jz 5f
    mov dword ptr [rdi], 0
5:  test rsi, rsi
    jz 4f
    mov dword ptr [rsi], 0
4:  xor eax, eax
    ret
machine_vdso_end:
    .text
"#,
    clock = const WINDOW_BASE + HOST_PAGE_GPA + offset_of!(HostPage, clock) as u64,
    sequence = const offset_of!(Clock, sequence),
    tsc_base = const offset_of!(Clock, tsc_base),
    multiplier = const offset_of!(Clock, multiplier),
    monotonic = const offset_of!(Clock, monotonic_base_ns),
    realtime = const offset_of!(Clock, realtime_base_ns),
    second_reciprocal = const SECOND_RECIPROCAL,
    thousand_reciprocal = const THOUSAND_RECIPROCAL,
);

/// 2^75 / (10^9 / 2^9), rounded up.
const SECOND_RECIPROCAL: u64 = 0x44_b82f_a09b_5a53;
/// 2^68 / (1000 / 2^3), rounded up.
const THOUSAND_RECIPROCAL: u64 = 0x20c4_9ba5_e353_f7cf;

unsafe extern "C" {
    static machine_vdso_start: u8;
    static machine_vdso_end: u8;
    static machine_vdso_clock_gettime: u8;
    static machine_vdso_gettimeofday: u8;
    static machine_vdso_time: u8;
    static machine_vdso_getcpu: u8;
}

/// The code.
#[must_use]
pub fn code() -> &'static [u8] {
    let start = &raw const machine_vdso_start;
    let length = (&raw const machine_vdso_end).addr() - start.addr();
    // SAFETY: the two symbols enclose constant bytes of the image.
    unsafe { core::slice::from_raw_parts(start, length) }
}

/// The functions in it: name and offset.
#[must_use]
pub fn functions() -> [(&'static str, usize); 4] {
    let start = (&raw const machine_vdso_start).addr();
    [
        ("__vdso_clock_gettime", &raw const machine_vdso_clock_gettime),
        ("__vdso_gettimeofday", &raw const machine_vdso_gettimeofday),
        ("__vdso_time", &raw const machine_vdso_time),
        ("__vdso_getcpu", &raw const machine_vdso_getcpu),
    ]
    .map(|(name, place)| (name, place.addr() - start))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reciprocals_divide() {
        let divide = |value: u64, pre: u32, reciprocal: u64, post: u32| {
            ((u128::from(value >> pre) * u128::from(reciprocal)) >> 64 >> post) as u64
        };
        for value in [
            0,
            1,
            999_999_999,
            1_000_000_000,
            1_700_000_000_123_456_789,
            u64::MAX,
        ] {
            assert_eq!(divide(value, 9, SECOND_RECIPROCAL, 11), value / 1_000_000_000);
            let rest = value % 1_000_000_000;
            assert_eq!(divide(rest, 3, THOUSAND_RECIPROCAL, 4), rest / 1000);
        }
    }
}
