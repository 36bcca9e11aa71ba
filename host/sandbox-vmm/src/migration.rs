//! A machine of QEMU as a stream of bytes: what it writes when it is saved, and reads when it becomes a copy.
//!
//! ```text
//!   saved:  stop ──> getfd (a pipe) ──> migrate ──> the daemon writes what comes to a file, up to its end ──> completed
//!   copied: QEMU with `-incoming defer` ──> getfd (the file, to be read) ──> migrate-incoming ──> completed ──> cont
//! ```
//!
//! It is what QEMU has for moving machines from host to host (`docs/devel/migration`), with all of the guest's memory that is not zero. QEMU
//! gets no file that it may write to: the pipe's other end is the daemon's, who bounds it.

use std::fs::File;
use std::io::{self, PipeReader, Read as _};
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use crate::control::Control;

/// The name by which QEMU knows what it is given.
const NAME: &str = "state";
/// Bytes in a second: as fast as it can. Otherwise QEMU keeps to what a network may bear.
const BANDWIDTH_MAX: u64 = 1 << 40;
/// How often QEMU is asked whether it has loaded a machine.
const PAUSE: Duration = Duration::from_millis(2);

/// Why a machine was not saved, or is no copy.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MigrationError {
    /// QEMU has refused a command, or is gone.
    #[error("QEMU does not {command}: {reason}")]
    Refused { command: &'static str, reason: String },
    /// It has given up.
    #[error("QEMU has not got through with it: {status}")]
    Incomplete { status: String },
    /// It has written more than a machine of its size has.
    #[error("QEMU has written more than {bytes_max} bytes")]
    TooLong { bytes_max: u64 },
    /// The file of the machine cannot be used.
    #[error("the file of the saved machine")]
    File(#[source] io::Error),
}

async fn execute(
    control: &Control,
    command: &'static str,
    arguments: Option<Value>,
) -> Result<Value, MigrationError> {
    let answer = control.execute(command, arguments).await;
    answer.map_err(|reason| MigrationError::Refused { command, reason })
}

/// How far it is: `active`, `completed`, `failed` and others.
async fn status(control: &Control) -> Result<String, MigrationError> {
    let answer = execute(control, "query-migrate", None).await?;
    let status = answer.get("status").and_then(Value::as_str);
    Ok(status.unwrap_or("none").to_owned())
}

/// Gives QEMU a descriptor, which it is to read from or write to.
async fn give(control: &Control, given: std::os::fd::OwnedFd) -> Result<Value, MigrationError> {
    let answer = control.pass("getfd", json!({ "fdname": NAME }), given).await;
    answer.map_err(|reason| MigrationError::Refused {
        command: "getfd",
        reason,
    })
}

fn stream() -> Value {
    json!({ "uri": format!("fd:{NAME}") })
}

/// Stops a machine and writes it to a file, of `bytes_max` bytes at most. It is not to run again.
pub(crate) async fn save(control: &Control, path: &Path, bytes_max: u64) -> Result<(), MigrationError> {
    execute(control, "stop", None).await?;
    let bandwidth = json!({ "max-bandwidth": BANDWIDTH_MAX });
    execute(control, "migrate-set-parameters", Some(bandwidth)).await?;
    let (from, to) = io::pipe().map_err(MigrationError::File)?;
    give(control, to.into()).await?;
    let file = File::create_new(path).map_err(MigrationError::File)?;
    let writing = tokio::task::spawn_blocking(move || write(from, file, bytes_max));
    execute(control, "migrate", Some(stream())).await?;
    // Its end is QEMU's, who has closed it then.
    let written = writing.await.unwrap_or_else(|error| Err(io::Error::other(error)));
    if written.map_err(MigrationError::File)? > bytes_max {
        return Err(MigrationError::TooLong { bytes_max });
    }
    loop {
        match status(control).await?.as_str() {
            "completed" => return Ok(()),
            "setup" | "active" | "device" => tokio::time::sleep(PAUSE).await,
            other => {
                let status = other.to_owned();
                return Err(MigrationError::Incomplete { status });
            }
        }
    }
}

/// Writes what comes to a file, up to one byte more than there may be.
fn write(from: PipeReader, mut file: File, bytes_max: u64) -> io::Result<u64> {
    io::copy(&mut from.take(bytes_max.saturating_add(1)), &mut file)
}

/// Makes a machine that waits for that a copy of one that was saved, and lets it run.
pub(crate) async fn load(control: &Control, path: &Path) -> Result<(), MigrationError> {
    let file = File::open(path).map_err(MigrationError::File)?;
    give(control, file.into()).await?;
    execute(control, "migrate-incoming", Some(stream())).await?;
    loop {
        match status(control).await?.as_str() {
            "completed" => break,
            "none" | "setup" | "active" => tokio::time::sleep(PAUSE).await,
            other => {
                let status = other.to_owned();
                return Err(MigrationError::Incomplete { status });
            }
        }
    }
    execute(control, "cont", None).await.map(|_| ())
}
