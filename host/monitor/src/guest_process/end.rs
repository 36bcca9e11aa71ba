//! How a guest's process ends, and whose doing that was.

use std::io;
use std::mem::MaybeUninit;

use crate::machine::Exit;
use crate::report::signal_name;

/// Signals that a process gets for what it does itself. A guest cannot send any, and so none of the others.
const OWN_FAULTS: [i32; 5] = [
    libc::SIGILL,
    libc::SIGTRAP,
    libc::SIGBUS,
    libc::SIGFPE,
    libc::SIGSEGV,
];

extern "C" fn on_end(_signal: libc::c_int) {}

/// Lets the end of a child interrupt this process's waits, so that it is seen at once. The guest's memory is the
/// monitor's as well: where the kernel killed the guest for want of memory, there is more only when the monitor has gone.
pub(crate) fn be_interrupted() -> io::Result<()> {
    // SAFETY: all zero is a value of the structure; the handler does nothing.
    let result = unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = on_end as extern "C" fn(libc::c_int) as usize;
        action.sa_flags = libc::SA_RESTART | libc::SA_NOCLDSTOP;
        libc::sigaction(libc::SIGCHLD, &raw const action, std::ptr::null_mut())
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// How a guest's process has ended.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ProcessEnd {
    /// By exiting, with an error number as its status. It does so where it cannot be locked in; a guest that is
    /// cannot: exiting is not on its list of system calls.
    #[error("the guest's process cannot be locked in")]
    SetUp(#[source] io::Error),
    /// By a signal from outside.
    #[error("{}", describe_kill(*.0))]
    Killed(i32),
    /// By a system call that is not on its list.
    #[error("its process has made a system call that it may not make")]
    ForbiddenCall,
    /// By a fault that it could not handle.
    #[error("its process was ended by {}", signal_name(*.0 as u32))]
    Fault(i32),
    /// It cannot be waited for.
    #[error("the guest's process is gone")]
    Gone(#[source] io::Error),
}

fn describe_kill(signal: i32) -> String {
    if signal == libc::SIGKILL {
        // The kernel does not tell who did it.
        "the guest's process was killed, by hand or by the kernel because the host or a cgroup had no memory left".into()
    } else {
        format!(
            "the guest's process was killed by hand ({})",
            signal_name(signal as u32)
        )
    }
}

impl ProcessEnd {
    /// The end that `waitid` tells by `si_code` and `si_status`.
    fn new(code: i32, status: i32) -> Self {
        match (code, status) {
            (libc::CLD_EXITED, error) => Self::SetUp(io::Error::from_raw_os_error(error)),
            (_, libc::SIGSYS) => Self::ForbiddenCall,
            (_, signal) if OWN_FAULTS.contains(&signal) => Self::Fault(signal),
            (_, signal) => Self::Killed(signal),
        }
    }

    /// How this child has ended, if it has. It stays to be waited for, so that its number does not become another's.
    pub(super) fn of(child: libc::pid_t) -> Option<Self> {
        Self::look(child, libc::WNOHANG)
    }

    /// How this child, which is about to end, ends.
    pub(super) fn wait_for(child: libc::pid_t) -> Self {
        loop {
            if let Some(end) = Self::look(child, 0) {
                return end;
            }
        }
    }

    fn look(child: libc::pid_t, flags: i32) -> Option<Self> {
        let mut information = MaybeUninit::<libc::siginfo_t>::zeroed();
        let flags = libc::WEXITED | libc::WNOWAIT | flags;
        // SAFETY: the structure is ours, and all zero is one of its values.
        unsafe {
            if libc::waitid(libc::P_PID, child as libc::id_t, information.as_mut_ptr(), flags) != 0 {
                let error = io::Error::last_os_error();
                let is_interrupted = error.kind() == io::ErrorKind::Interrupted;
                return (!is_interrupted).then_some(Self::Gone(error));
            }
            let information = information.assume_init();
            (information.si_pid() != 0).then(|| Self::new(information.si_code, information.si_status()))
        }
    }

    /// What it means to the loop: what the guest did, or what befell it.
    pub(super) fn exit(self) -> Exit {
        match self {
            Self::ForbiddenCall | Self::Fault(_) => Exit::Unexpected(self.to_string()),
            Self::SetUp(_) | Self::Killed(_) | Self::Gone(_) => Exit::Lost(self),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::os::unix::process::CommandExt;
    use std::process::{Child, Command};

    use crate::run::chain;

    fn shell(script: &str) -> Child {
        let mut command = Command::new("sh");
        command.args(["-c", script]).process_group(0);
        command.spawn().expect("there is a shell")
    }

    /// How a process that runs this script ends.
    fn end_of(script: &str) -> ProcessEnd {
        let mut child = shell(script);
        let end = ProcessEnd::wait_for(child.id() as libc::pid_t);
        child.wait().expect("it is still there to be waited for");
        end
    }

    #[test]
    fn an_exit_is_a_set_up_that_failed_for_the_reason_in_its_status() {
        let end = end_of("exit 12");
        assert_eq!(
            chain(&end),
            "the guest's process cannot be locked in: Cannot allocate memory (os error 12)"
        );
        assert!(matches!(end.exit(), Exit::Lost(ProcessEnd::SetUp(_))));
    }

    #[test]
    fn a_kill_from_outside_is_not_the_guests_doing() {
        let end = end_of("kill -KILL $$");
        assert!(
            end.to_string().contains("killed, by hand or by the kernel"),
            "{end}"
        );
        assert!(matches!(
            end.exit(),
            Exit::Lost(ProcessEnd::Killed(libc::SIGKILL))
        ));
        let end = end_of("kill -TERM $$");
        assert!(end.to_string().contains("by hand (SIGTERM)"), "{end}");
        assert!(matches!(
            end.exit(),
            Exit::Lost(ProcessEnd::Killed(libc::SIGTERM))
        ));
    }

    #[test]
    fn faults_and_forbidden_calls_are_the_guests_doing() {
        for (signal, says) in [
            ("SYS", "system call that it may not make"),
            ("SEGV", "SIGSEGV"),
            ("ILL", "SIGILL"),
        ] {
            // Without a file of its memory.
            let end = end_of(&format!("ulimit -c 0; kill -{signal} $$"));
            let Exit::Unexpected(what) = end.exit() else {
                panic!("{signal} is its own doing")
            };
            assert!(what.contains(says), "{what}");
        }
    }

    #[test]
    fn a_process_that_runs_has_no_end_and_one_that_is_nobodys_child_is_gone() {
        let mut child = shell("sleep 60");
        let number = child.id() as libc::pid_t;
        assert!(ProcessEnd::of(number).is_none());
        child.kill().expect("it runs");
        assert!(matches!(
            ProcessEnd::wait_for(number),
            ProcessEnd::Killed(libc::SIGKILL)
        ));
        child.wait().expect("it has ended");
        let gone = ProcessEnd::of(number).expect("nobody has this number");
        assert!(matches!(gone, ProcessEnd::Gone(_)), "{gone:?}");
    }
}
