//! Messages between the daemon and a monitor process.
//!
//! Standard input of the monitor is a `SOCK_SEQPACKET` socket: one message a packet, in postcard's encoding, with
//! descriptors attached where the message says so. Standard output is another one: a byte for the origin, then text.
//!
//! ```text
//!   daemon                                monitor
//!     Probe                      ──>
//!                                <──      Jail                  the only answer; then the process exits
//!
//!     Prepare                    ──>                            where instances are made ahead
//!     Start + root file          ──>                            and the memory file, if it says so
//!                                <──      Ready                 (or Captured, or Ended; nothing from a copy)
//!     Open + stream socket       ──>                            as often as wanted
//!                                <──      Answered              once, after the first bytes of the first answer
//!                                <──      Connect               the guest wants to connect out
//!     Connected + stream socket  ──>                            or an error, for each of them
//!                                <──      Finished              of a command: the program has ended, the instance has not
//!     Reset                      ──>                            of a copy that was asked to be one that can be reset
//!                                <──      Reset                 it is what it was when it was started; or Ended
//!     Stop                       ──>
//!                                <──      Read                  how far the program came with what it was sent
//!                                <──      Ended                 the last message; then the process exits
//! ```
//!
//! The end of the control socket (the daemon is gone) ends the monitor at once.

use std::fmt;

use serde::{Deserialize, Serialize};
use spore_abi::pages::Registers;

use crate::features::Features;
use crate::jail::{JailReport, Layer};
use crate::processor::Processor;
/// The first byte of a packet on the log socket.
pub use spore_abi::ring::{DATAGRAM_BYTES_MAX, DATAGRAM_HEADER_BYTES, DatagramHeader, LogOrigin};

/// Largest packet, in bytes.
pub const PACKET_BYTES_MAX: usize = 300 * 1024;

/// What the daemon asks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// Go to jail and say what became of each layer.
    Probe {
        /// As in [`JailRequest::user`].
        user: Option<u32>,
    },
    /// Make an empty virtual machine or guest process, and give up what rights its guest will not need. Before
    /// [`Request::Start`], which then can ask for nothing but that form. Attached may be [`crate::text_file`].
    Prepare(Preparation),
    /// Make the guest and run the program. Attached is the file of its root, with a second one where that is
    /// [`RootKind::LayeredFileSystem`]; another one where [`StartRequest::memory`] is not [`MemorySource::Fresh`]; and one
    /// more where [`Snapshot::text_bytes`] is not 0.
    Start {
        /// What to run.
        instance: Box<StartRequest>,
        /// How to be confined.
        jail: JailRequest,
    },
    /// Connect the attached stream socket with the function's port.
    Open,
    /// The answer to [`Event::Connect`] of this place: the attached stream socket, or an error number of Linux.
    Connected {
        /// The request's.
        place: u32,
        /// 0 if a socket is attached.
        error: u16,
    },
    /// Make the instance what it was when it was started, if it is a copy of a snapshot that was started so
    /// ([`StartRequest::is_reset`]). The answer is [`Event::Reset`], or [`Event::Ended`]; [`Request::Open`] only after that.
    Reset,
    /// End the instance.
    Stop(StopReason),
    /// Copy yourself; only to one that was started as [`crate::process::Spawn::start_zygote`] has it. Attached are control and
    /// log socket of the copy, the folder of a cgroup if it is born within one, and files that it writes `0` to, which
    /// makes it enter other cgroups. The answer is [`Copied`].
    Copy {
        /// As [`crate::process::Spawn::title`] has it.
        title: String,
        /// Whether the folder of a cgroup (version 2) is attached.
        is_born_within: bool,
    },
}

/// What a process that is to be copied says before it is asked for anything.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Copyable {
    /// The layers that all copies have from it.
    pub jail: JailReport,
    /// Whether it has opened KVM, which its copies cannot do any more.
    pub has_kvm: bool,
}

/// The answer to [`Request::Copy`]: the number of the new process, as the asked one sees it, or the error number of Linux that
/// was in the way.
pub type Copied = Result<u32, i32>;

/// Most descriptors that a packet has attached.
pub const ATTACHMENTS_MAX: usize = 8;

/// What is known of an instance before it is known which one it will be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Preparation {
    /// What is to be around the guest.
    pub isolation: Isolation,
    /// Its likely limit of memory, in bytes. With another one the virtual machine is made again.
    pub memory_bytes: u64,
    /// As in [`JailRequest::user`].
    pub user: Option<u32>,
    /// What the daemon knows of the processor that virtual machines have; without it the monitor asks KVM.
    pub processor: Option<Processor>,
    /// What a virtual machine gets ahead.
    pub stock: Stock,
}

/// What a virtual machine has before it is known whose it will be, of what a copy of a snapshot needs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stock {
    /// Stretches of its memory (start and length, in bytes; whole pages, in order) that its guest will likely need, as
    /// [`Snapshot::written`] has it: the host finds pages for them now. Of more than [`STOCK_BYTES_MAX`] in all, the first.
    pub pages: Vec<(u64, u64)>,
    /// Length of the root's files, in bytes, for which there is a place then; 0 for none.
    pub program_bytes: u64,
    /// The same of the file of [`Snapshot::text_bytes`].
    pub text_bytes: u64,
}

impl Stock {
    /// Whether there is nothing in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.pages.is_empty() && self.program_bytes == 0 && self.text_bytes == 0
    }

    /// Memory that whoever has it takes for it, in bytes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        let pages = self.pages.iter().map(|&(_, length)| length);
        pages.fold(0, u64::saturating_add).min(STOCK_BYTES_MAX)
    }
}

/// Memory that a virtual machine has ahead at most, before it is known whose it will be, in bytes.
pub const STOCK_BYTES_MAX: u64 = 8 << 20;

/// How a monitor process is to be confined.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct JailRequest {
    /// Title of the process.
    pub title: String,
    /// User (and group) that it becomes, where the daemon is root; the same as was prepared.
    pub user: Option<u32>,
    /// Layers without which it must not run: those that a probe has found here.
    pub required: Vec<Layer>,
}

/// What to run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StartRequest {
    /// `argv`.
    pub arguments: Vec<String>,
    /// `envp`, each entry `KEY=VALUE`.
    pub environment: Vec<String>,
    /// Directory in which the program starts; `/` unless the image says otherwise.
    pub working_directory: String,
    /// Who the program runs as in its guest.
    pub user: User,
    /// What the program finds as read-only files in `/var/openfaas/secrets`.
    pub secrets: Vec<Secret>,
    /// TCP port on which the function listens.
    pub port: u16,
    /// If the program is no server but a command: it is started when the first stream comes, which is its standard input
    /// and output and begins with its variables (`spore_abi::command`).
    pub command: Option<Command>,
    /// Limit of the function's memory, in bytes.
    pub memory_bytes: u64,
    /// What the attached file is.
    pub root: RootKind,
    /// Where its memory comes from.
    pub memory: MemorySource,
    /// Whether call sites are rewritten after their first trap.
    pub rewrites_calls: bool,
    /// Loopback addresses on which nobody listens in the guest are asked for like any others.
    pub reaches_host_loopback: bool,
    /// Whether the program asks for its invocations by the Runtime API, which the guest then serves to it.
    pub serves_runtime_api: bool,
    /// Whether the log has a rate limit. Without one the program waits for whoever reads.
    pub limits_log: bool,
    /// Whether the kernel may merge pages of its memory with equal ones of others (ksm). Only that of a virtual machine.
    pub merges_pages: bool,
    /// What is to be around the guest. The monitor takes this one or fails.
    pub isolation: IsolationChoice,
    /// Whether a copy of a snapshot is to be one that can be reset.
    pub is_reset: bool,
    /// Whether a guest process may use Syscall User Dispatch where the kernel has it; else the seccomp list catches calls.
    pub uses_dispatch: bool,
}

/// A user of a guest, which means nothing outside of it. The superuser by default.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    /// Its number.
    pub id: u32,
    /// The number of its group.
    pub group: u32,
    /// Those of its further groups, at most [`spore_abi::pages::MORE_GROUPS_MAX`].
    pub more_groups: Vec<u32>,
}

/// A file that only the program is to know.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Secret {
    /// Its name, without a slash.
    pub name: String,
    /// Its contents.
    pub value: Vec<u8>,
}

/// Without the value, which no log is to show.
impl std::fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Secret")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// How a command is run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Command {
    /// Whether its standard error goes where its standard output does, and not into the log.
    pub combines_output: bool,
}

/// Where the memory of an instance comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum MemorySource {
    /// It is zeroed memory, and the program is booted.
    Fresh,
    /// The program is booted within the attached file, which is empty. When it is ready the instance ends with
    /// [`Event::Captured`], and the file is a snapshot; unless the program has done what no snapshot holds.
    Captured,
    /// It is a private copy of the attached file, a snapshot, and goes on from there.
    Cloned(Box<Snapshot>),
}

/// What a snapshot has besides the memory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    /// The stretches of the file that hold something (start and length, in bytes), in order; the rest is zero.
    pub extents: Vec<(u64, u64)>,
    /// The registers.
    pub processor: ProcessorState,
    /// Length of the file of its text, in bytes: whole large pages, which the guest finds read-only at
    /// [`spore_abi::layout::TEXT_GPA`]. 0 if there is none.
    pub text_bytes: u64,
    /// The stretches that copies need while they give their first answer: those that they write to, and in a virtual machine those
    /// that they read too. Where that is not known yet, the copy says so with [`Event::Written`].
    pub written: Option<Vec<(u64, u64)>>,
}

/// Most stretches of a snapshot: each is a mapping of its own in every clone.
pub const SNAPSHOT_EXTENTS_MAX: usize = 256;

/// The registers of a guest that waits, at CPL 3. What else a processor has is the same in every guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessorState {
    /// rax, rcx, rdx, rbx, rsp, rbp, rsi, rdi, r8 … r15.
    pub general: [u64; 16],
    /// Instruction pointer.
    pub instruction_pointer: u64,
    /// Flags.
    pub flags: u64,
    /// Base of FS.
    pub fs_base: u64,
    /// Base of GS.
    pub gs_base: u64,
    /// Guest-physical address of the top-level page table.
    pub top_table_gpa: u64,
    /// The extended state, as `xsave` writes it (Intel SDM volume 1, 13.4), in 32-bit words.
    pub extended_state: Vec<u32>,
    /// What the program may have found of the processor, and cannot do without any more.
    pub features: Features,
}

impl ProcessorState {
    /// The general registers, the instruction pointer and the flags.
    pub(crate) fn registers(&self) -> Registers {
        Registers {
            general: self.general,
            rip: self.instruction_pointer,
            rflags: self.flags,
        }
    }
}

/// What is around a guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Isolation {
    /// A virtual machine.
    VirtualMachine,
    /// A process of the host with a short seccomp list: the host's kernel is shared.
    Process,
}

impl fmt::Display for Isolation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::VirtualMachine => "vm",
            Self::Process => "process",
        })
    }
}

/// What is asked to be around a guest.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum IsolationChoice {
    /// A virtual machine, or a process where KVM cannot be used.
    #[default]
    Automatic,
    /// This and nothing else.
    Only(Isolation),
}

/// What an instance finds as its root.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum RootKind {
    /// The file is the program itself.
    Program,
    /// The file is an EROFS image in which `argv[0]` names the program.
    FileSystem,
    /// The two files, base and head, make such an image ([`crate::RootFiles`]).
    LayeredFileSystem,
}

/// Why the daemon ends an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum StopReason {
    /// It is not needed any more.
    NotNeeded,
    /// It ran past a time limit: the report says where the program was.
    TimedOut,
}

/// What the monitor says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Event {
    /// The program waits, and listens on the function's port. A copy of a snapshot was ready before, and does not say so.
    Ready,
    /// The first bytes of the first answer have left; this is how the instance came to that.
    Answered(Milestones),
    /// The program is ready, its memory is a snapshot now, and the instance ends.
    Captured(Box<Captured>),
    /// The program is ready, but no snapshot can be made of it, and why; one line. It goes on.
    NotCaptured(String),
    /// A copy of a snapshot has given its first answer, and has needed these stretches of its memory (start and
    /// length, in bytes).
    Written(Vec<(u64, u64)>),
    /// The guest wants to connect to the outside. It waits for [`Request::Connected`].
    Connect(Connect),
    /// The command has ended, like this, and all that it wrote has left. The instance waits for [`Request::Reset`] or
    /// [`Request::Stop`].
    Finished(End),
    /// The answer to [`Request::Reset`]: what is opened from now on is another invocation's.
    Reset,
    /// The guest will not run again; this is how much of its streams the program had read.
    Read {
        /// How many [`Request::Open`] have arrived.
        streams: u32,
        /// Bytes that the program had read of the newest of their streams; [`u64::MAX`] if it had closed it.
        newest_bytes: u64,
    },
    /// What became of each layer of the jail.
    Jail(JailReport),
    /// The instance has ended.
    Ended(End),
}

/// What a monitor knows of a snapshot that it has made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Captured {
    /// The registers.
    pub processor: ProcessorState,
    /// What the guest has offered to be mapped by large pages: pairs of [`spore_abi::pages::TextOffer::entry_gpa`] and
    /// [`spore_abi::pages::TextOffer::table_gpa`], as it says.
    pub text_offers: Vec<(u64, u64)>,
}

/// When an instance came how far: CLOCK_MONOTONIC, in nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Milestones {
    /// Its memory was in place.
    pub mapped_ns: u64,
    /// Its first instruction was next.
    pub first_instruction_ns: u64,
    /// The program had read bytes of a request. None if it has answered without.
    pub first_read_ns: Option<u64>,
}

/// A connection that the guest asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Connect {
    /// Names the request in the answer.
    pub place: u32,
    /// What is asked for.
    pub kind: ConnectKind,
    /// Address of the far end in its IPv6 form (IPv4 mapped).
    pub address: [u8; 16],
    /// Port of the far end.
    pub port: u16,
}

/// What the guest asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ConnectKind {
    /// A TCP connection.
    Stream,
    /// A way for datagrams, each with a header ([`spore_abi::ring::DatagramHeader`]).
    Datagrams,
}

/// How an instance ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct End {
    /// What ended it.
    pub cause: Cause,
    /// Lines for the function's log.
    pub details: Vec<String>,
}

/// What ended an instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Cause {
    /// [`Request::Stop`].
    Stopped,
    /// The program exited with this status.
    Exited(u8),
    /// A fault or a signal ended the program.
    Crashed {
        /// Number of the signal; none if the guest has damaged its machine rather than raised one.
        signal: Option<u8>,
        /// One line: what happened and where.
        summary: String,
    },
    /// The function's memory was used up.
    OutOfMemory,
    /// Somebody killed the guest's process, or the kernel did for want of memory; one line.
    Killed(String),
    /// The program cannot be run; one line.
    BadProgram(String),
    /// The library OS or the monitor failed; one line.
    Failed(String),
}
