//! `POST /system/alert`: Alertmanager says that a function has too much to do, or has not any more.
//!
//! Demand alone starts instances here, sooner than any alert; this is for those whose alerts are set up already.

use http::{Request, StatusCode};
use serde::Deserialize;
use utoipa::ToSchema;

use crate::client_body::ClientBody;
use crate::errors::ApiError;
use crate::functions::{Function, Functions};
use crate::names::{FunctionId, excerpt};
use crate::reply::{self, Answer};
use crate::settings::Settings;
use crate::system::read_json;

/// What Alertmanager posts, as far as it matters here.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct Notification {
    #[serde(default)]
    alerts: Vec<Alert>,
}

#[derive(Debug, Deserialize, ToSchema)]
struct Alert {
    status: Status,
    #[serde(default)]
    labels: Labels,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum Status {
    Firing,
    Resolved,
}

#[derive(Debug, Default, Deserialize, ToSchema)]
struct Labels {
    #[serde(default)]
    function_name: String,
}

/// Scales each function that an alert names: up by its factor, or back to its minimum. An alert about a function that is
/// not there concerns nobody, since Alertmanager goes on about those that were removed.
#[utoipa::path(
    post,
    path = "/system/alert",
    request_body = Notification,
    responses(
        (status = 200, description = "The functions that are there are scaled"),
        (status = 400, description = "The body is not valid"),
        (status = 413, description = "The body is too long"),
    )
)]
pub(crate) async fn answer(functions: &Functions, request: Request<ClientBody>) -> Result<Answer, ApiError> {
    let uri = request.uri().clone();
    let notification: Notification = read_json(request.into_body()).await?;
    for Alert { status, labels } in notification.alerts {
        let id = FunctionId::new(&labels.function_name, "", &uri);
        let Ok(function) = functions.named(&id) else {
            tracing::debug!(
                function = excerpt(&id.key()),
                "an alert names a function that is not there"
            );
            continue;
        };
        let settings = Settings::of(&function.record().deployment, &functions.config)?;
        let instances = instances(status, present(&function), &settings);
        function
            .scale(instances.into())
            .map_err(|error| ApiError::Scale {
                name: function.name.clone(),
                source: error.into(),
            })?;
    }
    Ok(reply::empty(StatusCode::OK))
}

/// Instances of the function that there are.
fn present(function: &Function) -> u32 {
    let pool = function.pool.status();
    u32::try_from(pool.starting + pool.idle + pool.busy).unwrap_or(u32::MAX)
}

/// How many there are to be.
fn instances(status: Status, present: u32, settings: &Settings) -> u32 {
    let (min, max) = (settings.limits.min_instances, settings.limits.max_instances);
    match status {
        Status::Resolved => min,
        Status::Firing => {
            let step = u64::from(max) * u64::from(settings.scale_factor_percent);
            let step = u32::try_from(step.div_ceil(100)).unwrap_or(u32::MAX);
            present.max(min).saturating_add(step).min(max)
        }
    }
}

#[cfg(test)]
mod tests {
    use spore_store::FunctionDeployment;

    use super::*;
    use crate::config::DaemonConfig;

    #[test]
    fn alerts_step_up_and_go_back_down() {
        let settings = |factor: &str| {
            let labels = [
                ("com.openfaas.scale.min", "2"),
                ("com.openfaas.scale.factor", factor),
            ];
            let labels = labels.map(|(name, value)| (name.to_owned(), value.to_owned()));
            let deployment = FunctionDeployment {
                service: "hello".to_owned(),
                image: "hello".to_owned(),
                labels: Some(labels.into()),
                ..FunctionDeployment::default()
            };
            Settings::of(&deployment, &DaemonConfig::default())
        };
        let of = |factor, status, present| instances(status, present, &settings(factor).expect("valid"));
        assert_eq!(of("20", Status::Firing, 0), 6);
        assert_eq!(of("20", Status::Firing, 6), 10);
        assert_eq!(of("1", Status::Firing, 6), 7);
        assert_eq!(of("0", Status::Firing, 6), 6);
        assert_eq!(of("100", Status::Firing, u32::MAX), 20);
        assert_eq!(of("20", Status::Resolved, 10), 2);
        assert!(settings("101").is_err() && settings("-1").is_err());
    }
}
