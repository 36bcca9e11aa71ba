//! Reads EROFS images of the kind that [`make_image`](crate::make_image) makes: blocks of 4 KiB, inodes from block 0 on,
//! nothing compressed, in chunks, or on other devices.
//!
//! A file on a disk may be damaged: every offset and length is checked, and what is read is bounded by what it says it is.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;

/// Length of a block, in bytes.
pub(crate) const BLOCK_BYTES: u64 = 4096;
/// Where the superblock is, and its length.
pub(crate) const SUPERBLOCK_OFFSET: u64 = 1024;
pub(crate) const SUPERBLOCK_BYTES: usize = 128;
pub(crate) const SUPERBLOCK_MAGIC: u32 = 0xe0f5_e1e2;
/// Fields of the superblock: compatible features, checksum, logarithm of the block's length, number of the root's inode,
/// number of inodes, of blocks, first block of inodes, incompatible features, further devices, and the logarithm of how many
/// blocks a directory's block has.
pub(crate) const CHECKSUM_AT: usize = 4;
pub(crate) const FEATURES_AT: usize = 8;
const BLOCK_BITS_AT: usize = 12;
const ROOT_AT: usize = 14;
pub(crate) const INODES_AT: usize = 16;
const TIME_AT: usize = 24;
const TIME_NS_AT: usize = 32;
pub(crate) const BLOCKS_AT: usize = 36;
const INODES_BLOCK_AT: usize = 40;
const INCOMPATIBLE_AT: usize = 80;
const DEVICES_AT: usize = 86;
const DIRECTORY_BITS_AT: usize = 90;
/// Inode numbers count units of this many bytes.
pub(crate) const INODE_UNIT_BYTES: u64 = 32;
/// Lengths of the two forms of an inode.
const COMPACT_BYTES: usize = 32;
pub(crate) const EXTENDED_BYTES: usize = 64;
/// Forms of contents: in blocks of their own; the last part behind the inode.
pub(crate) const PLAIN: u16 = 0;
pub(crate) const INLINE: u16 = 2;
/// Length of a directory's entry without its name.
pub(crate) const ENTRY_BYTES: usize = 12;
/// Longest name, in bytes.
pub(crate) const NAME_BYTES_MAX: usize = 255;
/// Longest directory that is read, in bytes.
const DIRECTORY_BYTES_MAX: u64 = 64 << 20;
/// Most symbolic links on the way to a file, as in Linux.
const LINKS_MAX: usize = 40;
const PATH_BYTES_MAX: u64 = 4096;

const TYPE_MASK: u16 = 0o170_000;
pub(crate) const FOLDER_TYPE: u16 = 0o040_000;
pub(crate) const FILE_TYPE: u16 = 0o100_000;
pub(crate) const LINK_TYPE: u16 = 0o120_000;

/// Why an image could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The file could not be read, or ends too early.
    #[error("the root file system cannot be read")]
    Io(#[from] io::Error),
    /// It is damaged, or of a kind that is not read here.
    #[error("the root file system is damaged, or of another kind: {what}")]
    Unknown {
        /// What is wrong with it.
        what: &'static str,
    },
}

fn unknown<T>(what: &'static str) -> Result<T, ReadError> {
    Err(ReadError::Unknown { what })
}

/// Where an image's bytes come from.
pub trait Blocks {
    /// Fills `bytes` with what is at `offset`.
    ///
    /// # Errors
    ///
    /// If there are not so many, or they cannot be read.
    fn read_exact_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()>;
}

impl Blocks for &File {
    fn read_exact_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        FileExt::read_exact_at(*self, bytes, offset)
    }
}

/// An image, opened.
#[derive(Debug)]
pub struct Image<B> {
    blocks: B,
    pub(crate) superblock: [u8; SUPERBLOCK_BYTES],
    pub(crate) root: u64,
    pub(crate) block_count: u64,
}

/// An inode, as far as it matters here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Inode {
    pub(crate) number: u64,
    /// Type and permission bits.
    pub mode: u16,
    /// The user that it belongs to.
    pub user: u32,
    /// The group that it belongs to.
    pub group: u32,
    /// Names that lead to it.
    pub links: u32,
    /// Length of its contents, in bytes.
    pub bytes: u64,
    /// Time of modification, in seconds since 1970.
    pub modified_s: u64,
    /// The part of it below a second.
    pub modified_ns: u32,
    pub(crate) is_plain_extended: bool,
    layout: u16,
    pointer: u32,
    tail_offset: u64,
}

impl Inode {
    /// Whether it is a folder.
    #[must_use]
    pub fn is_folder(&self) -> bool {
        self.mode & TYPE_MASK == FOLDER_TYPE
    }

    /// Whether it is a regular file.
    #[must_use]
    pub fn is_file(&self) -> bool {
        self.mode & TYPE_MASK == FILE_TYPE
    }

    /// Whether it is a symbolic link.
    #[must_use]
    pub fn is_link(&self) -> bool {
        self.mode & TYPE_MASK == LINK_TYPE
    }
}

/// An entry of a folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FolderEntry {
    /// Its name.
    pub name: Vec<u8>,
    /// Number of the inode that it leads to.
    pub inode: u64,
    /// Its kind, as the image has it.
    pub file_type: u8,
}

pub(crate) fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(field(bytes, at))
}

pub(crate) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(field(bytes, at))
}

pub(crate) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(field(bytes, at))
}

fn field<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut value = [0; N];
    if let Some(part) = bytes.get(at..at + N) {
        value.copy_from_slice(part);
    }
    value
}

impl<B: Blocks> Image<B> {
    /// Opens an image.
    ///
    /// # Errors
    ///
    /// If it is none, or of a kind that is not read here.
    pub fn open(blocks: B) -> Result<Self, ReadError> {
        let mut superblock = [0; SUPERBLOCK_BYTES];
        blocks.read_exact_at(&mut superblock, SUPERBLOCK_OFFSET)?;
        let is_known = u32_at(&superblock, 0) == SUPERBLOCK_MAGIC
            && superblock[BLOCK_BITS_AT] == 12
            && u32_at(&superblock, INODES_BLOCK_AT) == 0
            && u32_at(&superblock, INCOMPATIBLE_AT) == 0
            && u16_at(&superblock, DEVICES_AT) == 0
            && superblock[DIRECTORY_BITS_AT] == 0;
        if !is_known {
            return unknown("its superblock");
        }
        let image = Self {
            blocks,
            superblock,
            root: u64::from(u16_at(&superblock, ROOT_AT)),
            block_count: u64::from(u32_at(&superblock, BLOCKS_AT)),
        };
        if !image.inode(image.root)?.is_folder() {
            return unknown("its root");
        }
        Ok(image)
    }

    /// The root's inode.
    ///
    /// # Errors
    ///
    /// If it cannot be read.
    pub fn root(&self) -> Result<Inode, ReadError> {
        self.inode(self.root)
    }

    pub(crate) fn read_block(&self, number: u64) -> Result<Vec<u8>, ReadError> {
        let mut block = vec![0; BLOCK_BYTES as usize];
        self.read(number * BLOCK_BYTES, &mut block)?;
        Ok(block)
    }

    fn read(&self, offset: u64, bytes: &mut [u8]) -> Result<(), ReadError> {
        let end = offset.checked_add(bytes.len() as u64);
        if end.is_none_or(|end| end > self.block_count * BLOCK_BYTES) {
            return unknown("it is shorter than what it holds");
        }
        Ok(self.blocks.read_exact_at(bytes, offset)?)
    }

    /// The inode with this number.
    ///
    /// # Errors
    ///
    /// If it cannot be read, or is of a kind that is not read here.
    pub fn inode(&self, number: u64) -> Result<Inode, ReadError> {
        let Some(offset) = number.checked_mul(INODE_UNIT_BYTES) else {
            return unknown("the number of an inode");
        };
        let mut bytes = [0; EXTENDED_BYTES];
        self.read(offset, &mut bytes[..COMPACT_BYTES])?;
        let format = u16_at(&bytes, 0);
        let is_extended = format & 1 != 0;
        let layout = format >> 1;
        if !matches!(layout, PLAIN | INLINE) {
            return unknown("the form of an inode");
        }
        let length = if is_extended {
            self.read(offset, &mut bytes)?;
            EXTENDED_BYTES
        } else {
            COMPACT_BYTES
        };
        let attributes_bytes = match u64::from(u16_at(&bytes, 2)) {
            0 => 0,
            count => 12 + (count - 1) * 4,
        };
        let tail_offset = offset + length as u64 + attributes_bytes;
        let inode = Inode {
            number,
            mode: u16_at(&bytes, 4),
            user: u32::from(u16_at(&bytes, 24)),
            group: u32::from(u16_at(&bytes, 26)),
            links: u32::from(u16_at(&bytes, 6)),
            bytes: u64::from(u32_at(&bytes, 8)),
            modified_s: u64_at(&self.superblock, TIME_AT),
            modified_ns: u32_at(&self.superblock, TIME_NS_AT),
            is_plain_extended: is_extended && attributes_bytes == 0,
            layout,
            pointer: u32_at(&bytes, 16),
            tail_offset,
        };
        if !is_extended {
            return Ok(inode);
        }
        Ok(Inode {
            user: u32_at(&bytes, 24),
            group: u32_at(&bytes, 28),
            links: u32_at(&bytes, 44),
            bytes: u64_at(&bytes, 8),
            modified_s: u64_at(&bytes, 32),
            modified_ns: u32_at(&bytes, 40),
            ..inode
        })
    }

    /// Copies as much of what an inode holds as is there from `position` on; how much that was.
    ///
    /// # Errors
    ///
    /// If it cannot be read.
    pub fn read_contents(&self, inode: &Inode, position: u64, bytes: &mut [u8]) -> Result<usize, ReadError> {
        let left = inode.bytes.saturating_sub(position);
        if left == 0 || bytes.is_empty() {
            return Ok(0);
        }
        // The last block is behind the inode even if it is a whole one.
        let tail_start = match inode.layout {
            INLINE => (inode.bytes - 1) / BLOCK_BYTES * BLOCK_BYTES,
            _ => inode.bytes,
        };
        let (offset, piece) = if position < tail_start {
            let start = u64::from(inode.pointer) * BLOCK_BYTES;
            (start.checked_add(position), tail_start - position)
        } else {
            if inode.tail_offset % BLOCK_BYTES + (inode.bytes - tail_start) > BLOCK_BYTES {
                return unknown("contents behind an inode");
            }
            (inode.tail_offset.checked_add(position - tail_start), left)
        };
        let Some(offset) = offset else {
            return unknown("the place of contents");
        };
        let length = piece.min(bytes.len() as u64) as usize;
        self.read(offset, &mut bytes[..length])?;
        Ok(length)
    }

    fn whole(&self, inode: &Inode, bytes_max: u64) -> Result<Vec<u8>, ReadError> {
        if inode.bytes > bytes_max.min(self.block_count * BLOCK_BYTES) {
            return unknown("the length of contents");
        }
        let mut bytes = vec![0; inode.bytes as usize];
        let mut done = 0;
        while done < bytes.len() {
            let count = self.read_contents(inode, done as u64, &mut bytes[done..])?;
            done += count;
        }
        Ok(bytes)
    }

    /// Where a symbolic link leads.
    ///
    /// # Errors
    ///
    /// If it cannot be read, or is none.
    pub fn link_target(&self, inode: &Inode) -> Result<Vec<u8>, ReadError> {
        if !inode.is_link() {
            return unknown("a symbolic link");
        }
        self.whole(inode, PATH_BYTES_MAX)
    }

    /// What is in a folder, but for the names of itself and of the one above.
    ///
    /// # Errors
    ///
    /// If it cannot be read.
    pub fn entries(&self, folder: &Inode) -> Result<Vec<FolderEntry>, ReadError> {
        if !folder.is_folder() {
            return unknown("a folder");
        }
        let bytes = self.whole(folder, DIRECTORY_BYTES_MAX)?;
        let mut entries = Vec::new();
        for block in bytes.chunks(BLOCK_BYTES as usize) {
            let names_start = usize::from(u16_at(block, 8));
            let is_whole = names_start >= ENTRY_BYTES
                && names_start.is_multiple_of(ENTRY_BYTES)
                && names_start < block.len();
            if !is_whole {
                return unknown("a block of a folder");
            }
            let count = names_start / ENTRY_BYTES;
            for index in 0..count {
                let at = index * ENTRY_BYTES;
                let start = usize::from(u16_at(block, at + 8));
                let name = if index + 1 < count {
                    block.get(start..usize::from(u16_at(block, at + ENTRY_BYTES + 8)))
                } else {
                    block.get(start..).map(|rest| {
                        let end = rest.iter().position(|&byte| byte == 0);
                        &rest[..end.unwrap_or(rest.len())]
                    })
                };
                let is_name = |name: &&[u8]| {
                    start >= names_start
                        && (1..=NAME_BYTES_MAX).contains(&name.len())
                        && !name.contains(&b'/')
                        && !name.contains(&0)
                };
                let Some(name) = name.filter(is_name) else {
                    return unknown("a name");
                };
                if !matches!(name, b"." | b"..") {
                    entries.push(FolderEntry {
                        name: name.to_vec(),
                        inode: u64_at(block, at),
                        file_type: block[at + 10],
                    });
                }
            }
        }
        Ok(entries)
    }

    /// Follows a path from the root as a process does that has the image as its root: also symbolic links, and none of them
    /// leads out. None if there is nothing.
    ///
    /// # Errors
    ///
    /// If something on the way cannot be read, or there are too many symbolic links.
    pub fn find(&self, path: &[u8]) -> Result<Option<Inode>, ReadError> {
        let components = |path: &[u8]| -> Vec<Vec<u8>> {
            let parts = path.split(|&byte| byte == b'/').rev();
            parts
                .filter(|part| !part.is_empty() && *part != b".")
                .map(<[u8]>::to_vec)
                .collect()
        };
        // What is left to do, its end first.
        let mut left = components(path);
        let mut way = vec![self.root()?];
        let mut links = 0;
        while let Some(name) = left.pop() {
            let here = way.last().copied().unwrap_or(self.root()?);
            if !here.is_folder() {
                return Ok(None);
            }
            if name == b".." {
                if way.len() > 1 {
                    way.pop();
                }
                continue;
            }
            let mut entries = self.entries(&here)?.into_iter();
            let Some(entry) = entries.find(|entry| entry.name == name) else {
                return Ok(None);
            };
            let inode = self.inode(entry.inode)?;
            if inode.is_link() {
                links += 1;
                if links > LINKS_MAX {
                    return unknown("too many symbolic links");
                }
                let target = self.link_target(&inode)?;
                if target.first() == Some(&b'/') {
                    way.truncate(1);
                }
                left.extend(components(&target));
            } else {
                way.push(inode);
            }
        }
        Ok(way.pop())
    }

    /// Whether there is nothing but folders and one inode: that with this number.
    ///
    /// # Errors
    ///
    /// If something cannot be read.
    pub fn holds_only(&self, wanted: &Inode) -> Result<bool, ReadError> {
        let mut open = vec![self.root()?];
        let (mut found, mut folders) = (0, 0);
        while let Some(folder) = open.pop() {
            folders += 1;
            if folders > self.block_count * BLOCK_BYTES / INODE_UNIT_BYTES {
                return unknown("a folder within itself");
            }
            for entry in self.entries(&folder)? {
                let inode = self.inode(entry.inode)?;
                if inode.is_folder() {
                    open.push(inode);
                    continue;
                }
                found += 1;
                if found > 1 || inode.number != wanted.number {
                    return Ok(false);
                }
            }
        }
        Ok(found == 1)
    }

    /// A file of the image, to be read from its start.
    #[must_use]
    pub fn reader(&self, inode: Inode) -> FileReader<'_, B> {
        FileReader {
            image: self,
            inode,
            position: 0,
        }
    }
}

/// Reads what an inode holds.
#[derive(Debug)]
pub struct FileReader<'a, B> {
    image: &'a Image<B>,
    inode: Inode,
    position: u64,
}

impl<B: Blocks> Read for FileReader<'_, B> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let read = self.image.read_contents(&self.inode, self.position, bytes);
        let count = read.map_err(|error| match error {
            ReadError::Io(error) => error,
            unknown => io::Error::new(io::ErrorKind::InvalidData, unknown),
        })?;
        self.position += count as u64;
        Ok(count)
    }
}

impl<B> Seek for FileReader<'_, B> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let position = match to {
            SeekFrom::Start(position) => Some(position),
            SeekFrom::End(offset) => self.inode.bytes.checked_add_signed(offset),
            SeekFrom::Current(offset) => self.position.checked_add_signed(offset),
        };
        self.position = position.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.position)
    }
}
