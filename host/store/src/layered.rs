//! Roots of images whose last layers are small: a base that others may have as well, and a head of its own.
//!
//! ```text
//!   layers 0 … k-1 ──unpack, mkfs.erofs──> derived/bases/HEX/root.erofs    once for all images that begin with them
//!   layers k …     ──┐                        │ read only where something changes
//!                    └────────────────────────┴──spore_rootfs::head──> derived/HEX/head.erofs
//! ```
//!
//! Where that does not go, and of whatever is wrong with an image, the image is taken as a whole (`program`), which says why.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use oci_spec::image::ImageManifest;
use spore_rootfs::head::{Change, ChangeKind, Head, Parts, Reason};
use spore_rootfs::{Image, ImageError, Inode, Owners, ReadError, make_image};
use spore_sandbox::Root;
use tar::EntryType;
use tempfile::NamedTempFile;

use crate::Digest;
use crate::archive::{self, Bounds, Entry};
use crate::derived::{BaseName, Bond, Derived, FILE_SYSTEM_FILE, HEAD_FILE, is_whole, layered_digest, store};
use crate::elf::{ElfError, Needs, check_program};
use crate::files::sync_directory;
use crate::images::ImageStore;
use crate::manifests::digest_of;
use crate::program::{
    DeriveError, UNPACKED_ROOT, candidates, remove_unpacked, say_skipped, working_directory,
};
use crate::unikernels::{self, URUNC_FILE};
use crate::users::{self, Account};

/// Longest that the layers of a head are together, in bytes as they are stored; less than those of the base in any case.
const HEAD_BYTES_MAX: u64 = 16 << 20;
/// Of less than this, in bytes as they are stored, nothing is worth to be shared.
const BASE_BYTES_MIN: u64 = 1 << 20;
/// What the layers of a head may hold.
const BOUNDS: Bounds = Bounds {
    entries: 50_000,
    bytes: 256 << 20,
};

/// Why an image is taken as a whole.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotLayered {
    #[error("its last layers are not small")]
    NoSplit,
    #[error("what was made of it before is a whole")]
    IsWhole,
    #[error("its last layers make its user another one")]
    OtherUser,
    #[error("its base cannot be made")]
    Base(#[from] DeriveError),
    #[error("its base cannot be made")]
    BaseImage(#[from] ImageError),
    #[error("its head cannot be made")]
    Head(#[from] Reason),
    #[error("what they make cannot be read")]
    Read(#[from] ReadError),
    #[error("its program is not there, or no file")]
    NoProgram,
    #[error("its program cannot run")]
    Program(#[from] ElfError),
    #[error("there is nothing else in it, or it is no Linux program")]
    NoRoot,
    #[error("a file cannot be read or written")]
    Io(#[from] io::Error),
}

/// Where an image is split.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Split {
    /// How many layers the base has.
    pub(crate) count: usize,
    /// The digest of these layers.
    pub(crate) layers: Digest,
}

/// Where an image is split whose configuration names this user (see [`users::named`]), if it is: as low as the rest is small.
/// Depends on manifest and configuration alone, so that it is known which bases are in use. What belongs to a user is a base of its own.
pub(crate) fn split(manifest: &ImageManifest, user: Option<&str>) -> Option<Split> {
    let sizes: Vec<u64> = manifest.layers().iter().map(|layer| layer.size()).collect();
    let sum = |sizes: &[u64]| sizes.iter().fold(0_u64, |sum, size| sum.saturating_add(*size));
    let is_good = |&count: &usize| {
        let (base, head) = (sum(&sizes[..count]), sum(&sizes[count..]));
        base >= BASE_BYTES_MIN && head <= HEAD_BYTES_MAX && head < base
    };
    let count = (1..sizes.len()).find(is_good)?;
    let digests: Option<Vec<Digest>> = manifest.layers()[..count].iter().map(digest_of).collect();
    let mut lines: String = digests?.iter().map(|digest| format!("{digest}\n")).collect();
    lines.extend(user.map(|user| format!("user {user}\n")));
    Some(Split {
        count,
        layers: Digest::of(lines.as_bytes()),
    })
}

/// Who is making which base.
#[derive(Debug, Clone, Default)]
pub(crate) struct Making(Arc<Mutex<HashMap<Digest, Arc<Mutex<()>>>>>);

impl Making {
    fn turn(&self, layers: Digest) -> Arc<Mutex<()>> {
        let mut all = lock(&self.0);
        all.retain(|_, turn| Arc::strong_count(turn) > 1);
        Arc::clone(all.entry(layers).or_default())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl ImageStore {
    /// Makes head and, if it is not there, base of an image, checks the program in them, and stores the head in `folder`.
    pub(crate) fn derive_layered(
        &self,
        manifest: &ImageManifest,
        config: &oci_spec::image::Config,
        command: &str,
        folder: &Path,
    ) -> Result<Derived, NotLayered> {
        let user = users::named(config);
        let split = split(manifest, user).ok_or(NotLayered::NoSplit)?;
        // Functions that are deployed know it by this name.
        if is_whole(folder) {
            return Err(NotLayered::IsWhole);
        }
        let (base_path, base_digest, owner) = self.base(manifest, split, user)?;
        let base_file = File::open(&base_path)?;
        let file = NamedTempFile::new_in(&self.uploads)?;
        let mut head = Head::new(&base_file, file.as_file())?;
        for number in split.count..manifest.layers().len() {
            head.begin_layer();
            archive::read(self.layer(manifest, number)?, BOUNDS, |entry, content| {
                head.add(&change(&entry), content)
            })?;
        }
        // As a container would: an image need not hold the folder that it names.
        head.make_folder(working_directory(config).as_bytes())?;
        let skipped = head.skipped;
        head.finish()?;
        let image = Parts::open(&base_file, file.as_file())?;
        check(&image, &candidates(config, command))?;
        let account = user.map(|user| account(&image, user)).transpose()?;
        // The last layers may say who that is in another way.
        if account.as_ref().map(Account::owners) != owner.as_ref().map(Account::owners) {
            return Err(NotLayered::OtherUser);
        }
        let base = BaseName {
            layers: split.layers,
            digest: base_digest,
        };
        let bond = Bond {
            base: Some(base),
            account: account.clone(),
        };
        let head_digest = store(file, folder, HEAD_FILE, bond)?;
        sync_directory(&self.derived)?;
        say_skipped(folder, skipped);
        let root = Root::Layered {
            base: base_path,
            head: folder.join(HEAD_FILE),
        };
        Ok(Derived {
            root,
            digest: layered_digest(base, head_digest),
            account,
        })
    }

    /// The file of a base, made if it is not there, its digest, and whose it is if somebody is named. Who asks meanwhile waits.
    fn base(
        &self,
        manifest: &ImageManifest,
        split: Split,
        user: Option<&str>,
    ) -> Result<(PathBuf, Digest, Option<Account>), NotLayered> {
        let turn = self.making.turn(split.layers);
        let _turn = lock(&turn);
        let folder = self.base_folder(split.layers);
        let path = folder.join(FILE_SYSTEM_FILE);
        // What cannot be looked at is made again, or that says why not.
        if let Some((digest, account)) = self.intact_base(split.layers).ok().flatten() {
            return Ok((path, digest, account));
        }
        let (unpacked, mut unpacker) = self.unpack(manifest, 0..split.count)?;
        let account = user
            .map(|user| Account::find(user, |path| unpacker.open_if_there(path)))
            .transpose()?;
        unpacker.finish();
        let file = NamedTempFile::new_in(&self.uploads)?;
        let owners = account.as_ref().map_or(Owners::Root, Account::owners);
        make_image(&unpacked.path().join(UNPACKED_ROOT), file.path(), owners)?;
        fs::create_dir_all(&folder)?;
        let bond = Bond {
            base: None,
            account: account.clone(),
        };
        let digest = store(file, &folder, FILE_SYSTEM_FILE, bond)?;
        folder.parent().map_or(Ok(()), sync_directory)?;
        sync_directory(&self.derived)?;
        say_skipped(&folder, unpacker.skipped);
        remove_unpacked(unpacked);
        Ok((path, digest, account))
    }
}

pub(crate) fn change(entry: &Entry) -> Change<'_> {
    let kind = match entry.kind {
        EntryType::Regular | EntryType::Continuous => ChangeKind::File(entry.bytes),
        EntryType::Directory => ChangeKind::Folder,
        EntryType::Symlink => ChangeKind::SymbolicLink(&entry.link),
        EntryType::Link => ChangeKind::HardLink(&entry.link),
        _ => ChangeKind::Other,
    };
    Change {
        path: &entry.path,
        kind,
        mode: entry.mode,
        modified_s: entry.modified_s,
        modified_ns: entry.modified_ns,
    }
}

/// Who the user is that is written `user`, in an image.
fn account(image: &Image<Parts<'_>>, user: &str) -> Result<Account, NotLayered> {
    let open = |path: &str| match image.find(path.as_bytes()) {
        Ok(found) => Ok(found.filter(Inode::is_file).map(|file| image.reader(file))),
        Err(ReadError::Io(error)) => Err(error),
        Err(unknown) => Err(io::Error::new(io::ErrorKind::InvalidData, unknown)),
    };
    Ok(Account::find(user, open)?)
}

/// Whether the program is there, can run, and needs a root file system.
fn check(image: &Image<Parts<'_>>, candidates: &[String]) -> Result<(), NotLayered> {
    let file = |path: &str| -> Result<Option<Inode>, ReadError> {
        let found = image.find(path.as_bytes())?;
        Ok(found.filter(Inode::is_file))
    };
    if let Some(described) = file(URUNC_FILE)?
        && unikernels::recognise_file(image.reader(described)).is_some()
    {
        return Err(NotLayered::NoRoot);
    }
    for candidate in candidates {
        let Some(found) = image.find(candidate.as_bytes())? else {
            continue;
        };
        if !found.is_file() {
            return Err(NotLayered::NoProgram);
        }
        return match check_program(image.reader(found))? {
            Needs::Nothing if image.holds_only(&found)? => Err(NotLayered::NoRoot),
            Needs::Interpreter(interpreter) if file(&interpreter)?.is_none() => {
                Err(NotLayered::Program(ElfError::NoInterpreter { interpreter }))
            }
            _ => Ok(()),
        };
    }
    Err(NotLayered::NoProgram)
}

#[cfg(test)]
#[path = "layered_tests.rs"]
mod tests;
