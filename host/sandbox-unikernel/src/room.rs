//! Whether the machine has memory to spare.
//!
//! Memory that a clone gets ahead makes its first answer fast, and is more than what it would take by itself. Where less than half of
//! the machine's memory is available, many clones are more worth than fast ones, and none gets any.

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Where the kernel tells (proc_meminfo(5)).
const MEMORY_FILE: &str = "/proc/meminfo";
/// How long an answer of the kernel holds.
const PAUSE: Duration = Duration::from_millis(100);

/// What the kernel has said lately. To ask it takes some 0.1 ms, for which no start waits.
#[derive(Debug)]
pub(crate) struct Room {
    is_plenty: AtomicBool,
    asked: Mutex<Option<Instant>>,
    memory_bytes: u64,
}

impl Room {
    pub(crate) fn new() -> Self {
        let told = fs::read_to_string(MEMORY_FILE).unwrap_or_default();
        Self {
            is_plenty: AtomicBool::new(is_plenty(&told).unwrap_or(true)),
            asked: Mutex::new(None),
            memory_bytes: kilobytes(&told, "MemTotal").unwrap_or(0).saturating_mul(1 << 10),
        }
    }

    /// All memory of the machine, in bytes; 0 where the kernel does not tell.
    pub(crate) fn memory_bytes(&self) -> u64 {
        self.memory_bytes
    }

    /// Whether there is memory to spare; where the kernel does not tell, there is.
    pub(crate) fn is_plenty(&self) -> bool {
        self.is_plenty.load(Ordering::Relaxed)
    }

    /// Asks the kernel, unless that was done lately.
    pub(crate) fn look(&self) {
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        if asked.is_some_and(|asked| asked.elapsed() < PAUSE) {
            return;
        }
        *asked = Some(Instant::now());
        let told = fs::read_to_string(MEMORY_FILE).ok();
        let is_plenty = told.and_then(|told| is_plenty(&told)).unwrap_or(true);
        self.is_plenty.store(is_plenty, Ordering::Relaxed);
    }
}

/// Whether half of all memory is available.
fn is_plenty(told: &str) -> Option<bool> {
    Some(kilobytes(told, "MemAvailable")? >= kilobytes(told, "MemTotal")? / 2)
}

/// A figure of [`MEMORY_FILE`].
fn kilobytes(told: &str, name: &str) -> Option<u64> {
    let line = told
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    line.trim().strip_suffix("kB")?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_of_the_memory_is_plenty() {
        let told =
            |available: &str| format!("MemTotal:  1001 kB\nMemFree: 1 kB\nMemAvailable: {available}\n");
        assert_eq!(is_plenty(&told("500 kB")), Some(true));
        assert_eq!(is_plenty(&told("499 kB")), Some(false));
        for bad in ["", "500", "x kB"] {
            assert_eq!(is_plenty(&told(bad)), None, "{bad}");
        }
        assert_eq!(is_plenty("MemAvailable: 5 kB\n"), None);
    }

    #[test]
    fn the_kernel_is_asked_now_and_then() {
        let room = Room::new();
        assert!(room.memory_bytes() > 0);
        room.look();
        let said = room.is_plenty();
        room.is_plenty.store(!said, Ordering::Relaxed);
        room.look();
        assert_eq!(room.is_plenty(), !said, "what was said lately holds");
    }
}
