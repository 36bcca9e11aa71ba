//! A snapshot becomes a file: whole under a name of its own first, then under the function's.

use std::io;
use std::os::fd::BorrowedFd;

use rustix::io::{pread, retry_on_intr};
use spore_abi::layout::PAGE_BYTES;

use super::folder::{Disk, PARTIAL};
use super::format::{Contents, Draft, HEADER_BYTES, PIECE_BYTES, Unfit};
use super::identity::Identity;

static ZEROS: [u8; PAGE_BYTES as usize] = [0; PAGE_BYTES as usize];

/// Why there is no file.
#[derive(Debug, thiserror::Error)]
pub(super) enum WriteError {
    #[error(transparent)]
    Unfit(#[from] Unfit),
    #[error("the memory cannot be read")]
    Memory(#[source] io::Error),
    #[error("the file cannot be written")]
    Disk(#[source] io::Error),
}

/// The memory of a snapshot, as it was when that was captured.
#[derive(Clone, Copy)]
pub(super) struct Memory<'a> {
    pub(super) file: BorrowedFd<'a>,
    /// Words that have changed since: address, which is a multiple of their length, and value.
    pub(super) entries: &'a [(u64, u64)],
}

/// A snapshot that is to become a file.
pub(super) struct Writing<'a> {
    memory: Memory<'a>,
    stretches: Vec<(u64, u64)>,
    draft: Draft,
}

impl<'a> Writing<'a> {
    /// Looks what of a memory is to be written. `data` are the stretches of it that hold something, whole pages in order.
    pub(super) fn new(
        identity: &Identity,
        contents: &Contents,
        memory: Memory<'a>,
        data: &[(u64, u64)],
    ) -> Result<Self, WriteError> {
        let stretches = stretches_not_zero(memory, data)?;
        let draft = Draft::new(identity, contents, &stretches)?;
        Ok(Self {
            memory,
            stretches,
            draft,
        })
    }

    /// How long the file will be, in bytes.
    pub(super) fn file_bytes(&self) -> u64 {
        self.draft.file_bytes
    }

    /// Writes the file. Whatever happens meanwhile, under its name is afterwards what was there before, or this, whole.
    pub(super) fn write(self, disk: &impl Disk, name: &str) -> Result<(), WriteError> {
        let partial = format!("{name}{PARTIAL}");
        let written = self.write_partial(disk, &partial).and_then(|()| {
            disk.rename(&partial, name)
                .and_then(|()| disk.sync_folder())
                .map_err(WriteError::Disk)
        });
        if written.is_err() {
            // It is gone if it was the folder that could not be synchronised; else the next start removes it.
            let _ = disk.remove(&partial);
        }
        written
    }

    fn write_partial(mut self, disk: &impl Disk, partial: &str) -> Result<(), WriteError> {
        let file = disk.create(partial).map_err(WriteError::Disk)?;
        let mut at = HEADER_BYTES as u64;
        let mut put = |bytes: &[u8]| -> Result<(), WriteError> {
            disk.write_at(&file, bytes, at).map_err(WriteError::Disk)?;
            at += bytes.len() as u64;
            Ok(())
        };
        put(self.draft.tables())?;
        pieces(self.memory, &self.stretches, |_, piece| {
            self.draft.pages(piece);
            put(piece)
        })?;
        let header = self.draft.header();
        disk.write_at(&file, &header, 0)
            .and_then(|()| disk.sync(&file))
            .map_err(WriteError::Disk)
    }
}

impl Memory<'_> {
    /// Puts words that were changed since into what was read from `start` on.
    fn restore(&self, start: u64, piece: &mut [u8]) {
        for &(at, value) in self.entries {
            let place = at
                .checked_sub(start)
                .and_then(|place| usize::try_from(place).ok());
            let word = place.and_then(|place| piece.get_mut(place..)?.first_chunk_mut());
            if let Some(word) = word {
                *word = value.to_ne_bytes();
            }
        }
    }
}

/// Reads stretches of a memory piece by piece.
fn pieces(
    memory: Memory<'_>,
    stretches: &[(u64, u64)],
    mut take: impl FnMut(u64, &[u8]) -> Result<(), WriteError>,
) -> Result<(), WriteError> {
    let mut piece = vec![0; PIECE_BYTES];
    for &(start, length) in stretches {
        let end = start + length;
        let mut at = start;
        while at < end {
            let wanted = (end - at).min(PIECE_BYTES as u64) as usize;
            let read = retry_on_intr(|| pread(memory.file, &mut piece[..wanted], at));
            // A memory file has all of it at once.
            match read.map_err(|error| WriteError::Memory(error.into()))? {
                read if read == wanted => {
                    memory.restore(at, &mut piece[..wanted]);
                    take(at, &piece[..wanted])?;
                }
                _ => return Err(WriteError::Memory(io::ErrorKind::UnexpectedEof.into())),
            }
            at += wanted as u64;
        }
    }
    Ok(())
}

/// The pages of these stretches that are not zero, as stretches.
fn stretches_not_zero(memory: Memory<'_>, data: &[(u64, u64)]) -> Result<Vec<(u64, u64)>, WriteError> {
    let mut found: Vec<(u64, u64)> = Vec::new();
    pieces(memory, data, |start, piece| {
        for (index, page) in piece.chunks(PAGE_BYTES as usize).enumerate() {
            if *page == ZEROS[..page.len()] {
                continue;
            }
            let at = start + index as u64 * PAGE_BYTES;
            match found.last_mut() {
                Some((last, length)) if *last + *length == at => *length += PAGE_BYTES,
                _ => found.push((at, PAGE_BYTES)),
            }
        }
        Ok(())
    })?;
    Ok(found)
}
