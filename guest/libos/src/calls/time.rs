//! Clocks and sleeping.

use linux_raw_sys::general as linux;

use super::{Arguments, CallResult, Failure};
use crate::errno::Errno;
use crate::kernel::Kernel;
use crate::time::{SECOND_NS, monotonic_ns, parse_timespec, realtime_ns, timespec};

/// The time of a clock, in nanoseconds.
fn now_ns(clock: u64) -> Result<u64, Errno> {
    match u32::try_from(clock).map_err(|_| Errno::EINVAL)? {
        linux::CLOCK_REALTIME | linux::CLOCK_REALTIME_COARSE | linux::CLOCK_TAI => Ok(realtime_ns()),
        linux::CLOCK_MONOTONIC
        | linux::CLOCK_MONOTONIC_RAW
        | linux::CLOCK_MONOTONIC_COARSE
        | linux::CLOCK_BOOTTIME
        | linux::CLOCK_PROCESS_CPUTIME_ID
        | linux::CLOCK_THREAD_CPUTIME_ID => Ok(monotonic_ns()),
        _ => Err(Errno::EINVAL),
    }
}

pub(super) fn clock_gettime(kernel: &mut Kernel, [clock, address, ..]: Arguments) -> CallResult {
    let now_ns = now_ns(clock)?;
    kernel.process.space.write(address, &timespec(now_ns))?;
    Ok(0)
}

pub(super) fn clock_getres(kernel: &mut Kernel, [clock, address, ..]: Arguments) -> CallResult {
    now_ns(clock)?;
    if address != 0 {
        kernel.process.space.write(address, &timespec(1))?;
    }
    Ok(0)
}

pub(super) fn gettimeofday(kernel: &mut Kernel, [address, zone, ..]: Arguments) -> CallResult {
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

pub(super) fn time(kernel: &mut Kernel, [address, ..]: Arguments) -> CallResult {
    let seconds = realtime_ns() / SECOND_NS;
    if address != 0 {
        kernel.process.space.write(address, &seconds.to_le_bytes())?;
    }
    Ok(seconds)
}

pub(super) fn nanosleep(kernel: &mut Kernel, [request, _remaining, ..]: Arguments) -> CallResult {
    sleep(kernel, request, None)
}

pub(super) fn clock_nanosleep(kernel: &mut Kernel, [clock, flags, request, ..]: Arguments) -> CallResult {
    let now_ns = now_ns(clock)?;
    let is_absolute = flags & u64::from(linux::TIMER_ABSTIME) != 0;
    sleep(kernel, request, is_absolute.then_some(now_ns))
}

/// Sleeps for a time span, or until a time if the clock's own time `clock_now_ns` is given.
fn sleep(kernel: &mut Kernel, request: u64, clock_now_ns: Option<u64>) -> CallResult {
    let now_ns = monotonic_ns();
    if let Some(deadline_ns) = kernel.task().memory.deadline_ns {
        return if now_ns >= deadline_ns {
            Ok(0)
        } else {
            Err(Failure::Wait)
        };
    }
    let wanted_ns = parse_timespec(kernel.process.space.read_array(request)?).ok_or(Errno::EINVAL)?;
    let span_ns = clock_now_ns.map_or(wanted_ns, |clock_now_ns| wanted_ns.saturating_sub(clock_now_ns));
    if span_ns == 0 {
        return Ok(0);
    }
    kernel.task().memory.deadline_ns = Some(now_ns.saturating_add(span_ns));
    Err(Failure::Wait)
}
