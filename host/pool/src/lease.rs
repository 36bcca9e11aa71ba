//! The right to one invocation on one instance.

use std::sync::Arc;

use spore_sandbox::{Instance, StopReason};

use crate::driver::Inner;
use crate::state::InstanceId;

/// One instance, for one invocation; others may have it too, as many as [`crate::PoolLimits::concurrency`] allows. `C` is whatever the holder wants kept with the instance for its next invocation,
/// for example an open connection.
///
/// Dropping a lease after [`Lease::instance`] was asked for discards the instance, since the function may still be
/// working on an invocation that nobody waits for. An untouched lease goes back unharmed.
pub struct Lease<C: Send + 'static> {
    pool: Arc<Inner<C>>,
    id: InstanceId,
    instance: Arc<dyn Instance>,
    connection: Option<C>,
    cold: bool,
    stage: Stage,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Untouched,
    InUse,
    Over,
}

impl<C: Send + 'static> Lease<C> {
    pub(crate) fn new(
        pool: Arc<Inner<C>>,
        id: InstanceId,
        instance: Arc<dyn Instance>,
        connection: Option<C>,
        cold: bool,
    ) -> Self {
        Self {
            pool,
            id,
            instance,
            connection,
            cold,
            stage: Stage::Untouched,
        }
    }

    /// Whether the request waited for the start of this instance.
    pub fn is_cold(&self) -> bool {
        self.cold
    }

    /// The instance; from now on the lease counts as used.
    pub fn instance(&mut self) -> &Arc<dyn Instance> {
        self.stage = Stage::InUse;
        &self.instance
    }

    /// What the invocation before this one left behind by [`Lease::finish`].
    pub fn take_connection(&mut self) -> Option<C> {
        self.connection.take()
    }

    /// The invocation was answered in full: the instance can serve the next one, or be reset for it.
    pub fn finish(mut self, connection: Option<C>) {
        self.stage = Stage::Over;
        self.pool.invocation_kept(self.id, connection);
    }

    /// Nothing has reached the instance: it is as it was before.
    pub fn leave(mut self) {
        self.stage = Stage::Over;
        self.pool.invocation_left_out(self.id, None);
    }

    /// The invocation failed: the instance is stopped, in the background, for this reason, once it serves nobody else.
    pub fn discard(mut self, reason: StopReason) {
        self.stage = Stage::Over;
        self.pool.invocation_discarded(self.id, reason);
    }
}

impl<C: Send + 'static> Drop for Lease<C> {
    fn drop(&mut self) {
        match self.stage {
            Stage::Untouched => self.pool.invocation_left_out(self.id, self.connection.take()),
            Stage::InUse => self.pool.invocation_discarded(self.id, StopReason::CallerGone),
            Stage::Over => {}
        }
    }
}
