//! What is in the messages of the stream. Pure.
//!
//! | subject | headers | content | written |
//! |---|---|---|---|
//! | `NAME.queue.call.KEY` | `Spore-Call`: the invocation without its body, and who has accepted it | the body | once |
//! | `NAME.queue.state.KEY` | `Spore-State`: what has become of it, and who runs it | | at each change |
//!
//! `KEY` is drawn at random for each invocation. That there is a call says that it has not been answered.

use async_nats::HeaderMap;
use serde::{Deserialize, Serialize};

use crate::message::{Attempt, Message, State};

const CALL: &str = "Spore-Call";
const STATE: &str = "Spore-State";
/// Length of a message whose content was left out.
const SIZE: &str = "Nats-Msg-Size";
/// Longest text of either header.
const TEXT_BYTES_MAX: usize = 512 << 10;
const KEY_CHARACTERS: usize = 32;

/// An invocation as it was accepted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Call {
    /// The daemon that has accepted it.
    pub(super) by: String,
    #[serde(flatten)]
    pub(super) message: Message,
}

/// What has become of an invocation since.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    /// The daemon that says so.
    pub(super) by: String,
    pub(super) state: State,
    #[serde(default)]
    pub(super) attempts: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) last: Option<Attempt>,
    /// Whether that daemon runs it: the start of the daemon in which it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) lease: Option<String>,
}

impl Record {
    /// That of an invocation of which nothing else is said.
    pub(super) fn of(call: &Call) -> Self {
        Self {
            by: call.by.clone(),
            state: call.message.state,
            attempts: call.message.attempts,
            last: call.message.last.clone(),
            lease: None,
        }
    }

    /// What it says of the invocation.
    pub(super) fn apply(&self, message: &mut Message) {
        message.state = self.state;
        message.attempts = self.attempts;
        message.last.clone_from(&self.last);
    }
}

/// Why a message of the stream is not one of the queue's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Foreign {
    #[error("its subject is not one of the queue's")]
    Subject,
    #[error("it has no header {0}")]
    NoHeader(&'static str),
    #[error("its header {0} is longer than {TEXT_BYTES_MAX} bytes")]
    TooLong(&'static str),
    #[error("its header {header} cannot be read: {reason}")]
    Unreadable { header: &'static str, reason: String },
}

/// The subjects of a queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Subjects {
    prefix: String,
}

/// What a message is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum About<'a> {
    Call(&'a str),
    State(&'a str),
}

impl Subjects {
    pub(super) fn new(name: &str) -> Self {
        Self {
            prefix: format!("{name}.queue"),
        }
    }

    pub(super) fn call(&self, key: &str) -> String {
        format!("{}.call.{key}", self.prefix)
    }

    pub(super) fn state(&self, key: &str) -> String {
        format!("{}.state.{key}", self.prefix)
    }

    /// All of the stream's, and what is told.
    pub(super) fn all(&self) -> String {
        format!("{}.>", self.prefix)
    }

    /// Where daemons tell each other, without a copy in the stream, that an invocation is gone.
    pub(super) fn gone(&self) -> String {
        format!("{}.told.gone", self.prefix)
    }

    /// Where daemons tell each other that they are there.
    pub(super) fn beat(&self) -> String {
        format!("{}.told.beat", self.prefix)
    }

    pub(super) fn about<'a>(&self, subject: &'a str) -> Result<About<'a>, Foreign> {
        let rest = subject
            .strip_prefix(self.prefix.as_str())
            .and_then(|rest| rest.strip_prefix('.'));
        match rest.and_then(|rest| rest.split_once('.')) {
            Some(("call", key)) if is_key(key) => Ok(About::Call(key)),
            Some(("state", key)) if is_key(key) => Ok(About::State(key)),
            _ => Err(Foreign::Subject),
        }
    }
}

/// Whether it can be the key of an invocation.
pub(super) fn is_key(text: &str) -> bool {
    let is_digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    text.len() == KEY_CHARACTERS && text.bytes().all(is_digit)
}

fn read<'a, T: Deserialize<'a>>(headers: &'a HeaderMap, name: &'static str) -> Result<T, Foreign> {
    let text = headers.get(name).ok_or(Foreign::NoHeader(name))?.as_str();
    if text.len() > TEXT_BYTES_MAX {
        return Err(Foreign::TooLong(name));
    }
    serde_json::from_str(text).map_err(|error| Foreign::Unreadable {
        header: name,
        reason: error.to_string(),
    })
}

fn write(name: &'static str, value: &impl Serialize) -> HeaderMap {
    let mut headers = HeaderMap::new();
    // Strings and numbers, in one line: there is nothing that could not be encoded.
    headers.insert(name, serde_json::to_string(value).unwrap_or_default());
    headers
}

/// The headers of a call.
pub(super) fn call_headers(call: &Call) -> HeaderMap {
    write(CALL, call)
}

/// The headers of a state.
pub(super) fn state_headers(record: &Record) -> HeaderMap {
    write(STATE, record)
}

/// A call, whose body is `length` bytes long, or as long as the server says where it has left it out.
pub(super) fn read_call(headers: Option<&HeaderMap>, length: usize) -> Result<Call, Foreign> {
    let headers = headers.ok_or(Foreign::NoHeader(CALL))?;
    let mut call: Call = read(headers, CALL)?;
    let told = headers.get(SIZE).and_then(|size| size.as_str().parse().ok());
    // Bounds are kept by what there is, not by what it says of itself.
    call.message.body_bytes = told.unwrap_or(length as u64).min(u64::from(u32::MAX));
    Ok(call)
}

/// A state.
pub(super) fn read_state(headers: Option<&HeaderMap>) -> Result<Record, Foreign> {
    read(headers.ok_or(Foreign::NoHeader(STATE))?, STATE)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::nats) fn call(by: &str, call_id: &str) -> Call {
        Call {
            by: by.to_owned(),
            message: Message {
                call_id: call_id.to_owned(),
                function: "f.ns".to_owned(),
                method: "POST".to_owned(),
                path: "/".to_owned(),
                headers: vec![("x".to_owned(), "\u{ff}\u{85}\t\u{2028} ".to_owned())],
                callback: None,
                body_bytes: 3,
                accepted_ms: 5,
                state: State::Waiting { due_ms: 5 },
                attempts: 0,
                last: None,
            },
        }
    }

    #[test]
    fn what_was_written_is_read() {
        let call = call("a", "line\r\nbreak");
        let headers = call_headers(&call);
        assert_eq!(read_call(Some(&headers), 3), Ok(call.clone()));
        let record = Record {
            lease: Some("start".to_owned()),
            attempts: 7,
            ..Record::of(&call)
        };
        assert_eq!(read_state(Some(&state_headers(&record))), Ok(record));
    }

    #[test]
    fn what_others_write_is_bounded_and_told_apart() {
        let subjects = Subjects::new("spore");
        let key = "0123456789abcdef0123456789abcdef";
        let subject = subjects.call(key);
        assert_eq!(subjects.about(&subject), Ok(About::Call(key)));
        let subject = subjects.state(key);
        assert_eq!(subjects.about(&subject), Ok(About::State(key)));
        for bad in [
            "",
            "spore",
            "spore.queue.call",
            "spore.queue.call.",
            "spore.queue.call.0123456789ABCDEF0123456789abcdef",
            "spore.queue.call.0123456789abcdef0123456789abcdef.x",
            "spore.queue.odd.0123456789abcdef0123456789abcdef",
            "sporequeue.call.0123456789abcdef0123456789abcdef",
        ] {
            assert_eq!(subjects.about(bad), Err(Foreign::Subject), "{bad}");
        }
        assert_eq!(read_call(None, 0), Err(Foreign::NoHeader(CALL)));
        let mut headers = HeaderMap::new();
        headers.insert(CALL, "{}");
        assert!(matches!(
            read_call(Some(&headers), 0),
            Err(Foreign::Unreadable { .. })
        ));
        headers.insert(CALL, "x".repeat(TEXT_BYTES_MAX + 1));
        assert_eq!(read_call(Some(&headers), 0), Err(Foreign::TooLong(CALL)));
        // Its own word for its length does not count.
        let mut lying = call("a", "b");
        lying.message.body_bytes = u64::MAX;
        let read = read_call(Some(&call_headers(&lying)), 3).expect("a call");
        assert_eq!(read.message.body_bytes, 3);
    }
}
