//! Images in folders and archives: OCI image layouts, and what `docker save` writes.
//!
//! ```text
//!   folder, or tar (plain, gzip) ──> index.json     OCI layout: manifests under their names
//!                                └─> manifest.json  docker save: configuration and layers under their names
//! ```
//!
//! They come from anywhere. Files of an archive are never written under the names that it gives them, paths stay within
//! a folder, and every length has a bound.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use oci_spec::image::{Descriptor, ImageIndex, ImageManifest};
use serde::Deserialize;
use spore_store::{
    AnyManifest, Digest, ImageReference, MAX_BLOB_BYTES, MAX_MANIFEST_BYTES, Selector, choose_platform,
    digest_of, platforms, read_archive,
};
use tempfile::TempDir;

use crate::RegistryError;
use crate::pull::checked;

/// Longest file of an archive that holds no blob, in bytes.
const TEXT_BYTES_MAX: u64 = MAX_MANIFEST_BYTES as u64;
/// Most images of a layout or an archive.
const IMAGES_MAX: usize = 100;
/// How many links of an archive lead from one to the next.
const LINKS_MAX: usize = 8;
/// Annotation that names an image of a layout.
const NAME_ANNOTATION: &str = "org.opencontainers.image.ref.name";
/// The same of containerd, with the whole name.
const FULL_NAME_ANNOTATION: &str = "io.containerd.image.name";
const LAYER_TYPE: &str = "application/vnd.oci.image.layer.v1.tar";
const CONFIGURATION_TYPE: &str = "application/vnd.oci.image.config.v1+json";
const MANIFEST_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";

/// Why a layout or archive could not be read.
#[derive(Debug, thiserror::Error)]
pub enum LayoutError {
    /// It is neither.
    #[error("{} is neither an OCI image layout nor what `docker save` writes: it has no index.json and no manifest.json", path.display())]
    Unknown {
        /// Folder or file.
        path: PathBuf,
    },
    /// Folder or file could not be read.
    #[error("{} could not be read", path.display())]
    Read {
        /// Folder or file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file of it is not what it should be.
    #[error("`{name}` in it is not what it should be")]
    BadFile {
        /// Its name there.
        name: String,
        /// What is wrong with it.
        #[source]
        source: serde_json::Error,
    },
    /// A file is not there.
    #[error("`{name}`, which it names, is not in it")]
    Missing {
        /// Its name there.
        name: String,
    },
    /// A file is longer than it may be.
    #[error("`{name}` in it is longer than {limit_bytes} bytes")]
    TooLong {
        /// Its name there.
        name: String,
        /// Its limit.
        limit_bytes: u64,
    },
    /// A file has another content than its name says.
    #[error("`{name}` in it has the digest {found}")]
    Damaged {
        /// Its name there.
        name: String,
        /// That of its content.
        found: Digest,
    },
    /// There are too many images.
    #[error("it holds more than {IMAGES_MAX} images")]
    TooMany,
    /// There is none.
    #[error("it holds no image")]
    Empty,
    /// An image of it cannot be taken.
    #[error("an image in it cannot be taken")]
    Image(#[source] RegistryError),
}

/// A file of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalBlob {
    /// Its digest.
    pub digest: Digest,
    /// Media type.
    pub media_type: String,
    /// Where it is.
    pub path: PathBuf,
    /// Its length, in bytes.
    pub bytes: u64,
}

/// An image of a layout or archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalImage {
    /// The name that it has there, if it has any that can be used: `REPOSITORY:TAG`, or the tag alone.
    pub name: Option<String>,
    /// Its manifest.
    pub manifest: Vec<u8>,
    /// Media type of that.
    pub media_type: String,
    /// Configuration and layers, each once.
    pub blobs: Vec<LocalBlob>,
}

/// Images with the files that they are in.
#[derive(Debug)]
pub struct Layout {
    /// The images.
    pub images: Vec<LocalImage>,
    /// Holds what was unpacked.
    _scratch: Option<TempDir>,
}

impl Layout {
    /// Reads a folder or an archive; what is unpacked lies in a temporary folder as long as this is there.
    ///
    /// # Errors
    ///
    /// If it is none, is damaged, or out of bounds.
    pub fn read(path: &Path) -> Result<Self, LayoutError> {
        let read_error = |source| LayoutError::Read {
            path: path.to_owned(),
            source,
        };
        let is_folder = fs::metadata(path).map_err(read_error)?.is_dir();
        let (files, scratch) = if is_folder {
            (Files::Folder(path.to_owned()), None)
        } else {
            let scratch = TempDir::with_prefix("spore-import-").map_err(read_error)?;
            (unpack(path, scratch.path())?, Some(scratch))
        };
        let images = if files.find("index.json").is_some() {
            of_layout(&files)?
        } else if files.find("manifest.json").is_some() {
            of_docker(&files)?
        } else {
            return Err(LayoutError::Unknown {
                path: path.to_owned(),
            });
        };
        if images.is_empty() {
            return Err(LayoutError::Empty);
        }
        Ok(Self {
            images,
            _scratch: scratch,
        })
    }
}

/// Files by their names in a layout or archive.
enum Files {
    Folder(PathBuf),
    /// What was unpacked, and links from one name to another.
    Archive {
        files: HashMap<String, PathBuf>,
        links: HashMap<String, String>,
    },
}

impl Files {
    fn find(&self, name: &str) -> Option<PathBuf> {
        let name = plain(name)?;
        match self {
            Self::Folder(folder) => {
                let path = folder.join(&name);
                // Links in a folder may lead anywhere.
                path.symlink_metadata()
                    .is_ok_and(|metadata| metadata.is_file())
                    .then_some(path)
            }
            Self::Archive { files, links } => {
                let mut name = name;
                for _ in 0..LINKS_MAX {
                    if let Some(file) = files.get(&name) {
                        return Some(file.clone());
                    }
                    name = links.get(&name)?.clone();
                }
                None
            }
        }
    }

    fn open(&self, name: &str, limit_bytes: u64) -> Result<(PathBuf, File, u64), LayoutError> {
        let path = self
            .find(name)
            .ok_or_else(|| LayoutError::Missing { name: shown(name) })?;
        let read_error = |source| LayoutError::Read {
            path: path.clone(),
            source,
        };
        let file = File::open(&path).map_err(read_error)?;
        let bytes = file.metadata().map_err(read_error)?.len();
        if bytes > limit_bytes {
            return Err(LayoutError::TooLong {
                name: shown(name),
                limit_bytes,
            });
        }
        Ok((path, file, bytes))
    }

    fn text(&self, name: &str) -> Result<Vec<u8>, LayoutError> {
        let (path, file, _) = self.open(name, TEXT_BYTES_MAX)?;
        let mut text = Vec::new();
        file.take(TEXT_BYTES_MAX)
            .read_to_end(&mut text)
            .map_err(|source| LayoutError::Read { path, source })?;
        Ok(text)
    }

    /// A blob by what it is named in an archive, with its digest.
    fn blob(&self, name: &str, media_type: &str) -> Result<LocalBlob, LayoutError> {
        let (path, file, bytes) = self.open(name, MAX_BLOB_BYTES)?;
        let digest = Digest::of_reader(file).map_err(|source| LayoutError::Read {
            path: path.clone(),
            source,
        })?;
        Ok(LocalBlob {
            digest,
            media_type: media_type.to_owned(),
            path,
            bytes,
        })
    }
}

fn shown(name: &str) -> String {
    name.chars().filter(|c| !c.is_control()).take(200).collect()
}

/// A path without empty and `.` components; none if it leads out.
fn plain(name: &str) -> Option<String> {
    let parts: Vec<_> = name
        .split('/')
        .filter(|part| !matches!(*part, "" | "."))
        .collect();
    (!parts.is_empty() && !parts.contains(&"..")).then(|| parts.join("/"))
}

/// Where a link of an archive leads; none if that is outside.
fn link_target(name: &str, link: &str) -> Option<String> {
    let mut parts: Vec<&str> = if link.starts_with('/') {
        Vec::new()
    } else {
        name.split('/').collect()
    };
    parts.pop();
    for part in link.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop()?;
            }
            part => parts.push(part),
        }
    }
    Some(parts.join("/"))
}

fn unpack(path: &Path, scratch: &Path) -> Result<Files, LayoutError> {
    let read_error = |source| LayoutError::Read {
        path: path.to_owned(),
        source,
    };
    let file = File::open(path).map_err(read_error)?;
    let mut files = HashMap::new();
    let mut links = HashMap::new();
    let result = read_archive(file, |entry, content| -> io::Result<()> {
        let Some(name) = std::str::from_utf8(&entry.path).ok().and_then(plain) else {
            return Ok(());
        };
        if entry.is_file {
            let target = scratch.join(files.len().to_string());
            let mut file = File::create_new(&target)?;
            let copied = io::copy(&mut content.take(entry.bytes), &mut file)?;
            if copied != entry.bytes {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            files.insert(name, target);
        } else if let Some(target) = entry
            .link
            .as_deref()
            .and_then(|link| std::str::from_utf8(link).ok())
        {
            let target = if entry.is_hard_link {
                plain(target)
            } else {
                link_target(&name, target)
            };
            links.extend(target.map(|target| (name, target)));
        }
        Ok(())
    });
    result.map_err(read_error)?;
    Ok(Files::Archive { files, links })
}

fn bad_file(name: &str) -> impl FnOnce(serde_json::Error) -> LayoutError {
    move |source| LayoutError::BadFile {
        name: shown(name),
        source,
    }
}

fn blob_name(digest: Digest) -> String {
    format!("blobs/sha256/{}", digest.to_hex())
}

fn of_layout(files: &Files) -> Result<Vec<LocalImage>, LayoutError> {
    let index: ImageIndex =
        serde_json::from_slice(&files.text("index.json")?).map_err(bad_file("index.json"))?;
    if index.manifests().len() > IMAGES_MAX {
        return Err(LayoutError::TooMany);
    }
    index
        .manifests()
        .iter()
        .map(|descriptor| layout_image(files, descriptor))
        .collect()
}

fn layout_image(files: &Files, descriptor: &Descriptor) -> Result<LocalImage, LayoutError> {
    let (mut bytes, mut manifest) = layout_manifest(files, descriptor)?;
    let mut media_type = descriptor.media_type().to_string();
    if let AnyManifest::Index(index) = &manifest {
        let here = choose_platform(index).ok_or_else(|| {
            let platforms = platforms(index);
            LayoutError::Image(RegistryError::OtherPlatform { platforms })
        })?;
        media_type = here.media_type().to_string();
        (bytes, manifest) = layout_manifest(files, here)?;
    }
    let AnyManifest::Image(parts) = manifest else {
        return Err(LayoutError::Empty);
    };
    checked(&parts).map_err(LayoutError::Image)?;
    let mut blobs: Vec<LocalBlob> = Vec::new();
    for part in std::iter::once(parts.config()).chain(parts.layers()) {
        let Some(digest) = digest_of(part).filter(|digest| blobs.iter().all(|blob| blob.digest != *digest))
        else {
            continue;
        };
        let name = blob_name(digest);
        let blob = files.blob(&name, part.media_type().as_ref())?;
        if blob.digest != digest {
            return Err(LayoutError::Damaged {
                name,
                found: blob.digest,
            });
        }
        blobs.push(blob);
    }
    let annotation = |name: &str| {
        descriptor
            .annotations()
            .as_ref()
            .and_then(|all| all.get(name))
            .cloned()
    };
    Ok(LocalImage {
        name: annotation(FULL_NAME_ANNOTATION).or_else(|| annotation(NAME_ANNOTATION)),
        manifest: bytes,
        media_type,
        blobs,
    })
}

fn layout_manifest(files: &Files, descriptor: &Descriptor) -> Result<(Vec<u8>, AnyManifest), LayoutError> {
    let digest = digest_of(descriptor).ok_or_else(|| {
        let digest = shown(descriptor.digest().as_ref());
        LayoutError::Image(RegistryError::OtherDigest { digest })
    })?;
    let name = blob_name(digest);
    let bytes = files.text(&name)?;
    let found = Digest::of(&bytes);
    if found != digest {
        return Err(LayoutError::Damaged { name, found });
    }
    let manifest = AnyManifest::parse(&bytes).map_err(bad_file(&name))?;
    Ok((bytes, manifest))
}

/// An image in the list that `docker save` writes.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct SavedImage {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

fn of_docker(files: &Files) -> Result<Vec<LocalImage>, LayoutError> {
    let name = "manifest.json";
    let saved: Vec<SavedImage> = serde_json::from_slice(&files.text(name)?).map_err(bad_file(name))?;
    if saved.len() > IMAGES_MAX {
        return Err(LayoutError::TooMany);
    }
    let mut images = Vec::new();
    for image in saved {
        let configuration = files.blob(&image.config, CONFIGURATION_TYPE)?;
        let mut layers = Vec::new();
        for layer in &image.layers {
            layers.push(files.blob(layer, LAYER_TYPE)?);
        }
        let described = |blob: &LocalBlob| {
            serde_json::json!({
                "mediaType": blob.media_type, "digest": blob.digest.to_string(), "size": blob.bytes,
            })
        };
        let manifest = serde_json::json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST_TYPE,
            "config": described(&configuration),
            "layers": layers.iter().map(described).collect::<Vec<_>>(),
        });
        let bytes = serde_json::to_vec(&manifest).map_err(bad_file(name))?;
        let parsed: ImageManifest = serde_json::from_slice(&bytes).map_err(bad_file(name))?;
        checked(&parsed).map_err(LayoutError::Image)?;
        let mut blobs = vec![configuration];
        blobs.extend(layers);
        blobs.sort_by_key(|blob| blob.digest);
        blobs.dedup_by_key(|blob| blob.digest);
        let names = image.repo_tags.unwrap_or_default();
        let names = if names.is_empty() {
            vec![None]
        } else {
            names.into_iter().map(Some).collect()
        };
        for name in names {
            images.push(LocalImage {
                name,
                manifest: bytes.clone(),
                media_type: MANIFEST_TYPE.to_owned(),
                blobs: blobs.clone(),
            });
        }
        if images.len() > IMAGES_MAX {
            return Err(LayoutError::TooMany);
        }
    }
    Ok(images)
}

/// Repository and tag under which an image of this name is pushed to the daemon; none for names of registries with ports,
/// and for what is no name. A tag alone, as layouts have it, needs a name beside it.
#[must_use]
pub fn push_name(name: &str) -> Option<(String, String)> {
    let reference: ImageReference = name.parse().ok()?;
    let repository = match reference.host {
        Some(host) => format!("{host}/{}", reference.repository),
        None => reference.repository,
    };
    match reference.selector {
        Selector::Tag(tag) if spore_store::is_repository(&repository) => Some((repository, tag)),
        _ => None,
    }
}
