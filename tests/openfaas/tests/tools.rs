//! The tools that the tests drive.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use spore_test_harness::target_directory;

use crate::once;

/// Its releases are tagged in a way that Go does not take for versions, so a commit stands for one.
const FAAS_CLI: (&str, &str) = (
    "github.com/openfaas/faas-cli",
    "c8191b71e7edf10be3b660ddcaee52c11de79238",
);

/// OpenFaaS's command line.
pub(crate) fn faas_cli() -> &'static Result<PathBuf, String> {
    static FOUND: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    once(&FOUND, || {
        if let Some(path) = std::env::var_os("SPORE_FAAS_CLI") {
            return Ok(path.into());
        }
        install(FAAS_CLI.0, FAAS_CLI.1, "faas-cli")
    })
}

/// Prometheus's tool that checks metrics.
pub(crate) fn promtool() -> &'static Result<PathBuf, String> {
    static FOUND: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    once(&FOUND, || {
        let path = Path::new("/usr/bin/promtool");
        let missing = || "promtool is not there: apt-get install prometheus".to_owned();
        path.exists().then(|| path.to_owned()).ok_or_else(missing)
    })
}

/// Builds a Go program of a module's version, unless it was built before.
fn install(module: &str, version: &str, name: &str) -> Result<PathBuf, String> {
    let folder = target_directory().join("go-tools").join(version);
    let program = folder.join(name);
    if program.exists() {
        return Ok(program);
    }
    let output = Command::new("go")
        .args(["install", &format!("{module}@{version}")])
        .env("GOBIN", &folder)
        .env("GOFLAGS", "-mod=mod")
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("go cannot be run: {error}"))?;
    if output.status.success() && program.exists() {
        return Ok(program);
    }
    let error = String::from_utf8_lossy(&output.stderr);
    // The first line names all that was tried before it says why.
    let line = error.lines().next().unwrap_or_default();
    let reason = line.rsplit(": ").next().unwrap_or(line);
    Err(format!("{name} cannot be built by go install: {reason}"))
}
