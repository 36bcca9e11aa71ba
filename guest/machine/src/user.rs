//! Copies from and to the program's memory.
//!
//! A page fault within the copying routine does not reach the library OS: the monitor lets the routine go on at its
//! failure exit, and the caller learns how many bytes are missing.

use spore_abi::layout;

use crate::reserved;

unsafe extern "C" {
    fn machine_user_copy(to: *mut u8, from: *const u8, length: usize) -> usize;
}

/// Bytes that could not be copied, counted from the end; the page that holds the first of them is not accessible.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Missing(pub usize);

/// Whether the range is one that a program can own: canonical, in the lower half, not the library OS's.
#[must_use]
pub fn is_program_range(address: u64, length: u64) -> bool {
    let Some(end) = address.checked_add(length) else {
        return false;
    };
    end <= layout::USER_END && !reserved::overlaps(address, length)
}

/// Copies `buffer.len()` bytes from the program's memory at `address`.
///
/// # Errors
///
/// The number of bytes that are missing, if part of the range is not readable.
pub fn read(address: u64, buffer: &mut [u8]) -> Result<(), Missing> {
    if !is_program_range(address, buffer.len() as u64) {
        return Err(Missing(buffer.len()));
    }
    // SAFETY: the target is a valid buffer of this length; the source is outside of the library OS's memory, and a
    // fault while reading it ends the routine early.
    match unsafe { machine_user_copy(buffer.as_mut_ptr(), address as *const u8, buffer.len()) } {
        0 => Ok(()),
        missing => Err(Missing(missing)),
    }
}

/// Copies `buffer` to the program's memory at `address`.
///
/// # Errors
///
/// The number of bytes that are missing, if part of the range is not writable.
pub fn write(address: u64, buffer: &[u8]) -> Result<(), Missing> {
    if !is_program_range(address, buffer.len() as u64) {
        return Err(Missing(buffer.len()));
    }
    // SAFETY: the source is a valid buffer of this length; the target is outside of the library OS's memory, so no
    // object of ours changes, and a fault while writing it ends the routine early.
    match unsafe { machine_user_copy(address as *mut u8, buffer.as_ptr(), buffer.len()) } {
        0 => Ok(()),
        missing => Err(Missing(missing)),
    }
}

/// Fills a range of the program's window memory with zeroes. Ranges outside of the window are left alone.
pub fn zero_window(gpa: u64, length: u64, ram_bytes: u64) {
    let in_window = gpa >= reserved::end_gpa() && gpa.checked_add(length).is_some_and(|end| end <= ram_bytes);
    if in_window {
        // SAFETY: the range is RAM that belongs to programs; the window maps it writable unless the library OS took
        // that away, which it does only for ranges that are in use.
        unsafe { core::ptr::write_bytes((layout::WINDOW_BASE + gpa) as *mut u8, 0, length as usize) };
    }
}
