//! The program's memory: frames, areas, page tables.
//!
//! RAM is mapped once, writable, in the *window*; ordinary anonymous mappings are stretches of it and never touch a
//! page table. Everything else (fixed addresses, reservations, executable mappings, the program's own segments, the
//! heap behind `brk`, the stack) has table entries of its own, filled in when it is first touched.

pub(crate) mod areas;
pub(crate) mod buffers;
pub(crate) mod frames;
pub(crate) mod pages;
pub mod ranges;
mod rewriting;
pub(crate) mod space;
mod user;

pub(crate) use buffers::Buffers;
pub(crate) use space::AddressSpace;
