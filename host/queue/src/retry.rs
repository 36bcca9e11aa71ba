//! What becomes of an invocation that failed. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

const ATTEMPTS: &str = "com.openfaas.retry.attempts";
const CODES: &str = "com.openfaas.retry.codes";
const MIN_WAIT: &str = "com.openfaas.retry.min_wait";
const MAX_WAIT: &str = "com.openfaas.retry.max_wait";
/// Most attempts that can be asked for.
const ATTEMPTS_MAX: u32 = 1000;
/// Longest pause that can be asked for.
const WAIT_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// How often and when a failed invocation is tried again. The annotations and their defaults are those of OpenFaaS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RetryPolicy {
    /// Attempts in all, the first one included.
    pub attempts: u32,
    /// Status codes of answers after which another attempt may help.
    pub codes: Vec<u16>,
    /// Pause before the second attempt; it doubles with each one.
    pub min_wait: Duration,
    /// Longest pause.
    pub max_wait: Duration,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            attempts: 10,
            codes: vec![408, 429, 500, 502, 504],
            min_wait: Duration::from_secs(10),
            max_wait: Duration::from_secs(120),
        }
    }
}

/// Why annotations are no retry policy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RetryPolicyError {
    /// Not a number of attempts.
    #[error("{ATTEMPTS} is `{text}`, which is not a number from 1 to {ATTEMPTS_MAX}")]
    Attempts {
        /// What it is.
        text: String,
    },
    /// Not a list of status codes.
    #[error("{CODES} is `{text}`, which is not a list of status codes: write it like 429,500,502")]
    Codes {
        /// What it is.
        text: String,
    },
    /// Not a duration.
    #[error("{annotation} is `{text}`, which is not a duration up to a day: write it like 10s or 1m30s")]
    Wait {
        /// Which annotation.
        annotation: &'static str,
        /// What it is.
        text: String,
    },
    /// The bounds are the wrong way round.
    #[error("{MIN_WAIT} is more than {MAX_WAIT}")]
    MinAboveMax,
}

/// How an attempt ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// Status code of the answer.
    pub status: u16,
    /// The answer is the platform's, not the function's.
    pub is_internal: bool,
    /// Another attempt cannot help, whatever the policy says: the function does not exist.
    pub is_final: bool,
    /// When another attempt is welcome, by `Retry-After`.
    pub retry_after: Option<Duration>,
}

/// What follows from an outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It was answered, well or badly.
    Answered,
    /// It is tried again after this pause.
    Again {
        /// The pause.
        after: Duration,
    },
    /// It failed, and is not tried again.
    Dead,
}

impl RetryPolicy {
    /// That of a function with these annotations; `duration` reads a duration.
    pub fn of(
        annotations: Option<&BTreeMap<String, String>>,
        duration: impl Fn(&str) -> Option<Duration>,
    ) -> Result<Self, RetryPolicyError> {
        let mut policy = Self::default();
        let Some(annotations) = annotations else {
            return Ok(policy);
        };
        if let Some(text) = annotations.get(ATTEMPTS) {
            let attempts = text
                .parse()
                .ok()
                .filter(|attempts| (1..=ATTEMPTS_MAX).contains(attempts));
            policy.attempts = attempts.ok_or_else(|| RetryPolicyError::Attempts { text: text.clone() })?;
        }
        if let Some(text) = annotations.get(CODES) {
            let code = |code: &str| code.trim().parse().ok().filter(|code| (100..=999).contains(code));
            let codes: Option<Vec<u16>> = text.split(',').map(code).collect();
            policy.codes = codes.ok_or_else(|| RetryPolicyError::Codes { text: text.clone() })?;
        }
        let wait = |annotation| {
            let read = |text: &String| {
                let wait = duration(text).filter(|wait| *wait <= WAIT_MAX);
                wait.ok_or_else(|| RetryPolicyError::Wait {
                    annotation,
                    text: text.clone(),
                })
            };
            annotations.get(annotation).map(read).transpose()
        };
        let (min_wait, max_wait) = (wait(MIN_WAIT)?, wait(MAX_WAIT)?);
        // Whoever names one bound is not to fail by the default of the other.
        policy.min_wait = min_wait.unwrap_or(policy.min_wait.min(max_wait.unwrap_or(policy.max_wait)));
        policy.max_wait = max_wait.unwrap_or(policy.max_wait.max(policy.min_wait));
        if policy.min_wait > policy.max_wait {
            return Err(RetryPolicyError::MinAboveMax);
        }
        Ok(policy)
    }

    /// What follows from the outcome of attempt number `attempt`, the first being 1. `random` in 0..1 spreads the attempts of
    /// invocations that failed together.
    #[must_use]
    pub fn verdict(&self, outcome: &Outcome, attempt: u32, random: f64) -> Verdict {
        if outcome.is_final {
            return Verdict::Dead;
        }
        if !outcome.is_internal && !self.codes.contains(&outcome.status) {
            return Verdict::Answered;
        }
        if attempt >= self.attempts {
            return Verdict::Dead;
        }
        let asked_for = outcome
            .retry_after
            .filter(|_| matches!(outcome.status, 429 | 503));
        let after = match asked_for.map(|asked| asked.min(WAIT_MAX)) {
            // A platform that is short of something for minutes must not use up all attempts in seconds.
            Some(asked) if outcome.is_internal => asked.max(self.pause(attempt, random)),
            Some(asked) => asked,
            None => self.pause(attempt, random),
        };
        Verdict::Again { after }
    }

    /// Somewhere between one power of two and the next, so that those which failed together do not come back together.
    fn pause(&self, attempt: u32, random: f64) -> Duration {
        let doubled = |times: u32| {
            let pause = self.min_wait.checked_mul(1 << times.min(30));
            pause.unwrap_or(self.max_wait).min(self.max_wait)
        };
        let (least, most) = (doubled(attempt.saturating_sub(1)), doubled(attempt));
        least + (most - least).mul_f64(random.clamp(0.0, 1.0))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn annotations(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        let pairs = pairs.iter();
        pairs
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect()
    }

    fn seconds(text: &str) -> Option<Duration> {
        text.strip_suffix('s')?.parse().ok().map(Duration::from_secs)
    }

    fn of(pairs: &[(&str, &str)]) -> Result<RetryPolicy, RetryPolicyError> {
        RetryPolicy::of(Some(&annotations(pairs)), seconds)
    }

    fn outcome(status: u16) -> Outcome {
        Outcome {
            status,
            is_internal: false,
            is_final: false,
            retry_after: None,
        }
    }

    #[test]
    fn annotations_are_read_and_checked() {
        assert_eq!(RetryPolicy::of(None, seconds), Ok(RetryPolicy::default()));
        let policy = of(&[
            (ATTEMPTS, "3"),
            (CODES, "500, 503"),
            (MIN_WAIT, "1s"),
            (MAX_WAIT, "4s"),
        ]);
        let expected = RetryPolicy {
            attempts: 3,
            codes: vec![500, 503],
            min_wait: Duration::from_secs(1),
            max_wait: Duration::from_secs(4),
        };
        assert_eq!(policy, Ok(expected));
        let one = of(&[(MAX_WAIT, "1s")]).expect("the other bound follows");
        assert_eq!(
            (one.min_wait, one.max_wait),
            (Duration::from_secs(1), Duration::from_secs(1))
        );
        for bad in [
            (ATTEMPTS, "0"),
            (ATTEMPTS, "1001"),
            (ATTEMPTS, "-1"),
            (CODES, ""),
            (CODES, "500,"),
            (CODES, "5xx"),
            (CODES, "99"),
            (MIN_WAIT, "soon"),
            (MAX_WAIT, "86401s"),
        ] {
            assert!(of(&[bad]).is_err(), "{bad:?}");
        }
        assert_eq!(
            of(&[(MIN_WAIT, "5s"), (MAX_WAIT, "4s")]),
            Err(RetryPolicyError::MinAboveMax)
        );
    }

    #[test]
    fn what_helps_is_tried_again() {
        let policy = RetryPolicy::default();
        let verdict = |outcome: &Outcome, attempt| policy.verdict(outcome, attempt, 0.0);
        for status in [200, 302, 400, 404, 501, 503] {
            assert_eq!(verdict(&outcome(status), 1), Verdict::Answered, "{status}");
        }
        let after = Duration::from_secs(10);
        assert_eq!(verdict(&outcome(500), 1), Verdict::Again { after });
        assert_eq!(verdict(&outcome(500), 10), Verdict::Dead);
        let internal = Outcome {
            is_internal: true,
            ..outcome(503)
        };
        assert_eq!(verdict(&internal, 1), Verdict::Again { after });
        let busy = Outcome {
            retry_after: Some(Duration::from_secs(1)),
            ..outcome(429)
        };
        let soon = Duration::from_secs(1);
        assert_eq!(verdict(&busy, 1), Verdict::Again { after: soon });
        let is_internal = true;
        assert_eq!(
            verdict(&Outcome { is_internal, ..busy }, 1),
            Verdict::Again { after }
        );
        let unknown = Outcome {
            is_final: true,
            ..outcome(404)
        };
        assert_eq!(verdict(&unknown, 1), Verdict::Dead);
    }

    proptest! {
        #[test]
        fn pauses_keep_their_bounds(attempt in 1u32..1000, random in 0.0f64..1.0, min in 0u64..100, more in 0u64..1000) {
            let policy = RetryPolicy {
                attempts: u32::MAX,
                min_wait: Duration::from_secs(min),
                max_wait: Duration::from_secs(min + more),
                ..RetryPolicy::default()
            };
            let Verdict::Again { after } = policy.verdict(&outcome(500), attempt, random) else {
                panic!("an attempt is left");
            };
            prop_assert!((policy.min_wait..=policy.max_wait).contains(&after));
        }
    }
}
