//! What a user asks for when deploying a function, in OpenFaaS's shape.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::Digest;

/// Amounts of resources, as Kubernetes quantities.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Resources {
    /// Memory, for example `128Mi`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub memory: String,
    /// Processor time, for example `100m`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub cpu: String,
    /// Whatever else is asked for, for example `nvidia.com/gpu`.
    #[serde(flatten)]
    pub others: BTreeMap<String, String>,
}

/// A function as deployed by its user, kept word for word.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct FunctionDeployment {
    /// Name of the function, a DNS label.
    pub service: String,
    /// Reference of its image.
    pub image: String,
    /// Namespace; empty means the default one.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub namespace: String,
    /// Command that a watchdog inside the image runs for each invocation.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub env_process: String,
    /// Environment variables.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub env_vars: Option<BTreeMap<String, String>>,
    /// Placement constraints.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub constraints: Option<Vec<String>>,
    /// Names of secrets that the function reads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secrets: Option<Vec<String>>,
    /// Labels; those with the prefix `com.openfaas.` steer scaling.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub labels: Option<BTreeMap<String, String>>,
    /// Annotations; those with the prefix `dev.spore.` are this platform's own settings.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub annotations: Option<BTreeMap<String, String>>,
    /// Upper bounds of resources.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<Resources>,
    /// Resources that the function needs at least.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requests: Option<Resources>,
    /// Whether the function may not write to its root file system.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub read_only_root_filesystem: bool,
}

/// A deployed function, as kept across restarts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FunctionRecord {
    /// What the user asked for; its namespace is never empty here.
    pub deployment: FunctionDeployment,
    /// When the function was first deployed.
    pub created_at: Timestamp,
    /// Manifest of the image, pinned at deploy time: a tag that moves later changes nothing.
    pub image_digest: Digest,
}
