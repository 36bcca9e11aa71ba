//! An invocation as it is kept.

use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

/// An invocation without its body, which never changes and may be long.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// Identifies it to its caller (`X-Call-Id`).
    pub call_id: String,
    /// `NAME.NAMESPACE` of the function.
    pub function: String,
    /// HTTP method.
    pub method: String,
    /// Path and query as the function sees them.
    pub path: String,
    /// Headers as the function sees them, in order; bytes of the values are characters of the same number.
    pub headers: Vec<(String, String)>,
    /// Where the result goes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub callback: Option<String>,
    /// Length of the body in bytes.
    pub body_bytes: u64,
    /// When it was accepted, in milliseconds since 1970.
    pub accepted_ms: u64,
    /// What has become of it.
    pub state: State,
    /// Attempts that have ended.
    #[serde(default)]
    pub attempts: u32,
    /// How the last of them did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<Attempt>,
}

/// What has become of an invocation, as far as the disk knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// It runs as soon as its function may run one more, after this time.
    Waiting {
        /// Milliseconds since 1970.
        due_ms: u64,
    },
    /// It failed, and is not tried again by itself.
    Dead,
}

/// How an attempt ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// Status code.
    pub status: u16,
    /// When, in milliseconds since 1970.
    pub ended_ms: u64,
    /// What the platform said, if the answer was not the function's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

impl Message {
    /// Bytes that it counts for: body, headers, and something for the rest.
    #[must_use]
    pub fn weight_bytes(&self) -> u64 {
        let headers: usize = self
            .headers
            .iter()
            .map(|(name, value)| name.len() + value.len())
            .sum();
        self.body_bytes
            + (headers + self.path.len() + self.callback.as_ref().map_or(0, String::len) + 256) as u64
    }
}

/// Milliseconds since 1970.
pub(crate) fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
