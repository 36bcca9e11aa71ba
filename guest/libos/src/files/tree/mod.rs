//! The tree of named files: an image that is never written, and what the program has changed, in memory.
//!
//! ```text
//!   Entry "/"  ──>  Node (directory)   children: "etc"  ──>  Entry ──> Node (from the image, remembered)
//!                                                "tmp"  ──>  Entry ──> Node (in memory)
//!                                                "old"  ──>  removed: hides what the image has
//! ```
//!
//! * [`node`]: what a file is: attributes and contents, whatever its names are;
//! * [`entry`]: a name in a directory, leading to a node; entries know their parents, directories their children;
//! * [`directory`]: a directory's children: those of its own over those of the image; [`listing`]: all of them;
//! * [`volume`]: the image, memory, and the bounds on both;
//! * [`walk`]: paths; [`change`]: making, removing, renaming; [`opening`]: from entries to open files;
//! * [`start`]: what is there when the program starts.
//!
//! A file of the image becomes one in memory when it is first written. What was not changed may be forgotten at any
//! time and read from the image again; only so much of it is kept.

pub(crate) mod change;
pub(crate) mod directory;
pub(crate) mod entry;
pub(crate) mod listing;
pub(crate) mod node;
pub(crate) mod opening;
pub(crate) mod start;
#[cfg(test)]
mod tests;
pub(crate) mod volume;
pub(crate) mod walk;

use alloc::rc::Rc;

pub(crate) use entry::Entry;
pub(crate) use volume::Volume;

/// The tree.
#[derive(Clone)]
pub(crate) struct Tree {
    pub(crate) root: Rc<Entry>,
    pub(crate) volume: Rc<Volume>,
}
