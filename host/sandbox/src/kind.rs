//! The kinds of sandbox that users choose from, function by function.

use std::fmt;

/// A kind of sandbox.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SandboxKind {
    /// A unikernel: the program and a library OS, in a virtual machine or in a process.
    #[default]
    Unikernel,
    /// A container, made by runc.
    Runc,
    /// A container, made by crun.
    Crun,
    /// A container on a kernel in user space: gVisor, by its runsc.
    Gvisor,
    /// A virtual machine with a Linux kernel of its own.
    Microvm,
    /// A unikernel that others have built.
    Foreign,
}

impl SandboxKind {
    /// All of them, in the order in which they are shown.
    pub const ALL: [Self; 6] = [
        Self::Unikernel,
        Self::Runc,
        Self::Crun,
        Self::Gvisor,
        Self::Microvm,
        Self::Foreign,
    ];

    /// The name as users write it, for example `gvisor`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Unikernel => "unikernel",
            Self::Runc => "runc",
            Self::Crun => "crun",
            Self::Gvisor => "gvisor",
            Self::Microvm => "microvm",
            Self::Foreign => "foreign",
        }
    }

    /// Whether its instances are containers.
    #[must_use]
    pub const fn is_container(self) -> bool {
        matches!(self, Self::Runc | Self::Crun | Self::Gvisor)
    }

    /// The kind of this name, if there is one.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }
}

impl fmt::Display for SandboxKind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

/// Whether functions can have a kind of sandbox on this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Availability {
    /// The kind.
    pub kind: SandboxKind,
    /// Why it cannot be had, and what to do so that it can; none if it can be had.
    pub missing: Option<String>,
}
