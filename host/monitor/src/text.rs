//! Program text of a snapshot in large pages.
//!
//! A host without nested paging translates each page of a guest anew in every clone, at a fault of some 6 µs for each. What
//! a guest offers ([`TextOffer`](spore_abi::pages::TextOffer)) is copied once into a file of large pages, which all clones
//! map: a fault for 512 pages. Where the kernel has no large pages for such files, clones work all the same, at a fault for
//! each page.
//!
//! The offers come from a guest, and so does the memory: whatever they say, nothing is read but the two files, and nothing
//! written but the entries that were offered.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::FileExt;

use rustix::fs::{SealFlags, fcntl_add_seals};
use spore_abi::layout::{LARGE_PAGE_BYTES, MODULES_GPA, PAGE_BYTES, TEXT_GPA, TEXT_PAGES_MAX};

use crate::memory::Region;
use crate::memory_file::memory_file;
use crate::module::RootFiles;
use crate::tables::{LARGE, NO_EXECUTE, PRESENT, TOUCHED, USER, WRITABLE};

const ENTRY_BYTES: usize = 8;
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;

/// The text of a snapshot.
#[derive(Debug)]
pub struct Text {
    /// Holds it. Nobody can write to it.
    pub file: File,
    /// Its length, in bytes: whole large pages.
    pub bytes: u64,
}

/// The files that a snapshot consists of.
struct Files<'a> {
    memory: &'a File,
    memory_bytes: u64,
    program: &'a RootFiles,
    program_bytes: u64,
}

/// Copies what the guest of a snapshot has offered (pairs of entry and table, [`Captured::text_offers`]) into a file of
/// large pages, and changes the entries in `memory`, the snapshot's, so that they lead there. `program` is its root. Offers that make no sense are left out; none if all are.
///
/// [`Captured::text_offers`]: crate::protocol::Captured::text_offers
///
/// # Errors
///
/// If the files cannot be read, or there is no memory. The snapshot is then as it was.
pub fn lay_out_text(memory: &File, program: &RootFiles, offers: &[(u64, u64)]) -> io::Result<Option<Text>> {
    let files = Files {
        memory,
        memory_bytes: memory.metadata()?.len(),
        program,
        program_bytes: program.bytes(),
    };
    let mut entries = Vec::new();
    let mut file = None;
    let mut page = vec![0; LARGE_PAGE_BYTES as usize];
    for &(entry_gpa, table_gpa) in offers.iter().take(TEXT_PAGES_MAX) {
        let Some(bits) = files.read_offer(entry_gpa, table_gpa, &mut page)? else {
            continue;
        };
        let offset = entries.len() as u64 * LARGE_PAGE_BYTES;
        let file = match &file {
            Some(file) => file,
            None => file.insert(empty_file()?),
        };
        file.write_all_at(&page, offset)?;
        entries.push((entry_gpa, (TEXT_GPA + offset) | bits));
    }
    let Some(file) = file else {
        return Ok(None);
    };
    let bytes = entries.len() as u64 * LARGE_PAGE_BYTES;
    let seals = SealFlags::WRITE | SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL;
    fcntl_add_seals(&file, seals)?;
    let region = place(bytes)?;
    region.overlay(file.as_fd(), 0, 0, bytes as usize)?;
    region.collapse(0, bytes as usize);
    for (entry_gpa, entry) in entries {
        memory.write_all_at(&entry.to_ne_bytes(), entry_gpa)?;
    }
    Ok(Some(Text { file, bytes }))
}

/// Whether this can be a file of text of this length.
pub(crate) fn check(file: BorrowedFd<'_>, bytes: u64) -> io::Result<()> {
    let file_bytes = rustix::fs::fstat(file)?.st_size;
    if !is_length(bytes) || u64::try_from(file_bytes) != Ok(bytes) {
        return Err(io::ErrorKind::InvalidData.into());
    }
    Ok(())
}

/// A place for a file of so many bytes, if there can be such a file, in which a large page can be one of this process too.
pub(crate) fn place(bytes: u64) -> io::Result<Region> {
    if !is_length(bytes) {
        return Err(io::ErrorKind::InvalidData.into());
    }
    Region::anonymous(bytes as usize, LARGE_PAGE_BYTES as usize)
}

fn is_length(bytes: u64) -> bool {
    bytes.is_multiple_of(LARGE_PAGE_BYTES) && bytes / LARGE_PAGE_BYTES <= TEXT_PAGES_MAX as u64
}

fn empty_file() -> io::Result<File> {
    Ok(memory_file(c"spore-text")?.into())
}

impl Files<'_> {
    /// Reads what an offer is about into `page`. The bits of an entry for it, if it makes sense.
    fn read_offer(&self, entry_gpa: u64, table_gpa: u64, page: &mut [u8]) -> io::Result<Option<u64>> {
        let is_place = |gpa: u64, bytes: u64| {
            gpa.is_multiple_of(bytes) && gpa.checked_add(bytes).is_some_and(|end| end <= self.memory_bytes)
        };
        if !is_place(entry_gpa, ENTRY_BYTES as u64) || !is_place(table_gpa, PAGE_BYTES) {
            return Ok(None);
        }
        let mut entry = [0; ENTRY_BYTES];
        self.memory.read_exact_at(&mut entry, entry_gpa)?;
        let entry = u64::from_ne_bytes(entry);
        if entry & ADDRESS != table_gpa || entry & (PRESENT | LARGE | USER) != PRESENT | USER {
            return Ok(None);
        }
        let mut table = [0; PAGE_BYTES as usize];
        self.memory.read_exact_at(&mut table, table_gpa)?;
        let entries = table.as_chunks::<ENTRY_BYTES>().0;
        let entries: Vec<u64> = entries.iter().map(|entry| u64::from_ne_bytes(*entry)).collect();
        let is_text = |entry: &u64| entry & (PRESENT | WRITABLE | USER) == PRESENT | USER;
        if !entries.iter().all(is_text) {
            return Ok(None);
        }
        let mut done = 0;
        while done < entries.len() {
            let first = entries[done] & ADDRESS;
            let run = entries[done..].iter().zip(0..);
            let count = run
                .take_while(|&(entry, index)| entry & ADDRESS == first + index * PAGE_BYTES)
                .count();
            let place = done * PAGE_BYTES as usize;
            let bytes = &mut page[place..place + count * PAGE_BYTES as usize];
            if !self.read(first, bytes)? {
                return Ok(None);
            }
            done += count;
        }
        let is_executable = entries.iter().any(|entry| entry & NO_EXECUTE == 0);
        let execute = if is_executable { 0 } else { NO_EXECUTE };
        Ok(Some(PRESENT | USER | TOUCHED | LARGE | execute))
    }

    /// Reads guest-physical memory; false if there is none. Behind the end of the program, within its last page, are zeros.
    fn read(&self, gpa: u64, bytes: &mut [u8]) -> io::Result<bool> {
        let end = gpa.checked_add(bytes.len() as u64);
        if end.is_some_and(|end| end <= self.memory_bytes) {
            self.memory.read_exact_at(bytes, gpa)?;
            return Ok(true);
        }
        let Some(offset) = gpa.checked_sub(MODULES_GPA) else {
            return Ok(false);
        };
        let pages_end = self.program_bytes.next_multiple_of(PAGE_BYTES);
        if end.is_none_or(|end| end - MODULES_GPA > pages_end) {
            return Ok(false);
        }
        let there = usize::try_from(self.program_bytes - offset).unwrap_or(usize::MAX);
        let (there, beyond) = bytes.split_at_mut(there.min(bytes.len()));
        self.program.read_exact_at(there, offset)?;
        beyond.fill(0);
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: u64 = 0x5000;
    const ENTRY: u64 = 0x4018;
    const MEMORY_BYTES: u64 = 4 << 20;
    const PROGRAM_BYTES: u64 = (2 << 20) - 100;

    /// Memory in which a table maps 512 pages of a program but for one, a page of RAM.
    fn snapshot() -> (File, RootFiles) {
        let (memory, program) = (empty_file().unwrap(), empty_file().unwrap());
        memory.set_len(MEMORY_BYTES).unwrap();
        let text: Vec<u8> = (0..PROGRAM_BYTES)
            .map(|at| (at / PAGE_BYTES % 251) as u8 + 1)
            .collect();
        program.write_all_at(&text, 0).unwrap();
        memory.write_all_at(&[0xee; PAGE_BYTES as usize], 0x9000).unwrap();
        for index in 0..512 {
            set(
                &memory,
                TABLE + index * 8,
                (MODULES_GPA + index * PAGE_BYTES) | PRESENT | USER,
            );
        }
        set(&memory, TABLE + 8 * 8, 0x9000 | PRESENT | USER | NO_EXECUTE);
        set(&memory, ENTRY, TABLE | PRESENT | USER | WRITABLE);
        (memory, RootFiles::new(program, None).unwrap())
    }

    fn set(memory: &File, gpa: u64, value: u64) {
        memory.write_all_at(&value.to_ne_bytes(), gpa).unwrap();
    }

    fn entry(memory: &File) -> u64 {
        let mut entry = [0; 8];
        memory.read_exact_at(&mut entry, ENTRY).unwrap();
        u64::from_ne_bytes(entry)
    }

    #[test]
    fn what_is_offered_is_laid_out_as_the_table_says() {
        let (memory, program) = snapshot();
        let text = lay_out_text(&memory, &program, &[(ENTRY, TABLE)])
            .unwrap()
            .unwrap();
        assert_eq!(text.bytes, LARGE_PAGE_BYTES);
        assert_eq!(
            entry(&memory),
            TEXT_GPA | PRESENT | USER | TOUCHED | LARGE,
            "it can be executed"
        );
        check(text.file.as_fd(), text.bytes).unwrap();
        let region = place(text.bytes).unwrap();
        region
            .overlay(text.file.as_fd(), 0, 0, text.bytes as usize)
            .unwrap();
        for index in [0, 7, 9, 511] {
            assert_eq!(
                region.read::<u8>(index * PAGE_BYTES).unwrap(),
                (index % 251) as u8 + 1
            );
        }
        assert_eq!(region.read::<u8>(8 * PAGE_BYTES + 5).unwrap(), 0xee);
        assert_eq!(
            region.read::<[u8; 2]>(PROGRAM_BYTES - 1).unwrap(),
            [10, 0],
            "zeros behind its end"
        );
        assert!(text.file.write_all_at(b"x", 0).is_err(), "sealed");
    }

    #[test]
    fn offers_that_make_no_sense_are_left_out() {
        let (memory, program) = snapshot();
        let nonsense = [
            (ENTRY + 1, TABLE),
            (ENTRY, TABLE + 8),
            (ENTRY, TABLE + PAGE_BYTES),
            (MEMORY_BYTES, TABLE),
            (u64::MAX - 7, TABLE),
            (ENTRY, MEMORY_BYTES),
            (ENTRY, ADDRESS),
        ];
        assert!(lay_out_text(&memory, &program, &nonsense).unwrap().is_none());
        let bad_pages = [
            0,
            PRESENT | USER | WRITABLE,
            (MEMORY_BYTES & ADDRESS) | PRESENT | USER,
            (MODULES_GPA + (2 << 20)) | PRESENT | USER,
            ADDRESS | PRESENT | USER,
        ];
        for bad in bad_pages {
            set(&memory, TABLE + 77 * 8, bad);
            assert!(
                lay_out_text(&memory, &program, &[(ENTRY, TABLE)])
                    .unwrap()
                    .is_none()
            );
            assert_eq!(entry(&memory), TABLE | PRESENT | USER | WRITABLE, "as it was");
        }
    }

    #[test]
    fn there_is_never_more_text_than_there_is_room_for() {
        let (memory, program) = snapshot();
        let offers = vec![(ENTRY, TABLE); TEXT_PAGES_MAX + 5];
        let text = lay_out_text(&memory, &program, &offers).unwrap().unwrap();
        assert_eq!(text.bytes, TEXT_PAGES_MAX as u64 * LARGE_PAGE_BYTES);
        assert!(check(text.file.as_fd(), text.bytes - 1).is_err());
        assert!(place(text.bytes - 1).is_err());
        assert!(check(text.file.as_fd(), text.bytes + LARGE_PAGE_BYTES).is_err());
        assert!(place((TEXT_PAGES_MAX as u64 + 1) * LARGE_PAGE_BYTES).is_err());
    }
}
