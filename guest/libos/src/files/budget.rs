//! How much of the library OS's own memory files may take, whatever a program asks for.

use alloc::rc::Rc;
use core::cell::Cell;

/// Bytes that all pipes together may hold before new ones get small.
const PIPE_BYTES_SOFT: usize = 4 << 20;
/// Bytes that all pipes together may hold.
const PIPE_BYTES_HARD: usize = 8 << 20;
/// Files that all epoll instances together may watch.
const WATCHES_MAX: usize = 32_768;

/// Messages that wait in all sockets together.
const MESSAGES_MAX: usize = 16_384;
/// Files that are under way between Unix sockets.
const PASSED_FILES_MAX: usize = 1024;

/// What has been taken.
#[derive(Debug, Default)]
pub(crate) struct Budget {
    pipe_bytes: Cell<usize>,
    watches: Cell<usize>,
    messages: Cell<usize>,
    passed_files: Cell<usize>,
}

/// A share of the budget, given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Share {
    budget: Rc<Budget>,
    pipe_bytes: usize,
    watches: usize,
    messages: usize,
    passed_files: usize,
}

impl Budget {
    /// Room for a pipe of `large` bytes, or of `small` bytes where memory is short: the size and the share.
    pub(crate) fn pipe(self: &Rc<Self>, large: usize, small: usize) -> Option<(usize, Share)> {
        let taken = self.pipe_bytes.get();
        let bytes = match () {
            () if taken + large <= PIPE_BYTES_SOFT => large,
            () if taken + small <= PIPE_BYTES_HARD => small,
            () => return None,
        };
        self.pipe_bytes.set(taken + bytes);
        let mut share = self.empty_share();
        share.pipe_bytes = bytes;
        Some((bytes, share))
    }

    /// Room for one more watched file.
    pub(crate) fn watch(self: &Rc<Self>) -> Option<Share> {
        let taken = self.watches.get();
        if taken == WATCHES_MAX {
            return None;
        }
        self.watches.set(taken + 1);
        let mut share = self.empty_share();
        share.watches = 1;
        Some(share)
    }

    /// Room for one more message in a socket.
    pub(crate) fn message(self: &Rc<Self>) -> Option<Share> {
        let taken = self.messages.get();
        if taken == MESSAGES_MAX {
            return None;
        }
        self.messages.set(taken + 1);
        let mut share = self.empty_share();
        share.messages = 1;
        Some(share)
    }

    /// Room for `count` more files under way between sockets.
    pub(crate) fn passed_files(self: &Rc<Self>, count: usize) -> Option<Share> {
        let taken = self.passed_files.get();
        if taken + count > PASSED_FILES_MAX {
            return None;
        }
        self.passed_files.set(taken + count);
        let mut share = self.empty_share();
        share.passed_files = count;
        Some(share)
    }

    fn empty_share(self: &Rc<Self>) -> Share {
        Share {
            budget: Rc::clone(self),
            pipe_bytes: 0,
            watches: 0,
            messages: 0,
            passed_files: 0,
        }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.budget
            .pipe_bytes
            .set(self.budget.pipe_bytes.get() - self.pipe_bytes);
        self.budget.watches.set(self.budget.watches.get() - self.watches);
        self.budget
            .messages
            .set(self.budget.messages.get() - self.messages);
        self.budget
            .passed_files
            .set(self.budget.passed_files.get() - self.passed_files);
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use super::*;

    #[test]
    fn pipes_get_small_and_then_none() {
        let budget = Rc::new(Budget::default());
        let large: Vec<_> = (0..64).map(|_| budget.pipe(65_536, 4096).unwrap()).collect();
        assert!(large.iter().all(|(bytes, _)| *bytes == 65_536));
        let small: Vec<_> = core::iter::from_fn(|| budget.pipe(65_536, 4096)).collect();
        assert_eq!(small.len(), 1024);
        assert!(small.iter().all(|(bytes, _)| *bytes == 4096));
        drop((large, small));
        assert_eq!(budget.pipe(65_536, 4096).unwrap().0, 65_536);
    }

    #[test]
    fn watches_are_bounded_and_given_back() {
        let budget = Rc::new(Budget::default());
        let watches: Vec<_> = core::iter::from_fn(|| budget.watch()).collect();
        assert_eq!(watches.len(), WATCHES_MAX);
        drop(watches);
        assert!(budget.watch().is_some());
    }
}
