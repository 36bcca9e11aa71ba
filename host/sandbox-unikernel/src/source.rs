//! Where monitor processes come from: copies of one that waits to be copied (`spore_monitor`, module `zygote`), or processes
//! that execute the program themselves where there can be no copies.
//!
//! ```text
//!   start ──> zygote? ──none, or copied often──> executed ──> copied
//!                │                                              ^ │ fails
//!                └──────────────────────────────────────────────┘ └──> this one is executed
//! ```

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::io::{Errno, retry_on_intr};
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{RecvFlags, SendFlags, recv};
use rustix::process::geteuid;
use spore_cgroups::{Entrances, Group};
use spore_monitor::jail::Layer;
use spore_monitor::process::{Process, Spawn, share_namespaces};
use spore_monitor::protocol::{Copied, Copyable, Request};
use spore_sandbox::StartError;

use crate::channel::send_now;
use crate::launch::{self, Launch, Sockets};

/// The title of the process that is copied.
const TITLE: &str = "spore-monitor to be copied";
/// How often it is copied: copies have the same layout of memory, which is random in each that is executed.
const COPIES_MAX: u32 = 128;
/// How long it may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// Longest answer, in bytes.
const ANSWER_BYTES_MAX: usize = 16 << 10;
/// How often in a row it may fail, for whatever reason, until no more copies are tried.
const FAILURES_MAX: u32 = 3;

/// Why there is no copy.
#[derive(Debug, thiserror::Error)]
enum CopyError {
    #[error("the kernel makes no copy of a process: {0}")]
    Refused(Errno),
    #[error("the process that is to be copied lacks {0}, which others have")]
    Incomplete(String),
    #[error(transparent)]
    Start(#[from] StartError),
    #[error(transparent)]
    Io(#[from] std::io::Error),
    #[error(transparent)]
    Encoding(#[from] postcard::Error),
}

/// Where the calling thread has its monitor processes from. They end with that thread.
pub(crate) struct Source {
    /// They are in those namespaces of this thread in which there is nothing.
    shares_namespaces: bool,
    zygote: Option<Zygote>,
    needs: Needs,
    can_copy: bool,
    /// Copies that have failed since the last one.
    failures: u32,
}

/// What a process has to have that is copied.
pub(crate) struct Needs {
    /// Layers that were found to be there.
    pub(crate) layers: Vec<Layer>,
    /// Whether copies are to make virtual machines.
    pub(crate) kvm: bool,
}

impl Source {
    /// For the calling thread, which enters the namespaces that its processes share.
    pub(crate) fn of_this_thread(needs: Needs) -> Self {
        Self {
            shares_namespaces: share_namespaces().is_ok(),
            zygote: None,
            needs,
            // Others have user namespaces, one each.
            can_copy: geteuid().is_root(),
            failures: 0,
        }
    }

    /// A monitor process that waits for its first request, in a cgroup if there is one.
    pub(crate) fn start(&mut self, title: &str, group: Option<&Group>) -> Result<Launch, StartError> {
        if self.can_copy {
            match self.copy(title, group) {
                Ok(launch) => {
                    self.failures = 0;
                    return Ok(launch);
                }
                // Whatever it was, the next one is copied from another.
                Err(error) => self.note_failure(&error),
            }
        }
        let execute = |folder: Option<BorrowedFd<'_>>| launch::start(title, folder, self.shares_namespaces);
        match group {
            Some(group) => group.start_within(execute, Launch::end),
            None => execute(None),
        }
    }

    fn note_failure(&mut self, error: &CopyError) {
        self.zygote = None;
        self.failures += 1;
        let is_for_good = matches!(
            error,
            CopyError::Refused(Errno::PERM | Errno::INVAL | Errno::NOSYS)
        );
        if is_for_good || self.failures >= FAILURES_MAX {
            self.can_copy = false;
            tracing::warn!(%error, "each monitor process executes the program from now on, which takes longer than to copy one");
        }
    }

    fn copy(&mut self, title: &str, group: Option<&Group>) -> Result<Launch, CopyError> {
        let entrances = group.map(Group::entrances).transpose()?.unwrap_or_default();
        let sockets = Sockets::new()?;
        self.zygote = self.zygote.take().filter(|zygote| zygote.copies < COPIES_MAX);
        let zygote = match &mut self.zygote {
            Some(zygote) => zygote,
            none => none.insert(Zygote::start(self.shares_namespaces, &self.needs)?),
        };
        let process = zygote.copy(title, &entrances, &sockets)?;
        Ok(Launch {
            process,
            control: sockets.control,
            log: sockets.log,
        })
    }
}

/// The process that is copied. It ends with this.
struct Zygote {
    process: Process,
    control: OwnedFd,
    /// What it may say when it fails, which nobody reads: it is like all other monitors.
    _log: OwnedFd,
    copies: u32,
}

impl Zygote {
    fn start(shares_namespaces: bool, needs: &Needs) -> Result<Self, CopyError> {
        let sockets = Sockets::new()?;
        set_socket_timeout(&sockets.control, Timeout::Recv, Some(PATIENCE)).map_err(std::io::Error::from)?;
        let spawn = Spawn {
            title: TITLE,
            control: sockets.monitor_control,
            log: sockets.monitor_log,
            cgroup: None,
            shares_namespaces,
        };
        let zygote = Self {
            process: spawn.start_zygote()?,
            control: sockets.control,
            _log: sockets.log,
            copies: 0,
        };
        let own: Copyable = postcard::from_bytes(&zygote.receive()?)?;
        // Layers that copies put on by themselves are not among those that it tells of.
        let missing = own.jail.layers.iter().filter(|state| state.missing.is_some());
        let missing = missing
            .map(|state| state.layer)
            .find(|layer| needs.layers.contains(layer));
        match missing {
            Some(layer) => Err(CopyError::Incomplete(layer.to_string())),
            None if needs.kvm && !own.has_kvm => Err(CopyError::Incomplete("/dev/kvm".to_owned())),
            None => Ok(zygote),
        }
    }

    fn receive(&self) -> Result<Vec<u8>, CopyError> {
        let mut answer = vec![0; ANSWER_BYTES_MAX];
        let received = retry_on_intr(|| recv(&self.control, &mut answer[..], RecvFlags::empty()));
        let (length, _) = received.map_err(std::io::Error::from)?;
        answer.truncate(length);
        Ok(answer)
    }

    fn copy(&mut self, title: &str, entrances: &Entrances, sockets: &Sockets) -> Result<Process, CopyError> {
        let request = Request::Copy {
            title: title.to_owned(),
            is_born_within: entrances.folder.is_some(),
        };
        let mut attachments = vec![sockets.monitor_control.as_fd(), sockets.monitor_log.as_fd()];
        attachments.extend(entrances.folder.iter().chain(&entrances.files).map(AsFd::as_fd));
        let packet = postcard::to_stdvec(&request)?;
        send_now(&self.control, &packet, &attachments, SendFlags::NOSIGNAL).map_err(std::io::Error::from)?;
        self.copies += 1;
        match postcard::from_bytes::<Copied>(&self.receive()?)? {
            Ok(id) => Ok(Process::of_child(id)?),
            Err(error) => Err(CopyError::Refused(Errno::from_raw_os_error(error))),
        }
    }
}

impl Drop for Zygote {
    fn drop(&mut self) {
        // Fails only if it is gone already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
