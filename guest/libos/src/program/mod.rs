//! The program: its file, its first stack, its start.

pub(crate) mod command;
pub mod elf;
pub(crate) mod load;
pub(crate) mod script;
pub(crate) mod stack;
pub(crate) mod start;
mod vdso;
