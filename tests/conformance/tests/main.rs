//! The contract of sandboxes (`host/sandbox`), kind by kind: the same programs, the same daemon, the same questions. What
//! runc does is what the tests were written against, so that a test is not made of what one sandbox happens to do.
//!
//! Each test is there once for each kind, `KIND::NAME`. A kind that this machine does not have is shown as ignored, with
//! the reason that `spore info` gives. `SPORE_BIN` names the binary to test; `SPORE_TEST_ISOLATION` the form of unikernels.

use std::collections::BTreeMap;
use std::process::{Command, ExitCode};

use libtest_mimic::{Arguments, Trial};
use spore_test_harness::daemon::{Daemon, binary};
use spore_test_harness::{program, unikernels_can_run};

mod ends;
mod foreign;
mod leftovers;
mod life;
mod limits;
mod traffic;
mod users;

/// The kinds, whether this machine has them or not.
const KINDS: [&str; 9] = [
    "unikernel",
    "runc",
    "crun",
    "gvisor",
    "microvm",
    // The same kind, with these as monitors instead of QEMU.
    FIRECRACKER,
    CLOUD_HYPERVISOR,
    "foreign",
    // The same kind, with unikernels for Solo5's hvt instead of QEMU.
    "foreign-hvt",
];

const FIRECRACKER: &str = "firecracker";
const CLOUD_HYPERVISOR: &str = "cloud-hypervisor";

/// One test: its name, and its code, which is told the kind and panics if something is wrong.
type Test = (&'static str, fn(&'static str));

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let missing = missing();
    let suites = [
        life::TESTS,
        traffic::TESTS,
        ends::TESTS,
        limits::TESTS,
        leftovers::TESTS,
        users::TESTS,
    ]
    .concat();
    let trials = KINDS
        .iter()
        .flat_map(|kind| suites.iter().map(|test| trial(kind, *test, missing.get(*kind))))
        .chain(["foreign", "foreign-hvt"].map(|kind| trial(kind, foreign::READINESS, missing.get(kind))))
        .chain(
            foreign::HVT
                .iter()
                .map(|test| trial("foreign-hvt", *test, missing.get("foreign-hvt"))),
        );
    let conclusion = libtest_mimic::run(&arguments, trials.collect());
    program::remove_built();
    conclusion.exit_code()
}

fn trial(kind: &'static str, (name, run): Test, missing: Option<&String>) -> Trial {
    let trial = Trial::test(format!("{kind}::{name}"), move || {
        run(kind);
        Ok(())
    });
    let reason = missing
        .cloned()
        .or_else(|| foreign::unasked(kind, name).map(str::to_owned))
        .or_else(|| life::unasked(kind, name).map(str::to_owned));
    match reason {
        Some(reason) => trial.with_kind(reason).with_ignored_flag(true),
        None => trial,
    }
}

/// The kind of sandbox by the name that deployments have for it.
pub(crate) fn sandbox(kind: &str) -> &str {
    match kind {
        FIRECRACKER | CLOUD_HYPERVISOR => "microvm",
        _ => kind.split_once('-').map_or(kind, |(sandbox, _)| sandbox),
    }
}

/// What a daemon is told, so that it has the kind.
fn options(kind: &str) -> &[&str] {
    match kind {
        FIRECRACKER => &["--microvm-monitor", FIRECRACKER],
        CLOUD_HYPERVISOR => &["--microvm-monitor", CLOUD_HYPERVISOR],
        _ => &[],
    }
}

/// A daemon that has the kind.
pub(crate) fn daemon(kind: &str) -> Daemon {
    daemon_with(kind, &[])
}

/// The same with further options.
pub(crate) fn daemon_with(kind: &str, more: &[&str]) -> Daemon {
    Daemon::start_with(&[options(kind), more].concat())
}

/// Why each kind that is not here is not here, as the binary says.
fn missing() -> BTreeMap<String, String> {
    let info = |kind: &str| -> serde_json::Value {
        let mut command = Command::new(binary());
        let output = command.args(["info", "--json"]).args(options(kind)).output();
        let output = output.expect("the spore binary can be run");
        serde_json::from_slice(&output.stdout).unwrap_or_default()
    };
    let common = info("");
    let reason = |kind: &str| {
        let own = (!options(kind).is_empty()).then(|| info(kind));
        let states = own.as_ref().unwrap_or(&common)["sandboxes"].as_array();
        let state = states.and_then(|states| states.iter().find(|state| state["name"] == sandbox(kind)));
        match state {
            Some(state) if state["available"] == true => None,
            Some(state) => Some(
                state["reason"]
                    .as_str()
                    .unwrap_or("it cannot be had here")
                    .to_owned(),
            ),
            None => Some("`spore info` says nothing of it".to_owned()),
        }
    };
    let mut missing: BTreeMap<_, _> = KINDS
        .iter()
        .filter_map(|kind| Some(((*kind).to_owned(), reason(kind)?)))
        .collect();
    for (kind, reason) in foreign::missing() {
        missing.insert(kind.to_owned(), reason.to_owned());
    }
    if !unikernels_can_run() {
        let reason = "unikernels cannot be run here in the form that is asked for".to_owned();
        missing.insert("unikernel".to_owned(), reason);
    }
    missing
}
