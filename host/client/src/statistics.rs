//! What the gateway tells of the times that a function's instances took: `GET /system/function/NAME/stats`.

use serde::{Deserialize, Serialize};

/// Statistics of one deployment of a function.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FunctionStatistics {
    /// Name of the function.
    pub name: String,
    /// Namespace.
    pub namespace: String,
    /// What was before is not counted, RFC 3339.
    pub since: String,
    /// From the request to an instance that can take it.
    pub initialisation: Initialisation,
    /// From there to the last byte of the answer.
    pub execution: Execution,
    /// Both together of cold starts, by stages.
    pub cold_start: ColdStart,
}

/// Time until there is an instance. In a warm invocation there is one.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Initialisation {
    /// Of cold starts.
    pub cold: Durations,
}

/// Time that an instance takes to answer.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Execution {
    /// Of the first invocation of an instance that was started for it.
    pub cold: Durations,
    /// Of all others.
    pub warm: Durations,
}

/// The stages of a cold start: each is the time since the one before that is known.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ColdStart {
    /// Until the start of the instance began.
    pub queued: Durations,
    /// Until there was something empty to run it in.
    pub shell_taken: Durations,
    /// Until its memory was in place.
    pub mapped: Durations,
    /// Until its first instruction.
    pub first_instruction: Durations,
    /// Until the program had read the first bytes of the request.
    pub handler_entered: Durations,
    /// Until the last byte of the answer.
    pub answer: Durations,
    /// All of them together.
    pub whole: Durations,
}

/// Figures of durations of one kind, in seconds; without any there is only their number.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Durations {
    /// How many there were.
    pub count: u64,
    /// The others, if there were any.
    #[serde(flatten)]
    pub figures: Option<Figures>,
}

/// Figures of at least one duration, in seconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Figures {
    /// Arithmetic mean.
    pub average_seconds: f64,
    /// Standard deviation of these durations.
    pub standard_deviation_seconds: f64,
    /// Half of them were not longer.
    pub p50_seconds: f64,
    /// 95 of 100 were not longer.
    pub p95_seconds: f64,
    /// 99 of 100 were not longer.
    pub p99_seconds: f64,
    /// The longest.
    pub maximum_seconds: f64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_there_only_where_there_was_something() {
        let nothing: Durations = serde_json::from_str(r#"{"count":0}"#).unwrap();
        assert_eq!(nothing, Durations::default());
        let text = r#"{"count":1,"averageSeconds":0.5,"standardDeviationSeconds":0.0,"p50Seconds":0.5,"p95Seconds":0.5,"p99Seconds":0.5,"maximumSeconds":0.5}"#;
        let one: Durations = serde_json::from_str(text).unwrap();
        assert_eq!(one.figures.map(|figures| figures.p99_seconds), Some(0.5));
        for durations in [nothing, one] {
            let value = serde_json::to_value(&durations).unwrap();
            assert_eq!(serde_json::from_value::<Durations>(value).unwrap(), durations);
        }
    }
}
