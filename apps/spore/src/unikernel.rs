//! Wiring of the unikernel sandbox: the only place that names its crates.

use std::fs::File;
use std::io;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context as _;
use spore_monitor::probe::probe_forms;
use spore_monitor::protocol::IsolationChoice;
pub(crate) use spore_monitor::protocol::{Cause, End, LogOrigin, MemorySource, RootKind, StartRequest, User};
use spore_sandbox::{Isolation, Layer, Sandbox};
use spore_sandbox_unikernel::{Merging, SandboxOptions, merging};
pub(crate) use spore_sandbox_unikernel::{RunError, reaches_loopback, runtime_api_variable};

/// What the data folder has of this sandbox.
const SNAPSHOTS_FOLDER: &str = "snapshots";

/// Runs one instance as the monitor process; called before any thread exists.
pub(crate) fn monitor_main() -> ExitCode {
    spore_monitor::main()
}

/// The sandbox that `spore serve` uses. Says on the daemon's log if its instances share the host's kernel.
pub(crate) fn sandbox(
    isolation: Option<Isolation>,
    requires_virtual_machine: bool,
    cgroup_parent: Option<PathBuf>,
    data: &Path,
    merges_pages: bool,
) -> anyhow::Result<Arc<dyn Sandbox>> {
    let sandbox = spore_sandbox_unikernel::UnikernelSandbox::new(&SandboxOptions {
        isolation,
        requires_virtual_machine,
        cgroup_parent,
        snapshots: Some(data.join(SNAPSHOTS_FOLDER)),
        merges_pages,
    })?;
    if merges_pages {
        tracing::warn!("instances can find out by timing which memory pages others have (--merge-pages)");
        if merging() == Merging::Off {
            tracing::warn!("the kernel merges no pages yet: echo 1 > /sys/kernel/mm/ksm/run");
        }
    }
    if sandbox.default_isolation() == Isolation::Process {
        let reason = sandbox.why_no_virtual_machine().unwrap_or_default();
        tracing::warn!(
            reason,
            "instances are processes, which share the host's kernel, unless their functions ask for virtual machines"
        );
    }
    Ok(Arc::new(sandbox))
}

/// Why no unikernel can be run here, neither in a virtual machine nor in a process; none if one can.
pub(crate) fn missing() -> Option<String> {
    probe_forms()
        .err()
        .map(|error| format!("{:#}", anyhow::Error::new(error)))
}

/// What the monitor is asked for.
pub(crate) fn isolation_choice(isolation: Option<Isolation>) -> IsolationChoice {
    spore_sandbox_unikernel::isolation_choice(isolation)
}

/// Runs a program once, in the foreground.
pub(crate) fn run_once(
    request: StartRequest,
    root: File,
    listener: Option<TcpListener>,
    egress: Vec<spore_sandbox::EgressRule>,
    output: &mut dyn FnMut(LogOrigin, &[u8]) -> io::Result<()>,
) -> Result<End, RunError> {
    spore_sandbox_unikernel::run_once(request, root, listener, egress, output)
}

/// What the host offers, for people.
pub(crate) fn host_description(cgroup_parent: Option<&Path>) -> anyhow::Result<String> {
    use std::fmt::Write as _;
    let mut text = probe_forms()?.to_string();
    text.push_str("\n\nwhat confines an instance\n");
    for Layer { name, missing } in layers(cgroup_parent)? {
        let state = missing.map_or("yes".into(), |reason| format!("no: {reason}"));
        writeln!(text, "  {name:40}{state}")?;
    }
    Ok(text)
}

/// What the host offers, for programs.
pub(crate) fn host_json(cgroup_parent: Option<&Path>) -> anyhow::Result<serde_json::Value> {
    let mut value = serde_json::to_value(probe_forms()?)?;
    let layers = layers(cgroup_parent)?.into_iter().map(|layer| {
        let (name, reason) = (layer.name, layer.missing);
        serde_json::json!({ "name": name, "active": reason.is_none(), "reason": reason })
    });
    value["layers"] = layers.collect();
    Ok(value)
}

fn layers(cgroup_parent: Option<&Path>) -> anyhow::Result<Vec<Layer>> {
    spore_sandbox_unikernel::layers(cgroup_parent).context("no process can be confined")
}
