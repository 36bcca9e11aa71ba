//! Cold starts: copies of a snapshot, beside the same image booted, both in the process form, and the same program as a process.
//! Request in to last byte out, each on a connection of its own.

use anyhow::Result;
use spore_test_real::programs::Program;
use spore_test_real::programs::compiled::GO_HELLO;
use spore_test_real::programs::installed::{NODE, PYTHON_HTTP_SERVER};

use crate::runtimes::{Planned, Runtime};
use crate::subject::{self, ColdFunction, SetUp, Subject};

/// What a function is called that is booted for each invocation, beside the one that is copied.
const BOOTED: &str = "spore, booted";
/// What a copy is called that was asked once before the snapshot was made, by the hook that an author can name.
const ASKED_BEFORE: &str = "spore, asked before";
/// The variable, and a path that does no harm.
const HOOK: &str = "SPORE_BEFORE_SNAPSHOT=/";
/// What both are called in the process form, where the others are in virtual machines.
const IN_PROCESS: [&str; 2] = ["spore in a process", "spore in a process, booted"];
/// The programs besides the one in C, each with the name of its series.
const PROGRAMS: [(Program, &str); 3] = [
    (GO_HELLO, "cold-go"),
    (PYTHON_HTTP_SERVER, "cold-python"),
    (NODE, "cold-node"),
];
/// Annotations of a function of which no instance is kept.
const NOT_KEPT: (&str, &str) = ("dev.spore.idle-timeout", "0s");
/// And of one whose instances are copies besides.
const CLONED: (&str, &str) = ("dev.spore.snapshot", "true");

/// The subjects for the function in C: a copy, a boot, both in the process form, and a process.
pub(crate) fn of_c(set_up: &SetUp, in_processes: Option<&SetUp>) -> Result<Vec<Box<dyn Subject>>> {
    let mut subjects: Vec<Box<dyn Subject>> = Vec::new();
    for (set_up, [copied, booted]) in set_ups(set_up, in_processes) {
        set_up.deploy_function("cloned", &[NOT_KEPT, CLONED]);
        subjects.push(Box::new(ColdFunction::new(set_up, "cloned").called(copied)));
        subjects.push(Box::new(ColdFunction::new(set_up, "cold").called(booted)));
    }
    subjects.push(subject::native_start(set_up));
    Ok(subjects)
}

/// The daemons, with what their functions are called: one that is copied, and one that is booted.
fn set_ups<'a>(
    set_up: &'a SetUp,
    in_processes: Option<&'a SetUp>,
) -> impl Iterator<Item = (&'a SetUp, [&'static str; 2])> {
    let in_processes = in_processes.map(|set_up| (set_up, IN_PROCESS));
    [(set_up, ["spore", BOOTED])].into_iter().chain(in_processes)
}

/// The subjects for the other programs that can be had here, with the names of their series.
pub(crate) fn of_programs(set_up: &SetUp, in_processes: Option<&SetUp>) -> Result<Vec<Planned>> {
    let mut series = Vec::new();
    for (program, kind) in PROGRAMS {
        let Some(runtime) = Runtime::deploy(set_up, program)? else {
            continue;
        };
        let [booted, cloned] = [format!("{kind}-booted"), format!("{kind}-cloned")];
        let mut subjects: Vec<Box<dyn Subject>> = Vec::new();
        for (set_up, [copied_name, booted_name]) in set_ups(set_up, in_processes) {
            runtime.deploy_as(set_up, &booted, &[NOT_KEPT]);
            runtime.deploy_as(set_up, &cloned, &[NOT_KEPT, CLONED]);
            subjects.push(Box::new(ColdFunction::new(set_up, &cloned).called(copied_name)));
            subjects.push(Box::new(ColdFunction::new(set_up, &booted).called(booted_name)));
        }
        let asked = format!("{kind}-asked");
        let mut options = subject::annotation_options(&[NOT_KEPT, CLONED]);
        options.extend(["--env", HOOK].map(str::to_owned));
        let options: Vec<&str> = options.iter().map(String::as_str).collect();
        runtime.deploy_with(set_up, &asked, &options);
        subjects.push(Box::new(ColdFunction::new(set_up, &asked).called(ASKED_BEFORE)));
        subjects.push(Box::new(runtime.native_start()));
        series.push((kind, subjects));
    }
    Ok(series)
}
