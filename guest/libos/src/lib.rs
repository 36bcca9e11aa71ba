//! The library OS: one Linux program in one address space, served in safe code.
//!
//! The program's system calls are answered here, in the same address space and at the same privilege. There is one
//! virtual processor and one stack: a call that has to wait does not keep a stack, it is *tried again* when what it
//! waits for has moved (see [`task`]). Everything that a task is, is therefore a plain value.
//!
//! ```text
//!   calls/      one function a system call: arguments in, result or errno or "wait" out
//!     │
//!   files/ network/ program/ memory/      what the calls work on
//!     │
//!   process, task, signals, futex, timers who runs, and who is told of what
//!   schedule, time, random, kernel        when, and the main loop
//!     │
//!   spore-machine                         traps, page tables, shared pages: all the unsafe code
//! ```

#![no_std]

extern crate alloc;

mod calls;
mod children;
mod clones;
mod errno;
mod files;
mod futex;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod kernel;
pub mod memory;
mod network;
mod process;
pub mod program;
mod random;
mod schedule;
mod sequences;
mod signals;
mod task;
mod text;
mod time;
mod timers;

pub use kernel::start;
