//! Bytes of a file in memory.

use alloc::rc::Rc;
use core::cell::Cell;

use spore_abi::layout::PAGE_BYTES;
use spore_machine::user::Place;

use crate::errno::Errno;
use crate::kernel::Kernel;
use crate::memory::frames::SharedFrames;
use crate::memory::pages::Pages;
use crate::memory::{AddressSpace, Buffers};

/// Longest file, as on Linux.
pub(crate) const FILE_BYTES_MAX: u64 = i64::MAX as u64;

const ZEROES: [u8; PAGE_BYTES as usize] = [0; PAGE_BYTES as usize];

/// Sparse pages and a length. Bytes of the last page beyond the length are zero, unless a mapping has written there.
pub(crate) struct Contents {
    pages: Rc<Pages>,
    size: Cell<u64>,
}

impl Contents {
    /// No bytes yet.
    pub(crate) fn new(frames: &SharedFrames) -> Self {
        let pages = Pages::new(frames);
        pages.set_length(0);
        Self {
            pages,
            size: Cell::new(0),
        }
    }

    /// The pages, for mappings.
    pub(crate) fn pages(&self) -> &Rc<Pages> {
        &self.pages
    }

    /// The length, in bytes.
    pub(crate) fn size(&self) -> u64 {
        self.size.get()
    }

    /// Sets the length where no byte beyond it was written.
    pub(crate) fn set_size(&self, bytes: u64) {
        self.size.set(bytes);
        self.pages.set_length(bytes);
    }

    /// The file reaches at least so far.
    fn grow_to(&self, end: u64) {
        if end > self.size.get() {
            self.set_size(end);
        }
    }

    /// Memory that it takes, in units of 512 bytes.
    pub(crate) fn blocks(&self) -> u64 {
        self.pages.taken_bytes() / 512
    }

    /// Copies from `position` on into the program's buffers; returns how much.
    pub(crate) fn read_at(
        &self,
        space: &mut AddressSpace,
        position: u64,
        buffers: &mut Buffers,
    ) -> Result<u64, Errno> {
        let wanted = self.size.get().saturating_sub(position).min(buffers.remaining());
        let mut total = 0;
        while total < wanted {
            let at = position + total;
            let within = at % PAGE_BYTES;
            let length = (PAGE_BYTES - within).min(wanted - total);
            let copied = match self.pages.frame(at / PAGE_BYTES) {
                Some(gpa) => buffers.put_from(space, Place::Frame(gpa + within), length),
                None => buffers.put(space, &ZEROES[..length as usize]),
            };
            total += finish_part(total, copied)?;
            if copied != Ok(length) {
                break;
            }
        }
        Ok(total)
    }

    /// Copies from the program's buffers to `position` and on; returns how much.
    pub(crate) fn write_at(
        &self,
        space: &mut AddressSpace,
        position: u64,
        buffers: &mut Buffers,
    ) -> Result<u64, Errno> {
        let wanted = buffers.remaining().min(room(position)?);
        let mut total = 0;
        while total < wanted {
            let at = position + total;
            let within = at % PAGE_BYTES;
            let length = (PAGE_BYTES - within).min(wanted - total);
            let copied = match self.pages.frame_or_new(at / PAGE_BYTES) {
                Some(gpa) => buffers.take_to(space, Place::Frame(gpa + within), length),
                None => Err(Errno::ENOSPC),
            };
            total += finish_part(total, copied)?;
            self.grow_to(position + total);
            if copied != Ok(length) {
                break;
            }
        }
        Ok(total)
    }

    /// Copies into memory of the library OS; returns how much there was.
    pub(crate) fn peek(&self, offset: u64, buffer: &mut [u8]) -> usize {
        let length = self.size.get().saturating_sub(offset).min(buffer.len() as u64) as usize;
        self.pages.read(offset, &mut buffer[..length]);
        length
    }

    /// Writes bytes of the library OS.
    pub(crate) fn poke(&self, offset: u64, bytes: &[u8]) -> Result<(), Errno> {
        if bytes.len() as u64 > room(offset)? {
            return Err(Errno::EFBIG);
        }
        self.pages.write(offset, bytes)?;
        self.grow_to(offset + bytes.len() as u64);
        Ok(())
    }

    /// Gives it this length; what is cut off is gone, what is added is zero.
    pub(crate) fn truncate(&self, kernel: &mut Kernel, bytes: u64) -> Result<(), Errno> {
        if bytes > FILE_BYTES_MAX {
            return Err(Errno::EINVAL);
        }
        let previous = self.size.get();
        self.set_size(bytes);
        if bytes < previous {
            self.clear(kernel, bytes, previous.next_multiple_of(PAGE_BYTES));
        }
        Ok(())
    }

    /// Makes a range zero.
    pub(crate) fn clear(&self, kernel: &mut Kernel, start: u64, end: u64) {
        kernel.forget_pages(&self.pages, start, end);
        self.pages.clear(start, end);
    }

    /// Gives the range memory.
    pub(crate) fn allocate(&self, offset: u64, bytes: u64, keeps_size: bool) -> Result<(), Errno> {
        let end = offset
            .checked_add(bytes)
            .filter(|&end| end <= FILE_BYTES_MAX)
            .ok_or(Errno::EFBIG)?;
        let pages = offset / PAGE_BYTES..end.div_ceil(PAGE_BYTES);
        let missing = (pages.end - pages.start) * PAGE_BYTES;
        if missing.saturating_sub(self.pages.taken_bytes()) > self.pages.free_bytes() {
            return Err(Errno::ENOSPC);
        }
        for index in pages {
            self.pages.frame_or_new(index).ok_or(Errno::ENOSPC)?;
        }
        if !keeps_size {
            self.grow_to(end);
        }
        Ok(())
    }

    /// The first byte from `offset` on that is data, or (`hole`) that is not.
    pub(crate) fn seek_data(&self, offset: u64, hole: bool) -> Result<u64, Errno> {
        let size = self.size.get();
        if offset >= size {
            return Err(Errno::ENXIO);
        }
        if !hole {
            let next = self.pages.next_taken(offset / PAGE_BYTES).ok_or(Errno::ENXIO)?;
            let start = (next * PAGE_BYTES).max(offset);
            return if start < size {
                Ok(start)
            } else {
                Err(Errno::ENXIO)
            };
        }
        let mut index = offset / PAGE_BYTES;
        while index * PAGE_BYTES < size && self.pages.frame(index).is_some() {
            index += 1;
        }
        Ok((index * PAGE_BYTES).clamp(offset, size))
    }
}

/// How much can be written from a position on.
fn room(position: u64) -> Result<u64, Errno> {
    FILE_BYTES_MAX
        .checked_sub(position)
        .filter(|&room| room > 0)
        .ok_or(Errno::EFBIG)
}

/// What a part adds to the total: an error counts only if nothing came before it.
fn finish_part(total: u64, copied: Result<u64, Errno>) -> Result<u64, Errno> {
    match copied {
        Err(error) if total == 0 => Err(error),
        other => Ok(other.unwrap_or(0)),
    }
}
