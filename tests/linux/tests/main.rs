//! The differential suite: small Linux programs and command lines run natively and as unikernels, and what they print
//! and how they end must be the same.
//!
//! Each file `programs/AREA/NAME.c` is the test `AREA/NAME`; each line of `busybox.txt` is the test `busybox/NAME`.
//! No expected output is written down anywhere: it is always what Linux, here and now, gives.
//!
//! - `SPORE_BIN` names the binary to test; otherwise a release build is made.
//! - `SPORE_LINUX_OPTIONS` are more options for `spore run`, such as `--no-syscall-rewriting`.
//! - `SPORE_LINUX_NATIVE_ONLY=1` starts no unikernel: each program runs natively, and its runs must agree;
//!   `SPORE_LINUX_NATIVE_RUNS` says how often (3).
//! - `SPORE_UPDATE_DOCS=1` rewrites `docs/system-calls.md` instead of checking it.
//!
//! Where unikernels cannot be run in either form, the tests that start some are shown as ignored, by name.

use std::process::ExitCode;
use std::sync::Arc;

use libtest_mimic::{Arguments, Failed, Trial};
use spore_test_harness::unikernels_can_run;

mod busybox;
mod catalogue;
mod compile;
mod differences;
mod document;
mod rootfs;
mod run;

use differences::Differences;
use run::{Ending, Mode};

/// What all tests share.
struct Suite {
    mode: Mode,
    differences: Differences,
    glibc: rootfs::Glibc,
    busybox: busybox::Program,
}

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    leave_no_core_files();
    let mode = Mode::from_environment();
    let programs: Vec<_> = catalogue::programs().into_iter().map(Arc::new).collect();
    let commands = busybox::commands();
    let names: Vec<String> = programs
        .iter()
        .map(|program| program.test_name())
        .chain(commands.iter().map(busybox::Command::test_name))
        .collect();
    let suite = Arc::new(Suite {
        mode,
        differences: Differences::read(),
        glibc: rootfs::Glibc::of(&programs),
        busybox: busybox::Program::copy(),
    });

    let is_ignored = matches!(mode, Mode::Compare) && !unikernels_can_run();
    let mut trials = own_tests(&suite, &programs, &commands, names);
    for program in programs {
        let suite = suite.clone();
        let name = program.test_name();
        let trial = Trial::test(name.clone(), move || {
            suite.judge(&name, || suite.run_program(&program))
        });
        trials.push(trial.with_ignored_flag(is_ignored));
    }
    for command in commands {
        let suite = suite.clone();
        let name = command.test_name();
        let trial = Trial::test(name.clone(), move || {
            suite.judge(&name, || busybox::run(&command, &suite.busybox, suite.mode))
        });
        trials.push(trial.with_ignored_flag(is_ignored));
    }
    libtest_mimic::run(&arguments, trials).exit_code()
}

/// Programs that a signal ends must not leave the image of their memory behind. They inherit this limit.
fn leave_no_core_files() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let maximum = getrlimit(Resource::Core).maximum;
    let none = Rlimit {
        current: Some(0),
        maximum,
    };
    setrlimit(Resource::Core, none).expect("a limit can be lowered");
}

/// Tests of what the suite says about itself.
fn own_tests(
    suite: &Arc<Suite>,
    programs: &[Arc<catalogue::Program>],
    commands: &[busybox::Command],
    names: Vec<String>,
) -> Vec<Trial> {
    let document = document::of(programs.iter().map(Arc::as_ref), commands, &suite.differences);
    let unknown = suite.differences.unknown_among(&names);
    let twice = catalogue::named_twice(names);
    vec![
        Trial::test("suite/document", move || {
            document::check(&document).map_err(Failed::from)
        }),
        Trial::test("suite/known-differences", move || match unknown.is_empty() {
            true => Ok(()),
            false => Err(format!("known-differences.txt names no test of the suite: {unknown:?}").into()),
        }),
        Trial::test("suite/names", move || match twice.is_empty() {
            true => Ok(()),
            false => Err(format!("names that are given twice: {twice:?}").into()),
        }),
    ]
}

impl Suite {
    /// The endings of a program that must agree: natively and as a unikernel, or several native ones.
    fn run_program(&self, program: &catalogue::Program) -> Result<Vec<Ending>, String> {
        let file = compile::program(program)?;
        let native = || run::native(&file);
        if let Mode::NativeOnly { runs } = self.mode {
            return (0..runs).map(|_| native()).collect();
        }
        let unikernel = if program.is_dynamic() {
            run::unikernel_in(self.glibc.folder()?, &format!("/bin/{}", program.name), &[])
        } else {
            run::unikernel(&file)
        };
        Ok(vec![native()?, unikernel?])
    }

    /// Compares, and takes the list of known differences into account.
    fn judge(&self, name: &str, run: impl FnOnce() -> Result<Vec<Ending>, String>) -> Result<(), Failed> {
        let endings = run()?;
        let first = &endings[0];
        if first.is_unprepared() {
            return Err(format!("the program could not do natively what it is about:\n{first}").into());
        }
        let different = endings.iter().skip(1).find(|ending| !ending.agrees_with(first));
        match (different, self.differences.reason(name)) {
            (None, None) => Ok(()),
            (Some(_), Some(_)) if matches!(self.mode, Mode::Compare) => Ok(()),
            (None, Some(_)) if matches!(self.mode, Mode::Compare) => {
                Err("is listed in known-differences.txt but agrees: take it off the list".into())
            }
            (None, Some(_)) => Ok(()),
            (Some(different), _) => Err(first.difference(different).into()),
        }
    }
}
