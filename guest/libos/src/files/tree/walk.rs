//! Paths: from text to entries.

use alloc::rc::Rc;
use alloc::vec::Vec;

use super::Entry;
use super::node::Body;
use crate::errno::Errno;
use crate::files::descriptors::OpenFile;
use crate::files::erofs::NAME_BYTES_MAX;
use crate::files::generated;
use crate::kernel::Kernel;

/// Symbolic links that are followed in one path.
const LINKS_MAX: usize = 40;

/// What a path leads to.
#[derive(Clone)]
pub(crate) enum Target {
    /// An entry of the tree.
    Entry(Rc<Entry>),
    /// An open file that has no place in the tree, through `/proc/self/fd`.
    Open(Rc<OpenFile>),
}

/// How a path ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Last {
    /// With a name.
    Name(Vec<u8>),
    /// With `.`.
    Dot,
    /// With `..`.
    DotDot,
    /// It is the root.
    Root,
}

/// Where a path leads.
pub(crate) struct Found {
    /// The directory of its last part.
    pub(crate) parent: Rc<Entry>,
    pub(crate) last: Last,
    /// What is there, if anything is.
    pub(crate) target: Option<Target>,
    /// It ends with a slash: only a directory will do.
    pub(crate) has_slash: bool,
}

/// Where a symbolic link leads.
pub(crate) enum Link {
    /// To where its text says.
    Text(Vec<u8>),
    /// Straight to something.
    Target(Target),
}

/// Which symbolic links a walk does not follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Follow {
    /// It follows all of them.
    All,
    /// It stops at one that the path ends with.
    NotLast,
    /// It fails at any.
    None,
}

/// Where a walk may not go (`openat2`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Limits {
    /// Nowhere but below where it begins.
    pub(crate) beneath: bool,
    /// Where it begins is the root.
    pub(crate) in_root: bool,
    /// Not through the links of `/proc`.
    pub(crate) no_magic: bool,
    /// Not to another device.
    pub(crate) one_device: bool,
}

impl Found {
    /// The entry that is there.
    pub(crate) fn entry(&self) -> Result<Rc<Entry>, Errno> {
        match &self.target {
            Some(Target::Entry(entry)) => Ok(Rc::clone(entry)),
            Some(Target::Open(_)) => Err(Errno::EPERM),
            None => Err(Errno::ENOENT),
        }
    }

    /// What is there.
    pub(crate) fn target(self) -> Result<Target, Errno> {
        self.target.ok_or(Errno::ENOENT)
    }
}

/// Where an entry that is a symbolic link leads.
pub(crate) fn link(kernel: &mut Kernel, entry: &Entry) -> Result<Link, Errno> {
    match &entry.node.body {
        Body::Generated(generated) => generated::link(kernel, *generated),
        _ => entry.node.link_text().map(Link::Text),
    }
}

/// A walk on its way.
struct Walk {
    at: Rc<Entry>,
    rest: Vec<u8>,
    position: usize,
    links: usize,
}

impl Walk {
    /// The next part of the path and whether a slash follows it.
    fn next_part(&mut self) -> Option<(Vec<u8>, bool)> {
        let rest = &self.rest[self.position..];
        let start = rest.iter().position(|&byte| byte != b'/')?;
        let rest = &rest[start..];
        let length = rest.iter().position(|&byte| byte == b'/').unwrap_or(rest.len());
        let part = rest[..length].to_vec();
        self.position += start + length;
        let has_slash = length < rest.len();
        Some((part, has_slash))
    }

    /// Whether nothing but slashes is left.
    fn is_at_end(&self) -> bool {
        self.rest[self.position..].iter().all(|&byte| byte == b'/')
    }

    /// Goes on with a link's text in place of the part.
    fn substitute(&mut self, text: &[u8], root: &Rc<Entry>) -> Result<(), Errno> {
        if text.is_empty() {
            return Err(Errno::ENOENT);
        }
        if text[0] == b'/' {
            self.at = Rc::clone(root);
        }
        let mut rest = text.to_vec();
        rest.extend_from_slice(&self.rest[self.position..]);
        self.rest = rest;
        self.position = 0;
        Ok(())
    }
}

/// Follows a path from `base` on, or from the root if it begins with a slash.
pub(crate) fn walk(
    kernel: &mut Kernel,
    base: &Rc<Entry>,
    path: &[u8],
    follow: Follow,
) -> Result<Found, Errno> {
    walk_within(kernel, base, path, follow, Limits::default())
}

/// The same within limits.
pub(crate) fn walk_within(
    kernel: &mut Kernel,
    base: &Rc<Entry>,
    path: &[u8],
    follow: Follow,
    limits: Limits,
) -> Result<Found, Errno> {
    if path.is_empty() {
        return Err(Errno::ENOENT);
    }
    if limits.beneath && path[0] == b'/' {
        return Err(Errno::EXDEV);
    }
    let root = Rc::clone(if limits.in_root { base } else { &kernel.tree.root });
    let mut walk = Walk {
        at: Rc::clone(if path[0] == b'/' { &root } else { base }),
        rest: path.to_vec(),
        position: 0,
        links: 0,
    };
    loop {
        let Some((name, has_slash)) = walk.next_part() else {
            let at = walk.at;
            return Ok(Found {
                parent: Rc::clone(&at),
                last: Last::Root,
                target: Some(Target::Entry(at)),
                has_slash: true,
            });
        };
        let is_last = walk.is_at_end();
        if name.len() > NAME_BYTES_MAX {
            return Err(Errno::ENAMETOOLONG);
        }
        if !walk.at.node.is_directory() {
            return Err(Errno::ENOTDIR);
        }
        let found = |parent: &Rc<Entry>, last, entry: Option<Rc<Entry>>| Found {
            parent: Rc::clone(parent),
            last,
            target: entry.map(Target::Entry),
            has_slash,
        };
        match name.as_slice() {
            b"." if is_last => return Ok(found(&walk.at, Last::Dot, Some(Rc::clone(&walk.at)))),
            b"." => continue,
            b".." => {
                if limits.beneath && Rc::ptr_eq(&walk.at, base) {
                    return Err(Errno::EXDEV);
                }
                let parent = match walk.at.parent() {
                    Some(parent) if !Rc::ptr_eq(&walk.at, &root) => parent,
                    _ => Rc::clone(&root),
                };
                if is_last {
                    return Ok(found(&parent, Last::DotDot, Some(Rc::clone(&parent))));
                }
                walk.at = parent;
                continue;
            }
            _ => {}
        }
        let Some(entry) = walk.at.clone().child(kernel, &name)? else {
            if is_last {
                return Ok(found(&walk.at, Last::Name(name), None));
            }
            return Err(Errno::ENOENT);
        };
        if limits.one_device && entry.node.device != base.node.device {
            return Err(Errno::EXDEV);
        }
        let follows = !is_last || has_slash || follow == Follow::All;
        if entry.node.is_link() && (follows || follow == Follow::None) {
            walk.links += 1;
            if walk.links > LINKS_MAX || follow == Follow::None {
                return Err(Errno::ELOOP);
            }
            match link(kernel, &entry)? {
                Link::Text(text) if limits.beneath && text.first() == Some(&b'/') => {
                    return Err(Errno::EXDEV);
                }
                Link::Text(text) => walk.substitute(&text, &root)?,
                Link::Target(_) if limits.no_magic => return Err(Errno::ELOOP),
                Link::Target(_) if limits.beneath || limits.in_root => return Err(Errno::EXDEV),
                Link::Target(target) if is_last => {
                    return Ok(Found {
                        parent: Rc::clone(&walk.at),
                        last: Last::Name(name),
                        target: Some(target),
                        has_slash,
                    });
                }
                Link::Target(Target::Entry(entry)) => walk.at = entry,
                Link::Target(Target::Open(_)) => return Err(Errno::ENOTDIR),
            }
            continue;
        }
        if is_last {
            if has_slash && !entry.node.is_directory() {
                return Err(Errno::ENOTDIR);
            }
            return Ok(found(&walk.at, Last::Name(name), Some(entry)));
        }
        walk.at = entry;
    }
}
