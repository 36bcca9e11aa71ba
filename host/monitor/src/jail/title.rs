//! The name under which `ps` shows the process: its first argument, written over in place.

use std::ptr;

use crate::process::Spawn;

/// Where the first argument lies.
pub(super) struct Title {
    start: *mut u8,
    length: usize,
}

impl Title {
    /// Finds the argument's place; none if `/proc` does not tell it, or the process was not started for it.
    pub(super) fn find() -> Option<Self> {
        let first = std::env::args_os().next()?;
        if first.len() != Spawn::TITLE_CHARS_MAX {
            return None;
        }
        let text = std::fs::read_to_string("/proc/self/stat").ok()?;
        // Fields from the third on follow the name, which is in parentheses and may hold anything. The 48th is the
        // address of the arguments (proc_pid_stat(5)).
        let (_, fields) = text.rsplit_once(')')?;
        let start: usize = fields.split_whitespace().nth(48 - 3)?.parse().ok()?;
        (start != 0).then(|| Self {
            start: ptr::with_exposed_provenance_mut(start),
            length: Spawn::TITLE_CHARS_MAX,
        })
    }

    /// Writes a title, cut to the room that there is.
    pub(super) fn set(&mut self, title: &str) {
        let mut bytes = title.as_bytes().to_vec();
        bytes.resize(self.length, 0);
        // SAFETY: the kernel has put the first argument there, of this length (checked in `find`), in writable memory of
        // this process that lasts as long as it does. Rust has copied the arguments that it was asked for; nobody holds
        // a reference to them, and the zero byte behind this one stays.
        unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), self.start, self.length) };
    }
}
