//! A directory's children: those of its own over those of the image.

use alloc::collections::BTreeMap;
use alloc::rc::Rc;
use alloc::vec::Vec;
use core::cell::{Cell, RefCell};

use super::volume::Share;
use super::{Entry, Volume};
use crate::errno::Errno;
use crate::files::erofs;

/// A directory.
pub(crate) struct Directory {
    /// The directory of the image that it lies over.
    pub(super) lower: Option<erofs::Inode>,
    children: RefCell<BTreeMap<Rc<[u8]>, Child>>,
    /// Grows with each child of its own: where listings are.
    last_sequence: Cell<u64>,
}

/// What is known of a name.
enum Child {
    /// The image has it; it may be forgotten.
    Remembered(Rc<Entry>),
    /// It is in memory; whatever the image has there is hidden.
    Own(Rc<Entry>, u64),
    /// There is none, though the image has one.
    Removed(#[expect(dead_code, reason = "held until the name is used again")] Share),
}

impl Directory {
    /// A directory with what the image's has.
    pub(crate) fn new(lower: Option<erofs::Inode>) -> Self {
        Self {
            lower,
            children: RefCell::default(),
            last_sequence: Cell::new(0),
        }
    }

    /// The child that is in memory already: `Some(None)` if the name is known to lead nowhere.
    pub(super) fn known(&self, name: &[u8]) -> Option<Option<Rc<Entry>>> {
        match self.children.borrow().get(name)? {
            Child::Remembered(entry) | Child::Own(entry, _) => Some(Some(Rc::clone(entry))),
            Child::Removed(_) => Some(None),
        }
    }

    /// Whether the image has this name, whatever became of it.
    fn lower_has(&self, volume: &Volume, name: &[u8]) -> Result<bool, Errno> {
        match &self.lower {
            Some(lower) => Ok(volume.image()?.lookup(lower, name)?.is_some()),
            None => Ok(false),
        }
    }

    /// Takes note of an entry of the image.
    pub(super) fn remember(&self, entry: &Rc<Entry>) {
        self.children
            .borrow_mut()
            .insert(entry.name(), Child::Remembered(Rc::clone(entry)));
    }

    /// Forgets an entry of the image again, if it is one; `false` if it is a child of the directory's own.
    pub(super) fn forget(&self, entry: &Entry) -> bool {
        let name = entry.name();
        let mut children = self.children.borrow_mut();
        match children.get(&name) {
            Some(Child::Remembered(known)) if core::ptr::eq(&**known, entry) => {
                children.remove(&name);
                true
            }
            _ => false,
        }
    }

    /// Whether an entry is remembered here.
    pub(super) fn remembers(&self, entry: &Entry) -> bool {
        let children = self.children.borrow();
        matches!(children.get(&entry.name()), Some(Child::Remembered(known)) if core::ptr::eq(&**known, entry))
    }

    /// Whether nothing is known of any name.
    pub(super) fn knows_nothing(&self) -> bool {
        self.children.borrow().is_empty()
    }

    /// Adds a child of its own, or replaces what had the name.
    pub(super) fn insert(&self, entry: &Rc<Entry>) {
        let sequence = self.last_sequence.get() + 1;
        self.last_sequence.set(sequence);
        self.children
            .borrow_mut()
            .insert(entry.name(), Child::Own(Rc::clone(entry), sequence));
    }

    /// Removes the child with this name.
    pub(super) fn remove(&self, volume: &Volume, name: &Rc<[u8]>) -> Result<(), Errno> {
        let child = if self.lower_has(volume, name)? {
            Some(Child::Removed(volume.share(name.len())?))
        } else {
            None
        };
        let mut children = self.children.borrow_mut();
        let previous = match child {
            Some(child) => children.insert(Rc::clone(name), child),
            None => children.remove(name),
        };
        // Other entries may go with it.
        drop(children);
        drop(previous);
        Ok(())
    }

    /// Whether a name of the image's directory is to be seen.
    pub(super) fn shows_lower(&self, name: &[u8]) -> bool {
        matches!(
            self.children.borrow().get(name),
            None | Some(Child::Remembered(_))
        )
    }

    /// Children of its own behind a place in the order in which they came, with their places.
    pub(super) fn own_after(&self, sequence: u64) -> Vec<(u64, Rc<Entry>)> {
        let children = self.children.borrow();
        let mut own: Vec<_> = children
            .values()
            .filter_map(|child| match child {
                Child::Own(entry, at) if *at > sequence => Some((*at, Rc::clone(entry))),
                _ => None,
            })
            .collect();
        own.sort_unstable_by_key(|(at, _)| *at);
        own
    }

    /// Whether there is no child.
    pub(super) fn is_empty(&self, volume: &Volume) -> Result<bool, Errno> {
        let has_own = self
            .children
            .borrow()
            .values()
            .any(|child| matches!(child, Child::Own(..)));
        if has_own {
            return Ok(false);
        }
        let Some(lower) = &self.lower else { return Ok(true) };
        let mut position = 0;
        while let Some(entry) = volume.image()?.entry(lower, position)? {
            position = entry.next;
            if entry.name != b"." && entry.name != b".." && self.shows_lower(&entry.name) {
                return Ok(false);
            }
        }
        Ok(true)
    }
}
