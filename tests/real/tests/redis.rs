//! Redis, started by a program that talks to it over loopback, natively and in one unikernel.

use std::process::{Command, Output, Stdio};

use spore_test_harness::daemon::{binary, excerpt};
use spore_test_harness::program::free_port;
use spore_test_real::programs::installed::redis;

use crate::{chain, is_native_only, more_options};

/// Runs the client both ways; what it prints and how it ends must be the same.
pub(crate) fn run() -> Result<(), String> {
    let (client, root) = redis::make().map_err(chain)?;
    let native = || output(&mut redis::native(&client, free_port()));
    let expected = native()?;
    let found = if is_native_only() {
        native()?
    } else {
        let mut command = Command::new(binary());
        command
            .arg("run")
            .args(spore_test_harness::isolation_options())
            .args(["--memory", "256Mi", "--rootfs"])
            .arg(&root)
            .args(more_options());
        output(command.args([
            "--",
            "/usr/local/bin/redis-client",
            "/usr/bin/redis-server",
            "6379",
        ]))?
    };
    let text = |output: &Output| String::from_utf8_lossy(&output.stdout).into_owned();
    if expected.status.code() == found.status.code() && expected.stdout == found.stdout {
        return Ok(());
    }
    Err(format!(
        "natively {}:\n{}\nas a unikernel {}:\n{}\n{}",
        expected.status,
        excerpt(&text(&expected)),
        found.status,
        excerpt(&text(&found)),
        excerpt(&String::from_utf8_lossy(&found.stderr)),
    ))
}

fn output(command: &mut Command) -> Result<Output, String> {
    let output = command.stdin(Stdio::null()).output();
    output.map_err(|error| format!("{command:?} cannot be run: {error}"))
}
