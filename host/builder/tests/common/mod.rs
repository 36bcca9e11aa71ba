//! Builds functions with the builder and runs them as ordinary processes on a loopback port.

#![allow(dead_code, reason = "every test file uses its own part of this")]

use std::collections::HashMap;
use std::ffi::OsStr;
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// Generous: only a hang runs into it.
const TIMEOUT: Duration = Duration::from_secs(180);

/// Builds the function in `folder` (relative to this crate) in a temporary copy and returns the program, once a folder.
pub(crate) fn program(folder: &str) -> PathBuf {
    static BUILT: Mutex<Option<HashMap<String, (tempfile::TempDir, PathBuf)>>> = Mutex::new(None);
    let mut built = BUILT.lock().unwrap();
    let built = built.get_or_insert_default();
    let (_, path) = built.entry(folder.to_owned()).or_insert_with(|| {
        let copy = tempfile::tempdir().unwrap();
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
        for entry in std::fs::read_dir(source).unwrap() {
            let path = entry.unwrap().path();
            if path.is_file() {
                std::fs::copy(&path, copy.path().join(path.file_name().unwrap())).unwrap();
            }
        }
        let program = spore_builder::c::build(copy.path()).unwrap();
        assert_eq!(
            program.warnings, "",
            "the sources should compile without a warning"
        );
        (copy, program.path)
    });
    path.clone()
}

fn command(program: &Path, environment: &[(&str, &str)]) -> Command {
    let mut command = Command::new(program);
    command
        .env_clear()
        .env("SPORE_ADDRESS", "127.0.0.1")
        .envs(environment.iter().copied())
        .stdin(Stdio::null());
    command
}

/// Runs a function that is expected to end by itself.
pub(crate) fn run_once(folder: &str, environment: &[(&str, &str)]) -> Output {
    command(&program(folder), environment).output().unwrap()
}

/// A function running as a process; ends when dropped.
pub(crate) struct Server {
    process: Child,
    port: u16,
}

impl Server {
    /// Starts the function and waits until it accepts connections.
    pub(crate) fn start(folder: &str, environment: &[(&str, &str)]) -> Self {
        Self::start_program(&program(folder), environment)
    }

    /// Starts a program that the test built itself.
    pub(crate) fn start_program(program: &Path, environment: &[(&str, &str)]) -> Self {
        Self::start_command(&[program.as_os_str()], environment)
    }

    /// Starts a program with arguments.
    pub(crate) fn start_command(words: &[&OsStr], environment: &[(&str, &str)]) -> Self {
        // A port may be taken between its probing and the server's bind: then the next one is tried.
        for _ in 0..100 {
            let port = next_port();
            if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_err() {
                continue;
            }
            let process = command(Path::new(words[0]), environment)
                .args(&words[1..])
                .env("PORT", port.to_string())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .unwrap();
            let mut server = Self { process, port };
            if server.becomes_ready() {
                return server;
            }
        }
        panic!("{words:?} did not become ready");
    }

    fn becomes_ready(&mut self) -> bool {
        let start = Instant::now();
        while start.elapsed() < TIMEOUT {
            if self.process.try_wait().unwrap().is_some() {
                return false;
            }
            if TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).is_ok() {
                return true;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        false
    }

    /// Opens a connection.
    pub(crate) fn connect(&self) -> Connection<'_> {
        Connection {
            stream: connect(self.port),
            received: Vec::new(),
            server: Held::Borrowed(self),
        }
    }

    /// Opens a connection for tests that do without help.
    pub(crate) fn connect_raw(&self) -> TcpStream {
        connect(self.port)
    }

    /// Opens a connection that keeps the server alive.
    pub(crate) fn connect_keeping(self) -> Connection<'static> {
        Connection {
            stream: connect(self.port),
            received: Vec::new(),
            server: Held::Owned(self),
        }
    }

    /// Sends a request on a connection of its own and returns all that comes back until it is closed.
    pub(crate) fn exchange(&self, request: &[u8]) -> String {
        let mut connection = self.connect();
        connection.send_in_background(request.to_vec());
        connection.receive_to_end()
    }

    /// Waits for the function to end by itself and returns how.
    pub(crate) fn wait(mut self) -> std::process::ExitStatus {
        let start = Instant::now();
        while start.elapsed() < TIMEOUT {
            if let Some(status) = self.process.try_wait().unwrap() {
                return status;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        panic!("the function did not end");
    }

    /// Whether the function has not ended.
    pub(crate) fn is_running(&mut self) -> bool {
        self.process.try_wait().unwrap().is_none()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Below the range that the kernel hands out to clients, and never twice in this process: parallel tests must not meet.
fn next_port() -> u16 {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let offset = std::process::id().wrapping_mul(97).wrapping_add(count) % 12_000;
    20_000 + u16::try_from(offset).expect("the remainder is small")
}

fn connect(port: u16) -> TcpStream {
    let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
    stream.set_read_timeout(Some(TIMEOUT)).unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

enum Held<'a> {
    Borrowed(&'a Server),
    Owned(Server),
}

/// A connection to a server.
pub(crate) struct Connection<'a> {
    stream: TcpStream,
    received: Vec<u8>,
    server: Held<'a>,
}

impl Connection<'_> {
    /// Sends bytes as they are.
    pub(crate) fn send(&mut self, bytes: &[u8]) {
        // A server that closes early is judged by what it answers, not by this error.
        let _ = self.stream.write_all(bytes);
    }

    /// Sends bytes while the caller receives: needed where both directions fill the sockets' buffers.
    pub(crate) fn send_in_background(&mut self, bytes: Vec<u8>) {
        let mut stream = self.stream.try_clone().unwrap();
        std::thread::spawn(move || {
            let _ = stream.write_all(&bytes);
        });
    }

    fn receive_more(&mut self) -> bool {
        let mut buffer = vec![0; 64 * 1024];
        match self.stream.read(&mut buffer) {
            Ok(count) => {
                self.received.extend_from_slice(&buffer[..count]);
                count > 0
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                panic!(
                    "no answer in time; so far: {}",
                    String::from_utf8_lossy(&self.received)
                )
            }
            Err(_) => false,
        }
    }

    /// Receives up to and with the empty line after a head.
    pub(crate) fn receive_head(&mut self) -> String {
        loop {
            if let Some(end) = self.received.windows(4).position(|window| window == b"\r\n\r\n") {
                return String::from_utf8(self.received.drain(..end + 4).collect()).unwrap();
            }
            assert!(
                self.receive_more(),
                "closed in the head: {}",
                String::from_utf8_lossy(&self.received)
            );
        }
    }

    /// Receives one whole answer with `Content-Length`.
    pub(crate) fn receive(&mut self) -> String {
        let mut answer = self.receive_head();
        let length = answer
            .lines()
            .find_map(|line| line.strip_prefix("Content-Length: "))
            .unwrap_or_else(|| panic!("no Content-Length: {answer}"))
            .parse()
            .unwrap();
        while self.received.len() < length {
            assert!(self.receive_more(), "closed in the body of {answer}");
        }
        answer.push_str(std::str::from_utf8(&self.received[..length]).unwrap());
        self.received.drain(..length);
        answer
    }

    /// Receives until the server closes.
    pub(crate) fn receive_to_end(&mut self) -> String {
        while self.receive_more() {}
        String::from_utf8(std::mem::take(&mut self.received)).unwrap()
    }
}

/// Status code of an answer.
pub(crate) fn status_of(answer: &str) -> u16 {
    let code = answer.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3));
    code.unwrap_or_else(|| panic!("no HTTP answer: {answer:?}"))
        .parse()
        .unwrap()
}

/// Body of an answer.
pub(crate) fn body_of(answer: &str) -> &str {
    answer
        .split_once("\r\n\r\n")
        .unwrap_or_else(|| panic!("no HTTP answer: {answer:?}"))
        .1
}

/// Changes a request at up to six places: a byte, a fragment more, the rest cut off, or a piece of it repeated.
pub(crate) fn damage(request: &mut Vec<u8>, random: &mut fastrand::Rng, fragments: &[&[u8]]) {
    for _ in 0..random.usize(..7) {
        let position = random.usize(..request.len());
        match random.u8(..4) {
            0 => request[position] = random.u8(..),
            1 => {
                let fragment = fragments[random.usize(..fragments.len())];
                request.splice(position..position, fragment.iter().copied());
            }
            2 => request.truncate(position.max(1)),
            _ => {
                let end = request.len().min(position + random.usize(1..30));
                let copy = request[position..end].to_vec();
                let target = random.usize(..request.len());
                request.splice(target..target, copy);
            }
        }
    }
}
