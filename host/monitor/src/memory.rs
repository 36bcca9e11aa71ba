//! The guest's physical memory, as the monitor maps it.

use std::borrow::Cow;
use std::ffi::c_void;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr;

use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap, mmap_anonymous, munmap};
use spore_abi::layout::PAGE_BYTES;
use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::module::RootFiles;

/// A stretch of guest-physical memory.
///
/// All access goes through copies of bounded ranges: no reference into it is ever made, since the guest may change
/// it whenever the virtual processor runs. A file is the exception: nobody may change that.
pub(crate) struct Region {
    start: *mut u8,
    length: usize,
    mapping: (*mut c_void, usize),
    is_file: bool,
}

/// A range that is not within a region.
#[derive(Debug, thiserror::Error)]
#[error("{length} bytes at {offset:#x} are not within the guest's memory")]
pub(crate) struct OutOfRange {
    offset: u64,
    length: usize,
}

impl Region {
    /// Zeroed memory of `length` bytes, aligned to `alignment` (a power of two). It takes host memory as it is touched.
    pub(crate) fn anonymous(length: usize, alignment: usize) -> io::Result<Self> {
        let mapped = length.checked_add(alignment).ok_or(io::ErrorKind::InvalidInput)?;
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new mapping at an address of the kernel's choice touches nothing that exists.
        let base = unsafe {
            mmap_anonymous(
                ptr::null_mut(),
                mapped,
                protection,
                MapFlags::PRIVATE | MapFlags::NORESERVE,
            )
        }?;
        let offset = base.addr().next_multiple_of(alignment) - base.addr();
        // SAFETY: `offset` is less than `alignment`, so the result lies within the mapping.
        let start = unsafe { base.cast::<u8>().add(offset) };
        Ok(Self {
            start,
            length,
            mapping: (base, mapped),
            is_file: false,
        })
    }

    /// The first `length` bytes of a file of at least that length, shared with whoever maps it. It never gets shorter.
    pub(crate) fn shared(file: BorrowedFd<'_>, length: usize) -> io::Result<Self> {
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new mapping at an address of the kernel's choice touches nothing that exists.
        let base = unsafe { mmap(ptr::null_mut(), length, protection, MapFlags::SHARED, file, 0) }?;
        Ok(Self {
            start: base.cast(),
            length,
            mapping: (base, length),
            is_file: false,
        })
    }

    /// Replaces anonymous memory, all of it, by a file of the same length that is shared with whoever maps it. It never
    /// gets shorter.
    pub(crate) fn share(&self, file: BorrowedFd<'_>) -> io::Result<()> {
        self.replace(file, MapFlags::SHARED, 0, 0, self.length)
    }

    /// Replaces a range of anonymous memory by a private copy of as much of a file, from `file_offset` on, which is read and
    /// copied as it is touched. The file never gets shorter.
    pub(crate) fn overlay(
        &self,
        file: BorrowedFd<'_>,
        file_offset: u64,
        offset: u64,
        length: usize,
    ) -> io::Result<()> {
        let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
        self.replace(file, flags, file_offset, offset, length)
    }

    fn replace(
        &self,
        file: BorrowedFd<'_>,
        flags: MapFlags,
        file_offset: u64,
        offset: u64,
        length: usize,
    ) -> io::Result<()> {
        let is_whole = offset.is_multiple_of(PAGE_BYTES) && (length as u64).is_multiple_of(PAGE_BYTES);
        let place = match self.place(offset, length) {
            Ok(place) if is_whole && length > 0 => place,
            _ => return Err(io::ErrorKind::InvalidInput.into()),
        };
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        let flags = flags | MapFlags::FIXED;
        // SAFETY: the range lies within our own mapping, to which no reference exists; its pages change, its length
        // and protection do not.
        unsafe { mmap(place.cast(), length, protection, flags, file, file_offset) }?;
        Ok(())
    }

    /// The first `length` bytes of a file, read-only. Beyond the end of the file is nothing: the caller has checked
    /// its size, rounded up to whole pages.
    pub(crate) fn file(file: BorrowedFd<'_>, length: usize) -> io::Result<Self> {
        // SAFETY: a new mapping at an address of the kernel's choice. If the file is cut short meanwhile, an access
        // raises SIGBUS in the kernel's or in our copy; the store never changes a file that an instance runs.
        let base = unsafe {
            mmap(
                ptr::null_mut(),
                length,
                ProtFlags::READ,
                MapFlags::PRIVATE,
                file,
                0,
            )
        }?;
        Ok(Self {
            start: base.cast(),
            length,
            mapping: (base, length),
            is_file: true,
        })
    }

    /// A root module, read-only, in one piece whatever files it consists of. Beyond their ends is nothing: they have been
    /// looked at.
    pub(crate) fn module(root: &RootFiles) -> io::Result<Self> {
        let parts = root.parts();
        if let [part] = parts.as_slice() {
            return Self::file(part.file, part.bytes as usize);
        }
        let mut region = Self::reserved(parts.iter().map(|part| part.bytes).sum::<u64>() as usize)?;
        region.take_module(root)?;
        Ok(region)
    }

    /// A place for a root module of that length, in which nothing is to be written.
    pub(crate) fn reserved(length: usize) -> io::Result<Self> {
        let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
        // SAFETY: a new mapping at an address of the kernel's choice touches nothing that exists.
        let base = unsafe { mmap_anonymous(ptr::null_mut(), length, ProtFlags::READ, flags) }?;
        Ok(Self {
            start: base.cast(),
            length,
            mapping: (base, length),
            is_file: false,
        })
    }

    /// Puts a root module of its length into a place that was reserved.
    pub(crate) fn take_module(&mut self, root: &RootFiles) -> io::Result<()> {
        let mut at = 0;
        for part in root.parts() {
            let bytes = part.bytes as usize;
            let place = self.place(at, bytes).map_err(io::Error::other)?;
            let flags = MapFlags::PRIVATE | MapFlags::FIXED;
            // SAFETY: the range lies within our own mapping, to which no reference exists yet. Files that are cut short
            // meanwhile are as in `file`.
            unsafe {
                mmap(
                    place.cast(),
                    bytes,
                    ProtFlags::READ,
                    flags,
                    part.file,
                    part.offset,
                )
            }?;
            at += part.bytes;
        }
        if at != self.length() {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        // Of a file from its start to its end.
        self.is_file = true;
        Ok(())
    }

    /// A root module as a private copy, which is read and copied as it is touched.
    pub(crate) fn copied_module(root: &RootFiles) -> io::Result<Self> {
        let bytes = root.bytes().next_multiple_of(PAGE_BYTES) as usize;
        let region = Self::anonymous(bytes, PAGE_BYTES as usize)?;
        region.take_copy(root)?;
        Ok(region)
    }

    /// Puts a private copy of a root module into anonymous memory.
    pub(crate) fn take_copy(&self, root: &RootFiles) -> io::Result<()> {
        let mut at = 0;
        for part in root.parts() {
            let bytes = part.bytes.next_multiple_of(PAGE_BYTES) as usize;
            self.overlay(part.file, part.offset, at, bytes)?;
            at += part.bytes;
        }
        Ok(())
    }

    /// The bytes of a region that is a file; nothing of another one.
    pub(crate) fn file_bytes(&self) -> &[u8] {
        if !self.is_file {
            return &[];
        }
        // SAFETY: a mapping of this length that lives as long as `self`, with bytes up to its end (the caller of
        // `file`, or of `module`, has checked the size). Nobody writes to it: the mapping is read-only for this process,
        // therefore for the guest, whose memory it is with `KVM_MEM_READONLY` besides; and the store never changes the file.
        unsafe { std::slice::from_raw_parts(self.start, self.length) }
    }

    /// What a region holds: the bytes of a file, or a copy of all of it.
    pub(crate) fn contents(&self) -> Cow<'_, [u8]> {
        if self.is_file {
            return Cow::Borrowed(self.file_bytes());
        }
        let mut bytes = vec![0; self.length];
        match self.read_bytes(0, &mut bytes) {
            Ok(()) => Cow::Owned(bytes),
            Err(_) => Cow::Borrowed(&[]),
        }
    }

    /// Asks for large pages in a range; without them everything works.
    pub(crate) fn advise_large_pages(&self, offset: u64, length: usize) {
        if let Ok(place) = self.place(offset, length) {
            // SAFETY: the range lies within our own mapping; the advice changes no contents. A kernel without large
            // pages refuses it, which changes nothing either.
            let _ = unsafe { madvise(place.cast(), length, Advice::LinuxHugepage) };
        }
    }

    /// Asks for large pages in a range that has its contents already; without them everything works.
    pub(crate) fn collapse(&self, offset: u64, length: usize) {
        /// `MADV_COLLAPSE` (madvise(2)), since Linux 6.1.
        const COLLAPSE: libc::c_int = 25;
        if let Ok(place) = self.place(offset, length) {
            // SAFETY: the range lies within our own mapping, and its contents stay.
            let _ = unsafe { libc::madvise(place.cast(), length, COLLAPSE) };
        }
    }

    /// Lets the host merge pages with equal ones of other processes (`MADV_MERGEABLE`). Files that are laid over the region
    /// later are left out. A kernel that cannot do it refuses, which changes nothing.
    pub(crate) fn merge_pages(&self) {
        // SAFETY: the range is our own mapping; contents do not change.
        let _ = unsafe { madvise(self.start.cast(), self.length, Advice::LinuxMergeable) };
    }

    /// Fills a range with what a file has there.
    pub(crate) fn fill(
        &self,
        file: BorrowedFd<'_>,
        file_offset: u64,
        offset: u64,
        length: usize,
    ) -> io::Result<()> {
        let mut done = 0;
        while done < length {
            let left = length - done;
            let place = self.place(offset + done as u64, left).map_err(io::Error::other)?;
            let at = (file_offset + done as u64) as libc::off_t;
            // SAFETY: the range lies within our own mapping, which is writable, and to which no reference exists.
            let count = unsafe { libc::pread(file.as_raw_fd(), place.cast(), left, at) };
            match usize::try_from(count) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => done += count,
                Err(_) => match io::Error::last_os_error() {
                    error if error.kind() == io::ErrorKind::Interrupted => {}
                    error => return Err(error),
                },
            }
        }
        Ok(())
    }

    /// Gives the host the memory of a range back: it is zero again.
    pub(crate) fn give_back(&self, offset: u64, length: usize) -> io::Result<()> {
        let place = self.place(offset, length).map_err(io::Error::other)?;
        // SAFETY: the range lies within our own mapping, to which no reference exists, and nobody needs its contents.
        Ok(unsafe { madvise(place.cast(), length, Advice::LinuxDontNeed) }?)
    }

    /// Lets the host find memory for a range now, writable pages of our own, rather than page by page as they are written
    /// to; without that everything works.
    pub(crate) fn populate(&self, offset: u64, length: usize) {
        if let Ok(place) = self.place(offset, length) {
            // SAFETY: the range lies within our own mapping; the contents do not change. Kernels before 5.14 refuse.
            let _ = unsafe { madvise(place.cast(), length, Advice::LinuxPopulateWrite) };
        }
    }

    /// Address in this process, for the kernel.
    pub(crate) fn host_address(&self) -> u64 {
        self.start.addr() as u64
    }

    /// Length, in bytes.
    pub(crate) fn length(&self) -> u64 {
        self.length as u64
    }

    /// Address in this process of a range, for system calls that read or write it.
    pub(crate) fn place(&self, offset: u64, length: usize) -> Result<*mut u8, OutOfRange> {
        let error = OutOfRange { offset, length };
        let Ok(start) = usize::try_from(offset) else {
            return Err(error);
        };
        match start.checked_add(length) {
            // SAFETY: `start` is at most `self.length`, so the result lies within the mapping or at its end.
            Some(end) if end <= self.length => Ok(unsafe { self.start.add(start) }),
            _ => Err(error),
        }
    }

    /// Copies a value out.
    pub(crate) fn read<T: FromBytes>(&self, offset: u64) -> Result<T, OutOfRange> {
        let place = self.place(offset, size_of::<T>())?;
        // SAFETY: the range was checked; any bytes are a `T`. The read is volatile: nothing is assumed to stay.
        Ok(unsafe { ptr::read_volatile(place.cast::<Unaligned<T>>()) }.0)
    }

    /// Copies a value in.
    pub(crate) fn write<T: IntoBytes + Immutable>(&self, offset: u64, value: T) -> Result<(), OutOfRange> {
        let place = self.place(offset, size_of::<T>())?;
        // SAFETY: the range was checked; it is writable unless the region is a file, which is never written to.
        unsafe { ptr::write_volatile(place.cast::<Unaligned<T>>(), Unaligned(value)) };
        Ok(())
    }

    /// Copies bytes in.
    pub(crate) fn write_bytes(&self, offset: u64, bytes: &[u8]) -> Result<(), OutOfRange> {
        let place = self.place(offset, bytes.len())?;
        // SAFETY: the range was checked, and `bytes` is not part of it: no reference into a region exists.
        unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), place, bytes.len()) };
        Ok(())
    }

    /// Copies bytes out.
    pub(crate) fn read_bytes(&self, offset: u64, bytes: &mut [u8]) -> Result<(), OutOfRange> {
        let place = self.place(offset, bytes.len())?;
        // SAFETY: as for `write_bytes`.
        unsafe { ptr::copy_nonoverlapping(place, bytes.as_mut_ptr(), bytes.len()) };
        Ok(())
    }
}

#[repr(C, packed)]
struct Unaligned<T>(T);

impl Drop for Region {
    fn drop(&mut self) {
        let (base, length) = self.mapping;
        // SAFETY: our own mapping; the virtual machine that used it is dropped before its regions (see `machine`).
        let _ = unsafe { munmap(base, length) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_checked() {
        let region = Region::anonymous(8192, 1 << 21).unwrap();
        assert_eq!(region.host_address() % (1 << 21), 0);
        region.write(8184, 7_u64).unwrap();
        assert_eq!(region.read::<u64>(8184).unwrap(), 7);
        for offset in [8185, 8192, 8193, u64::MAX - 7, u64::MAX] {
            assert!(region.read::<u64>(offset).is_err());
            assert!(region.write(offset, 0_u64).is_err());
            assert!(region.write_bytes(offset, &[0; 8]).is_err());
        }
        region.write_bytes(8192, &[]).unwrap();
    }
}
