//! Which system calls a monitor can still make: found out by making all of them, compared with the documented list.
//!
//! Each call is made in a process of its own with two lists. The first makes every call harmless (it fails with an error
//! number that no call has); the second is the monitor's. Where both have something to say the kernel takes the harsher
//! verdict: a process that dies has made a call that the monitor's list does not have.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::BorrowedFd;
use std::path::Path;

use libtest_mimic::Trial;
use rustix::net::{SendFlags, send};
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, TargetArch};
use spore_monitor::jail::{Boundary, GuestHandle, calls};

use crate::prisoner::{Depth, send_to_jail};
use crate::trial;

/// Numbers that are tried: all that the kernel has, and then some.
const NUMBERS: std::ops::Range<i64> = 0..1024;
/// Marks calls of the x32 kind (syscall(2)).
const X32: i64 = 0x4000_0000;
/// `uretprobe` and `uprobe`, which newer kernels let through all lists: code of the kernel's own makes them in a process
/// that is traced with probes. In any other they do nothing, or end it with SIGILL.
const PROBES: [i64; 2] = [335, 336];
/// An error number that no call has.
const HARMLESS: u32 = 4000;
/// Most calls of the thread that runs the virtual processor.
const CALLS_MAX: usize = 40;

/// Number of a guest's process.
const GUEST: i32 = 4_000_000;

/// The two forms of a guest, and a virtual machine that can be reset, as they are called in what the process tells.
const FORMS: [(&str, Boundary); 3] = [
    ("vm", boundary(GuestHandle::Processor(17))),
    ("process", boundary(GuestHandle::Process(GUEST))),
    (
        "reset",
        Boundary {
            page_map: Some(19),
            resets: true,
            ..boundary(GuestHandle::Processor(17))
        },
    ),
];

const fn boundary(guest: GuestHandle) -> Boundary {
    Boundary {
        guest,
        control: 0,
        page_map: None,
        resets: false,
    }
}

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial(
            "calls::the_calls_that_can_be_made_are_the_documented_ones",
            documented,
        ),
        trial("calls::arguments_that_are_not_needed_are_refused", arguments),
    ]
}

fn made_calls() -> BTreeSet<String> {
    let outcome = send_to_jail("calls", Depth::Whole, Path::new("/dev/null"));
    assert!(outcome.status.success(), "{outcome:?}");
    let answer = outcome.answer.expect("the process tells");
    answer.lines().map(str::to_owned).collect()
}

/// The calls that can be made beside a guest of this form.
fn made_beside(form: &str) -> BTreeSet<String> {
    let made = made_calls().into_iter();
    made.filter_map(|line| Some(line.strip_prefix(form)?.strip_prefix(' ')?.to_owned()))
        .filter(|call| !call.starts_with("refused"))
        .collect()
}

/// The calls in the table behind a mark.
fn table(page: &str, mark: &str) -> BTreeSet<String> {
    let (_, rest) = page.split_once(mark).expect("the page has a table");
    let rows = rest
        .lines()
        .skip_while(|line| !line.starts_with('|'))
        .take_while(|line| line.starts_with('|'));
    rows.filter_map(|line| Some(line.strip_prefix("| `")?.split('`').next()?.to_owned()))
        .collect()
}

fn documented() {
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/jail.md"))
        .expect("the page is there");
    let machine = table(&page, "<!-- calls -->");
    let mut process = machine.clone();
    process.retain(|call| !["ioctl", "setitimer"].contains(&call.as_str()));
    process.extend(table(&page, "<!-- calls beside a process -->"));
    let mut reset = machine.clone();
    reset.extend(table(&page, "<!-- calls for a reset -->"));
    for (form, documented) in [("vm", machine), ("process", process), ("reset", reset)] {
        let made = made_beside(form);
        assert_eq!(
            made, documented,
            "{form}: left: what can be made; right: docs/jail.md"
        );
        assert!(made.len() <= CALLS_MAX, "{} calls", made.len());
        assert!(made.contains("exit_group"), "the trial works");
    }
}

/// Calls on the list beside a process, with arguments that are not.
fn refused_arguments_beside_a_process() -> Vec<(&'static str, i64, [u64; 6])> {
    let kill = libc::SIGKILL as u64;
    let guest = GUEST as u64;
    vec![
        ("another process's end", libc::SYS_kill, [1, kill, 0, 0, 0, 0]),
        ("all processes' end", libc::SYS_kill, [u64::MAX, kill, 0, 0, 0, 0]),
        (
            "its group's end",
            libc::SYS_kill,
            [guest.wrapping_neg(), kill, 0, 0, 0, 0],
        ),
        ("another child's end", libc::SYS_wait4, [1, 0, 0, 0, 0, 0]),
        ("its use of resources", libc::SYS_wait4, [guest, 0, 0, 1, 0, 0]),
        ("any child's end", libc::SYS_waitid, [0, 0, 0, 0, 0, 0]),
    ]
}

/// Calls on the list, with arguments that are not.
fn refused_arguments() -> Vec<(&'static str, i64, [u64; 6])> {
    const KVM_RUN: u64 = 0xae80;
    const KVM_CREATE_VM: u64 = 0xae01;
    const KVM_SET_MSRS: u64 = 0x4008_ae89;
    const KVM_SET_MEMORY: u64 = 0x4020_ae46;
    const KVM_SET_CPUID2: u64 = 0x4008_ae90;
    const TIOCSTI: u64 = 0x5412;
    let none = u64::from(u32::MAX);
    let private = (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS) as u64;
    let shared = (libc::MAP_SHARED | libc::MAP_ANONYMOUS) as u64;
    let fixed = private | libc::MAP_FIXED as u64;
    vec![
        (
            "KVM_RUN of another processor",
            libc::SYS_ioctl,
            [18, KVM_RUN, 0, 0, 0, 0],
        ),
        (
            "model-specific registers that it sets",
            libc::SYS_ioctl,
            [17, KVM_SET_MSRS, 0, 0, 0, 0],
        ),
        ("other memory", libc::SYS_ioctl, [17, KVM_SET_MEMORY, 0, 0, 0, 0]),
        ("another file's bytes", libc::SYS_pread64, [18, 0, 0, 0, 0, 0]),
        (
            "another machine",
            libc::SYS_ioctl,
            [17, KVM_CREATE_VM, 0, 0, 0, 0],
        ),
        (
            "other features",
            libc::SYS_ioctl,
            [17, KVM_SET_CPUID2, 0, 0, 0, 0],
        ),
        ("a terminal's input", libc::SYS_ioctl, [2, TIOCSTI, 0, 0, 0, 0]),
        (
            "executable memory",
            libc::SYS_mmap,
            [0, 4096, libc::PROT_EXEC as u64, private, none, 0],
        ),
        ("shared memory", libc::SYS_mmap, [0, 4096, 3, shared, none, 0]),
        ("memory at a place", libc::SYS_mmap, [0, 4096, 3, fixed, none, 0]),
        (
            "a file",
            libc::SYS_mmap,
            [0, 4096, 3, libc::MAP_PRIVATE as u64, 5, 0],
        ),
        ("memory moved to a place", libc::SYS_mremap, [0, 0, 0, 3, 0, 0]),
        ("a message from a stream", libc::SYS_recvmsg, [3, 0, 0, 0, 0, 0]),
        ("a sender's address", libc::SYS_recvfrom, [3, 0, 0, 0, 1, 0]),
        ("a receiver's address", libc::SYS_sendto, [3, 0, 0, 0, 1, 16]),
        ("another timer", libc::SYS_setitimer, [1, 0, 0, 0, 0, 0]),
        ("a signal mask", libc::SYS_ppoll, [0, 0, 0, 1, 8, 0]),
        ("another file", libc::SYS_write, [3, 0, 0, 0, 0, 0]),
        (
            "another signal",
            libc::SYS_tgkill,
            [1, 1, libc::SIGKILL as u64, 0, 0, 0],
        ),
        (
            "another handler",
            libc::SYS_rt_sigaction,
            [libc::SIGSEGV as u64, 0, 0, 8, 0, 0],
        ),
    ]
}

fn arguments() {
    let made = made_calls();
    let beside_a_process = refused_arguments_beside_a_process();
    for (form, tried) in [
        ("vm", refused_arguments()),
        ("process", beside_a_process),
        ("reset", refused_arguments()),
    ] {
        for (what, ..) in tried {
            assert!(
                made.contains(&format!("{form} refused {what}")),
                "{form}: {what} was let through"
            );
        }
    }
}

/// In the process that is to try: names what can be made, and which of the arguments are refused.
pub(crate) fn try_all(control: BorrowedFd<'_>) {
    let mut lines = Vec::new();
    for (form, boundary) in FORMS {
        let names: BTreeMap<i64, calls::AllowedCall> = calls::list(&boundary)
            .into_iter()
            .map(|call| (call.number, call))
            .collect();
        let all = NUMBERS.chain(NUMBERS.map(|number| number | X32));
        for number in all.filter(|number| !PROBES.contains(number)) {
            let call = names.get(&number);
            let arguments = call.map_or([0; 6], calls::AllowedCall::sample_arguments);
            if can_make(&boundary, number, arguments) {
                let name = call.map_or_else(|| number.to_string(), |call| call.name.to_owned());
                lines.push(format!("{form} {name}"));
            }
        }
        let refused = match boundary.guest {
            GuestHandle::Process(_) => refused_arguments_beside_a_process(),
            _ => refused_arguments(),
        };
        for (what, number, arguments) in refused {
            if !can_make(&boundary, number, arguments) {
                lines.push(format!("{form} refused {what}"));
            }
        }
    }
    send(control, lines.join("\n").as_bytes(), SendFlags::NOSIGNAL).expect("the warder reads");
}

/// Whether a process under the monitor's list survives the call.
fn can_make(boundary: &Boundary, number: i64, arguments: [u64; 6]) -> bool {
    // SAFETY: this process has one thread. The child makes one call, which is harmless, and ends.
    unsafe {
        let child = libc::fork();
        assert!(child >= 0, "a process can be started");
        if child == 0 {
            seccompiler::apply_filter(&harmless()).expect("there are lists");
            calls::List::translate(boundary)
                .and_then(|list| list.put_into_force())
                .expect("there are lists");
            let [a, b, c, d, e, f] = arguments;
            libc::syscall(number, a, b, c, d, e, f);
            libc::syscall(libc::SYS_exit_group, 0);
        }
        let mut status = 0;
        assert_eq!(libc::waitpid(child, &raw mut status, 0), child);
        assert!(
            libc::WIFEXITED(status) || libc::WTERMSIG(status) == libc::SIGSYS,
            "call {number} ended with {status:#x}"
        );
        libc::WIFEXITED(status)
    }
}

/// Everything fails, but for what is needed to put the second list into force and to end.
fn harmless() -> BpfProgram {
    let needed = [
        libc::SYS_prctl,
        libc::SYS_seccomp,
        libc::SYS_brk,
        libc::SYS_mmap,
        libc::SYS_munmap,
        libc::SYS_exit_group,
    ];
    let filter = SeccompFilter::new(
        needed.map(|number| (number, Vec::new())).into(),
        SeccompAction::Errno(HARMLESS),
        SeccompAction::Allow,
        TargetArch::x86_64,
    );
    filter.and_then(BpfProgram::try_from).expect("it is well formed")
}
