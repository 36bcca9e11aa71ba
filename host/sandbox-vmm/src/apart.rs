//! Machines of monitors that make their sockets themselves: Firecracker and Cloud Hypervisor.
//!
//! ```text
//!   folder of the machine:   api ── requests of the daemon ──> monitor      vsock ── made by the monitor; nobody uses it
//!                            vsock_1024 ── made by the daemon <── monitor <── guest's init: the channel
//! ```
//!
//! The folder is the daemon's user's alone, and goes with the machine.

use std::fs::File;
use std::future::Future;
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
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
    /// Goes with the machine.
    pub(crate) folder: tempfile::TempDir,
}

impl Room {
    /// Makes it, with the socket at which the guest is awaited.
    pub(crate) fn new(parent: &Path, monitor: Monitor) -> io::Result<Self> {
        let folder = tempfile::Builder::new().prefix("machine-").tempdir_in(parent)?;
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
                api.put(request).await?;
            }
            Ok(self.listener.accept().await)
        };
        match unless(ended, asked).await {
            Some(Ok(accepted)) => {
                let (stream, _) = accepted.map_err(host)?;
                let channel = stream.into_std().map_err(host)?.into();
                Ok(Connected {
                    process: machine.process,
                    channel,
                    sayings,
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

fn refused(monitor: Monitor, error: ApiError) -> StartError {
    let what = match monitor {
        Monitor::Firecracker => "starting Firecracker",
        _ => "starting Cloud Hypervisor",
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
