//! Which pages of its memory the first copy of a snapshot reads: its page tables know.
//!
//! A page that is only read is one of the snapshot's file, read-only for this process. KVM with shadow page tables then
//! translates it alone, where a page of the copy's own would have been found with its neighbours
//! ([`super::neighbours`]). So copies get memory ahead for these too. The host's page map does not tell them: it
//! has whatever lay near them in the file.
//!
//! The accessed bits of a guest's tables are set beforehand, so that the processor need not write to a table. In a first copy
//! they are cleared before it runs, and read when it has given its answer. Tables are a guest's, and hostile: whatever they
//! say, only tables within the memory are looked at, each once.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};

use spore_abi::layout::PAGE_BYTES;

use super::Machine;
use crate::memory::{OutOfRange, Region};
use crate::tables::{LARGE, PRESENT};
use crate::written::add;

const ACCESSED: u64 = 1 << 5;
const DIRTY: u64 = 1 << 6;
/// Where an entry leads.
const FRAME: u64 = 0x000f_ffff_ffff_f000;
/// Entries of a table.
const ENTRIES: u64 = 512;
/// Most tables that are looked at: those of 8 GiB in small pages.
const TABLES_MAX: usize = 4096;

/// The tables of a guest that was about to run, with what they said but for who was accessed.
#[derive(Debug)]
pub(super) struct Unaccessed(BTreeMap<u64, u64>);

impl Machine {
    /// Begins to find out what the guest reads.
    pub(super) fn forget_accesses(&mut self) -> Result<(), OutOfRange> {
        let top = self.special.cr3 & FRAME;
        let mut known = BTreeMap::new();
        for (table, level) in tables(&self.ram, top)? {
            known.insert(table, digest(&self.ram, table)?);
            if level > 1 {
                continue;
            }
            for index in 0..ENTRIES {
                let entry: u64 = self.ram.read(table + index * 8)?;
                if entry & PRESENT != 0 && entry & ACCESSED != 0 {
                    self.ram.write(table + index * 8, entry & !ACCESSED)?;
                }
            }
        }
        self.unaccessed = Some(Unaccessed(known));
        Ok(())
    }

    /// The stretches (start and length) of its memory that the guest has needed so far, if `own` are those that are this
    /// process's own, in order: those it has written to, and those it has read by small pages.
    pub(crate) fn needed(&mut self, own: Vec<(u64, u64)>) -> Vec<(u64, u64)> {
        match self.unaccessed.take() {
            Some(before) => needed(&self.ram, self.special.cr3 & FRAME, &before, &own).unwrap_or(own),
            None => own,
        }
    }
}

fn needed(
    ram: &Region,
    top: u64,
    before: &Unaccessed,
    own: &[(u64, u64)],
) -> Result<Vec<(u64, u64)>, OutOfRange> {
    let mut pages = BTreeSet::new();
    for &(start, length) in own {
        pages.extend((start..start.saturating_add(length)).step_by(PAGE_BYTES as usize));
    }
    // They are this process's own for what was cleared in them, and nothing else.
    for (&table, &said) in &before.0 {
        if digest(ram, table)? == said {
            pages.remove(&table);
        }
    }
    for (table, level) in tables(ram, top)? {
        if level > 1 {
            continue;
        }
        for index in 0..ENTRIES {
            let entry: u64 = ram.read(table + index * 8)?;
            let frame = entry & FRAME;
            if entry & PRESENT != 0 && entry & ACCESSED != 0 && frame + PAGE_BYTES <= ram.length() {
                pages.insert(frame);
            }
        }
    }
    let mut stretches: Vec<(u64, u64)> = Vec::new();
    for page in pages {
        add(&mut stretches, page, PAGE_BYTES);
    }
    Ok(stretches)
}

/// The tables within the memory that the one at `top` leads to, itself among them, with their levels: 1 leads to small pages.
fn tables(ram: &Region, top: u64) -> Result<BTreeMap<u64, u32>, OutOfRange> {
    let mut found = BTreeMap::from([(top, 4)]);
    let mut next = vec![(top, 4)];
    while let Some((table, level)) = next.pop() {
        if level == 1 {
            continue;
        }
        for index in 0..ENTRIES {
            let entry: u64 = ram.read(table + index * 8)?;
            let below = entry & FRAME;
            let is_table = entry & PRESENT != 0 && entry & LARGE == 0 && below + PAGE_BYTES <= ram.length();
            if is_table && found.len() < TABLES_MAX && !found.contains_key(&below) {
                found.insert(below, level - 1);
                next.push((below, level - 1));
            }
        }
    }
    Ok(found)
}

/// What a table says, but for what the processor notes in it.
fn digest(ram: &Region, table: u64) -> Result<u64, OutOfRange> {
    let mut hasher = DefaultHasher::new();
    for index in 0..ENTRIES {
        (ram.read::<u64>(table + index * 8)? & !(ACCESSED | DIRTY)).hash(&mut hasher);
    }
    Ok(hasher.finish())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: u64 = PRESENT | ACCESSED;

    /// A memory of 64 pages whose first four are tables, one below the other; the last has these entries.
    fn memory(entries: &[(u64, u64)]) -> Region {
        let ram = Region::anonymous(64 << 12, 4096).unwrap();
        for level in 0..3 {
            ram.write(level * PAGE_BYTES, ((level + 1) * PAGE_BYTES) | TABLE)
                .unwrap();
        }
        for &(index, entry) in entries {
            ram.write(3 * PAGE_BYTES + index * 8, entry).unwrap();
        }
        ram
    }

    fn before(ram: &Region) -> Unaccessed {
        let tables = tables(ram, 0).unwrap();
        Unaccessed(
            tables
                .keys()
                .map(|&table| (table, digest(ram, table).unwrap()))
                .collect(),
        )
    }

    #[test]
    fn what_was_read_is_needed_beside_what_was_written_to() {
        let page = |number: u64| number * PAGE_BYTES;
        let ram = memory(&[
            (0, page(9) | PRESENT),
            (1, page(10) | PRESENT),
            (2, page(20) | PRESENT),
        ]);
        let before = before(&ram);
        let own = [(0, page(4)), (page(11), page(2))];
        assert_eq!(needed(&ram, 0, &before, &own).unwrap(), [(page(11), page(2))]);
        // The second was read, and so was something beyond the memory; the first is written to by its own table's entry.
        ram.write(3 * PAGE_BYTES + 8, page(10) | TABLE).unwrap();
        ram.write(3 * PAGE_BYTES + 24, page(64) | TABLE).unwrap();
        let found = needed(&ram, 0, &before, &own).unwrap();
        assert_eq!(found, [(page(3), page(1)), (page(10), page(3))]);
    }

    #[test]
    fn tables_that_lead_to_themselves_and_nowhere_are_looked_at_once() {
        let ram = memory(&[]);
        ram.write(8, TABLE).unwrap();
        ram.write(PAGE_BYTES + 8, FRAME | TABLE).unwrap();
        ram.write(PAGE_BYTES + 16, PAGE_BYTES | TABLE).unwrap();
        let found = tables(&ram, 0).unwrap();
        assert_eq!(
            found.into_iter().collect::<Vec<_>>(),
            [(0, 4), (PAGE_BYTES, 3), (2 * PAGE_BYTES, 2), (3 * PAGE_BYTES, 1)]
        );
    }
}
