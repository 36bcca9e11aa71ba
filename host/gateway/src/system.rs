//! The OpenFaaS API: deploy, list, describe and remove functions.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use http::{Request, StatusCode, Uri};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use spore_sandbox::{Availability, Isolation, Layer};
use spore_store::{FunctionDeployment, Protocol, Resources};
use utoipa::ToSchema;

use crate::client_body::ClientBody;
use crate::config::Role;
use crate::errors::ApiError;
use crate::functions::{Function, Functions};
use crate::names::{FunctionId, namespace_of};
use crate::reply::{self, Answer};
use crate::routes::parameter;
use crate::usage;

/// Longest body of a request to the API, in bytes.
const MAX_BODY_BYTES: usize = 1 << 20;

/// A deployed function as the API shows it.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct FunctionStatus {
    name: String,
    image: String,
    namespace: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    env_process: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    env_vars: Option<BTreeMap<String, String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    constraints: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    secrets: Option<Vec<String>>,
    labels: BTreeMap<String, String>,
    annotations: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    limits: Option<Resources>,
    #[serde(skip_serializing_if = "Option::is_none")]
    requests: Option<Resources>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    read_only_root_filesystem: bool,
    #[serde(skip_serializing_if = "is_zero")]
    invocation_count: u64,
    #[serde(skip_serializing_if = "is_zero")]
    replicas: u64,
    #[serde(skip_serializing_if = "is_zero")]
    available_replicas: u64,
    #[schema(value_type = String, format = DateTime)]
    created_at: Timestamp,
    /// An addition of ours: `file-system`, if the root is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    root: Option<&'static str>,
    /// Another one: what is around its instances, `vm` or `process`.
    isolation: &'static str,
    /// And their kind of sandbox, as `dev.spore.sandbox` names it.
    sandbox: &'static str,
    /// And another: how it gets its invocations.
    protocol: Protocol,
    /// What its instances take together, where that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<FunctionUsage>,
}

/// What the instances of a function take.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct FunctionUsage {
    /// Processor time, in thousandths of one processor, while it was looked at.
    #[serde(skip_serializing_if = "is_zero")]
    cpu: u64,
    /// Memory, in bytes.
    #[serde(skip_serializing_if = "is_zero")]
    total_memory_bytes: u64,
}

// The reference is serde's demand.
#[allow(clippy::trivially_copy_pass_by_ref)]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// The function's status; the number of invocations belongs to the list only.
fn status(role: Role, function: &Function, invocation_count: u64) -> FunctionStatus {
    let record = function.record();
    let deployment = record.deployment.clone();
    let pool = function.pool.status();
    // See `provider`.
    let is_on_demand = role == Role::Provider && !function.is_scaled_to_zero();
    let at_least = usize::from(is_on_demand);
    let mut labels = deployment.labels.unwrap_or_default();
    labels.insert("faas_function".to_owned(), function.id.name.clone());
    FunctionStatus {
        name: deployment.service,
        image: deployment.image,
        namespace: deployment.namespace,
        env_process: deployment.env_process,
        env_vars: deployment.env_vars.filter(|variables| !variables.is_empty()),
        constraints: deployment
            .constraints
            .filter(|constraints| !constraints.is_empty()),
        secrets: deployment.secrets.filter(|secrets| !secrets.is_empty()),
        labels,
        annotations: deployment.annotations.unwrap_or_default(),
        limits: deployment.limits,
        requests: deployment.requests,
        read_only_root_filesystem: deployment.read_only_root_filesystem,
        invocation_count,
        replicas: (pool.starting + pool.idle + pool.busy).max(at_least) as u64,
        available_replicas: (pool.idle + pool.busy).max(at_least) as u64,
        created_at: record.created_at,
        root: function.has_file_system().then_some("file-system"),
        isolation: function.isolation().name(),
        sandbox: function.template().sandbox.name(),
        protocol: function.protocol(),
        usage: None,
    }
}

/// `GET /system/info`
#[utoipa::path(
    get,
    path = "/system/info",
    responses(
        (status = 200, description = "What the daemon is", body = serde_json::Value),
    )
)]
pub(crate) fn info(
    role: Role,
    sandbox_kind: &str,
    isolation: Option<Isolation>,
    sandboxes: &[Availability],
    layers: &[Layer],
) -> Answer {
    let version = serde_json::json!({
        "release": env!("CARGO_PKG_VERSION"),
        "sha": option_env!("SPORE_COMMIT").unwrap_or("unknown"),
    });
    // An addition of ours: what keeps instances apart here, with the reason of what does not.
    let layers: Vec<_> = layers
        .iter()
        .map(|layer| serde_json::json!({ "name": layer.name, "active": layer.missing.is_none(), "reason": layer.missing }))
        .collect();
    // Another one: the kinds of sandbox that functions can name.
    let sandboxes: Vec<_> = sandboxes
        .iter()
        .map(|state| serde_json::json!({ "name": state.kind.name(), "available": state.missing.is_none(), "reason": state.missing }))
        .collect();
    let provider =
        serde_json::json!({ "provider": "spore", "version": version, "orchestration": sandbox_kind });
    // A gateway makes the other form of what its provider says.
    if role == Role::Provider {
        return reply::json(StatusCode::OK, &provider);
    }
    let info = serde_json::json!({
        "provider": provider,
        "isolation": isolation.map(Isolation::name),
        "version": version,
        "arch": std::env::consts::ARCH,
        "layers": layers,
        "sandboxes": sandboxes,
    });
    reply::json(StatusCode::OK, &info)
}

/// `GET /system/functions`
#[utoipa::path(
    get,
    path = "/system/functions",
    params(("namespace" = Option<String>, Query, description = "Namespace; openfaas-fn unless given")),
    responses(
        (status = 200, description = "The functions of a namespace", body = [FunctionStatus]),
        (status = 404, description = "There is no such namespace"),
    )
)]
pub(crate) fn list(functions: &Functions, uri: &Uri) -> Result<Answer, ApiError> {
    let namespace = namespace_of("", uri);
    functions.check_namespace(&namespace)?;
    let role = functions.config.role;
    let functions = functions.all_in(&namespace);
    let list: Vec<_> = functions
        .iter()
        .map(|function| status(role, function, function.invocations.load(Ordering::Relaxed)))
        .collect();
    Ok(reply::json(StatusCode::OK, &list))
}

/// `GET /system/function/NAME`
#[utoipa::path(
    get,
    path = "/system/function/{name}",
    params(
        ("name" = String, Path, description = "NAME or NAME.NAMESPACE"),
        ("namespace" = Option<String>, Query, description = "Namespace; openfaas-fn unless given"),
        ("usage" = Option<String>, Query, description = "1 or true: what its instances take, which is looked at for 0.2 s"),
    ),
    responses(
        (status = 200, description = "The function", body = FunctionStatus),
        (status = 404, description = "There is no such function"),
    )
)]
pub(crate) async fn describe(functions: &Functions, name: &str, uri: &Uri) -> Result<Answer, ApiError> {
    let function = functions.named(&FunctionId::new(name, "", uri))?;
    let mut status = status(functions.config.role, &function, 0);
    if parameter(uri, "usage").is_some_and(|value| matches!(value.as_str(), "1" | "true")) {
        let rate = usage::rate_of(function).await?;
        status.usage = Some(FunctionUsage {
            cpu: rate.processor_millis,
            total_memory_bytes: rate.memory_bytes,
        });
    }
    Ok(reply::json(StatusCode::OK, &status))
}

/// `GET /system/function/NAME/stats`, an addition of ours
#[utoipa::path(
    get,
    path = "/system/function/{name}/stats",
    params(("name" = String, Path, description = "NAME or NAME.NAMESPACE"), ("namespace" = Option<String>, Query, description = "Namespace; openfaas-fn unless given")),
    responses(
        (status = 200, description = "How long its instances took: see docs/statistics.md", body = serde_json::Value),
        (status = 404, description = "There is no such function"),
    )
)]
pub(crate) fn statistics(functions: &Functions, name: &str, uri: &Uri) -> Result<Answer, ApiError> {
    let function = functions.named(&FunctionId::new(name, "", uri))?;
    let report = function
        .statistics()
        .report(&function.id.name, &function.id.namespace);
    Ok(reply::json(StatusCode::OK, &report))
}

/// `POST /system/functions`
#[utoipa::path(
    post,
    path = "/system/functions",
    params(("namespace" = Option<String>, Query, description = "Namespace; openfaas-fn unless given")),
    request_body = FunctionDeployment,
    responses(
        (status = 202, description = "It is deployed"),
        (status = 400, description = "The deployment is not valid"),
        (status = 409, description = "The function exists"),
        (status = 413, description = "The body is too long"),
    )
)]
pub(crate) async fn create(
    functions: &Functions,
    request: Request<ClientBody>,
    own_names: &[String],
) -> Result<Answer, ApiError> {
    let deployment = read_deployment(request).await?;
    functions.create(deployment, own_names).await?;
    Ok(reply::empty(StatusCode::ACCEPTED))
}

/// `PUT /system/functions`
#[utoipa::path(
    put,
    path = "/system/functions",
    params(("namespace" = Option<String>, Query, description = "Namespace; openfaas-fn unless given")),
    request_body = FunctionDeployment,
    responses(
        (status = 202, description = "No invocation reaches the old version any more"),
        (status = 400, description = "The deployment is not valid"),
        (status = 404, description = "There is no such function"),
        (status = 413, description = "The body is too long"),
    )
)]
pub(crate) async fn update(
    functions: &Functions,
    request: Request<ClientBody>,
    own_names: &[String],
) -> Result<Answer, ApiError> {
    let deployment = read_deployment(request).await?;
    functions.update(deployment, own_names).await?;
    Ok(reply::empty(StatusCode::ACCEPTED))
}

async fn read_deployment(request: Request<ClientBody>) -> Result<FunctionDeployment, ApiError> {
    let uri = request.uri().clone();
    let mut deployment: FunctionDeployment = read_json(request.into_body()).await?;
    // The name is checked later, and has no dot in it: it names no namespace.
    deployment.namespace = namespace_of(&deployment.namespace, &uri);
    Ok(deployment)
}

/// What is to be removed.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Removal {
    function_name: String,
    #[serde(default)]
    namespace: String,
}

/// `DELETE /system/functions`
#[utoipa::path(
    delete,
    path = "/system/functions",
    params(("namespace" = Option<String>, Query, description = "Namespace; openfaas-fn unless given")),
    request_body = Removal,
    responses(
        (status = 202, description = "It is removed"),
        (status = 400, description = "The body is not valid"),
        (status = 404, description = "There is no such function"),
        (status = 413, description = "The body is too long"),
    )
)]
pub(crate) async fn remove(functions: &Functions, request: Request<ClientBody>) -> Result<Answer, ApiError> {
    let uri = request.uri().clone();
    let removal: Removal = read_json(request.into_body()).await?;
    let id = FunctionId::new(&removal.function_name, &removal.namespace, &uri);
    functions.remove(&id).await?;
    Ok(reply::empty(StatusCode::ACCEPTED))
}

/// Reads a JSON document of bounded length.
pub(crate) async fn read_json<T: serde::de::DeserializeOwned>(body: ClientBody) -> Result<T, ApiError> {
    let bytes = read_body(body, MAX_BODY_BYTES).await?;
    serde_json::from_slice(&bytes).map_err(ApiError::BadJson)
}

/// Reads a body of bounded length.
pub(crate) async fn read_body(body: ClientBody, limit_bytes: usize) -> Result<Bytes, ApiError> {
    match Limited::new(body, limit_bytes).collect().await {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(ApiError::TooLong { limit_bytes }),
        Err(error) => Err(ApiError::Body(error)),
    }
}
