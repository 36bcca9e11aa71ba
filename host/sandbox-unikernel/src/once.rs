//! Runs a program once as a unikernel, in the foreground.
//!
//! There is no task and no timer here: one loop waits for the monitor's two sockets, and, if wanted, for connections
//! to the program's port. Should this process end, the monitor sees the end of its control socket and ends too.

use std::fs::File;
use std::io;
use std::net::TcpListener;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::process::ExitStatus;
use std::sync::Arc;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::{Errno, retry_on_intr};
use rustix::net::{RecvFlags, SendFlags, recv};
use spore_monitor::process::{Process, own_user};
use spore_monitor::protocol::{End, Event, JailRequest, LogOrigin, PACKET_BYTES_MAX, Request, StartRequest};
use spore_sandbox::{EgressRule, StartError};

use crate::channel::send_now;
use crate::egress::foreground::Foreground;
use crate::launch;
use crate::words;

/// Why a run has no end that the monitor told of.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The monitor process could not be started.
    #[error(transparent)]
    Start(#[from] StartError),
    /// What the program wrote could not be passed on.
    #[error("the program's output cannot be written")]
    Output(#[source] io::Error),
    /// The monitor process ended without a report.
    #[error("{}", launch::describe_loss(*.0))]
    Lost(ExitStatus),
    /// The host refused something meanwhile.
    #[error("the host failed: {what}")]
    Host {
        /// What was tried.
        what: &'static str,
        /// Why the host refused.
        #[source]
        source: io::Error,
    },
}

fn failed(what: &'static str) -> impl Fn(Errno) -> RunError {
    move |error| RunError::Host {
        what,
        source: error.into(),
    }
}

/// Runs what `request` says with the root in `root` until it ends. `output` takes what the program and the platform
/// write, as it comes; `listener` takes connections that the program finds at its port; `egress` says where the program
/// may connect to.
///
/// # Errors
///
/// If the monitor cannot be started, is lost, or `output` fails, with which the program ends.
pub fn run_once(
    request: StartRequest,
    root: File,
    listener: Option<TcpListener>,
    egress: Vec<EgressRule>,
    output: &mut dyn FnMut(LogOrigin, &[u8]) -> io::Result<()>,
) -> Result<End, RunError> {
    let root = read_only(root).map_err(|source| RunError::Host {
        what: "opening the root for reading",
        source,
    })?;
    let name = request.arguments.first().cloned().unwrap_or_default();
    let title = format!("spore-monitor run {name}");
    let launch = launch::start(&title, None, false)?;
    let jail = JailRequest {
        title,
        user: own_user(launch.process.id()),
        // This run goes on with what there is.
        required: Vec::new(),
    };
    let packet = launch::encode(request, jail)?;
    let control = Arc::new(launch.control);
    let outside = {
        let control = Arc::clone(&control);
        let answer = move |request: &Request, socket: Option<OwnedFd>| {
            // Fails only if the monitor is gone.
            let _ = send_request(&control, request, socket);
        };
        Foreground::start(egress, answer).map_err(|source| RunError::Host {
            what: "starting a thread",
            source,
        })?
    };
    let mut monitor = Monitor {
        process: launch.process,
        control,
        log: launch.log,
        outside,
    };
    let result = monitor.serve(&packet, root.as_fd(), listener.as_ref(), output);
    if !matches!(result, Ok(Some(_))) {
        // Fails only if it is gone already.
        let _ = monitor.process.kill();
    }
    let status = monitor.process.wait().map_err(|source| RunError::Host {
        what: "waiting for the monitor process",
        source,
    })?;
    result?.ok_or(RunError::Lost(status))
}

/// The same file with a descriptor that cannot write: no monitor gets another one.
fn read_only(file: File) -> io::Result<File> {
    use rustix::fs::{OFlags, fcntl_getfl};
    if fcntl_getfl(&file)? & OFlags::ACCMODE == OFlags::RDONLY {
        return Ok(file);
    }
    File::open(format!("/proc/self/fd/{}", file.as_raw_fd()))
}

struct Monitor {
    process: Process,
    control: Arc<OwnedFd>,
    log: OwnedFd,
    outside: Foreground,
}

impl Monitor {
    /// Passes everything on until the monitor has reported; nothing if it never will.
    fn serve(
        &mut self,
        packet: &[u8],
        root: BorrowedFd<'_>,
        listener: Option<&TcpListener>,
        output: &mut dyn FnMut(LogOrigin, &[u8]) -> io::Result<()>,
    ) -> Result<Option<End>, RunError> {
        self.send(packet, root).map_err(|error| match error {
            Errno::MSGSIZE => RunError::Start(launch::too_large(packet.len())),
            error => failed("sending the program")(error),
        })?;
        let mut buffer = vec![0; PACKET_BYTES_MAX];
        loop {
            let mut list = vec![
                PollFd::from_borrowed_fd(self.log.as_fd(), PollFlags::IN),
                PollFd::from_borrowed_fd(self.control.as_fd(), PollFlags::IN),
            ];
            let lines = self.outside.lines();
            list.push(PollFd::from_borrowed_fd(lines.as_fd(), PollFlags::IN));
            list.extend(listener.map(|listener| PollFd::from_borrowed_fd(listener.as_fd(), PollFlags::IN)));
            retry_on_intr(|| poll(&mut list, None)).map_err(failed("waiting"))?;
            let moved: Vec<bool> = list.iter().map(|entry| !entry.revents().is_empty()).collect();
            if moved[0] && !self.take_output(&mut buffer, output)? {
                // The control socket ends with it.
                return self.last_word(&mut buffer);
            }
            if moved[1] {
                match self.receive(&mut buffer) {
                    // Nobody has asked for a probe of the jail, a snapshot or a reset.
                    Some(
                        Event::Ready
                        | Event::Answered(_)
                        | Event::Read { .. }
                        | Event::Jail(_)
                        | Event::Captured(_)
                        | Event::Written(_)
                        | Event::NotCaptured(_)
                        | Event::Finished(_)
                        | Event::Reset,
                    ) => {}
                    Some(Event::Connect(connect)) => self.outside.serve(connect),
                    Some(Event::Ended(end)) => {
                        while self.take_output(&mut buffer, output)? {}
                        return Ok(Some(end));
                    }
                    None => return Ok(None),
                }
            }
            if moved[2] {
                let length = self.outside.read_lines(&mut buffer);
                for line in buffer[..length]
                    .split(|&byte| byte == b'\n')
                    .filter(|line| !line.is_empty())
                {
                    output(LogOrigin::Platform, line).map_err(RunError::Output)?;
                }
            }
            if let (Some(true), Some(listener)) = (moved.get(3), listener) {
                self.connect(listener)?;
            }
        }
    }

    /// The report of a monitor that has closed its log.
    fn last_word(&self, buffer: &mut [u8]) -> Result<Option<End>, RunError> {
        loop {
            match self.receive(buffer) {
                Some(
                    Event::Ready
                    | Event::Answered(_)
                    | Event::Read { .. }
                    | Event::Connect(_)
                    | Event::Jail(_)
                    | Event::Captured(_)
                    | Event::Written(_)
                    | Event::NotCaptured(_)
                    | Event::Finished(_)
                    | Event::Reset,
                ) => {}
                Some(Event::Ended(end)) => return Ok(Some(end)),
                None => return Ok(None),
            }
        }
    }

    /// Passes a packet of the log on; false at its end.
    fn take_output(
        &self,
        buffer: &mut [u8],
        output: &mut dyn FnMut(LogOrigin, &[u8]) -> io::Result<()>,
    ) -> Result<bool, RunError> {
        let length = match retry_on_intr(|| recv(&self.log, &mut *buffer, RecvFlags::empty())) {
            Ok((length, _)) => length,
            Err(Errno::CONNRESET) => 0,
            Err(error) => return Err(failed("reading the program's output")(error)),
        };
        let Some((&origin, text)) = buffer[..length].split_first() else {
            return Ok(false);
        };
        if let Some(origin) = LogOrigin::from_number(origin) {
            output(origin, text).map_err(RunError::Output)?;
        }
        Ok(true)
    }

    /// The next event; none at the end of the control socket.
    fn receive(&self, buffer: &mut [u8]) -> Option<Event> {
        loop {
            match recv(&self.control, &mut *buffer, RecvFlags::empty()) {
                Ok((0, _)) => return None,
                Ok((length, _)) => return words::event(&buffer[..length]),
                // The kernel says once that the monitor has left something unread; its report is still to come.
                Err(Errno::INTR | Errno::CONNRESET) => {}
                Err(_) => return None,
            }
        }
    }

    /// Hands a connection to the program.
    fn connect(&self, listener: &TcpListener) -> Result<(), RunError> {
        // A client that has gone meanwhile is no failure.
        let Ok((stream, _)) = listener.accept() else {
            return Ok(());
        };
        // Only packets would be sent later without.
        let _ = stream.set_nodelay(true);
        match send_request(&self.control, &Request::Open, Some(stream.into())) {
            // It has ended, as we shall read.
            Ok(()) | Err(Errno::PIPE | Errno::CONNRESET) => Ok(()),
            Err(error) => Err(failed("passing a connection on")(error)),
        }
    }

    fn send(&self, packet: &[u8], attachment: BorrowedFd<'_>) -> Result<(), Errno> {
        send_packet(&self.control, packet, Some(attachment))
    }
}

fn send_request(control: &OwnedFd, request: &Request, attachment: Option<OwnedFd>) -> Result<(), Errno> {
    let packet = postcard::to_stdvec(request).map_err(|_| Errno::INVAL)?;
    send_packet(control, &packet, attachment.as_ref().map(AsFd::as_fd))
}

fn send_packet(control: &OwnedFd, packet: &[u8], attachment: Option<BorrowedFd<'_>>) -> Result<(), Errno> {
    let attachments: Vec<_> = attachment.into_iter().collect();
    send_now(control, packet, &attachments, SendFlags::NOSIGNAL)
}
