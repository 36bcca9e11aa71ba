//! What is in a directory, in an order that stays while names come and go.
//!
//! A position is 0 or 1 for `.` and `..`, then the place in the image's directory, then the place among those that
//! the directory has got since.

use alloc::rc::Rc;
use alloc::vec::Vec;

use super::Entry;
use super::node::Body;
use crate::errno::Errno;
use crate::files::{Kind, generated};
use crate::kernel::Kernel;

/// Where the image's part begins.
pub(super) const LOWER_START: u64 = 2;
/// Where those of the directory's own begin.
const OWN_START: u64 = 1 << 62;

/// One line of a listing.
pub(crate) struct Line {
    pub(crate) name: Vec<u8>,
    pub(crate) number: u64,
    /// `d_type`.
    pub(crate) kind: u8,
    /// Where the listing goes on.
    pub(crate) next: u64,
}

/// `d_type` of the kind that an image's directory has.
fn lower_kind(file_type: u8) -> u8 {
    const KINDS: [Option<Kind>; 8] = [
        None,
        Some(Kind::Regular),
        Some(Kind::Directory),
        Some(Kind::CharacterDevice),
        Some(Kind::BlockDevice),
        Some(Kind::Pipe),
        Some(Kind::Socket),
        Some(Kind::SymbolicLink),
    ];
    let kind = KINDS.get(usize::from(file_type)).copied().flatten();
    kind.map_or(0, Kind::directory_type)
}

/// Gives `emit` one line after the other from `position` on until it refuses one.
pub(crate) fn list(
    kernel: &mut Kernel,
    entry: &Rc<Entry>,
    position: u64,
    emit: &mut dyn FnMut(&Line) -> bool,
) -> Result<(), Errno> {
    if entry.is_removed() {
        return Err(Errno::ENOENT);
    }
    let parent = entry.parent().unwrap_or_else(|| Rc::clone(entry));
    for (at, name, node) in [(0, &b"."[..], &entry.node), (1, b"..", &parent.node)] {
        let line = Line {
            name: name.to_vec(),
            number: node.number,
            kind: Kind::Directory.directory_type(),
            next: at + 1,
        };
        if position <= at && !emit(&line) {
            return Ok(());
        }
    }
    match &entry.node.body {
        Body::Directory(_) => list_directory(entry, position.max(LOWER_START), emit),
        Body::Generated(generated) => {
            let children = generated::list(kernel, *generated);
            let start = position.max(LOWER_START);
            let index = usize::try_from(start - LOWER_START).unwrap_or(usize::MAX);
            for (at, (name, child)) in children.into_iter().enumerate().skip(index) {
                let line = Line {
                    name,
                    number: child.number(),
                    kind: (child.mode() >> 12) as u8,
                    next: LOWER_START + at as u64 + 1,
                };
                if !emit(&line) {
                    return Ok(());
                }
            }
            Ok(())
        }
        _ => Err(Errno::ENOTDIR),
    }
}

pub(super) fn list_directory(
    entry: &Rc<Entry>,
    position: u64,
    emit: &mut dyn FnMut(&Line) -> bool,
) -> Result<(), Errno> {
    let directory = entry.node.directory().ok_or(Errno::ENOTDIR)?;
    if let Some(lower) = &directory.lower
        && position < OWN_START
    {
        let image = entry.node.volume.image()?;
        let mut at = position - LOWER_START;
        while let Some(found) = image.entry(lower, at)? {
            at = found.next;
            let is_dot = found.name == b"." || found.name == b"..";
            if is_dot || !directory.shows_lower(&found.name) {
                continue;
            }
            let line = Line {
                name: found.name,
                number: found.inode,
                kind: lower_kind(found.file_type),
                next: LOWER_START + found.next,
            };
            if !emit(&line) {
                return Ok(());
            }
        }
    }
    for (sequence, child) in directory.own_after(position.saturating_sub(OWN_START)) {
        let line = Line {
            name: child.name().to_vec(),
            number: child.node.number,
            kind: child.node.kind().directory_type(),
            next: OWN_START + sequence,
        };
        if !emit(&line) {
            return Ok(());
        }
    }
    Ok(())
}
