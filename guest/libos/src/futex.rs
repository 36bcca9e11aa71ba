//! Futexes: who waits at which word.
//!
//! A waiter is an entry of its own, and being woken is a mark that stays: a call that is tried again for another reason
//! (its deadline, a signal) neither loses a wake nor takes one that it was not given.

use alloc::collections::{BTreeMap, VecDeque};
use alloc::rc::Rc;

use crate::process::ProcessId;
use crate::task::{ReadyQueue, TaskId};

/// What a word is found by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Key {
    /// An address of a process.
    Private(ProcessId, u64),
    /// An offset in memory that may be mapped several times, which has this identity.
    Shared(usize, u64),
}

#[derive(Debug, Clone, Copy)]
struct Waiter {
    task: TaskId,
    bits: u32,
}

/// How far a waiting task is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Waiting(Key),
    Woken,
}

/// All waiters.
pub(crate) struct Futexes {
    queues: BTreeMap<Key, VecDeque<Waiter>>,
    states: BTreeMap<TaskId, State>,
    ready: Rc<ReadyQueue>,
}

impl Futexes {
    /// Nobody waits. Who is woken goes to `ready`.
    pub(crate) fn new(ready: &Rc<ReadyQueue>) -> Self {
        Self {
            queues: BTreeMap::new(),
            states: BTreeMap::new(),
            ready: Rc::clone(ready),
        }
    }

    /// Lets a task wait for wakes that have one of these bits.
    pub(crate) fn wait(&mut self, task: TaskId, key: Key, bits: u32) {
        self.forget(task);
        self.states.insert(task, State::Waiting(key));
        self.queues
            .entry(key)
            .or_default()
            .push_back(Waiter { task, bits });
    }

    /// Whether a task waits or was woken and has not noticed yet.
    pub(crate) fn knows(&self, task: TaskId) -> bool {
        self.states.contains_key(&task)
    }

    /// Whether a task was woken. If so, it does not wait any more.
    pub(crate) fn take_woken(&mut self, task: TaskId) -> bool {
        let is_woken = self.states.get(&task) == Some(&State::Woken);
        if is_woken {
            self.states.remove(&task);
        }
        is_woken
    }

    /// A task does not wait any more.
    pub(crate) fn forget(&mut self, task: TaskId) {
        if let Some(State::Waiting(key)) = self.states.remove(&task)
            && let Some(queue) = self.queues.get_mut(&key)
        {
            queue.retain(|waiter| waiter.task != task);
            if queue.is_empty() {
                self.queues.remove(&key);
            }
        }
    }

    /// Wakes up to `limit` waiters that have one of these bits; returns how many.
    pub(crate) fn wake(&mut self, key: Key, limit: usize, bits: u32) -> usize {
        let Some(queue) = self.queues.get_mut(&key) else {
            return 0;
        };
        let mut woken = 0;
        queue.retain(|waiter| {
            if woken == limit || waiter.bits & bits == 0 {
                return true;
            }
            woken += 1;
            self.states.insert(waiter.task, State::Woken);
            self.ready.push(waiter.task);
            false
        });
        if queue.is_empty() {
            self.queues.remove(&key);
        }
        woken
    }

    /// Moves up to `limit` waiters to another word; returns how many.
    pub(crate) fn requeue(&mut self, from: Key, to: Key, limit: usize) -> usize {
        let Some(mut queue) = self.queues.remove(&from) else {
            return 0;
        };
        let count = queue.len().min(limit);
        let moved: VecDeque<Waiter> = queue.drain(..count).collect();
        if !queue.is_empty() {
            self.queues.insert(from, queue);
        }
        for waiter in &moved {
            self.states.insert(waiter.task, State::Waiting(to));
        }
        if count > 0 {
            self.queues.entry(to).or_default().extend(moved);
        }
        count
    }

    /// The task that has waited longest.
    pub(crate) fn first(&self, key: Key) -> Option<TaskId> {
        self.queues.get(&key)?.front().map(|waiter| waiter.task)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANY: u32 = u32::MAX;
    const A: Key = Key::Private(1, 0x1000);
    const B: Key = Key::Private(1, 0x2000);

    fn futexes() -> (Futexes, Rc<ReadyQueue>) {
        let ready = Rc::new(ReadyQueue::default());
        (Futexes::new(&ready), ready)
    }

    #[test]
    fn a_wake_is_given_once_to_those_who_have_waited_longest() {
        let (mut futexes, ready) = futexes();
        for task in 1..=3 {
            futexes.wait(task, A, ANY);
        }
        assert_eq!(futexes.wake(A, 2, ANY), 2);
        assert_eq!((ready.pop(), ready.pop(), ready.pop()), (Some(1), Some(2), None));
        assert!(futexes.take_woken(1) && !futexes.take_woken(1));
        assert!(!futexes.take_woken(3));
        assert_eq!(futexes.wake(B, 1, ANY), 0);
        assert_eq!(futexes.wake(A, 5, ANY), 1);
    }

    #[test]
    fn bits_choose_who_is_woken() {
        let (mut futexes, _) = futexes();
        futexes.wait(1, A, 1);
        futexes.wait(2, A, 2);
        assert_eq!(futexes.wake(A, 9, 2), 1);
        assert!(futexes.take_woken(2) && !futexes.take_woken(1));
    }

    #[test]
    fn those_who_have_given_up_take_no_wake() {
        let (mut futexes, _) = futexes();
        futexes.wait(1, A, ANY);
        futexes.wait(2, A, ANY);
        futexes.forget(1);
        assert_eq!(futexes.wake(A, 1, ANY), 1);
        assert!(futexes.take_woken(2));
    }

    #[test]
    fn waiters_are_moved_and_woken_at_their_new_place() {
        let (mut futexes, _) = futexes();
        for task in 1..=3 {
            futexes.wait(task, A, ANY);
        }
        assert_eq!(futexes.requeue(A, B, 2), 2);
        assert_eq!((futexes.first(A), futexes.first(B)), (Some(3), Some(1)));
        futexes.forget(2);
        assert_eq!(futexes.wake(B, 9, ANY), 1);
        assert_eq!(futexes.requeue(A, A, 9), 1);
        assert_eq!(futexes.wake(A, 9, ANY), 1);
    }
}
