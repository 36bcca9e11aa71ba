//! Areas: which addresses are mapped, how they may be used, and what is behind them. Pure bookkeeping.

use alloc::collections::BTreeMap;
use alloc::rc::Rc;
use alloc::vec::Vec;

use bitflags::bitflags;
use linux_raw_sys::general::{PROT_EXEC, PROT_READ, PROT_WRITE};
use spore_machine::paging::Access;

use super::pages::Pages;

bitflags! {
    /// What the program may do with an area.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub(crate) struct Protection: u32 {
        const READ = PROT_READ;
        const WRITE = PROT_WRITE;
        const EXECUTE = PROT_EXEC;
    }
}

impl Protection {
    /// Readable and writable.
    pub(crate) const READ_WRITE: Self = Self::READ.union(Self::WRITE);

    /// What the page tables are told; `None` for no access at all.
    pub(crate) fn access(self) -> Option<Access> {
        if self.is_empty() {
            return None;
        }
        Some(Access {
            write: self.contains(Self::WRITE),
            execute: self.contains(Self::EXECUTE),
        })
    }
}

/// What is behind an area.
#[derive(Clone)]
pub(crate) enum Backing {
    /// Frames of its own, filled when first touched.
    Anonymous,
    /// Part of a module (a file of the host), shared until a page is written: the page of `address` is that of the
    /// module's byte `address + offset`, modulo 2^64. The file ends before the module's byte `end`.
    Module { offset: u64, end: u64 },
    /// A file in memory: the page of `address` holds the file's byte `address + offset`, modulo 2^64. What the program
    /// writes is its own, unless the mapping is shared.
    Pages {
        pages: Rc<Pages>,
        offset: u64,
        shared: bool,
    },
}

impl Backing {
    /// The same, seen from addresses that are `to - from` higher.
    pub(crate) fn moved(self, from: u64, to: u64) -> Self {
        let shift = |offset: u64| offset.wrapping_add(from).wrapping_sub(to);
        match self {
            Self::Anonymous => Self::Anonymous,
            Self::Module { offset, end } => Self::Module {
                offset: shift(offset),
                end,
            },
            Self::Pages {
                pages,
                offset,
                shared,
            } => Self::Pages {
                pages,
                offset: shift(offset),
                shared,
            },
        }
    }

    /// Whether what the program writes reaches the file.
    pub(crate) fn is_shared(&self) -> bool {
        matches!(self, Self::Pages { shared: true, .. })
    }

    /// Whether nothing but memory is behind it, of which nobody else knows.
    pub(crate) fn is_anonymous(&self) -> bool {
        matches!(self, Self::Anonymous)
    }
}

impl PartialEq for Backing {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Anonymous, Self::Anonymous) => true,
            (
                Self::Module { offset, end },
                Self::Module {
                    offset: other_offset,
                    end: other_end,
                },
            ) => offset == other_offset && end == other_end,
            (
                Self::Pages {
                    pages,
                    offset,
                    shared,
                },
                Self::Pages {
                    pages: other_pages,
                    offset: other_offset,
                    shared: other_shared,
                },
            ) => Rc::ptr_eq(pages, other_pages) && offset == other_offset && shared == other_shared,
            _ => false,
        }
    }
}

/// What `/proc/self/maps` says of an area: the path of its file, or a name in brackets.
#[derive(Debug, Clone)]
pub(crate) struct Label {
    pub(crate) text: Rc<[u8]>,
    /// The file's byte at `address` is `address + offset`, modulo 2^64.
    pub(crate) offset: u64,
}

impl PartialEq for Label {
    fn eq(&self, other: &Self) -> bool {
        Rc::ptr_eq(&self.text, &other.text) && self.offset == other.offset
    }
}

/// A mapped range of addresses; its start is the key in [`Areas`].
#[derive(Clone)]
pub(crate) struct Area {
    pub(crate) end: u64,
    pub(crate) protection: Protection,
    /// What `mprotect` may make of it.
    pub(crate) allowed: Protection,
    pub(crate) backing: Backing,
    pub(crate) label: Option<Label>,
    /// Clones find it empty (`MADV_WIPEONFORK`).
    pub(crate) is_wiped: bool,
}

impl Area {
    /// Anonymous memory.
    pub(crate) fn new(end: u64, protection: Protection, backing: Backing) -> Self {
        Self {
            end,
            protection,
            allowed: Protection::all(),
            backing,
            label: None,
            is_wiped: false,
        }
    }

    /// Whether it differs in nothing but its place.
    fn is_alike(&self, other: &Self) -> bool {
        self.protection == other.protection
            && self.allowed == other.allowed
            && self.backing == other.backing
            && self.label == other.label
            && self.is_wiped == other.is_wiped
    }
}

/// All areas, disjoint; neighbours that differ in nothing are one area.
#[derive(Default)]
pub(crate) struct Areas(BTreeMap<u64, Area>);

impl Areas {
    /// The area that holds `address`, with its start.
    pub(crate) fn find(&self, address: u64) -> Option<(u64, &Area)> {
        let (&start, area) = self.0.range(..=address).next_back()?;
        (address < area.end).then_some((start, area))
    }

    /// Number of areas.
    pub(crate) fn count(&self) -> usize {
        self.0.len()
    }

    /// Whether any part of the range is mapped.
    pub(crate) fn overlaps(&self, start: u64, end: u64) -> bool {
        self.0
            .range(..end)
            .next_back()
            .is_some_and(|(_, area)| area.end > start)
    }

    /// Where the mapped stretch that begins at `start` ends; `start` itself if nothing is mapped there.
    pub(crate) fn covered_until(&self, start: u64, end: u64) -> u64 {
        let mut reached = start;
        while reached < end {
            match self.find(reached) {
                Some((_, area)) => reached = area.end,
                None => break,
            }
        }
        reached.min(end)
    }

    /// Whether all of the range is mapped.
    pub(crate) fn covers(&self, start: u64, end: u64) -> bool {
        self.covered_until(start, end) >= end
    }

    /// The stretch around `start..end`, where nothing is mapped, in which nothing is mapped either.
    pub(crate) fn free_around(&self, start: u64, end: u64) -> (u64, u64) {
        let before = self.0.range(..start).next_back();
        let behind = self.0.range(end..).next();
        (
            before.map_or(0, |(_, area)| area.end),
            behind.map_or(u64::MAX, |(&start, _)| start),
        )
    }

    /// The lowest place for `length` bytes within `low..high` where nothing is mapped.
    pub(crate) fn find_gap(&self, low: u64, high: u64, length: u64) -> Option<u64> {
        let mut at = low;
        let first = self.find(low).map_or(low, |(start, _)| start);
        for (&start, area) in self.0.range(first..high.max(first)) {
            if start >= at && start - at >= length {
                break;
            }
            at = at.max(area.end);
        }
        at.checked_add(length)
            .is_some_and(|end| end <= high)
            .then_some(at)
    }

    /// Takes out what lies within the range, cutting areas at its ends: starts and areas, in order.
    pub(crate) fn carve(&mut self, start: u64, end: u64) -> Vec<(u64, Area)> {
        self.cut(start);
        self.cut(end);
        let starts: Vec<u64> = self.0.range(start..end).map(|(&start, _)| start).collect();
        starts
            .into_iter()
            .filter_map(|start| Some((start, self.0.remove(&start)?)))
            .collect()
    }

    /// Adds an area where nothing is mapped, and joins it with equal neighbours.
    pub(crate) fn insert(&mut self, mut start: u64, mut area: Area) {
        if let Some((&before, previous)) = self.0.range(..start).next_back()
            && previous.end == start
            && previous.is_alike(&area)
        {
            self.0.remove(&before);
            start = before;
        }
        if let Some(next) = self.0.get(&area.end)
            && next.is_alike(&area)
        {
            let end = next.end;
            self.0.remove(&area.end);
            area.end = end;
        }
        self.0.insert(start, area);
    }

    /// All areas with their starts, in order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u64, &Area)> {
        self.0.iter().map(|(&start, area)| (start, area))
    }

    /// The areas that touch the range, with their starts, in order.
    pub(crate) fn within(&self, start: u64, end: u64) -> impl Iterator<Item = (u64, &Area)> {
        let first = self.find(start).map_or(start, |(start, _)| start);
        let areas = self.0.range(first..end.max(first));
        areas.map(|(&start, area)| (start, area))
    }

    fn cut(&mut self, at: u64) {
        if let Some((start, area)) = self.find(at)
            && start < at
        {
            let rest = area.clone();
            if let Some(area) = self.0.get_mut(&start) {
                area.end = at;
            }
            self.0.insert(at, rest);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn area(end: u64, kind: u8) -> Area {
        let protection = if kind & 1 == 0 {
            Protection::READ_WRITE
        } else {
            Protection::READ
        };
        let backing = if kind & 2 == 0 {
            Backing::Anonymous
        } else {
            Backing::Module { offset: 0, end: 0 }
        };
        Area::new(end, protection, backing)
    }

    proptest! {
        #[test]
        fn behaves_like_an_array_of_pages(
            operations in prop::collection::vec((0u64..64, 1u64..16, prop::option::of(0u8..4)), 0..50),
        ) {
            let mut areas = Areas::default();
            let mut model = [None; 80];
            for (start, length, kind) in operations {
                let end = start + length;
                let carved = areas.carve(start, end);
                let carved_pages: u64 = carved.iter().map(|(start, area)| area.end - start).sum();
                let model_pages = model[start as usize..end as usize].iter().filter(|page| page.is_some()).count();
                prop_assert_eq!(carved_pages, model_pages as u64);
                model[start as usize..end as usize].fill(kind);
                if let Some(kind) = kind {
                    areas.insert(start, area(end, kind));
                }
                for page in 0..80 {
                    let found = areas.find(page).map(|(_, found)| found.clone());
                    let expected = model[page as usize].map(|kind| area(0, kind));
                    let is_same = match (&found, &expected) {
                        (Some(found), Some(expected)) => found.is_alike(expected),
                        (found, expected) => found.is_none() && expected.is_none(),
                    };
                    prop_assert!(is_same, "page {}", page);
                }
                let all: Vec<_> = areas.iter().collect();
                prop_assert!(all.windows(2).all(|pair| {
                    let ((_, left), (next, right)) = (pair[0], pair[1]);
                    left.end < next || !left.is_alike(right)
                }), "equal neighbours are joined");
                let free = |from: u64, to: u64| model[from as usize..to as usize].iter().all(Option::is_none);
                let place = (10..=70 - length).find(|&at| free(at, at + length));
                prop_assert_eq!(areas.find_gap(10, 70, length), place);
            }
        }
    }
}
