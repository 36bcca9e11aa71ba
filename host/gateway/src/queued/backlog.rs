//! Tells pools of loads that they do not see: how many invocations wait in the queue, and how much processor time instances
//! use, where a function's label `com.openfaas.scale.type` is `queue` or `cpu`.

use std::sync::Arc;

use spore_pool::LoadKind;

use crate::routes::Gateway;
use crate::usage::{Used, processor_times};

/// Looks at both as often as pools judge their load, until the daemon stops.
pub(crate) async fn tell_pools(gateway: Arc<Gateway>) {
    let mut stopping = gateway.stopping.clone();
    let mut interval = tokio::time::interval(spore_pool::JUDGEMENT_PAUSE);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut used = Used::default();
    loop {
        tokio::select! {
            _ = interval.tick() => {}
            _ = stopping.wait_for(|stopping| *stopping) => return,
        }
        let mut now = Used::default();
        for function in gateway.functions.all() {
            match function.told_load() {
                Some(LoadKind::Queued) => {
                    let (waiting, running, _) = gateway.queue.counts(&function.id.key());
                    function.pool.queued(waiting + running);
                }
                Some(LoadKind::Processor) => {
                    let instances = function.pool.ready_instances();
                    let looking = tokio::task::spawn_blocking(move || processor_times(&instances));
                    let times = looking.await.unwrap_or_default();
                    function.pool.processor_used(used.since(&times));
                    now.note(times);
                }
                Some(LoadKind::RequestsPerSecond | LoadKind::InFlight) | None => {}
            }
        }
        used = now;
    }
}
