//! Kills, full disks, limits and damage: what must not be lost, and who must not notice.
//!
//! Every test starts a daemon of its own, and functions in virtual machines or processes, whichever can be had; those that
//! make mounts or control groups need the superuser. Where these cannot be had, they are shown as ignored, by name.
//!
//! | variable | what it sets |
//! |---|---|
//! | `SPORE_BIN` | the binary to test; otherwise a release build is made |
//! | `SPORE_TEST_ISOLATION` | `vm` or `process`, for the form that is not the default here |
//! | `SPORE_FAULTS_KILLS` | how often the daemon is killed at a random moment (5) |
//! | `SPORE_FAULTS_QUEUED` | how many invocations that nobody waits for are accepted meanwhile (200 for each kill) |
//! | `SPORE_FAULTS_SEED` | the seed of these moments; otherwise one is drawn and printed |

use std::process::ExitCode;

use libtest_mimic::{Arguments, Trial};
use spore_test_harness::registry::has_tools;
use spore_test_harness::{program, unikernels_can_run};

mod damage;
mod deployments;
mod disk;
mod fixtures;
mod groups;
mod guests;
mod images;
mod kill_daemon;
mod kill_monitor;
mod limits;
mod queued;

/// What a test needs of the machine besides unikernels.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Needs {
    Nothing,
    /// The superuser, to make mounts.
    Mounts,
    /// A place in the control groups of this controller.
    Groups(&'static str),
    /// This command.
    Tool(&'static str),
}

/// One test: its name, what it needs, and its code, which panics if something is wrong.
struct Test {
    name: &'static str,
    needs: Needs,
    run: fn(),
}

/// The tests of a module.
macro_rules! tests {
    ($needs:expr; $($name:ident),+ $(,)?) => {
        &[$(crate::Test {
            name: concat!(module_path!(), "::", stringify!($name)),
            needs: $needs,
            run: $name,
        }),+]
    };
}
pub(crate) use tests;

fn is_met(needs: Needs) -> bool {
    let is_superuser = rustix::process::geteuid().is_root();
    match needs {
        Needs::Nothing => true,
        Needs::Mounts => is_superuser,
        Needs::Groups(controller) => is_superuser && groups::is_there(controller),
        Needs::Tool(name) => has_tools(&[name]),
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let suites = [
        damage::TESTS,
        deployments::TESTS,
        disk::TESTS,
        guests::TESTS,
        images::TESTS,
        kill_daemon::TESTS,
        kill_monitor::TESTS,
        limits::TESTS,
        limits::TESTS_OF_PROCESSES,
        limits::TESTS_OF_USERS,
        limits::TESTS_OF_MEMORY,
        queued::TESTS,
        queued::TESTS_ON_NATS,
    ];
    let can_run = unikernels_can_run();
    let trials = suites.into_iter().flatten().map(|test| {
        let run = test.run;
        let name = test.name.trim_start_matches("faults::");
        let trial = Trial::test(name, move || {
            run();
            Ok(())
        });
        trial.with_ignored_flag(!can_run || !is_met(test.needs))
    });
    let conclusion = libtest_mimic::run(&arguments, trials.collect());
    program::remove_built();
    conclusion.exit_code()
}
