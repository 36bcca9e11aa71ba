//! What the host can run out of, recognised in any error, and what to do about it.

use std::error::Error;
use std::io;
use std::path::Path;

use http::StatusCode;
use rustix::io::Errno;

/// Something of the host's is used up. It is nobody's fault who asks, and the daemon goes on as soon as there is more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shortage {
    /// Room, or what a quota allows of it, on the data folder's disk.
    Disk,
    /// Descriptors of the daemon, or of the whole machine.
    Descriptors,
    /// Processes or threads.
    Processes,
    /// Memory.
    Memory,
}

impl Shortage {
    /// What an error, or one of its causes, says is used up.
    pub(crate) fn of(error: &(dyn Error + 'static)) -> Option<Self> {
        let mut next = Some(error);
        while let Some(error) = next {
            let found = error.downcast_ref::<io::Error>().and_then(Self::of_io_error);
            if found.is_some() {
                return found;
            }
            next = error.source();
        }
        None
    }

    fn of_io_error(error: &io::Error) -> Option<Self> {
        if matches!(
            error.kind(),
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
        ) {
            return Some(Self::Disk);
        }
        let text = || os_error_in(&error.to_string());
        error.raw_os_error().or_else(text).and_then(Self::of_number)
    }

    /// What the text of an error that a monitor has sent says is used up.
    pub(crate) fn of_text(text: &str) -> Option<Self> {
        os_error_in(text).and_then(Self::of_number)
    }

    fn of_number(number: i32) -> Option<Self> {
        match Errno::from_raw_os_error(number) {
            Errno::NOSPC | Errno::DQUOT => Some(Self::Disk),
            Errno::MFILE | Errno::NFILE => Some(Self::Descriptors),
            // Only a process or thread that cannot be made fails with this: sockets that are not ready are waited for.
            Errno::AGAIN => Some(Self::Processes),
            Errno::NOMEM => Some(Self::Memory),
            _ => None,
        }
    }

    /// Status of an answer that fails for it.
    pub(crate) fn status(self) -> StatusCode {
        match self {
            Self::Disk => StatusCode::INSUFFICIENT_STORAGE,
            Self::Descriptors | Self::Processes | Self::Memory => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    /// Whether it passes by itself, as others end what they do.
    pub(crate) fn passes(self) -> bool {
        self != Self::Disk
    }

    /// What is used up and what to do; `data` is the data folder.
    pub(crate) fn advice(self, data: &Path) -> String {
        match self {
            Self::Disk => format!(
                "the disk of the data folder {} is full: free some space there and try again; nothing was changed, \
                 and the daemon need not be restarted",
                data.display()
            ),
            Self::Descriptors => INSTANCE_ADVICE[0].to_owned(),
            Self::Processes => INSTANCE_ADVICE[1].to_owned(),
            Self::Memory => INSTANCE_ADVICE[2].to_owned(),
        }
    }

    /// The same where no file of the data folder is concerned.
    pub(crate) fn advice_for_instances(self) -> &'static str {
        match self {
            Self::Disk => "the host's disk is full: free some space",
            Self::Descriptors => INSTANCE_ADVICE[0],
            Self::Processes => INSTANCE_ADVICE[1],
            Self::Memory => INSTANCE_ADVICE[2],
        }
    }
}

const INSTANCE_ADVICE: [&str; 3] = [
    "the daemon's limit of open files is reached: try again later, or raise it (ulimit -n, LimitNOFILE)",
    "the daemon's limit of processes is reached: try again later, or raise it (ulimit -u, TasksMax, \
     kernel.pid_max)",
    "the host or the daemon's cgroup has no memory left: try again later, or give it more",
];

/// The number that the kernel gave, where an error has come through somebody who kept its text only: libraries that add
/// a path, and monitors. The text is that of the standard library.
fn os_error_in(text: &str) -> Option<i32> {
    let (_, rest) = text.split_once("(os error ")?;
    rest.split(')').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("outer")]
    struct Outer(#[source] io::Error);

    #[test]
    fn shortages_are_found_among_the_causes() {
        let of = |errno: Errno| Shortage::of(&Outer(errno.into()));
        assert_eq!(of(Errno::NOSPC), Some(Shortage::Disk));
        assert_eq!(of(Errno::DQUOT), Some(Shortage::Disk));
        assert_eq!(of(Errno::MFILE), Some(Shortage::Descriptors));
        assert_eq!(of(Errno::AGAIN), Some(Shortage::Processes));
        assert_eq!(of(Errno::NOMEM), Some(Shortage::Memory));
        assert_eq!(of(Errno::NOENT), None);
        let wrapped = io::Error::other(format!("{} at path x", io::Error::from(Errno::MFILE)));
        assert_eq!(Shortage::of(&wrapped), Some(Shortage::Descriptors));
    }
}
