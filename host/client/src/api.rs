//! The gateway's REST API in OpenFaaS's shapes.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::statistics::FunctionStatistics;
use crate::transport::{Client, RequestBody, RequestError, full, read_message};

/// A function as it is deployed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct FunctionDeployment {
    /// Name of the function.
    pub service: String,
    /// Image that it runs.
    pub image: String,
    /// Namespace; the client's unless it names one.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub namespace: String,
    /// Command that is run for each invocation; none of a server.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub env_process: String,
    /// Environment variables.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub env_vars: BTreeMap<String, String>,
    /// Names of secrets that it reads.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub secrets: Vec<String>,
    /// Labels.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Annotations.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// Upper bounds of what an instance may use.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limits: Option<Resources>,
    /// What an instance is to be sure of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub requests: Option<Resources>,
}

/// Amounts of resources as Kubernetes quantities.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resources {
    /// Memory, for example `64Mi`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<String>,
    /// Processor time, for example `100m`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu: Option<String>,
}

/// A function as the gateway reports it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FunctionStatus {
    /// Name of the function.
    pub name: String,
    /// Image as named at its deployment.
    #[serde(default)]
    pub image: String,
    /// Namespace.
    #[serde(default)]
    pub namespace: String,
    /// Environment variables.
    #[serde(default)]
    pub env_vars: BTreeMap<String, String>,
    /// Names of secrets that it reads.
    #[serde(default)]
    pub secrets: Vec<String>,
    /// Labels.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Annotations.
    #[serde(default)]
    pub annotations: BTreeMap<String, String>,
    /// Upper bounds of what an instance may use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<Resources>,
    /// Invocations so far; only the list tells it.
    #[serde(default)]
    pub invocation_count: f64,
    /// Instances.
    #[serde(default)]
    pub replicas: u64,
    /// Instances that can take an invocation.
    #[serde(default)]
    pub available_replicas: u64,
    /// `file-system` if that is what its instances find as their root, rather than the program alone.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub root: String,
    /// What is around its instances, `vm` or `process`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub isolation: String,
    /// Their kind of sandbox, for example `unikernel` or `runc`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub sandbox: String,
    /// How it gets its invocations: `http`, `lambda`, or `exec` if a command is run for each of them.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub protocol: String,
    /// Command that is run for each invocation, as it was deployed.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub env_process: String,
    /// When it was deployed, RFC 3339.
    #[serde(default)]
    pub created_at: String,
}

/// A secret, without its value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Secret {
    /// Its name.
    pub name: String,
    /// Namespace whose functions can use it.
    #[serde(default)]
    pub namespace: String,
}

/// What a deployment did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deployed {
    /// The function is new.
    Created,
    /// The function was there and has been replaced.
    Updated,
}

/// Which lines of a function's log to send.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LogQuery {
    /// Name of the function.
    pub name: String,
    /// Goes on with lines as they are written.
    pub follow: bool,
    /// At most so many lines, the latest.
    pub tail: Option<u32>,
    /// Only lines since then, RFC 3339.
    pub since: Option<String>,
}

/// One line of a function's log.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct LogLine {
    /// Instance that wrote it.
    #[serde(default)]
    pub instance: String,
    /// When, RFC 3339.
    #[serde(default)]
    pub timestamp: String,
    /// The line itself.
    pub text: String,
}

/// Why a call of the API failed.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// There is no answer.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// The gateway refused; the message is its own.
    #[error("{}", refusal(*status, message))]
    Refused {
        /// Status of the answer.
        status: StatusCode,
        /// What the gateway says, in one or more lines; may be empty.
        message: String,
    },
    /// The answer broke off.
    #[error("the gateway's answer broke off")]
    Broken(#[source] hyper::Error),
    /// The answer is not what the API promises.
    #[error("the gateway's answer to {call} is not what its API promises")]
    Shape {
        /// The call.
        call: &'static str,
        /// What is wrong with it.
        #[source]
        source: serde_json::Error,
    },
    /// What is to be sent has no JSON form.
    #[error("the request has no JSON form")]
    Encode(#[source] serde_json::Error),
}

fn refusal(status: StatusCode, message: &str) -> String {
    match registry_message(message).as_deref().unwrap_or(message) {
        // The answer to a HEAD has no text.
        _ if status == StatusCode::UNAUTHORIZED => {
            "the gateway wants a name and a password, and these are not right: see `spore login --help`"
                .to_owned()
        }
        "" if status.is_server_error() => format!("the gateway answered {status}: its log says why"),
        "" => format!("the gateway answered {status}"),
        message => format!("the gateway answered {status}: {message}"),
    }
}

/// The messages in an error of the registry, which the OCI distribution specification puts into JSON.
fn registry_message(body: &str) -> Option<String> {
    #[derive(Deserialize)]
    struct Errors {
        errors: Vec<Error>,
    }
    #[derive(Deserialize)]
    struct Error {
        message: String,
    }
    let Errors { errors } = serde_json::from_str(body).ok()?;
    let messages: Vec<_> = errors.into_iter().map(|error| error.message).collect();
    Some(messages.join("; "))
}

impl Client {
    /// Replaces the function, or makes it if there is none: PUT, then POST on 404, as faas-cli does.
    pub async fn deploy(&self, function: &FunctionDeployment) -> Result<Deployed, ApiError> {
        let body = self.placed(function)?;
        let answer = self.call(Method::PUT, "/system/functions", body.clone()).await;
        match answer {
            Ok(_) => Ok(Deployed::Updated),
            Err(ApiError::Refused {
                status: StatusCode::NOT_FOUND,
                ..
            }) => {
                self.call(Method::POST, "/system/functions", body).await?;
                Ok(Deployed::Created)
            }
            Err(error) => Err(error),
        }
    }

    /// Makes a function; 409 if there is one of that name.
    pub async fn create(&self, function: &FunctionDeployment) -> Result<(), ApiError> {
        self.call(Method::POST, "/system/functions", self.placed(function)?)
            .await
            .map(drop)
    }

    /// Removes a function; 404 if there is none.
    pub async fn remove(&self, name: &str) -> Result<(), ApiError> {
        let body = self.with_namespace(serde_json::json!({ "functionName": name }))?;
        self.call(Method::DELETE, "/system/functions", body)
            .await
            .map(drop)
    }

    /// Keeps so many instances of a function started; 404 if there is none. Returns before they are there.
    pub async fn scale(&self, name: &str, replicas: u32) -> Result<(), ApiError> {
        let body = self.with_namespace(serde_json::json!({ "serviceName": name, "replicas": replicas }))?;
        let path = self.path(&format!("/system/scale-function/{name}"));
        self.call(Method::POST, &path, body).await.map(drop)
    }

    /// All functions of the namespace.
    pub async fn list(&self) -> Result<Vec<FunctionStatus>, ApiError> {
        self.get(&self.path("/system/functions"), "GET /system/functions")
            .await
    }

    /// One function; 404 if there is none.
    pub async fn describe(&self, name: &str) -> Result<FunctionStatus, ApiError> {
        let path = self.path(&format!("/system/function/{name}"));
        self.get(&path, "GET /system/function/NAME").await
    }

    /// How long a function's instances took; 404 if there is none.
    pub async fn statistics(&self, name: &str) -> Result<FunctionStatistics, ApiError> {
        let path = self.path(&format!("/system/function/{name}/stats"));
        self.get(&path, "GET /system/function/NAME/stats").await
    }

    /// The secrets, without their values.
    pub async fn secrets(&self) -> Result<Vec<Secret>, ApiError> {
        self.get(&self.path(SECRETS), "GET /system/secrets").await
    }

    /// Makes a secret; 409 if there is one of that name.
    pub async fn create_secret(&self, name: &str, value: &[u8]) -> Result<(), ApiError> {
        let body = self.secret(name, value)?;
        self.call(Method::POST, SECRETS, body).await.map(drop)
    }

    /// Replaces a secret; 404 if there is none.
    pub async fn update_secret(&self, name: &str, value: &[u8]) -> Result<(), ApiError> {
        let body = self.secret(name, value)?;
        self.call(Method::PUT, SECRETS, body).await.map(drop)
    }

    /// Removes a secret; 404 if there is none, 409 if a function uses it.
    pub async fn remove_secret(&self, name: &str) -> Result<(), ApiError> {
        let body = self.with_namespace(serde_json::json!({ "name": name }))?;
        self.call(Method::DELETE, SECRETS, body).await.map(drop)
    }

    /// Opens a function's log: newline-delimited JSON, each line a [`LogLine`].
    pub async fn logs(&self, query: &LogQuery) -> Result<Incoming, ApiError> {
        let path = log_path(query, self.namespace());
        let response = self.call(Method::GET, &path, Bytes::new()).await?;
        Ok(response.into_body())
    }

    /// The path with the namespace, if there is one to name.
    fn path(&self, path: &str) -> String {
        match self.namespace() {
            Some(namespace) => format!("{path}?namespace={}", percent_encode(namespace)),
            None => path.to_owned(),
        }
    }

    /// A body, which is an object, with the namespace, if there is one to name.
    fn with_namespace(&self, mut body: serde_json::Value) -> Result<Bytes, ApiError> {
        if let Some(namespace) = self.namespace() {
            body["namespace"] = namespace.into();
        }
        encode(&body)
    }

    fn placed(&self, function: &FunctionDeployment) -> Result<Bytes, ApiError> {
        match self.namespace() {
            Some(namespace) if function.namespace.is_empty() => encode(&FunctionDeployment {
                namespace: namespace.to_owned(),
                ..function.clone()
            }),
            _ => encode(function),
        }
    }

    fn secret(&self, name: &str, value: &[u8]) -> Result<Bytes, ApiError> {
        self.with_namespace(serde_json::json!({ "name": name, "rawValue": STANDARD.encode(value) }))
    }

    pub(crate) async fn get<T: DeserializeOwned>(
        &self,
        path: &str,
        call: &'static str,
    ) -> Result<T, ApiError> {
        read(self.call(Method::GET, path, Bytes::new()).await?, call).await
    }

    /// Sends a call with a JSON body and reads its answer.
    pub(crate) async fn call_for<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: &impl Serialize,
        call: &'static str,
    ) -> Result<T, ApiError> {
        read(self.call_with(method, path, body).await?, call).await
    }

    /// Sends a call with a JSON body.
    pub(crate) async fn call_with(
        &self,
        method: Method,
        path: &str,
        body: &impl Serialize,
    ) -> Result<Response<Incoming>, ApiError> {
        self.call(method, path, encode(body)?).await
    }

    /// Sends a call with a JSON body, if any, and takes any answer of success.
    pub(crate) async fn call(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<Response<Incoming>, ApiError> {
        let mut request = Request::builder().method(method).uri(path);
        if !body.is_empty() {
            request = request.header(http::header::CONTENT_TYPE, "application/json");
        }
        self.checked(request.body(full(body)).map_err(RequestError::NotHttp)?)
            .await
    }

    /// Sends a request and turns every status that is no success into an error with the gateway's message.
    pub(crate) async fn checked(
        &self,
        request: Request<RequestBody>,
    ) -> Result<Response<Incoming>, ApiError> {
        let response = self.send(request).await?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        Err(ApiError::Refused {
            status,
            message: read_message(response.into_body()).await,
        })
    }
}

const SECRETS: &str = "/system/secrets";

async fn read<T: DeserializeOwned>(response: Response<Incoming>, call: &'static str) -> Result<T, ApiError> {
    let body = response.into_body().collect().await.map_err(ApiError::Broken)?;
    serde_json::from_slice(&body.to_bytes()).map_err(|source| ApiError::Shape { call, source })
}

fn encode(value: &impl Serialize) -> Result<Bytes, ApiError> {
    serde_json::to_vec(value)
        .map(Bytes::from)
        .map_err(ApiError::Encode)
}

fn log_path(query: &LogQuery, namespace: Option<&str>) -> String {
    let mut path = format!(
        "/system/logs?name={}&follow={}",
        percent_encode(&query.name),
        query.follow
    );
    if let Some(namespace) = namespace {
        path.push_str(&format!("&namespace={}", percent_encode(namespace)));
    }
    if let Some(tail) = query.tail {
        path.push_str(&format!("&tail={tail}"));
    }
    if let Some(since) = &query.since {
        path.push_str(&format!("&since={}", percent_encode(since)));
    }
    path
}

/// Encodes text for use as a name or value in a query.
pub fn percent_encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_set_is_not_sent() {
        let function = FunctionDeployment {
            service: "a".into(),
            image: "a:latest".into(),
            ..Default::default()
        };
        assert_eq!(
            serde_json::to_value(&function).unwrap(),
            serde_json::json!({"service": "a", "image": "a:latest"})
        );
    }

    #[test]
    fn a_namespace_goes_with_everything_that_is_in_one() {
        let client = Client::new("127.0.0.1:8080").unwrap();
        let of_team = client.clone().in_namespace(Some("team".into()));
        let function = FunctionDeployment {
            service: "a".into(),
            ..Default::default()
        };
        let json = |bytes: Bytes| serde_json::from_slice::<serde_json::Value>(&bytes).unwrap();
        assert_eq!(json(of_team.placed(&function).unwrap())["namespace"], "team");
        assert!(json(client.placed(&function).unwrap()).get("namespace").is_none());
        let other = FunctionDeployment {
            namespace: "other".into(),
            ..function
        };
        assert_eq!(json(of_team.placed(&other).unwrap())["namespace"], "other");
        assert_eq!(
            of_team.path("/system/functions"),
            "/system/functions?namespace=team"
        );
        assert_eq!(client.path("/system/functions"), "/system/functions");
        assert_eq!(of_team.function_url("a"), "http://127.0.0.1:8080/function/a.team");
        assert_eq!(
            json(of_team.with_namespace(serde_json::json!({"name": "s"})).unwrap()),
            serde_json::json!({"name": "s", "namespace": "team"})
        );
        assert_eq!(client.in_namespace(Some(String::new())).namespace(), None);
    }

    #[test]
    fn refusals_are_readable_wherever_they_come_from() {
        let status = StatusCode::INSUFFICIENT_STORAGE;
        let registry = r#"{"errors":[{"code":"UNKNOWN","message":"the disk is full"}]}"#;
        for message in [registry, "the disk is full"] {
            let refused = ApiError::Refused {
                status,
                message: message.to_owned(),
            };
            assert_eq!(
                refused.to_string(),
                "the gateway answered 507 Insufficient Storage: the disk is full"
            );
        }
    }

    #[test]
    fn log_queries_are_encoded() {
        let query = LogQuery {
            name: "a".into(),
            follow: true,
            tail: Some(3),
            since: Some("2026-01-02T03:04:05+01:00".into()),
        };
        assert_eq!(
            log_path(&query, Some("team")),
            "/system/logs?name=a&follow=true&namespace=team&tail=3&since=2026-01-02T03%3A04%3A05%2B01%3A00"
        );
    }
}
