//! Memory that a machine has before it is known whose it will be.
//!
//! To find a page, charge it and copy into it at a fault takes some 4 µs, of which the copy is the least. Which pages the
//! copies of a snapshot write to is known, and they are nearly the same for all, since most are the library OS's. So a shell
//! finds pages for those ahead, and a start only fills them.

use kvm_bindings::KVM_MEM_READONLY;
use spore_abi::layout::{MODULES_BYTES_MAX, MODULES_GPA, PAGE_BYTES, TEXT_GPA};

use super::contents::{COPIED_PROGRAM_BYTES_MAX, program_flags};
use super::neighbours::with_neighbours;
use super::{Machine, MachineError, PROGRAM_SLOT, TEXT_SLOT};
use crate::memory::Region;
use crate::protocol::{STOCK_BYTES_MAX, Stock};
use crate::text;

/// Places that a guest knows, in which there is nothing yet. To show a guest a place makes KVM wait until nobody looks at what it
/// had before, some 0.1 ms; what is in there it finds as it needs it.
#[derive(Default)]
pub(super) struct Places {
    /// For a program's file, and whether that is to be copied.
    program: Option<(Region, bool)>,
    /// For text in large pages.
    text: Option<Region>,
}

impl Machine {
    /// Gets what a copy will likely need. To be called once, of a machine that nobody has touched. What cannot be had is not
    /// there, as if nobody had asked for it.
    pub(crate) fn lay_in_stock(&mut self, wanted: &Stock) {
        self.places = self.make_places(wanted);
        let mut left_bytes = STOCK_BYTES_MAX;
        for (start, length) in with_neighbours(&wanted.pages, self.ram.length()) {
            let length = length.min(left_bytes);
            if length == 0 || !start.is_multiple_of(PAGE_BYTES) || !length.is_multiple_of(PAGE_BYTES) {
                break;
            }
            self.ram
                .populate(start, usize::try_from(length).unwrap_or_default());
            self.stock.push((start, length));
            left_bytes -= length;
        }
    }

    fn make_places(&self, wanted: &Stock) -> Places {
        let mut places = Places::default();
        let program_bytes = wanted
            .program_bytes
            .checked_next_multiple_of(PAGE_BYTES)
            .unwrap_or(0);
        if (1..=MODULES_BYTES_MAX).contains(&program_bytes) {
            let is_copied = program_bytes <= COPIED_PROGRAM_BYTES_MAX;
            let region = match is_copied {
                true => Region::anonymous(program_bytes as usize, PAGE_BYTES as usize),
                false => Region::reserved(program_bytes as usize),
            };
            let flags = program_flags(is_copied);
            let shown = region.ok().filter(|region| {
                let shown = self.map(PROGRAM_SLOT, MODULES_GPA, region, flags);
                shown.is_ok()
            });
            places.program = shown.map(|region| (region, is_copied));
        }
        if wanted.text_bytes > 0 {
            let region = text::place(wanted.text_bytes);
            places.text = region.ok().filter(|region| {
                let shown = self.map(TEXT_SLOT, TEXT_GPA, region, KVM_MEM_READONLY);
                shown.is_ok()
            });
        }
        places
    }

    /// The place for a program of this length, if there is one. One for another is taken from the guest.
    pub(super) fn take_place_of_program(
        &mut self,
        bytes: u64,
        is_copied: bool,
    ) -> Result<Option<Region>, MachineError> {
        match self.places.program.take() {
            Some((region, for_copy)) if for_copy == is_copied && region.length() == bytes => Ok(Some(region)),
            Some(_other) => self.unmap(PROGRAM_SLOT, MODULES_GPA).map(|()| None),
            None => Ok(None),
        }
    }

    /// The place for text of this length, if there is one. One for another is taken from the guest.
    pub(super) fn take_place_of_text(&mut self, bytes: u64) -> Result<Option<Region>, MachineError> {
        match self.places.text.take() {
            Some(region) if region.length() == bytes => Ok(Some(region)),
            Some(_other) => self.unmap(TEXT_SLOT, TEXT_GPA).map(|()| None),
            None => Ok(None),
        }
    }

    /// The stretches for which there are pages of those that are wanted; all others are given back, since they would be memory
    /// of an instance that has no use for it.
    pub(super) fn take_stock(&mut self, wanted: &[(u64, u64)]) -> Result<Vec<(u64, u64)>, MachineError> {
        let mut taken = Vec::new();
        for (start, length, is_wanted) in divided(&std::mem::take(&mut self.stock), wanted) {
            if is_wanted {
                taken.push((start, length));
            } else {
                let length = usize::try_from(length).unwrap_or_default();
                self.ram.give_back(start, length).map_err(MachineError::Memory)?;
            }
        }
        Ok(taken)
    }
}

/// Stretches (start and length, in order) cut where they enter and leave those in stock, which are in order too: start, length,
/// and whether it is in stock.
pub(super) fn divided(stretches: &[(u64, u64)], stock: &[(u64, u64)]) -> Vec<(u64, u64, bool)> {
    let mut divided = Vec::with_capacity(stretches.len() + 2 * stock.len());
    for &(start, length) in stretches {
        let (mut at, end) = (start, start.saturating_add(length));
        let first = stock.partition_point(|&(from, bytes)| from.saturating_add(bytes) <= at);
        for &(from, bytes) in &stock[first..] {
            if from >= end || length == 0 {
                break;
            }
            if at < from {
                divided.push((at, from - at, false));
                at = from;
            }
            let to = from.saturating_add(bytes).min(end);
            divided.push((at, to - at, true));
            at = to;
        }
        // One without a length stays, for whoever checks them.
        if at < end || length == 0 {
            divided.push((at, end - at, false));
        }
    }
    divided
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn stretches_are_cut_where_the_stock_begins_and_ends() {
        assert_eq!(divided(&[(0, 9)], &[]), [(0, 9, false)]);
        assert_eq!(divided(&[(0, 9)], &[(0, 9)]), [(0, 9, true)]);
        assert_eq!(
            divided(&[(2, 8), (20, 5)], &[(0, 3), (5, 1), (9, 12)]),
            [
                (2, 1, true),
                (3, 2, false),
                (5, 1, true),
                (6, 3, false),
                (9, 1, true),
                (20, 1, true),
                (21, 4, false)
            ]
        );
        assert_eq!(divided(&[(4, 0)], &[(0, 9)]).len(), 1, "it is still there");
        let far = [(u64::MAX - 1, u64::MAX)];
        assert_eq!(divided(&far, &far), [(u64::MAX - 1, 1, true)]);
    }

    fn in_order(gaps: &[(u64, u64)]) -> Vec<(u64, u64)> {
        let mut end = 0;
        let stretch = |&(gap, length): &(u64, u64)| {
            let start = end + gap;
            end = start + length;
            (start, length)
        };
        gaps.iter().map(stretch).collect()
    }

    proptest! {
        #[test]
        fn everything_is_there_once_and_said_to_be_where_it_is(
            stretches in proptest::collection::vec((0_u64..9, 1_u64..9), 0..9),
            stock in proptest::collection::vec((0_u64..9, 1_u64..9), 0..9),
        ) {
            let (stretches, stock) = (in_order(&stretches), in_order(&stock));
            let units = |list: &[(u64, u64)]| -> BTreeSet<u64> {
                list.iter().flat_map(|&(start, length)| start..start + length).collect()
            };
            let in_stock = units(&stock);
            let mut found = BTreeSet::new();
            for (start, length, is_in_stock) in divided(&stretches, &stock) {
                for unit in start..start + length {
                    prop_assert!(found.insert(unit));
                    prop_assert_eq!(in_stock.contains(&unit), is_in_stock);
                }
            }
            prop_assert_eq!(found, units(&stretches));
        }
    }
}
