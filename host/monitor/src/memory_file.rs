//! Files in memory that can be executed: all that holds a guest's memory, or becomes it.

use std::ffi::CStr;
use std::io;
use std::os::fd::{FromRawFd, OwnedFd};

/// An empty file in memory that can be sealed, and mapped to be executed.
///
/// # Errors
///
/// If the kernel has no such files, or no memory.
pub fn memory_file(name: &CStr) -> io::Result<OwnedFd> {
    /// `MFD_EXEC`: Linux 6.3 asks that this be said.
    const EXECUTABLE: u32 = 0x10;
    let flags = libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING;
    // SAFETY: makes a descriptor, nothing else.
    let mut descriptor = unsafe { libc::memfd_create(name.as_ptr(), flags | EXECUTABLE) };
    if descriptor < 0 && io::Error::last_os_error().raw_os_error() == Some(libc::EINVAL) {
        // SAFETY: as above.
        descriptor = unsafe { libc::memfd_create(name.as_ptr(), flags) };
    }
    if descriptor < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor is new, and nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}
