//! What calls functions, and calling them by hand.

use std::path::Path;
use std::sync::Arc;

use http::header::CONTENT_TYPE;
use http::{Request, StatusCode, Uri};
use http_body_util::{BodyExt, Limited};
use jiff::Timestamp;
use serde::Serialize;
use spore_queue::AcceptError;
use spore_trigger::folder::FolderError;
use spore_trigger::{Missed, Triggers, subject_matches};

use super::{Calls, Kind, call, folders, schedules, subjects};
use crate::client_body::{ClientBody, ClientBodyError};
use crate::errors::ApiError;
use crate::functions::Function;
use crate::names::FunctionId;
use crate::queued::accept_status;
use crate::reply::{self, Answer};
use crate::routes::{Gateway, parameter};

/// Why a trigger was not fired.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FireError {
    #[error(
        "nothing calls {function}: give it a schedule (annotations topic and schedule), a folder (dev.spore.trigger.folder) or \
         the subjects of messages (topic, with `spore serve --nats`)"
    )]
    None { function: String },
    #[error(
        "{function} is called for files and messages only: name one (`spore trigger fire {function} --file PATH`, or --topic \
         SUBJECT)"
    )]
    NoFile { function: String },
    #[error("{function} is not called for messages on `{topic}`")]
    NotFollowed { function: String, topic: String },
    #[error("name a file or a topic, not both")]
    Both,
    #[error("the message is longer than {limit_bytes} bytes, or could not be read")]
    Message {
        limit_bytes: usize,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    #[error("{function} watches no folder that `{file}` is in")]
    NotWatched { function: String, file: String },
    #[error(transparent)]
    Folder(#[from] FolderError),
    #[error("the call was not accepted")]
    Queue(#[from] AcceptError),
}

impl FireError {
    pub(crate) fn status(&self) -> StatusCode {
        match self {
            Self::None { .. }
            | Self::NoFile { .. }
            | Self::NotWatched { .. }
            | Self::NotFollowed { .. }
            | Self::Both
            | Self::Folder(_) => StatusCode::BAD_REQUEST,
            Self::Message { source, .. } => match source.downcast_ref::<ClientBodyError>() {
                Some(error) => error.status(),
                None => StatusCode::PAYLOAD_TOO_LARGE,
            },
            Self::Queue(error) => accept_status(error),
        }
    }
}

/// A trigger as the API shows it.
#[derive(Serialize)]
struct Shown {
    function: String,
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    schedule: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    time_zone: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    missed: Option<&'static str>,
    /// When it is due next.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_ms: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    folder: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    subject: Option<String>,
    /// Calls since the daemon started, by hand too.
    calls: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_call_id: Option<String>,
    /// Why the latest call was not made.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

impl Shown {
    fn of(function: String, triggers: &Triggers, kind: Kind, calls: Calls) -> Self {
        let schedule = triggers.schedule.as_ref().filter(|_| kind == Kind::Schedule);
        let next = schedule.and_then(|schedule| schedule.next_after(Timestamp::now()));
        let name = kind.name();
        let (folder, subject) = match kind {
            Kind::Folder(folder) => (Some(folder), None),
            Kind::Subject(subject) => (None, Some(subject)),
            Kind::Schedule => (None, None),
        };
        Self {
            function,
            kind: name,
            schedule: schedule.map(|schedule| schedule.text().to_owned()),
            time_zone: schedule.map(|schedule| schedule.zone().to_owned()),
            missed: schedule.map(|_| match triggers.missed {
                Missed::Skip => "skip",
                Missed::Once => "once",
            }),
            next_ms: next.map(Timestamp::as_millisecond),
            folder,
            subject,
            calls: calls.calls,
            last_ms: calls.last_ms,
            last_call_id: calls.last_call_id,
            error: calls.error,
        }
    }
}

/// What calls a function here.
fn kinds(gateway: &Gateway, triggers: &Triggers) -> impl Iterator<Item = Kind> {
    let schedule = triggers.schedule.as_ref().map(|_| Kind::Schedule);
    let folders = triggers.folders.iter();
    let folders = folders.map(|folder| Kind::Folder(folder.to_string_lossy().into_owned()));
    let subjects = gateway.subjects.iter().flat_map(|_| &triggers.subjects);
    let subjects = subjects.map(|subject| Kind::Subject(subject.clone()));
    schedule.into_iter().chain(folders).chain(subjects)
}

/// `GET /system/triggers`
#[utoipa::path(
    get,
    path = "/system/triggers",
    params(("function" = Option<String>, Query, description = "NAME or NAME.NAMESPACE"), ("namespace" = Option<String>, Query, description = "Namespace of that function; openfaas-fn unless given")),
    responses(
        (status = 200, description = "What calls functions, by function", body = serde_json::Value),
        (status = 404, description = "There is no such function"),
    )
)]
pub(crate) fn list(gateway: &Gateway, uri: &Uri) -> Result<Answer, ApiError> {
    let functions: Vec<Arc<Function>> = match parameter(uri, "function").filter(|name| !name.is_empty()) {
        Some(name) => vec![gateway.functions.named(&FunctionId::new(&name, "", uri))?],
        None => gateway.functions.all(),
    };
    let mut shown = Vec::new();
    for function in functions {
        let (key, triggers) = (function.id.key(), function.triggers());
        for kind in kinds(gateway, &triggers) {
            let calls = gateway.triggers.of(&key, &kind);
            shown.push(Shown::of(key.clone(), &triggers, kind, calls));
        }
    }
    Ok(reply::json(StatusCode::OK, &shown))
}

/// `POST /system/triggers/NAME/fire`
#[utoipa::path(
    post,
    path = "/system/triggers/{name}/fire",
    params(("name" = String, Path, description = "NAME or NAME.NAMESPACE"), ("namespace" = Option<String>, Query, description = "Namespace; openfaas-fn unless given"), ("file" = Option<String>, Query, description = "File in a folder that the function watches, as a path below the daemon's; without either, the function is called as by its schedule"), ("topic" = Option<String>, Query, description = "Subject of a message that the function is called for; the body is the message")),
    responses(
        (status = 202, description = "The call is kept, and will be run", body = serde_json::Value),
        (status = 400, description = "Nothing calls the function, or there is no such file, or the body broke off"),
        (status = 404, description = "There is no such function"),
        (status = 408, description = "The body stood still"),
        (status = 413, description = "The message is too long"),
        (status = 429, description = "Too many invocations wait"),
        (status = 500, description = "It could not be written"),
        (status = 503, description = "The daemon stops, or the NATS server that keeps the queue is away"),
    )
)]
pub(crate) async fn fire(
    gateway: &Gateway,
    name: &str,
    uri: &Uri,
    request: Request<ClientBody>,
) -> Result<Answer, ApiError> {
    let function = gateway.functions.named(&FunctionId::new(name, "", uri))?;
    let named = |name| parameter(uri, name).filter(|value| !value.is_empty());
    let call_id = match (named("file"), named("topic")) {
        (Some(_), Some(_)) => return Err(FireError::Both.into()),
        (Some(file), None) => fire_file(gateway, &function, &file).await?,
        (None, Some(topic)) => fire_message(gateway, &function, &topic, request).await?,
        (None, None) => fire_schedule(gateway, &function).await?,
    };
    Ok(reply::json(
        StatusCode::ACCEPTED,
        &serde_json::json!({ "call_id": call_id }),
    ))
}

async fn fire_schedule(gateway: &Gateway, function: &Function) -> Result<String, FireError> {
    let (triggers, name) = (function.triggers(), function.name.clone());
    if kinds(gateway, &triggers).next().is_none() {
        return Err(FireError::None { function: name });
    }
    if triggers.schedule.is_none() {
        return Err(FireError::NoFile { function: name });
    }
    let now = schedules::scheduled(Timestamp::now());
    Ok(call(gateway, function, &Kind::Schedule, now).await?)
}

async fn fire_message(
    gateway: &Gateway,
    function: &Function,
    topic: &str,
    request: Request<ClientBody>,
) -> Result<String, FireError> {
    let triggers = function.triggers();
    let followed = kinds(gateway, &triggers)
        .find(|kind| matches!(kind, Kind::Subject(subject) if subject_matches(subject, topic)));
    let Some(kind) = followed else {
        return Err(FireError::NotFollowed {
            function: function.name.clone(),
            topic: topic.chars().take(100).collect(),
        });
    };
    let limit_bytes = gateway.functions.config.max_queued_body_bytes;
    let (head, body) = request.into_parts();
    let body = Limited::new(body, limit_bytes).collect().await;
    let body = body.map_err(|source| FireError::Message { limit_bytes, source })?;
    let content_type = head
        .headers
        .get(CONTENT_TYPE)
        .cloned()
        .map(|value| (CONTENT_TYPE, value));
    let told = subjects::message_call(topic, body.to_bytes(), content_type);
    Ok(call(gateway, function, &kind, told).await?)
}

async fn fire_file(gateway: &Gateway, function: &Function, file: &str) -> Result<String, FireError> {
    let path = Path::new(file);
    let triggers = function.triggers();
    let watched = triggers
        .folders
        .iter()
        .find(|folder| Some(folder.as_path()) == path.parent());
    let (Some(folder), Some(file_name), Some(root)) =
        (watched, path.file_name(), gateway.functions.trigger_folder())
    else {
        return Err(FireError::NotWatched {
            function: function.name.clone(),
            file: file.chars().take(200).collect(),
        });
    };
    let kind = Kind::Folder(folder.to_string_lossy().into_owned());
    let opening = folder.clone();
    let opened = tokio::task::spawn_blocking(move || root.folder(&opening)).await;
    let opened = opened.unwrap_or_else(|_| {
        Err(FolderError::NoFile {
            path: path.to_owned(),
        })
    })?;
    let told = folders::file_call(gateway, &Arc::new(opened), file_name.to_owned(), "changed").await?;
    Ok(call(gateway, function, &kind, told).await?)
}
