//! The list of system calls that a tender may make while its guest runs. Any other one ends the process.
//!
//! No file can be opened, no descriptor taken in, no process made or looked at. What QEMU's place in the jail does before, this one has
//! too: no capability, no new privileges, no network, no file to be written to (`host/sandbox-vmm`).

use std::collections::BTreeMap;
use std::os::fd::RawFd;

use rustix::ioctl::opcode;
use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch,
};

/// Why the list is not in force.
#[derive(Debug, thiserror::Error)]
pub enum JailError {
    /// It cannot be translated.
    #[error("the list of system calls cannot be translated")]
    Translation(#[from] BackendError),
    /// The kernel does not take it.
    #[error("the kernel refuses the list of system calls")]
    Refused(#[from] seccompiler::Error),
}

/// An argument of 32 bits has this value.
fn is(index: u8, value: u32) -> Result<SeccompCondition, BackendError> {
    SeccompCondition::new(index, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, value.into())
}

/// Allows nothing but what running the guest of this processor takes.
pub(crate) fn enter(processor: RawFd) -> Result<(), JailError> {
    const KVM: u8 = kvm_bindings::KVMIO as u8;
    let requests = [
        opcode::none(KVM, 0x80),                           // KVM_RUN
        opcode::read::<kvm_bindings::kvm_regs>(KVM, 0x81), // KVM_GET_REGS
    ];
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = [
        // The cable, the console, the disk, the clock.
        libc::SYS_recvfrom,
        libc::SYS_sendto,
        libc::SYS_write,
        libc::SYS_pread64,
        libc::SYS_ppoll,
        libc::SYS_clock_gettime,
        libc::SYS_restart_syscall,
        libc::SYS_rt_sigreturn,
        // Memory of its own.
        libc::SYS_brk,
        libc::SYS_munmap,
        libc::SYS_mremap,
        libc::SYS_madvise,
        // Its end, in order or by a failed assertion.
        libc::SYS_close,
        libc::SYS_sigaltstack,
        libc::SYS_rt_sigprocmask,
        libc::SYS_getpid,
        libc::SYS_gettid,
        libc::SYS_exit,
        libc::SYS_exit_group,
    ]
    .into_iter()
    .map(|number| (number, Vec::new()))
    .collect();
    let of_processor = |request: u32| SeccompRule::new(vec![is(0, processor as u32)?, is(1, request)?]);
    let requests = requests.into_iter().map(of_processor);
    rules.insert(libc::SYS_ioctl, requests.collect::<Result<_, _>>()?);
    // Nothing that is executed is mapped, and no file.
    let protection = (libc::PROT_READ | libc::PROT_WRITE) as u32;
    let kind = (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS) as u32;
    let mapping = SeccompRule::new(vec![is(2, protection)?, is(3, kind)?])?;
    rules.insert(libc::SYS_mmap, vec![mapping]);
    let filter = SeccompFilter::new(
        rules,
        SeccompAction::KillProcess,
        SeccompAction::Allow,
        TargetArch::x86_64,
    )?;
    Ok(seccompiler::apply_filter(&BpfProgram::try_from(filter)?)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::fs::File;
    use std::os::unix::process::ExitStatusExt as _;
    use std::process::{Command, ExitStatus};

    /// What a process in jail is to try.
    const TASK: &str = "SPORE_TEST_JAILED";

    /// Not a test by itself: a process in jail, which has the tests' binary too.
    #[test]
    #[ignore = "the other test runs it, in a process of its own"]
    fn jailed() {
        let Ok(task) = std::env::var(TASK) else {
            return;
        };
        enter(-1).unwrap();
        match task.as_str() {
            "memory" => assert_eq!(vec![1_u8; 1 << 20].len(), 1 << 20),
            "file" => drop(File::open("/dev/null")),
            "socket" => drop(std::os::unix::net::UnixStream::pair()),
            "process" => drop(Command::new("/bin/true").status()),
            "thread" => drop(std::thread::spawn(|| {}).join()),
            _ => {}
        }
        // What libtest does when a test has ended is not on the list.
        // SAFETY: it ends the process, in which nobody waits for anything.
        unsafe { libc::_exit(0) }
    }

    fn tried(task: &str) -> ExitStatus {
        let program = std::env::current_exe().unwrap();
        let mut command = Command::new(program);
        command.args(["--exact", "jail::tests::jailed", "--ignored"]);
        command.env(TASK, task).output().unwrap().status
    }

    #[test]
    fn what_is_not_on_the_list_ends_the_process() {
        assert!(tried("memory").success());
        for task in ["file", "socket", "process", "thread"] {
            assert_eq!(tried(task).signal(), Some(libc::SIGSYS), "{task}");
        }
    }
}
