//! The image behind the tree, the memory that changes take, and bounds on both.

use alloc::collections::{BTreeMap, VecDeque};
use alloc::rc::{Rc, Weak};
use core::cell::{Cell, RefCell};

use linux_raw_sys::general::{S_IFDIR, S_IFMT};
#[cfg(not(test))]
use spore_machine::shared;

use super::Entry;
use super::node::{Body, Device, Node};
use crate::errno::Errno;
use crate::files::erofs::{Image, Source};
use crate::files::locks::Locks;
use crate::files::notify::Hub;
use crate::memory::frames::SharedFrames;
use crate::task::ReadyQueue;

/// Entries of the image that are remembered before the oldest are forgotten.
const REMEMBERED_MAX: usize = 4096;
/// Nodes with several names that are remembered before those that are not in use are forgotten.
const LINKED_MAX: usize = 1024;
/// Numbers of nodes in memory are greater than any that an image can have.
const FIRST_NUMBER: u64 = 1 << 32;
/// Memory of the library OS that a node with its entry takes, beside its name.
const NODE_BYTES: usize = 448;

/// The root module.
#[derive(Debug)]
pub(crate) struct RootModule;

impl Source for RootModule {
    #[cfg(not(test))]
    fn read(&self, offset: u64, buffer: &mut [u8]) -> bool {
        shared::read_module(offset, buffer)
    }

    #[cfg(test)]
    fn read(&self, offset: u64, buffer: &mut [u8]) -> bool {
        super::tests::read_image(offset, buffer)
    }
}

/// What all nodes share.
pub(crate) struct Volume {
    image: Option<Image<RootModule>>,
    pub(crate) frames: SharedFrames,
    pub(crate) notify: Hub,
    pub(crate) locks: Locks,
    /// User and group that nodes belong to which are made now.
    pub(crate) owner: Cell<(u32, u32)>,
    last_number: Cell<u64>,
    /// Memory of the library OS that nodes may take and that they take.
    bytes_max: usize,
    bytes_taken: Rc<Cell<usize>>,
    /// Entries of the image, oldest first.
    remembered: RefCell<VecDeque<Weak<Entry>>>,
    /// Nodes of the image that have several names, by number.
    linked: RefCell<BTreeMap<u64, Rc<Node>>>,
}

/// Memory that a node takes; given back when it is dropped.
pub(crate) struct Share {
    taken: Rc<Cell<usize>>,
    bytes: usize,
}

impl Drop for Share {
    fn drop(&mut self) {
        self.taken.set(self.taken.get().saturating_sub(self.bytes));
    }
}

impl Volume {
    /// A volume over an image, if there is one, whose nodes may take `bytes_max` of the library OS's memory.
    pub(crate) fn new(
        image: Option<Image<RootModule>>,
        frames: &SharedFrames,
        ready: &Rc<ReadyQueue>,
        bytes_max: usize,
    ) -> Rc<Self> {
        Rc::new(Self {
            image,
            frames: SharedFrames::clone(frames),
            notify: Hub::default(),
            locks: Locks::new(ready),
            owner: Cell::default(),
            last_number: Cell::new(FIRST_NUMBER),
            bytes_max,
            bytes_taken: Rc::default(),
            remembered: RefCell::default(),
            linked: RefCell::default(),
        })
    }

    /// The image.
    pub(crate) fn image(&self) -> Result<&Image<RootModule>, Errno> {
        self.image.as_ref().ok_or(Errno::EIO)
    }

    /// How many nodes there may still be, and how many there are.
    pub(crate) fn node_counts(&self) -> (u64, u64) {
        let taken = self.bytes_taken.get();
        let free = self.bytes_max.saturating_sub(taken) / NODE_BYTES;
        (free as u64, (taken / NODE_BYTES) as u64)
    }

    /// A number that no other node has.
    pub(crate) fn next_number(&self) -> u64 {
        self.last_number.set(self.last_number.get() + 1);
        self.last_number.get()
    }

    /// Room for a node in memory with `extra` bytes of names or text.
    pub(crate) fn share(&self, extra: usize) -> Result<Share, Errno> {
        let bytes = NODE_BYTES + extra;
        let taken = self.bytes_taken.get() + bytes;
        if taken > self.bytes_max {
            return Err(Errno::ENOSPC);
        }
        self.bytes_taken.set(taken);
        Ok(Share {
            taken: Rc::clone(&self.bytes_taken),
            bytes,
        })
    }

    /// A new node in memory with these type and permission bits.
    pub(crate) fn new_node(
        self: &Rc<Self>,
        device: Device,
        mode: u32,
        body: Body,
        extra_bytes: usize,
    ) -> Result<Rc<Node>, Errno> {
        let share = self.share(extra_bytes)?;
        Ok(Node::new(self, device, mode, body, share))
    }

    /// The node of the image with this number.
    pub(crate) fn image_node(self: &Rc<Self>, number: u64) -> Result<Rc<Node>, Errno> {
        if let Some(node) = self.linked.borrow().get(&number) {
            return Ok(Rc::clone(node));
        }
        let inode = self.image()?.inode(number)?;
        let is_linked = inode.links > 1 && inode.mode & S_IFMT != S_IFDIR;
        let node = Node::of_image(self, inode)?;
        if is_linked {
            let mut linked = self.linked.borrow_mut();
            if linked.len() >= LINKED_MAX {
                linked.retain(|_, node| node.is_changed() || Rc::strong_count(node) > 1);
            }
            linked.insert(number, Rc::clone(&node));
        }
        Ok(node)
    }

    /// Remembers an entry of the image that its parent has got, and forgets old ones if there are too many.
    pub(crate) fn remember(&self, entry: &Rc<Entry>) {
        self.remembered.borrow_mut().push_back(Rc::downgrade(entry));
        // As many as make room, and some more in case that the oldest are in use.
        for _ in 0..8 {
            let oldest = {
                let mut remembered = self.remembered.borrow_mut();
                if remembered.len() <= REMEMBERED_MAX {
                    return;
                }
                remembered.pop_front()
            };
            if let Some(oldest) = oldest.as_ref().and_then(Weak::upgrade)
                && !oldest.forget()
                && oldest.is_remembered()
            {
                self.remembered.borrow_mut().push_back(Rc::downgrade(&oldest));
            }
        }
    }
}
