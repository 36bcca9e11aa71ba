//! The process form: the same image and memory layout in a Linux process instead of a virtual machine.
//!
//! What is the supervisor's in a virtual machine, from [`MONITOR_BASE`] on, belongs to the image's runtime here (`process`
//! in `guest/machine`), which does what the ring-0 stubs do there:
//!
//! ```text
//!   MONITOR_BASE            process page: whose turn it is, why, registers
//!   + 0x0_1000              seccomp program
//!   + 0x0_f000              extended registers of a snapshot, on their way out or in
//!   + 0x1_0000              stack of the signal handlers, up to 0x3_0000
//!   + 0x3_0000              which pages of RAM are still to be copied from the snapshot
//!   RAM_ALIAS_BASE          all of RAM once more, for the runtime: the window is a program's to change
//!   SNAPSHOT_BASE           the snapshot of which the guest is a copy, read-only
//! ```

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::layout::{MONITOR_BASE, PAGE_BYTES, RAM_BYTES_MAX, WINDOW_BASE};
use crate::pages::Registers;

/// Address of the process page.
pub const PROCESS_PAGE: u64 = MONITOR_BASE;
/// Address of the seccomp program, an array of `struct sock_filter`.
pub const FILTER: u64 = MONITOR_BASE + PAGE_BYTES;
/// Room for the seccomp program, in bytes.
pub const FILTER_BYTES_MAX: u64 = 0xe000;
/// Address of the extended registers of a snapshot, as `xsave` writes them.
pub const EXTENDED_STATE: u64 = MONITOR_BASE + 0xf000;
/// Room for the extended registers, in bytes; as much as KVM has for them (`struct kvm_xsave`).
pub const EXTENDED_STATE_BYTES: u64 = 0x1000;
/// Lowest address of the stack of the signal handlers.
pub const SIGNAL_STACK: u64 = MONITOR_BASE + 0x1_0000;
/// Size of that stack, in bytes.
pub const SIGNAL_STACK_BYTES: u64 = 0x2_0000;
/// Address of a bit for each page of RAM, in 64-bit words: it is to be copied from the snapshot before anybody sees it.
pub const MISSING: u64 = MONITOR_BASE + 0x3_0000;
/// Room for these bits, in bytes.
pub const MISSING_BYTES: u64 = RAM_BYTES_MAX / PAGE_BYTES / 8;
/// Size of what lies at [`MONITOR_BASE`], in bytes.
pub const AREA_BYTES: u64 = 0x3_0000 + MISSING_BYTES;
/// Address at which the runtime reads RAM.
pub const RAM_ALIAS_BASE: u64 = MONITOR_BASE + 0x40_0000_0000;

/// Address of the snapshot, which is as large as RAM.
pub const SNAPSHOT_BASE: u64 = MONITOR_BASE + 0x60_0000_0000;

/// The descriptor of RAM in the guest's process.
pub const RAM_DESCRIPTOR: i32 = 3;
/// The descriptor of the root module in the guest's process.
pub const MODULE_DESCRIPTOR: i32 = 4;
/// The descriptor of the root module's head in the guest's process, if it has one ([`ProcessPage::module_base_bytes`]).
pub const HEAD_DESCRIPTOR: i32 = 5;

/// The signal that stands for a tick (SIGALRM).
pub const TICK_SIGNAL: i32 = 14;

/// What guest process and monitor tell each other.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct ProcessPage {
    /// One of [`turn`]; the futex that both wait on.
    pub turn: u32,
    /// One of [`stop`].
    pub stop: u32,
    /// The doorbell's request, for [`stop::DOORBELL`].
    pub request: u32,
    /// Exception vector, for [`stop::EXCEPTION`] and [`stop::LOST_MEMORY`].
    pub vector: u32,
    /// Error code of the exception.
    pub error_code: u64,
    /// Address that faulted, for page faults.
    pub fault_address: u64,
    /// Registers of the interrupted code. After a tick the guest goes on with what the monitor leaves here. At a doorbell
    /// they are those with which the library OS can go on behind it, in either form.
    pub registers: Registers,

    /// 1 while the guest waits for the monitor: a tick then has come already.
    pub is_stopped: u32,
    /// 1 if system calls are caught by Syscall User Dispatch, 0 if by the seccomp program.
    pub uses_dispatch: u32,
    /// Instructions of the seccomp program.
    pub filter_length: u32,
    /// 1 if the guest is a copy of a snapshot and goes on, 0 if it begins at the image's first instruction.
    pub goes_on: u32,
    /// 1 if the guest is to become a snapshot: it leaves all its registers here when it waits.
    pub leaves_state: u32,
    /// Explicit padding.
    pub reserved: u32,
    /// Size of RAM, in bytes.
    pub ram_bytes: u64,
    /// Size of the root module, in bytes; whole pages.
    pub module_bytes: u64,
    /// If the root module consists of two files, the size of the first; whole pages. The module's first page is that of the
    /// second file, and behind the first file's end come the second one's further pages. 0 if it is one file.
    pub module_base_bytes: u64,
    /// Registers with which a copy of a snapshot goes on. A tick may come before, and changes the others.
    pub first_registers: Registers,
    /// Base of FS, of a snapshot.
    pub fs_base: u64,
    /// Base of GS, of a snapshot.
    pub gs_base: u64,
    /// Guest-physical address of the top-level page table.
    pub top_table_gpa: u64,
    /// Extended state components, as in the boot page.
    pub extended_state_mask: u64,
}

/// Values of [`ProcessPage::turn`].
pub mod turn {
    /// The guest runs.
    pub const GUEST: u32 = 1;
    /// The guest stands still, for the reason in [`super::ProcessPage::stop`].
    pub const MONITOR: u32 = 2;
}

/// Values of [`ProcessPage::stop`].
pub mod stop {
    /// The library OS has rung the doorbell.
    pub const DOORBELL: u32 = 1;
    /// A tick.
    pub const TICK: u32 = 2;
    /// The library OS has raised an exception. The guest cannot go on.
    pub const EXCEPTION: u32 = 3;
    /// The host cannot provide memory that the guest may use. The guest cannot go on.
    pub const LOST_MEMORY: u32 = 4;
}

/// Values of [`crate::pages::HostPage::form`].
pub mod form {
    /// The guest runs in a virtual machine: the doorbell is a port.
    pub const VIRTUAL_MACHINE: u32 = 0;
    /// The guest runs in a process: the doorbell is a call of the runtime.
    pub const PROCESS: u32 = 1;
}

const _: () = assert!(
    size_of::<ProcessPage>() == 32 + 2 * 18 * 8 + 24 + 40 + 16,
    "ProcessPage changed: raise ABI_VERSION"
);
const _: () = assert!(size_of::<ProcessPage>() as u64 <= PAGE_BYTES);
const _: () = assert!(FILTER + FILTER_BYTES_MAX <= EXTENDED_STATE);
const _: () = assert!(EXTENDED_STATE + EXTENDED_STATE_BYTES <= SIGNAL_STACK);
const _: () = assert!(SIGNAL_STACK + SIGNAL_STACK_BYTES <= MISSING);
const _: () = assert!(RAM_ALIAS_BASE >= MONITOR_BASE + AREA_BYTES);
const _: () =
    assert!(SNAPSHOT_BASE >= RAM_ALIAS_BASE + RAM_BYTES_MAX && SNAPSHOT_BASE + RAM_BYTES_MAX <= WINDOW_BASE);
