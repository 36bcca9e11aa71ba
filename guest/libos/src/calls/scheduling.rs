//! Scheduling: there is one processor, every task gets its turn, and priorities are kept and change nothing.

use linux_raw_sys::general as linux;
use linux_raw_sys::general as nr;

use super::{Arguments, CallResult, Failure};
use crate::errno::Errno;
use crate::kernel::Kernel;
use crate::time::timespec;

/// How long a turn is, as `sched_rr_get_interval` says.
const TURN_NS: u64 = 10_000_000;
/// Highest priority of the policies that have any.
const PRIORITY_MAX: u32 = 99;
const NICE_MAX: i32 = 19;
const NICE_MIN: i32 = -20;
/// Kinds of targets of `getpriority`: process, group, user.
const PRIORITY_TARGETS: u64 = 3;

pub(super) fn serve(kernel: &mut Kernel, number: u32, arguments: Arguments) -> Option<CallResult> {
    let [first, second, third, ..] = arguments;
    Some(match number {
        nr::__NR_sched_getaffinity => sched_getaffinity(kernel, arguments),
        nr::__NR_sched_setaffinity => sched_setaffinity(kernel, arguments),
        nr::__NR_sched_getscheduler => target(kernel, first).map(|_| u64::from(policy(kernel, first)[0])),
        nr::__NR_sched_setscheduler => set_policy(kernel, first, Some(second), third),
        nr::__NR_sched_setparam => set_policy(kernel, first, None, second),
        nr::__NR_sched_getparam => sched_getparam(kernel, arguments),
        nr::__NR_sched_get_priority_max => priority_bound(first, PRIORITY_MAX),
        nr::__NR_sched_get_priority_min => priority_bound(first, 1),
        nr::__NR_sched_rr_get_interval => sched_rr_get_interval(kernel, arguments),
        nr::__NR_getpriority => getpriority(kernel, arguments),
        nr::__NR_setpriority => setpriority(kernel, arguments),
        nr::__NR_getcpu => getcpu(kernel, arguments),
        _ => return None,
    })
}

/// Whether there is the task that a call names.
fn target(kernel: &mut Kernel, number: u64) -> Result<(), Failure> {
    if (number as u32).cast_signed() < 0 {
        return Err(Errno::EINVAL.into());
    }
    kernel.task_named(number).map(|_| ())
}

fn policy(kernel: &mut Kernel, number: u64) -> [u32; 2] {
    kernel.task_named(number).map_or([0; 2], |task| task.policy)
}

fn sched_getaffinity(kernel: &mut Kernel, [task, length, address, ..]: Arguments) -> CallResult {
    let length = length as u32;
    if length < 8 || !length.is_multiple_of(8) {
        return Err(Errno::EINVAL.into());
    }
    kernel.task_named(task)?;
    // One processor.
    kernel.process.space.write(address, &1_u64.to_le_bytes())?;
    Ok(8)
}

fn sched_setaffinity(kernel: &mut Kernel, [task, length, address, ..]: Arguments) -> CallResult {
    let mut mask = [0; 8];
    let length = (length as u32 as usize).min(mask.len());
    kernel.process.space.read(address, &mut mask[..length])?;
    kernel.task_named(task)?;
    if mask[0] & 1 == 0 {
        return Err(Errno::EINVAL.into());
    }
    Ok(0)
}

/// Whether a policy has priorities; an error if there is no such policy.
fn has_priorities(policy: u32) -> Result<bool, Errno> {
    match policy {
        linux::SCHED_FIFO | linux::SCHED_RR => Ok(true),
        linux::SCHED_NORMAL | linux::SCHED_BATCH | linux::SCHED_IDLE => Ok(false),
        _ => Err(Errno::EINVAL),
    }
}

fn set_policy(kernel: &mut Kernel, task: u64, policy: Option<u64>, parameters: u64) -> CallResult {
    if parameters == 0 || (task as u32).cast_signed() < 0 {
        return Err(Errno::EINVAL.into());
    }
    let priority = kernel.process.space.read_u32(parameters)?;
    let task = kernel.task_named(task)?;
    let policy = match policy {
        Some(policy) => policy as u32 & !linux::SCHED_RESET_ON_FORK,
        None => task.policy[0],
    };
    let has_priorities = has_priorities(policy)?;
    if has_priorities != (1..=PRIORITY_MAX).contains(&priority) || !has_priorities && priority != 0 {
        return Err(Errno::EINVAL.into());
    }
    task.policy = [policy, priority];
    Ok(0)
}

fn sched_getparam(kernel: &mut Kernel, [task, address, ..]: Arguments) -> CallResult {
    if address == 0 {
        return Err(Errno::EINVAL.into());
    }
    target(kernel, task)?;
    let [_, priority] = policy(kernel, task);
    kernel.process.space.write(address, &priority.to_le_bytes())?;
    Ok(0)
}

fn priority_bound(policy: u64, bound: u32) -> CallResult {
    const DEADLINE: u64 = linux::SCHED_DEADLINE as u64;
    match policy {
        DEADLINE => Ok(0),
        _ => Ok(if has_priorities(policy as u32)? {
            bound.into()
        } else {
            0
        }),
    }
}

fn sched_rr_get_interval(kernel: &mut Kernel, [task, address, ..]: Arguments) -> CallResult {
    target(kernel, task)?;
    kernel.process.space.write(address, &timespec(TURN_NS))?;
    Ok(0)
}

fn getpriority(kernel: &mut Kernel, [which, who, ..]: Arguments) -> CallResult {
    if which >= PRIORITY_TARGETS {
        return Err(Errno::EINVAL.into());
    }
    let who = if which == 0 { who } else { 0 };
    // So that a result is never negative.
    Ok((20 - kernel.task_named(who)?.nice).unsigned_abs().into())
}

fn setpriority(kernel: &mut Kernel, [which, who, nice, ..]: Arguments) -> CallResult {
    if which >= PRIORITY_TARGETS {
        return Err(Errno::EINVAL.into());
    }
    let who = if which == 0 { who } else { 0 };
    kernel.task_named(who)?.nice = (nice as u32 as i32).clamp(NICE_MIN, NICE_MAX);
    Ok(0)
}

fn getcpu(kernel: &mut Kernel, [processor, node, ..]: Arguments) -> CallResult {
    for address in [processor, node] {
        if address != 0 {
            kernel.process.space.write(address, &0_u32.to_le_bytes())?;
        }
    }
    Ok(0)
}
