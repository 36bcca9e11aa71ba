//! The task that owns a monitor process.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, SystemTime};

use spore_cgroups::Group;
use spore_monitor::protocol::{self, Cause, End, Event, LogOrigin, Request};
use spore_sandbox::{
    EgressRule, EndCause, EndReport, InstanceSpec, Lines, LogLine, LogSink, LogSource, StartError,
    StartStages, StopReason,
};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep_until, timeout};

use crate::channel::Channel;
use crate::egress::{Egress, Say};
use crate::launch::describe_loss;
use crate::snapshots::Resident;
use crate::stages;
use crate::supply::Taken;
use crate::words::event;

/// How long a monitor may take to report after it was asked to stop.
const STOP_TIMEOUT: Duration = Duration::from_secs(2);

/// Packets of the log that are read of an instance that was reset: more than the socket holds.
const LAST_PACKETS_MAX: usize = 1024;

/// What a start has come to.
pub(crate) enum Readiness {
    /// The program listens.
    Ready,
    /// It did, and the instance has ended: its memory is a snapshot.
    Captured(Box<protocol::Captured>),
    /// The program listens, but cannot be made a snapshot.
    NotCaptured,
}

/// What the holder of an instance asks of the task.
pub(crate) enum Command {
    /// End the instance.
    Stop(StopReason),
    /// Reset it, and say so. If it ends instead nothing is said.
    Reset(oneshot::Sender<()>),
}

/// Where the task tells what others wait for.
pub(crate) struct Tellers {
    pub(crate) stages: watch::Sender<StartStages>,
    /// How the command has ended that was started last.
    pub(crate) finished: watch::Sender<Option<EndReport>>,
    pub(crate) end: watch::Sender<Option<EndReport>>,
}

/// Owns the process, its sockets and the log.
pub(crate) struct Actor {
    instance: String,
    memory_bytes: u64,
    /// The snapshot of which it is a copy.
    resident: Option<Arc<Resident>>,
    monitor: Taken,
    control: Arc<Channel>,
    log_channel: Channel,
    log: Arc<dyn LogSink>,
    lines: [(LogSource, Lines); 3],
    rules: Vec<EgressRule>,
    egress: Egress,
    /// Streams that were opened.
    opened: Arc<AtomicU32>,
    /// How many of them the monitor knew, and how far the program had read the newest of those.
    read: Option<(u32, u64)>,
    /// It has given an answer.
    has_answered: bool,
}

impl Actor {
    pub(crate) fn new(
        spec: &InstanceSpec,
        resident: Option<Arc<Resident>>,
        monitor: Taken,
        control: Arc<Channel>,
        log_channel: Channel,
        log: Arc<dyn LogSink>,
        opened: Arc<AtomicU32>,
    ) -> Self {
        let sources = [LogSource::Stdout, LogSource::Stderr, LogSource::Platform];
        Self {
            instance: spec.instance.clone(),
            memory_bytes: spec.memory_bytes,
            resident,
            monitor,
            control,
            log_channel,
            rules: spec.egress.clone(),
            egress: Egress::new(spec.egress.clone(), say(&spec.instance, &log)),
            log,
            lines: sources.map(|source| (source, Lines::default())),
            opened,
            read: None,
            has_answered: false,
        }
    }

    /// Runs until the process is gone, then leaves the report.
    pub(crate) async fn run(
        mut self,
        mut commands: mpsc::Receiver<Command>,
        ready: oneshot::Sender<Result<Readiness, StartError>>,
        tellers: Tellers,
    ) {
        let mut ready = Some(ready);
        let mut captured = None;
        let mut stopping: Option<StopReason> = None;
        let mut resetting: Option<oneshot::Sender<()>> = None;
        let mut kill_at = pin!(sleep_until(Instant::now()));
        let end = loop {
            tokio::select! {
                received = self.control.receive(event) => {
                    match received.ok().flatten() {
                        Some(Event::Ready) => {
                            if let Some(ready) = ready.take() {
                                // Nobody waits any more if the start was given up.
                                let _ = ready.send(Ok(Readiness::Ready));
                            }
                        }
                        // Of the invocation that is over.
                        Some(Event::Connect(_)) if resetting.is_some() => {}
                        Some(Event::Answered(milestones)) => {
                            self.has_answered = true;
                            self.monitor.turn = None;
                            if let Some(resident) = &self.resident {
                                resident.filing().answered(resident);
                            }
                            tellers.stages.send_modify(|stages| *stages = stages::told(*stages, &milestones));
                        }
                        Some(Event::Written(stretches)) => {
                            if let Some(resident) = &self.resident {
                                resident.note_written(&stretches);
                            }
                        }
                        Some(Event::Captured(what)) => captured = Some(what),
                        Some(Event::NotCaptured(reason)) => {
                            let text = format!("no snapshot can be made, so each instance is booted: {reason}");
                            self.write(LogSource::Platform, text);
                            if let Some(ready) = ready.take() {
                                // As above.
                                let _ = ready.send(Ok(Readiness::NotCaptured));
                            }
                        }
                        Some(Event::Connect(connect)) => {
                            let control = Arc::clone(&self.control);
                            self.egress.serve(connect, |request, socket| async move {
                                // Fails only if the monitor is gone.
                                let _ = control.send(&request, socket).await;
                            });
                        }
                        Some(Event::Finished(end)) => {
                            let report = self.finish_command(end);
                            // Nobody may be interested any more.
                            let _ = tellers.finished.send(Some(report));
                        }
                        Some(Event::Reset) => if let Some(reset) = resetting.take() {
                            self.begin_again();
                            tellers.finished.send_modify(|finished| *finished = None);
                            // Nobody waits any more if the instance is being stopped.
                            let _ = reset.send(());
                        },
                        Some(Event::Read { streams, newest_bytes }) => self.read = Some((streams, newest_bytes)),
                        Some(Event::Ended(end)) => break Some(end),
                        // Nobody has asked for a probe of the jail.
                        Some(Event::Jail(_)) => {}
                        None => break None,
                    }
                }
                received = receive_log(&self.log_channel) => match received {
                    Ok(packet) if !packet.is_empty() => self.take_log(&packet),
                    // Its end comes with the process's.
                    _ => tokio::time::sleep(Duration::from_millis(1)).await,
                },
                command = commands.recv(), if stopping.is_none() => {
                    let reason = match command {
                        Some(Command::Reset(reset)) => {
                            // No answer to this invocation may reach the next one.
                            self.egress.end().await;
                            self.egress = Egress::new(self.rules.clone(), say(&self.instance, &self.log));
                            let sending = timeout(STOP_TIMEOUT, self.control.send(&Request::Reset, None));
                            if !matches!(sending.await, Ok(Ok(()))) {
                                break None;
                            }
                            resetting = Some(reset);
                            continue;
                        }
                        Some(Command::Stop(reason)) => reason,
                        // All handles are gone: the same as not needed.
                        None => StopReason::NotNeeded,
                    };
                    stopping = Some(reason);
                    kill_at.set(sleep_until(Instant::now() + STOP_TIMEOUT));
                    let request = Request::Stop(match reason {
                        StopReason::TimedOut { .. } => protocol::StopReason::TimedOut,
                        StopReason::NotNeeded | StopReason::CallerGone => protocol::StopReason::NotNeeded,
                    });
                    // A monitor that does not even read is stuck.
                    let sending = timeout(STOP_TIMEOUT, self.control.send(&request, None));
                    if !matches!(sending.await, Ok(Ok(()))) {
                        break None;
                    }
                }
                () = &mut kill_at, if stopping.is_some() => break None,
            }
        };
        let end = match end {
            Some(end) => Some(end),
            None => self.last_word().await,
        };
        let bad_program = end.as_ref().and_then(|end| match &end.cause {
            Cause::BadProgram(reason) => Some(reason.clone()),
            _ => None,
        });
        let end_report = self.finish(end, stopping).await;
        if let Some(ready) = ready {
            let started = match (captured, bad_program) {
                (Some(captured), _) => Ok(Readiness::Captured(captured)),
                (None, Some(reason)) => Err(StartError::BadProgram { reason }),
                (None, None) => Err(StartError::EndedEarly(end_report.clone())),
            };
            // Nobody waits any more if the start was given up.
            let _ = ready.send(started);
        }
        // Nobody may be interested any more.
        let _ = tellers.end.send(Some(end_report));
    }

    /// A command has ended, and the instance has not.
    fn finish_command(&mut self, end: End) -> EndReport {
        self.take_rest_of_log();
        // That it ran at all is its answer, as far as the snapshot goes.
        self.has_answered = true;
        if let Some(resident) = &self.resident {
            resident.filing().answered(resident);
        }
        let report = self.report(end, None);
        if report.cause != (EndCause::Exited { code: 0 }) {
            self.write(LogSource::Platform, report.cause.to_string());
        }
        for line in &report.details {
            self.write(LogSource::Platform, line.clone());
        }
        report
    }

    /// The instance was reset: what its last invocation has logged is told, and nothing else of that is known any more.
    fn begin_again(&mut self) {
        self.take_rest_of_log();
        self.opened.store(0, Ordering::Release);
        self.read = None;
    }

    fn take_rest_of_log(&mut self) {
        for _ in 0..LAST_PACKETS_MAX {
            match self.log_channel.try_receive(<[u8]>::to_vec) {
                Some(packet) if !packet.is_empty() => self.take_log(&packet),
                _ => break,
            }
        }
        self.flush_log();
    }

    /// Ends the process, which has not reported yet as far as we have read. Its report may be there all the same.
    async fn last_word(&mut self) -> Option<End> {
        // How it ended is asked again below.
        let _ = self.monitor.process.kill().await;
        let packet = |packet: &[u8]| (!packet.is_empty()).then(|| event(packet));
        while let Some(Some(event)) = self.control.try_receive(packet) {
            match event {
                Some(Event::Read {
                    streams,
                    newest_bytes,
                }) => self.read = Some((streams, newest_bytes)),
                Some(Event::Answered(_)) => self.has_answered = true,
                Some(Event::Ended(end)) => return Some(end),
                _ => {}
            }
        }
        None
    }

    /// The monitor has reported, or never will: see the process off, and the rest of the log.
    async fn finish(&mut self, end: Option<End>, stopping: Option<StopReason>) -> EndReport {
        let status = match &end {
            Some(_) => match timeout(STOP_TIMEOUT, self.monitor.process.wait()).await {
                Ok(status) => status,
                Err(_) => self.monitor.process.kill().await,
            },
            None => self.monitor.process.kill().await,
        };
        while let Some(packet @ [_, ..]) = self.log_channel.try_receive(<[u8]>::to_vec).as_deref() {
            self.take_log(packet);
        }
        self.flush_log();
        let report = match (end, stopping) {
            (Some(end), stopping) => self.report(end, stopping),
            (None, Some(reason)) => EndReport {
                cause: stopped(reason),
                details: Vec::new(),
                read_bytes: None,
            },
            (None, None) => EndReport {
                cause: self.loss(status.map_or_else(|error| error.to_string(), describe_loss)),
                details: Vec::new(),
                read_bytes: None,
            },
        };
        if let Some(resident) = &self.resident
            && !self.has_answered
            && report.cause != EndCause::Stopped
        {
            resident.filing().ended_without_answer(&report.cause);
        }
        if report.cause != EndCause::Stopped {
            self.write(LogSource::Platform, report.cause.to_string());
        }
        for line in &report.details {
            self.write(LogSource::Platform, line.clone());
        }
        report
    }

    /// Why an instance has ended of which a process was killed, or a monitor has ended without a report: its own cgroup
    /// had no memory left, or what `summary` says.
    fn loss(&self, summary: String) -> EndCause {
        if self.monitor.group.as_ref().is_some_and(Group::was_out_of_memory) {
            return EndCause::OutOfMemory {
                limit_bytes: self.memory_bytes,
            };
        }
        EndCause::SandboxFailed { summary }
    }

    fn report(&self, end: End, stopping: Option<StopReason>) -> EndReport {
        // A copy of a snapshot counts as ready before there is a guest. What a guest has read is told before how it ended.
        let never_ran = self.read.is_none() && matches!(end.cause, Cause::Failed(_));
        let cause = match end.cause {
            Cause::Stopped => stopped(stopping.unwrap_or(StopReason::NotNeeded)),
            Cause::Exited(code) => EndCause::Exited { code },
            Cause::Crashed { summary, .. } => EndCause::Crashed { summary },
            Cause::OutOfMemory => EndCause::OutOfMemory {
                limit_bytes: self.memory_bytes,
            },
            Cause::Killed(summary) => self.loss(summary),
            Cause::BadProgram(summary) | Cause::Failed(summary) => EndCause::SandboxFailed { summary },
        };
        EndReport {
            cause,
            details: end.details,
            read_bytes: if never_ran { Some(0) } else { self.read_bytes() },
        }
    }

    /// How many bytes the program had read of the newest stream; none of one that the monitor did not take any more.
    fn read_bytes(&self) -> Option<u64> {
        let (streams, newest_bytes) = self.read?;
        let is_newest = self.opened.load(Ordering::Acquire) <= streams;
        Some(if is_newest { newest_bytes } else { 0 })
    }

    fn take_log(&mut self, packet: &[u8]) {
        let Some((&origin, text)) = packet.split_first() else {
            return;
        };
        let index = match LogOrigin::from_number(origin) {
            Some(LogOrigin::Stdout) => 0,
            Some(LogOrigin::Stderr) => 1,
            Some(LogOrigin::Platform) => 2,
            None => return,
        };
        let (log, instance) = (&self.log, &self.instance);
        let (source, lines) = &mut self.lines[index];
        let source = *source;
        lines.push(text, &mut |text| log.write(line(instance, source, text)));
    }

    fn flush_log(&mut self) {
        for (source, lines) in &mut self.lines {
            let (log, instance) = (&self.log, &self.instance);
            lines.flush(&mut |text| log.write(line(instance, *source, text)));
        }
    }

    fn write(&self, source: LogSource, text: String) {
        self.log.write(line(&self.instance, source, text));
    }
}

/// Receives a packet of the log, after everything else that can run has run: the answer of an instance often comes at
/// the same moment, and a caller waits for that.
async fn receive_log(channel: &Channel) -> std::io::Result<Vec<u8>> {
    loop {
        channel.readable().await?;
        tokio::task::yield_now().await;
        // Where there is none after all, the next one is to wait for its turn too.
        if let Some(packet) = channel.receive_if_any(<[u8]>::to_vec)? {
            return Ok(packet);
        }
    }
}

/// Writes lines of the platform's to an instance's log.
pub(crate) fn say(instance: &str, log: &Arc<dyn LogSink>) -> Say {
    let (instance, log) = (instance.to_owned(), Arc::clone(log));
    Box::new(move |text| log.write(line(&instance, LogSource::Platform, text)))
}

fn line(instance: &str, source: LogSource, text: String) -> LogLine {
    LogLine {
        instance: instance.to_owned(),
        time: SystemTime::now(),
        source,
        text,
    }
}

fn stopped(reason: StopReason) -> EndCause {
    match reason {
        StopReason::TimedOut { after } => EndCause::TimedOut { after },
        StopReason::NotNeeded | StopReason::CallerGone => EndCause::Stopped,
    }
}

/// The report of an instance whose actor is gone.
pub(crate) fn lost_report() -> EndReport {
    let summary = "the daemon is going down".to_owned();
    EndReport {
        cause: EndCause::SandboxFailed { summary },
        details: Vec::new(),
        read_bytes: None,
    }
}
