//! Standard input and output of a command: the stream of its invocation, which looks like two pipes.

use alloc::rc::Rc;

use super::{File, Kind, Readiness};
use crate::errno::Errno;
use crate::kernel::Kernel;
use crate::memory::Buffers;
use crate::network::stream::Stream;
use crate::task::WaitQueue;

/// Standard input: what the caller sends.
pub(crate) struct Input(pub(crate) Rc<Stream>);

impl File for Input {
    fn kind(&self) -> Kind {
        Kind::Pipe
    }

    fn read(&self, kernel: &mut Kernel, buffers: &mut Buffers) -> Result<u64, Errno> {
        match self.0.read(kernel, buffers, false) {
            // A pipe whose writer has gone is at its end.
            Err(Errno::ECONNRESET) => Ok(0),
            result => result,
        }
    }

    fn waiting_bytes(&self) -> Option<u64> {
        Some(self.0.waiting_bytes().into())
    }

    fn readiness(&self) -> Readiness {
        let stream = self.0.readiness();
        let mut readiness = Readiness::empty();
        readiness.set(Readiness::READ, self.0.waiting_bytes() > 0);
        readiness.set(Readiness::HANG_UP, stream.contains(Readiness::READ_HANG_UP));
        readiness
    }

    fn wait_queue(&self) -> Option<&WaitQueue> {
        Some(self.0.moved())
    }

    fn reopened(self: Rc<Self>, _flags: u32) -> Result<Rc<dyn File>, Errno> {
        Ok(self)
    }
}

/// Standard output: what the caller gets.
pub(crate) struct Output(pub(crate) Rc<Stream>);

impl File for Output {
    fn kind(&self) -> Kind {
        Kind::Pipe
    }

    fn write(&self, kernel: &mut Kernel, buffers: &mut Buffers) -> Result<u64, Errno> {
        self.0.write(kernel, buffers)
    }

    fn readiness(&self) -> Readiness {
        self.0.readiness() & (Readiness::WRITE | Readiness::ERROR)
    }

    fn wait_queue(&self) -> Option<&WaitQueue> {
        Some(self.0.moved())
    }

    fn reopened(self: Rc<Self>, _flags: u32) -> Result<Rc<dyn File>, Errno> {
        Ok(self)
    }
}
