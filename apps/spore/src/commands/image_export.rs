//! `spore image export`: a stored image into a folder or an archive, as an OCI image layout. An archive has Docker's list
//! in it too, so that `docker load` and `podman load` take it.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, bail};
use spore_client::Client;

use super::image::check_free;
use crate::image_arguments::ImageExportArguments;
use crate::output;

const LAYOUT: &str = r#"{"imageLayoutVersion":"1.0.0"}"#;
const INDEX_TYPE: &str = "application/vnd.oci.image.index.v1+json";
const NAME_ANNOTATION: &str = "org.opencontainers.image.ref.name";

/// Writes an image.
pub(super) async fn export(client: &Client, arguments: &ImageExportArguments) -> anyhow::Result<ExitCode> {
    let path = &arguments.output;
    check_free(path)?;
    let described = client.inspect_image(&arguments.image).await?;
    let Some(digest) = described["manifest"].as_str() else {
        bail!("the gateway does not say which manifest {} has", arguments.image);
    };
    let is_archive = path.extension().is_some_and(|extension| extension == "tar");
    let parent = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    // Complete or not there: what breaks off is removed with its folder.
    let scratch = tempfile::Builder::new()
        .prefix(".spore-export-")
        .tempdir_in(parent)
        .with_context(|| format!("nothing can be written beside {}", path.display()))?;
    let folder = scratch.path().join("layout");
    write_layout(client, digest, &described, &arguments.image, &folder).await?;
    let written = if is_archive {
        let archive = scratch.path().join("archive");
        write_archive(&folder, &archive).and_then(|()| fs::rename(&archive, path))
    } else {
        // An empty folder gives way.
        fs::rename(&folder, path)
    };
    written.with_context(|| format!("{} could not be written", path.display()))?;
    super::print(&format!("{} exported to {}\n", arguments.image, path.display()))
}

async fn write_layout(
    client: &Client,
    digest: &str,
    described: &serde_json::Value,
    name: &str,
    folder: &Path,
) -> anyhow::Result<()> {
    let blobs = folder.join("blobs/sha256");
    fs::create_dir_all(&blobs).context("the folder could not be made")?;
    let (manifest, media_type) = client.manifest(digest).await?;
    let parsed: serde_json::Value =
        serde_json::from_slice(&manifest).context("the manifest cannot be read")?;
    let layers: Vec<_> = parsed["layers"].as_array().into_iter().flatten().collect();
    let names = std::iter::once(&parsed["config"]).chain(layers.iter().copied());
    let digests: Vec<_> = names.filter_map(|part| part["digest"].as_str()).collect();
    let bar = output::byte_bar(
        described["bytes"].as_u64().unwrap_or(0),
        format!("exporting {name}"),
    );
    for part in &digests {
        let path = blobs.join(hex_of(part)?);
        // Named twice, it is there already.
        if path.exists() {
            continue;
        }
        let mut file = BufWriter::new(File::create_new(&path)?);
        client.blob(part, &mut file, &mut |bytes| bar.inc(bytes)).await?;
        file.flush()?;
    }
    bar.finish_and_clear();
    fs::write(blobs.join(hex_of(digest)?), &manifest)?;
    fs::write(folder.join("oci-layout"), LAYOUT)?;
    let index = serde_json::json!({
        "schemaVersion": 2,
        "mediaType": INDEX_TYPE,
        "manifests": [{
            "mediaType": media_type,
            "digest": digest,
            "size": manifest.len(),
            "annotations": { NAME_ANNOTATION: tag_of(name) },
        }],
    });
    fs::write(folder.join("index.json"), index.to_string())?;
    let paths: Result<Vec<_>, _> = digests
        .iter()
        .map(|digest| Ok(format!("blobs/sha256/{}", hex_of(digest)?)))
        .collect();
    let paths: Vec<String> = paths.map_err(|error: anyhow::Error| error)?;
    let saved = serde_json::json!([{
        "Config": paths.first(),
        "RepoTags": [full_name(name)],
        "Layers": paths.get(1..).unwrap_or_default(),
    }]);
    fs::write(folder.join("manifest.json"), saved.to_string())?;
    Ok(())
}

fn hex_of(digest: &str) -> anyhow::Result<&str> {
    let hex = digest
        .strip_prefix("sha256:")
        .filter(|hex| hex.chars().all(|c| c.is_ascii_hexdigit()));
    hex.with_context(|| format!("{digest} is no digest"))
}

/// The tag in a name, or the digest's first digits.
fn tag_of(name: &str) -> String {
    match name.split_once('@') {
        Some((_, digest)) => digest.trim_start_matches("sha256:").chars().take(12).collect(),
        None => {
            let last = name.rsplit('/').next().unwrap_or(name);
            last.split_once(':').map_or("latest", |(_, tag)| tag).to_owned()
        }
    }
}

/// The name with its tag.
fn full_name(name: &str) -> String {
    let bare = name.split_once('@').map_or(name, |(bare, _)| bare);
    let has_tag = bare.rsplit('/').next().is_some_and(|last| last.contains(':'));
    if has_tag {
        bare.to_owned()
    } else {
        format!("{bare}:{}", tag_of(name))
    }
}

fn write_archive(folder: &Path, archive: &Path) -> io::Result<()> {
    let mut builder = tar::Builder::new(BufWriter::new(File::create_new(archive)?));
    builder.mode(tar::HeaderMode::Deterministic);
    for name in ["oci-layout", "index.json", "manifest.json"] {
        builder.append_path_with_name(folder.join(name), name)?;
    }
    for entry in fs::read_dir(folder.join("blobs/sha256"))? {
        let entry = entry?;
        let name = Path::new("blobs/sha256").join(entry.file_name());
        builder.append_path_with_name(entry.path(), name)?;
    }
    builder.into_inner()?.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exported_images_keep_their_names() {
        for (name, full, tag) in [
            ("hello", "hello:latest", "latest"),
            ("localhost:5000/a/b:1.0", "localhost:5000/a/b:1.0", "1.0"),
            ("localhost:5000/a/b", "localhost:5000/a/b:latest", "latest"),
            ("a@sha256:0123456789abcdef", "a:0123456789ab", "0123456789ab"),
        ] {
            assert_eq!((full_name(name).as_str(), tag_of(name).as_str()), (full, tag));
        }
    }
}
