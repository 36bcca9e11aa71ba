//! Calls functions for messages of a NATS server.
//!
//! ```text
//!   deployed, changed, removed ──> one task for each subject of each function
//!     subscribed, in a group with the daemons that share its name ──message──> call ──> queue
//! ```
//!
//! A message is in nobody's hands until the queue has it: one that comes while no daemon follows the subject, or while the
//! queue is full, is lost, as NATS has it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use spore_nats::{Connection, Message};
use spore_trigger::subject_matches;
use tokio::task::JoinHandle;

use super::{CONNECTOR, Call, Kind, TOPIC, call, failed};
use crate::errors::one_line;
use crate::functions::Function;
use crate::routes::Gateway;
use crate::trace::TRACE_PARENT;

/// How long a subject that cannot be followed is left alone.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// The server whose messages call functions.
pub(crate) struct Subjects {
    connection: Connection,
    /// Daemons with the same one get each message once.
    name: String,
}

/// Why a function was not called for a message.
#[derive(Debug, thiserror::Error)]
enum SubjectError {
    #[error(
        "a message on {subject} is longer than the {limit_bytes} bytes that the queue takes (--async-body-limit)"
    )]
    TooLong { subject: String, limit_bytes: usize },
}

impl Subjects {
    pub(crate) fn new(connection: Connection, name: String) -> Self {
        Self { connection, name }
    }

    /// Whether a function may be called for messages on this subject: not for those of the server itself, nor for the queue's,
    /// which such a call would bring about.
    fn is_for_functions(&self, subject: &str) -> bool {
        let queue = format!("{}.queue.>", self.name);
        !subject.starts_with(['$', '_']) && !subject_matches(&queue, subject)
    }
}

/// One task for a subject; aborted when it is dropped.
struct Following {
    function: Arc<Function>,
    task: JoinHandle<()>,
}

impl Drop for Following {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Follows the subjects of all functions until the daemon stops.
pub(crate) async fn follow_subjects(gateway: Arc<Gateway>) {
    if gateway.subjects.is_none() {
        return;
    }
    let mut stopping = gateway.stopping.clone();
    let mut changed = gateway.functions.changed();
    let mut following: BTreeMap<(String, String), Following> = BTreeMap::new();
    loop {
        changed.mark_unchanged();
        let mut wanted = BTreeMap::new();
        for function in gateway.functions.all() {
            for subject in &function.triggers().subjects {
                wanted.insert((function.id.key(), subject.clone()), function.clone());
            }
        }
        following.retain(|key, following| {
            let is_its_own = |function| Arc::ptr_eq(function, &following.function);
            wanted.get(key).is_some_and(is_its_own) && !following.task.is_finished()
        });
        for (key, function) in wanted {
            let subject = key.1.clone();
            following.entry(key).or_insert_with(|| {
                let gateway = gateway.clone();
                Following {
                    function: function.clone(),
                    task: tokio::spawn(async move { follow(&gateway, &function, subject).await }),
                }
            });
        }
        tokio::select! {
            _ = changed.changed() => {}
            _ = stopping.wait_for(|stopping| *stopping) => break,
        }
    }
    // Nothing of theirs is left when the daemon has stopped.
    for (_, mut following) in following {
        following.task.abort();
        let _ = (&mut following.task).await;
    }
}

/// Follows one subject.
async fn follow(gateway: &Gateway, function: &Function, asked_for: String) {
    let Some(subjects) = &gateway.subjects else { return };
    let kind = Kind::Subject(asked_for.clone());
    let group = format!("{}.{}", subjects.name, function.id.key());
    loop {
        match subjects.connection.follow(asked_for.clone(), group.clone()).await {
            Ok(mut messages) => {
                while let Some(message) = messages.next().await {
                    if !subjects.is_for_functions(&message.subject) {
                        continue;
                    }
                    match told(gateway, &message) {
                        // If not, it is told of, and nobody keeps the message.
                        Ok(told) => drop(call(gateway, function, &kind, told).await),
                        Err(error) => failed(gateway, function, &kind, one_line(&error)),
                    }
                }
            }
            Err(error) => failed(gateway, function, &kind, one_line(&error)),
        }
        tokio::time::sleep(RETRY_PAUSE).await;
    }
}

/// What a function is told of a message.
fn told(gateway: &Gateway, message: &Message) -> Result<Call, SubjectError> {
    let limit_bytes = gateway.functions.config.max_queued_body_bytes;
    if message.body.len() > limit_bytes {
        return Err(SubjectError::TooLong {
            subject: message.subject.chars().take(100).collect(),
            limit_bytes,
        });
    }
    let passed_on = [CONTENT_TYPE, TRACE_PARENT].map(|name| {
        let value = message.header(name.as_str())?;
        Some((name, HeaderValue::from_str(value).ok()?))
    });
    Ok(message_call(
        &message.subject,
        message.body.clone(),
        passed_on.into_iter().flatten(),
    ))
}

/// What a function is told of a message on this subject.
pub(super) fn message_call(
    subject: &str,
    body: Bytes,
    passed_on: impl IntoIterator<Item = (HeaderName, HeaderValue)>,
) -> Call {
    let mut headers = vec![(CONNECTOR, HeaderValue::from_static("nats-connector"))];
    headers.extend(
        HeaderValue::from_bytes(subject.as_bytes())
            .ok()
            .map(|value| (TOPIC, value)),
    );
    headers.extend(passed_on);
    Call { headers, body }
}
