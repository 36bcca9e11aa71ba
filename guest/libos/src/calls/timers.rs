//! Timers: interval timers, timers with signals, timers that are files.

use alloc::rc::Rc;

use linux_raw_sys::general as linux;
use linux_raw_sys::general as nr;

use super::files::add;
use super::time::{CpuClock, REALTIME_CLOCKS, cpu_clock};
use super::{Arguments, CallResult};
use crate::errno::Errno;
use crate::files::timer::TimerFile;
use crate::kernel::Kernel;
use crate::signals::SIGNALS;
use crate::time::{SECOND_NS, monotonic_ns, parse_timespec, realtime_ns, timespec};
use crate::timers::{Due, Notify, Schedule, Timer, TimerClock};

/// A time is meant, not a time span.
const ABSOLUTE: u64 = 1;
/// `timerfd_settime`: setting the clock cancels the timer. Nobody sets it.
const CANCEL_ON_SET: u64 = 2;

pub(super) fn serve(kernel: &mut Kernel, number: u32, arguments: Arguments) -> Option<CallResult> {
    Some(match number {
        nr::__NR_setitimer => setitimer(kernel, arguments),
        nr::__NR_getitimer => getitimer(kernel, arguments),
        nr::__NR_alarm => Ok(alarm(kernel, arguments)),
        nr::__NR_timer_create => timer_create(kernel, arguments),
        nr::__NR_timer_settime => timer_settime(kernel, arguments),
        nr::__NR_timer_gettime => timer_gettime(kernel, arguments),
        nr::__NR_timer_getoverrun => made_timer(kernel, arguments[0])
            .map(|timer| u64::from(timer.last_overrun))
            .map_err(Into::into),
        nr::__NR_timer_delete => timer_delete(kernel, arguments),
        nr::__NR_timerfd_create => timerfd_create(kernel, arguments),
        nr::__NR_timerfd_settime => timerfd_settime(kernel, arguments),
        nr::__NR_timerfd_gettime => timerfd_gettime(kernel, arguments),
        _ => return None,
    })
}

/// `struct itimerval`: time up to the next expiration, and between expirations, in nanoseconds.
fn read_interval(kernel: &mut Kernel, address: u64) -> Result<[u64; 2], Errno> {
    let mut parts = [0; 4];
    if address != 0 {
        for (index, part) in parts.iter_mut().enumerate() {
            *part = kernel
                .process
                .space
                .read_u64(address.wrapping_add(index as u64 * 8))?;
        }
    }
    let [interval_s, interval_us, value_s, value_us] = parts;
    let nanoseconds = |seconds: u64, microseconds: u64| {
        let is_valid = seconds <= i64::MAX as u64 && microseconds < 1_000_000;
        let time_ns = seconds
            .saturating_mul(SECOND_NS)
            .saturating_add(microseconds.saturating_mul(1000));
        is_valid.then_some(time_ns).ok_or(Errno::EINVAL)
    };
    Ok([
        nanoseconds(value_s, value_us)?,
        nanoseconds(interval_s, interval_us)?,
    ])
}

/// A schedule as two pairs of seconds and microseconds (rounded up): interval, then time left.
fn write_interval(kernel: &mut Kernel, address: u64, schedule: Schedule, now_ns: u64) -> Result<(), Errno> {
    let pairs = [schedule.interval_ns, schedule.left_ns(now_ns)];
    for (index, time_ns) in pairs.into_iter().enumerate() {
        let time_us = time_ns.div_ceil(1000);
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&(time_us / 1_000_000).to_le_bytes());
        bytes[8..].copy_from_slice(&(time_us % 1_000_000).to_le_bytes());
        kernel
            .process
            .space
            .write(address.wrapping_add(index as u64 * 16), &bytes)?;
    }
    Ok(())
}

/// The place of an interval timer, and what its clock says.
fn interval_timer(kernel: &mut Kernel, which: u64) -> Result<(usize, u64), Errno> {
    match which as u32 {
        0 => Ok((0, monotonic_ns())),
        // All time run counts as the program's own.
        which @ 1..=2 => Ok((which as usize, kernel.process_run_ns())),
        _ => Err(Errno::EINVAL),
    }
}

/// Sets an interval timer; returns what it was.
fn set_interval(
    kernel: &mut Kernel,
    index: usize,
    now_ns: u64,
    [value_ns, interval_ns]: [u64; 2],
) -> Schedule {
    let schedule = Schedule {
        next_ns: (value_ns > 0).then(|| now_ns.saturating_add(value_ns)),
        interval_ns,
        is_realtime: false,
    };
    let former = core::mem::replace(&mut kernel.process.timers.intervals[index], schedule);
    if index == 0 {
        let due = Due::Interval(kernel.process.id);
        kernel.disarm(former.next_ns, due);
        kernel.arm(schedule.next_ns, due);
    }
    former
}

fn setitimer(kernel: &mut Kernel, [which, new, old, ..]: Arguments) -> CallResult {
    let times = read_interval(kernel, new)?;
    let (index, now_ns) = interval_timer(kernel, which)?;
    let former = set_interval(kernel, index, now_ns, times);
    if old != 0 {
        write_interval(kernel, old, former, now_ns)?;
    }
    Ok(0)
}

fn getitimer(kernel: &mut Kernel, [which, address, ..]: Arguments) -> CallResult {
    let (index, now_ns) = interval_timer(kernel, which)?;
    let schedule = kernel.process.timers.intervals[index];
    write_interval(kernel, address, schedule, now_ns)?;
    Ok(0)
}

fn alarm(kernel: &mut Kernel, [seconds, ..]: Arguments) -> u64 {
    let now_ns = monotonic_ns();
    let value_ns = u64::from(seconds as u32) * SECOND_NS;
    let left_ns = set_interval(kernel, 0, now_ns, [value_ns, 0]).left_ns(now_ns);
    // As on Linux: rounded, but not to nothing.
    match (left_ns / SECOND_NS, left_ns % SECOND_NS) {
        (0, 1..) => 1,
        (seconds, rest) => seconds + u64::from(rest >= SECOND_NS / 2),
    }
}

/// What a clock that timers can have counts.
fn timer_clock(kernel: &mut Kernel, clock: u64) -> Result<TimerClock, Errno> {
    if let Some(found) = cpu_clock(kernel, clock) {
        return Ok(match found? {
            CpuClock::Process => TimerClock::Process,
            CpuClock::Task(task) => TimerClock::Task(task),
        });
    }
    match clock as u32 {
        linux::CLOCK_REALTIME
        | linux::CLOCK_MONOTONIC
        | linux::CLOCK_BOOTTIME
        | linux::CLOCK_TAI
        | linux::CLOCK_REALTIME_ALARM
        | linux::CLOCK_BOOTTIME_ALARM => Ok(TimerClock::Time),
        linux::CLOCK_MONOTONIC_RAW | linux::CLOCK_REALTIME_COARSE | linux::CLOCK_MONOTONIC_COARSE => {
            Err(Errno::EOPNOTSUPP)
        }
        _ => Err(Errno::EINVAL),
    }
}

fn timer_create(kernel: &mut Kernel, [clock, event, address, ..]: Arguments) -> CallResult {
    let time = timer_clock(kernel, clock)?;
    let (notify, value) = match event {
        0 => (
            Notify::Process(linux::SIGALRM),
            u64::from(kernel.process.timers.free_id()),
        ),
        _ => read_event(kernel, event)?,
    };
    let id = kernel
        .process
        .timers
        .add(clock as u32, time, notify, value)
        .ok_or(Errno::EAGAIN)?;
    if let Err(errno) = kernel.process.space.write(address, &id.to_le_bytes()) {
        kernel.process.timers.made.remove(&id);
        return Err(errno.into());
    }
    Ok(0)
}

/// Whom a `struct sigevent` wants to be told, and the value for the signal.
fn read_event(kernel: &mut Kernel, address: u64) -> Result<(Notify, u64), Errno> {
    let value = kernel.process.space.read_u64(address)?;
    let signal = kernel.process.space.read_u32(address.wrapping_add(8))?;
    let how = kernel.process.space.read_u32(address.wrapping_add(12))?;
    let thread = kernel.process.space.read_u32(address.wrapping_add(16))?;
    let notify = match how {
        linux::SIGEV_NONE => return Ok((Notify::Nobody, value)),
        linux::SIGEV_SIGNAL | linux::SIGEV_THREAD => Notify::Process(signal),
        linux::SIGEV_THREAD_ID => {
            let process = kernel.process.id;
            let is_own = kernel
                .tasks
                .get(&thread)
                .is_some_and(|task| task.process == process);
            if !is_own {
                return Err(Errno::EINVAL);
            }
            Notify::Task(signal, thread)
        }
        _ => return Err(Errno::EINVAL),
    };
    if signal == 0 || signal > SIGNALS {
        return Err(Errno::EINVAL);
    }
    Ok((notify, value))
}

fn made_timer(kernel: &mut Kernel, id: u64) -> Result<&mut Timer, Errno> {
    let timer = kernel.process.timers.made.get_mut(&(id as u32));
    timer.ok_or(Errno::EINVAL)
}

/// `struct itimerspec`: time of the next expiration, and between expirations, in nanoseconds.
fn read_times(kernel: &mut Kernel, address: u64) -> Result<[u64; 2], Errno> {
    let interval_ns = parse_timespec(kernel.process.space.read_array(address)?);
    let value_ns = parse_timespec(kernel.process.space.read_array(address.wrapping_add(16))?);
    match (value_ns, interval_ns) {
        (Some(value_ns), Some(interval_ns)) => Ok([value_ns, interval_ns]),
        _ => Err(Errno::EINVAL),
    }
}

fn write_times(kernel: &mut Kernel, address: u64, schedule: Schedule, now_ns: u64) -> Result<(), Errno> {
    let left_ns = schedule.left_ns(now_ns);
    kernel
        .process
        .space
        .write(address, &timespec(schedule.interval_ns))?;
    kernel
        .process
        .space
        .write(address.wrapping_add(16), &timespec(left_ns))
}

/// A schedule by what a program gave, on a clock that shows `now_ns`; `given_now_ns` is the time of the clock that an
/// absolute time is meant for.
fn schedule(now_ns: u64, given_now_ns: Option<u64>, [value_ns, interval_ns]: [u64; 2]) -> Schedule {
    let span_ns = match given_now_ns {
        Some(given_now_ns) => value_ns.saturating_sub(given_now_ns),
        None => value_ns,
    };
    Schedule {
        next_ns: (value_ns > 0).then(|| now_ns.saturating_add(span_ns)),
        interval_ns,
        is_realtime: false,
    }
}

/// Whether a clock's times are those of CLOCK_REALTIME.
fn is_realtime(clock: u32) -> bool {
    REALTIME_CLOCKS.contains(&clock)
}

fn timer_settime(kernel: &mut Kernel, [id, flags, new, old, ..]: Arguments) -> CallResult {
    if new == 0 {
        return Err(Errno::EINVAL.into());
    }
    let times = read_times(kernel, new)?;
    let timer = *made_timer(kernel, id)?;
    let now_ns = kernel.time_of(timer.time).ok_or(Errno::EINVAL)?;
    let is_absolute = flags & ABSOLUTE != 0;
    let is_realtime = timer.time == TimerClock::Time && is_realtime(timer.clock);
    let given_now_ns = if is_realtime { realtime_ns() } else { now_ns };
    let schedule = Schedule {
        is_realtime: is_realtime && is_absolute,
        ..schedule(now_ns, is_absolute.then_some(given_now_ns), times)
    };
    made_timer(kernel, id)?.set_schedule(schedule);
    if timer.time == TimerClock::Time {
        let due = Due::Timer(kernel.process.id, id as u32);
        kernel.disarm(timer.schedule.next_ns, due);
        kernel.arm(schedule.next_ns, due);
    }
    if old != 0 {
        write_times(kernel, old, timer.schedule, now_ns)?;
    }
    Ok(0)
}

fn timer_gettime(kernel: &mut Kernel, [id, address, ..]: Arguments) -> CallResult {
    let timer = *made_timer(kernel, id)?;
    let now_ns = kernel.time_of(timer.time).unwrap_or(0);
    write_times(kernel, address, timer.schedule, now_ns)?;
    Ok(0)
}

fn timer_delete(kernel: &mut Kernel, [id, ..]: Arguments) -> CallResult {
    let timer = *made_timer(kernel, id)?;
    let due = Due::Timer(kernel.process.id, id as u32);
    kernel.disarm(timer.schedule.next_ns, due);
    kernel.process.timers.made.remove(&(id as u32));
    Ok(0)
}

fn timerfd_create(kernel: &mut Kernel, [clock, flags, ..]: Arguments) -> CallResult {
    if flags & !u64::from(linux::TFD_CLOEXEC | linux::TFD_NONBLOCK) != 0 {
        return Err(Errno::EINVAL.into());
    }
    let clock = clock as u32;
    let known = [
        linux::CLOCK_REALTIME,
        linux::CLOCK_MONOTONIC,
        linux::CLOCK_BOOTTIME,
        linux::CLOCK_REALTIME_ALARM,
        linux::CLOCK_BOOTTIME_ALARM,
    ];
    if !known.contains(&clock) {
        return Err(Errno::EINVAL.into());
    }
    let number = kernel.next_timer_file;
    kernel.next_timer_file += 1;
    let file = Rc::new(TimerFile::new(number, is_realtime(clock), &kernel.ready));
    kernel.timer_files.insert(number, Rc::downgrade(&file));
    let status = linux::O_RDWR | flags as u32 & linux::TFD_NONBLOCK;
    let close_on_exec = flags & u64::from(linux::TFD_CLOEXEC) != 0;
    let added = add(kernel, file, status, close_on_exec);
    if added.is_err() {
        kernel.timer_files.remove(&number);
    }
    added
}

fn timerfd_settime(kernel: &mut Kernel, [descriptor, flags, new, old, ..]: Arguments) -> CallResult {
    let times = read_times(kernel, new)?;
    if flags & !(ABSOLUTE | CANCEL_ON_SET) != 0 {
        return Err(Errno::EINVAL.into());
    }
    let open = kernel.process.files.get(descriptor)?;
    let file = open.file.as_timer().ok_or(Errno::EINVAL)?;
    let now_ns = monotonic_ns();
    let given_now_ns = if file.is_realtime { realtime_ns() } else { now_ns };
    let is_absolute = flags & ABSOLUTE != 0;
    let schedule = Schedule {
        is_realtime: file.is_realtime && is_absolute,
        ..schedule(now_ns, is_absolute.then_some(given_now_ns), times)
    };
    file.expire(now_ns);
    let former = file.schedule.get();
    file.set(schedule);
    let due = Due::File(file.number);
    kernel.disarm(former.next_ns, due);
    kernel.arm(schedule.next_ns, due);
    if old != 0 {
        write_times(kernel, old, former, now_ns)?;
    }
    Ok(0)
}

fn timerfd_gettime(kernel: &mut Kernel, [descriptor, address, ..]: Arguments) -> CallResult {
    let open = kernel.process.files.get(descriptor)?;
    let file = open.file.as_timer().ok_or(Errno::EINVAL)?;
    let now_ns = monotonic_ns();
    file.expire(now_ns);
    write_times(kernel, address, file.schedule.get(), now_ns)?;
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_of_another_clock_are_taken_over_as_what_is_left() {
        let at = |given_now_ns, value_ns| schedule(1000, given_now_ns, [value_ns, 7]).next_ns;
        assert_eq!(at(None, 50), Some(1050));
        assert_eq!(at(Some(1_000_000), 1_000_050), Some(1050));
        assert_eq!(at(Some(1_000_000), 3), Some(1000));
        assert_eq!(at(None, 0), None);
        assert_eq!(at(None, u64::MAX), Some(u64::MAX));
    }
}
