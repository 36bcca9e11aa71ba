//! The list of system calls that a monitor may make while its guest runs. Any other one ends the process.
//!
//! The monitor has one thread, which runs the guest and serves it; so there is one list for each form of a guest, in
//! which only the calls that run it differ. `docs/jail.md` repeats both for people, and a test tries all calls there are.

use std::collections::BTreeMap;

use kvm_bindings::{
    KVMIO, kvm_debugregs, kvm_msrs, kvm_regs, kvm_sregs, kvm_vcpu_events, kvm_xcrs, kvm_xsave,
};
use rustix::ioctl::opcode;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch, sock_filter,
};

use super::{Boundary, GuestHandle};
use crate::written::SCAN;

/// A call on the list.
#[derive(Debug, Clone)]
pub struct AllowedCall {
    /// Its number.
    pub number: i64,
    /// Its name.
    pub name: &'static str,
    /// Arguments with which it may be made, each alternative a set of conditions; with any if there is none.
    alternatives: Vec<Vec<Condition>>,
}

/// What an argument has to be. The calls in question take 32 bits of it, or a pointer that must be null.
#[derive(Debug, Clone, Copy)]
enum Condition {
    /// The lower 32 bits have this value.
    Is(u8, u32),
    /// The lower 32 bits have this value where the mask is set.
    Masked(u8, u32, u32),
    /// A null pointer.
    Null(u8),
}

/// Why the list could not be put into force.
#[derive(Debug, thiserror::Error)]
pub enum ListError {
    /// It could not be translated.
    #[error("it cannot be translated: {0}")]
    Translation(#[from] seccompiler::BackendError),
    /// The kernel does not take it.
    #[error("the kernel refuses it: {0}")]
    Refused(#[from] seccompiler::Error),
}

/// The requests to KVM that the monitor makes while its guest runs, all to the virtual processor.
fn processor_requests() -> [u32; 7] {
    const TYPE: u8 = KVMIO as u8;
    [
        opcode::none(TYPE, 0x80),                    // KVM_RUN
        opcode::read::<kvm_regs>(TYPE, 0x81),        // KVM_GET_REGS
        opcode::write::<kvm_regs>(TYPE, 0x82),       // KVM_SET_REGS
        opcode::read::<kvm_sregs>(TYPE, 0x83),       // KVM_GET_SREGS
        opcode::write::<kvm_sregs>(TYPE, 0x84),      // KVM_SET_SREGS
        opcode::read::<kvm_vcpu_events>(TYPE, 0x9f), // KVM_GET_VCPU_EVENTS
        opcode::read::<kvm_xsave>(TYPE, 0xa4),       // KVM_GET_XSAVE
    ]
}

/// The requests to the virtual processor that a reset takes besides.
fn reset_requests() -> [u32; 4] {
    const TYPE: u8 = KVMIO as u8;
    [
        opcode::read_write::<kvm_msrs>(TYPE, 0x88), // KVM_GET_MSRS
        opcode::read::<kvm_debugregs>(TYPE, 0xa1),  // KVM_GET_DEBUGREGS
        opcode::write::<kvm_xsave>(TYPE, 0xa5),     // KVM_SET_XSAVE
        opcode::read::<kvm_xcrs>(TYPE, 0xa6),       // KVM_GET_XCRS
    ]
}

/// The list for a process with this boundary.
#[must_use]
pub fn list(boundary: &Boundary) -> Vec<AllowedCall> {
    use Condition::{Is, Masked, Null};
    let any = |number, name| AllowedCall {
        number,
        name,
        alternatives: Vec::new(),
    };
    let with = |number, name, conditions: &[Condition]| AllowedCall {
        number,
        name,
        alternatives: vec![conditions.to_vec()],
    };
    let one_of = |number, name, alternatives| AllowedCall {
        number,
        name,
        alternatives,
    };
    let (readable_writable, private) = (
        (libc::PROT_READ | libc::PROT_WRITE) as u32,
        (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS) as u32,
    );
    let page_map = boundary.page_map.map(|descriptor| descriptor as u32);
    // The guest, and its tick.
    let mut calls = match boundary.guest {
        GuestHandle::Process(child) => vec![
            any(libc::SYS_futex, "futex"),
            with(libc::SYS_kill, "kill", &[Is(0, child as u32)]),
            with(
                libc::SYS_waitid,
                "waitid",
                &[Is(0, libc::P_PID), Is(1, child as u32)],
            ),
            with(libc::SYS_wait4, "wait4", &[Is(0, child as u32), Null(3)]),
        ],
        GuestHandle::Processor(_) | GuestHandle::None => {
            // No descriptor has the number -1.
            let processor = match boundary.guest {
                GuestHandle::Processor(descriptor) => descriptor as u32,
                _ => u32::MAX,
            };
            let resets = boundary.resets.then(reset_requests).into_iter().flatten();
            let requests = processor_requests()
                .into_iter()
                .chain(resets)
                .map(|request| vec![Is(0, processor), Is(1, request)]);
            let scan = page_map.map(|descriptor| vec![Is(0, descriptor), Is(1, SCAN)]);
            vec![
                one_of(libc::SYS_ioctl, "ioctl", requests.chain(scan).collect()),
                with(
                    libc::SYS_setitimer,
                    "setitimer",
                    &[Is(0, libc::ITIMER_REAL as u32)],
                ),
            ]
        }
    };
    calls.extend([
        any(libc::SYS_rt_sigreturn, "rt_sigreturn"),
        any(libc::SYS_clock_gettime, "clock_gettime"),
        // Its streams, its log and the daemon.
        with(libc::SYS_ppoll, "ppoll", &[Null(3)]),
        any(libc::SYS_restart_syscall, "restart_syscall"),
        one_of(
            libc::SYS_recvmsg,
            "recvmsg",
            vec![vec![Is(0, boundary.control as u32)]],
        ),
        with(libc::SYS_recvfrom, "recvfrom", &[Null(4)]),
        with(libc::SYS_sendto, "sendto", &[Null(4)]),
        any(libc::SYS_shutdown, "shutdown"),
        any(libc::SYS_close, "close"),
        // Memory of its own.
        any(libc::SYS_brk, "brk"),
        with(
            libc::SYS_mmap,
            "mmap",
            &[
                Masked(2, !readable_writable, 0),
                Masked(3, !(libc::MAP_NORESERVE as u32), private),
                Is(4, u32::MAX),
            ],
        ),
        with(libc::SYS_mremap, "mremap", &[Is(3, libc::MREMAP_MAYMOVE as u32)]),
        any(libc::SYS_munmap, "munmap"),
        // Its end, in order or by a failed assertion.
        with(libc::SYS_write, "write", &[Is(0, libc::STDERR_FILENO as u32)]),
        any(libc::SYS_sigaltstack, "sigaltstack"),
        any(libc::SYS_rt_sigprocmask, "rt_sigprocmask"),
        with(
            libc::SYS_rt_sigaction,
            "rt_sigaction",
            &[Is(0, libc::SIGABRT as u32)],
        ),
        any(libc::SYS_getpid, "getpid"),
        any(libc::SYS_gettid, "gettid"),
        with(libc::SYS_tgkill, "tgkill", &[Is(2, libc::SIGABRT as u32)]),
        any(libc::SYS_exit, "exit"),
        any(libc::SYS_exit_group, "exit_group"),
    ]);
    // The seed.
    calls.extend(boundary.resets.then(|| any(libc::SYS_getrandom, "getrandom")));
    calls.extend(page_map.map(|descriptor| with(libc::SYS_pread64, "pread64", &[Is(0, descriptor)])));
    calls
}

impl AllowedCall {
    /// Arguments with which the call may be made.
    #[must_use]
    pub fn sample_arguments(&self) -> [u64; 6] {
        let mut arguments = [0; 6];
        for condition in self.alternatives.first().into_iter().flatten() {
            let (index, value) = match *condition {
                Condition::Is(index, value) | Condition::Masked(index, _, value) => (index, u64::from(value)),
                Condition::Null(index) => (index, 0),
            };
            arguments[usize::from(index)] = value;
        }
        arguments
    }

    fn rules(&self) -> Result<Vec<SeccompRule>, seccompiler::BackendError> {
        let rule = |conditions: &Vec<Condition>| {
            let conditions = conditions.iter().map(|condition| condition.compiled());
            SeccompRule::new(conditions.collect::<Result<_, _>>()?)
        };
        self.alternatives.iter().map(rule).collect()
    }
}

impl Condition {
    fn compiled(self) -> Result<SeccompCondition, seccompiler::BackendError> {
        let (word, pointer) = (SeccompCmpArgLen::Dword, SeccompCmpArgLen::Qword);
        match self {
            Self::Is(index, value) => SeccompCondition::new(index, word, SeccompCmpOp::Eq, value.into()),
            Self::Masked(index, mask, value) => {
                SeccompCondition::new(index, word, SeccompCmpOp::MaskedEq(mask.into()), value.into())
            }
            Self::Null(index) => SeccompCondition::new(index, pointer, SeccompCmpOp::Eq, 0),
        }
    }
}

/// Calls that are looked for one after the other. The kernel tries a list with every number there is when it takes it,
/// which for a list in one part takes longer than all else that it does with it.
const CALLS_IN_PART: usize = 5;

/// One program of parts, each for the numbers from its own up to the next one's.
fn joined(parts: &[(i64, BpfProgram)]) -> BpfProgram {
    const LOAD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
    const IF_AT_LEAST: u16 = (libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K) as u16;
    const JUMP: u16 = (libc::BPF_JMP | libc::BPF_JA) as u16;
    let instruction = |code, jt, k: usize| sock_filter {
        code,
        jt,
        jf: 0,
        k: k as u32,
    };
    // The number of the call is the first word of what a list is given (seccomp(2), struct seccomp_data).
    let mut program = vec![instruction(LOAD, 0, 0)];
    let mut body = BpfProgram::new();
    for (index, (_, part)) in parts.iter().enumerate() {
        // Jumps count from the instruction that follows: two for each further part but one for the last.
        let further = parts.len() - 1 - index;
        if let Some((next, _)) = parts.get(index + 1) {
            program.push(instruction(IF_AT_LEAST, 1, *next as usize));
            program.push(instruction(JUMP, 0, 2 * further - 1 + body.len()));
        } else {
            program.push(instruction(JUMP, 0, body.len()));
        }
        body.extend_from_slice(part);
    }
    program.extend(body);
    program
}

/// The list as the kernel takes it.
pub struct List(BpfProgram);

impl List {
    /// Translates the list.
    ///
    /// # Errors
    ///
    /// If it cannot be translated.
    pub fn translate(boundary: &Boundary) -> Result<Self, ListError> {
        let mut calls = list(boundary);
        calls.sort_by_key(|call| call.number);
        let mut parts = Vec::new();
        for part in calls.chunks(CALLS_IN_PART) {
            let mut rules = BTreeMap::new();
            for call in part {
                rules.insert(call.number, call.rules()?);
            }
            let filter = SeccompFilter::new(
                rules,
                SeccompAction::KillProcess,
                SeccompAction::Allow,
                TargetArch::x86_64,
            )?;
            let first = part.first().map_or(0, |call| call.number);
            parts.push((first, BpfProgram::try_from(filter)?));
        }
        Ok(Self(joined(&parts)))
    }

    /// Allows nothing but the calls on the list from now on.
    ///
    /// # Errors
    ///
    /// If the kernel does not take it.
    pub fn put_into_force(&self) -> Result<(), ListError> {
        Ok(seccompiler::apply_filter(&self.0)?)
    }
}
