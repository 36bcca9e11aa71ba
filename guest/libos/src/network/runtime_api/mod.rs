//! The Runtime API of AWS Lambda: a server of the library OS's own, for programs that ask for their invocations instead of
//! listening for them (decision 0014).
//!
//! It listens on the loopback address at [`RUNTIME_API_PORT`]. The far side is a stream of the host's, as for any other
//! function; each request on it is an invocation. What comes in as a request leaves as the answer to the program's
//! `next`, and what the program posts as a request leaves as the answer to the invocation. Bodies go through as they are,
//! in pieces: neither is ever here as a whole.
//!
//! ```text
//!   the program's connection:   Idle ──GET next──> Waiting ──event──> Receiving ──last byte──> Idle
//!                                ├──POST ID/response, ID/error──> Answering ──last byte, 202──> Idle
//!                                ├──POST init/error──> Failing ──> the instance ends
//!                                ├──GET restore/next──> Restoring ──it is no snapshot, or one no more──> Idle
//!                                └──anything else──> Discarding ──400, 404──> Idle
//!   the host's stream:          Idle ──request, and somebody waits──> Delivering ──> Awaiting ──> Answering ──> Idle
//! ```
//!
//! Nothing of an invocation is taken from the stream before the program waits for one: a program that ends before has
//! surely read nothing of it, and whoever sent it can try another instance.

mod message;

use alloc::collections::VecDeque;
use alloc::rc::Rc;
use alloc::vec::Vec;

use spore_abi::pages::exit_kind;
use spore_abi::ring::LogOrigin;
use spore_abi::runtime_api::RUNTIME_API_PORT;
use spore_machine::shared;

use super::address::{Address, Family};
use super::pair::End;
use super::ports::{Claim, Ports, Wish};
use super::stream::Stream;
use super::tcp::{BACKLOG_MAX, Listener};
use crate::task::ReadyQueue;
use crate::text::text;
use crate::time::realtime_ns;
use message::{Framing, HEAD_BYTES_MAX, Head, Malformed};

/// What is taken at once from either side, in bytes: more than the longest head.
const BUFFER_BYTES: usize = HEAD_BYTES_MAX + 4096;
/// Bytes of an event that wait for the program, at most.
const UNREAD_BYTES_MAX: u64 = 256 << 10;
/// Connections of the program, at most.
const CONNECTIONS_MAX: usize = 64;
/// How much is kept of what a program says of its failure, in bytes.
const FAILURE_BYTES_MAX: usize = 4096;
/// How long an invocation may take that does not say so, in milliseconds.
const DEFAULT_LIMIT_MS: u64 = 900_000;
const NS_PER_MS: u64 = 1_000_000;

const ID_FIELD: &str = "lambda-runtime-aws-request-id";
const DEADLINE_FIELD: &str = "lambda-runtime-deadline-ms";
const ERROR_TYPE_FIELD: &str = "lambda-runtime-function-error-type";
/// Fields that the program finds beside its event.
const EVENT_FIELDS: &[u8] = b"lambda-runtime-";
/// Fields that whoever has sent the event finds beside the answer.
const ANSWER_FIELDS: &[u8] = b"lambda-runtime-function-";
const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// An answer to the program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reply {
    /// What it posted was taken.
    Accepted,
    /// It may go on.
    Restored,
    UnknownInvocation,
    UnknownAddress,
    Malformed,
}

impl Reply {
    fn bytes(self) -> Vec<u8> {
        let (status, body) = match self {
            Self::Accepted => ("202 Accepted", r#"{"status":"OK"}"#),
            Self::Restored => ("200 OK", "{}"),
            Self::UnknownInvocation => (
                "400 Bad Request",
                r#"{"errorMessage":"no invocation of this ID is under way","errorType":"InvalidRequestID"}"#,
            ),
            Self::UnknownAddress => (
                "404 Not Found",
                r#"{"errorMessage":"this is not served here: see the guide to Lambda functions","errorType":"NotFound"}"#,
            ),
            Self::Malformed => (
                "400 Bad Request",
                r#"{"errorMessage":"the request is no HTTP/1.1 that is served here","errorType":"InvalidRequest"}"#,
            ),
        };
        let length = body.len();
        text!("HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}")
            .into_bytes()
    }
}

/// What a request of the program's asks for.
#[derive(Debug, PartialEq, Eq)]
enum Wanted<'a> {
    Next,
    Restore,
    Failed,
    Answer { id: &'a [u8], is_error: bool },
    Unknown,
}

fn wanted<'a>(head: &Head<'a>) -> Wanted<'a> {
    let Some(path) = head.path.strip_prefix(b"/2018-06-01/runtime/") else {
        return Wanted::Unknown;
    };
    match (head.method, path) {
        (b"GET", b"invocation/next") => Wanted::Next,
        (b"GET", b"restore/next") => Wanted::Restore,
        (b"POST", b"init/error" | b"restore/error") => Wanted::Failed,
        (b"POST", path) => {
            let rest = path.strip_prefix(b"invocation/").unwrap_or_default();
            let answer = |end: &[u8], is_error| {
                let id = rest.strip_suffix(end)?;
                (!id.is_empty()).then_some(Wanted::Answer { id, is_error })
            };
            answer(b"/response", false)
                .or_else(|| answer(b"/error", true))
                .unwrap_or(Wanted::Unknown)
        }
        _ => Wanted::Unknown,
    }
}

enum Asking {
    Idle,
    Waiting,
    Restoring,
    Receiving,
    Answering { caller: u64, framing: Framing },
    Discarding { framing: Framing, reply: Reply },
    Failing { framing: Framing, text: Vec<u8> },
}

/// A connection of the program's.
struct Program {
    number: u64,
    end: End,
    /// What was taken from it and is not used yet.
    input: Vec<u8>,
    state: Asking,
    /// It is to be closed after the answer.
    closes: bool,
    is_over: bool,
}

enum Calling {
    Idle,
    Delivering {
        id: Vec<u8>,
        program: u64,
        framing: Framing,
    },
    Awaiting {
        id: Vec<u8>,
    },
    Answering,
}

/// A stream of the host's.
struct Caller {
    number: u64,
    stream: Rc<Stream>,
    input: Vec<u8>,
    state: Calling,
    is_over: bool,
}

/// The server.
pub(super) struct RuntimeApi {
    listener: Rc<Listener>,
    _claim: Claim<Listener>,
    programs: Vec<Program>,
    callers: Vec<Caller>,
    /// Connections on which the program waits for an invocation, the first of them first.
    waiting: VecDeque<u64>,
    last_number: u64,
    /// Whether programs that wait for being a copy of a snapshot are to go on.
    is_restored: bool,
}

impl RuntimeApi {
    /// The server, before the program runs; none if its port is taken. `is_restored` says whether the instance is no
    /// snapshot to be.
    pub(super) fn new(
        ports: &Rc<Ports<Listener>>,
        ready: &Rc<ReadyQueue>,
        is_restored: bool,
    ) -> Option<Self> {
        let listener = Listener::of_library_os(ready, BACKLOG_MAX);
        let wish = Wish {
            host: Address::loopback(Family::V4, RUNTIME_API_PORT).canonical(),
            is_v6_only: false,
            reuses_address: false,
            reuses_port: false,
        };
        let claim = ports.claim(RUNTIME_API_PORT, wish, Rc::downgrade(&listener))?;
        claim.listen(wish, Rc::downgrade(&listener)).then_some(Self {
            listener,
            _claim: claim,
            programs: Vec::new(),
            callers: Vec::new(),
            waiting: VecDeque::new(),
            last_number: 0,
            is_restored,
        })
    }

    /// Takes a stream of the host's.
    pub(super) fn offer(&mut self, stream: Rc<Stream>) {
        self.is_restored = true;
        let number = self.new_number();
        self.callers.push(Caller {
            number,
            stream,
            input: Vec::new(),
            state: Calling::Idle,
            is_over: false,
        });
    }

    /// Whether the program waits for an invocation, or for being a copy of a snapshot.
    pub(super) fn is_waited_for(&self) -> bool {
        let is_restoring = |program: &Program| matches!(program.state, Asking::Restoring);
        !self.waiting.is_empty() || self.programs.iter().any(is_restoring)
    }

    /// Moves everything as far as it goes.
    pub(super) fn serve(&mut self) {
        while let Some(end) = self.listener.take() {
            let number = self.new_number();
            let program = Program {
                number,
                end,
                input: Vec::new(),
                state: Asking::Idle,
                closes: false,
                is_over: self.programs.len() >= CONNECTIONS_MAX,
            };
            self.programs.push(program);
        }
        while self.step() {}
        self.programs.retain(|program| {
            if program.is_over {
                // Nothing travels beside its bytes.
                program.end.close(false, &mut Vec::new());
            }
            !program.is_over
        });
        // A stream that is dropped is closed.
        self.callers.retain(|caller| !caller.is_over);
    }

    fn new_number(&mut self) -> u64 {
        self.last_number += 1;
        self.last_number
    }

    fn step(&mut self) -> bool {
        let mut has_moved = false;
        for program in &mut self.programs {
            has_moved |= program.step(&mut self.callers, &mut self.waiting, self.is_restored);
        }
        for caller in &mut self.callers {
            has_moved |= caller.step(&mut self.programs, &mut self.waiting);
        }
        has_moved
    }
}

impl Program {
    /// Goes one step on; whether there was one.
    fn step(&mut self, callers: &mut [Caller], waiting: &mut VecDeque<u64>, is_restored: bool) -> bool {
        if self.is_over {
            return false;
        }
        let stepped = match self.state {
            Asking::Idle => self.request(callers, waiting),
            Asking::Waiting | Asking::Receiving => Ok(false),
            Asking::Restoring if is_restored => {
                self.reply(Reply::Restored);
                Ok(true)
            }
            Asking::Restoring => Ok(false),
            Asking::Answering { caller, framing } => self.answer(callers, caller, framing),
            Asking::Discarding { framing, reply } => self.discard(framing, reply),
            Asking::Failing { framing, .. } => self.fail(framing),
        };
        let has_moved = stepped.unwrap_or_else(|Malformed| {
            self.reply(Reply::Malformed);
            self.is_over = true;
            true
        });
        if !has_moved && self.end.has_peer_ended() && self.end.waiting_bytes() == 0 {
            // Whatever it was doing, nobody goes on with it.
            self.is_over = true;
            waiting.retain(|&number| number != self.number);
            if let Asking::Answering { caller, .. } = self.state
                && let Some(caller) = callers.iter_mut().find(|known| known.number == caller)
            {
                caller.is_over = true;
            }
            return true;
        }
        has_moved
    }

    fn fill(&mut self) -> bool {
        let wanted = (self.end.waiting_bytes() as usize).min(BUFFER_BYTES.saturating_sub(self.input.len()));
        if wanted == 0 {
            return false;
        }
        let before = self.input.len();
        self.input.resize(before + wanted, 0);
        let count = self.end.receive_own(&mut self.input[before..]);
        self.input.truncate(before + count);
        count > 0
    }

    /// Answers, and is free for the next request.
    fn reply(&mut self, reply: Reply) {
        self.send(&reply.bytes());
        self.settle();
    }

    fn send(&mut self, bytes: &[u8]) {
        if self.end.send_own(bytes).is_err() {
            // There is no memory for it.
            self.is_over = true;
        }
    }

    /// An exchange is over.
    fn settle(&mut self) {
        self.state = Asking::Idle;
        self.is_over |= self.closes;
    }

    /// Reads the head of a request.
    fn request(&mut self, callers: &mut [Caller], waiting: &mut VecDeque<u64>) -> Result<bool, Malformed> {
        let is_filled = self.fill();
        if self.input.is_empty() {
            return Ok(false);
        }
        let Some(head) = Head::parse(&self.input)? else {
            return Ok(is_filled);
        };
        let framing = head.framing()?;
        let length = head.length;
        let closes = head.lists("connection", "close");
        let is_asking = head.lists("expect", "100-continue") && self.input.len() == length;
        let state = match wanted(&head) {
            Wanted::Next => Asking::Waiting,
            Wanted::Restore => Asking::Restoring,
            Wanted::Failed => Asking::Failing {
                framing,
                text: head
                    .value(ERROR_TYPE_FIELD)
                    .map_or(Vec::new(), |kind| [kind, b": "].concat()),
            },
            Wanted::Answer { id, is_error } => match callers.iter_mut().find(|caller| caller.is_of(id)) {
                Some(caller) if matches!(caller.state, Calling::Awaiting { .. }) => {
                    if !caller.begin_answer(&head, framing, is_error) {
                        return Ok(is_filled);
                    }
                    let caller = caller.number;
                    Asking::Answering { caller, framing }
                }
                // It has not read all of the event yet.
                Some(_) => return Ok(is_filled),
                None => Asking::Discarding {
                    framing,
                    reply: Reply::UnknownInvocation,
                },
            },
            Wanted::Unknown => Asking::Discarding {
                framing,
                reply: Reply::UnknownAddress,
            },
        };
        if matches!(state, Asking::Waiting) {
            waiting.push_back(self.number);
        }
        self.state = state;
        self.closes = closes;
        self.input.drain(..length);
        if is_asking && !framing.is_over() {
            self.send(CONTINUE);
        }
        Ok(true)
    }

    /// Passes on the body of an answer.
    fn answer(
        &mut self,
        callers: &mut [Caller],
        caller: u64,
        mut framing: Framing,
    ) -> Result<bool, Malformed> {
        let found = callers
            .iter_mut()
            .find(|known| known.number == caller && !known.is_over && !known.stream.is_reset());
        let Some(found) = found else {
            let reply = Reply::Accepted;
            self.state = Asking::Discarding { framing, reply };
            return Ok(true);
        };
        let is_filled = self.fill();
        let ready = self.input.len().min(found.stream.room() as usize);
        let taken = match framing.take(&self.input[..ready]) {
            Ok(taken) => taken,
            Err(malformed) => {
                found.is_over = true;
                return Err(malformed);
            }
        };
        found.stream.send_own(&self.input[..taken]);
        self.input.drain(..taken);
        if !framing.is_over() {
            self.state = Asking::Answering { caller, framing };
            return Ok(is_filled || taken > 0);
        }
        found.state = Calling::Idle;
        self.reply(Reply::Accepted);
        Ok(true)
    }

    /// Takes the body of a request that nobody wants.
    fn discard(&mut self, mut framing: Framing, reply: Reply) -> Result<bool, Malformed> {
        let is_filled = self.fill();
        let taken = framing.take(&self.input)?;
        self.input.drain(..taken);
        if !framing.is_over() {
            self.state = Asking::Discarding { framing, reply };
            return Ok(is_filled || taken > 0);
        }
        self.reply(reply);
        Ok(true)
    }

    /// Takes what the program says of why it cannot start, and ends the instance.
    fn fail(&mut self, mut framing: Framing) -> Result<bool, Malformed> {
        let is_filled = self.fill();
        let taken = framing.take(&self.input)?;
        let part: Vec<u8> = self.input.drain(..taken).collect();
        let Asking::Failing { framing: kept, text } = &mut self.state else {
            return Ok(false);
        };
        *kept = framing;
        let room = FAILURE_BYTES_MAX.saturating_sub(text.len());
        text.extend_from_slice(&part[..part.len().min(room)]);
        if !framing.is_over() {
            return Ok(is_filled || taken > 0);
        }
        shared::log(
            LogOrigin::Platform,
            &[b"the function could not start: ", &text[..], b"\n"].concat(),
        );
        let said = text!("the function could not start: {}", text.escape_ascii());
        shared::end(exit_kind::INITIALIZATION_FAILED, 0, &said)
    }
}

impl Caller {
    /// Whether this invocation is on it.
    fn is_of(&self, wanted: &[u8]) -> bool {
        match &self.state {
            Calling::Delivering { id, .. } | Calling::Awaiting { id } => id == wanted,
            Calling::Idle | Calling::Answering => false,
        }
    }

    /// Goes one step on; whether there was one.
    fn step(&mut self, programs: &mut [Program], waiting: &mut VecDeque<u64>) -> bool {
        if self.is_over {
            return false;
        }
        let stepped = match &self.state {
            Calling::Idle => self.invocation(programs, waiting),
            Calling::Delivering { .. } => self.deliver(programs),
            Calling::Awaiting { .. } | Calling::Answering => Ok(false),
        };
        let has_moved = stepped.unwrap_or_else(|Malformed| {
            self.stream.send_own(&Reply::Malformed.bytes());
            self.is_over = true;
            true
        });
        let is_idle = matches!(self.state, Calling::Idle) && self.input.is_empty();
        let is_gone = is_idle && self.stream.has_peer_ended() && self.stream.waiting_bytes() == 0;
        if !has_moved && (is_gone || self.stream.is_reset()) {
            self.is_over = true;
            return true;
        }
        has_moved
    }

    fn fill(&mut self) -> bool {
        let room = BUFFER_BYTES.saturating_sub(self.input.len());
        self.stream.receive_own(&mut self.input, room) > 0
    }

    /// Reads the head of an invocation, if somebody waits for one, and begins to pass it on.
    fn invocation(
        &mut self,
        programs: &mut [Program],
        waiting: &mut VecDeque<u64>,
    ) -> Result<bool, Malformed> {
        let Some(&number) = waiting.front() else {
            return Ok(false);
        };
        let Some(program) = programs.iter_mut().find(|program| program.number == number) else {
            waiting.pop_front();
            return Ok(true);
        };
        let is_filled = self.fill();
        if self.input.is_empty() {
            return Ok(false);
        }
        let Some(head) = Head::parse(&self.input)? else {
            return Ok(is_filled);
        };
        let framing = head.framing()?;
        let id = match head.value(ID_FIELD) {
            Some(id) if !id.is_empty() => id.to_vec(),
            _ => text!("00000000-0000-4000-8000-{:012x}", self.number).into_bytes(),
        };
        let mut answer = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n".to_vec();
        answer.extend(head.lines(|name| name.starts_with(EVENT_FIELDS) && name != ID_FIELD.as_bytes()));
        answer.extend([ID_FIELD.as_bytes(), b": ", &id, b"\r\n"].concat());
        if head.value(DEADLINE_FIELD).is_none() {
            let deadline_ms = realtime_ns() / NS_PER_MS + DEFAULT_LIMIT_MS;
            answer.extend(text!("{DEADLINE_FIELD}: {deadline_ms}\r\n").into_bytes());
        }
        answer.extend(framing.line());
        answer.extend(b"\r\n");
        let (length, is_asking) = (head.length, head.lists("expect", "100-continue"));
        self.input.drain(..length);
        if is_asking && self.input.is_empty() && !framing.is_over() {
            self.stream.send_own(CONTINUE);
        }
        waiting.pop_front();
        program.send(&answer);
        program.state = Asking::Receiving;
        self.state = Calling::Delivering {
            id,
            program: number,
            framing,
        };
        Ok(true)
    }

    /// Passes on the body of an invocation.
    fn deliver(&mut self, programs: &mut [Program]) -> Result<bool, Malformed> {
        let is_filled = self.fill();
        let Calling::Delivering { id, program, framing } = &mut self.state else {
            return Ok(false);
        };
        let found = programs
            .iter_mut()
            .find(|known| known.number == *program && !known.is_over);
        let Some(found) = found else {
            self.is_over = true;
            return Ok(true);
        };
        let room = UNREAD_BYTES_MAX.saturating_sub(found.end.unsent_bytes()) as usize;
        let taken = framing.take(&self.input[..self.input.len().min(room)])?;
        found.send(&self.input[..taken]);
        self.input.drain(..taken);
        if !framing.is_over() {
            return Ok(is_filled || taken > 0);
        }
        found.settle();
        let id = core::mem::take(id);
        self.state = Calling::Awaiting { id };
        Ok(true)
    }

    /// Sends the head of an answer; `false` if there is no room for it now.
    fn begin_answer(&mut self, head: &Head<'_>, framing: Framing, is_error: bool) -> bool {
        let mut answer = match is_error {
            false => b"HTTP/1.1 200 OK\r\n".to_vec(),
            true => b"HTTP/1.1 500 Internal Server Error\r\n".to_vec(),
        };
        answer.extend(
            head.lines(|name| {
                name.starts_with(ANSWER_FIELDS) || name == b"content-type" || name == b"trailer"
            }),
        );
        answer.extend(framing.line());
        answer.extend(b"\r\n");
        if (self.stream.room() as usize) < answer.len() {
            return false;
        }
        self.stream.send_own(&answer);
        self.state = Calling::Answering;
        true
    }
}
