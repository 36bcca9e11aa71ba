//! Attempts to get out of the jail of a monitor, from within a process that has gone there as a monitor does.
//!
//! This program is both sides: it starts itself as a monitor would be started, and that process goes to jail with the
//! same functions and then tries something. No monitor can be made to do any of it.

use std::process::ExitCode;

use libtest_mimic::{Arguments, Trial};

mod attempts;
mod calls;
mod prisoner;

fn main() -> ExitCode {
    if std::env::args_os()
        .nth(1)
        .is_some_and(|argument| argument == "monitor")
    {
        return prisoner::main();
    }
    let arguments = Arguments::from_args();
    let trials = [calls::trials(), attempts::trials()].into_iter().flatten();
    libtest_mimic::run(&arguments, trials.collect()).exit_code()
}

/// A test by its name.
fn trial(name: &str, test: impl FnOnce() + Send + 'static) -> Trial {
    Trial::test(name, move || {
        test();
        Ok(())
    })
}
