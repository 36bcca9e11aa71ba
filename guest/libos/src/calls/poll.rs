//! Waiting for several files: `poll`, `select`, `epoll`.

use alloc::rc::Rc;
use alloc::vec::Vec;

use linux_raw_sys::general as linux;

use super::files::{DESCRIPTOR_LIMIT, add};
use super::{Arguments, CallResult, Failure};
use crate::errno::Errno;
use crate::files::descriptors::OpenFile;
use crate::files::epoll::Epoll;
use crate::files::{File, Readiness};
use crate::kernel::Kernel;
use crate::time::{SECOND_NS, monotonic_ns, parse_timespec, timespec};

/// Most events that one `epoll_wait` returns.
const EVENTS_MAX: u64 = 4096;

/// How long a call waits.
#[derive(Debug, Clone, Copy)]
enum Timeout {
    Never,
    Span(u64),
}

/// Milliseconds as `poll` and `epoll_wait` take them: negative is for ever.
fn milliseconds(value: u64) -> Timeout {
    let value = value as u32 as i32;
    u64::try_from(value).map_or(Timeout::Never, |value| Timeout::Span(value * 1_000_000))
}

/// A `struct timespec`; none is for ever.
fn span(kernel: &mut Kernel, address: u64) -> Result<Timeout, Errno> {
    if address == 0 {
        return Ok(Timeout::Never);
    }
    let bytes = kernel.process.space.read_array(address)?;
    parse_timespec(bytes).map(Timeout::Span).ok_or(Errno::EINVAL)
}

/// Nothing is ready: `true` if the call has waited long enough, otherwise its deadline is set.
fn has_timed_out(kernel: &mut Kernel, timeout: Timeout) -> bool {
    let Timeout::Span(span_ns) = timeout else {
        return false;
    };
    if span_ns == 0 {
        return true;
    }
    let now_ns = monotonic_ns();
    let deadline_ns = *kernel
        .task()
        .memory
        .deadline_ns
        .get_or_insert(now_ns.saturating_add(span_ns));
    now_ns >= deadline_ns
}

/// Puts the current task into the wait queues of these files.
fn wait_for_all<'a>(kernel: &Kernel, files: impl Iterator<Item = &'a Rc<OpenFile>>) -> Failure {
    for open in files {
        if let Some(queue) = open.file.wait_queue() {
            queue.add_task(kernel.current);
        }
    }
    Failure::Wait
}

pub(super) fn poll(kernel: &mut Kernel, [address, count, timeout, ..]: Arguments) -> CallResult {
    poll_files(kernel, address, count, milliseconds(timeout))
}

pub(super) fn ppoll(kernel: &mut Kernel, [address, count, timeout, ..]: Arguments) -> CallResult {
    let timeout = span(kernel, timeout)?;
    poll_files(kernel, address, count, timeout)
}

fn poll_files(kernel: &mut Kernel, address: u64, count: u64, timeout: Timeout) -> CallResult {
    let limit = kernel.process.limits[linux::RLIMIT_NOFILE as usize][0];
    if count > limit.min(DESCRIPTOR_LIMIT) {
        return Err(Errno::EINVAL.into());
    }
    let always = (Readiness::ERROR | Readiness::HANG_UP).bits();
    let mut watched = Vec::new();
    let mut ready = 0;
    for index in 0..count {
        let entry = address.wrapping_add(index * 8);
        let [d0, d1, d2, d3, e0, e1, ..] = kernel.process.space.read_array::<8>(entry)?;
        let descriptor = i32::from_le_bytes([d0, d1, d2, d3]);
        let asked = u32::from(u16::from_le_bytes([e0, e1]));
        let found = match u64::try_from(descriptor) {
            Err(_) => 0,
            Ok(descriptor) => match kernel.process.files.get(descriptor) {
                Err(_) => linux::POLLNVAL,
                Ok(open) => {
                    let found = open.file.readiness().poll_bits() & (asked | always);
                    watched.push(open);
                    found
                }
            },
        };
        kernel
            .process
            .space
            .write(entry.wrapping_add(6), &(found as u16).to_le_bytes())?;
        ready += u64::from(found != 0);
    }
    if ready > 0 || has_timed_out(kernel, timeout) {
        return Ok(ready);
    }
    Err(wait_for_all(kernel, watched.iter()))
}

pub(super) fn select(kernel: &mut Kernel, arguments: Arguments) -> CallResult {
    let [count, read, write, except, address, _] = arguments;
    if address == 0 {
        return select_files(kernel, count, [read, write, except], Timeout::Never);
    }
    let seconds = kernel.process.space.read_u64(address)?;
    let microseconds = kernel.process.space.read_u64(address.wrapping_add(8))?;
    if seconds > i64::MAX as u64 || microseconds > i64::MAX as u64 {
        return Err(Errno::EINVAL.into());
    }
    let span_ns = seconds
        .saturating_mul(SECOND_NS)
        .saturating_add(microseconds.saturating_mul(1000));
    let count = select_files(kernel, count, [read, write, except], Timeout::Span(span_ns))?;
    // Linux leaves what remains of the time there.
    let now_ns = monotonic_ns();
    let deadline_ns = kernel.task().memory.deadline_ns;
    let left_ns = deadline_ns.map_or(span_ns, |deadline_ns| deadline_ns.saturating_sub(now_ns));
    let mut left = timespec(left_ns);
    left[8..].copy_from_slice(&(left_ns % SECOND_NS / 1000).to_le_bytes());
    kernel.process.space.write(address, &left)?;
    Ok(count)
}

pub(super) fn pselect6(
    kernel: &mut Kernel,
    [count, read, write, except, timeout, _]: Arguments,
) -> CallResult {
    let timeout = span(kernel, timeout)?;
    select_files(kernel, count, [read, write, except], timeout)
}

fn select_files(kernel: &mut Kernel, count: u64, sets: [u64; 3], timeout: Timeout) -> CallResult {
    /// Most descriptors of an `fd_set`.
    const DESCRIPTORS: u64 = 1024;
    let count = u64::try_from(count as u32 as i32)
        .map_err(|_| Errno::EINVAL)?
        .min(DESCRIPTORS);
    let bytes = count.div_ceil(64) as usize * 8;
    let meanings = [
        Readiness::READ | Readiness::HANG_UP | Readiness::ERROR,
        Readiness::WRITE | Readiness::ERROR,
        Readiness::empty(),
    ];
    let mut asked = [[0_u8; 128]; 3];
    for (set, address) in asked.iter_mut().zip(sets).filter(|(_, address)| *address != 0) {
        kernel.process.space.read(address, &mut set[..bytes])?;
    }
    let mut found = [[0_u8; 128]; 3];
    let mut watched = Vec::new();
    let mut ready = 0;
    for descriptor in 0..count {
        let (byte, bit) = (descriptor as usize / 8, 1_u8 << (descriptor % 8));
        if asked.iter().all(|set| set[byte] & bit == 0) {
            continue;
        }
        let open = kernel.process.files.get(descriptor)?;
        let readiness = open.file.readiness();
        watched.push(open);
        for ((asked, found), meaning) in asked.iter().zip(&mut found).zip(meanings) {
            if asked[byte] & bit != 0 && readiness.intersects(meaning) {
                found[byte] |= bit;
                ready += 1;
            }
        }
    }
    if ready > 0 || has_timed_out(kernel, timeout) {
        for (set, address) in found.iter().zip(sets).filter(|(_, address)| *address != 0) {
            kernel.process.space.write(address, &set[..bytes])?;
        }
        return Ok(ready);
    }
    Err(wait_for_all(kernel, watched.iter()))
}

pub(super) fn epoll_create(kernel: &mut Kernel, [size, ..]: Arguments) -> CallResult {
    if size as u32 as i32 <= 0 {
        return Err(Errno::EINVAL.into());
    }
    epoll_create1(kernel, [0; 6])
}

pub(super) fn epoll_create1(kernel: &mut Kernel, [flags, ..]: Arguments) -> CallResult {
    if flags & !u64::from(linux::EPOLL_CLOEXEC) != 0 {
        return Err(Errno::EINVAL.into());
    }
    let epoll = Epoll::new(&kernel.ready, &kernel.budget);
    add(kernel, Rc::new(epoll), linux::O_RDWR, flags != 0)
}

pub(super) fn epoll_ctl(
    kernel: &mut Kernel,
    [epoll, operation, descriptor, address, ..]: Arguments,
) -> CallResult {
    let instance = kernel.process.files.get(epoll)?;
    let open = kernel.process.files.get(descriptor)?;
    if !Epoll::can_watch(&open) {
        return Err(Errno::EPERM.into());
    }
    let epoll = instance.file.as_epoll().ok_or(Errno::EINVAL)?;
    let operation = operation as u32;
    if operation == linux::EPOLL_CTL_DEL {
        epoll.remove(descriptor)?;
        return Ok(0);
    }
    let event = kernel.process.space.read_array::<12>(address)?;
    let events = u32::from_le_bytes([event[0], event[1], event[2], event[3]]);
    let mut data = [0; 8];
    data.copy_from_slice(&event[4..]);
    let data = u64::from_le_bytes(data);
    match operation {
        linux::EPOLL_CTL_ADD => epoll.add(descriptor, &open, events, data)?,
        linux::EPOLL_CTL_MOD => epoll.modify(descriptor, events, data)?,
        _ => return Err(Errno::EINVAL.into()),
    }
    Ok(0)
}

pub(super) fn epoll_wait(kernel: &mut Kernel, [epoll, address, limit, timeout, ..]: Arguments) -> CallResult {
    wait_for_events(kernel, [epoll, address, limit], milliseconds(timeout))
}

pub(super) fn epoll_pwait2(
    kernel: &mut Kernel,
    [epoll, address, limit, timeout, ..]: Arguments,
) -> CallResult {
    let timeout = span(kernel, timeout)?;
    wait_for_events(kernel, [epoll, address, limit], timeout)
}

fn wait_for_events(kernel: &mut Kernel, [epoll, address, limit]: [u64; 3], timeout: Timeout) -> CallResult {
    let instance = kernel.process.files.get(epoll)?;
    let epoll = instance.file.as_epoll().ok_or(Errno::EINVAL)?;
    let limit = u64::try_from(limit as u32 as i32)
        .ok()
        .filter(|&limit| limit > 0)
        .ok_or(Errno::EINVAL)?;
    let events = epoll.collect(limit.min(EVENTS_MAX) as usize);
    for (index, event) in events.iter().enumerate() {
        let mut bytes = [0; 12];
        bytes[..4].copy_from_slice(&event.events.to_le_bytes());
        bytes[4..].copy_from_slice(&event.data.to_le_bytes());
        kernel
            .process
            .space
            .write(address.wrapping_add(index as u64 * 12), &bytes)?;
    }
    if !events.is_empty() || has_timed_out(kernel, timeout) {
        return Ok(events.len() as u64);
    }
    if let Some(queue) = epoll.wait_queue() {
        queue.add_task(kernel.current);
    }
    Err(Failure::Wait)
}
