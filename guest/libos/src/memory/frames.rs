//! Frames: the function's RAM, in pages.

use alloc::rc::Rc;
use core::cell::RefCell;

use spore_abi::layout::PAGE_BYTES;
use spore_abi::pages::BootPage;
use spore_machine::{reserved, user};

use super::ranges::RangeSet;

/// Which frames are free. Frames that were used before come first: touching them again costs the host nothing, while
/// a fresh one costs a fault; they are zeroed when they are handed out.
pub(crate) struct Frames {
    fresh: RangeSet,
    used_before: RangeSet,
    ram_bytes: u64,
    free_bytes: u64,
}

/// The frames of the instance, shared by its address spaces and its files in memory.
pub(crate) type SharedFrames = Rc<RefCell<Frames>>;

/// All RAM that programs can have, in a machine that looks as the boot page says.
pub(crate) fn share(boot: &BootPage) -> SharedFrames {
    Rc::new(RefCell::new(Frames::new(reserved::end_gpa(), boot.ram_bytes)))
}

impl Frames {
    /// All of `start_gpa..ram_bytes` free and fresh.
    pub(crate) fn new(start_gpa: u64, ram_bytes: u64) -> Self {
        let mut fresh = RangeSet::new();
        fresh.insert(start_gpa, ram_bytes);
        Self {
            fresh,
            used_before: RangeSet::new(),
            ram_bytes,
            free_bytes: ram_bytes.saturating_sub(start_gpa),
        }
    }

    /// Bytes that are free.
    pub(crate) fn free_bytes(&self) -> u64 {
        self.free_bytes
    }

    /// Takes `bytes` (a multiple of the page size) of consecutive zeroed frames.
    pub(crate) fn take(&mut self, bytes: u64) -> Option<u64> {
        self.take_at(bytes, PAGE_BYTES)
    }

    /// The same, at a multiple of `bytes`, which is a power of two.
    pub(crate) fn take_aligned(&mut self, bytes: u64) -> Option<u64> {
        self.take_at(bytes, bytes)
    }

    fn take_at(&mut self, bytes: u64, alignment: u64) -> Option<u64> {
        let gpa = match self.used_before.take(bytes, alignment) {
            Some(gpa) => {
                user::zero_window(gpa, bytes, self.ram_bytes);
                gpa
            }
            None => self.fresh.take(bytes, alignment)?,
        };
        self.free_bytes -= bytes;
        Some(gpa)
    }

    /// Takes up to `bytes` of consecutive zeroed frames, at least one page: their address and length.
    pub(crate) fn take_some(&mut self, bytes: u64) -> Option<(u64, u64)> {
        let (gpa, length) = match self.used_before.take_some(bytes) {
            Some((gpa, length)) => {
                user::zero_window(gpa, length, self.ram_bytes);
                (gpa, length)
            }
            None => self.fresh.take_some(bytes)?,
        };
        self.free_bytes -= length;
        Some((gpa, length))
    }

    /// Gives frames back.
    pub(crate) fn give_back(&mut self, gpa: u64, bytes: u64) {
        self.used_before.insert(gpa, gpa + bytes);
        self.free_bytes += bytes;
    }
}
