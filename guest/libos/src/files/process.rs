//! Descriptors of processes (`pidfd`): they can be read from, as polls see it, when the process has ended.

use alloc::rc::Rc;
use core::cell::Cell;

use super::{File, Kind, Readiness};
use crate::process::ProcessId;
use crate::task::{ReadyQueue, WaitQueue};

/// A process, alive or not.
pub(crate) struct ProcessHandle {
    pub(crate) id: ProcessId,
    has_ended: Cell<bool>,
    moved: WaitQueue,
}

impl ProcessHandle {
    /// A process that lives.
    pub(crate) fn new(id: ProcessId, ready: &Rc<ReadyQueue>) -> Rc<Self> {
        Rc::new(Self {
            id,
            has_ended: Cell::new(false),
            moved: WaitQueue::new(ready),
        })
    }

    /// It has ended.
    pub(crate) fn end(&self) {
        self.has_ended.set(true);
        self.moved.wake();
    }
}

/// A descriptor of a process.
pub(crate) struct ProcessFile(pub(crate) Rc<ProcessHandle>);

impl File for ProcessFile {
    fn kind(&self) -> Kind {
        Kind::Anonymous
    }

    fn readiness(&self) -> Readiness {
        if self.0.has_ended.get() {
            Readiness::READ
        } else {
            Readiness::empty()
        }
    }

    fn wait_queue(&self) -> Option<&WaitQueue> {
        Some(&self.0.moved)
    }

    fn as_process(&self) -> Option<&ProcessHandle> {
        Some(&self.0)
    }
}
