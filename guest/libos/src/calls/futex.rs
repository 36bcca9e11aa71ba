//! Futexes.

use linux_raw_sys::general as linux;

use super::{Arguments, CallResult, Failure};
use crate::errno::Errno;
use crate::futex::Key;
use crate::kernel::Kernel;
use crate::time::{monotonic_ns, parse_timespec, realtime_ns};

const COMMAND_MASK: u32 = !(linux::FUTEX_PRIVATE_FLAG | linux::FUTEX_CLOCK_REALTIME);
const ANY_BIT: u32 = u32::MAX;

/// How a time-out is to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Clock {
    /// A time span.
    Span,
    /// A time of CLOCK_MONOTONIC.
    Monotonic,
    /// A time of CLOCK_REALTIME.
    Realtime,
}

pub(super) fn futex(kernel: &mut Kernel, arguments: Arguments) -> CallResult {
    let [address, operation, value, timeout, other, more] = arguments;
    let operation = operation as u32;
    let (value, more) = (value as u32, more as u32);
    let command = operation & COMMAND_MASK;
    let is_realtime = operation & linux::FUTEX_CLOCK_REALTIME != 0;
    let may_be_realtime = [linux::FUTEX_WAIT_BITSET, linux::FUTEX_LOCK_PI2];
    if is_realtime && !may_be_realtime.contains(&command) {
        return Err(Errno::ENOSYS.into());
    }
    let clock = if is_realtime {
        Clock::Realtime
    } else {
        Clock::Monotonic
    };
    // Where a time-out is not expected, its place holds a second count.
    let count = (timeout as u32 as i32).max(0) as usize;
    let limit = (value as i32).max(1) as usize;
    match command {
        linux::FUTEX_WAIT => wait(kernel, address, value, (timeout, Clock::Span), ANY_BIT),
        linux::FUTEX_WAIT_BITSET => wait(kernel, address, value, (timeout, clock), more),
        linux::FUTEX_WAKE => wake(kernel, address, limit, ANY_BIT),
        linux::FUTEX_WAKE_BITSET => wake(kernel, address, limit, more),
        linux::FUTEX_REQUEUE => requeue(kernel, address, other, [value as usize, count], None),
        linux::FUTEX_CMP_REQUEUE => {
            if (value as i32) < 0 || (timeout as u32 as i32) < 0 {
                return Err(Errno::EINVAL.into());
            }
            requeue(kernel, address, other, [value as usize, count], Some(more))
        }
        linux::FUTEX_WAKE_OP => wake_op(kernel, address, other, [limit, count.max(1)], more),
        linux::FUTEX_LOCK_PI => lock(kernel, address, (timeout, Clock::Realtime), true),
        linux::FUTEX_LOCK_PI2 => lock(kernel, address, (timeout, clock), true),
        linux::FUTEX_TRYLOCK_PI => lock(kernel, address, (0, clock), false),
        linux::FUTEX_UNLOCK_PI => unlock(kernel, address),
        _ => Err(Errno::ENOSYS.into()),
    }
}

/// What the word at an address is found by.
fn key(kernel: &mut Kernel, address: u64) -> Result<Key, Errno> {
    if !address.is_multiple_of(4) {
        return Err(Errno::EINVAL);
    }
    if !spore_machine::user::is_program_range(address, 4) {
        return Err(Errno::EFAULT);
    }
    // Whether the program says that the word is its own does not matter: a word in shared memory is found through all
    // mappings, any other by its address.
    Ok(match kernel.process.space.shared_place(address) {
        Some((memory, offset)) => Key::Shared(memory, offset),
        None => Key::Private(kernel.process.id, address),
    })
}

/// Wakes one waiter, as the end of a thread does.
pub(super) fn wake_one(kernel: &mut Kernel, address: u64) {
    if let Ok(key) = key(kernel, address) {
        kernel.futexes.wake(key, 1, ANY_BIT);
    }
}

fn wait(kernel: &mut Kernel, address: u64, value: u32, timeout: (u64, Clock), bits: u32) -> CallResult {
    if bits == 0 {
        return Err(Errno::EINVAL.into());
    }
    let current = kernel.current;
    if kernel.futexes.take_woken(current) {
        return Ok(0);
    }
    if kernel.futexes.knows(current) {
        return go_on_waiting(kernel, timeout);
    }
    let deadline_ns = deadline(kernel, timeout)?;
    let key = key(kernel, address)?;
    if kernel.process.space.read_u32(address)? != value {
        return Err(Errno::EAGAIN.into());
    }
    kernel.futexes.wait(current, key, bits);
    let memory = &mut kernel.task().memory;
    memory.deadline_ns = deadline_ns;
    memory.is_realtime = timeout.1 == Clock::Realtime;
    go_on_waiting(kernel, timeout)
}

/// The time of CLOCK_MONOTONIC at which a wait ends.
fn deadline(kernel: &mut Kernel, (address, clock): (u64, Clock)) -> Result<Option<u64>, Errno> {
    if address == 0 {
        return Ok(None);
    }
    let time_ns = parse_timespec(kernel.process.space.read_array(address)?).ok_or(Errno::EINVAL)?;
    let now_ns = monotonic_ns();
    Ok(Some(match clock {
        Clock::Span => now_ns.saturating_add(time_ns),
        Clock::Monotonic => time_ns,
        Clock::Realtime => now_ns.saturating_add(time_ns.saturating_sub(realtime_ns())),
    }))
}

/// The task has not been woken yet.
fn go_on_waiting(kernel: &mut Kernel, timeout: (u64, Clock)) -> CallResult {
    let Some(deadline_ns) = kernel.task().memory.deadline_ns else {
        return Err(Failure::Wait);
    };
    if monotonic_ns() < deadline_ns {
        return Err(Failure::Wait);
    }
    // The two clocks may have moved against each other a little.
    if timeout.1 == Clock::Realtime
        && let Ok(Some(again_ns)) = deadline(kernel, timeout)
        && again_ns > monotonic_ns()
    {
        kernel.task().memory.deadline_ns = Some(again_ns);
        return Err(Failure::Wait);
    }
    let current = kernel.current;
    kernel.futexes.forget(current);
    Err(Errno::ETIMEDOUT.into())
}

fn wake(kernel: &mut Kernel, address: u64, limit: usize, bits: u32) -> CallResult {
    if bits == 0 {
        return Err(Errno::EINVAL.into());
    }
    let key = key(kernel, address)?;
    Ok(kernel.futexes.wake(key, limit, bits) as u64)
}

fn requeue(
    kernel: &mut Kernel,
    from: u64,
    to: u64,
    [wake, limit]: [usize; 2],
    expected: Option<u32>,
) -> CallResult {
    let keys = (key(kernel, from)?, key(kernel, to)?);
    if let Some(expected) = expected
        && kernel.process.space.read_u32(from)? != expected
    {
        return Err(Errno::EAGAIN.into());
    }
    let woken = kernel.futexes.wake(keys.0, wake, ANY_BIT);
    let moved = kernel.futexes.requeue(keys.0, keys.1, limit);
    Ok((woken + moved) as u64)
}

fn wake_op(
    kernel: &mut Kernel,
    first: u64,
    second: u64,
    [limit, second_limit]: [usize; 2],
    operation: u32,
) -> CallResult {
    let keys = (key(kernel, first)?, key(kernel, second)?);
    let old = kernel.process.space.read_u32(second)?;
    let change = Change::parse(operation).ok_or(Errno::ENOSYS)?;
    kernel
        .process
        .space
        .write(second, &change.apply(old).to_le_bytes())?;
    let mut woken = kernel.futexes.wake(keys.0, limit, ANY_BIT);
    if change.holds(old).ok_or(Errno::ENOSYS)? {
        woken += kernel.futexes.wake(keys.1, second_limit, ANY_BIT);
    }
    Ok(woken as u64)
}

/// What `FUTEX_WAKE_OP` does to the second word, and the comparison that it makes.
#[derive(Debug, Clone, Copy)]
struct Change {
    operation: u32,
    operand: u32,
    comparison: u32,
    against: i32,
}

impl Change {
    fn parse(encoded: u32) -> Option<Self> {
        const IS_SHIFT: u32 = 8;
        let operation = encoded >> 28;
        // Twelve bits with a sign.
        let signed = |value: u32| ((value << 20) as i32) >> 20;
        let operand = signed(encoded >> 12);
        let operand = match operation & IS_SHIFT {
            0 => operand.cast_unsigned(),
            _ => 1 << (operand & 31),
        };
        let operation = operation & !IS_SHIFT;
        (operation <= 4).then_some(Self {
            operation,
            operand,
            comparison: encoded >> 24 & 15,
            against: signed(encoded),
        })
    }

    fn apply(&self, old: u32) -> u32 {
        match self.operation {
            0 => self.operand,
            1 => old.wrapping_add(self.operand),
            2 => old | self.operand,
            3 => old & !self.operand,
            _ => old ^ self.operand,
        }
    }

    fn holds(&self, old: u32) -> Option<bool> {
        let old = old.cast_signed();
        Some(match self.comparison {
            0 => old == self.against,
            1 => old != self.against,
            2 => old < self.against,
            3 => old <= self.against,
            4 => old > self.against,
            5 => old >= self.against,
            _ => return None,
        })
    }
}

/// `FUTEX_LOCK_PI`: the word holds the owner's number; who unlocks hands it over. Priorities need no inheritance, since
/// there are none.
fn lock(kernel: &mut Kernel, address: u64, timeout: (u64, Clock), waits: bool) -> CallResult {
    let current = kernel.current;
    if kernel.futexes.take_woken(current) {
        return Ok(0);
    }
    if kernel.futexes.knows(current) {
        return go_on_waiting(kernel, timeout);
    }
    let deadline_ns = deadline(kernel, timeout)?;
    let key = key(kernel, address)?;
    let word = kernel.process.space.read_u32(address)?;
    let owner = word & linux::FUTEX_TID_MASK;
    if owner == current {
        return Err(Errno::EDEADLK.into());
    }
    if owner == 0 {
        let word = word & linux::FUTEX_OWNER_DIED | current;
        kernel.process.space.write(address, &word.to_le_bytes())?;
        return Ok(0);
    }
    if !waits {
        return Err(Errno::EAGAIN.into());
    }
    if !kernel.tasks.contains_key(&owner) {
        return Err(Errno::ESRCH.into());
    }
    kernel
        .process
        .space
        .write(address, &(word | linux::FUTEX_WAITERS).to_le_bytes())?;
    kernel.futexes.wait(current, key, ANY_BIT);
    let memory = &mut kernel.task().memory;
    memory.deadline_ns = deadline_ns;
    memory.is_realtime = timeout.1 == Clock::Realtime;
    go_on_waiting(kernel, timeout)
}

fn unlock(kernel: &mut Kernel, address: u64) -> CallResult {
    let key = key(kernel, address)?;
    let word = kernel.process.space.read_u32(address)?;
    if word & linux::FUTEX_TID_MASK != kernel.current {
        return Err(Errno::EPERM.into());
    }
    let next = kernel.futexes.first(key);
    kernel.futexes.wake(key, 1, ANY_BIT);
    let word = match (next, kernel.futexes.first(key)) {
        (None, _) => 0,
        (Some(next), None) => next,
        (Some(next), Some(_)) => next | linux::FUTEX_WAITERS,
    };
    kernel.process.space.write(address, &word.to_le_bytes())?;
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encode(operation: u32, comparison: u32, operand: i32, against: i32) -> u32 {
        operation << 28
            | comparison << 24
            | (operand.cast_unsigned() & 0xfff) << 12
            | against.cast_unsigned() & 0xfff
    }

    #[test]
    fn the_second_word_changes_as_encoded() {
        let apply = |operation, operand, old| {
            Change::parse(encode(operation, 0, operand, 0))
                .unwrap()
                .apply(old)
        };
        assert_eq!(apply(0, -1, 5), u32::MAX);
        assert_eq!(apply(1, -2, 5), 3);
        assert_eq!(apply(2, 3, 4), 7);
        assert_eq!(apply(3, 1, 7), 6);
        assert_eq!(apply(4, 15, 6), 9);
        assert_eq!(apply(8 | 2, 4, 1), 17);
        assert!(Change::parse(encode(5, 0, 0, 0)).is_none());
    }

    #[test]
    fn the_former_word_is_compared_with_its_sign() {
        let holds = |comparison, against, old: i32| {
            Change::parse(encode(0, comparison, 0, against))
                .unwrap()
                .holds(old.cast_unsigned())
        };
        assert_eq!(holds(2, 0, -1), Some(true));
        assert_eq!(holds(5, -3, -3), Some(true));
        assert_eq!(holds(1, 7, 7), Some(false));
        assert_eq!(holds(6, 0, 0), None);
    }
}
