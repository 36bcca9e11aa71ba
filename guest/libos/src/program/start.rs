//! The first program: found and started as the boot page says.

use alloc::rc::Rc;
use alloc::vec::Vec;

use spore_abi::layout::START_BLOCK_BYTES;
use spore_abi::pages::{BootPage, boot_flags};
use spore_machine::shared;

use super::command::Command;
use super::load::{self, Image, LoadError, Placed, Strings};
use crate::clones::BOOTED_FOR_SNAPSHOT;
use crate::errno::Errno;
use crate::files::{self, File};
use crate::kernel::Kernel;

/// Where programs are searched if the environment has no PATH.
const DEFAULT_PATH: &[u8] = b"/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Loads the program that the boot page describes.
pub(crate) fn load_first(kernel: &mut Kernel, boot: &BootPage) -> Result<Placed, LoadError> {
    let (arguments, mut environment) = start_strings(boot)?;
    kernel.clones.set_hooks(&environment).map_err(LoadError::Hook)?;
    if kernel.clones.becomes_snapshot() {
        environment.push(BOOTED_FOR_SNAPSHOT.to_vec());
    }
    let image = find(kernel, boot, arguments, &environment)?;
    load::place(kernel, &image, &environment)
}

/// Loads the command that the boot page describes, as far as that can be done without knowing the invocation.
pub(crate) fn load_command(kernel: &mut Kernel, boot: &BootPage) -> Result<Command, LoadError> {
    let (arguments, environment) = start_strings(boot)?;
    let image = find(kernel, boot, arguments, &environment)?;
    let segments = load::place_segments(kernel, &image)?;
    if kernel.clones.becomes_snapshot() {
        load::fill_segments(kernel, &image, &segments);
    }
    Ok(Command::new(image, segments, environment))
}

fn find(
    kernel: &mut Kernel,
    boot: &BootPage,
    arguments: Strings,
    environment: &Strings,
) -> Result<Image, LoadError> {
    let name = arguments.first().cloned().unwrap_or_default();
    let is_searched = boot.flags & boot_flags::ROOT_IS_EROFS != 0 && !name.contains(&b'/');
    let (file, path) = if is_searched {
        search(kernel, &name, environment)?
    } else {
        (files::open_program(kernel, &name).map_err(LoadError::File)?, name)
    };
    load::resolve(kernel, file, &path, arguments)
}

/// Finds a program by its name in the folders of PATH.
fn search(
    kernel: &mut Kernel,
    name: &[u8],
    environment: &Strings,
) -> Result<(Rc<dyn File>, Vec<u8>), LoadError> {
    let path = environment
        .iter()
        .find_map(|variable| variable.strip_prefix(b"PATH="));
    let mut error = Errno::ENOENT;
    for folder in path.unwrap_or(DEFAULT_PATH).split(|&byte| byte == b':') {
        let mut full = folder.to_vec();
        if !full.is_empty() {
            full.push(b'/');
        }
        full.extend_from_slice(name);
        match files::open_program(kernel, &full) {
            Ok(file) => return Ok((file, full)),
            Err(Errno::EACCES) => error = Errno::EACCES,
            Err(_) => {}
        }
    }
    Err(LoadError::File(error))
}

/// The strings of the start block: `argv` and `envp`.
fn start_strings(boot: &BootPage) -> Result<(Strings, Strings), LoadError> {
    let length = u64::from(boot.start_block_bytes).min(START_BLOCK_BYTES) as usize;
    let mut block = alloc::vec![0; length];
    shared::start_block(&mut block);
    split_strings(&block, boot.argument_count, boot.environment_count)
}

/// The first strings of a block of zero-terminated ones, and those after them.
pub(crate) fn split_strings(
    block: &[u8],
    arguments: u32,
    environment: u32,
) -> Result<(Strings, Strings), LoadError> {
    let mut strings = block.split(|&byte| byte == 0);
    let mut take = |count: u32| -> Result<Strings, LoadError> {
        (0..count)
            .map(|_| strings.next().map(<[u8]>::to_vec).ok_or(LoadError::StartBlock))
            .collect()
    };
    Ok((take(arguments)?, take(environment)?))
}
