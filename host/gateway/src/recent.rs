//! The latest of something, as many as there is room for. Pure.

use std::collections::VecDeque;

/// Entries in the order in which they came; the oldest gives way.
#[derive(Debug)]
pub(crate) struct Recent<T, const MAX: usize>(VecDeque<T>);

impl<T, const MAX: usize> Default for Recent<T, MAX> {
    /// Takes no memory before the first entry.
    fn default() -> Self {
        Self(VecDeque::new())
    }
}

impl<T, const MAX: usize> Recent<T, MAX> {
    /// Adds one.
    pub(crate) fn add(&mut self, entry: T) {
        if self.0.len() >= MAX {
            self.0.pop_front();
        }
        self.0.push_back(entry);
    }

    /// The oldest first.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        self.0.iter()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_latest_are_kept_in_their_order(count in 0..20_usize) {
            let mut recent = Recent::<usize, 5>::default();
            (0..count).for_each(|entry| recent.add(entry));
            let kept: Vec<_> = recent.iter().copied().collect();
            let expected: Vec<_> = (count.saturating_sub(5)..count).collect();
            prop_assert_eq!(kept, expected);
        }
    }
}
