//! Invocations that nobody waits for.

use bytes::Bytes;
use http::Method;
use http_body_util::BodyExt;
use serde::{Deserialize, Serialize};

use crate::api::{ApiError, percent_encode};
use crate::transport::Client;

/// An invocation that has not been answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueuedInvocation {
    /// Identifies it.
    pub call_id: String,
    /// `NAME.NAMESPACE` of the function.
    pub function: String,
    /// `waiting`, `running` or `dead`.
    pub state: String,
    /// HTTP method.
    pub method: String,
    /// Path and query as the function sees them.
    pub path: String,
    /// Length of its body in bytes.
    pub body_bytes: u64,
    /// When it was accepted, in milliseconds since 1970.
    pub accepted_ms: u64,
    /// When its next attempt may begin, in the same; for one that waits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub due_ms: Option<u64>,
    /// Attempts that have ended.
    pub attempts: u32,
    /// How the last of them did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<Attempt>,
    /// Where its result goes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub callback: Option<String>,
    /// Headers as the function sees them; only when a single invocation is asked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<(String, String)>,
    /// Body in base64; likewise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<String>,
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

/// Which invocations are meant.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct QueuedQuery {
    /// Those of a function.
    pub function: Option<String>,
    /// `alive` or `dead`.
    pub state: Option<&'static str>,
    /// How many at most.
    pub limit: Option<usize>,
}

/// How many were dropped.
#[derive(Deserialize)]
struct Dropped {
    dropped: u64,
}

const PATH: &str = "/system/async";

impl QueuedQuery {
    fn path(&self) -> String {
        let parts = [
            self.function
                .as_ref()
                .map(|name| format!("function={}", percent_encode(name))),
            self.state.map(|state| format!("state={state}")),
            self.limit.map(|limit| format!("limit={limit}")),
        ];
        let parts: Vec<_> = parts.into_iter().flatten().collect();
        format!("{PATH}?{}", parts.join("&"))
    }
}

fn path_of(call_id: &str) -> String {
    format!("{PATH}/{}", percent_encode(call_id))
}

impl Client {
    /// Invocations, the oldest first.
    pub async fn queued(&self, query: &QueuedQuery) -> Result<Vec<QueuedInvocation>, ApiError> {
        self.get(&query.path(), "GET /system/async").await
    }

    /// The invocations with a call ID; 404 if there is none.
    pub async fn queued_invocation(&self, call_id: &str) -> Result<Vec<QueuedInvocation>, ApiError> {
        self.get(&path_of(call_id), "GET /system/async/CALL-ID").await
    }

    /// Has an invocation tried again now; 404 if there is none, 409 if it is running.
    pub async fn retry_queued(&self, call_id: &str) -> Result<(), ApiError> {
        let path = format!("{}/retry", path_of(call_id));
        self.call(Method::POST, &path, Bytes::new()).await.map(drop)
    }

    /// Drops an invocation; 404 if there is none.
    pub async fn drop_queued(&self, call_id: &str) -> Result<(), ApiError> {
        self.call(Method::DELETE, &path_of(call_id), Bytes::new())
            .await
            .map(drop)
    }

    /// Drops all that are meant; says how many. The query must name a function or a state.
    pub async fn drop_all_queued(&self, query: &QueuedQuery) -> Result<u64, ApiError> {
        let response = self.call(Method::DELETE, &query.path(), Bytes::new()).await?;
        let body = response
            .into_body()
            .collect()
            .await
            .map_err(ApiError::Broken)?
            .to_bytes();
        let dropped: Dropped = serde_json::from_slice(&body).map_err(|source| ApiError::Shape {
            call: "DELETE /system/async",
            source,
        })?;
        Ok(dropped.dropped)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_and_call_ids_are_encoded() {
        assert_eq!(QueuedQuery::default().path(), "/system/async?");
        let query = QueuedQuery {
            function: Some("a.b&c".to_owned()),
            state: Some("dead"),
            limit: Some(3),
        };
        assert_eq!(query.path(), "/system/async?function=a.b%26c&state=dead&limit=3");
        assert_eq!(path_of("a/b?"), "/system/async/a%2Fb%3F");
    }
}
