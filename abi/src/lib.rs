//! What the unikernel and its monitor agree on.
//!
//! Guest and host never depend on each other; both depend on this crate. It holds constants and plain structures,
//! no behaviour beyond index arithmetic, and neither allocates nor needs the standard library.
//!
//! * [`layout`]: where things are in guest-physical and virtual memory;
//! * [`pages`]: the shared pages: boot page (written once by the host), host page, guest page;
//! * [`ring`]: byte rings for streams and for the log;
//! * [`doorbell`]: the one port, and what may be asked through it;
//! * [`runtime_api`]: invocations for programs that ask for them;
//! * [`command`]: what comes first on the stream of a command;
//! * [`microvm`]: frames between the daemon and the first process of a Linux guest;
//! * [`process`]: what takes the place of ring 0 where the guest is a process.
//!
//! Every structure is `repr(C)` with explicit padding, and its size is asserted at compile time: a change to one of
//! them is a change of [`ABI_VERSION`].

#![no_std]

pub mod command;
pub mod doorbell;
pub mod layout;
pub mod microvm;
pub mod pages;
pub mod process;
pub mod ring;
pub mod runtime_api;

/// Version of everything in this crate. A monitor refuses an image built for another one.
pub const ABI_VERSION: u32 = 12;
