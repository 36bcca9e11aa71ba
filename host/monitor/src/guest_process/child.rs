//! The child of the monitor, from its first instruction to the jump into the image. It is made and confined before it is
//! known what it will run; that comes through the *gate*, a socket.
//!
//! Other threads of the monitor do not exist here, and whatever they held stays held (in tests; a monitor has one thread):
//! so nothing here allocates or takes a lock. Everything that is needed was made before, in the [`Plan`].

use std::ffi::CStr;
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::ptr::null_mut;

use rustix::io::retry_on_intr;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use spore_abi::layout::{IMAGE_BYTES_MAX, IMAGE_GPA, MODULES_BASE, PAGE_BYTES, WINDOW_BASE};
use spore_abi::process::{
    self as abi, AREA_BYTES, HEAD_DESCRIPTOR, MODULE_DESCRIPTOR, PROCESS_PAGE, RAM_ALIAS_BASE,
    RAM_DESCRIPTOR, SNAPSHOT_BASE,
};
use zerocopy::{Immutable, IntoBytes};

use super::layers::Layers;
use super::{ProcessEnd, ProcessError, host_error, receive};

/// Where the gate is until the contents have come.
const GATE_DESCRIPTOR: i32 = HEAD_DESCRIPTOR + 1;
/// Address space of a guest process, in multiples of its memory: the window, the alias, a snapshot, and as much for its
/// programs' mappings. What does not fit leaves the cache of translations and comes back when it is touched.
const ADDRESS_SPACE_MEMORIES: u64 = 7;
/// The same in multiples of the module.
const ADDRESS_SPACE_MODULES: u64 = 4;

/// What the child needs.
pub(super) struct Plan<'a> {
    pub(super) area: BorrowedFd<'a>,
    /// The library OS's code, if that is a file of its own, and not in RAM.
    pub(super) text: Option<BorrowedFd<'a>>,
    /// First instruction of the image in the process form.
    pub(super) entry: u64,
    pub(super) sequence: Option<Sequence>,
    /// The user (and group) that it becomes; none if it stays who it is.
    pub(super) user: Option<u32>,
    /// Whether there is nothing in the root that it inherits.
    pub(super) has_empty_root: bool,
}

/// What it is to run. The files come with it: RAM, the root module, its head and the snapshot if there is one.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, IntoBytes, Immutable)]
pub(super) struct Contents {
    pub(super) ram_bytes: u64,
    pub(super) module_bytes: u64,
    /// As in the process page.
    pub(super) module_base_bytes: u64,
    /// How much of RAM is mapped in the window to begin with.
    pub(super) window_bytes: u64,
    /// 1 if the last file is a snapshot.
    pub(super) has_snapshot: u64,
}

/// Where the snapshot is until it is mapped.
const SNAPSHOT_DESCRIPTOR: i32 = GATE_DESCRIPTOR + 1;
/// How many files come at most.
const FILES_MAX: usize = 4;

/// What the child does, as far as it may fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Step {
    /// All is well.
    None,
    /// Ending with the monitor.
    ParentDeath,
    /// Giving up privileges.
    Privileges,
    /// Becoming another user.
    User,
    /// Keeping its descriptors, and closing all others.
    Descriptors,
    /// Mapping what it shares with the monitor, and the library OS's code.
    Memory,
}

impl Step {
    pub(super) fn what(self) -> &'static str {
        match self {
            Self::None => "start",
            Self::ParentDeath => "be made to end with the monitor",
            Self::Privileges => "give up its privileges",
            Self::User => "become its own user",
            Self::Descriptors => "keep its own descriptors only",
            Self::Memory => "map its memory",
        }
    }

    fn from_number(number: u8) -> Self {
        [
            Self::ParentDeath,
            Self::Privileges,
            Self::User,
            Self::Descriptors,
            Self::Memory,
        ]
        .into_iter()
        .find(|step| *step as u8 == number)
        .unwrap_or(Self::None)
    }
}

/// The kernel's area of restartable sequences that the C library has registered for this thread: the kernel would write
/// to it when it is long unmapped.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sequence {
    address: usize,
    bytes: u32,
}

impl Sequence {
    /// The area, where the C library has one (GNU, since 2.35).
    pub(super) fn of_this_thread() -> Option<Self> {
        let symbol = |name: &CStr| {
            // SAFETY: looks a name up.
            let place = unsafe { libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr()) };
            (!place.is_null()).then_some(place)
        };
        let (offset, bytes) = (symbol(c"__rseq_offset")?, symbol(c"__rseq_size")?);
        // SAFETY: the C library documents the two as constants of these types.
        let (offset, bytes) = unsafe { (*offset.cast::<isize>(), *bytes.cast::<u32>()) };
        if bytes == 0 {
            return None;
        }
        let thread: usize;
        // SAFETY: the first word of the thread's control block is its address (System V ABI for x86-64).
        unsafe {
            core::arch::asm!("mov {}, fs:0", out(reg) thread, options(nostack, preserves_flags, readonly));
        }
        Some(Self {
            address: thread.wrapping_add_signed(offset),
            bytes,
        })
    }

    fn unregister(self) {
        const UNREGISTER: i32 = 1;
        const SIGNATURE: u32 = 0x5305_3053;
        // The library says how much of it has a meaning; it is registered with its full size.
        for bytes in [32, self.bytes, self.bytes.next_multiple_of(32)] {
            // SAFETY: tells the kernel to leave the area alone.
            if unsafe { libc::syscall(libc::SYS_rseq, self.address, bytes, UNREGISTER, SIGNATURE) } == 0 {
                return;
            }
        }
    }
}

/// Makes the child, which does not come back here; the number of its process.
pub(super) fn start(plan: &Plan<'_>, gate: &OwnedFd, childs_gate: &OwnedFd) -> io::Result<libc::pid_t> {
    let all = libc::CLONE_NEWNS
        | libc::CLONE_NEWPID
        | libc::CLONE_NEWNET
        | libc::CLONE_NEWIPC
        | libc::CLONE_NEWUTS
        | libc::CLONE_NEWCGROUP;
    // Root enters its user namespace later, as another user. Whoever may make none of them gets none.
    let first = match plan.user {
        Some(_) => all,
        None => all | libc::CLONE_NEWUSER,
    };
    for flags in [first, all | libc::CLONE_NEWUSER, 0] {
        match copy_process(flags) {
            Ok(0) => {
                let gates = (gate.as_raw_fd(), childs_gate.as_raw_fd());
                become_guest(plan, gates, flags)
            }
            Ok(child) => return Ok(child),
            Err(error) if flags == 0 => return Err(error),
            Err(_) => {}
        }
    }
    Err(io::Error::other("no process"))
}

/// `fork` with namespaces; 0 in the child.
fn copy_process(flags: i32) -> io::Result<libc::pid_t> {
    let flags = flags | libc::SIGCHLD;
    // SAFETY: as `fork`: the child has a copy of everything and runs on this stack. It calls only what may be called in the
    // child of a process with threads (see the module's documentation).
    let child = unsafe { libc::syscall(libc::SYS_clone, flags, 0_usize, 0_usize, 0_usize, 0_usize) };
    if child < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(child as libc::pid_t)
    }
}

/// What the child has to say before it waits: the active layers, and what has failed.
#[repr(C)]
#[derive(Clone, Copy)]
struct Report {
    layers: u32,
    step: u8,
    error: [u8; 3],
}

const REPORT_BYTES: usize = 8;

/// Takes the child's report.
pub(super) fn receive_report(gate: &OwnedFd, child: libc::pid_t) -> Result<Layers, ProcessError> {
    let mut packet = [0; REPORT_BYTES];
    if receive(gate, &mut packet).map_err(host_error("hear from the guest's process"))? == 0 {
        // The child keeps its end for as long as it lives.
        return Err(ProcessError::NoReport(ProcessEnd::wait_for(child)));
    }
    let [layers @ .., step, low, high, _] = packet;
    match Step::from_number(step) {
        Step::None => Ok(Layers(u32::from_ne_bytes(layers))),
        step => Err(ProcessError::Child {
            step,
            source: io::Error::from_raw_os_error(u16::from_le_bytes([low, high]).into()),
        }),
    }
}

fn become_guest(plan: &Plan<'_>, (gate, childs_gate): (i32, i32), flags: i32) -> ! {
    // SAFETY: closes the monitor's end in the child, where nothing uses it.
    unsafe { libc::close(gate) };
    block_signals();
    let (layers, mut result) = confine(plan, flags);
    let mut gate = childs_gate;
    if result.is_ok() {
        (gate, result) = keep_own_descriptors(plan, gate);
    }
    let (step, error) = match result {
        Ok(()) => (Step::None, 0),
        Err(step) => (step, last_error()),
    };
    let report = Report {
        layers: layers.0,
        step: step as u8,
        error: [error as u8, (error >> 8) as u8, 0],
    };
    // SAFETY: sends a plain structure without padding.
    unsafe { libc::send(gate, (&raw const report).cast(), REPORT_BYTES, libc::MSG_NOSIGNAL) };
    let Some(contents) = receive_contents(gate) else {
        // SAFETY: ends the child, for which there is no monitor, or nothing to do.
        unsafe { libc::_exit(1) }
    };
    if !map_layout(&contents, plan.text.is_some()) {
        // SAFETY: ends the child; the monitor takes its status for the number of the error.
        unsafe { libc::_exit(last_error()) }
    }
    limit_resources(&contents);
    if let Some(sequence) = plan.sequence {
        sequence.unregister();
    }
    let stack = abi::SIGNAL_STACK + abi::SIGNAL_STACK_BYTES;
    // SAFETY: the image's code for this, on a stack of its own; nothing of this program is used from here on.
    unsafe {
        core::arch::asm!("mov rsp, {stack}", "jmp {entry}", stack = in(reg) stack, entry = in(reg) plan.entry,
            options(noreturn));
    }
}

fn last_error() -> i32 {
    io::Error::last_os_error().raw_os_error().unwrap_or_default()
}

fn block_signals() {
    // SAFETY: the set is ours, and all zero is a value of it.
    unsafe {
        let mut all: libc::sigset_t = std::mem::zeroed();
        libc::sigfillset(&raw mut all);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const all, null_mut());
    }
}

/// Gives everything up that the guest does not need. What may fail is in the layers; what may not, is an error.
fn confine(plan: &Plan<'_>, flags: i32) -> (Layers, Result<(), Step>) {
    let mut layers = Layers::default();
    for (flag, layer) in [
        (libc::CLONE_NEWUSER, Layers::USER),
        (libc::CLONE_NEWNS, Layers::MOUNT),
        (libc::CLONE_NEWPID, Layers::PROCESSES),
        (libc::CLONE_NEWNET, Layers::NETWORK),
        (libc::CLONE_NEWIPC, Layers::IPC),
        (libc::CLONE_NEWUTS, Layers::NAMES),
        (libc::CLONE_NEWCGROUP, Layers::CGROUP),
    ] {
        if flags & flag != 0 {
            layers.add(layer);
        }
    }
    if plan.has_empty_root || (layers.has(Layers::MOUNT) && empty_root()) {
        layers.add(Layers::EMPTY_ROOT);
    }
    if let Some(user) = plan.user
        && !layers.has(Layers::USER)
    {
        if !become_user(user) {
            return (layers, Err(Step::User));
        }
        // SAFETY: moves this process only. Where ordinary users may make no user namespaces there is none.
        if unsafe { libc::unshare(libc::CLONE_NEWUSER) } == 0 {
            layers.add(Layers::USER);
        }
    }
    if !drop_privileges() {
        return (layers, Err(Step::Privileges));
    }
    layers.add(Layers::NO_CAPABILITIES);
    // SAFETY: changes what happens to this process only. It comes last: a change of user takes it back.
    if unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL, 0, 0, 0) } != 0 {
        return (layers, Err(Step::ParentDeath));
    }
    (layers, Ok(()))
}

/// Makes an empty file system that cannot be written to the root; whether it did.
fn empty_root() -> bool {
    let root = c"/".as_ptr();
    // Any folder will do, to be covered.
    [c"/proc", c"/dev", c"/tmp"].iter().any(|place| {
        let here = c".".as_ptr();
        // SAFETY: acts on the mounts of this process's own namespace; all strings are constants.
        unsafe {
            libc::mount(
                null_mut(),
                root,
                null_mut(),
                libc::MS_REC | libc::MS_PRIVATE,
                null_mut(),
            ) == 0
                && libc::mount(
                    c"none".as_ptr(),
                    place.as_ptr(),
                    c"tmpfs".as_ptr(),
                    libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC | libc::MS_RDONLY,
                    c"size=4k,nr_inodes=1".as_ptr().cast(),
                ) == 0
                && libc::chdir(place.as_ptr()) == 0
                && libc::syscall(libc::SYS_pivot_root, here, here) == 0
                && libc::umount2(here, libc::MNT_DETACH) == 0
                && libc::chdir(root) == 0
        }
    })
}

fn become_user(user: u32) -> bool {
    // The calls themselves, and not the C library's functions, which would tell the process's other threads.
    // SAFETY: changes the user of this process, which has one thread.
    unsafe {
        libc::syscall(libc::SYS_setgroups, 0, null_mut::<u32>()) == 0
            && libc::syscall(libc::SYS_setresgid, user, user, user) == 0
            && libc::syscall(libc::SYS_setresuid, user, user, user) == 0
    }
}

/// No capabilities, no way to get some, and no way for others to look in.
fn drop_privileges() -> bool {
    /// Capabilities of any kernel yet to come.
    const CAPABILITIES: i32 = 64;
    // `_LINUX_CAPABILITY_VERSION_3`, for this process.
    let mut header = [0x2008_0522_u32, 0];
    let none = [0_u32; 6];
    // SAFETY: changes this process only; the two arrays are laid out as the kernel's structures.
    unsafe {
        for capability in 0..CAPABILITIES {
            // Fails without privilege, when there is none to lose, and behind the last capability.
            if libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) != 0 {
                break;
            }
        }
        libc::syscall(libc::SYS_capset, header.as_mut_ptr(), none.as_ptr()) == 0
            && libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
            && libc::prctl(libc::PR_SET_DUMPABLE, 0, 0, 0, 0) == 0
    }
}

/// Maps what was made ahead, and keeps the gate alone of all descriptors; its number from then on.
fn keep_own_descriptors(plan: &Plan<'_>, gate: i32) -> (i32, Result<(), Step>) {
    let data = libc::PROT_READ | libc::PROT_WRITE;
    let is_mapped = map(PROCESS_PAGE, AREA_BYTES, plan.area.as_raw_fd(), 0, data)
        && plan.text.is_none_or(|text| map_text(text.as_raw_fd()));
    if !is_mapped {
        return (gate, Err(Step::Memory));
    }
    // SAFETY: whatever had this number is closed, in this process, which does not use it.
    let is_placed =
        gate == GATE_DESCRIPTOR || unsafe { libc::dup2(gate, GATE_DESCRIPTOR) } == GATE_DESCRIPTOR;
    if !is_placed {
        return (gate, Err(Step::Descriptors));
    }
    let are_closed =
        close_range(0, GATE_DESCRIPTOR as u32 - 1) && close_range(GATE_DESCRIPTOR as u32 + 1, u32::MAX);
    (GATE_DESCRIPTOR, are_closed.then_some(()).ok_or(Step::Descriptors))
}

/// Gives the child what it is to run, with its files in their order.
pub(super) fn send_contents(gate: &OwnedFd, contents: &Contents, files: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FILES_MAX))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    ancillary.push(SendAncillaryMessage::ScmRights(files));
    let slices = [IoSlice::new(contents.as_bytes())];
    retry_on_intr(|| sendmsg(gate, &slices, &mut ancillary, SendFlags::NOSIGNAL))?;
    Ok(())
}

/// Waits for what is to be run, and maps it; no descriptor is left then but those of the layout.
fn receive_contents(gate: i32) -> Option<Contents> {
    let mut contents = Contents::default();
    // Aligned as the kernel's headers are.
    let mut space = [0_u64; 8];
    let mut slice = libc::iovec {
        iov_base: (&raw mut contents).cast(),
        iov_len: size_of::<Contents>(),
    };
    // SAFETY: all zero is a value of the structure; everything it points to is ours, as long as it says, and outlives the
    // call.
    let (received, files, count) = unsafe {
        let mut message: libc::msghdr = std::mem::zeroed();
        message.msg_iov = &raw mut slice;
        message.msg_iovlen = 1;
        message.msg_control = space.as_mut_ptr().cast();
        message.msg_controllen = size_of_val(&space) as _;
        let received = loop {
            let received = libc::recvmsg(gate, &raw mut message, 0);
            if received >= 0 || last_error() != libc::EINTR {
                break received;
            }
        };
        let header = libc::CMSG_FIRSTHDR(&raw const message);
        if header.is_null() || (*header).cmsg_type != libc::SCM_RIGHTS {
            return None;
        }
        let bytes = ((*header).cmsg_len as usize).saturating_sub(libc::CMSG_LEN(0) as usize);
        let count = (bytes / size_of::<i32>()).min(FILES_MAX);
        let mut files = [-1; FILES_MAX];
        std::ptr::copy_nonoverlapping(libc::CMSG_DATA(header).cast::<i32>(), files.as_mut_ptr(), count);
        (received, files, count)
    };
    let has_head = contents.module_base_bytes != 0;
    let has_snapshot = contents.has_snapshot != 0;
    let is_whole = received == size_of::<Contents>() as isize;
    if !is_whole || count != 2 + usize::from(has_head) + usize::from(has_snapshot) {
        return None;
    }
    // They got the lowest numbers, none of which is above its own in the layout: so the last one moves first.
    let third = if has_head {
        HEAD_DESCRIPTOR
    } else {
        SNAPSHOT_DESCRIPTOR
    };
    let places = [RAM_DESCRIPTOR, MODULE_DESCRIPTOR, third, SNAPSHOT_DESCRIPTOR];
    let moved = files.iter().zip(places).take(count);
    for (&file, place) in moved.rev() {
        // SAFETY: whatever had this number is not used.
        if unsafe { libc::dup2(file, place) } != place {
            return None;
        }
    }
    let is_mapped = !has_snapshot
        || map_as(
            libc::MAP_PRIVATE,
            SNAPSHOT_BASE,
            contents.ram_bytes,
            SNAPSHOT_DESCRIPTOR,
            0,
            libc::PROT_READ,
        );
    (is_mapped && close_range(0, RAM_DESCRIPTOR as u32 - 1) && close_range(GATE_DESCRIPTOR as u32, u32::MAX))
        .then_some(contents)
}

fn close_range(first: u32, last: u32) -> bool {
    // SAFETY: closes descriptors of this process that it does not use any more.
    unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) == 0 }
}

/// Maps RAM and module where the layout has them; whether it did.
fn map_layout(contents: &Contents, has_text: bool) -> bool {
    let data = libc::PROT_READ | libc::PROT_WRITE;
    let map_ram = |start: u64, end: u64, protection| {
        map(
            WINDOW_BASE + start,
            end - start,
            RAM_DESCRIPTOR,
            start,
            protection,
        )
    };
    let (image, behind) = (IMAGE_GPA, IMAGE_GPA + IMAGE_BYTES_MAX);
    map(RAM_ALIAS_BASE, contents.ram_bytes, RAM_DESCRIPTOR, 0, data)
        && map_ram(0, image, data)
        && (has_text || map_ram(image, behind, data | libc::PROT_EXEC))
        && map_ram(behind, contents.window_bytes, data)
        && map_module(contents.module_bytes, contents.module_base_bytes)
}

/// Maps the root module's file, or its two files (see [`crate::RootFiles`]).
fn map_module(bytes: u64, base_bytes: u64) -> bool {
    let map_part = |start: u64, end: u64, descriptor: i32, offset: u64| {
        let address = MODULES_BASE + start;
        start == end || map(address, end - start, descriptor, offset, libc::PROT_READ)
    };
    if base_bytes == 0 {
        return map_part(0, bytes, MODULE_DESCRIPTOR, 0);
    }
    map_part(0, PAGE_BYTES, HEAD_DESCRIPTOR, 0)
        && map_part(PAGE_BYTES, base_bytes, MODULE_DESCRIPTOR, PAGE_BYTES)
        && map_part(base_bytes, bytes, HEAD_DESCRIPTOR, PAGE_BYTES)
}

/// Maps the library OS's code, to which nobody writes.
fn map_text(descriptor: i32) -> bool {
    map_as(
        libc::MAP_PRIVATE,
        WINDOW_BASE + IMAGE_GPA,
        IMAGE_BYTES_MAX,
        descriptor,
        0,
        libc::PROT_READ | libc::PROT_EXEC,
    )
}

/// Maps a part of a file, from `offset` on, at an address where nothing is, shared with whoever maps it.
fn map(address: u64, bytes: u64, descriptor: i32, offset: u64, protection: i32) -> bool {
    map_as(libc::MAP_SHARED, address, bytes, descriptor, offset, protection)
}

fn map_as(kind: i32, address: u64, bytes: u64, descriptor: i32, offset: u64, protection: i32) -> bool {
    // SAFETY: replaces nothing.
    let place = unsafe {
        libc::mmap(
            address as *mut libc::c_void,
            bytes as usize,
            protection,
            kind | libc::MAP_FIXED_NOREPLACE,
            descriptor,
            offset as libc::off_t,
        )
    };
    place.addr() as u64 == address
}

/// No file, no dump, no descriptor, and not more address space than it takes: what is mapped costs the host page tables.
fn limit_resources(contents: &Contents) {
    const MARGIN_BYTES: u64 = 1 << 30;
    let address_space = contents.ram_bytes * ADDRESS_SPACE_MEMORIES
        + contents.module_bytes * ADDRESS_SPACE_MODULES
        + MARGIN_BYTES;
    for (resource, limit) in [
        (libc::RLIMIT_AS, address_space),
        (libc::RLIMIT_CORE, 0),
        (libc::RLIMIT_FSIZE, 0),
        (libc::RLIMIT_NOFILE, 0),
        (libc::RLIMIT_NPROC, 0),
        (libc::RLIMIT_MEMLOCK, 0),
    ] {
        let limit = libc::rlimit {
            rlim_cur: limit,
            rlim_max: limit,
        };
        // SAFETY: reads the structure. It can fail only where the limit is lower already.
        unsafe { libc::setrlimit(resource, &raw const limit) };
    }
}

const _: () = assert!(size_of::<Report>() == REPORT_BYTES);
