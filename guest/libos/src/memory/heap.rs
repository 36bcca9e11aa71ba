//! The heap behind `brk`.

use spore_abi::layout::USER_END;

use super::areas::{Area, Backing, Protection};
use super::space::{AddressSpace, page_ceil, refused, touches_machine};
use crate::errno::Errno;

/// A heap grown by at most this much is filled at once rather than by faults.
const EAGER_HEAP_BYTES: u64 = 256 * 1024;

impl AddressSpace {
    /// Sets where the heap behind `brk` begins.
    pub(crate) fn set_heap_start(&mut self, address: u64) {
        self.heap_start = address;
        self.heap_end = address;
    }

    /// `brk`: moves the end of the heap if it can, and returns where it is then.
    pub(crate) fn set_heap_end(&mut self, wanted: u64) -> u64 {
        let (Some(old), Some(new)) = (page_ceil(self.heap_end), page_ceil(wanted)) else {
            return self.heap_end;
        };
        if wanted < self.heap_start || new > USER_END {
            return self.heap_end;
        }
        let moved = match new.cmp(&old) {
            core::cmp::Ordering::Greater => self.grow_heap(old, new),
            core::cmp::Ordering::Less => self.unmap(new, old - new),
            core::cmp::Ordering::Equal => Ok(()),
        };
        if moved.is_ok() {
            self.heap_end = wanted;
        }
        self.heap_end
    }

    fn grow_heap(&mut self, old: u64, new: u64) -> Result<(), Errno> {
        let grown = new - old;
        let is_refused = self.areas.overlaps(old, new)
            || touches_machine(old, new)
            || grown > self.frames.borrow().free_bytes();
        if is_refused {
            return Err(refused());
        }
        self.check_area_count()?;
        self.free_addresses.remove(old, new);
        self.areas
            .insert(old, Area::new(new, Protection::READ_WRITE, Backing::Anonymous));
        if grown <= EAGER_HEAP_BYTES
            && let Err(error) = self.populate(old, new, true)
        {
            self.unmap(old, grown)?;
            return Err(error);
        }
        Ok(())
    }
}
