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
//! are pure. [`Queue`] carries them out: on this machine's disk, where one thread writes and what comes while it does goes to
//! disk together, or in a stream of a NATS server, which several daemons may share.

mod disk;
mod message;
mod nats;
mod queue;
mod retry;
mod schedule;

pub use message::{Attempt, Message, State};
pub use nats::{NatsError, NatsOptions};
pub use queue::{AcceptError, ChangeError, Delivery, Entry, ListQuery, OpenError, Queue};
pub use retry::{Outcome, RetryPolicy, RetryPolicyError, Verdict};
pub use schedule::{Full, Limits, Schedule, Settled};

/// An error and its causes in one line.
fn one_line(error: &dyn std::error::Error) -> String {
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        line.push_str(": ");
        line.push_str(&error.to_string());
        cause = error.source();
    }
    line
}
