//! Tables that the host may replace in a snapshot, each by one large page with the same contents.
//!
//! ```text
//!   table ──offer──> table, offered ──host, in a snapshot──> large page, offered ──put_back──> table
//! ```
//!
//! The table stays in its pool, as it was. Whatever looks at an offered page looks there, and whatever changes one puts the
//! table back first; so nothing else here knows of such pages.

use spore_abi::layout::{LARGE_PAGE_BYTES, TEXT_GPA};
use spore_abi::pages::TextOffer;

use super::pools::{load, store};
use super::{
    ADDRESS, ENTRIES, LARGE, LARGE_SHIFT, Lookup, PRESENT, PageTables, PagingError, TABLE, WRITABLE,
};

impl PageTables {
    /// Lets the host replace the table of the large page at `address`, if all pages there are mapped, and none can be
    /// written to.
    ///
    /// # Errors
    ///
    /// If the address is not one that programs may have, or a program has damaged a table.
    pub fn offer(&mut self, address: u64) -> Result<Option<TextOffer>, PagingError> {
        self.check_address(address, ENTRIES)?;
        let Lookup::Table(table_gpa) = self.lookup(address)? else {
            return Ok(None);
        };
        for index in 0..ENTRIES {
            if load(self.slot(table_gpa, index)?) & (PRESENT | WRITABLE) != PRESENT {
                return Ok(None);
            }
        }
        let Some(directory_gpa) = self.directory(address)? else {
            return Ok(None);
        };
        self.offered.insert(address & !(LARGE_PAGE_BYTES - 1), table_gpa);
        Ok(Some(TextOffer {
            entry_gpa: directory_gpa + (address >> LARGE_SHIFT & (ENTRIES - 1)) * 8,
            table_gpa,
        }))
    }

    /// The table that holds the entry for the large page at `address`, if there is one.
    fn directory(&self, address: u64) -> Result<Option<u64>, PagingError> {
        let mut table_gpa = self.top_gpa;
        for shift in [39, 30] {
            let value = load(self.slot(table_gpa, address >> shift)?);
            if value & PRESENT == 0 || value & LARGE != 0 {
                return Ok(None);
            }
            table_gpa = value & ADDRESS;
        }
        Ok(Some(table_gpa))
    }

    /// The table in place of which the host has put the large page of an entry with this value, if it has.
    pub(super) fn offered_table(&self, value: u64, address: u64) -> Result<Option<u64>, PagingError> {
        if value & LARGE == 0 || value & ADDRESS < TEXT_GPA {
            return Ok(None);
        }
        let known = self.offered.get(&(address & !(LARGE_PAGE_BYTES - 1)));
        known.copied().map(Some).ok_or(PagingError::Forbidden)
    }

    /// Puts a table back in place of the large page of `address`.
    pub(super) fn put_back(&mut self, entry: *mut u64, table_gpa: u64, address: u64) {
        let start = address & !(LARGE_PAGE_BYTES - 1);
        store(entry, table_gpa | TABLE);
        self.offered.remove(&start);
        self.flush_needed = true;
        self.stale.add(start, start.saturating_add(LARGE_PAGE_BYTES));
    }

    /// Puts all tables back. Nothing is cached of what they map.
    pub(super) fn put_all_back(&mut self) {
        while let Some((&address, _)) = self.offered.first_key_value() {
            match self.lookup(address) {
                Ok(Lookup::Offered(entry, table)) => self.put_back(entry, table, address),
                _ => {
                    self.offered.remove(&address);
                }
            }
        }
    }
}
