//! Event counters (`eventfd`).

use alloc::rc::Rc;
use core::cell::Cell;

use super::{File, Kind, Readiness};
use crate::errno::Errno;
use crate::kernel::Kernel;
use crate::memory::Buffers;
use crate::task::{ReadyQueue, WaitQueue};

/// An event counter.
pub(crate) struct EventCounter {
    count: Cell<u64>,
    is_semaphore: bool,
    moved: WaitQueue,
}

impl EventCounter {
    /// A counter that starts at `count`; a semaphore is read one by one.
    pub(crate) fn new(count: u64, is_semaphore: bool, ready: &Rc<ReadyQueue>) -> Self {
        Self {
            count: Cell::new(count),
            is_semaphore,
            moved: WaitQueue::new(ready),
        }
    }
}

impl File for EventCounter {
    fn kind(&self) -> Kind {
        Kind::Anonymous
    }

    fn read(&self, kernel: &mut Kernel, buffers: &mut Buffers) -> Result<u64, Errno> {
        if buffers.remaining() < 8 {
            return Err(Errno::EINVAL);
        }
        let count = self.count.get();
        if count == 0 {
            return Err(Errno::EAGAIN);
        }
        let taken = if self.is_semaphore { 1 } else { count };
        buffers.put(&mut kernel.process.space, &taken.to_le_bytes())?;
        self.count.set(count - taken);
        self.moved.wake();
        Ok(8)
    }

    fn write(&self, kernel: &mut Kernel, buffers: &mut Buffers) -> Result<u64, Errno> {
        let mut bytes = [0; 8];
        if buffers.remaining() < 8 {
            return Err(Errno::EINVAL);
        }
        let mut tried = buffers.clone();
        tried.take(&mut kernel.process.space, &mut bytes)?;
        let added = u64::from_le_bytes(bytes);
        if added == u64::MAX {
            return Err(Errno::EINVAL);
        }
        let sum = self
            .count
            .get()
            .checked_add(added)
            .filter(|&sum| sum < u64::MAX)
            .ok_or(Errno::EAGAIN)?;
        *buffers = tried;
        self.count.set(sum);
        self.moved.wake();
        Ok(8)
    }

    fn readiness(&self) -> Readiness {
        let mut readiness = Readiness::empty();
        readiness.set(Readiness::READ, self.count.get() > 0);
        readiness.set(Readiness::WRITE, self.count.get() < u64::MAX - 1);
        readiness
    }

    fn wait_queue(&self) -> Option<&WaitQueue> {
        Some(&self.moved)
    }
}
