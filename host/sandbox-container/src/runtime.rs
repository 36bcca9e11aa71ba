//! The container runtimes, and how each is called.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use spore_sandbox::SandboxKind;

/// How long a runtime may take to forget a container.
const FORGET_PATIENCE: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(2);

/// Which of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Family {
    Runc,
    Crun,
    Runsc,
}

/// A runtime of this machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Runtime {
    pub(crate) family: Family,
    pub(crate) program: PathBuf,
    /// Where it keeps what it knows of containers.
    pub(crate) state: PathBuf,
}

impl Family {
    pub(crate) fn of(kind: SandboxKind) -> Option<Self> {
        match kind {
            SandboxKind::Runc => Some(Self::Runc),
            SandboxKind::Crun => Some(Self::Crun),
            SandboxKind::Gvisor => Some(Self::Runsc),
            SandboxKind::Unikernel | SandboxKind::Microvm | SandboxKind::Foreign => None,
        }
    }

    /// Name of its program, and of the Debian package that has it.
    pub(crate) fn program(self) -> &'static str {
        match self {
            Self::Runc => "runc",
            Self::Crun => "crun",
            Self::Runsc => "runsc",
        }
    }

    /// Memory that it takes itself beside the function's, in bytes, and that an instance may use on top of its limit.
    pub(crate) fn own_memory_bytes(self) -> u64 {
        match self {
            Self::Runc | Self::Crun => 0,
            // A kernel, a server of files and the command line, each a Go program.
            Self::Runsc => 96 << 20,
        }
    }

    /// Whether its own process stays as long as the container runs.
    pub(crate) fn stays(self) -> bool {
        self == Self::Runsc
    }

    /// Looks for its program where programs are, and whether it can be run.
    pub(crate) fn find(self) -> Result<PathBuf, String> {
        let name = self.program();
        let path = std::env::var_os("PATH").unwrap_or_default();
        let mut folders: Vec<_> = std::env::split_paths(&path).collect();
        // Where Debian has runc, and not every user's PATH goes.
        folders.extend(["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from));
        let is_program = |path: &PathBuf| {
            path.metadata()
                .is_ok_and(|data| data.is_file() && data.permissions().mode() & 0o111 != 0)
        };
        let program = folders
            .iter()
            .map(|folder| folder.join(name))
            .find(is_program)
            .ok_or_else(|| {
                format!(
                    "{name} is not installed: install it (Debian: apt-get install {name}), and start the daemon again"
                )
            })?;
        let output = Command::new(&program).arg("--version").output();
        match output {
            Ok(output) if output.status.success() => Ok(program),
            Ok(output) => Err(format!(
                "{} --version failed ({})",
                program.display(),
                output.status
            )),
            Err(error) => Err(format!("{} cannot be run: {error}", program.display())),
        }
    }
}

impl Runtime {
    /// The command line up to the subcommand.
    fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        command.arg("--root").arg(&self.state);
        match self.family {
            Family::Runc => {}
            // The keeper puts containers into cgroups.
            Family::Crun => {
                command.arg("--cgroup-manager=disabled");
            }
            Family::Runsc => {
                // The network that it calls the host's is that of the keeper's namespace: a loopback device.
                command.args(["--platform=ptrace", "--network=host", "--ignore-cgroups"]);
            }
        }
        command
    }

    /// Starts a container. `log` takes what the runtime itself has to say, `process` the number of the first process.
    pub(crate) fn run(&self, id: &str, bundle: &Path, log: &Path, process: &Path) -> Command {
        let mut command = self.command();
        match self.family {
            Family::Runc => {
                command.arg("--log").arg(log).arg("run").arg("--detach");
                command.arg("--pid-file").arg(process);
            }
            // It would take leave itself of a program that ends at once, and nobody would know how: see `start`.
            Family::Crun => {
                command.arg("--log").arg(log).arg("create");
                command.arg("--pid-file").arg(process);
            }
            Family::Runsc => {
                command.arg("--log").arg(log).arg("run");
            }
        }
        command.arg("--bundle").arg(bundle).arg(id);
        command
    }

    /// Lets the program of a container begin, where that is a step of its own.
    pub(crate) fn start(&self, id: &str, log: &Path) -> Option<Command> {
        let mut command = self.command();
        command.arg("--log").arg(log).arg("start").arg(id);
        (self.family == Family::Crun).then_some(command)
    }

    /// Forgets a container, all of whose processes have ended, and removes what it has made for it elsewhere.
    pub(crate) fn forget(&self, id: &str) {
        match self.family {
            Family::Runc | Family::Crun => {
                let mut command = self.command();
                command.args(["delete", "--force", id]);
                run_bounded(&mut command, FORGET_PATIENCE);
            }
            // It would look for the kernel that has ended for 10 s, and has nothing but two files where cgroups are not its own.
            Family::Runsc => {
                let own = format!("{id}_");
                for entry in std::fs::read_dir(&self.state).into_iter().flatten().flatten() {
                    if entry.file_name().to_string_lossy().starts_with(&own) {
                        // The next start of the daemon tries again.
                        let _ = std::fs::remove_file(entry.path());
                    }
                }
            }
        }
    }
}

/// Runs a command whose output nobody reads, and ends it if it takes too long.
fn run_bounded(command: &mut Command, patience: Duration) {
    let command = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let Ok(mut child) = command.spawn() else { return };
    let deadline = Instant::now() + patience;
    while let Ok(None) = child.try_wait() {
        if Instant::now() > deadline {
            let _ = child.kill();
            let _ = child.wait();
            return;
        }
        std::thread::sleep(PAUSE);
    }
}
