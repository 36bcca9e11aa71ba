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
use crate::sequences::Area;
use crate::signals::TaskSignals;

/// Number of a task, as `gettid` returns it. The first is 1, also the process's number.
pub(crate) type TaskId = u32;

/// Task numbers are below this (`/proc/sys/kernel/pid_max`).
pub(crate) const TASK_IDS: TaskId = 32_768;
/// Most tasks at a time, if the library OS's own memory allows it.
pub(crate) const TASKS_MAX: usize = 4096;
/// Bytes of the library OS's memory that a task takes beside its extended state: itself, its place in tables.
pub(crate) const TASK_BYTES: usize = size_of::<Task>() + 512;

const _: () = assert!(size_of::<Task>() < 1024, "a task is a small thing");

/// What a waiting call remembers between tries.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Memory {
    /// When it gives up, in nanoseconds of CLOCK_MONOTONIC; set once, by the first try.
    pub(crate) deadline_ns: Option<u64>,
    /// That is a time of CLOCK_REALTIME, and moves where that does.
    pub(crate) is_realtime: bool,
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
    pub(crate) name: [u8; 16],
    /// Where to write a zero, and whom to wake there, when the thread ends (`CLONE_CHILD_CLEARTID`).
    pub(crate) clear_tid_address: u64,
    /// Head of the list of robust futexes that the thread holds.
    pub(crate) robust_list: u64,
    /// Where it has its restartable sequences.
    pub(crate) sequences: Option<Area>,
    pub(crate) signals: TaskSignals,
    /// How long it has run, in ticks of the time-stamp counter.
    pub(crate) run_ticks: u64,
    /// `setpriority`.
    pub(crate) nice: i32,
    /// Scheduling policy and static priority: kept, and of no effect.
    pub(crate) policy: [u32; 2],
}

/// Tasks that can run, first in first out.
pub(crate) struct ReadyQueue(RefCell<Ready>);

struct Ready {
    tasks: VecDeque<TaskId>,
    /// Which tasks are in the queue, one bit each.
    queued: Vec<u64>,
}

impl Default for ReadyQueue {
    fn default() -> Self {
        Self(RefCell::new(Ready {
            tasks: VecDeque::new(),
            queued: alloc::vec![0; TASK_IDS as usize / 64],
        }))
    }
}

impl ReadyQueue {
    /// Adds a task unless it is there already.
    pub(crate) fn push(&self, task: TaskId) {
        let mut ready = self.0.borrow_mut();
        let Some(word) = ready.queued.get_mut(task as usize / 64) else {
            return;
        };
        let bit = 1 << (task % 64);
        if *word & bit == 0 {
            *word |= bit;
            ready.tasks.push_back(task);
        }
    }

    /// Takes the task that has been ready longest.
    pub(crate) fn pop(&self) -> Option<TaskId> {
        let mut ready = self.0.borrow_mut();
        let task = ready.tasks.pop_front()?;
        if let Some(word) = ready.queued.get_mut(task as usize / 64) {
            *word &= !(1 << (task % 64));
        }
        Some(task)
    }

    /// Whether nothing can run.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.borrow().tasks.is_empty()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tasks_run_in_the_order_in_which_they_became_ready_and_once() {
        let ready = ReadyQueue::default();
        for task in [3, 1, 3, TASK_IDS - 1, 1, TASK_IDS, u32::MAX] {
            ready.push(task);
        }
        assert_eq!(ready.pop(), Some(3));
        ready.push(3);
        let order: Vec<_> = core::iter::from_fn(|| ready.pop()).collect();
        assert_eq!(order, [1, TASK_IDS - 1, 3]);
        assert!(ready.is_empty());
    }
}
