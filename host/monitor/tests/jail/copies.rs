//! Monitor processes that are copies of one that was started to be copied.

use std::fs;
use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use libtest_mimic::Trial;
use rustix::net::{
    AddressFamily, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
    recv, sendmsg, socketpair,
};
use rustix::process::geteuid;
use serde::de::DeserializeOwned;
use spore_monitor::jail::{JailReport, Layer};
use spore_monitor::process::{Process, Spawn, own_user};
use spore_monitor::protocol::{Copied, Copyable, Event, Request, StopReason};

use crate::trial;

/// Of a monitor as the daemon executes it, rather than a prisoner.
pub(crate) const EXECUTED_TITLE: &str = "spore-monitor executed for a test";
const TITLE: &str = "spore-monitor copied for a test";

pub(crate) fn trials() -> Vec<Trial> {
    let trials = vec![
        trial("copies::are_children_in_namespaces_of_their_own", children),
        trial("copies::go_to_jail_as_others_do", jailed),
        trial("copies::are_made_only_when_asked_for", asked),
    ];
    // Others have a user namespace for each process.
    let is_root = geteuid().is_root();
    trials
        .into_iter()
        .map(|trial| trial.with_ignored_flag(!is_root))
        .collect()
}

fn pair() -> (OwnedFd, OwnedFd) {
    socketpair(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC,
        None,
    )
    .unwrap()
}

fn ask(control: &OwnedFd, request: &Request, attachments: &[&OwnedFd]) {
    let attachments: Vec<_> = attachments.iter().map(|socket| socket.as_fd()).collect();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !attachments.is_empty() {
        assert!(ancillary.push(SendAncillaryMessage::ScmRights(&attachments)));
    }
    let packet = postcard::to_stdvec(request).unwrap();
    sendmsg(
        control,
        &[IoSlice::new(&packet)],
        &mut ancillary,
        SendFlags::NOSIGNAL,
    )
    .unwrap();
}

fn answer<T: DeserializeOwned>(control: &OwnedFd) -> T {
    let mut buffer = vec![0; 64 * 1024];
    let (length, _) = recv(control, &mut buffer[..], RecvFlags::empty()).unwrap();
    postcard::from_bytes(&buffer[..length]).expect("an answer")
}

/// A process to be copied, and the daemon's end of its control socket.
struct Zygote {
    process: Process,
    control: OwnedFd,
}

impl Zygote {
    fn start() -> Self {
        let ((control, monitor_control), (_log, monitor_log)) = (pair(), pair());
        let spawn = Spawn {
            title: "spore-monitor to be copied for a test",
            control: monitor_control,
            log: monitor_log,
            cgroup: None,
            shares_namespaces: false,
        };
        let process = spawn.start_zygote().unwrap();
        let own: Copyable = answer(&control);
        assert!(
            own.jail
                .layers
                .iter()
                .all(|state| state.layer != Layer::PidNamespace)
        );
        Self { process, control }
    }

    /// A copy, and the daemon's end of its control socket.
    fn copy(&self) -> (Process, OwnedFd) {
        let ((control, monitor_control), (_log, monitor_log)) = (pair(), pair());
        let request = Request::Copy {
            title: TITLE.into(),
            is_born_within: false,
        };
        ask(&self.control, &request, &[&monitor_control, &monitor_log]);
        let id = answer::<Copied>(&self.control).unwrap();
        (Process::of_child(id).unwrap(), control)
    }
}

/// What the copy's jail is like; it ends.
fn probe(process: &Process, control: &OwnedFd) -> JailReport {
    let user = own_user(process.id());
    ask(control, &Request::Probe { user }, &[]);
    match answer(control) {
        Event::Jail(report) => report,
        other => panic!("{other:?}"),
    }
}

fn link(process: &Process, name: &str) -> String {
    let path = format!("/proc/{}/ns/{name}", process.id());
    fs::read_link(path).unwrap().to_string_lossy().into_owned()
}

fn children() {
    let zygote = Zygote::start();
    let copies = [zygote.copy(), zygote.copy()];
    for (process, _) in &copies {
        let status = fs::read_to_string(format!("/proc/{}/status", process.id())).unwrap();
        let parent = format!("PPid:\t{}\n", std::process::id());
        assert!(status.contains(&parent), "{status}");
        assert_ne!(link(process, "pid"), link(&zygote.process, "pid"));
        assert_eq!(link(process, "mnt"), link(&zygote.process, "mnt"));
    }
    let [(first, _), (second, _)] = &copies;
    assert_ne!(link(first, "pid"), link(second, "pid"));
    for (process, control) in copies {
        drop(control);
        process.wait().unwrap();
    }
    drop(zygote.control);
    assert!(zygote.process.wait().unwrap().success());
}

/// What the jail of one is like that was executed.
fn executed() -> JailReport {
    let ((control, monitor_control), (_log, monitor_log)) = (pair(), pair());
    let spawn = Spawn {
        title: EXECUTED_TITLE,
        control: monitor_control,
        log: monitor_log,
        cgroup: None,
        shares_namespaces: false,
    };
    let process = spawn.start().unwrap();
    let report = probe(&process, &control);
    see_off(&process);
    report
}

/// Waits for one that was probed. The standard library looks at a descriptor before it closes it where it is built with
/// assertions, by a call that is not on the list: so it may be ended by that.
fn see_off(process: &Process) {
    process.wait().unwrap();
}

fn jailed() {
    let executed = executed();
    assert!(executed.is_active(Layer::SystemCalls), "{executed:?}");
    let zygote = Zygote::start();
    for _ in 0..2 {
        let (process, control) = zygote.copy();
        // Sockets, standard error, KVM, the page map, and where standard error will lead to.
        let folder = format!("/proc/{}/fd", process.id());
        let has_settled = || fs::read_dir(&folder).unwrap().count() <= 6;
        let deadline = Instant::now() + Duration::from_secs(10);
        while !has_settled() {
            assert!(Instant::now() < deadline, "it keeps descriptors of others");
            std::thread::sleep(Duration::from_millis(5));
        }
        let report = probe(&process, &control);
        assert_eq!(report.active(), executed.active(), "{report:?}");
        assert_eq!(report.layers.len(), Layer::ALL.len(), "each once: {report:?}");
        see_off(&process);
    }
    drop(zygote.control);
    assert!(zygote.process.wait().unwrap().success());
}

fn asked() {
    let zygote = Zygote::start();
    ask(&zygote.control, &Request::Stop(StopReason::NotNeeded), &[]);
    assert!(zygote.process.wait().unwrap().success());
    // A monitor makes none.
    let zygote = Zygote::start();
    let (process, control) = zygote.copy();
    let request = Request::Copy {
        title: TITLE.into(),
        is_born_within: false,
    };
    ask(&control, &request, &[]);
    assert!(!process.wait().unwrap().success());
}
