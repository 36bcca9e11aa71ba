//! Files of unikernels: taken out of the functions' roots, for QEMU reads files.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use spore_rootfs::{Image, ReadError};
use spore_sandbox::{ForeignUnikernel, InstanceSpec, Root};
use tempfile::NamedTempFile;

/// Why a file could not be taken out.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FilesError {
    #[error("the root of a unikernel is an image of its own")]
    NoImage,
    #[error("`{path}` is not in the image")]
    Missing { path: String },
    #[error("the image cannot be read")]
    Read(#[from] ReadError),
    #[error("a file of the image cannot be written to the data folder")]
    Io(#[from] io::Error),
}

/// What QEMU reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Files {
    pub(crate) kernel: PathBuf,
    pub(crate) initrd: Option<PathBuf>,
    pub(crate) disk: Option<PathBuf>,
}

/// The folder of all of them: `ROOT-NUMBER`, with the digest of the root.
#[derive(Debug)]
pub(crate) struct Folder {
    path: PathBuf,
    /// One is made at a time.
    making: Mutex<()>,
}

impl Folder {
    /// An empty one; whatever is there goes.
    pub(crate) fn new(path: PathBuf) -> io::Result<Self> {
        if let Err(error) = fs::remove_dir_all(&path)
            && error.kind() != io::ErrorKind::NotFound
        {
            return Err(error);
        }
        fs::create_dir_all(&path)?;
        Ok(Self {
            path: path.canonicalize()?,
            making: Mutex::default(),
        })
    }

    /// The files of a function's unikernel, taken out if they are not there.
    pub(crate) fn files(
        &self,
        spec: &InstanceSpec,
        unikernel: &ForeignUnikernel,
    ) -> Result<Files, FilesError> {
        let Root::FileSystem(root) = &spec.root else {
            return Err(FilesError::NoImage);
        };
        let _making = self.making.lock().unwrap_or_else(PoisonError::into_inner);
        let name = name(spec).ok_or(FilesError::NoImage)?;
        let take = |part: &str, path: &str| -> Result<PathBuf, FilesError> {
            let target = self.path.join(format!("{name}-{part}"));
            if !target.exists() {
                take_out(root, path, &target, &self.path)?;
            }
            Ok(target)
        };
        let of = |part: &str, path: &Option<String>| path.as_ref().map(|path| take(part, path)).transpose();
        Ok(Files {
            kernel: take("kernel", &unikernel.kernel)?,
            initrd: of("initrd", &unikernel.initrd)?,
            disk: of("disk", &unikernel.disk)?,
        })
    }

    /// Removes those of functions that there are no more.
    pub(crate) fn retain(&self, deployed: &[InstanceSpec]) {
        let names: HashSet<String> = deployed.iter().filter_map(name).collect();
        let _making = self.making.lock().unwrap_or_else(PoisonError::into_inner);
        for entry in fs::read_dir(&self.path).into_iter().flatten().flatten() {
            let file = entry.file_name();
            let file = file.to_string_lossy();
            let root = file.split_once('-').map_or("", |(root, _)| root);
            if !names.contains(root) {
                // The next daemon removes it otherwise.
                let _ = fs::remove_file(entry.path());
            }
        }
    }
}

fn name(spec: &InstanceSpec) -> Option<String> {
    let digest = spec.root_digest?;
    Some(digest.iter().map(|byte| format!("{byte:02x}")).collect())
}

fn take_out(root: &Path, path: &str, target: &Path, folder: &Path) -> Result<(), FilesError> {
    let file = File::open(root)?;
    let image = Image::open(&file)?;
    let missing = || FilesError::Missing {
        path: path.to_owned(),
    };
    let found = image.find(path.as_bytes())?.filter(|inode| inode.is_file());
    let mut reader = image.reader(found.ok_or_else(missing)?);
    let mut made = NamedTempFile::new_in(folder)?;
    io::copy(&mut reader, made.as_file_mut())?;
    made.persist(target).map_err(|error| error.error)?;
    Ok(())
}
