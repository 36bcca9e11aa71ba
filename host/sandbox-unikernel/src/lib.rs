//! The unikernel sandbox: one monitor process with one virtual machine for each instance.
//!
//! ```text
//!   UnikernelInstance (handle) ──commands──> actor task ──control socket──> monitor process
//!        ^                                      │   <──events, log──┘
//!        └──────────── end report ──────────────┘
//! ```
//!
//! The process comes from a `supply` of ones that are made ahead of demand, each in a cgroup of its own.
//!
//! The actor owns the process and its sockets. It ends with the process, in one of three ways: the monitor reports
//! an end by itself, it reports one after a stop, or it is killed because it did not report in time.
//!
//! [`run_once`] does without all that: it runs a program in the foreground, with no daemon.

mod actor;
mod calm;
mod channel;
mod command;
mod confinement;
mod demand;
mod egress;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod ingress;
mod launch;
mod memory;
mod merging;
mod once;
mod processor;
mod room;
mod snapshot_files;
mod snapshots;
mod source;
mod stages;
mod supply;
mod texts;
mod turns;
mod watched;
mod words;

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use rustix::io::Errno;
use spore_abi::runtime_api::RUNTIME_API_PORT;
use spore_monitor::probe::{ProbeError, probe_host, probe_process};
use spore_monitor::process::own_user;
use spore_monitor::protocol::{
    self, IsolationChoice, JailRequest, MemorySource, Request, RootKind, StartRequest,
};
use spore_monitor::{RootFiles, chain, features};
use spore_sandbox::{
    ConnectError, EndReport, IngressStream, Instance, InstanceSpec, Isolation, IsolationError, Layer,
    LogSink, RUNTIME_API_VARIABLE, ResetError, Root, Sandbox, SandboxKind, StartError, StartStages,
    StopReason,
};
use tokio::io::AsyncWriteExt as _;
use tokio::net::UnixStream;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::spawn_blocking;

use actor::{Actor, Command, Readiness, Tellers};
use calm::Calm;
use channel::{Channel, is_gone};
use confinement::Confinement;
pub use confinement::layers;
pub use egress::reaches_loopback;
use ingress::Ingress;
use launch::host_error;
pub use merging::{Merging, merging};
pub use once::{RunError, run_once};
use snapshot_files::{Filing, SnapshotFiles};
use snapshots::{Resident, Snapshots};
use supply::{Monitor, Stock, Supply, Taken, Wanted};
use turns::Turns;
use watched::Watched;

/// How often one virtual machine is reset: so that whatever builds up in it or around it goes with it now and then.
const RESETS_MAX: u32 = 1000;
/// How long a reset may take.
const RESET_TIMEOUT: Duration = Duration::from_secs(2);

/// How instances are to be run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SandboxOptions {
    /// What functions get that ask for nothing in particular; none is a virtual machine where there can be one.
    pub isolation: Option<Isolation>,
    /// Whether there may be nothing but virtual machines.
    pub requires_virtual_machine: bool,
    /// What the instances' cgroups go below: a path within each hierarchy; the daemon's own cgroup if there is none.
    pub cgroup_parent: Option<PathBuf>,
    /// The folder for the files of snapshots, made when it is known what is deployed ([`Sandbox::retain`]); none keeps
    /// them in memory only. What it lies in has to be there.
    pub snapshots: Option<PathBuf>,
    /// Whether the kernel may merge equal pages of different instances.
    pub merges_pages: bool,
}

/// Starts unikernels, in virtual machines or in processes.
pub struct UnikernelSandbox {
    /// Why there can be no virtual machines, if there can be none.
    no_virtual_machine: Option<String>,
    default: Isolation,
    requires_virtual_machine: bool,
    merges_pages: bool,
    confinement: Confinement,
    supply: Arc<Supply>,
    calm: Arc<Calm>,
    turns: Turns,
    snapshots: Snapshots,
    /// None where nothing of them is kept.
    snapshot_files: Option<Arc<SnapshotFiles>>,
}

/// Why unikernels cannot be run as they are asked for.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// Virtual machines are asked for, and cannot be had.
    #[error(
        "this machine cannot run unikernels in virtual machines: leave out --require-vm and --isolation vm to run them \
         in processes"
    )]
    NoVirtualMachine(#[source] ProbeError),
    /// Neither form can be had.
    #[error(
        "this machine can run unikernels neither in virtual machines ({virtual_machine}) nor in processes"
    )]
    Neither {
        /// Why not in virtual machines.
        virtual_machine: String,
        /// Why not in processes.
        #[source]
        process: ProbeError,
    },
    /// The process form cannot be had, and is asked for.
    #[error("this machine cannot run unikernels in processes")]
    NoProcess(#[source] ProbeError),
    /// No monitor process can be started.
    #[error("no monitor process can be started")]
    Monitor(#[source] StartError),
    /// No thread can be started.
    #[error("no thread can be started")]
    Thread(#[source] std::io::Error),
    /// Both are asked for.
    #[error("processes are no virtual machines: leave out either --isolation process or --require-vm")]
    Contradiction,
    /// Pages are to be merged, and the kernel cannot do that.
    #[error("this kernel cannot merge pages, for it has no /sys/kernel/mm/ksm: leave out --merge-pages")]
    NoMerging,
}

impl UnikernelSandbox {
    /// Checks what can be run here, and how it can be confined.
    ///
    /// # Errors
    ///
    /// If what is asked for cannot be had, or if no process can be started.
    pub fn new(options: &SandboxOptions) -> Result<Self, SandboxError> {
        let (isolation, requires_virtual_machine) = (options.isolation, options.requires_virtual_machine);
        if requires_virtual_machine && isolation == Some(Isolation::Process) {
            return Err(SandboxError::Contradiction);
        }
        if options.merges_pages && merging() == Merging::Absent {
            return Err(SandboxError::NoMerging);
        }
        let failure = match probe_host() {
            Ok(_) => None,
            Err(error) if requires_virtual_machine || isolation == Some(Isolation::VirtualMachine) => {
                return Err(SandboxError::NoVirtualMachine(error));
            }
            Err(error) => Some(chain(&error)),
        };
        let default = match (isolation, &failure) {
            (Some(isolation), _) => isolation,
            (None, None) => Isolation::VirtualMachine,
            (None, Some(_)) => Isolation::Process,
        };
        if default == Isolation::Process
            && let Err(process) = probe_process()
        {
            return Err(match failure {
                Some(virtual_machine) => SandboxError::Neither {
                    virtual_machine,
                    process,
                },
                None => SandboxError::NoProcess(process),
            });
        }
        let (confinement, groups) =
            confinement::find(options.cgroup_parent.as_deref()).map_err(SandboxError::Monitor)?;
        let supply =
            Supply::start(groups, default, confinement.jail.active()).map_err(SandboxError::Thread)?;
        let snapshot_files = match (&options.snapshots, &failure) {
            (Some(folder), None) => SnapshotFiles::start(folder.clone()).map_err(SandboxError::Thread)?,
            _ => None,
        };
        Ok(Self {
            no_virtual_machine: failure,
            default,
            requires_virtual_machine,
            merges_pages: options.merges_pages,
            confinement,
            supply: Arc::new(supply),
            calm: Arc::new(Calm::new()),
            turns: Turns::of_this_machine(),
            snapshots: Snapshots::default(),
            snapshot_files,
        })
    }

    /// What functions get that ask for nothing in particular.
    #[must_use]
    pub fn default_isolation(&self) -> Isolation {
        self.default
    }

    /// Why there can be no virtual machines, if there can be none.
    #[must_use]
    pub fn why_no_virtual_machine(&self) -> Option<&str> {
        self.no_virtual_machine.as_deref()
    }

    /// What an instance gets for which this is asked, or nothing in particular.
    fn form(&self, wanted: Option<Isolation>) -> Result<Isolation, IsolationError> {
        let isolation = wanted.unwrap_or(self.default);
        match (isolation, &self.no_virtual_machine) {
            (Isolation::VirtualMachine, Some(reason)) => Err(IsolationError(format!(
                "there can be no virtual machine here ({reason}): deploy the function with the isolation `process`"
            ))),
            (Isolation::Process, _) if self.requires_virtual_machine => Err(IsolationError(
                "this daemon runs functions in virtual machines only: leave the isolation `process` out"
                    .to_owned(),
            )),
            _ => Ok(isolation),
        }
    }
}

/// What the monitor is asked for.
#[must_use]
pub fn isolation_choice(isolation: Option<Isolation>) -> IsolationChoice {
    match isolation {
        None => IsolationChoice::Automatic,
        Some(Isolation::VirtualMachine) => IsolationChoice::Only(protocol::Isolation::VirtualMachine),
        Some(Isolation::Process) => IsolationChoice::Only(protocol::Isolation::Process),
    }
}

/// The variable by which a program finds the Runtime API of AWS Lambda, with its value.
#[must_use]
pub fn runtime_api_variable() -> String {
    format!("{RUNTIME_API_VARIABLE}=127.0.0.1:{RUNTIME_API_PORT}")
}

/// The program's environment.
fn environment(spec: &InstanceSpec) -> Vec<String> {
    let is_own = |name: &str| spec.serves_runtime_api && name == RUNTIME_API_VARIABLE;
    let given = spec.environment.iter().filter(|(name, _)| !is_own(name));
    let own = spec.serves_runtime_api.then(runtime_api_variable);
    given
        .map(|(name, value)| format!("{name}={value}"))
        .chain(own)
        .collect()
}

/// The encoded request that starts the instance.
fn start_request(
    spec: &InstanceSpec,
    jail: JailRequest,
    memory: MemorySource,
    merges_pages: bool,
) -> Result<Vec<u8>, StartError> {
    let instance = StartRequest {
        arguments: spec.arguments.clone(),
        environment: environment(spec),
        working_directory: spec.working_directory.clone(),
        user: protocol::User {
            id: spec.user.id,
            group: spec.user.group,
            more_groups: spec.user.more_groups.clone(),
        },
        secrets: spec
            .secrets
            .iter()
            .map(|secret| protocol::Secret {
                name: secret.name.clone(),
                value: secret.value.to_vec(),
            })
            .collect(),
        port: spec.port,
        command: spec.command.map(|command| protocol::Command {
            combines_output: command.combines_output,
        }),
        memory_bytes: spec.memory_bytes,
        root: match spec.root {
            Root::Program(_) => RootKind::Program,
            Root::FileSystem(_) => RootKind::FileSystem,
            Root::Layered { .. } => RootKind::LayeredFileSystem,
        },
        memory,
        rewrites_calls: spec.rewrites_calls,
        is_reset: spec.is_reset,
        reaches_host_loopback: egress::reaches_loopback(&spec.egress),
        serves_runtime_api: spec.serves_runtime_api,
        limits_log: true,
        merges_pages,
        isolation: isolation_choice(spec.isolation),
        uses_dispatch: true,
    };
    launch::encode(instance, jail)
}

#[async_trait]
impl Sandbox for UnikernelSandbox {
    fn kind(&self) -> SandboxKind {
        SandboxKind::Unikernel
    }

    fn isolation(&self, _: SandboxKind, wanted: Option<Isolation>) -> Result<Isolation, IsolationError> {
        self.form(wanted)
    }

    fn layers(&self) -> Vec<Layer> {
        self.confinement.layers()
    }

    fn retain(&self, deployed: &[InstanceSpec]) {
        let cloned = deployed.iter().filter(|spec| spec.is_cloned).cloned();
        let cloned: Vec<_> = cloned.collect();
        let freed = self.snapshots.retain(&cloned);
        if let Some(files) = &self.snapshot_files {
            files.retain(&cloned, freed);
        }
    }

    async fn start(
        &self,
        spec: InstanceSpec,
        log: Arc<dyn LogSink>,
    ) -> Result<Arc<dyn Instance>, StartError> {
        self.calm.note_start();
        let resident = if spec.is_cloned {
            self.snapshot(&spec, &log).await?
        } else {
            None
        };
        let origin = match resident {
            Some(resident) => Origin::Clone(resident),
            None => Origin::Boot(open_root(&spec)?),
        };
        match self.run(&spec, &origin, log).await? {
            (instance, Readiness::Ready) => Ok(Arc::new(instance)),
            (_, Readiness::Captured(_) | Readiness::NotCaptured) => Err(snapshots::unasked()),
        }
    }
}

fn open_root(spec: &InstanceSpec) -> Result<RootFiles, StartError> {
    let own = File::open(spec.root.path());
    let files = own.and_then(|own| match spec.root.base() {
        Some(base) => RootFiles::new(File::open(base)?, Some(own)),
        None => RootFiles::new(own, None),
    });
    files.map_err(host_error("opening the program"))
}

/// Where the memory of an instance comes from.
enum Origin {
    /// It is booted from this root.
    Boot(RootFiles),
    /// It is booted within this file, which becomes a snapshot.
    BootWithin(RootFiles, OwnedFd),
    /// It is a copy of this snapshot.
    Clone(Arc<Resident>),
}

impl Origin {
    /// What a monitor is told of it, the files that go with that, and the snapshot of which the instance is a copy.
    fn parts(&self, has_room: bool) -> (MemorySource, Vec<BorrowedFd<'_>>, Option<Arc<Resident>>) {
        match self {
            Self::Boot(root) => (MemorySource::Fresh, root.files().collect(), None),
            Self::BootWithin(root, file) => {
                let files = root.files().chain([file.as_fd()]).collect();
                (MemorySource::Captured, files, None)
            }
            Self::Clone(resident) => {
                let memory = MemorySource::Cloned(Box::new(resident.snapshot(has_room)));
                (memory, resident.files(), Some(Arc::clone(resident)))
            }
        }
    }
}

impl UnikernelSandbox {
    /// The snapshot of which the instances are copies; it is loaded or made if there is none yet. None if none can be made.
    async fn snapshot(
        &self,
        spec: &InstanceSpec,
        log: &Arc<dyn LogSink>,
    ) -> Result<Option<Arc<Resident>>, StartError> {
        let Some(cell) = self.snapshots.cell(spec) else {
            return Ok(None);
        };
        // What a file belongs to is told by what virtual machines show their guests.
        let is_filed = self.form(spec.isolation).ok() == Some(Isolation::VirtualMachine);
        let files = self.snapshot_files.as_ref().filter(|_| is_filed);
        let made = cell.get_or_try_init(|| async {
            let texts = &self.snapshots.texts;
            if let Some(resident) = self.snapshot_of_other_form(spec, log) {
                return Ok(Some(resident));
            }
            if let Some(resident) = snapshot_files::load(files, spec, open_root(spec)?, texts).await {
                return Ok(Some(resident));
            }
            let file = snapshots::empty_file().map_err(host_error("making a file in memory"))?;
            let origin = Origin::BootWithin(open_root(spec)?, file);
            let (instance, readiness) = self.run(spec, &origin, Arc::clone(log)).await?;
            let Origin::BootWithin(root, file) = origin else {
                return Err(snapshots::unasked());
            };
            match readiness {
                Readiness::Captured(captured) => {
                    // Text of a large program takes a while to copy.
                    let (texts, filing) = (Arc::clone(texts), Filing::captured(files, spec));
                    let made = spawn_blocking(move || Resident::new(file, *captured, root, &texts, filing));
                    let resident = made.await;
                    let resident = resident.unwrap_or_else(|error| Err(std::io::Error::other(error)));
                    Ok(Some(Arc::new(
                        resident.map_err(host_error("sealing a snapshot"))?,
                    )))
                }
                Readiness::NotCaptured => {
                    instance.stop(StopReason::NotNeeded).await;
                    Ok(None)
                }
                Readiness::Ready => Err(snapshots::unasked()),
            }
        });
        made.await.cloned()
    }

    /// The snapshot that instances of this configuration have in the other form, if they can go on from it in this one.
    fn snapshot_of_other_form(&self, spec: &InstanceSpec, log: &Arc<dyn LogSink>) -> Option<Arc<Resident>> {
        let resident = self.snapshots.of_other_form(spec)?;
        let isolation = self.form(spec.isolation).unwrap_or(self.default);
        let features = match isolation {
            Isolation::VirtualMachine => features::of_machines(),
            Isolation::Process => Some(features::of_processes()),
        };
        let missing = match &features {
            Some(features) => match resident.missing_in(isolation, features) {
                Some(missing) => missing,
                None => return Some(resident),
            },
            None => "KVM does not tell its features".to_owned(),
        };
        let other = match isolation {
            Isolation::VirtualMachine => Isolation::Process,
            Isolation::Process => Isolation::VirtualMachine,
        };
        actor::say(&spec.instance, log)(format!(
            "the snapshot that was made with the isolation `{}` cannot be used with `{}`, so another one is made: {missing}",
            other.name(),
            isolation.name()
        ));
        None
    }

    /// Starts an instance and waits until it is ready, or a snapshot. A copy of one is ready as it is.
    async fn run(
        &self,
        spec: &InstanceSpec,
        origin: &Origin,
        log: Arc<dyn LogSink>,
    ) -> Result<(UnikernelInstance, Readiness), StartError> {
        let turn = self.turns.take().await;
        let begun = Instant::now();
        let wanted = Wanted {
            isolation: self.form(spec.isolation).unwrap_or(self.default),
            memory_bytes: spec.memory_bytes,
            processor_millis: spec.processor_millis,
        };
        let has_room = self.supply.room.is_plenty();
        let stock = match origin {
            // What is reset has no use for one.
            Origin::Clone(resident) if !spec.is_reset && has_room => resident.stock(),
            _ => Stock::default(),
        };
        let refill = self.supply.refill(wanted, Arc::clone(&stock));
        let Monitor {
            launch,
            group,
            made_for,
            ..
        } = self.supply.take(wanted, &stock).await?;
        let shell_taken = Instant::now();
        let jail = JailRequest {
            title: format!("spore-monitor {} {}", spec.function, spec.instance),
            user: own_user(launch.process.id()),
            required: self.confinement.jail.active(),
        };
        let (memory, files, resident) = origin.parts(has_room);
        let is_clone = resident.is_some();
        let can_be_reset = is_clone && spec.is_reset && wanted.isolation == Isolation::VirtualMachine;
        let request = start_request(spec, jail, memory, self.merges_pages);
        let process_id = launch.process.id();
        let taken = Taken {
            process: Watched::new(launch.process),
            group,
            supply: Arc::clone(&self.supply),
            turn: Some(turn),
        };
        if made_for != wanted {
            wanted.limit(taken.group.as_ref())?;
        }
        let request = request?;
        let control =
            Arc::new(Channel::new(launch.control).map_err(host_error("watching the control socket"))?);
        let log_channel = Channel::new(launch.log).map_err(host_error("watching the log socket"))?;
        control
            .send_packet(&request, &files)
            .await
            .map_err(|error| match error {
                // The host's limit (net.core.wmem_max) is lower than ours.
                error if Errno::from_io_error(&error) == Some(Errno::MSGSIZE) => {
                    launch::too_large(request.len())
                }
                error => host_error("sending the program")(error),
            })?;
        drop(refill);

        let (commands, command_queue) = mpsc::channel(4);
        let (ready_sender, ready) = oneshot::channel();
        let (end_sender, end) = watch::channel(None);
        let (finished_sender, finished) = watch::channel(None);
        let (stages_sender, stages) = watch::channel(StartStages {
            begun: Some(begun),
            shell_taken: Some(shell_taken),
            ..StartStages::default()
        });
        let opened = Arc::new(AtomicU32::new(0));
        let actor = Actor::new(
            spec,
            resident,
            taken,
            Arc::clone(&control),
            log_channel,
            log,
            Arc::clone(&opened),
        );
        let tellers = Tellers {
            stages: stages_sender,
            finished: finished_sender,
            end: end_sender,
        };
        tokio::spawn(actor.run(command_queue, ready_sender, tellers));
        let instance = UnikernelInstance {
            id: spec.instance.clone(),
            process_id,
            resets_left: AtomicU32::new(if can_be_reset { RESETS_MAX } else { 0 }),
            control,
            commands,
            calm: Arc::clone(&self.calm),
            opened,
            stages,
            finished,
            end,
            is_command: spec.command.is_some(),
        };

        if is_clone {
            // What is opened now is there when it goes on.
            return Ok((instance, Readiness::Ready));
        }
        let readiness = until_ready(spec, &instance, ready).await?;
        Ok((instance, readiness))
    }
}

/// Waits until the program listens, or is a snapshot, as long as it may take for that.
async fn until_ready(
    spec: &InstanceSpec,
    instance: &UnikernelInstance,
    ready: oneshot::Receiver<Result<Readiness, StartError>>,
) -> Result<Readiness, StartError> {
    match tokio::time::timeout(spec.ready_timeout, ready).await {
        Ok(Ok(outcome)) => outcome,
        // The actor always answers, unless the runtime is going down under it.
        Ok(Err(_)) => Err(StartError::EndedEarly(actor::lost_report())),
        Err(_) => {
            let after = spec.ready_timeout;
            instance.stop(StopReason::TimedOut { after }).await;
            Err(StartError::NotReady {
                after,
                awaited: spec.awaited(),
            })
        }
    }
}

/// A running unikernel. Dropping it ends it.
struct UnikernelInstance {
    id: String,
    /// Its monitor.
    process_id: u32,
    control: Arc<Channel>,
    commands: mpsc::Sender<Command>,
    calm: Arc<Calm>,
    /// How often it may still be reset.
    resets_left: AtomicU32,
    /// Streams that were opened; the end report is about the newest.
    opened: Arc<AtomicU32>,
    /// Has changed, or will not change any more, when all is known.
    stages: watch::Receiver<StartStages>,
    /// How the command has ended that was started last.
    finished: watch::Receiver<Option<EndReport>>,
    /// It takes no streams but that of a command.
    is_command: bool,
    end: watch::Receiver<Option<EndReport>>,
}

impl UnikernelInstance {
    /// Opens a stream to the guest.
    async fn open(&self) -> Result<Box<dyn IngressStream>, ConnectError> {
        if let Some(report) = self.end.borrow().clone() {
            return Err(ConnectError::Ended(report));
        }
        let (ours, theirs) = std::os::unix::net::UnixStream::pair().map_err(ConnectError::Host)?;
        ours.set_nonblocking(true).map_err(ConnectError::Host)?;
        match self.control.send(&Request::Open, Some(theirs.into())).await {
            Ok(()) => {
                self.opened.fetch_add(1, Ordering::Release);
            }
            Err(error) if is_gone(&error) => {
                return Err(ConnectError::Ended(self.ended().await));
            }
            Err(error) => return Err(ConnectError::Host(error)),
        }
        let stream = UnixStream::from_std(ours).map_err(ConnectError::Host)?;
        Ok(Box::new(Ingress(stream)))
    }
}

#[async_trait]
impl Instance for UnikernelInstance {
    fn id(&self) -> &str {
        &self.id
    }

    async fn connect(&self) -> Result<Box<dyn IngressStream>, ConnectError> {
        match self.is_command {
            true => Err(ConnectError::Host(std::io::ErrorKind::Unsupported.into())),
            false => self.open().await,
        }
    }

    async fn run_command(
        &self,
        variables: &[(String, Vec<u8>)],
    ) -> Result<Box<dyn IngressStream>, ConnectError> {
        if !self.is_command {
            return Err(ConnectError::Host(std::io::ErrorKind::Unsupported.into()));
        }
        let preamble = command::preamble(variables).map_err(ConnectError::Host)?;
        let mut stream = self.open().await?;
        match stream.write_all(&preamble).await {
            Ok(()) => Ok(stream),
            // It is the monitor that has gone.
            Err(_) => Err(ConnectError::Ended(self.ended().await)),
        }
    }

    async fn finished(&self) -> EndReport {
        let mut finished = self.finished.clone();
        match finished
            .wait_for(Option::is_some)
            .await
            .map(|report| report.clone())
        {
            Ok(Some(report)) => report,
            // The actor has gone, and has left the other report.
            Ok(None) | Err(_) => self.ended().await,
        }
    }

    async fn ended(&self) -> EndReport {
        let mut end = self.end.clone();
        match end.wait_for(Option::is_some).await.map(|report| report.clone()) {
            Ok(Some(report)) => report,
            // The actor always leaves a report, unless the runtime is going down under it.
            Ok(None) | Err(_) => actor::lost_report(),
        }
    }

    async fn start_stages(&self) -> StartStages {
        let mut stages = self.stages.clone();
        // Fails where the monitor has ended without a word of it.
        let _ = stages.changed().await;
        *stages.borrow()
    }

    async fn stop(&self, reason: StopReason) -> EndReport {
        if reason == StopReason::NotNeeded && self.end.borrow().is_none() {
            self.calm.wait().await;
        }
        // A full or closed queue means that it is being stopped already.
        let _ = self.commands.try_send(Command::Stop(reason));
        self.ended().await
    }

    fn memory_bytes(&self) -> Option<u64> {
        // Once it has ended, its number may be another process's.
        let is_running = self.end.borrow().is_none();
        is_running.then(|| memory::bytes(self.process_id)).flatten()
    }

    fn processor_time(&self) -> Option<Duration> {
        let is_running = self.end.borrow().is_none();
        is_running.then(|| processor::time(self.process_id)).flatten()
    }

    fn can_be_reset(&self) -> bool {
        self.resets_left.load(Ordering::Relaxed) > 0
    }

    async fn reset(&self) -> Result<(), ResetError> {
        let less = |left: u32| left.checked_sub(1);
        if self
            .resets_left
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, less)
            .is_err()
        {
            return Err(ResetError::Unsupported);
        }
        let (sender, done) = oneshot::channel();
        // Fails only if the instance has ended, or is being stopped: then nothing is said either.
        let _ = self.commands.try_send(Command::Reset(sender));
        match tokio::time::timeout(RESET_TIMEOUT, done).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(ResetError::Ended(self.ended().await)),
            Err(_) => Err(ResetError::TimedOut),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use rustix::net::sockopt::set_socket_send_buffer_size;
    use spore_monitor::protocol::PACKET_BYTES_MAX;
    use std::path::PathBuf;

    fn spec(value_bytes: usize) -> InstanceSpec {
        InstanceSpec {
            function: "f".into(),
            instance: "f-1".into(),
            root: Root::Program(PathBuf::from("/proc/self/exe")),
            root_digest: None,
            arguments: vec!["f".into()],
            environment: vec![("KEY".into(), "v".repeat(value_bytes))],
            working_directory: "/".into(),
            user: spore_sandbox::User::default(),
            secrets: Vec::new(),
            rewrites_calls: true,
            is_cloned: false,
            is_reset: false,
            egress: Vec::new(),
            port: 8080,
            serves_runtime_api: false,
            command: None,
            unikernel: None,
            memory_bytes: 1 << 20,
            isolation: None,
            sandbox: spore_sandbox::SandboxKind::Unikernel,
            processor_millis: 1000,
            ready_timeout: Duration::from_secs(1),
        }
    }

    #[tokio::test]
    async fn the_largest_request_fits_into_the_socket() {
        let packet = start_request(
            &spec(240 << 10),
            JailRequest::default(),
            MemorySource::Fresh,
            false,
        )
        .unwrap();
        let (ours, _theirs) = launch::packet_sockets().unwrap();
        set_socket_send_buffer_size(&ours, PACKET_BYTES_MAX).unwrap();
        let channel = Channel::new(ours).unwrap();
        channel.send_packet(&packet, &[]).await.unwrap();
    }

    #[test]
    fn an_environment_that_is_too_large_is_the_programs_fault() {
        let error = start_request(
            &spec(PACKET_BYTES_MAX),
            JailRequest::default(),
            MemorySource::Fresh,
            false,
        )
        .unwrap_err();
        assert!(matches!(error, StartError::BadProgram { .. }), "{error}");
        assert!(error.to_string().contains("environment"), "{error}");
    }
}
