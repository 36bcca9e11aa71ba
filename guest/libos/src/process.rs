//! A process: what its tasks share.
//!
//! The program is the first one. Others exist only between `vfork` and the end of the helper program that they execute:
//! there is no general `fork`. The process of the running task is [`crate::kernel::Kernel::process`], the others are
//! parked.

use alloc::boxed::Box;
use alloc::rc::Rc;
use alloc::vec::Vec;

use linux_raw_sys::general as linux;

use crate::files::File;
use crate::files::descriptors::{DESCRIPTORS_MAX, Descriptors};
use crate::files::generated::Start;
use crate::files::process::ProcessHandle;
use crate::files::tree::Entry;
use crate::memory::AddressSpace;
use crate::program::load::{Placed, STACK_BYTES};
use crate::signals::queue::QUEUED_MAX;
use crate::signals::{ProcessSignals, SIG_DFL, SIG_IGN, SIGNALS, SignalAction, SignalBudget};
use crate::task::{ReadyQueue, TASKS_MAX, TaskId, WaitQueue};
use crate::timers::ProcessTimers;

/// Number of a process, as `getpid` returns it: that of its first task.
pub(crate) type ProcessId = u32;

/// The program that the instance runs.
pub(crate) const FIRST_PROCESS: ProcessId = 1;

/// Resources that have limits.
pub(crate) const LIMITS: usize = 16;

/// User and group numbers: real, effective, saved, of the file system.
pub(crate) type Ids = [u32; 4];

/// Who the process acts for. There is nothing to protect from anyone here: programs that change it find it changed, what they
/// make from then on belongs to that user, and that is all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) users: Ids,
    pub(crate) groups: Ids,
    pub(crate) more_groups: Vec<u32>,
    /// Effective, permitted, inheritable capabilities.
    pub(crate) capabilities: [u64; 3],
}

/// Capabilities of root in an ordinary container.
const CONTAINER_CAPABILITIES: u64 = 0xa804_25fb;

impl Identity {
    /// A user with its groups; root has what it has in an ordinary container.
    pub(crate) fn new(user: u32, group: u32, more_groups: Vec<u32>) -> Self {
        let capabilities = if user == 0 { CONTAINER_CAPABILITIES } else { 0 };
        Self {
            users: [user; 4],
            groups: [group; 4],
            more_groups,
            capabilities: [capabilities, capabilities, 0],
        }
    }
}

/// Settings that programs make and read back, and that mean nothing here.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Settings {
    pub(crate) parent_death_signal: u32,
    pub(crate) is_undumpable: bool,
    pub(crate) no_new_privileges: bool,
    pub(crate) no_huge_pages: bool,
    pub(crate) is_subreaper: bool,
    pub(crate) keeps_capabilities: bool,
    pub(crate) timer_slack_ns: u64,
    pub(crate) personality: u32,
    /// Commands of `membarrier` that were registered.
    pub(crate) barriers: u32,
}

/// A process.
pub(crate) struct Process {
    pub(crate) id: ProcessId,
    /// The process that `getppid` names; 0 is outside.
    pub(crate) parent: ProcessId,
    pub(crate) group: ProcessId,
    pub(crate) session: ProcessId,
    pub(crate) space: AddressSpace,
    pub(crate) files: Descriptors,
    /// The working directory.
    pub(crate) directory: Rc<Entry>,
    /// The file that it executes, for `/proc`.
    pub(crate) program: Option<Rc<dyn File>>,
    /// What it was started with, for `/proc`.
    pub(crate) start: Rc<Start>,
    signal_actions: Box<[SignalAction; SIGNALS as usize]>,
    pub(crate) signals: Rc<ProcessSignals>,
    pub(crate) timers: ProcessTimers,
    pub(crate) file_mode_mask: u32,
    pub(crate) identity: Identity,
    pub(crate) settings: Settings,
    /// Soft and hard limits.
    pub(crate) limits: [[u64; 2]; LIMITS],
    /// How long it has run, in ticks of the time-stamp counter.
    pub(crate) run_ticks: u64,
    /// What its main thread said when it ended, if it has.
    pub(crate) main_status: u8,
    /// What descriptors of it have.
    pub(crate) handle: Rc<ProcessHandle>,
    /// The signal that its parent gets at its end; 0 for none.
    pub(crate) exit_signal: u32,
    /// The process whose address space it uses, until it executes a program or ends.
    pub(crate) borrows_from: Option<ProcessId>,
    /// A child uses its address space: none of its tasks runs.
    pub(crate) is_lent: bool,
    /// Tasks that could run otherwise.
    pub(crate) held: Vec<TaskId>,
    /// Told when a child ends.
    pub(crate) children_moved: WaitQueue,
    /// How long the children have run that were waited for.
    pub(crate) children_run_ticks: u64,
}

impl Process {
    /// What others on a unix socket are told of it: its number, user and group.
    pub(crate) fn credentials(&self) -> [u32; 3] {
        [self.id, self.identity.users[1], self.identity.groups[1]]
    }

    /// The program, with an address space in which nothing is mapped yet.
    pub(crate) fn first(
        space: AddressSpace,
        directory: Rc<Entry>,
        signals: Rc<ProcessSignals>,
        ready: &Rc<ReadyQueue>,
    ) -> Self {
        Self {
            id: FIRST_PROCESS,
            parent: 0,
            group: FIRST_PROCESS,
            session: FIRST_PROCESS,
            space,
            files: Descriptors::default(),
            directory,
            program: None,
            start: Rc::default(),
            signal_actions: Box::new([SignalAction::default(); SIGNALS as usize]),
            signals,
            timers: ProcessTimers::default(),
            file_mode_mask: 0o022,
            identity: Identity::new(0, 0, Vec::new()),
            settings: Settings::default(),
            limits: limits(),
            run_ticks: 0,
            main_status: 0,
            handle: ProcessHandle::new(FIRST_PROCESS, ready),
            exit_signal: 0,
            borrows_from: None,
            is_lent: false,
            held: Vec::new(),
            children_moved: WaitQueue::new(ready),
            children_run_ticks: 0,
        }
    }

    /// A child that has everything that its parent has, or a copy of it, and this address space.
    pub(crate) fn child(
        &self,
        id: ProcessId,
        space: AddressSpace,
        ready: &Rc<ReadyQueue>,
        budget: &SignalBudget,
    ) -> Self {
        Self {
            id,
            parent: self.id,
            group: self.group,
            session: self.session,
            files: self.files.clone(),
            program: self.program.clone(),
            start: Rc::clone(&self.start),
            signal_actions: self.signal_actions.clone(),
            file_mode_mask: self.file_mode_mask,
            identity: self.identity.clone(),
            settings: self.settings,
            limits: self.limits,
            handle: ProcessHandle::new(id, ready),
            ..Self::first(
                space,
                Rc::clone(&self.directory),
                ProcessSignals::new(ready, budget),
                ready,
            )
        }
    }

    /// What `execve` leaves of the actions: no handlers.
    pub(crate) fn clear_handlers(&mut self) {
        for action in self.signal_actions.iter_mut() {
            let handler = if action.handler == SIG_IGN {
                SIG_IGN
            } else {
                SIG_DFL
            };
            *action = SignalAction {
                handler,
                ..SignalAction::default()
            };
        }
    }

    /// What a signal does.
    pub(crate) fn action(&self, signal: u32) -> SignalAction {
        let index = signal.wrapping_sub(1) as usize;
        self.signal_actions.get(index).copied().unwrap_or_default()
    }

    /// Sets what a signal does.
    pub(crate) fn set_action(&mut self, signal: u32, action: SignalAction) {
        let index = signal.wrapping_sub(1) as usize;
        if let Some(place) = self.signal_actions.get_mut(index) {
            *place = action;
        }
    }

    /// Keeps what `/proc` shows of a program that has been put into memory.
    pub(crate) fn note_program(&mut self, placed: &Placed) {
        self.program = Some(Rc::clone(&placed.file));
        self.start = Rc::new(Start {
            arguments: placed.arguments.clone(),
            environment: placed.environment.clone(),
            auxiliary: placed.auxiliary.clone(),
        });
    }
}

/// The limits that a program starts with. Few are enforced.
fn limits() -> [[u64; 2]; LIMITS] {
    let mut limits = [[u64::MAX; 2]; LIMITS];
    limits[linux::RLIMIT_STACK as usize] = [STACK_BYTES, u64::MAX];
    limits[linux::RLIMIT_CORE as usize] = [0, u64::MAX];
    limits[linux::RLIMIT_NPROC as usize] = [TASKS_MAX as u64; 2];
    limits[linux::RLIMIT_NOFILE as usize] = [DESCRIPTORS_MAX as u64; 2];
    limits[linux::RLIMIT_MEMLOCK as usize] = [8 << 20; 2];
    limits[linux::RLIMIT_SIGPENDING as usize] = [QUEUED_MAX as u64; 2];
    limits[linux::RLIMIT_MSGQUEUE as usize] = [819_200; 2];
    limits[linux::RLIMIT_NICE as usize] = [0; 2];
    limits[linux::RLIMIT_RTPRIO as usize] = [0; 2];
    limits
}
