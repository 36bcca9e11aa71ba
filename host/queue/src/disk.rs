//! The queue on this machine's disk, and who writes to it.

use std::collections::{BTreeSet, HashMap};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use spore_store::{QueueChange, RecordError, Store};
use tokio::sync::{Notify, oneshot};

use crate::message::{Message, State, now_ms};
use crate::queue::{AcceptError, ChangeError, Entry, ListQuery, OpenError, unknown};
use crate::schedule::{Limits, Schedule};

/// Changes that go to disk together, at most.
const BATCH_MAX: usize = 512;
/// Bytes of them, about.
const BATCH_BYTES_MAX: usize = 16 << 20;
/// Heads that are read at a time.
const PAGE: usize = 1024;
/// Pause before what the disk refused is tried again.
const DISK_PAUSE: Duration = Duration::from_secs(1);
/// Longest wait for the next invocation that is due: the wall clock may be set.
const WAIT_MAX: Duration = Duration::from_secs(10);

/// What is done once a change is on disk.
#[derive(Debug)]
enum Then {
    /// It may run.
    Accepted {
        call_id: String,
        due_ms: u64,
    },
    /// It waits for its next attempt, or is dead.
    Updated(State),
    /// It is waiting, by hand.
    Hastened,
    Removed,
}

struct Command {
    id: u64,
    change: QueueChange,
    then: Then,
    done: oneshot::Sender<Result<(), Arc<RecordError>>>,
}

impl Command {
    fn bytes(&self) -> usize {
        match &self.change {
            QueueChange::Put { head, body, .. } => head.len() + body.as_ref().map_or(0, Bytes::len),
            QueueChange::Remove { .. } => 0,
        }
    }
}

struct Inner {
    schedule: Schedule,
    /// Call IDs and numbers; a caller may give several invocations the same one.
    by_call_id: BTreeSet<(Arc<str>, u64)>,
    /// Call IDs by number.
    call_ids: HashMap<u64, Arc<str>>,
    next_id: u64,
    /// None once the queue is closed.
    commands: Option<Sender<Command>>,
}

struct Shared {
    inner: Mutex<Inner>,
    store: Arc<Store>,
    /// Something may run that could not before.
    wake: Notify,
}

impl Inner {
    fn name(&mut self, id: u64, call_id: &str) {
        let call_id: Arc<str> = call_id.into();
        self.by_call_id.insert((call_id.clone(), id));
        self.call_ids.insert(id, call_id);
    }

    fn remove(&mut self, id: u64) {
        self.schedule.remove(id);
        if let Some(call_id) = self.call_ids.remove(&id) {
            self.by_call_id.remove(&(call_id, id));
        }
    }
}

fn lock(shared: &Shared) -> MutexGuard<'_, Inner> {
    shared.inner.lock().unwrap_or_else(PoisonError::into_inner)
}

fn head_of(message: &Message) -> Vec<u8> {
    // Strings and numbers: there is nothing that could not be encoded.
    serde_json::to_vec(message).unwrap_or_default()
}

/// The queue on disk. Dropping it closes it: what was not answered is there at the next start.
pub(crate) struct DiskQueue {
    shared: Arc<Shared>,
    writer: Option<JoinHandle<()>>,
}

impl DiskQueue {
    /// Opens the queue of a store, with what an earlier start has left in it.
    pub(crate) fn open(store: Arc<Store>, limits: Limits) -> Result<Self, OpenError> {
        let mut inner = Inner {
            schedule: Schedule::new(limits),
            by_call_id: BTreeSet::new(),
            call_ids: HashMap::new(),
            next_id: 0,
            commands: None,
        };
        loop {
            let page = store.queue.heads(inner.next_id, PAGE)?;
            let Some((last, _)) = page.last() else { break };
            inner.next_id = last + 1;
            for (id, head) in page {
                match serde_json::from_slice::<Message>(&head) {
                    Ok(message) => {
                        let due_ms = match message.state {
                            State::Waiting { due_ms } => Some(due_ms),
                            State::Dead => None,
                        };
                        let bytes = message.weight_bytes();
                        inner.schedule.load(id, &message.function, bytes, due_ms);
                        inner.name(id, &message.call_id);
                    }
                    Err(error) => tracing::error!(
                        id,
                        %error,
                        "an invocation in the queue is not what this version writes: it is left there"
                    ),
                }
            }
        }
        let (commands, receiver) = channel();
        inner.commands = Some(commands);
        let shared = Arc::new(Shared {
            inner: Mutex::new(inner),
            store,
            wake: Notify::new(),
        });
        let writer = {
            let shared = shared.clone();
            let named = std::thread::Builder::new().name("spore-queue".to_owned());
            named
                .spawn(move || write(&shared, &receiver))
                .map_err(OpenError::Thread)?
        };
        Ok(Self {
            shared,
            writer: Some(writer),
        })
    }

    /// Accepts an invocation: when this returns, it is on disk. Goes on if it is dropped before.
    pub(crate) async fn accept(&self, message: Message, body: Bytes) -> Result<(), AcceptError> {
        let done = {
            let mut inner = lock(&self.shared);
            let commands = inner.commands.clone().ok_or(AcceptError::Closed)?;
            let id = inner.next_id;
            inner
                .schedule
                .reserve(id, &message.function, message.weight_bytes())?;
            inner.next_id += 1;
            let (done, receiver) = oneshot::channel();
            let command = Command {
                id,
                change: QueueChange::Put {
                    id,
                    head: head_of(&message),
                    body: Some(body),
                },
                then: Then::Accepted {
                    call_id: message.call_id,
                    due_ms: message.accepted_ms,
                },
                done,
            };
            // In the order of their numbers, since the lock is held.
            commands.send(command).map_err(|_| AcceptError::Closed)?;
            receiver
        };
        done.await
            .map_err(|_| AcceptError::Closed)?
            .map_err(AcceptError::Record)
    }

    /// The next invocation, when it is due and its function may run one more.
    pub(crate) async fn next(&self) -> Running {
        loop {
            let now_ms = now_ms();
            let (id, due_ms) = {
                let mut inner = lock(&self.shared);
                (inner.schedule.next(now_ms), inner.schedule.next_due_ms())
            };
            if let Some(id) = id {
                return Running {
                    shared: self.shared.clone(),
                    id,
                    has_ended: false,
                };
            }
            let until_due = due_ms.map(|due_ms| Duration::from_millis(due_ms.saturating_sub(now_ms)));
            let pause = until_due.map_or(WAIT_MAX, |until_due| until_due.min(WAIT_MAX));
            let _ = tokio::time::timeout(pause, self.shared.wake.notified()).await;
        }
    }

    /// Invocations, the oldest first.
    pub(crate) async fn list(&self, query: ListQuery) -> Result<Vec<Entry>, ChangeError> {
        let shared = self.shared.clone();
        let list = move || {
            let (mut found, mut from) = (Vec::new(), 0);
            loop {
                let page = shared.store.queue.heads(from, PAGE)?;
                let Some((last, _)) = page.last() else { break };
                from = last + 1;
                for (id, head) in page {
                    let Ok(message) = serde_json::from_slice::<Message>(&head) else {
                        continue;
                    };
                    if query.wants(&message) {
                        let is_running = lock(&shared).schedule.is_running(id);
                        found.push(Entry { message, is_running });
                    }
                    if found.len() >= query.count {
                        return Ok(found);
                    }
                }
            }
            Ok(found)
        };
        blocking(list).await
    }

    /// The invocations with a call ID, and their bodies; at least one.
    pub(crate) async fn find(&self, call_id: &str) -> Result<Vec<(Entry, Bytes)>, ChangeError> {
        let ids = self.numbers(call_id)?;
        let shared = self.shared.clone();
        let find = move || {
            let mut found = Vec::new();
            for id in ids {
                let Some((head, body)) = shared.store.queue.get(id)? else {
                    continue;
                };
                if let Ok(message) = serde_json::from_slice(&head) {
                    let is_running = lock(&shared).schedule.is_running(id);
                    found.push((Entry { message, is_running }, body));
                }
            }
            Ok(found)
        };
        let found = blocking(find).await?;
        if found.is_empty() {
            return Err(unknown(call_id));
        }
        Ok(found)
    }

    /// Tries an invocation again now, with all its attempts: a dead one, or one that waits.
    pub(crate) async fn retry(&self, call_id: &str) -> Result<(), ChangeError> {
        for id in self.numbers(call_id)? {
            let shared = self.shared.clone();
            let read = blocking(move || shared.store.queue.get(id)).await?;
            let Some(mut message) = read.and_then(|(head, _)| serde_json::from_slice::<Message>(&head).ok())
            else {
                continue;
            };
            if lock(&self.shared).schedule.is_running(id) {
                return Err(ChangeError::Running {
                    call_id: call_id.to_owned(),
                });
            }
            message.attempts = 0;
            message.state = State::Waiting { due_ms: now_ms() };
            let change = QueueChange::Put {
                id,
                head: head_of(&message),
                body: None,
            };
            self.shared.change(id, change, Then::Hastened).await?;
        }
        Ok(())
    }

    /// Drops an invocation. One that is running comes to the end of its attempt, and is not tried again.
    pub(crate) async fn remove(&self, call_id: &str) -> Result<(), ChangeError> {
        for id in self.numbers(call_id)? {
            self.shared
                .change(id, QueueChange::Remove { id }, Then::Removed)
                .await?;
        }
        Ok(())
    }

    /// How many of a function there are: waiting, running, dead.
    #[must_use]
    pub(crate) fn counts(&self, function: &str) -> (usize, usize, usize) {
        lock(&self.shared).schedule.counts(function)
    }

    fn numbers(&self, call_id: &str) -> Result<Vec<u64>, ChangeError> {
        let inner = lock(&self.shared);
        let wanted: Arc<str> = call_id.into();
        let range = inner.by_call_id.range((wanted.clone(), 0)..=(wanted, u64::MAX));
        let numbers: Vec<u64> = range.map(|(_, id)| *id).collect();
        if numbers.is_empty() {
            return Err(unknown(call_id));
        }
        Ok(numbers)
    }
}

impl Drop for DiskQueue {
    fn drop(&mut self) {
        lock(&self.shared).commands = None;
        if let Some(writer) = self.writer.take() {
            // What it was given goes to disk first.
            let _ = writer.join();
        }
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, RecordError> + Send + 'static,
) -> Result<T, ChangeError> {
    let result = tokio::task::spawn_blocking(work)
        .await
        .map_err(|_| ChangeError::Closed)?;
    result.map_err(|error| ChangeError::Record(Arc::new(error)))
}

impl Shared {
    /// Has a change written.
    async fn change(&self, id: u64, change: QueueChange, then: Then) -> Result<(), ChangeError> {
        let (done, receiver) = oneshot::channel();
        let commands = lock(self).commands.clone().ok_or(ChangeError::Closed)?;
        let command = Command {
            id,
            change,
            then,
            done,
        };
        commands.send(command).map_err(|_| ChangeError::Closed)?;
        let written = receiver.await.map_err(|_| ChangeError::Closed)?;
        written.map_err(ChangeError::Record)
    }

    /// Has the numbers removed that are one too many; nobody waits for it.
    fn drop_excess(&self, inner: &Inner, excess: &[u64]) {
        for id in excess {
            let call_id = inner.call_ids.get(id).map_or("", |call_id| call_id);
            tracing::warn!(
                call_id,
                "the oldest dead invocation goes, since there are too many"
            );
            let command = Command {
                id: *id,
                change: QueueChange::Remove { id: *id },
                then: Then::Removed,
                done: oneshot::channel().0,
            };
            if let Some(commands) = &inner.commands {
                let _ = commands.send(command);
            }
        }
    }

    /// What follows once a change is on disk.
    fn carry_out(&self, inner: &mut Inner, id: u64, then: Then) {
        match then {
            Then::Accepted { call_id, due_ms } => {
                inner.name(id, &call_id);
                inner.schedule.accepted(id, due_ms);
            }
            Then::Updated(State::Waiting { due_ms }) => inner.schedule.again(id, due_ms),
            Then::Updated(State::Dead) => {
                let excess = inner.schedule.bury(id);
                self.drop_excess(inner, &excess);
            }
            Then::Hastened => drop(inner.schedule.hasten(id, now_ms())),
            Then::Removed => inner.remove(id),
        }
    }
}

/// Writes what comes, together what comes together, until nobody can send any more.
fn write(shared: &Shared, commands: &Receiver<Command>) {
    while let Ok(first) = commands.recv() {
        let mut bytes = first.bytes();
        let mut batch = vec![first];
        while batch.len() < BATCH_MAX && bytes < BATCH_BYTES_MAX {
            let Ok(command) = commands.try_recv() else { break };
            bytes += command.bytes();
            batch.push(command);
        }
        write_batch(shared, batch);
        shared.wake.notify_one();
    }
}

fn write_batch(shared: &Shared, batch: Vec<Command>) {
    let (changes, rest): (Vec<_>, Vec<_>) = batch
        .into_iter()
        .filter(|command| {
            // One that was dropped while it ran must not come back.
            let updates = matches!(command.then, Then::Updated(_) | Then::Hastened);
            !updates || lock(shared).schedule.knows(command.id)
        })
        .map(|command| (command.change, (command.id, command.then, command.done)))
        .unzip();
    let written = shared.store.queue.apply(&changes).map_err(Arc::new);
    if let Err(error) = &written {
        tracing::error!(
            error = &**error as &dyn std::error::Error,
            "the queue cannot be written"
        );
    }
    let mut inner = lock(shared);
    for (id, then, done) in rest {
        match (&written, then) {
            (Ok(()), then) => shared.carry_out(&mut inner, id, then),
            (Err(_), Then::Accepted { .. }) => inner.schedule.remove(id),
            // Whoever asked for it hears of it.
            (Err(_), _) => {}
        }
        // The one who asked may have gone.
        let _ = done.send(written.clone());
    }
}

/// The right to run an invocation; without another word it waits again.
pub(crate) struct Running {
    shared: Arc<Shared>,
    id: u64,
    has_ended: bool,
}

impl Running {
    /// Reads the invocation; none if it is gone, or cannot be read now and waits again.
    pub(crate) async fn begin(self) -> Option<(Message, Bytes, Self)> {
        let (shared, id) = (self.shared.clone(), self.id);
        let read = tokio::task::spawn_blocking(move || shared.store.queue.get(id)).await;
        match read {
            Ok(Ok(Some((head, body)))) => match serde_json::from_slice(&head) {
                Ok(message) => return Some((message, body, self)),
                Err(error) => tracing::error!(id, %error, "an invocation in the queue is damaged"),
            },
            // It was dropped at this moment.
            Ok(Ok(None)) => {}
            Ok(Err(error)) => {
                tracing::error!(
                    error = &error as &dyn std::error::Error,
                    "the queue cannot be read"
                );
                self.again(now_ms() + DISK_PAUSE.as_millis() as u64);
                return None;
            }
            Err(error) => tracing::error!(%error, "a task of the queue was lost"),
        }
        self.forget();
        None
    }

    fn again(mut self, due_ms: u64) {
        self.has_ended = true;
        lock(&self.shared).schedule.again(self.id, due_ms);
        self.shared.wake.notify_one();
    }

    /// There is nothing to run.
    fn forget(mut self) {
        self.has_ended = true;
        lock(&self.shared).remove(self.id);
    }

    /// Has its end written, until the disk takes it.
    async fn end(mut self, change: impl Fn() -> QueueChange, then: impl Fn() -> Then) {
        while let Err(ChangeError::Record(_)) = self.shared.change(self.id, change(), then()).await {
            tokio::time::sleep(DISK_PAUSE).await;
        }
        self.has_ended = true;
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.has_ended {
            lock(&self.shared).schedule.again(self.id, now_ms());
            self.shared.wake.notify_one();
        }
    }
}

impl Running {
    /// It has run, and what is left does not concern its function: another one may run.
    pub(crate) fn release(&self) {
        lock(&self.shared).schedule.release(self.id);
        self.shared.wake.notify_one();
    }

    /// It was answered. Returns when that is on disk.
    pub(crate) async fn answered(self) {
        let id = self.id;
        self.end(|| QueueChange::Remove { id }, || Then::Removed).await;
    }

    /// It waits for its next attempt, or is dead, with this head.
    pub(crate) async fn update(self, message: &Message) {
        let (id, head, state) = (self.id, head_of(message), message.state);
        let change = || QueueChange::Put {
            id,
            head: head.clone(),
            body: None,
        };
        self.end(change, || Then::Updated(state)).await;
    }
}
