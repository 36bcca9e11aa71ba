//! The `spore` binary: command line, daemon and monitor process.
//!
//! The daemon starts one process of this same binary for each instance, as `spore monitor`. That process is made
//! before demand and must be small and single-threaded, so it is told apart here before anything else happens.

mod arguments;
mod commands;
mod credentials;
mod daemon_log;
mod duration;
mod output;
mod unikernel;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    if std::env::args_os()
        .nth(1)
        .is_some_and(|argument| argument == "monitor")
    {
        return unikernel::monitor_main();
    }
    let arguments = arguments::Arguments::parse();
    match commands::run(arguments) {
        Ok(code) => code,
        Err(error) => {
            output::print_error(&error);
            ExitCode::FAILURE
        }
    }
}
