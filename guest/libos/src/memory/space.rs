//! The address space: `mmap`, `munmap`, `mprotect`, `brk` and page faults.

use spore_abi::layout::{
    LARGE_PAGE_BYTES, MODULES_BASE, MODULES_BYTES_MAX, MODULES_GPA, MONITOR_BASE, PAGE_BYTES, USER_BASE,
    USER_END, WINDOW_BASE,
};
use spore_abi::pages::BootPage;
use spore_machine::paging::{PageTables, PagingError};
use spore_machine::{shared, user};

use super::areas::{Area, Areas, Backing, Protection};
use super::frames::SharedFrames;
use super::ranges::RangeSet;
use crate::errno::Errno;

/// Addresses for mappings that name none and are not in the window.
const TABLES_REGION: (u64, u64) = (0x7000_0000_0000, 0x7f00_0000_0000);
/// Pages that are filled around the one that faulted.
const FAULT_AROUND_BYTES: u64 = 64 * 1024;
/// A heap grown by at most this much is filled at once rather than by faults.
const EAGER_HEAP_BYTES: u64 = 256 * 1024;
/// Most areas, as on Linux (`vm.max_map_count`).
const AREAS_MAX: usize = 65_530;
/// Sizes of the pools that page tables get when the first one is used up, tried in this order.
const TABLE_POOL_BYTES: [u64; 3] = [LARGE_PAGE_BYTES, 64 * 1024, PAGE_BYTES];

/// Why an access failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AccessError {
    /// Nothing is mapped there, or the protection forbids it.
    Forbidden,
    /// The function's memory is used up.
    OutOfMemory,
}

/// What an access wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Intent {
    Read,
    Write,
    Execute,
}

/// The program's address space.
pub(crate) struct AddressSpace {
    areas: Areas,
    tables: PageTables,
    frames: SharedFrames,
    free_addresses: RangeSet,
    ram_bytes: u64,
    heap_start: u64,
    heap_end: u64,
}

/// Rounds up to whole pages.
pub(crate) fn page_ceil(bytes: u64) -> Option<u64> {
    bytes.checked_next_multiple_of(PAGE_BYTES)
}

impl AddressSpace {
    /// The empty address space of a machine that looks as the boot page says.
    pub(crate) fn new(boot: &BootPage, frames: &SharedFrames) -> Self {
        let mut free_addresses = RangeSet::new();
        free_addresses.insert(TABLES_REGION.0, TABLES_REGION.1);
        Self {
            areas: Areas::default(),
            tables: PageTables::new(boot.top_table_gpa, boot.page_tables_used_gpa, boot.ram_bytes),
            frames: SharedFrames::clone(frames),
            free_addresses,
            ram_bytes: boot.ram_bytes,
            heap_start: 0,
            heap_end: 0,
        }
    }

    /// Whether there is memory at an address, accessible or not.
    pub(crate) fn is_mapped(&self, address: u64) -> bool {
        self.areas.find(address).is_some()
    }

    /// What a word is found by that several mappings may show: an identity of the memory and the place in it.
    pub(crate) fn shared_place(&self, _address: u64) -> Option<(usize, u64)> {
        None
    }

    /// Makes this the address space that the processor translates with.
    pub(crate) fn activate(&mut self) {
        // There is one: only a process with tables of its own has to say so to the host.
    }

    /// Maps zeroed memory at an address of the library OS's choice.
    pub(crate) fn map_anonymous(&mut self, length: u64, protection: Protection) -> Result<u64, Errno> {
        let length = page_ceil(length)
            .filter(|&length| length > 0)
            .ok_or(Errno::EINVAL)?;
        self.check_area_count()?;
        let plain = !protection.is_empty() && !protection.contains(Protection::EXECUTE);
        if plain {
            if length > self.frames.borrow().free_bytes() {
                return Err(refused());
            }
            let taken = self.frames.borrow_mut().take(length);
            if let Some(gpa) = taken {
                return self.map_window(gpa, length, protection);
            }
        }
        let start = self
            .free_addresses
            .take(length, PAGE_BYTES)
            .ok_or(Errno::ENOMEM)?;
        self.areas.insert(
            start,
            Area {
                end: start + length,
                protection,
                backing: Backing::Tables,
            },
        );
        Ok(start)
    }

    fn map_window(&mut self, gpa: u64, length: u64, protection: Protection) -> Result<u64, Errno> {
        let start = WINDOW_BASE + gpa;
        let whole = Area {
            end: start + length,
            protection: Protection::READ_WRITE,
            backing: Backing::Window,
        };
        self.areas.insert(start, whole);
        if protection != Protection::READ_WRITE
            && let Err(error) = self.protect(start, length, protection)
        {
            self.unmap(start, length)?;
            return Err(error);
        }
        Ok(start)
    }

    /// Maps zeroed memory at `start`, replacing what was there.
    pub(crate) fn map_fixed(&mut self, start: u64, length: u64, protection: Protection) -> Result<(), Errno> {
        let end = check_range(start, length)?;
        if end > MONITOR_BASE && start < MODULES_BASE + MODULES_BYTES_MAX {
            // Here programs have only what they were given: stretches of the window, which can be made new in place.
            if !self.areas.covers(start, end) {
                return Err(Errno::ENOMEM);
            }
            self.discard(start, end - start)?;
            return self.protect(start, end - start, protection);
        }
        self.replace(
            start,
            Area {
                end,
                protection,
                backing: Backing::Tables,
            },
        )
    }

    /// Maps part of a module, in whole pages, straight from the host's page cache. A page that the program writes
    /// becomes its own.
    pub(crate) fn map_module(
        &mut self,
        start: u64,
        module_offset: u64,
        length: u64,
        protection: Protection,
    ) -> Result<(), Errno> {
        let end = check_range(start, length)?;
        let backing = Backing::Module {
            offset: module_offset.wrapping_sub(start),
        };
        self.replace(
            start,
            Area {
                end,
                protection,
                backing,
            },
        )?;
        self.fill(start, end, protection, backing)
    }

    /// Puts an area where others may be.
    fn replace(&mut self, start: u64, area: Area) -> Result<(), Errno> {
        self.check_area_count()?;
        self.unmap(start, area.end - start)?;
        self.free_addresses.remove(start, area.end);
        self.areas.insert(start, area);
        Ok(())
    }

    /// Whether anything is mapped in the range.
    pub(crate) fn is_in_use(&self, start: u64, length: u64) -> bool {
        self.areas.overlaps(start, start.saturating_add(length))
    }

    /// Removes mappings. Addresses without any are passed over.
    pub(crate) fn unmap(&mut self, start: u64, length: u64) -> Result<(), Errno> {
        let end = check_range(start, length)?;
        self.for_each_area(start, end, |space, start, area| {
            let bytes = area.end - start;
            match area.backing {
                Backing::Window => {
                    if area.protection != Protection::READ_WRITE {
                        space.protect_entries(start, bytes, Protection::READ_WRITE)?;
                        space.flush();
                    }
                    space.frames.borrow_mut().give_back(start - WINDOW_BASE, bytes);
                }
                Backing::Tables | Backing::Module { .. } => space.release_entries(start, bytes)?,
            }
            if start >= TABLES_REGION.0 && area.end <= TABLES_REGION.1 {
                space.free_addresses.insert(start, area.end);
            }
            Ok(None)
        })
    }

    /// Changes what the program may do with a range, all of which must be mapped.
    pub(crate) fn protect(&mut self, start: u64, length: u64, protection: Protection) -> Result<(), Errno> {
        let end = check_range(start, length)?;
        if !self.areas.covers(start, end) {
            return Err(Errno::ENOMEM);
        }
        self.check_area_count()?;
        self.for_each_area(start, end, |space, start, area| {
            if area.protection != protection {
                space.protect_entries(start, area.end - start, protection)?;
            }
            Ok(Some(Area { protection, ..area }))
        })
    }

    /// `MADV_DONTNEED`: anonymous memory is zero afterwards, modules are as in their file.
    pub(crate) fn discard(&mut self, start: u64, length: u64) -> Result<(), Errno> {
        let end = check_range(start, length)?;
        if !self.areas.covers(start, end) {
            return Err(Errno::ENOMEM);
        }
        self.for_each_area(start, end, |space, start, area| {
            let bytes = area.end - start;
            match area.backing {
                Backing::Window => {
                    let is_writable = area.protection.contains(Protection::WRITE);
                    if !is_writable {
                        space.protect_entries(start, bytes, Protection::READ_WRITE)?;
                        space.flush();
                    }
                    user::zero_window(start - WINDOW_BASE, bytes, space.ram_bytes);
                    if !is_writable {
                        space.protect_entries(start, bytes, area.protection)?;
                    }
                }
                Backing::Tables | Backing::Module { .. } => space.release_entries(start, bytes)?,
            }
            Ok(Some(area))
        })
    }

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
        let moved = if new > old {
            self.grow_heap(old, new)
        } else {
            self.unmap_if_any(new, old)
        };
        if moved.is_ok() {
            self.heap_end = wanted;
        }
        self.heap_end
    }

    fn grow_heap(&mut self, old: u64, new: u64) -> Result<(), Errno> {
        let grown = new - old;
        if self.areas.overlaps(old, new) || grown > self.frames.borrow().free_bytes() {
            return Err(refused());
        }
        let area = Area {
            end: new,
            protection: Protection::READ_WRITE,
            backing: Backing::Tables,
        };
        self.areas.insert(old, area);
        if grown <= EAGER_HEAP_BYTES
            && let Err(error) = self.fill(old, new, Protection::READ_WRITE, Backing::Tables)
        {
            self.unmap(old, grown)?;
            return Err(error);
        }
        Ok(())
    }

    fn unmap_if_any(&mut self, start: u64, end: u64) -> Result<(), Errno> {
        if start == end {
            Ok(())
        } else {
            self.unmap(start, end - start)
        }
    }

    /// Makes `address` accessible if it is mapped for that and was not touched before.
    pub(crate) fn fault(&mut self, address: u64, intent: Intent) -> Result<(), AccessError> {
        let (start, area) = self.areas.find(address).ok_or(AccessError::Forbidden)?;
        let is_allowed = match intent {
            Intent::Read => !area.protection.is_empty(),
            Intent::Write => area.protection.contains(Protection::WRITE),
            Intent::Execute => area.protection.contains(Protection::EXECUTE),
        };
        let page = address & !(PAGE_BYTES - 1);
        if !is_allowed || area.backing == Backing::Window {
            return Err(AccessError::Forbidden);
        }
        match self.tables.frame(page) {
            Some(gpa) if gpa >= MODULES_GPA && intent == Intent::Write => return self.own_page(page, area),
            Some(_) => return Err(AccessError::Forbidden),
            None => {}
        }
        let around = address & !(FAULT_AROUND_BYTES - 1);
        let from = around.max(start);
        let to = (around + FAULT_AROUND_BYTES).min(area.end);
        if self.fill(from, to, area.protection, area.backing).is_err() {
            // Memory is short: the page itself may still fit.
            let page_end = page + PAGE_BYTES;
            let filled = self.fill(page, page_end, area.protection, area.backing);
            filled.map_err(|_| AccessError::OutOfMemory)?;
        }
        if matches!(area.backing, Backing::Module { .. }) && intent == Intent::Write {
            return self.own_page(page, area);
        }
        Ok(())
    }

    /// Replaces a module's page by a copy of the program's own.
    fn own_page(&mut self, page: u64, area: Area) -> Result<(), AccessError> {
        let mut contents = [0; PAGE_BYTES as usize];
        user::read(page, &mut contents).map_err(|_| AccessError::Forbidden)?;
        let gpa = self
            .frames
            .borrow_mut()
            .take(PAGE_BYTES)
            .ok_or(AccessError::OutOfMemory)?;
        let written = user::write(WINDOW_BASE + gpa, &contents).map_err(|_| AccessError::Forbidden);
        let access = area.protection.access().ok_or(AccessError::Forbidden);
        let mapped = written.and(access).and_then(|access| {
            let mapped = self.with_tables(|tables| tables.map(page, gpa, 1, access));
            mapped.map_err(|_| AccessError::OutOfMemory)
        });
        self.flush();
        if mapped.is_err() {
            self.frames.borrow_mut().give_back(gpa, PAGE_BYTES);
        }
        mapped
    }

    /// Gives frames to the pages of the range that have none.
    pub(crate) fn fill(
        &mut self,
        start: u64,
        end: u64,
        protection: Protection,
        backing: Backing,
    ) -> Result<(), Errno> {
        let mut at = start;
        while at < end {
            if self.tables.frame(at).is_some() {
                at += PAGE_BYTES;
                continue;
            }
            let mut run_end = at + PAGE_BYTES;
            while run_end < end && self.tables.frame(run_end).is_none() {
                run_end += PAGE_BYTES;
            }
            at += self.fill_run(at, run_end - at, protection, backing)?;
        }
        Ok(())
    }

    /// Gives frames to the first pages of a run that has none; returns how many bytes of it.
    fn fill_run(
        &mut self,
        start: u64,
        bytes: u64,
        protection: Protection,
        backing: Backing,
    ) -> Result<u64, Errno> {
        let Some(access) = protection.access() else {
            return Ok(bytes);
        };
        if let Backing::Module { offset } = backing {
            let gpa = MODULES_GPA.wrapping_add(start.wrapping_add(offset));
            let access = spore_machine::paging::Access {
                write: false,
                ..access
            };
            self.with_tables(|tables| tables.map(start, gpa, bytes / PAGE_BYTES, access))?;
            return Ok(bytes);
        }
        let (gpa, length) = self.frames.borrow_mut().take_some(bytes).ok_or(Errno::ENOMEM)?;
        let mapped = self.with_tables(|tables| tables.map(start, gpa, length / PAGE_BYTES, access));
        if let Err(error) = mapped {
            // Some entries may lead to the frames already.
            let unmapped = self.tables.unmap(start, length / PAGE_BYTES, |_| {});
            self.flush();
            if unmapped.is_ok() {
                self.frames.borrow_mut().give_back(gpa, length);
            }
            return Err(error);
        }
        Ok(length)
    }

    /// Calls `change` for each area within the range, cut to it; what it returns takes the area's place. On an error
    /// the areas that were not changed yet stay as they were.
    fn for_each_area(
        &mut self,
        start: u64,
        end: u64,
        mut change: impl FnMut(&mut Self, u64, Area) -> Result<Option<Area>, Errno>,
    ) -> Result<(), Errno> {
        let mut result = Ok(());
        for (start, area) in self.areas.carve(start, end) {
            let changed = if result.is_ok() {
                change(self, start, area)
            } else {
                Ok(Some(area))
            };
            match changed {
                Ok(Some(area)) => self.areas.insert(start, area),
                Ok(None) => {}
                Err(error) => {
                    self.areas.insert(start, area);
                    result = Err(error);
                }
            }
        }
        self.flush();
        result
    }

    fn protect_entries(&mut self, start: u64, bytes: u64, protection: Protection) -> Result<(), Errno> {
        self.with_tables(|tables| tables.protect(start, bytes / PAGE_BYTES, protection.access()))
    }

    fn release_entries(&mut self, start: u64, bytes: u64) -> Result<(), Errno> {
        let mut released = RangeSet::new();
        let result = self.with_tables(|tables| {
            tables.unmap(start, bytes / PAGE_BYTES, |gpa| {
                if gpa < MODULES_GPA {
                    released.insert(gpa, gpa + PAGE_BYTES);
                }
            })
        });
        // The frames may be handed out again only when no cached translation leads to them any more.
        self.flush();
        while let Some((gpa, length)) = released.take_some(u64::MAX) {
            self.frames.borrow_mut().give_back(gpa, length);
        }
        result
    }

    /// Edits the tables, and gives them more room as long as they ask for it.
    fn with_tables(
        &mut self,
        mut edit: impl FnMut(&mut PageTables) -> Result<(), PagingError>,
    ) -> Result<(), Errno> {
        loop {
            match edit(&mut self.tables) {
                Ok(()) => return Ok(()),
                Err(PagingError::Forbidden) => return Err(Errno::EINVAL),
                Err(PagingError::NoTables) => self.add_table_pool()?,
            }
        }
    }

    fn add_table_pool(&mut self) -> Result<(), Errno> {
        for bytes in TABLE_POOL_BYTES {
            if let Some(gpa) = self.frames.borrow_mut().take_aligned(bytes) {
                return self.tables.add_pool(gpa, bytes).map_err(|_| Errno::ENOMEM);
            }
        }
        Err(refused())
    }

    fn flush(&mut self) {
        if self.tables.take_flush_needed() {
            shared::flush_translations();
        }
    }

    /// An operation adds at most two areas.
    fn check_area_count(&self) -> Result<(), Errno> {
        if self.areas.count() + 2 > AREAS_MAX {
            Err(Errno::ENOMEM)
        } else {
            Ok(())
        }
    }
}

/// Counts a refused request for memory.
fn refused() -> Errno {
    shared::count_refused_allocation();
    Errno::ENOMEM
}

/// Checks a range of whole pages that a program names; returns its end.
fn check_range(start: u64, length: u64) -> Result<u64, Errno> {
    let length = page_ceil(length).ok_or(Errno::EINVAL)?;
    let end = start.checked_add(length).ok_or(Errno::EINVAL)?;
    if length == 0 || !start.is_multiple_of(PAGE_BYTES) || start < USER_BASE || end > USER_END {
        return Err(Errno::EINVAL);
    }
    Ok(end)
}
