//! Root file systems of instances: from a folder to an EROFS image.
//!
//! ```text
//!  folder ──survey──> key ──cache has it──> image
//!              │        └──otherwise──> mkfs.erofs ──> temporary file ──rename──> image
//!              └── too large, the host's own root: refused
//! ```
//!
//! An image that is another one's with a few changes is made as a small part of its own ([`head`]).
//!
//! An image is mapped read-only into every instance straight from the host's page cache, so all data must lie in whole
//! blocks as it is: nothing is compressed, and no file ends inside metadata. The same folder gives the same bytes
//! ([`make_image`]).

mod cache;
mod erofs;
pub mod head;
mod image;
mod survey;

pub use cache::{CacheError, cached_image};
pub use erofs::{Blocks, FileReader, FolderEntry, Image, Inode, ReadError};
pub use image::{IMAGE_BYTES_MAX, ImageError, Owners, is_intact, make_image};
pub use survey::{Survey, SurveyError, survey};
