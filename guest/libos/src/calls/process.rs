//! Process, identity, signals, limits, randomness.

use linux_raw_sys::general as nr;
use linux_raw_sys::general as linux;
use spore_abi::pages::exit_kind;
use spore_machine::{processor, shared, user};

use super::{Answer, Arguments, CallResult};
use crate::errno::Errno;
use crate::files::devices;
use crate::kernel::Kernel;
use crate::memory::Buffers;
use crate::process::{FIRST_PROCESS, SIGNALS};

const ARCH_SET_GS: u64 = 0x1001;
const ARCH_SET_FS: u64 = 0x1002;
const ARCH_GET_FS: u64 = 0x1003;
const ARCH_GET_GS: u64 = 0x1004;
const SIG_DFL: u64 = 0;
const SIG_IGN: u64 = 1;
const PR_SET_NAME: u64 = 15;
const PR_GET_NAME: u64 = 16;
/// Size of the main thread's stack (RLIMIT_STACK).
const STACK_LIMIT: u64 = crate::program::load::STACK_BYTES;

pub(super) fn serve(kernel: &mut Kernel, number: u32, arguments: Arguments) -> CallResult {
    match number {
        nr::__NR_exit_group => shared::end(exit_kind::EXITED, arguments[0] as u32 & 0xff, ""),
        nr::__NR_getpid => Ok(u64::from(kernel.process.id)),
        nr::__NR_gettid => Ok(u64::from(kernel.current)),
        nr::__NR_getppid => Ok(u64::from(kernel.process.parent)),
        // There is one user, root, as in an ordinary container.
        nr::__NR_getuid | nr::__NR_geteuid | nr::__NR_getgid | nr::__NR_getegid => Ok(0),
        nr::__NR_getpgid | nr::__NR_getpgrp | nr::__NR_getsid => Ok(u64::from(FIRST_PROCESS)),
        nr::__NR_set_tid_address => {
            kernel.task().clear_tid_address = arguments[0];
            Ok(u64::from(kernel.current))
        }
        nr::__NR_set_robust_list => Ok(0),
        nr::__NR_arch_prctl => arch_prctl(kernel, arguments),
        nr::__NR_prctl => prctl(kernel, arguments),
        nr::__NR_rt_sigaction => rt_sigaction(kernel, arguments),
        nr::__NR_rt_sigprocmask => rt_sigprocmask(kernel, arguments),
        nr::__NR_kill => kill(kernel, arguments[0], arguments[1]),
        nr::__NR_tkill => kill(kernel, arguments[0], arguments[1]),
        nr::__NR_tgkill => kill(kernel, arguments[1], arguments[2]),
        nr::__NR_prlimit64 => prlimit64(kernel, arguments[1], arguments[2], arguments[3]),
        nr::__NR_getrlimit => prlimit64(kernel, arguments[0], 0, arguments[1]),
        nr::__NR_uname => uname(kernel, arguments),
        nr::__NR_umask => {
            let previous =
                core::mem::replace(&mut kernel.process.file_mode_mask, arguments[0] as u32 & 0o777);
            Ok(u64::from(previous))
        }
        nr::__NR_getrandom => getrandom(kernel, arguments),
        nr::__NR_sched_getaffinity => sched_getaffinity(kernel, arguments),
        nr::__NR_getcpu => getcpu(kernel, arguments),
        _ => {
            kernel.report_missing(u64::from(number));
            Err(Errno::ENOSYS.into())
        }
    }
}

/// `exit`: ends the task, and the process with the last one.
pub(super) fn exit(kernel: &mut Kernel, [status, ..]: Arguments) -> Answer {
    if kernel.tasks.len() == 1 {
        shared::end(exit_kind::EXITED, status as u32 & 0xff, "");
    }
    Answer::Ended
}

fn arch_prctl(kernel: &mut Kernel, [operation, value, ..]: Arguments) -> CallResult {
    match operation {
        ARCH_SET_FS | ARCH_SET_GS if !user::is_program_range(value, 0) => return Err(Errno::EPERM.into()),
        ARCH_SET_FS => processor::set_fs_base(value),
        ARCH_SET_GS => processor::set_gs_base(value),
        ARCH_GET_FS => kernel
            .process
            .space
            .write(value, &processor::fs_base().to_le_bytes())?,
        ARCH_GET_GS => kernel
            .process
            .space
            .write(value, &processor::gs_base().to_le_bytes())?,
        _ => return Err(Errno::EINVAL.into()),
    }
    Ok(0)
}

fn prctl(kernel: &mut Kernel, [operation, address, ..]: Arguments) -> CallResult {
    match operation {
        PR_SET_NAME => {
            // As much of it as is shown; what follows need not even be mapped.
            let mut name = [0; 16];
            for (index, place) in name[..15].iter_mut().enumerate() {
                let [byte] = kernel
                    .process
                    .space
                    .read_array(address.wrapping_add(index as u64))?;
                if byte == 0 {
                    break;
                }
                *place = byte;
            }
            kernel.process.name = name;
        }
        PR_GET_NAME => {
            let name = kernel.process.name;
            kernel.process.space.write(address, &name)?;
        }
        _ => return Err(Errno::EINVAL.into()),
    }
    Ok(0)
}

/// The index of a signal in the table of dispositions.
fn signal_index(signal: u64) -> Result<usize, Errno> {
    let number = usize::try_from(signal).map_err(|_| Errno::EINVAL)?;
    if (1..=SIGNALS).contains(&number) {
        Ok(number - 1)
    } else {
        Err(Errno::EINVAL)
    }
}

fn rt_sigaction(kernel: &mut Kernel, [signal, new, old, set_bytes, ..]: Arguments) -> CallResult {
    let index = signal_index(signal)?;
    let is_fixed = [u64::from(linux::SIGKILL), u64::from(linux::SIGSTOP)].contains(&signal);
    if set_bytes != 8 || (is_fixed && new != 0) {
        return Err(Errno::EINVAL.into());
    }
    let previous = kernel.process.signal_actions[index];
    if new != 0 {
        let mut action = [0; 4];
        for (place, field) in action.iter_mut().enumerate() {
            *field = kernel
                .process
                .space
                .read_u64(new.wrapping_add(place as u64 * 8))?;
        }
        kernel.process.signal_actions[index] = action;
    }
    if old != 0 {
        for (place, field) in previous.iter().enumerate() {
            kernel
                .process
                .space
                .write(old.wrapping_add(place as u64 * 8), &field.to_le_bytes())?;
        }
    }
    Ok(0)
}

fn rt_sigprocmask(kernel: &mut Kernel, [how, new, old, set_bytes, ..]: Arguments) -> CallResult {
    if set_bytes != 8 {
        return Err(Errno::EINVAL.into());
    }
    let previous = kernel.task().signal_mask;
    if new != 0 {
        let given = kernel.process.space.read_u64(new)?;
        let mask = match how as u32 {
            linux::SIG_BLOCK => previous | given,
            linux::SIG_UNBLOCK => previous & !given,
            linux::SIG_SETMASK => given,
            _ => return Err(Errno::EINVAL.into()),
        };
        let unblockable = 1 << (linux::SIGKILL - 1) | 1 << (linux::SIGSTOP - 1);
        kernel.task().signal_mask = mask & !unblockable;
        raise_unblocked(kernel);
    }
    if old != 0 {
        kernel.process.space.write(old, &previous.to_le_bytes())?;
    }
    Ok(0)
}

fn kill(kernel: &mut Kernel, target: u64, signal: u64) -> CallResult {
    let target = target as u32 as i32;
    // The program itself: its process, its group, everything.
    let exists = (-1..=1).contains(&target) || kernel.tasks.contains_key(&target.cast_unsigned());
    if !exists {
        return Err(Errno::ESRCH.into());
    }
    if signal == 0 {
        return Ok(0);
    }
    signal_index(signal)?;
    raise(kernel, signal as u32);
    Ok(0)
}

/// Raises a signal on the program. The default action ends it, unless it is one that is ignored by default; a blocked
/// signal waits. Handlers are not run yet; that one would have been due is said in the log.
pub(super) fn raise(kernel: &mut Kernel, signal: u32) {
    let Ok(index) = signal_index(u64::from(signal)) else {
        return;
    };
    if kernel.task().signal_mask >> index & 1 != 0 {
        kernel.process.pending_signals |= 1 << index;
        return;
    }
    let ignored_by_default =
        [linux::SIGCHLD, linux::SIGURG, linux::SIGWINCH, linux::SIGCONT].contains(&signal);
    match kernel.process.signal_actions[index][0] {
        SIG_DFL if ignored_by_default => {}
        SIG_DFL => shared::end(exit_kind::SIGNALLED, signal, ""),
        SIG_IGN => {}
        _ => kernel.report_unserved_handler(signal),
    }
}

/// Raises the signals that were blocked and no longer are.
fn raise_unblocked(kernel: &mut Kernel) {
    let due = kernel.process.pending_signals & !kernel.task().signal_mask;
    kernel.process.pending_signals &= !due;
    for signal in (1..=SIGNALS as u32).filter(|signal| due >> (signal - 1) & 1 != 0) {
        raise(kernel, signal);
    }
}

fn prlimit64(kernel: &mut Kernel, resource: u64, new: u64, old: u64) -> CallResult {
    let unlimited = u64::MAX;
    let (soft, hard) = match u32::try_from(resource).map_err(|_| Errno::EINVAL)? {
        linux::RLIMIT_STACK => (STACK_LIMIT, unlimited),
        linux::RLIMIT_NOFILE => (super::files::DESCRIPTOR_LIMIT, super::files::DESCRIPTOR_LIMIT),
        linux::RLIMIT_CORE => (0, unlimited),
        0..16 => (unlimited, unlimited),
        _ => return Err(Errno::EINVAL.into()),
    };
    if new != 0 {
        let wanted_soft = kernel.process.space.read_u64(new)?;
        let wanted_hard = kernel.process.space.read_u64(new.wrapping_add(8))?;
        if wanted_soft > wanted_hard {
            return Err(Errno::EINVAL.into());
        }
    }
    if old != 0 {
        kernel.process.space.write(old, &soft.to_le_bytes())?;
        kernel
            .process
            .space
            .write(old.wrapping_add(8), &hard.to_le_bytes())?;
    }
    Ok(0)
}

fn uname(kernel: &mut Kernel, [address, ..]: Arguments) -> CallResult {
    /// Length of a field of `struct utsname`.
    const FIELD: usize = 65;
    // The release is that of the interface that is served, for programs that check it.
    let fields: [&[u8]; 6] = [
        b"Linux",
        b"spore",
        b"6.1.0-spore",
        b"#1 Spore library OS",
        b"x86_64",
        b"(none)",
    ];
    let mut bytes = [0; FIELD * 6];
    for (place, field) in bytes.chunks_mut(FIELD).zip(fields) {
        place[..field.len()].copy_from_slice(field);
    }
    kernel.process.space.write(address, &bytes)?;
    Ok(0)
}

fn getrandom(kernel: &mut Kernel, [address, length, flags, ..]: Arguments) -> CallResult {
    let known = linux::GRND_NONBLOCK | linux::GRND_RANDOM | linux::GRND_INSECURE;
    if flags & !u64::from(known) != 0 {
        return Err(Errno::EINVAL.into());
    }
    Ok(devices::fill_random(
        kernel,
        &mut Buffers::single(address, length),
    )?)
}

fn sched_getaffinity(kernel: &mut Kernel, [_, length, address, ..]: Arguments) -> CallResult {
    if length < 8 || !length.is_multiple_of(8) {
        return Err(Errno::EINVAL.into());
    }
    // One processor.
    kernel.process.space.write(address, &1_u64.to_le_bytes())?;
    Ok(8)
}

fn getcpu(kernel: &mut Kernel, [processor, node, ..]: Arguments) -> CallResult {
    for address in [processor, node] {
        if address != 0 {
            kernel.process.space.write(address, &0_u32.to_le_bytes())?;
        }
    }
    Ok(0)
}
