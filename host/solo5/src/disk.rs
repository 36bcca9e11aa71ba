//! The disk of a guest: a file that stays as it is, under what the guest has written in its life.
//!
//! Guests of `hvt` know no disk that is only read, and some do not start without writing to it. What they write is the instance's, is in
//! memory, and goes with it.

use std::collections::BTreeMap;
use std::io;

use crate::kernel::Source;

/// What is kept of what a guest has written, in bytes at most. What is more is refused.
pub const WRITTEN_BYTES_MAX: u64 = 32 << 20;
/// It is kept in pieces of this length.
const PIECE_BYTES: u64 = 4096;

/// A disk.
#[derive(Debug)]
pub(crate) struct Overlaid<F> {
    file: F,
    bytes: u64,
    written: BTreeMap<u64, Box<[u8]>>,
}

impl<F: Source> Overlaid<F> {
    /// With nothing written to it. The file has so many bytes.
    pub(crate) fn new(file: F, bytes: u64) -> Self {
        Self {
            file,
            bytes,
            written: BTreeMap::new(),
        }
    }

    /// Length, in bytes.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Fills `bytes` with what is there from `offset` on, all of which is within the disk.
    pub(crate) fn read(&self, offset: u64, bytes: &mut [u8]) -> io::Result<()> {
        self.file.read_at(offset, bytes)?;
        let end = offset + bytes.len() as u64;
        let first = offset / PIECE_BYTES;
        for (number, piece) in self.written.range(first..end.div_ceil(PIECE_BYTES)) {
            let begin = number * PIECE_BYTES;
            let (from, to) = (begin.max(offset), (begin + piece.len() as u64).min(end));
            let target = &mut bytes[(from - offset) as usize..(to - offset) as usize];
            target.copy_from_slice(&piece[(from - begin) as usize..(to - begin) as usize]);
        }
        Ok(())
    }

    /// Writes to a range that is within the disk; whether there was room for all of it.
    pub(crate) fn write(&mut self, offset: u64, bytes: &[u8]) -> io::Result<bool> {
        let end = offset + bytes.len() as u64;
        for number in offset / PIECE_BYTES..end.div_ceil(PIECE_BYTES) {
            let begin = number * PIECE_BYTES;
            if !self.written.contains_key(&number) {
                if self.written.len() as u64 >= WRITTEN_BYTES_MAX / PIECE_BYTES {
                    return Ok(false);
                }
                let mut piece = vec![0; PIECE_BYTES.min(self.bytes - begin) as usize];
                self.file.read_at(begin, &mut piece)?;
                self.written.insert(number, piece.into());
            }
            if let Some(piece) = self.written.get_mut(&number) {
                let (from, to) = (begin.max(offset), (begin + piece.len() as u64).min(end));
                let source = &bytes[(from - offset) as usize..(to - offset) as usize];
                piece[(from - begin) as usize..(to - begin) as usize].copy_from_slice(source);
            }
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use proptest::prelude::*;

    proptest! {
        #[test]
        fn it_is_as_if_the_file_had_been_written_to(
            writes in prop::collection::vec((0..20_000_u64, 1..9000_usize, any::<u8>()), 0..12),
        ) {
            let file: Vec<u8> = (0..20_480_u32).map(|index| (index / 7) as u8).collect();
            let mut expected = file.clone();
            let mut disk = Overlaid::new(&file[..], file.len() as u64);
            for (offset, length, byte) in writes {
                let length = length.min(file.len() - offset as usize);
                prop_assert!(disk.write(offset, &vec![byte; length]).unwrap());
                expected[offset as usize..][..length].fill(byte);
                let mut found = vec![0; length + 1];
                let from = (offset as usize).min(file.len() - found.len());
                disk.read(from as u64, &mut found).unwrap();
                prop_assert_eq!(&found[..], &expected[from..][..length + 1]);
            }
            let mut found = vec![0; file.len()];
            disk.read(0, &mut found).unwrap();
            prop_assert_eq!(found, expected);
        }
    }

    /// A disk without an end, of zeros.
    struct Zeros;

    impl Source for Zeros {
        fn read_at(&self, _: u64, bytes: &mut [u8]) -> io::Result<()> {
            bytes.fill(0);
            Ok(())
        }
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let mut disk = Overlaid::new(Zeros, 1 << 40);
        let pieces = WRITTEN_BYTES_MAX / PIECE_BYTES;
        for number in 0..pieces {
            assert!(disk.write(number * (1 << 20), &[1]).unwrap());
        }
        assert!(!disk.write(pieces * (1 << 20), &[1]).unwrap());
        // What is there may be written again.
        assert!(disk.write(0, &[2; 4096]).unwrap());
    }
}
