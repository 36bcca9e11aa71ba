//! The kernel: all state of the library OS, and the loop that runs the program.

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::rc::{Rc, Weak};
use alloc::vec::Vec;
use core::fmt::Write as _;

use spore_abi::layout::{FREE_GPA, PAGE_BYTES};
use spore_abi::pages::{BootPage, boot_flags, exit_kind};
use spore_abi::ring::LogOrigin;
use spore_machine::context::Context;
use spore_machine::processor::ExtendedState;
use spore_machine::{reserved, shared};

use crate::calls;
use crate::children::Zombie;
use crate::clones::Clones;
use crate::errno::Errno;
use crate::files::budget::Budget;
use crate::files::console;
use crate::files::descriptors::OpenFile;
use crate::files::timer::TimerFile;
use crate::files::tree::Tree;
use crate::files::{self, File};
use crate::futex::Futexes;
use crate::memory::AddressSpace;
use crate::memory::frames::{self, SharedFrames};
use crate::memory::pages::Pages;
use crate::network::Network;
use crate::network::stream::Stream;
use crate::process::{FIRST_PROCESS, Process, ProcessId};
use crate::program;
use crate::program::command::{self, Command};
use crate::random::Random;
use crate::schedule::Slice;
use crate::signals::{ProcessSignals, SignalBudget, TaskSignals};
use crate::task::{Memory, ReadyQueue, TASK_BYTES, TASKS_MAX, Task, TaskId};
use crate::time;
use crate::timers::Due;

/// Highest system call number that can be reported as missing by itself.
const CALL_NUMBERS: usize = 512;

/// All state of the library OS.
pub(crate) struct Kernel {
    /// The process of the running task.
    pub(crate) process: Process,
    /// The other processes.
    pub(crate) parked: BTreeMap<ProcessId, Process>,
    /// Processes that have ended and were not waited for.
    pub(crate) zombies: BTreeMap<ProcessId, Zombie>,
    /// The RAM that is left, for all processes.
    pub(crate) frames: SharedFrames,
    pub(crate) network: Network,
    pub(crate) random: Random,
    pub(crate) clones: Clones,
    /// What waits for its invocation, if it is no server.
    pub(crate) command: Option<Box<Command>>,
    pub(crate) ready: Rc<ReadyQueue>,
    pub(crate) budget: Rc<Budget>,
    pub(crate) tasks: BTreeMap<TaskId, Task>,
    /// Most tasks at a time.
    pub(crate) tasks_max: usize,
    /// Where the search for the number of the next task begins.
    pub(crate) next_task: TaskId,
    pub(crate) current: TaskId,
    pub(crate) futexes: Futexes,
    pub(crate) signal_budget: SignalBudget,
    pub(crate) deadlines: BTreeSet<(u64, Due)>,
    /// The files of timers that may be due, and the number of the next one.
    pub(crate) timer_files: BTreeMap<u64, Weak<TimerFile>>,
    pub(crate) next_timer_file: u64,
    /// The host should serve the rings soon, though the program goes on.
    pub(crate) notify_due: bool,
    pub(crate) tree: Tree,
    /// Number of this start of the instance.
    pub(crate) boot_id: [u8; 16],
    /// When the library OS was started, in nanoseconds of CLOCK_MONOTONIC.
    pub(crate) started_ns: u64,
    pub(crate) slice: Slice,
    pub(crate) reported_stop: bool,
    pub(crate) reported_fork: bool,
    reported_missing: [u64; CALL_NUMBERS / 64],
    report_missing: bool,
    /// The task whose extended state is in the processor.
    pub(crate) loaded: TaskId,
}

/// Starts the library OS: loads the program and runs it until it ends.
///
/// The heap must have been started.
pub fn start() -> ! {
    let boot = shared::boot();
    let ready = Rc::new(ReadyQueue::default());
    let frames = frames::share(&boot);
    let tree = files::tree::start::tree(&boot, &frames, &ready).unwrap_or_else(|_| {
        shared::end(
            exit_kind::BAD_PROGRAM,
            0,
            "the root file system is damaged or needs more than is served",
        )
    });
    let clones = Clones::new(&boot, &frames, &ready);
    let signal_budget = SignalBudget::default();
    let signals = ProcessSignals::new(&ready, &signal_budget);
    let mut kernel = Kernel {
        process: Process::first(
            AddressSpace::new(&boot, &frames),
            Rc::clone(&tree.root),
            signals,
            &ready,
        ),
        parked: BTreeMap::new(),
        zombies: BTreeMap::new(),
        frames,
        network: Network::new(boot.port as u16, &ready),
        random: Random::new(boot.seed),
        clones,
        command: None,
        futexes: Futexes::new(&ready),
        ready,
        budget: Rc::default(),
        tasks: BTreeMap::new(),
        tasks_max: tasks_max(&boot),
        next_task: FIRST_PROCESS + 1,
        current: FIRST_PROCESS,
        signal_budget,
        deadlines: BTreeSet::new(),
        timer_files: BTreeMap::new(),
        next_timer_file: 0,
        notify_due: false,
        tree,
        boot_id: [0; 16],
        started_ns: time::monotonic_ns(),
        slice: Slice::default(),
        reported_stop: false,
        reported_fork: false,
        reported_missing: [0; CALL_NUMBERS / 64],
        report_missing: boot.flags & boot_flags::REPORT_MISSING_CALLS != 0,
        loaded: FIRST_PROCESS,
    };
    let is_command = boot.flags & boot_flags::COMMAND != 0;
    if !is_command {
        kernel.open_console();
    }
    let mut boot_id = [0; 16];
    kernel.random.fill(&mut boot_id);
    kernel.boot_id = boot_id;
    if let Err(Errno(number)) = files::tree::start::furnish(&mut kernel, &boot) {
        let mut message = Line::default();
        // Cannot fail: a line takes what fits.
        let _ = write!(message, "the file system cannot be made ready (error {number})");
        shared::end(exit_kind::BAD_PROGRAM, 0, message.as_str());
    }
    if is_command {
        match program::start::load_command(&mut kernel, &boot) {
            Ok(command) => kernel.command = Some(Box::new(command)),
            Err(error) => command::bad_program(&error),
        }
    } else {
        match program::start::load_first(&mut kernel, &boot) {
            Ok(placed) => {
                kernel.process.note_program(&placed);
                let extended = ExtendedState::new(boot.extended_state_mask, boot.extended_state_bytes);
                let task = kernel.first_task(placed.context, extended, placed.name);
                kernel.tasks.insert(FIRST_PROCESS, task);
                kernel.ready.push(FIRST_PROCESS);
            }
            Err(error) => command::bad_program(&error),
        }
    }
    kernel.run()
}

/// How many tasks there may be: their state takes at most a third of the library OS's memory.
fn tasks_max(boot: &BootPage) -> usize {
    let heap_bytes = reserved::end_gpa().saturating_sub(FREE_GPA);
    let task_bytes = boot.extended_state_bytes.saturating_add(TASK_BYTES as u64);
    usize::try_from(heap_bytes / 3 / task_bytes)
        .unwrap_or(TASKS_MAX)
        .clamp(1, TASKS_MAX)
}

impl Kernel {
    fn open_console(&mut self) {
        use linux_raw_sys::general::{O_RDONLY, O_WRONLY};
        self.open_first([
            (Rc::new(console::Input), O_RDONLY),
            (Rc::new(console::Output(LogOrigin::Stdout)), O_WRONLY),
            (Rc::new(console::Output(LogOrigin::Stderr)), O_WRONLY),
        ]);
    }

    /// Opens standard input, output and error of a command; `error` is where the last goes, if not into the log.
    pub(crate) fn open_streams(&mut self, stream: &Rc<Stream>, error: Option<files::command::Output>) {
        use linux_raw_sys::general::{O_RDONLY, O_WRONLY};
        let error: Rc<dyn File> = match error {
            Some(error) => Rc::new(error),
            None => Rc::new(console::Output(LogOrigin::Stderr)),
        };
        self.open_first([
            (Rc::new(files::command::Input(Rc::clone(stream))), O_RDONLY),
            (Rc::new(files::command::Output(Rc::clone(stream))), O_WRONLY),
            (error, O_WRONLY),
        ]);
    }

    fn open_first(&mut self, first: [(Rc<dyn File>, u32); 3]) {
        for (file, flags) in first {
            // The table is empty, so there is room.
            let _ = self.process.files.add(OpenFile::new(file, flags), false, 0);
        }
    }

    /// The task that runs.
    pub(crate) fn task(&mut self) -> &mut Task {
        match self.tasks.get_mut(&self.current) {
            Some(task) => task,
            None => shared::end(exit_kind::LIBRARY_OS_FAILED, 0, "the running task is gone"),
        }
    }

    /// A process.
    pub(crate) fn process_mut(&mut self, id: ProcessId) -> Option<&mut Process> {
        if self.process.id == id {
            return Some(&mut self.process);
        }
        self.parked.get_mut(&id)
    }

    /// The first task of the current process.
    pub(crate) fn first_task(&self, context: Context, extended: ExtendedState, name: [u8; 16]) -> Task {
        Task {
            process: self.process.id,
            context,
            extended,
            pending: None,
            memory: Memory::default(),
            name,
            clear_tid_address: 0,
            robust_list: 0,
            sequences: None,
            signals: TaskSignals::new(0, &self.signal_budget),
            run_ticks: 0,
            nice: 0,
            policy: [0; 2],
        }
    }

    /// A number for a new inode.
    pub(crate) fn next_inode(&self) -> u64 {
        self.tree.volume.next_number()
    }

    /// Takes the bytes `start..end` of files' pages out of all address spaces, before they are freed.
    pub(crate) fn forget_pages(&mut self, pages: &Rc<Pages>, start: u64, end: u64) {
        // Nobody but the file has them as a rule.
        if Rc::strong_count(pages) == 1 {
            return;
        }
        let (first, end) = (start.div_ceil(PAGE_BYTES), end / PAGE_BYTES);
        self.process.space.forget_pages(pages, first, end);
        for process in self.parked.values_mut() {
            process.space.forget_pages(pages, first, end);
        }
    }

    /// The numbers of all processes, in order.
    pub(crate) fn process_ids(&self) -> Vec<ProcessId> {
        let mut ids: Vec<_> = self.parked.keys().copied().chain([self.process.id]).collect();
        ids.sort_unstable();
        ids
    }

    /// The process that a task, or the process itself, is part of.
    pub(crate) fn task_process(&self, id: TaskId) -> Option<ProcessId> {
        if id == self.process.id || self.parked.contains_key(&id) {
            return Some(id);
        }
        self.tasks.get(&id).map(|task| task.process)
    }

    /// Counts a call that is not there, and reports it once by name.
    pub(crate) fn report_missing(&mut self, number: u64) {
        shared::count_missing_call();
        let index = (number as usize).min(CALL_NUMBERS - 1);
        let (word, bit) = (index / 64, 1 << (index % 64));
        if !self.report_missing || self.reported_missing[word] & bit != 0 {
            return;
        }
        self.reported_missing[word] |= bit;
        let mut line = Line::default();
        // Cannot fail: a line takes what fits.
        let _ = match calls::names::name(number) {
            Some(name) => writeln!(
                line,
                "system call {name} ({number}) is not served; it fails with ENOSYS"
            ),
            None => writeln!(line, "system call {number} is unknown; it fails with ENOSYS"),
        };
        shared::log(LogOrigin::Platform, line.as_str().as_bytes());
    }
}

/// A line of text of bounded length; what does not fit is cut off.
pub(crate) struct Line {
    bytes: [u8; 240],
    length: usize,
}

impl Default for Line {
    fn default() -> Self {
        Self {
            bytes: [0; 240],
            length: 0,
        }
    }
}

impl Line {
    /// The text.
    pub(crate) fn as_str(&self) -> &str {
        core::str::from_utf8(&self.bytes[..self.length]).unwrap_or_default()
    }
}

impl core::fmt::Write for Line {
    fn write_str(&mut self, text: &str) -> core::fmt::Result {
        let mut end = text.len().min(self.bytes.len() - self.length);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        self.bytes[self.length..self.length + end].copy_from_slice(&text.as_bytes()[..end]);
        self.length += end;
        Ok(())
    }
}
