//! Clones of real language runtimes: which of their generators of random numbers draw the same number in two clones of a
//! snapshot, and which never do. What is said of them in docs/snapshots.md is what is tested here.

use std::collections::{BTreeMap, BTreeSet};

use http::StatusCode;
use spore_test_harness::daemon::Daemon;
use spore_test_real::FixtureError;
use spore_test_real::programs::{Fixture, compiled, installed};

use crate::{chain, is_native_only, more_options};

/// Clones that are looked at, and how many in the subset that is always run.
const CLONES: usize = 1000;
const FEW_CLONES: usize = 100;

/// A program that answers with the numbers of all generators that it has: a name and a number in each line.
pub(crate) struct Case {
    pub(crate) name: &'static str,
    make: fn() -> Result<Fixture, FixtureError>,
    memory: &'static str,
    /// What the SDK's callback has drawn, if the program uses the SDK.
    by_callback: Option<&'static str>,
    /// What is the same in all clones.
    shared: &'static [&'static str],
}

pub(crate) const CASES: &[Case] = &[
    Case {
        name: "clones-python",
        make: installed::python_clones,
        memory: "128Mi",
        by_callback: None,
        shared: &["random"],
    },
    Case {
        name: "clones-python-sdk",
        make: installed::python_clones,
        memory: "128Mi",
        by_callback: Some("after_restore"),
        shared: &[],
    },
    Case {
        name: "clones-node",
        make: installed::node_clones,
        memory: "512Mi",
        by_callback: None,
        shared: &[
            "crypto.randomUUID",
            "webcrypto.randomUUID",
            "crypto.randomInt",
            "Math.random",
        ],
    },
    Case {
        name: "clones-node-sdk",
        make: installed::node_clones,
        memory: "512Mi",
        by_callback: Some("afterRestore"),
        shared: &[],
    },
    Case {
        name: "clones-go-sdk",
        make: compiled::go_clones,
        memory: "64Mi",
        by_callback: Some("spore.AfterRestore"),
        shared: &["math/rand/v2"],
    },
];

/// What is missing on this machine for a case, if anything is.
pub(crate) fn missing(case: &Case) -> Option<String> {
    let program = match case.name {
        name if name.contains("python") => installed::PYTHON_HTTP_SERVER,
        name if name.contains("node") => installed::NODE,
        _ => compiled::GO_HELLO,
    };
    program.missing()
}

/// Draws numbers in many clones, each of which answers once.
pub(crate) fn run(case: &Case, all: bool) -> Result<(), String> {
    let fixture = (case.make)().map_err(chain)?;
    if is_native_only() {
        return Ok(());
    }
    let mut options = fixture.function.options();
    options.extend(more_options());
    let more = [
        "--snapshot",
        "--annotation",
        "dev.spore.idle-timeout=0s",
        "--memory",
        case.memory,
    ];
    options.extend(more.map(str::to_owned));
    if case.by_callback.is_some() {
        options.extend(["--env", "WITH_SDK=1"].map(str::to_owned));
    }
    let options: Vec<&str> = options.iter().map(String::as_str).collect();
    let daemon = Daemon::start();
    daemon.spore_ok(&[&["deploy", case.name], &options[..]].concat());

    let clones = if all { CLONES } else { FEW_CLONES };
    let mut drawn: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for _ in 0..clones {
        let answer = daemon.get(&format!("/function/{}", case.name));
        let text = answer.text();
        if answer.status != StatusCode::OK || answer.header("x-spore-start") != "cold" {
            return Err(format!("{}\n{text}\n{}", answer.status, daemon.log()));
        }
        for line in text.lines() {
            let (name, number) = line.rsplit_once(' ').ok_or_else(|| format!("{line:?}"))?;
            drawn
                .entry(name.to_owned())
                .or_default()
                .insert(number.to_owned());
        }
    }
    for name in case.shared.iter().chain(&case.by_callback) {
        if !drawn.contains_key(*name) {
            return Err(format!("{name} was not drawn"));
        }
    }
    let wrong: Vec<String> = drawn
        .iter()
        .filter_map(|(name, numbers)| {
            let is_shared = case.shared.contains(&name.as_str());
            let expected = if is_shared { 1 } else { clones };
            let count = numbers.len();
            (count != expected).then(|| format!("{name}: {count} numbers in {clones} clones, not {expected}"))
        })
        .collect();
    if wrong.is_empty() {
        Ok(())
    } else {
        Err(wrong.join("\n"))
    }
}
