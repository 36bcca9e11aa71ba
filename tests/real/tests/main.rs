//! Real programs, unmodified: each runs natively and as a function, must answer the same, and must serve 1,000 requests
//! over 8 connections without an error.
//!
//! In clones of a snapshot, generators of random numbers must draw other numbers, as far as that is promised.
//!
//! Programs with AWS's own libraries answer as Lambda functions.
//!
//! Each program is one test. A program whose tools or packages are not on this machine is shown as ignored, with what
//! is missing. `python3`, Node, Go and the C library's threads are always run; the others if `SPORE_REAL_ALL=1` is
//! set, or by their names: `cargo test -p spore-test-real -- --include-ignored nginx`.
//!
//! - `SPORE_BIN` names the binary to test; otherwise a release build is made.
//! - `SPORE_REAL_OPTIONS` are more options for `spore deploy` and `spore run`, such as `--no-syscall-rewriting`.
//! - `SPORE_REAL_NATIVE_ONLY=1` starts no function: each program must give the same answers twice, as a process.

use std::process::ExitCode;

use libtest_mimic::{Arguments, Trial};
use spore_test_harness::unikernels_can_run;
use spore_test_real::programs::{self, Program};

mod clones;
mod compare;
mod lambda;
mod load;
mod redis;
mod resets;

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let mut trials: Vec<Trial> = programs::all().into_iter().map(trial).collect();
    trials.push(named(
        "redis",
        false,
        programs::installed::redis::missing(),
        redis::run,
    ));
    let leaving = programs::installed::PYTHON_LEAVING;
    let missing = leaving
        .missing()
        .or_else(|| is_native_only().then(|| "a process is not reset".to_owned()));
    trials.push(named(leaving.name, leaving.is_fast, missing, resets::run));
    trials.extend(clones::CASES.iter().map(|case| {
        let run = move || clones::run(case, is_set("SPORE_REAL_ALL"));
        named(case.name, true, clones::missing(case), run)
    }));
    trials.extend(lambda::CASES.iter().map(|case| {
        named(case.name, case.is_fast, lambda::missing(case), move || {
            lambda::run(case)
        })
    }));
    libtest_mimic::run(&arguments, trials).exit_code()
}

fn trial(program: Program) -> Trial {
    named(program.name, program.is_fast, program.missing(), move || {
        compare::run(&program)
    })
}

/// A test that is ignored, with the reason beside its name, if it cannot or need not be run.
fn named(
    name: &str,
    is_fast: bool,
    missing: Option<String>,
    run: impl FnOnce() -> Result<(), String> + Send + 'static,
) -> Trial {
    let reason = if missing.is_some() {
        missing
    } else if !is_native_only() && !unikernels_can_run() {
        Some("unikernels cannot be run here".to_owned())
    } else {
        (!is_fast && !is_set("SPORE_REAL_ALL")).then(|| "SPORE_REAL_ALL is not 1".to_owned())
    };
    let trial = Trial::test(name, move || run().map_err(Into::into));
    match reason {
        Some(reason) => trial.with_kind(reason).with_ignored_flag(true),
        None => trial,
    }
}

/// Whether a variable is set to 1.
fn is_set(name: &str) -> bool {
    std::env::var_os(name).is_some_and(|value| value == "1")
}

/// Whether nothing but native runs are wanted.
fn is_native_only() -> bool {
    is_set("SPORE_REAL_NATIVE_ONLY")
}

/// More options for Spore.
fn more_options() -> Vec<String> {
    let options = std::env::var("SPORE_REAL_OPTIONS").unwrap_or_default();
    options.split_whitespace().map(str::to_owned).collect()
}

/// An error with its causes, as the message of a test.
fn chain(error: impl std::error::Error) -> String {
    spore_test_harness::daemon::chain(&error)
}
