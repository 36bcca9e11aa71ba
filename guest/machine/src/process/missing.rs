//! Pages that a copy of a snapshot does not have yet.
//!
//! RAM is a file of the guest's own. The monitor has copied the library OS's memory to it, and what guests like this one
//! touch; the other pages are copied here before they are mapped for the first time, so that whoever sees a page sees the
//! same one. The bits that say which are missing are in the monitor's area, and the snapshot is mapped beside RAM.

use core::ptr::{copy_nonoverlapping, read_volatile, write_volatile};

use spore_abi::layout::PAGE_BYTES;
use spore_abi::process::{MISSING, RAM_ALIAS_BASE, SNAPSHOT_BASE};

use super::load;

/// How far to each side of a page it is looked for others that are there.
const REACH_BYTES: u64 = 1 << 20;

/// The part of a range of RAM around a page in it, start and end, of which nothing is missing any more. Only the page itself
/// is copied for that: others are told which pages this guest has needed, and get those at once.
pub(super) fn complete_around(page_gpa: u64, (start, end): (u64, u64)) -> (u64, u64) {
    if load!(goes_on) == 0 {
        return (start, end);
    }
    complete(page_gpa);
    let (mut first, mut last) = (page_gpa, page_gpa + PAGE_BYTES);
    let lowest = start.max(page_gpa.saturating_sub(REACH_BYTES));
    while first > lowest && !is_missing(first - PAGE_BYTES) {
        first -= PAGE_BYTES;
    }
    let highest = end.min(page_gpa + REACH_BYTES);
    while last < highest && !is_missing(last) {
        last += PAGE_BYTES;
    }
    (first, last)
}

/// Copies a page if it is missing.
pub(super) fn complete(gpa: u64) {
    if load!(goes_on) == 0 || !is_missing(gpa) {
        return;
    }
    // SAFETY: both places are mapped for good as far as RAM goes, and do not overlap; no reference to the page exists, since
    // nobody has seen it yet.
    unsafe {
        copy_nonoverlapping(
            (SNAPSHOT_BASE + gpa) as *const u8,
            (RAM_ALIAS_BASE + gpa) as *mut u8,
            PAGE_BYTES as usize,
        );
    }
    let (word, bit) = place(gpa);
    // SAFETY: as in `is_missing`.
    unsafe { write_volatile(word, read_volatile(word) & !bit) };
}

fn is_missing(gpa: u64) -> bool {
    let (word, bit) = place(gpa);
    // SAFETY: the words are aligned and mapped for good, for all of RAM; no reference to them exists.
    gpa < load!(ram_bytes) && unsafe { read_volatile(word) } & bit != 0
}

fn place(gpa: u64) -> (*mut u64, u64) {
    let page = gpa / PAGE_BYTES;
    ((MISSING + page / 64 * 8) as *mut u64, 1 << (page % 64))
}
