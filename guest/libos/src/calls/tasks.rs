//! Threads: how they begin and end.

use linux_raw_sys::general as linux;
use linux_raw_sys::general as nr;
use spore_abi::ring::LogOrigin;
use spore_machine::{processor, shared, user};

use super::{Answer, Arguments, CallResult, Failure, futex};
use crate::children::ProcessEnd;
use crate::errno::Errno;
use crate::kernel::Kernel;
use crate::process::FIRST_PROCESS;
use crate::sequences::{AREA_BYTES, Area};
use crate::signals::TaskSignals;
use crate::task::{Memory, TASK_IDS, Task, TaskId};

/// Entries of a list of robust futexes that are looked at, as on Linux (`ROBUST_LIST_LIMIT`).
const ROBUST_MAX: usize = 2048;
/// Size of `struct robust_list_head`.
const ROBUST_HEAD_BYTES: u64 = 24;

/// What all forms of `clone` ask for.
#[derive(Debug, Clone, Copy)]
struct Request {
    flags: u64,
    /// The signal that the parent gets at the end of a process.
    exit_signal: u32,
    /// Stack pointer of the child; 0 for the parent's.
    stack: u64,
    parent_tid: u64,
    child_tid: u64,
    thread_pointer: u64,
}

impl Request {
    fn has(&self, flag: u32) -> bool {
        self.flags & u64::from(flag) != 0
    }
}

pub(super) fn serve(kernel: &mut Kernel, number: u32, arguments: Arguments) -> Option<CallResult> {
    Some(match number {
        nr::__NR_exit_group => {
            kernel.end_process(ProcessEnd::Exited(arguments[0] as u8));
            Ok(0)
        }
        nr::__NR_gettid => Ok(u64::from(kernel.current)),
        nr::__NR_set_tid_address => {
            kernel.task().clear_tid_address = arguments[0];
            Ok(u64::from(kernel.current))
        }
        nr::__NR_set_robust_list => set_robust_list(kernel, arguments),
        nr::__NR_get_robust_list => get_robust_list(kernel, arguments),
        nr::__NR_rseq => rseq(kernel, arguments),
        nr::__NR_fork => refuse_fork(kernel),
        nr::__NR_vfork => begin(
            kernel,
            Request {
                flags: u64::from(linux::CLONE_VM | linux::CLONE_VFORK),
                exit_signal: linux::SIGCHLD,
                stack: 0,
                parent_tid: 0,
                child_tid: 0,
                thread_pointer: 0,
            },
        ),
        _ => return None,
    })
}

pub(super) fn clone(
    kernel: &mut Kernel,
    [flags, stack, parent_tid, child_tid, thread_pointer, _]: Arguments,
) -> CallResult {
    // The low byte is the signal at the end of a process; DETACHED has no meaning any more.
    let mask = u64::from(linux::CSIGNAL | linux::CLONE_DETACHED);
    begin(
        kernel,
        Request {
            flags: flags & 0xffff_ffff & !mask,
            exit_signal: flags as u32 & linux::CSIGNAL,
            stack,
            parent_tid,
            child_tid,
            thread_pointer,
        },
    )
}

pub(super) fn clone3(kernel: &mut Kernel, [address, length, ..]: Arguments) -> CallResult {
    const WORDS: usize = 11;
    const FIRST_VERSION_BYTES: u64 = 64;
    const PAGE_BYTES: u64 = 4096;
    if length < FIRST_VERSION_BYTES {
        return Err(Errno::EINVAL.into());
    }
    if length > PAGE_BYTES {
        return Err(Errno::E2BIG.into());
    }
    let mut bytes = [0; PAGE_BYTES as usize];
    let bytes = &mut bytes[..length as usize];
    kernel.process.space.read(address, bytes)?;
    if bytes.iter().skip(WORDS * 8).any(|&byte| byte != 0) {
        return Err(Errno::E2BIG.into());
    }
    let mut words = [0; WORDS];
    for (word, bytes) in words.iter_mut().zip(bytes.as_chunks::<8>().0) {
        *word = u64::from_le_bytes(*bytes);
    }
    let [
        flags,
        _,
        child_tid,
        parent_tid,
        signal,
        stack,
        stack_bytes,
        thread_pointer,
        set_tid,
        set_tid_count,
        _,
    ] = words;
    let not_here = u64::from(linux::CSIGNAL | linux::CLONE_DETACHED) & !u64::from(linux::CLONE_NEWTIME);
    let is_thread = flags & u64::from(linux::CLONE_THREAD | linux::CLONE_PARENT) != 0;
    let is_nonsense = flags & not_here != 0
        || signal > 64
        || is_thread && signal != 0
        || (stack == 0) != (stack_bytes == 0)
        || stack != 0 && !user::is_program_range(stack, stack_bytes)
        || set_tid != 0
        || set_tid_count != 0;
    if is_nonsense {
        return Err(Errno::EINVAL.into());
    }
    begin(
        kernel,
        Request {
            flags,
            exit_signal: signal as u32,
            stack: stack.wrapping_add(stack_bytes),
            parent_tid,
            child_tid,
            thread_pointer,
        },
    )
}

fn begin(kernel: &mut Kernel, request: Request) -> CallResult {
    let is_nonsense = request.has(linux::CLONE_THREAD) && !request.has(linux::CLONE_SIGHAND)
        || request.has(linux::CLONE_SIGHAND) && !request.has(linux::CLONE_VM)
        || request.has(linux::CLONE_THREAD) && request.has(linux::CLONE_PIDFD | linux::CLONE_NEWPID)
        || request.has(linux::CLONE_FS) && request.has(linux::CLONE_NEWNS | linux::CLONE_NEWUSER);
    if is_nonsense {
        return Err(Errno::EINVAL.into());
    }
    let is_process = !request.has(linux::CLONE_THREAD);
    if is_process && !request.has(linux::CLONE_VM) {
        return refuse_fork(kernel);
    }
    if is_process && !request.has(linux::CLONE_VFORK) {
        // Two processes that run side by side in one address space: nobody asks for that.
        return Err(Errno::EINVAL.into());
    }
    if request.has(linux::CLONE_SETTLS) && !user::is_program_range(request.thread_pointer, 0) {
        return Err(Errno::EPERM.into());
    }
    let id = kernel.free_task_id().ok_or(Errno::EAGAIN)?;
    let signal_budget = kernel.signal_budget.clone();
    let parent = kernel.task();
    let mut context = parent.context.clone();
    context.set_result(0);
    if request.stack != 0 {
        context.registers.general[4] = request.stack;
    }
    context.fs_base = match request.has(linux::CLONE_SETTLS) {
        true => request.thread_pointer,
        false => processor::fs_base(),
    };
    context.gs_base = processor::gs_base();
    parent.extended.save();
    let task = Task {
        process: if is_process { id } else { parent.process },
        context,
        extended: parent.extended.duplicate(),
        pending: None,
        memory: Memory::default(),
        name: parent.name,
        clear_tid_address: match request.has(linux::CLONE_CHILD_CLEARTID) {
            true => request.child_tid,
            false => 0,
        },
        robust_list: 0,
        sequences: None,
        signals: TaskSignals::new(parent.signals.mask, &signal_budget),
        run_ticks: 0,
        nice: parent.nice,
        policy: parent.policy,
    };
    // As on Linux, an address that is no good is passed over.
    if request.has(linux::CLONE_PARENT_SETTID) {
        let _ = kernel.process.space.write(request.parent_tid, &id.to_le_bytes());
    }
    if request.has(linux::CLONE_CHILD_SETTID) {
        let _ = kernel.process.space.write(request.child_tid, &id.to_le_bytes());
    }
    if is_process {
        kernel.begin_child(id, request.exit_signal)?;
        if request.flags & linux::CLONE_CLEAR_SIGHAND != 0
            && let Some(child) = kernel.process_mut(id)
        {
            child.clear_handlers();
        }
    }
    kernel.tasks.insert(id, task);
    kernel.ready.push(id);
    Ok(u64::from(id))
}

/// A second process with a copy of the memory: not served, and said so once.
fn refuse_fork(kernel: &mut Kernel) -> CallResult {
    if !core::mem::replace(&mut kernel.reported_fork, true) {
        let line = "fork is not served: it fails with ENOSYS. Start programs with posix_spawn or vfork and execve.\n";
        shared::log(LogOrigin::Platform, line.as_bytes());
    }
    shared::count_missing_call();
    Err(Errno::ENOSYS.into())
}

/// `exit`: ends the thread, and the process with the last one.
pub(super) fn exit(kernel: &mut Kernel, [status, ..]: Arguments) -> Answer {
    kernel.end_task(status as u8);
    Answer::Ended
}

impl Kernel {
    /// A number for a new task; none if there are too many.
    pub(crate) fn free_task_id(&mut self) -> Option<TaskId> {
        if self.tasks.len() >= self.tasks_max {
            return None;
        }
        // There are fewer tasks than numbers.
        loop {
            let id = self.next_task;
            self.next_task = if id + 1 < TASK_IDS {
                id + 1
            } else {
                FIRST_PROCESS + 1
            };
            if !self.tasks.contains_key(&id)
                && id != self.process.id
                && !self.parked.contains_key(&id)
                && !self.zombies.contains_key(&id)
            {
                return Some(id);
            }
        }
    }

    /// Ends the running task, and the process with the last one.
    fn end_task(&mut self, status: u8) {
        self.give_up_robust_futexes();
        let id = self.current;
        let clear_tid_address = core::mem::take(&mut self.task().clear_tid_address);
        if clear_tid_address != 0 && self.process.space.write(clear_tid_address, &[0; 4]).is_ok() {
            futex::wake_one(self, clear_tid_address);
        }
        self.futexes.forget(id);
        self.leave_signals();
        self.tasks.remove(&id);
        self.loaded = 0;
        if id == self.process.id {
            self.process.main_status = status;
        }
        let process = self.process.id;
        if !self.tasks.values().any(|task| task.process == process) {
            self.end_process(ProcessEnd::Exited(self.process.main_status));
        }
    }

    /// Marks the robust futexes that the running task holds, and wakes one waiter of each.
    fn give_up_robust_futexes(&mut self) {
        let head = core::mem::take(&mut self.task().robust_list);
        if head == 0 {
            return;
        }
        let Ok(mut entry) = self.process.space.read_u64(head) else {
            return;
        };
        let (Ok(offset), Ok(pending)) = (
            self.process.space.read_u64(head.wrapping_add(8)),
            self.process.space.read_u64(head.wrapping_add(16)),
        ) else {
            return;
        };
        // The lowest bit marks futexes with priority inheritance.
        let address = |entry: u64| (entry & !1).wrapping_add(offset);
        for _ in 0..ROBUST_MAX {
            if entry & !1 == head {
                break;
            }
            // Where to go on is read first: another thread may take the futex over.
            let next = self.process.space.read_u64(entry & !1);
            if entry & !1 != pending & !1 && self.give_up_robust_futex(address(entry)).is_err() {
                return;
            }
            match next {
                Ok(next) => entry = next,
                Err(_) => return,
            }
        }
        if pending & !1 != 0 {
            // The thread is gone; there is nobody to tell of a bad address.
            let _ = self.give_up_robust_futex(address(pending));
        }
    }

    fn give_up_robust_futex(&mut self, address: u64) -> Result<(), Errno> {
        if !address.is_multiple_of(4) {
            return Err(Errno::EINVAL);
        }
        let word = self.process.space.read_u32(address)?;
        if word & linux::FUTEX_TID_MASK != self.current {
            return Ok(());
        }
        let word = word & linux::FUTEX_WAITERS | linux::FUTEX_OWNER_DIED;
        self.process.space.write(address, &word.to_le_bytes())?;
        if word & linux::FUTEX_WAITERS != 0 {
            futex::wake_one(self, address);
        }
        Ok(())
    }
}

fn set_robust_list(kernel: &mut Kernel, [head, length, ..]: Arguments) -> CallResult {
    if length != ROBUST_HEAD_BYTES {
        return Err(Errno::EINVAL.into());
    }
    kernel.task().robust_list = head;
    Ok(0)
}

fn get_robust_list(kernel: &mut Kernel, [task, head, length, ..]: Arguments) -> CallResult {
    let list = kernel.task_named(task)?.robust_list;
    kernel
        .process
        .space
        .write(length, &ROBUST_HEAD_BYTES.to_le_bytes())?;
    kernel.process.space.write(head, &list.to_le_bytes())?;
    Ok(0)
}

/// `rseq`: where the thread has its restartable sequences.
fn rseq(kernel: &mut Kernel, [address, bytes, flags, signature, ..]: Arguments) -> CallResult {
    const UNREGISTER: u32 = 1;
    let wanted = Area {
        address,
        bytes: bytes as u32,
        signature: signature as u32,
    };
    let registered = kernel.task().sequences;
    let is_same = registered.map(|area| {
        if (area.address, area.bytes) != (wanted.address, wanted.bytes) {
            Err(Errno::EINVAL)
        } else if area.signature != wanted.signature {
            Err(Errno::EPERM)
        } else {
            Ok(())
        }
    });
    match (flags as u32, is_same) {
        (UNREGISTER, Some(is_same)) => {
            is_same?;
            write_area(kernel, address, u32::MAX)?;
            kernel.task().sequences = None;
        }
        (0, None) => {
            Area::check(address, wanted.bytes)?;
            write_area(kernel, address, 0)?;
            kernel.task().sequences = Some(wanted);
        }
        (0, Some(is_same)) => {
            is_same?;
            return Err(Errno::EBUSY.into());
        }
        _ => return Err(Errno::EINVAL.into()),
    }
    Ok(0)
}

/// Writes a number of the processor into an area; all else in it is zero.
fn write_area(kernel: &mut Kernel, address: u64, processor: u32) -> Result<(), Errno> {
    const PROCESSOR: usize = 4;
    let mut bytes = [0; AREA_BYTES as usize];
    bytes[PROCESSOR..PROCESSOR + 4].copy_from_slice(&processor.to_le_bytes());
    kernel.process.space.write(address, &bytes)
}

impl Kernel {
    /// The task that a call names by its number, 0 for the running one.
    pub(crate) fn task_named(&mut self, number: u64) -> Result<&mut Task, Failure> {
        match number as u32 as i32 {
            ..0 => Err(Errno::ESRCH.into()),
            0 => Ok(self.task()),
            number => {
                let task = self.tasks.get_mut(&number.cast_unsigned());
                task.ok_or(Failure::Errno(Errno::ESRCH))
            }
        }
    }
}
