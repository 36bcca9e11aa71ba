//! Reports: what faulted, where, with which registers. The program's file is hostile input to the symbol reader,
//! which is safe code and bounded by the file's size.

use object::{Object, ObjectKind, ObjectSymbol, SymbolKind};
use spore_abi::layout::POSITION_INDEPENDENT_BASE;
use spore_abi::pages::{ExitRecord, Registers, Upcall, exit_kind};

use crate::protocol::Cause;

/// Programs larger than this are reported without symbols.
const SYMBOLS_FILE_BYTES_MAX: usize = 256 << 20;
/// Longest symbol that is shown.
const SYMBOL_CHARS_MAX: usize = 120;

const PAGE_FAULT: u32 = 14;
/// Page-fault error code bits (Intel SDM volume 3, 4.7).
const WAS_WRITE: u64 = 1 << 1;
const WAS_FETCH: u64 = 1 << 4;

/// An exception that ended the program.
#[derive(Debug, Clone)]
pub(crate) struct Fault {
    pub(crate) vector: u32,
    pub(crate) error_code: u64,
    pub(crate) fault_address: u64,
    pub(crate) registers: Registers,
}

impl Fault {
    /// The fault that an upcall tells of.
    pub(crate) fn from_upcall(upcall: &Upcall) -> Self {
        Self {
            vector: upcall.vector,
            error_code: upcall.error_code,
            fault_address: upcall.fault_address,
            registers: upcall.registers,
        }
    }

    /// What happened, in a few words.
    pub(crate) fn summary(&self) -> String {
        if self.vector != PAGE_FAULT {
            return vector_name(self.vector).into();
        }
        let address = self.fault_address;
        let what = match self.error_code {
            code if code & WAS_FETCH != 0 => "jump to",
            code if code & WAS_WRITE != 0 => "write to",
            _ => "read of",
        };
        // How far below the stack pointer a push or a call with a large frame may reach.
        const STACK_REACH: u64 = 64 * 1024;
        let stack_pointer = self.registers.general[4];
        let hint = match () {
            // The first page is never mapped: an access there went through a null pointer.
            () if address < 4096 => " (a null pointer)",
            () if (stack_pointer.saturating_sub(STACK_REACH)..stack_pointer.saturating_add(4096))
                .contains(&address) =>
            {
                " (the stack has overflowed)"
            }
            () => "",
        };
        format!("segmentation fault: {what} address {address:#x}{hint}")
    }

    /// Lines for the log: what happened, where (see [`place`]), registers.
    pub(crate) fn details(&self, place: &str) -> Vec<String> {
        const NAMES: [&str; 16] = [
            "rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13",
            "r14", "r15",
        ];
        let registers = &self.registers;
        let mut lines = vec![
            format!("fault: {} at {place}", self.summary()),
            format!(
                "  rip {:016x}  flags {:#x}  error code {:#x}",
                registers.rip, registers.rflags, self.error_code
            ),
        ];
        let all: Vec<_> = NAMES.iter().zip(registers.general).collect();
        for group in all.chunks(4) {
            let texts: Vec<_> = group
                .iter()
                .map(|(name, value)| format!("{name:>3} {value:016x}"))
                .collect();
            lines.push(format!("  {}", texts.join("  ")));
        }
        lines
    }
}

fn vector_name(vector: u32) -> &'static str {
    match vector {
        0 => "division by zero",
        1 => "debug trap",
        3 => "breakpoint",
        4 => "overflow trap",
        5 => "bound range exceeded",
        6 => "illegal instruction",
        8 => "double fault",
        11 | 12 => "stack or segment fault",
        13 => "general protection fault (a privileged instruction or a bad address)",
        16 => "floating-point error",
        17 => "unaligned access",
        19 => "vector floating-point error",
        _ => "unexpected exception",
    }
}

/// Name of a signal that ended the program.
pub(crate) fn signal_name(signal: u32) -> String {
    let name = match signal {
        1 => "SIGHUP",
        2 => "SIGINT",
        3 => "SIGQUIT",
        4 => "SIGILL",
        5 => "SIGTRAP",
        6 => "SIGABRT (abort)",
        7 => "SIGBUS",
        8 => "SIGFPE",
        9 => "SIGKILL",
        11 => "SIGSEGV",
        13 => "SIGPIPE (it wrote to a closed connection)",
        14 => "SIGALRM",
        15 => "SIGTERM",
        other => return format!("signal {other}"),
    };
    name.into()
}

/// What a guest says of its end, with lines for the log. `program` is its file.
pub(crate) fn exit(record: &ExitRecord, upcall: &Upcall, program: &[u8]) -> (Cause, Vec<String>) {
    let length = (record.message_bytes as usize).min(record.message.len());
    let message = printable(&record.message[..length]);
    let mut details = Vec::new();
    let cause = match record.kind {
        exit_kind::EXITED => Cause::Exited((record.code & 0xff) as u8),
        exit_kind::SIGNALLED => Cause::Crashed {
            signal: signal_number(record.code),
            summary: signal_name(record.code),
        },
        exit_kind::FAULTED => {
            let fault = Fault::from_upcall(upcall);
            let place = place(program, fault.registers.rip);
            details = fault.details(&place);
            Cause::Crashed {
                signal: signal_number(record.code),
                summary: format!("{} at {place}", fault.summary()),
            }
        }
        exit_kind::BAD_PROGRAM => Cause::BadProgram(message),
        exit_kind::OUT_OF_MEMORY => Cause::OutOfMemory,
        exit_kind::HOOK_FAILED | exit_kind::INITIALIZATION_FAILED => Cause::Crashed {
            signal: None,
            summary: message,
        },
        _ => Cause::Failed(format!("the library OS failed: {message}")),
    };
    (cause, details)
}

/// A signal's number as the guest names it; none if no signal has that number.
fn signal_number(code: u32) -> Option<u8> {
    u8::try_from(code).ok().filter(|number| (1..=64).contains(number))
}

/// An address with the nearest symbol of the program before it.
pub(crate) fn place(program: &[u8], address: u64) -> String {
    match symbol(program, address) {
        Some(symbol) => format!("{address:#x} ({symbol})"),
        None => format!("{address:#x}"),
    }
}

fn symbol(program: &[u8], address: u64) -> Option<String> {
    if program.len() > SYMBOLS_FILE_BYTES_MAX {
        return None;
    }
    let file = object::File::parse(program).ok()?;
    let bias = if file.kind() == ObjectKind::Dynamic {
        POSITION_INDEPENDENT_BASE
    } else {
        0
    };
    let wanted = address.checked_sub(bias)?;
    let nearest = file
        .symbols()
        .filter(|symbol| {
            symbol.kind() == SymbolKind::Text && symbol.is_definition() && symbol.address() <= wanted
        })
        // Of several at one address, the one with a size is the function itself.
        .max_by_key(|symbol| (symbol.address(), symbol.size()))?;
    let offset = wanted - nearest.address();
    if nearest.size() > 0 && offset >= nearest.size() {
        return None;
    }
    Some(format!("{}+{offset:#x}", shown_name(nearest.name_bytes().ok()?)))
}

/// A symbol's name as it is shown. A damaged file may have one that is as long as itself.
fn shown_name(name: &[u8]) -> String {
    const CHARACTER_BYTES_MAX: usize = 4;
    let start = &name[..name.len().min(SYMBOL_CHARS_MAX * CHARACTER_BYTES_MAX)];
    printable(start).chars().take(SYMBOL_CHARS_MAX).collect()
}

/// Text from the guest or its program, without anything that a terminal or a log would act on.
pub(crate) fn printable(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes)
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::os::fd::AsFd;

    use crate::memory::Region;

    fn fault(vector: u32, error_code: u64, fault_address: u64) -> Fault {
        Fault {
            vector,
            error_code,
            fault_address,
            registers: Registers::default(),
        }
    }

    #[test]
    fn summaries_say_what_happened() {
        assert_eq!(
            fault(14, 6, 0).summary(),
            "segmentation fault: write to address 0x0 (a null pointer)"
        );
        assert_eq!(
            fault(14, 0x14, 0x1000).summary(),
            "segmentation fault: jump to address 0x1000"
        );
        assert_eq!(fault(6, 0, 0).summary(), "illegal instruction");
        let mut overflow = fault(14, 6, 0x7000_0000_0ff8);
        overflow.registers.general[4] = 0x7000_0000_1000;
        assert!(overflow.summary().ends_with("(the stack has overflowed)"));
    }

    #[test]
    fn the_nearest_symbol_is_found_in_this_very_program() {
        let file = std::fs::File::open("/proc/self/exe").unwrap();
        // As the monitor maps it: whole pages.
        let length = file.metadata().unwrap().len().next_multiple_of(4096);
        let program = Region::file(file.as_fd(), length as usize).unwrap();
        let program = program.file_bytes();
        let file = object::File::parse(program).unwrap();
        let main = file.symbols().find(|symbol| symbol.name() == Ok("main")).unwrap();
        let bias = if file.kind() == ObjectKind::Dynamic {
            POSITION_INDEPENDENT_BASE
        } else {
            0
        };
        assert!(place(program, main.address() + bias + 1).contains("main+0x1"));
        assert_eq!(place(program, 1), "0x1");
    }

    #[test]
    fn a_file_that_is_no_program_has_no_symbols() {
        assert_eq!(place(b"", 0x1234), "0x1234");
        assert_eq!(place(b"#!/bin/sh\nexit 0\n", 0x1234), "0x1234");
    }

    #[test]
    fn long_names_of_symbols_are_cut() {
        assert_eq!(shown_name(b"main"), "main");
        assert_eq!(shown_name(&[0xff; 1 << 20]).chars().count(), SYMBOL_CHARS_MAX);
        let wide = "\u{10348}".repeat(200);
        assert_eq!(shown_name(wide.as_bytes()), "\u{10348}".repeat(SYMBOL_CHARS_MAX));
    }

    #[test]
    fn control_characters_are_not_passed_on() {
        assert_eq!(printable(b"a\x1b[31mb\n\xff"), "a [31mb \u{fffd}");
    }
}
