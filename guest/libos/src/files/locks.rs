//! Locks on files: `flock`, `fcntl(F_SETLK)` and `fcntl(F_OFD_SETLK)`.
//!
//! Pure bookkeeping: who holds which bytes of which node. Owners are open files (by their address) or processes.

use alloc::collections::BTreeMap;
use alloc::rc::Rc;
use alloc::vec::Vec;
use core::cell::RefCell;

use crate::task::{ReadyQueue, TaskId, WaitQueue};

/// Locks of one node are at most this many.
const LOCKS_MAX: usize = 4096;

/// Who holds a lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Owner {
    /// An open file, through `flock`.
    Whole(usize),
    /// An open file, through `F_OFD_SETLK`.
    Open(usize),
    /// A process, through `F_SETLK`.
    Process(u32),
}

impl Owner {
    /// `flock` and `fcntl` do not see each other.
    fn is_same_kind(self, other: Self) -> bool {
        matches!(self, Self::Whole(_)) == matches!(other, Self::Whole(_))
    }
}

/// A lock on the bytes `start..end`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Lock {
    pub(crate) owner: Owner,
    pub(crate) start: u64,
    pub(crate) end: u64,
    pub(crate) is_exclusive: bool,
}

/// There are too many locks.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct TooMany;

/// All locks, by number of the node.
pub(crate) struct Locks {
    locks: RefCell<BTreeMap<u64, Vec<Lock>>>,
    /// Who waits for one to go.
    moved: WaitQueue,
}

impl Locks {
    /// No locks; whoever waits for one is woken through `ready`.
    pub(crate) fn new(ready: &Rc<ReadyQueue>) -> Self {
        Self {
            locks: RefCell::default(),
            moved: WaitQueue::new(ready),
        }
    }

    /// Lets a task be woken when a lock goes.
    pub(crate) fn wait(&self, task: TaskId) {
        self.moved.add_task(task);
    }

    /// A lock of somebody else that is in the way.
    pub(crate) fn conflict(&self, node: u64, wanted: &Lock) -> Option<Lock> {
        let locks = self.locks.borrow();
        let overlaps = |lock: &&Lock| {
            lock.owner != wanted.owner
                && lock.owner.is_same_kind(wanted.owner)
                && lock.start < wanted.end
                && wanted.start < lock.end
                && (lock.is_exclusive || wanted.is_exclusive)
        };
        locks.get(&node)?.iter().find(overlaps).copied()
    }

    /// Takes bytes away from an owner's locks.
    pub(crate) fn unlock(&self, node: u64, owner: Owner, start: u64, end: u64) {
        let mut locks = self.locks.borrow_mut();
        let Some(of_node) = locks.get_mut(&node) else {
            return;
        };
        let mut rest = Vec::new();
        for lock in of_node.drain(..) {
            if lock.owner != owner || lock.end <= start || end <= lock.start {
                rest.push(lock);
                continue;
            }
            if lock.start < start {
                rest.push(Lock { end: start, ..lock });
            }
            if end < lock.end {
                rest.push(Lock { start: end, ..lock });
            }
        }
        if rest.is_empty() {
            locks.remove(&node);
        } else {
            *of_node = rest;
        }
        drop(locks);
        self.moved.wake();
    }

    /// Gives a lock that nothing is in the way of, in place of what the owner had there.
    pub(crate) fn lock(&self, node: u64, lock: Lock) -> Result<(), TooMany> {
        self.unlock(node, lock.owner, lock.start, lock.end);
        let mut locks = self.locks.borrow_mut();
        let of_node = locks.entry(node).or_default();
        if of_node.len() >= LOCKS_MAX {
            return Err(TooMany);
        }
        of_node.push(lock);
        Ok(())
    }

    /// Drops what an open file holds.
    pub(crate) fn release_open(&self, node: u64, open: usize) {
        if self.locks.borrow().is_empty() {
            return;
        }
        self.unlock(node, Owner::Whole(open), 0, u64::MAX);
        self.unlock(node, Owner::Open(open), 0, u64::MAX);
    }

    /// Drops what a process holds on a node: that happens when it closes any descriptor of the file.
    pub(crate) fn release_process(&self, node: u64, process: u32) {
        if !self.locks.borrow().is_empty() {
            self.unlock(node, Owner::Process(process), 0, u64::MAX);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lock(owner: Owner, start: u64, end: u64, is_exclusive: bool) -> Lock {
        Lock {
            owner,
            start,
            end,
            is_exclusive,
        }
    }

    #[test]
    fn exclusive_locks_are_in_the_way_of_others_only() {
        let locks = Locks::new(&Rc::default());
        let (first, second) = (Owner::Process(1), Owner::Open(2));
        locks.lock(7, lock(first, 0, 10, true)).unwrap();
        assert!(locks.conflict(7, &lock(second, 5, 6, false)).is_some());
        assert_eq!(locks.conflict(7, &lock(first, 5, 6, true)), None);
        assert_eq!(locks.conflict(7, &lock(second, 10, 11, true)), None);
        assert_eq!(locks.conflict(8, &lock(second, 5, 6, true)), None);
        assert_eq!(locks.conflict(7, &lock(Owner::Whole(3), 0, u64::MAX, true)), None);
    }

    #[test]
    fn unlocking_the_middle_leaves_both_ends() {
        let locks = Locks::new(&Rc::default());
        let (first, second) = (Owner::Process(1), Owner::Process(2));
        locks.lock(7, lock(first, 0, 30, true)).unwrap();
        locks.unlock(7, first, 10, 20);
        let conflict = |start, end| locks.conflict(7, &lock(second, start, end, false)).is_some();
        assert!(conflict(0, 10) && conflict(20, 30) && !conflict(10, 20));
        locks.release_process(7, 1);
        assert!(!conflict(0, 30));
    }
}
