//! OCI images made of one program: one layer with `/function`, a configuration and a manifest.
//!
//! The same program and settings give the same bytes, and so the same digest, on every machine: times are zero, owners
//! fixed, the compressor's header holds neither name nor date.

use std::io::Write;

use flate2::{Compression, GzBuilder};
use oci_spec::image::{
    Arch, ConfigBuilder, Descriptor, HistoryBuilder, ImageConfigurationBuilder, ImageManifestBuilder,
    MediaType, Os, RootFsBuilder,
};
use sha2::{Digest as _, Sha256};

use crate::layer::Layer;
use crate::program::{self, ProgramError};

/// Where the program lies inside the image.
pub const PROGRAM_PATH: &str = "/function";

/// A piece of an image with its address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blob {
    /// `sha256:` and 64 hexadecimal digits.
    pub digest: String,
    /// Media type of the content.
    pub media_type: String,
    /// The content.
    pub content: Vec<u8>,
}

/// An image: the manifest, and the blobs that it names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// The manifest; its digest is the image's.
    pub manifest: Blob,
    /// The configuration: entry point, environment, port.
    pub config: Blob,
    /// The only layer, a compressed tar archive with the program.
    pub layer: Blob,
}

/// What an image says about its program besides the program itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageSettings {
    /// Environment variables that every instance gets; the deployment may add more.
    pub environment: Vec<(String, String)>,
    /// TCP port on which the program listens.
    pub port: u16,
}

impl Default for ImageSettings {
    fn default() -> Self {
        Self {
            environment: Vec::new(),
            port: 8080,
        }
    }
}

/// An image of several layers, of which others may have some in common with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayeredImage {
    /// The manifest; its digest is the image's.
    pub manifest: Blob,
    /// The configuration.
    pub config: Blob,
    /// The layers, from the bottom.
    pub layers: Vec<Layer>,
}

/// How the program of an image is run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunSettings {
    /// The program and its arguments.
    pub entrypoint: Vec<String>,
    /// Environment variables that every instance gets.
    pub environment: Vec<(String, String)>,
    /// Directory in which it starts.
    pub working_directory: String,
    /// TCP port on which it listens.
    pub port: u16,
}

impl LayeredImage {
    /// Puts layers together.
    ///
    /// # Errors
    ///
    /// If configuration or manifest cannot be expressed.
    pub fn new(layers: Vec<Layer>, settings: &RunSettings) -> Result<Self, oci_spec::OciSpecError> {
        let digests: Vec<String> = layers
            .iter()
            .map(|layer| layer.description.unpacked_digest.clone())
            .collect();
        let config = configuration(&Configuration {
            layers: &digests,
            entrypoint: settings.entrypoint.clone(),
            environment: &settings.environment,
            working_directory: &settings.working_directory,
            user: None,
            port: settings.port,
        })?;
        let config = Blob::new(MediaType::ImageConfig, config);
        let descriptors = layers.iter().map(|layer| {
            let layer = &layer.description;
            descriptor(&layer.digest, &layer.media_type, layer.bytes)
        });
        let manifest = manifest(&config, descriptors.collect::<Result<_, _>>()?)?;
        Ok(Self {
            manifest: Blob::new(MediaType::ImageManifest, manifest),
            config,
            layers,
        })
    }
}

/// Why no image could be made.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// The program cannot run as a function.
    #[error("the program cannot run as a function")]
    Program(#[source] ProgramError),
    /// The layer could not be written; in memory this means that the program is too large for a tar header.
    #[error("the layer could not be packed")]
    Layer(#[source] std::io::Error),
    /// Configuration or manifest could not be expressed.
    #[error("the image's configuration could not be written")]
    Configuration(#[source] oci_spec::OciSpecError),
}

impl Image {
    /// Checks `program` and packs it.
    pub fn from_program(program: &[u8], settings: &ImageSettings) -> Result<Self, ImageError> {
        program::check(program).map_err(ImageError::Program)?;
        let tar = tar_archive(program).map_err(ImageError::Layer)?;
        let layer = Blob::new(MediaType::ImageLayerGzip, gzip(&tar).map_err(ImageError::Layer)?);
        let config = configuration(&Configuration {
            layers: &[format!("sha256:{}", sha256(&tar))],
            entrypoint: vec![PROGRAM_PATH.to_owned()],
            environment: &settings.environment,
            working_directory: "/",
            user: None,
            port: settings.port,
        });
        let config = config.map_err(ImageError::Configuration)?;
        let config = Blob::new(MediaType::ImageConfig, config);
        let manifest = layer
            .descriptor()
            .and_then(|layer| manifest(&config, vec![layer]))
            .map_err(ImageError::Configuration)?;
        Ok(Self {
            manifest: Blob::new(MediaType::ImageManifest, manifest),
            config,
            layer,
        })
    }
}

impl Blob {
    pub(crate) fn new(media_type: MediaType, content: Vec<u8>) -> Self {
        Self {
            digest: format!("sha256:{}", sha256(&content)),
            media_type: media_type.to_string(),
            content,
        }
    }

    fn descriptor(&self) -> Result<Descriptor, oci_spec::OciSpecError> {
        descriptor(&self.digest, &self.media_type, self.content.len() as u64)
    }
}

pub(crate) fn descriptor(
    digest: &str,
    media_type: &str,
    bytes: u64,
) -> Result<Descriptor, oci_spec::OciSpecError> {
    let digest: oci_spec::image::Digest = digest.parse()?;
    Ok(Descriptor::new(media_type.into(), bytes, digest))
}

fn sha256(data: &[u8]) -> String {
    hex::encode(Sha256::digest(data))
}

fn tar_archive(program: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut header = tar::Header::new_ustar();
    header.set_size(program.len() as u64);
    header.set_mode(0o755);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    let mut archive = tar::Builder::new(Vec::with_capacity(program.len() + 4096));
    archive.append_data(&mut header, PROGRAM_PATH.trim_start_matches('/'), program)?;
    archive.into_inner()
}

fn gzip(data: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut encoder = GzBuilder::new()
        .mtime(0)
        .write(Vec::new(), Compression::default());
    encoder.write_all(data)?;
    encoder.finish()
}

/// What an image's configuration says.
pub(crate) struct Configuration<'a> {
    /// Digests of the layers, not compressed, from the bottom.
    pub(crate) layers: &'a [String],
    pub(crate) entrypoint: Vec<String>,
    pub(crate) environment: &'a [(String, String)],
    pub(crate) working_directory: &'a str,
    pub(crate) user: Option<&'a str>,
    pub(crate) port: u16,
}

pub(crate) fn configuration(settings: &Configuration<'_>) -> Result<Vec<u8>, oci_spec::OciSpecError> {
    let environment: Vec<String> = settings
        .environment
        .iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    let mut config = ConfigBuilder::default()
        .entrypoint(settings.entrypoint.clone())
        .env(environment)
        .exposed_ports(vec![format!("{}/tcp", settings.port)])
        .working_dir(settings.working_directory.to_owned())
        .build()?;
    config.set_user(settings.user.map(str::to_owned));
    let root = RootFsBuilder::default()
        .typ("layers".to_owned())
        .diff_ids(settings.layers.to_vec())
        .build()?;
    // One entry for each layer: tools that build on an image count them (buildah refuses one where they do not agree).
    let made = HistoryBuilder::default()
        .created_by("spore build".to_owned())
        .empty_layer(false)
        .build()?;
    let image = ImageConfigurationBuilder::default()
        .architecture(Arch::Amd64)
        .os(Os::Linux)
        .config(config)
        .rootfs(root)
        .history(vec![made; settings.layers.len()])
        .build()?;
    Ok(image.to_string()?.into_bytes())
}

pub(crate) fn manifest(config: &Blob, layers: Vec<Descriptor>) -> Result<Vec<u8>, oci_spec::OciSpecError> {
    let manifest = ImageManifestBuilder::default()
        .schema_version(oci_spec::image::SCHEMA_VERSION)
        .media_type(MediaType::ImageManifest)
        .config(config.descriptor()?)
        .layers(layers)
        .build()?;
    Ok(manifest.to_string()?.into_bytes())
}
