//! The guest's memory: read and written by copies of ranges that were checked.

use std::io;
use std::ptr::{self, NonNull};

use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous, munmap};

use crate::abi::LARGE_PAGE_BYTES;

/// A range that is not within the guest's memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{length} bytes at {address:#x} are not within the guest's memory")]
pub struct OutOfRange {
    /// Where it begins.
    pub address: u64,
    /// Its length, in bytes.
    pub length: u64,
}

/// Memory of a guest, by guest-physical addresses. The guest does not run while it is used.
pub trait Memory {
    /// Its length, in bytes.
    fn length(&self) -> u64;

    /// Copies bytes out.
    ///
    /// # Errors
    ///
    /// If not all of them are within the memory; nothing is copied then.
    fn read(&self, address: u64, bytes: &mut [u8]) -> Result<(), OutOfRange>;

    /// Copies bytes in.
    ///
    /// # Errors
    ///
    /// As for [`Memory::read`].
    fn write(&self, address: u64, bytes: &[u8]) -> Result<(), OutOfRange>;

    /// Checks a range.
    ///
    /// # Errors
    ///
    /// If it is not within the memory.
    fn check(&self, address: u64, length: u64) -> Result<(), OutOfRange> {
        match address.checked_add(length) {
            Some(end) if end <= self.length() => Ok(()),
            _ => Err(OutOfRange { address, length }),
        }
    }
}

/// Memory that is mapped in this process. No reference into it is ever made, since the guest changes it whenever it runs.
#[derive(Debug)]
pub(crate) struct Mapping {
    /// Aligned to large pages.
    start: NonNull<u8>,
    length: usize,
    mapping: (*mut libc::c_void, usize),
}

impl Mapping {
    /// Zeroed memory. It takes memory of the host as it is touched.
    pub(crate) fn new(length: u64) -> io::Result<Self> {
        let length = usize::try_from(length).map_err(io::Error::other)?;
        let alignment = LARGE_PAGE_BYTES as usize;
        let mapped = length.checked_add(alignment).ok_or(io::ErrorKind::InvalidInput)?;
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
        // SAFETY: a new mapping at an address of the kernel's choice touches nothing that exists.
        let base = unsafe { mmap_anonymous(ptr::null_mut(), mapped, protection, flags) }?;
        let offset = base.addr().next_multiple_of(alignment) - base.addr();
        // SAFETY: `offset` is less than `alignment`, so that it and `length` bytes behind it are within the mapping.
        let start = unsafe { base.cast::<u8>().add(offset) };
        Ok(Self {
            start: NonNull::new(start).ok_or(io::ErrorKind::InvalidInput)?,
            length,
            mapping: (base, mapped),
        })
    }

    /// Where it is in this process, for KVM.
    pub(crate) fn host_address(&self) -> u64 {
        self.start.addr().get() as u64
    }

    fn place(&self, address: u64, length: usize) -> Result<*mut u8, OutOfRange> {
        self.check(address, length as u64)?;
        // SAFETY: `address` is at most `self.length`, as was just checked, so the result is within the mapping or at its end.
        Ok(unsafe { self.start.as_ptr().add(address as usize) })
    }
}

impl Memory for Mapping {
    fn length(&self) -> u64 {
        self.length as u64
    }

    fn read(&self, address: u64, bytes: &mut [u8]) -> Result<(), OutOfRange> {
        let place = self.place(address, bytes.len())?;
        // SAFETY: the range was checked. `bytes` is no part of it, for there is no reference into the mapping; and nobody writes
        // meanwhile: the one thread of this process runs the guest or this.
        unsafe { ptr::copy_nonoverlapping(place, bytes.as_mut_ptr(), bytes.len()) };
        Ok(())
    }

    fn write(&self, address: u64, bytes: &[u8]) -> Result<(), OutOfRange> {
        let place = self.place(address, bytes.len())?;
        // SAFETY: as for `read`; the mapping is writable.
        unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), place, bytes.len()) };
        Ok(())
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        let (base, length) = self.mapping;
        // SAFETY: our own mapping; the machine that uses it is dropped before it (order of the fields of `Machine`).
        let _ = unsafe { munmap(base, length) };
    }
}

/// Memory that is a vector, for tests and the fuzz target.
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) struct Bytes(pub(crate) std::cell::RefCell<Vec<u8>>);

#[cfg(any(test, feature = "fuzzing"))]
impl Memory for Bytes {
    fn length(&self) -> u64 {
        self.0.borrow().len() as u64
    }

    fn read(&self, address: u64, bytes: &mut [u8]) -> Result<(), OutOfRange> {
        self.check(address, bytes.len() as u64)?;
        bytes.copy_from_slice(&self.0.borrow()[address as usize..][..bytes.len()]);
        Ok(())
    }

    fn write(&self, address: u64, bytes: &[u8]) -> Result<(), OutOfRange> {
        self.check(address, bytes.len() as u64)?;
        self.0.borrow_mut()[address as usize..][..bytes.len()].copy_from_slice(bytes);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_checked() {
        let memory = Mapping::new(8192).unwrap();
        assert_eq!(memory.host_address() % LARGE_PAGE_BYTES, 0);
        memory.write(8184, &[7; 8]).unwrap();
        let mut bytes = [0; 8];
        memory.read(8184, &mut bytes).unwrap();
        assert_eq!(bytes, [7; 8]);
        for address in [8185, 8192, 8193, u64::MAX - 7, u64::MAX] {
            assert!(memory.read(address, &mut bytes).is_err());
            assert!(memory.write(address, &bytes).is_err());
        }
        memory.write(8192, &[]).unwrap();
        assert!(memory.write(8193, &[]).is_err());
        assert!(memory.check(1, u64::MAX).is_err());
    }
}
