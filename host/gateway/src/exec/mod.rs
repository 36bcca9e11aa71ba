//! Functions that are commands: one is started for each invocation, in an instance of its own (docs/openfaas.md).
//!
//! ```text
//!   request ──variables, body──> Execution ──output──> held ──command ends──> 200, or 500 if it failed
//!                                                       └──more than is held──> 200, and the rest as it comes
//! ```

mod execution;
mod settings;
mod variables;

use std::sync::Arc;
use std::time::{Instant, SystemTime};

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body::Body as _;
use spore_sandbox::{EndCause, LogLine, LogSink as _, LogSource, VARIABLES_BYTES_MAX};

use crate::body::GatewayBody;
use crate::connection::OpenError;
use crate::errors::InvokeError;
use crate::functions::Function;
use crate::invoke::{Invocation, head_to_client};
use crate::reply::{self, Answer};
use crate::request_body::{CallerBody, RequestBody};
pub(crate) use execution::CommandBody;
use execution::{Execution, Output};
pub(crate) use settings::ExecSettings;

/// Runs the function's command for a request.
pub(crate) async fn invoke(
    mut invocation: Invocation<'_>,
    settings: &ExecSettings,
    request: Request<CallerBody>,
    started: Instant,
) -> Result<Answer, InvokeError> {
    let (head, body) = request.into_parts();
    let methods = [
        Method::GET,
        Method::POST,
        Method::PUT,
        Method::PATCH,
        Method::DELETE,
    ];
    if !methods.contains(&head.method) {
        return Ok(reply::empty(StatusCode::METHOD_NOT_ALLOWED));
    }
    let variables = match settings.has_variables {
        true => variables::variables(&head, body.size_hint().exact()),
        false => Vec::new(),
    };
    if variables::length(&variables) > VARIABLES_BYTES_MAX {
        let limit = format!(
            "the request's head is longer than the {VARIABLES_BYTES_MAX} bytes that a command may find"
        );
        return Ok(reply::text(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, &limit));
    }
    let timeout = settings
        .timeout
        .map_or(invocation.timeout, |own| own.min(invocation.timeout));
    let (mut body, mut replay) = RequestBody::new(body);
    loop {
        let (mut lease, recording) = invocation.lease(&head).await?;
        let is_cold = lease.is_cold();
        let mut deadline = Box::pin(tokio::time::sleep(timeout));
        let starting = lease.instance().run_command(&variables);
        let stream = tokio::select! {
            stream = starting => stream,
            () = &mut deadline => return Err(invocation.timed_out(lease)),
        };
        let stream = match stream {
            Ok(stream) => stream,
            Err(error) => {
                invocation.not_opened(lease, OpenError::Connect(error))?;
                continue;
            }
        };
        let run = Run {
            function: invocation.function.clone(),
            instance: lease.instance().id().to_owned(),
            begun: Instant::now(),
            logs_output: settings.logs_output,
        };
        run.say("Forking fprocess.".to_owned());
        let mut execution = Execution::new(lease, recording, stream, (body, replay), deadline, timeout);
        let mut held = Vec::new();
        let mut held_bytes = 0;
        let end = loop {
            match execution.next().await {
                Output::Piece(piece) => {
                    held_bytes += piece.len();
                    held.push(piece);
                    if held_bytes > settings.held_bytes {
                        break None;
                    }
                }
                end => break Some(end),
            }
        };
        let Some(end) = end else {
            execution.may_stall();
            let told = Box::new(move |bytes| run.told(bytes));
            let body = GatewayBody::Command(Box::new(CommandBody::new(held, execution, told)));
            return Ok(answer(
                StatusCode::OK,
                body,
                settings,
                &head.headers,
                is_cold,
                started,
            ));
        };
        let function = invocation.name();
        let report = match end {
            Output::Finished(report) => report,
            Output::TimedOut if settings.timeout == Some(timeout) => {
                run.say(format!(
                    "Killed process: it ran for longer than {} ms (exec_timeout)",
                    timeout.as_millis()
                ));
                return Ok(reply::text(StatusCode::REQUEST_TIMEOUT, "Killed process."));
            }
            Output::TimedOut | Output::Piece(_) => {
                let cause = EndCause::TimedOut { after: timeout };
                return Err(InvokeError::Ended { function, cause });
            }
            Output::BadRequestBody(source) => {
                return Err(InvokeError::BadRequestBody { function, source });
            }
        };
        let (status, first_line) = match report.cause {
            EndCause::Exited { code: 0 } => (StatusCode::OK, None),
            EndCause::Exited { code } => (
                StatusCode::INTERNAL_SERVER_ERROR,
                Some(format!("exit status {code}")),
            ),
            cause @ (EndCause::Crashed { .. } | EndCause::OutOfMemory { .. }) => {
                (StatusCode::INTERNAL_SERVER_ERROR, Some(cause.to_string()))
            }
            cause => {
                // Nothing of it has run.
                let again = execution
                    .take_replay()
                    .and_then(|replay| Some((replay.again()?, replay)));
                match again {
                    Some(again) if report.read_bytes == Some(0) && invocation.may_start_again() => {
                        (body, replay) = again;
                        continue;
                    }
                    _ => return Err(InvokeError::Ended { function, cause }),
                }
            }
        };
        run.output(&held);
        run.told(held_bytes as u64);
        if let Some(first_line) = first_line {
            let hint = match held.is_empty() && !settings.command.combines_output {
                true => format!("what it wrote to its standard error is in its log: spore logs {function}\n"),
                false => String::new(),
            };
            held.insert(0, Bytes::from(format!("{first_line}\n{hint}")));
        }
        let body = match held.len() {
            1 => GatewayBody::full(held.swap_remove(0)),
            _ => GatewayBody::full(held.concat()),
        };
        return Ok(answer(status, body, settings, &head.headers, is_cold, started));
    }
}

fn answer(
    status: StatusCode,
    body: GatewayBody,
    settings: &ExecSettings,
    request_headers: &http::HeaderMap,
    is_cold: bool,
    started: Instant,
) -> Answer {
    let (mut parts, body) = Response::new(body).into_parts();
    parts.status = status;
    let of_request = match status.is_success() {
        true => request_headers.get(CONTENT_TYPE).cloned(),
        false => Some(HeaderValue::from_static("text/plain; charset=utf-8")),
    };
    let content_type = settings.content_type.clone().filter(|_| status.is_success());
    if let Some(content_type) = content_type {
        parts.headers.insert(CONTENT_TYPE, content_type);
    }
    head_to_client(&mut parts, of_request, is_cold, started);
    Response::from_parts(parts, body)
}

/// What is said of one run in the function's log, in the classic watchdog's words.
struct Run {
    function: Arc<Function>,
    instance: String,
    begun: Instant,
    logs_output: bool,
}

impl Run {
    fn say(&self, text: String) {
        self.write(LogSource::Platform, text);
    }

    fn write(&self, source: LogSource, text: String) {
        self.function.log.write(LogLine {
            instance: self.instance.clone(),
            time: SystemTime::now(),
            source,
            text,
        });
    }

    /// The command has ended, and has written so many bytes.
    fn told(&self, bytes: u64) {
        let seconds = self.begun.elapsed().as_secs_f64();
        self.say(match self.logs_output {
            true => format!("Duration: {seconds:.6}s"),
            false => format!("Wrote {bytes} Bytes - Duration: {seconds:.6}s"),
        });
    }

    /// Logs what it has written, if that is asked for.
    fn output(&self, pieces: &[Bytes]) {
        if self.logs_output {
            let text = String::from_utf8_lossy(&pieces.concat()).into_owned();
            for line in text.lines() {
                self.write(LogSource::Stdout, line.to_owned());
            }
        }
    }
}
