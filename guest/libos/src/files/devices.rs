//! Character devices.

use alloc::rc::Rc;

use super::metadata::{device_major, device_minor};
use super::{File, Kind, Mapping, Metadata, Positions, Readiness};
use crate::errno::Errno;
use crate::kernel::Kernel;
use crate::memory::Buffers;

/// The device with this number, if there is one.
pub(crate) fn by_number(is_character: bool, rdev: u64) -> Option<Rc<dyn File>> {
    match (is_character, device_major(rdev), device_minor(rdev)) {
        (true, 1, 3) => Some(Rc::new(Null)),
        (true, 1, 5) => Some(Rc::new(Zero)),
        (true, 1, 7) => Some(Rc::new(Full)),
        (true, 1, 8 | 9) => Some(Rc::new(Random)),
        _ => None,
    }
}

/// `/dev/null`: takes everything, has nothing.
pub(crate) struct Null;
/// `/dev/zero`: takes everything, has zeroes without end.
pub(crate) struct Zero;
/// `/dev/full`: takes nothing, has zeroes without end.
pub(crate) struct Full;
/// `/dev/urandom`: random bytes without end.
pub(crate) struct Random;

/// Accepts what is written and forgets it.
fn swallow(buffers: &mut Buffers) -> u64 {
    let length = buffers.remaining();
    buffers.skip(length);
    length
}

impl File for Null {
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

    fn write(&self, _kernel: &mut Kernel, buffers: &mut Buffers) -> Result<u64, Errno> {
        Ok(swallow(buffers))
    }

    fn readiness(&self) -> Readiness {
        Readiness::READ | Readiness::WRITE
    }
}

impl File for Zero {
    fn kind(&self) -> Kind {
        Kind::CharacterDevice
    }

    fn positions(&self) -> Positions {
        Positions::Ignored
    }

    fn metadata(&self) -> Metadata {
        Metadata::of_device(1, 5)
    }

    fn mapping(&self) -> Result<Mapping, Errno> {
        Ok(Mapping::Zero)
    }

    fn read(&self, kernel: &mut Kernel, buffers: &mut Buffers) -> Result<u64, Errno> {
        buffers.put_zeroes(&mut kernel.process.space)
    }

    fn write(&self, _kernel: &mut Kernel, buffers: &mut Buffers) -> Result<u64, Errno> {
        Ok(swallow(buffers))
    }

    fn readiness(&self) -> Readiness {
        Readiness::READ | Readiness::WRITE
    }
}

impl File for Full {
    fn kind(&self) -> Kind {
        Kind::CharacterDevice
    }

    fn positions(&self) -> Positions {
        Positions::Ignored
    }

    fn metadata(&self) -> Metadata {
        Metadata::of_device(1, 7)
    }

    fn read(&self, kernel: &mut Kernel, buffers: &mut Buffers) -> Result<u64, Errno> {
        buffers.put_zeroes(&mut kernel.process.space)
    }

    fn write(&self, _kernel: &mut Kernel, _buffers: &mut Buffers) -> Result<u64, Errno> {
        Err(Errno::ENOSPC)
    }

    fn readiness(&self) -> Readiness {
        Readiness::READ | Readiness::WRITE
    }
}

impl File for Random {
    fn kind(&self) -> Kind {
        Kind::CharacterDevice
    }

    fn positions(&self) -> Positions {
        Positions::Ignored
    }

    fn metadata(&self) -> Metadata {
        Metadata::of_device(1, 9)
    }

    fn read(&self, kernel: &mut Kernel, buffers: &mut Buffers) -> Result<u64, Errno> {
        fill_random(kernel, buffers)
    }

    fn write(&self, _kernel: &mut Kernel, buffers: &mut Buffers) -> Result<u64, Errno> {
        Ok(swallow(buffers))
    }

    fn readiness(&self) -> Readiness {
        Readiness::READ | Readiness::WRITE
    }
}

/// Fills the buffers with random bytes; returns how many.
pub(crate) fn fill_random(kernel: &mut Kernel, buffers: &mut Buffers) -> Result<u64, Errno> {
    let mut total = 0;
    let mut part = [0; 256];
    while buffers.remaining() > 0 {
        let length = buffers.remaining().min(part.len() as u64) as usize;
        kernel.random.fill(&mut part[..length]);
        kernel.random.given_bytes += length as u64;
        match buffers.put(&mut kernel.process.space, &part[..length]) {
            Ok(done) => total += done,
            Err(error) if total == 0 => return Err(error),
            Err(_) => break,
        }
    }
    Ok(total)
}
