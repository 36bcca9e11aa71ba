//! Reads EROFS images: the root file system as the host maps it. Pure: everything comes from a [`Source`].
//!
//! Images are made by anybody. Every offset and length is checked before use, every loop is bounded by the size of
//! what it walks, and damage is an [`Errno::EUCLEAN`] or [`Errno::EIO`].
//!
//! Served: compact and extended inodes, contents that are plain, inline or in chunks, directories, symbolic links,
//! special files. Not served: compression, further devices; an image that needs them is refused when it is opened.
//! Extended attributes are passed over.

mod directory;
mod inode;
#[cfg(test)]
mod tests;

use linux_raw_sys::general::S_IFMT;

use crate::errno::Errno;
#[cfg(test)]
use directory::DirectoryEntry;
pub(crate) use directory::NAME_BYTES_MAX;
pub(crate) use inode::Inode;

/// Where the superblock is.
const SUPERBLOCK_OFFSET: u64 = 1024;
const SUPERBLOCK_BYTES: usize = 128;
const MAGIC: u32 = 0xe0f5_e1e2;
/// Incompatible features that make no difference to what is read here: padding of compressed data (there is none),
/// contents in chunks, prefixes of extended attributes.
const FEATURES_SERVED: u32 = 0x1 | 0x4 | 0x40;
/// Inode numbers count units of this many bytes.
const INODE_UNIT_BYTES: u64 = 32;

/// Where an image's bytes come from.
pub(crate) trait Source {
    /// Fills `buffer` with the bytes at `offset`; `false` if there are not so many.
    fn read(&self, offset: u64, buffer: &mut [u8]) -> bool;
}

/// An image, opened.
#[derive(Debug)]
pub(crate) struct Image<S> {
    source: S,
    /// Logarithm of the size of a block.
    block_bits: u32,
    /// Where inodes are counted from.
    inodes_offset: u64,
    root: u64,
    build_time_ns: u64,
}

/// A stretch of a file's contents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Extent {
    /// Where it is in the image; `None` for a hole.
    pub(crate) offset: Option<u64>,
    /// How many bytes from the asked position on.
    pub(crate) bytes: u64,
}

/// Reads a field of a structure that was read whole.
fn field<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut value = [0; N];
    if let Some(part) = bytes.get(at..at + N) {
        value.copy_from_slice(part);
    }
    value
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(field(bytes, at))
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(field(bytes, at))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(field(bytes, at))
}

impl<S: Source> Image<S> {
    /// Opens an image.
    pub(crate) fn open(source: S) -> Result<Self, Errno> {
        let mut superblock = [0; SUPERBLOCK_BYTES];
        if !source.read(SUPERBLOCK_OFFSET, &mut superblock) {
            return Err(Errno::EINVAL);
        }
        let block_bits = u32::from(superblock[12]);
        let is_served = u32_at(&superblock, 80) & !FEATURES_SERVED == 0
            && u16_at(&superblock, 86) == 0
            && superblock[90] == 0
            && (9..=12).contains(&block_bits);
        if u32_at(&superblock, 0) != MAGIC || !is_served {
            return Err(Errno::EINVAL);
        }
        let seconds_ns = u64_at(&superblock, 24).saturating_mul(crate::time::SECOND_NS);
        let image = Self {
            source,
            block_bits,
            inodes_offset: u64::from(u32_at(&superblock, 40)) << block_bits,
            root: u64::from(u16_at(&superblock, 14)),
            build_time_ns: seconds_ns.saturating_add(u64::from(u32_at(&superblock, 32))),
        };
        if image.inode(image.root)?.mode & S_IFMT != linux_raw_sys::general::S_IFDIR {
            return Err(Errno::EUCLEAN);
        }
        Ok(image)
    }

    /// The number of the root directory's inode.
    pub(crate) fn root(&self) -> u64 {
        self.root
    }

    fn block_bytes(&self) -> u64 {
        1 << self.block_bits
    }

    fn read_exact(&self, offset: u64, buffer: &mut [u8]) -> Result<(), Errno> {
        if self.source.read(offset, buffer) {
            Ok(())
        } else {
            Err(Errno::EIO)
        }
    }

    /// Copies contents of a file from `position` on; returns how much there was.
    pub(crate) fn read(&self, inode: &Inode, position: u64, buffer: &mut [u8]) -> Result<usize, Errno> {
        let wanted = inode.size.saturating_sub(position).min(buffer.len() as u64) as usize;
        let mut done = 0;
        while done < wanted {
            let extent = self.map(inode, position + done as u64)?;
            let length = extent.bytes.min((wanted - done) as u64) as usize;
            if length == 0 {
                return Err(Errno::EUCLEAN);
            }
            let part = &mut buffer[done..done + length];
            match extent.offset {
                Some(offset) => self.read_exact(offset, part)?,
                None => part.fill(0),
            }
            done += length;
        }
        Ok(wanted)
    }
}
