//! Builds the programs, each when its test runs, and keeps them for the next run.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::SystemTime;

use spore_test_harness::target_directory;

use crate::catalogue::{self, Program};

/// Builds the program unless that was done since its source or a header changed, and returns the file.
pub(crate) fn program(program: &Program) -> Result<PathBuf, String> {
    let folder = target_directory().join("linux-programs").join(program.area);
    let built = folder.join(&program.name);
    if is_fresh(&built, program) {
        return Ok(built);
    }
    std::fs::create_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let (compiler, options): (_, &[&str]) = if program.is_dynamic() {
        ("gcc", &[])
    } else {
        ("musl-gcc", &["-static"])
    };
    // Under a name of its own first: another run of the suite may build the same program.
    let unfinished = folder.join(format!("{}.{}", program.name, std::process::id()));
    let mut command = Command::new(compiler);
    command
        .args(options)
        .args(["-O1", "-Wall", "-Wextra", "-Werror", "-o"])
        .arg(&unfinished)
        .arg(&program.source);
    let output = command
        .output()
        .map_err(|error| format!("{compiler} cannot be run ({error}): install musl-tools and gcc"))?;
    if !output.status.success() {
        let messages = String::from_utf8_lossy(&output.stderr);
        return Err(format!("{command:?} failed:\n{messages}"));
    }
    std::fs::rename(&unfinished, &built).map_err(|error| format!("{}: {error}", built.display()))?;
    Ok(built)
}

fn is_fresh(built: &Path, program: &Program) -> bool {
    let Some(built) = modified(built) else {
        return false;
    };
    let headers =
        std::fs::read_dir(catalogue::folder().join("programs")).expect("the repository is readable");
    let headers = headers.filter_map(|entry| Some(entry.ok()?.path()));
    let mut sources = headers
        .filter(|path| path.is_file())
        .chain([program.source.clone()]);
    sources.all(|source| modified(&source).is_some_and(|changed| changed < built))
}

fn modified(path: &Path) -> Option<SystemTime> {
    path.metadata().ok()?.modified().ok()
}
