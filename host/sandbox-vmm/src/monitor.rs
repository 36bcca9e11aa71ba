//! The monitors: the programs that run machines, and in what they differ.

use std::ffi::OsStr;
use std::fmt;
use std::path::{Path, PathBuf};

/// A program that runs machines.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Monitor {
    /// QEMU: KVM, or software emulation where there is no hardware virtualisation.
    #[default]
    Qemu,
    /// Firecracker: KVM on hardware virtualisation.
    Firecracker,
    /// Cloud Hypervisor: KVM on hardware virtualisation.
    CloudHypervisor,
}

impl Monitor {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Qemu, Self::Firecracker, Self::CloudHypervisor];

    /// The name as users write it, for example `cloud-hypervisor`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Qemu => "qemu",
            Self::Firecracker => "firecracker",
            Self::CloudHypervisor => "cloud-hypervisor",
        }
    }

    /// The program's name.
    pub(crate) const fn program(self) -> &'static str {
        match self {
            Self::Qemu => "qemu-system-x86_64",
            Self::Firecracker => "firecracker",
            Self::CloudHypervisor => "cloud-hypervisor",
        }
    }

    /// What to do where it is not there.
    pub(crate) const fn advice(self) -> &'static str {
        match self {
            Self::Qemu => "install qemu-system-x86",
            Self::Firecracker => {
                "put the `firecracker` of one of its releases there (github.com/firecracker-microvm/firecracker)"
            }
            Self::CloudHypervisor => {
                "put the `cloud-hypervisor` of one of its releases there (github.com/cloud-hypervisor/cloud-hypervisor)"
            }
        }
    }

    /// Drivers that a guest needs in its machines. What else these need is found in them.
    pub(crate) const fn drivers(self) -> &'static [&'static str] {
        match self {
            Self::Qemu => &["virtio_mmio", "virtio_console", "virtio_blk", "erofs", "overlay"],
            Self::Firecracker => &[
                "virtio_mmio",
                "vmw_vsock_virtio_transport",
                "virtio_blk",
                "erofs",
                "overlay",
            ],
            Self::CloudHypervisor => &[
                "virtio_pci",
                "vmw_vsock_virtio_transport",
                "virtio_blk",
                "erofs",
                "overlay",
            ],
        }
    }

    /// Memory that it takes beside the guest's, in bytes: translated code, its own, and the kernel's file.
    pub(crate) const fn own_bytes(self) -> u64 {
        match self {
            Self::Qemu => 192 << 20,
            Self::Firecracker | Self::CloudHypervisor => 64 << 20,
        }
    }

    /// The program in the folders of PATH.
    pub(crate) fn find(self, path: Option<&OsStr>) -> Option<PathBuf> {
        let files = std::env::split_paths(path?).map(|folder| folder.join(self.program()));
        files.into_iter().find(|file| is_program(file))
    }
}

/// Machines begin in a folder of their own, so a path that is relative to the daemon's would be another one there.
fn is_program(file: &Path) -> bool {
    file.is_absolute() && file.is_file()
}

impl fmt::Display for Monitor {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Qemu => "QEMU",
            Self::Firecracker => "Firecracker",
            Self::CloudHypervisor => "Cloud Hypervisor",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_found_in_path() {
        let folder = tempfile::tempdir().unwrap();
        let path = std::env::join_paths([Path::new("/none"), folder.path()]).unwrap();
        for monitor in Monitor::ALL {
            assert_eq!(monitor.find(Some(&path)), None);
            let file = folder.path().join(monitor.program());
            std::fs::write(&file, "").unwrap();
            assert_eq!(monitor.find(Some(&path)), Some(file));
            assert_eq!(monitor.find(None), None);
        }
        assert_eq!(Monitor::Firecracker.find(Some(OsStr::new("."))), None);
    }
}
