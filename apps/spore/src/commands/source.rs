//! `spore new` and `spore build`: what needs no gateway.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use spore_builder::c::{self, BuildError, BuiltProgram};
use spore_builder::settings::{self, FunctionSettings, Language};
use spore_builder::template;

use crate::arguments::{BuildArguments, NewArguments, TemplateLanguage};

/// Writes a new function.
pub(crate) fn new(arguments: &NewArguments) -> anyhow::Result<ExitCode> {
    let folder = arguments
        .directory
        .clone()
        .unwrap_or_else(|| PathBuf::from(arguments.name.as_str()));
    let language = match arguments.lang {
        TemplateLanguage::C => Language::C,
    };
    let files = template::create(&folder, &arguments.name, language)?;
    let shown = folder.display();
    let mut text = String::new();
    for file in files {
        text.push_str(&format!("  {}\n", folder.join(file).display()));
    }
    super::print(&format!(
        "{text}{} is written. Next: spore deploy {shown}\n",
        arguments.name
    ))
}

/// Builds a function and says where the program is.
pub(crate) fn build(arguments: &BuildArguments) -> anyhow::Result<ExitCode> {
    let settings = settings::load(&arguments.directory)?;
    let program = build_program(&arguments.directory, &settings)?;
    super::print(&format!("{}\n", program.path.display()))
}

/// Builds a function; what the compiler prints goes to standard error as it is.
pub(crate) fn build_program(folder: &Path, settings: &FunctionSettings) -> Result<BuiltProgram, BuildError> {
    let progress = crate::output::spinner(format!("building {}", settings.name));
    let result = match settings.language {
        Language::C => c::build(folder),
    };
    progress.finish_and_clear();
    match &result {
        Ok(program) => eprint!("{}", program.warnings),
        Err(BuildError::Compile { diagnostics, .. }) => eprint!("{diagnostics}"),
        Err(_) => {}
    }
    result
}
