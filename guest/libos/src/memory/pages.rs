//! Pages by number: what is behind files in memory, `memfd` and shared anonymous mappings.

use alloc::collections::BTreeMap;
use alloc::rc::Rc;
use core::cell::{Cell, RefCell};

use spore_abi::layout::PAGE_BYTES;
use spore_machine::user::{self, Place};

use super::frames::SharedFrames;
use crate::errno::Errno;

/// A sparse array of pages. A page that was never written takes no memory and reads as zeroes. Mappings and files share
/// it; the frames go back when the last of them is gone.
pub(crate) struct Pages {
    frames: SharedFrames,
    /// Guest-physical address of the frame, by number of the page.
    pages: RefCell<BTreeMap<u64, u64>>,
    /// Length of the file, in bytes: mappings reach to the end of its last page.
    length: Cell<u64>,
}

impl Pages {
    /// No pages yet; they will be taken from `frames`.
    pub(crate) fn new(frames: &SharedFrames) -> Rc<Self> {
        Rc::new(Self {
            frames: SharedFrames::clone(frames),
            pages: RefCell::default(),
            length: Cell::new(u64::MAX),
        })
    }

    /// Sets how long the file is, in bytes; without that, it has no end. Mappings have no pages beyond it, so that an
    /// access there raises SIGBUS. What is mapped already is taken away by [`super::AddressSpace::forget_pages`].
    pub(crate) fn set_length(&self, bytes: u64) {
        self.length.set(bytes);
    }

    /// Whether a mapping can have the page: it is not beyond the end of the file.
    pub(crate) fn reaches(&self, index: u64) -> bool {
        index
            .checked_mul(PAGE_BYTES)
            .is_some_and(|start| start < self.length.get())
    }

    /// The frame of a page, if it has one.
    pub(crate) fn frame(&self, index: u64) -> Option<u64> {
        self.pages.borrow().get(&index).copied()
    }

    /// The frame of a page, made (zeroed) if it has none; none if memory is used up.
    pub(crate) fn frame_or_new(&self, index: u64) -> Option<u64> {
        if let Some(gpa) = self.frame(index) {
            return Some(gpa);
        }
        let gpa = self.frames.borrow_mut().take(PAGE_BYTES)?;
        self.pages.borrow_mut().insert(index, gpa);
        Some(gpa)
    }

    /// Bytes of memory that the pages take.
    pub(crate) fn taken_bytes(&self) -> u64 {
        self.pages.borrow().len() as u64 * PAGE_BYTES
    }

    /// Bytes of memory that are left for more pages.
    pub(crate) fn free_bytes(&self) -> u64 {
        self.frames.borrow().free_bytes()
    }

    /// Number of the first page from `index` on that has a frame.
    pub(crate) fn next_taken(&self, index: u64) -> Option<u64> {
        self.pages.borrow().range(index..).next().map(|(&index, _)| index)
    }

    /// Fills `buffer` with the bytes from `offset` on.
    pub(crate) fn read(&self, offset: u64, buffer: &mut [u8]) {
        self.each_part(offset, buffer.len() as u64, |index, within, done, length| {
            let part = &mut buffer[done as usize..(done + length) as usize];
            let is_read = self
                .frame(index)
                .is_some_and(|gpa| user::read_place(Place::Frame(gpa + within), part));
            if !is_read {
                part.fill(0);
            }
            Ok(())
        })
        // Nothing above fails.
        .unwrap_or_default();
    }

    /// Writes `bytes` from `offset` on; what was written before memory ran out stays.
    pub(crate) fn write(&self, offset: u64, bytes: &[u8]) -> Result<(), Errno> {
        self.each_part(offset, bytes.len() as u64, |index, within, done, length| {
            let gpa = self.frame_or_new(index).ok_or(Errno::ENOSPC)?;
            let part = &bytes[done as usize..(done + length) as usize];
            let is_written = user::write_place(Place::Frame(gpa + within), part);
            if is_written { Ok(()) } else { Err(Errno::EIO) }
        })
    }

    /// Makes the bytes `start..end` zero; whole pages give their frames back. The caller has taken those pages out of
    /// all address spaces.
    pub(crate) fn clear(&self, start: u64, end: u64) {
        let first_whole = start.div_ceil(PAGE_BYTES);
        let end_whole = end / PAGE_BYTES;
        let zeroes = [0; PAGE_BYTES as usize];
        let clear_part = |from: u64, to: u64| {
            if from < to
                && let Some(gpa) = self.frame(from / PAGE_BYTES)
            {
                // The frame is ours, so the place exists.
                let _ = user::write_place(
                    Place::Frame(gpa + from % PAGE_BYTES),
                    &zeroes[..(to - from) as usize],
                );
            }
        };
        if first_whole > end_whole {
            clear_part(start, end);
            return;
        }
        clear_part(start, first_whole.saturating_mul(PAGE_BYTES));
        clear_part(end_whole * PAGE_BYTES, end);
        let mut pages = self.pages.borrow_mut();
        let gone: alloc::vec::Vec<u64> = pages
            .range(first_whole..end_whole)
            .map(|(&index, _)| index)
            .collect();
        let mut frames = self.frames.borrow_mut();
        for gpa in gone.iter().filter_map(|index| pages.remove(index)) {
            frames.give_back(gpa, PAGE_BYTES);
        }
    }

    /// Calls `work(index, within, done, length)` for the part of each page that the range covers.
    fn each_part(
        &self,
        offset: u64,
        length: u64,
        mut work: impl FnMut(u64, u64, u64, u64) -> Result<(), Errno>,
    ) -> Result<(), Errno> {
        let mut done = 0;
        while done < length {
            let at = offset.checked_add(done).ok_or(Errno::EFBIG)?;
            let within = at % PAGE_BYTES;
            let part = (PAGE_BYTES - within).min(length - done);
            work(at / PAGE_BYTES, within, done, part)?;
            done += part;
        }
        Ok(())
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        let mut frames = self.frames.borrow_mut();
        for &gpa in self.pages.borrow().values() {
            frames.give_back(gpa, PAGE_BYTES);
        }
    }
}
