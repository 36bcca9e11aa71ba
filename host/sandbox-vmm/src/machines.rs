//! Processes of the monitors, and of the tender: one thread starts them all, and each is held by its handle.
//!
//! The kernel ends a process when the *thread* that has started it ends; so that thread lives as long as the sandbox does. It is
//! in namespaces in which there is no network, and so is what it starts.

use std::ffi::OsString;
use std::fs;
use std::io::{self, PipeReader, pipe};
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Sender, channel};
use std::time::{Duration, Instant};

use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use spore_cgroups::Group;
use spore_monitor::process::share_namespaces;
use tokio::sync::oneshot;

use crate::launcher::{END_OF_LIST, SUBCOMMAND};

/// This very program.
const OWN_EXECUTABLE: &str = "/proc/self/exe";

/// How often it is looked whether a process has ended.
const PAUSE: Duration = Duration::from_millis(2);

/// A machine that runs. Dropping it ends it.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    has_ended: bool,
    /// Dropped when the process has ended.
    _group: Option<OwnGroup>,
}

/// A cgroup that is removed when it is dropped.
#[derive(Debug)]
pub(crate) struct OwnGroup(pub(crate) Group);

impl Drop for OwnGroup {
    fn drop(&mut self) {
        self.0.remove();
    }
}

/// A machine, and our ends of what it has open.
#[derive(Debug)]
pub(crate) struct Launch {
    pub(crate) process: Process,
    pub(crate) channel: OwnedFd,
    pub(crate) control: OwnedFd,
    pub(crate) console: PipeReader,
}

/// A machine of a monitor that makes its sockets itself, in a folder of its own.
#[derive(Debug)]
pub(crate) struct Apart {
    pub(crate) process: Process,
    pub(crate) console: PipeReader,
}

/// What is to be started.
#[derive(Debug)]
pub(crate) struct Wanted {
    /// The monitor's path, or what the launcher knows the tender by.
    pub(crate) program: PathBuf,
    pub(crate) arguments: Vec<OsString>,
    /// Its cgroup, which goes with it; none where there can be none.
    pub(crate) group: Option<OwnGroup>,
    /// The files that it reads.
    pub(crate) files: Vec<PathBuf>,
    /// Where it saves the machine, if it is to.
    pub(crate) saves: Option<Saves>,
}

/// A folder to which a machine is saved.
#[derive(Debug, Clone)]
pub(crate) struct Saves {
    pub(crate) folder: PathBuf,
    /// Longest file there, in bytes.
    pub(crate) file_bytes: u64,
}

/// What is to be done on the thread.
type Order = Box<dyn FnOnce() + Send>;

/// Starts machines.
#[derive(Debug)]
pub(crate) struct Machines {
    orders: Sender<Order>,
    /// Why they share the host's network namespace, if they do.
    without_namespaces: Option<String>,
}

impl Machines {
    /// Starts the thread.
    pub(crate) fn start() -> io::Result<Self> {
        let (orders, queue) = channel::<Order>();
        let (told, how) = channel();
        std::thread::Builder::new()
            .name("microvms".into())
            .spawn(move || {
                let shared = share_namespaces();
                // Nobody waits any more only if the sandbox was given up.
                let _ = told.send(shared.err().map(|error| error.to_string()));
                for order in queue {
                    order();
                }
            })?;
        let without_namespaces = how.recv().map_err(io::Error::other)?;
        Ok(Self {
            orders,
            without_namespaces,
        })
    }

    /// Why machines share the host's network namespace, in which QEMU opens nothing all the same; none if they do not.
    pub(crate) fn without_namespaces(&self) -> Option<&str> {
        self.without_namespaces.as_deref()
    }

    /// Starts a machine whose channel and control are sockets that it inherits.
    pub(crate) async fn launch(&self, wanted: Wanted) -> io::Result<Launch> {
        self.run(move || launch(wanted)).await
    }

    /// Starts a machine that makes its sockets in `folder`, in which it begins; it may inherit one as its standard input.
    pub(crate) async fn launch_apart(
        &self,
        wanted: Wanted,
        folder: PathBuf,
        inherited: Option<OwnedFd>,
    ) -> io::Result<Apart> {
        self.run(move || launch_apart(wanted, &folder, inherited)).await
    }

    async fn run<T: Send + 'static>(
        &self,
        start: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let (answer, launched) = oneshot::channel();
        let gone = || io::Error::other("the thread that starts machines is gone");
        let order: Order = Box::new(move || {
            // Whoever has given up drops the machine with the answer.
            let _ = answer.send(start());
        });
        self.orders.send(order).map_err(|_| gone())?;
        launched.await.map_err(|_| gone())?
    }
}

fn launch(wanted: Wanted) -> io::Result<Launch> {
    let sockets = || {
        socketpair(
            AddressFamily::UNIX,
            SocketType::STREAM,
            SocketFlags::CLOEXEC,
            None,
        )
    };
    let (channel, their_channel) = sockets()?;
    let (control, their_control) = sockets()?;
    let (console, their_console) = pipe()?;
    let child = command(&wanted, None)
        .stdin(Stdio::from(their_channel))
        .stdout(Stdio::from(their_control))
        .stderr(Stdio::from(their_console))
        .spawn()?;
    Ok(Launch {
        process: Process::new(child, wanted.group),
        channel,
        control,
        console,
    })
}

fn launch_apart(wanted: Wanted, folder: &Path, inherited: Option<OwnedFd>) -> io::Result<Apart> {
    let (console, their_console) = pipe()?;
    let child = command(&wanted, Some(folder))
        .current_dir(folder)
        .stdin(inherited.map_or_else(Stdio::null, Stdio::from))
        .stdout(Stdio::from(their_console.try_clone()?))
        .stderr(Stdio::from(their_console))
        .spawn()?;
    Ok(Apart {
        process: Process::new(child, wanted.group),
        console,
    })
}

/// The launcher, told what to become.
fn command(wanted: &Wanted, folder: Option<&Path>) -> Command {
    let doors = wanted
        .group
        .as_ref()
        .map(|group| group.0.doors())
        .unwrap_or_default();
    let mut command = Command::new(OWN_EXECUTABLE);
    command
        .arg(SUBCOMMAND)
        .arg(std::process::id().to_string())
        .args(doors.inner)
        .arg(END_OF_LIST)
        .args(&wanted.files)
        .arg(END_OF_LIST)
        .args(folder)
        .arg(END_OF_LIST)
        .args(wanted.saves.iter().flat_map(|saves| {
            [
                saves.folder.clone().into(),
                OsString::from(saves.file_bytes.to_string()),
            ]
        }))
        .arg(END_OF_LIST)
        .arg(&wanted.program)
        .args(&wanted.arguments)
        .env_clear()
        .current_dir("/");
    command
}

impl Process {
    const fn new(child: Child, group: Option<OwnGroup>) -> Self {
        Self {
            child,
            has_ended: false,
            _group: group,
        }
    }

    /// Its number.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits until it has ended by itself, so long at most.
    pub(crate) fn wait_briefly(&mut self, most: Duration) -> io::Result<()> {
        let end = Instant::now() + most;
        while !self.has_ended && Instant::now() < end {
            self.has_ended = self.child.try_wait()?.is_some();
            if !self.has_ended {
                std::thread::sleep(PAUSE);
            }
        }
        Ok(())
    }

    /// Ends it, if it has not ended, and waits for that: a process that is killed ends soon.
    pub(crate) fn end(&mut self) -> io::Result<ExitStatus> {
        if !self.has_ended {
            self.child.kill()?;
            self.has_ended = true;
        }
        self.child.wait()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Fails only if it is gone already.
        let _ = self.end();
    }
}

/// What is said of a machine that has ended by itself, by what runs it.
pub(crate) fn describe(monitor: &str, status: ExitStatus) -> String {
    match status.signal() {
        Some(signal) => format!("{monitor} was ended by signal {signal}"),
        None => format!("{monitor} has ended ({status})"),
    }
}

/// Memory that a process takes of this machine, in bytes, of what it shares with others its part.
pub(crate) fn memory_bytes(id: u32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{id}/smaps_rollup")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}
