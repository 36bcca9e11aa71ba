//! Waiting for many files: epoll.
//!
//! Each watched file has a [`Watch`], which the file's wait queue tells of every wake. A told watch goes to the
//! instance's list of candidates; `epoll_wait` asks the candidates what they are ready for, and keeps those in the
//! list that are level-triggered and ready.

use alloc::collections::{BTreeMap, VecDeque};
use alloc::rc::{Rc, Weak};
use alloc::vec::Vec;
use core::cell::{Cell, RefCell};

use linux_raw_sys::general::{
    EPOLLERR, EPOLLET, EPOLLEXCLUSIVE, EPOLLHUP, EPOLLIN, EPOLLONESHOT, EPOLLOUT, EPOLLWAKEUP,
};

use super::budget::{Budget, Share};
use super::descriptors::OpenFile;
use super::{File, Kind, Readiness};
use crate::errno::Errno;
use crate::task::{ReadyQueue, WaitQueue};

/// Errors and hang-ups are always watched for.
const ALWAYS: u32 = EPOLLERR | EPOLLHUP;

/// What may be watched for with EPOLLEXCLUSIVE, which asks that few of those who wait be woken. All are.
const EXCLUSIVE_EVENTS: u32 = ALWAYS | EPOLLIN | EPOLLOUT | EPOLLWAKEUP | EPOLLET | EPOLLEXCLUSIVE;

/// Candidates of an instance, and who waits for them.
struct Candidates {
    list: RefCell<VecDeque<Weak<Watch>>>,
    moved: WaitQueue,
}

/// A file that an instance watches.
pub(crate) struct Watch {
    candidates: Weak<Candidates>,
    is_listed: Cell<bool>,
    open: Weak<OpenFile>,
    events: Cell<u32>,
    data: Cell<u64>,
    this: Weak<Watch>,
    _share: Share,
}

/// An epoll instance.
pub(crate) struct Epoll {
    watches: RefCell<BTreeMap<u64, Rc<Watch>>>,
    candidates: Rc<Candidates>,
    budget: Rc<Budget>,
    /// It has watched another instance.
    watches_instances: Cell<bool>,
    /// Another instance has watched it.
    is_watched: Cell<bool>,
}

/// What `epoll_wait` reports of one file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Event {
    pub(crate) events: u32,
    pub(crate) data: u64,
}

impl Watch {
    /// The file has moved.
    pub(crate) fn notice(&self) {
        let Some(candidates) = self.candidates.upgrade() else {
            return;
        };
        if !self.is_listed.replace(true) {
            candidates.list.borrow_mut().push_back(self.this.clone());
        }
        candidates.moved.wake();
    }

    /// What the file is ready for, of what the watch asks.
    fn ready_events(&self) -> u32 {
        let Some(open) = self.open.upgrade() else { return 0 };
        open.file.readiness().poll_bits() & self.events.get()
    }
}

impl Epoll {
    /// An instance that watches nothing.
    pub(crate) fn new(ready: &Rc<ReadyQueue>, budget: &Rc<Budget>) -> Self {
        Self {
            watches: RefCell::default(),
            candidates: Rc::new(Candidates {
                list: RefCell::default(),
                moved: WaitQueue::new(ready),
            }),
            budget: Rc::clone(budget),
            watches_instances: Cell::new(false),
            is_watched: Cell::new(false),
        }
    }

    /// Whether a file can be watched: devices that never change cannot.
    pub(crate) fn can_watch(open: &OpenFile) -> bool {
        open.file.wait_queue().is_some() || open.file.kind() == Kind::Pipe
    }

    /// Watches the open file behind a descriptor.
    pub(crate) fn add(&self, number: u64, open: &Rc<OpenFile>, events: u32, data: u64) -> Result<(), Errno> {
        self.forget_closed();
        let is_exclusive = events & EPOLLEXCLUSIVE != 0;
        if is_exclusive && events & !EXCLUSIVE_EVENTS != 0 {
            return Err(Errno::EINVAL);
        }
        if let Some(inner) = open.file.as_epoll() {
            if is_exclusive {
                return Err(Errno::EINVAL);
            }
            if core::ptr::eq(inner, self) {
                return Err(Errno::EINVAL);
            }
            // Readiness is asked for recursively, so nesting must be bounded: an instance that is watched watches
            // none, and the other way round. (Linux allows five levels.)
            if inner.watches_instances.get() || self.is_watched.get() {
                return Err(Errno::ELOOP);
            }
            self.watches_instances.set(true);
            inner.is_watched.set(true);
        }
        let mut watches = self.watches.borrow_mut();
        if watches.contains_key(&number) {
            return Err(Errno::EEXIST);
        }
        let share = self.budget.watch().ok_or(Errno::ENOSPC)?;
        let watch = Rc::new_cyclic(|this| Watch {
            candidates: Rc::downgrade(&self.candidates),
            is_listed: Cell::new(false),
            open: Rc::downgrade(open),
            events: Cell::new(events | ALWAYS),
            data: Cell::new(data),
            this: this.clone(),
            _share: share,
        });
        if let Some(queue) = open.file.wait_queue() {
            queue.add_watch(&watch);
        }
        watch.notice();
        watches.insert(number, watch);
        Ok(())
    }

    /// Changes what is watched for.
    pub(crate) fn modify(&self, number: u64, events: u32, data: u64) -> Result<(), Errno> {
        self.forget_closed();
        let watches = self.watches.borrow();
        let watch = watches.get(&number).ok_or(Errno::ENOENT)?;
        if (events | watch.events.get()) & EPOLLEXCLUSIVE != 0 {
            return Err(Errno::EINVAL);
        }
        watch.events.set(events | ALWAYS);
        watch.data.set(data);
        watch.notice();
        Ok(())
    }

    /// Stops watching.
    pub(crate) fn remove(&self, number: u64) -> Result<(), Errno> {
        self.forget_closed();
        let watch = self.watches.borrow_mut().remove(&number).ok_or(Errno::ENOENT)?;
        if watch.is_listed.get() {
            self.candidates
                .list
                .borrow_mut()
                .retain(|listed| !listed.ptr_eq(&watch.this));
        }
        Ok(())
    }

    /// Up to `limit` files that are ready.
    pub(crate) fn collect(&self, limit: usize) -> Vec<Event> {
        let mut events = Vec::new();
        // Each candidate is looked at once: level-triggered ones that are ready go back to the end of the list.
        let count = self.candidates.list.borrow().len();
        for _ in 0..count {
            if events.len() == limit {
                break;
            }
            let Some(weak) = self.candidates.list.borrow_mut().pop_front() else {
                break;
            };
            let Some(watch) = weak.upgrade() else { continue };
            watch.is_listed.set(false);
            let ready = watch.ready_events();
            if ready == 0 {
                continue;
            }
            events.push(Event {
                events: ready,
                data: watch.data.get(),
            });
            let asked = watch.events.get();
            if asked & EPOLLONESHOT != 0 {
                watch.events.set(asked & (EPOLLET | EPOLLONESHOT));
            } else if asked & EPOLLET == 0 && !watch.is_listed.replace(true) {
                self.candidates.list.borrow_mut().push_back(weak);
            }
        }
        events
    }

    /// Closing the last descriptor of a file ends its watches.
    fn forget_closed(&self) {
        self.watches
            .borrow_mut()
            .retain(|_, watch| watch.open.strong_count() > 0);
    }
}

impl File for Epoll {
    fn kind(&self) -> Kind {
        Kind::Anonymous
    }

    fn readiness(&self) -> Readiness {
        let list = self.candidates.list.borrow();
        let is_ready = list
            .iter()
            .filter_map(Weak::upgrade)
            .any(|watch| watch.ready_events() != 0);
        if is_ready {
            Readiness::READ
        } else {
            Readiness::empty()
        }
    }

    fn wait_queue(&self) -> Option<&WaitQueue> {
        Some(&self.candidates.moved)
    }

    fn as_epoll(&self) -> Option<&Epoll> {
        Some(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file whose readiness the test sets.
    struct Switch {
        readiness: Cell<Readiness>,
        moved: WaitQueue,
    }

    impl File for Switch {
        fn kind(&self) -> Kind {
            Kind::Socket
        }

        fn readiness(&self) -> Readiness {
            self.readiness.get()
        }

        fn wait_queue(&self) -> Option<&WaitQueue> {
            Some(&self.moved)
        }
    }

    struct Setup {
        epoll: Epoll,
        switch: Rc<Switch>,
        open: Rc<OpenFile>,
        ready: Rc<ReadyQueue>,
    }

    fn setup(events: u32) -> Setup {
        let ready = Rc::new(ReadyQueue::default());
        let moved = WaitQueue::new(&ready);
        let switch = Rc::new(Switch {
            readiness: Cell::new(Readiness::empty()),
            moved,
        });
        let open = OpenFile::new(Rc::clone(&switch) as Rc<dyn File>, 0);
        let epoll = Epoll::new(&ready, &Rc::default());
        epoll.add(5, &open, events, 77).unwrap();
        Setup {
            epoll,
            switch,
            open,
            ready,
        }
    }

    impl Setup {
        fn set(&self, readiness: Readiness) {
            self.switch.readiness.set(readiness);
            self.switch.moved.wake();
        }

        fn collect(&self) -> Vec<Event> {
            self.epoll.collect(8)
        }
    }

    const READ: Event = Event {
        events: EPOLLIN,
        data: 77,
    };

    #[test]
    fn level_triggered_events_come_again_until_served() {
        let setup = setup(EPOLLIN);
        assert_eq!(setup.collect(), []);
        setup.set(Readiness::READ);
        assert_eq!(setup.collect(), [READ]);
        assert_eq!(setup.collect(), [READ]);
        setup.set(Readiness::WRITE);
        assert_eq!(setup.collect(), []);
    }

    #[test]
    fn edge_triggered_events_come_once_for_each_move() {
        let setup = setup(EPOLLIN | EPOLLET);
        setup.set(Readiness::READ);
        assert_eq!(setup.collect(), [READ]);
        assert_eq!(setup.collect(), []);
        setup.switch.moved.wake();
        assert_eq!(setup.collect(), [READ]);
    }

    #[test]
    fn a_one_shot_watch_must_be_set_again() {
        let setup = setup(EPOLLIN | EPOLLONESHOT);
        setup.set(Readiness::READ);
        assert_eq!(setup.collect(), [READ]);
        setup.switch.moved.wake();
        assert_eq!(setup.collect(), []);
        setup.epoll.modify(5, EPOLLIN | EPOLLOUT, 78).unwrap();
        assert_eq!(
            setup.collect(),
            [Event {
                events: EPOLLIN,
                data: 78
            }]
        );
    }

    #[test]
    fn hang_ups_are_reported_unasked_and_waiters_are_woken() {
        let setup = setup(EPOLLIN);
        setup.epoll.wait_queue().unwrap().add_task(9);
        setup.set(Readiness::HANG_UP);
        assert_eq!(setup.ready.pop(), Some(9));
        assert_eq!(
            setup.collect(),
            [Event {
                events: Readiness::HANG_UP.bits(),
                data: 77
            }]
        );
    }

    #[test]
    fn closing_a_file_ends_its_watch() {
        let Setup {
            epoll, switch, open, ..
        } = setup(EPOLLIN);
        switch.readiness.set(Readiness::READ);
        drop(open);
        assert_eq!(epoll.collect(8), []);
        assert_eq!(epoll.modify(5, EPOLLIN, 0), Err(Errno::ENOENT));
    }

    #[test]
    fn instances_watch_each_other_on_one_level_only() {
        let ready = Rc::new(ReadyQueue::default());
        let budget = Rc::default();
        let instances: Vec<_> = (0..4)
            .map(|_| OpenFile::new(Rc::new(Epoll::new(&ready, &budget)), 0))
            .collect();
        let epoll = |index: usize| instances[index].file.as_epoll().unwrap();
        assert_eq!(epoll(0).add(1, &instances[0], EPOLLIN, 0), Err(Errno::EINVAL));
        epoll(0).add(1, &instances[1], EPOLLIN, 0).unwrap();
        epoll(0).add(2, &instances[2], EPOLLIN, 0).unwrap();
        for (outer, inner) in [(1, 0), (1, 2), (3, 0), (2, 3)] {
            assert_eq!(
                epoll(outer).add(9, &instances[inner], EPOLLIN, 0),
                Err(Errno::ELOOP)
            );
        }
    }

    #[test]
    fn watches_for_nothing_still_tell_of_hang_ups() {
        let setup = setup(0);
        setup.set(Readiness::READ);
        assert_eq!(setup.collect(), []);
        setup.set(Readiness::HANG_UP);
        assert_eq!(
            setup.collect(),
            [Event {
                events: EPOLLHUP,
                data: 77
            }]
        );
    }

    #[test]
    fn what_was_removed_is_no_candidate_any_more() {
        let setup = setup(EPOLLIN);
        for number in 6..50 {
            setup.epoll.add(number, &setup.open, EPOLLIN, 0).unwrap();
            setup.epoll.remove(number).unwrap();
        }
        assert!(setup.epoll.candidates.list.borrow().len() <= 1);
    }
}
