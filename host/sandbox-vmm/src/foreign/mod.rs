//! The sandbox of unikernels that others have built: a machine of QEMU for each instance (docs/sandboxes.md, decision 0021).
//!
//! ```text
//!   ForeignInstance (handle) ──stop──> actor ──> QEMU process: the image's kernel
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
pub(crate) mod network;
mod ready;

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

use crate::found::{MicrovmError, accelerator, qemu};
use crate::machines::{Launch, Machines, OwnGroup, Wanted};
use crate::qemu::Accelerator;
use crate::{EMULATION_FACTOR, QEMU_BYTES, THREADS_MAX, host_error, launcher};
use command_line::{Addresses, Framework, Words, command_line};
use files::{Files, Folder};
use instance::ForeignInstance;
use machine::{Machine, guest_bytes};
use network::Network;
use ready::Probe;

/// The addresses on each cable. No two cables meet, so they are the same on all of them: those that MirageOS has by default.
pub(crate) const ADDRESSES: Addresses = Addresses {
    guest: Ipv4Addr::new(10, 0, 0, 2),
    gateway: Ipv4Addr::new(10, 0, 0, 1),
    prefix: 24,
};
/// The monitor that images have to be for.
const MONITOR: &str = "qemu";

/// Starts unikernels of other projects.
#[derive(Debug)]
pub struct ForeignSandbox {
    qemu: PathBuf,
    accelerator: Accelerator,
    machines: Machines,
    /// What a daemon that was killed has left, the next one removes.
    folder: Arc<Folder>,
    /// Limits of what QEMU takes; why there are none.
    groups: Result<Groups, CgroupError>,
    /// Cgroups that were made.
    made: AtomicU64,
}

/// What executes the instructions of such unikernels on this machine.
///
/// # Errors
///
/// If there is no QEMU.
pub fn foreign_accelerator() -> Result<Accelerator, MicrovmError> {
    qemu()?;
    Ok(accelerator())
}

impl ForeignSandbox {
    /// Uses `folder`, which is its own, for files of unikernels. Whatever is there goes.
    ///
    /// # Errors
    ///
    /// If there is no QEMU, or a file or thread cannot be made.
    pub fn new(cgroup_parent: Option<&std::path::Path>, folder: PathBuf) -> Result<Self, MicrovmError> {
        let refused = |what| move |source| MicrovmError::Host { what, source };
        Ok(Self {
            qemu: qemu()?,
            accelerator: accelerator(),
            machines: Machines::start().map_err(refused("a thread for unikernels"))?,
            folder: Arc::new(Folder::new(folder).map_err(refused("a folder for unikernels"))?),
            groups: Groups::new(cgroup_parent),
            made: AtomicU64::new(0),
        })
    }

    /// A cgroup with the function's limits, and what QEMU takes besides.
    fn group(&self, spec: &InstanceSpec) -> io::Result<Option<OwnGroup>> {
        let Ok(groups) = &self.groups else {
            return Ok(None);
        };
        let name = format!("f{}", self.made.fetch_add(1, Ordering::Relaxed));
        let group = OwnGroup(groups.make(&name, THREADS_MAX)?);
        let memory_bytes = guest_bytes(spec.memory_bytes).saturating_add(QEMU_BYTES);
        group.0.limit(memory_bytes, spec.processor_millis)?;
        Ok(Some(group))
    }

    async fn launch(
        &self,
        spec: &InstanceSpec,
        plan: &Plan<'_>,
        files: &Files,
    ) -> Result<Launch, StartError> {
        let machine = Machine {
            accelerator: self.accelerator,
            kernel: (!plan.framework.starts_from_disk()).then_some(files.kernel.as_path()),
            initrd: files.initrd.as_deref(),
            disk: files.disk.as_deref(),
            command_line: &plan.command_line,
            memory_bytes: spec.memory_bytes,
            exit_port: plan.framework.exit_port(),
        };
        let read = [Some(&files.kernel), files.initrd.as_ref(), files.disk.as_ref()];
        let wanted = Wanted {
            program: self.qemu.clone(),
            arguments: machine.arguments(),
            group: self.group(spec).map_err(host_error("making a cgroup"))?,
            files: read.into_iter().flatten().cloned().collect(),
        };
        let launched = self.machines.launch(wanted).await;
        launched.map_err(host_error("starting QEMU"))
    }
}

/// How a function's unikernel is to be run.
struct Plan<'a> {
    unikernel: &'a ForeignUnikernel,
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
    if !unikernel.monitor.eq_ignore_ascii_case(MONITOR) {
        return refused(
            "runs unikernels for QEMU only",
            &format!(
                "this one is for {}; build it for `{MONITOR}`",
                shown(&unikernel.monitor)
            ),
        );
    }
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
    };
    let probe = unikernel.ready.as_deref().map(Probe::parse).transpose();
    Ok(Plan {
        unikernel,
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
        plan(spec).map(drop).map_err(UnsupportedError)
    }

    fn layers(&self) -> Vec<Layer> {
        let own = [
            Layer {
                name: format!("unikernels of other projects: {}", self.accelerator),
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
        let launch = self.launch(&spec, &plan, &files).await?;
        let stages = StartStages {
            begun: Some(begun),
            shell_taken: Some(Instant::now()),
            ..StartStages::default()
        };
        let has_exit_port = plan.framework.exit_port().is_some();
        let network = Network::new(ADDRESSES);
        let instance = ForeignInstance::new(launch, network, &spec, log, has_exit_port, stages)
            .map_err(host_error("using the sockets of QEMU"))?;
        let timeout = match self.accelerator {
            Accelerator::Kvm => spec.ready_timeout,
            Accelerator::Emulation { .. } => spec.ready_timeout * EMULATION_FACTOR,
        };
        Ok(Arc::new(
            instance.wait(timeout, &spec, plan.probe.as_ref()).await?,
        ))
    }
}
