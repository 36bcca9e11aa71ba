//! What is derived from images, on the disk.
//!
//! ```text
//!   derived/HEX/         program | root.erofs | head.erofs, and seal.json      HEX: digest of the image's manifest
//!   derived/bases/HEX/   root.erofs, and seal.json                             HEX: of the layers that it is made of, and its user
//! ```
//!
//! The seal tells a file's length, time and digest, of a head what its base is, and who the program runs as that all of its
//! files belong to: what is not as it was made is made again.

use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::thread;

use serde::{Deserialize, Serialize};
use spore_sandbox::Root;
use tempfile::NamedTempFile;

use crate::Digest;
use crate::files::persist;
use crate::images::ImageStore;
use crate::users::Account;

/// Names of what is derived from an image: one of them.
pub(crate) const PROGRAM_FILE: &str = "program";
pub(crate) const FILE_SYSTEM_FILE: &str = "root.erofs";
pub(crate) const HEAD_FILE: &str = "head.erofs";
const NAMES: [&str; 3] = [PROGRAM_FILE, FILE_SYSTEM_FILE, HEAD_FILE];
/// What tells whether it is as it was made.
const SEAL_FILE: &str = "seal.json";
/// The folder of bases among those of images.
const BASES_FOLDER: &str = "bases";

/// What a derived file is known by.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Seal {
    digest: Digest,
    bytes: u64,
    modified_seconds: i64,
    modified_nanoseconds: i64,
    #[serde(flatten)]
    bond: Bond,
}

/// What a derived file goes with.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Bond {
    /// Of a head.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) base: Option<BaseName>,
    /// Of what belongs to a user that its image names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) account: Option<Account>,
}

/// What was derived from an image.
pub(crate) struct Derived {
    pub(crate) root: Root,
    pub(crate) digest: Digest,
    /// Who its program runs as, if its image names somebody.
    pub(crate) account: Option<Account>,
}

/// The base that a head belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct BaseName {
    /// Of the layers that it is made of, and of the user that it belongs to if one is named: the name of its folder.
    pub(crate) layers: Digest,
    /// Of its file.
    pub(crate) digest: Digest,
}

impl ImageStore {
    /// The folder of a base.
    pub(crate) fn base_folder(&self, layers: Digest) -> PathBuf {
        self.derived.join(BASES_FOLDER).join(layers.to_hex())
    }

    /// All folders in which something was derived, with their names.
    pub(crate) fn derived_folders(&self) -> io::Result<Vec<fs::DirEntry>> {
        let images = fs::read_dir(&self.derived)?;
        let bases = if_there(fs::read_dir(self.derived.join(BASES_FOLDER)))?;
        let all = images.chain(bases.into_iter().flatten());
        let all = all.filter(|entry| {
            !entry
                .as_ref()
                .is_ok_and(|entry| entry.file_name() == BASES_FOLDER)
        });
        all.collect()
    }

    /// What was derived in this folder earlier, if it is there and undamaged.
    pub(crate) fn intact_root(&self, folder: &Path) -> io::Result<Option<Derived>> {
        let path = |name| folder.join(name);
        let mut failed = None;
        for (name, root) in [
            (PROGRAM_FILE, Root::Program(path(PROGRAM_FILE))),
            (FILE_SYSTEM_FILE, Root::FileSystem(path(FILE_SYSTEM_FILE))),
        ] {
            match sealed_digest(&path(name), folder, &self.uploads) {
                Ok(Some((digest, Bond { base: None, account }))) => {
                    return Ok(Some(Derived {
                        root,
                        digest,
                        account,
                    }));
                }
                Ok(_) => {}
                // That one cannot be looked at is not to be hidden by others that are not there.
                Err(error) if error.kind() != io::ErrorKind::NotFound => failed = Some(error),
                Err(_) => {}
            }
        }
        match sealed_digest(&path(HEAD_FILE), folder, &self.uploads) {
            Ok(Some((
                head,
                Bond {
                    base: Some(base),
                    account,
                },
            ))) => {
                let base_folder = self.base_folder(base.layers);
                let base_file = base_folder.join(FILE_SYSTEM_FILE);
                let found = sealed_digest(&base_file, &base_folder, &self.uploads)?;
                let is_same = found.is_some_and(|(digest, _)| digest == base.digest);
                let root = Root::Layered {
                    base: base_file,
                    head: path(HEAD_FILE),
                };
                Ok(is_same.then(|| Derived {
                    root,
                    digest: layered_digest(base, head),
                    account,
                }))
            }
            Ok(_) => failed.map_or(Ok(None), Err),
            Err(error) => Err(failed.unwrap_or(error)),
        }
    }

    /// The digest of a base's file, if it is there and undamaged, and whose it is if somebody is named.
    pub(crate) fn intact_base(&self, layers: Digest) -> io::Result<Option<(Digest, Option<Account>)>> {
        let folder = self.base_folder(layers);
        let found = if_there(sealed_digest(
            &folder.join(FILE_SYSTEM_FILE),
            &folder,
            &self.uploads,
        ))?;
        Ok(found.flatten().map(|(digest, bond)| (digest, bond.account)))
    }
}

/// The digest of what a base and a head make.
pub(crate) fn layered_digest(base: BaseName, head: Digest) -> Digest {
    Digest::of(format!("base {}\nhead {head}\n", base.digest).as_bytes())
}

/// What was derived in this folder: the file's name and length.
pub(crate) fn derived_file(folder: &Path) -> Option<(&'static str, u64)> {
    let of = |name| Some((name, fs::metadata(folder.join(name)).ok()?.len()));
    NAMES.into_iter().find_map(of)
}

/// Puts a file into the folder of what is derived, and beside it what tells later whether it is the same. Its digest.
pub(crate) fn store(file: NamedTempFile, folder: &Path, name: &str, bond: Bond) -> io::Result<Digest> {
    file.as_file().set_permissions(Permissions::from_mode(0o444))?;
    fs::create_dir_all(folder)?;
    // A root is as large as a runtime: it is read while it is on its way to the disk.
    let (digest, synchronised) = thread::scope(|scope| {
        let synchronising = scope.spawn(|| file.as_file().sync_all());
        let digest = File::open(file.path()).and_then(Digest::of_reader);
        (digest, synchronising.join())
    });
    let digest = digest?;
    synchronised.unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
    let uploads = file.path().parent().unwrap_or(folder).to_owned();
    let path = folder.join(name);
    persist(file, &path)?;
    let seal = Seal {
        bond,
        ..Seal::of(&File::open(&path)?, digest)?
    };
    seal.write(folder, &uploads)?;
    // What was there in another form.
    for other in NAMES.into_iter().filter(|other| *other != name) {
        let _ = fs::remove_file(folder.join(other));
    }
    Ok(digest)
}

/// The digest of a file, if it is the one that the seal in its folder is about. It is read only if it was written since: what
/// changes by itself is the file system's to find. Also what it goes with.
fn sealed_digest(path: &Path, folder: &Path, uploads: &Path) -> io::Result<Option<(Digest, Bond)>> {
    let file = File::open(path)?;
    let seal = Seal::read(folder)?;
    let now = Seal {
        bond: seal.bond.clone(),
        ..Seal::of(&file, seal.digest)?
    };
    let found = Some((seal.digest, seal.bond.clone()));
    if now == seal {
        return Ok(found);
    }
    if now.bytes != seal.bytes || Digest::of_reader(file)? != seal.digest {
        return Ok(None);
    }
    // The same content, copied or restored. It is read again the next time if this fails.
    let _ = now.write(folder, uploads);
    Ok(found)
}

/// Whether what was derived in this folder is as it was made, read to its end; none if there is nothing that anybody would
/// believe.
pub(crate) fn is_sealed(folder: &Path) -> io::Result<Option<bool>> {
    let Some(seal) = if_there(Seal::read(folder))? else {
        return Ok(None);
    };
    for name in NAMES {
        if let Some(file) = if_there(File::open(folder.join(name)))? {
            return Ok(Some(Digest::of_reader(file)? == seal.digest));
        }
    }
    Ok(None)
}

/// Whether what was made in this folder has no base.
pub(crate) fn is_whole(folder: &Path) -> bool {
    Seal::read(folder).is_ok_and(|seal| seal.bond.base.is_none())
}

fn if_there<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

impl Seal {
    fn of(file: &File, digest: Digest) -> io::Result<Self> {
        let metadata = file.metadata()?;
        Ok(Self {
            digest,
            bytes: metadata.len(),
            modified_seconds: metadata.mtime(),
            modified_nanoseconds: metadata.mtime_nsec(),
            bond: Bond::default(),
        })
    }

    fn read(folder: &Path) -> io::Result<Self> {
        Ok(serde_json::from_slice(&fs::read(folder.join(SEAL_FILE))?)?)
    }

    fn write(&self, folder: &Path, uploads: &Path) -> io::Result<()> {
        let mut file = NamedTempFile::new_in(uploads)?;
        serde_json::to_writer(&mut file, self)?;
        persist(file, &folder.join(SEAL_FILE))
    }
}
