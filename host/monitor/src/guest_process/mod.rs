//! The process form: the guest runs in a child of the monitor, for machines without usable KVM.
//!
//! ```text
//!   monitor                                   guest process (a copy of the monitor, then nothing of it)
//!     RAM, process page: memory files  ────>  the same files at the layout's addresses
//!     clone ───────────────────────────────>  namespaces, no capabilities, maps  (child.rs)
//!                                             the layout
//!                                      <────  report: which layers are active
//!     go (first run) ──────────────────────>  jumps into the image
//!                                             unmaps the rest, signal handlers,  (guest/machine: process)
//!                                             Syscall User Dispatch, seccomp
//!     run: turn ───────────────────────────>  runs
//!                                      <────  stop: doorbell, tick, exception
//! ```
//!
//! The guest's runtime serves faults and translations without the monitor. Whatever the process page says is the guest's
//! word: it is copied, and believed as little as its memory. Unlike a virtual processor, a hostile guest can pretend to
//! stand still and run on; it finds nothing that is read twice.

mod child;
mod clock;
mod end;
pub(crate) mod filter;
mod layers;

use std::fs::File;
use std::io;
use std::mem::offset_of;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socketpair};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use spore_abi::layout::{IMAGE_GPA, LARGE_PAGE_BYTES, PAGE_BYTES, PAGE_TABLES_GPA};
use spore_abi::pages::{Registers, Upcall, upcall_kind};
use spore_abi::process::{self as abi, ProcessPage, stop, turn};
use zerocopy::FromZeros;

use crate::image::Image;
use crate::machine::{Exit, ExtendedState, extended_state};
use crate::memory::{OutOfRange, Region};
use crate::tables;
pub(crate) use end::{ProcessEnd, be_interrupted};
pub(crate) use layers::Layers;

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
}

fn host_error<E: Into<io::Error>>(what: &'static str) -> impl Fn(E) -> ProcessError {
    move |source| ProcessError::Host {
        what,
        source: source.into(),
    }
}

/// A guest in a process of its own. Dropping it ends it.
pub(crate) struct GuestProcess {
    child: libc::pid_t,
    /// What can be polled for the child's end, where the kernel gives it.
    watch: Option<OwnedFd>,
    ram: Region,
    area: Region,
    program: Region,
    /// Where the child waits for the word to go on, until it has got it.
    gate: Option<OwnedFd>,
    tick_at: Instant,
    extended_state: ExtendedState,
    page_tables_used_gpa: u64,
    time_stamp_khz: u64,
    layers: Layers,
}

macro_rules! field {
    ($field:ident) => {
        offset_of!(ProcessPage, $field) as u64
    };
}

impl GuestProcess {
    /// A guest with `ram_bytes` of memory (rounded up to large pages), with the image and a program of `program_bytes`,
    /// that waits for its first instruction. As `user` (and group) it is told from others; none keeps the own one, in a
    /// namespace where there is one. `uses_dispatch` says whether system calls are caught by Syscall User
    /// Dispatch, where the kernel has it.
    pub(crate) fn new(
        image: &Image,
        ram_bytes: u64,
        (program, program_bytes): (BorrowedFd<'_>, u64),
        user: Option<u32>,
        uses_dispatch: bool,
    ) -> Result<Self, ProcessError> {
        if crate::auxiliary_value(libc::AT_HWCAP2) & HWCAP2_FSGSBASE == 0 {
            return Err(ProcessError::NoSegmentBases);
        }
        let ram_bytes = ram_bytes.next_multiple_of(LARGE_PAGE_BYTES);
        let program_bytes = program_bytes.next_multiple_of(PAGE_BYTES);
        let no_memory = host_error::<io::Error>("get memory for the guest");
        let ram_file = memory_file(c"spore-guest", ram_bytes).map_err(&no_memory)?;
        let ram = Region::shared(ram_file.as_fd(), ram_bytes as usize).map_err(&no_memory)?;
        let area_file = memory_file(c"spore-process", abi::AREA_BYTES).map_err(&no_memory)?;
        let area = Region::shared(area_file.as_fd(), abi::AREA_BYTES as usize).map_err(&no_memory)?;
        let module = executable(program, program_bytes).map_err(host_error("map the program"))?;
        let program =
            Region::file(module.as_fd(), program_bytes as usize).map_err(host_error("map the program"))?;

        image.write_text(&ram)?;
        image.write_data(&ram)?;
        let image_range = IMAGE_GPA..IMAGE_GPA + LARGE_PAGE_BYTES;
        let page_tables_used_gpa = tables::fill_guest_tables(&ram, image_range, program_bytes)?;
        let extended_state = extended_state(clock::state_leaf);
        let filter = filter::program()?;
        area.write_bytes(abi::FILTER - abi::PROCESS_PAGE, filter::bytes(&filter))?;
        let page = ProcessPage {
            turn: turn::GUEST,
            uses_dispatch: u32::from(uses_dispatch && has_dispatch()),
            filter_length: filter.len() as u32,
            top_table_gpa: PAGE_TABLES_GPA,
            extended_state_mask: extended_state.mask,
            ..ProcessPage::new_zeroed()
        };
        area.write(0, page)?;

        let plan = child::Plan {
            ram: ram_file.as_fd(),
            ram_bytes,
            area: area_file.as_fd(),
            module: module.as_fd(),
            module_bytes: program_bytes,
            entry: image.header.process_entry,
            sequence: child::Sequence::of_this_thread(),
            user,
            has_empty_root: is_root_empty(),
        };
        let (gate, childs_gate) = gate().map_err(host_error("make a socket"))?;
        let child = child::start(&plan, &gate, &childs_gate).map_err(host_error("make a process"))?;
        drop(childs_gate);
        let mut this = Self {
            child,
            // Made while the child cannot have been waited for, so that the number is its. Without, its end is seen when
            // it should run.
            watch: Pid::from_raw(child).and_then(|child| pidfd_open(child, PidfdFlags::empty()).ok()),
            ram,
            area,
            program,
            gate: None,
            tick_at: Instant::now(),
            extended_state,
            page_tables_used_gpa,
            time_stamp_khz: clock::time_stamp_khz(),
            layers: Layers::default(),
        };
        this.layers = child::receive_report(&gate, this.child)?;
        this.gate = Some(gate);
        Ok(this)
    }

    /// What confines the guest beside the seccomp list.
    pub(crate) fn layers(&self) -> Layers {
        self.layers
    }

    /// The number of its process.
    pub(crate) fn id(&self) -> i32 {
        self.child
    }

    /// What can be polled for its end.
    pub(crate) fn watch(&self) -> Option<BorrowedFd<'_>> {
        self.watch.as_ref().map(OwnedFd::as_fd)
    }

    /// How it has ended, if it has.
    pub(crate) fn end(&self) -> Option<ProcessEnd> {
        ProcessEnd::of(self.child)
    }

    /// Memory that is mapped for it in the monitor, in bytes.
    pub(crate) fn mapped_bytes(&self) -> u64 {
        self.ram.length() + self.area.length() + self.program.length()
    }

    pub(crate) fn ram(&self) -> &Region {
        &self.ram
    }

    pub(crate) fn program(&self) -> &[u8] {
        self.program.file_bytes()
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
        if let Some(gate) = self.gate.take() {
            self.tick_at = now + TICK;
            // Fails only if the child has ended, which is seen below.
            let _ = send(&gate, &[1], SendFlags::NOSIGNAL);
        } else if now >= self.tick_at {
            self.forget_tick();
            return Exit::Interrupted;
        } else {
            self.turn().store(turn::GUEST, Ordering::Release);
            futex(self.turn(), libc::FUTEX_WAKE, 1, None);
        }
        loop {
            match self.turn().load(Ordering::Acquire) {
                turn::MONITOR => break,
                turn::GUEST => {}
                other => return Exit::Unexpected(format!("it has made it the turn of nobody ({other:#x})")),
            }
            let left = self.tick_at.saturating_duration_since(Instant::now());
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
            unsafe { libc::kill(self.child, abi::TICK_SIGNAL) };
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
        self.tick_at = Instant::now() + TICK;
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

impl Drop for GuestProcess {
    fn drop(&mut self) {
        // SAFETY: the child is ours and was not waited for. It cannot refuse.
        unsafe {
            libc::kill(self.child, libc::SIGKILL);
            libc::waitpid(self.child, std::ptr::null_mut(), 0);
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

/// Zeroed memory that can be mapped by several processes, and never becomes shorter or longer.
fn memory_file(name: &std::ffi::CStr, bytes: u64) -> io::Result<OwnedFd> {
    /// `MFD_EXEC`: the image is executed from there. Linux 6.3 asks that this be said.
    const EXECUTABLE: u32 = 0x10;
    let flags = libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING;
    // SAFETY: makes a descriptor, nothing else.
    let mut descriptor = unsafe { libc::memfd_create(name.as_ptr(), flags | EXECUTABLE) };
    if descriptor < 0 && io::Error::last_os_error().raw_os_error() == Some(libc::EINVAL) {
        // SAFETY: as above.
        descriptor = unsafe { libc::memfd_create(name.as_ptr(), flags) };
    }
    if descriptor < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor is new, and nobody else's.
    let file = File::from(unsafe { OwnedFd::from_raw_fd(descriptor) });
    file.set_len(bytes)?;
    let seals = libc::F_SEAL_SHRINK | libc::F_SEAL_GROW | libc::F_SEAL_SEAL;
    // SAFETY: changes what may be done with the file, no memory.
    if unsafe { libc::fcntl(descriptor, libc::F_ADD_SEALS, seals) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(file.into())
}

/// The program's file as a descriptor that can be read and executed, and not written: a shared mapping of it then cannot
/// be made writable. Where the file can be written, or lies where nothing may be executed, it is a copy in memory that is
/// nobody else's.
fn executable(program: BorrowedFd<'_>, bytes: u64) -> io::Result<File> {
    use rustix::fs::{OFlags, fcntl_getfl};
    let file = File::from(program.try_clone_to_owned()?);
    let is_read_only = fcntl_getfl(program)? & OFlags::ACCMODE == OFlags::RDONLY;
    if is_read_only && may_be_executed(&file)? {
        return Ok(file);
    }
    let copy = File::from(memory_file(c"spore-program", bytes)?);
    let mut at = 0;
    let mut buffer = vec![0; 1 << 20];
    loop {
        // The descriptor's own position belongs to the daemon as well.
        let count = file.read_at(&mut buffer, at)?;
        if count == 0 {
            return Ok(copy);
        }
        copy.write_all_at(&buffer[..count], at)?;
        at += count as u64;
    }
}

/// Whether the file lies where files may be executed.
fn may_be_executed(file: &File) -> io::Result<bool> {
    use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
    let protection = ProtFlags::READ | ProtFlags::EXEC;
    let length = PAGE_BYTES as usize;
    // SAFETY: a new mapping at an address of the kernel's choice, which nobody uses.
    match unsafe {
        mmap(
            std::ptr::null_mut(),
            length,
            protection,
            MapFlags::SHARED,
            file,
            0,
        )
    } {
        Ok(page) => {
            // SAFETY: the mapping made just now.
            unsafe { munmap(page, length) }?;
            Ok(true)
        }
        Err(Errno::PERM | Errno::ACCESS) => Ok(false),
        Err(error) => Err(error.into()),
    }
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

/// A program of a page that holds nothing, for a guest that is not meant to run.
pub(crate) fn empty_program() -> io::Result<OwnedFd> {
    memory_file(c"spore-nothing", PAGE_BYTES)
}

/// Waits for one packet.
fn receive(socket: &OwnedFd, packet: &mut [u8]) -> Result<usize, Errno> {
    let (length, _) = rustix::io::retry_on_intr(|| recv(socket, &mut *packet, RecvFlags::empty()))?;
    Ok(length)
}
