//! QEMU's own protocol (QMP): a line of JSON for each message. Pure; [`crate::control`] carries it.
//!
//! QEMU is confined because the guest may have taken it over, so what it says is bounded and believed no more than the guest.

use serde_json::{Value, json};

/// Longest line that is read, in bytes.
pub(crate) const LINE_BYTES_MAX: usize = 64 << 10;

/// What QEMU says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Message {
    /// It is there.
    Greeting {
        /// Its version.
        version: String,
    },
    /// A command succeeded; what it gave.
    Return(Value),
    /// A command failed; why.
    Error(String),
    /// Something happened.
    Event {
        /// Its name, for example `SHUTDOWN`.
        name: String,
        /// What is said of it.
        data: Value,
    },
}

/// What is no message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NoMessage {
    #[error("a line of QEMU is longer than {LINE_BYTES_MAX} bytes")]
    TooLong,
    #[error("a line of QEMU is no message of its protocol")]
    Unknown,
}

impl Message {
    /// Reads a line.
    pub(crate) fn parse(line: &[u8]) -> Result<Self, NoMessage> {
        let mut value: Value = serde_json::from_slice(line).map_err(|_| NoMessage::Unknown)?;
        if let Some(version) = value.pointer("/QMP/version/qemu") {
            let number = |name: &str| version.get(name).and_then(Value::as_u64).unwrap_or_default();
            let version = format!("{}.{}.{}", number("major"), number("minor"), number("micro"));
            return Ok(Self::Greeting { version });
        }
        if let Some(error) = value.get("error") {
            let text = error
                .get("desc")
                .and_then(Value::as_str)
                .unwrap_or("without a reason");
            return Ok(Self::Error(text.to_owned()));
        }
        if let Some(name) = value.get("event").and_then(Value::as_str) {
            let name = name.to_owned();
            let data = value.get_mut("data").map(Value::take).unwrap_or_default();
            return Ok(Self::Event { name, data });
        }
        let returned = value.get_mut("return").map(Value::take);
        returned.map(Self::Return).ok_or(NoMessage::Unknown)
    }
}

/// A command, as a line.
pub(crate) fn command(name: &str, arguments: Option<Value>) -> Vec<u8> {
    let mut value = json!({ "execute": name });
    if let Some(arguments) = arguments {
        value["arguments"] = arguments;
    }
    let mut line = value.to_string().into_bytes();
    line.push(b'\n');
    line
}

/// Cuts bytes into lines; holds no more than one.
#[derive(Debug, Default)]
pub(crate) struct Lines(Vec<u8>);

impl Lines {
    /// Takes bytes; gives each line that they complete, without its end, to `take`.
    pub(crate) fn push(&mut self, bytes: &[u8], take: &mut impl FnMut(&[u8])) -> Result<(), NoMessage> {
        let mut rest = bytes;
        while let Some(at) = rest.iter().position(|&byte| byte == b'\n') {
            self.add(&rest[..at])?;
            rest = &rest[at + 1..];
            let line = std::mem::take(&mut self.0);
            let line = line.trim_ascii();
            if !line.is_empty() {
                take(line);
            }
        }
        self.add(rest)
    }

    fn add(&mut self, bytes: &[u8]) -> Result<(), NoMessage> {
        if self.0.len() + bytes.len() > LINE_BYTES_MAX {
            return Err(NoMessage::TooLong);
        }
        self.0.extend_from_slice(bytes);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_of_qemu_are_read() {
        let greeting = br#"{"QMP": {"version": {"qemu": {"micro": 22, "minor": 2, "major": 7}, "package": "x"}, "capabilities": ["oob"]}}"#;
        let version = "7.2.22".to_owned();
        assert_eq!(Message::parse(greeting), Ok(Message::Greeting { version }));
        assert_eq!(
            Message::parse(br#"{"return": {}}"#),
            Ok(Message::Return(json!({})))
        );
        let error = br#"{"error": {"class": "GenericError", "desc": "no such thing"}}"#;
        assert_eq!(Message::parse(error), Ok(Message::Error("no such thing".into())));
        let event = br#"{"timestamp": {"seconds": 1}, "event": "SHUTDOWN", "data": {"guest": true}}"#;
        let (name, data) = ("SHUTDOWN".into(), json!({ "guest": true }));
        assert_eq!(Message::parse(event), Ok(Message::Event { name, data }));
        for line in [&b"{}"[..], b"[1]", b"{", b"\xff", b"\"QMP\""] {
            assert_eq!(Message::parse(line), Err(NoMessage::Unknown));
        }
    }

    #[test]
    fn lines_are_cut_and_bounded() {
        let mut lines = Lines::default();
        let mut found = Vec::new();
        for piece in [&b"{\"a"[..], b"\"}\r\n\n{", b"}\n"] {
            lines.push(piece, &mut |line| found.push(line.to_vec())).unwrap();
        }
        assert_eq!(found, [b"{\"a\"}".to_vec(), b"{}".to_vec()]);
        let piece = vec![b'x'; LINE_BYTES_MAX];
        lines.push(&piece, &mut |_| ()).unwrap();
        assert_eq!(lines.push(b"x", &mut |_| ()), Err(NoMessage::TooLong));
    }

    #[test]
    fn commands_are_lines() {
        assert_eq!(command("quit", None), b"{\"execute\":\"quit\"}\n");
        let line = command("migrate", Some(json!({ "uri": "fd:x" })));
        assert_eq!(
            line,
            b"{\"arguments\":{\"uri\":\"fd:x\"},\"execute\":\"migrate\"}\n"
        );
    }
}
