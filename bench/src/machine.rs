//! What a run was measured on.

use std::process::Command;
use std::time::{Duration, Instant};

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

/// A machine at least this idle is good to measure on.
const IDLE_SHARE_WANTED: f64 = 0.95;

/// Waits until the machine was idle for a second, but not longer than `timeout`, and returns how idle it was in the
/// last second (0 to 1), to be quoted with the figures.
pub(crate) fn wait_for_idle(timeout: Duration) -> Result<f64> {
    let start = Instant::now();
    loop {
        let before = processor_ticks(&read("/proc/stat")?);
        std::thread::sleep(Duration::from_secs(1));
        let after = processor_ticks(&read("/proc/stat")?);
        let share = (after.0 - before.0) as f64 / (after.1 - before.1).max(1) as f64;
        if share >= IDLE_SHARE_WANTED || start.elapsed() >= timeout {
            return Ok(share);
        }
    }
}

/// Idle and total ticks of all processors since boot.
pub(crate) fn processor_ticks(stat: &str) -> (u64, u64) {
    let line = stat.lines().next().unwrap_or_default();
    let ticks: Vec<u64> = line
        .split_whitespace()
        .skip(1)
        .map_while(|field| field.parse().ok())
        .collect();
    // user, nice, system, idle, iowait, irq, softirq, steal; guest time is part of user time.
    let idle = ticks.iter().skip(3).take(2).sum();
    (idle, ticks.iter().take(8).sum())
}

pub(crate) fn read(path: &str) -> Result<String> {
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

#[cfg(test)]
mod tests {
    use super::processor_ticks;

    #[test]
    fn idle_and_io_wait_count_as_idle_and_guest_time_is_not_counted_twice() {
        assert_eq!(
            processor_ticks("cpu  1 2 3 40 50 6 7 8 900 900\ncpu0 1 1 1 1\n"),
            (90, 117)
        );
        assert_eq!(processor_ticks(""), (0, 0));
    }
}
