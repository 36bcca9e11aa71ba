//! The address space: what all operations on it share.

use alloc::vec::Vec;

use spore_abi::layout::{
    FREE_GPA, LARGE_PAGE_BYTES, MODULES_BASE, MODULES_BYTES_MAX, MODULES_GPA, MONITOR_BASE, PAGE_BYTES,
    USER_END,
};
use spore_abi::pages::{BootPage, boot_flags};
use spore_machine::paging::pools::Pools;
use spore_machine::paging::{PageTables, PagingError};
use spore_machine::{reserved, shared};

use super::areas::{Area, Areas, Backing, Protection};
use super::frames::SharedFrames;
use super::pages::Pages;
use super::ranges::RangeSet;
use super::rewriting::Rewriter;
use crate::errno::Errno;

/// Addresses for mappings that name none and are not in the window.
pub(super) const TABLES_REGION: (u64, u64) = (0x2100_0000_0000, 0x5000_0000_0000);
/// Most areas, as on Linux (`vm.max_map_count`), if the library OS's own memory allows it.
const AREAS_MAX: usize = 65_530;
/// Memory of the library OS that there must be for an area: the part of it that areas may take is a half.
const AREA_SHARE_BYTES: u64 = 2 * 192;
/// Sizes of the pools that page tables get when the first one is used up, tried in this order.
const TABLE_POOL_BYTES: [u64; 3] = [LARGE_PAGE_BYTES, 64 * 1024, PAGE_BYTES];

/// Why an access failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AccessError {
    /// Nothing is mapped there, or the protection forbids it.
    Forbidden,
    /// The mapping is longer than its file.
    BeyondFile,
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

/// A program's address space. It must have been [cleared](AddressSpace::clear) and another one activated before it is
/// dropped: otherwise its memory is lost.
pub(crate) struct AddressSpace {
    pub(super) areas: Areas,
    pub(super) tables: PageTables,
    pub(super) frames: SharedFrames,
    pub(super) free_addresses: RangeSet,
    /// Frames that nothing leads to any more but what the processor may have cached.
    released: RangeSet,
    pub(super) ram_bytes: u64,
    /// It is a helper's: when memory is used up, the helper's call fails, and the instance goes on.
    pub(crate) is_helper: bool,
    pub(super) heap_start: u64,
    pub(super) heap_end: u64,
    pub(super) rewriter: Rewriter,
}

/// A line of `/proc/self/maps`.
pub(crate) struct Description<'a> {
    pub(crate) start: u64,
    pub(crate) end: u64,
    pub(crate) protection: Protection,
    pub(crate) is_shared: bool,
    /// Where in its file the area begins, in bytes.
    pub(crate) offset: u64,
    /// Path of its file, or a name in brackets, or nothing.
    pub(crate) text: &'a [u8],
}

/// Rounds up to whole pages.
pub(crate) fn page_ceil(bytes: u64) -> Option<u64> {
    bytes.checked_next_multiple_of(PAGE_BYTES)
}

impl AddressSpace {
    /// The empty address space of a machine that looks as the boot page says.
    pub(crate) fn new(boot: &BootPage, frames: &SharedFrames) -> Self {
        let pools = Pools::share(boot.page_tables_used_gpa, boot.ram_bytes);
        let tables = PageTables::first(boot.top_table_gpa, &pools);
        let rewrites_calls = boot.flags & boot_flags::NO_REWRITING == 0;
        Self::with_tables_of(tables, frames, boot.ram_bytes, rewrites_calls)
    }

    /// Another address space of the same machine, empty.
    pub(crate) fn sibling(&mut self) -> Result<Self, Errno> {
        let mut tables = None;
        self.with_tables(|own| {
            tables = Some(own.sibling()?);
            Ok(())
        })?;
        let tables = tables.ok_or(Errno::ENOMEM)?;
        let rewrites_calls = self.rewriter.is_enabled();
        Ok(Self::with_tables_of(
            tables,
            &self.frames,
            self.ram_bytes,
            rewrites_calls,
        ))
    }

    /// What a process has while another uses its address space: nothing is there, and nothing can be mapped.
    pub(crate) fn vacant(&self) -> Self {
        let mut vacant = Self::with_tables_of(self.tables.vacant(), &self.frames, self.ram_bytes, false);
        vacant.free_addresses = RangeSet::new();
        vacant
    }

    fn with_tables_of(
        tables: PageTables,
        frames: &SharedFrames,
        ram_bytes: u64,
        rewrites_calls: bool,
    ) -> Self {
        let mut free_addresses = RangeSet::new();
        free_addresses.insert(TABLES_REGION.0, TABLES_REGION.1);
        Self {
            areas: Areas::default(),
            tables,
            frames: SharedFrames::clone(frames),
            free_addresses,
            released: RangeSet::new(),
            ram_bytes,
            is_helper: false,
            heap_start: 0,
            heap_end: 0,
            rewriter: Rewriter::new(rewrites_calls),
        }
    }

    /// Whether there is memory at an address, accessible or not.
    pub(crate) fn is_mapped(&self, address: u64) -> bool {
        self.areas.find(address).is_some()
    }

    /// What a word is found by that several mappings may show: an identity of the memory and the place in it.
    pub(crate) fn shared_place(&self, address: u64) -> Option<(usize, u64)> {
        match &self.areas.find(address)?.1.backing {
            Backing::Pages {
                pages,
                offset,
                shared: true,
            } => Some((alloc::rc::Rc::as_ptr(pages).addr(), address.wrapping_add(*offset))),
            _ => None,
        }
    }

    /// The RAM that it takes from.
    pub(crate) fn frames(&self) -> &SharedFrames {
        &self.frames
    }

    /// Makes this the address space that the processor translates with.
    pub(crate) fn activate(&mut self) {
        self.tables.activate();
    }

    /// Unmaps everything.
    pub(crate) fn clear(&mut self) {
        // What cannot be given back is lost; only a program that has damaged its tables gets there.
        let _ = self.for_each_area(0, u64::MAX, |space, start, area| {
            space.release(start, &area)?;
            Ok(None)
        });
    }

    /// All areas in order, as `/proc/self/maps` shows them.
    pub(crate) fn describe(&self) -> impl Iterator<Item = Description<'_>> {
        self.areas.iter().map(|(start, area)| {
            let label = area.label.as_ref();
            let is_heap = area.backing.is_anonymous() && (self.heap_start..self.heap_end).contains(&start);
            let text: &[u8] = match label {
                Some(label) => &label.text,
                None if is_heap => b"[heap]",
                None => b"",
            };
            let is_file = label.is_some() && !text.starts_with(b"[");
            let offset = label
                .filter(|_| is_file)
                .map_or(0, |label| start.wrapping_add(label.offset));
            Description {
                start,
                end: area.end,
                protection: area.protection,
                is_shared: area.backing.is_shared(),
                offset,
                text,
            }
        })
    }

    /// Bytes of addresses that are mapped (`VmSize`).
    pub(crate) fn mapped_bytes(&self) -> u64 {
        self.areas.iter().map(|(start, area)| area.end - start).sum()
    }

    /// Takes away what is mapped of the pages `first..end` of a file in memory, before the file gives them up.
    pub(crate) fn forget_pages(&mut self, gone: &Pages, first: u64, end: u64) {
        let first_byte = first.saturating_mul(PAGE_BYTES);
        let end_byte = end.saturating_mul(PAGE_BYTES);
        let ranges: Vec<(u64, u64)> = self
            .areas
            .iter()
            .filter_map(|(start, area)| {
                let Backing::Pages { pages, offset, .. } = &area.backing else {
                    return None;
                };
                let area_first = start.wrapping_add(*offset);
                let area_end = area_first.saturating_add(area.end - start);
                let from = first_byte.max(area_first);
                let to = end_byte.min(area_end);
                let is_hit = core::ptr::eq(&raw const **pages, gone) && from < to;
                is_hit.then(|| (start + (from - area_first), start + (to - area_first)))
            })
            .collect();
        for (start, end) in ranges {
            // Fails only in damaged tables.
            let _ = self.release_entries(start, end - start);
        }
        self.flush();
    }

    /// Gives back what is behind an area that is no more, and its addresses.
    pub(super) fn release(&mut self, start: u64, area: &Area) -> Result<(), Errno> {
        let bytes = area.end - start;
        self.release_entries(start, bytes)?;
        let (from, to) = (start.max(TABLES_REGION.0), area.end.min(TABLES_REGION.1));
        self.free_addresses.insert(from, to);
        Ok(())
    }

    /// Takes entries away; frames that are the address space's own are free after the next flush.
    pub(super) fn release_entries(&mut self, start: u64, bytes: u64) -> Result<(), Errno> {
        let mut released = core::mem::take(&mut self.released);
        let result = self.with_tables(|tables| {
            tables.unmap(start, bytes / PAGE_BYTES, |frames| {
                if !frames.is_borrowed && frames.gpa < MODULES_GPA {
                    released.insert(frames.gpa, frames.gpa.saturating_add(frames.bytes));
                }
            })
        });
        while let Some((gpa, length)) = released.take_some(u64::MAX) {
            self.released.insert(gpa, gpa + length);
        }
        result
    }

    /// Marks frames as free after the next flush.
    pub(super) fn release_frames(&mut self, gpa: u64, bytes: u64) {
        self.released.insert(gpa, gpa + bytes);
    }

    /// Calls `change` for each area within the range, cut to it; what it returns takes the area's place. On an error
    /// the areas that were not changed yet stay as they were.
    pub(super) fn for_each_area(
        &mut self,
        start: u64,
        end: u64,
        change: impl FnMut(&mut Self, u64, Area) -> Result<Option<Area>, Errno>,
    ) -> Result<(), Errno> {
        let result = self.change_areas(start, end, change);
        self.flush();
        result
    }

    /// The same, without the flush.
    pub(super) fn change_areas(
        &mut self,
        start: u64,
        end: u64,
        mut change: impl FnMut(&mut Self, u64, Area) -> Result<Option<Area>, Errno>,
    ) -> Result<(), Errno> {
        let mut result = Ok(());
        for (start, area) in self.areas.carve(start, end) {
            if result.is_err() {
                self.areas.insert(start, area);
                continue;
            }
            match change(self, start, area.clone()) {
                Ok(Some(area)) => self.areas.insert(start, area),
                Ok(None) => {}
                Err(error) => {
                    self.areas.insert(start, area);
                    result = Err(error);
                }
            }
        }
        result
    }

    /// Gives the tables back that nothing needs any more since `start..end` was unmapped.
    pub(super) fn drop_tables(&mut self, start: u64, end: u64) {
        let free = self.areas.free_around(start, end);
        // Fails only in damaged tables; what is lost then is the program's.
        let _ = self.tables.drop_tables((start, end), free);
    }

    /// Edits the tables, and gives them more room as long as they ask for it.
    pub(super) fn with_tables(
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
                let added = self.tables.pools().borrow_mut().add(gpa, bytes);
                return added.map_err(|_| Errno::ENOMEM);
            }
        }
        Err(refused())
    }

    /// Makes the processor forget what has changed; then released frames are free.
    pub(super) fn flush(&mut self) {
        self.tables.flush();
        let mut frames = self.frames.borrow_mut();
        while let Some((gpa, length)) = self.released.take_some(u64::MAX) {
            frames.give_back(gpa, length);
        }
    }

    /// An operation adds at most two areas.
    pub(super) fn check_area_count(&self) -> Result<(), Errno> {
        let own_bytes = reserved::end_gpa().saturating_sub(FREE_GPA);
        if self.areas.count() + 2 > AREAS_MAX.min((own_bytes / AREA_SHARE_BYTES) as usize) {
            Err(Errno::ENOMEM)
        } else {
            Ok(())
        }
    }
}

/// Counts a refused request for memory.
pub(super) fn refused() -> Errno {
    shared::count_refused_allocation();
    Errno::ENOMEM
}

/// Checks a range of whole pages that a program names; returns its end.
pub(super) fn check_range(start: u64, length: u64) -> Result<u64, Errno> {
    let length = page_ceil(length).ok_or(Errno::EINVAL)?;
    let end = start.checked_add(length).ok_or(Errno::EINVAL)?;
    if length == 0 || !start.is_multiple_of(PAGE_BYTES) || end > USER_END {
        return Err(Errno::EINVAL);
    }
    Ok(end)
}

/// Whether a range touches addresses that are the machine's: the monitor's, the window, the modules.
pub(super) fn touches_machine(start: u64, end: u64) -> bool {
    end > MONITOR_BASE && start < MODULES_BASE + MODULES_BYTES_MAX
}
