//! Starts a monitor process.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

use rustix::net::sockopt::set_socket_send_buffer_size;
use rustix::net::{AddressFamily, SendFlags, SocketFlags, SocketType, socketpair};
use spore_monitor::Processor;
use spore_monitor::process::{Process, Spawn, own_user};
use spore_monitor::protocol::{
    Isolation, JailRequest, PACKET_BYTES_MAX, Preparation, Request, StartRequest, Stock,
};
use spore_sandbox::StartError;

use crate::channel::send_now;

/// Number of the signal with which the kernel ends a process that made a call which its list does not have (SIGSYS).
const KILLED_SIGNAL: i32 = rustix::process::Signal::KILL.as_raw();
const BAD_CALL_SIGNAL: i32 = 31;

/// A monitor process that waits for its first request, and our ends of its sockets.
pub(crate) struct Launch {
    pub(crate) process: Process,
    pub(crate) control: OwnedFd,
    pub(crate) log: OwnedFd,
}

pub(crate) fn host_error(what: &'static str) -> impl Fn(io::Error) -> StartError {
    move |source| StartError::Host { what, source }
}

/// Two connected packet sockets: the first for this process, the second for the monitor.
pub(crate) fn packet_sockets() -> Result<(OwnedFd, OwnedFd), StartError> {
    let flags = SocketFlags::CLOEXEC;
    let pair = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None);
    pair.map_err(|error| host_error("making sockets")(error.into()))
}

/// Starts a monitor process, if wanted within a cgroup of version 2. It ends with the calling thread at the latest;
/// `shares_namespaces` says whether that has made some for all that it starts.
pub(crate) fn start(
    title: &str,
    cgroup: Option<BorrowedFd<'_>>,
    shares_namespaces: bool,
) -> Result<Launch, StartError> {
    let sockets = Sockets::new()?;
    let spawn = Spawn {
        title,
        control: sockets.monitor_control,
        log: sockets.monitor_log,
        cgroup,
        shares_namespaces,
    };
    let process = spawn
        .start()
        .map_err(host_error("starting the monitor process"))?;
    Ok(Launch {
        process,
        control: sockets.control,
        log: sockets.log,
    })
}

/// The sockets of a monitor process that is to be started: both ends of each.
pub(crate) struct Sockets {
    pub(crate) control: OwnedFd,
    pub(crate) log: OwnedFd,
    pub(crate) monitor_control: OwnedFd,
    pub(crate) monitor_log: OwnedFd,
}

impl Sockets {
    pub(crate) fn new() -> Result<Self, StartError> {
        let (control, monitor_control) = packet_sockets()?;
        set_socket_send_buffer_size(&control, PACKET_BYTES_MAX)
            .map_err(|error| host_error("making room in a socket")(error.into()))?;
        let (log, monitor_log) = packet_sockets()?;
        Ok(Self {
            control,
            log,
            monitor_control,
            monitor_log,
        })
    }
}

impl Launch {
    /// Ends the process.
    pub(crate) fn end(self) {
        // Fails only if it is gone already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }

    /// Lets the monitor make a virtual machine or a guest process for an instance that may use `memory_bytes`, before it is
    /// known which one that will be. `processor` is that of virtual machines, if it is known; `text` is the library OS's.
    pub(crate) fn prepare(
        &self,
        isolation: Isolation,
        memory_bytes: u64,
        processor: Option<Processor>,
        stock: &Stock,
        text: BorrowedFd<'_>,
    ) -> Result<(), StartError> {
        let preparation = Preparation {
            isolation,
            memory_bytes,
            user: own_user(self.process.id()),
            processor,
            stock: stock.clone(),
        };
        let packet = postcard::to_stdvec(&Request::Prepare(preparation))
            .map_err(|error| host_error("encoding a request")(io::Error::other(error)))?;
        send_now(&self.control, &packet, &[text], SendFlags::NOSIGNAL)
            .map_err(|error| host_error("asking a process")(error.into()))
    }
}

/// The encoded request that starts an instance.
pub(crate) fn encode(instance: StartRequest, jail: JailRequest) -> Result<Vec<u8>, StartError> {
    let instance = Box::new(instance);
    let packet = postcard::to_stdvec(&Request::Start { instance, jail })
        .map_err(|error| host_error("encoding the request")(io::Error::other(error)))?;
    if packet.len() > PACKET_BYTES_MAX {
        return Err(too_large(packet.len()));
    }
    Ok(packet)
}

/// What is said of a request that does not fit.
pub(crate) fn too_large(bytes: usize) -> StartError {
    let reason = format!(
        "its arguments, environment and secrets take {bytes} bytes, which is too much: make them shorter"
    );
    StartError::BadProgram { reason }
}

/// What is said of a monitor that has ended without a report.
pub(crate) fn describe_loss(status: ExitStatus) -> String {
    if status.signal() == Some(BAD_CALL_SIGNAL) {
        "the monitor was stopped by its own list of system calls: it tried one that it never makes".into()
    } else if status.signal() == Some(KILLED_SIGNAL) {
        // The kernel does not tell who did it.
        "the monitor process was killed, by hand or by the kernel because the host or a cgroup had no memory left".into()
    } else {
        format!("the monitor process is gone ({status})")
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use spore_cgroups::Group;

    use super::*;

    #[test]
    fn a_forbidden_call_is_told_from_other_ends() {
        assert!(describe_loss(ExitStatus::from_raw(BAD_CALL_SIGNAL)).contains("list of system calls"));
        assert!(describe_loss(ExitStatus::from_raw(9)).contains("was killed"));
    }

    /// A real hierarchy of version 2, if one is mounted where this user may make cgroups; its controllers do not matter.
    #[test]
    fn a_process_is_born_in_a_real_cgroup_of_version_two() {
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let mount = mounts
            .lines()
            .find(|line| line.contains(" - cgroup2 "))
            .and_then(|line| line.split(' ').nth(4));
        let Some(mount) = mount else {
            eprintln!("skipped: no such hierarchy is mounted");
            return;
        };
        let name = format!("spore-unit-test-{}", std::process::id());
        let folder = std::path::Path::new(mount).join(&name);
        if let Err(error) = fs::create_dir(&folder) {
            eprintln!("skipped: {error}");
            return;
        }
        let group = Group::unified(folder.clone(), mount.into());
        let launch = group
            .start_within(
                |folder| {
                    assert!(folder.is_some(), "it is to be born there");
                    start("spore-test", folder, false)
                },
                Launch::end,
            )
            .unwrap();
        // It may have ended already; where it was is known until it is waited for.
        let memberships = fs::read_to_string(format!("/proc/{}/cgroup", launch.process.id())).unwrap();
        launch.process.wait().unwrap();
        group.remove();
        assert!(
            memberships
                .lines()
                .any(|line| line.starts_with("0::") && line.ends_with(&name)),
            "{memberships}"
        );
        assert!(!folder.exists());
    }
}
