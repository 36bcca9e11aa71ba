//! The two forms of a guest: a virtual machine, or a process. The loop knows them by what they have in common.

use std::borrow::Cow;
use std::os::fd::BorrowedFd;

use spore_abi::pages::{Registers, Upcall, upcall_kind};

use crate::guest_process::{GuestProcess, ProcessEnd, ProcessError};
use crate::image::Image;
use crate::jail::GuestHandle;
use crate::kick;
use crate::machine::{Exit, ExtendedState, Machine, MachineError};
use crate::memory::{OutOfRange, Region};
use crate::protocol::{Isolation, ProcessorState};
use crate::reset::NotReset;
use crate::tables;
use crate::written::{PageMap, STRETCHES_MAX};

/// A guest in one of its forms.
pub(crate) enum Form {
    /// Within KVM.
    VirtualMachine(Box<Machine>),
    /// Within a process of the host.
    Process(Box<GuestProcess>),
}

/// Why the monitor cannot go on with a guest.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FormError {
    #[error(transparent)]
    VirtualMachine(#[from] MachineError),
    #[error(transparent)]
    Process(#[from] ProcessError),
    #[error(transparent)]
    Memory(#[from] OutOfRange),
    #[error("the exception port was written outside of a stub")]
    NoStub,
}

/// An exception that the monitor has to deal with.
pub(crate) struct Raised {
    pub(crate) upcall: Upcall,
    /// It was raised by code that is neither the program's nor the library OS's.
    pub(crate) is_from_supervisor: bool,
}

impl Form {
    /// Which of the two it is.
    pub(crate) fn isolation(&self) -> Isolation {
        match self {
            Self::VirtualMachine(_) => Isolation::VirtualMachine,
            Self::Process(_) => Isolation::Process,
        }
    }

    /// The guest's memory.
    pub(crate) fn ram(&self) -> &Region {
        match self {
            Self::VirtualMachine(machine) => &machine.ram,
            Self::Process(process) => process.ram(),
        }
    }

    /// The program's file, as it is mapped: whole pages, zeros behind its end.
    pub(crate) fn program(&self) -> Cow<'_, [u8]> {
        match self {
            Self::VirtualMachine(machine) => machine.program(),
            Self::Process(process) => process.program(),
        }
    }

    /// What the processor's extended register state is.
    pub(crate) fn extended_state(&self) -> ExtendedState {
        match self {
            Self::VirtualMachine(machine) => machine.extended_state,
            Self::Process(process) => process.extended_state(),
        }
    }

    /// First unused byte of the page-table pool.
    pub(crate) fn page_tables_used_gpa(&self) -> u64 {
        match self {
            Self::VirtualMachine(machine) => machine.page_tables_used_gpa,
            Self::Process(process) => process.page_tables_used_gpa(),
        }
    }

    /// Rate of the time-stamp counter, in kilohertz.
    pub(crate) fn time_stamp_khz(&self) -> u64 {
        match self {
            Self::VirtualMachine(machine) => machine.time_stamp_khz,
            Self::Process(process) => process.time_stamp_khz(),
        }
    }

    /// What the monitor runs it by.
    pub(crate) fn guest(&self) -> GuestHandle {
        match self {
            Self::VirtualMachine(machine) => GuestHandle::Processor(machine.processor_descriptor()),
            Self::Process(process) => GuestHandle::Process(process.id()),
        }
    }

    /// What can be polled for an end of the guest that is not its own doing.
    pub(crate) fn watch(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Self::VirtualMachine(_) => None,
            Self::Process(process) => process.watch(),
        }
    }

    /// Such an end, if it has come.
    pub(crate) fn end(&self) -> Option<ProcessEnd> {
        match self {
            Self::VirtualMachine(_) => None,
            Self::Process(process) => process.end(),
        }
    }

    /// Memory that is mapped for the guest, in bytes.
    pub(crate) fn mapped_bytes(&self) -> u64 {
        match self {
            Self::VirtualMachine(machine) => machine.mapped_bytes(),
            Self::Process(process) => process.mapped_bytes(),
        }
    }

    /// Does what takes rights that the monitor is about to give up, without running the guest.
    pub(crate) fn warm_up(&mut self) {
        if let Self::VirtualMachine(machine) = self {
            machine.warm_up();
        }
    }

    /// Runs the guest until it needs something.
    pub(crate) fn run(&mut self) -> Exit {
        match self {
            Self::VirtualMachine(machine) => {
                kick::arm();
                machine.run()
            }
            Self::Process(process) => process.run(),
        }
    }

    /// Forgets a tick that has come: what it asks for has just been done.
    pub(crate) fn forget_tick(&mut self) {
        match self {
            Self::VirtualMachine(machine) => machine.forget_tick(),
            Self::Process(process) => process.forget_tick(),
        }
    }

    /// What a snapshot needs to know of the processor of a guest that waits.
    pub(crate) fn state(&mut self) -> Result<ProcessorState, FormError> {
        Ok(match self {
            Self::VirtualMachine(machine) => machine.state()?,
            Self::Process(process) => process.state()?,
        })
    }

    /// The stretches (start and length) of its memory that a copy has needed of its own so far; nothing where that is not
    /// known. A virtual machine's are seen in the page map, and what it has only read in its page tables.
    pub(crate) fn needed(&mut self, page_map: Option<&PageMap>) -> Result<Vec<(u64, u64)>, FormError> {
        Ok(match (self, page_map) {
            (Self::VirtualMachine(machine), Some(page_map)) => {
                let own = page_map.own_stretches(&machine.ram);
                let mut needed = machine.needed(own);
                needed.truncate(STRETCHES_MAX);
                needed
            }
            (Self::VirtualMachine(_), None) => Vec::new(),
            (Self::Process(process), _) => process.copied()?,
        })
    }

    /// The registers of the code that is interrupted.
    pub(crate) fn registers(&self) -> Result<Registers, FormError> {
        Ok(match self {
            Self::VirtualMachine(machine) => machine.registers()?,
            Self::Process(process) => process.registers()?,
        })
    }

    /// Sets the registers with which the guest goes on, at CPL 3.
    pub(crate) fn set_registers(&self, registers: &Registers) -> Result<(), FormError> {
        match self {
            Self::VirtualMachine(machine) => machine.set_registers(registers)?,
            Self::Process(process) => process.set_registers(registers)?,
        }
        Ok(())
    }

    /// The registers after a tick, if the program was interrupted at a place where an upcall may be delivered.
    pub(crate) fn interrupted_program(&self, image: &Image) -> Result<Option<Registers>, FormError> {
        let registers = self.registers()?;
        let is_free = match self {
            // An exception that KVM is about to raise belongs to these registers. The next tick is soon.
            Self::VirtualMachine(machine) => {
                tables::stub_vector(registers.rip).is_none() && !machine.is_exception_due()?
            }
            Self::Process(_) => true,
        };
        Ok((is_free && !image.contains(registers.rip)).then_some(registers))
    }

    /// The exception that has stopped the guest.
    pub(crate) fn exception(&self) -> Result<Raised, FormError> {
        let machine = match self {
            Self::VirtualMachine(machine) => machine,
            Self::Process(process) => {
                let upcall = process.exception()?;
                return Ok(Raised {
                    upcall,
                    is_from_supervisor: false,
                });
            }
        };
        let at_stub = machine.registers()?;
        let vector = tables::stub_vector(at_stub.rip).ok_or(FormError::NoStub)?;
        let frame = tables::exception_frame(&machine.monitor_area, vector, at_stub.general[4])?;
        let mut registers = Registers {
            rip: frame.rip,
            rflags: frame.rflags,
            ..at_stub
        };
        registers.general[4] = frame.rsp;
        let upcall = Upcall {
            kind: upcall_kind::FAULT,
            vector,
            error_code: frame.error_code,
            fault_address: machine.fault_address()?,
            registers,
        };
        Ok(Raised {
            upcall,
            is_from_supervisor: frame.cs & 3 != 3,
        })
    }

    /// Lets the guest go on at CPL 3 after an exception.
    pub(crate) fn leave_supervisor(&mut self) -> Result<(), FormError> {
        match self {
            Self::VirtualMachine(machine) => Ok(machine.leave_supervisor()?),
            Self::Process(_) => Ok(()),
        }
    }

    /// Whether it is one that can be reset.
    pub(crate) fn can_be_reset(&self) -> bool {
        match self {
            Self::VirtualMachine(machine) => machine.can_be_reset(),
            Self::Process(_) => false,
        }
    }

    /// Makes it what it was when it was loaded, or says why that cannot be: then it must not run again.
    pub(crate) fn reset(&mut self, page_map: &PageMap) -> Result<(), NotReset> {
        match self {
            Self::VirtualMachine(machine) => machine.reset(page_map),
            Self::Process(_) => Err(NotReset::Unsupported),
        }
    }

    /// Makes the host forget translations that the guest has changed. A process does that by itself.
    pub(crate) fn flush_translations(&mut self) -> Result<(), FormError> {
        match self {
            Self::VirtualMachine(machine) => Ok(machine.flush_translations()?),
            Self::Process(_) => Ok(()),
        }
    }

    /// Translates with another top-level table from now on; whether there can be one at that address.
    pub(crate) fn switch_tables(&mut self, top_gpa: u64) -> Result<bool, FormError> {
        match self {
            Self::VirtualMachine(machine) => Ok(machine.switch_tables(top_gpa)?),
            Self::Process(_) => Ok(true),
        }
    }
}
