//! Tasks (threads of the program), the ready queue and wait queues.
//!
//! ```text
//!            ┌────────────── trap: call answered ──────────────┐
//!            v                                                 │
//!   ready ──────> running ──── call has to wait ────> waiting ─┼─> (deadline or wake) ──> ready, call tried again
//!                    │                                         │
//!                    └── exit ──> gone                         └─ stale wakes are harmless: the call waits again
//! ```
//!
//! A waiting call is a [`Pending`]: its number, its arguments and the little that it remembers between tries. Wait
//! queues hold task numbers only, so that nothing points into a task.

use alloc::collections::VecDeque;
use alloc::rc::{Rc, Weak};
use alloc::vec::Vec;
use core::cell::RefCell;

use spore_machine::context::Context;
use spore_machine::processor::ExtendedState;

use crate::files::epoll::Watch;
use crate::process::ProcessId;

/// Number of a task, as `gettid` returns it. The first is 1, also the process's number.
pub(crate) type TaskId = u32;

/// What a waiting call remembers between tries.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Memory {
    /// When it gives up, in nanoseconds of CLOCK_MONOTONIC; set once, by the first try.
    pub(crate) deadline_ns: Option<u64>,
    /// How much of its work it has done (bytes written, for example).
    pub(crate) progress: u64,
    /// How many of several messages it has done.
    pub(crate) count: u64,
}

/// A call that waits.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pending {
    pub(crate) number: u64,
    pub(crate) arguments: [u64; 6],
}

/// A thread of the program.
pub(crate) struct Task {
    /// The process that it belongs to.
    pub(crate) process: ProcessId,
    pub(crate) context: Context,
    pub(crate) extended: ExtendedState,
    pub(crate) pending: Option<Pending>,
    pub(crate) memory: Memory,
    /// Address that `set_tid_address` was given.
    pub(crate) clear_tid_address: u64,
    /// Blocked signals.
    pub(crate) signal_mask: u64,
}

/// Tasks that can run, first in first out.
#[derive(Default)]
pub(crate) struct ReadyQueue(RefCell<VecDeque<TaskId>>);

impl ReadyQueue {
    /// Adds a task unless it is there already.
    pub(crate) fn push(&self, task: TaskId) {
        let mut queue = self.0.borrow_mut();
        if !queue.contains(&task) {
            queue.push_back(task);
        }
    }

    /// Takes the task that has been ready longest.
    pub(crate) fn pop(&self) -> Option<TaskId> {
        self.0.borrow_mut().pop_front()
    }
}

/// Who waits for a file, socket or the like to move.
pub(crate) struct WaitQueue {
    tasks: RefCell<Vec<TaskId>>,
    watches: RefCell<Vec<Weak<Watch>>>,
    ready: Rc<ReadyQueue>,
}

impl WaitQueue {
    /// An empty queue whose wakes go to `ready`.
    pub(crate) fn new(ready: &Rc<ReadyQueue>) -> Self {
        Self {
            tasks: RefCell::default(),
            watches: RefCell::default(),
            ready: Rc::clone(ready),
        }
    }

    /// Lets `task` be woken by the next [`WaitQueue::wake`].
    pub(crate) fn add_task(&self, task: TaskId) {
        let mut tasks = self.tasks.borrow_mut();
        if !tasks.contains(&task) {
            tasks.push(task);
        }
    }

    /// Lets an epoll watch be told of every wake from now on, until it is dropped.
    pub(crate) fn add_watch(&self, watch: &Rc<Watch>) {
        let mut watches = self.watches.borrow_mut();
        watches.retain(|known| known.strong_count() > 0);
        watches.push(Rc::downgrade(watch));
    }

    /// Something has moved: all tasks that wait try again, all watches are told.
    pub(crate) fn wake(&self) {
        for task in self.tasks.borrow_mut().drain(..) {
            self.ready.push(task);
        }
        for watch in self.watches.borrow().iter().filter_map(Weak::upgrade) {
            watch.notice();
        }
    }
}
