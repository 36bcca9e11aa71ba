//! Functions that are a `Dockerfile`: buildah makes an image of it, which is taken as an OCI layout.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use oci_spec::image::{Descriptor, ImageIndex, ImageManifest, MediaType};

use crate::compiled::{BUILD_FOLDER, BuildError, Tool, run};
use crate::image::Blob;
use crate::layer::{Layer, LayerData, LayerDescription};

const TOOL: Tool = Tool {
    command: "buildah",
    advice: "install it (Debian/Ubuntu: apt install buildah), or build the image elsewhere, push it to the gateway and deploy it \
             with --image",
};
const FILES: [&str; 2] = ["Dockerfile", "Containerfile"];
/// Where the image is written to, below the function's folder.
const LAYOUT_FOLDER: &str = "image";
const ID_FILE: &str = "image-id";
/// Longest index and manifest that are read, in bytes.
const JSON_BYTES_MAX: u64 = 4 << 20;

/// An image that was made elsewhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForeignImage {
    /// The manifest; its digest is the image's.
    pub manifest: Blob,
    /// The configuration and the layers.
    pub blobs: Vec<Layer>,
}

/// Builds the function in `folder`. `arguments` are the `ARG`s of the file. Blocks while buildah runs.
///
/// # Errors
///
/// If there is no such file, buildah is missing or fails, or what it made cannot be read.
pub fn build(folder: &Path, arguments: &BTreeMap<String, String>) -> Result<ForeignImage, BuildError> {
    if !FILES.iter().any(|name| folder.join(name).is_file()) {
        return Err(BuildError::NoSources {
            folder: folder.to_owned(),
            expected: "Dockerfile",
        });
    }
    let build = std::path::absolute(folder.join(BUILD_FOLDER)).map_err(BuildError::file(folder))?;
    fs::create_dir_all(&build).map_err(BuildError::file(&build))?;
    let id_file = build.join(ID_FILE);
    let mut command = Command::new(TOOL.command);
    command
        .args([
            "build",
            "--quiet",
            "--layers",
            "--platform",
            "linux/amd64",
            "--iidfile",
        ])
        .arg(&id_file);
    for (name, value) in arguments {
        command.arg("--build-arg").arg(format!("{name}={value}"));
    }
    run(TOOL, folder, command.arg("."))?;
    let id = fs::read_to_string(&id_file).map_err(BuildError::file(&id_file))?;
    let layout = build.join(LAYOUT_FOLDER);
    if layout.exists() {
        fs::remove_dir_all(&layout).map_err(BuildError::file(&layout))?;
    }
    let mut command = Command::new(TOOL.command);
    command
        .args(["push", "--quiet", id.trim()])
        .arg(format!("oci:{}:latest", layout.display()));
    run(TOOL, folder, &mut command)?;
    read_layout(&layout)
}

fn read_layout(layout: &Path) -> Result<ForeignImage, BuildError> {
    let index_path = layout.join("index.json");
    let index: ImageIndex = parse(&index_path, &read(&index_path)?)?;
    let Some(descriptor) = index.manifests().first() else {
        return Err(malformed(&index_path, "names no image"));
    };
    let path = blob_path(layout, descriptor);
    let content = read(&path)?;
    let manifest: ImageManifest = parse(&path, &content)?;
    let parts = std::iter::once(manifest.config()).chain(manifest.layers());
    let blobs = parts.map(|part| Layer {
        description: LayerDescription {
            digest: part.digest().to_string(),
            // Of a foreign image only the registry's part is known.
            unpacked_digest: String::new(),
            media_type: part.media_type().to_string(),
            bytes: part.size(),
            content_bytes: 0,
        },
        data: LayerData::File(blob_path(layout, part)),
    });
    Ok(ForeignImage {
        blobs: blobs.collect(),
        manifest: Blob::new(MediaType::ImageManifest, content),
    })
}

fn blob_path(layout: &Path, part: &Descriptor) -> PathBuf {
    layout
        .join("blobs")
        .join(part.digest().algorithm().to_string())
        .join(part.digest().digest())
}

fn read(path: &Path) -> Result<Vec<u8>, BuildError> {
    let bytes = fs::metadata(path).map_err(BuildError::file(path))?.len();
    if bytes > JSON_BYTES_MAX {
        return Err(malformed(path, "is too long"));
    }
    fs::read(path).map_err(BuildError::file(path))
}

fn parse<T: serde::de::DeserializeOwned>(path: &Path, content: &[u8]) -> Result<T, BuildError> {
    serde_json::from_slice(content)
        .map_err(|error| malformed(path, &format!("is no part of an image: {error}")))
}

fn malformed(path: &Path, problem: &str) -> BuildError {
    BuildError::Malformed {
        path: path.to_owned(),
        problem: problem.to_owned(),
    }
}
