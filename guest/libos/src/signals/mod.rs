//! Signals: what they are, those that wait, and how they are delivered.
//!
//! ```text
//!   raise ──ignored──> dropped
//!     │
//!     v                                      ┌─ handler: a frame on the program's stack (`handlers`)
//!   waiting in the thread's or the           │
//!   process's queue ──────── not blocked ────┼─ default: the process ends
//!     │                     (`delivery`)     │
//!     └── rt_sigtimedwait, signalfd          └─ default: nothing
//! ```
//!
//! A thread's queue is in [`crate::task::Task`], a process's in [`ProcessSignals`]. A fault is never queued: it is
//! delivered where it happened (`exceptions`).

pub(crate) mod delivery;
pub(crate) mod exceptions;
pub(crate) mod frame;
mod handlers;
pub(crate) mod queue;

use core::cell::{Cell, RefCell};

use alloc::rc::Rc;

use linux_raw_sys::general as linux;

use crate::task::{ReadyQueue, WaitQueue};
pub(crate) use queue::{SignalBudget, SignalQueue};

/// Signals that there are; their numbers are 1 to this.
pub(crate) const SIGNALS: u32 = 64;
/// First real-time signal.
pub(crate) const FIRST_REAL_TIME: u32 = 32;
/// Handlers that are none.
pub(crate) const SIG_DFL: u64 = 0;
pub(crate) const SIG_IGN: u64 = 1;

/// The bit of a signal in a set.
pub(crate) fn bit(signal: u32) -> u64 {
    1 << (signal.wrapping_sub(1) & 63)
}

/// The signals that can be neither blocked nor handled.
pub(crate) fn unblockable() -> u64 {
    bit(linux::SIGKILL) | bit(linux::SIGSTOP)
}

/// `struct sigaction` as the kernel interface has it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct SignalAction {
    /// Address of the handler, [`SIG_DFL`] or [`SIG_IGN`].
    pub(crate) handler: u64,
    /// `SA_…` bits.
    pub(crate) flags: u64,
    /// Where the handler returns to.
    pub(crate) restorer: u64,
    /// What is blocked while the handler runs.
    pub(crate) mask: u64,
}

/// What a signal does if there is no handler.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DefaultAction {
    Ignore,
    /// Stop the process; there is nobody who could let it continue, so it is passed over.
    Stop,
    Terminate,
}

/// What `signal` does if there is no handler.
pub(crate) fn default_action(signal: u32) -> DefaultAction {
    match signal {
        linux::SIGCHLD | linux::SIGURG | linux::SIGWINCH | linux::SIGCONT => DefaultAction::Ignore,
        linux::SIGSTOP | linux::SIGTSTP | linux::SIGTTIN | linux::SIGTTOU => DefaultAction::Stop,
        _ => DefaultAction::Terminate,
    }
}

impl SignalAction {
    /// Whether a signal with this action comes to nothing.
    pub(crate) fn ignores(&self, signal: u32) -> bool {
        match self.handler {
            SIG_IGN => true,
            SIG_DFL => default_action(signal) == DefaultAction::Ignore,
            _ => false,
        }
    }

    /// Whether one of the `SA_…` bits is set.
    pub(crate) fn has(&self, flag: u32) -> bool {
        self.flags & u64::from(flag) != 0
    }
}

/// A signal and what is known of its cause (`siginfo_t`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct SignalInfo {
    pub(crate) signal: u32,
    pub(crate) errno: i32,
    /// `SI_…`, or a code of the signal's own.
    pub(crate) code: i32,
    /// What follows, by the code: sender and value, address, timer.
    pub(crate) words: [u64; 4],
}

/// Codes that linux-raw-sys does not have as numbers of this type.
pub(crate) mod code {
    pub(crate) const SI_USER: i32 = 0;
    pub(crate) const SI_KERNEL: i32 = 0x80;
    pub(crate) const SI_TIMER: i32 = -2;
    pub(crate) const SI_TKILL: i32 = -6;
}

impl SignalInfo {
    /// From the library OS.
    pub(crate) fn kernel(signal: u32) -> Self {
        Self {
            signal,
            code: code::SI_KERNEL,
            ..Self::default()
        }
    }

    /// From a process (whose user is root), by `kill` or `tgkill`.
    pub(crate) fn sent(signal: u32, code: i32, process: u32) -> Self {
        Self {
            signal,
            code,
            words: [u64::from(process), 0, 0, 0],
            ..Self::default()
        }
    }

    /// An exception at an address.
    pub(crate) fn fault(signal: u32, code: i32, address: u64) -> Self {
        Self {
            signal,
            code,
            words: [address, 0, 0, 0],
            ..Self::default()
        }
    }

    /// The timer `timer` has expired; `value` is what the program gave with it.
    pub(crate) fn timer(signal: u32, timer: u32, value: u64) -> Self {
        Self {
            signal,
            code: code::SI_TIMER,
            words: [u64::from(timer), value, 0, 0],
            ..Self::default()
        }
    }

    /// `siginfo_t`.
    pub(crate) fn to_bytes(self) -> [u8; frame::INFO_BYTES] {
        let mut bytes = [0; frame::INFO_BYTES];
        let head = [self.signal.cast_signed(), self.errno, self.code, 0];
        for (place, value) in bytes.chunks_exact_mut(4).zip(head) {
            place.copy_from_slice(&value.to_le_bytes());
        }
        for (place, value) in bytes[16..].chunks_exact_mut(8).zip(self.words) {
            place.copy_from_slice(&value.to_le_bytes());
        }
        bytes
    }

    /// What a program put into a `siginfo_t`; it says which signal that shall be.
    pub(crate) fn from_bytes(signal: u32, bytes: &[u8; 48]) -> Self {
        let word = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        let long = |at: usize| u64::from(word(at)) | u64::from(word(at + 4)) << 32;
        Self {
            signal,
            errno: word(4).cast_signed(),
            code: word(8).cast_signed(),
            words: [long(16), long(24), long(32), long(40)],
        }
    }
}

/// The signals of a process that wait, and who is to know of it. Shared with `signalfd` files.
pub(crate) struct ProcessSignals {
    /// Signals to the process as a whole.
    pub(crate) pending: RefCell<SignalQueue>,
    /// The set of `pending`, readable at any time.
    pub(crate) pending_set: Cell<u64>,
    /// Signals that wait for the thread that runs.
    pub(crate) thread_set: Cell<u64>,
    /// Told of each signal that is queued.
    pub(crate) moved: WaitQueue,
}

impl ProcessSignals {
    /// None.
    pub(crate) fn new(ready: &Rc<ReadyQueue>, budget: &SignalBudget) -> Rc<Self> {
        Rc::new(Self {
            pending: RefCell::new(SignalQueue::new(budget)),
            pending_set: Cell::new(0),
            thread_set: Cell::new(0),
            moved: WaitQueue::new(ready),
        })
    }

    /// Adds a signal to the process; `false` if there are too many.
    pub(crate) fn push(&self, info: SignalInfo) -> bool {
        let mut pending = self.pending.borrow_mut();
        let is_queued = pending.push(info);
        self.pending_set.set(pending.set());
        is_queued
    }

    /// Takes the first of the signals in `set`.
    pub(crate) fn take(&self, set: u64) -> Option<SignalInfo> {
        if self.pending_set.get() & set == 0 {
            return None;
        }
        let mut pending = self.pending.borrow_mut();
        let info = pending.take(set);
        self.pending_set.set(pending.set());
        info
    }

    /// Drops the signals in `set`.
    pub(crate) fn forget(&self, set: u64) {
        let mut pending = self.pending.borrow_mut();
        pending.forget(set);
        self.pending_set.set(pending.set());
    }
}

/// The stack on which handlers with `SA_ONSTACK` run; of no length if there is none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct AlternateStack {
    pub(crate) address: u64,
    pub(crate) bytes: u64,
    /// `SS_AUTODISARM`, or what the program gave.
    pub(crate) flags: u32,
}

/// Bits of a stack's flags.
pub(crate) const SS_ONSTACK: u32 = 1;
pub(crate) const SS_DISABLE: u32 = 2;
pub(crate) const SS_AUTODISARM: u32 = 1 << 31;

impl AlternateStack {
    /// No stack.
    pub(crate) fn none() -> Self {
        Self {
            flags: SS_DISABLE,
            ..Self::default()
        }
    }

    /// Whether a stack pointer lies on it.
    pub(crate) fn contains(&self, pointer: u64) -> bool {
        self.flags & SS_AUTODISARM == 0
            && pointer > self.address
            && pointer.wrapping_sub(self.address) <= self.bytes
    }

    /// `ss_flags` as `sigaltstack` reports them to a program with this stack pointer.
    pub(crate) fn state(&self, pointer: u64) -> u32 {
        let state = match () {
            () if self.bytes == 0 => SS_DISABLE,
            () if self.contains(pointer) => SS_ONSTACK,
            () => 0,
        };
        state | self.flags & SS_AUTODISARM
    }

    /// `stack_t` with these flags.
    pub(crate) fn to_bytes(self, flags: u32) -> [u8; 24] {
        let mut bytes = [0; 24];
        bytes[..8].copy_from_slice(&self.address.to_le_bytes());
        bytes[8..12].copy_from_slice(&flags.to_le_bytes());
        bytes[16..].copy_from_slice(&self.bytes.to_le_bytes());
        bytes
    }

    /// Of a `stack_t`.
    pub(crate) fn from_bytes(bytes: &[u8; 24]) -> Self {
        let long = |at: usize| {
            let mut word = [0; 8];
            word.copy_from_slice(&bytes[at..at + 8]);
            u64::from_le_bytes(word)
        };
        Self {
            address: long(0),
            bytes: long(16),
            flags: long(8) as u32,
        }
    }
}

/// What the last exception of a thread left; frames show it.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct FaultRecord {
    pub(crate) address: u64,
    pub(crate) error_code: u64,
    pub(crate) vector: u64,
}

/// What a thread has of its own for signals.
pub(crate) struct TaskSignals {
    /// Blocked signals.
    pub(crate) mask: u64,
    /// The mask to return to when the call ends that brought one of its own (`ppoll`, `rt_sigsuspend`, …).
    pub(crate) saved_mask: Option<u64>,
    pub(crate) pending: SignalQueue,
    pub(crate) alternate: AlternateStack,
    pub(crate) fault: FaultRecord,
    /// The thread is to look after the signals of its process. Of several that could, one is called.
    pub(crate) is_called: bool,
}

impl TaskSignals {
    /// Nothing waits; `mask` is blocked.
    pub(crate) fn new(mask: u64, budget: &SignalBudget) -> Self {
        Self {
            mask,
            saved_mask: None,
            pending: SignalQueue::new(budget),
            alternate: AlternateStack::none(),
            fault: FaultRecord::default(),
            is_called: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stack_holds_the_addresses_below_its_end() {
        let stack = AlternateStack {
            address: 0x1000,
            bytes: 0x1000,
            flags: 0,
        };
        assert!(!stack.contains(0x1000));
        assert!(stack.contains(0x1001));
        assert!(stack.contains(0x2000));
        assert!(!stack.contains(0x2001));
        assert_eq!(stack.state(0x1800), SS_ONSTACK);
        assert_eq!(stack.state(0x3000), 0);
        assert_eq!(AlternateStack::none().state(0), SS_DISABLE);
        assert_eq!(AlternateStack::from_bytes(&stack.to_bytes(0)), stack);
    }

    #[test]
    fn information_lies_where_programs_look_for_it() {
        let bytes = SignalInfo::sent(10, code::SI_TKILL, 7).to_bytes();
        assert_eq!((bytes[0], bytes[8], bytes[16]), (10, 0xfa, 7));
        let timer = SignalInfo::timer(14, 3, 0xabcd);
        let mut head = [0; 48];
        head.copy_from_slice(&timer.to_bytes()[..48]);
        assert_eq!(SignalInfo::from_bytes(14, &head), timer);
        assert_eq!(head[24..26], [0xcd, 0xab]);
    }

    #[test]
    fn actions_ignore_by_wish_or_by_default() {
        let default = SignalAction::default();
        assert!(default.ignores(linux::SIGCHLD));
        assert!(!default.ignores(linux::SIGTERM));
        let ignore = SignalAction {
            handler: SIG_IGN,
            ..default
        };
        assert!(ignore.ignores(linux::SIGTERM));
    }
}
