//! Standard input, output and error.

use alloc::rc::Rc;

use spore_abi::ring::LogOrigin;
use spore_machine::shared;

use super::{File, Kind, Metadata, Positions, Readiness};
use crate::errno::Errno;
use crate::kernel::Kernel;
use crate::memory::Buffers;

/// Standard input: always at its end.
pub(crate) struct Input;

impl File for Input {
    fn kind(&self) -> Kind {
        Kind::CharacterDevice
    }

    fn positions(&self) -> Positions {
        Positions::Ignored
    }

    fn metadata(&self) -> Metadata {
        Metadata::of_device(1, 3)
    }

    fn read(&self, _kernel: &mut Kernel, _buffers: &mut Buffers) -> Result<u64, Errno> {
        Ok(0)
    }

    fn waiting_bytes(&self) -> Option<u64> {
        Some(0)
    }

    fn reopened(self: Rc<Self>, _flags: u32) -> Result<Rc<dyn File>, Errno> {
        Ok(self)
    }

    fn readiness(&self) -> Readiness {
        Readiness::READ
    }
}

/// Standard output or error: the function's log.
pub(crate) struct Output(pub(crate) LogOrigin);

impl File for Output {
    fn kind(&self) -> Kind {
        Kind::Pipe
    }

    fn write(&self, kernel: &mut Kernel, buffers: &mut Buffers) -> Result<u64, Errno> {
        let mut total = 0;
        let mut part = [0; 2048];
        while buffers.remaining() > 0 {
            match buffers.take(&mut kernel.process.space, &mut part) {
                Ok(length) => {
                    shared::log(self.0, &part[..length as usize]);
                    total += length;
                }
                Err(error) if total == 0 => return Err(error),
                Err(_) => break,
            }
        }
        Ok(total)
    }

    fn reopened(self: Rc<Self>, _flags: u32) -> Result<Rc<dyn File>, Errno> {
        Ok(self)
    }

    fn readiness(&self) -> Readiness {
        Readiness::WRITE
    }
}
