//! The container sandbox: runc, crun and gVisor's runsc through their OCI command line.
//!
//! ```text
//!   Container (handle) ──stop──> actor task ──stream──> keeper process ──> runtime ──> the function
//!        │                          │   <──reports──┘        │ own mounts, own network namespace
//!        │                          └── the pipes that the function writes its log to
//!        └── connect: a socket made in that network namespace
//! ```
//!
//! An instance has a cgroup of its own; namespaces, mounts and the first process are its keeper's (`keeper`). Whoever of
//! daemon and keeper is killed, the other one ends the container; if both are, the next start of the daemon does.

mod actor;
mod config;
mod images;
pub mod keeper;
mod leftovers;
mod log;
mod network;
mod protocol;
mod runtime;
mod seccomp;
mod stream;

use std::fs::{File, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use async_trait::async_trait;
use spore_cgroups::{Group, Groups};
use spore_sandbox::{
    ConnectError, EndReport, IngressStream, Instance, InstanceSpec, Isolation, IsolationError, LogSink,
    Sandbox, SandboxKind, StartError, StartStages, StopReason, UnsupportedError,
};
use tokio::io::AsyncWriteExt as _;
use tokio::net::UnixStream;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::spawn_blocking;

use actor::{Actor, Started};
use images::{Hold, Images};
use network::Sockets;
use protocol::{Lower, Request};
use runtime::{Family, Runtime};
use stream::Stream;

/// The kinds of sandbox that are containers.
pub const KINDS: [SandboxKind; 3] = [SandboxKind::Runc, SandboxKind::Crun, SandboxKind::Gvisor];
/// The subcommand of `spore` that is a keeper.
pub const KEEPER: &str = "container-keeper";

/// Processes and threads of an instance, those of its runtime included.
const PROCESSES_MAX: u32 = 512;
/// What an instance may use on top of its memory until its runtime has started it, in bytes.
const START_BYTES: u64 = 64 << 20;
/// Which part of its memory an instance can take by writing files.
const WRITTEN_PART: u64 = 2;

/// How instances are to be run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainersOptions {
    /// A folder of the daemon's, which is made.
    pub folder: PathBuf,
    /// What the instances' cgroups go below: a path within each hierarchy; the daemon's own cgroup if there is none.
    pub cgroup_parent: Option<PathBuf>,
}

/// A sandbox, or why it cannot be had, with what to do.
pub type Found = Result<Arc<dyn Sandbox>, String>;

/// What all kinds have in common.
#[derive(Debug)]
struct Host {
    groups: Groups,
    images: Arc<Images>,
    sockets: Sockets,
    /// An empty folder, where each keeper mounts its own.
    place: PathBuf,
    started: AtomicU64,
}

/// Why containers of a kind cannot be run here, as far as that shows without trying; none if they can.
#[must_use]
pub fn missing(kind: SandboxKind) -> Option<String> {
    let family = Family::of(kind)?;
    find(family).err()
}

fn find(family: Family) -> Result<PathBuf, String> {
    if !rustix::process::geteuid().is_root() {
        return Err("containers are made by root only: run the daemon as root".to_owned());
    }
    family.find()
}

/// The sandboxes of all kinds; of those that cannot be had, why, and what to do. Removes what a daemon has left that was
/// killed.
#[must_use]
pub fn sandboxes(options: &ContainersOptions) -> Vec<(SandboxKind, Found)> {
    let families = KINDS.map(|kind| {
        (
            kind,
            Family::of(kind)
                .ok_or_else(String::new)
                .and_then(|family| find(family).map(|program| (family, program))),
        )
    });
    let host = match families.iter().any(|(_, found)| found.is_ok()) {
        true => Host::new(
            options,
            families.iter().filter(|(_, found)| found.is_ok()).count(),
        )
        .map(Arc::new),
        // Nobody asks.
        false => Err(String::new()),
    };
    let sandbox = |kind, found: Result<(Family, PathBuf), String>| -> Found {
        let (family, program) = found?;
        let host = host.clone()?;
        let folder = options.folder.join(family.program());
        let state = std::fs::create_dir_all(&folder).and_then(|()| folder.canonicalize());
        let state = state.map_err(|error| format!("{} cannot be made: {error}", folder.display()))?;
        let runtime = Runtime {
            family,
            program,
            state,
        };
        leftovers::remove(&runtime);
        Ok(Arc::new(ContainerSandbox { kind, runtime, host }))
    };
    families
        .into_iter()
        .map(|(kind, found)| (kind, sandbox(kind, found)))
        .collect()
}

impl Host {
    fn new(options: &ContainersOptions, kinds: usize) -> Result<Self, String> {
        let groups = Groups::holdable(options.cgroup_parent.as_deref())
            .map_err(|error| format!("containers need cgroups, and there are none: {}", chain(&error)))?;
        if let Some(reason) = groups.layers().into_iter().find_map(|layer| layer.missing) {
            return Err(format!("containers need cgroups: {reason}"));
        }
        // What is not quite gone yet is for the next start.
        let _ = groups.stale().remove();
        leftovers::remove_cgroups();
        private_folder(&options.folder)
            .map_err(|error| format!("{} cannot be made: {error}", options.folder.display()))?;
        let folder = |name: &str| {
            let folder = options.folder.join(name);
            std::fs::create_dir_all(&folder)
                .and_then(|()| folder.canonicalize())
                .map_err(|error| format!("{} cannot be made: {error}", folder.display()))
        };
        Ok(Self {
            groups,
            images: Arc::new(Images::new(folder("images")?, kinds)),
            sockets: Sockets::start().map_err(|error| format!("no thread can be started: {error}"))?,
            place: folder("place")?,
            started: AtomicU64::new(0),
        })
    }
}

/// Makes a folder that nobody but its owner gets through: below it are folders to which whoever can reach them may write,
/// the `/tmp` of containers.
fn private_folder(folder: &Path) -> io::Result<()> {
    std::fs::create_dir_all(folder)?;
    std::fs::set_permissions(folder, Permissions::from_mode(0o700))
}

/// An error with its causes, in one line.
fn chain(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {}", chain(source)),
        None => error.to_string(),
    }
}

fn host_error(what: &'static str) -> impl Fn(io::Error) -> StartError {
    move |source| StartError::Host { what, source }
}

/// A cgroup that no actor owns yet: it goes with a start that is given up, whenever that is.
struct Unclaimed {
    group: Arc<Group>,
    is_claimed: bool,
}

impl Unclaimed {
    /// From now on the caller removes it.
    fn claim(mut self) -> Arc<Group> {
        self.is_claimed = true;
        Arc::clone(&self.group)
    }
}

impl Drop for Unclaimed {
    fn drop(&mut self) {
        if !self.is_claimed {
            self.group.remove();
        }
    }
}

/// Starts containers by one runtime.
struct ContainerSandbox {
    kind: SandboxKind,
    runtime: Runtime,
    host: Arc<Host>,
}

impl ContainerSandbox {
    fn refusal(&self, what: &str, instead: &str) -> UnsupportedError {
        UnsupportedError(format!("the sandbox `{}` {what}: {instead}", self.kind))
    }

    /// Makes cgroup and lower layer.
    fn prepare(&self, spec: &InstanceSpec, number: u64) -> Result<(Lower, Hold, Unclaimed), StartError> {
        let (lower, hold) = self
            .host
            .images
            .lower(spec)
            .map_err(host_error("making what a container's root is made of"))?;
        let group = self.host.groups.make(&format!("c{number}"), PROCESSES_MAX);
        let unclaimed = Unclaimed {
            group: Arc::new(group.map_err(host_error("making a cgroup"))?),
            is_claimed: false,
        };
        let memory_bytes = spec.memory_bytes + self.runtime.family.own_memory_bytes() + START_BYTES;
        let limited = unclaimed.group.limit_memory(memory_bytes);
        limited.map_err(host_error("limiting a cgroup"))?;
        Ok((lower, hold, unclaimed))
    }

    fn request(&self, spec: &InstanceSpec, id: &str, lower: Lower, group: &Group) -> Request {
        let family = self.runtime.family;
        let mut doors = group.doors();
        let cgroup = group.unified_path().filter(|_| family == Family::Runc);
        if cgroup.is_some() {
            // In version 2 it is runc that moves the container.
            doors.inner.clear();
        }
        let place = &self.host.place;
        Request {
            runtime: self.runtime.clone(),
            id: id.to_owned(),
            place: place.clone(),
            lower,
            written_bytes_max: (spec.memory_bytes / WRITTEN_PART).max(1 << 20),
            owner: (spec.user.id, spec.user.group),
            configuration: config::configuration(spec, family, place, cgroup.as_deref()),
            secrets: spec
                .secrets
                .iter()
                .map(|secret| (secret.name.clone(), secret.value.to_vec()))
                .collect(),
            inner_doors: doors.inner,
            outer_doors: doors.outer,
            hidden: match family {
                Family::Crun => hybrid_mounts(),
                Family::Runc | Family::Runsc => Vec::new(),
            },
        }
    }
}

/// The hierarchy of version 2 that is beside those of version 1, with which crun does not run.
fn hybrid_mounts() -> Vec<PathBuf> {
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let of = |wanted: &str| -> Vec<PathBuf> {
        let fields = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
        fields
            .filter(|fields| fields.get(2) == Some(&wanted))
            .filter_map(|fields| fields.get(1).map(PathBuf::from))
            .collect()
    };
    match of("cgroup").is_empty() {
        true => Vec::new(),
        false => of("cgroup2"),
    }
}

#[async_trait]
impl Sandbox for ContainerSandbox {
    fn kind(&self) -> SandboxKind {
        self.kind
    }

    fn isolation(&self, _: SandboxKind, wanted: Option<Isolation>) -> Result<Isolation, IsolationError> {
        match wanted {
            Some(Isolation::VirtualMachine) => Err(IsolationError(format!(
                "the sandbox `{}` makes no virtual machines: leave the isolation `vm` out, or choose another sandbox",
                self.kind
            ))),
            Some(Isolation::Process) | None => Ok(Isolation::Process),
        }
    }

    fn check(&self, spec: &InstanceSpec) -> Result<(), UnsupportedError> {
        if spec.command.is_some() {
            return Err(self.refusal(
                "runs servers, not commands",
                "leave `fprocess` out, or choose the sandbox `unikernel`",
            ));
        }
        if spec.serves_runtime_api {
            return Err(self.refusal(
                "does not serve the Runtime API of AWS Lambda",
                "leave `dev.spore.protocol` out, or choose the sandbox `unikernel`",
            ));
        }
        if spec.is_cloned {
            return Err(self.refusal(
                "makes no copies of running instances",
                "leave `dev.spore.snapshot` out, or choose the sandbox `unikernel`",
            ));
        }
        if !spec.egress.is_empty() {
            return Err(self.refusal(
                "lets functions connect nowhere",
                "leave `dev.spore.allow-egress` out, or choose the sandbox `unikernel`",
            ));
        }
        Ok(())
    }

    fn retain(&self, deployed: &[InstanceSpec]) {
        self.host.images.retain(self.kind, deployed);
    }

    async fn start(
        &self,
        spec: InstanceSpec,
        log: Arc<dyn LogSink>,
    ) -> Result<Arc<dyn Instance>, StartError> {
        let begun = Instant::now();
        self.check(&spec)
            .map_err(|error| StartError::BadProgram { reason: error.0 })?;
        let number = self.host.started.fetch_add(1, Ordering::Relaxed);
        let preparing = {
            let (this, spec) = (self.clone(), spec.clone());
            spawn_blocking(move || this.prepare(&spec, number))
        };
        let prepared = preparing.await;
        let (lower, hold, unclaimed) =
            prepared.map_err(|error| host_error("preparing a container")(io::Error::other(error)))??;
        let id = format!("spore-{}-{number}", std::process::id());
        let request = self.request(&spec, &id, lower, &unclaimed.group);
        let (commands, command_queue) = mpsc::channel(2);
        let (ready_sender, ready) = oneshot::channel();
        let (end_sender, end) = watch::channel(None);
        let started = start_keeper();
        let (keeper, control) = started.map_err(host_error("starting the process beside a container"))?;
        let keeper_number = keeper.id().unwrap_or_default();
        // From here on the actor removes what there is.
        let group = unclaimed.claim();
        let actor = Actor::new(
            &spec,
            self.runtime.clone(),
            id,
            (hold, group),
            log,
            keeper,
            control,
        );
        tokio::spawn(actor.run(request, command_queue, ready_sender, end_sender));
        let handle = Handle { commands, end };
        let Started {
            namespace,
            address,
            process,
        } = match tokio::time::timeout(spec.ready_timeout, ready).await {
            Ok(Ok(outcome)) => outcome?,
            // The actor always answers, unless the runtime is going down under it.
            Ok(Err(_)) => return Err(StartError::EndedEarly(actor::lost_report())),
            Err(_) => {
                let after = spec.ready_timeout;
                handle.stop(StopReason::TimedOut { after }).await;
                return Err(StartError::NotReady {
                    after,
                    awaited: spec.awaited(),
                });
            }
        };
        Ok(Arc::new(Container {
            id: spec.instance.clone(),
            port: spec.port,
            keeper: keeper_number,
            process,
            family: self.runtime.family,
            namespace: Arc::new(namespace),
            address,
            begun,
            handle,
            host: Arc::clone(&self.host),
            cgroup: number,
        }))
    }
}

impl Clone for ContainerSandbox {
    fn clone(&self) -> Self {
        Self {
            kind: self.kind,
            runtime: self.runtime.clone(),
            host: Arc::clone(&self.host),
        }
    }
}

/// Starts a keeper, and the stream to it.
fn start_keeper() -> io::Result<(tokio::process::Child, UnixStream)> {
    let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
    ours.set_nonblocking(true)?;
    let keeper = tokio::process::Command::new("/proc/self/exe")
        .arg(KEEPER)
        .env_clear()
        .stdin(Stdio::from(std::os::fd::OwnedFd::from(theirs)))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    Ok((keeper, UnixStream::from_std(ours)?))
}

/// Sends a keeper what it is to do.
async fn send(stream: &mut UnixStream, request: &Request) -> io::Result<()> {
    let mut text = serde_json::to_vec(request).map_err(io::Error::other)?;
    text.push(b'\n');
    stream.write_all(&text).await
}

/// What can be asked of an instance that runs, or is about to. Dropping it ends that.
struct Handle {
    commands: mpsc::Sender<StopReason>,
    end: watch::Receiver<Option<EndReport>>,
}

impl Handle {
    async fn ended(&self) -> EndReport {
        let mut end = self.end.clone();
        match end.wait_for(Option::is_some).await.map(|report| report.clone()) {
            Ok(Some(report)) => report,
            Ok(None) | Err(_) => actor::lost_report(),
        }
    }

    async fn stop(&self, reason: StopReason) -> EndReport {
        // A full or closed queue means that it is being stopped already.
        let _ = self.commands.try_send(reason);
        self.ended().await
    }
}

/// A running container.
struct Container {
    id: String,
    port: u16,
    keeper: u32,
    /// The first process.
    process: i32,
    family: Family,
    namespace: Arc<File>,
    /// Where somebody listened last.
    address: std::net::SocketAddr,
    begun: Instant,
    handle: Handle,
    host: Arc<Host>,
    cgroup: u64,
}

impl Container {
    fn group(&self) -> Group {
        self.host.groups.existing(&format!("c{}", self.cgroup))
    }
}

#[async_trait]
impl Instance for Container {
    fn id(&self) -> &str {
        &self.id
    }

    async fn connect(&self) -> Result<Box<dyn IngressStream>, ConnectError> {
        if let Some(report) = self.handle.end.borrow().clone() {
            return Err(ConnectError::Ended(report));
        }
        let mut outcome = self.host.sockets.connect(&self.namespace, self.address).await;
        if outcome
            .as_ref()
            .is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
            && let Some(address) = network::listening_address(self.keeper, self.port)
        {
            outcome = self.host.sockets.connect(&self.namespace, address).await;
        }
        match outcome {
            Ok(stream) => Ok(Box::new(Stream::new(
                stream,
                self.process,
                self.family,
                self.group(),
                self.handle.end.clone(),
            ))),
            Err(_) if stream::is_ending(self.process) => Err(ConnectError::Ended(self.handle.ended().await)),
            Err(error) => Err(ConnectError::Host(error)),
        }
    }

    async fn ended(&self) -> EndReport {
        self.handle.ended().await
    }

    async fn start_stages(&self) -> StartStages {
        StartStages {
            begun: Some(self.begun),
            ..StartStages::default()
        }
    }

    fn memory_bytes(&self) -> Option<u64> {
        let is_running = self.handle.end.borrow().is_none();
        is_running.then(|| self.group().memory_bytes()).flatten()
    }

    fn pause(&self) -> io::Result<()> {
        self.group().hold(true)
    }

    fn resume(&self) -> io::Result<()> {
        self.group().hold(false)
    }

    async fn stop(&self, reason: StopReason) -> EndReport {
        self.handle.stop(reason).await
    }
}

/// The number of a process in the kernel's files.
fn of_process(process: i32, file: &str) -> PathBuf {
    Path::new("/proc").join(process.to_string()).join(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_else_gets_through_the_folder_even_if_it_was_there() {
        let parent = tempfile::tempdir().unwrap();
        for name in ["there", "new/below"] {
            let folder = parent.path().join(name);
            if name == "there" {
                std::fs::create_dir(&folder).unwrap();
                std::fs::set_permissions(&folder, Permissions::from_mode(0o755)).unwrap();
            }
            private_folder(&folder).unwrap();
            assert_eq!(folder.metadata().unwrap().permissions().mode() & 0o7777, 0o700);
        }
    }
}
