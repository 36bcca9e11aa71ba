//! Scaling and keep-alive of a function's instances.
//!
//! [`state`] holds the rules: pure, without clock, lock or I/O. [`Pool`] is the thin driver that carries its actions
//! out with a [`spore_sandbox::Sandbox`] and hands out a [`Lease`] for each invocation. There is one pool for each
//! function; pools share nothing.

mod backoff;
mod demand;
mod driver;
mod error;
mod lease;
mod scaling;
pub mod state;

pub use driver::Pool;
pub use error::{AboveMaximum, AcquireError, PreBootError};
pub use lease::Lease;
pub use scaling::{JUDGEMENT_PAUSE, LOAD_WINDOW, LoadKind, ScaleTarget, Scaling};
pub use state::{PoolLimits, PoolStatus};
