//! Starts the real `spore` binary and real Linux programs, for the end-to-end tests and the measurements.
//!
//! - [`daemon`]: a `spore serve` of its own for each test, with a data folder that goes with it;
//! - [`program`]: C programs built with `musl-gcc`, and their native runs;
//! - [`client`]: a blocking HTTP/1.1 client that adds nothing to a request and hides nothing of an answer;
//! - [`registry`]: a real registry on loopback;
//! - [`callbacks`]: a server that takes the results of invocations nobody waits for;
//! - [`nats`]: a real NATS server on loopback;
//! - [`process`]: what a daemon has open: processes, descriptors, virtual machines.
//!
//! A fixture that cannot be set up panics with what it tried, since no test could go on without it.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

pub mod callbacks;
pub mod client;
pub mod daemon;
pub mod nats;
pub mod process;
pub mod program;
pub mod registry;

/// The root of the repository.
pub fn repository() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    root.canonicalize()
        .expect("the repository that this package was built from is still there")
}

/// The folder into which cargo builds (`target`, if not moved), found from the running test's own place in it.
pub fn target_directory() -> PathBuf {
    let own = std::env::current_exe().expect("a running program has a path");
    let profile = own.ancestors().skip(1).find(|folder| !folder.ends_with("deps"));
    let target = profile.and_then(Path::parent);
    target
        .expect("cargo runs tests and programs from target/PROFILE")
        .to_path_buf()
}

/// Whether this user can open `/dev/kvm`, and it is KVM's (it may be covered by another device).
pub fn kvm_is_usable() -> bool {
    const KVM: (u32, u32) = (10, 232);
    let device = rustix::fs::stat("/dev/kvm").map(|status| status.st_rdev);
    let is_kvm = device.is_ok_and(|number| (rustix::fs::major(number), rustix::fs::minor(number)) == KVM);
    let file = std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/kvm");
    is_kvm && file.is_ok()
}

/// Whether unikernels can be started here, in virtual machines or in processes, as `SPORE_TEST_ISOLATION` says.
pub fn unikernels_can_run() -> bool {
    static CAN_RUN: OnceLock<bool> = OnceLock::new();
    *CAN_RUN.get_or_init(|| match isolation_options() {
        [] => kvm_is_usable() || has_process_form(),
        [_, form] if form == "process" => has_process_form(),
        _ => kvm_is_usable(),
    })
}

/// Whether a guest is a process beside its monitor, rather than a virtual machine within it.
pub fn guests_are_processes() -> bool {
    match isolation_options() {
        [_, form] => form == "process",
        _ => !kvm_is_usable(),
    }
}

fn has_process_form() -> bool {
    let mut command = std::process::Command::new(daemon::binary());
    let output = command.args(["info", "--json"]).output();
    output.is_ok_and(|output| {
        let info: Result<serde_json::Value, _> = serde_json::from_slice(&output.stdout);
        info.is_ok_and(|info| info["process"].is_object())
    })
}

/// Options for `spore serve` and `spore run`: `--isolation` with the form that `SPORE_TEST_ISOLATION` names, `vm` or
/// `process`, if it does.
pub fn isolation_options() -> &'static [String] {
    static OPTIONS: OnceLock<Vec<String>> = OnceLock::new();
    OPTIONS.get_or_init(|| match std::env::var("SPORE_TEST_ISOLATION") {
        Ok(form) if !form.is_empty() => vec!["--isolation".to_owned(), form],
        _ => Vec::new(),
    })
}

/// Waits until `condition` holds and says whether it did before `timeout`.
pub fn wait_until(timeout: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let start = Instant::now();
    loop {
        if condition() {
            return true;
        }
        if start.elapsed() >= timeout {
            return false;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}
