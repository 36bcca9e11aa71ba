//! Handlers: how they begin, and where the thread goes on after them.

use alloc::vec;

use linux_raw_sys::general as linux;
use spore_machine::context::VECTORS_BYTES;

use super::frame::{self, Contents};
use super::{
    AlternateStack, SIG_DFL, SIG_IGN, SS_AUTODISARM, SS_DISABLE, SS_ONSTACK, SignalAction, SignalInfo, bit,
};
use crate::errno::Errno;
use crate::kernel::Kernel;
use crate::memory::rewriting::Rest;

/// Flags that a handler does not begin with: trap, direction, resume.
const CLEARED_FLAGS: u64 = 1 << 8 | 1 << 10 | 1 << 16;

impl Kernel {
    /// Lets a handler begin; `false` if the task is gone, because the program has no stack for it.
    pub(super) fn begin_handler(&mut self, info: &SignalInfo, action: SignalAction) -> bool {
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

        let mut registers = task.context.registers;
        registers.rip = self.process.space.original_address(registers.rip);
        let frame = frame::build(&Contents {
            return_address: action.restorer,
            registers: &registers,
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
        // Standing there would raise an exception first.
        if let Some(Rest::At(address)) = self.process.space.rest_of_rewritten(wish.registers.rip) {
            self.task().context.registers.rip = address;
        }
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
}
