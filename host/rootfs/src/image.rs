//! EROFS images, made by `mkfs.erofs`.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// Largest image, in bytes: what the guest has addresses for.
pub const IMAGE_BYTES_MAX: u64 = spore_abi::layout::MODULES_BYTES_MAX;

const TOOL: &str = "mkfs.erofs";
/// No extended attributes. Files end in a block of their own, so that the guest can map every page of them, and have
/// the long form of the inode, which keeps each time of modification.
const LAYOUT: [&str; 5] = [
    "-d1",
    "--quiet",
    "-x-1",
    "-Enoinline_data,force-inode-extended",
    "-U",
];
/// The same for all: an image's bytes depend on its content only.
const UUID: &str = "53504f52-4500-4000-8000-000000000001";
/// Taken as the time at which the image is made, 2100-01-01. Times of files later than that are set to it.
const SOURCE_DATE_EPOCH: &str = "4102444800";
/// The same, in seconds since 1970.
pub(crate) const LATEST_S: i64 = 4_102_444_800;

/// How the tool says that the disk is full.
const NO_ROOM: &str = "No space left on device";
/// Longest message of the tool that is passed on, in characters.
const MESSAGE_CHARS_MAX: usize = 2000;

const SUPERBLOCK_OFFSET: u64 = 1024;
const SUPERBLOCK_MAGIC: u32 = 0xe0f5_e1e2;
/// Offsets of the block size (as a power of two) and of the number of blocks within the superblock.
const BLOCK_BITS_AT: usize = 12;
const BLOCKS_AT: usize = 36;
const BLOCK_BITS: u8 = 12;

/// Who owns the files of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owners {
    /// As in the folder.
    Kept,
    /// The superuser owns everything.
    Root,
    /// One user owns everything.
    User {
        /// Its number.
        id: u32,
        /// The number of its group.
        group: u32,
    },
}

impl Owners {
    fn options(self) -> Vec<String> {
        match self {
            Self::Kept => Vec::new(),
            Self::Root => vec!["--all-root".to_owned()],
            Self::User { id, group } => vec![format!("--force-uid={id}"), format!("--force-gid={group}")],
        }
    }
}

/// Why no image was made.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// The tool is not installed.
    #[error("{TOOL} is not installed: install the package erofs-utils (apt-get install erofs-utils)")]
    NoTool,
    /// The tool could not be started.
    #[error("{TOOL} could not be started")]
    Start(#[source] io::Error),
    /// The tool failed.
    #[error("{TOOL} cannot make a file system of {}: {message}", folder.display())]
    Tool {
        /// The folder.
        folder: PathBuf,
        /// What the tool says.
        message: String,
    },
    /// There is no room for the image.
    #[error("{TOOL} cannot make a file system of {}", folder.display())]
    NoRoom {
        /// The folder.
        folder: PathBuf,
        /// What the host says.
        #[source]
        source: io::Error,
    },
    /// What the tool made is no image that can be used.
    #[error("{TOOL} made something that is no file system of at most {IMAGE_BYTES_MAX} bytes")]
    Unusable,
}

/// Writes an image of `folder` to the existing file `target`.
///
/// # Errors
///
/// If the tool is missing or fails. `target` then holds anything.
pub fn make_image(folder: &Path, target: &Path, owners: Owners) -> Result<(), ImageError> {
    let mut command = Command::new(TOOL);
    command
        .args(LAYOUT)
        .arg(UUID)
        .args(owners.options())
        .args([absolute(target).as_os_str(), absolute(folder).as_os_str()])
        .env("SOURCE_DATE_EPOCH", SOURCE_DATE_EPOCH)
        .env("LC_ALL", "C")
        .stdin(Stdio::null());
    let output = command.output().map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => ImageError::NoTool,
        _ => ImageError::Start(error),
    })?;
    if !output.status.success() {
        let (folder, message) = (folder.to_owned(), message(&output));
        return Err(if message.contains(NO_ROOM) {
            let source = io::ErrorKind::StorageFull.into();
            ImageError::NoRoom { folder, source }
        } else {
            ImageError::Tool { folder, message }
        });
    }
    match File::open(target) {
        Ok(file) if is_intact(&file) => Ok(()),
        _ => Err(ImageError::Unusable),
    }
}

/// The tool takes a path that begins with a hyphen for an option.
fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| Path::new(".").join(path))
}

fn message(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stderr);
    let lines: Vec<&str> = text
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .collect();
    if lines.is_empty() {
        return output.status.to_string();
    }
    lines.join("; ").chars().take(MESSAGE_CHARS_MAX).collect()
}

/// Whether a file is an image as [`make_image`] makes it, as far as its superblock and its length tell.
#[must_use]
pub fn is_intact(file: &File) -> bool {
    let mut superblock = [0; 128];
    let read = file.read_exact_at(&mut superblock, SUPERBLOCK_OFFSET);
    let word = |at: usize| {
        let bytes = superblock[at..at + 4].try_into().unwrap_or_default();
        u32::from_le_bytes(bytes)
    };
    let expected = u64::from(word(BLOCKS_AT)) << BLOCK_BITS;
    read.is_ok()
        && word(0) == SUPERBLOCK_MAGIC
        && superblock[BLOCK_BITS_AT] == BLOCK_BITS
        && file
            .metadata()
            .is_ok_and(|metadata| metadata.len() == expected && expected <= IMAGE_BYTES_MAX)
}
