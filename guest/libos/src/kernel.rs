//! The kernel: all state of the library OS, and the loop that runs the program.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::rc::Rc;
use alloc::vec::Vec;
use core::fmt::Write as _;

use linux_raw_sys::general::{SIGBUS, SIGFPE, SIGILL, SIGSEGV, SIGTRAP};
use spore_abi::layout::PAGE_BYTES;
use spore_abi::pages::{Upcall, boot_flags, exit_kind};
use spore_abi::ring::LogOrigin;
use spore_machine::context::{self, Trap};
use spore_machine::identity::Identity;
use spore_machine::{processor, shared};

use crate::calls::{self, Answer};
use crate::errno::Errno;
use crate::files;
use crate::files::budget::Budget;
use crate::files::console;
use crate::files::descriptors::OpenFile;
use crate::files::tree::Tree;
use crate::memory::AddressSpace;
use crate::memory::frames::{self, SharedFrames};
use crate::memory::pages::Pages;
use crate::memory::space::{AccessError, Intent};
use crate::network::Network;
use crate::process::{Process, ProcessId};
use crate::program;
use crate::random::Random;
use crate::task::{Memory, Pending, ReadyQueue, Task, TaskId};
use crate::time;

/// Highest system call number that can be reported as missing by itself.
const CALL_NUMBERS: usize = 512;
/// Page-fault error code bits (Intel SDM volume 3, 4.7).
const FAULT_WAS_WRITE: u64 = 1 << 1;
const FAULT_WAS_FETCH: u64 = 1 << 4;

/// All state of the library OS.
pub(crate) struct Kernel {
    /// The process of the running task.
    pub(crate) process: Process,
    /// The other processes.
    parked: BTreeMap<ProcessId, Process>,
    /// The RAM that is left, for all processes.
    pub(crate) frames: SharedFrames,
    pub(crate) network: Network,
    pub(crate) random: Random,
    pub(crate) ready: Rc<ReadyQueue>,
    pub(crate) budget: Rc<Budget>,
    pub(crate) tasks: BTreeMap<TaskId, Task>,
    pub(crate) current: TaskId,
    pub(crate) deadlines: BTreeSet<(u64, TaskId)>,
    /// The host should serve the rings soon, though the program goes on.
    pub(crate) notify_due: bool,
    pub(crate) tree: Tree,
    /// Number of this start of the instance.
    pub(crate) boot_id: [u8; 16],
    /// When the library OS was started, in nanoseconds of CLOCK_MONOTONIC.
    pub(crate) started_ns: u64,
    reported_missing: [u64; CALL_NUMBERS / 64],
    report_missing: bool,
    reported_handler: bool,
    /// The task whose extended state is in the processor.
    loaded: TaskId,
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
    let mut kernel = Kernel {
        process: Process::first(AddressSpace::new(&boot, &frames), Rc::clone(&tree.root)),
        parked: BTreeMap::new(),
        frames,
        network: Network::new(boot.port as u16, &ready),
        random: Random::new(boot.seed),
        ready,
        budget: Rc::default(),
        tasks: BTreeMap::new(),
        current: 1,
        deadlines: BTreeSet::new(),
        notify_due: false,
        tree,
        boot_id: [0; 16],
        started_ns: time::monotonic_ns(),
        reported_missing: [0; CALL_NUMBERS / 64],
        report_missing: boot.flags & boot_flags::REPORT_MISSING_CALLS != 0,
        reported_handler: false,
        loaded: 1,
    };
    kernel.open_console();
    let mut boot_id = [0; 16];
    kernel.random.fill(&mut boot_id);
    kernel.boot_id = boot_id;
    if let Err(Errno(number)) = files::tree::start::furnish(&mut kernel, &boot) {
        let mut message = Line::default();
        // Cannot fail: a line takes what fits.
        let _ = write!(message, "the file system cannot be made ready (error {number})");
        shared::end(exit_kind::BAD_PROGRAM, 0, message.as_str());
    }
    match program::load::load(&mut kernel, &boot) {
        Ok(task) => {
            kernel.tasks.insert(1, task);
            kernel.ready.push(1);
        }
        Err(error) => {
            let mut message = Line::default();
            // Cannot fail: a line takes what fits.
            let _ = write!(message, "{error}");
            shared::end(exit_kind::BAD_PROGRAM, 0, message.as_str());
        }
    }
    kernel.run()
}

impl Kernel {
    fn open_console(&mut self) {
        use linux_raw_sys::general::{O_RDONLY, O_WRONLY};
        let console: [(Rc<dyn crate::files::File>, u32); 3] = [
            (Rc::new(console::Input), O_RDONLY),
            (Rc::new(console::Output(LogOrigin::Stdout)), O_WRONLY),
            (Rc::new(console::Output(LogOrigin::Stderr)), O_WRONLY),
        ];
        for (file, flags) in console {
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

    fn run(&mut self) -> ! {
        loop {
            self.network.pump();
            self.fire_deadlines();
            match self.ready.pop() {
                Some(task) if self.tasks.contains_key(&task) => self.run_task(task),
                Some(_) => {}
                None => self.idle(),
            }
        }
    }

    /// Nothing can run: sleep until something comes in or the next deadline passes.
    fn idle(&mut self) {
        shared::set_listening(self.network.is_function_listening());
        let deadline_ns = self
            .deadlines
            .first()
            .map_or(u64::MAX, |&(deadline_ns, _)| deadline_ns);
        self.notify_due = false;
        shared::wait(deadline_ns);
    }

    fn fire_deadlines(&mut self) {
        if self.deadlines.is_empty() {
            return;
        }
        let now_ns = time::monotonic_ns();
        while let Some(&(deadline_ns, task)) = self.deadlines.first() {
            if deadline_ns > now_ns {
                break;
            }
            self.deadlines.pop_first();
            self.ready.push(task);
        }
    }

    /// Runs a task until it waits, yields or ends.
    fn run_task(&mut self, task: TaskId) {
        self.current = task;
        let process = self.task().process;
        self.switch_process_to(process);
        self.switch_processor_to(task);
        Identity::Process.set(u64::from(self.process.id));
        Identity::Parent.set(u64::from(self.process.parent));
        Identity::Task.set(u64::from(task));
        if let Some(pending) = self.task().pending.take()
            && !self.answer(pending)
        {
            return;
        }
        loop {
            shared::set_wants_kicks(self.tasks.len() > 1);
            match context::run(&mut self.task().context) {
                Trap::SystemCall => {
                    let context = &self.task().context;
                    let (site, number) = (context.registers.rip.wrapping_sub(2), context.call_number());
                    self.process.space.note_trap(site, number);
                    if !self.answer_call() {
                        return;
                    }
                }
                Trap::RewrittenCall => {
                    if !self.answer_call() {
                        return;
                    }
                }
                Trap::Fault(upcall) if self.is_rewritten_call(&upcall) => {
                    self.task().context.enter_call(upcall.registers.rip);
                    if !self.answer_call() {
                        return;
                    }
                }
                Trap::Fault(upcall) => self.fault(&upcall),
                Trap::Kick => {
                    self.ready.push(task);
                    return;
                }
            }
            if self.notify_due {
                self.notify_due = false;
                shared::notify();
                self.network.pump();
            }
        }
    }

    /// Whether an exception is one of a call site that was rewritten.
    fn is_rewritten_call(&mut self, upcall: &Upcall) -> bool {
        const INVALID_OPCODE: u32 = 6;
        upcall.vector == INVALID_OPCODE && self.process.space.is_rewritten_call(upcall.registers.rip)
    }

    /// Answers the call that the running task makes; `false` if it does not go on running now.
    fn answer_call(&mut self) -> bool {
        let context = &self.task().context;
        let call = Pending {
            number: context.call_number(),
            arguments: context.call_arguments(),
        };
        self.answer(call)
    }

    /// Answers a call; `false` if the task does not go on running now.
    fn answer(&mut self, pending: Pending) -> bool {
        // A program that only polls, and so never waits, must see what has come in meanwhile.
        self.network.pump();
        let deadline_before = self.task().memory.deadline_ns;
        let answer = calls::dispatch(self, pending);
        let current = self.current;
        let Some(task) = self.tasks.get_mut(&current) else {
            return false;
        };
        match answer {
            Answer::Result(value) => {
                if let Some(deadline_ns) = deadline_before.or(task.memory.deadline_ns) {
                    self.deadlines.remove(&(deadline_ns, current));
                }
                task.memory = Memory::default();
                task.context.set_result(value);
                true
            }
            Answer::Wait => {
                task.pending = Some(pending);
                if let Some(deadline_ns) = task.memory.deadline_ns {
                    self.deadlines.insert((deadline_ns, current));
                }
                false
            }
            Answer::Yield => {
                task.context.set_result(0);
                self.ready.push(current);
                false
            }
            Answer::Ended => {
                self.tasks.remove(&current);
                false
            }
        }
    }

    /// Makes the process of the task that is about to run the current one.
    fn switch_process_to(&mut self, id: ProcessId) {
        if self.process.id == id {
            return;
        }
        let Some(next) = self.parked.remove(&id) else {
            shared::end(exit_kind::LIBRARY_OS_FAILED, 0, "the process of a task is gone");
        };
        let previous = core::mem::replace(&mut self.process, next);
        self.parked.insert(previous.id, previous);
        self.process.space.activate();
    }

    /// Exchanges the register state that traps do not save.
    fn switch_processor_to(&mut self, task: TaskId) {
        if self.loaded == task {
            return;
        }
        if let Some(previous) = self.tasks.get_mut(&self.loaded) {
            previous.context.fs_base = processor::fs_base();
            previous.context.gs_base = processor::gs_base();
            previous.extended.save();
        }
        if let Some(next) = self.tasks.get(&task) {
            processor::set_fs_base(next.context.fs_base);
            processor::set_gs_base(next.context.gs_base);
            next.extended.restore();
        }
        self.loaded = task;
    }

    /// The program raised an exception.
    fn fault(&mut self, upcall: &Upcall) {
        const PAGE_FAULT: u32 = 14;
        let mut is_beyond_file = false;
        if upcall.vector == PAGE_FAULT {
            let intent = match upcall.error_code {
                code if code & FAULT_WAS_FETCH != 0 => Intent::Execute,
                code if code & FAULT_WAS_WRITE != 0 => Intent::Write,
                _ => Intent::Read,
            };
            match self.process.space.fault(upcall.fault_address, intent) {
                Ok(()) => return,
                Err(AccessError::OutOfMemory) => shared::end(exit_kind::OUT_OF_MEMORY, 0, ""),
                Err(AccessError::BeyondFile) => is_beyond_file = true,
                Err(AccessError::Forbidden) => {}
            }
        }
        let signal = match upcall.vector {
            PAGE_FAULT if is_beyond_file => SIGBUS,
            0 | 16 | 19 => SIGFPE,
            1 | 3 => SIGTRAP,
            6 => SIGILL,
            12 | 17 => SIGBUS,
            _ => SIGSEGV,
        };
        shared::end(exit_kind::FAULTED, signal, "")
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

    /// A process.
    pub(crate) fn process_mut(&mut self, id: ProcessId) -> Option<&mut Process> {
        if self.process.id == id {
            return Some(&mut self.process);
        }
        self.parked.get_mut(&id)
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

    /// Reports once that a handler of the program would have been due.
    pub(crate) fn report_unserved_handler(&mut self, signal: u32) {
        if core::mem::replace(&mut self.reported_handler, true) {
            return;
        }
        let mut line = Line::default();
        // Cannot fail: a line takes what fits.
        let _ = writeln!(
            line,
            "signal {signal} was raised; signal handlers are not run, so it is passed over"
        );
        shared::log(LogOrigin::Platform, line.as_str().as_bytes());
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
