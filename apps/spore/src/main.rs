//! The `spore` binary: command line, daemon and monitor process.
//!
//! The daemon starts one process of this same binary for each instance, as `spore monitor`. That process is made
//! before demand and must be small and single-threaded, so it is told apart here before anything else happens.

mod arguments;
mod bench_arguments;
mod commands;
mod containers;
mod credentials;
mod daemon_log;
mod duration;
mod image_arguments;
mod microvm;
mod output;
mod sandboxes;
mod unikernel;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    match std::env::args_os().nth(1) {
        Some(subcommand) if subcommand == "monitor" => return unikernel::monitor_main(),
        Some(subcommand) if microvm::is_launcher(&subcommand) => return microvm::launcher_main(),
        _ => {}
    }
    if std::env::args_os()
        .nth(1)
        .is_some_and(|argument| argument == containers::KEEPER)
    {
        return containers::keeper_main();
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
