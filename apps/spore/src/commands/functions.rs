//! `spore list`, `spore describe` and `spore remove`.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::bail;
use jiff::Timestamp;
use spore_builder::FunctionName;
use spore_client::Client;
use spore_client::api::{ApiError, FunctionStatus};

use crate::arguments::{DescribeArguments, ListArguments, RemoveArguments};
use crate::output;

/// Lists the functions.
pub(crate) async fn list(client: &Client, arguments: &ListArguments) -> anyhow::Result<ExitCode> {
    let mut functions = client.list().await?;
    functions.sort_by(|left, right| left.name.cmp(&right.name));
    if arguments.json {
        return super::print_json(&serde_json::to_value(functions)?);
    }
    let head = [
        "NAME",
        "INSTANCES",
        "INVOCATIONS",
        "SANDBOX",
        "ISOLATION",
        "PROTOCOL",
        "AGE",
        "IMAGE",
    ]
    .map(str::to_owned)
    .to_vec();
    let now = Timestamp::now();
    let rows = functions.iter().map(|function| {
        vec![
            function.name.clone(),
            function.replicas.to_string(),
            function.invocation_count.to_string(),
            function.sandbox.clone(),
            function.isolation.clone(),
            function.protocol.clone(),
            age(&function.created_at, now),
            short_image(&function.image),
        ]
    });
    super::print(&output::table(
        &std::iter::once(head).chain(rows).collect::<Vec<_>>(),
    ))
}

/// Shows one function.
pub(crate) async fn describe(client: &Client, arguments: &DescribeArguments) -> anyhow::Result<ExitCode> {
    let mut function = client
        .describe(arguments.name.as_str())
        .await
        .or_else(|error| not_found(error, &arguments.name))?;
    // Only the list counts invocations.
    if let Some(listed) = client
        .list()
        .await?
        .into_iter()
        .find(|listed| listed.name == function.name)
    {
        function.invocation_count = listed.invocation_count;
    }
    if arguments.json {
        return super::print_json(&serde_json::to_value(function)?);
    }
    let mut rows = description(&function, client);
    let maps = [
        ("environment", &function.env_vars),
        ("label", &function.labels),
        ("annotation", &function.annotations),
    ];
    for (kind, map) in maps {
        rows.extend(
            map.iter()
                .map(|(name, value)| vec![kind.to_owned(), format!("{name}={value}")]),
        );
    }
    super::print(&output::table(&rows))
}

fn description(function: &FunctionStatus, client: &Client) -> Vec<Vec<String>> {
    let root = match function.root.as_str() {
        "file-system" => "a file system",
        _ => "the program alone",
    };
    let egress = function
        .annotations
        .get(super::deploy::EGRESS_ANNOTATION)
        .cloned()
        .filter(|rules| !rules.is_empty());
    let memory = function.limits.as_ref().and_then(|limits| limits.memory.clone());
    let cpu = function.limits.as_ref().and_then(|limits| limits.cpu.clone());
    [
        ("name", function.name.clone()),
        ("url", client.function_url(&function.name)),
        ("image", function.image.clone()),
        ("created", function.created_at.clone()),
        (
            "instances",
            format!(
                "{} ({} available)",
                function.replicas, function.available_replicas
            ),
        ),
        ("invocations", function.invocation_count.to_string()),
        ("memory", memory.unwrap_or_else(|| "default".into())),
        ("cpu", cpu.unwrap_or_else(|| "default".into())),
        ("sandbox", function.sandbox.clone()),
        ("isolation", isolation_of(function)),
        ("protocol", protocol_of(function)),
        ("root", root.to_owned()),
        ("egress", egress.unwrap_or_else(|| "none".into())),
        ("secrets", secrets_of(function)),
    ]
    .into_iter()
    .map(|(name, value)| vec![name.to_owned(), value])
    .collect()
}

fn secrets_of(function: &FunctionStatus) -> String {
    match function.secrets.as_slice() {
        [] => "none".to_owned(),
        names => names.join(", "),
    }
}

/// How it gets its invocations, in words.
fn protocol_of(function: &FunctionStatus) -> String {
    match (function.protocol.as_str(), function.env_process.as_str()) {
        ("lambda", _) => "lambda (it asks for events by AWS Lambda's Runtime API)".to_owned(),
        ("exec", "") => "exec (the image's command is run for each invocation)".to_owned(),
        ("exec", command) => format!("exec (`{command}` is run for each invocation)"),
        (other, _) => other.to_owned(),
    }
}

/// What is around the instances, in words.
fn isolation_of(function: &FunctionStatus) -> String {
    let per_request = function.annotations.get(super::deploy::PER_REQUEST_ANNOTATION);
    match function.isolation.as_str() {
        "vm" if per_request.is_some_and(|value| value == "true") || function.protocol == "exec" => {
            "vm (a virtual machine for each invocation)".to_owned()
        }
        "vm" => "vm (a virtual machine for each instance)".to_owned(),
        "process" => "process (no virtual machine: the host's kernel is shared)".to_owned(),
        other => other.to_owned(),
    }
}

/// Removes a function.
pub(crate) async fn remove(client: &Client, arguments: &RemoveArguments) -> anyhow::Result<ExitCode> {
    client
        .remove(arguments.name.as_str())
        .await
        .or_else(|error| not_found(error, &arguments.name))?;
    super::print(&format!("{} removed\n", arguments.name))
}

pub(super) fn not_found<T>(error: ApiError, name: &FunctionName) -> anyhow::Result<T> {
    match error {
        ApiError::Refused { status, .. } if status == http::StatusCode::NOT_FOUND => {
            bail!("there is no function {name}: see spore list")
        }
        error => Err(error.into()),
    }
}

fn age(created_at: &str, now: Timestamp) -> String {
    match created_at.parse::<Timestamp>() {
        Ok(created) => output::age(Duration::try_from(now.duration_since(created)).unwrap_or_default()),
        Err(_) => "?".to_owned(),
    }
}

/// Digests are cut to what tells them apart.
fn short_image(image: &str) -> String {
    match image.split_once("@sha256:") {
        Some((name, digest)) => format!("{name}@{}", digest.get(..12).unwrap_or(digest)),
        None => image.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_are_shortened_and_ages_computed() {
        assert_eq!(short_image("a@sha256:0123456789abcdef"), "a@0123456789ab");
        assert_eq!(short_image("a@sha256:01"), "a@01");
        assert_eq!(short_image("a:latest"), "a:latest");
        let now = "2026-01-01T00:01:00Z".parse().unwrap();
        assert_eq!(age("2026-01-01T00:00:00Z", now), "1m");
        assert_eq!(
            age("2027-01-01T00:00:00Z", now),
            "0s",
            "a clock that is off is no failure"
        );
        assert_eq!(age("yesterday", now), "?");
    }
}
