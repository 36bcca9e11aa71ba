//! `spore logs`: a function's log as it was written, or as it is being written.

use std::process::ExitCode;

use anyhow::{Context, bail};
use http_body_util::BodyExt;
use jiff::Timestamp;
use spore_client::Client;
use spore_client::api::{ApiError, LogLine, LogQuery};

use crate::arguments::LogsArguments;

/// Prints a function's log.
pub(crate) async fn run(client: &Client, arguments: LogsArguments) -> anyhow::Result<ExitCode> {
    let query = LogQuery {
        name: arguments.name.to_string(),
        follow: arguments.follow,
        tail: arguments.tail,
        since: arguments
            .since
            .map(|since| Timestamp::now().checked_sub(since))
            .transpose()?
            .map(|time| time.to_string()),
    };
    show_all(client, &query, arguments.json).await?;
    Ok(ExitCode::SUCCESS)
}

/// Prints what a query finds, until its end or until nobody reads any more.
pub(super) async fn show_all(client: &Client, query: &LogQuery, is_json: bool) -> anyhow::Result<()> {
    let mut body = match client.logs(query).await {
        Ok(body) => body,
        Err(ApiError::Refused { status, .. }) if status == http::StatusCode::NOT_FOUND => {
            bail!("there is no function {}: see spore list", query.name)
        }
        Err(error) => return Err(error.into()),
    };
    let mut lines = Lines::default();
    while let Some(frame) = body.frame().await {
        let frame = frame.context("the log broke off")?;
        let Some(data) = frame.data_ref() else { continue };
        let mut text = String::new();
        for line in lines.push(data) {
            text.push_str(&show(&line, is_json));
        }
        if !super::write_out(text.as_bytes())? {
            return Ok(());
        }
    }
    if let Some(line) = lines.finish() {
        super::write_out(show(&line, is_json).as_bytes())?;
    }
    Ok(())
}

/// One line of output, with its line end. What is no log line is shown as it came rather than lost.
fn show(json: &str, is_json: bool) -> String {
    if is_json {
        return format!("{json}\n");
    }
    match serde_json::from_str::<LogLine>(json) {
        Ok(line) => {
            format!(
                "{} {} {}\n",
                line.timestamp,
                line.instance,
                super::printable(line.text.trim_end_matches(['\r', '\n']))
            )
        }
        Err(_) => format!("{}\n", super::printable(json)),
    }
}

/// Cuts a stream of bytes into lines.
#[derive(Debug, Default)]
struct Lines {
    rest: Vec<u8>,
}

impl Lines {
    /// Takes the next bytes and gives the lines that they complete, empty ones left out.
    fn push(&mut self, bytes: &[u8]) -> Vec<String> {
        self.rest.extend_from_slice(bytes);
        let Some(end) = self.rest.iter().rposition(|&byte| byte == b'\n') else {
            return Vec::new();
        };
        let complete: Vec<u8> = self.rest.drain(..=end).collect();
        let lines = complete
            .split(|&byte| byte == b'\n')
            .filter(|line| !line.is_empty());
        lines
            .map(|line| String::from_utf8_lossy(line).into_owned())
            .collect()
    }

    /// The last line, if it has no line end.
    fn finish(self) -> Option<String> {
        (!self.rest.is_empty()).then(|| String::from_utf8_lossy(&self.rest).into_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_whole_however_they_arrive() {
        let input = "{\"a\":1}\n\nä\nlast".as_bytes();
        for size in 1..=input.len() {
            let mut lines = Lines::default();
            let mut seen: Vec<String> = input.chunks(size).flat_map(|chunk| lines.push(chunk)).collect();
            seen.extend(lines.finish());
            assert_eq!(seen, ["{\"a\":1}", "ä", "last"], "chunks of {size}");
        }
    }

    #[test]
    fn log_lines_are_shown_without_control_characters() {
        let line = r#"{"timestamp":"T","instance":"i","text":"a\tb\u001b[31m\n"}"#;
        assert_eq!(show(line, false), "T i a\tb\\u{1b}[31m\n");
        assert_eq!(show(line, true), format!("{line}\n"));
        assert_eq!(show("no json", false), "no json\n");
    }
}
