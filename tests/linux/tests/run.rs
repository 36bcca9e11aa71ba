//! Runs programs, natively and as unikernels, and tells how they ended.

use std::fmt;
use std::io::Read;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread::JoinHandle;
use std::time::Duration;

use spore_test_harness::{daemon, wait_until};

/// How long a program may take on a machine that is busy: they all end by themselves within two seconds.
const TIMEOUT: Duration = Duration::from_secs(60);

/// The status with which a program says that it could not do what it is about (`EXIT_UNPREPARED` of check.h).
const UNPREPARED: i32 = 99;

/// What is run and compared.
#[derive(Clone, Copy)]
pub(crate) enum Mode {
    /// One native run and one as a unikernel.
    Compare,
    /// Several native runs.
    NativeOnly {
        /// How many.
        runs: usize,
    },
}

impl Mode {
    /// What the environment variables ask for.
    pub(crate) fn from_environment() -> Mode {
        if std::env::var_os("SPORE_LINUX_NATIVE_ONLY").is_none_or(|value| value != "1") {
            return Mode::Compare;
        }
        let runs = std::env::var("SPORE_LINUX_NATIVE_RUNS").map_or(3, |runs| {
            runs.parse().expect("SPORE_LINUX_NATIVE_RUNS is a number of runs")
        });
        Mode::NativeOnly { runs }
    }
}

/// How a program ended and what it printed.
pub(crate) struct Ending {
    /// How it was run, for messages.
    how: String,
    /// The exit status, or 128 and the number of the signal that ended it, as a shell says it.
    status: i32,
    stdout: Vec<u8>,
    stderr: Vec<u8>,
}

impl Ending {
    /// Whether output and status are the same. What goes to stderr is for people and not compared.
    pub(crate) fn agrees_with(&self, other: &Ending) -> bool {
        self.status == other.status && self.stdout == other.stdout
    }

    /// Whether the program could not do what it is about.
    pub(crate) fn is_unprepared(&self) -> bool {
        self.status == UNPREPARED
    }

    /// Says where two endings differ first, and shows both.
    pub(crate) fn difference(&self, other: &Ending) -> String {
        let (ours, theirs) = (self.stdout.split(is_newline), other.stdout.split(is_newline));
        let first = ours.zip(theirs).position(|(ours, theirs)| ours != theirs);
        let line = first.map_or_else(String::new, |index| format!(", first in line {}", index + 1));
        format!("the runs differ{line}\n{self}\n{other}")
    }
}

fn is_newline(byte: &u8) -> bool {
    *byte == b'\n'
}

impl fmt::Display for Ending {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "--- {}, status {}", self.how, self.status)?;
        write!(formatter, "\n{}", String::from_utf8_lossy(&self.stdout))?;
        if !self.stderr.is_empty() {
            write!(formatter, "\n(stderr) {}", String::from_utf8_lossy(&self.stderr))?;
        }
        Ok(())
    }
}

/// Runs a program as an ordinary process.
pub(crate) fn native(program: &Path) -> Result<Ending, String> {
    let mut command = Command::new(program);
    command.env_clear();
    ending("native", command)
}

/// Runs a command of the busybox in a root file system as an ordinary process, below that root.
pub(crate) fn native_in(root: &Path, program: &str, arguments: &[String]) -> Result<Ending, String> {
    let mut command = Command::new("unshare");
    if !rustix::process::geteuid().is_root() {
        command.arg("--map-root-user"); // then its identity and the owner of its files are those of root as well
    }
    command
        .arg("--root")
        .arg(root)
        .arg("--")
        .arg(program)
        .args(arguments);
    command.env_clear().env("PATH", "/bin");
    ending("native", command)
}

/// Runs a static program as a unikernel.
pub(crate) fn unikernel(program: &Path) -> Result<Ending, String> {
    let mut command = spore_run();
    command.arg("--").arg(program);
    ending("unikernel", command)
}

/// Runs a program of a root file system as a unikernel.
pub(crate) fn unikernel_in(root: &Path, program: &str, arguments: &[String]) -> Result<Ending, String> {
    let mut command = spore_run();
    command.args(["--env", "PATH=/bin"]).arg("--rootfs").arg(root);
    command.arg("--").arg(program).args(arguments);
    ending("unikernel", command)
}

fn spore_run() -> Command {
    let mut command = Command::new(daemon::binary());
    let options = std::env::var("SPORE_LINUX_OPTIONS").unwrap_or_default();
    command.arg("run").args(options.split_whitespace());
    command
}

/// Runs to the end, or to the time limit.
fn ending(how: &str, mut command: Command) -> Result<Ending, String> {
    command
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let spawned = command.spawn();
    let mut process = spawned.map_err(|error| format!("{command:?} cannot be run: {error}"))?;
    let stdout = read_in_background(process.stdout.take());
    let stderr = read_in_background(process.stderr.take());
    let mut status = None;
    wait_until(TIMEOUT, || {
        status = process.try_wait().expect("the program is our child");
        status.is_some()
    });
    let Some(status) = status else {
        process.kill().expect("it has not ended");
        process.wait().expect("the program is our child");
        let seconds = TIMEOUT.as_secs();
        let printed = String::from_utf8_lossy(&stdout.join().expect("reading does not panic")).into_owned();
        return Err(format!(
            "{how}: not at its end after {seconds} s; it printed:\n{printed}"
        ));
    };
    let by_signal = status.signal().map(|number| 128 + number);
    Ok(Ending {
        how: how.to_owned(),
        status: status
            .code()
            .or(by_signal)
            .expect("a program exits or is ended by a signal"),
        stdout: stdout.join().expect("reading does not panic"),
        stderr: stderr.join().expect("reading does not panic"),
    })
}

fn read_in_background(from: Option<impl Read + Send + 'static>) -> JoinHandle<Vec<u8>> {
    let mut from = from.expect("it was made as a pipe");
    std::thread::spawn(move || {
        let mut read = Vec::new();
        from.read_to_end(&mut read).expect("a pipe of ours is readable");
        read
    })
}
