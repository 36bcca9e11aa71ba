//! How a function gets its invocations.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// How a function gets its invocations.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// Its program listens on a port and is sent requests of HTTP/1.1.
    #[default]
    Http,
    /// Its program asks for events by the Runtime API of AWS Lambda.
    Lambda,
}

impl Protocol {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Http, Self::Lambda];

    /// The name as users write it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Lambda => "lambda",
        }
    }

    /// The protocol of this name, if there is one.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|protocol| protocol.name() == name)
    }
}
