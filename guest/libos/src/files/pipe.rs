//! Pipes.

use alloc::collections::VecDeque;
use alloc::rc::Rc;
use core::cell::{Cell, RefCell};

use super::budget::{Budget, Share};
use super::{File, Kind, Readiness};
use crate::errno::Errno;
use crate::kernel::Kernel;
use crate::memory::Buffers;
use crate::task::{ReadyQueue, WaitQueue};

/// Bytes that a pipe holds, as on Linux.
const PIPE_BYTES: usize = 65_536;
/// Bytes that a pipe holds when there are very many.
const SMALL_PIPE_BYTES: usize = 4096;
/// Writes of at most this many bytes are not torn apart (PIPE_BUF).
const ATOMIC_BYTES: u64 = 4096;

struct Shared {
    bytes: RefCell<VecDeque<u8>>,
    capacity: usize,
    _share: Share,
    reader_open: Cell<bool>,
    writer_open: Cell<bool>,
    moved: WaitQueue,
}

/// The end that is read from.
pub(crate) struct ReadEnd(Rc<Shared>);
/// The end that is written to.
pub(crate) struct WriteEnd(Rc<Shared>);

/// A new pipe, if there is memory for it.
pub(crate) fn new(ready: &Rc<ReadyQueue>, budget: &Rc<Budget>) -> Option<(ReadEnd, WriteEnd)> {
    let (capacity, share) = budget.pipe(PIPE_BYTES, SMALL_PIPE_BYTES)?;
    let shared = Rc::new(Shared {
        bytes: RefCell::default(),
        capacity,
        _share: share,
        reader_open: Cell::new(true),
        writer_open: Cell::new(true),
        moved: WaitQueue::new(ready),
    });
    Some((ReadEnd(Rc::clone(&shared)), WriteEnd(shared)))
}

impl File for ReadEnd {
    fn kind(&self) -> Kind {
        Kind::Pipe
    }

    fn read(&self, kernel: &mut Kernel, buffers: &mut Buffers) -> Result<u64, Errno> {
        let mut bytes = self.0.bytes.borrow_mut();
        if bytes.is_empty() {
            return if self.0.writer_open.get() && buffers.remaining() > 0 {
                Err(Errno::EAGAIN)
            } else {
                Ok(0)
            };
        }
        let (first, second) = bytes.as_slices();
        let mut done = buffers.put(&mut kernel.process.space, first)?;
        if done == first.len() as u64 {
            done += buffers.put(&mut kernel.process.space, second).unwrap_or(0);
        }
        bytes.drain(..done as usize);
        self.0.moved.wake();
        Ok(done)
    }

    fn waiting_bytes(&self) -> Option<u64> {
        Some(self.0.bytes.borrow().len() as u64)
    }

    fn readiness(&self) -> Readiness {
        let mut readiness = Readiness::empty();
        readiness.set(Readiness::READ, !self.0.bytes.borrow().is_empty());
        readiness.set(Readiness::HANG_UP, !self.0.writer_open.get());
        readiness
    }

    fn wait_queue(&self) -> Option<&WaitQueue> {
        Some(&self.0.moved)
    }

    fn release(&self, _kernel: &mut Kernel) {
        self.0.reader_open.set(false);
        self.0.moved.wake();
    }
}

impl File for WriteEnd {
    fn kind(&self) -> Kind {
        Kind::Pipe
    }

    fn write(&self, kernel: &mut Kernel, buffers: &mut Buffers) -> Result<u64, Errno> {
        if !self.0.reader_open.get() {
            return Err(Errno::EPIPE);
        }
        let mut bytes = self.0.bytes.borrow_mut();
        let room = (self.0.capacity - bytes.len()) as u64;
        let wanted = buffers.remaining();
        if wanted > 0 && (room == 0 || (wanted <= ATOMIC_BYTES && wanted > room)) {
            return Err(Errno::EAGAIN);
        }
        let mut total = 0;
        let mut part = [0; 4096];
        while total < wanted.min(room) {
            let length = (wanted.min(room) - total).min(part.len() as u64) as usize;
            match buffers.take(&mut kernel.process.space, &mut part[..length]) {
                Ok(done) => {
                    bytes.extend(&part[..done as usize]);
                    total += done;
                }
                Err(error) if total == 0 => return Err(error),
                Err(_) => break,
            }
        }
        self.0.moved.wake();
        Ok(total)
    }

    fn waiting_bytes(&self) -> Option<u64> {
        Some(self.0.bytes.borrow().len() as u64)
    }

    fn readiness(&self) -> Readiness {
        let mut readiness = Readiness::empty();
        readiness.set(
            Readiness::WRITE,
            self.0.capacity - self.0.bytes.borrow().len() >= ATOMIC_BYTES as usize,
        );
        readiness.set(Readiness::ERROR, !self.0.reader_open.get());
        readiness
    }

    fn wait_queue(&self) -> Option<&WaitQueue> {
        Some(&self.0.moved)
    }

    fn release(&self, _kernel: &mut Kernel) {
        self.0.writer_open.set(false);
        self.0.moved.wake();
    }
}
