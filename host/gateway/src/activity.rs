//! What a function does right now: `/system/function/NAME/activity`, an addition of ours, for live displays.
//!
//! Everything in it is bounded: the latest invocations, the latest cold starts, and the memory of so many instances.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::Instant;

use http::{StatusCode, Uri};
use jiff::Timestamp;
use serde::Serialize;
use utoipa::ToSchema;

use crate::errors::ApiError;
use crate::functions::{Function, Functions};
use crate::names::FunctionId;
use crate::reply::{self, Answer};
use crate::settings::Settings;
use crate::statistics::{RecentColdStart, RecentInvocation};
use crate::usage::memory;

/// A function at this moment.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Activity {
    name: String,
    namespace: String,
    /// Invocations that were begun since the daemon started or the function was deployed first.
    invocation_count: u64,
    /// Invocations that were answered, by the status of the answer.
    #[schema(value_type = BTreeMap<String, u64>)]
    answers: BTreeMap<u16, u64>,
    /// Those that waited for the start of an instance.
    cold_start_count: u64,
    instances: Instances,
    /// When this version was deployed, or the daemon started.
    #[schema(value_type = String, format = DateTime)]
    since: Timestamp,
    /// The latest complete answers of this version, cold and warm ones kept apart, the oldest first.
    invocations: Vec<RecentInvocation>,
    /// The latest cold starts of this version, the oldest first.
    cold_starts: Vec<RecentColdStart>,
}

#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct Instances {
    starting: usize,
    idle: usize,
    busy: usize,
    /// Of replaced versions, finishing their last invocation.
    draining: usize,
    /// Invocations that wait for an instance.
    waiting: usize,
    /// How many are kept however little there is to do.
    min: u32,
    max: u32,
    /// How many of them were asked for their memory, and knew it.
    measured: usize,
    /// Memory of this machine that those take, of what they share with others their part.
    #[serde(skip_serializing_if = "Option::is_none")]
    memory_bytes: Option<u64>,
}

/// `GET /system/function/NAME/activity`
#[utoipa::path(
    get,
    path = "/system/function/{name}/activity",
    params(("name" = String, Path, description = "NAME or NAME.NAMESPACE"), ("namespace" = Option<String>, Query, description = "Namespace; openfaas-fn unless given")),
    responses(
        (status = 200, description = "What it does right now: see docs/statistics.md", body = Activity),
        (status = 404, description = "There is no such function"),
    )
)]
pub(crate) async fn answer(functions: &Functions, name: &str, uri: &Uri) -> Result<Answer, ApiError> {
    let function = functions.named(&FunctionId::new(name, "", uri))?;
    let instances = function.pool.ready_instances();
    let (measured, memory_bytes) = tokio::task::spawn_blocking(move || memory(&instances)).await?;
    let statistics = function.statistics();
    let (invocations, cold_starts) = statistics.recent(Instant::now());
    let activity = Activity {
        name: function.id.name.clone(),
        namespace: function.id.namespace.clone(),
        invocation_count: function.invocations.load(Ordering::Relaxed),
        answers: function.counts.by_status(),
        cold_start_count: function.counts.cold.load(Ordering::Relaxed),
        instances: Instances {
            measured,
            memory_bytes: (measured > 0).then_some(memory_bytes),
            ..of_pool(&function, functions)
        },
        since: statistics.since(),
        invocations,
        cold_starts,
    };
    Ok(reply::json(StatusCode::OK, &activity))
}

fn of_pool(function: &Function, functions: &Functions) -> Instances {
    let pool = function.pool.status();
    let settings = Settings::of(&function.record().deployment, &functions.config);
    let limits = settings.map(|settings| settings.limits).ok();
    Instances {
        starting: pool.starting,
        idle: pool.idle,
        busy: pool.busy,
        draining: pool.draining,
        waiting: pool.waiting,
        min: limits.map_or(0, |limits| limits.min_instances),
        max: limits.map_or(0, |limits| limits.max_instances),
        measured: 0,
        memory_bytes: None,
    }
}
