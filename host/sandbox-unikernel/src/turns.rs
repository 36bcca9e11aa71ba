//! Whose turn it is to start: only few instances are on their way to their first answer at a time.
//!
//! Starts that run side by side share the processors, and so all of a burst are ready when the last one is. One after the other
//! takes no longer, and the mean of them waits half as long. A turn ends with the first answer, with the instance, or after a
//! while: what is booted, or started ahead of demand, keeps nobody waiting.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, oneshot};

/// Turns for each processor: a start waits for others now and then.
const TURNS_OF_A_PROCESSOR: usize = 2;
/// How long a turn lasts at most.
const TURN: Duration = Duration::from_millis(10);

/// The turns that there are.
#[derive(Debug)]
pub(crate) struct Turns(Arc<Semaphore>);

/// A turn. Dropping it ends it.
#[derive(Debug)]
pub(crate) struct Turn {
    _over: oneshot::Sender<()>,
}

impl Turns {
    /// As many at a time as this machine has use for.
    pub(crate) fn of_this_machine() -> Self {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        Self::new(processors * TURNS_OF_A_PROCESSOR)
    }

    /// So many at a time.
    fn new(count: usize) -> Self {
        Self(Arc::new(Semaphore::new(count)))
    }

    /// The next turn, first come, first served. Must be called inside a tokio runtime.
    pub(crate) async fn take(&self) -> Turn {
        // It is never closed.
        let permit = Arc::clone(&self.0).acquire_owned().await;
        let (sender, over) = oneshot::channel::<()>();
        tokio::spawn(async move {
            // Either way it is over.
            let _ = tokio::time::timeout(TURN, over).await;
            drop(permit);
        });
        Turn { _over: sender }
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_turn_ends_with_its_owner_or_after_a_while() {
        let turns = Turns::new(2);
        let begun = Instant::now();
        let first = turns.take().await;
        let _second = turns.take().await;
        assert_eq!(begun.elapsed(), Duration::ZERO);
        drop(first);
        let _third = turns.take().await;
        assert_eq!(begun.elapsed(), Duration::ZERO, "the first has ended");
        let _fourth = turns.take().await;
        assert_eq!(begun.elapsed(), TURN, "the second has lasted long");
    }
}
