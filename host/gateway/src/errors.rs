//! What can go wrong at the gateway, whose fault it is, and the one place that maps it to status codes.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::time::Duration;

use http::StatusCode;
use http::header::HeaderValue;
use spore_pool::{AboveMaximum, AcquireError, PreBootError};
use spore_queue::{AcceptError, ChangeError};
use spore_registry::{ClientCredentialError, RegistryError, RegistryFault};
use spore_sandbox::{ConnectError, EndCause, IsolationError, StartError, UnsupportedError};
use spore_store::{CollectError, DeriveError, RecordError, ReferenceParseError};
use spore_trigger::folder::FolderError;

use crate::client_body::ClientBodyError;
use crate::headers::{FAULT, INTERNAL};
use crate::lambda::{AnswerError, PAYLOAD_BYTES_MAX};
use crate::namespaces::NamespaceError;
use crate::reply::{self, Answer};
use crate::request_body::CallerBodyError;
use crate::secrets::SecretError;
use crate::settings::SettingsError;
use crate::shortage::Shortage;
use crate::triggers::admin::FireError;

/// Who has to change something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    Caller,
    Function,
    Platform,
}

impl Fault {
    /// As answers name it.
    const fn name(self) -> &'static str {
        match self {
            Self::Caller => "caller",
            Self::Function => "function",
            Self::Platform => "platform",
        }
    }
}

/// Why an invocation was not answered by the function.
#[derive(Debug, thiserror::Error)]
pub(crate) enum InvokeError {
    #[error("no function is named `{name}`")]
    UnknownFunction { name: String },
    #[error("{function}")]
    NoInstance { function: String, source: AcquireError },
    /// In the watchdogs' words.
    #[error("{function}: Concurrent request limit exceeded. Max concurrent requests: {limit}")]
    TooManyInflight { function: String, limit: u32 },
    #[error("{function}: {} is damaged and cannot be made again", path.display())]
    Damaged {
        function: String,
        path: PathBuf,
        source: Box<ApiError>,
    },
    #[error("{function}")]
    Unreachable { function: String, source: ConnectError },
    #[error("{function}: {cause}")]
    Ended { function: String, cause: EndCause },
    #[error("{function}: the function closed the connection without an answer")]
    NoAnswer { function: String },
    #[error("{function}: the function's answer is not HTTP/1.1")]
    BadAnswer { function: String, source: hyper::Error },
    #[error("{function}: the request's body could not be read")]
    BadRequestBody {
        function: String,
        source: CallerBodyError,
    },
    #[error("{function}: the function has switched protocols, which nobody has asked for")]
    UnaskedUpgrade { function: String },
    #[error(
        "{function}: only a WebSocket and its kin can be opened by CONNECT, and only to a function that is a server and no chain"
    )]
    NoTunnel { function: String },
    #[error("{function}: the function did not switch protocols, but answered with status {status}")]
    NoUpgrade { function: String, status: StatusCode },
    #[error("{function}: the request's body did not arrive within {} ms", after.as_millis())]
    SlowEvent { function: String, after: Duration },
    #[error(
        "{function}: the event is longer than {PAYLOAD_BYTES_MAX} bytes: send less, or let the function fetch it from elsewhere"
    )]
    LongEvent { function: String },
    #[error("{function}: the body is no JSON, as the event of a Lambda function must be")]
    BadEvent {
        function: String,
        source: serde_json::Error,
    },
    #[error(
        "{function}: the function's response is longer than {PAYLOAD_BYTES_MAX} bytes: let it answer less, or stream"
    )]
    LongResponse { function: String },
    #[error("{function}: the head of the function's streamed response is missing or too long")]
    LongPrelude { function: String },
    #[error("{function}: no answer can be made of the function's response")]
    BadResponse { function: String, source: AnswerError },
}

impl InvokeError {
    pub(crate) fn fault(&self) -> Fault {
        match self {
            Self::BadRequestBody {
                source: CallerBodyError::Link(_),
                ..
            } => Fault::Function,
            Self::UnknownFunction { .. }
            | Self::NoTunnel { .. }
            | Self::BadRequestBody { .. }
            | Self::SlowEvent { .. }
            | Self::LongEvent { .. }
            | Self::BadEvent { .. } => Fault::Caller,
            Self::NoInstance { source, .. } => match source {
                AcquireError::StartFailed(error) if is_platforms(error) => Fault::Platform,
                AcquireError::StartFailed(_) | AcquireError::NotReady { .. } => Fault::Function,
                AcquireError::QueueFull { .. } | AcquireError::NoneFree { .. } => Fault::Platform,
                AcquireError::Closed => Fault::Caller,
            },
            Self::TooManyInflight { .. }
            | Self::Damaged { .. }
            | Self::Unreachable {
                source: ConnectError::Host(_),
                ..
            } => Fault::Platform,
            Self::Ended {
                cause: EndCause::Stopped | EndCause::SandboxFailed { .. },
                ..
            } => Fault::Platform,
            Self::Unreachable { .. }
            | Self::Ended { .. }
            | Self::NoAnswer { .. }
            | Self::LongResponse { .. }
            | Self::LongPrelude { .. }
            | Self::BadResponse { .. }
            | Self::UnaskedUpgrade { .. }
            | Self::NoUpgrade { .. }
            | Self::BadAnswer { .. } => Fault::Function,
        }
    }

    /// Whether the same request may be answered a moment later.
    pub(crate) fn retry_helps(&self) -> bool {
        match self {
            Self::NoInstance { source, .. } => match source {
                AcquireError::QueueFull { .. }
                | AcquireError::NotReady { .. }
                | AcquireError::NoneFree { .. } => true,
                AcquireError::StartFailed(error) => is_platforms(error),
                AcquireError::Closed => false,
            },
            Self::TooManyInflight { .. }
            | Self::Unreachable {
                source: ConnectError::Host(_),
                ..
            } => true,
            _ => false,
        }
    }

    fn status(&self) -> StatusCode {
        match (self, self.fault()) {
            (
                Self::NoInstance {
                    source: AcquireError::QueueFull { .. },
                    ..
                }
                | Self::TooManyInflight { .. },
                _,
            ) => StatusCode::TOO_MANY_REQUESTS,
            (
                Self::Ended {
                    cause: EndCause::TimedOut { .. },
                    ..
                },
                _,
            ) => StatusCode::GATEWAY_TIMEOUT,
            (Self::BadRequestBody { source, .. }, _) => source.status(),
            (Self::BadEvent { .. }, _) => StatusCode::BAD_REQUEST,
            (Self::LongEvent { .. }, _) => StatusCode::PAYLOAD_TOO_LARGE,
            (Self::NoTunnel { .. }, _) => StatusCode::NOT_IMPLEMENTED,
            (Self::SlowEvent { .. }, _) => StatusCode::REQUEST_TIMEOUT,
            (_, Fault::Caller) => StatusCode::NOT_FOUND,
            _ if self.retry_helps() => StatusCode::SERVICE_UNAVAILABLE,
            (_, Fault::Function | Fault::Platform) => StatusCode::BAD_GATEWAY,
        }
    }

    /// In whose place the gateway speaks.
    fn speaker(&self) -> &'static str {
        match self {
            Self::TooManyInflight { .. } => "faas-middleware",
            _ => "proxy",
        }
    }

    /// The answer to the caller.
    pub(crate) fn answer(&self) -> Answer {
        let mut line = one_line(self);
        let from_monitor = || {
            let is_platforms = self.fault() == Fault::Platform;
            is_platforms.then(|| Shortage::of_text(&line)).flatten()
        };
        if let Some(shortage) = Shortage::of(self).or_else(from_monitor) {
            line = format!("{line}: {}", shortage.advice_for_instances());
        }
        tracing::debug!(fault = ?self.fault(), "{line}");
        let mut response = reply::text(self.status(), &line);
        let fault = HeaderValue::from_static(self.fault().name());
        response
            .headers_mut()
            .insert(INTERNAL, HeaderValue::from_static(self.speaker()));
        response.headers_mut().insert(FAULT, fault);
        if self.retry_helps() {
            reply::retry_soon(response)
        } else {
            response
        }
    }
}

/// Whether a start has failed for a reason that is not the function's own.
fn is_platforms(error: &StartError) -> bool {
    match error {
        StartError::Host { .. } | StartError::Isolation(_) => true,
        StartError::EndedEarly(report) => matches!(report.cause, EndCause::SandboxFailed { .. }),
        StartError::BadProgram { .. } | StartError::NotReady { .. } => false,
    }
}

/// Why a request to the OpenFaaS API failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ApiError {
    #[error("the request's body is not the JSON that is expected here")]
    BadJson(#[source] serde_json::Error),
    #[error("the request's body could not be read")]
    Body(#[source] Box<dyn Error + Send + Sync>),
    #[error("the request's body is longer than {limit_bytes} bytes")]
    TooLong { limit_bytes: usize },
    #[error(transparent)]
    Settings(#[from] SettingsError),
    #[error(transparent)]
    Namespace(#[from] NamespaceError),
    #[error(transparent)]
    Secret(#[from] SecretError),
    #[error(transparent)]
    Isolation(#[from] IsolationError),
    #[error(transparent)]
    Unsupported(#[from] UnsupportedError),
    #[error("the function `{name}` exists already: update it by PUT, or delete it first")]
    Exists { name: String },
    #[error("the function `{name}` does not exist")]
    NotFound { name: String },
    #[error("`{name}` cannot be scaled")]
    Scale { name: String, source: ScaleError },
    #[error("`{text}` is no number of instances")]
    BadCount { text: String },
    #[error("no function is named: add ?function=NAME, or use /system/function/NAME/pre-boot/N")]
    NoFunctionNamed,
    #[error("the path names `{path}`, but the body `{body}`")]
    TwoNames { path: String, body: String },
    #[error(transparent)]
    BadReference(#[from] ReferenceParseError),
    #[error(
        "the image `{image}` was not pushed to this daemon: push it first, for example with `spore deploy DIR` \
         or `skopeo copy --dest-tls-verify=false SOURCE docker://{address}/{repository}`"
    )]
    UnknownImage {
        image: String,
        address: String,
        repository: String,
    },
    #[error("the image `{image}` cannot be pulled as {name}")]
    Pull {
        image: String,
        name: String,
        source: Box<RegistryError>,
    },
    #[error("the image `{image}` cannot be pushed as {name}")]
    Push {
        image: String,
        name: String,
        source: Box<RegistryError>,
    },
    #[error("the credential for the registry cannot be used")]
    RegistryCredential(#[from] ClientCredentialError),
    #[error("the image `{image}` is not stored here: see `spore image list`")]
    NoSuchImage { image: String },
    #[error("the image `{image}` cannot be read")]
    Inspect { image: String, source: DeriveError },
    #[error("no image is named: add ?image=NAME")]
    NoImageNamed,
    #[error("this daemon speaks to no other registries (serve --no-pull)")]
    NoRegistries,
    #[error(transparent)]
    Collect(#[from] CollectError),
    #[error("the image `{image}` cannot be deployed")]
    Derive { image: String, source: DeriveError },
    #[error("`{value}` is not a value of the parameter `{parameter}`")]
    BadParameter { parameter: &'static str, value: String },
    #[error("the function's log could not be read")]
    Log(#[source] std::io::Error),
    #[error("the function's record could not be read or written")]
    Record(#[from] RecordError),
    #[error("the function `{name}` cannot be loaded")]
    Load { name: String, source: Box<ApiError> },
    #[error(
        "name a function or a state: `?function=NAME` or `?state=dead`; without, every invocation would be dropped"
    )]
    DropsEverything,
    #[error(transparent)]
    Queue(#[from] ChangeError),
    #[error(transparent)]
    Fire(#[from] FireError),
    #[error(transparent)]
    Folder(#[from] FolderError),
    #[error("the queue of an earlier start could not be read")]
    QueueOpen(#[from] spore_queue::OpenError),
    #[error("a task of the daemon was lost")]
    Lost(#[from] tokio::task::JoinError),
}

/// Why a function has as many instances as before.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ScaleError {
    #[error("{0}: deploy it with a higher one (`spore deploy --max`, label com.openfaas.scale.max)")]
    AboveMaximum(AboveMaximum),
    #[error("{0}: deploy it with another one (annotation dev.spore.idle-timeout), or scale it")]
    NoneIdle(PreBootError),
}

impl From<AboveMaximum> for ScaleError {
    fn from(error: AboveMaximum) -> Self {
        Self::AboveMaximum(error)
    }
}

impl From<PreBootError> for ScaleError {
    fn from(error: PreBootError) -> Self {
        match error {
            PreBootError::AboveMaximum(error) => Self::AboveMaximum(error),
            PreBootError::NoneIdle => Self::NoneIdle(error),
        }
    }
}

impl ApiError {
    fn status(&self) -> StatusCode {
        match self {
            Self::Body(source) => source
                .downcast_ref::<ClientBodyError>()
                .map_or(StatusCode::BAD_REQUEST, ClientBodyError::status),
            Self::Namespace(error) => error.status(),
            Self::Secret(error) => error.status(),
            Self::Fire(error) => error.status(),
            Self::Folder(_) => StatusCode::BAD_REQUEST,
            Self::BadJson(_)
            | Self::Settings(_)
            | Self::Isolation(_)
            | Self::Unsupported(_)
            | Self::Scale { .. }
            | Self::BadCount { .. }
            | Self::NoFunctionNamed
            | Self::DropsEverything
            | Self::TwoNames { .. }
            | Self::NoImageNamed
            | Self::RegistryCredential(_)
            | Self::BadReference(_) => StatusCode::BAD_REQUEST,
            Self::Pull { source, .. } | Self::Push { source, .. } => match source.fault() {
                RegistryFault::Caller => StatusCode::BAD_REQUEST,
                RegistryFault::Registry => StatusCode::BAD_GATEWAY,
                RegistryFault::Platform => StatusCode::INTERNAL_SERVER_ERROR,
            },
            Self::Collect(CollectError::InUse { .. }) => StatusCode::CONFLICT,
            Self::Collect(CollectError::NotFound { .. }) | Self::NoSuchImage { .. } => StatusCode::NOT_FOUND,
            Self::NoRegistries => StatusCode::FORBIDDEN,
            Self::Derive {
                source: DeriveError::Io(_) | DeriveError::RootFileSystem(_),
                ..
            }
            | Self::Inspect { .. } => StatusCode::INTERNAL_SERVER_ERROR,
            Self::UnknownImage { .. } | Self::Derive { .. } => StatusCode::BAD_REQUEST,
            Self::TooLong { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Exists { .. } => StatusCode::CONFLICT,
            Self::NotFound { .. } | Self::Queue(ChangeError::Unknown { .. }) => StatusCode::NOT_FOUND,
            Self::Queue(ChangeError::Running { .. }) => StatusCode::CONFLICT,
            Self::Queue(ChangeError::Closed | ChangeError::Nats(_)) => StatusCode::SERVICE_UNAVAILABLE,
            Self::BadParameter { .. } => StatusCode::UNPROCESSABLE_ENTITY,
            Self::Queue(ChangeError::Record(_))
            | Self::QueueOpen(_)
            | Self::Collect(_)
            | Self::Record(_)
            | Self::Log(_)
            | Self::Load { .. }
            | Self::Lost(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// Status and text of the answer, and whether a retry helps; `data` is the data folder.
    pub(crate) fn shown(&self, data: &Path) -> (StatusCode, String, bool) {
        let (status, line, retry_helps) = shown(self, self.status(), data);
        let is_passing = match self {
            Self::Pull { source, .. } | Self::Push { source, .. } => source.retry_helps(),
            Self::Queue(ChangeError::Nats(_)) | Self::Fire(FireError::Queue(AcceptError::Nats(_))) => true,
            _ => false,
        };
        (status, line, retry_helps || is_passing)
    }

    /// The answer to the caller; `data` is the data folder.
    pub(crate) fn answer(&self, data: &Path) -> Answer {
        let (status, line, retry_helps) = self.shown(data);
        let response = reply::text(status, &line);
        if retry_helps {
            reply::retry_soon(response)
        } else {
            response
        }
    }
}

/// Status and text of an answer that is an error, and whether a retry helps. A shortage of the host's, wherever it
/// was met, decides over `status`. What is not the caller's doing is logged.
pub(crate) fn shown(
    error: &(dyn Error + 'static),
    status: StatusCode,
    data: &Path,
) -> (StatusCode, String, bool) {
    let line = one_line(error);
    let (status, line, retry_helps) = match Shortage::of(error) {
        Some(shortage) => (
            shortage.status(),
            format!("{line}: {}", shortage.advice(data)),
            shortage.passes(),
        ),
        None => (status, line, false),
    };
    if status.is_server_error() {
        tracing::error!("{line}");
    }
    (status, line, retry_helps)
}

/// The error and its causes, outermost first, in one line.
pub(crate) fn one_line(error: &dyn Error) -> String {
    let mut line = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        line.push_str(": ");
        line.push_str(&cause.to_string());
        source = cause.source();
    }
    line.replace(['\n', '\r'], " ")
}

#[cfg(test)]
mod tests {
    use spore_sandbox::{Awaited, EndReport};

    use super::*;

    fn no_instance(source: AcquireError) -> InvokeError {
        InvokeError::NoInstance {
            function: "hello".to_owned(),
            source,
        }
    }

    #[test]
    fn status_follows_fault_and_retry() {
        let host = StartError::Host {
            what: "make a virtual machine",
            source: std::io::ErrorKind::OutOfMemory.into(),
        };
        let bad = StartError::BadProgram {
            reason: "broken".to_owned(),
        };
        let ended = |cause| InvokeError::Ended {
            function: "hello".to_owned(),
            cause,
        };
        let after = Duration::from_secs(1);
        let awaited = Awaited::Asking;
        let cases = [
            (
                no_instance(AcquireError::QueueFull { waiting: 3 }),
                429,
                true,
                "platform",
            ),
            (
                no_instance(AcquireError::StartFailed(host)),
                503,
                true,
                "platform",
            ),
            (
                no_instance(AcquireError::StartFailed(bad)),
                502,
                false,
                "function",
            ),
            (
                no_instance(AcquireError::NotReady { after, awaited }),
                503,
                true,
                "function",
            ),
            (
                no_instance(AcquireError::NoneFree { after }),
                503,
                true,
                "platform",
            ),
            (no_instance(AcquireError::Closed), 404, false, "caller"),
            (ended(EndCause::TimedOut { after }), 504, false, "function"),
            (ended(EndCause::Exited { code: 3 }), 502, false, "function"),
        ];
        for (error, status, retry, fault) in cases {
            let answer = error.answer();
            assert_eq!(answer.status().as_u16(), status, "{error}");
            assert_eq!(
                answer.headers().contains_key(http::header::RETRY_AFTER),
                retry,
                "{error}"
            );
            assert_eq!(answer.headers()["x-openfaas-internal"], "proxy");
            assert_eq!(answer.headers()["x-spore-fault"], fault, "{error}");
        }
    }

    #[test]
    fn what_a_monitor_lacks_is_named_too() {
        let report = EndReport {
            cause: EndCause::SandboxFailed {
                summary: "guest memory cannot be mapped: Cannot allocate memory (os error 12)".to_owned(),
            },
            details: Vec::new(),
            read_bytes: None,
        };
        let error = no_instance(AcquireError::StartFailed(StartError::EndedEarly(report)));
        assert_eq!(error.answer().status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(Shortage::of_text(&one_line(&error)), Some(Shortage::Memory));
    }

    #[test]
    fn causes_are_named_in_one_line() {
        let error = no_instance(AcquireError::StartFailed(StartError::BadProgram {
            reason: "a\nb".to_owned(),
        }));
        assert_eq!(
            one_line(&error),
            "hello: no instance could be started: the program cannot run here: a b"
        );
    }
}
