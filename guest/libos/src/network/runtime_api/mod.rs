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

mod caller;
mod message;
mod program;

use alloc::collections::VecDeque;
use alloc::rc::Rc;
use alloc::vec::Vec;

use spore_abi::runtime_api::RUNTIME_API_PORT;

use super::address::{Address, Family};
use super::ports::{Claim, Ports, Wish};
use super::stream::Stream;
use super::tcp::{BACKLOG_MAX, Listener};
use crate::task::ReadyQueue;
use caller::{Caller, Calling};
use message::HEAD_BYTES_MAX;
use program::{Asking, Program};

/// What is taken at once from either side, in bytes: more than the longest head.
const BUFFER_BYTES: usize = HEAD_BYTES_MAX + 4096;
/// Connections of the program, at most.
const CONNECTIONS_MAX: usize = 64;

const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

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
