//! How page tables go back to their pools when nothing is mapped through them any more.

use core::sync::atomic::Ordering;

use spore_abi::layout::LARGE_PAGE_BYTES;

use super::pools::load;
use super::{
    ACTIVE_TOP_GPA, ADDRESS, ENTRIES, LARGE, LARGE_SHIFT, Lookup, PRESENT, PageTables, PagingError, is_shared,
};

impl PageTables {
    /// Gives tables back through which only addresses are reached where nothing is mapped. `start..end` was unmapped,
    /// and lies in `free_start..free_end`, all of which is free.
    ///
    /// # Errors
    ///
    /// If a program has damaged a table.
    pub fn drop_tables(
        &mut self,
        (start, end): (u64, u64),
        (free_start, free_end): (u64, u64),
    ) -> Result<(), PagingError> {
        for (levels, shift) in [(0, LARGE_SHIFT), (1, 30), (2, 39)] {
            let bytes = 1 << shift;
            let mut at = start & !(bytes - 1);
            while at < end {
                if at >= free_start && free_end.saturating_sub(at) >= bytes && !is_shared(at >> 39) {
                    self.drop_table(at, shift, levels)?;
                }
                at = self.next_block(at, shift)?;
            }
        }
        Ok(())
    }

    /// The next block of `1 << shift` bytes behind `at` that can have a table.
    fn next_block(&self, at: u64, shift: u32) -> Result<u64, PagingError> {
        let next = ((at >> shift) + 1) << shift;
        match self.lookup(at)? {
            Lookup::AbsentUntil(end) => Ok(end.max(next)),
            Lookup::Large(_) | Lookup::Offered(..) | Lookup::Table(_) => Ok(next),
        }
    }

    /// Retires the table that the entry for the block of `1 << shift` bytes at `at` leads to, with those below it.
    fn drop_table(&mut self, at: u64, shift: u32, levels: u32) -> Result<(), PagingError> {
        let mut table_gpa = self.top_gpa;
        for upper in [39, 30, LARGE_SHIFT] {
            let entry = self.slot(table_gpa, at >> upper)?;
            let value = load(entry);
            if value & PRESENT == 0 || value & LARGE != 0 {
                return Ok(());
            }
            table_gpa = value & ADDRESS;
            if upper == shift {
                self.replace(entry, 0, (at, 1 << shift));
                return self.retire(table_gpa, levels);
            }
        }
        Ok(())
    }

    fn retire(&mut self, table_gpa: u64, levels: u32) -> Result<(), PagingError> {
        if levels > 0 {
            for index in 0..ENTRIES {
                let value = load(self.slot(table_gpa, index)?);
                if value & PRESENT != 0 && value & LARGE == 0 {
                    self.retire(value & ADDRESS, levels - 1)?;
                }
            }
        }
        self.retired.push(table_gpa);
        Ok(())
    }

    /// Retires the lowest-level tables that lie in the range as a whole: nothing is mapped there any more.
    pub(super) fn drop_empty_tables(&mut self, start: u64, end: u64) -> Result<(), PagingError> {
        let Some(mut at) = start.checked_next_multiple_of(LARGE_PAGE_BYTES) else {
            return Ok(());
        };
        while at < end && end - at >= LARGE_PAGE_BYTES {
            if is_shared(at >> 39) {
                return Ok(());
            }
            match self.lookup(at)? {
                Lookup::AbsentUntil(next) => at = next,
                Lookup::Large(_) | Lookup::Offered(..) => at += LARGE_PAGE_BYTES,
                Lookup::Table(table) => {
                    let entry = self.make_large_entry(at)?;
                    self.replace(entry, 0, (at, LARGE_PAGE_BYTES));
                    self.retired.push(table);
                    at += LARGE_PAGE_BYTES;
                }
            }
        }
        Ok(())
    }

    /// Gives the tables below `table_gpa` and itself back. `levels` of tables are below it.
    fn give_back_below(&self, table_gpa: u64, levels: u32) {
        for index in 0..ENTRIES {
            let Ok(entry) = self.slot(table_gpa, index) else {
                return;
            };
            let value = load(entry);
            let is_private = levels < 3 || !is_shared(index);
            if levels > 0 && is_private && value & PRESENT != 0 && value & LARGE == 0 {
                self.give_back_below(value & ADDRESS, levels - 1);
            }
        }
        self.pools.borrow_mut().give_back(table_gpa);
    }
}

impl Drop for PageTables {
    /// Gives the tables back, unless the processor uses them. What they map is the caller's business.
    fn drop(&mut self) {
        if ACTIVE_TOP_GPA.load(Ordering::Relaxed) == self.top_gpa {
            return;
        }
        if self.top_gpa == 0 {
            return;
        }
        // The switch to other tables has made the host forget what was cached.
        self.flushed();
        self.put_all_back();
        self.give_back_below(self.top_gpa, 3);
    }
}
