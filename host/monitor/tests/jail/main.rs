//! Attempts to get out of the jail of a monitor, from within a process that has gone there as a monitor does.
//!
//! This program is both sides: it starts itself as a monitor would be started, and that process goes to jail with the
//! same functions and then tries something. No monitor can be made to do any of it.

use std::process::ExitCode;

use libtest_mimic::{Arguments, Trial};

mod attempts;
mod calls;
mod copies;
mod prisoner;

fn main() -> ExitCode {
    let words: Vec<_> = std::env::args().collect();
    if words.get(1).is_some_and(|word| word == "monitor") {
        let is_real =
            words[0].starts_with(copies::EXECUTED_TITLE) || words.iter().any(|word| word == "zygote");
        return if is_real {
            spore_monitor::main()
        } else {
            prisoner::main()
        };
    }
    let arguments = Arguments::from_args();
    let trials = [calls::trials(), attempts::trials(), copies::trials()]
        .into_iter()
        .flatten();
    libtest_mimic::run(&arguments, trials.collect()).exit_code()
}

/// A test by its name.
fn trial(name: &str, test: impl FnOnce() + Send + 'static) -> Trial {
    Trial::test(name, move || {
        test();
        Ok(())
    })
}
