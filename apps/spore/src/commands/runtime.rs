//! `spore runtime`: the interpreters that functions of a language share.

use std::path::PathBuf;
use std::process::ExitCode;

use spore_builder::runtime::Runtime;
use spore_builder::{RuntimeLanguage, Runtimes};

use crate::arguments::{RuntimeBuildArguments, RuntimeCommand, RuntimeListArguments};

/// Makes a runtime, or lists those that are there.
pub(crate) fn run(command: &RuntimeCommand) -> anyhow::Result<ExitCode> {
    match command {
        RuntimeCommand::Build(arguments) => build(arguments),
        RuntimeCommand::List(arguments) => list(arguments),
    }
}

/// The runtime of a language; made now, from this machine's interpreter, if there is none yet.
pub(super) fn needed(language: RuntimeLanguage) -> anyhow::Result<Runtime> {
    let runtimes = runtimes()?;
    if let Some(runtime) = runtimes.find(language)? {
        return Ok(runtime);
    }
    let runtime = make(&runtimes, language, None)?;
    eprintln!(
        "made the runtime {} {}, which all functions of that language share (spore runtime list)",
        language.name(),
        runtime.version
    );
    Ok(runtime)
}

fn build(arguments: &RuntimeBuildArguments) -> anyhow::Result<ExitCode> {
    let runtime = make(&runtimes()?, arguments.language, arguments.from.clone())?;
    let mut text = format!(
        "{} {}: {}, {} bytes\n",
        runtime.language.name(),
        runtime.version,
        runtime.layer.digest,
        runtime.layer.bytes
    );
    for source in &runtime.sources {
        text.push_str(&format!("  {} {}\n", source.name, source.version));
    }
    super::print(&text)
}

fn list(arguments: &RuntimeListArguments) -> anyhow::Result<ExitCode> {
    let runtimes = runtimes()?;
    let mut found = Vec::new();
    for language in RuntimeLanguage::ALL {
        found.extend(runtimes.find(language)?);
    }
    if arguments.json {
        return super::print_json(&serde_json::to_value(&found)?);
    }
    let heads = ["LANGUAGE", "VERSION", "BYTES", "DIGEST", "FROM"];
    let mut rows = vec![heads.map(str::to_owned).to_vec()];
    for runtime in &found {
        rows.push(vec![
            runtime.language.name().to_owned(),
            runtime.version.clone(),
            runtime.layer.bytes.to_string(),
            runtime.layer.digest.clone(),
            runtime.interpreter.display().to_string(),
        ]);
    }
    super::print(&crate::output::table(&rows))
}

fn make(runtimes: &Runtimes, language: RuntimeLanguage, from: Option<PathBuf>) -> anyhow::Result<Runtime> {
    let progress = crate::output::spinner(format!("making the runtime of {}", language.name()));
    let result = runtimes.make(language, from.as_deref(), &mut |_| {});
    progress.finish_and_clear();
    Ok(result?)
}

fn runtimes() -> anyhow::Result<Runtimes> {
    Ok(Runtimes::new(super::default_data_folder()?.join("runtimes")))
}
