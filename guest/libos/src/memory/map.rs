//! New mappings: `mmap` in all its forms.

use alloc::rc::Rc;

use spore_abi::layout::{LARGE_PAGE_BYTES, PAGE_BYTES, USER_BASE, USER_END};

use super::areas::{Area, Backing, Label, Protection};
use super::pages::Pages;
use super::space::{AddressSpace, check_range, page_ceil, refused, touches_machine};
use crate::errno::Errno;

/// Anonymous mappings up to this size are filled at once: the sizes that allocators map and unmap all the time. That is
/// cheaper than a fault or a few, and costs no memory of the host before it is touched. What is larger is filled as it
/// is touched, since programs ask for much and use little.
const EAGER_BYTES: u64 = 1 << 20;
/// Where `MAP_32BIT` mappings are, as on Linux.
const LOW_REGION: (u64, u64) = (0x4000_0000, 0x8000_0000);
/// Module mappings up to this size are filled at once: that is cheaper than one fault.
const EAGER_MODULE_BYTES: u64 = 128 * 1024;

/// Where a mapping is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    Anywhere,
    /// There if nothing is there.
    Preferred(u64),
    /// There, and what is there is unmapped.
    Fixed(u64),
    /// There, and nowhere else (`MAP_FIXED_NOREPLACE`).
    FixedIfFree(u64),
    /// Below 2 GiB.
    Low,
}

/// What is to be seen in a mapping.
#[derive(Clone)]
pub(crate) enum Contents {
    /// Zeroed memory.
    Anonymous,
    /// A module from its byte `offset` on; the file ends before its byte `end`. What is written is the program's own.
    Module { offset: u64, end: u64 },
    /// A file in memory from its byte `offset` on.
    Pages {
        pages: Rc<Pages>,
        offset: u64,
        shared: bool,
    },
}

/// A mapping that a program asks for.
#[derive(Clone)]
pub(crate) struct Request {
    pub(crate) place: Place,
    pub(crate) length: u64,
    pub(crate) protection: Protection,
    /// What `mprotect` may make of it.
    pub(crate) allowed: Protection,
    pub(crate) contents: Contents,
    /// Path of the file and where in it the mapping begins.
    pub(crate) label: Option<(Rc<[u8]>, u64)>,
    /// Fill it at once.
    pub(crate) populate: bool,
    /// It may be larger than RAM.
    pub(crate) no_reserve: bool,
}

impl Request {
    /// Zeroed memory.
    pub(crate) fn anonymous(place: Place, length: u64, protection: Protection) -> Self {
        Self {
            place,
            length,
            protection,
            allowed: Protection::all(),
            contents: Contents::Anonymous,
            label: None,
            populate: false,
            no_reserve: false,
        }
    }

    /// Whether it is memory as allocators ask for it: not executable, and not only reserved.
    fn is_plain(&self) -> bool {
        let is_data = !self.protection.is_empty() && !self.protection.contains(Protection::EXECUTE);
        is_data && matches!(self.contents, Contents::Anonymous) && self.label.is_none() && !self.no_reserve
    }

    /// The area that serves it at `start`, with table entries of its own.
    fn area(&self, start: u64, end: u64) -> Area {
        let backing = match &self.contents {
            Contents::Anonymous => Backing::Anonymous,
            Contents::Module { offset, end } => Backing::Module {
                offset: offset.wrapping_sub(start),
                end: *end,
            },
            Contents::Pages {
                pages,
                offset,
                shared,
            } => Backing::Pages {
                pages: Rc::clone(pages),
                offset: offset.wrapping_sub(start),
                shared: *shared,
            },
        };
        let label = self.label.as_ref().map(|(text, offset)| Label {
            text: Rc::clone(text),
            offset: offset.wrapping_sub(start),
        });
        Area {
            end,
            protection: self.protection,
            allowed: self.allowed,
            backing,
            label,
            is_wiped: false,
        }
    }
}

impl AddressSpace {
    /// Maps what is asked for; returns where.
    pub(crate) fn map(&mut self, request: &Request) -> Result<u64, Errno> {
        let length = page_ceil(request.length).ok_or(Errno::ENOMEM)?;
        if length == 0 {
            return Err(Errno::EINVAL);
        }
        if length > USER_END {
            return Err(Errno::ENOMEM);
        }
        self.check_area_count()?;
        let takes_memory =
            matches!(request.contents, Contents::Anonymous) && request.protection.contains(Protection::WRITE);
        if takes_memory && !request.no_reserve && length > self.ram_bytes {
            return Err(refused());
        }
        let start = match request.place {
            Place::Fixed(start) => self.map_fixed(start, length, request)?,
            Place::FixedIfFree(start) => {
                let end = check_fixed(start, length)?;
                if self.areas.overlaps(start, end) {
                    return Err(Errno::EEXIST);
                }
                self.map_fixed(start, length, request)?
            }
            Place::Low => {
                let place = self.areas.find_gap(LOW_REGION.0, LOW_REGION.1, length);
                let start = place.ok_or(Errno::ENOMEM)?;
                self.map_fixed(start, length, request)?
            }
            Place::Preferred(wish) => match self.map_preferred(wish & !(PAGE_BYTES - 1), length, request) {
                Some(start) => start,
                None => self.map_anywhere(length, request)?,
            },
            Place::Anywhere => self.map_anywhere(length, request)?,
        };
        let is_small_module =
            matches!(request.contents, Contents::Module { .. }) && length <= EAGER_MODULE_BYTES;
        let is_small = request.is_plain() && length <= EAGER_BYTES;
        if request.populate || is_small_module || is_small {
            // As on Linux, what cannot be filled now is left to the first access.
            let _ = self.populate(start, start + length, request.populate || is_small);
        }
        Ok(start)
    }

    fn map_preferred(&mut self, wish: u64, length: u64, request: &Request) -> Option<u64> {
        let end = check_fixed(wish, length).ok()?;
        if self.areas.overlaps(wish, end) {
            return None;
        }
        self.map_fixed(wish, length, request).ok()
    }

    fn map_anywhere(&mut self, length: u64, request: &Request) -> Result<u64, Errno> {
        // A mapping that can have large pages begins where one can be.
        let is_large = length >= LARGE_PAGE_BYTES && matches!(request.contents, Contents::Anonymous);
        let alignment = if is_large { LARGE_PAGE_BYTES } else { PAGE_BYTES };
        let start = self.free_addresses.take(length, alignment).ok_or(Errno::ENOMEM)?;
        self.areas.insert(start, request.area(start, start + length));
        Ok(start)
    }

    /// Maps at `start`, and unmaps what was there. The addresses of the machine are not to be had.
    fn map_fixed(&mut self, start: u64, length: u64, request: &Request) -> Result<u64, Errno> {
        let end = check_fixed(start, length)?;
        if touches_machine(start, end) {
            return Err(Errno::ENOMEM);
        }
        self.unmap(start, length)?;
        self.free_addresses.remove(start, end);
        self.areas.insert(start, request.area(start, end));
        Ok(start)
    }

    /// Removes mappings. Addresses without any are passed over.
    pub(crate) fn unmap(&mut self, start: u64, length: u64) -> Result<(), Errno> {
        let end = check_range(start, length)?;
        let result = self.change_areas(start, end, |space, start, area| {
            space.release(start, &area)?;
            Ok(None)
        });
        if result.is_ok() {
            self.drop_tables(start, end);
        }
        self.flush();
        result
    }
}

/// Checks a range that a program names for a fixed mapping; returns its end.
fn check_fixed(start: u64, length: u64) -> Result<u64, Errno> {
    if !start.is_multiple_of(PAGE_BYTES) {
        return Err(Errno::EINVAL);
    }
    let end = start.checked_add(length).ok_or(Errno::ENOMEM)?;
    if end > USER_END {
        return Err(Errno::ENOMEM);
    }
    if start < USER_BASE {
        return Err(Errno::EPERM);
    }
    Ok(end)
}
