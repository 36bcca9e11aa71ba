//! What calls functions without a caller.

use bytes::Bytes;
use http::Method;
use http_body_util::BodyExt;
use serde::{Deserialize, Serialize};

use crate::api::{ApiError, percent_encode};
use crate::transport::Client;

/// A trigger of a function.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trigger {
    /// `NAME.NAMESPACE` of the function.
    pub function: String,
    /// `schedule`, `folder` or `subject`.
    pub kind: String,
    /// Its times.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule: Option<String>,
    /// Their time zone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time_zone: Option<String>,
    /// What becomes of times that the daemon misses: `skip` or `once`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub missed: Option<String>,
    /// When it is due next, in milliseconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_ms: Option<i64>,
    /// Its folder, below the daemon's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub folder: Option<String>,
    /// The subject of the messages that it is called for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// Calls since the daemon started.
    pub calls: u64,
    /// When the latest was accepted, in milliseconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_ms: Option<u64>,
    /// Its call ID.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_call_id: Option<String>,
    /// Why the latest call was not made, if it was not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// As what a function is called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Firing {
    /// As by its schedule.
    Schedule,
    /// For a file in a folder that it watches.
    File(String),
    /// For a message.
    Message {
        /// Its subject.
        topic: String,
        /// What it says.
        body: Bytes,
    },
}

/// What was called.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fired {
    /// Identifies the call in the queue.
    pub call_id: String,
}

impl Client {
    /// All triggers, or those of a function; 404 if there is no such function.
    pub async fn triggers(&self, function: Option<&str>) -> Result<Vec<Trigger>, ApiError> {
        let path = match function {
            Some(name) => format!(
                "/system/triggers?function={}",
                percent_encode(&self.full_name(name))
            ),
            None => "/system/triggers".to_owned(),
        };
        let mut triggers: Vec<Trigger> = self.get(&path, "GET /system/triggers").await?;
        if let Some(namespace) = self.namespace() {
            let is_of_it = |function: &str| function.rsplit_once('.').is_some_and(|(_, of)| of == namespace);
            triggers.retain(|trigger| is_of_it(&trigger.function));
        }
        Ok(triggers)
    }

    /// Calls a function as its trigger does.
    pub async fn fire_trigger(&self, function: &str, fired: Firing) -> Result<Fired, ApiError> {
        let mut path = format!(
            "/system/triggers/{}/fire",
            percent_encode(&self.full_name(function))
        );
        let body = match fired {
            Firing::Schedule => Bytes::new(),
            Firing::File(file) => {
                path.push_str(&format!("?file={}", percent_encode(&file)));
                Bytes::new()
            }
            Firing::Message { topic, body } => {
                path.push_str(&format!("?topic={}", percent_encode(&topic)));
                body
            }
        };
        let response = self.call(Method::POST, &path, body).await?;
        let body = response.into_body().collect().await.map_err(ApiError::Broken)?;
        serde_json::from_slice(&body.to_bytes()).map_err(|source| ApiError::Shape {
            call: "POST /system/triggers/NAME/fire",
            source,
        })
    }
}
