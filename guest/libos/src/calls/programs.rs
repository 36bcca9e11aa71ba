//! Other programs: `execve`, and waiting for children.

use alloc::rc::Rc;
use alloc::vec::Vec;

use linux_raw_sys::general as linux;
use linux_raw_sys::general as nr;
use spore_abi::layout::PAGE_BYTES;
use spore_machine::processor;

use super::{Answer, Arguments, CallResult, let_go, paths};
use crate::children::Zombie;
use crate::errno::Errno;
use crate::files::File;
use crate::files::tree::opening;
use crate::files::tree::walk::Target;
use crate::kernel::Kernel;
use crate::memory::AddressSpace;
use crate::process::{FIRST_PROCESS, ProcessId};
use crate::program::load::{self, Placed, Strings};
use crate::signals::AlternateStack;
use crate::task::Memory;
use crate::time;
use crate::timers::ProcessTimers;

/// Longest argument or variable, as on Linux (`MAX_ARG_STRLEN`).
const STRING_BYTES_MAX: usize = 32 * PAGE_BYTES as usize;
/// Most bytes of all arguments and variables with their pointers. The library OS holds them meanwhile.
const STRINGS_BYTES_MAX: usize = 512 * 1024;
/// Size of `struct rusage`.
const USAGE_BYTES: usize = 144;
/// Size of `siginfo_t`.
const INFO_BYTES: usize = 128;

pub(super) fn serve(kernel: &mut Kernel, number: u32, arguments: Arguments) -> Option<CallResult> {
    Some(match number {
        nr::__NR_wait4 => wait4(kernel, arguments),
        nr::__NR_waitid => waitid(kernel, arguments),
        _ => return None,
    })
}

/// `execve` and `execveat`.
pub(super) fn execute(kernel: &mut Kernel, number: u32, arguments: Arguments) -> Answer {
    let [first, second, third, fourth, fifth, _] = arguments;
    let result = if number == nr::__NR_execveat {
        find_at(kernel, first, second, fifth)
            .and_then(|(file, path)| replace_program(kernel, file, &path, third, fourth))
    } else {
        find(kernel, first).and_then(|(file, path)| replace_program(kernel, file, &path, second, third))
    };
    match result {
        Ok(()) => Answer::Resume,
        Err(errno) => Answer::Result(errno.as_result()),
    }
}

type Found = (Rc<dyn File>, Vec<u8>);

fn find(kernel: &mut Kernel, address: u64) -> Result<Found, Errno> {
    let path = paths::read_path(kernel, address)?;
    let file = crate::files::open_program(kernel, &path)?;
    Ok((file, path))
}

fn find_at(kernel: &mut Kernel, directory: u64, address: u64, flags: u64) -> Result<Found, Errno> {
    let known = u64::from(linux::AT_EMPTY_PATH | linux::AT_SYMLINK_NOFOLLOW);
    if flags & !known != 0 {
        return Err(Errno::EINVAL);
    }
    let mut path = paths::read_path(kernel, address)?;
    let file = match paths::resolve(kernel, directory, address, flags)? {
        Target::Entry(entry) => opening::executable(entry)?,
        Target::Open(open) if open.file.size().is_some() => Rc::clone(&open.file),
        Target::Open(_) => return Err(Errno::EACCES),
    };
    if path.is_empty() {
        // What programs find as their path, if they are started by a descriptor.
        path = alloc::format!("/dev/fd/{}", directory as u32).into_bytes();
    }
    Ok((file, path))
}

/// Lets the running task's process go on with another program.
fn replace_program(
    kernel: &mut Kernel,
    file: Rc<dyn File>,
    path: &[u8],
    arguments: u64,
    environment: u64,
) -> Result<(), Errno> {
    let mut left = STRINGS_BYTES_MAX;
    let arguments = read_strings(&mut kernel.process.space, arguments, &mut left)?;
    let environment = read_strings(&mut kernel.process.space, environment, &mut left)?;
    let image = load::resolve(kernel, file, path, arguments).map_err(|error| error.errno())?;
    let mut fresh = kernel.process.space.sibling()?;
    fresh.is_helper = kernel.process.id != FIRST_PROCESS;
    let mut previous = core::mem::replace(&mut kernel.process.space, fresh);
    kernel.process.space.activate();
    let placed = match load::place(kernel, &image, &environment) {
        Ok(placed) => placed,
        Err(error) => {
            let mut fresh = core::mem::replace(&mut kernel.process.space, previous);
            kernel.process.space.activate();
            fresh.clear();
            return Err(error.errno());
        }
    };
    match kernel.process.borrows_from.take() {
        Some(owner) => kernel.return_space(owner, previous),
        None => previous.clear(),
    }
    begin_program(kernel, placed);
    Ok(())
}

/// What `execve` changes besides memory.
fn begin_program(kernel: &mut Kernel, placed: Placed) {
    let current = kernel.current;
    kernel.end_tasks(Some(current));
    let leader = kernel.process.id;
    if current != leader
        && let Some(task) = kernel.tasks.remove(&current)
    {
        // The task that goes on is the process's first.
        kernel.tasks.insert(leader, task);
        kernel.ready.push(leader);
        kernel.current = leader;
        if kernel.loaded == current {
            kernel.loaded = leader;
        }
    }
    for open in kernel.process.files.take_closed_by_exec() {
        let_go(kernel, open);
    }
    kernel.process.clear_handlers();
    kernel.process.timers = ProcessTimers::default();
    kernel.process.note_program(&placed);
    let task = kernel.task();
    task.context = placed.context;
    task.extended.reset();
    task.extended.restore();
    task.name = placed.name;
    task.clear_tid_address = 0;
    task.robust_list = 0;
    task.sequences = None;
    task.signals.alternate = AlternateStack::none();
    task.signals.saved_mask = None;
    task.memory = Memory::default();
    processor::set_fs_base(0);
    processor::set_gs_base(0);
}

/// An array of strings that ends with a null pointer; `left` is what all together may take.
fn read_strings(space: &mut AddressSpace, array: u64, left: &mut usize) -> Result<Strings, Errno> {
    let mut strings = Vec::new();
    if array == 0 {
        return Ok(strings);
    }
    for index in 0.. {
        let address = space.read_u64(array.wrapping_add(index * 8))?;
        if address == 0 {
            break;
        }
        let limit = STRING_BYTES_MAX.min(*left);
        let text = space.read_string(address, limit, Errno::E2BIG)?;
        *left = left.checked_sub(text.len() + 32).ok_or(Errno::E2BIG)?;
        strings.push(text);
    }
    Ok(strings)
}

/// Which children a call waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Choice {
    Any,
    Process(ProcessId),
    Group(ProcessId),
}

impl Choice {
    fn takes(self, id: ProcessId, group: ProcessId) -> bool {
        match self {
            Self::Any => true,
            Self::Process(process) => process == id,
            Self::Group(wanted) => wanted == group,
        }
    }
}

/// What a call that waits for a child has found.
enum Wait {
    Ended(ProcessId, Zombie),
    /// There are children, and none has ended.
    Nothing,
}

/// Finds a child that has ended; if there is none, and `may_wait`, the task waits for one.
fn wait_for(kernel: &mut Kernel, choice: Choice, may_wait: bool) -> Result<Wait, super::Failure> {
    let own = kernel.process.id;
    let ended = kernel
        .zombies
        .iter()
        .find(|&(&id, zombie)| zombie.parent == own && choice.takes(id, zombie.group));
    if let Some((&id, &zombie)) = ended {
        return Ok(Wait::Ended(id, zombie));
    }
    let mut children = kernel.parked.values().filter(|process| process.parent == own);
    if !children.any(|child| choice.takes(child.id, child.group)) {
        return Err(Errno::ECHILD.into());
    }
    if !may_wait {
        return Ok(Wait::Nothing);
    }
    kernel.process.children_moved.add_task(kernel.current);
    Err(super::Failure::Wait)
}

/// Takes what is left of a child away.
fn reap(kernel: &mut Kernel, id: ProcessId, zombie: Zombie) {
    kernel.zombies.remove(&id);
    kernel.process.children_run_ticks += zombie.run_ticks;
}

fn wait4(kernel: &mut Kernel, [wanted, status, options, usage, ..]: Arguments) -> CallResult {
    let options = options as u32;
    let known = linux::WNOHANG
        | linux::WUNTRACED
        | linux::WCONTINUED
        | linux::__WNOTHREAD
        | linux::__WALL
        | linux::__WCLONE;
    if options & !known != 0 {
        return Err(Errno::EINVAL.into());
    }
    let choice = match wanted as u32 as i32 {
        -1 => Choice::Any,
        0 => Choice::Group(kernel.process.group),
        i32::MIN => return Err(Errno::ESRCH.into()),
        group @ ..0 => Choice::Group(group.unsigned_abs()),
        id => Choice::Process(id.cast_unsigned()),
    };
    match wait_for(kernel, choice, options & linux::WNOHANG == 0)? {
        Wait::Nothing => Ok(0),
        Wait::Ended(id, zombie) => {
            reap(kernel, id, zombie);
            if status != 0 {
                let value = zombie.end.status().to_le_bytes();
                kernel.process.space.write(status, &value)?;
            }
            write_usage(kernel, usage, zombie)?;
            Ok(u64::from(id))
        }
    }
}

fn waitid(kernel: &mut Kernel, [kind, wanted, info, options, usage, _]: Arguments) -> CallResult {
    const P_ALL: u32 = 0;
    const P_PID: u32 = 1;
    const P_PGID: u32 = 2;
    const P_PIDFD: u32 = 3;
    let options = options as u32;
    let events = linux::WEXITED | linux::WSTOPPED | linux::WCONTINUED;
    let known =
        events | linux::WNOHANG | linux::WNOWAIT | linux::__WNOTHREAD | linux::__WALL | linux::__WCLONE;
    if options & !known != 0 || options & events == 0 {
        return Err(Errno::EINVAL.into());
    }
    let number = wanted as u32;
    let choice = match kind as u32 {
        P_ALL => Choice::Any,
        P_PID if number.cast_signed() > 0 => Choice::Process(number),
        P_PGID if number == 0 => Choice::Group(kernel.process.group),
        P_PGID if number.cast_signed() > 0 => Choice::Group(number),
        P_PIDFD => Choice::Process(super::foreign::described(kernel, wanted)?),
        _ => return Err(Errno::EINVAL.into()),
    };
    let mut bytes = [0; INFO_BYTES];
    match wait_for(kernel, choice, options & linux::WNOHANG == 0)? {
        Wait::Nothing => {}
        Wait::Ended(id, zombie) => {
            let (code, status) = zombie.end.code_and_status();
            bytes[..4].copy_from_slice(&linux::SIGCHLD.to_le_bytes());
            bytes[8..12].copy_from_slice(&code.to_le_bytes());
            bytes[16..20].copy_from_slice(&id.to_le_bytes());
            bytes[24..28].copy_from_slice(&status.to_le_bytes());
            if options & linux::WNOWAIT == 0 {
                reap(kernel, id, zombie);
            }
            write_usage(kernel, usage, zombie)?;
        }
    }
    if info != 0 {
        kernel.process.space.write(info, &bytes)?;
    }
    Ok(0)
}

fn write_usage(kernel: &mut Kernel, address: u64, zombie: Zombie) -> Result<(), Errno> {
    if address == 0 {
        return Ok(());
    }
    let micros = time::ticks_to_ns(zombie.run_ticks) / 1000;
    let mut bytes = [0; USAGE_BYTES];
    bytes[..8].copy_from_slice(&(micros / 1_000_000).to_le_bytes());
    bytes[8..16].copy_from_slice(&(micros % 1_000_000).to_le_bytes());
    kernel.process.space.write(address, &bytes)
}
