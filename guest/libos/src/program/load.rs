//! Puts a program into memory.
//!
//! First everything is looked up that can be wrong with the files ([`resolve`]): scripts lead to their interpreters,
//! dynamic programs to theirs. Then the current address space, which is empty, is filled ([`place`]), for a command
//! in two steps.

use alloc::rc::Rc;
use alloc::vec::Vec;
use core::fmt;

use spore_abi::layout::{PAGE_BYTES, POSITION_INDEPENDENT_BASE};
use spore_machine::context::Context;
use spore_machine::{processor, shared};

use super::elf::{self, ElfError, Executable, Segment};
use super::script::{self, Script};
use super::{stack, vdso};
use crate::errno::Errno;
use crate::files::{self, File, Mapping};
use crate::kernel::Kernel;
use crate::memory::AddressSpace;
use crate::memory::areas::Protection;
use crate::memory::map::{Contents, Place, Request};
use crate::memory::space::page_ceil;

/// End of the main thread's stack.
const STACK_TOP: u64 = 0x7fff_ff00_0000;
/// Size of the main thread's stack; what is below is not mapped.
pub(crate) const STACK_BYTES: u64 = 8 << 20;
/// How much of the stack is filled before the program starts.
const STACK_FILLED_BYTES: u64 = 64 * 1024;
/// Writable data up to this size is filled before the program starts.
const EAGER_DATA_BYTES: u64 = 64 * 1024;
/// Zero-initialised data up to this size is filled before the program starts.
const EAGER_ZERO_BYTES: u64 = 256 * 1024;
/// Text and data of a command that are filled before it becomes a snapshot, at most.
const SNAPSHOT_TEXT_BYTES: u64 = 32 << 20;
const SNAPSHOT_DATA_BYTES: u64 = 1 << 20;
/// Scripts whose interpreter is a script, and so on, as on Linux.
const SCRIPTS_MAX: usize = 5;
/// What a signal needs beside the extended register state, in bytes.
const SIGNAL_FRAME_BYTES: u64 = 1024;

/// Strings without their zeroes.
pub(crate) type Strings = Vec<Vec<u8>>;

/// Why a program could not be loaded.
#[derive(Debug)]
pub(crate) enum LoadError {
    /// Its file cannot be opened or read.
    File(Errno),
    /// Its file is no program.
    Elf(ElfError),
    /// The interpreter that a script or a dynamic program names cannot be opened.
    Interpreter(Vec<u8>, Errno),
    /// The interpreter's file is no program.
    BadInterpreter(Vec<u8>, ElfError),
    /// The first line of a script says nothing.
    Script,
    /// Its memory.
    Memory(Errno),
    /// Its arguments and environment.
    StartBlock,
    /// A variable of its environment that is to name a hook does not.
    Hook(&'static str),
}

impl LoadError {
    /// What `execve` answers.
    pub(crate) fn errno(&self) -> Errno {
        match self {
            Self::File(errno) | Self::Interpreter(_, errno) | Self::Memory(errno) => *errno,
            Self::Elf(_) | Self::Script => Errno::ENOEXEC,
            Self::BadInterpreter(..) => Errno::ELIBBAD,
            Self::StartBlock => Errno::E2BIG,
            Self::Hook(_) => Errno::EINVAL,
        }
    }
}

impl fmt::Display for LoadError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = |path: &Vec<u8>| alloc::string::String::from_utf8_lossy(path).into_owned();
        match self {
            Self::File(Errno::ENOENT) => write!(formatter, "the program is not there"),
            Self::File(Errno::EACCES) => write!(formatter, "the program's file may not be executed"),
            Self::File(Errno(number)) => {
                write!(formatter, "the program's file cannot be opened (error {number})")
            }
            Self::Hook(variable) => write!(
                formatter,
                "set {variable} to a path that starts with '/', without spaces"
            ),
            Self::Elf(error) => write!(formatter, "{error}"),
            Self::Interpreter(path, Errno::ENOENT) => {
                let path = name(path);
                write!(
                    formatter,
                    "the program needs {path}, which is not there: give it a root file system that has it, or link it \
                     statically"
                )
            }
            Self::Interpreter(path, Errno(number)) => {
                write!(
                    formatter,
                    "the interpreter {} cannot be opened (error {number})",
                    name(path)
                )
            }
            Self::BadInterpreter(path, error) => {
                write!(formatter, "the interpreter {} is no program: {error}", name(path))
            }
            Self::Script => write!(formatter, "the script's first line names no interpreter"),
            Self::Memory(Errno::ENOMEM) => write!(formatter, "the program does not fit into its memory"),
            Self::Memory(Errno(number)) => write!(formatter, "the program cannot be mapped (error {number})"),
            Self::StartBlock => write!(formatter, "the arguments and environment are too long"),
        }
    }
}

impl From<Errno> for LoadError {
    fn from(errno: Errno) -> Self {
        Self::Memory(errno)
    }
}

/// A file with its headers.
struct Binary {
    file: Rc<dyn File>,
    path: Rc<[u8]>,
    executable: Executable,
}

/// A program whose files are known.
pub(crate) struct Image {
    /// The path that it was started by.
    path: Vec<u8>,
    arguments: Strings,
    program: Binary,
    interpreter: Option<Binary>,
}

/// A program in memory.
pub(crate) struct Placed {
    /// Registers of its first task.
    pub(crate) context: Context,
    /// Name of its first task: the last part of its path.
    pub(crate) name: [u8; 16],
    /// The file that runs, which is the interpreter's if a script was started.
    pub(crate) file: Rc<dyn File>,
    /// Arguments, with their zeroes.
    pub(crate) arguments: Vec<u8>,
    /// Environment, with zeroes.
    pub(crate) environment: Vec<u8>,
    /// The auxiliary vector.
    pub(crate) auxiliary: Vec<u8>,
}

/// Finds everything that a program consists of. `path` is what it was started by.
pub(crate) fn resolve(
    kernel: &mut Kernel,
    mut file: Rc<dyn File>,
    path: &[u8],
    mut arguments: Strings,
) -> Result<Image, LoadError> {
    if arguments.is_empty() {
        // As on Linux, programs always find a name.
        arguments.push(Vec::new());
    }
    let mut file_path = path.to_vec();
    for depth in 0.. {
        let mut head = [0; script::HEAD_BYTES];
        let length = file.peek(0, &mut head).map_err(LoadError::File)?;
        let Some(line) = script::parse(&head[..length]) else {
            break;
        };
        if depth == SCRIPTS_MAX {
            return Err(LoadError::File(Errno::ELOOP));
        }
        let Script {
            interpreter,
            argument,
        } = line.map_err(|()| LoadError::Script)?;
        arguments[0] = file_path;
        arguments.splice(0..0, core::iter::once(interpreter.clone()).chain(argument));
        file = open(kernel, &interpreter)?;
        file_path = interpreter;
    }
    let executable = parse(&file).map_err(LoadError::Elf)?;
    let interpreter = match &executable.interpreter {
        None => None,
        Some(path) => {
            let file = open(kernel, path)?;
            let executable = parse(&file).map_err(|error| LoadError::BadInterpreter(path.clone(), error))?;
            Some(Binary {
                file,
                path: Rc::from(path.as_slice()),
                executable,
            })
        }
    };
    Ok(Image {
        path: path.to_vec(),
        arguments,
        program: Binary {
            file,
            path: Rc::from(file_path),
            executable,
        },
        interpreter,
    })
}

fn open(kernel: &mut Kernel, path: &[u8]) -> Result<Rc<dyn File>, LoadError> {
    files::open_program(kernel, path).map_err(|errno| LoadError::Interpreter(path.to_vec(), errno))
}

fn parse(file: &Rc<dyn File>) -> Result<Executable, ElfError> {
    let bytes = file.size().unwrap_or(0);
    elf::parse(bytes, &mut |offset, buffer| {
        file.peek(offset, buffer) == Ok(buffer.len())
    })
}

/// Where the segments of a program lie in memory.
pub(crate) struct Segments {
    bias: u64,
    interpreter_bias: Option<u64>,
    virtual_object: u64,
}

/// Fills the current address space, in which nothing is mapped.
pub(crate) fn place(kernel: &mut Kernel, image: &Image, environment: &Strings) -> Result<Placed, LoadError> {
    let segments = place_segments(kernel, image)?;
    place_stack(kernel, image, &segments, environment)
}

/// Puts everything into the current address space, in which nothing is mapped, that is the same whenever the program is
/// started.
pub(crate) fn place_segments(kernel: &mut Kernel, image: &Image) -> Result<Segments, LoadError> {
    let space = &mut kernel.process.space;
    let program = &image.program;
    let bias = if program.executable.is_position_independent {
        let (start, _) = program.executable.span();
        (POSITION_INDEPENDENT_BASE & !(program.executable.alignment - 1)).wrapping_sub(start)
    } else {
        0
    };
    map_segments(space, program, bias)?;
    let (_, end) = program.executable.span();
    space.set_heap_start(bias.wrapping_add(end));
    let interpreter_bias = match &image.interpreter {
        Some(interpreter) => Some(map_interpreter(space, interpreter)?),
        None => None,
    };
    let virtual_object = vdso::map(space)?;
    let mut protection = Protection::READ_WRITE;
    protection.set(Protection::EXECUTE, program.executable.has_executable_stack);
    space.map(&Request {
        no_reserve: true,
        label: Some((Rc::from(b"[stack]".as_slice()), 0)),
        ..Request::anonymous(Place::Fixed(STACK_TOP - STACK_BYTES), STACK_BYTES, protection)
    })?;
    space.populate(STACK_TOP - STACK_FILLED_BYTES, STACK_TOP, true)?;
    Ok(Segments {
        bias,
        interpreter_bias,
        virtual_object,
    })
}

/// Fills what lies in files of a program whose segments are in place, within bounds: in a snapshot, so that copies need
/// not do it one after the other.
pub(crate) fn fill_segments(kernel: &mut Kernel, image: &Image, segments: &Segments) {
    let interpreter = image.interpreter.as_ref().zip(segments.interpreter_bias);
    let (mut text_bytes, mut data_bytes) = (SNAPSHOT_TEXT_BYTES, SNAPSHOT_DATA_BYTES);
    for (binary, bias) in core::iter::once((&image.program, segments.bias)).chain(interpreter) {
        for segment in &binary.executable.segments {
            let address = bias.wrapping_add(segment.address);
            let start = address & !(PAGE_BYTES - 1);
            let end = page_ceil(address.wrapping_add(segment.file_bytes)).unwrap_or(start);
            let left = match segment.write {
                true => &mut data_bytes,
                false => &mut text_bytes,
            };
            let filled = end.wrapping_sub(start).min(*left);
            *left -= filled;
            // What is not filled now is filled when it is touched.
            let _ = kernel.process.space.populate(start, start + filled, true);
        }
    }
}

/// Gives a program whose segments are in place its stack.
pub(crate) fn place_stack(
    kernel: &mut Kernel,
    image: &Image,
    segments: &Segments,
    environment: &Strings,
) -> Result<Placed, LoadError> {
    let mut random = [0; 16];
    kernel.random.fill(&mut random);
    let boot = shared::boot();
    let space = &mut kernel.process.space;
    let program = &image.program;
    let bias = segments.bias;
    let entry = bias.wrapping_add(program.executable.entry);
    let first_instruction = match (&image.interpreter, segments.interpreter_bias) {
        (Some(interpreter), Some(bias)) => bias.wrapping_add(interpreter.executable.entry),
        _ => entry,
    };

    let headers = program.executable.headers_address;
    let contents = stack::Contents {
        arguments: &image.arguments,
        environment,
        path: &image.path,
        entry,
        headers_address: headers.map_or(0, |address| bias.wrapping_add(address)),
        headers_count: u64::from(program.executable.headers_count),
        interpreter_base: segments.interpreter_bias.unwrap_or(0),
        virtual_object: segments.virtual_object,
        signal_frame_bytes: boot.extended_state_bytes.saturating_add(SIGNAL_FRAME_BYTES),
        random,
        identity: &kernel.process.identity,
        processor_features: processor::features(),
    };
    let built = stack::build(&contents, STACK_TOP);
    let bottom = STACK_TOP - STACK_BYTES;
    if built.pointer < bottom + STACK_BYTES / 4 {
        return Err(LoadError::StartBlock);
    }
    space.write(built.pointer, &built.bytes)?;
    Ok(Placed {
        context: Context::new(first_instruction, built.pointer),
        name: task_name(&image.path),
        file: Rc::clone(&program.file),
        arguments: joined(&image.arguments),
        environment: joined(environment),
        auxiliary: built.auxiliary,
    })
}

/// The name of a program's first task: the last part of its path.
fn task_name(path: &[u8]) -> [u8; 16] {
    let last = path.rsplit(|&byte| byte == b'/').next().unwrap_or_default();
    let mut name = [0; 16];
    let length = last.len().min(name.len() - 1);
    name[..length].copy_from_slice(&last[..length]);
    name
}

fn joined(strings: &Strings) -> Vec<u8> {
    let mut bytes = Vec::new();
    for text in strings {
        bytes.extend_from_slice(text);
        bytes.push(0);
    }
    bytes
}

/// Maps an interpreter where there is room; returns what is added to its addresses.
fn map_interpreter(space: &mut AddressSpace, interpreter: &Binary) -> Result<u64, Errno> {
    let executable = &interpreter.executable;
    if !executable.is_position_independent {
        map_segments(space, interpreter, 0)?;
        return Ok(0);
    }
    let (start, end) = executable.span();
    let alignment = executable.alignment;
    let slack = alignment - PAGE_BYTES;
    let length = (end - start).checked_add(slack).ok_or(Errno::ENOMEM)?;
    let reserved = space.map(&Request::anonymous(Place::Anywhere, length, Protection::empty()))?;
    let base = reserved
        .checked_next_multiple_of(alignment)
        .ok_or(Errno::ENOMEM)?;
    let bias = base.wrapping_sub(start);
    map_segments(space, interpreter, bias)?;
    Ok(bias)
}

fn map_segments(space: &mut AddressSpace, binary: &Binary, bias: u64) -> Result<(), Errno> {
    for segment in &binary.executable.segments {
        map_segment(space, binary, segment, bias)?;
    }
    Ok(())
}

/// Maps a segment: its contents from the file, what is behind them as zeroed memory.
fn map_segment(space: &mut AddressSpace, binary: &Binary, segment: &Segment, bias: u64) -> Result<(), Errno> {
    let address = bias.wrapping_add(segment.address);
    let start = address & !(PAGE_BYTES - 1);
    let contents_end = address.checked_add(segment.file_bytes).ok_or(Errno::ENOMEM)?;
    let end = address
        .checked_add(segment.memory_bytes)
        .and_then(page_ceil)
        .ok_or(Errno::ENOMEM)?;
    let mut protection = Protection::empty();
    protection.set(Protection::READ, segment.read);
    protection.set(Protection::WRITE, segment.write);
    protection.set(Protection::EXECUTE, segment.execute);

    let mut zero_start = start;
    if segment.file_bytes > 0 {
        let file_offset = segment.file_offset & !(PAGE_BYTES - 1);
        zero_start = page_ceil(contents_end).ok_or(Errno::ENOMEM)?;
        space.map(&Request {
            contents: file_contents(&binary.file, file_offset)?,
            label: Some((Rc::clone(&binary.path), file_offset)),
            ..Request::anonymous(Place::Fixed(start), zero_start - start, protection)
        })?;
        if segment.write && zero_start - start <= EAGER_DATA_BYTES {
            // What cannot be filled now is filled when it is touched.
            let _ = space.populate(start, zero_start, true);
        }
        // The rest of the last page holds what follows in the file.
        if segment.write && segment.memory_bytes > segment.file_bytes && contents_end < zero_start {
            let zeroes = [0; PAGE_BYTES as usize];
            space.write(contents_end, &zeroes[..(zero_start - contents_end) as usize])?;
        }
    }
    if end > zero_start {
        space.map(&Request::anonymous(
            Place::Fixed(zero_start),
            end - zero_start,
            protection,
        ))?;
        if end - zero_start <= EAGER_ZERO_BYTES {
            let _ = space.populate(zero_start, end, true);
        }
    }
    Ok(())
}

/// What a private mapping of a file shows.
fn file_contents(file: &Rc<dyn File>, file_offset: u64) -> Result<Contents, Errno> {
    match file.mapping()? {
        Mapping::Module { offset, bytes } => {
            if !offset.is_multiple_of(PAGE_BYTES) {
                return Err(Errno::ENOEXEC);
            }
            Ok(Contents::Module {
                offset: offset.checked_add(file_offset).ok_or(Errno::ENOEXEC)?,
                end: offset.checked_add(bytes).ok_or(Errno::ENOEXEC)?,
            })
        }
        Mapping::Pages(pages) => Ok(Contents::Pages {
            pages,
            offset: file_offset,
            shared: false,
        }),
        Mapping::Zero => Err(Errno::EACCES),
    }
}
