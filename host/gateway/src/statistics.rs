//! How long the instances of a function took to start and to answer, since it was deployed or the daemon started.
//!
//! ```text
//!   request ──asked──> pool ──leased──> exchange ──last byte of the answer──>
//!           <──initialisation──>    <──────────execution──────────>
//!
//!   a cold start, from asked to the last byte, one stage after the other:
//!   queued │ shell taken │ mapped │ first instruction │ handler entered │ answer
//! ```
//!
//! Recording is two readings of a clock and a lock that nobody holds for longer than it takes to count; what a sandbox
//! knows of a cold start is waited for by a task of its own, after the answer.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use http::HeaderValue;
use jiff::Timestamp;
use serde::Serialize;
use spore_sandbox::{Instance, StartStages};
use utoipa::ToSchema;

use crate::durations::{Durations, Summary};
use crate::recent::Recent;
use crate::spans::{ExecutionSpan, InvocationSpan};

/// So many of the latest invocations are kept, of cold and of warm ones each: 4 KiB of each kind.
const RECENT_MAX: usize = 256;
/// So many of the latest cold starts are kept with their stages.
const COLD_STARTS_MAX: usize = 16;
/// Longest call ID that is kept with one, in characters.
pub(crate) const CALL_ID_CHARACTERS_MAX: usize = 100;

/// Of one deployment of a function.
#[derive(Debug)]
pub(crate) struct FunctionStatistics {
    since: Timestamp,
    warm: Mutex<Warm>,
    cold: Mutex<Cold>,
}

/// Of invocations that found an instance.
#[derive(Debug, Default)]
struct Warm {
    execution: Durations,
    recent: Recent<Answered, RECENT_MAX>,
}

/// When an invocation was answered in full, and how long it had taken.
#[derive(Debug, Clone, Copy)]
struct Answered {
    at: Instant,
    /// In microseconds: an hour and more is as long as this can tell.
    duration_us: u32,
}

impl Answered {
    fn new(at: Instant, duration: Duration) -> Self {
        Self {
            at,
            duration_us: u32::try_from(duration.as_micros()).unwrap_or(u32::MAX),
        }
    }
}

/// A cold start whose stages are known.
#[derive(Debug)]
struct ColdStartSpans {
    call_id: Option<HeaderValue>,
    answered: Answered,
    spans: Stages<Option<Duration>>,
}

/// An invocation as the API shows it.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct RecentInvocation {
    /// How many of this version and the same start came before it.
    number: u64,
    /// How long ago it was answered in full.
    ago_seconds: f64,
    /// From the request to the last byte of the answer: initialisation, if any, and execution.
    seconds: f64,
    /// `cold` or `warm`.
    start: &'static str,
}

/// A cold start as the API shows it.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct RecentColdStart {
    call_id: String,
    ago_seconds: f64,
    whole_seconds: f64,
    /// Seconds of each stage; null where a stage is not known, and its time is in the next one.
    #[schema(value_type = serde_json::Value)]
    stages: Stages<Option<f64>>,
}

/// Of cold starts.
#[derive(Debug, Default)]
struct Cold {
    initialisation: Durations,
    execution: Durations,
    stages: Stages<Durations>,
    whole: Durations,
    recent: Recent<Answered, RECENT_MAX>,
    starts: Recent<ColdStartSpans, COLD_STARTS_MAX>,
}

/// Something for each stage of a cold start, in their order.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Stages<T> {
    queued: T,
    shell_taken: T,
    mapped: T,
    first_instruction: T,
    handler_entered: T,
    answer: T,
}

impl<T> Stages<T> {
    fn map<U>(self, mut change: impl FnMut(T) -> U) -> Stages<U> {
        Stages {
            queued: change(self.queued),
            shell_taken: change(self.shell_taken),
            mapped: change(self.mapped),
            first_instruction: change(self.first_instruction),
            handler_entered: change(self.handler_entered),
            answer: change(self.answer),
        }
    }

    fn as_ref(&self) -> Stages<&T> {
        Stages {
            queued: &self.queued,
            shell_taken: &self.shell_taken,
            mapped: &self.mapped,
            first_instruction: &self.first_instruction,
            handler_entered: &self.handler_entered,
            answer: &self.answer,
        }
    }

    fn as_mut(&mut self) -> Stages<&mut T> {
        Stages {
            queued: &mut self.queued,
            shell_taken: &mut self.shell_taken,
            mapped: &mut self.mapped,
            first_instruction: &mut self.first_instruction,
            handler_entered: &mut self.handler_entered,
            answer: &mut self.answer,
        }
    }
}

/// The statistics as the API shows them.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Report {
    name: String,
    namespace: String,
    /// The beginning of what is counted.
    since: Timestamp,
    initialisation: Initialisation,
    execution: Execution,
    cold_start: ColdStart,
}

/// There is no other one: a warm invocation finds its instance ready.
#[derive(Debug, Serialize)]
struct Initialisation {
    cold: Summary,
}

#[derive(Debug, Serialize)]
struct Execution {
    cold: Summary,
    warm: Summary,
}

#[derive(Debug, Serialize)]
struct ColdStart {
    #[serde(flatten)]
    stages: Stages<Summary>,
    whole: Summary,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl FunctionStatistics {
    /// Nothing yet, since now.
    pub(crate) fn begin() -> Arc<Self> {
        Arc::new(Self {
            since: Timestamp::now(),
            warm: Mutex::default(),
            cold: Mutex::default(),
        })
    }

    /// What has been recorded so far.
    pub(crate) fn report(&self, name: &str, namespace: &str) -> Report {
        let warm = locked(&self.warm).execution.summary();
        let cold = locked(&self.cold);
        Report {
            name: name.to_owned(),
            namespace: namespace.to_owned(),
            since: self.since,
            initialisation: Initialisation {
                cold: cold.initialisation.summary(),
            },
            execution: Execution {
                cold: cold.execution.summary(),
                warm,
            },
            cold_start: ColdStart {
                stages: cold.stages.as_ref().map(Durations::summary),
                whole: cold.whole.summary(),
            },
        }
    }

    /// The beginning of what is counted.
    pub(crate) fn since(&self) -> Timestamp {
        self.since
    }

    /// The latest invocations and cold starts, as they look at `now`, the oldest first.
    pub(crate) fn recent(&self, now: Instant) -> (Vec<RecentInvocation>, Vec<RecentColdStart>) {
        let seconds_since = |at: Instant| now.saturating_duration_since(at).as_secs_f64();
        let shown = |number, answered: &Answered, start| RecentInvocation {
            number,
            ago_seconds: seconds_since(answered.at),
            seconds: f64::from(answered.duration_us) / 1e6,
            start,
        };
        let mut invocations: Vec<_> = {
            let warm = locked(&self.warm);
            warm.recent
                .iter()
                .map(|(number, answered)| shown(number, answered, "warm"))
                .collect()
        };
        let cold = locked(&self.cold);
        let of_cold = cold.recent.iter();
        invocations.extend(of_cold.map(|(number, answered)| shown(number, answered, "cold")));
        invocations.sort_by(|a, b| b.ago_seconds.total_cmp(&a.ago_seconds));
        let starts = cold.starts.iter().map(|(_, start)| RecentColdStart {
            call_id: start
                .call_id
                .as_ref()
                .map(|id| String::from_utf8_lossy(id.as_bytes()))
                .unwrap_or_default()
                .chars()
                .take(CALL_ID_CHARACTERS_MAX)
                .collect(),
            ago_seconds: seconds_since(start.answered.at),
            whole_seconds: f64::from(start.answered.duration_us) / 1e6,
            stages: start
                .spans
                .clone()
                .map(|span| span.map(|span| span.as_secs_f64())),
        });
        (invocations, starts.collect())
    }

    fn record_stages(
        &self,
        call_id: Option<HeaderValue>,
        answered: Answered,
        spans: Stages<Option<Duration>>,
        whole: Duration,
    ) {
        let mut cold = locked(&self.cold);
        cold.starts.add(ColdStartSpans {
            call_id,
            answered,
            spans: spans.clone(),
        });
        let record = |durations: &mut Durations, span: Option<Duration>| {
            if let Some(span) = span {
                durations.record(span);
            }
        };
        let Stages {
            queued,
            shell_taken,
            mapped,
            first_instruction,
            handler_entered,
            answer,
        } = cold.stages.as_mut();
        record(queued, spans.queued);
        record(shell_taken, spans.shell_taken);
        record(mapped, spans.mapped);
        record(first_instruction, spans.first_instruction);
        record(handler_entered, spans.handler_entered);
        record(answer, spans.answer);
        cold.whole.record(whole);
    }
}

/// An invocation that has an instance, to be recorded when its answer is there in full.
pub(crate) struct Recording {
    statistics: Arc<FunctionStatistics>,
    asked: Instant,
    leased: Instant,
    is_cold: bool,
    /// Of a cold one.
    call_id: Option<HeaderValue>,
    span: Option<ExecutionSpan>,
}

impl Recording {
    /// The instance that was asked for at `asked` has just been leased.
    pub(crate) fn begin(
        statistics: Arc<FunctionStatistics>,
        asked: Instant,
        is_cold: bool,
        call_id: Option<&HeaderValue>,
        span: Option<&Arc<InvocationSpan>>,
    ) -> Self {
        let leased = Instant::now();
        if is_cold {
            let initialisation = leased.duration_since(asked);
            locked(&statistics.cold).initialisation.record(initialisation);
        }
        Self {
            statistics,
            asked,
            leased,
            is_cold,
            call_id: call_id.filter(|_| is_cold).cloned(),
            span: span.map(|span| span.leased(asked, leased, is_cold)),
        }
    }

    /// The last byte of the answer has been read from the instance.
    pub(crate) fn finish(self, instance: &Arc<dyn Instance>) {
        let answered = Instant::now();
        let mut span = self.span;
        if let Some(span) = &mut span {
            span.ended(answered);
        }
        let execution = answered.duration_since(self.leased);
        let whole = answered.duration_since(self.asked);
        let entry = Answered::new(answered, whole);
        if !self.is_cold {
            let mut warm = locked(&self.statistics.warm);
            warm.execution.record(execution);
            warm.recent.add(entry);
            return;
        }
        {
            let mut cold = locked(&self.statistics.cold);
            cold.execution.record(execution);
            cold.recent.add(entry);
        }
        let call_id = self.call_id;
        let (asked, statistics, instance) = (self.asked, self.statistics, Arc::clone(instance));
        tokio::spawn(async move {
            let stages = instance.start_stages().await;
            drop(instance);
            if let Some(span) = span {
                span.started(&stages);
            }
            statistics.record_stages(call_id, entry, spans(asked, &stages, answered), whole);
        });
    }
}

/// How long each stage took: the time since the one before that is known, so that all add up to the whole. What
/// happened before the request came took it no time, and nothing happens after the answer.
fn spans(asked: Instant, stages: &StartStages, answered: Instant) -> Stages<Option<Duration>> {
    let mut reached = asked;
    Stages {
        queued: stages.begun,
        shell_taken: stages.shell_taken,
        mapped: stages.mapped,
        first_instruction: stages.first_instruction,
        handler_entered: stages.handler_entered,
        answer: Some(answered),
    }
    .map(|moment| {
        let moment = moment?.min(answered);
        let span = moment.saturating_duration_since(reached);
        reached = reached.max(moment);
        Some(span)
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn all<T>(stages: Stages<T>) -> Vec<T> {
        let mut all = Vec::new();
        stages.map(|stage| all.push(stage));
        all
    }

    proptest! {
        #[test]
        fn stages_add_up_to_the_whole_whatever_a_sandbox_says(
            whole_us in 0..1_000_000_u64,
            moments in prop::array::uniform5(prop::option::of(0..2_000_000_u64)),
        ) {
            let base = Instant::now();
            let at = |us: u64| base + Duration::from_micros(us);
            // Some moments lie before the request, or after the answer.
            let asked = at(500_000);
            let answered = asked + Duration::from_micros(whole_us);
            let [begun, shell_taken, mapped, first_instruction, handler_entered] = moments.map(|us| us.map(at));
            let stages = StartStages { begun, shell_taken, mapped, first_instruction, handler_entered };
            let spans = all(spans(asked, &stages, answered));
            let sum: Duration = spans.iter().flatten().sum();
            prop_assert_eq!(sum, answered.duration_since(asked));
            for (span, moment) in spans.iter().zip(moments) {
                prop_assert_eq!(span.is_some(), moment.is_some());
            }
        }
    }

    #[test]
    fn each_stage_takes_the_time_since_the_one_before() {
        let asked = Instant::now();
        let at = |ms| asked + Duration::from_millis(ms);
        let stages = StartStages {
            begun: Some(at(1)),
            shell_taken: Some(at(3)),
            mapped: None,
            first_instruction: Some(at(10)),
            handler_entered: Some(at(15)),
        };
        let shown = all(spans(asked, &stages, at(21)));
        let expected = [Some(1), Some(2), None, Some(7), Some(5), Some(6)];
        assert_eq!(shown, expected.map(|ms| ms.map(Duration::from_millis)));
    }

    #[test]
    fn what_is_not_known_is_not_counted() {
        let statistics = FunctionStatistics::begin();
        let asked = Instant::now();
        let stages = StartStages {
            begun: Some(asked),
            ..StartStages::default()
        };
        let answered = asked + Duration::from_millis(5);
        let whole = answered.duration_since(asked);
        let entry = Answered::new(answered, whole);
        let call_id = HeaderValue::from_static("one");
        statistics.record_stages(Some(call_id), entry, spans(asked, &stages, answered), whole);
        let report = serde_json::to_value(statistics.report("hello", "functions")).expect("JSON");
        let counts = ["queued", "shellTaken", "mapped", "answer", "whole"]
            .map(|stage| report["coldStart"][stage]["count"].as_u64().expect("a number"));
        assert_eq!(counts, [1, 0, 0, 1, 1]);
        assert_eq!(report["coldStart"]["whole"]["maximumSeconds"], 0.005);
        assert_eq!(report["execution"]["warm"], serde_json::json!({ "count": 0 }));
        let (_, starts) = statistics.recent(answered + Duration::from_secs(2));
        let starts = serde_json::to_value(&starts).expect("JSON");
        assert_eq!(
            (&starts[0]["callId"], &starts[0]["agoSeconds"]),
            (&"one".into(), &2.0.into())
        );
        let stages = &starts[0]["stages"];
        assert_eq!(
            (&stages["mapped"], &stages["answer"]),
            (&serde_json::Value::Null, &0.005.into())
        );
    }
}
