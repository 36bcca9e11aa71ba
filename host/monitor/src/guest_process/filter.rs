//! The system calls that a guest process can make: those of the image's runtime, with these arguments only.
//!
//! | call | arguments | what for |
//! |---|---|---|
//! | `futex` | wait and wake, at the word of the process page | the doorbell |
//! | `mmap` | fixed address, shared, one of the process's own three files | what the page tables allow |
//! | `munmap` | any: the process's own memory | what they allow no more |
//! | `rt_sigreturn` | none | the end of a signal handler |
//!
//! That is from within the image. From anywhere else a call raises SIGSYS, which is the program's way into the library OS
//! where the kernel has no Syscall User Dispatch. A program that jumps into the image can make these calls and no others.

use std::collections::BTreeMap;

use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen as Length, SeccompCmpOp as Compare,
    SeccompCondition as Condition, SeccompFilter, SeccompRule as Rule, TargetArch, sock_filter,
};
use spore_abi::layout::{IMAGE_BYTES_MAX, IMAGE_GPA, WINDOW_BASE};
use spore_abi::process::{HEAD_DESCRIPTOR, MODULE_DESCRIPTOR, PROCESS_PAGE, ProcessPage, RAM_DESCRIPTOR};

/// The list, with what is allowed of each call.
fn rules() -> Result<BTreeMap<i64, Vec<Rule>>, BackendError> {
    let word = PROCESS_PAGE + std::mem::offset_of!(ProcessPage, turn) as u64;
    let futex = |operation: i32| {
        Rule::new(vec![
            Condition::new(0, Length::Qword, Compare::Eq, word)?,
            Condition::new(1, Length::Dword, Compare::Eq, operation as u64)?,
            Condition::new(3, Length::Qword, Compare::Eq, 0)?,
        ])
    };
    let mmap = |descriptor: i32| {
        let protections = (libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC) as u64;
        let flags = (libc::MAP_SHARED | libc::MAP_FIXED) as u64;
        Rule::new(vec![
            Condition::new(2, Length::Qword, Compare::MaskedEq(!protections), 0)?,
            Condition::new(3, Length::Qword, Compare::Eq, flags)?,
            Condition::new(4, Length::Dword, Compare::Eq, descriptor as u64)?,
        ])
    };
    Ok(BTreeMap::from([
        (
            libc::SYS_futex,
            vec![futex(libc::FUTEX_WAIT)?, futex(libc::FUTEX_WAKE)?],
        ),
        (
            libc::SYS_mmap,
            vec![
                mmap(RAM_DESCRIPTOR)?,
                mmap(MODULE_DESCRIPTOR)?,
                mmap(HEAD_DESCRIPTOR)?,
            ],
        ),
        (libc::SYS_munmap, Vec::new()),
        (libc::SYS_rt_sigreturn, Vec::new()),
    ]))
}

/// How many calls are on the list.
pub(crate) fn call_count() -> usize {
    rules().map_or(0, |rules| rules.len())
}

/// The seccomp program.
pub(super) fn program() -> Result<BpfProgram, BackendError> {
    let list = SeccompFilter::new(
        rules()?,
        SeccompAction::KillProcess,
        SeccompAction::Allow,
        TargetArch::x86_64,
    )?;
    let mut program = outside_of_image();
    program.extend(BpfProgram::try_from(list)?);
    Ok(program)
}

/// What comes first: calls from outside of the image raise SIGSYS (classic BPF over `struct seccomp_data`).
fn outside_of_image() -> BpfProgram {
    /// Offset of `instruction_pointer`; its low half comes first.
    const ADDRESS: u32 = 8;
    const LOAD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
    const IF_EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
    const IF_AT_LEAST: u16 = (libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K) as u16;
    const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
    let start = WINDOW_BASE + IMAGE_GPA;
    let (high, low) = ((start >> 32) as u32, start as u32);
    let instruction = |code, jt, jf, k| sock_filter { code, jt, jf, k };
    vec![
        instruction(LOAD, 0, 0, ADDRESS + 4),
        instruction(IF_EQUAL, 0, 3, high),
        instruction(LOAD, 0, 0, ADDRESS),
        instruction(IF_AT_LEAST, 0, 1, low),
        instruction(IF_AT_LEAST, 0, 1, low + IMAGE_BYTES_MAX as u32),
        instruction(RETURN, 0, 0, libc::SECCOMP_RET_TRAP),
    ]
}

/// The program as the kernel reads it.
pub(super) fn bytes(program: &BpfProgram) -> &[u8] {
    let length = size_of_val(program.as_slice());
    // SAFETY: the instructions are plain numbers without padding (8 bytes each), and live as long as the slice.
    unsafe { std::slice::from_raw_parts(program.as_ptr().cast(), length) }
}

const _: () = assert!(size_of::<sock_filter>() == 8);

#[cfg(test)]
#[path = "filter_tests.rs"]
mod tests;
