//! Why a request got no instance.

use std::time::Duration;

use spore_sandbox::StartError;

/// Why a request got no instance.
#[derive(Debug, thiserror::Error)]
pub enum AcquireError {
    /// All instances are busy and as many requests wait as may; a retry helps.
    #[error("all instances are busy and {waiting} more requests wait already")]
    QueueFull {
        /// Requests that waited at that moment.
        waiting: usize,
    },
    /// The instance that was started for the request could not be started.
    #[error("no instance could be started")]
    StartFailed(#[source] StartError),
    /// The instance that is being started for the request was not ready when the request's patience ended. The start
    /// goes on: a retry may find the instance ready.
    #[error("the function was not ready (listening on port {port}) within {} ms", after.as_millis())]
    NotReady {
        /// How long the request has waited.
        after: Duration,
        /// The port on which the function should listen.
        port: u16,
    },
    /// All instances stayed busy until the request's patience ended; a retry may help.
    #[error("no instance became free within {} ms", after.as_millis())]
    NoneFree {
        /// How long the request has waited.
        after: Duration,
    },
    /// The function was removed, or the daemon is stopping.
    #[error("the function is not deployed any more")]
    Closed,
}
