//! `spore new` and `spore build`: what needs no gateway.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use spore_builder::stack::{self, STACK_FILE, StackSource};
use spore_builder::template;

use super::artefact::{self, Artefact};
use super::targets::targets;
use crate::arguments::{BuildArguments, NewArguments};

/// Writes a new function.
pub(crate) fn new(arguments: &NewArguments) -> anyhow::Result<ExitCode> {
    let folder = arguments
        .directory
        .clone()
        .unwrap_or_else(|| PathBuf::from(arguments.name.as_str()));
    let files = template::create(&folder, &arguments.name, arguments.lang)?;
    let shown = folder.display();
    let mut text = String::new();
    for file in files {
        text.push_str(&format!("  {}\n", folder.join(file).display()));
    }
    let mut next = format!("spore deploy {shown}");
    if let Some(path) = &arguments.append {
        let path = path.clone().unwrap_or_else(|| PathBuf::from(STACK_FILE));
        stack::append(&path, &arguments.name, arguments.lang, &handler(&path, &folder)?)?;
        text.push_str(&format!("  {}\n", path.display()));
        next = format!("spore up --yaml {}", path.display());
    }
    super::print(&format!("{text}{} is written. Next: {next}\n", arguments.name))
}

/// The folder of a function as its stack names it.
fn handler(stack: &Path, folder: &Path) -> anyhow::Result<PathBuf> {
    let absolute =
        |path: &Path| std::path::absolute(path).with_context(|| format!("{} is no path", path.display()));
    let base = absolute(stack)?;
    let folder = absolute(folder)?;
    let inside = folder.strip_prefix(base.parent().unwrap_or(Path::new("/")));
    inside.map(Path::to_owned).with_context(|| {
        format!(
            "{} is not below the folder of {}: functions of a stack lie beside it",
            folder.display(),
            stack.display()
        )
    })
}

/// Builds functions and says what they became.
pub(crate) fn build(arguments: &BuildArguments) -> anyhow::Result<ExitCode> {
    let targets = targets(arguments.directory.as_deref(), &arguments.stack)?;
    let mut text = String::new();
    for function in &targets.functions {
        let name = &function.settings.name;
        match &function.source {
            StackSource::Image(image) => text.push_str(&format!("{name}: {image}, which is not built\n")),
            StackSource::Folder(folder) => match artefact::build(folder, &function.settings)? {
                Artefact::Program(path) => text.push_str(&format!("{}\n", path.display())),
                Artefact::Image(image) => text.push_str(&format!("{name}: {}\n", image.manifest.digest)),
                Artefact::Function(built) => text.push_str(&format!(
                    "{name}: {} ({} bytes of its own, {} bytes shared)\n",
                    built.image.manifest.digest, built.own_bytes, built.shared_bytes
                )),
            },
        }
    }
    super::print(&text)
}
