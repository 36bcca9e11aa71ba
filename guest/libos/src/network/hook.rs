//! Hooks: requests that the library OS makes of the program on the function's port (docs/snapshots.md).

use alloc::string::String;
use alloc::vec::Vec;

use super::address::{Address, Family};
use super::pair::{self, End, Flavour};
use super::socket::Condition;
use crate::kernel::Kernel;
use crate::text::text;
use crate::time::{SECOND_NS, monotonic_ns};

/// How long an answer may take.
const TIMEOUT_NS: u64 = 10 * SECOND_NS;
/// Bytes of an answer that are read at once.
const STEP_BYTES: usize = 512;
/// What an answer begins with: `HTTP/1.1 200`.
const STATUS_BYTES: usize = 12;

/// A hook that was called and has not answered yet.
pub(crate) struct Hook {
    /// The environment variable that names it.
    variable: &'static str,
    end: End,
    /// The first bytes of the answer.
    status: Vec<u8>,
    pub(crate) deadline_ns: u64,
}

/// How a hook has come out.
pub(crate) enum Outcome {
    Waiting,
    Done,
    Failed(String),
}

/// Whether a request for this path is well-formed.
pub(crate) fn is_path(path: &[u8]) -> bool {
    path.starts_with(b"/") && path.iter().all(u8::is_ascii_graphic)
}

impl Hook {
    /// Requests `path` of the program; none if nobody listens on the function's port, or there is no memory for it.
    pub(crate) fn call(kernel: &mut Kernel, variable: &'static str, path: &[u8]) -> Option<Self> {
        let port = kernel.network.function_port;
        let listener = kernel.network.tcp_ports.any_listener(port)?;
        let conditions = [(); 2].map(|()| Condition::new(&kernel.ready));
        let [near, far] = pair::connect(kernel, Flavour::Tcp, [&conditions[0], &conditions[1]]);
        let loopback = Address::loopback(Family::V4, port).canonical();
        let request = [
            b"GET ",
            path,
            b" HTTP/1.1\r\nHost: localhost\r\nUser-Agent: spore\r\nConnection: close\r\n\r\n",
        ];
        near.send_own(&request.concat()).ok()?;
        listener.connect(far, (loopback, port), (loopback, super::GATEWAY_PORT));
        Some(Self {
            variable,
            end: near,
            status: Vec::new(),
            deadline_ns: monotonic_ns().saturating_add(TIMEOUT_NS),
        })
    }

    /// Reads what the program has answered.
    pub(crate) fn outcome(&mut self) -> Outcome {
        let mut step = [0; STEP_BYTES];
        loop {
            let count = self.end.receive_own(&mut step);
            let missing = STATUS_BYTES - self.status.len();
            self.status.extend_from_slice(&step[..count.min(missing)]);
            if count == 0 {
                break;
            }
        }
        let is_over = self.end.has_peer_ended();
        match status(&self.status) {
            Some(200..=299) if is_over => Outcome::Done,
            Some(200..=299) | None if !is_over && monotonic_ns() < self.deadline_ns => Outcome::Waiting,
            Some(200..=299) => self.failed("did not close the connection within 10 s"),
            Some(status) => self.failed(&text!("was answered with status {status}")),
            None if is_over => self.failed("was not answered by an HTTP response"),
            None => self.failed("was not answered within 10 s"),
        }
    }

    fn failed(&self, how: &str) -> Outcome {
        Outcome::Failed(failure(self.variable, how))
    }
}

impl Drop for Hook {
    fn drop(&mut self) {
        // Nothing travels beside its bytes.
        self.end.close(true, &mut Vec::new());
    }
}

/// What is said of a hook that has failed.
pub(crate) fn failure(variable: &str, how: &str) -> String {
    text!("the hook of {variable} {how}")
}

/// The status that an answer begins with, once it is there; 0 if it is none.
fn status(bytes: &[u8]) -> Option<u32> {
    if bytes.len() < STATUS_BYTES {
        return None;
    }
    let digits = &bytes[STATUS_BYTES - 3..STATUS_BYTES];
    let is_http = bytes.starts_with(b"HTTP/1.") && bytes[8] == b' ' && digits.iter().all(u8::is_ascii_digit);
    Some(match is_http {
        true => digits
            .iter()
            .fold(0, |value, digit| value * 10 + u32::from(digit - b'0')),
        false => 0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_have_a_status() {
        assert_eq!(status(b"HTTP/1.1 20"), None);
        assert_eq!(status(b"HTTP/1.1 204"), Some(204));
        assert_eq!(status(b"HTTP/1.0 500"), Some(500));
        assert_eq!(status(b"HTTP/1.1 2x4"), Some(0));
        assert_eq!(status(b"SSH-2.0-Open"), Some(0));
    }

    #[test]
    fn paths_cannot_hold_another_request() {
        assert!(is_path(b"/hook?with=query"));
        for path in [&b""[..], b"hook", b"/a b", b"/a\r\nX: y", b"/\xc3\xa4"] {
            assert!(!is_path(path));
        }
    }
}
