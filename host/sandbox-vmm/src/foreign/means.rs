//! What runs unikernels of other projects on this machine.

use std::fmt;
use std::fs::OpenOptions;
use std::path::PathBuf;

use crate::found::{MicrovmError, accelerator, program};
use crate::monitor;
use crate::qemu::Accelerator;

/// The monitors that such unikernels are built for, of those that there are here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Monitor {
    /// QEMU.
    Qemu,
    /// Solo5's `hvt`: a tender of our own.
    Tender,
}

impl Monitor {
    pub(crate) const ALL: [Self; 2] = [Self::Qemu, Self::Tender];

    /// The name that images have for it.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Qemu => "qemu",
            Self::Tender => "hvt",
        }
    }

    /// The one of this name, in whichever letters.
    pub(crate) fn from_name(name: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|monitor| monitor.name().eq_ignore_ascii_case(name))
    }
}

impl fmt::Display for Monitor {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Qemu => "QEMU",
            Self::Tender => "Solo5's hvt",
        })
    }
}

/// What there is here of them.
#[derive(Debug, Clone)]
pub struct ForeignMeans {
    pub(crate) qemu: Option<PathBuf>,
    pub(crate) has_kvm: bool,
    pub(crate) accelerator: Accelerator,
}

impl ForeignMeans {
    /// Looks for them.
    ///
    /// # Errors
    ///
    /// If there is neither QEMU nor KVM.
    pub fn look() -> Result<Self, MicrovmError> {
        let has_kvm = OpenOptions::new().read(true).write(true).open("/dev/kvm").is_ok();
        let qemu = match program(monitor::Monitor::Qemu) {
            Err(error) if !has_kvm => return Err(error),
            found => found.ok(),
        };
        Ok(Self {
            qemu,
            has_kvm,
            accelerator: accelerator(),
        })
    }

    /// What is missing for unikernels of a monitor, and what to do.
    pub(crate) fn missing(&self, monitor: Monitor) -> Option<&'static str> {
        match monitor {
            Monitor::Qemu => self.qemu.is_none().then_some("install qemu-system-x86"),
            Monitor::Tender => (!self.has_kvm).then_some(
                "there is no KVM here (/dev/kvm): use a machine that has it, or a unikernel for QEMU",
            ),
        }
    }
}

impl fmt::Display for ForeignMeans {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.qemu {
            Some(_) => write!(formatter, "QEMU, {}", self.accelerator)?,
            None => formatter.write_str("no QEMU")?,
        }
        formatter.write_str("; ")?;
        formatter.write_str(match (self.has_kvm, self.accelerator) {
            (false, _) => "no hvt (KVM)",
            (true, Accelerator::Kvm) => "hvt, KVM on hardware virtualisation",
            // What runs in supervisor mode is emulated by the kernel there.
            (true, Accelerator::Emulation { .. }) => {
                "hvt, KVM without hardware virtualisation, which not all unikernels run on"
            }
        })
    }
}
