//! What confines a guest process beside its seccomp list, where the kernel allows.

use std::fmt;

/// A set of layers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Layers(pub(super) u32);

impl Layers {
    pub(super) const USER: Self = Self(1);
    pub(super) const MOUNT: Self = Self(1 << 1);
    pub(super) const PROCESSES: Self = Self(1 << 2);
    pub(super) const NETWORK: Self = Self(1 << 3);
    pub(super) const IPC: Self = Self(1 << 4);
    pub(super) const NAMES: Self = Self(1 << 5);
    pub(super) const CGROUP: Self = Self(1 << 6);
    pub(super) const EMPTY_ROOT: Self = Self(1 << 7);
    pub(super) const NO_CAPABILITIES: Self = Self(1 << 8);

    const NAMED: [(Self, &'static str); 9] = [
        (Self::USER, "user namespace"),
        (Self::MOUNT, "mount namespace"),
        (Self::PROCESSES, "process namespace"),
        (Self::NETWORK, "network namespace"),
        (Self::IPC, "IPC namespace"),
        (Self::NAMES, "host name namespace"),
        (Self::CGROUP, "cgroup namespace"),
        (Self::EMPTY_ROOT, "empty root"),
        (Self::NO_CAPABILITIES, "no capabilities"),
    ];

    pub(super) fn add(&mut self, other: Self) {
        self.0 |= other.0;
    }

    pub(super) fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Names of the layers that are active.
    pub(crate) fn active(self) -> Vec<&'static str> {
        let named = Self::NAMED.iter();
        named
            .filter(|(layer, _)| self.has(*layer))
            .map(|(_, name)| *name)
            .collect()
    }

    /// Names of the layers that are not.
    pub(crate) fn missing(self) -> Vec<&'static str> {
        let named = Self::NAMED.iter();
        named
            .filter(|(layer, _)| !self.has(*layer))
            .map(|(_, name)| *name)
            .collect()
    }
}

impl fmt::Display for Layers {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.active().join(", "))
    }
}
