//! Who the running task is, where rewritten call sites can read it without entering the library OS.

use core::sync::atomic::{AtomicU64, Ordering};

/// What can be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Identity {
    /// Number of the process.
    Process,
    /// Number of the parent process.
    Parent,
    /// Number of the task.
    Task,
    /// Number of its user.
    User,
    /// That which its rights go by.
    EffectiveUser,
    /// Number of its group.
    Group,
    /// That which its rights go by.
    EffectiveGroup,
}

static VALUES: [AtomicU64; 7] = [const { AtomicU64::new(0) }; 7];

impl Identity {
    fn place(self) -> &'static AtomicU64 {
        match self {
            Self::Process => &VALUES[0],
            Self::Parent => &VALUES[1],
            Self::Task => &VALUES[2],
            Self::User => &VALUES[3],
            Self::EffectiveUser => &VALUES[4],
            Self::Group => &VALUES[5],
            Self::EffectiveGroup => &VALUES[6],
        }
    }

    /// Sets what call sites read from now on.
    pub fn set(self, value: u64) {
        self.place().store(value, Ordering::Relaxed);
    }

    /// Address at which call sites read it, 8 bytes long.
    #[must_use]
    pub fn address(self) -> u64 {
        self.place().as_ptr() as u64
    }
}
