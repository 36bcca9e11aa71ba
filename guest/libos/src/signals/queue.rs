//! Signals that wait.

use alloc::collections::VecDeque;
use alloc::rc::Rc;
use core::cell::Cell;

use linux_raw_sys::general as linux;

use super::{FIRST_REAL_TIME, SignalInfo, bit, code};

/// Most signals with information that wait in the whole instance (RLIMIT_SIGPENDING).
pub(crate) const QUEUED_MAX: usize = 4096;

/// How many signals wait, in all queues together.
pub(crate) type SignalBudget = Rc<Cell<usize>>;

/// Signals that wait for a thread or a process: a standard signal at most once, real-time signals as often as they
/// were sent.
pub(crate) struct SignalQueue {
    set: u64,
    entries: VecDeque<SignalInfo>,
    budget: SignalBudget,
}

impl SignalQueue {
    /// An empty queue.
    pub(crate) fn new(budget: &SignalBudget) -> Self {
        Self {
            set: 0,
            entries: VecDeque::new(),
            budget: Rc::clone(budget),
        }
    }

    /// The signals that wait, one bit each.
    pub(crate) fn set(&self) -> u64 {
        self.set
    }

    /// Whether this signal of this timer waits.
    pub(crate) fn has_timer(&self, signal: u32, timer: u32) -> bool {
        self.set & bit(signal) != 0
            && self.entries.iter().any(|entry| {
                entry.signal == signal && entry.code == code::SI_TIMER && entry.words[0] as u32 == timer
            })
    }

    /// Adds a signal. `false` if what is known of it is lost, since there are too many; that it waits is not.
    pub(crate) fn push(&mut self, info: SignalInfo) -> bool {
        let was_there = self.set & bit(info.signal) != 0;
        if was_there && info.signal < FIRST_REAL_TIME {
            return true;
        }
        self.set |= bit(info.signal);
        let has_room = self.budget.get() < QUEUED_MAX;
        if has_room {
            self.budget.set(self.budget.get() + 1);
            self.entries.push_back(info);
        }
        has_room
    }

    /// Takes the first of the signals in `set`: those that tell of faults, then the lowest number, then the oldest.
    pub(crate) fn take(&mut self, set: u64) -> Option<SignalInfo> {
        let candidates = self.set & set;
        if candidates == 0 {
            return None;
        }
        let faults = [
            linux::SIGSEGV,
            linux::SIGBUS,
            linux::SIGILL,
            linux::SIGTRAP,
            linux::SIGFPE,
            linux::SIGSYS,
        ]
        .into_iter()
        .fold(0, |faults, signal| faults | bit(signal));
        let first = match candidates & faults {
            0 => candidates,
            faults => faults,
        };
        let signal = first.trailing_zeros() + 1;
        let mut found = None;
        let mut others = false;
        for (index, entry) in self.entries.iter().enumerate() {
            if entry.signal == signal {
                others = found.is_some();
                if others {
                    break;
                }
                found = Some(index);
            }
        }
        if !others {
            self.set &= !bit(signal);
        }
        let entry = found.and_then(|index| self.entries.remove(index));
        if entry.is_some() {
            self.budget.set(self.budget.get() - 1);
        }
        Some(entry.unwrap_or_else(|| SignalInfo::sent(signal, code::SI_USER, 0)))
    }

    /// Drops the signals in `set`.
    pub(crate) fn forget(&mut self, set: u64) {
        if self.set & set == 0 {
            return;
        }
        self.set &= !set;
        let before = self.entries.len();
        self.entries.retain(|entry| bit(entry.signal) & set == 0);
        let gone = before - self.entries.len();
        self.budget.set(self.budget.get() - gone);
    }
}

impl Drop for SignalQueue {
    fn drop(&mut self) {
        self.budget.set(self.budget.get() - self.entries.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue() -> SignalQueue {
        SignalQueue::new(&Rc::default())
    }

    fn sent(signal: u32, value: u64) -> SignalInfo {
        SignalInfo {
            words: [0, value, 0, 0],
            ..SignalInfo::sent(signal, -1, 1)
        }
    }

    #[test]
    fn standard_signals_wait_once_and_real_time_signals_in_order() {
        let mut queue = queue();
        for value in 0..3 {
            assert!(queue.push(sent(10, value)));
            assert!(queue.push(sent(40, value)));
        }
        assert_eq!(queue.take(u64::MAX), Some(sent(10, 0)));
        assert_eq!(queue.take(bit(10)), None);
        for value in 0..3 {
            assert_eq!(queue.take(u64::MAX), Some(sent(40, value)));
        }
        assert_eq!((queue.take(u64::MAX), queue.set()), (None, 0));
    }

    #[test]
    fn faults_come_first_then_low_numbers() {
        let mut queue = queue();
        for signal in [35, 2, linux::SIGSEGV, 1] {
            queue.push(sent(signal, 0));
        }
        let order: alloc::vec::Vec<u32> =
            core::iter::from_fn(|| queue.take(u64::MAX).map(|info| info.signal)).collect();
        assert_eq!(order, [linux::SIGSEGV, 1, 2, 35]);
    }

    #[test]
    fn the_number_of_waiting_signals_is_bounded_and_given_back() {
        let budget = SignalBudget::default();
        let mut queue = SignalQueue::new(&budget);
        for value in 0..QUEUED_MAX as u64 {
            assert!(queue.push(sent(40, value)));
        }
        assert!(!queue.push(sent(40, 0)));
        let mut other = SignalQueue::new(&budget);
        assert!(!other.push(sent(12, 0)));
        assert_eq!(other.take(u64::MAX).map(|info| info.signal), Some(12));
        queue.forget(bit(40));
        assert_eq!((budget.get(), queue.set()), (0, 0));
        queue.push(sent(40, 0));
        drop(queue);
        assert_eq!(budget.get(), 0);
    }
}
