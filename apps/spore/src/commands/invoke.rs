//! `spore invoke`: one request to a function.

use std::io::{IsTerminal, Read};
use std::process::ExitCode;

use anyhow::{Context, bail};
use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::BodyExt;
use spore_client::Client;
use spore_client::api::percent_encode;
use spore_client::transport::{RequestBody, RequestError, full, read_message, streamed};
use tokio::sync::mpsc;

use crate::arguments::InvokeArguments;

/// Pieces in which standard input and files are read, in bytes.
const PIECE_BYTES: usize = 64 * 1024;

/// Calls a function. Its body goes to standard output as it arrives.
pub(crate) async fn run(client: &Client, arguments: InvokeArguments) -> anyhow::Result<ExitCode> {
    let mut request = Request::builder()
        .method(arguments.method.as_str())
        .uri(target(&client.full_name(arguments.name.as_str()), &arguments));
    for (name, value) in &arguments.header {
        request = request.header(name, value);
    }
    if let Some(url) = &arguments.callback {
        request = request.header("x-callback-url", url);
    }
    let request = request
        .body(body(arguments.data.as_deref())?)
        .map_err(RequestError::NotHttp)?;
    let response = client.send(request).await?;
    let status = response.status();
    if arguments.queued && status == StatusCode::ACCEPTED {
        let call_id = response.headers().get("x-call-id");
        let call_id = call_id.and_then(|id| id.to_str().ok()).unwrap_or_default();
        return super::print(&format!("{call_id}\n"));
    }
    if !status.is_success() {
        let message = read_message(response.into_body()).await;
        bail!(
            "{} answered {status}{}{message}",
            arguments.name,
            if message.is_empty() { "" } else { ": " }
        );
    }
    let mut body = response.into_body();
    while let Some(frame) = body.frame().await {
        let frame = frame.with_context(|| format!("the answer of {} broke off", arguments.name))?;
        if let Some(data) = frame.data_ref()
            && !super::write_out(data)?
        {
            break;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn target(name: &str, arguments: &InvokeArguments) -> String {
    let kind = if arguments.queued {
        "async-function"
    } else {
        "function"
    };
    let mut target = format!("/{kind}/{name}");
    if !arguments.path.is_empty() && arguments.path != "/" {
        if !arguments.path.starts_with('/') {
            target.push('/');
        }
        target.push_str(&arguments.path);
    }
    for (index, (name, value)) in arguments.query.iter().enumerate() {
        let separator = if index == 0 && !arguments.path.contains('?') {
            '?'
        } else {
            '&'
        };
        target.push_str(&format!(
            "{separator}{}={}",
            percent_encode(name),
            percent_encode(value)
        ));
    }
    target
}

fn body(data: Option<&str>) -> anyhow::Result<RequestBody> {
    match data {
        Some(data) => match data.strip_prefix('@') {
            Some(path) => {
                let file =
                    std::fs::File::open(path).with_context(|| format!("{path} could not be opened"))?;
                Ok(read_in_background(file))
            }
            None => Ok(full(data.to_owned())),
        },
        None if std::io::stdin().is_terminal() => Ok(full(Bytes::new())),
        None => Ok(read_in_background(std::io::stdin())),
    }
}

/// Reading may block for as long as it likes, so it has a thread.
fn read_in_background(mut source: impl Read + Send + 'static) -> RequestBody {
    let (sender, receiver) = mpsc::channel(4);
    std::thread::spawn(move || {
        loop {
            let mut piece = vec![0; PIECE_BYTES];
            let message = match source.read(&mut piece) {
                Ok(0) => return,
                Ok(count) => {
                    piece.truncate(count);
                    Ok(Bytes::from(piece))
                }
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(error) => Err(error),
            };
            let is_last = message.is_err();
            // Nobody takes it any more: the function has answered without reading all.
            if sender.blocking_send(message).is_err() || is_last {
                return;
            }
        }
    });
    streamed(receiver)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments(path: &str, query: &[(&str, &str)]) -> InvokeArguments {
        InvokeArguments {
            queued: false,
            callback: None,
            name: "f".parse().unwrap(),
            data: None,
            method: "GET".into(),
            header: Vec::new(),
            query: query
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect(),
            path: path.into(),
        }
    }

    #[test]
    fn path_and_query_form_the_target() {
        assert_eq!(target("f", &arguments("/", &[])), "/function/f");
        assert_eq!(target("f", &arguments("a/b", &[])), "/function/f/a/b");
        assert_eq!(
            target("f", &arguments("/a", &[("k", "v w"), ("&", "=")])),
            "/function/f/a?k=v%20w&%26=%3D"
        );
        assert_eq!(
            target("f", &arguments("/a?x=1", &[("k", "v")])),
            "/function/f/a?x=1&k=v"
        );
    }
}
