//! Wiring of microVMs and of unikernels that others have built: the only place that names their crate.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use spore_sandbox::Sandbox;
use spore_sandbox_vmm::{
    Accelerator, ForeignMeans, ForeignSandbox, Found, MicrovmOptions, MicrovmSandbox, Monitor, launcher,
};

use crate::arguments::{MicrovmArguments, MonitorArgument};

/// What the data folder has of these sandboxes.
const FOLDER: &str = "microvm";
const FOREIGN_FOLDER: &str = "foreign";

/// Whether this process is to become a virtual machine.
pub(crate) fn is_launcher(subcommand: &std::ffi::OsStr) -> bool {
    subcommand == launcher::SUBCOMMAND
}

/// Becomes a virtual machine; called before any thread exists.
pub(crate) fn launcher_main() -> ExitCode {
    launcher::main(std::env::args_os().skip(2))
}

/// The sandbox, or why there is none and what to do. A kernel or monitor that is named and cannot be used is told on the daemon's log too.
pub(crate) fn sandbox(
    arguments: &MicrovmArguments,
    cgroup_parent: Option<PathBuf>,
    data: &Path,
) -> Result<Arc<dyn Sandbox>, String> {
    let is_named =
        arguments.microvm_kernel.is_some() || arguments.microvm_monitor != MonitorArgument::default();
    match MicrovmSandbox::new(&options(arguments, cgroup_parent), data.join(FOLDER)) {
        Ok(sandbox) => {
            if matches!(sandbox.accelerator(), Accelerator::Emulation { .. }) {
                tracing::debug!(
                    "microVMs are emulated in software, for there is no hardware virtualisation here"
                );
            }
            Ok(Arc::new(sandbox))
        }
        Err(error) => {
            let reason = format!("{:#}", anyhow::Error::new(error));
            if is_named {
                tracing::warn!(reason, "there are no microVMs");
            }
            Err(reason)
        }
    }
}

/// What microVMs are made of here, or why there are none and what to do.
pub(crate) fn description(arguments: &MicrovmArguments) -> Result<String, String> {
    let found = Found::look(&options(arguments, None));
    let found = found.map_err(|error| format!("{:#}", anyhow::Error::new(error)))?;
    Ok(format!(
        "{}, {}, kernel {}",
        found.monitor(),
        found.accelerator(),
        found.kernel_release()
    ))
}

/// The sandbox of unikernels that others have built, or why there is none and what to do.
pub(crate) fn foreign(cgroup_parent: Option<&Path>, data: &Path) -> Result<Arc<dyn Sandbox>, String> {
    match ForeignSandbox::new(cgroup_parent, data.join(FOREIGN_FOLDER)) {
        Ok(sandbox) => Ok(Arc::new(sandbox)),
        Err(error) => Err(format!("{:#}", anyhow::Error::new(error))),
    }
}

/// What those are run by here, or why there is nothing and what to do.
pub(crate) fn foreign_description() -> Result<String, String> {
    let means = ForeignMeans::look().map_err(|error| format!("{:#}", anyhow::Error::new(error)))?;
    Ok(means.to_string())
}

/// Kernels are where distributions put them, and where `scripts/microvm-kernel` does.
fn options(arguments: &MicrovmArguments, cgroup_parent: Option<PathBuf>) -> MicrovmOptions {
    let cache = crate::commands::cache_folder().map(|folder| folder.join("spore/kernel/boot"));
    MicrovmOptions {
        monitor: match arguments.microvm_monitor {
            MonitorArgument::Qemu => Monitor::Qemu,
            MonitorArgument::Firecracker => Monitor::Firecracker,
            MonitorArgument::CloudHypervisor => Monitor::CloudHypervisor,
        },
        tries_any_kvm: arguments.microvm_any_kvm,
        kernel: arguments.microvm_kernel.clone(),
        kernel_folders: [PathBuf::from("/boot")].into_iter().chain(cache).collect(),
        cgroup_parent,
    }
}
