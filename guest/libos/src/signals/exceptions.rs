//! Exceptions of the program, and the signals that they become.

use linux_raw_sys::general as linux;
use spore_abi::pages::{Upcall, exit_kind, upcall_kind};
use spore_machine::shared;

use super::{FaultRecord, SIG_DFL, SIG_IGN, SignalInfo, bit, code};
use crate::kernel::Kernel;
use crate::memory::space::Intent;
use crate::process::FIRST_PROCESS;

/// The exception of missing or forbidden pages.
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

impl Kernel {
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
