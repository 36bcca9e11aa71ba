//! Which pages a copy of a snapshot does not have yet: a bit for each page of its memory. The guest takes a bit away when it
//! has copied the page.

use spore_abi::layout::PAGE_BYTES;
use spore_abi::process::{MISSING, PROCESS_PAGE};

use crate::memory::{OutOfRange, Region};

const BITS: u64 = u64::BITS as u64;
/// Words that are written at once: a page of them.
const CHUNK_WORDS: usize = 512;

/// A set of pages.
pub(super) struct Missing(Vec<u64>);

impl Missing {
    /// The empty set, of a memory of this size.
    pub(super) fn none_of(ram_bytes: u64) -> Self {
        let words = (ram_bytes / PAGE_BYTES).div_ceil(BITS);
        Self(vec![0; words as usize])
    }

    /// Adds the pages of a range, start and end, within the memory.
    pub(super) fn add(&mut self, (start, end): (u64, u64)) {
        for page in start / PAGE_BYTES..end / PAGE_BYTES {
            if let Some(word) = self.0.get_mut((page / BITS) as usize) {
                *word |= 1 << (page % BITS);
            }
        }
    }

    /// Takes those pages of a stretch (start and length) out that are in the set; the ranges that they make, start and end.
    pub(super) fn take(&mut self, (start, length): (u64, u64)) -> Vec<(u64, u64)> {
        let end = start.saturating_add(length) / PAGE_BYTES;
        let end = end.min(self.0.len() as u64 * BITS);
        let mut taken = Ranges::default();
        for page in start / PAGE_BYTES..end {
            let word = &mut self.0[(page / BITS) as usize];
            let bit = 1 << (page % BITS);
            if *word & bit != 0 {
                *word &= !bit;
                taken.add(page * PAGE_BYTES);
            }
        }
        taken.0
    }

    /// Shows the set to the guest, in an area that is zero.
    pub(super) fn write(&self, area: &Region) -> Result<(), OutOfRange> {
        for (index, words) in self.0.chunks(CHUNK_WORDS).enumerate() {
            if words.iter().any(|&word| word != 0) {
                let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
                area.write_bytes(place() + (index * CHUNK_WORDS * 8) as u64, &bytes)?;
            }
        }
        Ok(())
    }

    /// The stretches (start and length) of pages that were in the set and are not in the one that the guest shows: it has
    /// copied them, or says so.
    pub(super) fn copied(&self, area: &Region) -> Result<Vec<(u64, u64)>, OutOfRange> {
        let mut copied = Ranges::default();
        for (index, &before) in self.0.iter().enumerate().filter(|(_, word)| **word != 0) {
            let now: u64 = area.read(place() + index as u64 * 8)?;
            let gone = before & !now;
            let pages = (0..BITS).filter(|bit| gone >> bit & 1 != 0);
            pages.for_each(|bit| copied.add((index as u64 * BITS + bit) * PAGE_BYTES));
        }
        Ok(copied
            .0
            .iter()
            .map(|&(start, end)| (start, end - start))
            .collect())
    }
}

fn place() -> u64 {
    MISSING - PROCESS_PAGE
}

/// Pages in order, as ranges.
#[derive(Default)]
struct Ranges(Vec<(u64, u64)>);

impl Ranges {
    fn add(&mut self, page: u64) {
        match self.0.last_mut() {
            Some((_, end)) if *end == page => *end += PAGE_BYTES,
            _ => self.0.push((page, page + PAGE_BYTES)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use spore_abi::process::AREA_BYTES;

    const PAGE: u64 = PAGE_BYTES;

    #[test]
    fn what_the_guest_has_copied_is_what_it_has_taken_away() {
        let area = Region::anonymous(AREA_BYTES as usize, 4096).unwrap();
        let mut missing = Missing::none_of(1000 * PAGE);
        missing.add((10 * PAGE, 300 * PAGE));
        assert_eq!(
            missing.take((5 * PAGE, 10 * PAGE)),
            [(10 * PAGE, 15 * PAGE)],
            "only what is there"
        );
        assert!(missing.take((5 * PAGE, 10 * PAGE)).is_empty());
        missing.write(&area).unwrap();
        assert!(missing.copied(&area).unwrap().is_empty());
        // Pages 64 to 127, and 129.
        area.write(place() + 8, 0_u64).unwrap();
        area.write(place() + 16, !2_u64).unwrap();
        assert_eq!(
            missing.copied(&area).unwrap(),
            [(64 * PAGE, 64 * PAGE), (129 * PAGE, PAGE)],
            "and nothing that was never missing"
        );
    }

    #[test]
    fn nothing_is_beyond_the_memory_whatever_is_said() {
        let mut missing = Missing::none_of(100 * PAGE);
        missing.add((0, 100 * PAGE));
        assert_eq!(missing.take((50 * PAGE, u64::MAX)), [(50 * PAGE, 100 * PAGE)]);
        assert!(missing.take((u64::MAX - 5, 3)).is_empty());
    }
}
