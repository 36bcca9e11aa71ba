//! Who runs: the main loop, time slices, and the accounts of time run.

use linux_raw_sys::general as linux;
use spore_abi::pages::{Upcall, exit_kind};
use spore_machine::context::{self, Trap};
use spore_machine::identity::Identity;
use spore_machine::{processor, shared};

use crate::calls::{self, Answer};
use crate::kernel::Kernel;
use crate::memory::rewriting::Rest;
use crate::memory::space::AccessError;
use crate::process::{FIRST_PROCESS, ProcessId};
use crate::signals::SignalInfo;
use crate::signals::delivery::Delivered;
use crate::signals::exceptions::{self, Found};
use crate::task::{Memory, Pending, TaskId};
use crate::time;
use crate::timers::Due;

/// How long a task runs while others wait for their turn.
const SLICE_NS: u64 = 10_000_000;
/// How often a task that makes calls all the time is looked after within its slice.
const LOOK_NS: u64 = 1_000_000;

/// The running task's share of the processor, in ticks of the time-stamp counter.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Slice {
    /// Up to here its time is in its accounts.
    charged_to: u64,
    look_at: u64,
    ends_at: u64,
}

impl Kernel {
    /// Runs the program until it ends.
    pub(crate) fn run(&mut self) -> ! {
        loop {
            self.network.pump();
            self.fire_deadlines();
            self.look_after_clone();
            self.look_after_command();
            match self.ready.pop() {
                Some(task) if self.hold_if_lent(task) => {}
                Some(task) if self.tasks.contains_key(&task) => {
                    self.begin_slice();
                    self.run_task(task);
                    self.charge();
                }
                Some(_) => {}
                None => self.idle(),
            }
        }
    }

    /// Nothing can run: sleep until something comes in or the next deadline passes.
    fn idle(&mut self) {
        self.prepare_snapshot();
        if !self.ready.is_empty() {
            return;
        }
        shared::set_listening(self.network.is_function_listening() && !self.clones.becomes_snapshot());
        let first_ns = self.deadlines.first().map(|&(deadline_ns, _)| deadline_ns);
        let deadline_ns = first_ns.into_iter().chain(self.clones.deadline_ns()).min();
        self.notify_due = false;
        shared::wait(deadline_ns.unwrap_or(u64::MAX));
        self.renew_clone();
    }

    fn begin_slice(&mut self) {
        let now = processor::time_stamp();
        self.slice = Slice {
            charged_to: now,
            look_at: self.next_look(now),
            ends_at: now.saturating_add(time::ns_to_ticks(SLICE_NS)),
        };
    }

    /// When a task that makes calls all the time is to be looked after: soon, or when something is due.
    fn next_look(&self, now: u64) -> u64 {
        let span_ns = match self.deadlines.first() {
            Some(&(deadline_ns, _)) => deadline_ns.saturating_sub(time::monotonic_ns()).min(LOOK_NS),
            None => LOOK_NS,
        };
        now.saturating_add(time::ns_to_ticks(span_ns))
    }

    /// Puts the time since the last charge into the accounts of the running task and its process.
    pub(crate) fn charge(&mut self) {
        let now = processor::time_stamp();
        let ticks = now.saturating_sub(self.slice.charged_to);
        self.slice.charged_to = now;
        self.process.run_ticks += ticks;
        let current = self.current;
        if let Some(task) = self.tasks.get_mut(&current) {
            task.run_ticks += ticks;
        }
    }

    /// How long the running process has run.
    pub(crate) fn process_run_ns(&mut self) -> u64 {
        self.charge();
        time::ticks_to_ns(self.process.run_ticks)
    }

    /// How long a task has run, if there is one of this number.
    pub(crate) fn task_run_ns(&mut self, task: TaskId) -> Option<u64> {
        self.charge();
        self.tasks
            .get(&task)
            .map(|task| time::ticks_to_ns(task.run_ticks))
    }

    /// Looks after deadlines, now and then, while a task makes calls; whether it is another's turn.
    fn is_slice_over(&mut self) -> bool {
        let now = processor::time_stamp();
        if now < self.slice.look_at {
            return false;
        }
        self.fire_deadlines();
        self.fire_run_timers();
        self.give_up_snapshot();
        self.slice.look_at = self.next_look(now);
        now >= self.slice.ends_at && !self.ready.is_empty()
    }

    /// Has the running process read who it is, and own the files that it makes.
    fn announce_process(&self) {
        Identity::Process.set(u64::from(self.process.id));
        Identity::Parent.set(u64::from(self.process.parent));
        self.announce_user();
    }

    /// The same after a change of its user or group.
    pub(crate) fn announce_user(&self) {
        let identity = &self.process.identity;
        let [user, effective_user, _, files_user] = identity.users;
        let [group, effective_group, _, files_group] = identity.groups;
        Identity::User.set(user.into());
        Identity::EffectiveUser.set(effective_user.into());
        Identity::Group.set(group.into());
        Identity::EffectiveGroup.set(effective_group.into());
        self.tree.volume.owner.set((files_user, files_group));
    }

    /// Runs a task until it waits, yields or ends.
    fn run_task(&mut self, task: TaskId) {
        self.current = task;
        let process = self.task().process;
        self.switch_process_to(process);
        self.switch_processor_to(task);
        self.announce_process();
        Identity::Task.set(u64::from(task));
        self.process
            .signals
            .thread_set
            .set(self.tasks.get(&task).map_or(0, |task| task.signals.pending.set()));
        if let Some(pending) = self.task().pending.take()
            && !self.answer(pending)
        {
            return;
        }
        loop {
            if self.is_signal_due() && self.deliver_signals(None) == Delivered::Ended {
                return;
            }
            if !self.task().context.is_runnable() {
                self.refuse_to_run();
                continue;
            }
            self.want_kicks();
            match context::run(&mut self.task().context) {
                Trap::SystemCall => {
                    let context = &self.task().context;
                    let (site, number) = (context.registers.rip.wrapping_sub(2), context.call_number());
                    let goes_on_at = self.process.space.note_trap(site, number);
                    self.task().context.registers.rip = goes_on_at;
                    if !self.answer_call() {
                        return;
                    }
                }
                Trap::RewrittenCall => {
                    if !self.answer_call() {
                        return;
                    }
                }
                Trap::Fault(upcall) => match self.rest_of_rewritten(&upcall) {
                    Some(Rest::Call) => {
                        self.task().context.enter_call(upcall.registers.rip);
                        if !self.answer_call() {
                            return;
                        }
                    }
                    Some(Rest::At(address)) => self.task().context.registers.rip = address,
                    None => self.fault(&upcall),
                },
                Trap::Kick => {
                    self.interrupt_sequence();
                    self.fire_run_timers();
                    self.ready.push(task);
                    return;
                }
            }
            if self.notify_due {
                self.notify_due = false;
                shared::notify();
                self.network.pump();
            }
            if !self.tasks.contains_key(&task) {
                return;
            }
            if self.is_slice_over() {
                self.ready.push(task);
                return;
            }
        }
    }

    /// Tells the host whether the program must be interrupted now and then.
    fn want_kicks(&self) {
        let wants =
            self.tasks.len() > 1 || !self.deadlines.is_empty() || self.process.timers.counts_time_run();
        shared::set_wants_kicks(wants);
    }

    /// What the running task is to do if an exception is one of a call site that was rewritten.
    fn rest_of_rewritten(&mut self, upcall: &Upcall) -> Option<Rest> {
        const INVALID_OPCODE: u32 = 6;
        const GENERAL_PROTECTION: u32 = 13;
        matches!(upcall.vector, INVALID_OPCODE | GENERAL_PROTECTION)
            .then(|| self.process.space.rest_of_rewritten(upcall.registers.rip))
            .flatten()
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
        let deadline = task.memory.deadline_ns;
        if let Some(deadline_ns) = deadline_before
            && (deadline_before != deadline || answer != Answer::Wait)
        {
            self.deadlines.remove(&(deadline_ns, Due::Task(current)));
        }
        match answer {
            Answer::Result(value) => {
                task.memory = Memory::default();
                task.context.set_result(value);
                let interrupts = value == 0 && calls::polls_under_a_mask(pending.number);
                self.end_call_mask(pending, interrupts)
            }
            Answer::Wait => {
                if self.is_signal_due() {
                    match self.deliver_signals(Some(pending)) {
                        Delivered::Nothing => {}
                        Delivered::Handler => return true,
                        Delivered::Ended => return false,
                    }
                }
                self.task().pending = Some(pending);
                if let Some(deadline_ns) = deadline {
                    self.deadlines.insert((deadline_ns, Due::Task(current)));
                }
                false
            }
            Answer::Yield => {
                task.context.set_result(0);
                self.fire_deadlines();
                if self.ready.is_empty() {
                    return true;
                }
                self.ready.push(current);
                false
            }
            Answer::Resume => {
                task.memory = Memory::default();
                true
            }
            Answer::Hold(value) => {
                task.memory = Memory::default();
                task.context.set_result(value);
                self.process.held.push(current);
                false
            }
            Answer::Ended => false,
        }
    }

    /// A call has its result: the mask that it brought is over. If it polled and found nothing, a signal that came
    /// under that mask interrupts it, as if it had come while the call waited. `false` if the task is gone.
    fn end_call_mask(&mut self, pending: Pending, may_interrupt: bool) -> bool {
        if self.task().signals.saved_mask.is_none() {
            return true;
        }
        if may_interrupt && self.is_signal_due() {
            match self.deliver_signals(Some(pending)) {
                Delivered::Nothing => {}
                Delivered::Handler => return true,
                Delivered::Ended => return false,
            }
        }
        if let Some(mask) = self.task().signals.saved_mask.take() {
            self.set_signal_mask(mask);
        }
        true
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
        let mut found = Found::Nothing;
        if let Some(intent) = exceptions::intent(upcall) {
            match self.process.space.fault(upcall.fault_address, intent) {
                Ok(()) => return,
                Err(AccessError::OutOfMemory) if self.process.id == FIRST_PROCESS => {
                    shared::end(exit_kind::OUT_OF_MEMORY, 0, "")
                }
                // A helper that takes all memory ends as on Linux, and not the program with it.
                Err(AccessError::OutOfMemory) => return self.end_process_by_signal(linux::SIGKILL),
                Err(AccessError::BeyondFile) => found = Found::EndOfFile,
                Err(AccessError::Forbidden) if self.process.space.is_mapped(upcall.fault_address) => {
                    found = Found::Memory;
                }
                Err(AccessError::Forbidden) => {}
            }
        }
        let info = exceptions::signal_of(upcall, found, processor::floating_point_exceptions());
        self.raise_exception(upcall, info);
    }

    /// The program has an instruction pointer that the processor would not take: what it gets is what the attempt to
    /// go there gives on Linux.
    fn refuse_to_run(&mut self) {
        const GENERAL_PROTECTION: u32 = 13;
        let upcall = Upcall {
            kind: 0,
            vector: GENERAL_PROTECTION,
            error_code: 0,
            fault_address: 0,
            registers: self.task().context.registers,
        };
        self.raise_exception(&upcall, SignalInfo::kernel(linux::SIGSEGV));
    }
}
