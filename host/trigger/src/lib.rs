//! What calls functions without a caller: times of the day, files that change, and messages.
//!
//! ```text
//!   annotations ──> Triggers ──┬─ Schedule: which time is next (pure)
//!                              ├─ folders: Root opens one, Settling says which files are to be told of (pure)
//!                              └─ subjects: which messages of a broker (pure)
//! ```
//!
//! Who owns the functions calls them: this crate knows none, and no broker.

pub mod folder;
pub mod schedule;
mod settling;
mod specification;

pub use schedule::{Missed, Schedule, ScheduleError};
pub use settling::{Change, Fingerprint, QUIET, Settling};
pub use specification::{CRON_TOPIC, FOLDERS_MAX, SUBJECTS_MAX, Triggers, TriggersError, subject_matches};
