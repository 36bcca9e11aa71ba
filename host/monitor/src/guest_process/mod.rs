//! The process form: the guest runs in a child of the monitor, for machines without usable KVM.
//!
//! ```text
//!   monitor                                   guest process (a copy of the monitor, then nothing of it)
//!     process page: a memory file      ────>  the same file at the layout's address
//!     clone ───────────────────────────────>  namespaces, no capabilities            (child.rs)
//!                                      <────  report: which layers are active
//!     (empty: a *shell* waits here)           (waits)
//!     memory, from a snapshot or not
//!     contents: RAM, root module ──────────>  maps them, jumps into the image
//!                                             unmaps the rest, signal handlers,      (guest/machine: process)
//!                                             Syscall User Dispatch, seccomp
//!     run: turn ───────────────────────────>  runs
//!                                      <────  stop: doorbell, tick, exception
//! ```
//!
//! The guest's runtime serves faults and translations without the monitor. Whatever the process page says is the guest's
//! word: it is copied, and believed as little as its memory. Unlike a virtual processor, a hostile guest can pretend to
//! stand still and run on; it finds nothing that is read twice.

mod child;
pub(crate) mod clock;
mod empty;
mod end;
mod files;
pub(crate) mod filter;
mod layers;
mod missing;
mod snapshot;

use std::borrow::Cow;
use std::io;
use std::mem::offset_of;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType, recv, socketpair};
use spore_abi::pages::{Registers, Upcall, upcall_kind};
use spore_abi::process::{self as abi, ProcessPage, stop, turn};

use crate::features::Features;
use crate::machine::{Exit, ExtendedState};
use crate::memory::{OutOfRange, Region};
pub(crate) use clock::state_leaf;
pub(crate) use empty::{EmptyProcess, Load};
pub(crate) use end::{ProcessEnd, be_interrupted};
pub(crate) use files::empty_program;
pub(crate) use layers::Layers;
use missing::Missing;

/// How long the guest may run before the monitor looks after the rings.
const TICK: Duration = Duration::from_millis(10);
/// The feature bit (AT_HWCAP2) that the kernel sets where programs may use the FSGSBASE instructions: Linux 5.9.
const HWCAP2_FSGSBASE: u64 = 1 << 1;

/// Why a guest process could not be made or run.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ProcessError {
    #[error("the process form needs Linux 5.9 or later and a processor with the FSGSBASE instructions")]
    NoSegmentBases,
    #[error("the process form cannot {what}")]
    Host {
        what: &'static str,
        #[source]
        source: io::Error,
    },
    #[error("the guest's process has ended before its start")]
    NoReport(#[source] ProcessEnd),
    #[error("the guest's process cannot {}", .step.what())]
    Child {
        step: child::Step,
        #[source]
        source: io::Error,
    },
    #[error("the seccomp list cannot be made")]
    Filter(#[from] seccompiler::BackendError),
    #[error(transparent)]
    Memory(#[from] OutOfRange),
    #[error("the snapshot cannot be used: {0}")]
    Snapshot(String),
}

fn host_error<E: Into<io::Error>>(what: &'static str) -> impl Fn(E) -> ProcessError {
    move |source| ProcessError::Host {
        what,
        source: source.into(),
    }
}

/// A guest in a process of its own. Dropping it ends it.
pub(crate) struct GuestProcess {
    child: Child,
    ram: Region,
    area: Region,
    program: Region,
    /// What a copy of a snapshot did not have when it began.
    missing: Option<Missing>,
    /// None until it has had its first turn.
    tick_at: Option<Instant>,
    extended_state: ExtendedState,
    features: Features,
    page_tables_used_gpa: u64,
    time_stamp_khz: u64,
    layers: Layers,
}

/// The child. Dropping it ends it.
struct Child {
    id: libc::pid_t,
    /// What can be polled for its end, where the kernel gives it.
    watch: Option<OwnedFd>,
}

macro_rules! field {
    ($field:ident) => {
        offset_of!(ProcessPage, $field) as u64
    };
}

impl GuestProcess {
    /// What confines the guest beside the seccomp list.
    pub(crate) fn layers(&self) -> Layers {
        self.layers
    }

    /// The number of its process.
    pub(crate) fn id(&self) -> i32 {
        self.child.id
    }

    /// What can be polled for its end.
    pub(crate) fn watch(&self) -> Option<BorrowedFd<'_>> {
        self.child.watch.as_ref().map(OwnedFd::as_fd)
    }

    /// How it has ended, if it has.
    pub(crate) fn end(&self) -> Option<ProcessEnd> {
        ProcessEnd::of(self.child.id)
    }

    /// Memory that is mapped for it in the monitor, in bytes.
    pub(crate) fn mapped_bytes(&self) -> u64 {
        self.ram.length() + self.area.length() + self.program.length()
    }

    pub(crate) fn ram(&self) -> &Region {
        &self.ram
    }

    pub(crate) fn program(&self) -> Cow<'_, [u8]> {
        self.program.contents()
    }

    pub(crate) fn extended_state(&self) -> ExtendedState {
        self.extended_state
    }

    pub(crate) fn page_tables_used_gpa(&self) -> u64 {
        self.page_tables_used_gpa
    }

    pub(crate) fn time_stamp_khz(&self) -> u64 {
        self.time_stamp_khz
    }

    /// Runs the guest until it stops. A tick that is due is given before the guest runs again.
    pub(crate) fn run(&mut self) -> Exit {
        let now = Instant::now();
        let tick_at = *self.tick_at.get_or_insert(now + TICK);
        if now >= tick_at {
            self.forget_tick();
            return Exit::Interrupted;
        }
        self.turn().store(turn::GUEST, Ordering::Release);
        futex(self.turn(), libc::FUTEX_WAKE, 1, None);
        loop {
            match self.turn().load(Ordering::Acquire) {
                turn::MONITOR => break,
                turn::GUEST => {}
                other => return Exit::Unexpected(format!("it has made it the turn of nobody ({other:#x})")),
            }
            let left = self.tick_at.map_or(Duration::ZERO, |tick_at| {
                tick_at.saturating_duration_since(Instant::now())
            });
            if !left.is_zero() {
                let is_interrupted = futex(self.turn(), libc::FUTEX_WAIT, turn::GUEST, Some(left));
                if is_interrupted && let Some(end) = self.end() {
                    return end.exit();
                }
                continue;
            }
            if let Some(end) = self.end() {
                return end.exit();
            }
            self.forget_tick();
            // SAFETY: the child is ours and was not waited for, so that the number is still its.
            unsafe { libc::kill(self.child.id, abi::TICK_SIGNAL) };
        }
        let [stop, request, vector] = match self.stop_words() {
            Ok(words) => words,
            Err(error) => return Exit::Unexpected(error.to_string()),
        };
        match stop {
            stop::DOORBELL => Exit::Doorbell(request),
            stop::TICK => {
                self.forget_tick();
                Exit::Interrupted
            }
            stop::EXCEPTION => Exit::Exception,
            stop::LOST_MEMORY => Exit::Unexpected(format!(
                "access to memory that the host cannot provide (exception {vector})"
            )),
            other => Exit::Unexpected(format!(
                "its process has stopped for no known reason ({other:#x})"
            )),
        }
    }

    fn stop_words(&self) -> Result<[u32; 3], OutOfRange> {
        Ok([
            self.area.read(field!(stop))?,
            self.area.read(field!(request))?,
            self.area.read(field!(vector))?,
        ])
    }

    /// The next tick comes in its full time.
    pub(crate) fn forget_tick(&mut self) {
        self.tick_at = Some(Instant::now() + TICK);
    }

    pub(crate) fn registers(&self) -> Result<Registers, ProcessError> {
        Ok(self.area.read(field!(registers))?)
    }

    pub(crate) fn set_registers(&self, registers: &Registers) -> Result<(), ProcessError> {
        Ok(self.area.write(field!(registers), *registers)?)
    }

    /// The exception of [`stop::EXCEPTION`].
    pub(crate) fn exception(&self) -> Result<Upcall, ProcessError> {
        Ok(Upcall {
            kind: upcall_kind::FAULT,
            vector: self.area.read(field!(vector))?,
            error_code: self.area.read(field!(error_code))?,
            fault_address: self.area.read(field!(fault_address))?,
            registers: self.registers()?,
        })
    }

    fn turn(&self) -> &AtomicU32 {
        // SAFETY: the page is at the start of the area, which is mapped, writable and page-aligned as long as `self`
        // lives. The guest accesses the word atomically, or spoils its own instance.
        unsafe { AtomicU32::from_ptr(self.area.host_address() as *mut u32) }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // SAFETY: the child is ours and was not waited for. It cannot refuse.
        unsafe {
            libc::kill(self.id, libc::SIGKILL);
            libc::waitpid(self.id, std::ptr::null_mut(), 0);
        }
    }
}

/// Waits at a word or wakes who waits there; whether a signal interrupted it. Whoever waits looks at the word again.
fn futex(word: &AtomicU32, operation: i32, value: u32, timeout: Option<Duration>) -> bool {
    let timeout = timeout.map(|timeout| libc::timespec {
        tv_sec: timeout.as_secs() as libc::time_t,
        tv_nsec: timeout.subsec_nanos().into(),
    });
    let timeout = timeout.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
    // SAFETY: the word is valid as long as the reference, the timeout until the call returns.
    let result = unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), operation, value, timeout, 0, 0) };
    result < 0 && io::Error::last_os_error().kind() == io::ErrorKind::Interrupted
}

/// Two connected sockets: for the monitor, and for its child.
fn gate() -> Result<(OwnedFd, OwnedFd), Errno> {
    socketpair(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC,
        None,
    )
}

/// Whether the monitor's own root is an empty one already.
fn is_root_empty() -> bool {
    std::fs::read_dir("/").is_ok_and(|mut entries| entries.next().is_none())
}

/// Whether the kernel has Syscall User Dispatch: Linux 5.11.
pub(crate) fn has_dispatch() -> bool {
    const PR_SET_SYSCALL_USER_DISPATCH: i32 = 59;
    // SAFETY: turns off for this thread what is off.
    unsafe { libc::prctl(PR_SET_SYSCALL_USER_DISPATCH, 0, 0, 0, 0) == 0 }
}

/// Waits for one packet.
fn receive(socket: &OwnedFd, packet: &mut [u8]) -> Result<usize, Errno> {
    let (length, _) = rustix::io::retry_on_intr(|| recv(socket, &mut *packet, RecvFlags::empty()))?;
    Ok(length)
}
