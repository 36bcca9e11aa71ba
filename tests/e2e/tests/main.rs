//! The end-to-end tests: the real daemon, real functions in real unikernels, real HTTP.
//!
//! Every test starts a daemon of its own, so the tests run at the same time and each can count what its daemon
//! holds. Tests that start functions are shown as ignored, by name, where unikernels cannot be run in either form.
//!
//! `SPORE_TEST_ISOLATION` names the form, `vm` or `process`; otherwise it is the one that the daemon chooses.
//! `SPORE_BIN` names the binary to test (otherwise a release build is made), `SPORE_TEST_INVOCATIONS` how many
//! invocations the load test makes (10,000),
//! `SPORE_TEST_BODY_MIB` how long the large body is (96).

use std::process::ExitCode;

use libtest_mimic::{Arguments, Trial};
use spore_test_harness::{program, unikernels_can_run};

mod bench;
mod bounds;
mod chains;
mod clones;
mod commands;
mod confinement;
mod density;
mod deploy;
mod develop;
mod early;
mod egress;
mod faults;
mod fresh;
mod hostile;
mod http2;
mod images;
mod invoke;
mod lambda;
mod large;
mod lifecycle;
mod load;
mod microvm;
mod namespaces;
mod nats;
mod output;
mod process;
mod queued;
mod resets;
mod rolling;
mod roots;
mod run;
mod scaling;
mod secrets;
mod sizes;
mod snapshots;
mod statistics;
mod templates;
mod triggers;
mod tunnels;
mod upgrades;

/// One test: its name, whether it starts functions, and its code, which panics if something is wrong.
struct Test {
    name: &'static str,
    starts_functions: bool,
    /// Commands that it needs besides.
    tools: &'static [&'static str],
    run: fn(),
}

/// The tests of a module that start functions.
macro_rules! with_functions {
    ($($name:ident),+ $(,)?) => {
        &[$(crate::Test {
            name: concat!(module_path!(), "::", stringify!($name)),
            starts_functions: true,
            tools: &[],
            run: $name,
        }),+]
    };
}
/// Those that need commands which a machine may not have.
macro_rules! with_tools {
    ($($name:ident: [$($tool:literal),*]),+ $(,)?) => {
        &[$(crate::Test {
            name: concat!(module_path!(), "::", stringify!($name)),
            starts_functions: true,
            tools: &[$($tool),*],
            run: $name,
        }),+]
    };
}
/// The tests of a module that need nothing but the daemon.
macro_rules! without_functions {
    ($($name:ident),+ $(,)?) => {
        &[$(crate::Test {
            name: concat!(module_path!(), "::", stringify!($name)),
            starts_functions: false,
            tools: &[],
            run: $name,
        }),+]
    };
}
pub(crate) use {with_functions, with_tools, without_functions};

fn is_installed(tool: &str) -> bool {
    if tool == "microvms" {
        static CAN_RUN: std::sync::OnceLock<bool> = std::sync::OnceLock::new();
        return *CAN_RUN.get_or_init(microvm::can_run);
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    tool.starts_with('/') && std::path::Path::new(tool).is_file()
        || std::env::split_paths(&path).any(|folder| folder.join(tool).is_file())
}

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let suites = [
        deploy::TESTS_OF_THE_COMMAND_LINE,
        run::TESTS_OF_THE_COMMAND_LINE,
        chains::TESTS,
        bounds::TESTS,
        bench::TESTS,
        clones::TESTS,
        commands::TESTS,
        commands::TESTS_OF_INTERPRETERS,
        confinement::TESTS,
        density::TESTS,
        deploy::TESTS,
        develop::TESTS,
        early::TESTS,
        egress::TESTS,
        faults::TESTS,
        fresh::TESTS,
        hostile::TESTS,
        http2::TESTS,
        images::TESTS,
        invoke::TESTS,
        lambda::TESTS,
        large::TESTS,
        lifecycle::TESTS,
        microvm::TESTS,
        nats::TESTS,
        namespaces::TESTS,
        output::TESTS,
        process::TESTS,
        queued::on_disk::TESTS,
        queued::on_nats::TESTS,
        resets::TESTS,
        rolling::TESTS,
        rolling::TESTS_WITH_WRK,
        roots::TESTS,
        run::TESTS,
        scaling::TESTS,
        secrets::TESTS,
        sizes::TESTS,
        snapshots::TESTS,
        statistics::TESTS,
        templates::TESTS,
        triggers::TESTS,
        triggers::TESTS_OF_SUBJECTS,
        tunnels::TESTS,
        upgrades::TESTS,
        load::TESTS,
    ];
    let can_run = unikernels_can_run();
    let trials = suites.into_iter().flatten().map(|test| {
        let name = test.name.trim_start_matches("e2e::");
        let run = test.run;
        let trial = Trial::test(name, move || {
            run();
            Ok(())
        });
        // Without unikernels nothing but the command line can be tested.
        let missing = test.tools.iter().find(|tool| !is_installed(tool));
        if let Some(tool) = missing {
            eprintln!("skipped: {name}, for there is no {tool}");
        }
        trial.with_ignored_flag(missing.is_some() || test.starts_functions && !can_run)
    });
    let conclusion = libtest_mimic::run(&arguments, trials.collect());
    program::remove_built();
    conclusion.exit_code()
}
