//! Raising and delivering signals.

use linux_raw_sys::general as linux;
use linux_raw_sys::general as nr;
use spore_machine::shared;

use super::{DefaultAction, SIG_DFL, SIG_IGN, SignalAction, SignalInfo, bit, default_action, unblockable};
use crate::children::ProcessEnd;
use crate::errno::Errno;
use crate::kernel::Kernel;
use crate::process::ProcessId;
use crate::task::{Memory, Pending, TaskId};
use crate::time;

/// What became of signals that were due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Delivered {
    /// Nothing: there were none, or they came to nothing.
    Nothing,
    /// A handler begins.
    Handler,
    /// The task is gone.
    Ended,
}

impl Kernel {
    /// Sends a signal to a thread; `false` if there is none of this number, or the signal could not be queued.
    pub(crate) fn raise_thread(&mut self, task: TaskId, info: SignalInfo) -> bool {
        let Some(target) = self.tasks.get_mut(&task) else {
            return false;
        };
        let (process, mask) = (target.process, target.signals.mask);
        if self.passes_over(process, info.signal, mask) {
            return true;
        }
        let Some(target) = self.tasks.get_mut(&task) else {
            return false;
        };
        let is_queued = target.signals.pending.push(info);
        let set = target.signals.pending.set();
        if mask & bit(info.signal) == 0 {
            self.ready.push(task);
        }
        let is_current = task == self.current;
        if let Some(process) = self.process_mut(process) {
            if is_current {
                process.signals.thread_set.set(set);
            }
            process.signals.moved.wake();
        }
        is_queued
    }

    /// Sends a signal to the process of the running task.
    pub(crate) fn raise_process(&mut self, info: SignalInfo) {
        let id = self.process.id;
        self.raise_on(id, info);
    }

    /// Sends a signal to a process; `false` if there is none of this number, or the signal could not be queued.
    pub(crate) fn raise_on(&mut self, id: ProcessId, info: SignalInfo) -> bool {
        let main_mask = self.tasks.get(&id).map_or(0, |task| task.signals.mask);
        if self.passes_over(id, info.signal, main_mask) {
            return true;
        }
        let Some(process) = self.process_mut(id) else {
            return false;
        };
        let is_queued = process.signals.push(info);
        process.signals.moved.wake();
        self.call_thread(id, bit(info.signal));
        is_queued
    }

    /// Whether a signal comes to nothing. One that is blocked waits even if it is ignored.
    fn passes_over(&mut self, process: ProcessId, signal: u32, mask: u64) -> bool {
        let Some(process) = self.process_mut(process) else {
            return true;
        };
        mask & bit(signal) == 0 && process.action(signal).ignores(signal)
    }

    /// Lets a thread of the process look after the signals in `set`, which wait for the process: its first one if it
    /// does not block them all, otherwise any.
    fn call_thread(&mut self, process: ProcessId, set: u64) {
        let takes = |task: &crate::task::Task| task.process == process && set & !task.signals.mask != 0;
        let chosen = match self.tasks.get(&process) {
            Some(task) if takes(task) => Some(process),
            _ => self.tasks.iter().find(|(_, task)| takes(task)).map(|(&id, _)| id),
        };
        let Some(chosen) = chosen else { return };
        if let Some(task) = self.tasks.get_mut(&chosen) {
            task.signals.is_called = true;
        }
        self.ready.push(chosen);
    }

    /// Sets the mask of the running task. Signals to the process that it no longer takes are left to other threads.
    pub(crate) fn set_signal_mask(&mut self, mask: u64) {
        let mask = mask & !unblockable();
        let signals = &mut self.task().signals;
        let newly_blocked = mask & !signals.mask;
        signals.mask = mask;
        signals.is_called = true;
        let left = self.process.signals.pending_set.get() & newly_blocked;
        if left != 0 {
            let process = self.process.id;
            self.call_thread(process, left);
        }
    }

    /// The running task is about to be gone: signals that it was to take go to other threads.
    pub(crate) fn leave_signals(&mut self) {
        self.task().signals.mask = u64::MAX;
        let left = self.process.signals.pending_set.get();
        if left != 0 {
            let process = self.process.id;
            self.call_thread(process, left);
        }
    }

    /// Whether a signal is due for the running task.
    pub(crate) fn is_signal_due(&mut self) -> bool {
        let of_process = self.process.signals.pending_set.get();
        let signals = &mut self.task().signals;
        if signals.pending.set() & !signals.mask != 0 {
            return true;
        }
        if of_process & !signals.mask == 0 {
            signals.is_called = false;
        }
        signals.is_called
    }

    /// Takes the first signal in `set` that waits for the running task or its process.
    pub(crate) fn take_signal(&mut self, set: u64) -> Option<SignalInfo> {
        let pending = &mut self.task().signals.pending;
        let own = pending.take(set);
        let left = pending.set();
        self.process.signals.thread_set.set(left);
        let info = own.or_else(|| self.process.signals.take(set))?;
        Some(self.with_overrun(info))
    }

    /// Delivers the signals that are due. A handler interrupts `call`, if there is one.
    pub(crate) fn deliver_signals(&mut self, mut call: Option<Pending>) -> Delivered {
        let mut delivered = Delivered::Nothing;
        while self.is_signal_due() {
            let set = !self.task().signals.mask;
            let Some(info) = self.take_signal(set) else {
                break;
            };
            let action = self.process.action(info.signal);
            match action.handler {
                SIG_IGN => {}
                SIG_DFL => match default_action(info.signal) {
                    DefaultAction::Ignore => {}
                    DefaultAction::Stop => self.report_stop(info.signal),
                    DefaultAction::Terminate => {
                        self.end_process_by_signal(info.signal);
                        return Delivered::Ended;
                    }
                },
                _ => {
                    if let Some(call) = call.take() {
                        self.interrupt(call, action);
                    }
                    if !self.begin_handler(&info, action) {
                        return Delivered::Ended;
                    }
                    delivered = Delivered::Handler;
                }
            }
        }
        delivered
    }

    /// Ends a call that waits because a handler is about to run: with what it has done, with EINTR, or by letting the
    /// program make it again.
    fn interrupt(&mut self, call: Pending, action: SignalAction) {
        let memory = core::mem::take(&mut self.task().memory);
        self.forget_wait(memory);
        let number = call.number as u32;
        let [_, nanosleep_left, _, clock_nanosleep_left, ..] = call.arguments;
        if memory.progress > 0 && moves_bytes(number) {
            return self.task().context.set_result(memory.progress);
        }
        if action.has(linux::SA_RESTART) && memory.deadline_ns.is_none() && restarts(number) {
            let goes_on_at = self.task().context.registers.rip;
            let site = self.process.space.site_of_call(goes_on_at);
            return self.task().context.restart_call(site, call.number);
        }
        let left_address = match number {
            nr::__NR_nanosleep => nanosleep_left,
            nr::__NR_clock_nanosleep if call.arguments[1] & u64::from(linux::TIMER_ABSTIME) == 0 => {
                clock_nanosleep_left
            }
            _ => 0,
        };
        let mut result = Errno::EINTR;
        if left_address != 0
            && let Some(deadline_ns) = memory.deadline_ns
        {
            let left_ns = deadline_ns.saturating_sub(time::monotonic_ns());
            if let Err(errno) = self.process.space.write(left_address, &time::timespec(left_ns)) {
                result = errno;
            }
        }
        self.task().context.set_result(result.as_result());
    }

    /// Takes the running task out of everything that a call has put it into which does not forget by itself.
    pub(crate) fn forget_wait(&mut self, memory: Memory) {
        let current = self.current;
        if let Some(deadline_ns) = memory.deadline_ns {
            self.deadlines
                .remove(&(deadline_ns, crate::timers::Due::Task(current)));
        }
        self.futexes.forget(current);
    }

    /// Says once that the program would have been stopped.
    fn report_stop(&mut self, signal: u32) {
        use core::fmt::Write as _;
        if core::mem::replace(&mut self.reported_stop, true) {
            return;
        }
        let mut line = crate::kernel::Line::default();
        // Cannot fail: a line takes what fits.
        let _ = writeln!(
            line,
            "signal {signal} would stop the program; nobody could let it continue, so it is passed over"
        );
        shared::log(spore_abi::ring::LogOrigin::Platform, line.as_str().as_bytes());
    }

    /// A signal ends the process of the running task.
    pub(crate) fn end_process_by_signal(&mut self, signal: u32) {
        self.end_process(ProcessEnd::Signalled(signal));
    }
}

/// Whether a call that a handler interrupts is made again if the handler was installed with `SA_RESTART`.
fn restarts(number: u32) -> bool {
    let never = [
        nr::__NR_poll,
        nr::__NR_ppoll,
        nr::__NR_select,
        nr::__NR_pselect6,
        nr::__NR_epoll_wait,
        nr::__NR_epoll_pwait,
        nr::__NR_epoll_pwait2,
        nr::__NR_pause,
        nr::__NR_rt_sigsuspend,
        nr::__NR_rt_sigtimedwait,
        nr::__NR_nanosleep,
        nr::__NR_clock_nanosleep,
        nr::__NR_io_getevents,
        nr::__NR_semop,
        nr::__NR_semtimedop,
    ];
    !never.contains(&number)
}

/// Whether a call's progress is a number of bytes that it returns when it is interrupted.
fn moves_bytes(number: u32) -> bool {
    let moving = [
        nr::__NR_read,
        nr::__NR_write,
        nr::__NR_readv,
        nr::__NR_writev,
        nr::__NR_pread64,
        nr::__NR_pwrite64,
        nr::__NR_preadv,
        nr::__NR_pwritev,
        nr::__NR_preadv2,
        nr::__NR_pwritev2,
        nr::__NR_sendto,
        nr::__NR_sendmsg,
        nr::__NR_recvfrom,
        nr::__NR_recvmsg,
        nr::__NR_sendfile,
        nr::__NR_splice,
        nr::__NR_tee,
        nr::__NR_vmsplice,
        nr::__NR_copy_file_range,
        nr::__NR_getrandom,
    ];
    moving.contains(&number)
}
