//! Files that a guest's process maps.

use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;

use rustix::fs::{SealFlags, fcntl_add_seals, ftruncate};
use rustix::io::Errno;
use spore_abi::layout::PAGE_BYTES;

/// Zeroed memory that can be mapped by several processes, and never becomes shorter or longer.
pub(super) fn fixed_memory(name: &CStr, bytes: u64) -> io::Result<OwnedFd> {
    let file = crate::memory_file(name)?;
    ftruncate(&file, bytes)?;
    fcntl_add_seals(&file, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
    Ok(file)
}

/// The same in an empty file of the daemon's, which it may seal further when nobody writes to it any more.
pub(super) fn fixed_memory_within(file: BorrowedFd<'_>, bytes: u64) -> io::Result<OwnedFd> {
    ftruncate(file, bytes)?;
    fcntl_add_seals(file, SealFlags::SHRINK | SealFlags::GROW)?;
    file.try_clone_to_owned()
}

/// The program's file as a descriptor that can be read and executed, and not written: a shared mapping of it then cannot
/// be made writable. Where the file can be written, or lies where nothing may be executed, it is a copy in memory that is
/// nobody else's.
pub(super) fn executable(program: &File, bytes: u64) -> io::Result<File> {
    use rustix::fs::{OFlags, fcntl_getfl};
    let file = program.try_clone()?;
    let is_read_only = fcntl_getfl(program)? & OFlags::ACCMODE == OFlags::RDONLY;
    if is_read_only && may_be_executed(&file)? {
        return Ok(file);
    }
    let copy = File::from(fixed_memory(c"spore-program", bytes)?);
    let mut at = 0;
    let mut buffer = vec![0; 1 << 20];
    loop {
        // The descriptor's own position belongs to the daemon as well.
        let count = file.read_at(&mut buffer, at)?;
        if count == 0 {
            return Ok(copy);
        }
        copy.write_all_at(&buffer[..count], at)?;
        at += count as u64;
    }
}

/// Whether the file lies where files may be executed.
fn may_be_executed(file: &File) -> io::Result<bool> {
    use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
    let protection = ProtFlags::READ | ProtFlags::EXEC;
    let length = PAGE_BYTES as usize;
    // SAFETY: a new mapping at an address of the kernel's choice, which nobody uses.
    match unsafe {
        mmap(
            std::ptr::null_mut(),
            length,
            protection,
            MapFlags::SHARED,
            file,
            0,
        )
    } {
        Ok(page) => {
            // SAFETY: the mapping made just now.
            unsafe { munmap(page, length) }?;
            Ok(true)
        }
        Err(Errno::PERM | Errno::ACCESS) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// A program of a page that holds nothing, for a guest that is not meant to run.
pub(crate) fn empty_program() -> io::Result<OwnedFd> {
    fixed_memory(c"spore-nothing", PAGE_BYTES)
}
