//! Durable changes of the file system.

use std::fs::File;
use std::io;
use std::path::Path;

use tempfile::NamedTempFile;

/// Puts a temporary file in its final place so that it survives a power cut: synchronise, rename, synchronise the folder.
pub(crate) fn persist(file: NamedTempFile, path: &Path) -> io::Result<()> {
    file.as_file().sync_all()?;
    file.persist(path).map_err(|error| error.error)?;
    path.parent().map_or(Ok(()), sync_directory)
}

/// Makes renames within the folder durable.
pub(crate) fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}
