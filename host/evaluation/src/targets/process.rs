//! The program as a process of the host's, without any sandbox: the floor.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tokio::net::TcpStream;

use crate::client::Place;
use crate::workloads::PORT_VARIABLE;

/// How long a program may take to listen.
const LISTEN_TIMEOUT: Duration = Duration::from_secs(30);
/// Pause between two attempts to connect to a program that does not listen yet.
const CONNECT_PAUSE: Duration = Duration::from_micros(50);

/// Why there is no process to ask.
#[derive(Debug, thiserror::Error)]
pub enum ProcessError {
    /// There is no free port, or the program cannot be run.
    #[error("the program cannot be run as a process")]
    Start(#[source] std::io::Error),
    /// It does not listen.
    #[error("the program does not listen within {} s", LISTEN_TIMEOUT.as_secs())]
    DoesNotListen,
}

/// A process that listens on a port of its own; it ends when this goes.
pub(crate) struct NativeProcess {
    process: Child,
    pub(crate) place: Place,
}

impl NativeProcess {
    /// Starts it.
    pub(crate) fn start(command: &[PathBuf], mark: &str) -> Result<Self, ProcessError> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(ProcessError::Start)?;
        let port = listener.local_addr().map_err(ProcessError::Start)?.port();
        drop(listener);
        let Some((program, arguments)) = command.split_first() else {
            return Err(ProcessError::Start(std::io::ErrorKind::NotFound.into()));
        };
        let mut command = Command::new(program);
        command
            .args(arguments)
            .env_clear()
            .env(PORT_VARIABLE, port.to_string())
            .env("SPORE_ADDRESS", Ipv4Addr::LOCALHOST.to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        if let Some((name, value)) = mark.split_once('=') {
            command.env(name, value);
        }
        let process = command.spawn().map_err(ProcessError::Start)?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        Ok(Self {
            process,
            place: Place::new(address, ""),
        })
    }

    /// Its process number.
    pub(crate) fn pid(&self) -> i32 {
        self.process.id() as i32
    }

    /// Waits until it takes connections.
    pub(crate) async fn listens(&self) -> Result<(), ProcessError> {
        let begun = Instant::now();
        while TcpStream::connect(self.place.address).await.is_err() {
            if begun.elapsed() > LISTEN_TIMEOUT {
                return Err(ProcessError::DoesNotListen);
            }
            // Timers of the runtime are too coarse; others that wait in it go on in between.
            std::thread::sleep(CONNECT_PAUSE);
            tokio::task::yield_now().await;
        }
        Ok(())
    }
}

impl Drop for NativeProcess {
    fn drop(&mut self) {
        let _ = self.process.kill(); // it may have ended by itself
        let _ = self.process.wait();
    }
}
