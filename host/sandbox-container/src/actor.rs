//! The task that owns a keeper, and with it a container.

use std::fs::File;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use spore_cgroups::Group;
use spore_sandbox::{EndCause, EndReport, InstanceSpec, LogSink, LogSource, StartError, StopReason};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::net::UnixStream;
use tokio::process::Child;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::timeout;

use crate::images::Hold;
use crate::log::Log;
use crate::network::listening_address;
use crate::protocol::{End, Report, Request};
use crate::runtime::{Family, Runtime};
use crate::{host_error, of_process, send};

/// How often it is looked whether the function listens, at first and later.
const FIRST_PAUSE: Duration = Duration::from_millis(1);
const PAUSE_MAX: Duration = Duration::from_millis(10);
/// How long a keeper may take to remove its container.
const REMOVAL_PATIENCE: Duration = Duration::from_secs(25);
/// How long the rest of the log is waited for, once nobody is left to write to it.
const LOG_PATIENCE: Duration = Duration::from_secs(2);
const KILL_SIGNAL: i32 = 9;
/// How runsc ends when it has failed itself (its `Fatalf`).
const RUNSC_FAILURE: u8 = 128;

/// A container whose function listens.
pub(crate) struct Started {
    pub(crate) namespace: File,
    pub(crate) address: SocketAddr,
    pub(crate) process: i32,
}

/// Owns a keeper, the container's cgroup and its log.
pub(crate) struct Actor {
    port: u16,
    memory_bytes: u64,
    processor_millis: u32,
    runtime: Runtime,
    container: String,
    hold: Hold,
    group: Arc<Group>,
    log: Arc<Log>,
    pipes: Vec<JoinHandle<()>>,
    keeper: Child,
    keeper_number: u32,
    control: UnixStream,
}

/// What the keeper's last word was.
enum Last {
    End(End),
    Failed {
        reason: String,
        is_program: bool,
    },
    /// It is to be stopped.
    Stop(StopReason),
    /// It used more memory than it may while it was started.
    TooMuchMemory,
    /// It is gone without a word.
    Nothing,
}

impl Actor {
    pub(crate) fn new(
        spec: &InstanceSpec,
        runtime: Runtime,
        container: String,
        (hold, group): (Hold, Arc<Group>),
        log: Arc<dyn LogSink>,
        mut keeper: Child,
        control: UnixStream,
    ) -> Self {
        let log = Arc::new(Log::new(&spec.instance, log));
        let mut pipes = Vec::new();
        if let Some(pipe) = keeper.stdout.take() {
            pipes.push(tokio::spawn(Arc::clone(&log).pass_on(LogSource::Stdout, pipe)));
        }
        if let Some(pipe) = keeper.stderr.take() {
            pipes.push(tokio::spawn(Arc::clone(&log).pass_on(LogSource::Stderr, pipe)));
        }
        Self {
            port: spec.port,
            memory_bytes: spec.memory_bytes,
            processor_millis: spec.processor_millis,
            runtime,
            container,
            hold,
            group,
            log,
            pipes,
            keeper_number: keeper.id().unwrap_or_default(),
            keeper,
            control,
        }
    }

    /// Runs until nothing of the container is left, then leaves the report.
    pub(crate) async fn run(
        mut self,
        request: Request,
        mut commands: mpsc::Receiver<StopReason>,
        ready: oneshot::Sender<Result<Started, StartError>>,
        ended: watch::Sender<Option<EndReport>>,
    ) {
        let mut ready = Some(ready);
        let last = match send(&mut self.control, &request).await {
            Ok(()) => self.watch(&mut commands, &mut ready).await,
            Err(_) => Last::Nothing,
        };
        // Before anything of the container is removed.
        let was_out_of_memory = self.group.was_out_of_memory();
        let failure = match &last {
            Last::Failed {
                reason,
                is_program: true,
            } => Some(StartError::BadProgram {
                reason: reason.clone(),
            }),
            Last::Failed { reason, .. } => {
                let source = std::io::Error::other(reason.clone());
                Some(host_error("starting a container")(source))
            }
            _ => None,
        };
        let report = EndReport {
            cause: cause(last, self.runtime.family, self.memory_bytes, was_out_of_memory),
            details: Vec::new(),
            read_bytes: None,
        };
        let log = Arc::clone(&self.log);
        self.remove().await;
        if report.cause != EndCause::Stopped {
            log.write(LogSource::Platform, report.cause.to_string());
        }
        if let Some(ready) = ready {
            let failure = failure.unwrap_or_else(|| StartError::EndedEarly(report.clone()));
            // Nobody waits any more if the start was given up.
            let _ = ready.send(Err(failure));
        }
        // Nobody may be interested any more.
        let _ = ended.send(Some(report));
    }

    /// Waits for the container's end, or for whoever wants it ended; tells when the function listens.
    async fn watch(
        &mut self,
        commands: &mut mpsc::Receiver<StopReason>,
        ready: &mut Option<oneshot::Sender<Result<Started, StartError>>>,
    ) -> Last {
        let (keeper, port) = (self.keeper_number, self.port);
        let mut lines = BufReader::new(&mut self.control).lines();
        let mut process = None;
        let mut pause = FIRST_PAUSE;
        loop {
            let is_awaited = process.is_some() && ready.is_some();
            tokio::select! {
                line = lines.next_line() => {
                    let report = line.ok().flatten().and_then(|line| serde_json::from_str(&line).ok());
                    match report {
                        Some(Report::Started { process: first }) => {
                            process = Some(first);
                            let memory_bytes = self.memory_bytes + self.runtime.family.own_memory_bytes();
                            if self.group.limit_memory(memory_bytes).is_err() {
                                return Last::TooMuchMemory;
                            }
                            if let Err(error) = self.group.limit(memory_bytes, self.processor_millis) {
                                let reason = format!("limiting the container's processor time: {error}");
                                return Last::Failed { reason, is_program: false };
                            }
                        }
                        Some(Report::Ended(end)) => return Last::End(end),
                        Some(Report::Failed { reason, is_program }) => return Last::Failed { reason, is_program },
                        None => return Last::Nothing,
                    }
                }
                // Without a handle it is needed no more.
                reason = commands.recv() => return Last::Stop(reason.unwrap_or(StopReason::NotNeeded)),
                () = tokio::time::sleep(pause), if is_awaited => {
                    pause = (pause * 2).min(PAUSE_MAX);
                    let Some(address) = listening_address(keeper, port) else { continue };
                    let number = i32::try_from(keeper).unwrap_or_default();
                    if let (Ok(namespace), Some(process)) = (File::open(of_process(number, "ns/net")), process)
                        && let Some(ready) = ready.take()
                    {
                        // Nobody waits any more if the start was given up.
                        let _ = ready.send(Ok(Started { namespace, address, process }));
                    }
                }
            }
        }
    }

    /// Lets the keeper end and remove the container, and does so itself if that one does not. Then nothing is left.
    async fn remove(self) {
        let Self {
            runtime,
            container,
            hold,
            group,
            pipes,
            mut keeper,
            control,
            ..
        } = self;
        drop(control);
        let has_removed = timeout(REMOVAL_PATIENCE, keeper.wait())
            .await
            .is_ok_and(|status| status.is_ok_and(|status| status.success()));
        let removal = spawn_blocking(move || {
            if !has_removed {
                while group.kill() {
                    std::thread::sleep(FIRST_PAUSE);
                }
                runtime.forget(&container);
            }
            group.remove();
            drop(hold);
        });
        if !has_removed {
            // Fails only if it is gone already.
            let _ = keeper.kill().await;
        }
        // Fails only if the runtime is going down, and then the next start of the daemon removes what is left.
        let _ = removal.await;
        for pipe in pipes {
            let stopper = pipe.abort_handle();
            if timeout(LOG_PATIENCE, pipe).await.is_err() {
                stopper.abort();
            }
        }
    }
}

/// Why a container has ended, whose last word is known. Pure.
fn cause(last: Last, family: Family, memory_bytes: u64, was_out_of_memory: bool) -> EndCause {
    let out_of_memory = EndCause::OutOfMemory {
        limit_bytes: memory_bytes,
    };
    match last {
        Last::Stop(StopReason::TimedOut { after }) => EndCause::TimedOut { after },
        Last::Stop(StopReason::NotNeeded | StopReason::CallerGone) => EndCause::Stopped,
        Last::TooMuchMemory => out_of_memory,
        Last::End(End::Signal(KILL_SIGNAL)) if was_out_of_memory => out_of_memory,
        Last::End(_) | Last::Nothing if was_out_of_memory && family.stays() => out_of_memory,
        Last::End(End::Exited(RUNSC_FAILURE)) if family == Family::Runsc => EndCause::SandboxFailed {
            summary: "gVisor's runsc has failed; what it said of that is in the function's log".to_owned(),
        },
        Last::End(End::Exited(code)) => EndCause::Exited { code },
        Last::End(End::Signal(KILL_SIGNAL)) => EndCause::SandboxFailed {
            summary: "the container was killed, by hand or by the kernel because the host had no memory left"
                .to_owned(),
        },
        Last::End(End::Signal(number)) => EndCause::Crashed {
            summary: signal(number),
        },
        Last::Failed { reason, .. } => EndCause::SandboxFailed { summary: reason },
        Last::Nothing => EndCause::SandboxFailed {
            summary: "the process beside the container is gone".to_owned(),
        },
    }
}

/// A signal that ends programs, with its name.
fn signal(number: i32) -> String {
    let name = match number {
        4 => "SIGILL, an instruction that there is not",
        5 => "SIGTRAP, a breakpoint",
        6 => "SIGABRT, it gave up",
        7 => "SIGBUS, memory that cannot be had",
        8 => "SIGFPE, a division by zero or the like",
        11 => "SIGSEGV, an address that it may not use",
        13 => "SIGPIPE, a stream without a reader",
        15 => "SIGTERM",
        31 => "SIGSYS, a system call that it may not make",
        _ => return format!("signal {number}"),
    };
    format!("signal {number} ({name})")
}

/// The report of an instance whose actor is gone.
pub(crate) fn lost_report() -> EndReport {
    EndReport {
        cause: EndCause::SandboxFailed {
            summary: "the daemon is going down".to_owned(),
        },
        details: Vec::new(),
        read_bytes: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_of_runsc_is_no_exit_of_the_function() {
        let end = |family, code, was_out_of_memory| {
            cause(Last::End(End::Exited(code)), family, 1 << 20, was_out_of_memory)
        };
        let failed = end(Family::Runsc, 128, false);
        assert!(matches!(failed, EndCause::SandboxFailed { .. }), "{failed:?}");
        let out_of_memory = EndCause::OutOfMemory { limit_bytes: 1 << 20 };
        assert_eq!(end(Family::Runsc, 128, true), out_of_memory);
        assert_eq!(end(Family::Runsc, 127, false), EndCause::Exited { code: 127 });
        assert_eq!(end(Family::Runc, 128, false), EndCause::Exited { code: 128 });
    }
}
