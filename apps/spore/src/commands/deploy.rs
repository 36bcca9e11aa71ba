//! `spore deploy`, `spore push` and `spore up`: build or take a function, push its image, deploy it.

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, bail};
use spore_builder::FunctionName;
use spore_builder::settings::{self, FunctionSettings};
use spore_builder::stack::StackSource;
use spore_client::Client;
use spore_client::api::{ApiError, Deployed, FunctionDeployment, Resources};
use spore_client::images::{PullSettings, TransferError};
use spore_sandbox::Isolation;

use super::Gateway;
use super::artefact::{self, Artefact, Start, TAG, push_root};
use super::targets::{Target, targets};
use crate::arguments::{DeployArguments, PushArguments, SandboxArgument, UpArguments};

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
/// Annotation that names the kind of sandbox of the instances.
const SANDBOX_ANNOTATION: &str = "dev.spore.sandbox";
/// Annotation that is `true` if each instance is to serve one invocation only.
const AHEAD_ANNOTATION: &str = "dev.spore.ahead";
pub(super) const PER_REQUEST_ANNOTATION: &str = "dev.spore.isolation-per-request";
/// Annotation that says how it gets its invocations.
const PROTOCOL_ANNOTATION: &str = "dev.spore.protocol";
/// Labels that bound the number of instances.
const SCALE_MIN_LABEL: &str = "com.openfaas.scale.min";
const SCALE_MAX_LABEL: &str = "com.openfaas.scale.max";

/// Deploys a function, or those of a stack as they were pushed.
pub(crate) async fn run(gateway: &Gateway, arguments: &DeployArguments) -> anyhow::Result<ExitCode> {
    let Some(target) = arguments.target.clone() else {
        return deploy_stack(gateway, arguments).await;
    };
    let client = gateway.client(None)?;
    let (settings, image) = match (&arguments.image, &arguments.rootfs, &arguments.binary) {
        (Some(image), ..) => {
            let settings = with_flags(settings_for_name(&target)?, arguments);
            pull_if_missing(&client, image).await?;
            (settings, image.clone())
        }
        (None, Some(folder), _) => {
            let settings = with_flags(settings_for_name(&target)?, arguments);
            let start = Start {
                entrypoint: entrypoint(arguments)?,
                working_directory: arguments.workdir.as_deref().unwrap_or("/"),
                user: arguments.user.as_deref(),
            };
            let digest = push_root(&client, &settings, folder, &start).await?;
            let image = format!("{}@{digest}", settings.name);
            (settings, image)
        }
        (None, None, binary) => {
            let (settings, artefact) = match binary {
                Some(binary) => {
                    let settings = with_flags(settings_for_name(&target)?, arguments);
                    (settings, Artefact::Program(binary.clone()))
                }
                None => {
                    let folder = Path::new(&target);
                    let settings = with_flags(settings::load(folder)?, arguments);
                    let artefact = artefact::build(folder, &settings)?;
                    (settings, artefact)
                }
            };
            let digest = artefact::push(&client, &settings, &artefact).await?;
            let image = format!("{}@{digest}", settings.name);
            (settings, image)
        }
    };
    let line = deploy(&client, &settings, image, arguments.no_replace).await?;
    super::print(&line)
}

/// Deploys functions of a stack: images that it names, and of functions that are built here what was pushed last.
async fn deploy_stack(gateway: &Gateway, arguments: &DeployArguments) -> anyhow::Result<ExitCode> {
    let targets = targets(None, &arguments.stack)?;
    let client = gateway.client(targets.gateway.as_deref())?;
    for function in targets.functions {
        let settings = with_flags(function.settings, arguments);
        let image = match function.source {
            StackSource::Image(image) => image,
            StackSource::Folder(_) => format!("{}:{TAG}", settings.name),
        };
        let line = deploy(&client, &settings, image, arguments.no_replace)
            .await
            .with_context(|| {
                format!(
                    "{} could not be deployed: spore up builds and pushes it as well",
                    settings.name
                )
            })?;
        super::print(&line)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Builds functions and pushes their images.
pub(crate) async fn push(gateway: &Gateway, arguments: &PushArguments) -> anyhow::Result<ExitCode> {
    let targets = targets(arguments.directory.as_deref(), &arguments.stack)?;
    let client = gateway.client(targets.gateway.as_deref())?;
    for Target { settings, source } in &targets.functions {
        let line = match source {
            StackSource::Image(image) => {
                format!("{}: {image}, which is not pushed from here\n", settings.name)
            }
            StackSource::Folder(folder) => {
                let artefact = artefact::build(folder, settings)?;
                let digest = artefact::push(&client, settings, &artefact).await?;
                format!("{} pushed: {}@{digest}\n", settings.name, settings.name)
            }
        };
        super::print(&line)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Builds, pushes and deploys functions.
pub(crate) async fn up(gateway: &Gateway, arguments: &UpArguments) -> anyhow::Result<ExitCode> {
    let targets = targets(arguments.directory.as_deref(), &arguments.stack)?;
    let client = gateway.client(targets.gateway.as_deref())?;
    for Target { mut settings, source } in targets.functions {
        set_sandbox(&mut settings, arguments.sandbox);
        super::print(&bring_up(&client, &settings, &source).await?)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Builds, pushes and deploys a function; the line that says so.
pub(super) async fn bring_up(
    client: &Client,
    settings: &FunctionSettings,
    source: &StackSource,
) -> anyhow::Result<String> {
    let image = match source {
        StackSource::Image(image) => image.clone(),
        StackSource::Folder(folder) => {
            let artefact = artefact::build(folder, settings)?;
            let digest = artefact::push(client, settings, &artefact).await?;
            format!("{}@{digest}", settings.name)
        }
    };
    deploy(client, settings, image, false).await
}

/// Deploys an image that the gateway has; the line that says so.
async fn deploy(
    client: &Client,
    settings: &FunctionSettings,
    image: String,
    is_new: bool,
) -> anyhow::Result<String> {
    let function = deployment(settings, image);
    let done = if is_new {
        create(client, &function).await?
    } else {
        client.deploy(&function).await?
    };
    let verb = match done {
        Deployed::Created => "deployed",
        Deployed::Updated => "updated",
    };
    let name = &settings.name;
    Ok(format!("{name} {verb}: {}\n", client.function_url(name.as_str())))
}

/// Lets the daemon pull an image: the deployment would do so too, and show nothing of it.
async fn pull_if_missing(client: &Client, image: &str) -> anyhow::Result<()> {
    let settings = PullSettings {
        missing: true,
        ..PullSettings::default()
    };
    match super::image::pull(client, image, settings).await {
        Ok(_) => Ok(()),
        // Another gateway than ours, which has its own ways.
        Err(error)
            if error
                .downcast_ref()
                .is_some_and(TransferError::is_unknown_address) =>
        {
            Ok(())
        }
        Err(error) => Err(error),
    }
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

/// What an image of a root file system names as its program.
fn entrypoint(arguments: &DeployArguments) -> anyhow::Result<&str> {
    match (&arguments.entrypoint, &arguments.fprocess) {
        (Some(entrypoint), _) => Ok(entrypoint),
        (None, Some(command)) => Ok(command),
        (None, None) => bail!(
            "a root file system needs a program: name a server with --entrypoint, or a command that is run for each \
             invocation with --fprocess"
        ),
    }
}

fn settings_for_name(target: &str) -> anyhow::Result<FunctionSettings> {
    let name: FunctionName = target.parse()?;
    Ok(FunctionSettings::new(name))
}

/// Flags go before the file: what is typed for this once is meant.
fn with_flags(mut settings: FunctionSettings, arguments: &DeployArguments) -> FunctionSettings {
    settings.fprocess = arguments.fprocess.clone().or(settings.fprocess);
    settings.memory = arguments.memory.clone().or(settings.memory);
    settings.cpu = arguments.cpu.clone().or(settings.cpu);
    settings.timeout = arguments.timeout.clone().or(settings.timeout);
    settings.port = arguments.port.or(settings.port);
    settings.scale.min = arguments.min.or(settings.scale.min);
    settings.scale.max = arguments.max.or(settings.scale.max);
    settings.scale.ahead = arguments.ahead.or(settings.scale.ahead);
    settings.environment.extend(arguments.env.iter().cloned());
    settings.labels.extend(arguments.label.iter().cloned());
    settings.annotations.extend(arguments.annotation.iter().cloned());
    if let Some(protocol) = arguments.protocol {
        let (name, value) = (PROTOCOL_ANNOTATION.to_owned(), protocol.name().to_owned());
        settings.annotations.insert(name, value);
    }
    settings.secrets.extend(arguments.secret.iter().cloned());
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
    set_sandbox(&mut settings, arguments.sandbox);
    if arguments.isolation_per_request {
        settings.isolation_per_request = Some(true);
    }
    settings
}

fn set_sandbox(settings: &mut FunctionSettings, argument: SandboxArgument) {
    if let Some(kind) = argument.kind {
        settings.sandbox = Some(kind.name().to_owned());
    }
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
    if let Some(sandbox) = &settings.sandbox {
        annotations.insert(SANDBOX_ANNOTATION.to_owned(), sandbox.clone());
    }
    if let Some(ahead) = settings.scale.ahead {
        annotations.insert(AHEAD_ANNOTATION.to_owned(), ahead.to_string());
    }
    if let Some(per_request) = settings.isolation_per_request {
        annotations.insert(PER_REQUEST_ANNOTATION.to_owned(), per_request.to_string());
    }
    FunctionDeployment {
        service: settings.name.to_string(),
        image,
        // That of the command line.
        namespace: String::new(),
        env_process: settings.fprocess.clone().unwrap_or_default(),
        env_vars: settings.environment.clone(),
        labels,
        annotations,
        secrets: settings.secrets.clone(),
        limits: resources(&settings.memory, &settings.cpu),
        requests: resources(&settings.requested_memory, &settings.requested_cpu),
    }
}

fn resources(memory: &Option<String>, cpu: &Option<String>) -> Option<Resources> {
    (memory.is_some() || cpu.is_some()).then(|| Resources {
        memory: memory.clone(),
        cpu: cpu.clone(),
    })
}

#[cfg(test)]
mod tests {
    use spore_builder::settings::Scale;

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
            ahead: Some(2),
        };
        settings.allow_egress = vec!["db:5432".into(), "10.0.0.0/8".into()];
        settings.syscall_rewriting = Some(false);
        settings.snapshot = Some(true);
        settings.fprocess = Some("cat -n".into());
        settings.isolation = Some("process".into());
        settings.sandbox = Some("runc".into());
        settings.isolation_per_request = Some(true);
        settings.secrets = vec!["key".into()];
        settings.requested_cpu = Some("100m".into());
        settings.environment.insert("A".into(), "b".into());
        settings.labels.insert("team".into(), "images".into());
        assert_eq!(
            serde_json::to_value(deployment(&settings, "resize@sha256:0".into())).unwrap(),
            serde_json::json!({
                "service": "resize", "image": "resize@sha256:0", "envProcess": "cat -n", "envVars": {"A": "b"},
                "labels": {"team": "images", "com.openfaas.scale.min": "0", "com.openfaas.scale.max": "7"},
                "annotations": {
                    "dev.spore.timeout": "3s", "dev.spore.allow-egress": "db:5432,10.0.0.0/8",
                    "dev.spore.syscall-rewriting": "false", "dev.spore.isolation": "process",
                    "dev.spore.sandbox": "runc", "dev.spore.ahead": "2",
                    "dev.spore.snapshot": "true", "dev.spore.isolation-per-request": "true",
                },
                "secrets": ["key"], "limits": {"memory": "64Mi", "cpu": "500m"}, "requests": {"cpu": "100m"},
            })
        );
    }
}
