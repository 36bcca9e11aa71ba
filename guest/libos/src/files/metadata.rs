//! What `stat` shows of a file.

use linux_raw_sys::general::{S_IFBLK, S_IFCHR, S_IFDIR, S_IFIFO, S_IFLNK, S_IFMT, S_IFREG, S_IFSOCK};

/// Kind of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Regular,
    Directory,
    SymbolicLink,
    CharacterDevice,
    BlockDevice,
    Pipe,
    Socket,
    Anonymous,
}

impl Kind {
    /// The file type bits of `st_mode`.
    pub(crate) fn mode(self) -> u32 {
        match self {
            Self::Regular => S_IFREG,
            Self::Directory => S_IFDIR,
            Self::SymbolicLink => S_IFLNK,
            Self::CharacterDevice => S_IFCHR,
            Self::BlockDevice => S_IFBLK,
            Self::Pipe => S_IFIFO,
            Self::Socket => S_IFSOCK,
            Self::Anonymous => 0,
        }
    }

    /// The kind that the type bits of a mode name, if they name one.
    pub(crate) fn of_mode(mode: u32) -> Option<Self> {
        Some(match mode & S_IFMT {
            S_IFREG => Self::Regular,
            S_IFDIR => Self::Directory,
            S_IFLNK => Self::SymbolicLink,
            S_IFCHR => Self::CharacterDevice,
            S_IFBLK => Self::BlockDevice,
            S_IFIFO => Self::Pipe,
            S_IFSOCK => Self::Socket,
            _ => return None,
        })
    }

    /// `d_type` of a directory entry.
    pub(crate) fn directory_type(self) -> u8 {
        (self.mode() >> 12) as u8
    }
}

/// Device number of files that are in no tree (pipes, sockets, and the like).
const ANONYMOUS_DEVICE: u64 = 15;
/// Size of a block, as programs are told: how much to read or write at once.
pub(crate) const BLOCK_BYTES: u64 = 4096;

/// What `stat` shows. Times are nanoseconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Metadata {
    /// Type and permission bits.
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) links: u32,
    pub(crate) inode: u64,
    /// The device that it is on, as [`device_number`] makes it.
    pub(crate) device: u64,
    /// The device that it stands for.
    pub(crate) rdev: u64,
    pub(crate) size: u64,
    /// Memory that it takes, in units of 512 bytes.
    pub(crate) blocks: u64,
    pub(crate) accessed_ns: u64,
    pub(crate) modified_ns: u64,
    pub(crate) changed_ns: u64,
}

impl Metadata {
    /// Of a file that has nothing but a kind.
    pub(crate) fn of_kind(kind: Kind) -> Self {
        Self {
            mode: kind.mode() | 0o600,
            uid: 0,
            gid: 0,
            links: 1,
            inode: 1,
            device: ANONYMOUS_DEVICE,
            rdev: 0,
            size: 0,
            blocks: 0,
            accessed_ns: 0,
            modified_ns: 0,
            changed_ns: 0,
        }
    }

    /// Of a character device.
    pub(crate) fn of_device(major: u32, minor: u32) -> Self {
        Self {
            mode: S_IFCHR | 0o666,
            rdev: device_number(major, minor),
            ..Self::of_kind(Kind::CharacterDevice)
        }
    }

    /// `struct stat` (asm/stat.h).
    pub(crate) fn encode_stat(&self) -> [u8; 144] {
        let mut bytes = [0; 144];
        let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
        put(0, &self.device.to_le_bytes());
        put(8, &self.inode.to_le_bytes());
        put(16, &u64::from(self.links).to_le_bytes());
        put(24, &self.mode.to_le_bytes());
        put(28, &self.uid.to_le_bytes());
        put(32, &self.gid.to_le_bytes());
        put(40, &self.rdev.to_le_bytes());
        put(48, &self.size.to_le_bytes());
        put(56, &BLOCK_BYTES.to_le_bytes());
        put(64, &self.blocks.to_le_bytes());
        put(72, &crate::time::timespec(self.accessed_ns));
        put(88, &crate::time::timespec(self.modified_ns));
        put(104, &crate::time::timespec(self.changed_ns));
        bytes
    }

    /// `struct statx` (linux/stat.h): basic fields only.
    pub(crate) fn encode_statx(&self) -> [u8; 256] {
        /// STATX_BASIC_STATS.
        const BASIC: u32 = 0x7ff;
        let mut bytes = [0; 256];
        let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
        put(0, &BASIC.to_le_bytes());
        put(4, &(BLOCK_BYTES as u32).to_le_bytes());
        put(16, &self.links.to_le_bytes());
        put(20, &self.uid.to_le_bytes());
        put(24, &self.gid.to_le_bytes());
        put(28, &(self.mode as u16).to_le_bytes());
        put(32, &self.inode.to_le_bytes());
        put(40, &self.size.to_le_bytes());
        put(48, &self.blocks.to_le_bytes());
        let times = [
            (64, self.accessed_ns),
            (96, self.changed_ns),
            (112, self.modified_ns),
        ];
        for (at, time_ns) in times {
            put(at, &crate::time::timespec(time_ns)[..12]);
        }
        for (at, device) in [(128, self.rdev), (136, self.device)] {
            put(at, &device_major(device).to_le_bytes());
            put(at + 4, &device_minor(device).to_le_bytes());
        }
        bytes
    }
}

/// A device number as `st_rdev` has it.
pub(crate) fn device_number(major: u32, minor: u32) -> u64 {
    let (major, minor) = (u64::from(major), u64::from(minor));
    minor & 0xff | (major & 0xfff) << 8 | (minor & !0xff) << 12 | (major & !0xfff) << 32
}

/// The major part of a device number.
pub(crate) fn device_major(device: u64) -> u32 {
    (device >> 8 & 0xfff | device >> 32 & !0xfff) as u32
}

/// The minor part of a device number.
pub(crate) fn device_minor(device: u64) -> u32 {
    (device & 0xff | device >> 12 & !0xff) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn device_numbers_survive_the_round_trip() {
        for (major, minor) in [(0, 0), (1, 3), (0xfff, 0xff), (0x1234, 0x5_6789)] {
            let device = device_number(major, minor);
            assert_eq!((device_major(device), device_minor(device)), (major, minor));
        }
        assert_eq!(device_number(1, 3), 0x103);
    }

    #[test]
    fn kinds_survive_the_round_trip() {
        for kind in [
            Kind::Regular,
            Kind::Directory,
            Kind::Pipe,
            Kind::Socket,
            Kind::SymbolicLink,
        ] {
            assert_eq!(Kind::of_mode(kind.mode() | 0o7777), Some(kind));
        }
        assert_eq!(Kind::of_mode(0o777), None);
        assert_eq!(Kind::Directory.directory_type(), 4);
    }
}
