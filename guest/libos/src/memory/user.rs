//! Reading and writing the program's memory from system calls.

use alloc::vec::Vec;

use spore_abi::pages::exit_kind;
use spore_machine::shared;
use spore_machine::user::{self, Missing, Place};

use super::space::{AccessError, AddressSpace, Intent};
use crate::errno::Errno;

impl AddressSpace {
    /// Makes a page accessible that a copy has found missing. A program whose memory is used up ends here, as it
    /// would by touching the page itself.
    fn touch(&mut self, address: u64, intent: Intent) -> Result<(), Errno> {
        match self.fault(address, intent) {
            Ok(()) => Ok(()),
            Err(AccessError::Forbidden | AccessError::BeyondFile) => Err(Errno::EFAULT),
            Err(AccessError::OutOfMemory) if self.is_helper => Err(Errno::ENOMEM),
            Err(AccessError::OutOfMemory) => shared::end(exit_kind::OUT_OF_MEMORY, 0, ""),
        }
    }

    /// Fills `buffer` from the program's memory at `address`.
    pub(crate) fn read(&mut self, address: u64, buffer: &mut [u8]) -> Result<(), Errno> {
        let mut done = 0;
        while let Err(Missing(missing)) = user::read(address.wrapping_add(done as u64), &mut buffer[done..]) {
            done = buffer.len() - missing;
            self.touch(address.wrapping_add(done as u64), Intent::Read)?;
        }
        Ok(())
    }

    /// Writes `bytes` to the program's memory at `address`.
    pub(crate) fn write(&mut self, address: u64, bytes: &[u8]) -> Result<(), Errno> {
        let mut done = 0;
        while let Err(Missing(missing)) = user::write(address.wrapping_add(done as u64), &bytes[done..]) {
            done = bytes.len() - missing;
            self.touch(address.wrapping_add(done as u64), Intent::Write)?;
        }
        Ok(())
    }

    /// Copies from memory of the library OS's to the program's at `address`.
    pub(crate) fn copy_to_program(&mut self, from: Place, address: u64, length: u64) -> Result<(), Errno> {
        self.copy(address, length, Intent::Write, |address, done, length| {
            user::copy_to_program(from.advanced(done), address, length)
        })
    }

    /// Copies from the program's memory at `address` to the library OS's.
    pub(crate) fn copy_from_program(&mut self, address: u64, to: Place, length: u64) -> Result<(), Errno> {
        self.copy(address, length, Intent::Read, |address, done, length| {
            user::copy_from_program(address, to.advanced(done), length)
        })
    }

    /// Calls `copy(address, done, length)` for what is left, until nothing is, making pages accessible in between.
    fn copy(
        &mut self,
        address: u64,
        length: u64,
        intent: Intent,
        mut copy: impl FnMut(u64, u64, usize) -> Result<(), Missing>,
    ) -> Result<(), Errno> {
        let mut done = 0;
        while let Err(Missing(missing)) = copy(address.wrapping_add(done), done, (length - done) as usize) {
            done = length - missing as u64;
            self.touch(address.wrapping_add(done), intent)?;
        }
        Ok(())
    }

    /// Reads `N` bytes.
    pub(crate) fn read_array<const N: usize>(&mut self, address: u64) -> Result<[u8; N], Errno> {
        let mut bytes = [0; N];
        self.read(address, &mut bytes)?;
        Ok(bytes)
    }

    /// Reads a 32-bit number.
    pub(crate) fn read_u32(&mut self, address: u64) -> Result<u32, Errno> {
        self.read_array(address).map(u32::from_le_bytes)
    }

    /// Reads a 64-bit number.
    pub(crate) fn read_u64(&mut self, address: u64) -> Result<u64, Errno> {
        self.read_array(address).map(u64::from_le_bytes)
    }

    /// Reads a zero-terminated string of at most `limit` bytes, without the zero.
    pub(crate) fn read_string(
        &mut self,
        address: u64,
        limit: usize,
        too_long: Errno,
    ) -> Result<Vec<u8>, Errno> {
        let mut text = Vec::new();
        let mut at = address;
        loop {
            // Never across a page: the next one may not be mapped.
            let mut part = [0; 64];
            let room = (64 - at % 64) as usize;
            self.read(at, &mut part[..room])?;
            match part[..room].iter().position(|&byte| byte == 0) {
                Some(length) => text.extend_from_slice(&part[..length]),
                None => text.extend_from_slice(&part[..room]),
            }
            if text.len() > limit {
                return Err(too_long);
            }
            if part[..room].contains(&0) {
                return Ok(text);
            }
            at = at.wrapping_add(room as u64);
        }
    }
}
