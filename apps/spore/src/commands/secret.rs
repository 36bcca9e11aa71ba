//! `spore secret`: values that only functions get to see.

use std::io::{IsTerminal, Read};
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, bail};
use spore_client::Client;

use crate::arguments::{SecretCommand, SecretValueArguments};
use crate::output;

/// Carries a command about secrets out.
pub(crate) async fn run(client: &Client, command: SecretCommand) -> anyhow::Result<ExitCode> {
    match command {
        SecretCommand::Create(arguments) => {
            let value = value(&arguments)?;
            client.create_secret(&arguments.name, &value).await?;
            super::print(&format!("{} created\n", arguments.name))
        }
        SecretCommand::Update(arguments) => {
            let value = value(&arguments)?;
            client.update_secret(&arguments.name, &value).await?;
            super::print(&format!("{} updated\n", arguments.name))
        }
        SecretCommand::List { json } => list(client, json).await,
        SecretCommand::Remove { name } => {
            client.remove_secret(&name).await?;
            super::print(&format!("{name} removed\n"))
        }
    }
}

async fn list(client: &Client, json: bool) -> anyhow::Result<ExitCode> {
    let secrets = client.secrets().await?;
    if json {
        return super::print_json(&serde_json::to_value(secrets)?);
    }
    let head = vec!["NAME".to_owned()];
    let rows = secrets.into_iter().map(|secret| vec![secret.name]);
    super::print(&output::table(
        &std::iter::once(head).chain(rows).collect::<Vec<_>>(),
    ))
}

fn value(arguments: &SecretValueArguments) -> anyhow::Result<Vec<u8>> {
    match &arguments.from_file {
        Some(path) => read_file(path),
        None => {
            let mut input = std::io::stdin();
            if input.is_terminal() {
                eprintln!("Type the value of {}, then Ctrl-D:", arguments.name);
            }
            let mut value = Vec::new();
            input
                .read_to_end(&mut value)
                .context("standard input could not be read")?;
            without_line_end(&mut value);
            if value.is_empty() {
                bail!("standard input is empty: give the value there, or name a file with --from-file");
            }
            Ok(value)
        }
    }
}

fn read_file(path: &Path) -> anyhow::Result<Vec<u8>> {
    std::fs::read(path).with_context(|| format!("{} could not be read", path.display()))
}

/// What is typed or echoed ends with a line feed that nobody means.
fn without_line_end(value: &mut Vec<u8>) {
    if value.ends_with(b"\n") {
        value.pop();
        if value.ends_with(b"\r") {
            value.pop();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_end_is_not_meant() {
        for (typed, meant) in [
            ("a\n", "a"),
            ("a\r\n", "a"),
            ("a\n\n", "a\n"),
            ("a", "a"),
            ("\n", ""),
        ] {
            let mut value = typed.as_bytes().to_vec();
            without_line_end(&mut value);
            assert_eq!(value, meant.as_bytes());
        }
    }
}
