//! What a run was measured on, and how busy that is.

use std::io::Read as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// A machine at least this idle is good to measure on.
const IDLE_SHARE_WANTED: f64 = 0.95;
/// What may be in the way of other commands: their versions are kept.
const PEERS: [(&str, &str); 8] = [
    ("crun", "--version"),
    ("runc", "--version"),
    ("runsc", "--version"),
    ("qemu-system-x86_64", "--version"),
    ("firecracker", "--version"),
    ("go", "version"),
    ("python3", "--version"),
    ("node", "--version"),
];

/// A file of the kernel's that cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("{path} cannot be read: this needs Linux with /proc mounted")]
pub struct ReadError {
    path: String,
    #[source]
    source: std::io::Error,
}

/// The machine and the versions of everything that was measured.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Machine {
    /// Day of the run, UTC.
    pub date: String,
    /// Name of the machine.
    pub host: String,
    /// Processor as Linux names it.
    pub processor: String,
    /// Processors that are online.
    pub processors: usize,
    /// Memory, in KiB.
    pub memory_kib: u64,
    /// Kernel release.
    pub kernel: String,
    /// Commit of the sources that Spore was built from, with `-dirty` if there were changes; empty where they are gone.
    pub commit: String,
    /// Version of Spore.
    #[serde(default)]
    pub version: String,
    /// SHA-256 of the program that was measured: the same is the same build.
    #[serde(default)]
    pub program_sha256: String,
    /// `spore info --json`: the kind of KVM and what its operations cost.
    pub probe: serde_json::Value,
    /// First line of what other programs that are installed say of their versions.
    pub peers: Vec<String>,
}

/// Describes this machine. `probe` is what `spore info --json` says, `spore` the program that is measured.
///
/// # Errors
///
/// If `/proc` cannot be read.
pub fn describe(probe: serde_json::Value, spore: &Path) -> Result<Machine, ReadError> {
    let processors = read("/proc/cpuinfo")?;
    let memory = read("/proc/meminfo")?;
    let memory_kib = field(&memory, "MemTotal").trim_end_matches("kB").trim().parse();
    Ok(Machine {
        date: jiff::Timestamp::now().strftime("%Y-%m-%d").to_string(),
        host: read("/proc/sys/kernel/hostname")?.trim().to_owned(),
        processor: field(&processors, "model name").to_owned(),
        processors: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
        memory_kib: memory_kib.unwrap_or(0),
        kernel: read("/proc/sys/kernel/osrelease")?.trim().to_owned(),
        commit: output_of("git", &["describe", "--always", "--dirty", "--abbrev=12"]).unwrap_or_default(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        program_sha256: digest(spore).unwrap_or_default(),
        probe,
        peers: PEERS
            .iter()
            .filter_map(|(peer, argument)| {
                let version = output_of(peer, &[argument])?;
                Some(if version.contains(peer) {
                    version
                } else {
                    format!("{peer} {version}")
                })
            })
            .collect(),
    })
}

fn digest(program: &Path) -> std::io::Result<String> {
    let mut file = std::fs::File::open(program)?;
    let (mut hash, mut piece) = (Sha256::new(), vec![0; 1 << 20]);
    loop {
        match file.read(&mut piece)? {
            0 => return Ok(hex::encode(hash.finalize())),
            count => hash.update(&piece[..count]),
        }
    }
}

/// Waits until the machine was idle for a second, but not longer than `timeout`, and returns how idle it was in the
/// last second (0 to 1), to be quoted with the figures.
///
/// # Errors
///
/// If `/proc/stat` cannot be read.
pub fn wait_for_idle(timeout: Duration) -> Result<f64, ReadError> {
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

/// Idle and total ticks of all processors since boot, from `/proc/stat`.
pub fn processor_ticks(stat: &str) -> (u64, u64) {
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

/// The text of a file of the kernel's.
///
/// # Errors
///
/// If it cannot be read.
pub fn read(path: &str) -> Result<String, ReadError> {
    std::fs::read_to_string(path).map_err(|source| ReadError {
        path: path.to_owned(),
        source,
    })
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

/// First line that a command prints, if it is installed; run where the sources are, if they are there still.
fn output_of(program: &str, arguments: &[&str]) -> Option<String> {
    let sources = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut command = Command::new(program);
    if sources.is_dir() {
        command.current_dir(sources);
    } else if program == "git" {
        return None; // that of the folder the user is in says nothing of this program
    }
    let output = command.args(arguments).stdin(Stdio::null()).output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    output
        .status
        .success()
        .then(|| text.lines().next().unwrap_or_default().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn idle_and_io_wait_count_as_idle_and_guest_time_is_not_counted_twice() {
        assert_eq!(
            processor_ticks("cpu  1 2 3 40 50 6 7 8 900 900\ncpu0 1 1 1 1\n"),
            (90, 117)
        );
        assert_eq!(processor_ticks(""), (0, 0));
    }

    #[test]
    fn this_machine_is_described() {
        let machine =
            describe(serde_json::Value::Null, Path::new("/proc/self/exe")).expect("/proc is mounted");
        assert!(machine.processors > 0 && machine.memory_kib > 0);
        assert_eq!(machine.program_sha256.len(), 64);
    }
}
