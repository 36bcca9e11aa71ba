//! The handle of a machine with a unikernel.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use spore_sandbox::{
    ConnectError, EndCause, EndReport, IngressStream, Instance, InstanceSpec, LogSink, StartError,
    StartStages, StopReason,
};
use tokio::sync::{mpsc, watch};

use super::actor::{self, Actor, Teller};
use super::network::{Network, Stream};
use super::ready::{self, Probe};
use crate::control::{Control, Sayings};
use crate::machines::{self, Launch};

/// How long a connection to a guest that is there may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// A machine that runs. Its end begins when it is dropped.
pub(crate) struct ForeignInstance {
    id: String,
    process_id: u32,
    port: u16,
    network: Network,
    /// That by which it was seen that the port is open.
    first: Mutex<Option<Stream>>,
    stop: mpsc::Sender<StopReason>,
    ended: watch::Receiver<Option<EndReport>>,
    stages: StartStages,
    /// Kept, so that what QEMU says is read as long as there is a handle.
    _control: Control,
}

impl ForeignInstance {
    /// Takes a machine that was launched: from now on a task reads what it says.
    pub(crate) fn new(
        launch: Launch,
        network: Network,
        spec: &InstanceSpec,
        log: Arc<dyn LogSink>,
        teller: Teller,
        stages: StartStages,
    ) -> std::io::Result<Self> {
        let (stop, stops) = mpsc::channel(1);
        let (told, ended) = watch::channel(None);
        let sayings = Sayings::default();
        let process_id = launch.process.id();
        let (control, task) = Control::start_watched(launch.control, sayings.clone())?;
        let actor = Actor {
            process: launch.process,
            network: network.clone(),
            cable: actor::cable(launch.channel)?,
            console: actor::console(launch.console)?,
            log: actor::log(log, &spec.instance),
            sayings,
            control: task,
            teller,
            stops,
            ended: told,
        };
        tokio::spawn(actor.run());
        Ok(Self {
            id: spec.instance.clone(),
            process_id,
            port: spec.port,
            network,
            first: Mutex::default(),
            stop,
            ended,
            stages,
            _control: control,
        })
    }

    /// Waits until the unikernel is ready.
    pub(crate) async fn wait(
        self,
        timeout: Duration,
        spec: &InstanceSpec,
        probe: Option<&Probe>,
    ) -> Result<Self, StartError> {
        let ready = tokio::time::timeout(timeout, ready::wait(&self.network, self.port, probe));
        let outcome = tokio::select! {
            ready = ready => ready,
            report = self.ended() => return Err(StartError::EndedEarly(report)),
        };
        match outcome {
            Ok(stream) => {
                *self.first.lock().unwrap_or_else(PoisonError::into_inner) = stream;
                Ok(self)
            }
            Err(_) => {
                self.stop(StopReason::NotNeeded).await;
                Err(StartError::NotReady {
                    after: timeout,
                    awaited: spec.awaited(),
                })
            }
        }
    }
}

#[async_trait]
impl Instance for ForeignInstance {
    fn id(&self) -> &str {
        &self.id
    }

    async fn connect(&self) -> Result<Box<dyn IngressStream>, ConnectError> {
        let report = self.ended.borrow().clone();
        if let Some(report) = report {
            return Err(ConnectError::Ended(report));
        }
        let first = self.first.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(first) = first.filter(Stream::is_open) {
            return Ok(Box::new(first));
        }
        let connected = tokio::time::timeout(CONNECT_TIMEOUT, self.network.connect(self.port)).await;
        let connected = connected.unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into()));
        Ok(Box::new(connected.map_err(ConnectError::Host)?))
    }

    async fn ended(&self) -> EndReport {
        let mut ended = self.ended.clone();
        let report = ended.wait_for(Option::is_some).await;
        let report = report.ok().and_then(|report| report.clone());
        // Without a report the daemon is stopping, and its tasks with it.
        report.unwrap_or(EndReport {
            cause: EndCause::Stopped,
            details: Vec::new(),
            read_bytes: None,
        })
    }

    async fn start_stages(&self) -> StartStages {
        self.stages
    }

    fn memory_bytes(&self) -> Option<u64> {
        machines::memory_bytes(self.process_id)
    }

    async fn stop(&self, reason: StopReason) -> EndReport {
        // The first reason counts; and it may have ended.
        let _ = self.stop.try_send(reason);
        self.ended().await
    }
}
