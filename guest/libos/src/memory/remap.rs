//! `mremap`.

use spore_abi::layout::{LARGE_PAGE_BYTES, PAGE_BYTES};

use super::areas::{Area, Backing, Label};
use super::map::{Contents, Place, Request};
use super::space::{AddressSpace, TABLES_REGION, check_range, page_ceil, refused, touches_machine};
use crate::errno::Errno;

/// What `mremap` may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Move {
    /// Stay.
    Never,
    /// Go where there is room.
    IfNeeded,
    /// Go there.
    To(u64),
}

impl AddressSpace {
    /// Makes the mapping at `start` longer or shorter, or moves it; returns where it is then.
    pub(crate) fn remap(
        &mut self,
        start: u64,
        old_length: u64,
        new_length: u64,
        how: Move,
    ) -> Result<u64, Errno> {
        let old_length = page_ceil(old_length).ok_or(Errno::EINVAL)?;
        let new_length = page_ceil(new_length).ok_or(Errno::EINVAL)?;
        if new_length == 0 || !start.is_multiple_of(PAGE_BYTES) {
            return Err(Errno::EINVAL);
        }
        if let Move::To(target) = how {
            let target_end = check_range(target, new_length)?;
            if target < start.saturating_add(old_length) && target_end > start {
                return Err(Errno::EINVAL);
            }
        }
        let (area_start, area) = self.areas.find(start).ok_or(Errno::EFAULT)?;
        let area = Area {
            end: area.end,
            ..area.clone()
        };
        if old_length == 0 {
            // A second view of a shared mapping; others cannot be had twice.
            return self.duplicate(start, area_start, &area, new_length, how);
        }
        let old_end = check_range(start, old_length)?;
        if old_end > area.end {
            return Err(Errno::EFAULT);
        }
        self.check_area_count()?;
        if new_length < old_length {
            self.unmap(start + new_length, old_length - new_length)?;
        }
        let kept = old_length.min(new_length);
        if let Move::To(_) = how {
            return self.relocate(start, kept, new_length, &area, how);
        }
        if new_length <= old_length || (old_end == area.end && self.extend(start, old_end, new_length, &area))
        {
            return Ok(start);
        }
        if how == Move::Never {
            return Err(Errno::ENOMEM);
        }
        self.relocate(start, kept, new_length, &area, how)
    }

    /// Makes the area that ends at `old_end` longer, if what follows is free; whether it did.
    fn extend(&mut self, start: u64, old_end: u64, new_length: u64, area: &Area) -> bool {
        let Some(new_end) = start.checked_add(new_length) else {
            return false;
        };
        if check_range(start, new_length).is_err() || self.areas.overlaps(old_end, new_end) {
            return false;
        }
        if touches_machine(start, new_end) {
            return false;
        }
        self.free_addresses.remove(old_end, new_end);
        self.areas.insert(
            old_end,
            Area {
                end: new_end,
                ..area.clone()
            },
        );
        true
    }

    /// Moves `kept` bytes of an area to a place of `new_length` bytes.
    fn relocate(
        &mut self,
        start: u64,
        kept: u64,
        new_length: u64,
        area: &Area,
        how: Move,
    ) -> Result<u64, Errno> {
        let grown = new_length - kept;
        if area.backing.is_anonymous() && grown > self.ram_bytes {
            return Err(refused());
        }
        let target = self.make_room(start, new_length, area, how)?;
        let moved = self.with_tables(|tables| tables.move_pages(start, target, kept / PAGE_BYTES));
        if let Err(error) = moved {
            // Back, as far as it came; that takes no memory, since the tables are still there.
            let _ = self.with_tables(|tables| tables.move_pages(target, start, kept / PAGE_BYTES));
            self.unmap(target, new_length)?;
            return Err(error);
        }
        self.drop_origin(start, kept)?;
        Ok(target)
    }

    /// An area like `area` elsewhere, with nothing in it.
    fn make_room(&mut self, start: u64, length: u64, area: &Area, how: Move) -> Result<u64, Errno> {
        let contents = match area.backing.clone() {
            Backing::Anonymous => Contents::Anonymous,
            Backing::Module { offset, end } => Contents::Module {
                offset: start.wrapping_add(offset),
                end,
            },
            Backing::Pages {
                pages,
                offset,
                shared,
            } => Contents::Pages {
                pages,
                offset: start.wrapping_add(offset),
                shared,
            },
        };
        let place = match how {
            Move::To(target) => Place::Fixed(target),
            Move::Never | Move::IfNeeded => {
                let alignment = if length >= LARGE_PAGE_BYTES {
                    LARGE_PAGE_BYTES
                } else {
                    PAGE_BYTES
                };
                let place = self.free_addresses.take(length, alignment).ok_or(Errno::ENOMEM)?;
                Place::Fixed(place)
            }
        };
        let mapped = self.map(&Request {
            allowed: area.allowed,
            contents,
            no_reserve: true,
            ..Request::anonymous(place, length, area.protection)
        });
        if let (Err(_), Place::Fixed(address), Move::Never | Move::IfNeeded) = (mapped, place, how) {
            self.free_addresses.insert(address, address + length);
        }
        let target = mapped?;
        let label = area.label.clone().map(|label| Label {
            offset: label.offset.wrapping_add(start).wrapping_sub(target),
            ..label
        });
        self.areas.carve(target, target + length);
        self.areas.insert(
            target,
            Area {
                end: target + length,
                backing: area.backing.clone().moved(start, target),
                label,
                ..area.clone()
            },
        );
        // A small mapping of a module may have been filled.
        self.release_entries(target, length)?;
        self.flush();
        Ok(target)
    }

    /// Takes the area away whose contents have moved.
    fn drop_origin(&mut self, start: u64, bytes: u64) -> Result<(), Errno> {
        self.change_areas(start, start + bytes, |space, start, area| {
            space.release(start, &area)?;
            Ok(None)
        })?;
        self.drop_tables(start, start + bytes);
        self.flush();
        Ok(())
    }

    fn duplicate(
        &mut self,
        start: u64,
        area_start: u64,
        area: &Area,
        length: u64,
        how: Move,
    ) -> Result<u64, Errno> {
        debug_assert!(area_start <= start);
        if !area.backing.is_shared() || how == Move::Never {
            return Err(Errno::EINVAL);
        }
        self.make_room(start, length, area, how)
    }
}

const _: () = assert!(TABLES_REGION.0.is_multiple_of(LARGE_PAGE_BYTES));
