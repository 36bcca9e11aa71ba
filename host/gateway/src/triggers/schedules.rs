//! Calls functions when their schedules say so.
//!
//! Whatever was due since the last look is one call: a machine that slept, or whose clock was set forward, does not make up for
//! each time.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{HeaderName, HeaderValue};
use jiff::Timestamp;
use spore_trigger::{CRON_TOPIC, Missed, Schedule};

use super::state::KeptUntil;
use super::{CONNECTOR, Call, Kind, TOPIC, call};
use crate::functions::Function;
use crate::routes::Gateway;

/// When it was due, as RFC 3339 has it.
const SCHEDULED: HeaderName = HeaderName::from_static("x-spore-scheduled");
/// Longest sleep: the clock may be set meanwhile.
const SLEEP_MAX: Duration = Duration::from_secs(30);

/// A schedule that is kept.
struct Kept {
    schedule: Schedule,
    /// Up to here it was.
    until: Timestamp,
}

/// Keeps all schedules until the daemon stops.
pub(crate) async fn keep_schedules(gateway: Arc<Gateway>) {
    let mut stopping = gateway.stopping.clone();
    let mut changed = gateway.functions.changed();
    let file = KeptUntil::of(&gateway.data);
    let mut kept: BTreeMap<String, Kept> = BTreeMap::new();
    let reading = file.clone();
    let mut earlier = tokio::task::spawn_blocking(move || reading.read())
        .await
        .ok()
        .flatten();
    loop {
        changed.mark_unchanged();
        let now = Timestamp::now();
        let functions = take_over(&gateway, &mut kept, earlier.take(), now);
        for function in &functions {
            if let Some(kept) = kept.get_mut(&function.id.key()) {
                keep(&gateway, function, kept, now).await;
            }
        }
        if !functions.is_empty() {
            let file = file.clone();
            let written = tokio::task::spawn_blocking(move || file.write(now)).await;
            if let Ok(Err(error)) = written {
                tracing::warn!(%error, "what schedules were kept could not be written");
            }
        }
        let next = kept
            .values()
            .filter_map(|kept| kept.schedule.next_after(kept.until))
            .min();
        let until_next = next.map_or(SLEEP_MAX, |next| {
            let pause = next.duration_since(Timestamp::now());
            // A moment later, so that it has come for sure.
            Duration::try_from(pause).unwrap_or_default() + Duration::from_millis(1)
        });
        tokio::select! {
            () = tokio::time::sleep(until_next.min(SLEEP_MAX)) => {}
            _ = changed.changed() => {}
            _ = stopping.wait_for(|stopping| *stopping) => return,
        }
    }
}

/// Takes over what is deployed now; the functions that have schedules. `earlier` is given at the start only: up to when an
/// earlier daemon kept them.
fn take_over(
    gateway: &Gateway,
    kept: &mut BTreeMap<String, Kept>,
    earlier: Option<Timestamp>,
    now: Timestamp,
) -> Vec<Arc<Function>> {
    let functions = gateway.functions.all();
    gateway
        .triggers
        .retain(|key| functions.iter().any(|function| function.id.key() == key));
    let mut scheduled = Vec::new();
    let mut new = BTreeMap::new();
    for function in functions {
        let triggers = function.triggers();
        let Some(schedule) = triggers.schedule.clone() else {
            continue;
        };
        let key = function.id.key();
        let until = match kept.remove(&key).filter(|kept| kept.schedule == schedule) {
            Some(kept) => kept.until,
            None => match earlier.filter(|_| triggers.missed == Missed::Once) {
                Some(earlier) => earlier.max(function.record().created_at).min(now),
                None => now,
            },
        };
        new.insert(key, Kept { schedule, until });
        scheduled.push(function);
    }
    *kept = new;
    scheduled
}

/// Calls the function if it is due.
async fn keep(gateway: &Gateway, function: &Function, kept: &mut Kept, now: Timestamp) {
    // A clock that was set back does not have it called twice.
    let due = kept.schedule.next_after(kept.until).filter(|due| *due <= now);
    let Some(due) = due else { return };
    kept.until = now;
    let _ = call(gateway, function, &Kind::Schedule, scheduled(due)).await;
}

/// What a function is told that is called at this time.
pub(super) fn scheduled(due: Timestamp) -> Call {
    let mut headers = vec![
        (TOPIC, HeaderValue::from_static(CRON_TOPIC)),
        // As OpenFaaS's own.
        (CONNECTOR, HeaderValue::from_static("cron-connector")),
    ];
    headers.extend(
        HeaderValue::from_str(&due.to_string())
            .ok()
            .map(|value| (SCHEDULED, value)),
    );
    Call {
        headers,
        body: Bytes::new(),
    }
}
