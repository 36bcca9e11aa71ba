//! Calls of functions that nobody makes: at times of the day, when files change, and for messages (docs/triggers.md).
//!
//! ```text
//!   schedules: the clock ──due──┐
//!   folders: a file rests ──────┼──> call ──> queue ──> as any invocation that nobody waits for
//!   subjects: a message ────────┤
//!   POST …/fire ────────────────┘
//! ```

pub(crate) mod admin;
mod folders;
mod schedules;
mod state;
mod subjects;

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http::header::{HOST, HeaderMap, HeaderName, HeaderValue};
use spore_queue::{AcceptError, Message, State};

use crate::errors::one_line;
use crate::functions::Function;
use crate::headers::{CALL_ID, START_TIME, Stamps};
use crate::routes::Gateway;
use crate::trace;
pub(crate) use folders::watch_folders;
pub(crate) use schedules::keep_schedules;
pub(crate) use subjects::{Subjects, follow_subjects};

/// What kind of trigger called, as connectors of OpenFaaS say it.
const TOPIC: HeaderName = HeaderName::from_static("x-topic");
/// Who called.
const CONNECTOR: HeaderName = HeaderName::from_static("x-connector");

/// A trigger of a function: its kind, and its folder or subject if it has one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    Schedule,
    Folder(String),
    Subject(String),
}

impl Kind {
    const fn name(&self) -> &'static str {
        match self {
            Self::Schedule => "schedule",
            Self::Folder(_) => "folder",
            Self::Subject(_) => "subject",
        }
    }
}

/// What has become of a trigger since the daemon started.
#[derive(Debug, Clone, Default)]
struct Calls {
    calls: u64,
    last_ms: Option<u64>,
    last_call_id: Option<String>,
    /// Why the latest call was not made, if it was not.
    error: Option<String>,
}

/// What has become of all of them, by the function's key.
#[derive(Debug, Default)]
pub(crate) struct TriggerCalls(Mutex<BTreeMap<(String, Kind), Calls>>);

impl TriggerCalls {
    fn of(&self, function: &str, kind: &Kind) -> Calls {
        let calls = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let found = calls.get(&(function.to_owned(), kind.clone()));
        found.cloned().unwrap_or_default()
    }

    fn change(&self, function: &str, kind: &Kind, change: impl FnOnce(&mut Calls)) {
        let mut calls = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        change(calls.entry((function.to_owned(), kind.clone())).or_default());
    }

    /// Forgets functions that are gone.
    fn retain(&self, is_there: impl Fn(&str) -> bool) {
        let mut calls = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        calls.retain(|(function, _), _| is_there(function));
    }
}

/// What a function is to be told.
struct Call {
    headers: Vec<(HeaderName, HeaderValue)>,
    body: Bytes,
}

/// Puts a call of the function into the queue; it is on disk at the return. Says its call ID.
async fn call(
    gateway: &Gateway,
    function: &Function,
    kind: &Kind,
    call: Call,
) -> Result<String, AcceptError> {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let accepted_ms = u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX);
    let mut headers = HeaderMap::new();
    let stamps = Stamps::new(&headers, since_epoch.as_nanos());
    headers.insert(HOST, HeaderValue::from_static("localhost"));
    headers.insert(CALL_ID, stamps.call_id.clone());
    headers.insert(START_TIME, stamps.start_time.clone());
    headers.extend(call.headers);
    let spans = gateway.functions.spans.as_ref();
    // It lasts until the call is on disk.
    let _span = spans.and_then(|spans| spans.trigger(&mut headers, &function.name));
    trace::go_on(&mut headers);
    let call_id = stamps.call_id.to_str().unwrap_or_default().to_owned();
    let text = |value: &HeaderValue| value.as_bytes().iter().map(|byte| char::from(*byte)).collect();
    let message = Message {
        call_id: call_id.clone(),
        function: function.id.key(),
        method: "POST".to_owned(),
        path: "/".to_owned(),
        headers: headers
            .iter()
            .map(|(name, value)| (name.as_str().to_owned(), text(value)))
            .collect(),
        callback: None,
        body_bytes: call.body.len() as u64,
        accepted_ms,
        state: State::Waiting { due_ms: accepted_ms },
        attempts: 0,
        last: None,
    };
    let accepted = gateway.queue.accept(message, call.body).await;
    let key = function.id.key();
    match &accepted {
        Ok(()) => gateway.triggers.change(&key, kind, |calls| {
            calls.calls += 1;
            calls.last_ms = Some(accepted_ms);
            calls.last_call_id = Some(call_id.clone());
            calls.error = None;
        }),
        Err(error) => failed(gateway, function, kind, one_line(error)),
    }
    accepted.map(|()| call_id)
}

/// Tells that a trigger does not work; the function's log once, until something else is told.
fn failed(gateway: &Gateway, function: &Function, kind: &Kind, line: String) {
    let mut is_new = false;
    gateway.triggers.change(&function.id.key(), kind, |calls| {
        is_new = calls.error.as_ref() != Some(&line);
        calls.error = Some(line.clone());
    });
    if is_new {
        function.tell(format!("the trigger ({}) did not call: {line}", kind.name()));
    }
}
