//! Which system calls the list lets through: all are tried, each in a child with the guest's own seccomp program, from a
//! page where the guest has its image.

use std::collections::BTreeSet;
use std::ptr::null_mut;

use spore_abi::layout::{IMAGE_GPA, WINDOW_BASE};
use spore_abi::process::{HEAD_DESCRIPTOR, MODULE_DESCRIPTOR, PROCESS_PAGE, RAM_DESCRIPTOR};

use super::{BpfProgram, bytes, program, rules};

/// Numbers of calls that any kernel has, with room for more.
const NUMBERS: std::ops::Range<i64> = 0..1024;
/// What marks a call of the other convention (`__X32_SYSCALL_BIT`).
const OTHER_CONVENTION: i64 = 0x4000_0000;
/// `uretprobe` and `uprobe`: no seccomp program hears of them since Linux 6.14.
const UNFILTERED: [i64; 2] = [335, 336];
/// An address where nothing is, and the flags that `mmap` has to have.
const FREE: u64 = 0x5000_0000_0000;
const FIXED_SHARED: u64 = 0x11;
const FUTEX: i64 = libc::SYS_futex;
const MMAP: i64 = libc::SYS_mmap;

/// Whether the seccomp program lets a call through that code in the image makes.
fn is_allowed(filter: &BpfProgram, number: i64, arguments: [u64; 6]) -> bool {
    let filter = libc::sock_fprog {
        len: filter.len() as u16,
        filter: bytes(filter).as_ptr() as *mut libc::sock_filter,
    };
    // SAFETY: the child makes system calls and nothing else; it neither allocates nor returns. The word that it leaves is
    // in memory that both have.
    unsafe {
        let anonymous = libc::MAP_ANONYMOUS;
        let witness = libc::mmap(null_mut(), 4096, 3, libc::MAP_SHARED | anonymous, -1, 0).cast::<u8>();
        let child = libc::fork();
        assert!(child >= 0 && !witness.is_null());
        if child == 0 {
            let image = (WINDOW_BASE + IMAGE_GPA) as *mut libc::c_void;
            let flags = libc::MAP_PRIVATE | anonymous | libc::MAP_FIXED;
            let code = libc::mmap(image, 4096, 7, flags, -1, 0).cast::<u8>();
            // syscall; mov byte ptr [rbx], 1; ud2
            code.copy_from_nonoverlapping([0x0f, 0x05, 0xc6, 0x03, 0x01, 0x0f, 0x0b].as_ptr(), 7);
            // The test's own handlers would make calls of theirs.
            for signal in [libc::SIGSEGV, libc::SIGBUS, libc::SIGILL] {
                libc::signal(signal, libc::SIG_DFL);
            }
            libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
            libc::prctl(libc::PR_SET_SECCOMP, 2, &raw const filter, 0, 0);
            let [a, b, c, d, e, f] = arguments;
            core::arch::asm!("mov rbx, {witness}", "jmp {code}", code = in(reg) code, witness = in(reg) witness,
                in("rax") number, in("rdi") a, in("rsi") b, in("rdx") c, in("r10") d, in("r8") e, in("r9") f,
                options(noreturn));
        }
        let mut status = 0;
        assert_eq!(libc::waitpid(child, &raw mut status, 0), child);
        let has_returned = witness.read_volatile() == 1;
        libc::munmap(witness.cast(), 4096);
        // A call that does not return to where it was made, or ends the child by itself, was made as well.
        has_returned || !libc::WIFSIGNALED(status) || libc::WTERMSIG(status) != libc::SIGSYS
    }
}

/// Arguments with which a call may be on the list: none, and those of the runtime.
fn attempts() -> Vec<[u64; 6]> {
    let wake = 1;
    vec![
        [0; 6],
        [PROCESS_PAGE, wake, 1, 0, 0, 0],
        [FREE, 4096, 1, FIXED_SHARED, RAM_DESCRIPTOR as u64, 0],
        [FREE, 4096, 1, FIXED_SHARED, MODULE_DESCRIPTOR as u64, 0],
        [FREE, 4096, 1, FIXED_SHARED, HEAD_DESCRIPTOR as u64, 0],
    ]
}

/// The calls that the guide for users names.
fn documented() -> BTreeSet<i64> {
    let guide = include_str!("../../../../docs/process-form.md");
    let list = guide
        .split("<!-- ")
        .find(|part| part.starts_with("begin of the list"));
    let rows = list
        .expect("the guide has the list")
        .lines()
        .filter(|line| line.starts_with("| `"));
    let number = |row: &str| match row.split('`').nth(1) {
        Some("futex") => libc::SYS_futex,
        Some("mmap") => libc::SYS_mmap,
        Some("munmap") => libc::SYS_munmap,
        Some("rt_sigreturn") => libc::SYS_rt_sigreturn,
        other => panic!("the guide names {other:?}, which is not on the list"),
    };
    rows.map(number).collect()
}

#[test]
fn of_all_calls_those_on_the_list_are_let_through() {
    let filter = program().unwrap();
    let others = NUMBERS.map(|number| number | OTHER_CONVENTION);
    let mut allowed = BTreeSet::new();
    for number in NUMBERS.chain(others) {
        if attempts()
            .into_iter()
            .any(|arguments| is_allowed(&filter, number, arguments))
        {
            allowed.insert(number);
        }
    }
    // No seccomp program is asked about these (Linux, kernel/seccomp.c), which raise SIGILL but for the kernel's own probes.
    allowed.retain(|number| !UNFILTERED.contains(number));
    assert_eq!(allowed, documented());
    assert_eq!(allowed, rules().unwrap().into_keys().collect());
    assert!(allowed.len() <= 25);
}

#[test]
fn calls_on_the_list_are_let_through_with_their_arguments_only() {
    let filter = program().unwrap();
    let (ram, anonymous, private) = (RAM_DESCRIPTOR as u64, 0x31, 0x12);
    let (wait, requeue) = (0, 3);
    for (number, arguments) in [
        (FUTEX, [PROCESS_PAGE + 4, 1, 1, 0, 0, 0]),
        (FUTEX, [PROCESS_PAGE, requeue, 1, 0, FREE, 0]),
        (FUTEX, [PROCESS_PAGE, wait, 1, FREE, 0, 0]),
        (MMAP, [FREE, 4096, 1, FIXED_SHARED, 6, 0]),
        (MMAP, [FREE, 4096, 1, FIXED_SHARED, u64::MAX, 0]),
        (MMAP, [FREE, 4096, 3, anonymous, ram, 0]),
        (MMAP, [FREE, 4096, 3, private, ram, 0]),
        (MMAP, [FREE, 4096, 3, 1, ram, 0]),
        (MMAP, [FREE, 4096, 1 | 1 << 24, FIXED_SHARED, ram, 0]),
        (MMAP, [FREE, 4096, 1, FIXED_SHARED | 1 << 32, ram, 0]),
    ] {
        assert!(!is_allowed(&filter, number, arguments), "{number} {arguments:x?}");
    }
}

#[test]
fn the_program_fits() {
    let program = program().unwrap();
    assert!(bytes(&program).len() as u64 <= spore_abi::process::FILTER_BYTES_MAX);
}
