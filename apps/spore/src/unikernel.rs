//! Wiring of the unikernel sandbox: the only place that names its crates.

use std::fs::File;
use std::io;
use std::net::TcpListener;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context;
use spore_monitor::protocol::IsolationChoice;
pub(crate) use spore_monitor::protocol::{Cause, End, LogOrigin, RootKind, StartRequest};
use spore_sandbox::{Isolation, Sandbox};
pub(crate) use spore_sandbox_unikernel::{RunError, reaches_loopback};

/// Runs one instance as the monitor process; called before any thread exists.
pub(crate) fn monitor_main() -> ExitCode {
    spore_monitor::main()
}

/// The sandbox that `spore serve` uses. Fails where the host has no usable KVM.
pub(crate) fn sandbox() -> anyhow::Result<Arc<dyn Sandbox>> {
    let sandbox = spore_sandbox_unikernel::UnikernelSandbox::new()
        .context("this machine cannot run unikernels in virtual machines")?;
    Ok(Arc::new(sandbox))
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
pub(crate) fn host_description() -> anyhow::Result<String> {
    Ok(probe()?.to_string())
}

/// What the host offers, for programs.
pub(crate) fn host_json() -> anyhow::Result<serde_json::Value> {
    Ok(serde_json::to_value(probe()?)?)
}

fn probe() -> anyhow::Result<spore_monitor::probe::HostProbe> {
    spore_monitor::probe::probe_host().context("this machine cannot run unikernels in virtual machines")
}
