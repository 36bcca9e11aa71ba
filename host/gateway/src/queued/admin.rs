//! What is in the queue, and what an administrator does about it.
//!
//! ```text
//!  GET    /system/async[?function=NAME][&namespace=NS][&state=alive|dead][&limit=N]   list
//!  DELETE /system/async?function=NAME[&namespace=NS]&state=dead                       drop all of them
//!  GET    /system/async/CALL-ID                                                       show, with its body
//!  POST   /system/async/CALL-ID/retry                                                 try it again now
//!  DELETE /system/async/CALL-ID                                                       drop it
//! ```

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::{Method, Request, StatusCode, Uri};
use serde::Serialize;
use spore_queue::{Entry, ListQuery, State};

use crate::client_body::ClientBody;
use crate::errors::ApiError;
use crate::names::FunctionId;
use crate::reply::{self, Answer};
use crate::routes::{Gateway, decode, parameter, wrong_method};

/// Invocations that are listed if nobody says how many.
const LISTED: usize = 1000;
/// Most that can be asked for.
const LISTED_MAX: usize = 100_000;

/// An invocation as the API shows it.
#[derive(Serialize)]
struct Shown<'a> {
    call_id: &'a str,
    function: &'a str,
    /// `waiting`, `running` or `dead`.
    state: &'static str,
    method: &'a str,
    path: &'a str,
    body_bytes: u64,
    accepted_ms: u64,
    /// When its next attempt may begin; for one that waits.
    #[serde(skip_serializing_if = "Option::is_none")]
    due_ms: Option<u64>,
    attempts: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    last: &'a Option<spore_queue::Attempt>,
    #[serde(skip_serializing_if = "Option::is_none")]
    callback: &'a Option<String>,
}

impl<'a> Shown<'a> {
    fn of(entry: &'a Entry) -> Self {
        let message = &entry.message;
        let (state, due_ms) = match message.state {
            _ if entry.is_running => ("running", None),
            State::Waiting { due_ms } => ("waiting", Some(due_ms)),
            State::Dead => ("dead", None),
        };
        Self {
            call_id: &message.call_id,
            function: &message.function,
            state,
            method: &message.method,
            path: &message.path,
            body_bytes: message.body_bytes,
            accepted_ms: message.accepted_ms,
            due_ms,
            attempts: message.attempts,
            last: &message.last,
            callback: &message.callback,
        }
    }
}

/// The same, with what the function gets.
#[derive(Serialize)]
struct ShownInFull<'a> {
    #[serde(flatten)]
    shown: Shown<'a>,
    headers: &'a [(String, String)],
    /// In base64.
    body: String,
}

/// Answers below `/system/async`; `rest` is the path behind that.
pub(crate) async fn answer(
    gateway: &Gateway,
    rest: &str,
    request: Request<ClientBody>,
) -> Result<Answer, ApiError> {
    let (method, uri) = (request.method(), request.uri());
    let Some(rest) = rest.strip_prefix('/').filter(|rest| !rest.is_empty()) else {
        return match *method {
            Method::GET => list(gateway, uri).await,
            Method::DELETE => drop_all(gateway, uri).await,
            _ => Ok(wrong_method("GET, DELETE")),
        };
    };
    match (rest.strip_suffix("/retry"), method) {
        (Some(call_id), &Method::POST) => retry(gateway, &decode(call_id)).await,
        (Some(_), _) => Ok(wrong_method("POST")),
        (None, &Method::GET) => show(gateway, &decode(rest)).await,
        (None, &Method::DELETE) => cancel(gateway, &decode(rest)).await,
        (None, _) => Ok(wrong_method("GET, DELETE")),
    }
}

/// Has an invocation tried again.
#[utoipa::path(
    post,
    path = "/system/async/{call_id}/retry",
    params(("call_id" = String, Path, description = "Call ID")),
    responses(
        (status = 202, description = "It is tried again now"),
        (status = 404, description = "There is none"),
        (status = 409, description = "It is running"),
    )
)]
pub(crate) async fn retry(gateway: &Gateway, call_id: &str) -> Result<Answer, ApiError> {
    gateway.queue.retry(call_id).await?;
    Ok(reply::empty(StatusCode::ACCEPTED))
}

/// Drops an invocation.
#[utoipa::path(
    delete,
    path = "/system/async/{call_id}",
    params(("call_id" = String, Path, description = "Call ID")),
    responses(
        (status = 202, description = "It is dropped"),
        (status = 404, description = "There is none"),
    )
)]
pub(crate) async fn cancel(gateway: &Gateway, call_id: &str) -> Result<Answer, ApiError> {
    gateway.queue.remove(call_id).await?;
    Ok(reply::empty(StatusCode::ACCEPTED))
}

/// The same, for whoever knows its call ID.
#[utoipa::path(
    delete,
    path = "/async-function/{name}",
    params(("name" = String, Path, description = "Call ID")),
    responses(
        (status = 202, description = "It is dropped"),
        (status = 404, description = "There is none"),
    ),
    security(())
)]
pub(crate) async fn cancel_by_caller(gateway: &Gateway, call_id: &str) -> Result<Answer, ApiError> {
    cancel(gateway, call_id).await
}

fn query(uri: &Uri) -> Result<ListQuery, ApiError> {
    let bad = |parameter, value: String| ApiError::BadParameter { parameter, value };
    let function = parameter(uri, "function").filter(|name| !name.is_empty());
    let is_dead = match parameter(uri, "state").as_deref() {
        None | Some("") => None,
        Some("alive") => Some(false),
        Some("dead") => Some(true),
        Some(other) => return Err(bad("state", other.to_owned())),
    };
    let count = match parameter(uri, "limit") {
        None => LISTED,
        // As large as the document says numbers may be.
        Some(text) => match text.parse::<i64>().map(usize::try_from) {
            Ok(Ok(count)) => count,
            _ => return Err(bad("limit", text)),
        },
    };
    Ok(ListQuery {
        function: function.map(|name| FunctionId::new(&name, "", uri).key()),
        is_dead,
        count: count.min(LISTED_MAX),
    })
}

#[utoipa::path(
    get,
    path = "/system/async",
    params(("function" = Option<String>, Query, description = "NAME or NAME.NAMESPACE"), ("namespace" = Option<String>, Query, description = "Namespace; openfaas-fn unless given"), ("state" = Option<String>, Query, description = "alive or dead"), ("limit" = Option<u64>, Query, description = "How many at most")),
    responses(
        (status = 200, description = "Queued invocations, the oldest first", body = serde_json::Value),
        (status = 422, description = "A parameter is not valid"),
    )
)]
pub(crate) async fn list(gateway: &Gateway, uri: &Uri) -> Result<Answer, ApiError> {
    let entries = gateway.queue.list(query(uri)?).await?;
    let shown: Vec<_> = entries.iter().map(Shown::of).collect();
    Ok(reply::json(StatusCode::OK, &shown))
}

#[utoipa::path(
    get,
    path = "/system/async/{call_id}",
    params(("call_id" = String, Path, description = "Call ID")),
    responses(
        (status = 200, description = "All about the invocations with that call ID", body = serde_json::Value),
        (status = 404, description = "There is none"),
    )
)]
pub(crate) async fn show(gateway: &Gateway, call_id: &str) -> Result<Answer, ApiError> {
    let found = gateway.queue.find(call_id).await?;
    let shown: Vec<_> = found
        .iter()
        .map(|(entry, body)| ShownInFull {
            shown: Shown::of(entry),
            headers: &entry.message.headers,
            body: STANDARD.encode(body),
        })
        .collect();
    Ok(reply::json(StatusCode::OK, &shown))
}

/// Drops all that the query names, which must say of what kind they are.
#[utoipa::path(
    delete,
    path = "/system/async",
    params(("function" = Option<String>, Query, description = "NAME or NAME.NAMESPACE"), ("namespace" = Option<String>, Query, description = "Namespace; openfaas-fn unless given"), ("state" = Option<String>, Query, description = "alive or dead")),
    responses(
        (status = 200, description = "How many were dropped", body = serde_json::Value),
        (status = 400, description = "Neither a function nor a state is named"),
        (status = 422, description = "A parameter is not valid"),
    )
)]
pub(crate) async fn drop_all(gateway: &Gateway, uri: &Uri) -> Result<Answer, ApiError> {
    let query = ListQuery {
        count: usize::MAX,
        ..query(uri)?
    };
    if query.function.is_none() && query.is_dead.is_none() {
        return Err(ApiError::DropsEverything);
    }
    let mut dropped = 0;
    for entry in gateway.queue.list(query).await? {
        // One that was answered meanwhile is gone, which is what is wanted.
        dropped += usize::from(gateway.queue.remove(&entry.message.call_id).await.is_ok());
    }
    Ok(reply::json(
        StatusCode::OK,
        &serde_json::json!({ "dropped": dropped }),
    ))
}
