//! Whether a program can run as a function, judged before anything is pushed.

use object::LittleEndian;
use object::elf;
use object::read::elf::{FileHeader, ProgramHeader};

/// Why a program cannot run as a function.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProgramError {
    /// Not an ELF file at all.
    #[error("it is not an ELF program: give a program compiled for Linux on x86-64")]
    NotElf,
    /// An ELF file whose headers contradict themselves.
    #[error("its ELF headers are damaged ({reason}): build it again")]
    Damaged {
        /// What the parser stumbled over.
        reason: String,
    },
    /// Compiled for another processor.
    #[error("it is compiled for another processor ({machine}): compile it for x86-64")]
    NotX86_64 {
        /// Class and machine as the ELF header has them.
        machine: String,
    },
    /// An object file, a shared library or a core dump.
    #[error("it is {kind}, not a program: link it, for example with musl-gcc -static")]
    NotExecutable {
        /// What it is instead, with its article.
        kind: &'static str,
    },
    /// Needs a dynamic loader.
    #[error(
        "it is dynamically linked (needs {interpreter}): put it with its libraries into a folder and deploy that with \
         --rootfs, or link it statically, for example with musl-gcc -static"
    )]
    Dynamic {
        /// The loader that it asks for.
        interpreter: String,
    },
}

/// Checks that `data` is a static ELF program for Linux on x86-64.
pub fn check(data: &[u8]) -> Result<(), ProgramError> {
    if !data.starts_with(&elf::ELFMAG) {
        return Err(ProgramError::NotElf);
    }
    if data.get(4) != Some(&elf::ELFCLASS64.0) || data.get(5) != Some(&elf::ELFDATA2LSB.0) {
        return Err(ProgramError::NotX86_64 {
            machine: "not a 64-bit little-endian file".into(),
        });
    }
    let header = elf::FileHeader64::<LittleEndian>::parse(data).map_err(damaged)?;
    let machine = header.e_machine(LittleEndian);
    if machine != elf::EM_X86_64 {
        return Err(ProgramError::NotX86_64 {
            machine: machine_name(machine.0),
        });
    }
    let kind = match header.e_type(LittleEndian) {
        elf::ET_EXEC | elf::ET_DYN => None,
        elf::ET_REL => Some("an object file"),
        elf::ET_CORE => Some("a core dump"),
        _ => Some("an ELF file of unknown type"),
    };
    if let Some(kind) = kind {
        return Err(ProgramError::NotExecutable { kind });
    }
    for segment in header.program_headers(LittleEndian, data).map_err(damaged)? {
        if let Some(interpreter) = segment.interpreter(LittleEndian, data).map_err(damaged)? {
            let interpreter = String::from_utf8_lossy(interpreter).into_owned();
            return Err(ProgramError::Dynamic { interpreter });
        }
        // A program that was copied only in part shows itself here.
        if segment.data(LittleEndian, data).is_err() {
            return Err(ProgramError::Damaged {
                reason: "a segment lies beyond the end of the file".into(),
            });
        }
    }
    if header.e_entry(LittleEndian) == 0 {
        return Err(ProgramError::NotExecutable {
            kind: "a shared library",
        });
    }
    Ok(())
}

fn damaged(error: object::Error) -> ProgramError {
    ProgramError::Damaged {
        reason: error.to_string(),
    }
}

fn machine_name(machine: u16) -> String {
    match elf::Machine(machine) {
        elf::EM_AARCH64 => "64-bit ARM".into(),
        elf::EM_RISCV => "RISC-V".into(),
        elf::EM_PPC64 => "64-bit PowerPC".into(),
        elf::EM_S390 => "S/390".into(),
        _ => format!("ELF machine {machine}"),
    }
}
