//! A program as an ordinary process.

use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use spore_test_harness::program::free_port;
use spore_test_harness::wait_until;
use tempfile::TempDir;

/// How long a program may take to listen: the slowest compile themselves first.
const START_TIMEOUT: Duration = Duration::from_secs(60);

/// How long a program may take to end when it is asked to.
const STOP_TIMEOUT: Duration = Duration::from_secs(3);

/// How a program is started as a process.
#[derive(Debug, Clone)]
pub struct NativeCommand {
    /// Program and arguments; `{port}` in them is replaced by the port.
    pub words: Vec<String>,
    /// Environment beside `PORT` and `TMPDIR`; nothing else is in it.
    pub environment: Vec<(String, String)>,
    /// Folder in which it starts.
    pub folder: PathBuf,
}

impl NativeCommand {
    /// The command for a port, with a folder for what it writes.
    pub fn on_port(&self, port: u16, scratch: &Path) -> Command {
        let port = port.to_string();
        let words: Vec<String> = self
            .words
            .iter()
            .map(|word| word.replace("{port}", &port))
            .collect();
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).current_dir(&self.folder).env_clear();
        command
            .envs(self.environment.iter().cloned())
            .env("PORT", port)
            .env("TMPDIR", scratch);
        command
    }
}

/// A running process that listens on a loopback port of its own; it ends when dropped.
pub struct Native {
    process: Child,
    address: SocketAddr,
    output: TempDir,
}

impl Native {
    /// Starts a program and waits until it accepts connections; panics with what it wrote if it does not.
    pub fn start(command: &NativeCommand) -> Native {
        let port = free_port();
        let output = TempDir::with_prefix("spore-real-").expect("the temporary folder is writable");
        let file = File::create(output.path().join("output")).expect("the temporary folder is writable");
        let errors = file.try_clone().expect("a descriptor can be duplicated");
        let mut command = command.on_port(port, output.path());
        let process = command.stdin(Stdio::null()).stdout(file).stderr(errors).spawn();
        let process = process.unwrap_or_else(|error| panic!("{command:?} cannot be run: {error}"));
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let mut native = Native {
            process,
            address,
            output,
        };
        let mut listens = false;
        wait_until(START_TIMEOUT, || {
            listens = TcpStream::connect(address).is_ok();
            listens || !matches!(native.process.try_wait(), Ok(None))
        });
        assert!(
            listens,
            "{command:?} does not listen on {address}:\n{}",
            native.text()
        );
        native
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its process number.
    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// What it has written so far.
    pub fn text(&self) -> String {
        text_of(&self.output.path().join("output"))
    }
}

fn text_of(path: &Path) -> String {
    String::from_utf8_lossy(&std::fs::read(path).unwrap_or_default()).into_owned()
}

impl Drop for Native {
    fn drop(&mut self) {
        // It may have ended by itself, which the test that follows will say.
        if let Ok(None) = self.process.try_wait() {
            // Some remove files of theirs when they are asked to end.
            let _ = kill_process(Pid::from_child(&self.process), Signal::TERM);
            wait_until(STOP_TIMEOUT, || !matches!(self.process.try_wait(), Ok(None)));
        }
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
