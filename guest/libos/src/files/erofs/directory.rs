//! Directories: blocks of sorted entries, searched by bisection.

use alloc::vec::Vec;

use super::{Errno, Image, Inode, Source, u16_at, u64_at};

const ENTRY_BYTES: usize = 12;
/// Longest name.
pub(crate) const NAME_BYTES_MAX: usize = 255;

/// An entry of a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DirectoryEntry {
    pub(crate) name: Vec<u8>,
    /// Number of the inode that it leads to.
    pub(crate) inode: u64,
    /// Kind of file, as the image has it (`FT_*`, which is not `DT_*`).
    pub(crate) file_type: u8,
    /// Where the directory goes on behind it.
    pub(crate) next: u64,
}

/// A block of a directory, of which only what is asked for is read.
struct Block {
    /// Where it is in the image.
    offset: u64,
    /// How many bytes of it there are.
    bytes: usize,
    /// How many entries.
    count: usize,
}

impl<S: Source> Image<S> {
    /// The inode number and kind of the file with this name, if there is one.
    pub(crate) fn lookup(&self, directory: &Inode, name: &[u8]) -> Result<Option<(u64, u8)>, Errno> {
        // The last block whose first name is not greater.
        let (mut low, mut high) = (0, directory.size.div_ceil(self.block_bytes()));
        let mut found = None;
        let mut buffer = [0; NAME_BYTES_MAX];
        while low < high {
            let middle = low + (high - low) / 2;
            let block = self.block(directory, middle)?;
            let (length, _) = self.name(&block, 0, &mut buffer)?;
            match buffer[..length].cmp(name) {
                core::cmp::Ordering::Greater => high = middle,
                _ => {
                    low = middle + 1;
                    found = Some(block);
                }
            }
        }
        let Some(block) = found else { return Ok(None) };
        let (mut low, mut high) = (0, block.count);
        while low < high {
            let middle = low + (high - low) / 2;
            let (length, entry) = self.name(&block, middle, &mut buffer)?;
            match buffer[..length].cmp(name) {
                core::cmp::Ordering::Greater => high = middle,
                core::cmp::Ordering::Less => low = middle + 1,
                core::cmp::Ordering::Equal => return Ok(Some((u64_at(&entry, 0), entry[10]))),
            }
        }
        Ok(None)
    }

    /// The entry at a position (0, or one that [`DirectoryEntry::next`] gave), if the directory has one more.
    pub(crate) fn entry(&self, directory: &Inode, position: u64) -> Result<Option<DirectoryEntry>, Errno> {
        let mut position = position;
        let mut buffer = [0; NAME_BYTES_MAX];
        while position < directory.size {
            let number = position >> self.block_bits;
            let index = (position % self.block_bytes()) as usize / ENTRY_BYTES;
            let block = self.block(directory, number)?;
            let next_block = (number + 1) << self.block_bits;
            if index >= block.count {
                position = next_block;
                continue;
            }
            let (length, entry) = self.name(&block, index, &mut buffer)?;
            let next = (number << self.block_bits) + ((index + 1) * ENTRY_BYTES) as u64;
            return Ok(Some(DirectoryEntry {
                name: buffer[..length].to_vec(),
                inode: u64_at(&entry, 0),
                file_type: entry[10],
                next: if index + 1 < block.count { next } else { next_block },
            }));
        }
        Ok(None)
    }

    fn block(&self, directory: &Inode, number: u64) -> Result<Block, Errno> {
        let position = number << self.block_bits;
        let bytes = directory.size.saturating_sub(position).min(self.block_bytes()) as usize;
        let extent = self.map(directory, position)?;
        if bytes < ENTRY_BYTES || extent.bytes < bytes as u64 {
            return Err(Errno::EUCLEAN);
        }
        let offset = extent.offset.ok_or(Errno::EUCLEAN)?;
        let mut first = [0; ENTRY_BYTES];
        self.read_exact(offset, &mut first)?;
        let names_start = usize::from(u16_at(&first, 8));
        if names_start == 0 || !names_start.is_multiple_of(ENTRY_BYTES) || names_start >= bytes {
            return Err(Errno::EUCLEAN);
        }
        Ok(Block {
            offset,
            bytes,
            count: names_start / ENTRY_BYTES,
        })
    }

    /// Copies the name of an entry; returns its length and the entry itself.
    fn name(
        &self,
        block: &Block,
        index: usize,
        buffer: &mut [u8; NAME_BYTES_MAX],
    ) -> Result<(usize, [u8; ENTRY_BYTES]), Errno> {
        let mut entries = [0; 2 * ENTRY_BYTES];
        let is_last = index + 1 >= block.count;
        let length = if is_last { ENTRY_BYTES } else { 2 * ENTRY_BYTES };
        self.read_exact(
            block.offset + (index * ENTRY_BYTES) as u64,
            &mut entries[..length],
        )?;
        let start = usize::from(u16_at(&entries, 8));
        let end = if is_last {
            block.bytes
        } else {
            usize::from(u16_at(&entries, ENTRY_BYTES + 8))
        };
        if start < block.count * ENTRY_BYTES || end > block.bytes || start >= end {
            return Err(Errno::EUCLEAN);
        }
        let room = (end - start).min(NAME_BYTES_MAX);
        let name = &mut buffer[..room];
        self.read_exact(block.offset + start as u64, name)?;
        // The last name ends with the block, or with a zero.
        let length = if is_last {
            name.iter().position(|&byte| byte == 0).unwrap_or(room)
        } else {
            room
        };
        if length == 0 || end - start > NAME_BYTES_MAX && !is_last || name[..length].contains(&b'/') {
            return Err(Errno::EUCLEAN);
        }
        let mut entry = [0; ENTRY_BYTES];
        entry.copy_from_slice(&entries[..ENTRY_BYTES]);
        Ok((length, entry))
    }
}
