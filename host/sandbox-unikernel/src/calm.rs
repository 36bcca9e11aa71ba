//! When the machine is calm: no start has begun for a while.
//!
//! To end a virtual machine takes milliseconds of processor time, most of it the kernel's, as much as to start one. So what
//! is only not needed any more makes way for starts, but not for long: a machine that is never calm has to end as many as
//! it starts.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

/// How long the start of an instance has the machine for itself.
const PAUSE: Duration = Duration::from_millis(20);
/// How long what is not needed makes way at most.
const PATIENCE: Duration = Duration::from_millis(250);

/// Knows when the latest start began.
#[derive(Debug)]
pub(crate) struct Calm {
    epoch: Instant,
    /// In milliseconds from the epoch on, and one; 0 if there was none.
    latest_start_ms: AtomicU64,
}

impl Calm {
    /// A machine on which nothing was started.
    pub(crate) fn new() -> Self {
        Self {
            epoch: Instant::now(),
            latest_start_ms: AtomicU64::new(0),
        }
    }

    /// A start begins.
    pub(crate) fn note_start(&self) {
        let now_ms = u64::try_from(self.epoch.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.latest_start_ms
            .store(now_ms.saturating_add(1), Ordering::Relaxed);
    }

    /// Returns once no start has begun for a while, or it has taken long.
    pub(crate) async fn wait(&self) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let Some(latest_ms) = self.latest_start_ms.load(Ordering::Relaxed).checked_sub(1) else {
                return;
            };
            let calm_from = self.epoch + Duration::from_millis(latest_ms) + PAUSE;
            let now = Instant::now();
            if now >= calm_from || now >= deadline {
                return;
            }
            tokio::time::sleep_until(calm_from.min(deadline)).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_is_not_needed_makes_way_for_starts_for_a_while() {
        let calm = std::sync::Arc::new(Calm::new());
        let begun = Instant::now();
        calm.wait().await;
        assert_eq!(begun.elapsed(), Duration::ZERO, "nothing was ever started");
        tokio::time::sleep(Duration::from_millis(5)).await;
        calm.note_start();
        calm.wait().await;
        assert_eq!(begun.elapsed(), Duration::from_millis(25));

        let starter = std::sync::Arc::clone(&calm);
        let starting = tokio::spawn(async move {
            loop {
                starter.note_start();
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        });
        tokio::time::sleep(Duration::from_millis(1)).await;
        let begun = Instant::now();
        calm.wait().await;
        assert_eq!(begun.elapsed(), PATIENCE, "never calm");
        starting.abort();
    }
}
