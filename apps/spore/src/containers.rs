//! Wiring of the container sandboxes: the only place that names their crate.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use spore_sandbox::SandboxKind;
use spore_sandbox_container::{ContainersOptions, Found};
pub(crate) use spore_sandbox_container::{KEEPER, KINDS, missing};

/// What the data folder has of these sandboxes.
const FOLDER: &str = "containers";

/// Runs beside one container; called before any thread exists.
pub(crate) fn keeper_main() -> ExitCode {
    spore_sandbox_container::keeper::main()
}

/// The sandboxes, or why they cannot be had.
pub(crate) fn sandboxes(
    cgroup_parent: Option<PathBuf>,
    data: &Path,
    requires_virtual_machine: bool,
) -> Vec<(SandboxKind, Found)> {
    if requires_virtual_machine {
        let reason = "this daemon runs functions in virtual machines only (--require-vm)";
        return KINDS.map(|kind| (kind, Err(reason.to_owned()))).into();
    }
    spore_sandbox_container::sandboxes(&ContainersOptions {
        folder: data.join(FOLDER),
        cgroup_parent,
    })
}
