//! Invocations that nobody waits for: accepted here, run by a task of the daemon, their results sent to who asked for them.
//!
//! ```text
//!  POST /async-function/…  accept ──> queue ──> dispatch ──> invoke ──> verdict ──> answered, again or dead
//!                                                                         └──> callback, once there is a last result
//!  /system/async…          admin: list, show, retry, drop
//! ```

pub(crate) mod accept;
pub(crate) mod admin;
mod backlog;
mod callback;
mod dispatch;

pub(crate) use accept::{accept, accept_status};
pub(crate) use admin::{answer, cancel_by_caller};
pub(crate) use backlog::tell_pools;
pub(crate) use callback::Callbacks;
pub(crate) use dispatch::dispatch;
