//! Which addresses a flush is about. The processor's own translations are all forgotten at once; the process form, where
//! each costs more to find again, forgets these only.

use alloc::vec::Vec;

/// Ranges that are kept apart; more grow together.
const RANGES_MAX: usize = 32;

/// Ranges of addresses.
#[derive(Debug, Default)]
pub(super) struct Stale {
    ranges: Vec<(u64, u64)>,
}

impl Stale {
    /// Adds a range.
    pub(super) fn add(&mut self, start: u64, end: u64) {
        let is_full = self.ranges.len() >= RANGES_MAX;
        match self.ranges.last_mut() {
            Some(last) if is_full || (start <= last.1 && end >= last.0) => {
                *last = (last.0.min(start), last.1.max(end));
            }
            _ => self.ranges.push((start, end)),
        }
    }

    /// The ranges, start and end of each.
    pub(super) fn ranges(&self) -> &[(u64, u64)] {
        &self.ranges
    }

    /// Forgets them.
    pub(super) fn clear(&mut self) {
        self.ranges.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_grow_together_and_none_is_lost() {
        let mut stale = Stale::default();
        for page in 0..100 {
            stale.add(page * 0x1000, (page + 1) * 0x1000);
        }
        assert_eq!(stale.ranges(), [(0, 100 * 0x1000)]);
        stale.clear();
        for page in 0..100 {
            stale.add(page * 0x2000, page * 0x2000 + 0x1000);
        }
        assert!(stale.ranges().len() <= RANGES_MAX);
        for page in 0..100 {
            let is_in = |&(start, end): &(u64, u64)| start <= page * 0x2000 && page * 0x2000 + 0x1000 <= end;
            assert!(stale.ranges().iter().any(is_in), "{page}");
        }
    }
}
