//! A process of which monitor processes are copies.
//!
//! To execute this program, to link it, and to go as far into jail as all monitors go in the same way costs more than all
//! the rest that is done before an instance is known. A zygote has done it once:
//!
//! ```text
//!   daemon ──execute──> zygote: own descriptors only, namespaces, empty root
//!     │<────Copyable──────│
//!     │                   │ Request::Copy
//!     │                   ├──clone3──> monitor: a child of the daemon, in a PID namespace and cgroups of its own
//!     │   Copied          │              │
//!     │<──────────────────┘              v  as one that was executed
//! ```
//!
//! Copies have the same layout of memory, so a zygote is replaced now and then (decision 0022).

use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::{AsFd, OwnedFd};

use rustix::process::{Signal, set_parent_process_death_signal, setpgid};
use rustix::stdio::{dup2_stdin, dup2_stdout};

use crate::jail::Jail;
use crate::process::{ZYGOTE, copy_itself};
use crate::protocol::{Copied, Copyable, Request};
use crate::start::{Received, receive_blocking, say_on_log, send};

/// What the process that [`serve`] returns in has to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    /// It is a copy, and goes on as a monitor process.
    Monitor,
    /// Nobody wants copies any more.
    End,
    /// It is a copy that cannot be what it should be.
    Failed,
}

/// Whether the process was started to be copied.
pub(crate) fn is_wanted() -> bool {
    std::env::args_os().any(|argument| argument == ZYGOTE)
}

/// Copies this process as often as the daemon asks for it. Returns in each copy, which has sockets of its own in place of
/// `control` and standard output, and in the process itself when the daemon has closed its end.
pub(crate) fn serve(control: &OwnedFd, jail: &mut Jail, has_kvm: bool) -> Next {
    let own = Copyable {
        jail: jail.report().clone(),
        has_kvm,
    };
    if send(control, &own).is_err() {
        return Next::End;
    }
    loop {
        let Ok(Some((Received::Message(request), attachments))) = receive_blocking(control) else {
            return Next::End;
        };
        let Request::Copy {
            title,
            is_born_within,
        } = request
        else {
            return Next::End;
        };
        let mut attachments = attachments.into_iter();
        let (Some(own_control), Some(own_log)) = (attachments.next(), attachments.next()) else {
            return Next::End;
        };
        let folder = attachments.by_ref().take(usize::from(is_born_within)).next();
        match copy_itself(folder.as_ref().map(AsFd::as_fd)) {
            Ok(None) => {
                let entered = dup2_stdin(&own_control)
                    .and_then(|()| dup2_stdout(&own_log))
                    .map_err(io::Error::from)
                    .and_then(|()| settle(attachments.map(File::from)));
                jail.enter_as_copy();
                jail.set_title(&title);
                return match entered {
                    Ok(()) => Next::Monitor,
                    Err(error) => {
                        say_on_log(&format!("the monitor cannot be started: {error}"));
                        Next::Failed
                    }
                };
            }
            copied => {
                let copied = copied.map(Option::unwrap_or_default);
                let copied: Copied = copied.map_err(|error| error.raw_os_error());
                if send(control, &copied).is_err() {
                    return Next::End;
                }
            }
        }
    }
}

/// What a copy does for itself first, as [`crate::process`] does it for one that is executed.
fn settle(entrances: impl Iterator<Item = File>) -> io::Result<()> {
    setpgid(None, None)?;
    set_parent_process_death_signal(Some(Signal::KILL))?;
    for mut entrance in entrances {
        // It stands for the thread that writes.
        entrance.write_all(b"0")?;
    }
    Ok(())
}
