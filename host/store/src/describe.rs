//! What a stored image is, for people.

use std::collections::BTreeMap;
use std::io::{self, Read};

use oci_spec::image::{ImageConfiguration, ImageManifest};
use serde::Serialize;

use crate::Digest;
use crate::archive::{self, Bounds};
use crate::derived::derived_file;
use crate::images::ImageStore;
use crate::program::DeriveError;
use crate::unikernels::{self, URUNC_FILE, Unikernel};

/// What is read of the layers of an image to look for one small file.
const SEARCH_BOUNDS: Bounds = Bounds {
    entries: 10_000,
    bytes: 256 << 20,
};

/// Layers that are longer in all than this, in bytes, are not searched.
const SEARCHED_BYTES_MAX: u64 = 64 << 20;

/// The least that a list says of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageOutline {
    /// Bytes of its configuration and layers, as they are stored.
    pub bytes: u64,
    /// When it was made, as it says.
    pub created: Option<String>,
}

/// A layer of an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LayerDescription {
    /// Its digest.
    pub digest: String,
    /// Its media type.
    pub media_type: String,
    /// Its length as stored, in bytes.
    pub bytes: u64,
}

/// What was made of an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DerivedDescription {
    /// `program`, `root.erofs`, or `head.erofs` for what is not in a base that others have as well.
    pub file: String,
    /// Its length, in bytes.
    pub bytes: u64,
}

/// A stored image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ImageDescription {
    /// What its name means, perhaps the digest of an index.
    pub digest: String,
    /// Digest of the manifest of the image for this platform.
    pub manifest: String,
    /// Bytes of its configuration and layers, as they are stored.
    pub bytes: u64,
    /// When it was made, as it says.
    pub created: Option<String>,
    /// Operating system and processor.
    pub platform: String,
    /// Program and first arguments.
    pub entrypoint: Vec<String>,
    /// Arguments after those.
    pub command: Vec<String>,
    /// Environment variables, `NAME=VALUE`.
    pub environment: Vec<String>,
    /// Where the program starts.
    pub working_directory: String,
    /// Who runs it in a container.
    pub user: String,
    /// Ports that it exposes.
    pub ports: Vec<String>,
    /// Labels of the configuration.
    pub labels: BTreeMap<String, String>,
    /// Annotations of the manifest.
    pub annotations: BTreeMap<String, String>,
    /// Its layers, from the bottom.
    pub layers: Vec<LayerDescription>,
    /// What it is, if it is no Linux program.
    pub unikernel: Option<Unikernel>,
    /// What its instances run, once it was deployed.
    pub derived: Option<DerivedDescription>,
}

impl ImageStore {
    /// Says the least of a stored image, from its manifest and configuration alone.
    ///
    /// # Errors
    ///
    /// If one of them is missing, damaged or something else.
    pub fn outline(&self, digest: Digest) -> Result<ImageOutline, DeriveError> {
        let manifest = self.image_manifest(digest)?.content;
        let configuration = self.any_configuration(&manifest)?;
        Ok(ImageOutline {
            bytes: stored_bytes(&manifest),
            created: configuration.created().clone(),
        })
    }

    /// Describes a stored image.
    ///
    /// # Errors
    ///
    /// If a part of it is missing, damaged or no part of an image.
    pub fn describe(&self, digest: Digest) -> Result<ImageDescription, DeriveError> {
        let manifest = self.image_manifest(digest)?;
        let configuration = self.any_configuration(&manifest.content)?;
        let config = configuration.config().clone().unwrap_or_default();
        let sorted = |map: &Option<std::collections::HashMap<String, String>>| {
            map.iter()
                .flatten()
                .map(|(name, value)| (name.clone(), value.clone()))
                .collect()
        };
        let content = &manifest.content;
        let layers = content.layers().iter().map(|layer| LayerDescription {
            digest: layer.digest().to_string(),
            media_type: layer.media_type().to_string(),
            bytes: layer.size(),
        });
        Ok(ImageDescription {
            digest: digest.to_string(),
            manifest: manifest.digest.to_string(),
            bytes: stored_bytes(content),
            created: configuration.created().clone(),
            platform: format!("{}/{}", configuration.os(), configuration.architecture()),
            entrypoint: config.entrypoint().clone().unwrap_or_default(),
            command: config.cmd().clone().unwrap_or_default(),
            environment: config.env().clone().unwrap_or_default(),
            working_directory: config.working_dir().clone().unwrap_or_default(),
            user: config.user().clone().unwrap_or_default(),
            ports: config.exposed_ports().clone().unwrap_or_default(),
            labels: sorted(config.labels()),
            annotations: sorted(content.annotations()),
            layers: layers.collect(),
            unikernel: self.unikernel(content, &configuration),
            derived: derived_file(&self.derived.join(manifest.digest.to_hex())).map(|(file, bytes)| {
                DerivedDescription {
                    file: file.to_owned(),
                    bytes,
                }
            }),
        })
    }

    /// What the image is if it is no Linux program; layers are read for it, as far as that is no work.
    fn unikernel(&self, manifest: &ImageManifest, configuration: &ImageConfiguration) -> Option<Unikernel> {
        let is_small = stored_bytes(manifest) <= SEARCHED_BYTES_MAX;
        unikernels::recognise(manifest, configuration).or_else(|| {
            if !is_small {
                return None;
            }
            (0..manifest.layers().len()).rev().find_map(|number| {
                let layer = self.layer(manifest, number).ok()?;
                let mut found = None;
                let read = archive::read(layer, SEARCH_BOUNDS, |entry, content| -> io::Result<()> {
                    let path = entry.path.strip_prefix(b"./").unwrap_or(&entry.path);
                    let path = path.strip_prefix(b"/").unwrap_or(path);
                    if path == URUNC_FILE.as_bytes() {
                        let mut text = Vec::new();
                        content.take(entry.bytes.min(1 << 20)).read_to_end(&mut text)?;
                        found = unikernels::recognise_file(text.as_slice());
                    }
                    Ok(())
                });
                // What cannot be read, or is long, is no small image of a unikernel.
                read.ok().and(found)
            })
        })
    }
}

fn stored_bytes(manifest: &ImageManifest) -> u64 {
    let parts = std::iter::once(manifest.config()).chain(manifest.layers());
    parts.fold(0, |sum, part| sum.saturating_add(part.size()))
}
