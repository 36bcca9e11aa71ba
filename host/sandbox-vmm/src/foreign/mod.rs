//! The sandbox of unikernels that others have built: a machine for each instance, of QEMU's (docs/sandboxes.md, decision 0021), or of the
//! tender's for those that are for Solo5's `hvt` (decision 0024).
//!
//! ```text
//!   ForeignInstance (handle) ──stop──> actor ──> process of QEMU or the tender: the image's kernel
//!        │                                          ^ cable (a socket, the network card): Ethernet frames
//!        └── connect ──> network (TCP/IP, smoltcp) ─┘
//! ```
//!
//! Nothing is made on the host: no TAP, no bridge, no address. The cable ends in the daemon, where nothing listens.

mod actor;
pub(crate) mod command_line;
mod files;
mod instance;
pub(crate) mod link;
mod machine;
mod means;
pub(crate) mod network;
mod ready;

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use async_trait::async_trait;
use spore_cgroups::{CgroupError, Groups, missing_layers};
use spore_sandbox::{
    ForeignUnikernel, Instance, InstanceSpec, Isolation, IsolationError, Layer, LogSink, Sandbox,
    SandboxKind, StartError, StartStages, UnsupportedError,
};
use spore_solo5::{Kernel, Settings};

use crate::found::MicrovmError;
use crate::machines::{Launch, Machines, OwnGroup, Wanted};
use crate::qemu::Accelerator;
use crate::{EMULATION_FACTOR, THREADS_MAX, host_error, launcher, monitor};
use actor::Teller;
use command_line::{Addresses, Framework, Words, command_line};
use files::{Files, Folder};
use instance::ForeignInstance;
use link::GUEST_CARD;
use machine::{Machine, guest_bytes};
pub use means::ForeignMeans;
use means::Monitor;
use network::Network;
use ready::Probe;

/// The addresses on each cable. No two cables meet, so they are the same on all of them: those that MirageOS has by default.
pub(crate) const ADDRESSES: Addresses = Addresses {
    guest: Ipv4Addr::new(10, 0, 0, 2),
    gateway: Ipv4Addr::new(10, 0, 0, 1),
    prefix: 24,
};
/// Memory that a tender takes beside its guest's, in bytes: its own, KVM's tables, and what the guest writes to its disk.
const TENDER_BYTES: u64 = (64 << 20) + spore_solo5::WRITTEN_BYTES_MAX;

/// Where the file system of a disk is, if the image does not say: where urunc has it.
const DISK_FOLDER: &str = "/data";

/// Starts unikernels of other projects.
#[derive(Debug)]
pub struct ForeignSandbox {
    means: ForeignMeans,
    machines: Machines,
    /// What a daemon that was killed has left, the next one removes.
    folder: Arc<Folder>,
    /// Limits of what QEMU takes; why there are none.
    groups: Result<Groups, CgroupError>,
    /// Cgroups that were made.
    made: AtomicU64,
}

impl ForeignSandbox {
    /// Uses `folder`, which is its own, for files of unikernels. Whatever is there goes.
    ///
    /// # Errors
    ///
    /// If there is neither QEMU nor KVM, or a file or thread cannot be made.
    pub fn new(cgroup_parent: Option<&std::path::Path>, folder: PathBuf) -> Result<Self, MicrovmError> {
        let refused = |what| move |source| MicrovmError::Host { what, source };
        Ok(Self {
            means: ForeignMeans::look()?,
            machines: Machines::start().map_err(refused("a thread for unikernels"))?,
            folder: Arc::new(Folder::new(folder).map_err(refused("a folder for unikernels"))?),
            groups: Groups::new(cgroup_parent),
            made: AtomicU64::new(0),
        })
    }

    /// A cgroup with the function's limits, and what runs the guest takes besides.
    fn group(&self, spec: &InstanceSpec, monitor: Monitor) -> io::Result<Option<OwnGroup>> {
        let Ok(groups) = &self.groups else {
            return Ok(None);
        };
        let name = format!("f{}", self.made.fetch_add(1, Ordering::Relaxed));
        let group = OwnGroup(groups.make(&name, THREADS_MAX)?);
        let memory_bytes = match monitor {
            Monitor::Qemu => {
                guest_bytes(spec.memory_bytes).saturating_add(monitor::Monitor::Qemu.own_bytes())
            }
            Monitor::Tender => spore_solo5::guest_bytes(spec.memory_bytes) + TENDER_BYTES,
        };
        group.0.limit(memory_bytes, spec.processor_millis)?;
        Ok(Some(group))
    }

    async fn launch(
        &self,
        spec: &InstanceSpec,
        plan: &Plan<'_>,
        files: &Files,
    ) -> Result<Launch, StartError> {
        let (program, arguments) = match plan.monitor {
            Monitor::Qemu => self.qemu(spec, plan, files),
            Monitor::Tender => (spore_solo5::PROGRAM.into(), tender(spec, plan, files)),
        };
        let read = [Some(&files.kernel), files.initrd.as_ref(), files.disk.as_ref()];
        let wanted = Wanted {
            program,
            arguments,
            group: self
                .group(spec, plan.monitor)
                .map_err(host_error("making a cgroup"))?,
            files: read.into_iter().flatten().cloned().collect(),
            saves: None,
        };
        let launched = self.machines.launch(wanted).await;
        launched.map_err(host_error("starting the unikernel's machine"))
    }

    /// QEMU, and what it is told.
    fn qemu(&self, spec: &InstanceSpec, plan: &Plan<'_>, files: &Files) -> (PathBuf, Vec<OsString>) {
        let machine = Machine {
            accelerator: self.means.accelerator,
            kernel: (!plan.framework.starts_from_disk()).then_some(files.kernel.as_path()),
            initrd: files.initrd.as_deref(),
            disk: files.disk.as_deref(),
            command_line: &plan.command_line,
            memory_bytes: spec.memory_bytes,
            exit_port: plan.framework.exit_port(),
        };
        let arguments = machine.arguments().into_iter().map(OsString::from);
        // A deployment that needs it is refused where there is none.
        (self.means.qemu.clone().unwrap_or_default(), arguments.collect())
    }
}

/// What the tender is told.
fn tender(spec: &InstanceSpec, plan: &Plan<'_>, files: &Files) -> Vec<OsString> {
    let settings = Settings {
        memory_bytes: spec.memory_bytes,
        card: GUEST_CARD,
        kernel: files.kernel.clone().into(),
        disk: files.disk.clone().map(Into::into),
        command_line: plan.command_line.clone(),
    };
    settings.arguments()
}

/// Why a tender would not run this kernel, if it would not: told before a process is made.
fn refused_kernel(files: &Files) -> io::Result<Option<String>> {
    let file = File::open(&files.kernel)?;
    let checked = Kernel::read(&file).and_then(|kernel| kernel.check_devices(files.disk.is_some()));
    Ok(checked
        .err()
        .map(|error| format!("the unikernel cannot be run: {error}")))
}

/// How a function's unikernel is to be run.
struct Plan<'a> {
    unikernel: &'a ForeignUnikernel,
    monitor: Monitor,
    framework: Framework,
    command_line: String,
    probe: Option<Probe>,
}

/// The plan; or why there is none, and what to do.
fn plan(spec: &InstanceSpec) -> Result<Plan<'_>, String> {
    let refused = |what: &str, instead: &str| {
        Err(format!(
            "the sandbox `{}` {what}: {instead}",
            SandboxKind::Foreign
        ))
    };
    let Some(unikernel) = &spec.unikernel else {
        return refused(
            "runs unikernels of other projects only",
            "deploy an image of one, or use the sandbox `unikernel`",
        );
    };
    if spec.command.is_some() {
        return refused("runs no commands", "use the sandbox `unikernel`");
    }
    if spec.serves_runtime_api {
        return refused("runs no functions for AWS Lambda", "use the sandbox `unikernel`");
    }
    if !spec.egress.is_empty() {
        return refused(
            "has no network to the outside",
            "leave the egress rules out, or use the sandbox `unikernel`",
        );
    }
    if spec.is_cloned {
        return refused(
            "makes no copies of a snapshot",
            "leave that out, or use the sandbox `unikernel`",
        );
    }
    if !spec.secrets.is_empty() {
        return refused(
            "has no place for secrets, since its root is not a file system of Linux",
            "leave them out, or use the sandbox `unikernel`",
        );
    }
    let Some(monitor) = Monitor::from_name(&unikernel.monitor) else {
        return refused(
            "runs unikernels for QEMU and Solo5's hvt only",
            &format!(
                "this one is for {}; build it for `qemu` or `hvt`",
                shown(&unikernel.monitor)
            ),
        );
    };
    let Some(framework) = Framework::from_name(&unikernel.framework) else {
        let known = Framework::ALL.map(Framework::name).join(", ");
        return refused(
            "does not know how to tell such a unikernel its address",
            &format!(
                "this one is of {}; known are {known}",
                shown(&unikernel.framework)
            ),
        );
    };
    if !framework.is_for(monitor) {
        let for_it = Framework::ALL
            .into_iter()
            .filter(|framework| framework.is_for(monitor));
        let known = for_it.map(Framework::name).collect::<Vec<_>>().join(", ");
        return refused(
            &format!("knows no unikernels of {framework} for {monitor}"),
            &format!("known for `{}` are {known}", monitor.name()),
        );
    }
    if monitor == Monitor::Tender && unikernel.initrd.is_some() {
        return refused(
            &format!("gives unikernels for {monitor} no first file system"),
            "leave `com.urunc.unikernel.initrd` out of the image",
        );
    }
    if monitor == Monitor::Tender && spec.memory_bytes > spore_solo5::MEMORY_BYTES_MAX {
        return refused(
            &format!("gives unikernels for {monitor} 4 GiB of memory at most"),
            "allow the function less",
        );
    }
    if framework.starts_from_disk() && unikernel.disk.is_none() {
        return refused(
            &format!("starts unikernels of {framework} from their disks"),
            "this one has none; name it with `com.urunc.unikernel.block`",
        );
    }
    let words = Words {
        version: unikernel.framework_version.as_deref(),
        addresses: ADDRESSES,
        arguments: &spec.arguments,
        environment: &spec.environment,
        has_initrd: unikernel.initrd.is_some(),
        disk_folder: unikernel
            .disk
            .as_ref()
            .map(|_| unikernel.disk_folder.as_deref().unwrap_or(DISK_FOLDER)),
    };
    let probe = unikernel.ready.as_deref().map(Probe::parse).transpose();
    Ok(Plan {
        unikernel,
        monitor,
        framework,
        command_line: command_line(framework, &words).map_err(|error| error.to_string())?,
        probe: probe.map_err(|error| error.to_string())?,
    })
}

fn shown(name: &str) -> String {
    name.chars().filter(|c| !c.is_control()).take(60).collect()
}

#[async_trait]
impl Sandbox for ForeignSandbox {
    fn kind(&self) -> SandboxKind {
        SandboxKind::Foreign
    }

    fn isolation(&self, _: SandboxKind, wanted: Option<Isolation>) -> Result<Isolation, IsolationError> {
        match wanted {
            None | Some(Isolation::VirtualMachine) => Ok(Isolation::VirtualMachine),
            Some(Isolation::Process) => Err(IsolationError(
                "a unikernel of another project is no process: leave the isolation `process` out, or use the sandbox `unikernel`"
                    .to_owned(),
            )),
        }
    }

    fn check(&self, spec: &InstanceSpec) -> Result<(), UnsupportedError> {
        let monitor = plan(spec).map_err(UnsupportedError)?.monitor;
        match self.means.missing(monitor) {
            None => Ok(()),
            Some(missing) => Err(UnsupportedError(format!(
                "the sandbox `{}` cannot run unikernels for {monitor} on this machine: {missing}",
                SandboxKind::Foreign
            ))),
        }
    }

    fn layers(&self) -> Vec<Layer> {
        let own = [
            Layer {
                name: format!("unikernels of other projects: {}", self.means),
                missing: None,
            },
            Layer {
                name: "unikernels of other projects: namespaces without a network".to_owned(),
                missing: self.machines.without_namespaces().map(str::to_owned),
            },
            Layer {
                name: "unikernels of other projects: Landlock".to_owned(),
                missing: launcher::without_landlock(),
            },
        ];
        let groups = match &self.groups {
            Ok(groups) => groups.layers(),
            Err(error) => missing_layers(error),
        };
        own.into_iter().chain(groups).collect()
    }

    fn retain(&self, deployed: &[InstanceSpec]) {
        self.folder.retain(deployed);
    }

    async fn start(
        &self,
        spec: InstanceSpec,
        log: Arc<dyn LogSink>,
    ) -> Result<Arc<dyn Instance>, StartError> {
        let begun = Instant::now();
        let plan = plan(&spec).map_err(|reason| StartError::BadProgram { reason })?;
        let (folder, of, unikernel) = (Arc::clone(&self.folder), spec.clone(), plan.unikernel.clone());
        let taken = tokio::task::spawn_blocking(move || folder.files(&of, &unikernel)).await;
        let files = taken
            .map_err(io::Error::other)
            .and_then(|files| files.map_err(io::Error::other))
            .map_err(host_error("taking a unikernel out of its image"))?;
        if plan.monitor == Monitor::Tender
            && let Some(reason) = refused_kernel(&files).map_err(host_error("reading a unikernel"))?
        {
            return Err(StartError::BadProgram { reason });
        }
        let launch = self.launch(&spec, &plan, &files).await?;
        let stages = StartStages {
            begun: Some(begun),
            shell_taken: Some(Instant::now()),
            ..StartStages::default()
        };
        let teller = match plan.monitor {
            Monitor::Qemu => Teller::Qemu {
                has_exit_port: plan.framework.exit_port().is_some(),
            },
            Monitor::Tender => Teller::Tender,
        };
        let network = Network::new(ADDRESSES);
        let instance = ForeignInstance::new(launch, network, &spec, log, teller, stages)
            .map_err(host_error("using the sockets of the unikernel's machine"))?;
        let timeout = match self.means.accelerator {
            Accelerator::Kvm => spec.ready_timeout,
            Accelerator::Emulation { .. } => spec.ready_timeout * EMULATION_FACTOR,
        };
        Ok(Arc::new(
            instance.wait(timeout, &spec, plan.probe.as_ref()).await?,
        ))
    }
}
