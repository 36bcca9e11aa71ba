//! What microVMs are made of on this machine.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use spore_monitor::probe::{KvmKind, ProbeError, probe_host};

use crate::cpio::Archive;
use crate::kernel::{Kernel, KernelError};
use crate::monitor::Monitor;
use crate::payload;
use crate::qemu::Accelerator;

/// The first process of guests, a static program.
const INIT: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/spore-init"));

/// How microVMs are to be run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MicrovmOptions {
    /// What runs the machines.
    pub monitor: Monitor,
    /// Whether Firecracker and Cloud Hypervisor are to try a KVM without hardware virtualisation, which runs no ordinary kernel as yet.
    pub tries_any_kvm: bool,
    /// The kernel of the guests; none is the newest one for virtual machines in `kernel_folders`.
    pub kernel: Option<PathBuf>,
    /// Where kernels are looked for, in this order.
    pub kernel_folders: Vec<PathBuf>,
    /// What the instances' cgroups go below: a path within each hierarchy; the daemon's own cgroup if there is none.
    pub cgroup_parent: Option<PathBuf>,
}

/// Why there can be no microVMs.
#[derive(Debug, thiserror::Error)]
pub enum MicrovmError {
    /// The program is not there.
    #[error("{} is not in PATH: {}", .0.program(), .0.advice())]
    NoMonitor(Monitor),
    /// The program knows nothing but KVM, and that is not of use here.
    #[error(
        "{monitor} needs KVM on hardware virtualisation (Intel VT-x, AMD-V), which is not here: use another machine, or \
         `--microvm-monitor qemu`, which emulates it"
    )]
    NoHardware {
        /// The program.
        monitor: Monitor,
        /// Why KVM cannot be used; none if it can, but is of another kind.
        #[source]
        missing: Option<ProbeError>,
    },
    /// There is no kernel, or none that will do.
    #[error(transparent)]
    Kernel(Box<dyn std::error::Error + Send + Sync>),
    /// A file or a thread cannot be made.
    #[error("the host refuses {what}")]
    Host {
        /// What was tried.
        what: &'static str,
        /// Why it was refused.
        #[source]
        source: io::Error,
    },
}

impl From<KernelError> for MicrovmError {
    fn from(error: KernelError) -> Self {
        Self::Kernel(Box::new(error))
    }
}

/// What microVMs are made of on this machine.
#[derive(Debug, Clone)]
pub struct Found {
    monitor: Monitor,
    pub(crate) program: PathBuf,
    kernel: Kernel,
    accelerator: Accelerator,
}

impl Found {
    /// Looks for what microVMs are made of.
    ///
    /// # Errors
    ///
    /// If something is missing; which, and what to do.
    pub fn look(options: &MicrovmOptions) -> Result<Self, MicrovmError> {
        let monitor = options.monitor;
        let program = program(monitor)?;
        let accelerator = match monitor {
            Monitor::Qemu => accelerator(),
            _ => only_kvm(monitor, options.tries_any_kvm)?,
        };
        let kernel = Kernel::find(options.kernel.as_deref(), &options.kernel_folders)?;
        // Told now, not when the first function starts.
        kernel.drivers(monitor.drivers())?;
        Ok(Self {
            monitor,
            program,
            kernel,
            accelerator,
        })
    }

    /// Writes what all guests have.
    pub(crate) fn write_files(&self, folder: &Path) -> io::Result<Files> {
        fs::create_dir_all(folder)?;
        let initramfs = folder.join("initramfs.cpio");
        let drivers = self.monitor.drivers();
        fs::write(
            &initramfs,
            initial_files(&self.kernel, drivers).map_err(io::Error::other)?,
        )?;
        let unpacked = match (self.monitor, self.accelerator) {
            (Monitor::Qemu, Accelerator::Kvm) => None,
            (Monitor::Qemu, Accelerator::Emulation { .. }) => payload::unpack(&fs::read(&self.kernel.path)?),
            // They load nothing else.
            (Monitor::Firecracker | Monitor::CloudHypervisor, _) => {
                let file = fs::read(&self.kernel.path)?;
                let is_unpacked = payload::is_unpacked(&file);
                let unpacked = if is_unpacked { None } else { payload::unpack(&file) };
                if unpacked.is_none() && !is_unpacked {
                    let path = self.kernel.path.display();
                    return Err(io::Error::other(format!(
                        "the kernel {path} is packed in a way that is not known: name an unpacked one (`vmlinux`) with --microvm-kernel"
                    )));
                }
                unpacked
            }
        };
        let kernel = match unpacked {
            Some(bytes) => {
                let path = folder.join("vmlinux");
                fs::write(&path, bytes)?;
                path.canonicalize()?
            }
            None => self.kernel.path.clone(),
        };
        Ok(Files {
            kernel,
            initramfs: initramfs.canonicalize()?,
        })
    }

    /// What runs the machines.
    #[must_use]
    pub const fn monitor(&self) -> Monitor {
        self.monitor
    }

    /// What executes the guests' instructions.
    #[must_use]
    pub const fn accelerator(&self) -> Accelerator {
        self.accelerator
    }

    /// Release of the guests' kernel.
    #[must_use]
    pub fn kernel_release(&self) -> &str {
        &self.kernel.release
    }
}

/// A monitor's program.
pub(crate) fn program(monitor: Monitor) -> Result<PathBuf, MicrovmError> {
    let found = monitor.find(std::env::var_os("PATH").as_deref());
    found.ok_or(MicrovmError::NoMonitor(monitor))
}

/// KVM, for monitors that know nothing else.
fn only_kvm(monitor: Monitor, tries_any_kvm: bool) -> Result<Accelerator, MicrovmError> {
    match probe_host() {
        Ok(probe) if matches!(probe.kvm_kind, KvmKind::Vmx | KvmKind::Svm) || tries_any_kvm => {
            Ok(Accelerator::Kvm)
        }
        found => Err(MicrovmError::NoHardware {
            monitor,
            missing: found.err(),
        }),
    }
}

/// What executes the instructions of guests of QEMU on this machine.
pub(crate) fn accelerator() -> Accelerator {
    // An ordinary kernel runs in supervisor mode, which KVM without hardware virtualisation emulates at some four million
    // instructions a second: slower than QEMU by far, and it does not know all of them.
    let is_hardware = probe_host().is_ok_and(|probe| matches!(probe.kvm_kind, KvmKind::Vmx | KvmKind::Svm));
    match is_hardware {
        true => Accelerator::Kvm,
        false => Accelerator::Emulation {
            time_stamp_khz: spore_monitor::time_stamp_khz(),
        },
    }
}

/// The guests' first file system.
fn initial_files(kernel: &Kernel, drivers: &[&str]) -> Result<Vec<u8>, KernelError> {
    let mut archive = Archive::default();
    archive.add_folder("modules");
    for (number, driver) in kernel.drivers(drivers)?.into_iter().enumerate() {
        let path = format!("modules/{number:02}-{}.ko", driver.name);
        archive.add_file(&path, 0o644, &driver.bytes);
    }
    archive.add_file("init", 0o755, INIT);
    Ok(archive.finish())
}

/// What all guests have.
#[derive(Debug)]
pub(crate) struct Files {
    pub(crate) kernel: PathBuf,
    pub(crate) initramfs: PathBuf,
}
