//! Inodes, and where contents are.

use super::{Errno, Extent, INODE_UNIT_BYTES, Image, Source, u16_at, u32_at, u64_at};
use crate::files::Kind;
use crate::files::metadata::device_number;

const COMPACT_BYTES: usize = 32;
const EXTENDED_BYTES: usize = 64;
/// Block address that means a hole.
const HOLE: u32 = u32::MAX;
/// Bits of a chunk format: logarithm of blocks in a chunk; the entries are indexes of eight bytes.
const CHUNK_BITS: u32 = 0x1f;
const CHUNK_INDEXES: u32 = 0x20;

/// An inode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Inode {
    /// Its number.
    pub(crate) number: u64,
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) links: u32,
    pub(crate) size: u64,
    pub(crate) modified_ns: u64,
    /// The device that a special file stands for.
    pub(crate) rdev: u64,
    place: ContentsPlace,
}

/// Where contents are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ContentsPlace {
    /// Nowhere.
    None,
    /// In one piece.
    Plain { offset: u64 },
    /// Whole blocks in one piece, the rest behind the inode.
    Inline { offset: u64, tail_offset: u64 },
    /// In chunks, whose addresses are in a table.
    Chunks {
        bits: u32,
        table_offset: u64,
        entry_bytes: u64,
    },
}

impl<S: Source> Image<S> {
    /// The inode with this number.
    pub(crate) fn inode(&self, number: u64) -> Result<Inode, Errno> {
        let offset = number
            .checked_mul(INODE_UNIT_BYTES)
            .and_then(|offset| offset.checked_add(self.inodes_offset))
            .ok_or(Errno::EUCLEAN)?;
        let mut bytes = [0; EXTENDED_BYTES];
        self.read_exact(offset, &mut bytes[..COMPACT_BYTES])?;
        let format = u16_at(&bytes, 0);
        let is_extended = format & 1 != 0;
        if format & !0xf != 0 {
            return Err(Errno::EUCLEAN);
        }
        let length = if is_extended {
            EXTENDED_BYTES
        } else {
            COMPACT_BYTES
        };
        self.read_exact(offset, &mut bytes[..length])?;
        let mode = u32::from(u16_at(&bytes, 4));
        let kind = Kind::of_mode(mode).ok_or(Errno::EUCLEAN)?;
        let attributes_bytes = match u64::from(u16_at(&bytes, 2)) {
            0 => 0,
            count => 12 + (count - 1) * 4,
        };
        let inode = Inode {
            number,
            mode,
            uid: 0,
            gid: 0,
            links: 0,
            size: 0,
            modified_ns: 0,
            rdev: 0,
            place: ContentsPlace::None,
        };
        let inode = if is_extended {
            Inode {
                uid: u32_at(&bytes, 24),
                gid: u32_at(&bytes, 28),
                links: u32_at(&bytes, 44),
                size: u64_at(&bytes, 8),
                modified_ns: u64_at(&bytes, 32)
                    .saturating_mul(crate::time::SECOND_NS)
                    .saturating_add(u64::from(u32_at(&bytes, 40))),
                ..inode
            }
        } else {
            Inode {
                uid: u32::from(u16_at(&bytes, 24)),
                gid: u32::from(u16_at(&bytes, 26)),
                links: u32::from(u16_at(&bytes, 6)),
                size: u64::from(u32_at(&bytes, 8)),
                modified_ns: self.build_time_ns,
                ..inode
            }
        };
        let pointer = u32_at(&bytes, 16);
        let after = offset
            .checked_add(length as u64 + attributes_bytes)
            .ok_or(Errno::EUCLEAN)?;
        self.with_contents(inode, kind, format >> 1 & 7, pointer, after)
    }

    /// Completes an inode: `pointer` is what its field for contents has, `after` the offset behind it.
    fn with_contents(
        &self,
        inode: Inode,
        kind: Kind,
        layout: u16,
        pointer: u32,
        after: u64,
    ) -> Result<Inode, Errno> {
        if inode.size > i64::MAX as u64 {
            return Err(Errno::EUCLEAN);
        }
        let plain_offset = u64::from(pointer) << self.block_bits;
        let place = match (kind, layout) {
            (Kind::CharacterDevice | Kind::BlockDevice, _) => {
                let major = pointer >> 8 & 0xfff;
                let minor = pointer & 0xff | pointer >> 12 & 0xf_ff00;
                return Ok(Inode {
                    rdev: device_number(major, minor),
                    size: 0,
                    ..inode
                });
            }
            (Kind::Regular | Kind::Directory | Kind::SymbolicLink, 0) => {
                ContentsPlace::Plain { offset: plain_offset }
            }
            (Kind::Regular | Kind::Directory | Kind::SymbolicLink, 2) => ContentsPlace::Inline {
                offset: plain_offset,
                tail_offset: after,
            },
            (Kind::Regular, 4) => {
                let entry_bytes = if pointer & CHUNK_INDEXES != 0 { 8 } else { 4 };
                if pointer & !(CHUNK_BITS | CHUNK_INDEXES) != 0 {
                    return Err(Errno::EUCLEAN);
                }
                ContentsPlace::Chunks {
                    bits: self.block_bits + (pointer & CHUNK_BITS),
                    table_offset: after
                        .checked_next_multiple_of(entry_bytes)
                        .ok_or(Errno::EUCLEAN)?,
                    entry_bytes,
                }
            }
            (Kind::Regular | Kind::Directory | Kind::SymbolicLink, _) => return Err(Errno::EOPNOTSUPP),
            _ => {
                return Ok(Inode { size: 0, ..inode });
            }
        };
        Ok(Inode { place, ..inode })
    }

    /// Where the contents from `position` on are, as far as they are in one piece. At or behind the end there are
    /// none.
    pub(crate) fn map(&self, inode: &Inode, position: u64) -> Result<Extent, Errno> {
        let left = inode.size.saturating_sub(position);
        let piece = |offset: u64, bytes: u64| {
            Ok(Extent {
                offset: Some(offset.checked_add(position).ok_or(Errno::EUCLEAN)?),
                bytes,
            })
        };
        if left == 0 {
            return Ok(Extent {
                offset: None,
                bytes: 0,
            });
        }
        match inode.place {
            ContentsPlace::None => Err(Errno::EUCLEAN),
            ContentsPlace::Plain { offset } => piece(offset, left),
            ContentsPlace::Inline { offset, tail_offset } => {
                // The last block is inline even if it is a whole one.
                let tail_start = (inode.size - 1) >> self.block_bits << self.block_bits;
                if position < tail_start {
                    return piece(offset, tail_start - position);
                }
                let tail_bytes = inode.size - tail_start;
                if tail_offset % self.block_bytes() + tail_bytes > self.block_bytes() {
                    return Err(Errno::EUCLEAN);
                }
                let offset = tail_offset
                    .checked_add(position - tail_start)
                    .ok_or(Errno::EUCLEAN)?;
                Ok(Extent {
                    offset: Some(offset),
                    bytes: left,
                })
            }
            ContentsPlace::Chunks {
                bits,
                table_offset,
                entry_bytes,
            } => {
                // Longer chunks than there can be files hold all of them.
                let (index, within) = match bits {
                    0..63 => (position >> bits, position & ((1 << bits) - 1)),
                    _ => (0, position),
                };
                let chunk_left = if bits < 63 { (1 << bits) - within } else { left };
                let entry = index
                    .checked_mul(entry_bytes)
                    .and_then(|offset| offset.checked_add(table_offset))
                    .ok_or(Errno::EUCLEAN)?;
                let mut bytes = [0; 8];
                self.read_exact(entry, &mut bytes[..entry_bytes as usize])?;
                let block = u32_at(&bytes, if entry_bytes == 8 { 4 } else { 0 });
                if entry_bytes == 8 && u16_at(&bytes, 2) != 0 {
                    return Err(Errno::EUCLEAN);
                }
                let start = u64::from(block) << self.block_bits;
                Ok(Extent {
                    offset: (block != HOLE)
                        .then(|| start.checked_add(within).ok_or(Errno::EUCLEAN))
                        .transpose()?,
                    bytes: left.min(chunk_left),
                })
            }
        }
    }

    /// Where contents begin that are in one piece from a page's start on; `None` if they are not. They lie in the
    /// image: whoever maps them will not be told that there is nothing.
    pub(crate) fn contiguous(&self, inode: &Inode, page_bytes: u64) -> Result<Option<u64>, Errno> {
        let first = self.map(inode, 0)?;
        let Some(start) = first.offset.filter(|start| start.is_multiple_of(page_bytes)) else {
            return Ok(None);
        };
        let mut reached = first.bytes;
        while reached < inode.size {
            let next = self.map(inode, reached)?;
            if next.bytes == 0 || next.offset != start.checked_add(reached) {
                return Ok(None);
            }
            reached += next.bytes;
        }
        let last = start.checked_add(inode.size - 1).ok_or(Errno::EUCLEAN)?;
        self.read_exact(last, &mut [0])?;
        Ok(Some(start))
    }
}
