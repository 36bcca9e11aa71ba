//! The program's connections: what it asks for, and what it posts.

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use spore_abi::pages::exit_kind;
use spore_abi::ring::LogOrigin;
use spore_machine::shared;

use super::caller::{Caller, Calling};
use super::message::{Framing, Head, Malformed};
use super::{BUFFER_BYTES, CONTINUE};
use crate::network::pair::End;
use crate::text::text;

/// How much is kept of what a program says of its failure, in bytes.
const FAILURE_BYTES_MAX: usize = 4096;

const ERROR_TYPE_FIELD: &str = "lambda-runtime-function-error-type";

/// An answer to the program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reply {
    /// What it posted was taken.
    Accepted,
    /// It may go on.
    Restored,
    UnknownInvocation,
    UnknownAddress,
    Malformed,
}

impl Reply {
    pub(super) fn bytes(self) -> Vec<u8> {
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

pub(super) enum Asking {
    Idle,
    Waiting,
    Restoring,
    Receiving,
    Answering { caller: u64, framing: Framing },
    Discarding { framing: Framing, reply: Reply },
    Failing { framing: Framing, text: Vec<u8> },
}

/// A connection of the program's.
pub(super) struct Program {
    pub(super) number: u64,
    pub(super) end: End,
    /// What was taken from it and is not used yet.
    pub(super) input: Vec<u8>,
    pub(super) state: Asking,
    /// It is to be closed after the answer.
    pub(super) closes: bool,
    pub(super) is_over: bool,
}

impl Program {
    /// Goes one step on; whether there was one.
    pub(super) fn step(
        &mut self,
        callers: &mut [Caller],
        waiting: &mut VecDeque<u64>,
        is_restored: bool,
    ) -> bool {
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

    /// Sends bytes; if there is no memory for them, the connection is over.
    pub(super) fn send(&mut self, bytes: &[u8]) {
        if self.end.send_own(bytes).is_err() {
            // There is no memory for it.
            self.is_over = true;
        }
    }

    /// An exchange is over.
    pub(super) fn settle(&mut self) {
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
