//! First touches: how pages get their frames.
//!
//! A touch costs an exit to the monitor, so that more than the page itself is filled: the neighbourhood of a fault
//! grows with what is filled beside it, for memory that is used from one end to the other, and stays small for memory
//! that is used here and there.

use spore_abi::layout::{LARGE_PAGE_BYTES, MODULES_GPA, PAGE_BYTES};
use spore_machine::paging::{Access, Mapped};
use spore_machine::user::{self, Place};

use super::areas::{Area, Backing, Protection};
use super::pages::Pages;
use super::space::{AccessError, AddressSpace, Intent};
use crate::errno::Errno;

/// Neighbourhood that is filled around a fault in anonymous memory where nothing is filled beside it.
const NEIGHBOURHOOD_MIN: u64 = 256 * 1024;
/// The same for modules, whose pages cost nothing but their entries.
const MODULE_NEIGHBOURHOOD: u64 = 2 << 20;
/// The same for files in memory, of the pages that the file has.
const PAGES_NEIGHBOURHOOD: u64 = 256 * 1024;
/// The neighbourhood is at most this part of the memory that is free…
const FREE_MEMORY_SHARE: u64 = 32;
/// … and this part if nothing beside it is filled, so that memory is not used up by neighbourhoods that nobody uses.
const SPARSE_SHARE: u64 = 1024;
/// Most pages that are copied at once when the program writes one after the other.
const COPIES_MAX: u64 = 16;
/// How many pages are copied at a write to a file's page that was not touched before.
const COPIES_MIN: u64 = 4;

impl AddressSpace {
    /// Makes `address` accessible if it is mapped for that and was not touched before.
    pub(crate) fn fault(&mut self, address: u64, intent: Intent) -> Result<(), AccessError> {
        let (start, area) = self.areas.find(address).ok_or(AccessError::Forbidden)?;
        let is_allowed = match intent {
            Intent::Read => !area.protection.is_empty(),
            Intent::Write => area.protection.contains(Protection::WRITE),
            Intent::Execute => area.protection.contains(Protection::EXECUTE),
        };
        if !is_allowed {
            return Err(AccessError::Forbidden);
        }
        let area = area.clone();
        let page = address & !(PAGE_BYTES - 1);
        let is_private = !area.backing.is_shared();
        let result = match self.tables.mapped(page) {
            Some(mapped) if mapped.is_borrowed && is_private && intent == Intent::Write => {
                self.own_pages(page, &area)
            }
            // The tables allow what the area does: the fault has another cause.
            Some(_) => Err(AccessError::Forbidden),
            None if !reaches(page, &area) => Err(AccessError::BeyondFile),
            None if area.backing == Backing::Anonymous => self.fill_anonymous(page, start, &area),
            None if is_private && intent == Intent::Write => self.own_pages(page, &area),
            None => self.fill_from_file(page, start, &area),
        };
        self.flush();
        result
    }

    /// Gives frames to the pages of the range that have none: with `all` to every one, as far as memory and files
    /// reach, as if it were written if it can be; without, to those of files only.
    pub(crate) fn populate(&mut self, start: u64, end: u64, all: bool) -> Result<(), Errno> {
        let mut at = start;
        let mut result = Ok(());
        while at < end && result.is_ok() {
            let Some((_, area)) = self.areas.find(at) else {
                result = Err(Errno::ENOMEM);
                break;
            };
            let area = area.clone();
            let to = area.end.min(end);
            result = match area.backing {
                Backing::Anonymous if all => self.fill_run(at, to, &area),
                Backing::Anonymous => Ok(()),
                Backing::Module { .. } if all && area.protection.contains(Protection::WRITE) => {
                    self.own_range(at, to, &area)
                }
                Backing::Module { .. } => self.fill_module(at, to, &area),
                Backing::Pages { .. } => self.fill_pages(at, to, &area, all),
            };
            at = to;
        }
        self.flush();
        result
    }

    fn fill_anonymous(&mut self, page: u64, start: u64, area: &Area) -> Result<(), AccessError> {
        let mut size = self.neighbourhood(page);
        loop {
            let from = (page & !(size - 1)).max(start);
            let to = (page & !(size - 1)).saturating_add(size).min(area.end);
            if self.fill_run(from, to, area).is_ok() {
                return Ok(());
            }
            // Memory is short: less may still fit.
            self.flush();
            if size == PAGE_BYTES {
                return Err(AccessError::OutOfMemory);
            }
            size = PAGE_BYTES;
        }
    }

    /// How much is filled around a page: twice as much as is filled beside it, within bounds.
    fn neighbourhood(&self, page: u64) -> u64 {
        let free_bytes = self.frames.borrow().free_bytes();
        let bound = free_bytes / FREE_MEMORY_SHARE;
        let sparse_bound = (free_bytes / SPARSE_SHARE).min(NEIGHBOURHOOD_MIN);
        let mut size = PAGE_BYTES;
        while size < LARGE_PAGE_BYTES && size * 2 <= bound {
            let block = page & !(size - 1);
            let is_filled = |from: Option<u64>| {
                from.is_some_and(|from| {
                    self.tables.mapped(from).is_some()
                        && self.tables.mapped(from + size - PAGE_BYTES).is_some()
                })
            };
            let grows = size * 2 <= sparse_bound
                || is_filled(block.checked_sub(size))
                || is_filled(block.checked_add(size));
            if !grows {
                break;
            }
            size *= 2;
        }
        size
    }

    /// Gives frames of their own to all pages of the range that have none.
    fn fill_run(&mut self, start: u64, end: u64, area: &Area) -> Result<(), Errno> {
        let Some(access) = area.protection.access() else {
            return Ok(());
        };
        let mut at = start;
        while at < end {
            if at.is_multiple_of(LARGE_PAGE_BYTES)
                && end - at >= LARGE_PAGE_BYTES
                && self.fill_large(at, access)?
            {
                at += LARGE_PAGE_BYTES;
                continue;
            }
            if self.tables.mapped(at).is_some() {
                at += PAGE_BYTES;
                continue;
            }
            let mut run_end = at + PAGE_BYTES;
            while run_end < end
                && !run_end.is_multiple_of(LARGE_PAGE_BYTES)
                && self.tables.mapped(run_end).is_none()
            {
                run_end += PAGE_BYTES;
            }
            at += self.fill_some(at, run_end - at, access)?;
        }
        Ok(())
    }

    /// Maps a large page where nothing is, if there is one; whether it did.
    fn fill_large(&mut self, at: u64, access: Access) -> Result<bool, Errno> {
        if !self.tables.is_vacant(at) {
            return Ok(false);
        }
        let taken = self.frames.borrow_mut().take_aligned(LARGE_PAGE_BYTES);
        let Some(gpa) = taken else {
            return Ok(false);
        };
        let mut is_mapped = false;
        let result = self.with_tables(|tables| {
            is_mapped = tables.map_large(at, gpa, access)?;
            Ok(())
        });
        if !is_mapped {
            self.frames.borrow_mut().give_back(gpa, LARGE_PAGE_BYTES);
        }
        result.map(|()| is_mapped)
    }

    /// Gives frames to the first pages of a run that has none; returns how many bytes of it.
    fn fill_some(&mut self, start: u64, bytes: u64, access: Access) -> Result<u64, Errno> {
        let taken = self.frames.borrow_mut().take_some(bytes);
        let (gpa, length) = taken.ok_or(Errno::ENOMEM)?;
        let mapped = self.with_tables(|tables| tables.map(start, gpa, length / PAGE_BYTES, access, false));
        if let Err(error) = mapped {
            // Some entries may lead to the frames already.
            let unmapped = self.with_tables(|tables| tables.unmap(start, length / PAGE_BYTES, |_| {}));
            if unmapped.is_ok() {
                self.release_frames(gpa, length);
            }
            return Err(error);
        }
        Ok(length)
    }

    /// Makes a page of a file accessible, and what is around it as far as that is cheap.
    fn fill_from_file(&mut self, page: u64, start: u64, area: &Area) -> Result<(), AccessError> {
        let around = |size: u64| {
            let block = page & !(size - 1);
            (block.max(start), block.saturating_add(size).min(area.end))
        };
        if let Backing::Pages { pages, .. } = &area.backing {
            self.fill_page(page, area, pages, true)
                .map_err(|_| AccessError::OutOfMemory)?;
            let (from, to) = around(PAGES_NEIGHBOURHOOD);
            // What is around it can wait.
            let _ = self.fill_pages(from, to, area, false);
            return Ok(());
        }
        // A page that is going to be written is copied anyhow.
        let is_writable = area.protection.contains(Protection::WRITE);
        let (from, to) = around(if is_writable {
            NEIGHBOURHOOD_MIN
        } else {
            MODULE_NEIGHBOURHOOD
        });
        // Most of a program's data is written soon after it is first read. A copy made before anything leads to the
        // file's page costs one exit, and a copy in its place three: the touch, the write, and forgetting the first.
        if is_writable && self.own_range(from, to, area).is_ok() {
            return Ok(());
        }
        let filled = self
            .fill_module(from, to, area)
            .or_else(|_| self.fill_module(page, page + PAGE_BYTES, area));
        filled.map_err(|_| AccessError::OutOfMemory)
    }

    /// Maps those pages of the range that were not touched straight to a module, as far as the file reaches.
    fn fill_module(&mut self, start: u64, end: u64, area: &Area) -> Result<(), Errno> {
        let (
            Backing::Module {
                offset,
                end: file_end,
            },
            Some(access),
        ) = (&area.backing, area.protection.access())
        else {
            return Ok(());
        };
        let (offset, file_end) = (*offset, *file_end);
        let access = Access {
            write: false,
            ..access
        };
        let mut at = start;
        while at < end && at.wrapping_add(offset) < file_end {
            if self.tables.mapped(at).is_some() {
                at += PAGE_BYTES;
                continue;
            }
            let first = at;
            while at < end && at.wrapping_add(offset) < file_end && self.tables.mapped(at).is_none() {
                at += PAGE_BYTES;
            }
            let gpa = MODULES_GPA.wrapping_add(first.wrapping_add(offset));
            self.with_tables(|tables| tables.map(first, gpa, (at - first) / PAGE_BYTES, access, true))?;
        }
        Ok(())
    }

    /// The same for a file in memory: with `all`, pages that it does not have yet are made.
    fn fill_pages(&mut self, start: u64, end: u64, area: &Area, all: bool) -> Result<(), Errno> {
        let Backing::Pages { pages, .. } = &area.backing else {
            return Ok(());
        };
        let mut at = start;
        while at < end && reaches(at, area) {
            if self.tables.mapped(at).is_none() {
                self.fill_page(at, area, pages, all)?;
            }
            at += PAGE_BYTES;
        }
        Ok(())
    }

    /// Maps one page of a file in memory. A page that the file does not have is made if `make` says so.
    fn fill_page(&mut self, page: u64, area: &Area, pages: &Pages, make: bool) -> Result<(), Errno> {
        let (Backing::Pages { offset, shared, .. }, Some(access)) = (&area.backing, area.protection.access())
        else {
            return Ok(());
        };
        let index = page.wrapping_add(*offset) / PAGE_BYTES;
        let gpa = match pages.frame(index) {
            Some(gpa) => gpa,
            None if !make => return Ok(()),
            None => pages.frame_or_new(index).ok_or(Errno::ENOMEM)?,
        };
        let access = Access {
            write: access.write && *shared,
            ..access
        };
        self.with_tables(|tables| tables.map(page, gpa, 1, access, true))
    }

    /// Gives the program copies of its own of all pages of the range, as far as the file reaches.
    fn own_range(&mut self, start: u64, end: u64, area: &Area) -> Result<(), Errno> {
        let mut at = start;
        while at < end && reaches(at, area) {
            if self.tables.mapped(at).is_none_or(|mapped| mapped.is_borrowed) {
                self.own_page(at, area).map_err(|_| Errno::ENOMEM)?;
            }
            at += PAGE_BYTES;
        }
        Ok(())
    }

    /// Gives the program copies of its own of a file's page and of those behind it: as many as lie before it already,
    /// within bounds.
    fn own_pages(&mut self, page: u64, area: &Area) -> Result<(), AccessError> {
        let is_own = |mapped: Option<Mapped>| mapped.is_some_and(|mapped| !mapped.is_borrowed);
        let mut count = COPIES_MIN;
        while count < COPIES_MAX
            && page
                .checked_sub(count * PAGE_BYTES)
                .is_some_and(|before| is_own(self.tables.mapped(before)))
        {
            count *= 2;
        }
        self.own_page(page, area)?;
        for at in (1..count).map(|index| page + index * PAGE_BYTES) {
            if at >= area.end || !reaches(at, area) || is_own(self.tables.mapped(at)) {
                break;
            }
            // What is behind it can wait.
            if self.own_page(at, area).is_err() {
                break;
            }
        }
        Ok(())
    }

    /// Replaces a file's page by a copy of the program's own.
    pub(super) fn own_page(&mut self, page: u64, area: &Area) -> Result<(), AccessError> {
        let access = area.protection.access().ok_or(AccessError::Forbidden)?;
        let taken = self.frames.borrow_mut().take(PAGE_BYTES);
        let gpa = taken.ok_or(AccessError::OutOfMemory)?;
        let is_copied = match &area.backing {
            Backing::Module { offset, end } => {
                let from = page.wrapping_add(*offset);
                // The rest of the last page is zero.
                let length = end.saturating_sub(from).min(PAGE_BYTES) as usize;
                user::copy_place(Place::Module(from), Place::Frame(gpa), length)
            }
            Backing::Pages { pages, offset, .. } => {
                match pages.frame(page.wrapping_add(*offset) / PAGE_BYTES) {
                    Some(from) => {
                        user::copy_place(Place::Frame(from), Place::Frame(gpa), PAGE_BYTES as usize)
                    }
                    None => true,
                }
            }
            Backing::Anonymous => false,
        };
        let mapped = if is_copied {
            let mapped = self.with_tables(|tables| tables.map(page, gpa, 1, access, false));
            mapped.map_err(|_| AccessError::OutOfMemory)
        } else {
            Err(AccessError::Forbidden)
        };
        if mapped.is_err() {
            self.frames.borrow_mut().give_back(gpa, PAGE_BYTES);
        }
        mapped
    }
}

/// Whether a page of an area is not beyond the end of its file.
fn reaches(page: u64, area: &Area) -> bool {
    match &area.backing {
        Backing::Anonymous => true,
        Backing::Module { offset, end } => page.wrapping_add(*offset) < *end,
        Backing::Pages { pages, offset, .. } => pages.reaches(page.wrapping_add(*offset) / PAGE_BYTES),
    }
}
