//! A real NATS server (`nats-server`) with JetStream on loopback.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use crate::program::free_port;
use crate::registry::has_tools;
use crate::wait_until;

/// How long it may take to listen.
const START_TIMEOUT: Duration = Duration::from_secs(20);

/// A running server; it ends when dropped.
pub struct NatsServer {
    process: Child,
    address: SocketAddr,
    folder: TempDir,
    options: Vec<String>,
}

impl NatsServer {
    /// Starts one that anybody may use; none, which is said on standard error, where it is not installed.
    pub fn start() -> Option<Self> {
        Self::start_with(&[])
    }

    /// Starts one with more options of `nats-server`.
    pub fn start_with(options: &[&str]) -> Option<Self> {
        if !has_tools(&["nats-server"]) {
            return None;
        }
        let folder = TempDir::with_prefix("spore-nats-").expect("the temporary folder is writable");
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
        let options: Vec<String> = options.iter().map(|&option| option.to_owned()).collect();
        let process = spawn(address, &folder, &options);
        Some(Self {
            process,
            address,
            folder,
            options,
        })
    }

    /// Its address as `spore serve --queue` takes it.
    pub fn url(&self) -> String {
        format!("nats://{}", self.address)
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Publishes a message on a subject, as any client.
    pub fn publish(&self, subject: &str, body: &[u8]) {
        self.send(&format!("PUB {subject} {}", body.len()), body);
    }

    /// Publishes one with these headers, of which the line with the version is one.
    pub fn publish_with(&self, subject: &str, headers: &[u8], body: &[u8]) {
        let content = [headers, body].concat();
        self.send(
            &format!("HPUB {subject} {} {}", headers.len(), content.len()),
            &content,
        );
    }

    fn send(&self, command: &str, content: &[u8]) {
        let mut stream = TcpStream::connect(self.address).expect("it listens");
        let hello = "CONNECT {\"verbose\":false,\"headers\":true}\r\n";
        let mut message = format!("{hello}{command}\r\n").into_bytes();
        message.extend_from_slice(content);
        message.extend_from_slice(b"\r\nPING\r\n");
        stream.write_all(&message).expect("it reads");
        // Its answer says that it has taken what came before.
        let mut answer = Vec::new();
        let mut part = [0; 4096];
        while !answer.windows(4).any(|window| window == b"PONG") {
            let length = stream.read(&mut part).expect("it answers");
            assert!(length > 0, "{}", String::from_utf8_lossy(&answer));
            answer.extend_from_slice(&part[..length]);
        }
    }

    /// Ends it without a chance to clean up.
    pub fn kill(&mut self) {
        self.process.kill().expect("the server is our child");
        self.process.wait().expect("the server is our child");
    }

    /// Starts it again, at the same address and on the same data.
    pub fn start_again(&mut self) {
        self.process = spawn(self.address, &self.folder, &self.options);
    }
}

impl Drop for NatsServer {
    fn drop(&mut self) {
        // Best effort: a test may have ended it.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn spawn(address: SocketAddr, folder: &TempDir, options: &[String]) -> Child {
    let log = folder.path().join("nats.log");
    let mut command = Command::new("nats-server");
    command
        .args([
            "-a",
            &address.ip().to_string(),
            "-p",
            &address.port().to_string(),
            "-js",
            "-sd",
        ])
        .arg(folder.path().join("data"))
        .arg("-l")
        .arg(&log)
        .args(options);
    let mut process = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("nats-server can be run");
    let has_started = wait_until(START_TIMEOUT, || {
        TcpStream::connect(address).is_ok() || !matches!(process.try_wait(), Ok(None))
    });
    let ended = process.try_wait().expect("it is our child");
    assert!(
        has_started && ended.is_none(),
        "nats-server did not start: {}",
        std::fs::read_to_string(log).unwrap_or_default()
    );
    process
}
