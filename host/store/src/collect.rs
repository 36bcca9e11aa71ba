//! What of the images is in use, and the removal of what is not.
//!
//! ```text
//!   tags ──────────────┐
//!   functions' records ┼──> manifests ──> configurations, layers       everything else is collected
//!   used lately ───────┘        └──> derived/HEX, derived/bases/HEX
//! ```
//!
//! Names go first and files after them: whoever is killed in between leaves files that nobody names, and the next
//! collection finds them.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fs;
use std::io;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use oci_spec::image::ImageManifest;
use redb::{ReadableTable, TableError};

use crate::images::{ImageStore, MANIFESTS, ManifestError, TAGS};
use crate::layered::split;
use crate::manifests::{AnyManifest, choose_platform, digest_of};
use crate::program::DeriveError;
use crate::reference::Selector;
use crate::users;
use crate::{Digest, RecordError, Store};

/// Why images could not be removed.
#[derive(Debug, thiserror::Error)]
pub enum CollectError {
    /// Nothing has this name.
    #[error("there is no image `{name}`: see `spore image list`")]
    NotFound {
        /// The name.
        name: String,
    },
    /// Functions use it.
    #[error("the image `{name}` is used by {}: remove or update them first", functions.join(", "))]
    InUse {
        /// The name.
        name: String,
        /// The functions.
        functions: Vec<String>,
    },
    /// Which images a function uses is not known.
    #[error("nothing was removed, for it is not known which images all functions use")]
    UnknownUse(#[source] RecordError),
    /// The database could not be read or written.
    #[error("the images' names could not be read or changed")]
    Record(#[from] RecordError),
    /// A manifest could not be read.
    #[error("a manifest could not be read")]
    Manifest(#[from] ManifestError),
    /// A file could not be removed.
    #[error("a file could not be removed")]
    Io(#[from] io::Error),
}

/// What was removed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Collected {
    /// Names.
    pub names: Vec<String>,
    /// Number of blobs.
    pub blobs: u64,
    /// Number of programs and root file systems.
    pub derived: u64,
    /// Bytes of all files.
    pub bytes: u64,
}

/// A stored image and its names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedImage {
    /// What the names mean: the digest of a manifest, perhaps an index's.
    pub digest: Digest,
    /// `REPOSITORY:TAG`, in order; none if only functions use it.
    pub names: Vec<String>,
    /// Functions that use it, in order.
    pub functions: Vec<String>,
}

/// What is collected.
struct Rules<'a> {
    live: &'a HashSet<Digest>,
    /// Only these, if some are named.
    only: Option<&'a HashSet<Digest>>,
    /// What was used since then stays.
    spared_since: Instant,
}

impl Store {
    /// All images that have a name or are used, ordered by name.
    ///
    /// # Errors
    ///
    /// If the database cannot be read.
    pub fn named_images(&self) -> Result<Vec<NamedImage>, CollectError> {
        let mut images: BTreeMap<Digest, NamedImage> = BTreeMap::new();
        let mut entry = |digest: Digest, name: Option<String>, function: Option<&str>| {
            let image = images.entry(digest).or_insert_with(|| NamedImage {
                digest,
                names: Vec::new(),
                functions: Vec::new(),
            });
            image.names.extend(name);
            image.functions.extend(function.map(str::to_owned));
        };
        for (name, digest) in self.images.all_tags()? {
            entry(digest, Some(name), None);
        }
        for (function, digest) in self.used_images()? {
            entry(digest, None, Some(&function));
        }
        let mut images: Vec<_> = images.into_values().collect();
        images.sort_by(|a, b| (a.names.first(), a.digest).cmp(&(b.names.first(), b.digest)));
        Ok(images)
    }

    /// Removes the names that the selector chooses, and of the image what nothing else needs.
    ///
    /// # Errors
    ///
    /// If there is no such image, or a function uses it; then nothing is changed.
    pub fn remove_image(&self, repository: &str, selector: &Selector) -> Result<Collected, CollectError> {
        let name = match selector {
            Selector::Tag(tag) => format!("{repository}:{tag}"),
            Selector::Digest(digest) => digest.to_string(),
        };
        let digest = self.images.resolve(repository, selector)?;
        let digest = digest.ok_or_else(|| CollectError::NotFound { name: name.clone() })?;
        let same = |digest| Ok::<_, ManifestError>(self.images.platform_manifest(digest)?.unwrap_or(digest));
        let own = same(digest)?;
        let mut functions = Vec::new();
        for (function, used) in self.used_images()? {
            if used == digest || same(used)? == own {
                functions.push(function);
            }
        }
        if !functions.is_empty() {
            return Err(CollectError::InUse { name, functions });
        }
        let names: Vec<_> = match selector {
            Selector::Tag(_) => vec![name],
            Selector::Digest(_) => {
                let all = self.images.all_tags()?.into_iter();
                all.filter(|(_, of)| *of == digest)
                    .map(|(name, _)| name)
                    .collect()
            }
        };
        let before = self.images.closure([digest])?;
        self.images.forget_names(&names)?;
        let live = self.live(Vec::new())?;
        let rules = Rules {
            live: &live,
            only: Some(&before),
            spared_since: Instant::now(),
        };
        let collected = self.images.collect(&rules)?;
        Ok(Collected { names, ..collected })
    }

    /// Removes everything of images that has no name, that no function uses, and that nobody has used for this long since
    /// the daemon started; and downloads that were broken off as long ago.
    ///
    /// # Errors
    ///
    /// If it is not known what is in use, or something cannot be removed.
    pub fn prune_images(&self, unused_for: Duration) -> Result<Collected, CollectError> {
        let now = Instant::now();
        let spared_since = now.checked_sub(unused_for).unwrap_or(now);
        // Where the clock of the machine has not run that long, everything that was used is spared.
        let is_all = now.checked_sub(unused_for).is_none();
        let used: Vec<Digest> = {
            let used = self.images.used.lock().unwrap_or_else(PoisonError::into_inner);
            let lately = used.iter().filter(|(_, at)| is_all || **at >= spared_since);
            lately.map(|(digest, _)| *digest).collect()
        };
        let live = self.live(used)?;
        let collected = self.images.collect(&Rules {
            live: &live,
            only: None,
            spared_since,
        })?;
        let downloads = self.images.remove_downloads(unused_for)?;
        Ok(Collected {
            bytes: collected.bytes + downloads,
            ..collected
        })
    }

    /// Functions and the images that they use.
    pub(crate) fn used_images(&self) -> Result<Vec<(String, Digest)>, CollectError> {
        let mut used = Vec::new();
        for (_, record) in self.records.all()? {
            let record = record.map_err(CollectError::UnknownUse)?;
            used.push((record.deployment.service, record.image_digest));
        }
        Ok(used)
    }

    /// Everything that is in use, with these.
    fn live(&self, also: Vec<Digest>) -> Result<HashSet<Digest>, CollectError> {
        let tags = self.images.all_tags()?.into_iter().map(|(_, digest)| digest);
        let functions = self.used_images()?.into_iter().map(|(_, digest)| digest);
        Ok(self.images.closure(tags.chain(functions).chain(also))?)
    }
}

impl ImageStore {
    /// All tags as `REPOSITORY:TAG` and what they mean.
    pub(crate) fn all_tags(&self) -> Result<Vec<(String, Digest)>, RecordError> {
        self.database.read(|transaction| {
            let table = match transaction.open_table(TAGS) {
                Ok(table) => table,
                Err(TableError::TableDoesNotExist(_)) => return Ok(Vec::new()),
                Err(error) => return Err(error.into()),
            };
            let mut tags = Vec::new();
            for row in table.iter()? {
                let (name, digest) = row?;
                if let Ok(digest) = digest.value().parse() {
                    tags.push((name.value().to_owned(), digest));
                }
            }
            Ok(tags)
        })
    }

    fn forget_names(&self, names: &[String]) -> Result<(), RecordError> {
        self.database.write(|transaction| {
            let mut table = transaction.open_table(TAGS)?;
            for name in names {
                table.remove(name.as_str())?;
            }
            Ok(())
        })
    }

    /// These and everything that they name, directly or not. What is no manifest names nothing.
    pub(crate) fn closure(&self, roots: impl IntoIterator<Item = Digest>) -> io::Result<HashSet<Digest>> {
        let mut all = HashSet::new();
        let mut open: Vec<Digest> = roots.into_iter().collect();
        while let Some(digest) = open.pop() {
            if !all.insert(digest) {
                continue;
            }
            match self.parsed_manifest(digest) {
                Ok(Some(AnyManifest::Index(index))) => {
                    open.extend(index.manifests().iter().filter_map(digest_of))
                }
                Ok(Some(AnyManifest::Image(manifest))) => {
                    let parts = std::iter::once(manifest.config()).chain(manifest.layers());
                    all.extend(parts.filter_map(digest_of));
                    // Nothing else has this digest.
                    let user = self.named_user(&manifest)?;
                    all.extend(split(&manifest, user.as_deref()).map(|split| split.layers));
                }
                // A blob that is no manifest, or a long one.
                Ok(None) | Err(ManifestError::Invalid(_)) => {}
                Err(ManifestError::Io(error)) if error.kind() == io::ErrorKind::FileTooLarge => {}
                Err(ManifestError::Io(error)) => return Err(error),
                Err(error) => return Err(io::Error::other(error)),
            }
        }
        Ok(all)
    }

    /// The user that the configuration of an image names; none also of one that is not there, or is none: nothing is made of it.
    fn named_user(&self, manifest: &ImageManifest) -> io::Result<Option<String>> {
        match self.any_configuration(manifest) {
            Ok(configuration) => {
                let config = configuration.config().as_ref();
                Ok(config.and_then(users::named).map(str::to_owned))
            }
            Err(DeriveError::Io(error)) => Err(error),
            Err(_) => Ok(None),
        }
    }

    /// What a stored image lacks, as digests: the image for this platform has to be whole, the others of an index need not.
    pub(crate) fn missing(&self, digest: Digest) -> Result<BTreeSet<String>, ManifestError> {
        let mut missing = BTreeSet::new();
        let parts = match self.parsed_manifest(digest)? {
            None => return Ok(BTreeSet::from([digest.to_string()])),
            Some(AnyManifest::Image(manifest)) => AnyManifest::Image(manifest).referenced(),
            Some(AnyManifest::Index(index)) => match choose_platform(&index).and_then(digest_of) {
                Some(inner) if inner != digest => {
                    return match self.parsed_manifest(inner)? {
                        Some(AnyManifest::Index(_)) => Ok(missing),
                        _ => self.missing(inner),
                    };
                }
                _ => Vec::new(),
            },
        };
        for part in parts {
            if !part.parse().is_ok_and(|digest| self.blob_path(digest).exists()) {
                missing.insert(part);
            }
        }
        Ok(missing)
    }

    fn collect(&self, rules: &Rules<'_>) -> Result<Collected, CollectError> {
        let is_collected = |digest: &Digest| {
            !rules.live.contains(digest) && rules.only.is_none_or(|only| only.contains(digest))
        };
        self.forget_manifests(&is_collected)?;
        let mut collected = Collected::default();
        for folder in self.derived_folders()? {
            if digest_of_name(&folder.file_name()).is_some_and(|digest| is_collected(&digest)) {
                for file in fs::read_dir(folder.path())? {
                    collected.bytes += file?.metadata()?.len();
                }
                fs::remove_dir_all(folder.path())?;
                collected.derived += 1;
            }
        }
        for blob in fs::read_dir(&self.blobs)? {
            let blob = blob?;
            let Some(digest) = digest_of_name(&blob.file_name()).filter(is_collected) else {
                continue;
            };
            // Whoever asks for it from here on does not find it.
            let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
            if rules.only.is_none() && used.get(&digest).is_some_and(|at| *at >= rules.spared_since) {
                continue;
            }
            used.remove(&digest);
            let bytes = blob.metadata()?.len();
            match fs::remove_file(blob.path()) {
                Ok(()) => {
                    collected.blobs += 1;
                    collected.bytes += bytes;
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(collected)
    }

    fn forget_manifests(&self, is_collected: &dyn Fn(&Digest) -> bool) -> Result<(), RecordError> {
        self.database.write(|transaction| {
            let mut table = transaction.open_table(MANIFESTS)?;
            table.retain(|digest, _| !digest.parse().is_ok_and(|digest| is_collected(&digest)))?;
            Ok(())
        })
    }
}

/// The digest that a file is named by.
pub(crate) fn digest_of_name(name: &std::ffi::OsStr) -> Option<Digest> {
    format!("sha256:{}", name.to_str()?).parse().ok()
}
