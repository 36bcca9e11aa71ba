//! Load: requests that come when they come, and not when earlier ones have been answered.
//!
//! - [`synthetic`]: traces like those of a large platform, from published distributions;
//! - [`trace`]: traces as files;
//! - [`schedule`]: sends them in time.

pub mod schedule;
pub mod synthetic;
pub mod trace;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// The load that is replayed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LoadSettings {
    /// A trace to replay instead of a synthetic one.
    pub trace: Option<PathBuf>,
    /// Functions of the synthetic trace; of a file, the ones with most requests.
    pub functions: u32,
    /// How long is replayed, in seconds of this machine.
    pub seconds: u32,
    /// How many seconds of the trace pass in one of them.
    pub compression: f64,
    /// Durations are scaled, all by the same factor, so that on average this share of the machine's processors is busy with
    /// work, 0 to 1.
    pub busy_share: f64,
    /// Longest work of a request after that, in milliseconds.
    pub duration_max_ms: f64,
    /// Most requests of a function in each second.
    pub rate_max: f64,
}

impl LoadSettings {
    /// A day in two minutes.
    pub fn full() -> Self {
        Self {
            trace: None,
            functions: 20,
            seconds: 120,
            compression: 720.0,
            busy_share: 0.3,
            duration_max_ms: 1000.0,
            rate_max: 20.0,
        }
    }

    /// Half an hour in a moment.
    pub fn quick() -> Self {
        Self {
            functions: 6,
            seconds: 2,
            compression: 1440.0,
            duration_max_ms: 50.0,
            ..Self::full()
        }
    }
}
