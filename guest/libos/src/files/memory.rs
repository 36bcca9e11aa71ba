//! Files that are in no tree and whose bytes are in memory: `memfd_create`.

use alloc::rc::Rc;
use alloc::vec::Vec;
use core::cell::Cell;

use linux_raw_sys::general::{
    F_SEAL_EXEC, F_SEAL_FUTURE_WRITE, F_SEAL_GROW, F_SEAL_SEAL, F_SEAL_SHRINK, F_SEAL_WRITE,
    FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE, FALLOC_FL_ZERO_RANGE, S_IFREG,
};

use super::contents::{Contents, FILE_BYTES_MAX};
use super::{File, Kind, Mapping, Metadata, Positions, Readiness};
use crate::errno::Errno;
use crate::kernel::Kernel;
use crate::memory::Buffers;
use crate::memory::frames::SharedFrames;
use crate::time::realtime_ns;

const ALL_SEALS: u32 =
    F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_FUTURE_WRITE | F_SEAL_EXEC;
const WRITE_SEALS: u32 = F_SEAL_WRITE | F_SEAL_FUTURE_WRITE;

/// A file in memory with seals.
pub(crate) struct MemoryFile {
    contents: Contents,
    seals: Cell<u32>,
    name: Vec<u8>,
    mode: Cell<u32>,
    inode: u64,
    accessed_ns: Cell<u64>,
    modified_ns: Cell<u64>,
}

impl MemoryFile {
    /// An empty file. Without `can_be_sealed` it has the seal that forbids seals.
    pub(crate) fn new(frames: &SharedFrames, name: Vec<u8>, can_be_sealed: bool, inode: u64) -> Self {
        let now_ns = realtime_ns();
        Self {
            contents: Contents::new(frames),
            seals: Cell::new(if can_be_sealed { 0 } else { F_SEAL_SEAL }),
            name,
            mode: Cell::new(0o777),
            inode,
            accessed_ns: Cell::new(now_ns),
            modified_ns: Cell::new(now_ns),
        }
    }

    /// The seals that it has.
    pub(crate) fn seals(&self) -> u32 {
        self.seals.get()
    }

    /// Adds seals.
    pub(crate) fn add_seals(&self, seals: u32) -> Result<(), Errno> {
        if seals & !ALL_SEALS != 0 {
            return Err(Errno::EINVAL);
        }
        if self.seals.get() & F_SEAL_SEAL != 0 {
            return Err(Errno::EPERM);
        }
        // Mappings hold the pages; one of them may be writable.
        if seals & F_SEAL_WRITE != 0 && Rc::strong_count(self.contents.pages()) > 1 {
            return Err(Errno::EBUSY);
        }
        self.seals.set(self.seals.get() | seals);
        Ok(())
    }

    /// Sets its permission bits.
    pub(crate) fn set_permissions(&self, bits: u32) {
        self.mode.set(bits & 0o7777);
    }

    fn check_seal(&self, seal: u32) -> Result<(), Errno> {
        if self.seals.get() & seal == 0 {
            Ok(())
        } else {
            Err(Errno::EPERM)
        }
    }
}

/// What a `fallocate` mode asks of contents in memory.
pub(crate) fn allocate(
    contents: &Contents,
    kernel: &mut Kernel,
    mode: u32,
    offset: u64,
    bytes: u64,
) -> Result<(), Errno> {
    let end = offset
        .checked_add(bytes)
        .filter(|&end| end <= FILE_BYTES_MAX)
        .ok_or(Errno::EFBIG)?;
    match mode {
        0 | FALLOC_FL_KEEP_SIZE => contents.allocate(offset, bytes, mode == FALLOC_FL_KEEP_SIZE),
        _ if mode == FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE => {
            contents.clear(kernel, offset, end);
            Ok(())
        }
        _ if mode & !FALLOC_FL_KEEP_SIZE == FALLOC_FL_ZERO_RANGE => {
            contents.clear(kernel, offset, end);
            contents.allocate(offset, bytes, mode & FALLOC_FL_KEEP_SIZE != 0)
        }
        _ => Err(Errno::EOPNOTSUPP),
    }
}

impl File for MemoryFile {
    fn kind(&self) -> Kind {
        Kind::Regular
    }

    fn positions(&self) -> Positions {
        Positions::Kept
    }

    fn read_at(&self, kernel: &mut Kernel, position: u64, buffers: &mut Buffers) -> Result<u64, Errno> {
        self.contents
            .read_at(&mut kernel.process.space, position, buffers)
    }

    fn write_at(&self, kernel: &mut Kernel, position: u64, buffers: &mut Buffers) -> Result<u64, Errno> {
        self.check_seal(WRITE_SEALS)?;
        if position.saturating_add(buffers.remaining()) > self.contents.size() {
            self.check_seal(F_SEAL_GROW)?;
        }
        self.modified_ns.set(realtime_ns());
        self.contents
            .write_at(&mut kernel.process.space, position, buffers)
    }

    fn size(&self) -> Option<u64> {
        Some(self.contents.size())
    }

    fn peek(&self, offset: u64, buffer: &mut [u8]) -> Result<usize, Errno> {
        Ok(self.contents.peek(offset, buffer))
    }

    fn seek_data(&self, offset: u64, hole: bool) -> Result<u64, Errno> {
        self.contents.seek_data(offset, hole)
    }

    fn truncate(&self, kernel: &mut Kernel, bytes: u64) -> Result<(), Errno> {
        match bytes.cmp(&self.contents.size()) {
            core::cmp::Ordering::Less => self.check_seal(F_SEAL_SHRINK)?,
            core::cmp::Ordering::Greater => self.check_seal(F_SEAL_GROW)?,
            core::cmp::Ordering::Equal => {}
        }
        self.modified_ns.set(realtime_ns());
        self.contents.truncate(kernel, bytes)
    }

    fn allocate(&self, kernel: &mut Kernel, mode: u32, offset: u64, bytes: u64) -> Result<(), Errno> {
        if mode & (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE) != 0 {
            self.check_seal(WRITE_SEALS)?;
        }
        if mode & FALLOC_FL_KEEP_SIZE == 0 && offset.saturating_add(bytes) > self.contents.size() {
            self.check_seal(F_SEAL_GROW)?;
        }
        allocate(&self.contents, kernel, mode, offset, bytes)
    }

    fn metadata(&self) -> Metadata {
        Metadata {
            mode: S_IFREG | self.mode.get(),
            size: self.contents.size(),
            blocks: self.contents.blocks(),
            links: 0,
            inode: self.inode,
            accessed_ns: self.accessed_ns.get(),
            modified_ns: self.modified_ns.get(),
            changed_ns: self.modified_ns.get(),
            ..Metadata::of_kind(Kind::Regular)
        }
    }

    fn reopened(self: Rc<Self>, _flags: u32) -> Result<Rc<dyn File>, Errno> {
        Ok(self)
    }

    fn readiness(&self) -> Readiness {
        Readiness::READ | Readiness::WRITE
    }

    fn mapping(&self) -> Result<Mapping, Errno> {
        Ok(Mapping::Pages(Rc::clone(self.contents.pages())))
    }

    fn shared_mapping(&self, _kernel: &mut Kernel) -> Result<Mapping, Errno> {
        self.check_seal(WRITE_SEALS)?;
        self.mapping()
    }

    fn label(&self) -> Vec<u8> {
        [b"/memfd:", self.name.as_slice(), b" (deleted)"].concat()
    }

    fn as_memory_file(&self) -> Option<&MemoryFile> {
        Some(self)
    }
}
