//! A set of numbers kept as ranges: free frames, free addresses.

use alloc::collections::BTreeMap;

/// Disjoint, never adjacent, half-open ranges.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct RangeSet {
    ends: BTreeMap<u64, u64>,
}

impl RangeSet {
    /// The empty set.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            ends: BTreeMap::new(),
        }
    }

    /// Number of elements.
    #[cfg(test)]
    fn total(&self) -> u64 {
        self.ends.iter().map(|(start, end)| end - start).sum()
    }

    /// Adds `start..end`.
    pub fn insert(&mut self, mut start: u64, mut end: u64) {
        if start >= end {
            return;
        }
        // The last range that begins at or before `end` may touch the new one, and so may its predecessors.
        while let Some((&other_start, &other_end)) = self.ends.range(..=end).next_back() {
            if other_end < start {
                break;
            }
            self.ends.remove(&other_start);
            start = start.min(other_start);
            end = end.max(other_end);
        }
        self.ends.insert(start, end);
    }

    /// Removes `start..end`, as far as it is there.
    pub fn remove(&mut self, start: u64, end: u64) {
        if start >= end {
            return;
        }
        while let Some((&other_start, &other_end)) = self.ends.range(..end).next_back() {
            if other_end <= start {
                break;
            }
            self.ends.remove(&other_start);
            if other_end > end {
                self.ends.insert(end, other_end);
            }
            if other_start < start {
                self.ends.insert(other_start, start);
                break;
            }
        }
    }

    /// Takes `length` consecutive elements from the lowest place that has them and is a multiple of `alignment`.
    pub fn take(&mut self, length: u64, alignment: u64) -> Option<u64> {
        let alignment = alignment.max(1);
        let start = self.ends.iter().find_map(|(&start, &end)| {
            let aligned = start.checked_next_multiple_of(alignment)?;
            (aligned.checked_add(length)? <= end).then_some(aligned)
        })?;
        self.remove(start, start + length);
        Some(start)
    }

    /// Takes up to `length` consecutive elements from the lowest range: their start and how many.
    pub fn take_some(&mut self, length: u64) -> Option<(u64, u64)> {
        let (&start, &end) = self.ends.iter().next()?;
        let count = length.min(end - start);
        self.remove(start, start + count);
        Some((start, count))
    }

    /// The end of the range that holds an element; `None` if it is not in the set.
    #[must_use]
    pub fn end_of(&self, element: u64) -> Option<u64> {
        let (_, &end) = self.ends.range(..=element).next_back()?;
        (element < end).then_some(end)
    }

    /// Whether all of `start..end` is in the set.
    #[must_use]
    pub fn covers(&self, start: u64, end: u64) -> bool {
        start >= end || self.end_of(start).is_some_and(|reached| reached >= end)
    }

    /// Whether an element is in the set.
    #[must_use]
    pub fn contains(&self, element: u64) -> bool {
        self.end_of(element).is_some()
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn behaves_like_a_set(operations in prop::collection::vec((any::<bool>(), 0u64..64, 0u64..16), 0..60)) {
            let mut ranges = RangeSet::new();
            let mut model = BTreeSet::new();
            for (insert, start, length) in operations {
                if insert {
                    ranges.insert(start, start + length);
                    model.extend(start..start + length);
                } else {
                    ranges.remove(start, start + length);
                    model.retain(|element| !(start..start + length).contains(element));
                }
                prop_assert_eq!(ranges.total(), model.len() as u64);
                for element in 0..90 {
                    prop_assert_eq!(ranges.contains(element), model.contains(&element));
                }
                let bounds: std::vec::Vec<_> = ranges.ends.iter().collect();
                prop_assert!(bounds.windows(2).all(|pair| pair[0].1 < pair[1].0), "adjacent ranges are merged");
            }
        }

        #[test]
        fn what_is_taken_was_there_and_is_gone(
            ranges in prop::collection::vec((0u64..256, 1u64..32), 1..8), length in 1u64..16, shift in 0u32..4,
        ) {
            let mut set = RangeSet::new();
            for (start, count) in ranges {
                set.insert(start, start + count);
            }
            let before = set.clone();
            if let Some(start) = set.take(length, 1 << shift) {
                prop_assert!(start.is_multiple_of(1 << shift));
                for element in start..start + length {
                    prop_assert!(before.contains(element) && !set.contains(element));
                }
                prop_assert_eq!(set.total() + length, before.total());
            } else {
                prop_assert_eq!(set, before);
            }
        }
    }
}
