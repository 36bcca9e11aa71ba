//! A process: what its tasks share.
//!
//! The program is the first one. Others exist only between `vfork` and the end of the helper program that they execute:
//! there is no general `fork`. The process of the running task is [`crate::kernel::Kernel::process`], the others are
//! parked.

use alloc::boxed::Box;
use alloc::rc::Rc;

use crate::files::File;
use crate::files::descriptors::Descriptors;
use crate::files::generated::Start;
use crate::files::tree::Entry;
use crate::memory::AddressSpace;

/// Number of a process, as `getpid` returns it: that of its first task.
pub(crate) type ProcessId = u32;

/// The program that the instance runs.
pub(crate) const FIRST_PROCESS: ProcessId = 1;

/// Signals that there are.
pub(crate) const SIGNALS: usize = 64;

/// `struct sigaction` as the kernel interface has it: handler, flags, restorer, mask.
pub(crate) type SignalAction = [u64; 4];

/// A process.
pub(crate) struct Process {
    pub(crate) id: ProcessId,
    /// The process that `getppid` names; 0 is outside.
    pub(crate) parent: ProcessId,
    pub(crate) space: AddressSpace,
    pub(crate) files: Descriptors,
    /// The working directory.
    pub(crate) directory: Rc<Entry>,
    /// The file that it executes, for `/proc`.
    pub(crate) program: Option<Rc<dyn File>>,
    /// What it was started with, for `/proc`.
    pub(crate) start: Rc<Start>,
    pub(crate) signal_actions: Box<[SignalAction; SIGNALS]>,
    /// Signals to the whole process that came while they were blocked, one bit each.
    pub(crate) pending_signals: u64,
    pub(crate) file_mode_mask: u32,
    pub(crate) name: [u8; 16],
}

impl Process {
    /// The program, with an address space in which nothing is mapped yet.
    pub(crate) fn first(space: AddressSpace, directory: Rc<Entry>) -> Self {
        Self {
            id: FIRST_PROCESS,
            parent: 0,
            space,
            files: Descriptors::default(),
            directory,
            program: None,
            start: Rc::default(),
            signal_actions: Box::new([[0; 4]; SIGNALS]),
            pending_signals: 0,
            file_mode_mask: 0o022,
            name: [0; 16],
        }
    }
}
