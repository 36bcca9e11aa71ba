//! Copies from and to the program's memory.
//!
//! A page fault within the copying routine does not reach the library OS: the monitor lets the routine go on at its
//! failure exit, and the caller learns how many bytes are missing.

use spore_abi::layout;

use crate::{reserved, shared};

unsafe extern "C" {
    fn machine_user_copy(to: *mut u8, from: *const u8, length: usize) -> usize;
}

/// Bytes that could not be copied, counted from the end; the page that holds the first of them is not accessible.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Missing(pub usize);

/// Whether the range is one that a program can own: canonical, in the lower half, neither the library OS's nor the
/// modules'.
#[must_use]
pub fn is_program_range(address: u64, length: u64) -> bool {
    let Some(end) = address.checked_add(length) else {
        return false;
    };
    // Programs reach modules by mappings of their own; at the addresses here, nothing may be behind the last page.
    let modules_end = layout::MODULES_BASE + layout::MODULES_BYTES_MAX;
    let is_module = address < modules_end && end > layout::MODULES_BASE;
    end <= layout::USER_END && !is_module && !reserved::overlaps(address, length)
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

/// Memory that is always mapped for the library OS, whatever the program does with its own mappings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// RAM that the library OS has taken for a file in memory, by its guest-physical address.
    Frame(u64),
    /// Part of a module, by its offset.
    Module(u64),
}

impl Place {
    /// The place `bytes` further on.
    #[must_use]
    pub fn advanced(self, bytes: u64) -> Self {
        match self {
            Self::Frame(gpa) => Self::Frame(gpa.wrapping_add(bytes)),
            Self::Module(offset) => Self::Module(offset.wrapping_add(bytes)),
        }
    }

    /// Its address, if `length` bytes from there on are of its kind. Those of modules may be read only.
    fn address(self, length: u64, will_be_written: bool) -> Option<u64> {
        let boot = shared::boot();
        match self {
            Self::Frame(gpa) => {
                let is_ram = gpa >= reserved::end_gpa() && gpa.checked_add(length)? <= boot.ram_bytes;
                is_ram.then_some(layout::WINDOW_BASE + gpa)
            }
            Self::Module(_) if will_be_written => None,
            Self::Module(offset) => {
                let is_module = offset.checked_add(length)? <= boot.root_bytes;
                is_module.then_some(layout::MODULES_BASE + offset)
            }
        }
    }
}

/// Copies `length` bytes from a place to the program's memory at `address`.
///
/// # Errors
///
/// The number of bytes that are missing, if part of the program's range is not writable; all of them if the place does
/// not exist.
pub fn copy_to_program(from: Place, address: u64, length: usize) -> Result<(), Missing> {
    let Some(source) = from.address(length as u64, false) else {
        return Err(Missing(length));
    };
    if !is_program_range(address, length as u64) {
        return Err(Missing(length));
    }
    // SAFETY: the source is mapped and no Rust object (checked above); the target is outside of the library OS's memory,
    // and a fault while writing it ends the routine early.
    match unsafe { machine_user_copy(address as *mut u8, source as *const u8, length) } {
        0 => Ok(()),
        missing => Err(Missing(missing)),
    }
}

/// Copies `length` bytes from the program's memory at `address` to a place.
///
/// # Errors
///
/// As for [`copy_to_program`].
pub fn copy_from_program(address: u64, to: Place, length: usize) -> Result<(), Missing> {
    let Some(target) = to.address(length as u64, true) else {
        return Err(Missing(length));
    };
    if !is_program_range(address, length as u64) {
        return Err(Missing(length));
    }
    // SAFETY: as for `copy_to_program`, the other way round.
    match unsafe { machine_user_copy(target as *mut u8, address as *const u8, length) } {
        0 => Ok(()),
        missing => Err(Missing(missing)),
    }
}

/// Fills `buffer` from a place; `false` if the place does not exist.
#[must_use]
pub fn read_place(from: Place, buffer: &mut [u8]) -> bool {
    let Some(source) = from.address(buffer.len() as u64, false) else {
        return false;
    };
    // SAFETY: the source is mapped for this length, and is no Rust object, so it does not overlap the buffer.
    unsafe { core::ptr::copy_nonoverlapping(source as *const u8, buffer.as_mut_ptr(), buffer.len()) };
    true
}

/// Copies `length` bytes from one place to another; `false` if one of them does not exist.
#[must_use]
pub fn copy_place(from: Place, to: Place, length: usize) -> bool {
    let addresses = from
        .address(length as u64, false)
        .zip(to.address(length as u64, true));
    let Some((source, target)) = addresses else {
        return false;
    };
    // SAFETY: both are mapped for this length and are no Rust objects; `copy` allows that they overlap.
    unsafe { core::ptr::copy(source as *const u8, target as *mut u8, length) };
    true
}

/// Writes `bytes` to a place; `false` if the place does not exist or is not writable.
#[must_use]
pub fn write_place(to: Place, bytes: &[u8]) -> bool {
    let Some(target) = to.address(bytes.len() as u64, true) else {
        return false;
    };
    // SAFETY: as for `read_place`.
    unsafe { core::ptr::copy_nonoverlapping(bytes.as_ptr(), target as *mut u8, bytes.len()) };
    true
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
