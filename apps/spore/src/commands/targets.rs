//! Which functions a command is about: that of a folder, or those of a stack.

use std::path::{Path, PathBuf};

use anyhow::bail;
use spore_builder::settings::{self, FunctionSettings};
use spore_builder::stack::{self, Choice, STACK_FILE, Stack, StackSource};

use crate::arguments::StackArguments;

/// A function that is to be built, pushed or deployed.
pub(super) struct Target {
    pub(super) settings: FunctionSettings,
    pub(super) source: StackSource,
}

/// Functions, and the gateway that their stack names.
pub(super) struct Targets {
    pub(super) functions: Vec<Target>,
    pub(super) gateway: Option<String>,
}

/// The function in `folder`, or those of the stack that is named; without either, those of the stack in this folder.
pub(super) fn targets(folder: Option<&Path>, arguments: &StackArguments) -> anyhow::Result<Targets> {
    if let Some(folder) = folder {
        if arguments.yaml.is_some() || arguments.filter.is_some() || arguments.regex.is_some() {
            bail!(
                "name a folder, or a stack with --yaml and functions of it with --filter or --regex, not both"
            );
        }
        let settings = settings::load(folder)?;
        let source = StackSource::Folder(folder.to_owned());
        return Ok(Targets {
            functions: vec![Target { settings, source }],
            gateway: None,
        });
    }
    let stack = load(arguments)?;
    let functions = stack.functions.into_iter().map(|function| Target {
        settings: function.settings,
        source: function.source,
    });
    Ok(Targets {
        functions: functions.collect(),
        gateway: stack.gateway,
    })
}

fn load(arguments: &StackArguments) -> anyhow::Result<Stack> {
    let path = match &arguments.yaml {
        Some(path) => path.clone(),
        None => default_stack()?,
    };
    let choice = match (&arguments.filter, &arguments.regex) {
        (Some(pattern), _) => Choice::wildcard(pattern)?,
        (None, Some(pattern)) => Choice::regex(pattern)?,
        (None, None) => Choice::all(),
    };
    let stack = stack::load(&path, &choice, &|name| std::env::var(name).ok())?;
    for warning in &stack.warnings {
        eprintln!("warning: {warning}");
    }
    Ok(stack)
}

/// The stack in this folder.
fn default_stack() -> anyhow::Result<PathBuf> {
    let names = [STACK_FILE, "stack.yml"];
    match names.iter().map(PathBuf::from).find(|path| path.is_file()) {
        Some(path) => Ok(path),
        None => {
            bail!("there is no {STACK_FILE} here: name the folder of a function, or a stack with --yaml FILE")
        }
    }
}
