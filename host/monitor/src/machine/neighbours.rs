//! Memory that a copy of a snapshot gets ahead: what its guest will need, and what lies beside that.
//!
//! KVM with shadow page tables translates a page at a fault, some 6 to 14 µs on a PVM host, and the neighbours of that
//! page with it: those of the same aligned group of eight that this process could write to at once, from the first of the
//! group on, up to the first one which is not such (Linux, `direct_pte_prefetch` and `FNAME(pte_prefetch)` in
//! arch/x86/kvm/mmu). One page that is not there keeps all others of its group from being found. A page more costs a copy,
//! some 2 µs.

use spore_abi::layout::PAGE_BYTES;

/// What KVM looks at together (`PTE_PREFETCH_NUM`), in bytes.
const GROUP_BYTES: u64 = 8 * PAGE_BYTES;

/// So little between two stretches is not left out: a mapping of the snapshot there costs what some fifteen copies of a page do.
const GAP_BYTES: u64 = 4 * PAGE_BYTES;

/// The stretches (start and length, in order, whole pages) with each group made whole of which they have two pages or
/// more, and with what little lies between, within a memory of so many bytes.
pub(super) fn with_neighbours(stretches: &[(u64, u64)], memory_bytes: u64) -> Vec<(u64, u64)> {
    let mut pieces = stretches
        .iter()
        .flat_map(|&(start, length)| pieces(start, start.saturating_add(length).min(memory_bytes)))
        .peekable();
    let mut widened: Vec<(u64, u64)> = Vec::with_capacity(stretches.len());
    while let Some((start, end)) = pieces.next() {
        let group = start - start % GROUP_BYTES;
        let mut written_bytes = end - start;
        let is_of_group = |&(next, _): &(u64, u64)| next >= end && next - group < GROUP_BYTES;
        while let Some((next, next_end)) = pieces.next_if(is_of_group) {
            written_bytes += next_end - next;
        }
        match written_bytes > PAGE_BYTES {
            true => add(&mut widened, group, (group + GROUP_BYTES).min(memory_bytes)),
            false => add(&mut widened, start, end),
        }
    }
    widened
}

/// A stretch, cut where groups end.
fn pieces(start: u64, end: u64) -> impl Iterator<Item = (u64, u64)> {
    let mut at = start;
    std::iter::from_fn(move || {
        let piece = (at, (at - at % GROUP_BYTES + GROUP_BYTES).min(end));
        at = piece.1;
        (piece.0 < piece.1).then_some(piece)
    })
}

fn add(stretches: &mut Vec<(u64, u64)>, start: u64, end: u64) {
    match stretches.last_mut() {
        Some((last, so_far)) if start - (*last + *so_far) <= GAP_BYTES => *so_far = end - *last,
        _ => stretches.push((start, end - start)),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pages(stretches: &[(u64, u64)]) -> Vec<(u64, u64)> {
        let page = |&(start, count): &(u64, u64)| (start * PAGE_BYTES, count * PAGE_BYTES);
        stretches.iter().map(page).collect()
    }

    #[test]
    fn groups_of_which_two_pages_are_written_to_are_whole() {
        let widened =
            |stretches: &[(u64, u64)], memory| with_neighbours(&pages(stretches), memory * PAGE_BYTES);
        assert_eq!(
            widened(&[(3, 1), (9, 1)], 64),
            pages(&[(3, 1), (9, 1)]),
            "lone pages"
        );
        assert_eq!(
            widened(&[(3, 1), (8, 1)], 64),
            pages(&[(3, 6)]),
            "and what little is between them"
        );
        assert_eq!(widened(&[(3, 1), (5, 1)], 64), pages(&[(0, 8)]));
        assert_eq!(widened(&[(6, 4)], 64), pages(&[(0, 16)]));
        assert_eq!(widened(&[(6, 3), (20, 1)], 64), pages(&[(0, 9), (20, 1)]));
        assert_eq!(widened(&[(8, 3)], 12), pages(&[(8, 4)]), "up to the memory's end");
        assert_eq!(
            widened(&[(8, 8), (30, 9)], 31),
            pages(&[(8, 8), (30, 1)]),
            "not beyond it"
        );
        assert_eq!(widened(&[(40, 2)], 31), [], "nor there");
    }

    proptest! {
        #[test]
        fn all_that_is_written_to_is_there_and_nothing_of_other_groups(
            written in proptest::collection::btree_set(0_u64..256, 0..80),
            memory in 1_u64..256,
        ) {
            let stretches: Vec<_> = written.iter().map(|&page| (page, 1)).collect();
            let widened = with_neighbours(&pages(&stretches), memory * PAGE_BYTES);
            let mut ahead = std::collections::BTreeSet::new();
            for (start, length) in widened {
                for page in start / PAGE_BYTES..(start + length) / PAGE_BYTES {
                    prop_assert!(page < memory);
                    prop_assert!(ahead.insert(page), "twice");
                }
            }
            let is_needed = |page: u64| {
                let group = written.iter().filter(|&&other| other < memory && other / 8 == page / 8);
                page < memory && (written.contains(&page) || group.count() > 1)
            };
            for page in 0..memory {
                let before = (1..=5).find(|&pages| pages > page || is_needed(page - pages));
                let after = (1..=5).find(|&pages| is_needed(page + pages));
                let is_between = before.zip(after).is_some_and(|(before, after)| before <= page && before + after <= 5);
                prop_assert_eq!(ahead.contains(&page), is_needed(page) || is_between, "{}", page);
            }
        }

        #[test]
        fn nothing_that_is_said_of_a_memory_matters_beyond_it(
            stretches in proptest::collection::vec((any::<u64>(), any::<u64>()), 0..20),
            memory in 0_u64..64,
        ) {
            let memory_bytes = memory * PAGE_BYTES;
            // As the daemon has made sure: in order, whole pages, within the memory.
            let mut end = 0;
            let in_order: Vec<_> = stretches.iter().map_while(|&(start, length)| {
                let start = end + start % 8 * PAGE_BYTES;
                let length = (length % 12 + 1) * PAGE_BYTES;
                end = start + length;
                (end <= memory_bytes).then_some((start, length))
            }).collect();
            let total: u64 = with_neighbours(&in_order, memory_bytes).iter().map(|(_, length)| length).sum();
            prop_assert!(total <= memory_bytes);
        }
    }
}
