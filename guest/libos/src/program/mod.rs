//! The program: its ELF file, its segments, its first stack.

pub mod elf;
pub(crate) mod load;
mod stack;
mod vdso;
