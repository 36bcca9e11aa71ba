//! The shared pages.
//!
//! The host reads the guest page only while the virtual processor stands still, copies each value before use and
//! believes none. The guest may scribble over all of them; what it spoils is its own.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::layout::{PAGE_BYTES, STREAM_SLOTS, TEXT_PAGES_MAX};

/// First word of a boot page: "SPORE\0" and a format byte.
pub const BOOT_MAGIC: u64 = u64::from_le_bytes(*b"SPORE\0\0\x01");

/// Written by the host before the first instruction, and again after a restore.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct BootPage {
    /// [`BOOT_MAGIC`].
    pub magic: u64,
    /// [`crate::ABI_VERSION`].
    pub abi_version: u32,
    /// TCP port on which the function is expected to listen.
    pub port: u32,
    /// End of RAM, in bytes.
    pub ram_bytes: u64,
    /// Limit of the function's memory, in bytes.
    pub memory_limit_bytes: u64,
    /// Length of the root module, which starts at `layout::MODULES_GPA`, in bytes: an EROFS image with
    /// [`boot_flags::ROOT_IS_EROFS`], the program's file without.
    pub root_bytes: u64,
    /// First free byte of the page-table pool (guest-physical); what lies before holds the initial tables.
    pub page_tables_used_gpa: u64,
    /// Guest-physical address of the top-level page table.
    pub top_table_gpa: u64,
    /// Number of strings in the start block that belong to `argv`.
    pub argument_count: u32,
    /// Number of strings after these that belong to `envp`.
    pub environment_count: u32,
    /// Length of the start block, in bytes: arguments, environment, the working directory as the last string, further
    /// groups, and the secrets.
    pub start_block_bytes: u32,
    /// Bits of [`boot_flags`].
    pub flags: u32,
    /// Length of the secrets at the end of the start block, in bytes. Each is the length of its name and that of its value
    /// (two little-endian 32-bit numbers), the name, and the value.
    pub secrets_bytes: u32,
    /// Number of the user that the program runs as.
    pub user: u32,
    /// Number of its group.
    pub group: u32,
    /// How many further groups it has, at most [`MORE_GROUPS_MAX`]: little-endian 32-bit numbers in the start block, before the
    /// secrets.
    pub more_groups_count: u32,
    /// Extended state components that the processor saves with `xsave` (the value of XCR0).
    pub extended_state_mask: u64,
    /// Bytes that `xsave` writes for these components.
    pub extended_state_bytes: u64,
    /// Fresh randomness for this instance.
    pub seed: [u8; 32],
}

/// Most further groups of a program.
pub const MORE_GROUPS_MAX: usize = 1024;

/// Bits of [`BootPage::flags`].
pub mod boot_flags {
    /// Report each missing system call once in the function's log.
    pub const REPORT_MISSING_CALLS: u32 = 1;
    /// The root module is an EROFS image; `argv[0]` names the program in it, searched in PATH if it has no slash.
    pub const ROOT_IS_EROFS: u32 = 1 << 1;
    /// Call sites stay as they are: every system call traps.
    pub const NO_REWRITING: u32 = 1 << 2;
    /// Connections to loopback addresses on which nobody listens in the guest go to the host.
    pub const LOOPBACK_EGRESS: u32 = 1 << 8;
    /// The instance is to become a snapshot when its program waits for its first connection: before that, it makes its
    /// [`super::TextOffer`]s.
    pub const BECOMES_SNAPSHOT: u32 = 1 << 9;
    /// The program asks for its invocations: the library OS serves it the Runtime API ([`crate::runtime_api`]), and streams of
    /// the host's go there instead of to whoever listens.
    pub const RUNTIME_API: u32 = 1 << 10;
    /// The program is a command ([`crate::command`]): it is made ready, and started when the first stream comes.
    pub const COMMAND: u32 = 1 << 11;
    /// What a command writes to its standard error goes where its standard output does, and not into the log.
    pub const COMBINED_OUTPUT: u32 = 1 << 12;
}

/// What the host says of a stream slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct HostSlot {
    /// Grows by one each time that the slot is given to a new stream; 0 before the first.
    pub generation: u32,
    /// Bits of [`host_slot_flags`].
    pub flags: u32,
    /// Bytes that the host has put into the receive ring.
    pub receive_tail: u32,
    /// Bytes that the host has taken from the transmit ring.
    pub transmit_head: u32,
}

/// Bits of [`HostSlot::flags`].
pub mod host_slot_flags {
    /// The slot carries a stream.
    pub const OPEN: u32 = 1;
    /// The peer will send no more; what is in the receive ring is the rest.
    pub const END_OF_STREAM: u32 = 2;
    /// The peer is gone: nothing that is sent reaches it.
    pub const RESET: u32 = 4;
    /// The guest has asked for the stream: an [`super::EgressAnswer`] names the slot.
    pub const EGRESS: u32 = 8;
}

/// Number of connections to the outside that can be asked for at a time.
pub const EGRESS_PLACES: usize = 32;

/// The guest asks for a connection to the outside; one of [`EGRESS_PLACES`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct EgressRequest {
    /// Another one than before when the place holds a new request; 0 before the first. The other fields stay as they
    /// are until it is answered.
    pub sequence: u32,
    /// One of [`egress_kind`].
    pub kind: u16,
    /// Port of the far end; unused for [`egress_kind::DATAGRAMS`].
    pub port: u16,
    /// Address of the far end in its IPv6 form (IPv4 mapped); unused for [`egress_kind::DATAGRAMS`].
    pub address: [u8; 16],
}

/// Values of [`EgressRequest::kind`].
pub mod egress_kind {
    /// A TCP connection: the slot carries its bytes.
    pub const STREAM: u16 = 1;
    /// UDP: the slot carries datagrams to and from anywhere, each with a header of [`crate::ring::DatagramHeader`].
    pub const DATAGRAMS: u16 = 2;
}

/// The host's answer to the request at the same place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct EgressAnswer {
    /// The request's.
    pub sequence: u32,
    /// An error number of Linux, or [`EGRESS_SLOT`] plus the number of the slot that carries the connection.
    pub result: u32,
}

/// See [`EgressAnswer::result`].
pub const EGRESS_SLOT: u32 = 0x1_0000;

/// What the guest says of a stream slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct GuestSlot {
    /// The generation that the other fields speak of.
    pub generation: u32,
    /// Bits of [`guest_slot_flags`].
    pub flags: u32,
    /// Bytes that the guest has taken from the receive ring.
    pub receive_head: u32,
    /// Bytes that the guest has put into the transmit ring.
    pub transmit_tail: u32,
}

/// Bits of [`GuestSlot::flags`].
pub mod guest_slot_flags {
    /// The guest will send no more: after the transmit ring is empty the host passes the end of stream on.
    pub const SHUT_WRITE: u32 = 1;
    /// The guest is done with the stream: after the transmit ring is empty the slot is free.
    pub const CLOSED: u32 = 2;
}

/// Registers of interrupted code, in the order of the hardware's numbers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Registers {
    /// rax, rcx, rdx, rbx, rsp, rbp, rsi, rdi, r8 … r15.
    pub general: [u64; 16],
    /// Instruction pointer.
    pub rip: u64,
    /// Flags.
    pub rflags: u64,
}

/// An event that the host delivers to the library OS at its upcall address.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Upcall {
    /// One of [`upcall_kind`].
    pub kind: u32,
    /// Exception vector, for [`upcall_kind::FAULT`].
    pub vector: u32,
    /// Error code that the processor pushed, or 0.
    pub error_code: u64,
    /// Address that faulted (CR2), for page faults.
    pub fault_address: u64,
    /// The interrupted code's registers.
    pub registers: Registers,
}

/// Values of [`Upcall::kind`].
pub mod upcall_kind {
    /// The program raised an exception.
    pub const FAULT: u32 = 1;
    /// Time slice over, or something came in.
    pub const KICK: u32 = 2;
}

/// Relates the time-stamp counter to the host's clocks: `time = base + ((tsc - tsc_base) * multiplier) >> 32`.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Clock {
    /// Time-stamp counter, as the guest reads it, at the moment of the two bases.
    pub tsc_base: u64,
    /// CLOCK_MONOTONIC then, in nanoseconds.
    pub monotonic_base_ns: u64,
    /// CLOCK_REALTIME then, in nanoseconds since 1970.
    pub realtime_base_ns: u64,
    /// Nanoseconds for one tick, times 2^32.
    pub multiplier: u64,
    /// Grows with every change of the fields above.
    pub sequence: u64,
}

/// Written by the host while the processor stands still.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct HostPage {
    /// Clocks.
    pub clock: Clock,
    /// Bytes that the host has taken from the log ring.
    pub log_head: u32,
    /// One of [`crate::process::form`].
    pub form: u32,
    /// Slots that the host has changed since the guest last looked, one bit each; the guest clears it.
    pub changed_slots: u64,
    /// Places whose request was answered since the guest last looked, one bit each; the guest clears it.
    pub answered_egress: u64,
    /// How often this memory was given to a new instance: 0 in one that was booted. Where it has grown the boot page
    /// holds a new seed, and whatever must be different in every instance is made anew.
    pub generation: u64,
    /// The event being delivered.
    pub upcall: Upcall,
    /// Answers to requests for connections to the outside.
    pub egress: [EgressAnswer; EGRESS_PLACES],
    /// Stream slots.
    pub slots: [HostSlot; STREAM_SLOTS],
}

/// Why the guest asks to end.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct ExitRecord {
    /// One of [`exit_kind`].
    pub kind: u32,
    /// Exit status or signal number.
    pub code: u32,
    /// Length of `message`, in bytes.
    pub message_bytes: u32,
    /// Explicit padding.
    pub reserved: u32,
    /// A line for the log (a panic message of the library OS).
    pub message: [u8; 240],
}

/// Values of [`ExitRecord::kind`].
pub mod exit_kind {
    /// The program exited; `code` is its status.
    pub const EXITED: u32 = 1;
    /// A signal ended the program; `code` is its number. If it was a fault, the upcall in the host page tells which.
    pub const SIGNALLED: u32 = 2;
    /// The same, and the upcall in the host page is the fault.
    pub const FAULTED: u32 = 3;
    /// The program cannot be loaded; `message` says why.
    pub const BAD_PROGRAM: u32 = 4;
    /// The library OS itself failed; `message` says how.
    pub const LIBRARY_OS_FAILED: u32 = 5;
    /// The function's memory was used up.
    pub const OUT_OF_MEMORY: u32 = 6;
    /// The program was asked to make itself ready for a snapshot, or for being a clone, and could not; `message` says how.
    pub const HOOK_FAILED: u32 = 7;
    /// The program has said by the Runtime API that it cannot start; `message` says why.
    pub const INITIALIZATION_FAILED: u32 = 8;
}

/// A large page's worth of program that is mapped by small pages, all there and none of them writable. In a snapshot the
/// host may map one large page with the same contents in place of the table that maps them, at
/// [`crate::layout::TEXT_GPA`] or above. The table stays as it is, and the guest puts it back when it needs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct TextOffer {
    /// Guest-physical address of the entry that leads to the table.
    pub entry_gpa: u64,
    /// Guest-physical address of the table.
    pub table_gpa: u64,
}

/// Written by the guest.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct GuestPage {
    /// CLOCK_MONOTONIC at which a [`crate::doorbell::WAIT`] ends, in nanoseconds; `u64::MAX` if never.
    pub wait_deadline_ns: u64,
    /// Guest-physical address of the top-level page table for [`crate::doorbell::SWITCH_TABLES`].
    pub top_table_gpa: u64,
    /// 1 when the function's port is listened on.
    pub listening: u32,
    /// 1 when kicks are to be delivered as upcalls (something else could run).
    pub wants_kicks: u32,
    /// Bytes that the guest has put into the log ring.
    pub log_tail: u32,
    /// Number of requests for memory that were refused.
    pub refused_allocations: u32,
    /// Number of system calls that were made and are not served.
    pub missing_calls: u32,
    /// How many of `text_offers` there are.
    pub text_offer_count: u32,
    /// The exit record for [`crate::doorbell::EXIT`].
    pub exit: ExitRecord,
    /// Requests for connections to the outside.
    pub egress: [EgressRequest; EGRESS_PLACES],
    /// Stream slots.
    pub slots: [GuestSlot; STREAM_SLOTS],
    /// Time-stamp counter when the program first read bytes of a stream that the host has opened; 0 before.
    pub first_read_time_stamp: u64,
    /// What the host may map by large pages in a snapshot.
    pub text_offers: [TextOffer; TEXT_PAGES_MAX],
}

/// Addresses within the image that the monitor needs; at the very start of the image.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct ImageHeader {
    /// [`IMAGE_MAGIC`].
    pub magic: u64,
    /// [`crate::ABI_VERSION`].
    pub abi_version: u64,
    /// First instruction, entered at CPL 3 without a stack.
    pub entry: u64,
    /// First instruction in the process form, entered on the stack of the signal handlers.
    pub process_entry: u64,
    /// Where `syscall` lands, at CPL 3 or CPL 0.
    pub system_call_entry: u64,
    /// Where upcalls are delivered, at CPL 3.
    pub upcall_entry: u64,
    /// First instruction of the routine that copies from and to the program's memory.
    pub user_copy_start: u64,
    /// End of that routine.
    pub user_copy_end: u64,
    /// Where it goes on after a page fault.
    pub user_copy_failed: u64,
    /// End of its code and constants.
    pub end: u64,
    /// End of its data, zero-initialised data included.
    pub data_end: u64,
}

/// First word of an image.
pub const IMAGE_MAGIC: u64 = u64::from_le_bytes(*b"SPOREIMG");

const _: () = assert!(
    size_of::<BootPage>() == 136,
    "BootPage changed: raise ABI_VERSION"
);
const _: () = assert!(size_of::<HostSlot>() == 16 && size_of::<GuestSlot>() == 16);
const _: () = assert!(
    size_of::<Upcall>() == 24 + 18 * 8,
    "Upcall changed: raise ABI_VERSION"
);
const _: () = assert!(
    size_of::<HostPage>() == 240 + 8 * EGRESS_PLACES + 16 * STREAM_SLOTS,
    "HostPage changed: raise ABI_VERSION"
);
const _: () = assert!(
    size_of::<GuestPage>() == 304 + 24 * EGRESS_PLACES + 16 * STREAM_SLOTS + 16 * TEXT_PAGES_MAX,
    "GuestPage changed: raise ABI_VERSION"
);
const _: () = assert!(
    size_of::<ImageHeader>() == 88,
    "ImageHeader changed: raise ABI_VERSION"
);
const _: () =
    assert!(size_of::<HostPage>() as u64 <= PAGE_BYTES && size_of::<GuestPage>() as u64 <= 2 * PAGE_BYTES);
