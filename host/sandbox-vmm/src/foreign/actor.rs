//! Owns a machine with a unikernel: takes what it writes, carries its frames, and ends it.
//!
//! ```text
//!   running ──process gone, cable broken, stop, handle dropped──> ending ──process gone, control and console at their ends──> ended
//! ```
//!
//! A unikernel that switches its machine off has exited; one that resets it has crashed.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use spore_sandbox::{EndCause, EndReport, StopReason};
use spore_solo5::{CRASHED, FAILED};
use tokio::io::AsyncReadExt as _;
use tokio::net::UnixStream;
use tokio::net::unix::pipe;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use super::network::Network;
use crate::actor::stopped;
use crate::control::Sayings;
use crate::log::Log;
use crate::machines::{Process, describe};

/// Who tells how a guest has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Teller {
    /// QEMU.
    Qemu {
        /// Whether the guest has a port by which it tells how it ended.
        has_exit_port: bool,
    },
    /// The tender of Solo5's unikernels.
    Tender,
}

impl Teller {
    const fn name(self) -> &'static str {
        match self {
            Self::Qemu { .. } => "QEMU",
            Self::Tender => "the tender",
        }
    }
}

const READ_BYTES: usize = 16 << 10;
/// How long a process may take to end by itself once its sockets are closed, and its last words to arrive.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// What an actor has.
pub(crate) struct Actor {
    pub(crate) process: Process,
    pub(crate) network: Network,
    pub(crate) cable: UnixStream,
    pub(crate) console: pipe::Receiver,
    pub(crate) log: Log,
    pub(crate) sayings: Sayings,
    /// Ends with what QEMU says.
    pub(crate) control: JoinHandle<()>,
    pub(crate) teller: Teller,
    /// Why it is to be stopped; ends when the handle is dropped.
    pub(crate) stops: mpsc::Receiver<StopReason>,
    pub(crate) ended: watch::Sender<Option<EndReport>>,
}

/// How it ended.
enum End {
    Cause(EndCause),
    /// QEMU is gone.
    Gone,
}

impl Actor {
    /// Until the machine is gone.
    pub(crate) async fn run(self) {
        let Self {
            mut process,
            network,
            cable,
            mut console,
            mut log,
            sayings,
            control,
            teller,
            mut stops,
            ended,
        } = self;
        let mut bytes = vec![0; READ_BYTES];
        let end = {
            let cable = network.drive(cable);
            tokio::pin!(cable);
            let mut hears = true;
            loop {
                tokio::select! {
                    reason = stops.recv() => break End::Cause(stopped(reason)),
                    carried = &mut cable => break match carried {
                        Ok(()) => End::Gone,
                        Err(error) => End::Cause(EndCause::SandboxFailed { summary: error.to_string() }),
                    },
                    count = console.read(&mut bytes), if hears => match count {
                        Ok(count @ 1..) => hear(&mut log, &sayings, &bytes[..count]),
                        _ => hears = false,
                    },
                }
            }
        };
        let is_gone = matches!(end, End::Gone);
        let status = tokio::task::spawn_blocking(move || {
            if is_gone {
                process.wait_briefly(LAST_WORDS)?;
            }
            process.end()
        });
        let status = status.await.unwrap_or_else(|error| Err(io::Error::other(error)));
        let last_words = async {
            while let Ok(count @ 1..) = console.read(&mut bytes).await {
                hear(&mut log, &sayings, &bytes[..count]);
            }
            // What it says of its end comes before that of its socket.
            let _ = control.await;
        };
        // Whatever is missing then is missing.
        let _ = tokio::time::timeout(LAST_WORDS, last_words).await;
        let cause = match end {
            End::Cause(cause) => cause,
            End::Gone => {
                let code = status.as_ref().ok().and_then(std::process::ExitStatus::code);
                let told = cause(teller, sayings.shutdown().as_deref(), code);
                told.unwrap_or_else(|| EndCause::SandboxFailed {
                    summary: status.map_or_else(
                        |error| error.to_string(),
                        |status| describe(teller.name(), status),
                    ),
                })
            }
        };
        log.finish();
        if cause != EndCause::Stopped {
            log.platform(&cause.to_string());
        }
        let details = match &cause {
            EndCause::SandboxFailed { .. } => sayings.details(),
            _ => Vec::new(),
        };
        for line in &details {
            log.platform(line);
        }
        // Nobody may be interested any more.
        let _ = ended.send(Some(EndReport {
            cause,
            details,
            read_bytes: None,
        }));
    }
}

fn hear(log: &mut Log, sayings: &Sayings, bytes: &[u8]) {
    sayings.hear(bytes);
    log.push_output(bytes);
}

/// How a guest ended, by the last event, or by the status of the process where the guest has a port for that; none if neither tells.
fn cause(teller: Teller, event: Option<&str>, code: Option<i32>) -> Option<EndCause> {
    let crashed = |summary: &str| {
        Some(EndCause::Crashed {
            summary: summary.to_owned(),
        })
    };
    if let Some((CRASHED, reason)) = event.and_then(|event| event.split_once(' ')) {
        return crashed(reason);
    }
    if let Some((FAILED, reason)) = event.and_then(|event| event.split_once(' ')) {
        return Some(EndCause::SandboxFailed {
            summary: reason.to_owned(),
        });
    }
    match event {
        Some("SHUTDOWN guest-shutdown") => {
            // The tender's status is its guest's.
            let code = code.filter(|_| teller == Teller::Tender);
            Some(EndCause::Exited {
                code: code.unwrap_or(0) as u8,
            })
        }
        Some("SHUTDOWN guest-reset") => crashed("the unikernel has reset its machine, as after a fault"),
        Some("SHUTDOWN guest-panic" | "GUEST_PANICKED ") => crashed("the unikernel has panicked"),
        Some(_) => None,
        // The value that is written is doubled, and 1 is added.
        None => code
            .filter(|code| teller == (Teller::Qemu { has_exit_port: true }) && code & 1 == 1)
            .map(|code| EndCause::Exited {
                code: (code >> 1) as u8,
            }),
    }
}

/// Why nothing can be heard of a machine; the sockets are those of a process that was just started.
pub(crate) fn console(pipe: io::PipeReader) -> io::Result<pipe::Receiver> {
    pipe::Receiver::from_owned_fd(pipe.into())
}

/// The cable's socket for tasks.
pub(crate) fn cable(socket: std::os::fd::OwnedFd) -> io::Result<UnixStream> {
    let socket = std::os::unix::net::UnixStream::from(socket);
    socket.set_nonblocking(true)?;
    UnixStream::from_std(socket)
}

/// The log of an instance.
pub(crate) fn log(sink: Arc<dyn spore_sandbox::LogSink>, instance: &str) -> Log {
    Log::new(sink, instance.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_are_told_apart() {
        let port = Teller::Qemu { has_exit_port: true };
        let text = |event, code| cause(port, event, code).map(|cause| cause.to_string());
        assert_eq!(
            text(Some("SHUTDOWN guest-shutdown"), None).unwrap(),
            "the function exited with status 0"
        );
        assert!(
            text(Some("SHUTDOWN guest-reset"), Some(0))
                .unwrap()
                .contains("crashed")
        );
        assert!(
            text(Some("SHUTDOWN guest-panic"), None)
                .unwrap()
                .contains("panicked")
        );
        assert_eq!(text(None, Some(7)).unwrap(), "the function exited with status 3");
        // QEMU's own end.
        assert_eq!(text(None, Some(0)), None);
        assert_eq!(text(None, None), None);
        assert_eq!(text(Some("SHUTDOWN host-signal"), Some(1)), None);
        let portless = Teller::Qemu { has_exit_port: false };
        assert_eq!(cause(portless, None, Some(7)), None);
        let tender = |event, code| cause(Teller::Tender, event, code).map(|cause| cause.to_string());
        assert_eq!(
            tender(Some("SHUTDOWN guest-shutdown"), Some(7)).unwrap(),
            "the function exited with status 7"
        );
        let crashed = tender(Some("UNIKERNEL_CRASHED it is gone"), Some(1)).unwrap();
        assert_eq!(crashed, "the function crashed: it is gone");
        let failed = tender(Some("TENDER_FAILED no KVM"), Some(1)).unwrap();
        assert_eq!(failed, "the sandbox failed: no KVM");
        assert_eq!(tender(None, Some(7)), None);
    }
}
