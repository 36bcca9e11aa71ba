//! Signals that are read (`signalfd`).

use alloc::rc::Rc;
use core::cell::Cell;

use super::{File, Kind, Readiness};
use crate::errno::Errno;
use crate::kernel::Kernel;
use crate::memory::Buffers;
use crate::signals::{ProcessSignals, SignalInfo};
use crate::task::WaitQueue;

/// Size of `struct signalfd_siginfo`.
const INFO_BYTES: u64 = 128;

/// A reader of the signals of one process.
pub(crate) struct SignalFile {
    set: Cell<u64>,
    signals: Rc<ProcessSignals>,
}

impl SignalFile {
    /// A reader of the signals in `set`.
    pub(crate) fn new(set: u64, signals: &Rc<ProcessSignals>) -> Self {
        Self {
            set: Cell::new(set),
            signals: Rc::clone(signals),
        }
    }

    /// Sets which signals are read.
    pub(crate) fn set(&self, set: u64) {
        self.set.set(set);
        self.signals.moved.wake();
    }
}

impl File for SignalFile {
    fn kind(&self) -> Kind {
        Kind::Anonymous
    }

    fn read(&self, kernel: &mut Kernel, buffers: &mut Buffers) -> Result<u64, Errno> {
        if buffers.remaining() < INFO_BYTES {
            return Err(Errno::EINVAL);
        }
        let mut done = 0;
        while buffers.remaining() >= INFO_BYTES {
            let Some(info) = kernel.take_signal(self.set.get()) else {
                break;
            };
            buffers.put(&mut kernel.process.space, &describe(&info))?;
            done += INFO_BYTES;
        }
        if done == 0 { Err(Errno::EAGAIN) } else { Ok(done) }
    }

    fn readiness(&self) -> Readiness {
        let waiting = self.signals.pending_set.get() | self.signals.thread_set.get();
        let mut readiness = Readiness::empty();
        readiness.set(Readiness::READ, waiting & self.set.get() != 0);
        readiness
    }

    fn wait_queue(&self) -> Option<&WaitQueue> {
        Some(&self.signals.moved)
    }

    fn as_signals(&self) -> Option<&Self> {
        Some(self)
    }
}

/// `struct signalfd_siginfo`.
fn describe(info: &SignalInfo) -> [u8; INFO_BYTES as usize] {
    const SI_TIMER: i32 = crate::signals::code::SI_TIMER;
    let mut bytes = [0; INFO_BYTES as usize];
    let mut put = |at: usize, value: u32| bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
    let [first, value, ..] = info.words;
    put(0, info.signal);
    put(4, info.errno.cast_unsigned());
    put(8, info.code.cast_unsigned());
    let (low, high) = (first as u32, (first >> 32) as u32);
    if info.code == SI_TIMER {
        put(24, low);
        put(32, high);
    } else {
        put(12, low);
        put(16, high);
    }
    if info.code < 0 {
        put(44, value as u32);
        put(48, value as u32);
        put(52, (value >> 32) as u32);
    } else if info.signal == linux_raw_sys::general::SIGCHLD {
        put(40, value as u32);
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_lie_where_programs_look_for_them() {
        let queued = SignalInfo {
            words: [7 | 8 << 32, 0x1_0000_0009, 0, 0],
            ..SignalInfo::sent(34, -1, 7)
        };
        let bytes = describe(&queued);
        assert_eq!((bytes[0], bytes[12], bytes[16]), (34, 7, 8));
        assert_eq!((bytes[44], bytes[48], bytes[52]), (9, 9, 1));
        let timer = describe(&SignalInfo::timer(14, 3, 5));
        assert_eq!((timer[24], timer[12], timer[48]), (3, 0, 5));
    }
}
