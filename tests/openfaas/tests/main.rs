//! Clients that were made for OpenFaaS, unmodified, against the real daemon with real functions.
//!
//! Each needs a tool that is not part of this repository. One that is not there, and cannot be had, makes its tests ignored,
//! with the reason beside their names.
//!
//! - `SPORE_BIN` names the binary to test; otherwise a release build is made.
//! - `SPORE_CERTIFIER` names the certifier's tests as one program (`go test -c ./tests` in its repository), and
//!   `SPORE_FAAS_CLI` a `faas-cli`, `SPORE_OPENFAAS_GATEWAY` a gateway, `SPORE_SCHEMATHESIS` a `schemathesis`; otherwise a pinned version is built by `go`, where the Go module proxy has it.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::OnceLock;

use libtest_mimic::{Arguments, Trial};
use spore_test_harness::unikernels_can_run;

mod certifier;
mod faas_cli;
mod gateway;
mod prometheus;
mod schemathesis;
mod tools;

/// Where a tool is, or why it cannot be had.
type Tool = fn() -> &'static Result<PathBuf, String>;

/// One test: its name, its tool, and its code, which panics if something is wrong.
type Test = (&'static str, Tool, fn());

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let suites = [
        certifier::TESTS,
        faas_cli::TESTS,
        gateway::TESTS,
        prometheus::TESTS,
        schemathesis::TESTS,
    ]
    .concat();
    let trials = suites.into_iter().map(trial).collect();
    libtest_mimic::run(&arguments, trials).exit_code()
}

fn trial((name, tool, run): Test) -> Trial {
    let trial = Trial::test(name, move || {
        run();
        Ok(())
    });
    let reason = if unikernels_can_run() {
        tool().as_ref().err().cloned()
    } else {
        Some("unikernels cannot be run here".to_owned())
    };
    match reason {
        Some(reason) => trial.with_kind(reason).with_ignored_flag(true),
        None => trial,
    }
}

/// Finds a tool once.
fn once(
    found: &'static OnceLock<Result<PathBuf, String>>,
    find: fn() -> Result<PathBuf, String>,
) -> &'static Result<PathBuf, String> {
    found.get_or_init(find)
}
