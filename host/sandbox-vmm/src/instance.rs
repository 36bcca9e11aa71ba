//! The handle of a machine, and how a machine that was launched becomes one.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use spore_sandbox::{
    Awaited, ConnectError, EndCause, EndReport, IngressStream, Instance, InstanceSpec, LogSink, StartError,
    StartStages, StopReason,
};
use tokio::sync::{mpsc, oneshot, watch};

use crate::actor::{self, Actor, Belongings, Left, Started};
use crate::apart::Connected;
use crate::api::Api;
use crate::control::{self, Control, Sayings};
use crate::frames::Frame;
use crate::log::Log;
use crate::machines::{self, Launch, Process};
use crate::monitor::Monitor;
use crate::streams::Streams;

/// Frames that may wait for the guest.
const FRAMES_MAX: usize = 64;
/// How long QEMU may take to say how it is.
const STATUS_TIMEOUT: Duration = Duration::from_millis(200);

/// A machine whose channel is there, and so may be its guest.
pub(crate) struct Opened {
    monitor: Monitor,
    process: Process,
    channel: OwnedFd,
    /// QEMU's.
    control: Option<Control>,
    sayings: Sayings,
    /// Whether the guest does not say that it is there, but waits for what it is told.
    pub(crate) is_awaiting: bool,
    pub(crate) belongings: Belongings,
}

impl Opened {
    /// A machine of QEMU, and its control: from now on tasks read what it says.
    pub(crate) fn qemu(launch: Launch, belongings: Belongings) -> io::Result<(Self, Control)> {
        let sayings = Sayings::default();
        let control = Control::start(launch.control, sayings.clone())?;
        control::listen(launch.console, sayings.clone())?;
        let opened = Self {
            monitor: Monitor::Qemu,
            process: launch.process,
            channel: launch.channel,
            control: Some(control.clone()),
            sayings,
            is_awaiting: false,
            belongings,
        };
        Ok((opened, control))
    }

    /// A machine of another monitor, and what else can be asked of that.
    pub(crate) fn apart(monitor: Monitor, connected: Connected, belongings: Belongings) -> (Self, Api) {
        let opened = Self {
            monitor,
            process: connected.process,
            channel: connected.channel,
            control: None,
            sayings: connected.sayings,
            is_awaiting: false,
            belongings: Belongings {
                _folder: Some(connected.folder),
                ..belongings
            },
        };
        (opened, connected.api)
    }
}

/// A machine whose guest is on its way. Dropping it ends the machine.
pub(crate) struct Booting {
    instance: MicrovmInstance,
    ready: oneshot::Receiver<Started>,
    sayings: Sayings,
}

impl Booting {
    /// Takes a machine: from now on tasks read what its guest says, which is told `settings`. If the machine is to be saved, it goes where
    /// `leaves` says when it is ready.
    pub(crate) fn new(
        opened: Opened,
        spec: &InstanceSpec,
        settings: Vec<Frame>,
        log: Arc<dyn LogSink>,
        stages: StartStages,
        leaves: Option<oneshot::Sender<Left>>,
    ) -> io::Result<Self> {
        let (stop, stops) = mpsc::channel(1);
        let (started, ready) = oneshot::channel();
        let (told, ended) = watch::channel(None);
        let (frames, queue) = mpsc::channel(FRAMES_MAX);
        let streams = Arc::new(Streams::new(frames.clone()));
        let process_id = opened.process.id();
        let sayings = opened.sayings;
        let (from_guest, to_guest) = actor::channel(opened.channel)?;
        let mut actor = Actor {
            monitor: opened.monitor,
            process: opened.process,
            channel: from_guest,
            streams: Arc::clone(&streams),
            settings,
            frames: frames.downgrade(),
            log: Log::new(log, spec.instance.clone()),
            sayings: sayings.clone(),
            memory_bytes: spec.memory_bytes,
            stops,
            started: Some(started),
            ended: told,
            belongings: opened.belongings,
            leaves,
            is_leaving: false,
        };
        if opened.is_awaiting {
            actor.tell();
        }
        tokio::spawn(actor::write(to_guest, queue));
        tokio::spawn(actor.run());
        let instance = MicrovmInstance {
            id: spec.instance.clone(),
            process_id,
            streams,
            stop,
            ended,
            stages,
            control: opened.control,
        };
        Ok(Self {
            instance,
            ready,
            sayings,
        })
    }

    /// Waits until the program does what is awaited.
    pub(crate) async fn wait(
        self,
        timeout: Duration,
        awaited: Awaited,
    ) -> Result<MicrovmInstance, StartError> {
        let instance = self.instance;
        match tokio::time::timeout(timeout, self.ready).await {
            Ok(Ok(Ok(()))) => Ok(instance),
            Ok(Ok(Err(error))) => Err(error),
            Ok(Err(_)) => Err(StartError::EndedEarly(instance.ended().await)),
            Err(_) => {
                let status = async {
                    let control = instance.control.as_ref()?;
                    Some(control.execute("query-status", None).await)
                };
                let status = tokio::time::timeout(STATUS_TIMEOUT, status).await;
                let details = self.sayings.details();
                tracing::debug!(
                    instance = instance.id,
                    ?status,
                    ?details,
                    "a microVM is not ready"
                );
                instance.stop(StopReason::NotNeeded).await;
                Err(StartError::NotReady {
                    after: timeout,
                    awaited,
                })
            }
        }
    }
}

/// A microVM that runs. Its end begins when it is dropped.
pub(crate) struct MicrovmInstance {
    id: String,
    process_id: u32,
    streams: Arc<Streams>,
    stop: mpsc::Sender<StopReason>,
    ended: watch::Receiver<Option<EndReport>>,
    stages: StartStages,
    /// Kept, so that what QEMU says is read as long as there is a handle.
    control: Option<Control>,
}

#[async_trait]
impl Instance for MicrovmInstance {
    fn id(&self) -> &str {
        &self.id
    }

    async fn connect(&self) -> Result<Box<dyn IngressStream>, ConnectError> {
        let report = self.ended.borrow().clone();
        if let Some(report) = report {
            return Err(ConnectError::Ended(report));
        }
        let stream = self.streams.open();
        let too_many = || io::Error::other("too many streams are open to the instance");
        Ok(Box::new(stream.ok_or_else(|| ConnectError::Host(too_many()))?))
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
