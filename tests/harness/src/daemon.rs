//! A `spore serve` for one test: on a free port, with a data folder of its own, gone when the test is over.

use std::ffi::OsStr;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::client::{self, Answer, RequestError};
use crate::process::{ProcessIdentity, descendants, waits_for_instance};
use crate::{isolation_options, repository, target_directory, wait_until};

/// How long a daemon may take to listen: it probes the host first, on a machine that may be busy.
const START_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a daemon may take to end after SIGTERM.
const STOP_TIMEOUT: Duration = Duration::from_secs(30);

/// The `spore` binary: `SPORE_BIN`, or else a release build made now.
pub fn binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| {
        if let Some(named) = std::env::var_os("SPORE_BIN") {
            return PathBuf::from(named)
                .canonicalize()
                .expect("SPORE_BIN names the built spore binary");
        }
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut command = Command::new(cargo);
        command
            .args(["build", "--release", "-p", "spore"])
            .current_dir(repository());
        let status = command
            .env("CARGO_TARGET_DIR", target_directory())
            .status()
            .expect("cargo can be run");
        assert!(status.success(), "{command:?} failed");
        target_directory().join("release/spore")
    })
}

/// How a daemon is started.
#[derive(Debug, Clone, Default)]
pub struct Setup {
    /// More options of `spore serve`.
    pub options: Vec<String>,
    /// More environment variables.
    pub environment: Vec<(String, String)>,
    /// A copy of the binary to start instead of [`binary`].
    pub binary: Option<PathBuf>,
    /// A command that prepares its process, sets limits for example, and becomes the command that follows it.
    pub prefix: Vec<String>,
}

/// A running daemon.
pub struct Daemon {
    process: Child,
    address: SocketAddr,
    setup: Setup,
    data: TempDir,
}

impl Daemon {
    /// Starts a daemon with its defaults.
    pub fn start() -> Daemon {
        Daemon::start_with(&[])
    }

    /// Starts a daemon with more options of `spore serve`.
    pub fn start_with(options: &[&str]) -> Daemon {
        Daemon::start_as(Setup {
            options: options.iter().map(|&option| option.to_owned()).collect(),
            ..Setup::default()
        })
    }

    /// Starts a daemon with its defaults in an environment with these variables besides.
    pub fn start_with_environment(variables: &[(&str, &str)]) -> Daemon {
        let owned = |&(name, value): &(&str, &str)| (name.to_owned(), value.to_owned());
        Daemon::start_as(Setup {
            environment: variables.iter().map(owned).collect(),
            ..Setup::default()
        })
    }

    /// Starts a daemon in this way.
    pub fn start_as(setup: Setup) -> Daemon {
        Daemon::start_in(data_folder(), setup)
    }

    /// Starts a daemon in this way, whose data is the folder `data` in the given one.
    pub fn start_in(data: TempDir, setup: Setup) -> Daemon {
        let (process, address) = spawn(data.path(), &setup);
        Daemon {
            process,
            address,
            setup,
            data,
        }
    }

    /// Where its gateway listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its process number.
    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Starts the daemon again on the same data, in another way.
    pub fn start_again_as(&mut self, setup: Setup) {
        self.setup = setup;
        self.start_again();
    }

    /// Its data folder, as given to `--data`.
    pub fn data(&self) -> PathBuf {
        self.data.path().join("data")
    }

    /// The monitors of its instances, and whatever else descends from it but for monitors that wait for an instance.
    pub fn descendants(&self) -> Vec<ProcessIdentity> {
        let all = descendants(self.pid()).into_iter();
        all.filter(|identity| !waits_for_instance(identity)).collect()
    }

    /// The monitors that wait for an instance.
    pub fn waiting_monitors(&self) -> Vec<ProcessIdentity> {
        let mut waiting = descendants(self.pid());
        waiting.retain(waits_for_instance);
        let guests: Vec<_> = waiting
            .iter()
            .flat_map(|monitor| descendants(monitor.pid as u32))
            .collect();
        waiting.retain(|identity| !guests.contains(identity));
        waiting.into_iter().collect()
    }

    /// Sends a request to the gateway, on a connection of its own.
    pub fn send(&self, request: Request<Bytes>) -> Result<Answer, RequestError> {
        client::send(self.address, request)
    }

    /// Requests a path without a body; panics if there is no whole answer.
    pub fn get(&self, path: &str) -> Answer {
        self.exchange(client::request(Method::GET, path))
    }

    /// Sends a body to a path; panics if there is no whole answer.
    pub fn send_body(&self, method: Method, path: &str, body: impl Into<Bytes>) -> Answer {
        self.exchange(client::with_body(method, path, body))
    }

    fn exchange(&self, request: Request<Bytes>) -> Answer {
        let what = format!("{} {}", request.method(), request.uri());
        self.send(request)
            .unwrap_or_else(|error| panic!("{what}: {}\n{}", chain(&error), self.log()))
    }

    /// Runs the command line against this daemon and returns what it did.
    pub fn spore(&self, arguments: &[&str]) -> Output {
        let mut command = self.command(arguments);
        command.output().expect("the spore binary can be run")
    }

    /// The command line against this daemon, to be run in another way. Runtimes that it makes are kept for later tests.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(binary());
        command
            .args(arguments)
            .env("OPENFAAS_URL", format!("http://{}", self.address))
            .env("XDG_DATA_HOME", target_directory().join("test-data"))
            .stdin(Stdio::null());
        command
    }

    /// Runs the command line, which has to succeed, and returns its standard output.
    pub fn spore_ok(&self, arguments: &[&str]) -> String {
        let output = self.spore(arguments);
        assert!(
            output.status.success(),
            "spore {arguments:?}: {}\n{}{}\n{}",
            output.status,
            excerpt(&String::from_utf8_lossy(&output.stdout)),
            excerpt(&String::from_utf8_lossy(&output.stderr)),
            self.log(),
        );
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Deploys a static program under a name, with more options of `spore deploy`.
    pub fn deploy(&self, name: &str, program: &Path, options: &[&str]) {
        let program = program.to_str().expect("the paths of test programs are UTF-8");
        self.spore_ok(&[&["deploy", name, "--binary", program], options].concat());
    }

    /// Waits until the function's log holds `text`, and returns the log as it then is; panics after 10 s.
    pub fn wait_for_log(&self, function: &str, text: &str) -> String {
        let mut log = String::new();
        let found = wait_until(Duration::from_secs(10), || {
            log = self.spore_ok(&["logs", function]);
            log.contains(text)
        });
        assert!(
            found,
            "the log of {function} does not say {text:?}:\n{}",
            excerpt(&log)
        );
        log
    }

    /// What the daemon itself has written, the middle left out if it is long.
    pub fn log(&self) -> String {
        excerpt(&std::fs::read_to_string(self.data.path().join("daemon.log")).unwrap_or_default())
    }

    /// Ends the daemon as an operator would, with SIGTERM, and returns how it ended.
    pub fn stop(&mut self) -> ExitStatus {
        let pid = Pid::from_child(&self.process);
        kill_process(pid, Signal::TERM).expect("the daemon is our child");
        let mut status = None;
        wait_until(STOP_TIMEOUT, || {
            status = self.process.try_wait().expect("the daemon is our child");
            status.is_some()
        });
        status.unwrap_or_else(|| panic!("the daemon did not end after SIGTERM:\n{}", self.log()))
    }

    /// Ends the daemon without a chance to clean up.
    pub fn kill(&mut self) {
        self.process.kill().expect("the daemon is our child");
        self.process.wait().expect("the daemon is our child");
    }

    /// Starts the daemon again on the same data, after [`Daemon::stop`] or [`Daemon::kill`].
    pub fn start_again(&mut self) {
        let ended = self.process.try_wait().expect("the daemon is our child");
        assert!(ended.is_some(), "the daemon still runs");
        (self.process, self.address) = spawn(self.data.path(), &self.setup);
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // Best effort: a test that failed may leave the daemon in any state.
        if let Ok(None) = self.process.try_wait() {
            let _ = kill_process(Pid::from_child(&self.process), Signal::TERM);
            let ended = wait_until(Duration::from_secs(10), || {
                !matches!(self.process.try_wait(), Ok(None))
            });
            if !ended {
                let _ = self.process.kill();
            }
            let _ = self.process.wait();
        }
    }
}

/// Starts `spore serve` and waits until it says where it listens.
fn spawn(data: &Path, setup: &Setup) -> (Child, SocketAddr) {
    let (mut process, log_path) = spawn_unchecked(data, setup);
    let mut address = None;
    wait_until(START_TIMEOUT, || {
        address = announced_address(&std::fs::read_to_string(&log_path).unwrap_or_default());
        address.is_some() || !matches!(process.try_wait(), Ok(None))
    });
    let Some(address) = address else {
        let _ = process.kill();
        let _ = process.wait();
        panic!(
            "spore serve did not start:\n{}",
            std::fs::read_to_string(&log_path).unwrap_or_default()
        );
    };
    (process, address)
}

/// Starts `spore serve` where it has to fail, and returns what it wrote.
pub fn failed_start(data: &Path) -> String {
    failed_start_as(data, &Setup::default())
}

/// The same in this way.
pub fn failed_start_as(data: &Path, setup: &Setup) -> String {
    let (mut process, log_path) = spawn_unchecked(data, setup);
    let mut status = None;
    wait_until(START_TIMEOUT, || {
        status = process.try_wait().expect("the daemon is our child");
        status.is_some()
    });
    let log = std::fs::read_to_string(&log_path).unwrap_or_default();
    let Some(status) = status else {
        let _ = process.kill();
        let _ = process.wait();
        panic!("spore serve has started and must not:\n{log}");
    };
    assert!(!status.success(), "it says that all is well:\n{log}");
    log
}

/// A folder for a daemon's data and log.
pub fn data_folder() -> TempDir {
    TempDir::with_prefix("spore-test-").expect("the temporary folder is writable")
}

fn spawn_unchecked(data: &Path, setup: &Setup) -> (Child, PathBuf) {
    let log_path = data.join("daemon.log");
    let log = std::fs::File::create(&log_path).expect("the data folder is writable");
    let errors = log.try_clone().expect("a descriptor can be duplicated");
    let program = setup.binary.as_deref().unwrap_or_else(|| binary());
    let mut words = setup.prefix.iter().map(OsStr::new).chain([program.as_os_str()]);
    let mut command = Command::new(words.next().unwrap_or_default());
    command
        .args(words)
        .args(["serve", "--listen", "127.0.0.1:0", "--data"])
        .arg(data.join("data"))
        .args(own_isolation_options(&setup.options))
        .args(own_registry_options(&setup.options))
        .args(&setup.options);
    let variables = setup.environment.iter().map(|(name, value)| (name, value));
    command.envs(variables).env("NO_COLOR", "1"); // the log is a file
    let process = command.stdin(Stdio::null()).stdout(log).stderr(errors).spawn();
    (process.expect("the spore binary can be run"), log_path)
}

/// The isolation that all daemons have, unless a test asks for one.
fn own_isolation_options(options: &[String]) -> &'static [String] {
    let names_one = |option: &String| option == "--isolation" || option == "--require-vm";
    match options.iter().any(names_one) {
        true => &[],
        false => isolation_options(),
    }
}

/// Tests stay on this machine: only those that name a registry on it have their daemon pull images.
fn own_registry_options(options: &[String]) -> &'static [&'static str] {
    match options.iter().any(|option| option == "--mirror") {
        true => &[],
        false => &["--no-pull"],
    }
}

/// The address in the line that `spore serve` prints when it is ready.
fn announced_address(output: &str) -> Option<SocketAddr> {
    let (_, rest) = output
        .split_once("http://")
        .or_else(|| output.split_once("https://"))?;
    let end = rest.find(|c: char| !(c.is_ascii_digit() || c == '.' || c == ':'))?;
    rest[..end].trim_end_matches(['.', ':']).parse().ok()
}

/// The beginning and the end of a long text, for messages.
pub fn excerpt(text: &str) -> String {
    const LINES: usize = 20;
    let lines: Vec<&str> = text.lines().collect();
    if lines.len() <= 2 * LINES {
        return text.to_owned();
    }
    let left_out = lines.len() - 2 * LINES;
    format!(
        "{}\n… {left_out} lines …\n{}",
        lines[..LINES].join("\n"),
        lines[lines.len() - LINES..].join("\n")
    )
}

/// An error with its causes, in one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::announced_address;

    #[test]
    fn the_address_is_read_only_from_a_whole_line() {
        assert_eq!(announced_address("listening on http://127.0.0.1:80"), None);
        let address = announced_address("probing\nlistening on http://127.0.0.1:8080\n");
        assert_eq!(address, Some(([127, 0, 0, 1], 8080).into()));
        assert_eq!(announced_address("ready at https://127.0.0.1:8080\n"), address);
        assert_eq!(announced_address("no KVM\n"), None);
    }
}
