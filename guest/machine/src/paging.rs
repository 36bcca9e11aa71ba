//! Edits the page tables.
//!
//! Four levels, the tables in pools of their own ([`pools`]). Each address space has a top table; what lies under the
//! entries for the window, the modules and the monitor is the same in all of them.
//!
//! Making an entry present needs no flush. Changing or removing one does; callers collect that in one
//! [`PageTables::flush`] before the program runs again, and before frames that were released are handed out.
//!
//! An entry with a frame that is not present is one that the program may not access at the moment (`PROT_NONE`).

mod dropping;
mod offers;
pub mod pools;
mod stale;

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, Ordering};

use spore_abi::layout::{self, LARGE_PAGE_BYTES, PAGE_BYTES};

use crate::{reserved, shared};
use pools::{SharedPools, load, slot, store};
use stale::Stale;

pub(crate) const PRESENT: u64 = 1;
pub(crate) const WRITABLE: u64 = 1 << 1;
pub(crate) const USER: u64 = 1 << 2;
const ACCESSED: u64 = 1 << 5;
const DIRTY: u64 = 1 << 6;
pub(crate) const LARGE: u64 = 1 << 7;
/// A bit that the processor leaves to software: the frame belongs to a file, not to the address space.
const BORROWED: u64 = 1 << 9;
/// Another one: the process form has mapped the page, most likely. Nothing depends on it but how far a fault reaches.
pub(crate) const CACHED: u64 = 1 << 10;
pub(crate) const NO_EXECUTE: u64 = 1 << 63;
pub(crate) const ADDRESS: u64 = 0x000f_ffff_ffff_f000;
const TABLE: u64 = PRESENT | WRITABLE | USER | ACCESSED;
pub(crate) const ENTRIES: u64 = 512;
pub(crate) const LARGE_SHIFT: u32 = LARGE_PAGE_BYTES.trailing_zeros();

/// The top table that the processor translates with; 0 for the one that the monitor has made.
static ACTIVE_TOP_GPA: AtomicU64 = AtomicU64::new(0);

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
    /// The pools of tables are used up: [`pools::Pools::add`], then try again. Every operation may be repeated.
    NoTables,
    /// The address or the frame is not one that programs may have, or a program has damaged a table.
    Forbidden,
}

/// What an entry says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mapped {
    /// The frame of the page that was asked for.
    pub gpa: u64,
    /// It belongs to a file.
    pub is_borrowed: bool,
    /// The program may access it.
    pub is_present: bool,
    /// The program may write to it.
    pub is_writable: bool,
}

/// Frames that an entry led to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Released {
    /// The first.
    pub gpa: u64,
    /// How much.
    pub bytes: u64,
    /// They belong to a file.
    pub is_borrowed: bool,
}

/// What the tables say of an address.
enum Lookup {
    /// The lowest-level table.
    Table(u64),
    /// The entry of a large page.
    Large(*mut u64),
    /// The entry of a large page that the host has put in place of this table, which says the same.
    Offered(*mut u64, u64),
    /// There is no table for the addresses up to here.
    AbsentUntil(u64),
}

/// The page tables of an address space.
pub struct PageTables {
    top_gpa: u64,
    pools: SharedPools,
    /// Tables that are in use no more, but may still be cached by the processor.
    retired: Vec<u64>,
    /// Where entries that were present have changed since the last flush.
    stale: Stale,
    flush_needed: bool,
    /// The tables in place of which the host may have put large pages, by the address of these.
    offered: BTreeMap<u64, u64>,
}

impl PageTables {
    /// Takes over the tables that the monitor made.
    #[must_use]
    pub fn first(top_gpa: u64, pools: &SharedPools) -> Self {
        ACTIVE_TOP_GPA.store(top_gpa, Ordering::Relaxed);
        Self {
            top_gpa,
            pools: SharedPools::clone(pools),
            retired: Vec::new(),
            stale: Stale::default(),
            flush_needed: false,
            offered: BTreeMap::new(),
        }
    }

    /// The tables of another address space, in which nothing is mapped but what all share.
    ///
    /// # Errors
    ///
    /// If the pools are used up.
    pub fn sibling(&mut self) -> Result<Self, PagingError> {
        let top_gpa = self.take_table()?;
        for index in 0..ENTRIES {
            if is_shared(index) {
                let value = load(self.slot(self.top_gpa, index)?);
                store(self.slot(top_gpa, index)?, value);
            }
        }
        Ok(Self {
            top_gpa,
            pools: SharedPools::clone(&self.pools),
            retired: Vec::new(),
            stale: Stale::default(),
            flush_needed: false,
            offered: BTreeMap::new(),
        })
    }

    /// No tables at all: what a process has while another uses its address space. Nothing can be mapped there.
    #[must_use]
    pub fn vacant(&self) -> Self {
        Self {
            top_gpa: 0,
            pools: SharedPools::clone(&self.pools),
            retired: Vec::new(),
            stale: Stale::default(),
            flush_needed: false,
            offered: BTreeMap::new(),
        }
    }

    /// Makes these the tables that the processor translates with.
    pub fn activate(&mut self) {
        if self.top_gpa == 0 {
            return;
        }
        if ACTIVE_TOP_GPA.swap(self.top_gpa, Ordering::Relaxed) != self.top_gpa {
            shared::switch_tables(self.top_gpa);
            self.flushed();
        }
    }

    /// Where tables come from.
    #[must_use]
    pub fn pools(&self) -> &SharedPools {
        &self.pools
    }

    /// Maps `count` pages from `address` on to the frames from `gpa` on, which become the address space's unless they
    /// are borrowed. Entries that were present are replaced.
    ///
    /// # Errors
    ///
    /// If the range is not a program's or the pools of tables are used up; part of the range may be mapped then.
    pub fn map(
        &mut self,
        address: u64,
        gpa: u64,
        count: u64,
        access: Access,
        is_borrowed: bool,
    ) -> Result<(), PagingError> {
        self.check_address(address, count)?;
        let end = gpa
            .checked_add(count * PAGE_BYTES)
            .ok_or(PagingError::Forbidden)?;
        let is_module = gpa >= layout::MODULES_GPA && end <= layout::MODULES_GPA + layout::MODULES_BYTES_MAX;
        let is_allowed = self.is_program_ram(gpa, end) || (is_module && is_borrowed && !access.write);
        if !is_allowed {
            return Err(PagingError::Forbidden);
        }
        let bits = access.bits() | if is_borrowed { BORROWED } else { 0 };
        let mut index = 0;
        while index < count {
            let at = address + index * PAGE_BYTES;
            let table = self.make_table(at)?;
            let first = at >> 12 & (ENTRIES - 1);
            let here = (ENTRIES - first).min(count - index);
            for step in 0..here {
                let entry = self.slot(table, first + step)?;
                let page = at + step * PAGE_BYTES;
                self.replace(
                    entry,
                    (gpa + (index + step) * PAGE_BYTES) | bits,
                    (page, PAGE_BYTES),
                );
            }
            index += here;
        }
        Ok(())
    }

    /// Maps one large page if there is nothing at its addresses, not even a table; whether it did.
    ///
    /// # Errors
    ///
    /// As for [`PageTables::map`].
    pub fn map_large(&mut self, address: u64, gpa: u64, access: Access) -> Result<bool, PagingError> {
        self.check_address(address, ENTRIES)?;
        let is_aligned = address.is_multiple_of(LARGE_PAGE_BYTES) && gpa.is_multiple_of(LARGE_PAGE_BYTES);
        if !is_aligned || !self.is_program_ram(gpa, gpa.saturating_add(LARGE_PAGE_BYTES)) {
            return Err(PagingError::Forbidden);
        }
        let entry = self.make_large_entry(address)?;
        if load(entry) != 0 {
            return Ok(false);
        }
        self.replace(entry, gpa | LARGE | access.bits(), (address, LARGE_PAGE_BYTES));
        Ok(true)
    }

    /// Changes what the program may do with those of `count` pages from `address` on that are mapped; `None` takes
    /// them away (the frame is then reachable through the window only, or not at all). Pages of modules never become
    /// writable, borrowed ones only with `borrowed_write`.
    ///
    /// # Errors
    ///
    /// As for [`PageTables::map`].
    pub fn protect(
        &mut self,
        address: u64,
        count: u64,
        access: Option<Access>,
        borrowed_write: bool,
    ) -> Result<(), PagingError> {
        self.for_each_assigned(address, count, |tables, entry, old, range| {
            let kept = old & (ADDRESS | LARGE | BORROWED);
            let may_write = old & BORROWED == 0 || (borrowed_write && old & ADDRESS < layout::MODULES_GPA);
            let bits = access.map_or(0, |access| {
                let write = access.write && may_write;
                Access { write, ..access }.bits()
            });
            tables.replace(entry, kept | bits, range);
        })
    }

    /// Removes the mappings of `count` pages from `address` on and gives the frames that they had to `release`. Tables
    /// that are empty then go back to the pools.
    ///
    /// # Errors
    ///
    /// As for [`PageTables::map`].
    pub fn unmap(
        &mut self,
        address: u64,
        count: u64,
        mut release: impl FnMut(Released),
    ) -> Result<(), PagingError> {
        self.for_each_assigned(address, count, |tables, entry, old, range| {
            tables.replace(entry, 0, range);
            release(Released {
                gpa: old & ADDRESS,
                bytes: range.1,
                is_borrowed: old & BORROWED != 0,
            });
        })?;
        self.drop_empty_tables(address, address + count * PAGE_BYTES)
    }

    /// Moves the mappings of `count` pages from `from` on to the same number of pages from `to` on, where nothing may
    /// be mapped. The ranges do not overlap.
    ///
    /// # Errors
    ///
    /// As for [`PageTables::map`]. What was moved already is not lost: the operation may be repeated.
    pub fn move_pages(&mut self, from: u64, to: u64, count: u64) -> Result<(), PagingError> {
        self.check_address(from, count)?;
        self.check_address(to, count)?;
        let end = from + count * PAGE_BYTES;
        let mut at = from;
        while at < end {
            let target = to + (at - from);
            match self.lookup(at)? {
                Lookup::AbsentUntil(next) => at = next,
                Lookup::Large(entry) => {
                    let fits = at.is_multiple_of(LARGE_PAGE_BYTES)
                        && target.is_multiple_of(LARGE_PAGE_BYTES)
                        && end - at >= LARGE_PAGE_BYTES;
                    let place = if fits {
                        Some(self.make_large_entry(target)?)
                    } else {
                        None
                    };
                    match place {
                        Some(place) if load(place) == 0 => {
                            self.replace(place, load(entry) & !CACHED, (target, LARGE_PAGE_BYTES));
                            self.replace(entry, 0, (at, LARGE_PAGE_BYTES));
                            at += LARGE_PAGE_BYTES;
                        }
                        _ => {
                            self.split(entry)?;
                        }
                    }
                }
                Lookup::Offered(entry, table) => self.put_back(entry, table, at),
                Lookup::Table(table) => {
                    let entry = self.slot(table, at >> 12)?;
                    let value = load(entry);
                    if value & ADDRESS != 0 {
                        let target_table = self.make_table(target)?;
                        let place = self.slot(target_table, target >> 12)?;
                        self.replace(place, value & !CACHED, (target, PAGE_BYTES));
                        self.replace(entry, 0, (at, PAGE_BYTES));
                    }
                    at += PAGE_BYTES;
                }
            }
        }
        self.drop_empty_tables(from, end)
    }

    /// What is mapped at `address`, if a frame is assigned there (accessible or not).
    #[must_use]
    pub fn mapped(&self, address: u64) -> Option<Mapped> {
        let value = match self.lookup(address).ok()? {
            Lookup::Table(table) | Lookup::Offered(_, table) => load(self.slot(table, address >> 12).ok()?),
            Lookup::Large(entry) => load(entry) | (address & (LARGE_PAGE_BYTES - PAGE_BYTES)),
            Lookup::AbsentUntil(_) => 0,
        };
        (value & ADDRESS != 0).then_some(Mapped {
            gpa: value & ADDRESS,
            is_borrowed: value & BORROWED != 0,
            is_present: value & PRESENT != 0,
            is_writable: value & PRESENT != 0 && value & WRITABLE != 0,
        })
    }

    /// Whether there is not even a table for the large page of `address`.
    #[must_use]
    pub fn is_vacant(&self, address: u64) -> bool {
        matches!(self.lookup(address), Ok(Lookup::AbsentUntil(_)))
    }

    /// Makes the host forget translations if entries have changed that it may have cached. From then on, what these
    /// entries led to may be handed out again.
    pub fn flush(&mut self) {
        if !core::mem::take(&mut self.flush_needed) {
            return;
        }
        shared::flush_translations(self.stale.ranges());
        self.flushed();
    }

    /// No translation of before is cached any more.
    fn flushed(&mut self) {
        self.flush_needed = false;
        self.stale.clear();
        let mut pools = self.pools.borrow_mut();
        for table in self.retired.drain(..) {
            pools.give_back(table);
        }
    }

    /// Calls `change(tables, entry, its value, (address, bytes))` for each entry of the range that has a frame. Stretches without
    /// tables are skipped at once; large pages that lie in the range as a whole stay whole.
    fn for_each_assigned(
        &mut self,
        address: u64,
        count: u64,
        mut change: impl FnMut(&mut Self, *mut u64, u64, (u64, u64)),
    ) -> Result<(), PagingError> {
        self.check_address(address, count)?;
        let end = address + count * PAGE_BYTES;
        let mut at = address;
        while at < end {
            match self.lookup(at)? {
                Lookup::AbsentUntil(next) => at = next,
                Lookup::Large(entry)
                    if at.is_multiple_of(LARGE_PAGE_BYTES) && end - at >= LARGE_PAGE_BYTES =>
                {
                    change(self, entry, load(entry), (at, LARGE_PAGE_BYTES));
                    at += LARGE_PAGE_BYTES;
                }
                Lookup::Large(entry) => {
                    self.split(entry)?;
                }
                Lookup::Offered(entry, table) => self.put_back(entry, table, at),
                Lookup::Table(table) => {
                    let table_end = (at & !(LARGE_PAGE_BYTES - 1)) + LARGE_PAGE_BYTES;
                    while at < end.min(table_end) {
                        let entry = self.slot(table, at >> 12)?;
                        let old = load(entry);
                        if old & ADDRESS != 0 {
                            change(self, entry, old, (at, PAGE_BYTES));
                        }
                        at += PAGE_BYTES;
                    }
                }
            }
        }
        Ok(())
    }

    fn is_program_ram(&self, gpa: u64, end: u64) -> bool {
        gpa >= reserved::end_gpa() && end <= self.pools.borrow().ram_bytes()
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

    /// Sets the entry that maps `bytes` from an address on.
    fn replace(&mut self, entry: *mut u64, value: u64, (address, bytes): (u64, u64)) {
        let old = load(entry);
        if old & !CACHED == value {
            return;
        }
        if old & PRESENT != 0 {
            self.flush_needed = true;
            self.stale.add(address, address.saturating_add(bytes));
        }
        store(entry, value);
    }

    /// What there is for `address`.
    fn lookup(&self, address: u64) -> Result<Lookup, PagingError> {
        let mut table_gpa = self.top_gpa;
        for shift in [39, 30, LARGE_SHIFT] {
            let entry = self.slot(table_gpa, address >> shift)?;
            let value = load(entry);
            if shift == LARGE_SHIFT && value & LARGE != 0 {
                return Ok(match self.offered_table(value, address)? {
                    Some(table) => Lookup::Offered(entry, table),
                    None => Lookup::Large(entry),
                });
            }
            if value & PRESENT == 0 {
                return Ok(Lookup::AbsentUntil(((address >> shift) + 1) << shift));
            }
            table_gpa = value & ADDRESS;
        }
        Ok(Lookup::Table(table_gpa))
    }

    /// The entry for the large page of `address`; missing tables above it are made.
    fn make_large_entry(&mut self, address: u64) -> Result<*mut u64, PagingError> {
        let mut table_gpa = self.top_gpa;
        for shift in [39, 30] {
            let entry = self.slot(table_gpa, address >> shift)?;
            let value = load(entry);
            table_gpa = if value & PRESENT == 0 {
                let fresh = self.take_table()?;
                store(entry, fresh | TABLE);
                fresh
            } else {
                value & ADDRESS
            };
        }
        self.slot(table_gpa, address >> LARGE_SHIFT)
    }

    /// The lowest-level table for `address`, made if it is missing.
    fn make_table(&mut self, address: u64) -> Result<u64, PagingError> {
        let entry = self.make_large_entry(address)?;
        let value = load(entry);
        if let Some(table) = self.offered_table(value, address)? {
            self.put_back(entry, table, address);
            return Ok(table);
        }
        if value & LARGE != 0 {
            return self.split(entry);
        }
        if value & PRESENT != 0 {
            return Ok(value & ADDRESS);
        }
        let fresh = self.take_table()?;
        store(entry, fresh | TABLE);
        Ok(fresh)
    }

    /// Replaces a large page by a table of small ones with the same meaning.
    fn split(&mut self, entry: *mut u64) -> Result<u64, PagingError> {
        let value = load(entry);
        let table = self.take_table()?;
        let base = value & ADDRESS & !(LARGE_PAGE_BYTES - 1);
        let bits = value & !(ADDRESS | LARGE);
        for index in 0..ENTRIES {
            store(self.slot(table, index)?, (base + index * PAGE_BYTES) | bits);
        }
        store(entry, table | TABLE);
        self.flush_needed |= value & PRESENT != 0;
        Ok(table)
    }

    fn take_table(&mut self) -> Result<u64, PagingError> {
        if !self.retired.is_empty() && self.pools.borrow().is_empty() {
            shared::flush_translations(self.stale.ranges());
            self.flushed();
        }
        self.pools.borrow_mut().take().ok_or(PagingError::NoTables)
    }

    fn slot(&self, table_gpa: u64, index: u64) -> Result<*mut u64, PagingError> {
        slot(&self.pools.borrow(), table_gpa, index).ok_or(PagingError::Forbidden)
    }
}

/// Whether an entry of a top table leads to what all address spaces share.
fn is_shared(index: u64) -> bool {
    let shared = [layout::MONITOR_BASE, layout::WINDOW_BASE, layout::MODULES_BASE];
    shared
        .iter()
        .any(|base| base >> 39 & (ENTRIES - 1) == index & (ENTRIES - 1))
}

const _: () = assert!(layout::RAM_BYTES_MAX <= 1 << 39 && layout::MODULES_BYTES_MAX <= 1 << 39);
