//! The host's streams: an invocation on each at a time.

use alloc::collections::VecDeque;
use alloc::rc::Rc;
use alloc::vec::Vec;

use super::message::{Framing, Head, Malformed};
use super::program::{Asking, Program, Reply};
use super::{BUFFER_BYTES, CONTINUE};
use crate::network::stream::Stream;
use crate::text::text;
use crate::time::realtime_ns;

/// Bytes of an event that wait for the program, at most.
const UNREAD_BYTES_MAX: u64 = 256 << 10;
/// How long an invocation may take that does not say so, in milliseconds.
const DEFAULT_LIMIT_MS: u64 = 900_000;
const NS_PER_MS: u64 = 1_000_000;

const ID_FIELD: &str = "lambda-runtime-aws-request-id";
const DEADLINE_FIELD: &str = "lambda-runtime-deadline-ms";
/// Fields that the program finds beside its event.
const EVENT_FIELDS: &[u8] = b"lambda-runtime-";
/// Fields that whoever has sent the event finds beside the answer.
const ANSWER_FIELDS: &[u8] = b"lambda-runtime-function-";

pub(super) enum Calling {
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
pub(super) struct Caller {
    pub(super) number: u64,
    pub(super) stream: Rc<Stream>,
    pub(super) input: Vec<u8>,
    pub(super) state: Calling,
    pub(super) is_over: bool,
}

impl Caller {
    /// Whether this invocation is on it.
    pub(super) fn is_of(&self, wanted: &[u8]) -> bool {
        match &self.state {
            Calling::Delivering { id, .. } | Calling::Awaiting { id } => id == wanted,
            Calling::Idle | Calling::Answering => false,
        }
    }

    /// Goes one step on; whether there was one.
    pub(super) fn step(&mut self, programs: &mut [Program], waiting: &mut VecDeque<u64>) -> bool {
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
    pub(super) fn begin_answer(&mut self, head: &Head<'_>, framing: Framing, is_error: bool) -> bool {
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
