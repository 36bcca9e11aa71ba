//! A file that is part of the root module, byte by byte: the single program.

use spore_machine::shared;
use spore_machine::user::Place;

use super::{File, Kind, Mapping, Metadata, Positions, Readiness};
use crate::errno::Errno;
use crate::kernel::Kernel;
use crate::memory::Buffers;

/// A read-only file.
pub(crate) struct ModuleFile {
    offset: u64,
    bytes: u64,
}

impl ModuleFile {
    /// This part of the module.
    pub(crate) fn new(offset: u64, bytes: u64) -> Self {
        Self { offset, bytes }
    }
}

impl File for ModuleFile {
    fn kind(&self) -> Kind {
        Kind::Regular
    }

    fn positions(&self) -> Positions {
        Positions::Kept
    }

    fn read_at(&self, kernel: &mut Kernel, position: u64, buffers: &mut Buffers) -> Result<u64, Errno> {
        let wanted = self.bytes.saturating_sub(position).min(buffers.remaining());
        if wanted == 0 {
            return Ok(0);
        }
        let place = Place::Module(self.offset.wrapping_add(position));
        buffers.put_from(&mut kernel.process.space, place, wanted)
    }

    fn size(&self) -> Option<u64> {
        Some(self.bytes)
    }

    fn peek(&self, offset: u64, buffer: &mut [u8]) -> Result<usize, Errno> {
        let length = self.bytes.saturating_sub(offset).min(buffer.len() as u64) as usize;
        let at = self.offset.wrapping_add(offset);
        if length > 0 && !shared::read_module(at, &mut buffer[..length]) {
            return Err(Errno::EIO);
        }
        Ok(length)
    }

    fn metadata(&self) -> Metadata {
        Metadata {
            mode: Kind::Regular.mode() | 0o755,
            size: self.bytes,
            blocks: self.bytes.div_ceil(512),
            ..Metadata::of_kind(Kind::Regular)
        }
    }

    fn readiness(&self) -> Readiness {
        Readiness::READ | Readiness::WRITE
    }

    fn mapping(&self) -> Result<Mapping, Errno> {
        Ok(Mapping::Module {
            offset: self.offset,
            bytes: self.bytes,
        })
    }
}
