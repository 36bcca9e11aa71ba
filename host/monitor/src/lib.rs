//! The monitor: one virtual machine, or one guest process, for each monitor process.
//!
//! The daemon starts a monitor process for each instance, from the same binary, with a control socket as standard
//! input and a log socket as standard output ([`protocol`]). The process has one thread. It either runs the virtual
//! processor or serves it, never both at once, so that nothing that the guest shares with it changes under its hands:
//!
//! ```text
//!   start ──> KVM_RUN <──────────────────────────────────────────────────┐
//!                │                                                       │
//!                ├─ doorbell "wait" ──> serve ──> news, or deadline? ─yes─┤
//!                │                        ^               │ no           │
//!                │                        └──── poll <────┘              │
//!                ├─ doorbell "notify" ──> serve ──> (log ring full? poll) ┤
//!                ├─ tick (10 ms) ──> requests, serve, perhaps an upcall ──┤
//!                ├─ fault ──> upcall to the library OS ───────────────────┤
//!                ├─ doorbell "forget translations" ──────────────────────┘
//!                └─ doorbell "end", request to stop, damage ──> serve until all has left ──> report, exit
//! ```
//!
//! *Serve* moves bytes between the log ring, the stream rings and their sockets, as far as they go without waiting. The
//! control socket is read when `poll` says so and on ticks.
//!
//! * [`protocol`]: messages between daemon and monitor;
//! * `memory`, `tables`, `machine`: the virtual machine before its first instruction;
//! * `text`: program text of a snapshot in large pages;
//! * `form`: what virtual machine and guest process have in common; `guest_process`: the latter;
//! * `run`: the loop above; `streams` and `log` (with `spore_allowance`): what it serves; `kick`: the tick;
//! * `capture`, `written`, `reset`: how an instance becomes a snapshot, what copies need, and how they begin again;
//! * `report`: registers and symbols for a fault;
//! * [`process`]: starts a monitor process; `zygote`: one of which others are copies; [`jail`]: what confines it once the guest runs;
//! * [`probe`]: what this host's KVM can do and what it costs; [`identity`]: what snapshots depend on.
//!
//! The monitor knows no HTTP and no JSON. Whatever it reads from guest memory is copied first and believed never.

mod capture;
mod clocks;
mod egress;
pub mod features;
mod form;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod guest_process;
pub mod identity;
mod image;
pub mod jail;
mod kick;
mod log;
mod machine;
mod memory;
mod memory_file;
mod milestones;
mod module;
pub mod probe;
pub mod process;
mod processor;
pub mod protocol;
#[cfg(test)]
mod races;
mod report;
mod reset;
mod run;
mod shell;
mod start;
mod streams;
mod tables;
mod text;
mod written;
mod zygote;

pub use guest_process::clock::time_stamp_khz;
pub use image::text_file;
pub use log::dropped_line;
pub use memory_file::memory_file;
pub use module::RootFiles;
pub use processor::Processor;
pub use run::chain;
pub use start::{allowed_bytes, main};
pub use text::{Text, lay_out_text};

/// A value of the auxiliary vector; 0 if it is not there.
fn auxiliary_value(kind: u64) -> u64 {
    // SAFETY: reads what the kernel has told this process at its start.
    unsafe { libc::getauxval(kind) }
}
