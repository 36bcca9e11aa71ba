//! Puts the program into memory.

use alloc::vec::Vec;
use core::fmt;

use spore_abi::layout::{PAGE_BYTES, POSITION_INDEPENDENT_BASE, START_BLOCK_BYTES};
use spore_abi::pages::BootPage;
use spore_machine::context::Context;
use spore_machine::processor::ExtendedState;
use spore_machine::{processor, shared};

use super::elf::{self, ElfError, Segment};
use super::{stack, vdso};
use crate::errno::Errno;
use crate::kernel::Kernel;
use crate::memory::areas::Protection;
use crate::memory::map::{Contents, Place, Request};
use crate::memory::space::page_ceil;
use crate::task::{Memory, Task};

/// End of the main thread's stack.
const STACK_TOP: u64 = 0x7fff_ff00_0000;
/// Size of the main thread's stack; what is below is not mapped.
pub(crate) const STACK_BYTES: u64 = 8 << 20;
/// How much of the stack is filled before the program starts.
const STACK_FILLED_BYTES: u64 = 64 * 1024;
/// Zero-initialised data up to this size is filled before the program starts.
const EAGER_ZERO_BYTES: u64 = 256 * 1024;

/// Why a program could not be loaded.
#[derive(Debug)]
pub(crate) enum LoadError {
    /// Its file.
    Elf(ElfError),
    /// Its memory.
    Memory(Errno),
    /// Its arguments and environment.
    StartBlock,
}

impl fmt::Display for LoadError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Elf(error) => write!(formatter, "{error}"),
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

/// Loads the program that the boot page describes, and makes its first task.
pub(crate) fn load(kernel: &mut Kernel, boot: &BootPage) -> Result<Task, LoadError> {
    let executable = elf::parse(boot.root_bytes, &mut shared::read_module).map_err(LoadError::Elf)?;
    let bias = if executable.is_position_independent {
        POSITION_INDEPENDENT_BASE
    } else {
        0
    };
    let mut end = 0;
    for segment in &executable.segments {
        map_segment(kernel, segment, bias)?;
        end = end.max(bias + segment.address + segment.memory_bytes);
    }
    kernel
        .process
        .space
        .set_heap_start(page_ceil(end).ok_or(Errno::ENOMEM)?);

    let (arguments, environment) = start_strings(boot)?;
    let mut random = [0; 16];
    kernel.random.fill(&mut random);
    let contents = stack::Contents {
        arguments: &arguments,
        environment: &environment,
        entry: bias + executable.entry,
        headers_address: executable.headers_address.map_or(0, |address| bias + address),
        headers_count: u64::from(executable.headers_count),
        random,
        processor_features: processor::features(),
        vdso_address: vdso::map(&mut kernel.process.space, &kernel.frames)?,
    };
    let (bytes, pointer) = stack::build(&contents, STACK_TOP);
    let bottom = STACK_TOP - STACK_BYTES;
    if pointer < bottom + STACK_BYTES / 4 {
        return Err(LoadError::StartBlock);
    }
    kernel.process.space.map(&Request {
        no_reserve: true,
        ..Request::anonymous(Place::Fixed(bottom), STACK_BYTES, Protection::READ_WRITE)
    })?;
    kernel
        .process
        .space
        .populate(STACK_TOP - STACK_FILLED_BYTES, STACK_TOP, true)?;
    kernel.process.space.write(pointer, &bytes)?;

    Ok(Task {
        process: kernel.process.id,
        context: Context::new(bias + executable.entry, pointer),
        extended: ExtendedState::new(boot.extended_state_mask, boot.extended_state_bytes),
        pending: None,
        memory: Memory::default(),
        clear_tid_address: 0,
        signal_mask: 0,
    })
}

fn map_segment(kernel: &mut Kernel, segment: &Segment, bias: u64) -> Result<(), Errno> {
    let address = bias + segment.address;
    let start = address & !(PAGE_BYTES - 1);
    let file_start = segment.file_offset & !(PAGE_BYTES - 1);
    let contents_end = page_ceil(address + segment.file_bytes).ok_or(Errno::ENOMEM)?;
    let end = page_ceil(address + segment.memory_bytes).ok_or(Errno::ENOMEM)?;
    let mut protection = Protection::empty();
    protection.set(Protection::READ, segment.read);
    protection.set(Protection::WRITE, segment.write);
    protection.set(Protection::EXECUTE, segment.execute);

    let space = &mut kernel.process.space;
    if !segment.write && segment.file_bytes > 0 {
        let length = contents_end - start;
        space.map(&Request {
            contents: Contents::Module {
                offset: file_start,
                end: u64::MAX,
            },
            ..Request::anonymous(Place::Fixed(start), length, protection)
        })?;
        if end > contents_end {
            let rest = Place::Fixed(contents_end);
            space.map(&Request::anonymous(rest, end - contents_end, protection))?;
        }
        return Ok(());
    }
    space.map(&Request::anonymous(
        Place::Fixed(start),
        end - start,
        Protection::READ_WRITE,
    ))?;
    let filled_end = if end - contents_end <= EAGER_ZERO_BYTES {
        end
    } else {
        contents_end
    };
    space.populate(start, filled_end, true)?;
    copy_contents(kernel, segment, address)?;
    if protection != Protection::READ_WRITE {
        kernel.process.space.protect(start, end - start, protection)?;
    }
    Ok(())
}

/// Copies the contents of a writable segment out of the file.
fn copy_contents(kernel: &mut Kernel, segment: &Segment, address: u64) -> Result<(), Errno> {
    let mut part = [0; 4096];
    let mut done = 0;
    while done < segment.file_bytes {
        let length = (segment.file_bytes - done).min(part.len() as u64) as usize;
        if !shared::read_module(segment.file_offset + done, &mut part[..length]) {
            return Err(Errno::EIO);
        }
        kernel.process.space.write(address + done, &part[..length])?;
        done += length as u64;
    }
    Ok(())
}

/// Strings without their zeroes.
type Strings = Vec<Vec<u8>>;

/// The strings of the start block: `argv` and `envp`.
fn start_strings(boot: &BootPage) -> Result<(Strings, Strings), LoadError> {
    let length = u64::from(boot.start_block_bytes).min(START_BLOCK_BYTES) as usize;
    let mut block = alloc::vec![0; length];
    shared::start_block(&mut block);
    let mut strings = block.split(|&byte| byte == 0);
    let mut take = |count: u32| -> Result<Strings, LoadError> {
        (0..count)
            .map(|_| strings.next().map(<[u8]>::to_vec).ok_or(LoadError::StartBlock))
            .collect()
    };
    Ok((take(boot.argument_count)?, take(boot.environment_count)?))
}
