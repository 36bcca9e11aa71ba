//! Why a request got no instance, and why instances are not started ahead of demand.

use std::time::Duration;

use spore_sandbox::{Awaited, StartError};

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
    #[error("the function was not ready ({awaited}) within {} ms", after.as_millis())]
    NotReady {
        /// How long the request has waited.
        after: Duration,
        /// What the function should have done.
        awaited: Awaited,
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

/// More instances were asked for than there may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{wanted} instances are more than its maximum, which is {maximum}")]
pub struct AboveMaximum {
    /// What was asked for.
    pub wanted: u64,
    /// What is allowed.
    pub maximum: u64,
}

/// Why no instances are started ahead of demand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PreBootError {
    /// More than there may be.
    #[error(transparent)]
    AboveMaximum(#[from] AboveMaximum),
    /// They would be stopped as soon as they are ready.
    #[error("its idle timeout is zero, so that no instance waits for a request")]
    NoneIdle,
}
