//! Writes what is new of a tree: inodes, folders, and block 0.
//!
//! ```text
//!   │ contents of files │ inodes, each in one block, with links and small folders │ large folders │
//! ```

use std::io::Write;
use std::os::unix::fs::FileExt;

use super::Reason;
use super::tree::{Attributes, Contents, FILE_ENTRY, FOLDER_ENTRY, Folder, Head, LINK_ENTRY, Node, Other};
use crate::erofs::{
    BLOCK_BYTES, BLOCKS_AT, CHECKSUM_AT, ENTRY_BYTES, EXTENDED_BYTES, FEATURES_AT, INLINE, INODE_UNIT_BYTES,
    INODES_AT, PLAIN, ReadError, SUPERBLOCK_OFFSET, u32_at, u64_at,
};
use crate::image::IMAGE_BYTES_MAX;

/// Longest folder that lies behind its inode, in bytes.
const INLINE_FOLDER_BYTES_MAX: usize = 2048;
/// The feature that the superblock and what else is in its block have a checksum.
const CHECKSUM_FEATURE: u32 = 1;
/// No block.
const NO_BLOCK: u64 = u32::MAX as u64;
const BLOCK: usize = BLOCK_BYTES as usize;

/// An entry of a folder: name, number of the inode, kind.
type Entry<'t> = (&'t [u8], u64, u8);

/// A folder that is to be written.
struct PlannedFolder<'t> {
    folder: &'t Folder,
    /// Number of its inode.
    number: u64,
    /// Where its inode is among the new ones; none of the root, which stays where it is.
    inode_at: Option<usize>,
    /// Its length, in bytes.
    bytes: usize,
    entries: Vec<Entry<'t>>,
}

/// Where everything will be.
struct Plan<'t> {
    first_block: u64,
    /// Bytes of inodes and what lies behind them.
    bytes: usize,
    folders: Vec<PlannedFolder<'t>>,
    others: &'t [Other],
    /// Where the inodes of the others are, as far as they have names.
    places: Vec<Option<usize>>,
}

impl Head<'_> {
    /// Writes the rest; the length of the whole image, in bytes. The file is then complete, and not yet on the disk.
    ///
    /// # Errors
    ///
    /// If the whole image has to be made.
    pub fn finish(mut self) -> Result<u64, Reason> {
        let root_number = self.base.root;
        let root_at = (root_number * INODE_UNIT_BYTES) as usize;
        let base_root = self.base.root()?;
        // All files of an image belong to one user.
        let owner = (base_root.user, base_root.group);
        if !base_root.is_plain_extended || root_at + EXTENDED_BYTES > BLOCK {
            let what = "where its root is";
            return Err(Reason::Base(ReadError::Unknown { what }));
        }
        let mut plan = Plan {
            first_block: self.next_block,
            bytes: 0,
            folders: Vec::new(),
            others: &self.others,
            places: vec![None; self.others.len()],
        };
        plan.make(&self.root, root_number);

        let mut first = self.base.read_block(0)?;
        let mut inodes = vec![0; plan.bytes.next_multiple_of(BLOCK)];
        let mut large = Vec::new();
        let large_block = self.next_block + (inodes.len() / BLOCK) as u64;
        let serial = u64_at(&self.base.superblock, INODES_AT);
        let mut count = 0;
        for (other, place) in plan.others.iter().zip(&plan.places) {
            let Some(at) = *place else { continue };
            count += 1;
            let (layout, bytes, block) = match &other.contents {
                Contents::Blocks { bytes: 0, .. } => (PLAIN, 0, NO_BLOCK),
                Contents::Blocks { first, bytes } => (PLAIN, *bytes, *first),
                Contents::Link(target) => {
                    let behind = at + EXTENDED_BYTES;
                    inodes[behind..behind + target.len()].copy_from_slice(target);
                    (INLINE, target.len() as u64, NO_BLOCK)
                }
            };
            let inode = inode_bytes(
                &other.attributes,
                owner,
                layout,
                other.links,
                bytes,
                block,
                serial.wrapping_add(count),
            );
            inodes[at..at + EXTENDED_BYTES].copy_from_slice(&inode);
        }
        for planned in &plan.folders {
            count += 1;
            let content = planned.content();
            let bytes = content.len() as u64;
            let attributes = &planned.folder.attributes;
            let is_inline = planned.is_inline();
            let (layout, block) = if is_inline {
                (INLINE, NO_BLOCK)
            } else {
                (PLAIN, large_block + (large.len() / BLOCK) as u64)
            };
            let inode = inode_bytes(
                attributes,
                owner,
                layout,
                planned.links(),
                bytes,
                block,
                serial.wrapping_add(count),
            );
            match planned.inode_at {
                None => first[root_at..root_at + EXTENDED_BYTES].copy_from_slice(&inode),
                Some(at) => inodes[at..at + EXTENDED_BYTES].copy_from_slice(&inode),
            }
            match planned.inode_at {
                Some(at) if is_inline => {
                    let behind = at + EXTENDED_BYTES;
                    inodes[behind..behind + content.len()].copy_from_slice(&content);
                }
                _ => {
                    large.extend_from_slice(&content);
                    large.resize(large.len().next_multiple_of(BLOCK), 0);
                }
            }
        }
        let blocks = large_block + (large.len() / BLOCK) as u64;
        if blocks * BLOCK_BYTES > IMAGE_BYTES_MAX || blocks >= NO_BLOCK {
            return Err(Reason::TooLarge);
        }
        let superblock = SUPERBLOCK_OFFSET as usize;
        let features = u32_at(&first, superblock + FEATURES_AT) & !CHECKSUM_FEATURE;
        put(&mut first, superblock + FEATURES_AT, &features.to_le_bytes());
        put(&mut first, superblock + CHECKSUM_AT, &[0; 4]);
        put(&mut first, superblock + BLOCKS_AT, &(blocks as u32).to_le_bytes());
        put(
            &mut first,
            superblock + INODES_AT,
            &serial.saturating_add(count).to_le_bytes(),
        );
        self.file.write_all(&inodes)?;
        self.file.write_all(&large)?;
        self.file.flush()?;
        self.file.get_ref().write_all_at(&first, 0)?;
        Ok(blocks * BLOCK_BYTES)
    }
}

impl<'t> Plan<'t> {
    /// Finds places for the inodes of all that is new, and a number for each entry of a folder; the root is first.
    fn make(&mut self, root: &'t Folder, root_number: u64) {
        self.folders
            .push(PlannedFolder::new(root, root_number, root_number));
        let mut done = 0;
        while done < self.folders.len() {
            let (folder, above) = (self.folders[done].folder, self.folders[done].number);
            let mut entries = std::mem::take(&mut self.folders[done].entries);
            for (name, number, kind) in &mut entries {
                match folder.children.get(*name) {
                    // Itself, and the one above.
                    None => {}
                    Some(Node::Base { inode, file_type }) => (*number, *kind) = (*inode, *file_type),
                    Some(Node::Folder(inner)) => {
                        (*number, *kind) = (self.place_folder(inner, above), FOLDER_ENTRY);
                    }
                    Some(Node::Other(index)) => (*number, *kind) = self.place_other(*index),
                }
            }
            self.folders[done].entries = entries;
            done += 1;
        }
    }

    fn place_folder(&mut self, folder: &'t Folder, above: u64) -> u64 {
        let mut planned = PlannedFolder::new(folder, 0, above);
        let behind = if planned.bytes <= INLINE_FOLDER_BYTES_MAX {
            planned.bytes
        } else {
            0
        };
        let at = self.place(behind);
        let number = self.number(at);
        (planned.inode_at, planned.number) = (Some(at), number);
        let own = planned.entries.iter_mut().find(|(name, ..)| *name == b".");
        own.into_iter().for_each(|entry| entry.1 = number);
        self.folders.push(planned);
        number
    }

    fn place_other(&mut self, index: usize) -> (u64, u8) {
        let (behind, kind) = match &self.others[index].contents {
            Contents::Blocks { .. } => (0, FILE_ENTRY),
            Contents::Link(target) => (target.len(), LINK_ENTRY),
        };
        let at = self.places[index].unwrap_or_else(|| self.place(behind));
        self.places[index] = Some(at);
        (self.number(at), kind)
    }

    /// Room for an inode with so many bytes behind it, which lies in one block.
    fn place(&mut self, behind: usize) -> usize {
        let bytes = EXTENDED_BYTES + behind;
        if self.bytes % BLOCK + bytes > BLOCK {
            self.bytes = self.bytes.next_multiple_of(BLOCK);
        }
        let at = self.bytes;
        self.bytes = (at + bytes).next_multiple_of(INODE_UNIT_BYTES as usize);
        at
    }

    fn number(&self, at: usize) -> u64 {
        (self.first_block * BLOCK_BYTES + at as u64) / INODE_UNIT_BYTES
    }
}

impl<'t> PlannedFolder<'t> {
    fn new(folder: &'t Folder, number: u64, above: u64) -> Self {
        let mut entries = vec![(&b"."[..], number, FOLDER_ENTRY), (b"..", above, FOLDER_ENTRY)];
        entries.extend(folder.children.keys().map(|name| (name.as_slice(), 0, 0)));
        entries.sort_unstable_by_key(|(name, ..)| *name);
        let blocks = blocks(&entries);
        let last = blocks.last().map_or(0, |block| entries_bytes(block));
        let bytes = blocks.len().saturating_sub(1) * BLOCK + last;
        Self {
            folder,
            number,
            inode_at: None,
            bytes,
            entries,
        }
    }

    /// Whether it lies behind its inode.
    fn is_inline(&self) -> bool {
        self.inode_at.is_some() && self.bytes <= INLINE_FOLDER_BYTES_MAX
    }

    /// Names of how many folders lead to it: those in it, its own, and the one above.
    fn links(&self) -> u32 {
        self.entries
            .iter()
            .filter(|(.., kind)| *kind == FOLDER_ENTRY)
            .count() as u32
    }

    /// Its blocks, of which only the last ends where its names end.
    fn content(&self) -> Vec<u8> {
        let mut content = Vec::with_capacity(self.bytes);
        for block in blocks(&self.entries) {
            content.resize(content.len().next_multiple_of(BLOCK), 0);
            let mut name_at = block.len() * ENTRY_BYTES;
            for (name, inode, kind) in block {
                content.extend_from_slice(&inode.to_le_bytes());
                content.extend_from_slice(&(name_at as u16).to_le_bytes());
                content.extend_from_slice(&[*kind, 0]);
                name_at += name.len();
            }
            block
                .iter()
                .for_each(|(name, ..)| content.extend_from_slice(name));
        }
        content
    }
}

fn entries_bytes(entries: &[Entry<'_>]) -> usize {
    entries.iter().map(|(name, ..)| ENTRY_BYTES + name.len()).sum()
}

/// Entries as they are in blocks.
fn blocks<'e, 't>(entries: &'e [Entry<'t>]) -> Vec<&'e [Entry<'t>]> {
    let mut blocks = Vec::new();
    let (mut start, mut used) = (0, 0);
    for (index, (name, ..)) in entries.iter().enumerate() {
        let bytes = ENTRY_BYTES + name.len();
        if used + bytes > BLOCK {
            blocks.push(&entries[start..index]);
            (start, used) = (index, 0);
        }
        used += bytes;
    }
    blocks.push(&entries[start..]);
    blocks
}

/// An inode in its long form.
fn inode_bytes(
    attributes: &Attributes,
    (user, group): (u32, u32),
    layout: u16,
    links: u32,
    bytes: u64,
    block: u64,
    serial: u64,
) -> [u8; EXTENDED_BYTES] {
    let mut inode = [0; EXTENDED_BYTES];
    put(&mut inode, 0, &(layout << 1 | 1).to_le_bytes());
    put(&mut inode, 4, &attributes.mode.to_le_bytes());
    put(&mut inode, 8, &bytes.to_le_bytes());
    put(&mut inode, 16, &(block as u32).to_le_bytes());
    put(&mut inode, 20, &(serial as u32).to_le_bytes());
    put(&mut inode, 24, &user.to_le_bytes());
    put(&mut inode, 28, &group.to_le_bytes());
    put(&mut inode, 32, &attributes.modified_s.to_le_bytes());
    put(&mut inode, 40, &attributes.modified_ns.to_le_bytes());
    put(&mut inode, 44, &links.to_le_bytes());
    inode
}

fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    bytes[at..at + value.len()].copy_from_slice(value);
}
