//! Entries: names in directories.

use alloc::rc::Rc;
use alloc::vec::Vec;
use core::cell::{Cell, RefCell};

use linux_raw_sys::general::{IN_ACCESS, IN_MODIFY};

use super::node::{Body, Node};
use super::volume::Share;
use crate::errno::Errno;
use crate::files::generated;
use crate::files::{File, Kind, Mapping, Metadata, Positions, Readiness, memory};
use crate::kernel::Kernel;
use crate::memory::Buffers;

/// A name in a directory, and what it leads to. It is also the file that an open regular file or directory is.
pub(crate) struct Entry {
    name: RefCell<Rc<[u8]>>,
    /// `None` for the root.
    parent: RefCell<Option<Rc<Entry>>>,
    pub(crate) node: Rc<Node>,
    is_removed: Cell<bool>,
    /// Memory that it takes, where its node does not account for it.
    _share: Option<Share>,
}

impl Entry {
    /// An entry that is not in its parent's list yet.
    pub(crate) fn new(name: &[u8], parent: Option<&Rc<Entry>>, node: Rc<Node>) -> Rc<Self> {
        Self::with_share(name, parent, node, None)
    }

    /// The same, with a share of its own.
    pub(crate) fn with_share(
        name: &[u8],
        parent: Option<&Rc<Entry>>,
        node: Rc<Node>,
        share: Option<Share>,
    ) -> Rc<Self> {
        Rc::new(Self {
            name: RefCell::new(Rc::from(name)),
            parent: RefCell::new(parent.map(Rc::clone)),
            node,
            is_removed: Cell::new(false),
            _share: share,
        })
    }

    /// Its name.
    pub(crate) fn name(&self) -> Rc<[u8]> {
        Rc::clone(&self.name.borrow())
    }

    /// The directory that it is in.
    pub(crate) fn parent(&self) -> Option<Rc<Entry>> {
        self.parent.borrow().clone()
    }

    /// Whether the name is gone.
    pub(crate) fn is_removed(&self) -> bool {
        self.is_removed.get()
    }

    /// The name is gone.
    pub(super) fn set_removed(&self) {
        self.is_removed.set(true);
    }

    /// It has another name now.
    pub(super) fn set_place(&self, parent: &Rc<Entry>, name: &[u8]) {
        self.name.replace(Rc::from(name));
        let previous = self.parent.replace(Some(Rc::clone(parent)));
        drop(previous);
    }

    /// Forgets an entry of the image that nobody uses and that was not changed; `false` if that cannot be.
    pub(super) fn forget(self: &Rc<Self>) -> bool {
        // One holder is the parent, the other one asks.
        let is_unused = Rc::strong_count(self) == 2 && !self.node.is_changed();
        let is_leaf = self
            .node
            .directory()
            .is_none_or(super::directory::Directory::knows_nothing);
        is_unused
            && is_leaf
            && self.parent().is_some_and(|parent| {
                parent
                    .node
                    .directory()
                    .is_some_and(|directory| directory.forget(self))
            })
    }

    /// Whether it is one that may be forgotten some time.
    pub(super) fn is_remembered(&self) -> bool {
        let parent = self.parent();
        parent.is_some_and(|parent| {
            let directory = parent.node.directory();
            directory.is_some_and(|directory| directory.remembers(self))
        })
    }

    /// The child with this name.
    pub(crate) fn child(
        self: &Rc<Self>,
        kernel: &mut Kernel,
        name: &[u8],
    ) -> Result<Option<Rc<Entry>>, Errno> {
        let Body::Generated(generated) = &self.node.body else {
            return self.kept_child(name);
        };
        let child = generated::child(kernel, *generated, name);
        Ok(child.map(|child| {
            let node = Node::of_generated(&self.node.volume, self.node.device, child);
            Entry::new(name, Some(self), node)
        }))
    }

    /// The child with this name of a directory that is not generated.
    pub(super) fn kept_child(self: &Rc<Self>, name: &[u8]) -> Result<Option<Rc<Entry>>, Errno> {
        let directory = self.node.directory().ok_or(Errno::ENOTDIR)?;
        if self.is_removed.get() {
            return Ok(None);
        }
        if let Some(known) = directory.known(name) {
            return Ok(known);
        }
        let Some(lower) = &directory.lower else {
            return Ok(None);
        };
        let volume = &self.node.volume;
        let Some((number, _)) = volume.image()?.lookup(lower, name)? else {
            return Ok(None);
        };
        let node = volume.image_node(number)?;
        let entry = Entry::new(name, Some(self), node);
        directory.remember(&entry);
        volume.remember(&entry);
        Ok(Some(entry))
    }

    /// Its path from the root on; what was removed is marked as on Linux.
    pub(crate) fn path(&self) -> Vec<u8> {
        let mut names = alloc::vec![self.name()];
        let mut at = self.parent();
        while let Some(entry) = at {
            names.push(entry.name());
            at = entry.parent();
        }
        // The last one is the root's, which is empty.
        names.pop();
        let mut path = Vec::new();
        for name in names.iter().rev() {
            path.push(b'/');
            path.extend_from_slice(name);
        }
        if path.is_empty() {
            path.push(b'/');
        }
        if self.is_removed.get() {
            path.extend_from_slice(b" (deleted)");
        }
        path
    }

    /// Tells watchers of an event on it and, by its name, on its directory.
    pub(crate) fn notify(&self, event: u32) {
        if !self.node.volume.notify.is_idle() {
            self.node.volume.notify.tell_node(&self.node, event);
            self.notify_parent(event, 0);
        }
    }

    /// Tells watchers of its directory of an event, by its name; `cookie` connects it with another one.
    pub(crate) fn notify_parent(&self, event: u32, cookie: u32) {
        let hub = &self.node.volume.notify;
        if !hub.is_idle()
            && let Some(parent) = self.parent()
        {
            hub.tell_directory(&parent.node, event, &self.name(), cookie);
        }
    }
}

impl Drop for Entry {
    /// Lets go of parents one after the other: they may be many, and the stack is small.
    fn drop(&mut self) {
        let mut next = self.parent.take();
        while let Some(parent) = next {
            next = Rc::into_inner(parent).and_then(|mut parent| parent.parent.get_mut().take());
        }
    }
}

impl File for Entry {
    fn kind(&self) -> Kind {
        self.node.kind()
    }

    fn positions(&self) -> Positions {
        Positions::Kept
    }

    fn read_at(&self, kernel: &mut Kernel, position: u64, buffers: &mut Buffers) -> Result<u64, Errno> {
        let done = self.node.read_at(kernel, position, buffers)?;
        if done > 0 {
            self.notify(IN_ACCESS);
        }
        Ok(done)
    }

    fn write_at(&self, kernel: &mut Kernel, position: u64, buffers: &mut Buffers) -> Result<u64, Errno> {
        let done = self
            .node
            .with_contents(|contents| contents.write_at(&mut kernel.process.space, position, buffers))?;
        self.node.note_modification();
        self.notify(IN_MODIFY);
        Ok(done)
    }

    fn size(&self) -> Option<u64> {
        self.node.size()
    }

    fn peek(&self, offset: u64, buffer: &mut [u8]) -> Result<usize, Errno> {
        self.node.peek(offset, buffer)
    }

    fn seek_data(&self, offset: u64, hole: bool) -> Result<u64, Errno> {
        let size = self.size().ok_or(Errno::EINVAL)?;
        match self
            .node
            .contents_in_memory(|contents| contents.seek_data(offset, hole))
        {
            Some(found) => found,
            None if offset >= size => Err(Errno::ENXIO),
            None => Ok(if hole { size } else { offset }),
        }
    }

    fn truncate(&self, kernel: &mut Kernel, bytes: u64) -> Result<(), Errno> {
        if self.node.is_read_only() {
            return Err(Errno::EROFS);
        }
        if bytes == 0 {
            self.node.make_empty(kernel)?;
        } else {
            self.node
                .with_contents(|contents| contents.truncate(kernel, bytes))?;
            self.node.note_modification();
        }
        self.notify(IN_MODIFY);
        Ok(())
    }

    fn allocate(&self, kernel: &mut Kernel, mode: u32, offset: u64, bytes: u64) -> Result<(), Errno> {
        if self.kind() != Kind::Regular {
            return Err(if self.kind() == Kind::Directory {
                Errno::EISDIR
            } else {
                Errno::ENODEV
            });
        }
        self.node
            .with_contents(|contents| memory::allocate(contents, kernel, mode, offset, bytes))?;
        self.node.note_modification();
        Ok(())
    }

    fn sync(&self) -> Result<(), Errno> {
        Ok(())
    }

    fn metadata(&self) -> Metadata {
        self.node.metadata()
    }

    fn readiness(&self) -> Readiness {
        Readiness::READ | Readiness::WRITE
    }

    fn mapping(&self) -> Result<Mapping, Errno> {
        self.node.mapping()
    }

    fn shared_mapping(&self, _kernel: &mut Kernel) -> Result<Mapping, Errno> {
        if self.kind() != Kind::Regular {
            return Err(Errno::ENODEV);
        }
        self.node
            .with_contents(|contents| Ok(Mapping::Pages(Rc::clone(contents.pages()))))
    }

    fn label(&self) -> Vec<u8> {
        self.path()
    }

    fn entry(self: Rc<Self>) -> Option<Rc<Entry>> {
        Some(self)
    }
}
