//! The latest of something, as many as there is room for. Pure.

use std::collections::VecDeque;

/// Entries in the order in which they came; the oldest gives way.
#[derive(Debug)]
pub(crate) struct Recent<T, const MAX: usize> {
    entries: VecDeque<T>,
    /// How many there were before the oldest that is kept.
    gone: u64,
}

impl<T, const MAX: usize> Default for Recent<T, MAX> {
    /// Takes no memory before the first entry.
    fn default() -> Self {
        Self {
            entries: VecDeque::new(),
            gone: 0,
        }
    }
}

impl<T, const MAX: usize> Recent<T, MAX> {
    /// Adds one.
    pub(crate) fn add(&mut self, entry: T) {
        if self.entries.len() >= MAX {
            self.entries.pop_front();
            self.gone += 1;
        }
        self.entries.push_back(entry);
    }

    /// The oldest first, each with its number: how many came before it.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u64, &T)> {
        (self.gone..).zip(&self.entries)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_latest_are_kept_in_their_order(count in 0..20_u64) {
            let mut recent = Recent::<u64, 5>::default();
            (0..count).for_each(|entry| recent.add(entry));
            let kept: Vec<_> = recent.iter().map(|(number, entry)| (number, *entry)).collect();
            let expected: Vec<_> = (count.saturating_sub(5)..count).map(|entry| (entry, entry)).collect();
            prop_assert_eq!(kept, expected);
        }
    }
}
