//! How many instances of a function are started, whether there is demand or not.

use http::{Request, StatusCode, Uri};
use serde::Deserialize;
use utoipa::ToSchema;

use crate::client_body::ClientBody;
use crate::config::Role;
use crate::errors::{ApiError, ScaleError};
use crate::functions::{Function, Functions};
use crate::names::{FunctionId, excerpt};
use crate::reply::{self, Answer};
use crate::routes::parameter;
use crate::settings::Settings;
use crate::system::read_json;

/// How many instances there are to be.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Scale {
    /// The path names the function too; some clients call this field `service`.
    #[serde(default, alias = "service")]
    service_name: String,
    replicas: u64,
    #[serde(default)]
    namespace: String,
}

/// `POST /system/scale-function/NAME`: so many instances are kept started until the next such call, deployment or start
/// of the daemon.
#[utoipa::path(
    post,
    path = "/system/scale-function/{name}",
    params(("name" = String, Path, description = "NAME or NAME.NAMESPACE"), ("namespace" = Option<String>, Query, description = "Namespace; openfaas-fn unless given")),
    request_body = Scale,
    responses(
        (status = 202, description = "So many instances are kept started"),
        (status = 400, description = "There may not be so many, or the body is not valid"),
        (status = 404, description = "There is no such function"),
        (status = 413, description = "The body is too long"),
    )
)]
pub(crate) async fn scale(
    functions: &Functions,
    name: &str,
    request: Request<ClientBody>,
) -> Result<Answer, ApiError> {
    let uri = request.uri().clone();
    let scale: Scale = read_json(request.into_body()).await?;
    let id = FunctionId::new(name, &scale.namespace, &uri);
    let function = functions.named(&id)?;
    if !scale.service_name.is_empty() && FunctionId::new(&scale.service_name, "", &uri).name != id.name {
        return Err(ApiError::TwoNames {
            path: excerpt(name),
            body: excerpt(&scale.service_name),
        });
    }
    let is_from_zero = functions.config.role == Role::Provider && scale.replicas == 1;
    if is_from_zero && function.is_scaled_to_zero() && keeps_none(functions, &function) {
        function.scale_from_zero();
    } else {
        function
            .scale(scale.replicas)
            .map_err(|error| refused(&function, error))?;
    }
    Ok(reply::empty(StatusCode::ACCEPTED))
}

/// Whether the function has instances only while there is something to do.
fn keeps_none(functions: &Functions, function: &Function) -> bool {
    let settings = Settings::of(&function.record().deployment, &functions.config);
    settings.is_ok_and(|settings| settings.limits.min_instances == 0)
}

/// `POST /system/function/NAME/pre-boot/N`: so many instances are started now, beyond those that there are.
#[utoipa::path(
    post,
    path = "/system/function/{name}/pre-boot/{count}",
    params(("name" = String, Path, description = "NAME or NAME.NAMESPACE"), ("count" = u64, Path, description = "How many"), ("namespace" = Option<String>, Query, description = "Namespace; openfaas-fn unless given")),
    responses(
        (status = 202, description = "How many are started", body = serde_json::Value),
        (status = 400, description = "There may not be so many"),
        (status = 404, description = "There is no such function"),
    )
)]
pub(crate) fn pre_boot(
    functions: &Functions,
    name: &str,
    count: &str,
    uri: &Uri,
) -> Result<Answer, ApiError> {
    let function = functions.named(&FunctionId::new(name, "", uri))?;
    let instances: u64 = count.parse().map_err(|_| ApiError::BadCount {
        text: count.chars().take(100).collect(),
    })?;
    let started = function
        .pool
        .pre_boot(instances)
        .map_err(|error| refused(&function, error))?;
    let answer = serde_json::json!({ "started": started });
    Ok(reply::json(StatusCode::ACCEPTED, &answer))
}

/// `POST /pre-boot/N?function=NAME`: the same.
#[utoipa::path(
    post,
    path = "/pre-boot/{count}",
    params(("count" = u64, Path, description = "How many"), ("function" = String, Query, description = "NAME or NAME.NAMESPACE"), ("namespace" = Option<String>, Query, description = "Namespace; openfaas-fn unless given")),
    responses(
        (status = 202, description = "How many are started", body = serde_json::Value),
        (status = 400, description = "There may not be so many, or no function is named"),
        (status = 404, description = "There is no such function"),
    )
)]
pub(crate) fn pre_boot_by_query(functions: &Functions, count: &str, uri: &Uri) -> Result<Answer, ApiError> {
    let name = parameter(uri, "function").ok_or(ApiError::NoFunctionNamed)?;
    pre_boot(functions, &name, count, uri)
}

fn refused(function: &Function, error: impl Into<ScaleError>) -> ApiError {
    ApiError::Scale {
        name: function.name.clone(),
        source: error.into(),
    }
}
