//! `spore image`: the images in the daemon's store.

use std::fs;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, bail};
use http::HeaderValue;
use indicatif::ProgressBar;
use spore_client::Client;
use spore_client::images::{Collected, ListedImage, PullSettings};
use spore_client::registry::{Content, Data};
use spore_registry::{ClientCredential, Layout, LocalImage, push_name};

use super::image_export;
use crate::image_arguments::{
    ImageCommand, ImageImportArguments, ImageListArguments, ImagePruneArguments, ImagePushArguments,
};
use crate::output;

/// Characters of a digest that tell images apart.
const SHORT_DIGEST: usize = 12;

/// Runs one of the commands.
pub(crate) async fn run(client: &Client, command: ImageCommand) -> anyhow::Result<ExitCode> {
    match command {
        ImageCommand::List(arguments) => list(client, &arguments).await,
        ImageCommand::Inspect(arguments) => inspect(client, &arguments.image, arguments.json).await,
        ImageCommand::Pull(arguments) => {
            let settings = PullSettings {
                all_platforms: arguments.all_platforms,
                ..PullSettings::default()
            };
            let digest = pull(client, &arguments.image, settings).await?;
            super::print(&format!("{} {digest}\n", arguments.image))
        }
        ImageCommand::Push(arguments) => push(client, &arguments).await,
        ImageCommand::Remove(arguments) => remove(client, &arguments.images).await,
        ImageCommand::Prune(arguments) => prune(client, &arguments).await,
        ImageCommand::Import(arguments) => import(client, &arguments).await,
        ImageCommand::Export(arguments) => image_export::export(client, &arguments).await,
        ImageCommand::Check(arguments) => check(client, arguments.json).await,
    }
}

/// Lets the daemon pull an image, with a bar. What this user's config.json has for its registry goes with it.
pub(super) async fn pull(client: &Client, image: &str, settings: PullSettings) -> anyhow::Result<String> {
    let settings = PullSettings {
        credential: credential_for(client, image).await,
        ..settings
    };
    let bar = output::byte_bar(0, format!("pulling {image}"));
    let result = client
        .pull_image(image, &settings, &mut |done, total| show(&bar, done, total))
        .await;
    bar.finish_and_clear();
    Ok(result?)
}

/// This user's credential for the registry of an image, for the daemon to use this once. Where others could read it on its way, it
/// stays here. What cannot be read is said, and the daemon may do without.
async fn credential_for(client: &Client, image: &str) -> Option<HeaderValue> {
    if client.is_exposed() {
        return None;
    }
    let image = image.to_owned();
    let found = tokio::task::spawn_blocking(move || ClientCredential::of(&image)).await;
    match found.ok()? {
        Ok(credential) => credential.and_then(|credential| credential.to_header()),
        Err(error) => {
            eprintln!("warning: {:#}", anyhow::Error::new(error));
            None
        }
    }
}

fn show(bar: &ProgressBar, done: u64, total: u64) {
    bar.set_length(total);
    bar.set_position(done);
}

async fn push(client: &Client, arguments: &ImagePushArguments) -> anyhow::Result<ExitCode> {
    let ImagePushArguments { image, destination } = arguments;
    let destination = destination.as_ref().unwrap_or(image);
    let bar = output::byte_bar(0, format!("pushing {image}"));
    let mut progress = |done, total| show(&bar, done, total);
    let credential = credential_for(client, destination).await;
    let result = client
        .push_image(image, destination, credential.as_ref(), &mut progress)
        .await;
    bar.finish_and_clear();
    let pushed = result?;
    if let Some(platforms) = pushed.left_out {
        eprintln!(
            "warning: {image} is an index, and the daemon does not have its images for {platforms}: the one for linux/amd64 was \
             pushed alone; to push all of it, run spore image pull --all-platforms before"
        );
    }
    super::print(&format!("{destination} {}\n", pushed.digest))
}

async fn list(client: &Client, arguments: &ImageListArguments) -> anyhow::Result<ExitCode> {
    let images = client.images().await?;
    if arguments.json {
        return super::print_json(&serde_json::to_value(images)?);
    }
    let head = ["NAME", "DIGEST", "SIZE", "FUNCTIONS"]
        .map(str::to_owned)
        .to_vec();
    let rows = images.iter().flat_map(rows_of);
    super::print(&output::table(
        &std::iter::once(head).chain(rows).collect::<Vec<_>>(),
    ))
}

/// A row for each name.
fn rows_of(image: &ListedImage) -> Vec<Vec<String>> {
    let row = |name: &str| {
        vec![
            name.to_owned(),
            short(&image.digest),
            indicatif::BinaryBytes(image.bytes).to_string(),
            image.functions.join(" "),
        ]
    };
    if image.names.is_empty() {
        return vec![row("-")];
    }
    image.names.iter().map(|name| row(name)).collect()
}

fn short(digest: &str) -> String {
    let hex = digest.strip_prefix("sha256:").unwrap_or(digest);
    hex.get(..SHORT_DIGEST).unwrap_or(hex).to_owned()
}

async fn inspect(client: &Client, image: &str, is_json: bool) -> anyhow::Result<ExitCode> {
    let value = client.inspect_image(image).await?;
    if is_json {
        return super::print_json(&value);
    }
    super::print(&output::table(&description(&value)))
}

/// What people want to know of an image, a line each.
fn description(value: &serde_json::Value) -> Vec<Vec<String>> {
    let text = |name: &str| value[name].as_str().unwrap_or_default().to_owned();
    let words = |name: &str| {
        let all = value[name].as_array().into_iter().flatten();
        all.filter_map(|word| word.as_str().map(str::to_owned))
            .collect::<Vec<_>>()
    };
    let bytes = |value: &serde_json::Value| indicatif::BinaryBytes(value.as_u64().unwrap_or(0)).to_string();
    let mut rows = vec![
        ("names", words("names").join(" ")),
        ("digest", text("digest")),
        ("manifest", text("manifest")),
        ("kind", kind(value)),
        ("platform", text("platform")),
        ("size", bytes(&value["bytes"])),
        ("created", text("created")),
        ("entrypoint", shell_words::join(words("entrypoint"))),
        ("command", shell_words::join(words("command"))),
        ("workdir", text("workingDirectory")),
        ("user", text("user")),
        ("ports", words("ports").join(" ")),
        ("functions", words("functions").join(" ")),
    ];
    if let Some(file) = value["derived"]["file"].as_str() {
        rows.push((
            "runs as",
            format!("{file} ({})", bytes(&value["derived"]["bytes"])),
        ));
    }
    rows.extend(
        words("environment")
            .into_iter()
            .map(|variable| ("environment", variable)),
    );
    let maps = [("label", &value["labels"]), ("annotation", &value["annotations"])];
    for (kind, map) in maps {
        let pairs = map.as_object().into_iter().flatten();
        rows.extend(
            pairs.map(|(name, value)| (kind, format!("{name}={}", value.as_str().unwrap_or_default()))),
        );
    }
    let layers = value["layers"].as_array().into_iter().flatten();
    rows.extend(layers.map(|layer| {
        let digest = layer["digest"].as_str().unwrap_or_default();
        ("layer", format!("{digest} {}", bytes(&layer["bytes"])))
    }));
    let shown = rows.into_iter().filter(|(_, value)| !value.is_empty());
    shown.map(|(name, value)| vec![name.to_owned(), value]).collect()
}

fn kind(value: &serde_json::Value) -> String {
    let unikernel = &value["unikernel"];
    match (unikernel["kind"].as_str(), unikernel["monitor"].as_str()) {
        (Some(kind), Some(monitor)) => {
            format!("a {kind} unikernel for the monitor {monitor} (--sandbox foreign runs those for QEMU)")
        }
        _ => "a Linux program".to_owned(),
    }
}

async fn remove(client: &Client, images: &[String]) -> anyhow::Result<ExitCode> {
    for image in images {
        let removed = client.remove_image(image).await?;
        let names = match removed.names.as_slice() {
            [] => image.clone(),
            names => names.join(", "),
        };
        super::print(&format!("{names} removed, {}\n", freed(&removed)))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn freed(collected: &Collected) -> String {
    let bytes = indicatif::BinaryBytes(collected.bytes);
    let files = collected.blobs + collected.derived;
    format!(
        "{bytes} in {files} file{} freed",
        if files == 1 { "" } else { "s" }
    )
}

async fn prune(client: &Client, arguments: &ImagePruneArguments) -> anyhow::Result<ExitCode> {
    let collected = client.prune_images(arguments.unused_for.as_secs()).await?;
    if arguments.json {
        return super::print_json(&serde_json::to_value(collected)?);
    }
    super::print(&format!("{}\n", freed(&collected)))
}

async fn check(client: &Client, is_json: bool) -> anyhow::Result<ExitCode> {
    let spinner = output::spinner("reading the images".to_owned());
    let report = client.check_images().await;
    spinner.finish_and_clear();
    let report = report?;
    let code = if report.problems.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    };
    if is_json {
        super::print_json(&serde_json::to_value(report)?)?;
        return Ok(code);
    }
    let mut text: String = report
        .problems
        .iter()
        .map(|problem| format!("{problem}\n"))
        .collect();
    let state = match report.problems.len() {
        0 => "all is whole".to_owned(),
        1 => "1 problem".to_owned(),
        count => format!("{count} problems"),
    };
    text.push_str(&format!(
        "{} images, {} blobs ({}), {} programs and root file systems: {state}\n",
        report.images,
        report.blobs,
        indicatif::BinaryBytes(report.bytes),
        report.derived,
    ));
    super::print(&text)?;
    Ok(code)
}

async fn import(client: &Client, arguments: &ImageImportArguments) -> anyhow::Result<ExitCode> {
    let path = &arguments.path;
    let spinner = output::spinner(format!("reading {}", path.display()));
    let read = {
        let path = path.clone();
        tokio::task::spawn_blocking(move || Layout::read(&path)).await?
    };
    spinner.finish_and_clear();
    let layout = read.with_context(|| format!("{} cannot be imported", path.display()))?;
    let names = import_names(&layout.images, path, arguments.name.as_deref())?;
    for (image, (repository, tag)) in layout.images.iter().zip(names) {
        let name = format!("{repository}:{tag}");
        let blobs = image.blobs.iter().map(|blob| Content {
            digest: blob.digest.to_string(),
            media_type: blob.media_type.clone(),
            data: Data::File {
                path: blob.path.clone(),
                length: blob.bytes,
            },
        });
        push_to_daemon(client, image, &repository, &tag, &blobs.collect::<Vec<_>>()).await?;
        super::print(&format!("{name} imported\n"))?;
    }
    Ok(ExitCode::SUCCESS)
}

async fn push_to_daemon(
    client: &Client,
    image: &LocalImage,
    repository: &str,
    tag: &str,
    blobs: &[Content],
) -> anyhow::Result<()> {
    let manifest = Content {
        // A push by tag does not name it.
        digest: String::new(),
        media_type: image.media_type.clone(),
        data: Data::Bytes(image.manifest.clone().into()),
    };
    let total = blobs
        .iter()
        .chain([&manifest])
        .map(|content| content.data.length())
        .sum();
    let bar = output::byte_bar(total, format!("importing {repository}:{tag}"));
    let progress = {
        let bar = bar.clone();
        Arc::new(move |bytes| bar.inc(bytes))
    };
    let result = client.push(repository, tag, blobs, &manifest, progress).await;
    bar.finish_and_clear();
    Ok(result?)
}

/// Repository and tag of each image: the name that is given, or those in the archive. A layout often names tags alone; they
/// belong to a repository that is named as the folder or file is.
fn import_names(
    images: &[LocalImage],
    path: &Path,
    given: Option<&str>,
) -> anyhow::Result<Vec<(String, String)>> {
    if let Some(given) = given {
        let [_] = images else {
            bail!(
                "{} holds {} images, and --name is for one",
                path.display(),
                images.len()
            );
        };
        let name = push_name(given);
        return match name {
            Some(name) => Ok(vec![name]),
            None => bail!("an image of this daemon cannot be named {given}: write it like team/hello:1.0"),
        };
    }
    let stem = path
        .file_name()
        .and_then(|name| name.to_str())
        .unwrap_or_default();
    let stem = stem
        .trim_end_matches(".gz")
        .trim_end_matches(".tar")
        .to_lowercase();
    let name_of = |image: &LocalImage| {
        let name = image.name.as_deref().unwrap_or_default();
        match name.contains([':', '/']) {
            true => push_name(name),
            false if name.is_empty() => push_name(&stem),
            false => push_name(&format!("{stem}:{name}")),
        }
    };
    let names = images.iter().map(|image| {
        name_of(image).with_context(|| {
            let name = image.name.as_deref().unwrap_or("nothing");
            format!(
                "an image in {} is named {name}, which is no name here: give one with --name",
                path.display()
            )
        })
    });
    names.collect()
}

/// Whether a path may be written to.
pub(super) fn check_free(path: &Path) -> anyhow::Result<()> {
    let is_free = match fs::read_dir(path) {
        Ok(mut entries) => entries.next().is_none(),
        Err(_) => !path.exists(),
    };
    if !is_free {
        bail!("{} is there already: name another place", path.display());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(name: Option<&str>) -> LocalImage {
        LocalImage {
            name: name.map(str::to_owned),
            manifest: Vec::new(),
            media_type: String::new(),
            blobs: Vec::new(),
        }
    }

    #[test]
    fn imported_images_have_names() {
        let of = |names: &[Option<&str>], path: &str, given| {
            let images: Vec<_> = names.iter().map(|name| image(*name)).collect();
            import_names(&images, Path::new(path), given).map(|names| {
                let names = names
                    .into_iter()
                    .map(|(repository, tag)| format!("{repository}:{tag}"));
                names.collect::<Vec<_>>().join(" ")
            })
        };
        for (names, path, given, expected) in [
            (
                &[Some("a/b:1"), Some("docker.io/library/x:2")][..],
                "x.tar",
                None,
                "a/b:1 docker.io/library/x:2",
            ),
            (&[Some("1.0")], "/tmp/Hello.tar.gz", None, "hello:1.0"),
            (&[None], "dir/app", None, "app:latest"),
            (&[Some("a:1")], "x.tar", Some("team/app"), "team/app:latest"),
        ] {
            assert_eq!(of(names, path, given).expect(path), expected);
        }
        for (names, path, given) in [
            (&[Some("localhost:5000/a:1")][..], "x.tar", None),
            (&[None], "-", None),
            (&[None, None], "x.tar", Some("a")),
            (&[None], "x.tar", Some("localhost:5000/a")),
        ] {
            assert!(of(names, path, given).is_err(), "{names:?}");
        }
    }

    #[test]
    fn unikernels_are_named() {
        let value = serde_json::json!({"unikernel": {"kind": "rumprun", "monitor": "hvt"}, "names": ["a:1"]});
        let rows = description(&value);
        assert_eq!(rows[0], ["names", "a:1"]);
        assert!(
            rows.iter()
                .any(|row| row[1].starts_with("a rumprun unikernel for the monitor hvt"))
        );
    }
}
