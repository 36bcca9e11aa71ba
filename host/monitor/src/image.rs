//! The unikernel's image, embedded by the build script.

use spore_abi::layout::{IMAGE_BYTES_MAX, IMAGE_GPA, WINDOW_BASE};
use spore_abi::pages::{IMAGE_MAGIC, ImageHeader};
use zerocopy::FromBytes;

static LIBRARY_OS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/library-os.image"));

/// An image with its header.
pub(crate) struct Image {
    pub(crate) bytes: &'static [u8],
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
            && (base..header.end).contains(&header.entry);
        if fits {
            Ok(Self {
                bytes: LIBRARY_OS,
                header,
            })
        } else {
            Err(ImageError)
        }
    }

    /// Whether an address lies in the image, where upcalls are never delivered.
    pub(crate) fn contains(&self, address: u64) -> bool {
        (WINDOW_BASE + IMAGE_GPA..self.header.end).contains(&address)
    }
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
