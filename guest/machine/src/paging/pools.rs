//! Where page tables come from.
//!
//! Tables lie in pools of their own, the first of which is [`layout::PAGE_TABLES_GPA`]: a shadow-paging host
//! write-protects every page that holds a table, and would split the large pages of anything that lived beside it.
//! A table that is given back stays a table for another use.

use alloc::rc::Rc;
use alloc::vec::Vec;
use core::cell::RefCell;
use core::ptr::{read_volatile, write_bytes, write_volatile};

use spore_abi::layout::{self, PAGE_BYTES, WINDOW_BASE};

use super::PagingError;
use crate::reserved;

/// A stretch of RAM that holds tables.
#[derive(Debug, Clone, Copy)]
struct Pool {
    start_gpa: u64,
    end_gpa: u64,
}

/// The tables of all address spaces, and those that are free.
pub struct Pools {
    pools: Vec<Pool>,
    /// First byte of the last pool that was never used.
    unused_gpa: u64,
    /// Tables that were given back, zeroed.
    free: Vec<u64>,
    ram_bytes: u64,
}

/// Pools, shared by address spaces.
pub type SharedPools = Rc<RefCell<Pools>>;

impl Pools {
    /// The first pool, behind the tables that the monitor has made, which end at `unused_gpa`.
    #[must_use]
    pub fn share(unused_gpa: u64, ram_bytes: u64) -> SharedPools {
        let end_gpa = layout::PAGE_TABLES_GPA + layout::PAGE_TABLES_BYTES;
        let pool = Pool {
            start_gpa: layout::PAGE_TABLES_GPA,
            end_gpa,
        };
        Rc::new(RefCell::new(Self {
            pools: alloc::vec![pool],
            unused_gpa,
            free: Vec::new(),
            ram_bytes,
        }))
    }

    /// Gives zeroed RAM, in whole pages, to the tables for good. Programs must not have it: it is taken from the
    /// frames that are free.
    ///
    /// # Errors
    ///
    /// If the range is not RAM that programs could have had.
    pub fn add(&mut self, gpa: u64, bytes: u64) -> Result<(), PagingError> {
        let end_gpa = gpa.checked_add(bytes).ok_or(PagingError::Forbidden)?;
        let is_ram = gpa >= reserved::end_gpa() && end_gpa <= self.ram_bytes;
        if !is_ram || !gpa.is_multiple_of(PAGE_BYTES) || !bytes.is_multiple_of(PAGE_BYTES) {
            return Err(PagingError::Forbidden);
        }
        // What is left of the pool before is not lost.
        let left = self.pools.last().map_or(self.unused_gpa, |pool| pool.end_gpa);
        while self.unused_gpa < left {
            self.free.push(self.unused_gpa);
            self.unused_gpa += PAGE_BYTES;
        }
        self.pools.push(Pool {
            start_gpa: gpa,
            end_gpa,
        });
        self.unused_gpa = gpa;
        Ok(())
    }

    /// End of RAM.
    pub(crate) fn ram_bytes(&self) -> u64 {
        self.ram_bytes
    }

    /// Whether no table is free.
    pub(super) fn is_empty(&self) -> bool {
        self.free.is_empty()
            && self
                .pools
                .last()
                .is_none_or(|pool| self.unused_gpa >= pool.end_gpa)
    }

    /// A table without entries.
    pub(super) fn take(&mut self) -> Option<u64> {
        if let Some(gpa) = self.free.pop() {
            return Some(gpa);
        }
        let gpa = self.unused_gpa;
        if self.is_empty() {
            return None;
        }
        self.unused_gpa += PAGE_BYTES;
        Some(gpa)
    }

    /// Takes a table back that no entry leads to any more and no processor has cached.
    pub(super) fn give_back(&mut self, gpa: u64) {
        if !self.holds(gpa) || !gpa.is_multiple_of(PAGE_BYTES) {
            return;
        }
        // SAFETY: the page lies in a pool of tables, which is RAM that no Rust object occupies.
        unsafe { write_bytes((WINDOW_BASE + gpa) as *mut u8, 0, PAGE_BYTES as usize) };
        self.free.push(gpa);
    }

    fn holds(&self, gpa: u64) -> bool {
        self.pools
            .iter()
            .any(|pool| (pool.start_gpa..pool.end_gpa).contains(&gpa))
    }
}

/// The entry number `index` (its low nine bits) of the table at `table_gpa`. Whatever a program may have written into a
/// table, the answer lies within a pool.
pub(super) fn slot(pools: &Pools, table_gpa: u64, index: u64) -> Option<*mut u64> {
    pools
        .holds(table_gpa)
        .then_some((WINDOW_BASE + table_gpa + (index & 511) * 8) as *mut u64)
}

pub(super) fn load(entry: *mut u64) -> u64 {
    // SAFETY: made by `slot`, so it lies in a pool of tables, which is RAM that no Rust object occupies.
    unsafe { read_volatile(entry) }
}

pub(super) fn store(entry: *mut u64, value: u64) {
    // SAFETY: as for `load`. What the new value maps was checked by the callers: frames of programs at addresses of
    // programs, so no object of the library OS changes its address or becomes reachable at another one.
    unsafe { write_volatile(entry, value) }
}
