//! What microVMs are made of on this machine.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use spore_monitor::probe::{KvmKind, probe_host};

use crate::cpio::Archive;
use crate::kernel::{Kernel, KernelError};
use crate::payload;
use crate::qemu::{self, Accelerator};

/// The first process of guests, a static program.
const INIT: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/spore-init"));

/// How microVMs are to be run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MicrovmOptions {
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
    #[error("{} is not in PATH: install qemu-system-x86", qemu::PROGRAM)]
    NoQemu,
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
    pub(crate) qemu: PathBuf,
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
        let qemu = qemu()?;
        let kernel = Kernel::find(options.kernel.as_deref(), &options.kernel_folders)?;
        // Told now, not when the first function starts.
        kernel.drivers()?;
        Ok(Self {
            qemu,
            kernel,
            accelerator: accelerator(),
        })
    }

    /// Writes what all guests have.
    pub(crate) fn write_files(&self, folder: &Path) -> io::Result<Files> {
        fs::create_dir_all(folder)?;
        let initramfs = folder.join("initramfs.cpio");
        fs::write(&initramfs, initial_files(&self.kernel).map_err(io::Error::other)?)?;
        let unpacked = match self.accelerator {
            Accelerator::Kvm => None,
            Accelerator::Emulation { .. } => payload::unpack(&fs::read(&self.kernel.path)?),
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

/// QEMU's program.
pub(crate) fn qemu() -> Result<PathBuf, MicrovmError> {
    qemu::find(std::env::var_os("PATH").as_deref()).ok_or(MicrovmError::NoQemu)
}

/// What executes the instructions of guests on this machine.
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
fn initial_files(kernel: &Kernel) -> Result<Vec<u8>, KernelError> {
    let mut archive = Archive::default();
    archive.add_folder("modules");
    for (number, driver) in kernel.drivers()?.into_iter().enumerate() {
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
