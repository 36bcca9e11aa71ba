//! A monitor process that tasks can wait for.

use std::io;
use std::process::ExitStatus;

use spore_monitor::process::Process;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// A process that ends with its handle at the latest.
pub(crate) struct Watched {
    process: AsyncFd<Process>,
    status: Option<ExitStatus>,
}

impl Watched {
    /// Watches a process.
    #[allow(
        deprecated,
        reason = "its successor is unsafe, for types whose descriptor may change; that of a process never does"
    )]
    pub(crate) fn new(process: Process) -> io::Result<Self> {
        Ok(Self {
            process: AsyncFd::with_interest(process, Interest::READABLE)?,
            status: None,
        })
    }

    /// Waits until the process has ended.
    pub(crate) async fn wait(&mut self) -> io::Result<ExitStatus> {
        loop {
            if let Some(status) = self.status {
                return Ok(status);
            }
            let mut guard = self.process.readable().await?;
            self.status = guard.get_inner().try_wait()?;
            guard.clear_ready();
        }
    }

    /// Ends the process, and waits for that.
    pub(crate) async fn kill(&mut self) -> io::Result<ExitStatus> {
        if self.status.is_none() {
            // Fails only if the process is gone already.
            let _ = self.process.get_ref().kill();
        }
        self.wait().await
    }
}

impl Watched {
    /// Ends the process if it has not ended, and waits for that without letting others run.
    pub(crate) fn end(&mut self) {
        if self.status.is_none() {
            let process = self.process.get_ref();
            // Fails only if the process is gone already. A process that is killed ends soon, and must be waited for.
            let _ = process.kill();
            self.status = process.wait().ok();
        }
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.end();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::os::unix::process::ExitStatusExt;

    use crate::launch;

    /// The test's own program, which knows no such subcommand and ends with an error.
    #[tokio::test]
    async fn an_end_is_seen_once_and_for_all() {
        let launch = launch::start("spore-monitor test", None).unwrap();
        let mut watched = Watched::new(launch.process).unwrap();
        let status = watched.wait().await.unwrap();
        assert!(!status.success() || status.success() && status.signal().is_none());
        assert_eq!(watched.wait().await.unwrap(), status);
        assert_eq!(watched.kill().await.unwrap(), status);
    }
}
