//! How many connections of clients the daemon takes.
//!
//! ```text
//!   a place to serve is free ──> served
//!   else a place to refuse is free ──> answered with 503, closed
//!   else: not accepted, waits in the kernel's queue
//! ```
//!
//! So idle clients never use up the descriptors that instances need, and whoever comes too late is told so.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Connections that are told at a time that there are too many.
const REFUSED_MAX: usize = 16;

/// Places for connections.
pub(crate) struct Admission {
    serving: Arc<Semaphore>,
    refusing: Arc<Semaphore>,
}

/// The right to one connection, given back when it is dropped.
pub(crate) enum Place {
    /// It is served.
    Served(OwnedSemaphorePermit),
    /// It is told that there are too many.
    Refused(OwnedSemaphorePermit),
}

impl Admission {
    pub(crate) fn new(max_connections: usize) -> Self {
        Self {
            serving: Arc::new(Semaphore::new(max_connections.clamp(1, Semaphore::MAX_PERMITS))),
            refusing: Arc::new(Semaphore::new(REFUSED_MAX)),
        }
    }

    /// Waits until a connection may be accepted.
    pub(crate) async fn room(&self) {
        // None of the two is ever closed.
        tokio::select! {
            permit = self.serving.acquire() => drop(permit),
            permit = self.refusing.acquire() => drop(permit),
        }
    }

    /// A place for a connection that was accepted; none if there is no room.
    pub(crate) fn place(&self) -> Option<Place> {
        if let Ok(permit) = self.serving.clone().try_acquire_owned() {
            return Some(Place::Served(permit));
        }
        let refused = self.refusing.clone().try_acquire_owned();
        refused.ok().map(Place::Refused)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn those_beyond_the_limit_are_refused_and_then_not_taken() {
        let admission = Admission::new(1);
        admission.room().await;
        let served = admission.place();
        assert!(matches!(served, Some(Place::Served(_))));
        let refused: Vec<_> = (0..REFUSED_MAX).map(|_| admission.place()).collect();
        assert!(
            refused
                .iter()
                .all(|place| matches!(place, Some(Place::Refused(_))))
        );
        assert!(admission.place().is_none());
        drop(served);
        admission.room().await;
        assert!(matches!(admission.place(), Some(Place::Served(_))));
    }
}
