//! Images of folders, kept between runs in a folder of the user's.
//!
//! The key is that of the [`survey`](crate::survey()): an image is found again as long as nothing in its folder has
//! changed. Images that were not used lately are removed.

use std::fs::{self, File, FileTimes};
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use tempfile::NamedTempFile;

use crate::image::{ImageError, Owners, is_intact, make_image};
use crate::survey::{SurveyError, survey};

/// Images that are kept.
const KEPT: usize = 8;
/// Changes when images are made otherwise than before.
const FORMAT: &str = "1";
const SUFFIX: &str = "erofs";

/// Why there is no image of a folder.
#[derive(Debug, thiserror::Error)]
pub enum CacheError {
    /// The folder cannot be a root file system.
    #[error(transparent)]
    Survey(#[from] SurveyError),
    /// The image could not be made.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// There is no place for the image.
    #[error("{} cannot be used for the image of the root file system", place.display())]
    Io {
        /// Where it should be.
        place: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

/// The image of `folder`, from the cache if nothing in it has changed. Without a cache it is a temporary file, which
/// is gone when the result is closed.
///
/// # Errors
///
/// If no image can be made or stored.
pub fn cached_image(folder: &Path, cache: Option<&Path>, owners: Owners) -> Result<File, CacheError> {
    let survey = survey(folder)?;
    let temporary = std::env::temp_dir();
    let place = cache
        .filter(|cache| fs::create_dir_all(cache).is_ok())
        .unwrap_or(&temporary);
    let io_error = |source| CacheError::Io {
        place: place.to_owned(),
        source,
    };
    let is_cached = cache == Some(place);
    let path = place.join(format!("{}-{FORMAT}-{owners:?}.{SUFFIX}", survey.key));
    if is_cached
        && let Ok(file) = File::open(&path)
        && is_intact(&file)
    {
        // Only the order of removal depends on it.
        let _ = file.set_times(FileTimes::new().set_modified(SystemTime::now()));
        return Ok(file);
    }
    let file = NamedTempFile::new_in(place).map_err(io_error)?;
    make_image(folder, file.path(), owners)?;
    if !is_cached {
        return file.reopen().map_err(io_error);
    }
    let image = file.reopen().map_err(io_error)?;
    file.persist(&path).map_err(|error| io_error(error.error))?;
    remove_old(place);
    Ok(image)
}

/// Removes what was not used lately. A file that somebody still has open stays usable for them.
fn remove_old(place: &Path) {
    let Ok(entries) = fs::read_dir(place) else {
        return;
    };
    let mut images: Vec<(SystemTime, PathBuf)> = entries
        .filter_map(|entry| {
            let path = entry.ok()?.path();
            let used = path.metadata().ok()?.modified().ok()?;
            (path.extension()? == SUFFIX).then_some((used, path))
        })
        .collect();
    images.sort();
    for (_, path) in images.iter().rev().skip(KEPT) {
        // Another process may have removed it.
        let _ = fs::remove_file(path);
    }
}
