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

/// It may be built and run here for evaluation only, as its licence has it; nothing of it is kept or passed on.
const GATEWAY: (&str, &str) = ("github.com/openfaas/faas/gateway", "8d803bf");

/// As pip names it.
const SCHEMATHESIS: &str = "schemathesis==4.32.5";

const CERTIFIER: (&str, &str) = (
    "github.com/openfaas/certifier",
    "2e39d0587dc21f2cbbd9b2a874d197e71d6d0570",
);

/// The tests that OpenFaaS has for whatever offers its API, as one program.
pub(crate) fn certifier() -> &'static Result<PathBuf, String> {
    static FOUND: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    once(&FOUND, || {
        if let Some(path) = std::env::var_os("SPORE_CERTIFIER") {
            return Ok(path.into());
        }
        build_tests(CERTIFIER.0, CERTIFIER.1, "certifier.test")
    })
}

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

/// OpenFaaS's gateway.
pub(crate) fn gateway() -> &'static Result<PathBuf, String> {
    static FOUND: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    once(&FOUND, || {
        if let Some(path) = std::env::var_os("SPORE_OPENFAAS_GATEWAY") {
            return Ok(path.into());
        }
        install(GATEWAY.0, GATEWAY.1, "gateway")
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

/// A program that asks whatever an OpenAPI document lets it ask.
pub(crate) fn schemathesis() -> &'static Result<PathBuf, String> {
    static FOUND: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    once(&FOUND, || {
        if let Some(path) = std::env::var_os("SPORE_SCHEMATHESIS") {
            return Ok(path.into());
        }
        let folder = target_directory().join("python-tools").join(SCHEMATHESIS);
        let program = folder.join("bin/schemathesis");
        if program.exists() {
            return Ok(program);
        }
        let python = |program: &Path, arguments: &[&str]| {
            let mut command = Command::new(program);
            let output = command.args(arguments).stdin(Stdio::null()).output();
            let output = output.map_err(|error| format!("{} cannot be run: {error}", program.display()))?;
            match output.status.success() {
                true => Ok(()),
                false => Err(last_line(&output.stderr)),
            }
        };
        let place = folder.to_str().ok_or("the target folder's name is not UTF-8")?;
        let options = ["-m", "pip", "install", "--quiet", SCHEMATHESIS];
        python(Path::new("python3"), &["-m", "venv", place])
            .and_then(|()| python(&folder.join("bin/python3"), &options))
            .map_err(|reason| format!("{SCHEMATHESIS} cannot be installed by pip: {reason}"))?;
        Ok(program)
    })
}

fn last_line(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    text.lines().next_back().unwrap_or_default().to_owned()
}

/// Builds a Go program of a module's version, unless it was built before.
fn install(module: &str, version: &str, name: &str) -> Result<PathBuf, String> {
    let folder = target_directory().join("go-tools").join(version);
    let program = folder.join(name);
    if program.exists() {
        return Ok(program);
    }
    go(&folder, name, &["install", &format!("{module}@{version}")])?;
    Ok(program)
}

/// Builds the tests in the folder `tests` of a module's version, unless they were built before.
fn build_tests(module: &str, version: &str, name: &str) -> Result<PathBuf, String> {
    let folder = target_directory().join("go-tools").join(version);
    let program = folder.join(name);
    if program.exists() {
        return Ok(program);
    }
    std::fs::create_dir_all(&folder)
        .map_err(|error| format!("{} cannot be made: {error}", folder.display()))?;
    // A module that needs the other one, for Go builds nothing outside of one.
    if !folder.join("go.mod").exists() {
        go(&folder, name, &["mod", "init", "example.com/tools"])?;
    }
    go(&folder, name, &["get", &format!("{module}/tests@{version}")])?;
    go(
        &folder,
        name,
        &["test", "-c", "-o", name, &format!("{module}/tests")],
    )?;
    Ok(program)
}

/// Runs Go in a folder, into which it installs programs too.
fn go(folder: &Path, name: &str, arguments: &[&str]) -> Result<(), String> {
    let mut command = Command::new("go");
    if folder.exists() {
        command.current_dir(folder);
    }
    let output = command
        .args(arguments)
        .env("GOBIN", folder)
        .env("GOFLAGS", "-mod=mod")
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("go cannot be run: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    // The first line names all that was tried before it says why.
    let error = String::from_utf8_lossy(&output.stderr);
    let line = error.lines().next().unwrap_or_default();
    let reason = line.rsplit(": ").next().unwrap_or(line);
    Err(format!("{name} cannot be built by go: {reason}"))
}
