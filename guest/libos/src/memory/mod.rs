//! The program's memory: frames, areas, page tables.
//!
//! Whatever a program maps has table entries of its own, filled in when it is first touched, or at once where that is
//! cheaper than a fault: so what is unmapped or protected faults, as on Linux.
//!
//! All of RAM is mapped once more, writable, in the *window*: there the library OS reaches the frames that it owns,
//! those of files in memory, and those that it zeroes before it hands them out. Programs get no addresses there.
//!
//! * [`areas`]: what is mapped where: pure bookkeeping; [`ranges`]: free addresses and frames;
//! * [`space`]: the address space; [`map`], [`change`], [`remap`], [`heap`]: what programs ask of it;
//! * [`fault`]: what happens when memory is first touched; [`user`]: access from system calls;
//! * [`frames`], [`pages`]: RAM, and what is behind files in memory;
//! * [`text`]: what may be in large pages in a snapshot;
//! * [`buffers`]: the program's buffers in reads and writes.

pub(crate) mod areas;
pub(crate) mod buffers;
mod change;
mod fault;
pub(crate) mod frames;
mod heap;
pub(crate) mod map;
#[cfg(test)]
mod model;
pub(crate) mod pages;
pub mod ranges;
pub(crate) mod remap;
pub(crate) mod rewriting;
pub(crate) mod space;
mod text;
mod user;

pub(crate) use buffers::Buffers;
pub(crate) use space::AddressSpace;
