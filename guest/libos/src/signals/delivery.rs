//! Raising and delivering signals.

use alloc::vec;

use linux_raw_sys::general as linux;
use linux_raw_sys::general as nr;
use spore_abi::pages::{Upcall, exit_kind, upcall_kind};
use spore_machine::context::VECTORS_BYTES;
use spore_machine::shared;

use super::frame::{self, Contents};
use super::{
    AlternateStack, DefaultAction, FaultRecord, SIG_DFL, SIG_IGN, SS_AUTODISARM, SS_DISABLE, SS_ONSTACK,
    SignalAction, SignalInfo, bit, code, default_action, unblockable,
};
use crate::children::ProcessEnd;
use crate::errno::Errno;
use crate::kernel::Kernel;
use crate::memory::space::Intent;
use crate::process::{FIRST_PROCESS, ProcessId};
use crate::task::{Memory, Pending, TaskId};
use crate::time;

/// Flags that a handler does not begin with: trap, direction, resume.
const CLEARED_FLAGS: u64 = 1 << 8 | 1 << 10 | 1 << 16;
/// Exceptions.
const PAGE_FAULT: u32 = 14;
/// Error code bits of a page fault (Intel SDM volume 3, 4.7).
const FAULT_WAS_WRITE: u64 = 1 << 1;
const FAULT_WAS_BY_USER: u64 = 1 << 2;
const FAULT_WAS_FETCH: u64 = 1 << 4;

/// What an access wanted that faulted.
pub(crate) fn intent(upcall: &Upcall) -> Option<Intent> {
    (upcall.vector == PAGE_FAULT).then_some(match upcall.error_code {
        code if code & FAULT_WAS_FETCH != 0 => Intent::Execute,
        code if code & FAULT_WAS_WRITE != 0 => Intent::Write,
        _ => Intent::Read,
    })
}

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
            return self.task().context.restart_call(call.number);
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

    /// Lets a handler begin; `false` if the task is gone, because the program has no stack for it.
    fn begin_handler(&mut self, info: &SignalInfo, action: SignalAction) -> bool {
        if action.has(linux::SA_RESETHAND) {
            self.process.set_action(
                info.signal,
                SignalAction {
                    handler: SIG_DFL,
                    ..action
                },
            );
        }
        if self.push_frame(info, action).is_ok() {
            return true;
        }
        let segv = self.process.action(linux::SIGSEGV);
        let is_blocked = self.task().signals.mask & bit(linux::SIGSEGV) != 0;
        let has_handler = segv.handler != SIG_DFL && segv.handler != SIG_IGN;
        if has_handler
            && !is_blocked
            && info.signal != linux::SIGSEGV
            && self.push_frame(&SignalInfo::kernel(linux::SIGSEGV), segv).is_ok()
        {
            return true;
        }
        self.end_process_by_signal(linux::SIGSEGV);
        false
    }

    /// Puts a frame onto the program's stack, and lets the program go on in the handler.
    fn push_frame(&mut self, info: &SignalInfo, action: SignalAction) -> Result<(), Errno> {
        if !action.has(linux::SA_RESTORER) {
            return Err(Errno::EFAULT);
        }
        self.interrupt_sequence();
        let task = self.tasks.get_mut(&self.current).ok_or(Errno::ESRCH)?;
        task.extended.save();
        task.extended.set_vectors(&task.context.vectors());
        let extended = task.extended.bytes();
        let pointer = task.context.registers.general[4];
        let stack = task.signals.alternate;
        let has_stack = stack.bytes > 0 && action.has(linux::SA_ONSTACK);
        let is_on_stack = stack.contains(pointer);
        let stack_end = (has_stack && !is_on_stack).then(|| stack.address.wrapping_add(stack.bytes));
        let place = frame::place(pointer, stack_end, extended.len() as u64);
        if (stack_end.is_some() || is_on_stack)
            && !(AlternateStack { flags: 0, ..stack }).contains(place.frame)
        {
            return Err(Errno::EFAULT);
        }

        let frame = frame::build(&Contents {
            return_address: action.restorer,
            registers: &task.context.registers,
            mask: task.signals.saved_mask.unwrap_or(task.signals.mask),
            stack: stack.to_bytes(stack.flags),
            fault: task.signals.fault,
            info: *info,
            extended: place.extended,
        });
        let space = &mut self.process.space;
        let software = frame::software_bytes(task.extended.mask(), extended.len() as u32);
        let after = frame::SOFTWARE + frame::SOFTWARE_BYTES;
        space.write(place.extended, &extended[..frame::SOFTWARE])?;
        space.write(place.extended + frame::SOFTWARE as u64, &software)?;
        space.write(place.extended + after as u64, &extended[after..])?;
        space.write(
            place.extended + extended.len() as u64,
            &frame::MAGIC_2.to_le_bytes(),
        )?;
        space.write(place.frame, &frame)?;

        task.extended.reset();
        task.extended.restore();
        task.context.set_vectors(&[0; VECTORS_BYTES]);
        let registers = &mut task.context.registers;
        registers.rip = action.handler;
        registers.rflags &= !CLEARED_FLAGS;
        registers.general[0] = 0;
        registers.general[2] = place.frame + frame::CONTEXT as u64;
        registers.general[4] = place.frame;
        registers.general[6] = place.frame + frame::INFO as u64;
        registers.general[7] = u64::from(info.signal);
        if stack.flags & SS_AUTODISARM != 0 {
            task.signals.alternate = AlternateStack::none();
        }
        task.signals.saved_mask = None;
        let own = match action.has(linux::SA_NODEFER) {
            true => 0,
            false => bit(info.signal),
        };
        let mask = task.signals.mask | action.mask | own;
        self.set_signal_mask(mask);
        Ok(())
    }

    /// `rt_sigreturn`: lets the running task go on as the frame at its stack pointer says.
    pub(crate) fn return_from_handler(&mut self) -> Result<(), Errno> {
        let pointer = self.task().context.registers.general[4];
        let context = self.process.space.read_array(pointer)?;
        let wish = frame::parse(&context);
        let state = self.read_extended_state(wish.extended)?;
        let task = self.task();
        task.context.registers = wish.registers;
        let (bytes, components) = &state;
        task.extended.set_bytes(bytes, *components);
        task.extended.restore();
        let vectors = task.extended.vectors();
        task.context.set_vectors(&vectors);
        let pointer = wish.registers.general[4];
        // As on Linux, a stack that is no good is passed over.
        let _ = self.set_alternate_stack(AlternateStack::from_bytes(&wish.stack), pointer);
        self.set_signal_mask(wish.mask);
        Ok(())
    }

    /// Reads extended state as a frame has it: its bytes and the components that are there.
    fn read_extended_state(&mut self, address: u64) -> Result<(alloc::vec::Vec<u8>, u64), Errno> {
        const LEGACY_BYTES: usize = 512;
        const LEGACY: u64 = 0b11;
        if address == 0 {
            return Ok((vec![], 0));
        }
        let room = self.task().extended.bytes().len();
        let mut bytes = vec![0; room];
        self.process.space.read(address, &mut bytes[..LEGACY_BYTES])?;
        let mut software = [0; frame::SOFTWARE_BYTES];
        software.copy_from_slice(&bytes[frame::SOFTWARE..LEGACY_BYTES]);
        if let Some((components, length)) = frame::parse_software_bytes(&software)
            && length as usize == room
        {
            self.process.space.read(address, &mut bytes)?;
            let mark = self
                .process
                .space
                .read_u32(address.wrapping_add(u64::from(length)))?;
            if mark == frame::MAGIC_2 {
                return Ok((bytes, components));
            }
        }
        bytes.truncate(LEGACY_BYTES);
        Ok((bytes, LEGACY))
    }

    /// Sets the alternate stack of the running task, whose stack pointer is `pointer`.
    pub(crate) fn set_alternate_stack(&mut self, new: AlternateStack, pointer: u64) -> Result<(), Errno> {
        let signals = &mut self.task().signals;
        if signals.alternate.bytes > 0 && signals.alternate.contains(pointer) {
            return Err(Errno::EPERM);
        }
        signals.alternate = match new.flags & !SS_AUTODISARM {
            SS_DISABLE => AlternateStack {
                flags: new.flags,
                ..AlternateStack::none()
            },
            0 | SS_ONSTACK if new.bytes < u64::from(linux::MINSIGSTKSZ) => return Err(Errno::ENOMEM),
            0 | SS_ONSTACK => new,
            _ => return Err(Errno::EINVAL),
        };
        Ok(())
    }

    /// The program raised an exception that is no matter of missing pages: it becomes a signal, which is delivered at
    /// once, or the end.
    pub(crate) fn raise_exception(&mut self, upcall: &Upcall, info: SignalInfo) {
        let is_page_fault = upcall.vector == PAGE_FAULT;
        let task = self.task();
        task.signals.fault = FaultRecord {
            address: match is_page_fault {
                true => upcall.fault_address,
                false => task.signals.fault.address,
            },
            error_code: match is_page_fault {
                true => upcall.error_code | FAULT_WAS_BY_USER,
                false => upcall.error_code,
            },
            vector: u64::from(upcall.vector),
        };
        let is_blocked = task.signals.mask & bit(info.signal) != 0;
        let action = self.process.action(info.signal);
        if is_blocked || [SIG_DFL, SIG_IGN].contains(&action.handler) {
            match upcall.kind {
                upcall_kind::FAULT if self.process.id == FIRST_PROCESS => {
                    shared::end(exit_kind::FAULTED, info.signal, "")
                }
                _ => self.end_process_by_signal(info.signal),
            }
        } else {
            self.begin_handler(&info, action);
        }
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

/// What is at the address of a page fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Found {
    Nothing,
    /// Memory that does not allow the access.
    Memory,
    /// A page beyond the end of the file that is mapped there.
    EndOfFile,
}

/// The signal that an exception becomes. `found` tells what is at the address of a page fault; `status` is what the vector unit (MXCSR) and the x87 unit say of their exceptions.
pub(crate) fn signal_of(upcall: &Upcall, found: Found, status: [u32; 2]) -> SignalInfo {
    let rip = upcall.registers.rip;
    match upcall.vector {
        0 => SignalInfo::fault(linux::SIGFPE, linux::FPE_INTDIV as i32, rip),
        1 => SignalInfo::fault(linux::SIGTRAP, linux::TRAP_TRACE as i32, rip),
        3 => SignalInfo::kernel(linux::SIGTRAP),
        6 => SignalInfo::fault(linux::SIGILL, linux::ILL_ILLOPN as i32, rip),
        12 => SignalInfo::kernel(linux::SIGBUS),
        PAGE_FAULT => {
            let (signal, code) = match found {
                Found::Nothing => (linux::SIGSEGV, linux::SEGV_MAPERR),
                Found::Memory => (linux::SIGSEGV, linux::SEGV_ACCERR),
                Found::EndOfFile => (linux::SIGBUS, linux::BUS_ADRERR),
            };
            SignalInfo::fault(signal, code as i32, upcall.fault_address)
        }
        16 => SignalInfo::fault(linux::SIGFPE, floating_point_code(status[1]), rip),
        17 => SignalInfo::fault(linux::SIGBUS, linux::BUS_ADRALN as i32, 0),
        19 => SignalInfo::fault(linux::SIGFPE, floating_point_code(status[0]), rip),
        _ => SignalInfo::kernel(linux::SIGSEGV),
    }
}

/// `si_code` of floating-point exceptions, by the bits of those that are raised and not masked.
fn floating_point_code(raised: u32) -> i32 {
    let code = match raised {
        _ if raised & 1 != 0 => linux::FPE_FLTINV,
        _ if raised & 4 != 0 => linux::FPE_FLTDIV,
        _ if raised & 8 != 0 => linux::FPE_FLTOVF,
        _ if raised & 0x12 != 0 => linux::FPE_FLTUND,
        _ if raised & 0x20 != 0 => linux::FPE_FLTRES,
        _ => return code::SI_KERNEL,
    };
    code as i32
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

#[cfg(test)]
mod tests {
    use super::*;

    fn exception(vector: u32) -> Upcall {
        Upcall {
            kind: 1,
            vector,
            error_code: 0,
            fault_address: 0x1234,
            registers: spore_abi::pages::Registers {
                rip: 0x4000,
                ..Default::default()
            },
        }
    }

    #[test]
    fn exceptions_become_the_signals_of_linux() {
        let info = signal_of(&exception(14), Found::Nothing, [0; 2]);
        assert_eq!(
            (info.signal, info.code, info.words[0]),
            (linux::SIGSEGV, 1, 0x1234)
        );
        let info = signal_of(&exception(14), Found::Memory, [0; 2]);
        assert_eq!((info.signal, info.code), (linux::SIGSEGV, 2));
        let info = signal_of(&exception(0), Found::Nothing, [0; 2]);
        assert_eq!(
            (info.signal, info.code, info.words[0]),
            (linux::SIGFPE, 1, 0x4000)
        );
        let info = signal_of(&exception(13), Found::Nothing, [0; 2]);
        assert_eq!((info.signal, info.code, info.words[0]), (linux::SIGSEGV, 0x80, 0));
        let info = signal_of(&exception(19), Found::Nothing, [4, 1]);
        assert_eq!(
            (info.signal, info.code),
            (linux::SIGFPE, linux::FPE_FLTDIV as i32)
        );
    }

    #[test]
    fn a_page_fault_tells_what_was_wanted() {
        let with_code = |error_code| Upcall {
            error_code,
            ..exception(14)
        };
        assert_eq!(intent(&with_code(4)), Some(Intent::Read));
        assert_eq!(intent(&with_code(7)), Some(Intent::Write));
        assert_eq!(intent(&with_code(0x15)), Some(Intent::Execute));
        assert_eq!(intent(&exception(6)), None);
    }
}
