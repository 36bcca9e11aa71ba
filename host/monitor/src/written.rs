//! Which pages of its memory a guest has written to: the host kernel knows (proc_pid_pagemap(5)).
//!
//! The first copy of a snapshot tells the daemon when it has given its first answer, with what it has only read
//! (`machine/touched.rs`); every later copy gets memory for these pages ahead, all at once, rather than at a fault for each.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;

use rustix::fs::{Mode, OFlags, openat};
use rustix::io::Errno;
use rustix::ioctl::opcode;
use rustix::thread::{CapabilitySet, CapabilitySets, capabilities, set_capabilities};
use spore_abi::layout::PAGE_BYTES;

use crate::memory::Region;

/// Entries that are read at once.
const ENTRIES: usize = 8192;
const ENTRY_BYTES: usize = 8;
/// A page is there.
const PRESENT: u64 = 1 << 63;
/// It is there, and the host has put it aside or is moving it.
const SWAPPED: u64 = 1 << 62;
/// It is a file's, or shared.
const OF_FILE: u64 = 1 << 61;
/// Most stretches that are told of.
pub(crate) const STRETCHES_MAX: usize = 8192;
/// Most stretches that the kernel is asked for at a time. With more, some kernels do not say where they have stopped.
const SCANNED_MAX: usize = 512;

/// `PAGEMAP_SCAN` (Linux, Documentation/admin-guide/mm/pagemap.rst).
pub(crate) const SCAN: u32 = opcode::read_write::<Scan>(b'f', 16);
const SCAN_FILE: u64 = 1 << 2;
const SCAN_PRESENT: u64 = 1 << 3;
const SCAN_SWAPPED: u64 = 1 << 4;

/// `struct pm_scan_arg`.
#[repr(C)]
pub(crate) struct Scan {
    size: u64,
    flags: u64,
    start: u64,
    end: u64,
    walk_end: u64,
    vec: u64,
    vec_len: u64,
    max_pages: u64,
    category_inverted: u64,
    category_mask: u64,
    category_anyof_mask: u64,
    return_mask: u64,
}

/// `struct page_region`.
#[derive(Clone, Copy, Default)]
#[repr(C)]
struct Scanned {
    start: u64,
    end: u64,
    categories: u64,
}

/// This process's own page map.
#[derive(Debug)]
pub(crate) struct PageMap(File);

impl PageMap {
    /// Opens it, below the folder of processes. It stays this process's, whatever rights that loses later; and the kernel shows whoever opens it with
    /// rights where the pages lie in the machine's memory, which is nobody's business, so this thread lays down its rights
    /// meanwhile.
    pub(crate) fn open(processes: &File) -> Option<Self> {
        let held = capabilities(None).ok()?;
        let without = CapabilitySets {
            effective: CapabilitySet::empty(),
            ..held
        };
        set_capabilities(None, without).ok()?;
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let opened = openat(processes, "self/pagemap", flags, Mode::empty());
        // Should this fail, a layer of the jail cannot be had later, and nothing is started.
        let _ = set_capabilities(None, held);
        opened.ok().map(|file| Self(file.into()))
    }

    pub(crate) fn file(&self) -> &File {
        &self.0
    }

    /// The stretches of [`PageMap::own_pages`], or the first of them, as many as are told of.
    pub(crate) fn own_stretches(&self, region: &Region) -> Vec<(u64, u64)> {
        let mut stretches = self.own_pages(region).unwrap_or_default();
        stretches.truncate(STRETCHES_MAX);
        stretches
    }

    /// The stretches (start and length) of a region whose pages are this process's own: written to, or touched where there
    /// was nothing. None if the kernel does not tell; not all of them if they are more than [`STRETCHES_MAX`].
    pub(crate) fn own_pages(&self, region: &Region) -> Option<Vec<(u64, u64)>> {
        match self.scan(region) {
            Err(Errno::NOTTY) => self.read(region),
            other => other.ok(),
        }
    }

    /// Asks the kernel for them (Linux 6.7).
    fn scan(&self, region: &Region) -> Result<Vec<(u64, u64)>, Errno> {
        let (base, end) = (region.host_address(), region.host_address() + region.length());
        let mut stretches: Vec<(u64, u64)> = Vec::new();
        let mut start = base;
        while start < end && stretches.len() <= STRETCHES_MAX {
            let mut found = [Scanned::default(); SCANNED_MAX];
            let mut scan = Scan {
                size: size_of::<Scan>() as u64,
                flags: 0,
                start,
                end,
                walk_end: 0,
                vec: found.as_mut_ptr().expose_provenance() as u64,
                vec_len: SCANNED_MAX as u64,
                max_pages: 0,
                category_inverted: SCAN_FILE,
                category_mask: SCAN_FILE,
                category_anyof_mask: SCAN_PRESENT | SCAN_SWAPPED,
                return_mask: SCAN_FILE,
            };
            // SAFETY: the argument and the vector that it points to are valid for the lengths that it says, and live
            // through the call, which changes nothing else.
            let count = unsafe { libc::ioctl(self.0.as_raw_fd(), libc::c_ulong::from(SCAN), &raw mut scan) };
            let count = usize::try_from(count)
                .map_err(|_| Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO))?;
            for stretch in found.iter().take(count) {
                add(&mut stretches, stretch.start - base, stretch.end - stretch.start);
            }
            if scan.walk_end <= start {
                return Err(Errno::IO);
            }
            start = scan.walk_end;
        }
        Ok(stretches)
    }

    /// Finds them among the entries of all pages.
    fn read(&self, region: &Region) -> Option<Vec<(u64, u64)>> {
        let first = region.host_address() / PAGE_BYTES;
        let count = region.length() / PAGE_BYTES;
        let mut stretches: Vec<(u64, u64)> = Vec::new();
        let mut buffer = vec![0; ENTRIES * ENTRY_BYTES];
        let mut page = 0;
        while page < count {
            let wanted = usize::try_from(count - page).map_or(ENTRIES, |left| left.min(ENTRIES));
            let entries = &mut buffer[..wanted * ENTRY_BYTES];
            self.0
                .read_exact_at(entries, (first + page) * ENTRY_BYTES as u64)
                .ok()?;
            for entry in entries.as_chunks::<ENTRY_BYTES>().0 {
                let entry = u64::from_ne_bytes(*entry);
                if entry & (PRESENT | SWAPPED) != 0 && entry & OF_FILE == 0 {
                    add(&mut stretches, page * PAGE_BYTES, PAGE_BYTES);
                }
                page += 1;
            }
        }
        Some(stretches)
    }
}

/// Adds a stretch behind those that are there.
pub(crate) fn add(stretches: &mut Vec<(u64, u64)>, start: u64, length: u64) {
    match stretches.last_mut() {
        Some((last, so_far)) if *last + *so_far == start => *so_far += length,
        _ => stretches.push((start, length)),
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn own_pages_are_told_from_those_of_a_file() {
        let file = crate::text_file().unwrap();
        let region = Region::anonymous(16 << 20, 2 << 20).unwrap();
        region.overlay(file.as_fd(), 0, 0, 2 << 20).unwrap();
        for page in [0, 3, 600] {
            region.read::<u8>(page * PAGE_BYTES).unwrap();
        }
        for page in [5, 6, 1023].into_iter().chain((1026..4096).step_by(2)) {
            region.write(page * PAGE_BYTES, 1_u8).unwrap();
        }
        let page_map = PageMap::open(&File::open("/proc").unwrap()).unwrap();
        let mut entry = [0; ENTRY_BYTES];
        let place = (region.host_address() / PAGE_BYTES + 5) * ENTRY_BYTES as u64;
        page_map.0.read_exact_at(&mut entry, place).unwrap();
        let frame = u64::from_ne_bytes(entry) & ((1 << 55) - 1);
        assert_eq!(frame, 0, "where the page lies is not told");
        let stretches = page_map.own_pages(&region).unwrap();
        assert!(stretches.len() > 2 * SCANNED_MAX, "{}", stretches.len());
        assert_eq!(page_map.read(&region).unwrap(), stretches, "in either way");
        let written = [(5 * PAGE_BYTES, 2 * PAGE_BYTES), (1023 * PAGE_BYTES, PAGE_BYTES)];
        for stretch in written {
            assert!(stretches.contains(&stretch), "{stretches:?}");
        }
        assert!(
            !stretches.iter().any(|&(start, _)| start < 5 * PAGE_BYTES),
            "{stretches:?}"
        );
    }
}
