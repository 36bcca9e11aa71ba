//! `stat`, `statx`, `statfs` and kin; listing directories.

use linux_raw_sys::general as linux;

use super::paths::{WORKING_DIRECTORY, metadata, read_path, resolve};
use super::{Arguments, CallResult};
use crate::errno::Errno;
use crate::files::Kind;
use crate::files::metadata::BLOCK_BYTES;
use crate::files::tree::listing::{Line, list};
use crate::files::tree::node::Device;
use crate::files::tree::walk::Target;
use crate::kernel::Kernel;

const NO_FOLLOW: u64 = linux::AT_SYMLINK_NOFOLLOW as u64;
/// Flags that say how fresh attributes of remote files must be, and whether to mount what is mounted on demand.
const IGNORED_FLAGS: u32 = linux::AT_STATX_SYNC_TYPE | linux::AT_NO_AUTOMOUNT;

pub(super) fn fstat(kernel: &mut Kernel, [descriptor, address, ..]: Arguments) -> CallResult {
    let open = kernel.process.files.get(descriptor)?;
    let bytes = open.metadata().encode_stat();
    kernel.process.space.write(address, &bytes)?;
    Ok(0)
}

pub(super) fn stat(kernel: &mut Kernel, [path, address, ..]: Arguments) -> CallResult {
    newfstatat(kernel, [WORKING_DIRECTORY, path, address, 0, 0, 0])
}

pub(super) fn lstat(kernel: &mut Kernel, [path, address, ..]: Arguments) -> CallResult {
    newfstatat(kernel, [WORKING_DIRECTORY, path, address, NO_FOLLOW, 0, 0])
}

pub(super) fn newfstatat(
    kernel: &mut Kernel,
    [descriptor, path, address, flags, ..]: Arguments,
) -> CallResult {
    let known = IGNORED_FLAGS | linux::AT_SYMLINK_NOFOLLOW | linux::AT_EMPTY_PATH;
    if flags & !u64::from(known) != 0 {
        return Err(Errno::EINVAL.into());
    }
    // Newer C libraries give no path at all for `fstat`.
    if path == 0 && flags & u64::from(linux::AT_EMPTY_PATH) != 0 {
        return fstat(kernel, [descriptor, address, 0, 0, 0, 0]);
    }
    let bytes = metadata(&resolve(kernel, descriptor, path, flags)?).encode_stat();
    kernel.process.space.write(address, &bytes)?;
    Ok(0)
}

pub(super) fn statx(
    kernel: &mut Kernel,
    [descriptor, path, flags, mask, address, _]: Arguments,
) -> CallResult {
    let known = IGNORED_FLAGS | linux::AT_SYMLINK_NOFOLLOW | linux::AT_EMPTY_PATH;
    let is_contradiction =
        flags & u64::from(linux::AT_STATX_SYNC_TYPE) == u64::from(linux::AT_STATX_SYNC_TYPE);
    if flags & !u64::from(known) != 0 || is_contradiction || mask & u64::from(linux::STATX__RESERVED) != 0 {
        return Err(Errno::EINVAL.into());
    }
    let target = if path == 0 && flags & u64::from(linux::AT_EMPTY_PATH) != 0 {
        super::paths::itself(kernel, descriptor)?
    } else {
        resolve(kernel, descriptor, path, flags)?
    };
    let bytes = metadata(&target).encode_statx();
    kernel.process.space.write(address, &bytes)?;
    Ok(0)
}

pub(super) fn statfs(kernel: &mut Kernel, [path, address, ..]: Arguments) -> CallResult {
    let target = resolve(kernel, WORKING_DIRECTORY, path, 0)?;
    let name = read_path(kernel, path)?;
    write_statfs(kernel, &target, &name, address)
}

pub(super) fn fstatfs(kernel: &mut Kernel, [descriptor, address, ..]: Arguments) -> CallResult {
    kernel.process.files.get(descriptor)?;
    let target = super::paths::itself(kernel, descriptor)?;
    let name = match &target {
        Target::Entry(entry) => entry.path(),
        Target::Open(_) => alloc::vec::Vec::new(),
    };
    write_statfs(kernel, &target, &name, address)
}

/// `struct statfs` (asm/statfs.h).
fn write_statfs(kernel: &mut Kernel, target: &Target, path: &[u8], address: u64) -> CallResult {
    const OVERLAY: u64 = 0x794c_7630;
    const TMPFS: u64 = 0x0102_1994;
    const PROC: u64 = 0x9fa0;
    const SYSFS: u64 = 0x6265_6572;
    const CGROUP2: u64 = 0x6367_7270;
    const PIPEFS: u64 = 0x5049_5045;
    const SOCKFS: u64 = 0x534f_434b;
    const ANONYMOUS: u64 = 0x0904_1934;
    let (magic, number) = match target {
        Target::Entry(entry) => match entry.node.device {
            Device::Root => (OVERLAY, 21),
            Device::Devices | Device::SharedMemory | Device::Secrets => (TMPFS, 22),
            Device::Processes => (PROC, 24),
            Device::System if path.starts_with(b"/sys/fs/cgroup") => (CGROUP2, 26),
            Device::System => (SYSFS, 25),
        },
        Target::Open(open) => match open.file.kind() {
            Kind::Pipe => (PIPEFS, 15),
            Kind::Socket => (SOCKFS, 15),
            Kind::Regular => (TMPFS, 15),
            _ => (ANONYMOUS, 15),
        },
    };
    let is_generated = [PROC, SYSFS, CGROUP2].contains(&magic);
    let total = spore_machine::shared::boot().memory_limit_bytes / BLOCK_BYTES;
    let free = kernel.frames.borrow().free_bytes() / BLOCK_BYTES;
    let (nodes_free, nodes) = kernel.tree.volume.node_counts();
    let counts = if is_generated {
        [0; 5]
    } else {
        [total, free, free, nodes + nodes_free, nodes_free]
    };
    let mut bytes = [0; 120];
    let mut put = |at: usize, value: u64| bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
    put(0, magic);
    put(8, BLOCK_BYTES);
    for (index, count) in counts.into_iter().enumerate() {
        put(16 + index * 8, count);
    }
    put(56, number);
    put(64, 255);
    put(72, BLOCK_BYTES);
    // ST_VALID, ST_NOATIME.
    put(80, 0x20 | 0x400);
    kernel.process.space.write(address, &bytes)?;
    Ok(0)
}

pub(super) fn getdents64(kernel: &mut Kernel, [descriptor, address, size, ..]: Arguments) -> CallResult {
    list_into(kernel, descriptor, address, size, |line, bytes| {
        const HEAD: usize = 19;
        let length = (HEAD + line.name.len() + 1).next_multiple_of(8);
        bytes.resize(length, 0);
        bytes[..8].copy_from_slice(&line.number.to_le_bytes());
        bytes[8..16].copy_from_slice(&line.next.to_le_bytes());
        bytes[16..18].copy_from_slice(&(length as u16).to_le_bytes());
        bytes[18] = line.kind;
        bytes[HEAD..HEAD + line.name.len()].copy_from_slice(&line.name);
    })
}

pub(super) fn getdents(kernel: &mut Kernel, [descriptor, address, size, ..]: Arguments) -> CallResult {
    list_into(kernel, descriptor, address, size, |line, bytes| {
        const HEAD: usize = 18;
        let length = (HEAD + line.name.len() + 2).next_multiple_of(8);
        bytes.resize(length, 0);
        bytes[..8].copy_from_slice(&line.number.to_le_bytes());
        bytes[8..16].copy_from_slice(&line.next.to_le_bytes());
        bytes[16..18].copy_from_slice(&(length as u16).to_le_bytes());
        bytes[HEAD..HEAD + line.name.len()].copy_from_slice(&line.name);
        bytes[length - 1] = line.kind;
    })
}

/// Lists a directory into a buffer, from the open file's position on.
fn list_into(
    kernel: &mut Kernel,
    descriptor: u64,
    address: u64,
    size: u64,
    encode: impl Fn(&Line, &mut alloc::vec::Vec<u8>),
) -> CallResult {
    /// What one call gives at most: it is collected before it is copied.
    const BYTES_MAX: u64 = 64 * 1024;
    let open = super::transfer::readable(kernel, descriptor)?;
    let entry = match &open.location {
        Some(entry) if entry.node.is_directory() => alloc::rc::Rc::clone(entry),
        _ => return Err(Errno::ENOTDIR.into()),
    };
    let room = u64::from(size as u32).min(BYTES_MAX) as usize;
    let mut collected = alloc::vec::Vec::new();
    let mut position = open.position.get();
    let mut is_full = false;
    let mut bytes = alloc::vec::Vec::new();
    list(kernel, &entry, position, &mut |line| {
        bytes.clear();
        encode(line, &mut bytes);
        if collected.len() + bytes.len() > room {
            is_full = true;
            return false;
        }
        collected.extend_from_slice(&bytes);
        position = line.next;
        true
    })?;
    if collected.is_empty() && is_full {
        return Err(Errno::EINVAL.into());
    }
    kernel.process.space.write(address, &collected)?;
    open.position.set(position);
    Ok(collected.len() as u64)
}
