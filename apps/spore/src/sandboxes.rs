//! All kinds of sandbox, under one roof. Each has a module of its own here, the only one that names its crates.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use spore_sandbox::{Availability, Isolation, Roof, Sandbox, SandboxKind};

use crate::arguments::MicrovmArguments;
use crate::{containers, microvm, unikernel};

/// What `spore serve` was told about its sandboxes.
pub(crate) struct SandboxesOptions<'a> {
    /// What is around unikernels that ask for nothing in particular.
    pub(crate) isolation: Option<Isolation>,
    /// Whether there may be nothing but virtual machines.
    pub(crate) requires_virtual_machine: bool,
    /// What the instances' cgroups go below.
    pub(crate) cgroup_parent: Option<PathBuf>,
    /// The data folder.
    pub(crate) data: &'a Path,
    /// Whether the kernel may merge equal pages of different unikernels.
    pub(crate) merges_pages: bool,
    /// What microVMs are made of.
    pub(crate) microvm: MicrovmArguments,
}

/// The sandboxes that `spore serve` uses.
pub(crate) fn sandboxes(options: SandboxesOptions<'_>) -> anyhow::Result<Arc<dyn Sandbox>> {
    let unikernel = unikernel::sandbox(
        options.isolation,
        options.requires_virtual_machine,
        options.cgroup_parent.clone(),
        options.data,
        options.merges_pages,
    )?;
    let requires_virtual_machine = options.requires_virtual_machine;
    let microvm = microvm::sandbox(&options.microvm, options.cgroup_parent.clone(), options.data);
    let foreign = microvm::foreign(options.cgroup_parent.as_deref(), options.data);
    let containers = containers::sandboxes(options.cgroup_parent, options.data, requires_virtual_machine);
    let roof = containers
        .into_iter()
        .chain([(SandboxKind::Microvm, microvm), (SandboxKind::Foreign, foreign)])
        .fold(Roof::new(unikernel), |roof, (kind, sandbox)| {
            roof.with(kind, sandbox)
        });
    Ok(Arc::new(roof))
}

/// Which kinds functions can name on this machine.
fn available(microvm: &MicrovmArguments) -> Vec<Availability> {
    let state = |kind| Availability {
        kind,
        missing: match kind {
            SandboxKind::Unikernel => unikernel::missing(),
            SandboxKind::Runc | SandboxKind::Crun | SandboxKind::Gvisor => containers::missing(kind),
            SandboxKind::Microvm => microvm::description(microvm).err(),
            SandboxKind::Foreign => microvm::foreign_description().err(),
        },
    };
    SandboxKind::ALL.map(state).to_vec()
}

/// The same, for people.
pub(crate) fn description(microvm: &MicrovmArguments) -> String {
    let mut text = "\nsandboxes that functions can name (spore deploy --sandbox)\n".to_owned();
    for Availability { kind, missing } in available(microvm) {
        let state = missing.map_or_else(|| present(kind, microvm), |reason| format!("no: {reason}"));
        // Writing to a string does not fail.
        let _ = writeln!(text, "  {:40}{state}", kind.name());
    }
    text
}

/// What is said of a kind that is there.
fn present(kind: SandboxKind, microvm: &MicrovmArguments) -> String {
    match kind {
        SandboxKind::Microvm => microvm::description(microvm).map(|text| format!("yes: {text}")),
        SandboxKind::Foreign => microvm::foreign_description().map(|text| format!("yes: {text}")),
        _ => Ok("yes".to_owned()),
    }
    .unwrap_or_default()
}

/// The same, for programs.
pub(crate) fn json(microvm: &MicrovmArguments) -> serde_json::Value {
    let states = available(microvm).into_iter().map(|Availability { kind, missing }| {
        serde_json::json!({ "name": kind.name(), "available": missing.is_none(), "reason": missing })
    });
    states.collect()
}
