//! The program's memory: frames, areas, page tables.
//!
//! RAM is mapped once, writable, in the *window*. Anonymous mappings of the sizes that allocators ask for all the
//! time are stretches of it and never touch a page table. Everything else (small and large mappings, fixed addresses, reservations, executable mappings, files, the program's
//! own segments, the heap behind `brk`, the stack) has table entries of its own, filled in when it is first touched.
//!
//! The library OS reaches the frames that it owns through the window: those of files in memory, and those that it
//! zeroes before it hands them out. So this holds: *whatever the window's entry for an address leads to, the frame of
//! that address is in nobody else's hands.* A program may map a file over a stretch of the window that it has, or move
//! a mapping there; the entries then lead elsewhere, and the frames of these addresses lie idle until it is unmapped.
//!
//! * [`areas`]: what is mapped where: pure bookkeeping; [`ranges`]: free addresses and frames;
//! * [`space`]: the address space; [`map`], [`change`], [`remap`], [`heap`]: what programs ask of it;
//! * [`fault`]: what happens when memory is first touched; [`user`]: access from system calls;
//! * [`frames`], [`pages`]: RAM, and what is behind files in memory;
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
mod rewriting;
pub(crate) mod space;
mod user;

pub(crate) use buffers::Buffers;
pub(crate) use space::AddressSpace;
