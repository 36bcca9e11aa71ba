//! What a run was measured on.

use std::process::Command;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use spore_test_harness::daemon::Daemon;
use spore_test_harness::repository;

/// The machine and the versions of everything that was measured.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Machine {
    /// Day of the run, UTC.
    pub(crate) date: String,
    /// Name of the machine.
    pub(crate) host: String,
    /// Processor as Linux names it.
    pub(crate) processor: String,
    /// Processors that are online.
    pub(crate) processors: usize,
    /// Memory, in KiB.
    pub(crate) memory_kib: u64,
    /// Kernel release.
    pub(crate) kernel: String,
    /// Commit of Spore, with `-dirty` if there were changes.
    pub(crate) commit: String,
    /// `spore info --json`: the kind of KVM and what its operations cost.
    pub(crate) probe: serde_json::Value,
    /// First line of what each peer says of its version.
    pub(crate) peers: Vec<String>,
}

/// Describes this machine.
pub(crate) fn describe(daemon: &Daemon) -> Result<Machine> {
    let processors = read("/proc/cpuinfo")?;
    let memory = read("/proc/meminfo")?;
    let memory_kib = field(&memory, "MemTotal").trim_end_matches("kB").trim().parse();
    let probe = daemon.spore_ok(&["info", "--json"]);
    Ok(Machine {
        date: jiff::Timestamp::now().strftime("%Y-%m-%d").to_string(),
        host: read("/proc/sys/kernel/hostname")?.trim().to_owned(),
        processor: field(&processors, "model name").to_owned(),
        processors: std::thread::available_parallelism()
            .context("the processors cannot be counted")?
            .get(),
        memory_kib: memory_kib.context("/proc/meminfo has MemTotal in kB")?,
        kernel: read("/proc/sys/kernel/osrelease")?.trim().to_owned(),
        commit: output_of("git", &["describe", "--always", "--dirty", "--abbrev=12"]).unwrap_or_default(),
        probe: serde_json::from_str(&probe).context("spore info --json printed something else")?,
        peers: ["crun", "runc", "runsc"]
            .iter()
            .filter_map(|peer| output_of(peer, &["--version"]))
            .collect(),
    })
}

fn read(path: &str) -> Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("cannot read {path}"))
}

/// The value of the first line `NAME: VALUE`.
fn field<'a>(text: &'a str, name: &str) -> &'a str {
    let values = text.lines().filter_map(|line| line.split_once(':'));
    values
        .filter(|(key, _)| key.trim() == name)
        .map(|(_, value)| value.trim())
        .next()
        .unwrap_or_default()
}

/// First line that a command prints, if it is installed.
fn output_of(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program)
        .args(arguments)
        .current_dir(repository())
        .output()
        .ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    output
        .status
        .success()
        .then(|| text.lines().next().unwrap_or_default().to_owned())
}
