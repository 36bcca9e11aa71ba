//! How a tender tells the daemon how its guest has ended: an event on the control socket, in the form of QEMU's, and its exit status.

use std::error::Error;
use std::fmt::Write as _;
use std::io::Write as _;
use std::process::ExitCode;

use serde_json::json;

/// The event of a guest that has ended by itself, with this reason; the status of the process is the guest's then.
pub const SHUTDOWN: &str = "SHUTDOWN";
const BY_ITSELF: &str = "guest-shutdown";
/// The event of a guest that cannot go on, by its own doing. The reason says why.
pub const CRASHED: &str = "UNIKERNEL_CRASHED";
/// The event of a tender that cannot run its guest. The reason says why.
pub const FAILED: &str = "TENDER_FAILED";

/// How a guest has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum End {
    Exited(u8),
    Crashed(String),
    Failed(String),
    /// The daemon has let go of it: nobody has to be told.
    Unplugged,
}

/// An error and what it comes of, in a line.
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        // Writing to a string does not fail.
        let _ = write!(text, ": {cause}");
        source = cause.source();
    }
    text
}

/// Tells it; what the process is to end with.
pub(crate) fn tell(end: &End) -> ExitCode {
    let (event, code) = match end {
        End::Exited(status) => (Some((SHUTDOWN, BY_ITSELF)), ExitCode::from(*status)),
        End::Crashed(reason) => (Some((CRASHED, reason.as_str())), ExitCode::FAILURE),
        End::Failed(reason) => (Some((FAILED, reason.as_str())), ExitCode::FAILURE),
        End::Unplugged => (None, ExitCode::SUCCESS),
    };
    if let Some((name, reason)) = event {
        let line = format!("{}\n", json!({ "event": name, "data": { "reason": reason } }));
        let mut control = std::io::stdout();
        // Nobody may be there to be told.
        let _ = control.write_all(line.as_bytes()).and_then(|()| control.flush());
    }
    code
}
