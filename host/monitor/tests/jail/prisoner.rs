//! The process that goes to jail, and how its warder talks to it: one packet there, one back.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::process::{ExitCode, ExitStatus};

use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socketpair};
use spore_monitor::jail::{Boundary, GuestHandle, Jail, JailReport};
use spore_monitor::process::{Spawn, own_user};

use crate::{attempts, calls};

/// How far the process goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Depth {
    /// All layers but the list of system calls.
    WithoutList,
    /// All layers.
    Whole,
}

/// What came of it.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// What the process said; nothing if it was ended before.
    pub(crate) answer: Option<String>,
    pub(crate) status: ExitStatus,
}

/// Starts a process that goes to jail and does what `task` names, with a file that it has mapped as its root.
pub(crate) fn send_to_jail(task: &str, depth: Depth, root: &Path) -> Outcome {
    let kind = SocketType::SEQPACKET;
    let pair = || socketpair(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None).unwrap();
    let ((ours, control), (_log, monitor_log)) = (pair(), pair());
    let spawn = Spawn {
        shares_namespaces: false,
        title: "spore-monitor test",
        control,
        log: monitor_log,
        cgroup: None,
    };
    let process = spawn.start().expect("a process can be started");
    let user = own_user(process.id()).map_or(String::new(), |user| user.to_string());
    let packet = format!("{task}\n{depth:?}\n{}\n{user}", root.display());
    send(&ours, packet.as_bytes(), SendFlags::NOSIGNAL).expect("the process reads");
    let mut buffer = vec![0; 64 * 1024];
    let length = recv(&ours, &mut buffer[..], RecvFlags::empty()).map_or(0, |(length, _)| length);
    let answer = (length > 0).then(|| String::from_utf8_lossy(&buffer[..length]).into_owned());
    let status = process.wait().expect("the process ends");
    Outcome { answer, status }
}

/// The process itself.
pub(crate) fn main() -> ExitCode {
    // SAFETY: the warder gives this descriptor, and nothing closes it.
    let control = unsafe { BorrowedFd::borrow_raw(0) };
    let mut buffer = [0; 4096];
    let Ok((length, _)) = recv(control, &mut buffer, RecvFlags::empty()) else {
        return ExitCode::FAILURE;
    };
    let request = String::from_utf8_lossy(&buffer[..length]).into_owned();
    let fields: Vec<&str> = request.split('\n').collect();
    let [task, depth, root, user] = fields[..] else {
        return ExitCode::FAILURE;
    };
    if task == "calls" {
        calls::try_all(control);
        return ExitCode::SUCCESS;
    }
    let (jail, root) = Jail::enter(2, || File::open(root).map(OwnedFd::from));
    let root = root.expect("the warder has made the file");
    let boundary = Boundary {
        guest: GuestHandle::None,
        control: control.as_raw_fd(),
        page_map: None,
        resets: false,
    };
    let stripped = jail.give_up(boundary, user.parse().ok(), |_| {}, || {});
    let report: JailReport = if depth == "Whole" {
        stripped.seal(&boundary, 0)
    } else {
        stripped.seal_without_list(0)
    };
    let answer = attempts::attempt(task, &report, root.as_fd());
    match send(control, answer.as_bytes(), SendFlags::NOSIGNAL) {
        Ok(_) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}
