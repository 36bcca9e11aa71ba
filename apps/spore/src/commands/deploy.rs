//! `spore deploy`: build or take a program, pack it, push the image, deploy it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, bail};
use spore_builder::image::{Blob, ImageSettings};
use spore_builder::root::{RootImage, RootSettings};
use spore_builder::settings::{self, FunctionSettings, Language, Scale};
use spore_builder::{FunctionName, Image};
use spore_client::Client;
use spore_client::api::{ApiError, Deployed, FunctionDeployment, Resources};
use spore_client::registry::{Content, Data};
use spore_sandbox::Isolation;

use super::source::build_program;
use crate::arguments::DeployArguments;

/// Annotation that holds the longest time of an invocation.
const TIMEOUT_ANNOTATION: &str = "dev.spore.timeout";
/// Annotation that holds where a function may connect to, with commas between.
pub(super) const EGRESS_ANNOTATION: &str = "dev.spore.allow-egress";
/// Annotation that is `false` if every system call is to trap.
const REWRITING_ANNOTATION: &str = "dev.spore.syscall-rewriting";
/// Annotation that is `true` if instances are to be copies of one that was booted once.
const SNAPSHOT_ANNOTATION: &str = "dev.spore.snapshot";
/// Annotation that says what is to be around the instances.
const ISOLATION_ANNOTATION: &str = "dev.spore.isolation";
/// Annotation that is `true` if each instance is to serve one invocation only.
pub(super) const PER_REQUEST_ANNOTATION: &str = "dev.spore.isolation-per-request";
/// Labels that bound the number of instances.
const SCALE_MIN_LABEL: &str = "com.openfaas.scale.min";
const SCALE_MAX_LABEL: &str = "com.openfaas.scale.max";

/// The tag that pushes go to; deployments name the digest, so that two at a time do not mix up.
const TAG: &str = "latest";

const DEFAULT_PORT: u16 = 8080;

/// Deploys a function.
pub(crate) async fn run(client: &Client, arguments: DeployArguments) -> anyhow::Result<ExitCode> {
    let (settings, image) = match (&arguments.image, &arguments.rootfs) {
        (Some(image), _) => {
            let settings = with_flags(settings_for_name(&arguments.target)?, &arguments);
            (settings, image.clone())
        }
        (None, Some(folder)) => {
            let settings = with_flags(settings_for_name(&arguments.target)?, &arguments);
            let digest = push_root(client, &settings, folder, &arguments).await?;
            let image = format!("{}@{digest}", settings.name);
            (settings, image)
        }
        (None, None) => {
            let (settings, program) = program(&arguments)?;
            let settings = with_flags(settings, &arguments);
            let digest = push_program(client, &settings, &program).await?;
            let image = format!("{}@{digest}", settings.name);
            (settings, image)
        }
    };
    let function = FunctionDeployment {
        secrets: arguments.secret.clone(),
        ..deployment(&settings, image)
    };
    let done = if arguments.no_replace {
        create(client, &function).await?
    } else {
        client.deploy(&function).await?
    };
    let verb = match done {
        Deployed::Created => "deployed",
        Deployed::Updated => "updated",
    };
    super::print(&format!(
        "{} {verb}: {}/function/{}\n",
        settings.name,
        client.url(),
        settings.name
    ))
}

/// The program that is given, or built from the folder that is.
fn program(arguments: &DeployArguments) -> anyhow::Result<(FunctionSettings, PathBuf)> {
    if let Some(binary) = &arguments.binary {
        return Ok((settings_for_name(&arguments.target)?, binary.clone()));
    }
    let folder = Path::new(&arguments.target);
    let settings = settings::load(folder)?;
    let built = build_program(folder, &settings)?;
    Ok((settings, built.path))
}

/// Packs a program and pushes it; the image's digest.
async fn push_program(
    client: &Client,
    settings: &FunctionSettings,
    program: &Path,
) -> anyhow::Result<String> {
    let content =
        std::fs::read(program).with_context(|| format!("{} could not be read", program.display()))?;
    let image = Image::from_program(
        &content,
        &ImageSettings {
            environment: Vec::new(),
            port: settings.port.unwrap_or(DEFAULT_PORT),
        },
    )
    .with_context(|| format!("{} cannot be deployed", program.display()))?;
    let blobs = [content_of(&image.layer), content_of(&image.config)];
    push(client, &settings.name, &blobs, &image.manifest).await?;
    Ok(image.manifest.digest)
}

/// Packs a root file system and pushes it; the image's digest.
async fn push_root(
    client: &Client,
    settings: &FunctionSettings,
    folder: &Path,
    arguments: &DeployArguments,
) -> anyhow::Result<String> {
    let command = arguments.entrypoint.as_deref().unwrap_or_default();
    let entrypoint =
        shell_words::split(command).with_context(|| format!("--entrypoint is no command: {command}"))?;
    if entrypoint.first().is_none_or(String::is_empty) {
        bail!("--entrypoint names no program: write it like --entrypoint '/usr/bin/python3 server.py'");
    }
    let working_directory = arguments.workdir.clone().unwrap_or_else(|| "/".to_owned());
    if !working_directory.starts_with('/') {
        bail!("--workdir must begin with a slash: {working_directory} is inside the root file system");
    }
    let survey = spore_rootfs::survey(folder)?;
    let root = RootSettings {
        entrypoint,
        working_directory,
        port: settings.port.unwrap_or(DEFAULT_PORT),
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
    push(client, &settings.name, &blobs, &image.manifest).await?;
    Ok(image.manifest.digest)
}

async fn create(client: &Client, function: &FunctionDeployment) -> anyhow::Result<Deployed> {
    match client.create(function).await {
        Ok(()) => Ok(Deployed::Created),
        Err(ApiError::Refused { status, .. }) if status == http::StatusCode::CONFLICT => {
            bail!(
                "there is a function {} already: leave out --no-replace to replace it",
                function.service
            )
        }
        Err(error) => Err(error.into()),
    }
}

fn settings_for_name(target: &str) -> anyhow::Result<FunctionSettings> {
    let name: FunctionName = target.parse()?;
    Ok(FunctionSettings {
        name,
        language: Language::C,
        memory: None,
        cpu: None,
        timeout: None,
        port: None,
        scale: Scale::default(),
        allow_egress: Vec::new(),
        syscall_rewriting: None,
        snapshot: None,
        isolation: None,
        isolation_per_request: None,
        environment: BTreeMap::new(),
        labels: BTreeMap::new(),
        annotations: BTreeMap::new(),
    })
}

/// Flags go before the file: what is typed for this once is meant.
fn with_flags(mut settings: FunctionSettings, arguments: &DeployArguments) -> FunctionSettings {
    settings.memory = arguments.memory.clone().or(settings.memory);
    settings.cpu = arguments.cpu.clone().or(settings.cpu);
    settings.timeout = arguments.timeout.clone().or(settings.timeout);
    settings.port = arguments.port.or(settings.port);
    settings.scale.min = arguments.min.or(settings.scale.min);
    settings.scale.max = arguments.max.or(settings.scale.max);
    settings.environment.extend(arguments.env.iter().cloned());
    settings.labels.extend(arguments.label.iter().cloned());
    settings.annotations.extend(arguments.annotation.iter().cloned());
    if !arguments.allow_egress.is_empty() {
        settings.allow_egress = arguments.allow_egress.iter().map(ToString::to_string).collect();
    }
    if arguments.no_syscall_rewriting {
        settings.syscall_rewriting = Some(false);
    }
    if arguments.snapshot {
        settings.snapshot = Some(true);
    }
    if let Some(isolation) = arguments.isolation {
        settings.isolation = Some(Isolation::from(isolation).name().to_owned());
    }
    if arguments.isolation_per_request {
        settings.isolation_per_request = Some(true);
    }
    settings
}

/// The deployment that stands for the settings. Named settings win over labels and annotations of the same meaning.
fn deployment(settings: &FunctionSettings, image: String) -> FunctionDeployment {
    let mut labels = settings.labels.clone();
    let bounds = [
        (SCALE_MIN_LABEL, settings.scale.min),
        (SCALE_MAX_LABEL, settings.scale.max),
    ];
    for (label, bound) in bounds {
        if let Some(bound) = bound {
            labels.insert(label.to_owned(), bound.to_string());
        }
    }
    let mut annotations = settings.annotations.clone();
    if let Some(timeout) = &settings.timeout {
        annotations.insert(TIMEOUT_ANNOTATION.to_owned(), timeout.clone());
    }
    if !settings.allow_egress.is_empty() {
        annotations.insert(EGRESS_ANNOTATION.to_owned(), settings.allow_egress.join(","));
    }
    if let Some(rewrites) = settings.syscall_rewriting {
        annotations.insert(REWRITING_ANNOTATION.to_owned(), rewrites.to_string());
    }
    if let Some(is_cloned) = settings.snapshot {
        annotations.insert(SNAPSHOT_ANNOTATION.to_owned(), is_cloned.to_string());
    }
    if let Some(isolation) = &settings.isolation {
        annotations.insert(ISOLATION_ANNOTATION.to_owned(), isolation.clone());
    }
    if let Some(per_request) = settings.isolation_per_request {
        annotations.insert(PER_REQUEST_ANNOTATION.to_owned(), per_request.to_string());
    }
    FunctionDeployment {
        service: settings.name.to_string(),
        image,
        env_vars: settings.environment.clone(),
        secrets: Vec::new(),
        labels,
        annotations,
        limits: (settings.memory.is_some() || settings.cpu.is_some()).then(|| Resources {
            memory: settings.memory.clone(),
            cpu: settings.cpu.clone(),
        }),
    }
}

fn content_of(blob: &Blob) -> Content {
    Content {
        digest: blob.digest.clone(),
        media_type: blob.media_type.clone(),
        data: Data::Bytes(blob.content.clone().into()),
    }
}

async fn push(
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_become_labels_annotations_and_limits() {
        let mut settings = settings_for_name("resize").unwrap();
        assert_eq!(
            serde_json::to_value(deployment(&settings, "resize@sha256:0".into())).unwrap(),
            serde_json::json!({"service": "resize", "image": "resize@sha256:0"})
        );
        settings.memory = Some("64Mi".into());
        settings.cpu = Some("500m".into());
        settings.timeout = Some("3s".into());
        settings.scale = Scale {
            min: Some(0),
            max: Some(7),
        };
        settings.allow_egress = vec!["db:5432".into(), "10.0.0.0/8".into()];
        settings.syscall_rewriting = Some(false);
        settings.snapshot = Some(true);
        settings.isolation = Some("process".into());
        settings.isolation_per_request = Some(true);
        settings.environment.insert("A".into(), "b".into());
        settings.labels.insert("team".into(), "images".into());
        assert_eq!(
            serde_json::to_value(deployment(&settings, "resize@sha256:0".into())).unwrap(),
            serde_json::json!({
                "service": "resize", "image": "resize@sha256:0", "envVars": {"A": "b"},
                "labels": {"team": "images", "com.openfaas.scale.min": "0", "com.openfaas.scale.max": "7"},
                "annotations": {
                    "dev.spore.timeout": "3s", "dev.spore.allow-egress": "db:5432,10.0.0.0/8",
                    "dev.spore.syscall-rewriting": "false", "dev.spore.isolation": "process",
                    "dev.spore.snapshot": "true", "dev.spore.isolation-per-request": "true",
                },
                "limits": {"memory": "64Mi", "cpu": "500m"},
            })
        );
    }
}
