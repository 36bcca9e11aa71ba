//! The queue on a NATS server, which other daemons may share.
//!
//! ```text
//!   accept ──call──────────────> stream ──headers only──> follower ──> Index: what is known, whose turn it is
//!   next   ──claim: a state that must be the next one──> stream ──granted──> call read, with its body ──> runs
//!   end    ──call deleted, or a new state──> stream          └──refused: another daemon has it
//! ```
//!
//! One stream has everything (see [`record`]); the server orders it, and grants a claim to one daemon only. Daemons
//! tell each other what is gone, and that they are there, by messages that are not kept: whoever misses one finds out at
//! the next claim, or reads the stream again.

mod follower;
mod index;
mod record;
mod stream;
mod unreadable;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use spore_nats::Connection;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use uuid::Uuid;

use crate::message::{Message, State, now_ms};
use crate::queue::{AcceptError, ChangeError, Entry, ListQuery, unknown};
use crate::schedule::Limits;
use index::{Claim, Index, Me, Now};
use record::{Call, Record};
use stream::{Stream, WriteError};

pub use stream::NatsError;

/// Longest wait for the next invocation that is due: the wall clock may be set.
const WAIT_MAX: Duration = Duration::from_secs(10);
/// Pause before what the server has not done is tried again.
const PAUSE: Duration = Duration::from_secs(1);
/// How long the start waits for what is in the stream.
const FIRST_READING: Duration = Duration::from_secs(5);
/// File with the name of this daemon, in its data folder.
const DAEMON_FILE: &str = "queue-daemon";

/// Which queue it is.
#[derive(Debug, Clone)]
pub struct NatsOptions {
    /// The server.
    pub connection: Connection,
    /// What stream and subjects begin with: daemons with the same one share the queue.
    pub name: String,
    /// Folder of this daemon, where its own name is kept: what it ran when it was killed, it runs at its next start.
    pub data: PathBuf,
}

struct Shared {
    index: Mutex<Index>,
    stream: Stream,
    me: Me,
    /// Something may run that could not before.
    wake: Notify,
    /// The stream is to be read again.
    resync: Notify,
}

fn lock(shared: &Shared) -> MutexGuard<'_, Index> {
    shared.index.lock().unwrap_or_else(PoisonError::into_inner)
}

fn now() -> Now {
    Now {
        instant: Instant::now(),
        ms: now_ms(),
    }
}

/// The queue. Dropping it leaves what is in the stream there.
pub(crate) struct NatsQueue {
    shared: Arc<Shared>,
    follower: JoinHandle<()>,
}

impl NatsQueue {
    pub(crate) async fn open(options: NatsOptions, limits: Limits) -> Self {
        let daemon = daemon_name(&options.data).unwrap_or_else(|error| {
            tracing::warn!(%error, "this daemon's name in the queue could not be kept: after a kill, what ran waits for half a minute");
            Uuid::new_v4().simple().to_string()
        });
        let start = Uuid::new_v4().simple().to_string();
        let me = Me { daemon, start };
        let shared = Arc::new(Shared {
            index: Mutex::new(Index::new(me.clone(), limits)),
            stream: Stream::new(options.connection, &options.name),
            me,
            wake: Notify::new(),
            resync: Notify::new(),
        });
        let (read, mut was_read) = watch::channel(false);
        let follower = tokio::spawn(follower::follow(shared.clone(), read));
        // Bounds and lists are whole then; without the server they never are.
        let _ = tokio::time::timeout(FIRST_READING, was_read.wait_for(|read| *read)).await;
        Self { shared, follower }
    }

    pub(crate) async fn accept(&self, message: Message, body: Bytes) -> Result<(), AcceptError> {
        let shared = self.shared.clone();
        let call = Call {
            by: shared.me.daemon.clone(),
            message,
        };
        let accepting = tokio::spawn(async move { accept(&shared, call, body).await });
        accepting.await.map_err(|_| AcceptError::Closed)?
    }

    pub(crate) async fn next(&self, is_deployed: impl Fn(&str) -> bool) -> Running {
        loop {
            let mut pause = PAUSE;
            if self.shared.stream.is_there() {
                let now = now();
                let mut index = lock(&self.shared);
                if let Some(claim) = index.next(now, &is_deployed) {
                    return Running {
                        shared: self.shared.clone(),
                        id: claim.id,
                        claim,
                        has_ended: false,
                    };
                }
                let until_due = index
                    .next_due_ms()
                    .map(|due_ms| Duration::from_millis(due_ms.saturating_sub(now.ms)));
                pause = until_due.map_or(WAIT_MAX, |until_due| until_due.min(WAIT_MAX));
            }
            let _ = tokio::time::timeout(pause, self.shared.wake.notified()).await;
        }
    }

    pub(crate) async fn list(&self, query: ListQuery) -> Result<Vec<Entry>, ChangeError> {
        let mut found = Vec::new();
        let mut reading = self.shared.stream.read_calls().await?;
        while found.len() < query.count {
            let Some((key, mut message)) = reading.next().await? else {
                break;
            };
            let index = lock(&self.shared);
            let Some((claim, is_running)) = index.id(&key).and_then(|id| index.look(id)) else {
                continue;
            };
            drop(index);
            claim.record.apply(&mut message);
            if query.wants(&message) {
                found.push(Entry { message, is_running });
            }
        }
        reading.end().await;
        Ok(found)
    }

    pub(crate) async fn find(&self, call_id: &str) -> Result<Vec<(Entry, Bytes)>, ChangeError> {
        let mut found = Vec::new();
        for (claim, is_running) in self.look(call_id)? {
            let Some((mut message, body)) = self.shared.stream.get_call(&claim).await? else {
                continue;
            };
            claim.record.apply(&mut message);
            found.push((Entry { message, is_running }, body));
        }
        if found.is_empty() {
            return Err(unknown(call_id));
        }
        Ok(found)
    }

    pub(crate) async fn retry(&self, call_id: &str) -> Result<(), ChangeError> {
        let running = || ChangeError::Running {
            call_id: call_id.to_owned(),
        };
        for (claim, is_running) in self.look(call_id)? {
            if is_running {
                return Err(running());
            }
            let record = Record {
                by: self.shared.me.daemon.clone(),
                state: State::Waiting { due_ms: now_ms() },
                attempts: 0,
                last: claim.record.last.clone(),
                lease: None,
            };
            match self
                .shared
                .stream
                .put_state(&claim.key, claim.state_sequence, &record)
                .await
            {
                Ok(sequence) => {
                    let mut index = lock(&self.shared);
                    index.state(&claim.key, sequence, record, now());
                    self.shared.wake.notify_one();
                }
                // Somebody was faster.
                Err(WriteError::Contested) => return Err(running()),
                Err(WriteError::Nats(error)) => return Err(error.into()),
            }
        }
        Ok(())
    }

    pub(crate) async fn remove(&self, call_id: &str) -> Result<(), ChangeError> {
        for (claim, _) in self.look(call_id)? {
            self.shared.stream.remove(&claim).await?;
            lock(&self.shared).remove(claim.id);
            self.shared.wake.notify_one();
        }
        Ok(())
    }

    pub(crate) fn counts(&self, function: &str) -> (usize, usize, usize) {
        lock(&self.shared).counts(function)
    }

    fn look(&self, call_id: &str) -> Result<Vec<(Claim, bool)>, ChangeError> {
        let index = lock(&self.shared);
        let numbers = index.numbers(call_id);
        let found: Vec<_> = numbers.into_iter().filter_map(|id| index.look(id)).collect();
        if found.is_empty() {
            return Err(unknown(call_id));
        }
        Ok(found)
    }
}

impl Drop for NatsQueue {
    fn drop(&mut self) {
        self.follower.abort();
    }
}

async fn accept(shared: &Shared, call: Call, body: Bytes) -> Result<(), AcceptError> {
    let key = Uuid::new_v4().simple().to_string();
    if !shared.stream.is_there() {
        return Err(NatsError::Away.into());
    }
    let id = lock(shared).reserve(&key, &call)?;
    let written = shared.stream.put_call(&key, &call, body).await;
    let mut index = lock(shared);
    match written {
        Ok(sequence) => index.accepted(id, sequence, now()),
        // Nobody has said that it is there, but it was seen there.
        Err(_) if index.refused(id) => {}
        Err(error) => {
            if matches!(error, AcceptError::Nats(NatsError::NoStream)) {
                shared.resync.notify_one();
            }
            return Err(error);
        }
    }
    shared.wake.notify_one();
    Ok(())
}

/// The right to run an invocation; without another word it waits again.
pub(crate) struct Running {
    shared: Arc<Shared>,
    id: u64,
    claim: Claim,
    has_ended: bool,
}

impl Running {
    /// Claims the invocation, and reads it; none if another daemon was faster, it is gone, or waits again.
    pub(crate) async fn begin(mut self) -> Option<(Message, Bytes, Self)> {
        let record = Record {
            by: self.shared.me.daemon.clone(),
            lease: Some(self.shared.me.start.clone()),
            ..self.claim.record.clone()
        };
        let claimed = self.put_state(&record).await;
        match claimed {
            Ok(()) => {}
            Err(WriteError::Contested) => {
                self.lost().await;
                return None;
            }
            Err(WriteError::Nats(error)) => {
                self.wait(&error);
                return None;
            }
        }
        match self.shared.stream.get_call(&self.claim).await {
            Ok(Some((mut message, body))) => {
                record.apply(&mut message);
                Some((message, body, self))
            }
            // It was answered or dropped, which nobody has told.
            Ok(None) => {
                self.forget().await;
                None
            }
            Err(error) => {
                self.wait(&error);
                None
            }
        }
    }

    /// Writes a state, if no other was written since the last.
    async fn put_state(&mut self, record: &Record) -> Result<(), WriteError> {
        let Claim {
            key, state_sequence, ..
        } = &self.claim;
        let sequence = self.shared.stream.put_state(key, *state_sequence, record).await?;
        self.claim.state_sequence = sequence;
        lock(&self.shared).written(self.id, sequence, record.clone());
        Ok(())
    }

    fn wait(mut self, error: &NatsError) {
        tracing::warn!(
            error = error as &dyn std::error::Error,
            "an invocation in the queue could not be begun"
        );
        self.has_ended = true;
        lock(&self.shared).again(self.id, now_ms() + PAUSE.as_millis() as u64);
        self.shared.wake.notify_one();
    }

    /// There is nothing to run.
    async fn forget(mut self) {
        self.has_ended = true;
        lock(&self.shared).remove(self.id);
        // Best effort: a state that is left is removed at some daemon's next start.
        let _ = self.shared.stream.remove(&self.claim).await;
        self.shared.wake.notify_one();
    }

    /// Another daemon has it, if it is there at all.
    async fn lost(mut self) {
        if matches!(self.shared.stream.get_call(&self.claim).await, Ok(None)) {
            self.forget().await;
            return;
        }
        self.has_ended = true;
        lock(&self.shared).lost(self.id, self.claim.state_sequence, now());
        self.shared.wake.notify_one();
    }

    pub(crate) fn release(&self) {
        lock(&self.shared).release(self.id);
        self.shared.wake.notify_one();
    }

    /// It was answered. Returns when it is out of the stream.
    pub(crate) async fn answered(mut self) {
        while let Err(error) = self.shared.stream.remove(&self.claim).await {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "an answered invocation could not be removed from the queue"
            );
            tokio::time::sleep(PAUSE).await;
        }
        self.has_ended = true;
        lock(&self.shared).remove(self.id);
        self.shared.wake.notify_one();
    }

    /// It waits for its next attempt, or is dead, as the message says.
    pub(crate) async fn update(mut self, message: &Message) {
        let record = Record {
            by: self.shared.me.daemon.clone(),
            state: message.state,
            attempts: message.attempts,
            last: message.last.clone(),
            lease: None,
        };
        loop {
            match self.put_state(&record).await {
                Ok(()) => break,
                Err(WriteError::Contested) => return self.lost().await,
                Err(WriteError::Nats(error)) => {
                    tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        "the end of an attempt could not be written to the queue"
                    );
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
        self.has_ended = true;
        let excess: Vec<_> = {
            let mut index = lock(&self.shared);
            let excess = index.free(self.id, now());
            excess.into_iter().filter_map(|id| index.look(id)).collect()
        };
        self.shared.wake.notify_one();
        for (claim, _) in excess {
            // One that cannot be removed now is one too many at the next time too.
            if self.shared.stream.remove(&claim).await.is_ok() {
                lock(&self.shared).remove(claim.id);
            }
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.has_ended {
            lock(&self.shared).again(self.id, now_ms());
            self.shared.wake.notify_one();
        }
    }
}

/// The name of the daemon whose folder this is: random, and made once.
fn daemon_name(data: &Path) -> io::Result<String> {
    let path = data.join(DAEMON_FILE);
    match std::fs::read_to_string(&path) {
        Ok(name) if record::is_key(name.trim()) => return Ok(name.trim().to_owned()),
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let name = Uuid::new_v4().simple().to_string();
    let new = path.with_extension("new");
    std::fs::write(&new, format!("{name}\n"))?;
    std::fs::rename(new, path)?;
    Ok(name)
}
