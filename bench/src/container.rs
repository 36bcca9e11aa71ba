//! The program in containers, through the command lines of the OCI runtimes that are installed.
//!
//! The bundle is the least that the specification allows: its own process, mount, IPC and UTS namespaces, the host's
//! network, a read-only root with nothing but the program.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::json;
use spore_test_harness::program::free_port;
use spore_test_harness::wait_until;

use crate::subject::{START_MEANING, Subject, first_answer, spawn};

/// How long a runtime may take to end a container.
const STOP_TIMEOUT: Duration = Duration::from_secs(20);

/// A runtime, and the options that it needs before its command.
struct Runtime {
    program: &'static str,
    isolation: &'static str,
    options: &'static [&'static str],
}

const RUNTIMES: &[Runtime] = &[
    Runtime {
        program: "crun",
        isolation: "container, host kernel",
        options: &[],
    },
    Runtime {
        program: "runc",
        isolation: "container, host kernel",
        options: &[],
    },
    // The platform that works without hardware virtualisation; cgroups are the others' cost, not measured here.
    Runtime {
        program: "runsc",
        isolation: "gVisor, ptrace",
        options: &["--platform=ptrace", "--network=host", "--ignore-cgroups"],
    },
];

/// The program under one runtime.
pub(crate) struct Container {
    runtime: &'static Runtime,
    bundle: PathBuf,
    state: PathBuf,
    started: u32,
}

/// The runtimes that are installed here, each with a bundle of the program in `folder`.
pub(crate) fn installed(folder: &Path, program: &Path) -> Result<Vec<Container>> {
    let mut found = Vec::new();
    for runtime in RUNTIMES {
        let version = Command::new(runtime.program)
            .arg("--version")
            .stdout(Stdio::null())
            .status();
        if !version.is_ok_and(|status| status.success()) {
            eprintln!("{} is not installed: left out", runtime.program);
            continue;
        }
        let bundle = folder.join(runtime.program);
        let root = bundle.join("rootfs");
        for mount_point in ["proc", "dev", "sys", "tmp"] {
            std::fs::create_dir_all(root.join(mount_point))
                .context("the temporary folder is not writable")?;
        }
        std::fs::copy(program, root.join("function")).context("the temporary folder is not writable")?;
        let state = folder.join(format!("{}-state", runtime.program));
        found.push(Container {
            runtime,
            bundle,
            state,
            started: 0,
        });
    }
    Ok(found)
}

impl Container {
    fn write_configuration(&self, port: u16) -> Result<()> {
        let namespaces: Vec<_> = ["pid", "ipc", "uts", "mount"]
            .map(|kind| json!({"type": kind}))
            .into();
        let configuration = json!({
            "ociVersion": "1.0.2",
            "process": {
                "terminal": false,
                "user": {"uid": 0, "gid": 0},
                "args": ["/function"],
                "env": [format!("PORT={port}")],
                "cwd": "/",
                "noNewPrivileges": true,
            },
            "root": {"path": "rootfs", "readonly": true},
            "hostname": "function",
            "mounts": [{"destination": "/proc", "type": "proc", "source": "proc"}],
            "linux": {"namespaces": namespaces},
        });
        let path = self.bundle.join("config.json");
        std::fs::write(&path, configuration.to_string())
            .with_context(|| format!("cannot write {}", path.display()))
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(self.runtime.program);
        command
            .arg("--root")
            .arg(&self.state)
            .args(self.runtime.options)
            .args(arguments);
        command
    }

    fn remove(&self, id: &str, process: &mut Child) -> Result<()> {
        let _ = spawn(&mut self.command(&["kill", id, "KILL"]))?.wait(); // it may have ended by itself
        let ended = wait_until(STOP_TIMEOUT, || !matches!(process.try_wait(), Ok(None)));
        if !ended {
            let _ = process.kill();
            let _ = process.wait();
        }
        // Where `run` has removed the container at its end already, there is nothing to delete.
        let _ = spawn(&mut self.command(&["delete", id]))?.wait();
        if ended {
            Ok(())
        } else {
            bail!("the container did not end within {STOP_TIMEOUT:?}")
        }
    }
}

impl Subject for Container {
    fn name(&self) -> &str {
        self.runtime.program
    }

    fn isolation(&self) -> &str {
        self.runtime.isolation
    }

    fn meaning(&self) -> &'static str {
        START_MEANING
    }

    fn measure(&mut self) -> Result<Duration> {
        let port = free_port();
        self.write_configuration(port)?;
        self.started += 1;
        let id = format!("spore-bench-{}-{}", std::process::id(), self.started);
        let bundle = self
            .bundle
            .to_str()
            .context("the temporary folder's path is not UTF-8")?
            .to_owned();
        let start = Instant::now();
        let mut process = spawn(&mut self.command(&["run", "--bundle", &bundle, &id]))?;
        let answered = first_answer(port);
        let elapsed = start.elapsed();
        let removed = self.remove(&id, &mut process);
        answered.and(removed).map(|()| elapsed)
    }
}
