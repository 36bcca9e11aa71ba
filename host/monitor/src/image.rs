//! The unikernel's image, embedded by the build script.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;

use rustix::fs::{SealFlags, fcntl_add_seals};
use spore_abi::layout::{
    IMAGE_BYTES_MAX, IMAGE_DATA_BYTES_MAX, IMAGE_DATA_GPA, IMAGE_GPA, LARGE_PAGE_BYTES, PAGE_BYTES,
    WINDOW_BASE,
};
use spore_abi::pages::{IMAGE_MAGIC, ImageHeader};
use zerocopy::FromBytes;

use crate::memory::{OutOfRange, Region};
use crate::memory_file::memory_file;
use crate::tables;

static LIBRARY_OS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/library-os.image"));
static LIBRARY_OS_DATA: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/library-os.data"));

/// An image with its header.
pub(crate) struct Image {
    /// Code and constants, beginning with the header.
    pub(crate) text: &'static [u8],
    pub(crate) data: &'static [u8],
    pub(crate) header: ImageHeader,
}

/// The embedded image cannot be used; the build is broken.
#[derive(Debug, thiserror::Error)]
#[error("the embedded library OS does not fit this monitor")]
pub(crate) struct ImageError;

impl Image {
    /// The library OS.
    pub(crate) fn library_os() -> Result<Self, ImageError> {
        let (header, _) = ImageHeader::read_from_prefix(LIBRARY_OS).map_err(|_| ImageError)?;
        let base = WINDOW_BASE + IMAGE_GPA;
        let fits = header.magic == IMAGE_MAGIC
            && header.abi_version == u64::from(spore_abi::ABI_VERSION)
            && header.end <= base + IMAGE_BYTES_MAX
            && LIBRARY_OS.len() as u64 <= IMAGE_BYTES_MAX
            && header.data_end <= WINDOW_BASE + IMAGE_DATA_GPA + IMAGE_DATA_BYTES_MAX
            && LIBRARY_OS_DATA.len() as u64 <= IMAGE_DATA_BYTES_MAX
            && (base..header.end).contains(&header.entry);
        if fits {
            Ok(Self {
                text: LIBRARY_OS,
                data: LIBRARY_OS_DATA,
                header,
            })
        } else {
            Err(ImageError)
        }
    }

    /// Writes the data to memory that is zero so far.
    pub(crate) fn write_data(&self, ram: &Region) -> Result<(), OutOfRange> {
        ram.write_bytes(IMAGE_DATA_GPA, self.data)
    }

    /// Writes code and constants.
    pub(crate) fn write_text(&self, ram: &Region) -> Result<(), OutOfRange> {
        ram.write_bytes(IMAGE_GPA, self.text)
    }

    /// Whether an address lies in the image, where upcalls are never delivered.
    pub(crate) fn contains(&self, address: u64) -> bool {
        (WINDOW_BASE + IMAGE_GPA..self.header.end).contains(&address)
    }
}

/// The library OS of this build: code and constants, then data.
#[must_use]
pub fn library_os() -> [&'static [u8]; 2] {
    [LIBRARY_OS, LIBRARY_OS_DATA]
}

/// Where the monitor's area begins in [`text_file`].
pub(crate) const TEXT_FILE_AREA_OFFSET: u64 = LARGE_PAGE_BYTES;

/// A file that holds what is the same in all virtual machines, for all monitors of a daemon: the library OS's code and
/// constants, and the monitor's area as it is before the first exception. Nobody can write to it. Where the kernel can do
/// that, the former is a large page.
///
/// # Errors
///
/// If the kernel has no such files, or no memory.
pub fn text_file() -> io::Result<OwnedFd> {
    let file = File::from(memory_file(c"spore-library-os")?);
    file.set_len(TEXT_FILE_AREA_OFFSET + tables::MONITOR_BYTES as u64)?;
    file.write_all_at(LIBRARY_OS, 0)?;
    let area = Region::anonymous(tables::MONITOR_BYTES, PAGE_BYTES as usize)?;
    let mut bytes = vec![0; tables::MONITOR_BYTES];
    tables::fill_monitor_area(&area)
        .and_then(|()| area.read_bytes(0, &mut bytes))
        .map_err(io::Error::other)?;
    file.write_all_at(&bytes, TEXT_FILE_AREA_OFFSET)?;
    let seals = SealFlags::WRITE | SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL;
    fcntl_add_seals(&file, seals)?;
    let region = Region::anonymous(LARGE_PAGE_BYTES as usize, LARGE_PAGE_BYTES as usize)?;
    region.overlay(file.as_fd(), 0, 0, LARGE_PAGE_BYTES as usize)?;
    region.collapse(0, LARGE_PAGE_BYTES as usize);
    Ok(file.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_embedded_image_fits() {
        let image = Image::library_os().unwrap();
        assert!(image.contains(image.header.entry));
        assert!(image.contains(image.header.system_call_entry));
        assert!(image.header.user_copy_start < image.header.user_copy_end);
        assert!(!image.contains(0x40_0000));
    }
}
