//! Checks whether a program can run in an instance at all: a static ELF executable for x86-64 Linux.

use std::io::{Read, Seek};

use object::elf::{EM_X86_64, ET_DYN, ET_EXEC, FileHeader64, PT_INTERP};
use object::read::elf::{FileHeader as _, ProgramHeader as _};
use object::{Endianness, ReadCache, ReadRef};

/// Why a program cannot run; says what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ElfError {
    /// Not an ELF file, or a damaged one.
    #[error(
        "it is not a 64-bit ELF program ({reason}): the image's entry point must be a compiled Linux program, \
         not a script"
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
    /// Needs a dynamic loader.
    #[error(
        "it is dynamically linked (needs {interpreter}): link it statically, for example with musl-gcc -static"
    )]
    Dynamic {
        /// Path of the loader.
        interpreter: String,
    },
    /// A shared library.
    #[error(
        "it is a shared library without an entry point: link it as a program, for example with musl-gcc -static"
    )]
    Library,
}

/// Checks the program in `file`.
pub(crate) fn check_program(file: impl Read + Seek) -> Result<(), ElfError> {
    let cache = ReadCache::new(file);
    check(&cache)
}

fn check<'data, R: ReadRef<'data>>(data: R) -> Result<(), ElfError> {
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
            let interpreter = String::from_utf8_lossy(&path[..path.len().min(200)]).into_owned();
            return Err(ElfError::Dynamic { interpreter });
        }
    }
    if header.e_entry(endian) == 0 {
        return Err(ElfError::Library);
    }
    Ok(())
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
            assert_eq!(check_program(Cursor::new(elf(kind, 62, 1, b"code"))), Ok(()));
        }
    }

    #[test]
    fn everything_else_is_refused_with_its_reason() {
        let loader = elf(3, 62, 3, b"/lib64/ld-linux-x86-64.so.2\0");
        let dynamic = ElfError::Dynamic {
            interpreter: "/lib64/ld-linux-x86-64.so.2".to_owned(),
        };
        assert_eq!(check_program(Cursor::new(loader)), Err(dynamic));
        let arm = check_program(Cursor::new(elf(2, 183, 1, b"")));
        assert_eq!(arm, Err(ElfError::OtherMachine { machine: 183 }));
        assert_eq!(
            check_program(Cursor::new(elf(1, 62, 1, b""))),
            Err(ElfError::NotExecutable { kind: 1 })
        );
        for bad in [&b""[..], b"#!/bin/sh\n", &elf(2, 62, 1, b"")[..50]] {
            assert!(matches!(
                check_program(Cursor::new(bad.to_vec())),
                Err(ElfError::NotElf { .. })
            ));
        }
    }
}
