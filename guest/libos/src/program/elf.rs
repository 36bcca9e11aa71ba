//! Reads ELF headers (System V ABI, chapter 4 and 5; AMD64 supplement). The file is hostile input: every offset is
//! checked, every count is bounded.

use alloc::vec::Vec;
use core::fmt;

use linux_raw_sys::elf_uapi::{
    EM_X86_64, ET_DYN, ET_EXEC, PF_R, PF_W, PF_X, PT_GNU_STACK, PT_INTERP, PT_LOAD, PT_PHDR,
};
use spore_abi::layout::{PAGE_BYTES, USER_BASE, USER_END};

/// Most program headers that are read; linkers make about a dozen.
const PROGRAM_HEADERS_MAX: u16 = 128;
const FILE_HEADER_BYTES: usize = 64;
const PROGRAM_HEADER_BYTES: usize = 56;
/// Longest path of an interpreter, with its zero.
const INTERPRETER_BYTES_MAX: u64 = 4096;
/// Largest alignment that is honoured.
const ALIGNMENT_MAX: u64 = 1 << 30;

/// Why a file cannot be run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ElfError {
    /// It is no 64-bit little-endian ELF file for x86-64.
    NotX86Elf,
    /// It is an object file, a core dump or the like.
    NotExecutable,
    /// Something in its headers is impossible.
    Malformed(&'static str),
}

impl fmt::Display for ElfError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotX86Elf => write!(formatter, "the program is not a 64-bit x86-64 ELF file"),
            Self::NotExecutable => write!(formatter, "the ELF file is not an executable"),
            Self::Malformed(what) => write!(formatter, "the ELF file is damaged: {what}"),
        }
    }
}

/// A segment that is loaded, with addresses as in the file (before a position-independent program is placed).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    /// Where in the file its contents begin, in bytes.
    pub file_offset: u64,
    /// Length of these contents, in bytes.
    pub file_bytes: u64,
    /// Address of its first byte.
    pub address: u64,
    /// Length in memory, in bytes; what is beyond the contents is zero.
    pub memory_bytes: u64,
    /// It may be read.
    pub read: bool,
    /// It may be written.
    pub write: bool,
    /// It may be executed.
    pub execute: bool,
}

/// What the headers say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Executable {
    /// It may be placed anywhere.
    pub is_position_independent: bool,
    /// Address of the first instruction.
    pub entry: u64,
    /// Address of the program headers in memory, if a segment holds them.
    pub headers_address: Option<u64>,
    /// Number of program headers.
    pub headers_count: u16,
    /// The segments, lowest address first.
    pub segments: Vec<Segment>,
    /// Path of the interpreter (the dynamic linker) that it asks for, without a zero.
    pub interpreter: Option<Vec<u8>>,
    /// Its stack has to be executable.
    pub has_executable_stack: bool,
    /// What its place must be a multiple of if it may be placed anywhere; a power of two.
    pub alignment: u64,
}

impl Executable {
    /// Address of the first page, and the end of the last one, as in the file.
    #[must_use]
    pub fn span(&self) -> (u64, u64) {
        let start = self
            .segments
            .first()
            .map_or(0, |segment| segment.address & !(PAGE_BYTES - 1));
        let end = self
            .segments
            .last()
            .map_or(0, |segment| segment.address + segment.memory_bytes);
        (start, end.next_multiple_of(PAGE_BYTES))
    }
}

fn number<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut number = [0; N];
    if let Some(part) = bytes.get(at..at + N) {
        number.copy_from_slice(part);
    }
    number
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(number(bytes, at))
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(number(bytes, at))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(number(bytes, at))
}

/// Reads the headers of a file of `file_bytes` bytes. `read` fills a buffer from an offset, or says that it cannot.
///
/// # Errors
///
/// If the file is not an executable for this machine, or its headers are impossible.
pub fn parse(file_bytes: u64, read: &mut dyn FnMut(u64, &mut [u8]) -> bool) -> Result<Executable, ElfError> {
    let mut header = [0; FILE_HEADER_BYTES];
    let is_elf = read(0, &mut header) && header.starts_with(b"\x7fELF\x02\x01\x01");
    if !is_elf || u32::from(u16_at(&header, 18)) != EM_X86_64 {
        return Err(ElfError::NotX86Elf);
    }
    let is_position_independent = match u32::from(u16_at(&header, 16)) {
        ET_EXEC => false,
        ET_DYN => true,
        _ => return Err(ElfError::NotExecutable),
    };
    let headers_offset = u64_at(&header, 32);
    let headers_count = u16_at(&header, 56);
    if usize::from(u16_at(&header, 54)) != PROGRAM_HEADER_BYTES {
        return Err(ElfError::Malformed("unknown size of program headers"));
    }
    if headers_count == 0 || headers_count > PROGRAM_HEADERS_MAX {
        return Err(ElfError::Malformed("no program headers, or too many"));
    }
    let Headers {
        segments,
        mut headers_address,
        interpreter,
        has_executable_stack,
        alignment,
    } = read_headers(file_bytes, headers_offset, headers_count, read)?;
    if segments.is_empty() {
        return Err(ElfError::Malformed("nothing to load"));
    }
    if !segments.is_sorted_by(|left, right| left.address + left.memory_bytes <= right.address) {
        return Err(ElfError::Malformed("segments overlap or are out of order"));
    }
    if !is_position_independent && segments[0].address < USER_BASE {
        return Err(ElfError::Malformed("a segment below the lowest address"));
    }
    let entry = u64_at(&header, 24);
    let is_in = |segment: &&Segment| {
        segment.execute && (segment.address..segment.address + segment.memory_bytes).contains(&entry)
    };
    if segments.iter().find(is_in).is_none() {
        return Err(ElfError::Malformed("the entry point is in no executable segment"));
    }
    headers_address = headers_address.or_else(|| {
        let holder = segments.iter().find(|segment| {
            let end = segment.file_offset + segment.file_bytes;
            segment.file_offset <= headers_offset && headers_offset < end
        })?;
        Some(holder.address + (headers_offset - holder.file_offset))
    });
    Ok(Executable {
        is_position_independent,
        entry,
        headers_address,
        headers_count,
        segments,
        interpreter,
        has_executable_stack,
        alignment,
    })
}

/// What the program headers say.
struct Headers {
    segments: Vec<Segment>,
    headers_address: Option<u64>,
    interpreter: Option<Vec<u8>>,
    has_executable_stack: bool,
    alignment: u64,
}

fn read_headers(
    file_bytes: u64,
    headers_offset: u64,
    headers_count: u16,
    read: &mut dyn FnMut(u64, &mut [u8]) -> bool,
) -> Result<Headers, ElfError> {
    let mut found = Headers {
        segments: Vec::new(),
        headers_address: None,
        interpreter: None,
        has_executable_stack: false,
        alignment: PAGE_BYTES,
    };
    for index in 0..headers_count {
        let mut bytes = [0; PROGRAM_HEADER_BYTES];
        let offset = headers_offset.checked_add(u64::from(index) * PROGRAM_HEADER_BYTES as u64);
        if !offset.is_some_and(|offset| read(offset, &mut bytes)) {
            return Err(ElfError::Malformed("program headers beyond the end of the file"));
        }
        match u32_at(&bytes, 0) {
            PT_INTERP => found.interpreter = Some(interpreter_path(&bytes, read)?),
            PT_GNU_STACK => found.has_executable_stack = u32_at(&bytes, 4) & PF_X != 0,
            PT_PHDR => found.headers_address = Some(u64_at(&bytes, 16)),
            PT_LOAD if u64_at(&bytes, 40) > 0 => {
                found.segments.push(segment(&bytes, file_bytes)?);
                let wanted = u64_at(&bytes, 48);
                if wanted.is_power_of_two() && wanted <= ALIGNMENT_MAX {
                    found.alignment = found.alignment.max(wanted);
                }
            }
            _ => {}
        }
    }
    Ok(found)
}

fn interpreter_path(bytes: &[u8], read: &mut dyn FnMut(u64, &mut [u8]) -> bool) -> Result<Vec<u8>, ElfError> {
    let error = ElfError::Malformed("the path of the interpreter");
    let length = u64_at(bytes, 32);
    if !(2..=INTERPRETER_BYTES_MAX).contains(&length) {
        return Err(error);
    }
    let mut path = alloc::vec![0; length as usize];
    if !read(u64_at(bytes, 8), &mut path) || path.pop() != Some(0) || path.contains(&0) {
        return Err(error);
    }
    Ok(path)
}

fn segment(bytes: &[u8], file_bytes_total: u64) -> Result<Segment, ElfError> {
    let flags = u32_at(bytes, 4);
    let segment = Segment {
        file_offset: u64_at(bytes, 8),
        file_bytes: u64_at(bytes, 32),
        address: u64_at(bytes, 16),
        memory_bytes: u64_at(bytes, 40),
        read: flags & PF_R != 0,
        write: flags & PF_W != 0,
        execute: flags & PF_X != 0,
    };
    if segment.file_bytes > segment.memory_bytes {
        return Err(ElfError::Malformed("a segment with more contents than room"));
    }
    let file_end = segment.file_offset.checked_add(segment.file_bytes);
    if file_end.is_none_or(|end| end > file_bytes_total) {
        return Err(ElfError::Malformed("a segment beyond the end of the file"));
    }
    // The placement of position-independent programs adds less than the other half of the address space.
    let end = segment.address.checked_add(segment.memory_bytes);
    if end.is_none_or(|end| end > USER_END / 2) {
        return Err(ElfError::Malformed(
            "a segment beyond the end of the address space",
        ));
    }
    if segment.address % PAGE_BYTES != segment.file_offset % PAGE_BYTES {
        return Err(ElfError::Malformed(
            "a segment whose address and offset do not match",
        ));
    }
    Ok(segment)
}

#[cfg(test)]
mod tests {
    extern crate std;

    use proptest::prelude::*;

    use super::*;

    fn parse_bytes(file: &[u8]) -> Result<Executable, ElfError> {
        parse(file.len() as u64, &mut |offset, buffer| {
            let part = usize::try_from(offset)
                .ok()
                .and_then(|start| file.get(start..)?.get(..buffer.len()));
            part.is_some_and(|part| {
                buffer.copy_from_slice(part);
                true
            })
        })
    }

    /// A minimal executable: one segment that holds the headers and the code.
    fn minimal() -> std::vec::Vec<u8> {
        let mut file = std::vec![0_u8; 0x200];
        file[..7].copy_from_slice(b"\x7fELF\x02\x01\x01");
        file[16..18].copy_from_slice(&2_u16.to_le_bytes());
        file[18..20].copy_from_slice(&62_u16.to_le_bytes());
        file[24..32].copy_from_slice(&0x40_0100_u64.to_le_bytes());
        file[32..40].copy_from_slice(&64_u64.to_le_bytes());
        file[54..56].copy_from_slice(&56_u16.to_le_bytes());
        file[56..58].copy_from_slice(&1_u16.to_le_bytes());
        file[64..68].copy_from_slice(&1_u32.to_le_bytes());
        file[68..72].copy_from_slice(&5_u32.to_le_bytes());
        file[80..88].copy_from_slice(&0x40_0000_u64.to_le_bytes());
        file[96..104].copy_from_slice(&0x200_u64.to_le_bytes());
        file[104..112].copy_from_slice(&0x300_u64.to_le_bytes());
        file
    }

    #[test]
    fn a_minimal_executable_is_understood() {
        let executable = parse_bytes(&minimal()).unwrap();
        assert_eq!(executable.entry, 0x40_0100);
        assert_eq!(executable.headers_address, Some(0x40_0040));
        assert!(!executable.is_position_independent);
        let [segment] = executable.segments[..] else {
            panic!("one segment")
        };
        assert_eq!(
            (segment.address, segment.file_bytes, segment.memory_bytes),
            (0x40_0000, 0x200, 0x300)
        );
        assert_eq!(
            (segment.read, segment.write, segment.execute),
            (true, false, true)
        );
    }

    #[test]
    fn this_test_itself_is_understood() {
        let file = std::fs::read("/proc/self/exe").unwrap();
        let executable = parse_bytes(&file).unwrap();
        let path = executable.interpreter.unwrap_or_else(|| b"/".to_vec());
        assert!(path.starts_with(b"/") && !executable.has_executable_stack);
    }

    #[test]
    fn what_is_no_program_is_named() {
        assert_eq!(parse_bytes(b""), Err(ElfError::NotX86Elf));
        assert_eq!(parse_bytes(b"#!/bin/sh\n"), Err(ElfError::NotX86Elf));
        let mut object = minimal();
        object[16] = 1;
        assert_eq!(parse_bytes(&object), Err(ElfError::NotExecutable));
        let mut dynamic = minimal();
        dynamic[64] = 3;
        assert!(matches!(parse_bytes(&dynamic), Err(ElfError::Malformed(_))));
        let mut beyond = minimal();
        beyond[96..104].copy_from_slice(&0x201_u64.to_le_bytes());
        assert!(matches!(parse_bytes(&beyond), Err(ElfError::Malformed(_))));
    }

    proptest! {
        #[test]
        fn damaged_headers_never_panic(changes in prop::collection::vec((0usize..0x80, any::<u8>()), 1..12)) {
            let mut file = minimal();
            for (at, value) in changes {
                file[at] = value;
            }
            if let Ok(executable) = parse_bytes(&file) {
                for segment in executable.segments {
                    prop_assert!(segment.file_offset + segment.file_bytes <= file.len() as u64);
                    prop_assert!(segment.address + segment.memory_bytes <= USER_END);
                }
            }
        }
    }
}
