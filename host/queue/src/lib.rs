//! Invocations that nobody waits for.
//!
//! ```text
//!   accept ──on disk──> waiting ──due, and its function may run one more──> running ──answered──> gone
//!                        ^  ^ │                                              │ │
//!                        │  │ └──dropped──> gone                             │ │
//!                        │  └──to be tried again, later──────────────────────┘ │
//!                        └──retry by hand── dead <──no attempt left, or none helps──┘
//! ```
//!
//! An invocation is accepted when it has reached the disk, and goes from there only when it was answered, was dropped by
//! hand, or is the oldest of too many dead ones. Whatever was running when the daemon was killed is waiting again at
//! its next start: each is executed at least once, and more often only if it was running at such a moment.
//!
//! [`Schedule`] has the order in which they run and the bounds, [`RetryPolicy`] what becomes of one that failed; both
//! are pure. [`Queue`] carries them out: one thread writes, and what comes while it does goes to disk together.

mod message;
mod queue;
mod retry;
mod schedule;

pub use message::{Attempt, Message, State};
pub use queue::{AcceptError, ChangeError, Delivery, Entry, ListQuery, OpenError, Queue};
pub use retry::{Outcome, RetryPolicy, RetryPolicyError, Verdict};
pub use schedule::{Full, Limits, Schedule};
