//! Clocks and sleeping.

use linux_raw_sys::general as linux;
use linux_raw_sys::general as nr;

use super::{Arguments, CallResult, Failure};
use crate::errno::Errno;
use crate::kernel::Kernel;
use crate::process::ProcessId;
use crate::task::TaskId;
use crate::time::{SECOND_NS, monotonic_ns, parse_timespec, realtime_ns, timespec};

/// The clocks that show the time of day and that calls can wait by.
pub(super) const REALTIME_CLOCKS: [u32; 3] = [
    linux::CLOCK_REALTIME,
    linux::CLOCK_REALTIME_ALARM,
    linux::CLOCK_TAI,
];
/// How exact the coarse clocks say that they are.
const COARSE_NS: u64 = 4_000_000;

pub(super) fn serve(kernel: &mut Kernel, number: u32, arguments: Arguments) -> Option<CallResult> {
    let [first, second, ..] = arguments;
    Some(match number {
        nr::__NR_clock_gettime => clock_gettime(kernel, first, second),
        nr::__NR_clock_getres => clock_getres(kernel, first, second),
        nr::__NR_gettimeofday => gettimeofday(kernel, first, second),
        nr::__NR_time => time(kernel, first),
        nr::__NR_nanosleep => sleep(kernel, linux::CLOCK_MONOTONIC.into(), first, false),
        nr::__NR_clock_nanosleep => clock_nanosleep(kernel, arguments),
        // Time is the host's.
        nr::__NR_clock_settime | nr::__NR_settimeofday => Err(Errno::EPERM.into()),
        _ => return None,
    })
}

/// Whose time run a clock shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CpuClock {
    /// The running process.
    Process,
    /// A task.
    Task(TaskId),
}

/// Whose time run a clock shows; none if it shows something else, an error if there is nobody of that number.
pub(super) fn cpu_clock(kernel: &Kernel, clock: u64) -> Option<Result<CpuClock, Errno>> {
    let clock = clock as u32;
    match clock {
        linux::CLOCK_PROCESS_CPUTIME_ID => return Some(Ok(CpuClock::Process)),
        linux::CLOCK_THREAD_CPUTIME_ID => return Some(Ok(CpuClock::Task(kernel.current))),
        _ if clock.cast_signed() >= 0 => return None,
        _ => {}
    }
    // The number of the task, inverted; then whether it is a thread (4) and which time is meant.
    const OF_THREAD: u32 = 4;
    const KIND: u32 = 3;
    let id = task_of(clock);
    if clock & KIND == KIND {
        return Some(Err(Errno::EINVAL));
    }
    let process: ProcessId = kernel.process.id;
    Some(if clock & OF_THREAD != 0 {
        let id = if id == 0 { kernel.current } else { id };
        match kernel.tasks.contains_key(&id) {
            true => Ok(CpuClock::Task(id)),
            false => Err(Errno::EINVAL),
        }
    } else if id == 0 || id == process {
        Ok(CpuClock::Process)
    } else {
        Err(Errno::EINVAL)
    })
}

/// The number of the task that a clock is about, which is in it inverted.
fn task_of(clock: u32) -> u32 {
    !(clock.cast_signed() >> 3).cast_unsigned()
}

/// The time of a clock, in nanoseconds.
fn now_ns(kernel: &mut Kernel, clock: u64) -> Result<u64, Errno> {
    match cpu_clock(kernel, clock).transpose()? {
        Some(CpuClock::Process) => return Ok(kernel.process_run_ns()),
        Some(CpuClock::Task(task)) => return kernel.task_run_ns(task).ok_or(Errno::EINVAL),
        None => {}
    }
    match clock as u32 {
        linux::CLOCK_REALTIME
        | linux::CLOCK_REALTIME_COARSE
        | linux::CLOCK_REALTIME_ALARM
        | linux::CLOCK_TAI => Ok(realtime_ns()),
        linux::CLOCK_MONOTONIC
        | linux::CLOCK_MONOTONIC_RAW
        | linux::CLOCK_MONOTONIC_COARSE
        | linux::CLOCK_BOOTTIME
        | linux::CLOCK_BOOTTIME_ALARM => Ok(monotonic_ns()),
        _ => Err(Errno::EINVAL),
    }
}

fn clock_gettime(kernel: &mut Kernel, clock: u64, address: u64) -> CallResult {
    let now_ns = now_ns(kernel, clock)?;
    kernel.process.space.write(address, &timespec(now_ns))?;
    Ok(0)
}

fn clock_getres(kernel: &mut Kernel, clock: u64, address: u64) -> CallResult {
    now_ns(kernel, clock)?;
    let resolution_ns = match clock as u32 {
        linux::CLOCK_REALTIME_COARSE | linux::CLOCK_MONOTONIC_COARSE => COARSE_NS,
        _ => 1,
    };
    if address != 0 {
        kernel.process.space.write(address, &timespec(resolution_ns))?;
    }
    Ok(0)
}

fn gettimeofday(kernel: &mut Kernel, address: u64, zone: u64) -> CallResult {
    let now_ns = realtime_ns();
    if address != 0 {
        let mut bytes = timespec(now_ns);
        bytes[8..].copy_from_slice(&(now_ns % SECOND_NS / 1000).to_le_bytes());
        kernel.process.space.write(address, &bytes)?;
    }
    if zone != 0 {
        kernel.process.space.write(zone, &[0; 8])?;
    }
    Ok(0)
}

fn time(kernel: &mut Kernel, address: u64) -> CallResult {
    let seconds = realtime_ns() / SECOND_NS;
    if address != 0 {
        kernel.process.space.write(address, &seconds.to_le_bytes())?;
    }
    Ok(seconds)
}

fn clock_nanosleep(kernel: &mut Kernel, [clock, flags, request, ..]: Arguments) -> CallResult {
    let is_absolute = flags & u64::from(linux::TIMER_ABSTIME) != 0;
    match clock as u32 {
        linux::CLOCK_THREAD_CPUTIME_ID => return Err(Errno::EINVAL.into()),
        linux::CLOCK_MONOTONIC_RAW | linux::CLOCK_REALTIME_COARSE | linux::CLOCK_MONOTONIC_COARSE => {
            return Err(Errno::EOPNOTSUPP.into());
        }
        _ => {}
    }
    sleep(kernel, clock, request, is_absolute)
}

/// Sleeps for a time span, or until a time of the clock.
fn sleep(kernel: &mut Kernel, clock: u64, request: u64, is_absolute: bool) -> CallResult {
    // A time span is the same on all clocks; a clock that is set changes none.
    let clock = match is_absolute || !REALTIME_CLOCKS.contains(&(clock as u32)) {
        true => clock,
        false => linux::CLOCK_MONOTONIC.into(),
    };
    let clock_now_ns = now_ns(kernel, clock)?;
    // What the call remembers is the time at which it ends, of its own clock.
    let target_ns = match kernel.task().memory.progress {
        0 => {
            let wanted_ns = parse_timespec(kernel.process.space.read_array(request)?).ok_or(Errno::EINVAL)?;
            let target_ns = match is_absolute {
                true => wanted_ns,
                // Who sleeps for no time does not let others run, as on Linux.
                false if wanted_ns == 0 => return Ok(0),
                false => clock_now_ns.saturating_add(wanted_ns),
            };
            target_ns.max(1)
        }
        target_ns => target_ns,
    };
    if clock_now_ns >= target_ns {
        return Ok(0);
    }
    let deadline_ns = monotonic_ns().saturating_add(target_ns - clock_now_ns);
    let memory = &mut kernel.task().memory;
    memory.progress = target_ns;
    memory.is_realtime = REALTIME_CLOCKS.contains(&(clock as u32));
    // Only a clock that moves against CLOCK_MONOTONIC gets a new deadline at each try.
    let is_steady = clock as u32 == linux::CLOCK_MONOTONIC;
    match memory.deadline_ns {
        Some(_) if is_steady => {}
        _ => memory.deadline_ns = Some(deadline_ns),
    }
    Err(Failure::Wait)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As `pthread_getcpuclockid` and `clock_getcpuclockid` make them.
    fn encode(id: i32, is_thread: bool) -> u32 {
        ((!id << 3) | 2 | i32::from(is_thread) << 2).cast_unsigned()
    }

    #[test]
    fn the_number_in_a_clock_is_found_again() {
        for id in [0, 1, 77, 32_767] {
            let clock = encode(id, true);
            assert!(clock.cast_signed() < 0);
            assert_eq!(task_of(clock), id.cast_unsigned());
            assert_eq!(clock & 4, 4);
        }
    }
}
