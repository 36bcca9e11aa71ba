//! Changes of mappings that are there: `mprotect`, `madvise`, and what is told about them.

use alloc::vec::Vec;

use spore_abi::layout::PAGE_BYTES;

use super::areas::{Area, Backing, Protection};
use super::space::{AddressSpace, check_range};
use crate::errno::Errno;

impl AddressSpace {
    /// Changes what the program may do with a range. Where nothing is mapped it ends, as on Linux.
    pub(crate) fn protect(&mut self, start: u64, length: u64, protection: Protection) -> Result<(), Errno> {
        let end = check_range(start, length)?;
        self.check_area_count()?;
        let reached = self.areas.covered_until(start, end);
        self.for_each_area(start, reached, |space, start, area| {
            if !area.allowed.contains(protection) {
                return Err(Errno::EACCES);
            }
            if area.protection != protection {
                space.protect_entries(start, &area, protection)?;
            }
            Ok(Some(Area { protection, ..area }))
        })?;
        if reached < end { Err(Errno::ENOMEM) } else { Ok(()) }
    }

    /// Tells the tables what the program may do with an area.
    pub(super) fn protect_entries(
        &mut self,
        start: u64,
        area: &Area,
        protection: Protection,
    ) -> Result<(), Errno> {
        let count = (area.end - start) / PAGE_BYTES;
        let is_shared = area.backing.is_shared();
        self.with_tables(|tables| tables.protect(start, count, protection.access(), is_shared))
    }

    /// `MADV_DONTNEED`: anonymous memory is zero afterwards, files are as they are. What is mapped in the range is
    /// treated so even if not all is.
    pub(crate) fn discard(&mut self, start: u64, length: u64) -> Result<(), Errno> {
        let end = check_range(start, length)?;
        let is_whole = self.areas.covers(start, end);
        self.for_each_area(start, end, |space, start, area| {
            space.release_entries(start, area.end - start)?;
            Ok(Some(area))
        })?;
        if is_whole { Ok(()) } else { Err(Errno::ENOMEM) }
    }

    /// `MADV_WIPEONFORK` and `MADV_KEEPONFORK`: whether clones find the range empty.
    pub(crate) fn set_wiped(&mut self, start: u64, length: u64, is_wiped: bool) -> Result<(), Errno> {
        let end = check_range(start, length)?;
        self.check_area_count()?;
        let is_whole = self.areas.covers(start, end);
        self.change_areas(start, end, |_, _, area| match area.backing {
            Backing::Anonymous => Ok(Some(Area { is_wiped, ..area })),
            _ if is_wiped => Err(Errno::EINVAL),
            _ => Ok(Some(area)),
        })?;
        if is_whole { Ok(()) } else { Err(Errno::ENOMEM) }
    }

    /// Empties what clones are to find empty.
    pub(crate) fn wipe_secrets(&mut self) {
        let ranges: Vec<(u64, u64)> = self
            .areas
            .iter()
            .filter(|(_, area)| area.is_wiped)
            .map(|(start, area)| (start, area.end - start))
            .collect();
        for (start, length) in ranges {
            // Fails only in damaged tables, which are the program's doing.
            let _ = self.discard(start, length);
        }
    }

    /// `MADV_FREE`: the program does not need what is in the range. It is kept as long as memory is plentiful.
    pub(crate) fn offer(&mut self, start: u64, length: u64) -> Result<(), Errno> {
        let end = check_range(start, length)?;
        let is_anonymous = |(_, area): (u64, &Area)| area.backing.is_anonymous();
        if !self.areas.within(start, end).all(is_anonymous) {
            return Err(Errno::EINVAL);
        }
        let free_bytes = self.frames.borrow().free_bytes();
        if free_bytes >= self.ram_bytes / 4 {
            return self.check_mapped(start, length);
        }
        self.discard(start, length)
    }

    /// `MADV_REMOVE`: makes a range of a shared file in memory zero and gives its memory back.
    pub(crate) fn remove(&mut self, start: u64, length: u64) -> Result<(), Errno> {
        let end = check_range(start, length)?;
        let mut holes = Vec::new();
        for (area_start, area) in self.areas.within(start, end) {
            let Backing::Pages {
                pages,
                offset,
                shared: true,
            } = &area.backing
            else {
                return Err(Errno::EINVAL);
            };
            let from = area_start.max(start).wrapping_add(*offset);
            let to = area.end.min(end).wrapping_add(*offset);
            holes.push((alloc::rc::Rc::clone(pages), from, to));
        }
        for (pages, from, to) in holes {
            self.forget_pages(&pages, from / PAGE_BYTES, to / PAGE_BYTES);
            pages.clear(from, to);
        }
        Ok(())
    }

    /// Whether all of the range is mapped: ENOMEM if not.
    pub(crate) fn check_mapped(&self, start: u64, length: u64) -> Result<(), Errno> {
        let end = check_range(start, length)?;
        if self.areas.covers(start, end) {
            Ok(())
        } else {
            Err(Errno::ENOMEM)
        }
    }

    /// Whether the program may access all of the range so: EINVAL if not.
    pub(crate) fn check_populate(&self, start: u64, length: u64, writes: bool) -> Result<(), Errno> {
        let end = check_range(start, length)?;
        let needed = if writes {
            Protection::WRITE
        } else {
            Protection::READ
        };
        let is_allowed = |(_, area): (u64, &Area)| area.protection.contains(needed);
        if self.areas.within(start, end).all(is_allowed) {
            Ok(())
        } else {
            Err(Errno::EINVAL)
        }
    }

    /// Whether a page is in memory, for `mincore`.
    pub(crate) fn is_resident(&self, page: u64) -> bool {
        self.areas.find(page).is_some_and(|(_, area)| match area.backing {
            Backing::Module { .. } => true,
            Backing::Anonymous | Backing::Pages { .. } => self.tables.mapped(page).is_some(),
        })
    }
}
