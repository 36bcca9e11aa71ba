//! What the fuzz targets call: the readers of hostile files, with what must hold whatever they read.
//!
//! Each panics if something does not hold. Bounds on the work are the target's own: an image may describe more than
//! anybody wants to walk.

use alloc::vec::Vec;

use spore_abi::command::{PREAMBLE_HEADER_BYTES, VARIABLES_BYTES_MAX};
use spore_abi::layout::{PAGE_BYTES, USER_END};

use crate::files::erofs::{Image, Inode, NAME_BYTES_MAX, Source};
use crate::program::command::{self, Preamble};
use crate::program::{elf, script, stack, start};

/// Inodes that are looked at in one image, and entries in one directory.
const WALKED_MAX: usize = 64;
/// Bytes that are read of a file at one place.
const READ_BYTES: usize = 8192;
/// End of the stack that is built.
const STACK_TOP: u64 = 0x7fff_ff00_0000;

struct Bytes<'a>(&'a [u8]);

impl Source for Bytes<'_> {
    fn read(&self, offset: u64, buffer: &mut [u8]) -> bool {
        let part = part(self.0, offset, buffer.len());
        part.map(|part| buffer.copy_from_slice(part)).is_some()
    }
}

fn part(bytes: &[u8], offset: u64, length: usize) -> Option<&[u8]> {
    let start = usize::try_from(offset).ok()?;
    bytes.get(start..start.checked_add(length)?)
}

/// An EROFS image: opened, walked, read. Returns how many inodes could be read.
pub fn erofs_image(bytes: &[u8]) -> usize {
    let Ok(image) = Image::open(Bytes(bytes)) else {
        return 0;
    };
    let mut open = alloc::vec![image.root()];
    let mut seen = 0;
    while let Some(number) = open.pop() {
        let Ok(inode) = image.inode(number) else { continue };
        seen += 1;
        if seen > WALKED_MAX {
            break;
        }
        let mut position = 0;
        for _ in 0..WALKED_MAX {
            let Ok(Some(entry)) = image.entry(&inode, position) else {
                break;
            };
            assert!(entry.next > position, "a directory goes on");
            assert!((1..=NAME_BYTES_MAX).contains(&entry.name.len()) && !entry.name.contains(&b'/'));
            let _ = image.lookup(&inode, &entry.name);
            position = entry.next;
            open.push(entry.inode);
        }
        let _ = image.lookup(&inode, b"");
        read_everywhere(&image, &inode, bytes.len() as u64);
    }
    seen
}

fn read_everywhere(image: &Image<Bytes<'_>>, inode: &Inode, image_bytes: u64) {
    let mut buffer = [0; READ_BYTES];
    for position in [
        0,
        4095,
        inode.size / 2,
        inode.size.saturating_sub(100),
        u64::MAX - 5,
    ] {
        if let Ok(length) = image.read(inode, position, &mut buffer) {
            let left = inode.size.saturating_sub(position);
            assert_eq!(
                length as u64,
                left.min(READ_BYTES as u64),
                "reads are short at the end only"
            );
        }
        if let Ok(extent) = image.map(inode, position) {
            assert!(extent.bytes <= inode.size.saturating_sub(position));
        }
    }
    if let Ok(Some(start)) = image.contiguous(inode, PAGE_BYTES) {
        let end = start.checked_add(inode.size);
        assert!(start.is_multiple_of(PAGE_BYTES));
        assert!(
            end.is_some_and(|end| end <= image_bytes),
            "what is mapped lies in the image"
        );
    }
}

/// An ELF file. Returns whether it could be loaded as far as its headers say.
pub fn elf_file(file: &[u8]) -> bool {
    let _ = script::parse(&file[..file.len().min(script::HEAD_BYTES)]);
    let parsed = elf::parse(file.len() as u64, &mut |offset, buffer| {
        let part = part(file, offset, buffer.len());
        part.map(|part| buffer.copy_from_slice(part)).is_some()
    });
    let Ok(executable) = parsed else { return false };
    let (start, end) = executable.span();
    assert!(start < end && end <= USER_END);
    assert!(executable.alignment.is_power_of_two());
    let mut reached = 0;
    for segment in &executable.segments {
        assert!(segment.address >= reached, "segments do not overlap");
        reached = segment.address + segment.memory_bytes;
        assert!(segment.file_bytes <= segment.memory_bytes);
        assert!(segment.file_offset + segment.file_bytes <= file.len() as u64);
        assert_eq!(segment.file_offset % PAGE_BYTES, segment.address % PAGE_BYTES);
    }
    true
}

/// The stream of a command, of which `step` bytes come at once. Returns whether it begins with the variables of an
/// invocation.
pub fn command_variables(stream: &[u8], step: usize) -> bool {
    let mut preamble = Preamble::default();
    let mut rest = stream;
    let whole = loop {
        match preamble.missing() {
            Err(_) => return false,
            Ok(0) => break stream.len() - rest.len(),
            Ok(missing) => {
                let count = missing.min(step.max(1)).min(rest.len());
                if count == 0 {
                    return false;
                }
                preamble.take(&rest[..count]);
                rest = &rest[count..];
            }
        }
    };
    let Ok(variables) = preamble.variables() else {
        return false;
    };
    let bytes: usize = variables.iter().map(|text| text.len() + 1).sum();
    assert_eq!(
        bytes + PREAMBLE_HEADER_BYTES,
        whole,
        "what comes after is the program's"
    );
    assert!(bytes <= VARIABLES_BYTES_MAX);
    let of_function = alloc::vec![b"A=of the function".to_vec()];
    let merged = command::merged(of_function, variables.clone());
    assert!(merged.len() <= variables.len() + 1);
    assert!(
        merged
            .iter()
            .all(|text| text.contains(&b'=') && !text.contains(&0))
    );
    true
}

/// A start block with its counts: the strings in it, and the stack that is made of them.
pub fn start_block(block: &[u8], arguments: u32, environment: u32) -> bool {
    let Ok((arguments, environment)) = start::split_strings(block, arguments, environment) else {
        return false;
    };
    let strings = arguments.iter().chain(&environment).map(|text| text.len() + 1);
    assert!(
        strings.sum::<usize>() <= block.len() + 1,
        "no string is there twice"
    );
    let path = arguments.first().cloned().unwrap_or_default();
    let contents = stack::Contents {
        arguments: &arguments,
        environment: &environment,
        path: &path,
        entry: 0,
        headers_address: 0,
        headers_count: 0,
        interpreter_base: 0,
        virtual_object: 0,
        signal_frame_bytes: 0,
        random: [0; 16],
        identity: &crate::process::Identity::new(0, 0, Vec::new()),
        processor_features: 0,
    };
    let built = stack::build(&contents, STACK_TOP);
    assert!(built.pointer.is_multiple_of(16));
    assert!(built.pointer + built.bytes.len() as u64 <= STACK_TOP);
    let words: Vec<u64> = built
        .bytes
        .chunks_exact(8)
        .take(1 + arguments.len())
        .map(|word| u64::from_le_bytes(word.try_into().unwrap_or_default()))
        .collect();
    assert_eq!(words[0], arguments.len() as u64);
    assert!(
        words[1..]
            .iter()
            .all(|&address| address > built.pointer && address < STACK_TOP)
    );
    true
}
