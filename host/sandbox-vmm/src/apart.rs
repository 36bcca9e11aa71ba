//! Machines of monitors that make their sockets themselves: Firecracker and Cloud Hypervisor.
//!
//! ```text
//!   folder of the machine:   api ── requests of the daemon ──> monitor      vsock ── made by the monitor; nobody uses it
//!                            vsock_1024 ── made by the daemon <── monitor <── guest's init: the channel
//! ```
//!
//! The folder is the daemon's user's alone, and goes with the machine.

use std::fs::{File, Permissions};
use std::future::Future;
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use spore_abi::microvm::VSOCK_PORT;
use spore_sandbox::{EndCause, EndReport, StartError};
use tokio::net::UnixListener;

use crate::api::{Api, ApiError};
use crate::control::{self, Sayings};
use crate::machines::{Apart, Process, describe};
use crate::monitor::Monitor;
use crate::requests::{API_SOCKET, Request, VSOCK_SOCKET};

/// How long a monitor that has closed its console may take to end.
const END_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(1);

/// A folder with the sockets of a machine.
#[derive(Debug)]
pub(crate) struct Room {
    folder: tempfile::TempDir,
    /// The folder, by which sockets are named: their names may be no longer than 107 bytes, and a path may.
    opened: File,
    listener: UnixListener,
    /// The socket of the monitor's interface, where the monitor does not make it.
    inherited: Option<OwnedFd>,
}

/// A machine whose guest has come.
#[derive(Debug)]
pub(crate) struct Connected {
    pub(crate) process: Process,
    pub(crate) channel: OwnedFd,
    pub(crate) sayings: Sayings,
    /// For what else is to be asked of it.
    pub(crate) api: Api,
    /// Goes with the machine.
    pub(crate) folder: tempfile::TempDir,
}

impl Room {
    /// Makes it, with the socket at which the guest is awaited.
    pub(crate) fn new(parent: &Path, monitor: Monitor) -> io::Result<Self> {
        let folder = own_folder(parent, "machine-")?;
        let opened = File::open(folder.path())?;
        let listener = UnixListener::bind(within(&opened, &format!("{VSOCK_SOCKET}_{VSOCK_PORT}")))?;
        let inherited = match monitor {
            Monitor::CloudHypervisor => Some(std::os::unix::net::UnixListener::bind(within(
                &opened, API_SOCKET,
            ))?),
            _ => None,
        };
        Ok(Self {
            folder,
            opened,
            listener,
            inherited: inherited.map(Into::into),
        })
    }

    /// The socket that the monitor is to inherit, if it is to.
    pub(crate) fn take_inherited(&mut self) -> Option<OwnedFd> {
        self.inherited.take()
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Tells the monitor what machine it is, and waits for its guest. Whoever calls it gives up in time.
    pub(crate) async fn connect(
        self,
        monitor: Monitor,
        machine: Apart,
        requests: &[Request],
    ) -> Result<Connected, StartError> {
        let sayings = Sayings::default();
        let host = |source| StartError::Host {
            what: "using the sockets of the monitor",
            source,
        };
        let ended = control::listen(machine.console, sayings.clone()).map_err(host)?;
        let api = within(&self.opened, API_SOCKET);
        let asked = async {
            let mut api = Api::connect(&api).await?;
            for request in requests {
                api.ask(request).await?;
            }
            Ok((api, self.listener.accept().await))
        };
        match unless(ended, asked).await {
            Some(Ok((api, accepted))) => {
                let (stream, _) = accepted.map_err(host)?;
                let channel = stream.into_std().map_err(host)?.into();
                Ok(Connected {
                    process: machine.process,
                    channel,
                    sayings,
                    api,
                    folder: self.folder,
                })
            }
            Some(Err(error)) => Err(refused(monitor, error)),
            None => Err(StartError::EndedEarly(
                report(monitor, machine.process, &sayings).await,
            )),
        }
    }
}

/// A folder that nobody else can enter: its name begins so.
pub(crate) fn own_folder(parent: &Path, prefix: &str) -> io::Result<tempfile::TempDir> {
    tempfile::Builder::new()
        .prefix(prefix)
        .permissions(Permissions::from_mode(0o700))
        .tempdir_in(parent)
}

/// A name in a folder, short whatever the folder's path is.
fn within(folder: &File, name: &str) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}/{name}", folder.as_raw_fd()))
}

/// What comes of a future, unless the monitor ends before. One that ends while it is asked is taken for ended.
async fn unless<T>(
    mut ended: tokio::task::JoinHandle<()>,
    asked: impl Future<Output = Result<T, ApiError>>,
) -> Option<Result<T, ApiError>> {
    tokio::select! {
        biased;
        _ = &mut ended => None,
        asked = asked => match asked {
            Err(ApiError::Unanswered { .. } | ApiError::Unreachable(_)) => {
                // Its sockets are closed before its console is.
                match tokio::time::timeout(END_TIMEOUT, ended).await {
                    Ok(_) => None,
                    Err(_) => Some(asked),
                }
            }
            asked => Some(asked),
        },
    }
}

pub(crate) fn refused(monitor: Monitor, error: ApiError) -> StartError {
    let what = match monitor {
        Monitor::Firecracker => "running a machine of Firecracker",
        _ => "running a machine of Cloud Hypervisor",
    };
    StartError::Host {
        what,
        source: io::Error::other(error),
    }
}

/// What is known of a monitor that has ended before its guest came.
async fn report(monitor: Monitor, mut process: Process, sayings: &Sayings) -> EndReport {
    let status = tokio::task::spawn_blocking(move || {
        // It is about to end by itself, with a status that tells why.
        process.wait_briefly(END_TIMEOUT)?;
        process.end()
    });
    let status = status.await.unwrap_or_else(|error| Err(io::Error::other(error)));
    let summary = status.map_or_else(
        |error| error.to_string(),
        |status| describe(&monitor.to_string(), status),
    );
    EndReport {
        cause: EndCause::SandboxFailed { summary },
        details: sayings.details(),
        read_bytes: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn sockets_are_in_a_folder_that_nobody_else_can_enter_however_long_its_path_is() {
        let folder = tempfile::tempdir().unwrap();
        let parent = folder.path().join("f".repeat(200));
        std::fs::create_dir(&parent).unwrap();
        let mut room = Room::new(&parent, Monitor::CloudHypervisor).unwrap();
        let mode = room.path().metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
        let names = std::fs::read_dir(room.path()).unwrap();
        let mut names: Vec<_> = names.map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["api", "vsock_1024"]);
        assert!(room.take_inherited().is_some());
        drop(room);
        assert_eq!(std::fs::read_dir(&parent).unwrap().count(), 0);
        let mut room = Room::new(&parent, Monitor::Firecracker).unwrap();
        assert!(room.take_inherited().is_none());
    }
}
