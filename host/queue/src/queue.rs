//! The queue, wherever it is kept.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde::Serialize;
use spore_store::{RecordError, Store};

use crate::disk::{self, DiskQueue};
use crate::message::{Attempt, Message, State, now_ms};
use crate::nats::{self, NatsError, NatsOptions, NatsQueue};
use crate::schedule::{Full, Limits};

/// Why the queue of an earlier start could not be read.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The database failed.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// The thread that writes could not be made.
    #[error("no thread can be made")]
    Thread(#[source] std::io::Error),
}

/// Why an invocation was not accepted.
#[derive(Debug, thiserror::Error)]
pub enum AcceptError {
    /// There is no room for it.
    #[error(transparent)]
    Full(#[from] Full),
    /// It could not be written.
    #[error("the invocation could not be written to the queue")]
    Record(#[source] Arc<RecordError>),
    /// It is more than the NATS server takes.
    #[error(
        "the request is too long for the queue: with its headers it has {bytes} bytes, and the NATS server takes {limit_bytes} \
         (its setting max_payload)"
    )]
    TooLong {
        /// Bytes that it has.
        bytes: u64,
        /// Bytes that there may be.
        limit_bytes: u64,
    },
    /// The NATS server did not say that it has it.
    #[error("the queue's NATS server has not taken the invocation")]
    Nats(#[from] NatsError),
    /// The daemon stops.
    #[error("the queue is being closed")]
    Closed,
}

/// Why an invocation could not be changed or shown.
#[derive(Debug, thiserror::Error)]
pub enum ChangeError {
    /// There is none.
    #[error("no queued invocation has the call ID `{call_id}`: it was answered, or there never was one")]
    Unknown {
        /// Its call ID.
        call_id: String,
    },
    /// It is running.
    #[error("the invocation `{call_id}` is running: wait for its end")]
    Running {
        /// Its call ID.
        call_id: String,
    },
    /// The disk failed.
    #[error("the queue could not be read or written")]
    Record(#[source] Arc<RecordError>),
    /// The NATS server has not done it.
    #[error("the queue's NATS server has not done it")]
    Nats(#[from] NatsError),
    /// The daemon stops.
    #[error("the queue is being closed")]
    Closed,
}

pub(crate) fn unknown(call_id: &str) -> ChangeError {
    ChangeError::Unknown {
        call_id: call_id.chars().take(100).collect(),
    }
}

/// Which invocations are listed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ListQuery {
    /// `NAME.NAMESPACE`; none for those of all functions.
    pub function: Option<String>,
    /// Dead ones only, or the others only.
    pub is_dead: Option<bool>,
    /// How many at most.
    pub count: usize,
}

impl ListQuery {
    pub(crate) fn wants(&self, message: &Message) -> bool {
        let is_dead = message.state == State::Dead;
        self.function
            .as_ref()
            .is_none_or(|function| *function == message.function)
            && self.is_dead.is_none_or(|wanted| wanted == is_dead)
    }
}

/// An invocation as it is shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Entry {
    /// What is kept of it.
    #[serde(flatten)]
    pub message: Message,
    /// Whether it is running at this moment.
    pub is_running: bool,
}

/// Where it is kept.
enum Kept {
    Disk(DiskQueue),
    Nats(NatsQueue),
}

/// The queue. Dropping it closes it: what was not answered is there at the next start.
pub struct Queue(Kept);

impl Queue {
    /// Opens the queue of a store, with what an earlier start has left in it.
    pub fn open(store: Arc<Store>, limits: Limits) -> Result<Self, OpenError> {
        Ok(Self(Kept::Disk(DiskQueue::open(store, limits)?)))
    }

    /// Opens the queue of a NATS server, which other daemons may share. The server need not be there yet.
    pub async fn open_nats(options: NatsOptions, limits: Limits) -> Self {
        Self(Kept::Nats(NatsQueue::open(options, limits).await))
    }

    /// Accepts an invocation: when this returns, it is kept. Goes on if it is dropped before.
    pub async fn accept(&self, message: Message, body: Bytes) -> Result<(), AcceptError> {
        match &self.0 {
            Kept::Disk(queue) => queue.accept(message, body).await,
            Kept::Nats(queue) => queue.accept(message, body).await,
        }
    }

    /// The turn of the next invocation, when it is due and its function may run one more. One task at a time asks. What
    /// another daemon has accepted is taken only if `is_deployed` says that its function is known here.
    pub async fn next(&self, is_deployed: impl Fn(&str) -> bool) -> Turn {
        Turn(match &self.0 {
            Kept::Disk(queue) => Running::Disk(queue.next().await),
            Kept::Nats(queue) => Running::Nats(queue.next(is_deployed).await),
        })
    }

    /// Invocations, the oldest first.
    pub async fn list(&self, query: ListQuery) -> Result<Vec<Entry>, ChangeError> {
        match &self.0 {
            Kept::Disk(queue) => queue.list(query).await,
            Kept::Nats(queue) => queue.list(query).await,
        }
    }

    /// The invocations with a call ID, and their bodies; at least one.
    pub async fn find(&self, call_id: &str) -> Result<Vec<(Entry, Bytes)>, ChangeError> {
        match &self.0 {
            Kept::Disk(queue) => queue.find(call_id).await,
            Kept::Nats(queue) => queue.find(call_id).await,
        }
    }

    /// Tries an invocation again now, with all its attempts: a dead one, or one that waits.
    pub async fn retry(&self, call_id: &str) -> Result<(), ChangeError> {
        match &self.0 {
            Kept::Disk(queue) => queue.retry(call_id).await,
            Kept::Nats(queue) => queue.retry(call_id).await,
        }
    }

    /// Drops an invocation. One that is running comes to the end of its attempt, and is not tried again.
    pub async fn remove(&self, call_id: &str) -> Result<(), ChangeError> {
        match &self.0 {
            Kept::Disk(queue) => queue.remove(call_id).await,
            Kept::Nats(queue) => queue.remove(call_id).await,
        }
    }

    /// How many of a function there are: waiting, running, dead.
    #[must_use]
    pub fn counts(&self, function: &str) -> (usize, usize, usize) {
        match &self.0 {
            Kept::Disk(queue) => queue.counts(function),
            Kept::Nats(queue) => queue.counts(function),
        }
    }
}

enum Running {
    Disk(disk::Running),
    Nats(nats::Running),
}

/// The right to run an invocation that is not read yet. Dropping it lets the invocation wait again.
pub struct Turn(Running);

impl Turn {
    /// Begins to run it; none if it is gone, or another daemon was faster.
    pub async fn begin(self) -> Option<Delivery> {
        let (message, body, running) = match self.0 {
            Running::Disk(running) => {
                let (message, body, running) = running.begin().await?;
                (message, body, Running::Disk(running))
            }
            Running::Nats(running) => {
                let (message, body, running) = running.begin().await?;
                (message, body, Running::Nats(running))
            }
        };
        Some(Delivery {
            message,
            body,
            running,
        })
    }
}

/// An invocation that runs. Dropping it without saying how it ended lets it wait again, as if it had not begun.
pub struct Delivery {
    /// What is to be run.
    pub message: Message,
    /// Its body.
    pub body: Bytes,
    running: Running,
}

impl Delivery {
    /// It has run, and what is left does not concern its function: another one may run.
    pub fn release(&self) {
        match &self.running {
            Running::Disk(running) => running.release(),
            Running::Nats(running) => running.release(),
        }
    }

    /// It was answered. Returns when that is kept; until then it counts as running.
    pub async fn answered(self) {
        match self.running {
            Running::Disk(running) => running.answered().await,
            Running::Nats(running) => running.answered().await,
        }
    }

    /// This attempt failed; another one follows after the pause.
    pub async fn again(self, attempt: Attempt, after: Duration) {
        let after_ms = u64::try_from(after.as_millis()).unwrap_or(u64::MAX);
        let due_ms = now_ms().saturating_add(after_ms);
        self.update(attempt, State::Waiting { due_ms }).await;
    }

    /// This attempt failed, and none follows.
    pub async fn bury(self, attempt: Attempt) {
        self.update(attempt, State::Dead).await;
    }

    async fn update(self, attempt: Attempt, state: State) {
        let Self {
            mut message, running, ..
        } = self;
        message.attempts += 1;
        message.last = Some(attempt);
        message.state = state;
        match running {
            Running::Disk(running) => running.update(&message).await,
            Running::Nats(running) => running.update(&message).await,
        }
    }
}
