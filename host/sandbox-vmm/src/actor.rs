//! Owns a machine: takes the frames of its guest, and ends it.
//!
//! ```text
//!   booting ──READY──> running ──ENDED, broken rules, QEMU gone, stop, handle dropped──> ended (report)
//!      └──FAILED, BROKEN, ENDED, QEMU gone, stop──────────────────────────────────────────^
//! ```

use std::io;
use std::sync::Arc;
use std::time::Duration;

use spore_abi::microvm::{Ending, Kind};
use spore_sandbox::{EndCause, EndReport, StartError, StopReason};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{mpsc, oneshot, watch};

use crate::control::Sayings;
use crate::frames::{Decoder, Frame};
use crate::log::Log;
use crate::machines::{Process, describe};
use crate::monitor::Monitor;
use crate::settings;
use crate::snapshots::Snapshot;
use crate::streams::Streams;

const READ_BYTES: usize = 64 << 10;
/// How long a monitor may take to end whose channel has ended. One whose guest has restarted does not.
const LOST_TIMEOUT: Duration = Duration::from_millis(500);

/// What comes of a start.
pub(crate) type Started = Result<(), StartError>;

/// What an actor has.
pub(crate) struct Actor {
    /// What runs it, for people.
    pub(crate) monitor: Monitor,
    pub(crate) process: Process,
    pub(crate) channel: OwnedReadHalf,
    pub(crate) streams: Arc<Streams>,
    /// What the guest is told once it is there, and where to.
    pub(crate) settings: Vec<Frame>,
    pub(crate) frames: mpsc::WeakSender<Frame>,
    pub(crate) log: Log,
    pub(crate) sayings: Sayings,
    /// Limit of the function's memory, in bytes.
    pub(crate) memory_bytes: u64,
    /// Why it is to be stopped; ends when the handle is dropped.
    pub(crate) stops: mpsc::Receiver<StopReason>,
    pub(crate) started: Option<oneshot::Sender<Started>>,
    pub(crate) ended: watch::Sender<Option<EndReport>>,
    /// What goes with the machine.
    pub(crate) belongings: Belongings,
    /// Where the machine goes when it is ready and its guest has ended the connection, if it is to be saved.
    pub(crate) leaves: Option<oneshot::Sender<Left>>,
    /// The guest was told to end the connection.
    pub(crate) is_leaving: bool,
}

/// A machine that is to be saved.
#[derive(Debug)]
pub(crate) struct Left {
    _process: Process,
    _belongings: Belongings,
    /// The guest must not see its end: it is the same in all copies.
    _channel: OwnedReadHalf,
}

/// Files of a machine, which are removed when nobody needs them any more.
#[derive(Debug, Default)]
pub(crate) struct Belongings {
    /// The block device made of its root, or what describes it, which others may have too.
    pub(crate) _image: Option<Arc<tempfile::TempPath>>,
    /// What it is a copy of, as others may be.
    pub(crate) _snapshot: Option<Arc<Snapshot>>,
    /// Its sockets.
    pub(crate) _folder: Option<tempfile::TempDir>,
}

/// How it ended.
enum End {
    Cause(EndCause),
    /// The program could not be started; why.
    Failed(String),
    /// The monitor is gone, or the guest's end of the channel.
    Lost,
    /// The guest has ended the connection, as it was told, or says that it waits.
    Left,
}

impl Actor {
    /// Until the machine is gone.
    pub(crate) async fn run(mut self) {
        let end = self.serve().await;
        let Self {
            mut process,
            streams,
            mut log,
            sayings,
            started,
            ended,
            belongings,
            monitor,
            leaves,
            channel,
            ..
        } = self;
        if let (End::Left, Some(leaves)) = (&end, leaves) {
            log.finish();
            // Whoever does not want it any more drops it.
            let _ = leaves.send(Left {
                _process: process,
                _belongings: belongings,
                _channel: channel,
            });
            if let Some(started) = started {
                let _ = started.send(Ok(()));
            }
            return;
        }
        let is_lost = matches!(end, End::Lost);
        // It takes some milliseconds to end a process of that size, and to remove what it had.
        let status = tokio::task::spawn_blocking(move || {
            if is_lost {
                // It is about to end by itself, with a status that tells why.
                process.wait_briefly(LOST_TIMEOUT)?;
            }
            let status = process.end();
            drop(belongings);
            status
        });
        let status = status.await.unwrap_or_else(|error| Err(io::Error::other(error)));
        let mut details = Vec::new();
        let mut reason = None;
        let cause = match end {
            End::Cause(cause) => cause,
            End::Failed(text) => {
                reason = Some(text.clone());
                EndCause::SandboxFailed { summary: text }
            }
            End::Lost | End::Left => {
                details = sayings.details();
                let summary = status.map_or_else(
                    |error| error.to_string(),
                    |status| describe(&monitor.to_string(), status),
                );
                EndCause::SandboxFailed { summary }
            }
        };
        log.finish();
        if cause != EndCause::Stopped && reason.is_none() {
            log.platform(&cause.to_string());
        }
        for line in &details {
            log.platform(line);
        }
        let report = EndReport {
            cause,
            details,
            read_bytes: None,
        };
        streams.fail();
        if let Some(started) = started {
            let error = match reason {
                Some(reason) => StartError::BadProgram { reason },
                None => StartError::EndedEarly(report.clone()),
            };
            // Nobody waits any more if the start was given up.
            let _ = started.send(Err(error));
        }
        // Nobody may be interested any more.
        let _ = ended.send(Some(report));
    }

    async fn serve(&mut self) -> End {
        let mut decoder = Decoder::default();
        let mut bytes = vec![0; READ_BYTES];
        loop {
            let count = tokio::select! {
                reason = self.stops.recv() => return End::Cause(stopped(reason)),
                count = self.channel.read(&mut bytes) => count,
            };
            let Ok(count @ 1..) = count else {
                return if self.is_leaving { End::Left } else { End::Lost };
            };
            decoder.push(&bytes[..count]);
            loop {
                match decoder.next() {
                    Ok(Some(frame)) => {
                        if let Some(end) = self.take(frame) {
                            return end;
                        }
                    }
                    Ok(None) => break,
                    Err(_) => return misconduct(),
                }
            }
        }
    }

    /// Tells the guest what to run, once; whether it listens is its own affair.
    pub(crate) fn tell(&mut self) {
        let settings = std::mem::take(&mut self.settings);
        let Some(frames) = self.frames.upgrade().filter(|_| !settings.is_empty()) else {
            return;
        };
        tokio::spawn(async move {
            for frame in settings.into_iter().chain(settings::start()) {
                if frames.send(frame).await.is_err() {
                    return;
                }
            }
        });
    }

    /// Lets the guest end the connection, once.
    fn leave(&mut self) {
        let Some(frames) = self.frames.upgrade().filter(|_| !self.is_leaving) else {
            return;
        };
        self.is_leaving = true;
        tokio::spawn(async move {
            // If nobody takes it the machine is gone.
            let _ = frames.send(Frame::new(Kind::Leave, 0, [])).await;
        });
    }

    /// Takes a frame; what ends the machine, if it does.
    fn take(&mut self, frame: Frame) -> Option<End> {
        match frame.kind {
            // A port that is no connection is not ended. What else it has to say is said in the copies.
            Kind::Here if self.is_leaving && self.monitor == Monitor::Qemu => return Some(End::Left),
            Kind::Here => self.tell(),
            Kind::Output => self.log.push_output(&frame.content),
            Kind::Errors => self.log.push_errors(&frame.content),
            Kind::Ready if self.leaves.is_some() => self.leave(),
            Kind::Ready => {
                if let Some(started) = self.started.take() {
                    // Nobody waits any more if the start was given up.
                    let _ = started.send(Ok(()));
                }
            }
            Kind::Ended => return Some(ended(&frame.content, self.memory_bytes)),
            Kind::Failed => return Some(End::Failed(text(&frame.content))),
            Kind::Broken => {
                let summary = format!("the guest could not be set up: {}", text(&frame.content));
                return Some(End::Cause(EndCause::SandboxFailed { summary }));
            }
            Kind::Data | Kind::Close | Kind::Credit | Kind::Reset | Kind::Over => {
                return self.streams.take(frame).err().map(|_| misconduct());
            }
            _ => return Some(misconduct()),
        }
        None
    }
}

fn misconduct() -> End {
    let summary = "the guest does not keep to the rules of its channel".to_owned();
    End::Cause(EndCause::SandboxFailed { summary })
}

pub(crate) fn stopped(reason: Option<StopReason>) -> EndCause {
    match reason {
        Some(StopReason::TimedOut { after }) => EndCause::TimedOut { after },
        Some(StopReason::NotNeeded | StopReason::CallerGone) | None => EndCause::Stopped,
    }
}

/// What a guest says of its program's end.
fn ended(content: &[u8], limit_bytes: u64) -> End {
    let (Some(&ending), Some(&number), 2) = (content.first(), content.get(1), content.len()) else {
        return misconduct();
    };
    End::Cause(if ending == Ending::Exited as u8 {
        EndCause::Exited { code: number }
    } else if ending == Ending::Signalled as u8 {
        let summary = format!("{} ended it", signal_name(number));
        EndCause::Crashed { summary }
    } else if ending == Ending::OutOfMemory as u8 {
        EndCause::OutOfMemory { limit_bytes }
    } else {
        return misconduct();
    })
}

/// The name of a signal that ends programs, as far as it tells something.
fn signal_name(number: u8) -> String {
    let name = match number {
        4 => "SIGILL",
        6 => "SIGABRT",
        7 => "SIGBUS",
        8 => "SIGFPE",
        9 => "SIGKILL",
        11 => "SIGSEGV",
        13 => "SIGPIPE",
        15 => "SIGTERM",
        _ => return format!("signal {number}"),
    };
    name.to_owned()
}

/// A line of a guest, for people.
fn text(content: &[u8]) -> String {
    const CHARS_MAX: usize = 400;
    let text = String::from_utf8_lossy(content);
    text.chars().filter(|c| !c.is_control()).take(CHARS_MAX).collect()
}

/// Writes frames to the guest until there are no more, or the guest is gone.
pub(crate) async fn write(mut channel: OwnedWriteHalf, mut frames: mpsc::Receiver<Frame>) {
    while let Some(frame) = frames.recv().await {
        if channel.write_all(&frame.to_bytes()).await.is_err() {
            return;
        }
    }
}

/// The channel's socket for tasks.
pub(crate) fn channel(socket: std::os::fd::OwnedFd) -> io::Result<(OwnedReadHalf, OwnedWriteHalf)> {
    let socket = std::os::unix::net::UnixStream::from(socket);
    socket.set_nonblocking(true)?;
    Ok(UnixStream::from_std(socket)?.into_split())
}
