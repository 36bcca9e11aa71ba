//! Memory that a machine has before it is known whose it will be.
//!
//! To find a page, charge it and copy into it at a fault takes some 4 µs, of which the copy is the least. Which pages the
//! copies of a snapshot write to is known, and they are nearly the same for all, since most are the library OS's. So a shell
//! finds pages for those ahead, and a start only fills them.

use spore_abi::layout::PAGE_BYTES;

use super::neighbours::with_neighbours;
use super::{Machine, MachineError};
use crate::protocol::STOCK_BYTES_MAX;

impl Machine {
    /// Finds pages for stretches as [`crate::protocol::Preparation::stock`] has them. To be called once, of a machine that
    /// nobody has touched.
    pub(crate) fn lay_in_stock(&mut self, wanted: &[(u64, u64)]) {
        let mut left_bytes = STOCK_BYTES_MAX;
        for (start, length) in with_neighbours(wanted, self.ram.length()) {
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
