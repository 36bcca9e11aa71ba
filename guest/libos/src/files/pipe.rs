//! Pipes, with and without names.

use alloc::collections::{BTreeMap, VecDeque};
use alloc::rc::{Rc, Weak};
use core::cell::{Cell, RefCell};

use linux_raw_sys::general::{O_ACCMODE, O_NONBLOCK, O_RDONLY, O_RDWR, O_WRONLY};

use super::budget::{Budget, Share};
use super::{File, Kind, Metadata, Readiness};
use crate::errno::Errno;
use crate::kernel::Kernel;
use crate::memory::Buffers;
use crate::task::{ReadyQueue, TaskId, WaitQueue};

/// Bytes that a pipe holds, as on Linux.
const PIPE_BYTES: usize = 65_536;
/// Bytes that a pipe holds when there are very many.
const SMALL_PIPE_BYTES: usize = 4096;
/// Bytes that a pipe can be made to hold (`/proc/sys/fs/pipe-max-size`).
pub(crate) const PIPE_BYTES_MAX: usize = 1 << 20;
/// Writes of at most this many bytes are not torn apart (PIPE_BUF).
const ATOMIC_BYTES: u64 = 4096;

/// What the ends share.
struct Shared {
    bytes: RefCell<VecDeque<u8>>,
    capacity: Cell<usize>,
    share: RefCell<Share>,
    readers: Cell<u32>,
    writers: Cell<u32>,
    /// How often an end was opened for writing, and for reading: who waits for one sees that one has come and gone.
    writers_ever: Cell<u64>,
    readers_ever: Cell<u64>,
    number: u64,
    moved: WaitQueue,
}

/// An open end of a pipe: one that is read from, one that is written to, or (with names only) both.
pub(crate) struct End {
    shared: Rc<Shared>,
    reads: bool,
    writes: bool,
}

impl Shared {
    fn new(ready: &Rc<ReadyQueue>, budget: &Rc<Budget>, number: u64) -> Option<Rc<Self>> {
        let (capacity, share) = budget.pipe(PIPE_BYTES, SMALL_PIPE_BYTES)?;
        Some(Rc::new(Self {
            bytes: RefCell::default(),
            capacity: Cell::new(capacity),
            share: RefCell::new(share),
            readers: Cell::new(0),
            writers: Cell::new(0),
            writers_ever: Cell::new(0),
            readers_ever: Cell::new(0),
            number,
            moved: WaitQueue::new(ready),
        }))
    }

    fn end(self: &Rc<Self>, reads: bool, writes: bool) -> End {
        if reads {
            self.readers.set(self.readers.get() + 1);
            self.readers_ever.set(self.readers_ever.get() + 1);
        }
        if writes {
            self.writers.set(self.writers.get() + 1);
            self.writers_ever.set(self.writers_ever.get() + 1);
        }
        self.moved.wake();
        End {
            shared: Rc::clone(self),
            reads,
            writes,
        }
    }

    fn room(&self) -> usize {
        self.capacity.get().saturating_sub(self.bytes.borrow().len())
    }
}

/// A new pipe's two ends, the one for reading first, if there is memory for it.
pub(crate) fn new(ready: &Rc<ReadyQueue>, budget: &Rc<Budget>, number: u64) -> Option<(End, End)> {
    let shared = Shared::new(ready, budget, number)?;
    Some((shared.end(true, false), shared.end(false, true)))
}

impl End {
    /// How many bytes the pipe holds at most.
    pub(crate) fn capacity(&self) -> usize {
        self.shared.capacity.get()
    }

    /// Makes the pipe hold at least so many bytes; returns how many it holds then.
    pub(crate) fn set_capacity(&self, budget: &Rc<Budget>, bytes: usize) -> Result<usize, Errno> {
        if bytes > PIPE_BYTES_MAX {
            return Err(Errno::EPERM);
        }
        let bytes = bytes.max(SMALL_PIPE_BYTES).next_power_of_two();
        if bytes < self.shared.bytes.borrow().len() {
            return Err(Errno::EBUSY);
        }
        let (_, share) = budget.pipe(bytes, bytes).ok_or(Errno::ENOMEM)?;
        self.shared.share.replace(share);
        self.shared.capacity.set(bytes);
        self.shared.moved.wake();
        Ok(bytes)
    }

    /// Whether it is one that is written to.
    pub(crate) fn writes(&self) -> bool {
        self.writes
    }

    /// Whether both are ends of one pipe.
    pub(crate) fn is_same_pipe(&self, other: &Self) -> bool {
        Rc::ptr_eq(&self.shared, &other.shared)
    }

    /// How many bytes can be written.
    pub(crate) fn room(&self) -> u64 {
        self.shared.room() as u64
    }

    /// Whether somebody could read what is written.
    pub(crate) fn has_readers(&self) -> bool {
        self.shared.readers.get() > 0
    }

    /// Whether somebody could write still.
    pub(crate) fn has_writers(&self) -> bool {
        self.shared.writers.get() > 0
    }

    /// Copies what comes next without taking it out; returns how much.
    pub(crate) fn copy_out(&self, kernel: &mut Kernel, buffers: &mut Buffers) -> Result<u64, Errno> {
        let bytes = self.shared.bytes.borrow();
        let (first, second) = bytes.as_slices();
        let mut done = buffers.put(&mut kernel.process.space, first)?;
        if done == first.len() as u64 {
            done += buffers.put(&mut kernel.process.space, second).unwrap_or(0);
        }
        Ok(done)
    }

    /// Takes out what comes next.
    pub(crate) fn discard(&self, count: u64) {
        let mut bytes = self.shared.bytes.borrow_mut();
        let count = bytes.len().min(usize::try_from(count).unwrap_or(usize::MAX));
        bytes.drain(..count);
        // Room that is not used goes back to the heap.
        if bytes.is_empty() {
            bytes.shrink_to(SMALL_PIPE_BYTES);
        }
        drop(bytes);
        self.shared.moved.wake();
    }
}

impl Drop for End {
    fn drop(&mut self) {
        if self.reads {
            self.shared
                .readers
                .set(self.shared.readers.get().saturating_sub(1));
        }
        if self.writes {
            self.shared
                .writers
                .set(self.shared.writers.get().saturating_sub(1));
        }
        self.shared.moved.wake();
    }
}

impl File for End {
    fn kind(&self) -> Kind {
        Kind::Pipe
    }

    fn read(&self, kernel: &mut Kernel, buffers: &mut Buffers) -> Result<u64, Errno> {
        if self.shared.bytes.borrow().is_empty() {
            return if self.has_writers() && buffers.remaining() > 0 {
                Err(Errno::EAGAIN)
            } else {
                Ok(0)
            };
        }
        let done = self.copy_out(kernel, buffers)?;
        self.discard(done);
        Ok(done)
    }

    fn write(&self, kernel: &mut Kernel, buffers: &mut Buffers) -> Result<u64, Errno> {
        if !self.has_readers() {
            return Err(Errno::EPIPE);
        }
        let mut bytes = self.shared.bytes.borrow_mut();
        let room = self.shared.capacity.get().saturating_sub(bytes.len()) as u64;
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
        drop(bytes);
        self.shared.moved.wake();
        Ok(total)
    }

    fn waiting_bytes(&self) -> Option<u64> {
        Some(self.shared.bytes.borrow().len() as u64)
    }

    fn metadata(&self) -> Metadata {
        Metadata {
            inode: self.shared.number,
            ..Metadata::of_kind(Kind::Pipe)
        }
    }

    fn label(&self) -> alloc::vec::Vec<u8> {
        crate::text::text!("pipe:[{}]", self.shared.number).into_bytes()
    }

    fn reopened(self: Rc<Self>, flags: u32) -> Result<Rc<dyn File>, Errno> {
        let (reads, writes) = match flags & O_ACCMODE {
            O_RDONLY => (true, false),
            O_WRONLY => (false, true),
            _ => (true, true),
        };
        Ok(Rc::new(self.shared.end(reads, writes)))
    }

    fn readiness(&self) -> Readiness {
        let mut readiness = Readiness::empty();
        if self.reads {
            readiness.set(Readiness::READ, !self.shared.bytes.borrow().is_empty());
            readiness.set(
                Readiness::HANG_UP,
                !self.has_writers() && self.shared.writers_ever.get() > 0,
            );
        }
        if self.writes {
            readiness.set(Readiness::WRITE, self.room() >= ATOMIC_BYTES);
            readiness.set(Readiness::ERROR, !self.has_readers());
        }
        readiness
    }

    fn wait_queue(&self) -> Option<&WaitQueue> {
        Some(&self.shared.moved)
    }

    fn as_pipe(&self) -> Option<&End> {
        Some(self)
    }
}

/// A pipe with a name: there while an end of it is open.
#[derive(Default)]
pub(crate) struct Fifo {
    pipe: RefCell<Weak<Shared>>,
    /// Ends of tasks that wait for the other side, with how often that had been opened when they came.
    waiting: RefCell<BTreeMap<TaskId, (End, u64)>>,
}

impl Fifo {
    /// Opens an end. Who opens one side waits for the other; `None` if that is so, and the task is in a wait queue.
    pub(crate) fn open(&self, kernel: &mut Kernel, flags: u32) -> Result<Option<End>, Errno> {
        let waited = self.waiting.borrow_mut().remove(&kernel.current);
        self.waiting
            .borrow_mut()
            .retain(|task, _| kernel.tasks.contains_key(task));
        let known = self.pipe.borrow().upgrade();
        let shared = match known {
            Some(shared) => shared,
            None => {
                let number = kernel.next_inode();
                let shared = Shared::new(&kernel.ready, &kernel.budget, number).ok_or(Errno::ENFILE)?;
                self.pipe.replace(Rc::downgrade(&shared));
                shared
            }
        };
        let (reads, writes) = match flags & O_ACCMODE {
            O_RDONLY => (true, false),
            O_WRONLY => (false, true),
            O_RDWR => return Ok(Some(shared.end(true, true))),
            _ => return Err(Errno::EINVAL),
        };
        let is_alone = if reads {
            shared.writers.get() == 0
        } else {
            shared.readers.get() == 0
        };
        let ever = if reads {
            shared.writers_ever.get()
        } else {
            shared.readers_ever.get()
        };
        let (end, ever_before) = match waited {
            Some((end, before)) if end.reads == reads => (end, before),
            _ if flags & O_NONBLOCK != 0 && writes && is_alone => return Err(Errno::ENXIO),
            _ => (shared.end(reads, writes), ever),
        };
        if !is_alone || ever > ever_before || flags & O_NONBLOCK != 0 {
            return Ok(Some(end));
        }
        shared.moved.add_task(kernel.current);
        self.waiting
            .borrow_mut()
            .insert(kernel.current, (end, ever_before));
        Ok(None)
    }
}
