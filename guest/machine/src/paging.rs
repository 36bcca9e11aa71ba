//! Edits the page tables.
//!
//! Four levels, the tables in a pool of their own ([`layout::PAGE_TABLES_GPA`]): a shadow-paging host write-protects
//! every page that holds a table, and would split the large pages of anything that lived beside it.
//!
//! Making an entry present needs no flush. Changing or removing one does; callers collect that in one
//! [`crate::shared::flush_translations`] before the program runs again ([`PageTables::take_flush_needed`]).

use alloc::vec::Vec;
use core::ptr::{read_volatile, write_volatile};

use spore_abi::layout::{self, LARGE_PAGE_BYTES, PAGE_BYTES, WINDOW_BASE};

use crate::reserved;

const PRESENT: u64 = 1;
const WRITABLE: u64 = 1 << 1;
const USER: u64 = 1 << 2;
const ACCESSED: u64 = 1 << 5;
const DIRTY: u64 = 1 << 6;
const LARGE: u64 = 1 << 7;
const NO_EXECUTE: u64 = 1 << 63;
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;
const TABLE: u64 = PRESENT | WRITABLE | USER | ACCESSED;

/// What a program may do with a page. A page is always readable once it is mapped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Access {
    /// It may be written.
    pub write: bool,
    /// It may be executed.
    pub execute: bool,
}

impl Access {
    fn bits(self) -> u64 {
        let write = if self.write { WRITABLE } else { 0 };
        let execute = if self.execute { 0 } else { NO_EXECUTE };
        // Accessed and dirty are set beforehand so that the processor never needs to write a table.
        PRESENT | USER | ACCESSED | DIRTY | write | execute
    }
}

/// Why the tables could not be changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PagingError {
    /// The pools of tables are used up: [`PageTables::add_pool`], then try again. Every operation may be repeated.
    NoTables,
    /// The address or the frame is not one that programs may have, or a program has damaged a table.
    Forbidden,
}

/// A stretch of RAM that holds tables.
#[derive(Debug, Clone, Copy)]
struct Pool {
    start_gpa: u64,
    end_gpa: u64,
}

/// What the tables say of an address.
enum Lookup {
    /// The lowest-level entry.
    Entry(*mut u64),
    /// There is no table for the addresses up to here.
    AbsentUntil(u64),
}

/// The page tables of the instance.
pub struct PageTables {
    top_gpa: u64,
    pools: Vec<Pool>,
    /// First unused byte of the last pool.
    unused_gpa: u64,
    flush_needed: bool,
    ram_bytes: u64,
}

impl PageTables {
    /// Takes over the tables that the monitor made, as the boot page describes them.
    #[must_use]
    pub fn new(top_gpa: u64, unused_gpa: u64, ram_bytes: u64) -> Self {
        let end_gpa = layout::PAGE_TABLES_GPA + layout::PAGE_TABLES_BYTES;
        let pool = Pool {
            start_gpa: layout::PAGE_TABLES_GPA,
            end_gpa,
        };
        Self {
            top_gpa,
            pools: alloc::vec![pool],
            unused_gpa,
            flush_needed: false,
            ram_bytes,
        }
    }

    /// Gives zeroed RAM, in whole pages, to the tables for good. Programs must not have it: it is taken from the
    /// frames that are free.
    ///
    /// # Errors
    ///
    /// If the range is not RAM that programs could have had.
    pub fn add_pool(&mut self, gpa: u64, bytes: u64) -> Result<(), PagingError> {
        let end_gpa = gpa.checked_add(bytes).ok_or(PagingError::Forbidden)?;
        let is_ram = gpa >= reserved::end_gpa() && end_gpa <= self.ram_bytes;
        if !is_ram || !gpa.is_multiple_of(PAGE_BYTES) || !bytes.is_multiple_of(PAGE_BYTES) {
            return Err(PagingError::Forbidden);
        }
        self.pools.push(Pool {
            start_gpa: gpa,
            end_gpa,
        });
        self.unused_gpa = gpa;
        Ok(())
    }

    /// Maps `count` pages from `address` on to the frames from `gpa` on. Entries that were present are replaced.
    ///
    /// # Errors
    ///
    /// If the range is not a program's or the pools of tables are used up; part of the range may be mapped then.
    pub fn map(&mut self, address: u64, gpa: u64, count: u64, access: Access) -> Result<(), PagingError> {
        self.check_address(address, count)?;
        let end = gpa
            .checked_add(count * PAGE_BYTES)
            .ok_or(PagingError::Forbidden)?;
        let is_ram = gpa >= reserved::end_gpa() && end <= self.ram_bytes;
        let is_module = gpa >= layout::MODULES_GPA && end <= layout::MODULES_GPA + layout::MODULES_BYTES_MAX;
        let is_allowed = is_ram || (is_module && !access.write);
        if !is_allowed {
            return Err(PagingError::Forbidden);
        }
        for index in 0..count {
            let entry = self.make_entry(address + index * PAGE_BYTES)?;
            self.replace(entry, (gpa + index * PAGE_BYTES) | access.bits());
        }
        Ok(())
    }

    /// Changes what the program may do with those of `count` pages from `address` on that are mapped; `None` takes
    /// them away (the frame is then reachable through the window only, or not at all). Pages of modules never become
    /// writable.
    ///
    /// # Errors
    ///
    /// As for [`PageTables::map`].
    pub fn protect(&mut self, address: u64, count: u64, access: Option<Access>) -> Result<(), PagingError> {
        self.for_each_assigned(address, count, |tables, entry, old| {
            let gpa = old & ADDRESS;
            let new = access.map_or(gpa, |access| {
                let write = access.write && gpa < layout::MODULES_GPA;
                gpa | Access { write, ..access }.bits()
            });
            tables.replace(entry, new);
        })
    }

    /// Removes the mappings of `count` pages from `address` on and gives the frames that they had to `release`.
    ///
    /// # Errors
    ///
    /// As for [`PageTables::map`].
    pub fn unmap(
        &mut self,
        address: u64,
        count: u64,
        mut release: impl FnMut(u64),
    ) -> Result<(), PagingError> {
        self.for_each_assigned(address, count, |tables, entry, old| {
            tables.replace(entry, 0);
            release(old & ADDRESS);
        })
    }

    /// The frame behind `address`, if one is assigned there (accessible or not).
    #[must_use]
    pub fn frame(&mut self, address: u64) -> Option<u64> {
        match self.lookup(address).ok()? {
            Lookup::Entry(entry) if load(entry) & ADDRESS != 0 => Some(load(entry) & ADDRESS),
            Lookup::Entry(_) | Lookup::AbsentUntil(_) => None,
        }
    }

    /// Whether a flush is due before the program runs again; answers once.
    #[must_use]
    pub fn take_flush_needed(&mut self) -> bool {
        core::mem::take(&mut self.flush_needed)
    }

    /// Calls `change` for each entry of the range that has a frame. Stretches without tables are skipped at once.
    fn for_each_assigned(
        &mut self,
        address: u64,
        count: u64,
        mut change: impl FnMut(&mut Self, *mut u64, u64),
    ) -> Result<(), PagingError> {
        self.check_address(address, count)?;
        let end = address + count * PAGE_BYTES;
        let mut at = address;
        while at < end {
            match self.lookup(at)? {
                Lookup::AbsentUntil(next) => at = next,
                Lookup::Entry(entry) => {
                    let old = load(entry);
                    if old & ADDRESS != 0 {
                        change(self, entry, old);
                    }
                    at += PAGE_BYTES;
                }
            }
        }
        Ok(())
    }

    fn check_address(&self, address: u64, count: u64) -> Result<(), PagingError> {
        let length = count.checked_mul(PAGE_BYTES).ok_or(PagingError::Forbidden)?;
        let end = address.checked_add(length).ok_or(PagingError::Forbidden)?;
        let touches = |start: u64, stop: u64| address < stop && end > start;
        let forbidden = !address.is_multiple_of(PAGE_BYTES)
            || address < layout::USER_BASE
            || end > layout::USER_END
            || reserved::overlaps(address, length)
            || touches(
                layout::MODULES_BASE,
                layout::MODULES_BASE + layout::MODULES_BYTES_MAX,
            )
            || touches(layout::MONITOR_BASE, layout::WINDOW_BASE);
        if forbidden {
            Err(PagingError::Forbidden)
        } else {
            Ok(())
        }
    }

    fn replace(&mut self, entry: *mut u64, value: u64) {
        let old = load(entry);
        if old == value {
            return;
        }
        self.flush_needed |= old & PRESENT != 0;
        store(entry, value);
    }

    /// The lowest-level entry for `address`, if there is a table for it. Large pages on the way are split.
    fn lookup(&mut self, address: u64) -> Result<Lookup, PagingError> {
        let mut table_gpa = self.top_gpa;
        for shift in [39, 30, 21] {
            let entry = self.slot(table_gpa, address >> shift)?;
            let value = load(entry);
            table_gpa = match value {
                value if value & PRESENT == 0 => {
                    return Ok(Lookup::AbsentUntil(((address >> shift) + 1) << shift));
                }
                value if value & LARGE != 0 => self.split(entry, value, shift)?,
                value => value & ADDRESS,
            };
        }
        self.slot(table_gpa, address >> 12).map(Lookup::Entry)
    }

    /// The lowest-level entry for `address`; missing tables are made.
    fn make_entry(&mut self, address: u64) -> Result<*mut u64, PagingError> {
        let mut table_gpa = self.top_gpa;
        for shift in [39, 30, 21] {
            let entry = self.slot(table_gpa, address >> shift)?;
            let value = load(entry);
            table_gpa = match value {
                value if value & PRESENT == 0 => {
                    let fresh = self.take_table()?;
                    store(entry, fresh | TABLE);
                    fresh
                }
                value if value & LARGE != 0 => self.split(entry, value, shift)?,
                value => value & ADDRESS,
            };
        }
        self.slot(table_gpa, address >> 12)
    }

    /// Replaces a large page by a table of small ones with the same meaning.
    fn split(&mut self, entry: *mut u64, value: u64, shift: u32) -> Result<u64, PagingError> {
        if shift != LARGE_PAGE_BYTES.trailing_zeros() {
            return Err(PagingError::Forbidden);
        }
        let table = self.take_table()?;
        let base = value & ADDRESS & !(LARGE_PAGE_BYTES - 1);
        let bits = value & !(ADDRESS | LARGE);
        for index in 0..512 {
            store(self.slot(table, index)?, (base + index * PAGE_BYTES) | bits);
        }
        store(entry, table | TABLE);
        self.flush_needed = true;
        Ok(table)
    }

    fn take_table(&mut self) -> Result<u64, PagingError> {
        let pool = self.pools.last().ok_or(PagingError::NoTables)?;
        if self.unused_gpa >= pool.end_gpa {
            return Err(PagingError::NoTables);
        }
        let gpa = self.unused_gpa;
        self.unused_gpa += PAGE_BYTES;
        Ok(gpa)
    }

    /// The entry number `index` (its low nine bits) of the table at `table_gpa`. Whatever a program may have written
    /// into a table, the answer lies within a pool.
    fn slot(&self, table_gpa: u64, index: u64) -> Result<*mut u64, PagingError> {
        let is_table = |pool: &Pool| (pool.start_gpa..pool.end_gpa).contains(&table_gpa);
        if !self.pools.iter().any(is_table) {
            return Err(PagingError::Forbidden);
        }
        Ok((WINDOW_BASE + table_gpa + (index & 511) * 8) as *mut u64)
    }
}

fn load(entry: *mut u64) -> u64 {
    // SAFETY: made by `PageTables::slot`, so it lies in a pool of tables, which is RAM that no Rust object occupies.
    unsafe { read_volatile(entry) }
}

fn store(entry: *mut u64, value: u64) {
    // SAFETY: as for `load`. What the new value maps was checked by the callers: frames of programs at addresses of
    // programs, so no object of the library OS changes its address or becomes reachable at another one.
    unsafe { write_volatile(entry, value) }
}
