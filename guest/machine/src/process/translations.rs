//! The mappings of the process, as a cache of the guest's page tables.
//!
//! A page of a program is mapped when it is touched: the tables are walked, and if they allow the access, the page is
//! mapped with its neighbours that lie side by side in the same file with the same rights. Taking an entry away, or
//! changing it, unmaps its range at the next flush. The window is mapped as a whole to begin with; its entries for
//! programs are theirs to change, so it is part of the cache. What the library OS keeps for itself is never unmapped.
//!
//! The tables are read through another mapping of RAM ([`RAM_ALIAS_BASE`]), which nothing changes.

use core::ptr::{read_volatile, write_volatile};

use spore_abi::layout::{
    LARGE_PAGE_BYTES, MODULES_BASE, MODULES_BYTES_MAX, MODULES_GPA, MONITOR_BASE, PAGE_BYTES, USER_BASE,
    USER_END, WINDOW_BASE,
};
use spore_abi::process::{HEAD_DESCRIPTOR, MODULE_DESCRIPTOR, RAM_ALIAS_BASE, RAM_DESCRIPTOR};

use super::calls::{ENOMEM, MMAP, MUNMAP, system_call};
use super::{load, missing, store};
use crate::paging::{ADDRESS, CACHED, ENTRIES, LARGE, LARGE_SHIFT, NO_EXECUTE, PRESENT, USER, WRITABLE};
use crate::reserved;

const PROT_READ: u64 = 1;
const PROT_WRITE: u64 = 2;
const PROT_EXEC: u64 = 4;
const MAP_SHARED_FIXED: u64 = 0x11;
/// End of the top-level entries of the modules, where nothing of programs lies.
const MODULES_END: u64 = MODULES_BASE + (1 << 39);
const _: () = assert!(MODULES_BYTES_MAX <= 1 << 39 && WINDOW_BASE + (1 << 39) == MODULES_BASE);

/// What is wanted of a page.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted {
    pub(super) write: bool,
    pub(super) execute: bool,
}

/// What became of a fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Resolved {
    /// The tables allow the access, and it is possible now.
    Mapped,
    /// The tables forbid it; whether they have a page there.
    Forbidden { is_present: bool },
    /// The tables allow it, but the host does not provide the memory.
    Lost,
}

/// An entry of a lowest-level table, or of a large page.
#[derive(Clone, Copy)]
struct Leaf {
    table_gpa: u64,
    index: u64,
    /// Bytes that an entry maps.
    bytes: u64,
    /// Rights of the levels above: [`WRITABLE`] and, the other way round, [`NO_EXECUTE`].
    above: u64,
}

/// Makes an access possible if the tables allow it.
pub(super) fn resolve(address: u64, wanted: Wanted) -> Resolved {
    let Some(leaf) = walk(address) else {
        return Resolved::Forbidden { is_present: false };
    };
    let entry = read(leaf.table_gpa, leaf.index);
    let rights = leaf.rights(entry);
    let is_allowed = rights & PROT_READ != 0
        && (!wanted.write || rights & PROT_WRITE != 0)
        && (!wanted.execute || rights & PROT_EXEC != 0);
    if !is_allowed {
        return Resolved::Forbidden { is_present: true };
    }
    match map_around(address, leaf, entry, rights) {
        ENOMEM => {
            // Most likely there are too many mappings.
            forget_all();
            match map_around(address, leaf, entry, rights) {
                0.. => Resolved::Mapped,
                _ => Resolved::Lost,
            }
        }
        0.. => Resolved::Mapped,
        _ => Resolved::Lost,
    }
}

impl Leaf {
    /// What an entry of this table allows, as `mmap` takes it.
    fn rights(self, entry: u64) -> u64 {
        if entry & USER == 0 {
            return 0;
        }
        let write = if entry & self.above & WRITABLE != 0 {
            PROT_WRITE
        } else {
            0
        };
        let execute = if (entry | self.above) & NO_EXECUTE == 0 {
            PROT_EXEC
        } else {
            0
        };
        PROT_READ | write | execute
    }
}

/// Finds the entry for an address, if it is present.
fn walk(address: u64) -> Option<Leaf> {
    let mut table_gpa = load!(top_table_gpa);
    let mut above = WRITABLE;
    for shift in [39, 30, LARGE_SHIFT, 12] {
        let index = address >> shift & (ENTRIES - 1);
        let entry = read(table_gpa, index);
        if entry & PRESENT == 0 {
            return None;
        }
        if shift == 12 || (shift == LARGE_SHIFT && entry & LARGE != 0) {
            let bytes = 1 << shift;
            return Some(Leaf {
                table_gpa,
                index,
                bytes,
                above,
            });
        }
        if entry & WRITABLE == 0 {
            above &= !WRITABLE;
        }
        above |= entry & NO_EXECUTE;
        table_gpa = entry & ADDRESS;
    }
    None
}

/// Maps what the entry says, and its neighbours; the result of `mmap`.
fn map_around(address: u64, leaf: Leaf, entry: u64, rights: u64) -> i64 {
    let kind = PRESENT | WRITABLE | USER | LARGE | NO_EXECUTE;
    let is_neighbour = |index: u64, gpa: u64| {
        let other = read(leaf.table_gpa, index);
        other & (kind | CACHED) == entry & kind && other & ADDRESS == gpa
    };
    let gpa = entry & ADDRESS & !(leaf.bytes - 1);
    let (mut first, mut end) = (leaf.index, leaf.index + 1);
    while end < ENTRIES && is_neighbour(end, gpa + (end - leaf.index) * leaf.bytes) {
        end += 1;
    }
    while first > 0
        && let Some(before) = gpa.checked_sub((leaf.index - first + 1) * leaf.bytes)
        && is_neighbour(first - 1, before)
    {
        first -= 1;
    }
    let start = (address & !(leaf.bytes - 1)) - (leaf.index - first) * leaf.bytes;
    let first_gpa = gpa - (leaf.index - first) * leaf.bytes;
    let range = (first_gpa, first_gpa + (end - first) * leaf.bytes);
    let page_gpa = first_gpa + ((address & !(PAGE_BYTES - 1)) - start);
    let (descriptor, offset, range) = match first_gpa.checked_sub(MODULES_GPA) {
        Some(_) => module_part(page_gpa, range),
        None => {
            let range = missing::complete_around(page_gpa, range);
            (RAM_DESCRIPTOR, range.0, range)
        }
    };
    let start = start + (range.0 - first_gpa);
    let length = range.1 - range.0;
    let arguments = [start, length, rights, MAP_SHARED_FIXED, descriptor as u64, offset];
    // SAFETY: maps at addresses of programs what the page tables map there: the library OS has seen to it that these are
    // frames and addresses of programs (see `paging`).
    let result = unsafe { system_call(MMAP, arguments) };
    if result >= 0 {
        // Of a large page that is only there in part, the rest is mapped by a fault of its own.
        let is_mapped = |index: u64| {
            let gpa = first_gpa + (index - first) * leaf.bytes;
            range.0 <= gpa && gpa + leaf.bytes <= range.1
        };
        for index in (first..end).filter(|&index| is_mapped(index)) {
            write(leaf.table_gpa, index, read(leaf.table_gpa, index) | CACHED);
        }
    }
    result
}

/// As much of a range of the root module as is in one file with this page: the file's descriptor, the offset in it, the range.
fn module_part(page_gpa: u64, (start, end): (u64, u64)) -> (i32, u64, (u64, u64)) {
    let base_bytes = load!(module_base_bytes);
    if base_bytes == 0 {
        return (MODULE_DESCRIPTOR, start - MODULES_GPA, (start, end));
    }
    let (base_start, base_end) = (MODULES_GPA + PAGE_BYTES, MODULES_GPA + base_bytes);
    if page_gpa < base_start {
        let end = end.min(base_start);
        (HEAD_DESCRIPTOR, start - MODULES_GPA, (start, end))
    } else if page_gpa < base_end {
        let (start, end) = (start.max(base_start), end.min(base_end));
        (MODULE_DESCRIPTOR, start - MODULES_GPA, (start, end))
    } else {
        let start = start.max(base_end);
        (HEAD_DESCRIPTOR, start - base_end + PAGE_BYTES, (start, end))
    }
}

/// Forgets the translations of those of a range of addresses that are a program's.
pub(super) fn forget(start: u64, end: u64) {
    for (first, last) in cached_ranges() {
        let (start, end) = (start.max(first), end.min(last));
        if end > start && unmap(start, end) == ENOMEM {
            // There are too many mappings to cut one in two.
            return forget_all();
        }
    }
}

/// Forgets all translations but those of the library OS's own memory and of the modules.
pub(super) fn forget_all() {
    for (start, end) in cached_ranges() {
        // Whole mappings end at these borders, so that none is cut in two.
        if end > start {
            unmap(start, end);
        }
    }
    forget_marks(load!(top_table_gpa), 3);
}

/// Where the mappings of the process are a cache, start and end of each range.
fn cached_ranges() -> [(u64, u64); 3] {
    [
        (USER_BASE, MONITOR_BASE),
        (WINDOW_BASE + reserved::end_gpa(), WINDOW_BASE + load!(ram_bytes)),
        (MODULES_END, USER_END),
    ]
}

/// Translates by other tables from now on.
pub(super) fn switch_tables(top_gpa: u64) {
    forget_all();
    store!(top_table_gpa, top_gpa);
}

/// Takes the marks of mapped entries away.
fn forget_marks(table_gpa: u64, levels: u32) {
    for index in 0..ENTRIES {
        let entry = read(table_gpa, index);
        if entry & CACHED != 0 {
            write(table_gpa, index, entry & !CACHED);
        }
        // Entries of the monitor's area lead out of RAM, and are not the user's.
        if levels > 0 && entry & (PRESENT | USER | LARGE) == PRESENT | USER {
            forget_marks(entry & ADDRESS, levels - 1);
        }
    }
}

fn unmap(start: u64, end: u64) -> i64 {
    // SAFETY: the range is one of programs, whose pages are mapped again when they are touched.
    unsafe { system_call(MUNMAP, [start, end - start, 0, 0, 0, 0]) }
}

/// An entry of a table. Beyond RAM there is none: a program may have damaged its tables.
fn entry(table_gpa: u64, index: u64) -> Option<*mut u64> {
    let is_table = table_gpa.is_multiple_of(PAGE_BYTES) && table_gpa < load!(ram_bytes);
    is_table.then(|| {
        missing::complete(table_gpa);
        (RAM_ALIAS_BASE + table_gpa + index * 8) as *mut u64
    })
}

fn read(table_gpa: u64, index: u64) -> u64 {
    // SAFETY: the place is aligned, lies in RAM, and is mapped for good; no reference to it exists.
    entry(table_gpa, index).map_or(0, |place| unsafe { read_volatile(place) })
}

fn write(table_gpa: u64, index: u64, value: u64) {
    if let Some(place) = entry(table_gpa, index) {
        // SAFETY: as for `read`.
        unsafe { write_volatile(place, value) };
    }
}

const _: () = assert!(LARGE_PAGE_BYTES == 1 << LARGE_SHIFT);
