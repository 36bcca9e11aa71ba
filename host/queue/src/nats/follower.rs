//! Follows the stream, and tells other daemons that this one is there.
//!
//! ```text
//!   away ──stream made──> reading what there is ──> following what comes ──interrupted, or now and then──> reading again
//!     ^                       │                        │
//!     └────────failed─────────┴────────────────────────┘
//! ```

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use async_nats::{Message as Received, Subscriber};
use futures_core::Stream as _;
use tokio::sync::watch;

use super::record::{self, About, Foreign};
use super::stream::{NatsError, RECOUNT_PAUSE};
use super::{PAUSE, Shared, lock, now};

/// How often daemons say that they are there: several times in the time after which they are missed.
const BEAT: Duration = Duration::from_secs(5);
/// How often the stream is read anew: what an operator has removed there is nobody told of.
const READING_PAUSE: Duration = Duration::from_secs(600);
/// Foreign messages of a reading that are told one by one.
const FOREIGN_TOLD: usize = 10;

/// Follows the stream until the task is ended. `read` becomes true with the first whole reading.
pub(super) async fn follow(shared: Arc<Shared>, read: watch::Sender<bool>) {
    let mut told = None;
    let mut progress = Progress::default();
    loop {
        match follow_once(&shared, &read, &mut progress).await {
            Ok(()) => told = None,
            Err(error) => {
                let line = crate::one_line(&error);
                // Once, as long as it stays the same.
                if told.as_ref() != Some(&line) {
                    tracing::warn!(
                        "the queue on the NATS server cannot be followed; it is tried again: {line}"
                    );
                    told = Some(line);
                }
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

/// How far the stream was read.
#[derive(Debug, Default)]
struct Progress {
    /// Number of the last message that was read; 0 before the first.
    sequence: u64,
    /// The reading was not ended by this daemon.
    is_interrupted: bool,
}

/// Follows it until it is to be read again.
async fn follow_once(
    shared: &Shared,
    read: &watch::Sender<bool>,
    progress: &mut Progress,
) -> Result<(), NatsError> {
    let mut interruptions = shared.stream.connection().interruptions();
    interruptions.mark_unchanged();
    shared.stream.make().await?;
    if progress.is_interrupted {
        // It may be what was to come next that has ended the connection.
        shared.stream.remove_unreadable(progress.sequence).await?;
    }
    *progress = Progress {
        sequence: 0,
        is_interrupted: true,
    };
    // Before the reading, so that nothing is missed between.
    let (mut gone, mut beats) = shared.stream.told().await?;
    shared.stream.beat(&shared.me.daemon).await;
    let mut reading = shared.stream.read(None).await?;
    {
        let mut index = lock(shared);
        index.listen_anew(now());
        index.begin_round();
    }
    let (mut is_whole, mut foreign) = (false, 0);
    let mut beat = tokio::time::interval(BEAT);
    let read_again = tokio::time::sleep(READING_PAUSE);
    tokio::pin!(read_again);
    loop {
        if !is_whole && reading.pending == 0 {
            is_whole = true;
            end_round(shared).await;
            read.send_replace(true);
        }
        tokio::select! {
            next = reading.next() => {
                let (received, sequence) = next?;
                progress.sequence = sequence;
                if let Err(error) = take(shared, &received, sequence) {
                    foreign += 1;
                    tell_foreign(foreign, &received, sequence, &error);
                }
            }
            Some(message) = next(&mut gone) => take_gone(shared, &message),
            Some(message) = next(&mut beats) => take_beat(shared, &message),
            _ = beat.tick() => {
                shared.stream.beat(&shared.me.daemon).await;
                // Who cannot hear does not judge silence.
                if shared.stream.is_there() && lock(shared).expire(now()) {
                    tracing::warn!("a daemon that shares the queue is silent: what it ran is run here");
                    shared.wake.notify_one();
                }
            }
            // What was deleted before it came is not told of.
            () = tokio::time::sleep(RECOUNT_PAUSE), if !is_whole => shared.stream.recount(&mut reading).await?,
            _ = interruptions.changed() => return Ok(()),
            () = shared.resync.notified() => break,
            () = &mut read_again => break,
        }
    }
    progress.is_interrupted = false;
    Ok(())
}

/// The next message that was told.
async fn next(subscriber: &mut Subscriber) -> Option<Received> {
    std::future::poll_fn(|context| Pin::new(&mut *subscriber).poll_next(context)).await
}

fn take(shared: &Shared, received: &Received, sequence: u64) -> Result<(), Foreign> {
    let headers = received.headers.as_ref();
    match shared.stream.subjects.about(&received.subject)? {
        About::Call(key) => {
            let call = record::read_call(headers, received.payload.len())?;
            lock(shared).call(key, sequence, &call, now());
        }
        About::State(key) => {
            let record = record::read_state(headers)?;
            lock(shared).state(key, sequence, record, now());
        }
    }
    shared.wake.notify_one();
    Ok(())
}

fn tell_foreign(count: usize, received: &Received, sequence: u64, error: &Foreign) {
    if count <= FOREIGN_TOLD {
        let subject: String = received.subject.chars().take(100).collect();
        tracing::warn!(
            subject,
            sequence,
            %error,
            "a message in the queue's stream is not one of the queue's: it is left there"
        );
    }
    if count == FOREIGN_TOLD {
        tracing::warn!("no more such messages are told of until the stream is read again");
    }
}

fn take_gone(shared: &Shared, message: &Received) {
    if let Some(key) = std::str::from_utf8(&message.payload)
        .ok()
        .filter(|key| record::is_key(key))
    {
        lock(shared).gone(key);
        shared.wake.notify_one();
    }
}

fn take_beat(shared: &Shared, message: &Received) {
    if let Some(daemon) = std::str::from_utf8(&message.payload)
        .ok()
        .filter(|name| record::is_key(name))
    {
        lock(shared).beat(daemon, now());
    }
}

async fn end_round(shared: &Shared) {
    let (gone, orphans) = lock(shared).end_round();
    if gone > 0 {
        tracing::info!(
            gone,
            "invocations were answered or removed while this daemon did not hear of it"
        );
    }
    for sequence in orphans {
        // What cannot be removed now is there at the next reading.
        if shared.stream.delete(sequence).await.is_err() {
            break;
        }
    }
}
