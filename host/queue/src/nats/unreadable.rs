//! Messages that the client cannot read.
//!
//! It takes headers for text, and ends the connection over which others come. The server sends such a message again to
//! whoever reads the stream from its beginning, so nobody would ever read past it. Whoever finds the connection interrupted
//! looks, in a form that does not matter to the client (`STREAM.MSG.GET`: headers in base64), at the messages that
//! were to come next, and removes what cannot be read.

use std::str::FromStr as _;

use async_nats::HeaderName;
use async_nats::jetstream::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

use super::stream::{NatsError, Stream, is_absent};

/// Most messages that are looked at: more than were on their way when the connection ended.
const LOOKED_AT_MAX: usize = 1000;

#[derive(Deserialize)]
struct Found {
    message: Stored,
}

/// A message as the server tells of it.
#[derive(Deserialize)]
struct Stored {
    subject: String,
    #[serde(rename = "seq")]
    sequence: u64,
    /// In base64.
    #[serde(rename = "hdrs")]
    headers: Option<String>,
}

impl Stream {
    /// Removes those of the messages behind this one that the client cannot read.
    pub(super) async fn remove_unreadable(&self, behind: u64) -> Result<(), NatsError> {
        let mut behind = behind;
        for _ in 0..LOOKED_AT_MAX {
            let Some(stored) = self.next_stored(behind).await? else {
                return Ok(());
            };
            if !is_readable(&stored) {
                let subject: String = stored.subject.chars().take(100).collect();
                tracing::error!(
                    subject,
                    sequence = stored.sequence,
                    "a message in the queue's stream has headers that are not text: nobody could read past it, so it is removed"
                );
                self.delete(stored.sequence).await?;
            }
            behind = stored.sequence;
        }
        Ok(())
    }

    /// The message behind this one.
    async fn next_stored(&self, behind: u64) -> Result<Option<Stored>, NatsError> {
        if !self.is_there() {
            return Err(NatsError::Away);
        }
        let subject = format!("STREAM.MSG.GET.{}", self.name());
        let request =
            serde_json::json!({ "seq": behind.saturating_add(1), "next_by_subj": self.subjects.all() });
        let answer: Result<Response<Found>, _> = self.context().request(subject, &request).await;
        match answer {
            Ok(Response::Ok(found)) => Ok(Some(found.message)),
            Ok(Response::Err { error }) if is_absent(error.error_code()) => Ok(None),
            Ok(Response::Err { error }) => Err(NatsError::Refused(Box::new(error))),
            Err(error) => Err(NatsError::Refused(Box::new(error))),
        }
    }
}

fn is_readable(stored: &Stored) -> bool {
    let Some(headers) = &stored.headers else {
        return true;
    };
    let headers = STANDARD.decode(headers).ok();
    headers.is_some_and(|headers| are_readable(&headers))
}

/// Whether the client takes these headers: a line with the version, perhaps a status behind it, and lines of names and values,
/// some of which go on in the next line.
fn are_readable(headers: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(headers) else {
        return false;
    };
    let mut lines = text.lines();
    let Some(rest) = lines.next().and_then(|line| line.strip_prefix("NATS/1.0")) else {
        return false;
    };
    let status = rest.trim().split(' ').next().unwrap_or_default();
    let is_status = status.is_empty()
        || status
            .parse()
            .is_ok_and(|status: u16| (100..1000).contains(&status));
    let mut is_first = true;
    is_status
        && lines.filter(|line| !line.is_empty()).all(|line| {
            let was_first = std::mem::take(&mut is_first);
            let goes_on = line.starts_with(char::is_whitespace) && !was_first;
            let name = line.split_once(':').map(|(name, _)| name);
            goes_on || name.is_some_and(|name| HeaderName::from_str(name).is_ok())
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_client_reads_is_told_from_what_ends_its_connection() {
        for headers in [
            &b"NATS/1.0\r\n\r\n"[..],
            b"NATS/1.0\r\nSpore-Call: {}\r\nx: y\r\n z\r\n\r\n",
            b"NATS/1.0 503\r\n\r\n",
            b"NATS/1.0 409 Full\r\nx: y\r\n\r\n",
            "NATS/1.0\r\nx: \u{e9}\r\n\r\n".as_bytes(),
        ] {
            assert!(are_readable(headers), "{}", headers.escape_ascii());
        }
        for headers in [
            &b""[..],
            b"HTTP/1.1\r\n\r\n",
            b"NATS/1.0\r\nx: \xff\r\n\r\n",
            b"NATS/1.0\r\nnothing\r\n\r\n",
            b"NATS/1.0\r\n y: z\r\n\r\n",
            b"NATS/1.0 many\r\n\r\n",
        ] {
            assert!(!are_readable(headers), "{}", headers.escape_ascii());
        }
        let stored = |headers: Option<&str>| Stored {
            subject: String::new(),
            sequence: 1,
            headers: headers.map(str::to_owned),
        };
        assert!(is_readable(&stored(None)));
        assert!(is_readable(&stored(Some(&STANDARD.encode("NATS/1.0\r\n\r\n")))));
        assert!(!is_readable(&stored(Some("?"))));
    }
}
