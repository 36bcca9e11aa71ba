//! The root module: what a guest finds as its root, one file or two.
//!
//! ```text
//!   a file          │ 0 … │
//!   base and head   │ head's page 0 │ base's pages 1 … N-1 │ head's pages 1 … │
//! ```
//!
//! The guest sees one piece in either case, and what it sees of the base comes from the same pages of the host's cache for all
//! instances that have that base.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::FileExt;

use spore_abi::layout::PAGE_BYTES;

/// The file of a root, or a base and its head.
#[derive(Debug)]
pub struct RootFiles {
    /// The file, or the base.
    file: File,
    file_bytes: u64,
    head: Option<(File, u64)>,
}

/// A stretch of the module: so many bytes of a file from this offset on. It begins at a page.
pub(crate) struct Part<'a> {
    pub(crate) file: BorrowedFd<'a>,
    pub(crate) offset: u64,
    pub(crate) bytes: u64,
}

impl<'a> Part<'a> {
    fn new(file: &'a File, offset: u64, bytes: u64) -> Self {
        Self {
            file: file.as_fd(),
            offset,
            bytes,
        }
    }
}

impl RootFiles {
    /// The root that these files make. They do not change.
    ///
    /// # Errors
    ///
    /// If their lengths cannot be told, or are none that a base and its head have.
    pub fn new(file: File, head: Option<File>) -> io::Result<Self> {
        let file_bytes = file.metadata()?.len();
        let head = head.map(|head| Ok::<_, io::Error>((head.metadata()?.len(), head)));
        let head = head.transpose()?.map(|(bytes, head)| (head, bytes));
        let is_whole = |bytes: u64| bytes >= PAGE_BYTES && bytes.is_multiple_of(PAGE_BYTES);
        if let Some((_, head_bytes)) = &head
            && !(is_whole(file_bytes) && is_whole(*head_bytes))
        {
            let text = "base and head of the root do not consist of whole pages";
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        }
        Ok(Self {
            file,
            file_bytes,
            head,
        })
    }

    /// Length of the module, in bytes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        let appended = self.head.as_ref().map_or(0, |(_, bytes)| bytes - PAGE_BYTES);
        self.file_bytes.saturating_add(appended)
    }

    /// Length of the part up to where the head goes on, in bytes; 0 if there is no head.
    pub(crate) fn base_bytes(&self) -> u64 {
        self.head.as_ref().map_or(0, |_| self.file_bytes)
    }

    /// The files, in the order in which a monitor gets them.
    pub fn files(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let head = self.head.as_ref().map(|(head, _)| head.as_fd());
        std::iter::once(self.file.as_fd()).chain(head)
    }

    /// The same with other descriptors of the same files.
    pub(crate) fn map_files(&self, mut to: impl FnMut(&File, u64) -> io::Result<File>) -> io::Result<Self> {
        let head = self.head.as_ref();
        let head = head.map(|(head, bytes)| Ok::<_, io::Error>((to(head, *bytes)?, *bytes)));
        let head = head.transpose()?;
        Ok(Self {
            file: to(&self.file, self.file_bytes)?,
            file_bytes: self.file_bytes,
            head,
        })
    }

    /// What the module consists of, in order; the last one ends with a page.
    pub(crate) fn parts(&self) -> Vec<Part<'_>> {
        let parts = match &self.head {
            None => vec![Part::new(
                &self.file,
                0,
                self.file_bytes.next_multiple_of(PAGE_BYTES),
            )],
            Some((head, head_bytes)) => vec![
                Part::new(head, 0, PAGE_BYTES),
                Part::new(&self.file, PAGE_BYTES, self.file_bytes - PAGE_BYTES),
                Part::new(head, PAGE_BYTES, head_bytes - PAGE_BYTES),
            ],
        };
        parts.into_iter().filter(|part| part.bytes > 0).collect()
    }

    /// Fills `bytes` with what is at `offset`.
    ///
    /// # Errors
    ///
    /// If there are not so many, or they cannot be read.
    pub fn read_exact_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        let Some((head, _)) = &self.head else {
            return self.file.read_exact_at(bytes, offset);
        };
        let (mut bytes, mut offset) = (bytes, offset);
        while !bytes.is_empty() {
            let (file, at, end) = if offset < PAGE_BYTES {
                (head, offset, PAGE_BYTES)
            } else if offset < self.file_bytes {
                (&self.file, offset, self.file_bytes)
            } else {
                (head, offset - self.file_bytes + PAGE_BYTES, u64::MAX)
            };
            let length = (end - offset).min(bytes.len() as u64) as usize;
            let (part, rest) = bytes.split_at_mut(length);
            file.read_exact_at(part, at)?;
            offset += length as u64;
            bytes = rest;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::Region;

    fn file(pages: &[u8]) -> File {
        let file = File::from(crate::memory_file(c"spore-test").unwrap());
        for (number, byte) in (0..).zip(pages) {
            file.write_all_at(&[*byte; PAGE_BYTES as usize], number * PAGE_BYTES)
                .unwrap();
        }
        file
    }

    fn first_bytes(root: &RootFiles) -> Vec<u8> {
        let region = Region::module(root).unwrap();
        assert_eq!(region.file_bytes().len() as u64, root.bytes());
        let mut read = vec![0; root.bytes() as usize];
        root.read_exact_at(&mut read, 0).unwrap();
        assert_eq!(region.file_bytes(), read);
        let (pages, _) = read.as_chunks::<{ PAGE_BYTES as usize }>();
        pages.iter().map(|page| page[0]).collect()
    }

    #[test]
    fn base_and_head_are_one_piece() {
        let with_head = |base, head| RootFiles::new(file(base), Some(file(head))).unwrap();
        assert_eq!(
            first_bytes(&with_head(&[1, 2, 3], &[11, 12, 13])),
            [11, 2, 3, 12, 13]
        );
        assert_eq!(first_bytes(&with_head(&[1], &[11, 12])), [11, 12]);
        assert_eq!(first_bytes(&with_head(&[1, 2], &[11])), [11, 2]);
        assert_eq!(first_bytes(&RootFiles::new(file(&[1, 2]), None).unwrap()), [1, 2]);
        let mut beyond = [0; 2];
        assert!(
            with_head(&[1], &[11, 12])
                .read_exact_at(&mut beyond, 2 * PAGE_BYTES - 1)
                .is_err()
        );
    }

    #[test]
    fn files_that_do_not_end_with_a_page_are_no_base_and_no_head() {
        for (base, head) in [(0, 4096), (4096, 0), (5000, 4096), (4096, 5000)] {
            let files = [base, head].map(|bytes| {
                let file = file(&[]);
                file.set_len(bytes).unwrap();
                file
            });
            let [base, head] = files;
            assert!(RootFiles::new(base, Some(head)).is_err());
        }
    }
}
