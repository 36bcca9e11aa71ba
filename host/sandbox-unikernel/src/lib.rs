//! The unikernel sandbox: one monitor process with one virtual machine for each instance.
//!
//! ```text
//!   UnikernelInstance (handle) ──commands──> actor task ──control socket──> monitor process
//!        ^                                      │   <──events, log──┘
//!        └──────────── end report ──────────────┘
//! ```
//!
//! The actor owns the process and its sockets. It ends with the process, in one of three ways: the monitor reports
//! an end by itself, it reports one after a stop, or it is killed because it did not report in time.
//!
//! [`run_once`] does without all that: it runs a program in the foreground, with no daemon.

mod actor;
mod channel;
mod egress;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod launch;
mod lines;
mod once;
mod words;

use std::fs::File;
use std::sync::Arc;

use async_trait::async_trait;
use rustix::io::Errno;
use spore_monitor::probe::{HostProbe, ProbeError, probe_host};
use spore_monitor::protocol::{Request, RootKind, StartRequest};
use spore_sandbox::{
    ConnectError, EndReport, IngressStream, Instance, InstanceSpec, LogSink, Root, Sandbox, StartError,
    StopReason,
};
use tokio::net::UnixStream;
use tokio::process::Command;
use tokio::sync::{mpsc, oneshot, watch};

use actor::Actor;
use channel::{Channel, is_gone};
pub use egress::reaches_loopback;
use launch::host_error;
pub use once::{RunError, run_once};

/// Starts unikernels on this machine's KVM.
pub struct UnikernelSandbox {
    probe: HostProbe,
}

impl UnikernelSandbox {
    /// Checks that virtual machines can be run here.
    ///
    /// # Errors
    ///
    /// If `/dev/kvm` is missing, cannot be opened or does not work.
    pub fn new() -> Result<Self, ProbeError> {
        Ok(Self { probe: probe_host()? })
    }

    /// What the check found.
    #[must_use]
    pub fn probe(&self) -> &HostProbe {
        &self.probe
    }
}

/// The encoded request that starts the instance.
fn start_request(spec: &InstanceSpec) -> Result<Vec<u8>, StartError> {
    launch::encode(StartRequest {
        arguments: spec.arguments.clone(),
        environment: spec
            .environment
            .iter()
            .map(|(key, value)| format!("{key}={value}"))
            .collect(),
        working_directory: spec.working_directory.clone(),
        port: spec.port,
        memory_bytes: spec.memory_bytes,
        root: match spec.root {
            Root::Program(_) => RootKind::Program,
            Root::FileSystem(_) => RootKind::FileSystem,
        },
        rewrites_calls: spec.rewrites_calls,
        reaches_host_loopback: egress::reaches_loopback(&spec.egress),
        limits_log: true,
    })
}

#[async_trait]
impl Sandbox for UnikernelSandbox {
    fn kind(&self) -> &'static str {
        "unikernel"
    }

    async fn start(
        &self,
        spec: InstanceSpec,
        log: Arc<dyn LogSink>,
    ) -> Result<Arc<dyn Instance>, StartError> {
        let program = File::open(spec.root.path()).map_err(host_error("opening the program"))?;
        let request = start_request(&spec)?;
        let launch = launch::prepare(format!("spore-monitor {} {}", spec.function, spec.instance))?;
        let child = Command::from(launch.command)
            .kill_on_drop(true)
            .spawn()
            .map_err(host_error("starting the monitor process"))?;
        let control =
            Arc::new(Channel::new(launch.control).map_err(host_error("watching the control socket"))?);
        let log_channel = Channel::new(launch.log).map_err(host_error("watching the log socket"))?;
        control
            .send_packet(&request, Some(program.into()))
            .await
            .map_err(|error| match error {
                // The host's limit (net.core.wmem_max) is lower than ours.
                error if Errno::from_io_error(&error) == Some(Errno::MSGSIZE) => {
                    launch::too_large(request.len())
                }
                error => host_error("sending the program")(error),
            })?;

        let (commands, command_queue) = mpsc::channel(4);
        let (ready_sender, ready) = oneshot::channel();
        let (end_sender, end) = watch::channel(None);
        let actor = Actor::new(&spec, child, Arc::clone(&control), log_channel, log);
        tokio::spawn(actor.run(command_queue, ready_sender, end_sender));
        let instance = UnikernelInstance {
            id: spec.instance.clone(),
            control,
            commands,
            end,
        };

        match tokio::time::timeout(spec.ready_timeout, ready).await {
            Ok(Ok(Ok(()))) => Ok(Arc::new(instance)),
            Ok(Ok(Err(error))) => Err(error),
            // The actor always answers, unless the runtime is going down under it.
            Ok(Err(_)) => Err(StartError::EndedEarly(actor::lost_report())),
            Err(_) => {
                let after = spec.ready_timeout;
                instance.stop(StopReason::TimedOut { after }).await;
                Err(StartError::NotReady {
                    after,
                    port: spec.port,
                })
            }
        }
    }
}

/// A running unikernel. Dropping it ends it.
struct UnikernelInstance {
    id: String,
    control: Arc<Channel>,
    commands: mpsc::Sender<StopReason>,
    end: watch::Receiver<Option<EndReport>>,
}

#[async_trait]
impl Instance for UnikernelInstance {
    fn id(&self) -> &str {
        &self.id
    }

    async fn connect(&self) -> Result<Box<dyn IngressStream>, ConnectError> {
        if let Some(report) = self.end.borrow().clone() {
            return Err(ConnectError::Ended(report));
        }
        let (ours, theirs) = std::os::unix::net::UnixStream::pair().map_err(ConnectError::Host)?;
        ours.set_nonblocking(true).map_err(ConnectError::Host)?;
        match self.control.send(&Request::Open, Some(theirs.into())).await {
            Ok(()) => {}
            Err(error) if is_gone(&error) => {
                return Err(ConnectError::Ended(self.ended().await));
            }
            Err(error) => return Err(ConnectError::Host(error)),
        }
        Ok(Box::new(UnixStream::from_std(ours).map_err(ConnectError::Host)?))
    }

    async fn ended(&self) -> EndReport {
        let mut end = self.end.clone();
        match end.wait_for(Option::is_some).await.map(|report| report.clone()) {
            Ok(Some(report)) => report,
            // The actor always leaves a report, unless the runtime is going down under it.
            Ok(None) | Err(_) => actor::lost_report(),
        }
    }

    async fn stop(&self, reason: StopReason) -> EndReport {
        // A full or closed queue means that it is being stopped already.
        let _ = self.commands.try_send(reason);
        self.ended().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use rustix::net::sockopt::set_socket_send_buffer_size;
    use spore_monitor::protocol::PACKET_BYTES_MAX;
    use std::path::PathBuf;
    use std::time::Duration;

    fn spec(value_bytes: usize) -> InstanceSpec {
        InstanceSpec {
            function: "f".into(),
            instance: "f-1".into(),
            root: Root::Program(PathBuf::from("/proc/self/exe")),
            arguments: vec!["f".into()],
            environment: vec![("KEY".into(), "v".repeat(value_bytes))],
            working_directory: "/".into(),
            rewrites_calls: true,
            egress: Vec::new(),
            port: 8080,
            memory_bytes: 1 << 20,
            ready_timeout: Duration::from_secs(1),
        }
    }

    #[tokio::test]
    async fn the_largest_request_fits_into_the_socket() {
        let packet = start_request(&spec(240 << 10)).unwrap();
        let (ours, _theirs) = launch::packet_sockets().unwrap();
        set_socket_send_buffer_size(&ours, PACKET_BYTES_MAX).unwrap();
        let channel = Channel::new(ours).unwrap();
        channel.send_packet(&packet, None).await.unwrap();
    }

    #[test]
    fn an_environment_that_is_too_large_is_the_programs_fault() {
        let error = start_request(&spec(PACKET_BYTES_MAX)).unwrap_err();
        assert!(matches!(error, StartError::BadProgram { .. }), "{error}");
        assert!(error.to_string().contains("environment"), "{error}");
    }
}
