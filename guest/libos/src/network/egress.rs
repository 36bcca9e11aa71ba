//! Connections to the outside: the guest asks, the daemon decides and connects, the monitor gives a slot.
//!
//! ```text
//!   queued ──place is free──> asked ──answer──> open (a slot) or failed (an errno)
//! ```

use alloc::collections::VecDeque;
use alloc::rc::{Rc, Weak};
use core::cell::RefCell;

use spore_abi::pages::{EGRESS_PLACES, EGRESS_SLOT, EgressRequest};
use spore_machine::shared;

use super::bytes::ByteQueue;
use super::socket::Condition;
use super::stream::Stream;
use crate::errno::Errno;
use crate::task::ReadyQueue;

/// How a request has come out.
#[derive(Clone)]
pub(crate) enum Outcome {
    Waiting,
    Open(Rc<Stream>),
    Failed(Errno),
}

/// A request.
pub(crate) struct Asking {
    kind: u16,
    address: [u8; 16],
    port: u16,
    condition: Rc<Condition>,
    outcome: RefCell<Outcome>,
    /// What goes out as soon as the stream is there.
    pub(super) outbox: Option<RefCell<ByteQueue>>,
}

impl Asking {
    /// How it has come out.
    pub(crate) fn outcome(&self) -> Outcome {
        self.outcome.borrow().clone()
    }

    fn settle(&self, outcome: Outcome) {
        match &outcome {
            Outcome::Open(stream) => {
                if let Some(outbox) = &self.outbox {
                    stream.send_queued(&mut outbox.borrow_mut());
                }
            }
            Outcome::Failed(error) => self.condition.error.set(Some(*error)),
            Outcome::Waiting => {}
        }
        *self.outcome.borrow_mut() = outcome;
        self.condition.moved.wake();
    }
}

/// A place in the guest page.
#[derive(Default)]
struct Place {
    sequence: u32,
    /// It holds a request that is not answered.
    is_busy: bool,
    asking: Weak<Asking>,
}

/// All requests.
#[derive(Default)]
pub(crate) struct Egress {
    places: [Place; EGRESS_PLACES],
    queued: VecDeque<Weak<Asking>>,
}

impl Egress {
    /// Asks for a connection; `outbox` is what goes out first.
    pub(super) fn ask(
        &mut self,
        kind: u16,
        (address, port): ([u8; 16], u16),
        condition: &Rc<Condition>,
        outbox: Option<ByteQueue>,
    ) -> Rc<Asking> {
        let asking = Rc::new(Asking {
            kind,
            address,
            port,
            condition: Rc::clone(condition),
            outcome: RefCell::new(Outcome::Waiting),
            outbox: outbox.map(RefCell::new),
        });
        self.queued.retain(|queued| queued.strong_count() > 0);
        self.queued.push_back(Rc::downgrade(&asking));
        self.submit();
        asking
    }

    fn submit(&mut self) {
        for (number, place) in self.places.iter_mut().enumerate() {
            if place.is_busy {
                continue;
            }
            let Some(asking) =
                core::iter::from_fn(|| self.queued.pop_front()).find_map(|weak| weak.upgrade())
            else {
                return;
            };
            place.sequence = place.sequence.wrapping_add(1).max(1);
            place.is_busy = true;
            place.asking = Rc::downgrade(&asking);
            shared::request_egress(
                number,
                EgressRequest {
                    sequence: place.sequence,
                    kind: asking.kind,
                    port: asking.port,
                    address: asking.address,
                },
            );
        }
    }

    /// Takes answers; `adopt` is told of each new stream.
    pub(super) fn pump(&mut self, ready: &Rc<ReadyQueue>, mut adopt: impl FnMut(usize, &Rc<Stream>)) {
        let mut answered = shared::take_answered_egress();
        if answered == 0 {
            return;
        }
        while answered != 0 {
            let number = answered.trailing_zeros() as usize;
            answered &= answered - 1;
            let Some(place) = self.places.get_mut(number) else {
                continue;
            };
            let answer = shared::egress_answer(number);
            if !place.is_busy || answer.sequence != place.sequence {
                continue;
            }
            place.is_busy = false;
            let asking = core::mem::take(&mut place.asking).upgrade();
            match (answer.result.checked_sub(EGRESS_SLOT), asking) {
                (Some(slot), Some(asking)) => {
                    let condition = Rc::clone(&asking.condition);
                    match Stream::accept(slot as usize, condition) {
                        Some(stream) => {
                            adopt(slot as usize, &stream);
                            asking.settle(Outcome::Open(stream));
                        }
                        None => asking.settle(Outcome::Failed(Errno::EIO)),
                    }
                }
                // Nobody wants it any more: taken and dropped, it is closed.
                (Some(slot), None) => {
                    let _ = Stream::accept_unwanted(slot as usize, ready);
                }
                (None, Some(asking)) => asking.settle(Outcome::Failed(Errno(answer.result))),
                (None, None) => {}
            }
        }
        self.submit();
    }
}
