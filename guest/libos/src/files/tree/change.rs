//! Making, removing, linking and renaming.

use alloc::boxed::Box;
use alloc::rc::Rc;
use core::cell::RefCell;

use linux_raw_sys::general::{
    IN_ATTRIB, IN_CREATE, IN_DELETE, IN_DELETE_SELF, IN_ISDIR, IN_MOVE_SELF, IN_MOVED_FROM, IN_MOVED_TO,
    S_IFDIR, S_IFLNK, S_IFMT, S_IFREG, S_ISGID,
};

use super::directory::Directory;
use super::node::{Body, Bytes, Device, Node, Text};
use super::volume::Share;
use super::walk::{Found, Last, Target};
use super::{Entry, Volume};
use crate::errno::Errno;
use crate::files::contents::Contents;
use crate::files::pipe::Fifo;

/// Most names of a node, as on tmpfs.
const LINKS_MAX: u32 = 65_000;

/// The bit that says that an event is about a directory.
fn directory_bit(node: &Node) -> u32 {
    if node.is_directory() { IN_ISDIR } else { 0 }
}

/// Checks that `parent` can get and lose children.
fn changeable(parent: &Entry) -> Result<&Directory, Errno> {
    match &parent.node.body {
        Body::Directory(_) if parent.is_removed() => Err(Errno::ENOENT),
        Body::Directory(_) if parent.node.is_read_only() => Err(Errno::EROFS),
        Body::Directory(directory) => Ok(directory),
        Body::Generated(_) => Err(Errno::EPERM),
        _ => Err(Errno::ENOTDIR),
    }
}

/// Checks that `parent` can get new files.
fn check_growable(parent: &Entry) -> Result<(), Errno> {
    if matches!(parent.node.body, Body::Generated(_)) && parent.node.device == Device::Processes {
        return Err(Errno::ENOENT);
    }
    changeable(parent).map(|_| ())
}

/// The name that a new file gets where a path leads to nothing.
fn free_name(found: &Found, is_directory: bool) -> Result<&[u8], Errno> {
    if found.target.is_some() {
        return Err(Errno::EEXIST);
    }
    match &found.last {
        Last::Name(_) if found.has_slash && !is_directory => Err(Errno::ENOENT),
        Last::Name(name) => Ok(name),
        _ => Err(Errno::EEXIST),
    }
}

/// A new regular file that has no name.
pub(crate) fn nameless(volume: &Rc<Volume>, device: Device, permissions: u32) -> Result<Rc<Node>, Errno> {
    let body = Body::Regular(RefCell::new(Bytes::Memory(Contents::new(&volume.frames))));
    volume.new_node(device, S_IFREG | permissions, body, 0)
}

/// Makes a file of the kind that `mode` says where `found` leads.
pub(crate) fn make(found: &Found, mode: u32, rdev: u64) -> Result<Rc<Entry>, Errno> {
    let is_directory = mode & S_IFMT == S_IFDIR;
    let name = free_name(found, is_directory)?;
    make_in(&found.parent, name, mode, rdev)
}

/// Makes a file of the kind that `mode` says in a directory that has none of this name.
pub(crate) fn make_in(parent: &Rc<Entry>, name: &[u8], mode: u32, rdev: u64) -> Result<Rc<Entry>, Errno> {
    check_growable(parent)?;
    let volume = &parent.node.volume;
    let body = match mode & S_IFMT {
        S_IFREG => Body::Regular(RefCell::new(Bytes::Memory(Contents::new(&volume.frames)))),
        S_IFDIR => Body::Directory(Box::new(Directory::new(None))),
        linux_raw_sys::general::S_IFIFO => Body::Fifo(Fifo::default()),
        linux_raw_sys::general::S_IFSOCK => Body::Socket(RefCell::default()),
        linux_raw_sys::general::S_IFCHR | linux_raw_sys::general::S_IFBLK => Body::Device(rdev),
        _ => return Err(Errno::EINVAL),
    };
    // In a directory with the set-group-id bit, files get its group, and directories the bit.
    let has_group = parent.node.mode() & S_ISGID != 0;
    let inherited = if has_group && mode & S_IFMT == S_IFDIR {
        S_ISGID
    } else {
        0
    };
    let node = volume.new_node(parent.node.device, mode | inherited, body, name.len())?;
    if has_group {
        node.set_owner(None, Some(parent.node.gid()));
    }
    add(parent, name, node, None)
}

/// Makes a symbolic link where `found` leads.
pub(crate) fn make_link(found: &Found, text: &[u8]) -> Result<Rc<Entry>, Errno> {
    let name = free_name(found, false)?;
    make_link_in(&found.parent, name, text)
}

/// Makes a symbolic link in a directory that has nothing of this name.
pub(crate) fn make_link_in(parent: &Rc<Entry>, name: &[u8], text: &[u8]) -> Result<Rc<Entry>, Errno> {
    check_growable(parent)?;
    let body = Body::Link(Text::Memory(Box::from(text)));
    let extra = name.len() + text.len();
    let node = parent
        .node
        .volume
        .new_node(parent.node.device, S_IFLNK | 0o777, body, extra)?;
    add(parent, name, node, None)
}

/// Gives a node one more name.
pub(crate) fn link(node: &Rc<Node>, found: &Found) -> Result<(), Errno> {
    let name = free_name(found, false)?;
    changeable(&found.parent)?;
    if node.is_directory() {
        return Err(Errno::EPERM);
    }
    if node.device != found.parent.node.device {
        return Err(Errno::EXDEV);
    }
    if node.links() >= LINKS_MAX {
        return Err(Errno::EMLINK);
    }
    let share = node.volume.share(name.len())?;
    node.set_links(node.links() + 1);
    let entry = add(&found.parent, name, Rc::clone(node), Some(share))?;
    entry.node.volume.notify.tell_node(&entry.node, IN_ATTRIB);
    Ok(())
}

fn add(parent: &Rc<Entry>, name: &[u8], node: Rc<Node>, share: Option<Share>) -> Result<Rc<Entry>, Errno> {
    let directory = changeable(parent)?;
    if node.is_directory() {
        parent.node.set_links(parent.node.links() + 1);
    }
    let entry = Entry::with_share(name, Some(parent), node, share);
    directory.insert(&entry);
    parent.node.note_modification();
    entry.notify_parent(IN_CREATE | directory_bit(&entry.node), 0);
    Ok(entry)
}

/// The entry that is to lose its name, with its parent.
fn removable(found: &Found) -> Result<Rc<Entry>, Errno> {
    let entry = match &found.target {
        Some(Target::Entry(entry)) => entry,
        Some(Target::Open(_)) => return Err(Errno::EPERM),
        None => return Err(Errno::ENOENT),
    };
    if entry.node.device != found.parent.node.device {
        return Err(Errno::EBUSY);
    }
    changeable(&found.parent)?;
    Ok(Rc::clone(entry))
}

/// Takes a name out of its directory.
fn detach(parent: &Rc<Entry>, entry: &Rc<Entry>) -> Result<(), Errno> {
    changeable(parent)?.remove(&entry.node.volume, &entry.name())?;
    entry.set_removed();
    let node = &entry.node;
    if node.is_directory() {
        node.set_links(0);
        parent.node.set_links(parent.node.links().saturating_sub(1));
    } else {
        node.set_links(node.links().saturating_sub(1));
    }
    parent.node.note_modification();
    Ok(())
}

/// `unlink`.
pub(crate) fn unlink(found: &Found) -> Result<(), Errno> {
    if !matches!(found.last, Last::Name(_)) {
        return Err(Errno::EISDIR);
    }
    let entry = removable(found)?;
    if entry.node.is_directory() {
        return Err(Errno::EISDIR);
    }
    if found.has_slash {
        return Err(Errno::ENOTDIR);
    }
    detach(&found.parent, &entry)?;
    tell_removed(&entry);
    Ok(())
}

/// `rmdir`.
pub(crate) fn remove_directory(found: &Found) -> Result<(), Errno> {
    match found.last {
        Last::Name(_) => {}
        Last::Dot => return Err(Errno::EINVAL),
        Last::DotDot => return Err(Errno::ENOTEMPTY),
        Last::Root => return Err(Errno::EBUSY),
    }
    let entry = removable(found)?;
    let Some(directory) = entry.node.directory() else {
        return Err(if entry.node.is_directory() {
            Errno::EPERM
        } else {
            Errno::ENOTDIR
        });
    };
    if !directory.is_empty(&entry.node.volume)? {
        return Err(Errno::ENOTEMPTY);
    }
    detach(&found.parent, &entry)?;
    tell_removed(&entry);
    Ok(())
}

/// Tells that a node has lost a name, and perhaps its last one.
fn tell_link_gone(node: &Rc<Node>) {
    let hub = &node.volume.notify;
    if !node.is_directory() {
        hub.tell_node(node, IN_ATTRIB);
    }
    if node.links() == 0 {
        hub.tell_node(node, IN_DELETE_SELF);
    }
}

fn tell_removed(entry: &Rc<Entry>) {
    let bit = directory_bit(&entry.node);
    tell_link_gone(&entry.node);
    entry.notify_parent(IN_DELETE | bit, 0);
}

/// What `rename` is to do where there is a file already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Renaming {
    Replace,
    NoReplace,
    Exchange,
}

/// `rename`.
pub(crate) fn rename(from: &Found, to: &Found, how: Renaming) -> Result<(), Errno> {
    let (Last::Name(_), Last::Name(new_name)) = (&from.last, &to.last) else {
        return Err(Errno::EBUSY);
    };
    let moved = removable(from)?;
    changeable(&to.parent)?;
    if moved.node.device != to.parent.node.device {
        return Err(Errno::EXDEV);
    }
    if !moved.node.is_directory() && (from.has_slash || to.has_slash) {
        return Err(Errno::ENOTDIR);
    }
    if is_within(&to.parent, &moved) {
        return Err(Errno::EINVAL);
    }
    let replaced = match &to.target {
        Some(_) if how == Renaming::NoReplace => return Err(Errno::EEXIST),
        Some(Target::Entry(entry)) => Some(Rc::clone(entry)),
        Some(Target::Open(_)) => return Err(Errno::EPERM),
        None => None,
    };
    if how == Renaming::Exchange {
        let other = replaced.ok_or(Errno::ENOENT)?;
        return exchange(from, to, &moved, &other);
    }
    if let Some(replaced) = replaced {
        // A directory that holds the moved file is not empty, whatever else is wrong.
        if is_within(&from.parent, &replaced) {
            return Err(Errno::ENOTEMPTY);
        }
        // Two names of one file: nothing happens.
        if Rc::ptr_eq(&replaced.node, &moved.node) {
            return Ok(());
        }
        check_replaceable(&moved, &replaced)?;
        detach(&to.parent, &replaced)?;
        tell_link_gone(&replaced.node);
    }
    take_out(&from.parent, &moved)?;
    tell_moved_from(&moved, |cookie| {
        put_in(&to.parent, new_name, &moved)?;
        moved.notify_parent(IN_MOVED_TO | directory_bit(&moved.node), cookie);
        moved.node.volume.notify.tell_node(&moved.node, IN_MOVE_SELF);
        Ok(())
    })
}

/// Tells that a file goes away from its place, and calls `arrive` with the number that connects both events.
fn tell_moved_from(moved: &Rc<Entry>, arrive: impl FnOnce(u32) -> Result<(), Errno>) -> Result<(), Errno> {
    let cookie = moved.node.volume.notify.next_cookie();
    moved.notify_parent(IN_MOVED_FROM | directory_bit(&moved.node), cookie);
    arrive(cookie)
}

fn check_replaceable(moved: &Entry, replaced: &Entry) -> Result<(), Errno> {
    match (moved.node.is_directory(), replaced.node.is_directory()) {
        (true, false) => return Err(Errno::ENOTDIR),
        (false, true) => return Err(Errno::EISDIR),
        _ => {}
    }
    if replaced.node.device != moved.node.device {
        return Err(Errno::EBUSY);
    }
    if let Some(directory) = replaced.node.directory()
        && !directory.is_empty(&replaced.node.volume)?
    {
        return Err(Errno::ENOTEMPTY);
    }
    Ok(())
}

/// Whether `entry` is `ancestor` or somewhere in it.
fn is_within(entry: &Rc<Entry>, ancestor: &Entry) -> bool {
    let mut at = Some(Rc::clone(entry));
    while let Some(entry) = at {
        if core::ptr::eq(&*entry, ancestor) {
            return true;
        }
        at = entry.parent();
    }
    false
}

/// Takes an entry that goes on to live out of its directory.
fn take_out(parent: &Rc<Entry>, entry: &Rc<Entry>) -> Result<(), Errno> {
    changeable(parent)?.remove(&entry.node.volume, &entry.name())?;
    if entry.node.is_directory() {
        parent.node.set_links(parent.node.links().saturating_sub(1));
    }
    parent.node.note_modification();
    Ok(())
}

/// Puts an entry into a directory under a name.
fn put_in(parent: &Rc<Entry>, name: &[u8], entry: &Rc<Entry>) -> Result<(), Errno> {
    let directory = changeable(parent)?;
    entry.set_place(parent, name);
    directory.insert(entry);
    if entry.node.is_directory() {
        parent.node.set_links(parent.node.links() + 1);
    }
    parent.node.note_modification();
    entry.node.set_links(entry.node.links());
    Ok(())
}

fn exchange(from: &Found, to: &Found, moved: &Rc<Entry>, other: &Rc<Entry>) -> Result<(), Errno> {
    if Rc::ptr_eq(moved, other) {
        return Ok(());
    }
    if other.node.device != moved.node.device {
        return Err(Errno::EBUSY);
    }
    if is_within(&from.parent, other) {
        return Err(Errno::EINVAL);
    }
    let (first, second) = (moved.name(), other.name());
    take_out(&from.parent, moved)?;
    take_out(&to.parent, other)?;
    put_in(&to.parent, &second, moved)?;
    put_in(&from.parent, &first, other)
}
