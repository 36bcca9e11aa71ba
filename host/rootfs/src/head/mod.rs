//! A root file system that is another one's with a few changes, and stores only these.
//!
//! ```text
//!   base    │ 0 │ 1 … N-1 │                    an image by mkfs.erofs
//!   head    │ 0'│                  │ N … │     what is here: files, inodes, folders that have changed
//!   module  │ 0'│ 1 … N-1 (base's) │ N … │     what an instance finds: one image
//! ```
//!
//! Block addresses and numbers of inodes count from the start of the image, so all that the base has stays valid where it
//! is. Block 0 has the superblock, whose number of blocks changes, and the root's inode, which leads to a new folder; what
//! else lies in it stays. Of the base's folders, those on the way to a change are written anew. (The entry `..` of what is in
//! them still says where they were before; the library OS knows the way up by itself, as Linux does.)
//!
//! The changes are layers of an OCI image, with its whiteouts, and have the same effect as on a folder. Where that would take
//! more than this module knows, it says so ([`Reason`]), and the whole image has to be made.

mod tree;
mod writing;

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use crate::erofs::{BLOCK_BYTES, Blocks, Image, ReadError};

pub use tree::{Change, ChangeKind, Head};

/// Why no head can be made, so that the whole image has to be.
#[derive(Debug, thiserror::Error)]
pub enum Reason {
    /// The base cannot be read, or is of another kind.
    #[error(transparent)]
    Base(#[from] ReadError),
    /// What changes could not be read, or not be written.
    #[error("what changes could not be read or written")]
    Io(#[from] io::Error),
    /// A path is what the whole image is asked about.
    #[error("a path is no plain one: {what}")]
    Path {
        /// What is wrong, or unusual.
        what: &'static str,
    },
    /// A file of several names changes.
    #[error("a file of the base that has several names changes")]
    Linked,
    /// There is too much of something.
    #[error("the changes, or all together, are too large")]
    TooLarge,
}

/// A base with its head, as one image.
#[derive(Debug)]
pub struct Parts<'a> {
    base: &'a File,
    head: &'a File,
    base_bytes: u64,
}

impl<'a> Parts<'a> {
    /// The image that the two make.
    ///
    /// # Errors
    ///
    /// If it cannot be read.
    pub fn open(base: &'a File, head: &'a File) -> Result<Image<Self>, ReadError> {
        let base_bytes = base.metadata()?.len();
        Image::open(Self {
            base,
            head,
            base_bytes,
        })
    }
}

impl Blocks for Parts<'_> {
    fn read_exact_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        let (mut bytes, mut offset) = (bytes, offset);
        while !bytes.is_empty() {
            let (file, at, end) = if offset < BLOCK_BYTES {
                (self.head, offset, BLOCK_BYTES)
            } else if offset < self.base_bytes {
                (self.base, offset, self.base_bytes)
            } else {
                (self.head, offset - self.base_bytes + BLOCK_BYTES, u64::MAX)
            };
            let length = (end - offset).min(bytes.len() as u64) as usize;
            let (part, rest) = bytes.split_at_mut(length);
            FileExt::read_exact_at(file, part, at)?;
            offset += length as u64;
            bytes = rest;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
