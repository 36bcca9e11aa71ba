//! QEMU's control socket, and the console of its guest: what both said last, for the report of a machine that has failed.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, Interest};
use tokio::net::UnixStream;
use tokio::net::unix::pipe;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use spore_solo5::{CRASHED, FAILED};

use crate::qmp::{self, Message};

/// Lines of the console that are kept.
const CONSOLE_LINES: usize = 12;
/// Longest of them, in bytes.
const CONSOLE_LINE_BYTES: usize = 240;
const READ_BYTES: usize = 4096;

/// What was said last. A guest may write to its console whatever it likes, so it is only for people.
#[derive(Debug, Clone, Default)]
pub(crate) struct Sayings(Arc<Mutex<Said>>);

#[derive(Debug, Default)]
struct Said {
    console: VecDeque<String>,
    partial: Vec<u8>,
    /// The last event that tells of an end.
    event: Option<String>,
    failure: Option<String>,
}

impl Sayings {
    fn said(&self) -> MutexGuard<'_, Said> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes bytes of the console.
    pub(crate) fn hear(&self, bytes: &[u8]) {
        let mut said = self.said();
        for &byte in bytes {
            match byte {
                b'\n' => said.end_line(),
                // A line that is too long is cut.
                _ if said.partial.len() < CONSOLE_LINE_BYTES => said.partial.push(byte),
                _ => {}
            }
        }
    }

    /// The last event that tells of an end, with its reason: `SHUTDOWN guest-reset`.
    pub(crate) fn shutdown(&self) -> Option<String> {
        self.said().event.clone()
    }

    /// What is known of why a machine has ended.
    pub(crate) fn details(&self) -> Vec<String> {
        let mut said = self.said();
        said.end_line();
        // What the tender tells is said in other words already.
        let is_qemu = |event: &&String| ![CRASHED, FAILED].iter().any(|name| event.starts_with(name));
        let events = said.event.iter().filter(is_qemu);
        let events = events.map(|event| format!("QEMU: {event}"));
        let failures = said.failure.iter().map(|failure| format!("QEMU: {failure}"));
        let console = said.console.iter().map(|line| format!("console: {line}"));
        events.chain(failures).chain(console).collect()
    }
}

impl Said {
    fn end_line(&mut self) {
        let bytes = std::mem::take(&mut self.partial);
        let text = String::from_utf8_lossy(&bytes);
        // Colours and other controls are for terminals.
        let line: String = text.chars().filter(|c| !c.is_control()).collect();
        if line.trim().is_empty() {
            return;
        }
        if self.console.len() == CONSOLE_LINES {
            self.console.pop_front();
        }
        self.console.push_back(line);
    }
}

/// A command for QEMU, what goes with it, and where its answer goes.
type Order = (Vec<u8>, Option<OwnedFd>, oneshot::Sender<Result<Value, String>>);

/// QEMU's control.
#[derive(Debug, Clone)]
pub(crate) struct Control {
    orders: mpsc::Sender<Order>,
}

impl Control {
    /// Reads and writes the socket from now on, on a task that ends with the socket.
    pub(crate) fn start(socket: OwnedFd, sayings: Sayings) -> io::Result<Self> {
        Self::start_watched(socket, sayings).map(|(control, _)| control)
    }

    /// The same, with the task.
    pub(crate) fn start_watched(socket: OwnedFd, sayings: Sayings) -> io::Result<(Self, JoinHandle<()>)> {
        let socket = std::os::unix::net::UnixStream::from(socket);
        socket.set_nonblocking(true)?;
        let socket = UnixStream::from_std(socket)?;
        let (orders, queue) = mpsc::channel(4);
        let task = tokio::spawn(async move {
            if let Err(error) = carry(socket, queue, &sayings).await {
                sayings.said().failure = Some(error.to_string());
            }
        });
        Ok((Self { orders }, task))
    }

    /// Gives a command and waits for what it gives; why it was refused.
    pub(crate) async fn execute(&self, name: &str, arguments: Option<Value>) -> Result<Value, String> {
        self.order(qmp::command(name, arguments), None).await
    }

    /// The same, with a descriptor, which QEMU has from then on.
    pub(crate) async fn pass(&self, name: &str, arguments: Value, passed: OwnedFd) -> Result<Value, String> {
        self.order(qmp::command(name, Some(arguments)), Some(passed))
            .await
    }

    async fn order(&self, line: Vec<u8>, passed: Option<OwnedFd>) -> Result<Value, String> {
        let gone = || "QEMU is gone".to_owned();
        let (answer, answered) = oneshot::channel();
        self.orders
            .send((line, passed, answer))
            .await
            .map_err(|_| gone())?;
        answered.await.map_err(|_| gone())?
    }
}

async fn carry(
    mut socket: UnixStream,
    mut queue: mpsc::Receiver<Order>,
    sayings: &Sayings,
) -> io::Result<()> {
    let (mut from, mut to) = socket.split();
    let mut lines = qmp::Lines::default();
    let mut bytes = vec![0; READ_BYTES];
    let mut waiting = VecDeque::new();
    let mut has_greeted = false;
    loop {
        tokio::select! {
            count = from.read(&mut bytes) => {
                let count = count?;
                if count == 0 {
                    return Ok(());
                }
                let mut found = Vec::new();
                lines.push(&bytes[..count], &mut |line| found.push(Message::parse(line))).map_err(io::Error::other)?;
                for message in found {
                    match message.map_err(io::Error::other)? {
                        // Without this no other command is taken; what it gives is nobody's.
                        Message::Greeting { .. } => {
                            // Each would be waited for.
                            if std::mem::replace(&mut has_greeted, true) {
                                return Err(io::Error::other("QEMU has greeted twice"));
                            }
                            waiting.push_front(oneshot::channel().0);
                            to.write_all(&qmp::command("qmp_capabilities", None)).await?;
                        }
                        Message::Return(value) => answer(&mut waiting, Ok(value)),
                        Message::Error(text) => answer(&mut waiting, Err(text)),
                        Message::Event { name, data } => note(sayings, &name, &data),
                    }
                }
            }
            // Before it has greeted it refuses all but one.
            order = queue.recv(), if has_greeted => {
                let Some((line, passed, answer)) = order else { return Ok(()) };
                waiting.push_back(answer);
                let sent = match passed {
                    Some(passed) => pass(to.as_ref(), &line, passed.as_fd()).await?,
                    None => 0,
                };
                to.write_all(&line[sent..]).await?;
            }
        }
    }
}

/// Sends a descriptor, and the beginning of a line with it; how much of the line.
async fn pass(socket: &UnixStream, line: &[u8], passed: BorrowedFd<'_>) -> io::Result<usize> {
    let send = || {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut message = SendAncillaryBuffer::new(&mut space);
        let descriptors = [passed];
        let has_room = message.push(SendAncillaryMessage::ScmRights(&descriptors));
        debug_assert!(has_room, "there is room for one");
        let parts = [IoSlice::new(line)];
        Ok(sendmsg(socket, &parts, &mut message, SendFlags::NOSIGNAL)?)
    };
    socket.async_io(Interest::WRITABLE, send).await
}

/// Commands are answered in their order.
fn answer(waiting: &mut VecDeque<oneshot::Sender<Result<Value, String>>>, result: Result<Value, String>) {
    if let Some(answer) = waiting.pop_front() {
        // Nobody may wait any more.
        let _ = answer.send(result);
    }
}

/// Keeps events that tell of an end.
fn note(sayings: &Sayings, name: &str, data: &Value) {
    if matches!(
        name,
        "SHUTDOWN" | "RESET" | "GUEST_PANICKED" | "STOP" | CRASHED | FAILED
    ) {
        let reason = data.get("reason").and_then(Value::as_str).unwrap_or_default();
        let mut said = sayings.said();
        // Who panics switches the machine off next.
        if said
            .event
            .as_deref()
            .is_some_and(|event| event.starts_with("GUEST_PANICKED"))
        {
            return;
        }
        said.event = Some(
            format!("{name} {reason}")
                .chars()
                .take(CONSOLE_LINE_BYTES)
                .collect(),
        );
    }
}

/// Reads the console on a task, which ends with it: when the process has ended, which alone has its other end.
pub(crate) fn listen(console: io::PipeReader, sayings: Sayings) -> io::Result<JoinHandle<()>> {
    let mut console = pipe::Receiver::from_owned_fd(console.into())?;
    Ok(tokio::spawn(async move {
        let mut bytes = vec![0; READ_BYTES];
        // However it ends, there is no more to be heard.
        while let Ok(count @ 1..) = console.read(&mut bytes).await {
            sayings.hear(&bytes[..count]);
        }
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GREETING: &[u8] = b"{\"QMP\": {\"version\": {\"qemu\": {\"major\": 7}}}}\r\n";

    #[test]
    fn the_last_lines_of_a_console_are_kept_and_bounded() {
        let sayings = Sayings::default();
        for number in 0..100 {
            sayings.hear(format!("line {number}\r\n\n").as_bytes());
        }
        sayings.hear(&[b'x'; 10_000]);
        note(
            &sayings,
            "SHUTDOWN",
            &serde_json::json!({ "reason": "guest-reset" }),
        );
        let details = sayings.details();
        assert_eq!(details.len(), 1 + CONSOLE_LINES);
        assert_eq!(details[0], "QEMU: SHUTDOWN guest-reset");
        assert_eq!(details[CONSOLE_LINES - 1], "console: line 99");
        assert_eq!(
            details[CONSOLE_LINES].len(),
            "console: ".len() + CONSOLE_LINE_BYTES
        );
    }

    #[tokio::test]
    async fn a_second_greeting_ends_the_control() {
        let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        theirs.set_nonblocking(true).unwrap();
        let mut theirs = UnixStream::from_std(theirs).unwrap();
        let sayings = Sayings::default();
        let _control = Control::start(ours.into(), sayings.clone()).unwrap();
        theirs.write_all(&GREETING.repeat(2)).await.unwrap();
        // The one answer, and then the end.
        let mut bytes = Vec::new();
        theirs.read_to_end(&mut bytes).await.unwrap();
        assert_eq!(bytes, qmp::command("qmp_capabilities", None));
        while sayings.details().is_empty() {
            tokio::task::yield_now().await;
        }
        assert_eq!(sayings.details(), ["QEMU: QEMU has greeted twice"]);
    }

    #[tokio::test]
    async fn a_descriptor_goes_with_its_command() {
        use std::io::{Read as _, Write as _};

        let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        let control = Control::start(ours.into(), Sayings::default()).unwrap();
        let (mut from, to) = io::pipe().unwrap();
        let qemu = tokio::task::spawn_blocking(move || {
            (&theirs).write_all(GREETING).unwrap();
            let mut capabilities = [0; 31];
            (&theirs).read_exact(&mut capabilities).unwrap();
            assert_eq!(capabilities.as_slice(), qmp::command("qmp_capabilities", None));
            (&theirs).write_all(b"{\"return\": {}}\r\n").unwrap();
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
            let mut messages = rustix::net::RecvAncillaryBuffer::new(&mut space);
            let mut bytes = [0; 4096];
            let parts = &mut [io::IoSliceMut::new(&mut bytes)];
            let flags = rustix::net::RecvFlags::empty();
            let received = rustix::net::recvmsg(&theirs, parts, &mut messages, flags).unwrap();
            let passed = messages.drain().find_map(|message| match message {
                rustix::net::RecvAncillaryMessage::ScmRights(mut passed) => passed.next(),
                _ => None,
            });
            std::fs::File::from(passed.expect("a descriptor"))
                .write_all(b"state")
                .unwrap();
            (&theirs).write_all(b"{\"return\": {}}\r\n").unwrap();
            bytes[..received.bytes].to_vec()
        });
        let arguments = serde_json::json!({ "fdname": "state" });
        control.pass("getfd", arguments.clone(), to.into()).await.unwrap();
        assert_eq!(qemu.await.unwrap(), qmp::command("getfd", Some(arguments)));
        let mut text = String::new();
        from.read_to_string(&mut text).unwrap();
        assert_eq!(text, "state", "and nobody else has it");
    }

    #[tokio::test]
    async fn commands_are_answered_in_their_order() {
        let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        theirs.set_nonblocking(true).unwrap();
        let mut theirs = UnixStream::from_std(theirs).unwrap();
        let control = Control::start(ours.into(), Sayings::default()).unwrap();
        theirs.write_all(GREETING).await.unwrap();
        let qemu = async {
            let mut bytes = vec![0; 4096];
            let mut text = String::new();
            while text.matches('\n').count() < 3 {
                let count = theirs.read(&mut bytes).await.unwrap();
                text.push_str(std::str::from_utf8(&bytes[..count]).unwrap());
            }
            let answers = b"{\"return\": {}}\r\n{\"return\": {\"status\": \"running\"}}\r\n{\"error\": {\"desc\": \"no\"}}\r\n";
            theirs.write_all(answers).await.unwrap();
            text
        };
        let (text, status, refused) = tokio::join!(
            qemu,
            // Whenever they are given, they come after the greeting is answered.
            control.execute("query-status", None),
            async {
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                control.execute("nonsense", None).await
            }
        );
        assert!(text.starts_with("{\"execute\":\"qmp_capabilities\"}\n"), "{text}");
        assert_eq!(status.unwrap()["status"], "running");
        assert_eq!(refused.unwrap_err(), "no");
    }
}
