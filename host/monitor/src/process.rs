//! Starts a monitor process and holds on to it.
//!
//! A process identifier is not enough to hold on to a process, and the standard library can start one neither in
//! namespaces of its own nor within a cgroup. So this is a `clone3` (clone(2)) of our own, in the manner of
//! `posix_spawn`: the child borrows the memory of its parent, which stands still until the child executes the program.

use std::ffi::{CString, c_void};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::ptr;

use rustix::io::{Errno, retry_on_intr};
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, WaitIdStatus, getegid, geteuid, kill_process, pidfd_open,
    pidfd_send_signal, waitid,
};
use rustix::thread::{UnshareFlags, unshare_unsafe};

/// The program that is started as the monitor: this very one.
const OWN_EXECUTABLE: &std::ffi::CStr = c"/proc/self/exe";
/// The hidden subcommand that runs [`crate::main`].
const MONITOR_SUBCOMMAND: &str = "monitor";
/// What follows the subcommand where the process has a user namespace of its own.
pub(crate) const IN_USER_NAMESPACE: &str = "in-user-namespace";
/// What follows the subcommand where the process is born in the namespaces that [`share_namespaces`] has made.
pub(crate) const IN_SHARED_NAMESPACES: &str = "in-shared-namespaces";
/// What follows the subcommand where the process is to be copied: see [`Spawn::start_zygote`].
pub(crate) const ZYGOTE: &str = "zygote";
/// Bytes that the first argument takes, so that a title of this length has room later.
const TITLE_BYTES: usize = 160;
/// A flag of `clone3`, of a width that the crate `libc` has no type for.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;
/// The child runs little code, but its stack must hold it.
const CHILD_STACK_BYTES: usize = 64 * 1024;

/// Who may hold and end a monitor process: its handle. Dropping it does not end the process.
#[derive(Debug)]
pub struct Process {
    descriptor: OwnedFd,
    id: u32,
}

/// A monitor process, held on to without a descriptor: until it has been waited for, nobody else gets its number.
#[derive(Debug)]
pub struct Unreaped {
    id: u32,
    status: Option<ExitStatus>,
}

/// What a new monitor process gets.
#[derive(Debug)]
pub struct Spawn<'a> {
    /// Shown by `ps`. It may be replaced later by one that is not longer than [`Spawn::TITLE_CHARS_MAX`].
    pub title: &'a str,
    /// The monitor's end of the control socket.
    pub control: OwnedFd,
    /// The monitor's end of the log socket.
    pub log: OwnedFd,
    /// Folder of a cgroup (version 2) into which it is born.
    pub cgroup: Option<BorrowedFd<'a>>,
    /// Whether the calling thread has called [`share_namespaces`].
    pub shares_namespaces: bool,
}

/// Takes the calling thread, and with it the processes that it starts from now on, into namespaces in which there is nothing,
/// and in which none of them can make anything: for the network, and for System V objects and message queues. Of their
/// own they would take some 220 KiB of kernel memory each.
///
/// # Errors
///
/// If the kernel does not allow it to this user. Then each process tries by itself, in its user namespace.
pub fn share_namespaces() -> io::Result<()> {
    // SAFETY: changes what sockets and queues that this thread makes later belong to, and nothing else.
    Ok(unsafe { unshare_unsafe(UnshareFlags::NEWNET | UnshareFlags::NEWIPC) }?)
}

impl Spawn<'_> {
    /// Longest title.
    pub const TITLE_CHARS_MAX: usize = TITLE_BYTES;

    /// Starts the process, in a PID namespace of its own where the kernel allows that, in a user namespace besides
    /// where that takes one. It ends when the calling *thread* ends: call this on one that lives as long as the
    /// process is wanted.
    ///
    /// # Errors
    ///
    /// If the kernel starts no process, or it cannot execute the program.
    pub fn start(self) -> io::Result<Process> {
        let with_cgroup = |flags: u64| match self.cgroup {
            Some(_) => flags | CLONE_INTO_CGROUP,
            None => flags,
        };
        let pid_namespace = libc::CLONE_NEWPID as u64;
        let user_namespace = libc::CLONE_NEWUSER as u64;
        let mut refused = Errno::INVAL;
        for flags in [pid_namespace, pid_namespace | user_namespace, 0] {
            match self.start_with(with_cgroup(flags), None) {
                Ok(process) => return Ok(process),
                Err(error @ (Errno::PERM | Errno::INVAL | Errno::NOSPC | Errno::USERS | Errno::ACCESS)) => {
                    refused = error;
                }
                Err(error) => return Err(error.into()),
            }
        }
        Err(refused.into())
    }

    /// Starts a process that runs no instance itself but copies itself, as often as it is asked to ([`crate::protocol::Request::Copy`]).
    /// The copies are children of the calling thread and end with it, each in a PID namespace of its own. They share what
    /// nothing ever is in: the other namespaces, and the empty root. Only for root: others have a user namespace each.
    ///
    /// # Errors
    ///
    /// If the kernel starts no process, or it cannot execute the program.
    pub fn start_zygote(self) -> io::Result<Process> {
        Ok(self.start_with(0, Some(ZYGOTE))?)
    }

    fn start_with(&self, flags: u64, role: Option<&str>) -> Result<Process, Errno> {
        let is_in_user_namespace = flags & libc::CLONE_NEWUSER as u64 != 0;
        let title: String = self.title.chars().filter(|&c| c != '\0').collect();
        let mut arguments = vec![format!("{title:TITLE_BYTES$}"), MONITOR_SUBCOMMAND.to_owned()];
        if is_in_user_namespace {
            arguments.push(IN_USER_NAMESPACE.to_owned());
        }
        if self.shares_namespaces {
            arguments.push(IN_SHARED_NAMESPACES.to_owned());
        }
        arguments.extend(role.map(str::to_owned));
        let arguments: Vec<CString> = arguments
            .into_iter()
            .map(CString::new)
            .collect::<Result<_, _>>()
            .map_err(|_| Errno::INVAL)?;
        let pointers: Vec<_> = arguments
            .iter()
            .map(|argument| argument.as_ptr())
            .chain([ptr::null()])
            .collect();
        let (user, group) = (geteuid().as_raw(), getegid().as_raw());
        let mut child = Child {
            arguments: pointers.as_ptr(),
            control: self.control.as_raw_fd(),
            log: self.log.as_raw_fd(),
            maps: is_in_user_namespace.then(|| Maps {
                user: format!("0 {user} 1"),
                group: format!("0 {group} 1"),
            }),
            error: 0,
        };
        let process = clone(flags, self.cgroup, &mut child)?;
        // The child shared our memory up to its end or the program's start, so what it left here is seen.
        if child.error == 0 {
            return Ok(process);
        }
        // It has ended by itself.
        let _ = process.wait();
        Err(Errno::from_raw_os_error(child.error))
    }
}

impl Process {
    /// The child with this number, which nobody has waited for.
    ///
    /// # Errors
    ///
    /// If there is no descriptor left: then the process is ended, and waited for.
    pub fn of_child(id: u32) -> io::Result<Self> {
        let mut child = Unreaped { id, status: None };
        match child.watch() {
            Ok(descriptor) => Ok(Self { descriptor, id }),
            Err(error) => {
                child.kill();
                let _ = child.wait();
                Err(error)
            }
        }
    }

    /// Its process number, as this process sees it.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.id
    }

    /// Ends the process at once. It must be waited for all the same.
    ///
    /// # Errors
    ///
    /// If it is gone already.
    pub fn kill(&self) -> io::Result<()> {
        Ok(pidfd_send_signal(&self.descriptor, Signal::KILL)?)
    }

    /// How the process ended, if it has.
    ///
    /// # Errors
    ///
    /// If somebody else has waited for it.
    pub fn try_wait(&self) -> io::Result<Option<ExitStatus>> {
        self.wait_with(WaitIdOptions::EXITED | WaitIdOptions::NOHANG)
    }

    /// Waits until the process has ended; how it did.
    ///
    /// # Errors
    ///
    /// If somebody else has waited for it.
    pub fn wait(&self) -> io::Result<ExitStatus> {
        let status = self.wait_with(WaitIdOptions::EXITED)?;
        status.ok_or_else(|| io::ErrorKind::WouldBlock.into())
    }

    fn wait_with(&self, options: WaitIdOptions) -> io::Result<Option<ExitStatus>> {
        let status = retry_on_intr(|| waitid(WaitId::PidFd(self.descriptor.as_fd()), options))?;
        Ok(status.as_ref().map(exit_status))
    }
}

impl From<Process> for Unreaped {
    /// Nobody must have waited for the process.
    fn from(process: Process) -> Self {
        Self {
            id: process.id,
            status: None,
        }
    }
}

impl Unreaped {
    /// A descriptor that can be read from (as `poll` says) once the process has ended.
    ///
    /// # Errors
    ///
    /// If there is no descriptor left, or the process was waited for.
    pub fn watch(&self) -> io::Result<OwnedFd> {
        let id = self.pid().ok_or(Errno::SRCH)?;
        Ok(pidfd_open(id, PidfdFlags::empty())?)
    }

    /// Ends the process at once, if it was not waited for. It must be waited for all the same.
    pub fn kill(&self) {
        if let Some(id) = self.pid() {
            // Fails only for what has ended already.
            let _ = kill_process(id, Signal::KILL);
        }
    }

    /// How the process ended, if it has.
    ///
    /// # Errors
    ///
    /// If somebody else has waited for it.
    pub fn try_wait(&mut self) -> io::Result<Option<ExitStatus>> {
        self.wait_with(WaitIdOptions::EXITED | WaitIdOptions::NOHANG)
    }

    /// Waits until the process has ended; how it did.
    ///
    /// # Errors
    ///
    /// If somebody else has waited for it.
    pub fn wait(&mut self) -> io::Result<ExitStatus> {
        let status = self.wait_with(WaitIdOptions::EXITED)?;
        status.ok_or_else(|| io::ErrorKind::WouldBlock.into())
    }

    fn wait_with(&mut self, options: WaitIdOptions) -> io::Result<Option<ExitStatus>> {
        if let Some(id) = self.pid() {
            let status = retry_on_intr(|| waitid(WaitId::Pid(id), options))?;
            self.status = status.as_ref().map(exit_status);
        }
        Ok(self.status)
    }

    /// Its number, as long as that is its own.
    fn pid(&self) -> Option<Pid> {
        match self.status {
            None => Pid::from_raw(self.id as i32),
            Some(_) => None,
        }
    }
}

fn exit_status(status: &WaitIdStatus) -> ExitStatus {
    let code = status.exit_status().map(|code| (code & 0xff) << 8);
    ExitStatus::from_raw(code.or(status.terminating_signal()).unwrap_or(0))
}

impl AsFd for Process {
    /// A descriptor that can be read from (as `poll` says) once the process has ended.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

impl AsRawFd for Process {
    fn as_raw_fd(&self) -> RawFd {
        self.descriptor.as_raw_fd()
    }
}

/// What the child finds in its parent's memory.
struct Child {
    arguments: *const *const libc::c_char,
    control: RawFd,
    log: RawFd,
    maps: Option<Maps>,
    /// What went wrong, for the parent.
    error: i32,
}

/// Which user and group the child is in its user namespace.
struct Maps {
    user: String,
    group: String,
}

/// Runs in the child, on a stack of its own, in the parent's memory. It may call nothing but system calls: another
/// thread of the parent's may hold any lock.
unsafe extern "C" fn child_main(child: *mut c_void) -> libc::c_int {
    // SAFETY: the parent gives a `Child` that lives until it runs again, which is after this has ended.
    let child = unsafe { &mut *child.cast::<Child>() };
    // SAFETY: system calls with the parent's constants, descriptors and strings, which live as long as it stands still.
    let outcome = unsafe { become_monitor(child) };
    child.error = outcome.unwrap_or_else(|error| error);
    // SAFETY: ends the child and runs no code of the parent's.
    unsafe { libc::_exit(127) }
}

/// Executes the monitor; returns only the error that was in the way.
///
/// # Safety
///
/// To be called in a child that shares memory with a parent that stands still.
unsafe fn become_monitor(child: &Child) -> Result<i32, i32> {
    fn checked(result: libc::c_int) -> Result<libc::c_int, i32> {
        if result >= 0 {
            return Ok(result);
        }
        // SAFETY: the thread's own; the parent, whose it is too, stands still.
        Err(unsafe { *libc::__errno_location() })
    }
    let write_file = |path: &std::ffi::CStr, text: &str| {
        // SAFETY: a path that ends with a zero byte, and bytes that are there.
        unsafe {
            let file = checked(libc::open(path.as_ptr(), libc::O_WRONLY | libc::O_CLOEXEC))?;
            let written = checked(libc::write(file, text.as_ptr().cast(), text.len()) as libc::c_int);
            libc::close(file);
            written
        }
    };
    if let Some(maps) = &child.maps {
        // Without the right to set groups, a group may be mapped by anybody (user_namespaces(7)).
        write_file(c"/proc/self/setgroups", "deny")?;
        write_file(c"/proc/self/uid_map", &maps.user)?;
        write_file(c"/proc/self/gid_map", &maps.group)?;
    }
    // SAFETY: plain system calls on descriptors of our own, with pointers that the parent keeps valid.
    unsafe {
        // An interrupt typed at the terminal is for the process that started the monitor.
        checked(libc::setpgid(0, 0))?;
        checked(libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL))?;
        checked(libc::dup2(child.control, libc::STDIN_FILENO))?;
        checked(libc::dup2(child.log, libc::STDOUT_FILENO))?;
        checked(libc::chdir(c"/".as_ptr()))?;
        let no_variables: [*const libc::c_char; 1] = [ptr::null()];
        checked(libc::execve(
            OWN_EXECUTABLE.as_ptr(),
            child.arguments,
            no_variables.as_ptr(),
        ))
    }
}

/// Makes a copy of this process, which has one thread: in the copy this returns none, here the copy's number. It is a
/// child of this process's parent, and the first process of a PID namespace.
///
/// # Errors
///
/// If the kernel makes none.
pub(crate) fn copy_itself(cgroup: Option<BorrowedFd<'_>>) -> Result<Option<u32>, Errno> {
    let within = if cgroup.is_some() { CLONE_INTO_CGROUP } else { 0 };
    // Who ends it is told by the parent's own signal.
    let arguments = CloneArguments {
        flags: (libc::CLONE_PARENT | libc::CLONE_NEWPID) as u64 | within,
        cgroup: cgroup.map_or(0, |folder| folder.as_raw_fd() as u64),
        ..Default::default()
    };
    // SAFETY: without CLONE_VM this is a fork: the copy has memory and stack of its own, and goes on from here. No other
    // thread is there that could have left something half done.
    let result = unsafe {
        libc::syscall(
            libc::SYS_clone3,
            &raw const arguments,
            size_of::<CloneArguments>(),
        )
    };
    match result {
        0 => Ok(None),
        id => match u32::try_from(id) {
            Ok(id) => Ok(Some(id)),
            Err(_) => Err(Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(Errno::IO)),
        },
    }
}

/// `struct clone_args` (clone(2)).
#[repr(C)]
#[derive(Default)]
struct CloneArguments {
    flags: u64,
    process_descriptor: u64,
    child_thread: u64,
    parent_thread: u64,
    exit_signal: u64,
    stack: u64,
    stack_bytes: u64,
    thread_local: u64,
    set_thread: u64,
    set_thread_count: u64,
    cgroup: u64,
}

/// Makes the child. Returns when it has executed the program or has ended.
fn clone(flags: u64, cgroup: Option<BorrowedFd<'_>>, child: &mut Child) -> Result<Process, Errno> {
    let mut stack = vec![0_u128; CHILD_STACK_BYTES / size_of::<u128>()];
    let mut descriptor: RawFd = -1;
    let flags = flags | (libc::CLONE_VM | libc::CLONE_VFORK | libc::CLONE_PIDFD) as u64;
    let arguments = CloneArguments {
        flags,
        process_descriptor: (&raw mut descriptor) as u64,
        exit_signal: libc::SIGCHLD as u64,
        stack: stack.as_mut_ptr() as u64,
        stack_bytes: CHILD_STACK_BYTES as u64,
        cgroup: cgroup.map_or(0, |folder| folder.as_raw_fd() as u64),
        ..Default::default()
    };
    let signals = BlockedSignals::new();
    // SAFETY: the stack is as large as said, aligned as its elements are, and outlives the child's use of it; `child`
    // is what `child_main` expects. The child calls that and never returns from it.
    let mut result = unsafe { clone3(&arguments, child) };
    if result == -libc::ENOSYS as isize && cgroup.is_none() {
        // Kernels before 5.3, and containers whose runtime refuses what it does not know.
        // SAFETY: as above; the stack grows down from its end.
        result = unsafe {
            let top = stack.as_mut_ptr().cast::<u8>().add(CHILD_STACK_BYTES);
            let flags = flags as libc::c_int | libc::SIGCHLD;
            let pointer = ptr::from_mut(child).cast::<c_void>();
            match libc::clone(
                child_main_of_clone,
                top.cast(),
                flags,
                pointer,
                &raw mut descriptor,
            ) {
                -1 => -(*libc::__errno_location() as isize),
                id => id as isize,
            }
        };
    }
    drop(signals);
    if result < 0 {
        return Err(Errno::from_raw_os_error(-result as i32));
    }
    Ok(Process {
        // SAFETY: the kernel has just made it for us.
        descriptor: unsafe { OwnedFd::from_raw_fd(descriptor) },
        id: result as u32,
    })
}

extern "C" fn child_main_of_clone(child: *mut c_void) -> libc::c_int {
    // SAFETY: `clone` below gives what is asked for.
    unsafe { child_main(child) }
}

/// `clone3` with a stack for the child, which calls [`child_main`] on it: a function of C that returned twice would
/// find its return address overwritten.
///
/// # Safety
///
/// `arguments` name a stack that is aligned to 16 bytes and has room for `child_main`, and memory is shared only with
/// `CLONE_VFORK`.
unsafe fn clone3(arguments: &CloneArguments, child: &mut Child) -> isize {
    let result: isize;
    // SAFETY: the parent sees a system call that clobbers what system calls do. The child has the same registers but
    // for the stack pointer, and never comes out of the block: `child_main` does not return.
    unsafe {
        core::arch::asm!(
            "syscall",
            "test rax, rax",
            "jnz 2f",
            "xor ebp, ebp",
            "mov rdi, r9",
            "call r8",
            "ud2",
            "2:",
            inlateout("rax") libc::SYS_clone3 as isize => result,
            in("rdi") arguments,
            in("rsi") size_of::<CloneArguments>(),
            in("r8") child_main as unsafe extern "C" fn(*mut c_void) -> libc::c_int,
            in("r9") ptr::from_mut(child),
            lateout("rcx") _,
            lateout("r11") _,
        );
    }
    result
}

/// All signals are blocked while this lives, so that no handler runs in the child, on its parent's memory. The child
/// keeps them blocked; the monitor lets them through first thing.
struct BlockedSignals(libc::sigset_t);

impl BlockedSignals {
    fn new() -> Self {
        // SAFETY: both sets are written before they are read.
        unsafe {
            let mut all = std::mem::zeroed();
            let mut before = std::mem::zeroed();
            libc::sigfillset(&raw mut all);
            libc::pthread_sigmask(libc::SIG_SETMASK, &raw const all, &raw mut before);
            Self(before)
        }
    }
}

impl Drop for BlockedSignals {
    fn drop(&mut self) {
        // SAFETY: the set that was there before.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const self.0, ptr::null_mut()) };
    }
}

/// Lets all signals through: the parent has blocked them for the start.
pub(crate) fn unblock_signals() {
    // SAFETY: an empty set.
    unsafe {
        let mut none = std::mem::zeroed();
        libc::sigemptyset(&raw mut none);
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const none, ptr::null_mut());
    }
}

/// The user (and group) that a monitor process becomes where the daemon is root: a number that no other process has.
/// Process numbers are unique, so nothing has to be kept of it; and no file has such an owner.
#[must_use]
pub fn own_user(process_id: u32) -> Option<u32> {
    const BASE: u32 = 0x7000_0000;
    geteuid().is_root().then(|| BASE + process_id)
}
