//! The microVM sandbox: a Linux guest for each instance, in a machine of QEMU (docs/microvm.md, decision 0017).
//!
//! ```text
//!   MicrovmInstance (handle) ──stop──> actor ──> QEMU process: kernel ─> init (guest/init) ─> program
//!        │                               ^  channel (a socket, a virtual serial port): frames    │
//!        └── connect ──> streams ────────┴───────────────────────────────────────────────────────┘
//! ```
//!
//! The same image runs as in the unikernel sandbox: its root is a block device of the guest. The machine has no network, no
//! PCI, no disk that can be written to; what it has to say goes through the channel.
//!
//! Unikernels that others have built are run by the same means ([`ForeignSandbox`]).

mod actor;
mod control;
mod cpio;
mod disk;
mod foreign;
mod found;
mod frames;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod instance;
mod kernel;
pub mod launcher;
mod log;
mod machines;
mod payload;
mod qemu;
mod qmp;
mod settings;
mod streams;

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use async_trait::async_trait;
use spore_cgroups::{CgroupError, Groups, missing_layers};
use spore_sandbox::{
    Instance, InstanceSpec, Isolation, IsolationError, Layer, LogSink, Root, Sandbox, SandboxKind,
    StartError, StartStages, UnsupportedError,
};

pub use foreign::{ForeignMeans, ForeignSandbox};
use found::Files;
pub use found::{Found, MicrovmError, MicrovmOptions};
use instance::Booting;
use machines::{Launch, Machines, OwnGroup, Wanted};
pub use qemu::Accelerator;
use qemu::{Disk, Machine};

/// Memory that QEMU takes beside the guest's, in bytes: translated code, its own, and the kernel's file.
const QEMU_BYTES: u64 = 192 << 20;
/// Threads that QEMU may have: for its processor, its devices, and reads of the root.
const THREADS_MAX: u32 = 100;
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
    /// Limits of what QEMU takes; why there are none.
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
        let machines = Machines::start().map_err(refused("a thread for microVMs"))?;
        Ok(Self {
            found,
            machines,
            folder,
            files: tokio::sync::OnceCell::new(),
            groups: Groups::new(options.cgroup_parent.as_deref()),
            made: AtomicU64::new(0),
        })
    }

    /// What executes the guests' instructions.
    #[must_use]
    pub const fn accelerator(&self) -> Accelerator {
        self.found.accelerator()
    }

    /// The file behind the block device: the root's own, or a descriptor of two.
    fn disk(&self, root: &Root) -> Result<Option<tempfile::TempPath>, StartError> {
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
        Ok(Some(path))
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

    /// A cgroup with the function's limits, and what QEMU and the guest's kernel take besides.
    fn group(&self, spec: &InstanceSpec) -> io::Result<Option<OwnGroup>> {
        let Ok(groups) = &self.groups else {
            return Ok(None);
        };
        let name = format!("m{}", self.made.fetch_add(1, Ordering::Relaxed));
        let group = OwnGroup(groups.make(&name, THREADS_MAX)?);
        let memory_bytes = qemu::guest_bytes(spec.memory_bytes).saturating_add(QEMU_BYTES);
        group.0.limit(memory_bytes, spec.processor_millis)?;
        Ok(Some(group))
    }

    async fn launch(&self, spec: &InstanceSpec, disk: Disk<'_>) -> Result<Launch, StartError> {
        let files = self.files().await?;
        let machine = Machine {
            accelerator: self.found.accelerator(),
            kernel: &files.kernel,
            initramfs: &files.initramfs,
            disk,
            memory_bytes: spec.memory_bytes,
        };
        let described = match disk {
            Disk::Plain(path) | Disk::Described(path) => path,
        };
        let root = [Some(spec.root.path()), spec.root.base()].into_iter().flatten();
        let mut read = root.map(absolute).collect::<Result<Vec<_>, _>>()?;
        read.extend([described, &files.kernel, &files.initramfs].map(Path::to_owned));
        let wanted = Wanted {
            program: self.found.qemu.clone(),
            arguments: machine.arguments().into_iter().map(Into::into).collect(),
            group: self.group(spec).map_err(host_error("making a cgroup"))?,
            files: read,
        };
        self.machines
            .launch(wanted)
            .await
            .map_err(host_error("starting QEMU"))
    }
}

/// QEMU starts in another folder.
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
    if spec.is_cloned {
        return Some(
            "the sandbox `microvm` makes no copies of a snapshot: leave that out, or use the sandbox `unikernel`",
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

    fn layers(&self) -> Vec<Layer> {
        let own = [
            Layer {
                name: format!("microVMs: {}", self.found.accelerator()),
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
        let program_bytes = match &spec.root {
            Root::Program(path) => fs::metadata(path)
                .map_err(host_error("opening the program"))?
                .len(),
            Root::FileSystem(_) | Root::Layered { .. } => 0,
        };
        let settings = settings::frames(&spec, program_bytes)?;
        // The folder is made with it.
        self.files().await?;
        let described = self.disk(&spec.root)?;
        let plain = absolute(spec.root.path())?;
        let disk = match &described {
            Some(path) => Disk::Described(path),
            None => Disk::Plain(&plain),
        };
        let launch = self.launch(&spec, disk).await?;
        let stages = StartStages {
            begun: Some(begun),
            shell_taken: Some(Instant::now()),
            ..StartStages::default()
        };
        let files = described.into_iter().collect();
        let booting = Booting::new(launch, &spec, settings, files, log, stages);
        let booting = booting.map_err(host_error("using the sockets of QEMU"))?;
        let ready_timeout = match self.found.accelerator() {
            Accelerator::Kvm => spec.ready_timeout,
            Accelerator::Emulation { .. } => spec.ready_timeout * EMULATION_FACTOR,
        };
        Ok(Arc::new(booting.wait(ready_timeout, spec.awaited()).await?))
    }
}
