//! What confines instances on this machine: found out by confining a process.

use std::path::Path;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::retry_on_intr;
use rustix::net::{RecvFlags, SendFlags, recv, send};
use spore_monitor::jail::JailReport;
use spore_monitor::process::own_user;
use spore_monitor::protocol::{Event, PACKET_BYTES_MAX, Request};
use spore_sandbox::{Layer, StartError};

use crate::launch::{self, Launch, host_error};
use spore_cgroups::{CgroupError, Group, Groups};

/// How long a process may take to go to jail.
const PATIENCE: Duration = Duration::from_secs(10);
/// What the cgroup of the process that tries is limited to: memory in bytes, thousandths of a processor.
const TRIAL_LIMITS: (u64, u32) = (64 << 20, 1000);
/// How long the processes of a daemon that was killed may take to end.
const STALE_PATIENCE: Duration = Duration::from_secs(5);
const STALE_PAUSE: Duration = Duration::from_millis(50);

/// What was found.
pub(crate) struct Confinement {
    /// Layers of the monitor's own.
    pub(crate) jail: JailReport,
    cgroup: Vec<Layer>,
}

impl Confinement {
    /// All layers, for people and programs.
    pub(crate) fn layers(&self) -> Vec<Layer> {
        let own = self.jail.layers.iter().map(|state| Layer {
            name: state.layer.to_string(),
            missing: state.missing.clone(),
        });
        own.chain(self.cgroup.iter().cloned()).collect()
    }
}

/// What confines instances here, whose cgroups would go below the one named or the own one.
///
/// # Errors
///
/// If no process can be started.
pub fn layers(cgroup_parent: Option<&Path>) -> Result<Vec<Layer>, StartError> {
    find(cgroup_parent).map(|(confinement, _)| confinement.layers())
}

/// Sends a process to jail, in a cgroup if there can be any, and asks how it went.
pub(crate) fn find(cgroup_parent: Option<&Path>) -> Result<(Confinement, Option<Groups>), StartError> {
    // A thread of its own visits the cgroup in which the process is born, and ends after it.
    let found = std::thread::scope(|scope| scope.spawn(|| find_here(cgroup_parent)).join());
    found.unwrap_or_else(|_| {
        let source = std::io::Error::other("the thread that tries it is gone");
        Err(host_error("confining a process")(source))
    })
}

fn find_here(cgroup_parent: Option<&Path>) -> Result<(Confinement, Option<Groups>), StartError> {
    let trial = Groups::new(cgroup_parent).and_then(|groups| {
        remove_stale(groups.stale());
        let group = groups.trial()?;
        let jail = probe_within(&group);
        group.remove();
        match jail {
            Ok(jail) => Ok((jail, groups)),
            Err(error) => Err(CgroupError::Trial(Box::new(error))),
        }
    });
    Ok(match trial {
        Ok((jail, groups)) => {
            let cgroup = groups.layers();
            (Confinement { jail, cgroup }, Some(groups))
        }
        Err(error) => {
            let jail = probe(&launch::start(TITLE, None, false)?)?;
            let cgroup = spore_cgroups::missing_layers(&error);
            (Confinement { jail, cgroup }, None)
        }
    })
}

const TITLE: &str = "spore-monitor probe";

/// The same within a cgroup, which is limited as one of an instance would be.
fn probe_within(group: &Group) -> Result<JailReport, StartError> {
    let launch = group.start_within(|folder| launch::start(TITLE, folder, false), Launch::end)?;
    let (memory_bytes, processor_millis) = TRIAL_LIMITS;
    let limited = group
        .limit(memory_bytes, processor_millis)
        .map_err(host_error("limiting a cgroup"));
    let report = probe(&launch);
    limited.and(report)
}

/// Asks a monitor process what becomes of each layer.
fn probe(launch: &Launch) -> Result<JailReport, StartError> {
    let report = ask(launch);
    if report.is_err() {
        // Fails only if it is gone already.
        let _ = launch.process.kill();
    }
    let status = launch
        .process
        .wait()
        .map_err(host_error("waiting for a process"))?;
    report?.ok_or_else(|| {
        let source = std::io::Error::other(launch::describe_loss(status));
        host_error("confining a process")(source)
    })
}

/// The monitor's answer; none if it has ended without one.
fn ask(launch: &Launch) -> Result<Option<JailReport>, StartError> {
    let failed = |error: rustix::io::Errno| host_error("asking a process")(error.into());
    let request = Request::Probe {
        user: own_user(launch.process.id()),
    };
    let packet = postcard::to_stdvec(&request)
        .map_err(|error| host_error("encoding a request")(std::io::Error::other(error)))?;
    retry_on_intr(|| send(&launch.control, &packet, SendFlags::NOSIGNAL)).map_err(failed)?;
    let timeout = Timespec {
        tv_sec: PATIENCE.as_secs() as i64,
        tv_nsec: 0,
    };
    let mut list = [PollFd::new(&launch.control, PollFlags::IN)];
    if retry_on_intr(|| poll(&mut list, Some(&timeout))).map_err(failed)? == 0 {
        return Err(host_error("confining a process")(
            std::io::ErrorKind::TimedOut.into(),
        ));
    }
    let mut packet = vec![0; PACKET_BYTES_MAX];
    let (length, _) =
        retry_on_intr(|| recv(&launch.control, &mut packet[..], RecvFlags::empty())).map_err(failed)?;
    Ok(match postcard::from_bytes(&packet[..length]) {
        Ok(Event::Jail(report)) => Some(report),
        _ => None,
    })
}

/// Removes what daemons have left that are gone. Their monitors may be about to end, so some of it may take a moment.
fn remove_stale(groups: spore_cgroups::Stale) {
    if groups.remove() {
        return;
    }
    // What cannot be removed by then is for the next start.
    let _ = std::thread::Builder::new()
        .name("leftovers".into())
        .spawn(move || {
            for _ in 0..STALE_PATIENCE.as_millis() / STALE_PAUSE.as_millis() {
                std::thread::sleep(STALE_PAUSE);
                if groups.remove() {
                    break;
                }
            }
        });
}
