//! The address space: `mmap`, `munmap`, `mprotect`, `brk` and page faults.

use spore_abi::layout::{
    MODULES_BASE, MODULES_BYTES_MAX, MODULES_GPA, MONITOR_BASE, PAGE_BYTES, USER_BASE, USER_END, WINDOW_BASE,
};
use spore_abi::pages::BootPage;
use spore_machine::paging::{PageTables, PagingError};
use spore_machine::{reserved, shared, user};

use super::areas::{Area, Areas, Backing, Protection};
use super::frames::Frames;
use super::ranges::RangeSet;
use crate::errno::Errno;

/// Addresses for mappings that name none and are not in the window.
const TABLES_REGION: (u64, u64) = (0x7000_0000_0000, 0x7f00_0000_0000);
/// Pages that are filled around the one that faulted.
const FAULT_AROUND_BYTES: u64 = 64 * 1024;
/// A heap grown by at most this much is filled at once rather than by faults.
const EAGER_HEAP_BYTES: u64 = 256 * 1024;

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
    pub(super) areas: Areas,
    tables: PageTables,
    frames: Frames,
    free_addresses: RangeSet,
    heap_start: u64,
    heap_end: u64,
}

/// Rounds up to whole pages.
pub(crate) fn page_ceil(bytes: u64) -> Option<u64> {
    bytes.checked_next_multiple_of(PAGE_BYTES)
}

impl AddressSpace {
    /// The empty address space of a machine that looks as the boot page says.
    pub(crate) fn new(boot: &BootPage) -> Self {
        let mut free_addresses = RangeSet::new();
        free_addresses.insert(TABLES_REGION.0, TABLES_REGION.1);
        Self {
            areas: Areas::default(),
            tables: PageTables::new(boot.top_table_gpa, boot.page_tables_used_gpa, boot.ram_bytes),
            frames: Frames::new(reserved::end_gpa(), boot.ram_bytes),
            free_addresses,
            heap_start: 0,
            heap_end: 0,
        }
    }

    /// Maps zeroed memory at an address of the library OS's choice.
    pub(crate) fn map_anonymous(&mut self, length: u64, protection: Protection) -> Result<u64, Errno> {
        let length = page_ceil(length)
            .filter(|&length| length > 0)
            .ok_or(Errno::EINVAL)?;
        let plain = !protection.is_empty() && !protection.contains(Protection::EXECUTE);
        if plain {
            if length > self.frames.free_bytes() {
                return Err(self.refused());
            }
            if let Some(gpa) = self.frames.take(length) {
                let start = WINDOW_BASE + gpa;
                let whole = Area {
                    end: start + length,
                    protection: Protection::READ_WRITE,
                    backing: Backing::Window,
                };
                self.areas.insert(start, whole);
                if protection != Protection::READ_WRITE {
                    self.protect(start, length, protection)?;
                }
                return Ok(start);
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

    /// Maps zeroed memory at `start`, replacing what was there.
    pub(crate) fn map_fixed(&mut self, start: u64, length: u64, protection: Protection) -> Result<(), Errno> {
        let end = Self::check_range(start, length)?;
        if end > MONITOR_BASE && start < MODULES_BASE + MODULES_BYTES_MAX {
            // Here programs have only what they were given: stretches of the window, which can be made new in place.
            if !self.areas.covers(start, end) {
                return Err(Errno::ENOMEM);
            }
            self.protect(start, end - start, Protection::READ_WRITE)?;
            self.discard(start, end - start)?;
            return self.protect(start, end - start, protection);
        }
        self.unmap(start, end - start)?;
        self.free_addresses.remove(start, end);
        self.areas.insert(
            start,
            Area {
                end,
                protection,
                backing: Backing::Tables,
            },
        );
        Ok(())
    }

    /// Maps part of the program's own file read-only, straight from the host's page cache. All in whole pages.
    pub(crate) fn map_module(
        &mut self,
        start: u64,
        module_offset: u64,
        length: u64,
        protection: Protection,
    ) -> Result<(), Errno> {
        self.map_fixed(start, length, protection)?;
        let access = protection
            .difference(Protection::WRITE)
            .access()
            .ok_or(Errno::EINVAL)?;
        self.tables
            .map(start, MODULES_GPA + module_offset, length / PAGE_BYTES, access)
            .map_err(paging_errno)
    }

    /// Whether anything is mapped in the range.
    pub(crate) fn is_in_use(&self, start: u64, length: u64) -> bool {
        self.areas.overlaps(start, start.saturating_add(length))
    }

    /// Removes mappings. Addresses without any are passed over.
    pub(crate) fn unmap(&mut self, start: u64, length: u64) -> Result<(), Errno> {
        let end = Self::check_range(start, length)?;
        for (start, area) in self.areas.carve(start, end) {
            let bytes = area.end - start;
            match area.backing {
                Backing::Window => {
                    if area.protection != Protection::READ_WRITE {
                        let whole = Protection::READ_WRITE.access();
                        self.tables
                            .protect(start, bytes / PAGE_BYTES, whole)
                            .map_err(paging_errno)?;
                        self.flush();
                    }
                    self.frames.give_back(start - WINDOW_BASE, bytes);
                }
                Backing::Tables => self.release_entries(start, bytes)?,
            }
            if start >= TABLES_REGION.0 && area.end <= TABLES_REGION.1 {
                self.free_addresses.insert(start, area.end);
            }
        }
        Ok(())
    }

    /// Changes what the program may do with a range, all of which must be mapped.
    pub(crate) fn protect(&mut self, start: u64, length: u64, protection: Protection) -> Result<(), Errno> {
        let end = Self::check_range(start, length)?;
        if !self.areas.covers(start, end) {
            return Err(Errno::ENOMEM);
        }
        for (start, area) in self.areas.carve(start, end) {
            if area.protection != protection {
                let count = (area.end - start) / PAGE_BYTES;
                let result = self.tables.protect(start, count, protection.access());
                if let Err(error) = result {
                    self.areas.insert(start, area);
                    return Err(paging_errno(error));
                }
            }
            self.areas.insert(start, Area { protection, ..area });
        }
        self.flush();
        Ok(())
    }

    /// `MADV_DONTNEED`: the contents are zero afterwards.
    pub(crate) fn discard(&mut self, start: u64, length: u64) -> Result<(), Errno> {
        let end = Self::check_range(start, length)?;
        if !self.areas.covers(start, end) {
            return Err(Errno::ENOMEM);
        }
        for (start, area) in self.areas.carve(start, end) {
            let bytes = area.end - start;
            match area.backing {
                Backing::Window if area.protection.contains(Protection::WRITE) => {
                    user::zero_window(start - WINDOW_BASE, bytes, shared::boot().ram_bytes);
                }
                Backing::Window => {}
                Backing::Tables => self.release_entries(start, bytes)?,
            }
            self.areas.insert(start, area);
        }
        Ok(())
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
        if new > old {
            let grown = new - old;
            if self.areas.overlaps(old, new) || grown > self.frames.free_bytes() {
                self.refused();
                return self.heap_end;
            }
            let area = Area {
                end: new,
                protection: Protection::READ_WRITE,
                backing: Backing::Tables,
            };
            self.areas.insert(old, area);
            if grown <= EAGER_HEAP_BYTES && self.fill(old, new, Protection::READ_WRITE).is_err() {
                return self.heap_end;
            }
        } else if new < old && self.unmap(new, old - new).is_err() {
            return self.heap_end;
        }
        self.heap_end = wanted;
        wanted
    }

    /// Makes `address` accessible if it is mapped for that and was not touched before.
    pub(crate) fn fault(&mut self, address: u64, intent: Intent) -> Result<(), AccessError> {
        let (start, area) = self.areas.find(address).ok_or(AccessError::Forbidden)?;
        let allowed = match intent {
            Intent::Read => !area.protection.is_empty(),
            Intent::Write => area.protection.contains(Protection::WRITE),
            Intent::Execute => area.protection.contains(Protection::EXECUTE),
        };
        let page = address & !(PAGE_BYTES - 1);
        if !allowed || area.backing == Backing::Window || self.tables.frame(page).is_some() {
            return Err(AccessError::Forbidden);
        }
        let around = address & !(FAULT_AROUND_BYTES - 1);
        let from = around.max(start);
        let to = (around + FAULT_AROUND_BYTES).min(area.end);
        match self.fill(from, to, area.protection) {
            Ok(()) => Ok(()),
            // Memory is short: the page itself may still fit.
            Err(_) => self
                .fill(page, page + PAGE_BYTES, area.protection)
                .map_err(|_| AccessError::OutOfMemory),
        }
    }

    /// Gives frames to the pages of the range that have none.
    pub(crate) fn fill(&mut self, start: u64, end: u64, protection: Protection) -> Result<(), Errno> {
        let Some(access) = protection.access() else {
            return Ok(());
        };
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
            let (gpa, length) = self.frames.take_some(run_end - at).ok_or(Errno::ENOMEM)?;
            if let Err(error) = self.tables.map(at, gpa, length / PAGE_BYTES, access) {
                self.frames.give_back(gpa, length);
                return Err(paging_errno(error));
            }
            at += length;
        }
        Ok(())
    }

    fn release_entries(&mut self, start: u64, bytes: u64) -> Result<(), Errno> {
        let mut released = RangeSet::new();
        let result = self.tables.unmap(start, bytes / PAGE_BYTES, |gpa| {
            if gpa < MODULES_GPA {
                released.insert(gpa, gpa + PAGE_BYTES);
            }
        });
        // The frames may be handed out again only when no cached translation leads to them any more.
        self.flush();
        while let Some((gpa, length)) = released.take_some(u64::MAX) {
            self.frames.give_back(gpa, length);
        }
        result.map_err(paging_errno)
    }

    fn flush(&mut self) {
        if self.tables.take_flush_needed() {
            shared::flush_translations();
        }
    }

    fn refused(&self) -> Errno {
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
}

fn paging_errno(error: PagingError) -> Errno {
    match error {
        PagingError::NoTables => Errno::ENOMEM,
        PagingError::Forbidden => Errno::EINVAL,
    }
}
