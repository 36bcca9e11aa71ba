//! Watching files: inotify.
//!
//! The tree tells the [`Hub`] what happens to which node; the hub knows which instances want to hear of it.

use alloc::collections::{BTreeMap, VecDeque};
use alloc::rc::{Rc, Weak};
use alloc::vec::Vec;
use core::cell::{Cell, RefCell};

use linux_raw_sys::general::{
    IN_ALL_EVENTS, IN_DELETE_SELF, IN_IGNORED, IN_ISDIR, IN_MASK_ADD, IN_MASK_CREATE, IN_ONESHOT,
    IN_Q_OVERFLOW,
};

use super::budget::{Budget, Share};
use super::tree::node::Node;
use super::{File, Kind, Readiness};
use crate::errno::Errno;
use crate::kernel::Kernel;
use crate::memory::Buffers;
use crate::task::{ReadyQueue, WaitQueue};

/// Events that wait in an instance before further ones are lost.
pub(crate) const EVENTS_MAX: usize = 4096;
/// Size of `struct inotify_event` without its name.
const EVENT_BYTES: usize = 16;

/// Who watches what.
#[derive(Default)]
pub(crate) struct Hub {
    marks: RefCell<BTreeMap<u64, Vec<Weak<Mark>>>>,
    last_cookie: Cell<u32>,
}

/// A node that an instance watches.
struct Mark {
    descriptor: i32,
    node: Rc<Node>,
    mask: Cell<u32>,
    instance: Weak<Queue>,
    _share: Share,
}

/// Events of an instance that nobody has read yet.
struct Queue {
    events: RefCell<VecDeque<Vec<u8>>>,
    /// Marks that are to go: their node is gone, or they were for one event.
    spent: RefCell<Vec<i32>>,
    moved: WaitQueue,
}

/// An inotify instance.
pub(crate) struct Inotify {
    queue: Rc<Queue>,
    marks: RefCell<BTreeMap<i32, Rc<Mark>>>,
    last_descriptor: Cell<i32>,
    budget: Rc<Budget>,
}

impl Hub {
    /// Whether nobody watches anything.
    pub(crate) fn is_idle(&self) -> bool {
        self.marks.borrow().is_empty()
    }

    /// A number that connects two events.
    pub(crate) fn next_cookie(&self) -> u32 {
        self.last_cookie
            .set(self.last_cookie.get().wrapping_add(1).max(1));
        self.last_cookie.get()
    }

    /// Something happened to a node.
    pub(crate) fn tell_node(&self, node: &Node, event: u32) {
        self.tell(node, event, b"", 0);
    }

    /// Something happened to the file with this name in a directory.
    pub(crate) fn tell_directory(&self, directory: &Node, event: u32, name: &[u8], cookie: u32) {
        self.tell(directory, event, name, cookie);
    }

    fn tell(&self, node: &Node, event: u32, name: &[u8], cookie: u32) {
        if self.is_idle() {
            return;
        }
        let marks: Vec<Rc<Mark>> = match self.marks.borrow().get(&node.number) {
            Some(marks) => marks.iter().filter_map(Weak::upgrade).collect(),
            None => return,
        };
        for mark in marks {
            mark.tell(event, name, cookie);
        }
    }

    fn add(&self, mark: &Rc<Mark>) {
        let mut marks = self.marks.borrow_mut();
        let of_node = marks.entry(mark.node.number).or_default();
        of_node.retain(|known| known.strong_count() > 0);
        of_node.push(Rc::downgrade(mark));
    }

    fn remove(&self, number: u64) {
        let mut marks = self.marks.borrow_mut();
        if let Some(of_node) = marks.get_mut(&number) {
            of_node.retain(|known| known.strong_count() > 0);
            if of_node.is_empty() {
                marks.remove(&number);
            }
        }
    }
}

impl Mark {
    fn tell(&self, event: u32, name: &[u8], cookie: u32) {
        let Some(queue) = self.instance.upgrade() else {
            return;
        };
        let wanted = self.mask.get();
        if wanted & event & IN_ALL_EVENTS != 0 {
            queue.push(self.descriptor, event, name, cookie);
            if wanted & IN_ONESHOT != 0 {
                self.mask.set(0);
                queue.spend(self.descriptor);
            }
        }
        if event & !IN_ISDIR == IN_DELETE_SELF {
            self.mask.set(0);
            queue.spend(self.descriptor);
        }
    }
}

impl Queue {
    fn push(&self, descriptor: i32, event: u32, name: &[u8], cookie: u32) {
        let mut bytes = Vec::new();
        let name_bytes = match name.len() {
            0 => 0,
            length => (length + 1).next_multiple_of(EVENT_BYTES),
        };
        for word in [descriptor.cast_unsigned(), event, cookie, name_bytes as u32] {
            bytes.extend_from_slice(&word.to_le_bytes());
        }
        bytes.extend_from_slice(name);
        bytes.resize(EVENT_BYTES + name_bytes, 0);
        let mut events = self.events.borrow_mut();
        // The same again says nothing new.
        if events.back() == Some(&bytes) {
            return;
        }
        if events.len() < EVENTS_MAX {
            events.push_back(bytes);
        } else if events.len() == EVENTS_MAX {
            let mut overflow = [0; EVENT_BYTES];
            overflow[..4].fill(0xff);
            overflow[4..8].copy_from_slice(&IN_Q_OVERFLOW.to_le_bytes());
            events.push_back(overflow.to_vec());
        }
        drop(events);
        self.moved.wake();
    }

    /// A mark is to go.
    fn spend(&self, descriptor: i32) {
        self.push(descriptor, IN_IGNORED, b"", 0);
        self.spent.borrow_mut().push(descriptor);
    }
}

impl Inotify {
    /// An instance that watches nothing.
    pub(crate) fn new(ready: &Rc<ReadyQueue>, budget: &Rc<Budget>) -> Self {
        Self {
            queue: Rc::new(Queue {
                events: RefCell::default(),
                spent: RefCell::default(),
                moved: WaitQueue::new(ready),
            }),
            marks: RefCell::default(),
            last_descriptor: Cell::new(0),
            budget: Rc::clone(budget),
        }
    }

    /// Watches a node, or changes what is watched of it; returns the watch descriptor.
    pub(crate) fn watch(&self, node: &Rc<Node>, mask: u32) -> Result<i32, Errno> {
        self.forget_spent();
        let known = self
            .marks
            .borrow()
            .values()
            .find(|mark| mark.node.number == node.number)
            .map(Rc::clone);
        if let Some(mark) = known {
            if mask & IN_MASK_CREATE != 0 {
                return Err(Errno::EEXIST);
            }
            let kept = if mask & IN_MASK_ADD != 0 {
                mark.mask.get()
            } else {
                0
            };
            mark.mask.set(kept | mask);
            return Ok(mark.descriptor);
        }
        let descriptor = self.last_descriptor.get().checked_add(1).ok_or(Errno::ENOSPC)?;
        self.last_descriptor.set(descriptor);
        let mark = Rc::new(Mark {
            descriptor,
            node: Rc::clone(node),
            mask: Cell::new(mask),
            instance: Rc::downgrade(&self.queue),
            _share: self.budget.watch().ok_or(Errno::ENOSPC)?,
        });
        node.volume.notify.add(&mark);
        self.marks.borrow_mut().insert(descriptor, mark);
        Ok(descriptor)
    }

    /// Ends a watch.
    pub(crate) fn remove(&self, descriptor: i32) -> Result<(), Errno> {
        self.forget_spent();
        let mark = self.marks.borrow_mut().remove(&descriptor).ok_or(Errno::EINVAL)?;
        self.queue.push(descriptor, IN_IGNORED, b"", 0);
        drop_mark(mark);
        Ok(())
    }

    fn forget_spent(&self) {
        for descriptor in self.queue.spent.take() {
            let mark = self.marks.borrow_mut().remove(&descriptor);
            if let Some(mark) = mark {
                drop_mark(mark);
            }
        }
    }
}

fn drop_mark(mark: Rc<Mark>) {
    let node = Rc::clone(&mark.node);
    drop(mark);
    node.volume.notify.remove(node.number);
}

impl Drop for Inotify {
    fn drop(&mut self) {
        for (_, mark) in core::mem::take(self.marks.get_mut()) {
            drop_mark(mark);
        }
    }
}

impl File for Inotify {
    fn kind(&self) -> Kind {
        Kind::Anonymous
    }

    fn read(&self, kernel: &mut Kernel, buffers: &mut Buffers) -> Result<u64, Errno> {
        self.forget_spent();
        let mut total = 0;
        loop {
            let event = match self.queue.events.borrow().front() {
                Some(event) => event.clone(),
                None if total == 0 => return Err(Errno::EAGAIN),
                None => return Ok(total),
            };
            if (event.len() as u64) > buffers.remaining() {
                return if total == 0 { Err(Errno::EINVAL) } else { Ok(total) };
            }
            match buffers.put(&mut kernel.process.space, &event) {
                Ok(done) => total += done,
                Err(error) if total == 0 => return Err(error),
                Err(_) => return Ok(total),
            }
            self.queue.events.borrow_mut().pop_front();
        }
    }

    fn waiting_bytes(&self) -> Option<u64> {
        Some(
            self.queue
                .events
                .borrow()
                .iter()
                .map(|event| event.len() as u64)
                .sum(),
        )
    }

    fn readiness(&self) -> Readiness {
        if self.queue.events.borrow().is_empty() {
            Readiness::empty()
        } else {
            Readiness::READ
        }
    }

    fn wait_queue(&self) -> Option<&WaitQueue> {
        Some(&self.queue.moved)
    }

    fn label(&self) -> Vec<u8> {
        b"anon_inode:inotify".to_vec()
    }

    fn as_inotify(&self) -> Option<&Inotify> {
        Some(self)
    }
}
