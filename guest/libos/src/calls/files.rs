//! Paths.

use alloc::vec::Vec;

use linux_raw_sys::general as linux;

pub(super) use super::descriptors::{DESCRIPTOR_LIMIT, add};
pub(super) use super::transfer::{Patience, send_all, wait_for};
use super::{Arguments, CallResult};
use crate::errno::Errno;
use crate::files::{Kind, Metadata, devices};
use crate::kernel::Kernel;

/// Longest path, with its zero.
const PATH_BYTES_MAX: usize = 4096;

fn path(kernel: &mut Kernel, address: u64) -> Result<Vec<u8>, Errno> {
    kernel
        .process
        .space
        .read_string(address, PATH_BYTES_MAX - 1, Errno::ENAMETOOLONG)
}

pub(super) fn open(kernel: &mut Kernel, path_address: u64, flags: u64) -> CallResult {
    let path = path(kernel, path_address)?;
    let file = devices::by_path(&path).ok_or(Errno::ENOENT)?;
    let flags = flags as u32;
    if flags & linux::O_DIRECTORY != 0 {
        return Err(Errno::ENOTDIR.into());
    }
    if flags & linux::O_CREAT != 0 && flags & linux::O_EXCL != 0 {
        return Err(Errno::EEXIST.into());
    }
    let status = flags & (linux::O_ACCMODE | linux::O_NONBLOCK | linux::O_APPEND);
    add(kernel, file, status, flags & linux::O_CLOEXEC != 0)
}

pub(super) fn fstat(kernel: &mut Kernel, [descriptor, address, ..]: Arguments) -> CallResult {
    let open = kernel.process.files.get(descriptor)?;
    kernel
        .process
        .space
        .write(address, &open.file.metadata().encode_stat())?;
    Ok(0)
}

pub(super) fn stat(kernel: &mut Kernel, path_address: u64, address: u64) -> CallResult {
    let path = path(kernel, path_address)?;
    let metadata = match path.as_slice() {
        b"/" | b"/dev" => Metadata {
            mode: linux::S_IFDIR | 0o755,
            ..Metadata::of_kind(Kind::Directory)
        },
        other => devices::by_path(other).ok_or(Errno::ENOENT)?.metadata(),
    };
    kernel.process.space.write(address, &metadata.encode_stat())?;
    Ok(0)
}

pub(super) fn newfstatat(kernel: &mut Kernel, arguments: Arguments) -> CallResult {
    let [descriptor, path_address, address, flags, ..] = arguments;
    if flags & u64::from(linux::AT_EMPTY_PATH) != 0 && path(kernel, path_address)?.is_empty() {
        return fstat(kernel, [descriptor, address, 0, 0, 0, 0]);
    }
    stat(kernel, path_address, address)
}

pub(super) fn access(kernel: &mut Kernel, path_address: u64) -> CallResult {
    let path = path(kernel, path_address)?;
    let exists = matches!(path.as_slice(), b"/" | b"/dev") || devices::by_path(&path).is_some();
    if exists { Ok(0) } else { Err(Errno::ENOENT.into()) }
}

pub(super) fn readlink(kernel: &mut Kernel, path_address: u64) -> CallResult {
    let path = path(kernel, path_address)?;
    let exists = matches!(path.as_slice(), b"/" | b"/dev") || devices::by_path(&path).is_some();
    Err(if exists { Errno::EINVAL } else { Errno::ENOENT }.into())
}

pub(super) fn getcwd(kernel: &mut Kernel, [address, length, ..]: Arguments) -> CallResult {
    let path = b"/\0";
    if length < path.len() as u64 {
        return Err(Errno::ERANGE.into());
    }
    kernel.process.space.write(address, path)?;
    Ok(path.len() as u64)
}
