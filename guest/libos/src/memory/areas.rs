//! Areas: which addresses are mapped, how they may be used, and what is behind them. Pure bookkeeping.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use bitflags::bitflags;
use linux_raw_sys::general::{PROT_EXEC, PROT_READ, PROT_WRITE};
use spore_machine::paging::Access;

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
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Backing {
    /// A stretch of the window: the frame of an address is fixed.
    Window,
    /// Frames of its own behind table entries, filled when first touched.
    Tables,
    /// Part of a module (a file of the host), shared until a page is written: the page of `address` is that of the
    /// module's byte `address + offset`, modulo 2^64.
    Module { offset: u64 },
}

/// A mapped range of addresses; its start is the key in [`Areas`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Area {
    pub(crate) end: u64,
    pub(crate) protection: Protection,
    pub(crate) backing: Backing,
}

/// All areas, disjoint; neighbours that differ in nothing are one area.
#[derive(Debug, Default)]
pub(crate) struct Areas(BTreeMap<u64, Area>);

impl Areas {
    /// The area that holds `address`, with its start.
    pub(crate) fn find(&self, address: u64) -> Option<(u64, Area)> {
        let (&start, &area) = self.0.range(..=address).next_back()?;
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

    /// Whether all of the range is mapped.
    pub(crate) fn covers(&self, start: u64, end: u64) -> bool {
        let mut reached = start;
        while reached < end {
            match self.find(reached) {
                Some((_, area)) => reached = area.end,
                None => return false,
            }
        }
        true
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
        let joins = |a: &Area, b: &Area| a.protection == b.protection && a.backing == b.backing;
        if let Some((&before, previous)) = self.0.range(..start).next_back()
            && previous.end == start
            && joins(previous, &area)
        {
            self.0.remove(&before);
            start = before;
        }
        if let Some(next) = self.0.get(&area.end).copied()
            && joins(&next, &area)
        {
            self.0.remove(&area.end);
            area.end = next.end;
        }
        self.0.insert(start, area);
    }

    /// All areas with their starts, in order.
    #[cfg(test)]
    fn iter(&self) -> impl Iterator<Item = (u64, Area)> {
        self.0.iter().map(|(&start, &area)| (start, area))
    }

    fn cut(&mut self, at: u64) {
        if let Some((start, area)) = self.find(at)
            && start < at
        {
            self.0.insert(start, Area { end: at, ..area });
            self.0.insert(at, area);
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
            Backing::Window
        } else {
            Backing::Tables
        };
        Area {
            end,
            protection,
            backing,
        }
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
                    let found = areas.find(page).map(|(_, found)| (found.protection, found.backing));
                    let expected = model[page as usize].map(|kind| (area(0, kind).protection, area(0, kind).backing));
                    prop_assert_eq!(found, expected);
                }
                let all: Vec<_> = areas.iter().collect();
                prop_assert!(all.windows(2).all(|pair| {
                    let ((_, left), (next, right)) = (pair[0], pair[1]);
                    left.end < next || left.protection != right.protection || left.backing != right.backing
                }), "equal neighbours are joined");
            }
        }
    }
}
