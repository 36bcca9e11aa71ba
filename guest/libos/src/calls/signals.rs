//! Signals: actions, masks, sending, waiting.

use linux_raw_sys::general as linux;
use linux_raw_sys::general as nr;

use super::files::add;
use super::{Answer, Arguments, CallResult, Failure};
use crate::errno::Errno;
use crate::files::signal::SignalFile;
use crate::kernel::Kernel;
use crate::process::ProcessId;
use crate::signals::{
    AlternateStack, SIGNALS, SS_AUTODISARM, SignalAction, SignalInfo, bit, code, unblockable,
};
use crate::task::TaskId;
use crate::time::{monotonic_ns, parse_timespec};

/// Size of a set of signals.
const SET_BYTES: u64 = 8;
/// The `SA_…` bits that there are.
const ACTION_FLAGS: u32 = linux::SA_NOCLDSTOP
    | linux::SA_NOCLDWAIT
    | linux::SA_SIGINFO
    | linux::SA_ONSTACK
    | linux::SA_RESTART
    | linux::SA_NODEFER
    | linux::SA_RESETHAND
    | linux::SA_EXPOSE_TAGBITS
    | linux::SA_RESTORER;

pub(super) fn serve(kernel: &mut Kernel, number: u32, arguments: Arguments) -> Option<CallResult> {
    let [first, second, third, ..] = arguments;
    Some(match number {
        nr::__NR_rt_sigaction => rt_sigaction(kernel, arguments),
        nr::__NR_rt_sigprocmask => rt_sigprocmask(kernel, arguments),
        nr::__NR_rt_sigpending => rt_sigpending(kernel, arguments),
        nr::__NR_rt_sigsuspend => rt_sigsuspend(kernel, arguments),
        nr::__NR_rt_sigtimedwait => rt_sigtimedwait(kernel, arguments),
        nr::__NR_rt_sigqueueinfo => rt_sigqueueinfo(kernel, arguments),
        nr::__NR_rt_tgsigqueueinfo => rt_tgsigqueueinfo(kernel, arguments),
        nr::__NR_sigaltstack => sigaltstack(kernel, arguments),
        nr::__NR_pause => Err(Failure::Wait),
        nr::__NR_kill => kill(kernel, arguments),
        nr::__NR_tkill => tgkill(kernel, None, first, second),
        nr::__NR_tgkill => tgkill(kernel, Some(first), second, third),
        nr::__NR_signalfd => signalfd4(kernel, [first, second, third, 0, 0, 0]),
        nr::__NR_signalfd4 => signalfd4(kernel, arguments),
        _ => return None,
    })
}

/// The number of a signal.
fn signal(number: u64) -> Result<u32, Errno> {
    let number = number as u32;
    if (1..=SIGNALS).contains(&number) {
        Ok(number)
    } else {
        Err(Errno::EINVAL)
    }
}

/// A set of signals, less those that cannot be blocked.
fn read_set(kernel: &mut Kernel, address: u64, bytes: u64) -> Result<u64, Errno> {
    if bytes != SET_BYTES {
        return Err(Errno::EINVAL);
    }
    Ok(kernel.process.space.read_u64(address)? & !unblockable())
}

fn rt_sigaction(kernel: &mut Kernel, [number, new, old, set_bytes, ..]: Arguments) -> CallResult {
    if set_bytes != SET_BYTES {
        return Err(Errno::EINVAL.into());
    }
    let mut words = [0_u64; 4];
    if new != 0 {
        for (place, word) in words.iter_mut().enumerate() {
            *word = kernel
                .process
                .space
                .read_u64(new.wrapping_add(place as u64 * 8))?;
        }
    }
    let signal = signal(number)?;
    let is_fixed = bit(signal) & unblockable() != 0;
    if is_fixed && new != 0 {
        return Err(Errno::EINVAL.into());
    }
    let previous = kernel.process.action(signal);
    if new != 0 {
        let [handler, flags, restorer, mask] = words;
        let action = SignalAction {
            handler,
            flags: flags & u64::from(ACTION_FLAGS),
            restorer,
            mask: mask & !unblockable(),
        };
        kernel.process.set_action(signal, action);
        if action.ignores(signal) {
            forget(kernel, bit(signal));
        }
    }
    if old != 0 {
        let words = [previous.handler, previous.flags, previous.restorer, previous.mask];
        for (place, word) in words.into_iter().enumerate() {
            let address = old.wrapping_add(place as u64 * 8);
            kernel.process.space.write(address, &word.to_le_bytes())?;
        }
    }
    Ok(0)
}

/// Drops signals that wait for the process or one of its threads.
fn forget(kernel: &mut Kernel, set: u64) {
    kernel.process.signals.forget(set);
    let process = kernel.process.id;
    for task in kernel.tasks.values_mut().filter(|task| task.process == process) {
        task.signals.pending.forget(set);
    }
    let left = kernel.task().signals.pending.set();
    kernel.process.signals.thread_set.set(left);
}

fn rt_sigprocmask(kernel: &mut Kernel, [how, new, old, set_bytes, ..]: Arguments) -> CallResult {
    if set_bytes != SET_BYTES {
        return Err(Errno::EINVAL.into());
    }
    let previous = kernel.task().signals.mask;
    if new != 0 {
        let given = read_set(kernel, new, set_bytes)?;
        let mask = match how as u32 {
            linux::SIG_BLOCK => previous | given,
            linux::SIG_UNBLOCK => previous & !given,
            linux::SIG_SETMASK => given,
            _ => return Err(Errno::EINVAL.into()),
        };
        kernel.set_signal_mask(mask);
    }
    if old != 0 {
        kernel.process.space.write(old, &previous.to_le_bytes())?;
    }
    Ok(0)
}

fn rt_sigpending(kernel: &mut Kernel, [address, set_bytes, ..]: Arguments) -> CallResult {
    if set_bytes > SET_BYTES {
        return Err(Errno::EINVAL.into());
    }
    let of_process = kernel.process.signals.pending_set.get();
    let signals = &kernel.task().signals;
    let set = (signals.pending.set() | of_process) & signals.mask;
    kernel
        .process
        .space
        .write(address, &set.to_le_bytes()[..set_bytes as usize])?;
    Ok(0)
}

/// Lets a call that may wait do so under a mask of its own. The mask before comes back when the call ends.
fn wait_under(kernel: &mut Kernel, mask: u64) {
    let signals = &mut kernel.task().signals;
    if signals.saved_mask.is_none() {
        signals.saved_mask = Some(signals.mask);
        kernel.set_signal_mask(mask);
    }
}

/// The masks that `ppoll` and its kin bring.
pub(super) fn bring_mask(kernel: &mut Kernel, number: u32, arguments: Arguments) -> Result<(), Errno> {
    if kernel.task().signals.saved_mask.is_some() {
        return Ok(());
    }
    let (address, bytes) = match number {
        nr::__NR_ppoll => (arguments[3], arguments[4]),
        nr::__NR_pselect6 if arguments[5] == 0 => (0, 0),
        nr::__NR_pselect6 => {
            let pair = arguments[5];
            let address = kernel.process.space.read_u64(pair)?;
            (address, kernel.process.space.read_u64(pair.wrapping_add(8))?)
        }
        _ => (arguments[4], arguments[5]),
    };
    if address != 0 {
        let mask = read_set(kernel, address, bytes)?;
        wait_under(kernel, mask);
    }
    Ok(())
}

fn rt_sigsuspend(kernel: &mut Kernel, [address, set_bytes, ..]: Arguments) -> CallResult {
    if kernel.task().signals.saved_mask.is_none() {
        let mask = read_set(kernel, address, set_bytes)?;
        wait_under(kernel, mask);
    }
    Err(Failure::Wait)
}

fn rt_sigtimedwait(kernel: &mut Kernel, [set, info, timeout, set_bytes, ..]: Arguments) -> CallResult {
    let set = read_set(kernel, set, set_bytes)?;
    let span_ns = match timeout {
        0 => None,
        _ => Some(parse_timespec(kernel.process.space.read_array(timeout)?).ok_or(Errno::EINVAL)?),
    };
    if let Some(found) = kernel.take_signal(set) {
        if info != 0 {
            kernel.process.space.write(info, &found.to_bytes())?;
        }
        return Ok(u64::from(found.signal));
    }
    if let Some(span_ns) = span_ns {
        let now_ns = monotonic_ns();
        let memory = &mut kernel.task().memory;
        let deadline_ns = *memory.deadline_ns.get_or_insert(now_ns.saturating_add(span_ns));
        if now_ns >= deadline_ns {
            return Err(Errno::EAGAIN.into());
        }
    }
    kernel.process.signals.moved.add_task(kernel.current);
    Err(Failure::Wait)
}

pub(super) fn rt_sigreturn(kernel: &mut Kernel) -> Answer {
    if kernel.return_from_handler().is_ok() {
        return Answer::Resume;
    }
    // There is no frame: the program has lost its way.
    let current = kernel.current;
    kernel.task().signals.mask &= !bit(linux::SIGSEGV);
    kernel.process.set_action(linux::SIGSEGV, SignalAction::default());
    kernel.raise_thread(current, SignalInfo::kernel(linux::SIGSEGV));
    Answer::Resume
}

fn sigaltstack(kernel: &mut Kernel, [new, old, ..]: Arguments) -> CallResult {
    let task = kernel.task();
    let pointer = task.context.registers.general[4];
    let former = task.signals.alternate;
    if new != 0 {
        let stack = AlternateStack::from_bytes(&kernel.process.space.read_array(new)?);
        kernel.set_alternate_stack(stack, pointer)?;
    }
    if old != 0 {
        let flags = former.state(pointer) | former.flags & SS_AUTODISARM;
        kernel.process.space.write(old, &former.to_bytes(flags))?;
    }
    Ok(0)
}

/// Whom `kill` means.
fn targets(kernel: &Kernel, target: i32) -> Result<ProcessId, Errno> {
    let own = &kernel.process;
    let exists = |id: ProcessId| own.id == id || kernel.parked.contains_key(&id);
    match target {
        // There is one process, as a rule: the group and everyone are that one.
        0 | -1 => Ok(own.id),
        ..-1 if target.unsigned_abs() == own.group => Ok(own.id),
        1.. if exists(target.cast_unsigned()) => Ok(target.cast_unsigned()),
        // The number of a thread names its process.
        1.. => kernel
            .tasks
            .get(&target.cast_unsigned())
            .map(|task| task.process)
            .ok_or(Errno::ESRCH),
        _ => Err(Errno::ESRCH),
    }
}

fn kill(kernel: &mut Kernel, [target, number, ..]: Arguments) -> CallResult {
    if number as u32 > SIGNALS {
        return Err(Errno::EINVAL.into());
    }
    let process = targets(kernel, target as u32 as i32)?;
    if number as u32 != 0 {
        let info = SignalInfo::sent(number as u32, code::SI_USER, kernel.process.id);
        kernel.raise_on(process, info);
    }
    Ok(0)
}

/// The thread that `tgkill` and its kin mean.
fn thread(kernel: &Kernel, process: Option<u64>, thread: u64) -> Result<TaskId, Errno> {
    let positive = |number: u64| {
        let number = number as u32;
        (number.cast_signed() > 0).then_some(number).ok_or(Errno::EINVAL)
    };
    let process = process.map(positive).transpose()?;
    let id = positive(thread)?;
    let task = kernel.tasks.get(&id).ok_or(Errno::ESRCH)?;
    if process.is_some_and(|process| process != task.process) {
        return Err(Errno::ESRCH);
    }
    Ok(id)
}

fn tgkill(kernel: &mut Kernel, process: Option<u64>, target: u64, number: u64) -> CallResult {
    let id = thread(kernel, process, target)?;
    if number as u32 > SIGNALS {
        return Err(Errno::EINVAL.into());
    }
    if number as u32 != 0 {
        let info = SignalInfo::sent(number as u32, code::SI_TKILL, kernel.process.id);
        kernel.raise_thread(id, info);
    }
    Ok(0)
}

/// The information that a program sends along. To others it may not claim to come from the kernel or from `kill`.
fn read_info(
    kernel: &mut Kernel,
    number: u64,
    address: u64,
    receiver: Option<ProcessId>,
) -> Result<SignalInfo, Errno> {
    let bytes = kernel.process.space.read_array(address)?;
    let info = SignalInfo::from_bytes(number as u32, &bytes);
    let claims = info.code >= 0 || info.code == code::SI_TKILL;
    if claims && receiver.is_some_and(|receiver| receiver != kernel.process.id) {
        return Err(Errno::EPERM);
    }
    Ok(info)
}

fn rt_sigqueueinfo(kernel: &mut Kernel, [target, number, info, ..]: Arguments) -> CallResult {
    let process = targets(kernel, (target as u32 as i32).max(1));
    let process = if (target as u32 as i32) < 1 {
        Err(Errno::ESRCH)
    } else {
        process
    };
    let info = read_info(kernel, number, info, process.ok())?;
    if number as u32 > SIGNALS {
        return Err(Errno::EINVAL.into());
    }
    let process = process?;
    if number as u32 != 0 && !kernel.raise_on(process, info) {
        return Err(Errno::EAGAIN.into());
    }
    Ok(0)
}

fn rt_tgsigqueueinfo(kernel: &mut Kernel, [process, target, number, info, ..]: Arguments) -> CallResult {
    let receiver = Some(process as u32);
    let info = read_info(kernel, number, info, receiver)?;
    let id = thread(kernel, Some(process), target)?;
    if number as u32 > SIGNALS {
        return Err(Errno::EINVAL.into());
    }
    if number as u32 != 0 && !kernel.raise_thread(id, info) {
        return Err(Errno::EAGAIN.into());
    }
    Ok(0)
}

fn signalfd4(kernel: &mut Kernel, [descriptor, set, set_bytes, flags, ..]: Arguments) -> CallResult {
    if flags & !u64::from(linux::O_CLOEXEC | linux::O_NONBLOCK) != 0 {
        return Err(Errno::EINVAL.into());
    }
    let set = read_set(kernel, set, set_bytes)?;
    if descriptor as u32 as i32 != -1 {
        let open = kernel.process.files.get(descriptor)?;
        open.file.as_signals().ok_or(Errno::EINVAL)?.set(set);
        return Ok(descriptor);
    }
    let file = SignalFile::new(set, &kernel.process.signals);
    let status = linux::O_RDWR | flags as u32 & linux::O_NONBLOCK;
    let close_on_exec = flags & u64::from(linux::O_CLOEXEC) != 0;
    add(kernel, alloc::rc::Rc::new(file), status, close_on_exec)
}
