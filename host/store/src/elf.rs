//! Checks whether a program can run in an instance at all, and what it needs besides itself.

use std::io::{self, Read, Seek, SeekFrom};

use object::elf::{EM_X86_64, ET_DYN, ET_EXEC, FileHeader64, PT_INTERP};
use object::read::elf::{FileHeader as _, ProgramHeader as _};
use object::{Endianness, ReadCache, ReadRef};

/// Why a program cannot run; says what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ElfError {
    /// Not an ELF file, or a damaged one.
    #[error(
        "it is not a 64-bit ELF program ({reason}): the image's entry point must be a compiled Linux program, \
         or a script that names its interpreter"
    )]
    NotElf {
        /// What the reader of the file stumbled over.
        reason: String,
    },
    /// For another processor.
    #[error("it is built for another processor (ELF machine {machine}): build it for x86-64")]
    OtherMachine {
        /// `e_machine` of the file.
        machine: u16,
    },
    /// An object file, core dump or the like.
    #[error("it is not an executable (ELF type {kind}): link it")]
    NotExecutable {
        /// `e_type` of the file.
        kind: u16,
    },
    /// Needs a dynamic loader, or as a script an interpreter, that the image does not have.
    #[error(
        "it needs {interpreter}, which the image does not have: add it with the libraries that `ldd` lists, or link the \
         program statically, for example with musl-gcc -static"
    )]
    NoInterpreter {
        /// Path of the loader or interpreter.
        interpreter: String,
    },
    /// A shared library.
    #[error(
        "it is a shared library without an entry point: link it as a program, for example with musl-gcc -static"
    )]
    Library,
}

/// What a program needs besides itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Needs {
    /// Nothing: it is static.
    Nothing,
    /// The loader that it names, and libraries; or the interpreter of a script.
    Interpreter(String),
}

/// Longest first line of a script, in bytes, as in Linux.
const SCRIPT_LINE_BYTES_MAX: u64 = 256;
/// Longest path of an interpreter that is shown or looked for, in bytes.
const INTERPRETER_BYTES_MAX: usize = 200;

/// Checks the program in `file`.
pub(crate) fn check_program(mut file: impl Read + Seek) -> Result<Needs, ElfError> {
    if let Some(interpreter) = script_interpreter(&mut file).ok().flatten() {
        return Ok(Needs::Interpreter(interpreter));
    }
    let cache = ReadCache::new(file);
    check(&cache)
}

/// What the first line of a script names; none if it is no script.
fn script_interpreter(file: &mut (impl Read + Seek)) -> io::Result<Option<String>> {
    file.seek(SeekFrom::Start(0))?;
    let mut start = Vec::new();
    file.take(SCRIPT_LINE_BYTES_MAX).read_to_end(&mut start)?;
    file.seek(SeekFrom::Start(0))?;
    let line = start.strip_prefix(b"#!").map(String::from_utf8_lossy);
    let line = line.as_deref().and_then(|text| text.lines().next());
    Ok(line
        .and_then(|line| line.split_whitespace().next())
        .map(str::to_owned))
}

fn check<'data, R: ReadRef<'data>>(data: R) -> Result<Needs, ElfError> {
    let not_elf = |error: object::Error| ElfError::NotElf {
        reason: error.to_string(),
    };
    let header = FileHeader64::<Endianness>::parse(data).map_err(not_elf)?;
    let endian = header.endian().map_err(not_elf)?;
    let machine = header.e_machine(endian);
    if machine != EM_X86_64 || endian != Endianness::Little {
        return Err(ElfError::OtherMachine { machine: machine.0 });
    }
    let kind = header.e_type(endian);
    if kind != ET_EXEC && kind != ET_DYN {
        return Err(ElfError::NotExecutable { kind: kind.0 });
    }
    for segment in header.program_headers(endian, data).map_err(not_elf)? {
        if segment.p_type(endian) == PT_INTERP {
            let path = segment.data(endian, data).unwrap_or_default();
            let path = path.split(|byte| *byte == 0).next().unwrap_or_default();
            let path = &path[..path.len().min(INTERPRETER_BYTES_MAX)];
            return Ok(Needs::Interpreter(String::from_utf8_lossy(path).into_owned()));
        }
    }
    if header.e_entry(endian) == 0 {
        return Err(ElfError::Library);
    }
    Ok(Needs::Nothing)
}

#[cfg(test)]
pub(crate) mod tests {
    use std::io::Cursor;

    use super::*;

    /// A smallest ELF file: a header, and one program header of type `segment` whose content is `path`.
    pub(crate) fn elf(kind: u16, machine: u16, segment: u32, path: &[u8]) -> Vec<u8> {
        let mut file = vec![0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        file.extend(kind.to_le_bytes());
        file.extend(machine.to_le_bytes());
        file.extend(1u32.to_le_bytes());
        for word in [0x40_1000u64, 64, 0] {
            file.extend(word.to_le_bytes());
        }
        file.extend(0u32.to_le_bytes());
        for half in [64u16, 56, 1, 64, 0, 0] {
            file.extend(half.to_le_bytes());
        }
        file.extend(segment.to_le_bytes());
        file.extend(5u32.to_le_bytes());
        for word in [
            120,
            0x40_0000,
            0x40_0000,
            path.len() as u64,
            path.len() as u64,
            4096,
        ] {
            file.extend(word.to_le_bytes());
        }
        file.extend(path);
        file
    }

    #[test]
    fn static_programs_pass() {
        for kind in [2, 3] {
            assert_eq!(
                check_program(Cursor::new(elf(kind, 62, 1, b"code"))),
                Ok(Needs::Nothing)
            );
        }
    }

    #[test]
    fn loaders_and_interpreters_are_named() {
        for (file, interpreter) in [
            (
                elf(3, 62, 3, b"/lib64/ld-linux-x86-64.so.2\0"),
                "/lib64/ld-linux-x86-64.so.2",
            ),
            (b"#!/bin/sh".to_vec(), "/bin/sh"),
            (b"#! /usr/bin/env python3\nprint(1)\n".to_vec(), "/usr/bin/env"),
        ] {
            let needs = Needs::Interpreter(interpreter.to_owned());
            assert_eq!(check_program(Cursor::new(file)), Ok(needs));
        }
    }

    #[test]
    fn everything_else_is_refused_with_its_reason() {
        let arm = check_program(Cursor::new(elf(2, 183, 1, b"")));
        assert_eq!(arm, Err(ElfError::OtherMachine { machine: 183 }));
        assert_eq!(
            check_program(Cursor::new(elf(1, 62, 1, b""))),
            Err(ElfError::NotExecutable { kind: 1 })
        );
        for bad in [&b""[..], b"#!", b"#!\n/bin/sh", &elf(2, 62, 1, b"")[..50]] {
            assert!(matches!(
                check_program(Cursor::new(bad.to_vec())),
                Err(ElfError::NotElf { .. })
            ));
        }
    }
}
