//! The dashboard (`/ui/`) in headless Chromium, with the real daemon and real functions.
//!
//! Screenshots of what was seen are kept: in the folder that `SPORE_TEST_OUTPUT` names, otherwise in `test-output/ui` of the
//! target folder. `SPORE_BIN` names the binary to test (otherwise a release build is made), `SPORE_CHROMIUM` a browser.

use std::path::PathBuf;
use std::process::ExitCode;

use libtest_mimic::{Arguments, Trial};
use spore_test_harness::{program, target_directory, unikernels_can_run};

mod browser;
mod dashboard;

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let trials = dashboard::TESTS.iter().map(|(name, run)| {
        let trial = Trial::test(*name, || {
            run();
            Ok(())
        });
        let reason = if !unikernels_can_run() {
            Some("unikernels cannot be run here")
        } else if browser::program().is_none() {
            Some("there is no chromium: install it, or name one in SPORE_CHROMIUM")
        } else {
            None
        };
        match reason {
            Some(reason) => trial.with_kind(reason).with_ignored_flag(true),
            None => trial,
        }
    });
    let conclusion = libtest_mimic::run(&arguments, trials.collect());
    program::remove_built();
    conclusion.exit_code()
}

/// Where screenshots go.
fn output_folder() -> PathBuf {
    let folder = std::env::var_os("SPORE_TEST_OUTPUT").map_or_else(
        || target_directory().join("test-output/ui"),
        |folder| PathBuf::from(folder).join("ui"),
    );
    std::fs::create_dir_all(&folder).expect("the folder for screenshots can be made");
    folder
}
