//! Timers that are read (`timerfd`).

use core::cell::Cell;

use alloc::rc::Rc;

use super::{File, Kind, Readiness};
use crate::errno::Errno;
use crate::kernel::Kernel;
use crate::memory::Buffers;
use crate::task::{ReadyQueue, WaitQueue};
use crate::time::monotonic_ns;
use crate::timers::Schedule;

/// A timer.
pub(crate) struct TimerFile {
    /// Its number among those that may be due.
    pub(crate) number: u64,
    /// It goes by CLOCK_REALTIME.
    pub(crate) is_realtime: bool,
    pub(crate) schedule: Cell<Schedule>,
    /// Expirations that were not read.
    expirations: Cell<u64>,
    moved: WaitQueue,
}

impl TimerFile {
    /// A timer that is not armed.
    pub(crate) fn new(number: u64, is_realtime: bool, ready: &Rc<ReadyQueue>) -> Self {
        Self {
            number,
            is_realtime,
            schedule: Cell::default(),
            expirations: Cell::new(0),
            moved: WaitQueue::new(ready),
        }
    }

    /// Takes note of the time; returns when the timer is due next.
    pub(crate) fn expire(&self, now_ns: u64) -> Option<u64> {
        let mut schedule = self.schedule.get();
        let expirations = schedule.expire(now_ns);
        if expirations > 0 {
            self.schedule.set(schedule);
            self.expirations
                .set(self.expirations.get().saturating_add(expirations));
            self.moved.wake();
        }
        schedule.next_ns
    }

    /// Sets when it expires; what has not been read is forgotten.
    pub(crate) fn set(&self, schedule: Schedule) {
        self.schedule.set(schedule);
        self.expirations.set(0);
        self.moved.wake();
    }
}

impl File for TimerFile {
    fn kind(&self) -> Kind {
        Kind::Anonymous
    }

    fn read(&self, kernel: &mut Kernel, buffers: &mut Buffers) -> Result<u64, Errno> {
        if buffers.remaining() < 8 {
            return Err(Errno::EINVAL);
        }
        self.expire(monotonic_ns());
        let expirations = self.expirations.get();
        if expirations == 0 {
            return Err(Errno::EAGAIN);
        }
        self.expirations.set(0);
        buffers.put(&mut kernel.process.space, &expirations.to_le_bytes())?;
        Ok(8)
    }

    fn readiness(&self) -> Readiness {
        let is_due = self
            .schedule
            .get()
            .next_ns
            .is_some_and(|next_ns| next_ns <= monotonic_ns());
        let mut readiness = Readiness::empty();
        readiness.set(Readiness::READ, is_due || self.expirations.get() > 0);
        readiness
    }

    fn wait_queue(&self) -> Option<&WaitQueue> {
        Some(&self.moved)
    }

    fn release(&self, kernel: &mut Kernel) {
        kernel.timer_files.remove(&self.number);
    }

    fn as_timer(&self) -> Option<&Self> {
        Some(self)
    }
}
