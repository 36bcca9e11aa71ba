//! When a unikernel is ready: its port is open, or it answers a request with a success.

use std::fmt;
use std::io;
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use super::network::{Network, Stream};

/// How long a try may take, and the pause until the next one.
const TRY_TIMEOUT: Duration = Duration::from_secs(1);
const PAUSE: Duration = Duration::from_millis(20);
/// How long the first tries may take to connect, and later ones, as a part of what all have taken. What is sent before the guest's
/// card is ready is lost, and is sent again only after 700 ms.
const CONNECT_TIMEOUT_MIN: Duration = Duration::from_millis(20);
const CONNECT_PART: u32 = 8;
/// Longest first line of an answer, in bytes.
const LINE_BYTES_MAX: usize = 256;

/// A request that is answered with a success by whoever is ready.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Probe {
    method: &'static str,
    path: String,
}

/// What is no probe.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no request that asks whether a unikernel is ready: write `GET /PATH` or `POST /ready`")]
pub(crate) struct NoProbe(String);

impl Probe {
    /// Reads `METHOD PATH`.
    pub(crate) fn parse(text: &str) -> Result<Self, NoProbe> {
        let refused = || NoProbe(text.chars().filter(|c| !c.is_control()).take(60).collect());
        let (method, path) = text.split_once(' ').ok_or_else(refused)?;
        let method = ["GET", "POST"].into_iter().find(|known| *known == method);
        let is_path =
            path.starts_with('/') && path.len() <= 1024 && path.bytes().all(|byte| byte.is_ascii_graphic());
        match method {
            Some(method) if is_path => Ok(Self {
                method,
                path: path.to_owned(),
            }),
            _ => Err(refused()),
        }
    }

    /// Asks; whether the answer is a success.
    async fn ask(&self, mut stream: impl AsyncRead + AsyncWrite + Unpin) -> io::Result<bool> {
        let Self { method, path } = self;
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).await?;
        let mut line = Vec::new();
        while !line.contains(&b'\n') && line.len() < LINE_BYTES_MAX {
            let mut bytes = [0; LINE_BYTES_MAX];
            match stream.read(&mut bytes).await? {
                0 => break,
                count => line.extend_from_slice(&bytes[..count]),
            }
        }
        Ok(is_success(&line))
    }
}

impl fmt::Display for Probe {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} {}", self.method, self.path)
    }
}

/// Whether an answer begins as one with a status from 200 to 299 does.
fn is_success(answer: &[u8]) -> bool {
    let status = answer
        .strip_prefix(b"HTTP/1.1 ")
        .or_else(|| answer.strip_prefix(b"HTTP/1.0 "));
    status.is_some_and(|status| matches!(status, [b'2', b'0'..=b'9', b'0'..=b'9', b' ' | b'\r' | b'\n', ..]))
}

/// Waits until the guest is ready. The stream to its port, if that was all that was asked for: the first caller gets it.
pub(crate) async fn wait(network: &Network, port: u16, probe: Option<&Probe>) -> Option<Stream> {
    let begun = Instant::now();
    loop {
        let patience = (begun.elapsed() / CONNECT_PART).clamp(CONNECT_TIMEOUT_MIN, TRY_TIMEOUT);
        let tried = async {
            let stream = tokio::time::timeout(patience, network.connect(port)).await??;
            match probe {
                Some(probe) => Ok((probe.ask(stream).await?, None)),
                None => Ok::<_, io::Error>((true, Some(stream))),
            }
        };
        // Whatever a try fails with, the next one may not.
        if let Ok(Ok((true, stream))) = tokio::time::timeout(TRY_TIMEOUT, tried).await {
            return stream;
        }
        tokio::time::sleep(PAUSE).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probes_are_a_method_and_a_path() {
        assert_eq!(Probe::parse("POST /ready").unwrap().to_string(), "POST /ready");
        for text in [
            "",
            "GET",
            "GET ready",
            "DELETE /",
            "GET /a b",
            "GET /\r\nX: y",
            "get /",
        ] {
            assert!(Probe::parse(text).is_err(), "{text}");
        }
    }

    #[tokio::test]
    async fn a_success_is_told_from_what_is_none() {
        for (answer, expected) in [
            ("HTTP/1.1 200 OK\r\n", true),
            ("HTTP/1.0 204\r\n\r\n", true),
            ("HTTP/1.1 503 Not Yet\r\n", false),
            ("HTTP/1.1 2000 OK\r\n", false),
            ("HTTP/1.1 20", false),
            ("", false),
            ("220 smtp\r\n", false),
        ] {
            let (ours, mut theirs) = tokio::io::duplex(4096);
            let probe = Probe::parse("GET /healthz").unwrap();
            let server = async move {
                let mut request = vec![0; 1024];
                let count = theirs.read(&mut request).await.unwrap();
                assert!(request[..count].starts_with(b"GET /healthz HTTP/1.1\r\n"));
                theirs.write_all(answer.as_bytes()).await.unwrap();
            };
            let (found, ()) = tokio::join!(probe.ask(ours), server);
            assert_eq!(found.unwrap(), expected, "{answer}");
        }
    }
}
