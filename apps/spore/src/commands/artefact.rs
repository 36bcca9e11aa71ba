//! What a function is built to, and how it gets into the gateway's registry.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, bail};
use spore_builder::compiled::{BuildError, BuiltProgram};
use spore_builder::dockerfile::ForeignImage;
use spore_builder::image::{Blob, ImageSettings};
use spore_builder::interpreted::{self, BuiltFunction};
use spore_builder::layer::{Layer, LayerData};
use spore_builder::root::{RootImage, RootSettings};
use spore_builder::settings::{FunctionSettings, Language};
use spore_builder::{FunctionName, Image, c, dockerfile, go, rust};
use spore_client::Client;
use spore_client::registry::{Content, Data};

/// The tag that pushes go to; deployments name the digest, so that two at a time do not mix up.
pub(super) const TAG: &str = "latest";

const DEFAULT_PORT: u16 = 8080;

/// What a function was built to.
#[derive(Debug)]
pub(super) enum Artefact {
    /// A static program.
    Program(PathBuf),
    /// An image on a runtime.
    Function(Box<BuiltFunction>),
    /// An image that another tool made.
    Image(Box<ForeignImage>),
}

/// Builds the function in a folder; what compilers print goes to standard error as it is. Blocks.
pub(super) fn build(folder: &Path, settings: &FunctionSettings) -> anyhow::Result<Artefact> {
    let Some(language) = settings.language else {
        bail!(
            "{} names no language: add lang = \"…\" to its spore.toml",
            settings.name
        );
    };
    if let Some(runtime) = language.runtime() {
        let runtime = super::runtime::needed(runtime)?;
        let progress = progress(settings);
        let built = interpreted::build(folder, &runtime, port(settings));
        progress.finish_and_clear();
        return Ok(Artefact::Function(Box::new(built?)));
    }
    let progress = progress(settings);
    let result = match language {
        Language::Go => go::build(folder, &settings.build_arguments).map(Built::Program),
        Language::Rust => rust::build(folder).map(Built::Program),
        Language::Dockerfile => dockerfile::build(folder, &settings.build_arguments).map(Built::Image),
        Language::Binary => {
            let program = settings.program.as_deref().unwrap_or(Path::new("function"));
            Ok(Built::Program(BuiltProgram {
                path: folder.join(program),
                warnings: String::new(),
            }))
        }
        Language::C | Language::Python | Language::Node => c::build(folder).map(Built::Program),
    };
    progress.finish_and_clear();
    match result {
        Ok(Built::Program(program)) => {
            eprint!("{}", program.warnings);
            Ok(Artefact::Program(program.path))
        }
        Ok(Built::Image(image)) => Ok(Artefact::Image(Box::new(image))),
        Err(error) => {
            if let BuildError::Failed { diagnostics, .. } = &error {
                eprint!("{diagnostics}");
            }
            Err(error.into())
        }
    }
}

/// What a tool made.
enum Built {
    Program(BuiltProgram),
    Image(ForeignImage),
}

fn progress(settings: &FunctionSettings) -> indicatif::ProgressBar {
    crate::output::spinner(format!("building {}", settings.name))
}

/// Packs what was built and pushes it; the image's digest.
pub(super) async fn push(
    client: &Client,
    settings: &FunctionSettings,
    artefact: &Artefact,
) -> anyhow::Result<String> {
    match artefact {
        Artefact::Program(program) => push_program(client, settings, program).await,
        Artefact::Function(function) => {
            let image = &function.image;
            let mut blobs: Vec<Content> = image.layers.iter().map(content_of_layer).collect();
            blobs.push(content_of(&image.config));
            push_blobs(client, &settings.name, &blobs, &image.manifest).await?;
            Ok(image.manifest.digest.clone())
        }
        Artefact::Image(image) => {
            let blobs: Vec<Content> = image.blobs.iter().map(content_of_layer).collect();
            push_blobs(client, &settings.name, &blobs, &image.manifest).await?;
            Ok(image.manifest.digest.clone())
        }
    }
}

async fn push_program(
    client: &Client,
    settings: &FunctionSettings,
    program: &Path,
) -> anyhow::Result<String> {
    let content =
        std::fs::read(program).with_context(|| format!("{} could not be read", program.display()))?;
    let image_settings = ImageSettings {
        environment: Vec::new(),
        port: port(settings),
    };
    let image = Image::from_program(&content, &image_settings)
        .with_context(|| format!("{} cannot be deployed", program.display()))?;
    let blobs = [content_of(&image.layer), content_of(&image.config)];
    push_blobs(client, &settings.name, &blobs, &image.manifest).await?;
    Ok(image.manifest.digest)
}

/// How the program in a root file system is run.
pub(super) struct Start<'a> {
    /// The command, quoted as for a shell.
    pub(super) entrypoint: &'a str,
    /// Directory in which it starts.
    pub(super) working_directory: &'a str,
    /// Who it runs as.
    pub(super) user: Option<&'a str>,
}

/// Packs a root file system and pushes it; the image's digest.
pub(super) async fn push_root(
    client: &Client,
    settings: &FunctionSettings,
    folder: &Path,
    start: &Start<'_>,
) -> anyhow::Result<String> {
    let command = start.entrypoint;
    let entrypoint =
        shell_words::split(command).with_context(|| format!("--entrypoint is no command: {command}"))?;
    if entrypoint.first().is_none_or(String::is_empty) {
        bail!("--entrypoint names no program: write it like --entrypoint '/usr/bin/python3 server.py'");
    }
    let working_directory = start.working_directory.to_owned();
    if !working_directory.starts_with('/') {
        bail!("--workdir must begin with a slash: {working_directory} is inside the root file system");
    }
    let survey = spore_rootfs::survey(folder)?;
    let root = RootSettings {
        entrypoint,
        working_directory,
        user: start.user.map(str::to_owned),
        port: port(settings),
    };
    let bar = crate::output::byte_bar(survey.bytes, format!("packing {}", folder.display()));
    let image = RootImage::from_folder(folder, &root, &mut |bytes| bar.inc(bytes));
    bar.finish_and_clear();
    let image = image.with_context(|| format!("{} cannot be deployed", folder.display()))?;
    for path in &image.skipped {
        eprintln!("left out, for an image cannot hold it: {}", path.display());
    }
    let layer = Content {
        digest: image.layer.digest.clone(),
        media_type: image.layer.media_type.clone(),
        data: Data::File {
            path: image.layer.file.path().to_owned(),
            length: image.layer.bytes,
        },
    };
    let blobs = [layer, content_of(&image.config)];
    push_blobs(client, &settings.name, &blobs, &image.manifest).await?;
    Ok(image.manifest.digest)
}

fn port(settings: &FunctionSettings) -> u16 {
    settings.port.unwrap_or(DEFAULT_PORT)
}

fn content_of(blob: &Blob) -> Content {
    Content {
        digest: blob.digest.clone(),
        media_type: blob.media_type.clone(),
        data: Data::Bytes(blob.content.clone().into()),
    }
}

fn content_of_layer(layer: &Layer) -> Content {
    Content {
        digest: layer.description.digest.clone(),
        media_type: layer.description.media_type.clone(),
        data: match &layer.data {
            LayerData::Memory(bytes) => Data::Bytes(bytes.clone().into()),
            LayerData::File(path) => Data::File {
                path: path.clone(),
                length: layer.description.bytes,
            },
        },
    }
}

async fn push_blobs(
    client: &Client,
    name: &FunctionName,
    blobs: &[Content],
    manifest: &Blob,
) -> anyhow::Result<()> {
    let manifest = content_of(manifest);
    let total = blobs
        .iter()
        .chain([&manifest])
        .map(|content| content.data.length())
        .sum();
    let bar = crate::output::byte_bar(total, format!("pushing {name}"));
    let progress = {
        let bar = bar.clone();
        Arc::new(move |bytes| bar.inc(bytes))
    };
    let result = client.push(name.as_str(), TAG, blobs, &manifest, progress).await;
    bar.finish_and_clear();
    Ok(result?)
}
