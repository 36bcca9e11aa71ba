//! Processes beside the first: how they come to be, what they leave when they end, and who is told.
//!
//! ```text
//!              vfork                    execve: an address space of its own
//!   parent ───────────> child in the ────────────────────────────> child ──┐
//!   (its address space  parent's space                                     │ exit, signal
//!    is lent: none of   └───────── exit, signal ─────────────> zombie <────┘
//!    its tasks runs)                                             │ wait4
//!                                                                v
//!                                                               gone
//! ```
//!
//! The parent gets its address space back when the child executes a program or ends.

use alloc::vec::Vec;

use linux_raw_sys::general as linux;
use spore_abi::pages::exit_kind;
use spore_machine::shared;

use crate::errno::Errno;
use crate::kernel::Kernel;
use crate::process::{FIRST_PROCESS, Process, ProcessId};
use crate::signals::{SIG_IGN, SignalInfo};
use crate::task::{Memory, TaskId};
use crate::timers::Due;

/// Most processes that have ended and were not waited for.
const ZOMBIES_MAX: usize = 1024;
/// Most processes that live at a time.
const PROCESSES_MAX: usize = 256;

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ProcessEnd {
    /// It exited with this status.
    Exited(u8),
    /// A signal ended it.
    Signalled(u32),
}

impl ProcessEnd {
    /// The status that `wait4` gives.
    pub(crate) fn status(self) -> u32 {
        match self {
            Self::Exited(status) => u32::from(status) << 8,
            Self::Signalled(signal) => signal & 0x7f,
        }
    }

    /// `si_code` and `si_status` of SIGCHLD.
    pub(crate) fn code_and_status(self) -> (i32, u32) {
        match self {
            Self::Exited(status) => (linux::CLD_EXITED.cast_signed(), u32::from(status)),
            Self::Signalled(signal) => (linux::CLD_KILLED.cast_signed(), signal),
        }
    }
}

/// A process that has ended and was not waited for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Zombie {
    pub(crate) parent: ProcessId,
    pub(crate) group: ProcessId,
    pub(crate) end: ProcessEnd,
    /// How long it has run, in ticks of the time-stamp counter.
    pub(crate) run_ticks: u64,
}

impl Kernel {
    /// Makes a child of the running process, whose address space it borrows. Its first task is the caller's business.
    pub(crate) fn begin_child(&mut self, id: ProcessId, exit_signal: u32) -> Result<(), Errno> {
        if self.zombies.len() >= ZOMBIES_MAX || self.parked.len() >= PROCESSES_MAX {
            return Err(Errno::EAGAIN);
        }
        let vacant = self.process.space.vacant();
        let space = core::mem::replace(&mut self.process.space, vacant);
        let mut child = self.process.child(id, space, &self.ready, &self.signal_budget);
        child.exit_signal = exit_signal;
        child.borrows_from = Some(self.process.id);
        self.process.is_lent = true;
        self.parked.insert(id, child);
        Ok(())
    }

    /// Keeps a task from running whose process has lent its address space; whether it did.
    pub(crate) fn hold_if_lent(&mut self, task: TaskId) -> bool {
        let Some(id) = self.tasks.get(&task).map(|task| task.process) else {
            return false;
        };
        match self.process_mut(id) {
            Some(process) if process.is_lent => {
                process.held.push(task);
                true
            }
            _ => false,
        }
    }

    /// Gives an address space that was borrowed back to its owner, whose tasks go on.
    pub(crate) fn return_space(&mut self, owner: ProcessId, space: crate::memory::AddressSpace) {
        let Some(process) = self.process_mut(owner) else {
            return;
        };
        process.space = space;
        process.is_lent = false;
        let held = core::mem::take(&mut process.held);
        for task in held {
            self.ready.push(task);
        }
    }

    /// Ends the running process with all its tasks; with the first process, the instance. The running task is gone
    /// then, unless it is another process's.
    pub(crate) fn end_process(&mut self, end: ProcessEnd) {
        if self.process.id == FIRST_PROCESS {
            match end {
                ProcessEnd::Exited(status) => shared::end(exit_kind::EXITED, u32::from(status), ""),
                ProcessEnd::Signalled(signal) => shared::end(exit_kind::SIGNALLED, signal, ""),
            }
        }
        self.charge();
        self.end_tasks(None);
        for open in self.process.files.take_all() {
            crate::calls::let_go(self, open);
        }
        let id = self.process.id;
        let owner = self.process.borrows_from.take();
        let heir = if self.parked.contains_key(&self.process.parent) {
            self.process.parent
        } else {
            FIRST_PROCESS
        };
        let Some(next) = self.parked.remove(&heir) else {
            shared::end(exit_kind::LIBRARY_OS_FAILED, 0, "the first process is gone");
        };
        let mut ended = core::mem::replace(&mut self.process, next);
        if let Some(owner) = owner {
            let vacant = ended.space.vacant();
            let space = core::mem::replace(&mut ended.space, vacant);
            self.return_space(owner, space);
        }
        self.process.space.activate();
        ended.space.clear();
        self.pass_children_on(id);
        self.leave_zombie(&ended, end);
        ended.handle.end();
    }

    /// Ends all tasks of the running process but `kept`.
    pub(crate) fn end_tasks(&mut self, kept: Option<TaskId>) {
        let process = self.process.id;
        let ending: Vec<TaskId> = self
            .tasks
            .iter()
            .filter(|&(&id, task)| task.process == process && Some(id) != kept)
            .map(|(&id, _)| id)
            .collect();
        for id in ending {
            self.futexes.forget(id);
            if let Some(task) = self.tasks.remove(&id)
                && let Memory {
                    deadline_ns: Some(deadline_ns),
                    ..
                } = task.memory
            {
                self.deadlines.remove(&(deadline_ns, Due::Task(id)));
            }
            if self.loaded == id {
                self.loaded = 0;
            }
        }
    }

    /// The children of a process that has ended become the first process's.
    fn pass_children_on(&mut self, id: ProcessId) {
        let processes = self.parked.values_mut().chain([&mut self.process]);
        for process in processes.filter(|process| process.parent == id) {
            process.parent = FIRST_PROCESS;
        }
        for zombie in self.zombies.values_mut().filter(|zombie| zombie.parent == id) {
            zombie.parent = FIRST_PROCESS;
        }
    }

    /// Tells the parent of an end; what can be waited for stays, unless the parent does not want to.
    fn leave_zombie(&mut self, ended: &Process, end: ProcessEnd) {
        let parent = ended.parent;
        let Some(process) = self.process_mut(parent) else {
            return;
        };
        let action = process.action(linux::SIGCHLD);
        let is_unwanted = action.handler == SIG_IGN || action.has(linux::SA_NOCLDWAIT);
        if !(is_unwanted && ended.exit_signal == linux::SIGCHLD) {
            let zombie = Zombie {
                parent,
                group: ended.group,
                end,
                run_ticks: ended.run_ticks,
            };
            self.zombies.insert(ended.id, zombie);
        }
        if ended.exit_signal != 0 {
            let (code, status) = end.code_and_status();
            self.raise_on(
                parent,
                SignalInfo {
                    signal: ended.exit_signal,
                    code,
                    words: [u64::from(ended.id), u64::from(status), 0, 0],
                    ..SignalInfo::default()
                },
            );
        }
        if let Some(process) = self.process_mut(parent) {
            process.children_moved.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_are_those_of_wait() {
        assert_eq!(ProcessEnd::Exited(3).status(), 0x300);
        assert_eq!(ProcessEnd::Signalled(9).status(), 9);
        assert_eq!(ProcessEnd::Exited(3).code_and_status(), (1, 3));
        assert_eq!(ProcessEnd::Signalled(15).code_and_status(), (2, 15));
    }
}
