//! The microVM sandbox: a Linux guest for each instance, in a machine of QEMU, Firecracker or Cloud Hypervisor (docs/microvm.md,
//! decisions 0017 and 0025).
//!
//! ```text
//!   MicrovmInstance (handle) ──stop──> actor ──> the monitor's process: kernel ─> init (guest/init) ─> program
//!        │                               ^  channel (a virtual serial port, or vsock): frames          │
//!        └── connect ──> streams ────────┴─────────────────────────────────────────────────────────────┘
//! ```
//!
//! The same image runs as in the unikernel sandbox: its root is a block device of the guest. The machine has no network
//! and no disk that can be written to; what it has to say goes through the channel.
//!
//! Unikernels that others have built are run by the same means ([`ForeignSandbox`]).

mod actor;
mod apart;
mod api;
mod control;
mod cpio;
mod disk;
mod foreign;
mod found;
mod frames;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod images;
mod instance;
mod kernel;
pub mod launcher;
mod log;
mod machines;
mod migration;
mod monitor;
mod payload;
mod qemu;
mod qmp;
#[cfg(test)]
mod recorded;
mod requests;
mod settings;
mod snapshots;
mod streams;

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use spore_cgroups::{CgroupError, Groups, missing_layers};
use spore_sandbox::{
    Instance, InstanceSpec, Isolation, IsolationError, Layer, LogSink, Root, Sandbox, SandboxKind,
    StartError, StartStages, UnsupportedError,
};

use actor::{Belongings, Left};
use apart::{Connected, Room};
use api::Api;
use control::Control;
pub use foreign::{ForeignMeans, ForeignSandbox};
use found::Files;
pub use found::{Found, MicrovmError, MicrovmOptions};
use frames::Frame;
use images::Images;
use instance::{Booting, MicrovmInstance, Opened};
use log::Log;
use machines::{Machines, OwnGroup, Saves, Wanted};
pub use monitor::Monitor;
pub use qemu::Accelerator;
use qemu::Disk;
use requests::Request;
use snapshots::{Snapshot, Snapshots};
use tokio::sync::oneshot;

/// Threads that a monitor may have: for its processor, its devices, and reads of the root.
const THREADS_MAX: u32 = 100;
/// The file of a machine of QEMU that was saved.
const QEMU_FILE: &str = "state";
/// How much more time a function gets to be ready where its processor is emulated, which makes it slower by more than that.
const EMULATION_FACTOR: u32 = 6;

/// Starts microVMs.
#[derive(Debug)]
pub struct MicrovmSandbox {
    found: Found,
    machines: Machines,
    /// The files of the machines. What a daemon that was killed has left, the next one removes.
    folder: PathBuf,
    /// Made for the first guest.
    files: tokio::sync::OnceCell<Files>,
    images: Arc<Images>,
    snapshots: Snapshots,
    /// Limits of what a monitor takes; why there are none.
    groups: Result<Groups, CgroupError>,
    /// Cgroups that were made.
    made: AtomicU64,
}

impl MicrovmSandbox {
    /// Uses `folder`, which is its own, for files of machines. Whatever is there goes.
    ///
    /// # Errors
    ///
    /// If something that microVMs are made of is missing, or a file or thread cannot be made.
    pub fn new(options: &MicrovmOptions, folder: PathBuf) -> Result<Self, MicrovmError> {
        let found = Found::look(options)?;
        let refused = |what| move |source| MicrovmError::Host { what, source };
        if let Err(error) = fs::remove_dir_all(&folder)
            && error.kind() != io::ErrorKind::NotFound
        {
            return Err(refused("to remove what was left of microVMs")(error));
        }
        let images = Arc::new(Images::new(folder.clone()));
        let machines = Machines::start().map_err(refused("a thread for microVMs"))?;
        Ok(Self {
            found,
            machines,
            folder,
            files: tokio::sync::OnceCell::new(),
            images,
            snapshots: Snapshots::default(),
            groups: Groups::new(options.cgroup_parent.as_deref()),
            made: AtomicU64::new(0),
        })
    }

    /// What runs the machines.
    #[must_use]
    pub const fn monitor(&self) -> Monitor {
        self.found.monitor()
    }

    /// What executes the guests' instructions.
    #[must_use]
    pub const fn accelerator(&self) -> Accelerator {
        self.found.accelerator()
    }

    /// The descriptor of a root of two files, for QEMU.
    fn description(&self, root: &Root) -> Result<Option<Arc<tempfile::TempPath>>, StartError> {
        let Root::Layered { base, head } = root else {
            return Ok(None);
        };
        let length = |path: &Path| fs::metadata(path).map(|metadata| metadata.len());
        let lengths = length(base).and_then(|base| Ok((base, length(head)?)));
        let (base_bytes, head_bytes) = lengths.map_err(host_error("looking at the root"))?;
        let text = disk::descriptor((&absolute(base)?, base_bytes), (&absolute(head)?, head_bytes));
        let text = text.map_err(|error| StartError::BadProgram {
            reason: error.to_string(),
        })?;
        let file = tempfile::Builder::new()
            .prefix("root-")
            .suffix(".vmdk")
            .tempfile_in(&self.folder);
        let mut file = file.map_err(host_error("making a file"))?;
        file.write_all(text.as_bytes())
            .map_err(host_error("writing a file"))?;
        let path = file.into_temp_path();
        Ok(Some(Arc::new(path)))
    }

    /// Kernel and first file system of the guests.
    async fn files(&self) -> Result<&Files, StartError> {
        let made = self.files.get_or_try_init(|| async {
            let (found, folder) = (self.found.clone(), self.folder.clone());
            let made = tokio::task::spawn_blocking(move || found.write_files(&folder)).await;
            made.unwrap_or_else(|error| Err(io::Error::other(error)))
        });
        made.await.map_err(host_error("making the files of microVMs"))
    }

    /// A root's block device for the other monitors, and for copies, where its file cannot be that.
    async fn image(&self, root: &Root) -> Result<Option<Arc<tempfile::TempPath>>, StartError> {
        let (images, root) = (Arc::clone(&self.images), root.clone());
        let made = tokio::task::spawn_blocking(move || images.get(&root)).await;
        let made = made.unwrap_or_else(|error| Err(io::Error::other(error)));
        made.map_err(host_error("making the block device of a root"))
    }

    /// A cgroup with the function's limits, and what the monitor and the guest's kernel take besides.
    fn group(&self, spec: &InstanceSpec, saves: bool) -> io::Result<Option<OwnGroup>> {
        let Ok(groups) = &self.groups else {
            return Ok(None);
        };
        let name = format!("m{}", self.made.fetch_add(1, Ordering::Relaxed));
        let group = OwnGroup(groups.make(&name, THREADS_MAX)?);
        let guest_bytes = qemu::guest_bytes(spec.memory_bytes);
        // Where the folder is in memory what is saved is counted too.
        let saved_bytes = if saves { guest_bytes } else { 0 };
        let memory_bytes = guest_bytes
            .saturating_add(saved_bytes)
            .saturating_add(self.found.monitor().own_bytes());
        group.0.limit(memory_bytes, spec.processor_millis)?;
        Ok(Some(group))
    }

    /// What is to be started for a function, and which files it reads.
    fn wanted(
        &self,
        spec: &InstanceSpec,
        arguments: Vec<String>,
        files: &[&Path],
        saves: Option<Saves>,
    ) -> Result<Wanted, StartError> {
        Ok(Wanted {
            program: self.found.program.clone(),
            arguments: arguments.into_iter().map(Into::into).collect(),
            group: self
                .group(spec, saves.is_some())
                .map_err(host_error("making a cgroup"))?,
            files: files.iter().map(|&path| path.to_owned()).collect(),
            saves,
        })
    }

    /// Starts a machine of QEMU with the file that was made of its root, if one was; a copy waits for what it is a copy of.
    async fn open_qemu(
        &self,
        spec: &InstanceSpec,
        made: Option<Arc<tempfile::TempPath>>,
        is_copy: bool,
    ) -> Result<(Opened, Control), StartError> {
        let files = self.files().await?;
        let file: Option<PathBuf> = made.as_ref().map(|path| path.to_path_buf());
        let root = absolute(spec.root.path())?;
        let base = spec.root.base().map(absolute).transpose()?;
        let disk = match &file {
            // QEMU saves no machine with a disk that is described.
            Some(path) if spec.is_cloned => Disk::Plain(path),
            Some(path) => Disk::Described(path),
            None => Disk::Plain(&root),
        };
        let machine = qemu::Machine {
            accelerator: self.found.accelerator(),
            kernel: &files.kernel,
            initramfs: &files.initramfs,
            disk,
            memory_bytes: spec.memory_bytes,
            is_copy,
        };
        let mut read = vec![root.as_path(), &files.kernel, &files.initramfs];
        read.extend(base.as_deref());
        read.extend(file.as_deref());
        let wanted = self.wanted(spec, machine.arguments(), &read, None)?;
        let launch = self.machines.launch(wanted).await;
        let launch = launch.map_err(host_error("starting QEMU"))?;
        let belongings = Belongings {
            _image: made,
            ..Belongings::default()
        };
        Opened::qemu(launch, belongings).map_err(host_error("using the sockets of QEMU"))
    }

    /// Boots a machine of QEMU, saves it when its program is ready, and ends it.
    async fn save_qemu(
        &self,
        spec: &InstanceSpec,
        log: &Arc<dyn LogSink>,
    ) -> Result<Arc<Snapshot>, StartError> {
        let settings = settings(spec)?;
        let folder = apart::own_folder(&self.folder, "snapshot-");
        let folder = folder.map_err(host_error("making a folder"))?;
        let image = self.image(&spec.root).await?;
        let (opened, control) = self.open_qemu(spec, image.clone(), false).await?;
        let (instance, left) = self.until_left(opened, spec, settings, log).await?;
        let bytes_max = qemu::guest_bytes(spec.memory_bytes).saturating_add(Monitor::Qemu.own_bytes());
        let saved = migration::save(&control, &folder.path().join(QEMU_FILE), bytes_max).await;
        saved
            .map_err(io::Error::other)
            .map_err(host_error("saving the machine"))?;
        // Until then the guest's port has its other end.
        drop(instance);
        end(left).await?;
        Ok(Arc::new(Snapshot::new(folder, image)))
    }

    /// Waits until the guest of a machine that is to be saved is ready, and has left.
    async fn until_left(
        &self,
        opened: Opened,
        spec: &InstanceSpec,
        settings: Vec<Frame>,
        log: &Arc<dyn LogSink>,
    ) -> Result<(MicrovmInstance, Left), StartError> {
        let (leaves, left) = oneshot::channel();
        let (log, stages) = (Arc::clone(log), StartStages::default());
        let booting = Booting::new(opened, spec, settings, log, stages, Some(leaves));
        let booting = booting.map_err(host_error("using the channel of the machine"))?;
        let instance = booting.wait(self.ready_timeout(spec), spec.awaited()).await?;
        let gone = |_| io::Error::other("the machine is gone");
        let left = left.await.map_err(gone);
        Ok((instance, left.map_err(host_error("saving the machine"))?))
    }

    /// Starts a machine of another monitor, and waits for its guest. Whoever calls it gives up in time.
    async fn open_apart(
        &self,
        spec: &InstanceSpec,
        log: &Arc<dyn LogSink>,
        wanted: Wanted,
        requests: &[Request],
    ) -> Result<Connected, StartError> {
        let monitor = self.found.monitor();
        let room = Room::new(&self.folder, monitor);
        let mut room = room.map_err(host_error("making the sockets of a machine"))?;
        let folder = absolute(room.path())?;
        let inherited = room.take_inherited();
        let launched = self.machines.launch_apart(wanted, folder, inherited).await;
        let launched = launched.map_err(host_error("starting the monitor"))?;
        let connected = room.connect(monitor, launched, requests).await;
        connected.inspect_err(|error| {
            if let StartError::EndedEarly(report) = error {
                let log = Log::new(Arc::clone(log), spec.instance.clone());
                report.details.iter().for_each(|line| log.platform(line));
            }
        })
    }

    /// Boots a machine of another monitor; one that is to be saved may write to a folder.
    async fn boot(
        &self,
        spec: &InstanceSpec,
        log: &Arc<dyn LogSink>,
        saves: Option<Saves>,
    ) -> Result<(Opened, Api, Option<Arc<tempfile::TempPath>>), StartError> {
        let monitor = self.found.monitor();
        let files = self.files().await?;
        let image = self.image(&spec.root).await?;
        let root = match &image {
            Some(path) => absolute(path)?,
            None => absolute(spec.root.path())?,
        };
        let machine = requests::Machine {
            kernel: &files.kernel,
            initramfs: &files.initramfs,
            disk: &root,
            memory_bytes: spec.memory_bytes,
        };
        // The program may lie where users have put it.
        let read = [&self.found.program, &root, &files.kernel, &files.initramfs];
        let read = read.map(PathBuf::as_path);
        let wanted = self.wanted(spec, requests::arguments(monitor), &read, saves)?;
        let requests = requests::start(monitor, &machine);
        let connected = self.open_apart(spec, log, wanted, &requests).await?;
        let belongings = Belongings {
            _image: image.clone(),
            ..Belongings::default()
        };
        let (opened, api) = Opened::apart(monitor, connected, belongings);
        Ok((opened, api, image))
    }

    /// Boots a machine, saves it when its program is ready, and ends it.
    async fn save(&self, spec: &InstanceSpec, log: &Arc<dyn LogSink>) -> Result<Arc<Snapshot>, StartError> {
        let monitor = self.found.monitor();
        if monitor == Monitor::Qemu {
            return self.save_qemu(spec, log).await;
        }
        let settings = settings(spec)?;
        let folder = apart::own_folder(&self.folder, "snapshot-");
        let folder = folder.map_err(host_error("making a folder"))?;
        let saves = Saves {
            folder: absolute(folder.path())?,
            file_bytes: qemu::guest_bytes(spec.memory_bytes).saturating_add(monitor.own_bytes()),
        };
        let requests = requests::save(monitor, &saves.folder);
        let (opened, mut api, image) = self.boot(spec, log, Some(saves)).await?;
        let (instance, left) = self.until_left(opened, spec, settings, log).await?;
        drop(instance);
        for request in requests {
            let asked = api.ask(&request).await;
            asked.map_err(|error| apart::refused(monitor, error))?;
        }
        end(left).await?;
        Ok(Arc::new(Snapshot::new(folder, image)))
    }

    /// Starts a copy of a machine that was saved.
    async fn copy(
        &self,
        spec: &InstanceSpec,
        log: &Arc<dyn LogSink>,
        snapshot: Arc<Snapshot>,
    ) -> Result<Opened, StartError> {
        let monitor = self.found.monitor();
        if monitor == Monitor::Qemu {
            let (mut opened, control) = self.open_qemu(spec, snapshot.image_file(), true).await?;
            let loaded = migration::load(&control, &snapshot.path().join(QEMU_FILE)).await;
            loaded
                .map_err(io::Error::other)
                .map_err(host_error("loading a saved machine"))?;
            opened.belongings._snapshot = Some(snapshot);
            opened.is_awaiting = true;
            return Ok(opened);
        }
        let files = self.files().await?;
        let folder = absolute(snapshot.path())?;
        let root = absolute(snapshot.image().unwrap_or(spec.root.path()))?;
        let read = [
            &self.found.program,
            &folder,
            &root,
            &files.kernel,
            &files.initramfs,
        ];
        let read = read.map(PathBuf::as_path);
        let wanted = self.wanted(spec, requests::arguments(monitor), &read, None)?;
        let requests = requests::load(monitor, &folder);
        let connected = self.open_apart(spec, log, wanted, &requests).await?;
        let belongings = Belongings {
            _snapshot: Some(snapshot),
            ..Belongings::default()
        };
        Ok(Opened::apart(monitor, connected, belongings).0)
    }

    /// What instances like this one are copies of, if they are to be: made by the first of them.
    async fn snapshot(
        &self,
        spec: &InstanceSpec,
        log: &Arc<dyn LogSink>,
    ) -> Result<Option<Arc<Snapshot>>, StartError> {
        if !spec.is_cloned {
            return Ok(None);
        }
        let cell = self.snapshots.cell(spec);
        let timeout = self.ready_timeout(spec);
        let saved = cell.get_or_try_init(|| async {
            let saved = tokio::time::timeout(timeout, self.save(spec, log)).await;
            saved.unwrap_or_else(|_| Err(late(spec, timeout)))
        });
        Ok(Some(Arc::clone(saved.await?)))
    }

    fn ready_timeout(&self, spec: &InstanceSpec) -> Duration {
        match self.found.accelerator() {
            Accelerator::Kvm => spec.ready_timeout,
            Accelerator::Emulation { .. } => spec.ready_timeout * EMULATION_FACTOR,
        }
    }
}

/// Ends a machine that was saved, which takes some milliseconds for a process of that size.
async fn end(left: Left) -> Result<(), StartError> {
    let ended = tokio::task::spawn_blocking(move || drop(left)).await;
    ended
        .map_err(io::Error::other)
        .map_err(host_error("ending the machine"))
}

/// What a guest is told that is booted.
fn settings(spec: &InstanceSpec) -> Result<Vec<Frame>, StartError> {
    let program_bytes = match &spec.root {
        Root::Program(path) => fs::metadata(path)
            .map_err(host_error("opening the program"))?
            .len(),
        Root::FileSystem(_) | Root::Layered { .. } => 0,
    };
    settings::frames(spec, program_bytes)
}

fn late(spec: &InstanceSpec, after: Duration) -> StartError {
    StartError::NotReady {
        after,
        awaited: spec.awaited(),
    }
}

/// Monitors start in another folder.
fn absolute(path: &Path) -> Result<PathBuf, StartError> {
    path.canonicalize().map_err(host_error("opening the root"))
}

fn host_error(what: &'static str) -> impl Fn(io::Error) -> StartError {
    move |source| StartError::Host { what, source }
}

/// Why a function cannot run in a microVM, if it cannot.
fn refusal(spec: &InstanceSpec) -> Option<&'static str> {
    if spec.command.is_some() {
        return Some(
            "the sandbox `microvm` runs no commands: use the sandbox `unikernel`, or let the program serve HTTP",
        );
    }
    if spec.serves_runtime_api {
        return Some("the sandbox `microvm` runs no functions for AWS Lambda: use the sandbox `unikernel`");
    }
    if !spec.egress.is_empty() {
        return Some(
            "the sandbox `microvm` has no network to the outside: leave the egress rules out, or use the sandbox `unikernel`",
        );
    }
    None
}

#[async_trait]
impl Sandbox for MicrovmSandbox {
    fn kind(&self) -> SandboxKind {
        SandboxKind::Microvm
    }

    fn isolation(&self, _: SandboxKind, wanted: Option<Isolation>) -> Result<Isolation, IsolationError> {
        match wanted {
            None | Some(Isolation::VirtualMachine) => Ok(Isolation::VirtualMachine),
            Some(Isolation::Process) => Err(IsolationError(
                "a microVM is no process: leave the isolation `process` out, or use the sandbox `unikernel`"
                    .to_owned(),
            )),
        }
    }

    fn check(&self, spec: &InstanceSpec) -> Result<(), UnsupportedError> {
        refusal(spec).map_or(Ok(()), |reason| Err(UnsupportedError(reason.to_owned())))
    }

    fn retain(&self, deployed: &[InstanceSpec]) {
        self.images.retain(deployed);
        self.snapshots.retain(deployed);
    }

    fn layers(&self) -> Vec<Layer> {
        let (monitor, accelerator) = (self.found.monitor(), self.found.accelerator());
        let own = [
            Layer {
                name: format!("microVMs: {monitor}, {accelerator}"),
                missing: None,
            },
            Layer {
                name: "microVMs: namespaces without a network".to_owned(),
                missing: self.machines.without_namespaces().map(str::to_owned),
            },
            Layer {
                name: "microVMs: Landlock".to_owned(),
                missing: launcher::without_landlock(),
            },
        ];
        let groups = match &self.groups {
            Ok(groups) => groups.layers(),
            Err(error) => missing_layers(error),
        };
        own.into_iter().chain(groups).collect()
    }

    async fn start(
        &self,
        spec: InstanceSpec,
        log: Arc<dyn LogSink>,
    ) -> Result<Arc<dyn Instance>, StartError> {
        let begun = Instant::now();
        if let Some(reason) = refusal(&spec) {
            return Err(StartError::BadProgram {
                reason: reason.to_owned(),
            });
        }
        // The folder is made with it.
        self.files().await?;
        let snapshot = self.snapshot(&spec, &log).await?;
        let stages = StartStages {
            begun: Some(begun),
            shell_taken: Some(Instant::now()),
            ..StartStages::default()
        };
        let (begun, timeout) = (Instant::now(), self.ready_timeout(&spec));
        let settings = match &snapshot {
            Some(_) => settings::seed().map_err(host_error("drawing random numbers"))?,
            None => settings(&spec)?,
        };
        let open = async {
            match snapshot {
                Some(snapshot) => self.copy(&spec, &log, snapshot).await,
                None if self.found.monitor() == Monitor::Qemu => {
                    let described = self.description(&spec.root)?;
                    let opened = self.open_qemu(&spec, described, false).await;
                    opened.map(|(opened, _)| opened)
                }
                None => self.boot(&spec, &log, None).await.map(|(opened, ..)| opened),
            }
        };
        let opened = tokio::time::timeout(timeout, open).await;
        let opened = opened.map_err(|_| late(&spec, timeout))??;
        let booting = Booting::new(opened, &spec, settings, log, stages, None);
        let booting = booting.map_err(host_error("using the channel of the machine"))?;
        let rest = timeout.saturating_sub(begun.elapsed());
        let started = booting.wait(rest, spec.awaited()).await;
        Ok(Arc::new(started.map_err(|error| match error {
            StartError::NotReady { .. } => late(&spec, timeout),
            error => error,
        })?))
    }
}
