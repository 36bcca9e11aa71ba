//! A monitor process that tasks can wait for.
//!
//! As long as nobody waits it takes no descriptor: of thousands of instances nearly all only run.

use std::io;
use std::process::ExitStatus;
use std::time::Duration;

use spore_monitor::process::{Process, Unreaped};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// How often it is looked whether the process has ended, where no descriptor is left to tell.
const PAUSE: Duration = Duration::from_millis(10);

/// A process that ends with its handle at the latest.
pub(crate) struct Watched(Unreaped);

impl Watched {
    /// A process that nobody has waited for.
    pub(crate) fn new(process: Process) -> Self {
        Self(process.into())
    }

    /// Waits until the process has ended.
    #[allow(
        deprecated,
        reason = "its successor is unsafe, for types whose descriptor may change; that of this one never does"
    )]
    pub(crate) async fn wait(&mut self) -> io::Result<ExitStatus> {
        loop {
            if let Some(status) = self.0.try_wait()? {
                return Ok(status);
            }
            let watch = self.0.watch();
            let watch = watch.and_then(|descriptor| AsyncFd::with_interest(descriptor, Interest::READABLE));
            match watch {
                // What it says is looked up above.
                Ok(watch) => drop(watch.readable().await?),
                Err(_) => tokio::time::sleep(PAUSE).await,
            }
        }
    }

    /// Ends the process, and waits for that.
    pub(crate) async fn kill(&mut self) -> io::Result<ExitStatus> {
        self.0.kill();
        self.wait().await
    }

    /// Ends the process if it has not ended, and waits for that without letting others run.
    pub(crate) fn end(&mut self) {
        self.0.kill();
        // A process that is killed ends soon. Fails only if somebody else has waited for it.
        let _ = self.0.wait();
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
        let launch = launch::start("spore-monitor test", None, false).unwrap();
        let mut watched = Watched::new(launch.process);
        let status = watched.wait().await.unwrap();
        assert!(!status.success() || status.success() && status.signal().is_none());
        assert_eq!(watched.wait().await.unwrap(), status);
        assert_eq!(watched.kill().await.unwrap(), status);
    }
}
