//! The program's buffers that a read or write works on: one, or a vector of them.

use linux_raw_sys::general::UIO_MAXIOV;
use smallvec::SmallVec;
use spore_machine::user::{self, Place};

use super::AddressSpace;
use crate::errno::Errno;

/// Most bytes that one call moves, as on Linux (`MAX_RW_COUNT`).
const BYTES_MAX: u64 = 0x7fff_f000;

/// Buffers with a position: what has been filled or emptied so far.
#[derive(Debug, Clone)]
pub(crate) struct Buffers {
    segments: SmallVec<[(u64, u64); 4]>,
    segment: usize,
    offset: u64,
    remaining: u64,
    /// Memory of the library OS's that the buffers are in; their addresses count from there.
    place: Option<Place>,
}

impl Buffers {
    /// One buffer.
    pub(crate) fn single(address: u64, length: u64) -> Self {
        let length = length.min(BYTES_MAX);
        Self {
            segments: SmallVec::from_elem((address, length), 1),
            segment: 0,
            offset: 0,
            remaining: length,
            place: None,
        }
    }

    /// One buffer that is not the program's but the library OS's.
    pub(crate) fn at_place(place: Place, length: u64) -> Self {
        Self {
            place: Some(place),
            ..Self::single(0, length)
        }
    }

    /// Makes at most `count` bytes be left.
    pub(crate) fn limit(&mut self, count: u64) {
        self.remaining = self.remaining.min(count);
    }

    /// The buffers of an array of `struct iovec`.
    pub(crate) fn vector(space: &mut AddressSpace, address: u64, count: u64) -> Result<Self, Errno> {
        if count > u64::from(UIO_MAXIOV) {
            return Err(Errno::EINVAL);
        }
        let mut segments = SmallVec::new();
        let mut remaining = 0_u64;
        for index in 0..count {
            let base = space.read_u64(address.wrapping_add(index * 16))?;
            let length = space.read_u64(address.wrapping_add(index * 16 + 8))?;
            if length > i64::MAX as u64 {
                return Err(Errno::EINVAL);
            }
            let length = length.min(BYTES_MAX - remaining);
            remaining += length;
            segments.push((base, length));
        }
        Ok(Self {
            segments,
            segment: 0,
            offset: 0,
            remaining,
            place: None,
        })
    }

    /// Bytes left.
    pub(crate) fn remaining(&self) -> u64 {
        self.remaining
    }

    /// Skips `count` bytes (at most what is left).
    pub(crate) fn skip(&mut self, count: u64) {
        let mut left = count.min(self.remaining);
        self.remaining -= left;
        while left > 0 {
            let (_, length) = self.segments[self.segment];
            let step = left.min(length - self.offset);
            self.offset += step;
            left -= step;
            if self.offset == length {
                self.segment += 1;
                self.offset = 0;
            }
        }
    }

    /// Copies as much of `bytes` into the buffers as fits; returns how much that was.
    pub(crate) fn put(&mut self, space: &mut AddressSpace, bytes: &[u8]) -> Result<u64, Errno> {
        let own = self.place;
        self.each(bytes.len() as u64, |address, done, length| {
            let part = &bytes[done as usize..(done + length) as usize];
            match own {
                Some(own) => exists(user::write_place(own.advanced(address), part)),
                None => space.write(address, part),
            }
        })
    }

    /// Fills `bytes` from the buffers as far as they reach; returns how much that was.
    pub(crate) fn take(&mut self, space: &mut AddressSpace, bytes: &mut [u8]) -> Result<u64, Errno> {
        let own = self.place;
        self.each(bytes.len() as u64, |address, done, length| {
            let part = &mut bytes[done as usize..(done + length) as usize];
            match own {
                Some(own) => exists(user::read_place(own.advanced(address), part)),
                None => space.read(address, part),
            }
        })
    }

    /// Copies as much of the `count` bytes at a place into the buffers as fits; returns how much that was.
    pub(crate) fn put_from(
        &mut self,
        space: &mut AddressSpace,
        place: Place,
        count: u64,
    ) -> Result<u64, Errno> {
        let own = self.place;
        self.each(count, |address, done, length| match own {
            Some(own) => copy_places(place.advanced(done), own.advanced(address), length),
            None => space.copy_to_program(place.advanced(done), address, length),
        })
    }

    /// Copies from the buffers to the `count` bytes at a place as far as they reach; returns how much that was.
    pub(crate) fn take_to(
        &mut self,
        space: &mut AddressSpace,
        place: Place,
        count: u64,
    ) -> Result<u64, Errno> {
        let own = self.place;
        self.each(count, |address, done, length| match own {
            Some(own) => copy_places(own.advanced(address), place.advanced(done), length),
            None => space.copy_from_program(address, place.advanced(done), length),
        })
    }

    /// Fills the buffers with zeroes; returns how many.
    pub(crate) fn put_zeroes(&mut self, space: &mut AddressSpace) -> Result<u64, Errno> {
        let zeroes = [0; 4096];
        let mut total = 0;
        while self.remaining > 0 {
            let part = self.remaining.min(zeroes.len() as u64) as usize;
            total += self.put(space, &zeroes[..part])?;
        }
        Ok(total)
    }

    /// Calls `copy(address, done, length)` for each piece of the next `count` bytes. A fault after the first byte
    /// ends the call with what was done, as on Linux.
    fn each(
        &mut self,
        count: u64,
        mut copy: impl FnMut(u64, u64, u64) -> Result<(), Errno>,
    ) -> Result<u64, Errno> {
        let wanted = count.min(self.remaining);
        let mut done = 0;
        while done < wanted {
            let (address, length) = self.segments[self.segment];
            let step = (wanted - done).min(length - self.offset);
            if step == 0 {
                self.segment += 1;
                self.offset = 0;
                continue;
            }
            match copy(address.wrapping_add(self.offset), done, step) {
                Ok(()) => {}
                Err(error) if done == 0 => return Err(error),
                Err(_) => break,
            }
            done += step;
            self.skip(step);
        }
        Ok(done)
    }
}

/// What it means that a place does not exist.
fn exists(done: bool) -> Result<(), Errno> {
    if done { Ok(()) } else { Err(Errno::EIO) }
}

/// Copies between two places.
fn copy_places(from: Place, to: Place, length: u64) -> Result<(), Errno> {
    let mut part = [0; 1024];
    let mut done = 0;
    while done < length {
        let step = (length - done).min(part.len() as u64);
        let part = &mut part[..step as usize];
        exists(user::read_place(from.advanced(done), part) && user::write_place(to.advanced(done), part))?;
        done += step;
    }
    Ok(())
}
