//! The table from descriptor numbers to open files.

use alloc::rc::Rc;
use alloc::vec::Vec;
use core::cell::Cell;

use linux_raw_sys::general::{
    IN_CLOSE_NOWRITE, IN_CLOSE_WRITE, O_ACCMODE, O_NONBLOCK, O_PATH, O_RDONLY, O_RDWR, O_WRONLY,
};

use super::{Entry, File, Metadata};
use crate::errno::Errno;

/// Most descriptors that the program can have (RLIMIT_NOFILE).
pub(crate) const DESCRIPTORS_MAX: usize = 16_384;

/// An open file description: what `dup` shares.
pub(crate) struct OpenFile {
    pub(crate) file: Rc<dyn File>,
    /// Status flags as `fcntl(F_GETFL)` returns them.
    pub(crate) flags: Cell<u32>,
    /// Where it is in the tree, if it was opened by a path.
    pub(crate) location: Option<Rc<Entry>>,
    /// Where the next read or write begins, for files that keep positions.
    pub(crate) position: Cell<u64>,
}

impl OpenFile {
    /// An open file with these status flags.
    pub(crate) fn new(file: Rc<dyn File>, flags: u32) -> Rc<Self> {
        Rc::new(Self {
            file,
            flags: Cell::new(flags),
            location: None,
            position: Cell::new(0),
        })
    }

    /// An open file that was found in the tree.
    pub(crate) fn located(file: Rc<dyn File>, location: Rc<Entry>, flags: u32) -> Rc<Self> {
        Rc::new(Self {
            file,
            flags: Cell::new(flags),
            location: Some(location),
            position: Cell::new(0),
        })
    }

    /// What `fstat` shows.
    pub(crate) fn metadata(&self) -> Metadata {
        match &self.location {
            Some(entry) => entry.node.metadata(),
            None => self.file.metadata(),
        }
    }

    /// What `/proc/self/fd` shows.
    pub(crate) fn label(&self) -> Vec<u8> {
        match &self.location {
            Some(entry) => entry.path(),
            None => self.file.label(),
        }
    }

    /// Whether it may be read.
    pub(crate) fn is_readable(&self) -> bool {
        [O_RDONLY, O_RDWR].contains(&(self.flags.get() & (O_ACCMODE | O_PATH)))
    }

    /// Whether it may be written.
    pub(crate) fn is_writable(&self) -> bool {
        [O_WRONLY, O_RDWR].contains(&(self.flags.get() & (O_ACCMODE | O_PATH)))
    }

    /// Whether calls return rather than wait.
    pub(crate) fn is_non_blocking(&self) -> bool {
        self.flags.get() & O_NONBLOCK != 0
    }
}

impl Drop for OpenFile {
    fn drop(&mut self) {
        let Some(entry) = &self.location else { return };
        if self.flags.get() & O_PATH == 0 {
            let volume = &entry.node.volume;
            volume
                .locks
                .release_open(entry.node.number, core::ptr::from_ref(self).addr());
            entry.notify(if self.is_writable() {
                IN_CLOSE_WRITE
            } else {
                IN_CLOSE_NOWRITE
            });
        }
    }
}

#[derive(Clone)]
struct Descriptor {
    open: Rc<OpenFile>,
    close_on_exec: bool,
}

/// The table.
#[derive(Clone)]
pub(crate) struct Descriptors {
    slots: Vec<Option<Descriptor>>,
    /// All numbers below are in use.
    full_below: usize,
    /// Numbers from here on cannot be given (RLIMIT_NOFILE).
    limit: usize,
}

impl Default for Descriptors {
    fn default() -> Self {
        Self {
            slots: Vec::new(),
            full_below: 0,
            limit: DESCRIPTORS_MAX,
        }
    }
}

impl Descriptors {
    /// The open file behind a descriptor.
    pub(crate) fn get(&self, number: u64) -> Result<Rc<OpenFile>, Errno> {
        self.slot(number).map(|descriptor| Rc::clone(&descriptor.open))
    }

    /// Gives an open file the lowest free number from `lowest` on.
    pub(crate) fn add(&mut self, open: Rc<OpenFile>, close_on_exec: bool, lowest: u64) -> Result<u64, Errno> {
        let lowest = usize::try_from(lowest)
            .ok()
            .filter(|&lowest| lowest == 0 || lowest < self.limit)
            .ok_or(Errno::EINVAL)?;
        let number = (lowest.max(self.full_below)..self.limit)
            .find(|&number| self.slots.get(number).is_none_or(Option::is_none))
            .ok_or(Errno::EMFILE)?;
        if lowest <= self.full_below {
            self.full_below = number + 1;
        }
        self.put(number, Descriptor { open, close_on_exec });
        Ok(number as u64)
    }

    /// Whether one more can be added.
    pub(crate) fn has_room(&self) -> bool {
        (self.full_below..self.limit).any(|number| self.slots.get(number).is_none_or(Option::is_none))
    }

    /// Sets from which number on none is given.
    pub(crate) fn set_limit(&mut self, limit: u64) {
        self.limit = usize::try_from(limit).map_or(DESCRIPTORS_MAX, |limit| limit.min(DESCRIPTORS_MAX));
    }

    /// Gives an open file this very number; returns the one that had it.
    pub(crate) fn set(
        &mut self,
        number: u64,
        open: Rc<OpenFile>,
        close_on_exec: bool,
    ) -> Result<Option<Rc<OpenFile>>, Errno> {
        let number = usize::try_from(number)
            .ok()
            .filter(|&number| number < self.limit)
            .ok_or(Errno::EBADF)?;
        Ok(self
            .put(number, Descriptor { open, close_on_exec })
            .map(|descriptor| descriptor.open))
    }

    /// Takes a descriptor out of the table.
    pub(crate) fn remove(&mut self, number: u64) -> Result<Rc<OpenFile>, Errno> {
        let slot = usize::try_from(number)
            .ok()
            .and_then(|number| self.slots.get_mut(number))
            .ok_or(Errno::EBADF)?;
        let descriptor = slot.take().ok_or(Errno::EBADF)?;
        self.full_below = self.full_below.min(number as usize);
        Ok(descriptor.open)
    }

    /// Whether a descriptor is closed by `execve`.
    pub(crate) fn close_on_exec(&self, number: u64) -> Result<bool, Errno> {
        self.slot(number).map(|descriptor| descriptor.close_on_exec)
    }

    /// Sets whether a descriptor is closed by `execve`.
    pub(crate) fn set_close_on_exec(&mut self, number: u64, value: bool) -> Result<(), Errno> {
        let slot = usize::try_from(number)
            .ok()
            .and_then(|number| self.slots.get_mut(number))
            .and_then(Option::as_mut);
        slot.ok_or(Errno::EBADF)?.close_on_exec = value;
        Ok(())
    }

    /// The numbers that are in use, with their open files.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u64, &Rc<OpenFile>)> {
        let slots = self.slots.iter().enumerate();
        slots.filter_map(|(number, slot)| Some((number as u64, &slot.as_ref()?.open)))
    }

    /// Takes all descriptors out of the table.
    pub(crate) fn take_all(&mut self) -> Vec<Rc<OpenFile>> {
        let slots = core::mem::take(&mut self.slots);
        self.full_below = 0;
        slots
            .into_iter()
            .flatten()
            .map(|descriptor| descriptor.open)
            .collect()
    }

    /// Takes those out of the table that `execve` closes.
    pub(crate) fn take_closed_by_exec(&mut self) -> Vec<Rc<OpenFile>> {
        self.full_below = 0;
        let is_closed =
            |slot: &&mut Option<Descriptor>| slot.as_ref().is_some_and(|descriptor| descriptor.close_on_exec);
        let closed = self.slots.iter_mut().filter(is_closed);
        closed
            .filter_map(|slot| slot.take().map(|descriptor| descriptor.open))
            .collect()
    }

    fn slot(&self, number: u64) -> Result<&Descriptor, Errno> {
        let slot = usize::try_from(number)
            .ok()
            .and_then(|number| self.slots.get(number))
            .and_then(Option::as_ref);
        slot.ok_or(Errno::EBADF)
    }

    fn put(&mut self, number: usize, descriptor: Descriptor) -> Option<Descriptor> {
        if number >= self.slots.len() {
            self.slots.resize(number + 1, None);
        }
        self.slots[number].replace(descriptor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::devices::Null;

    fn open() -> Rc<OpenFile> {
        OpenFile::new(Rc::new(Null), 0)
    }

    #[test]
    fn the_lowest_free_number_is_given() {
        let mut table = Descriptors::default();
        let numbers: Vec<_> = (0..3).map(|_| table.add(open(), false, 0).unwrap()).collect();
        assert_eq!(numbers, [0, 1, 2]);
        table.remove(1).unwrap();
        assert_eq!(table.add(open(), true, 0), Ok(1));
        assert_eq!(table.add(open(), false, 10), Ok(10));
        assert_eq!(table.close_on_exec(1), Ok(true));
    }

    #[test]
    fn absent_numbers_are_bad_and_absurd_ones_invalid() {
        let mut table = Descriptors::default();
        for number in [0, 7, u64::MAX] {
            assert_eq!(table.get(number).err(), Some(Errno::EBADF));
            assert_eq!(table.remove(number).err(), Some(Errno::EBADF));
        }
        assert_eq!(
            table.set(DESCRIPTORS_MAX as u64, open(), false).err(),
            Some(Errno::EBADF)
        );
        assert_eq!(table.add(open(), false, u64::MAX), Err(Errno::EINVAL));
    }

    #[test]
    fn numbers_from_the_limit_on_are_not_given() {
        let mut table = Descriptors::default();
        table.set_limit(2);
        assert_eq!(table.add(open(), false, 0), Ok(0));
        assert_eq!(table.add(open(), false, 2), Err(Errno::EINVAL));
        assert_eq!(table.set(2, open(), false).err(), Some(Errno::EBADF));
        assert!(table.has_room());
        assert_eq!(table.add(open(), false, 0), Ok(1));
        assert!(!table.has_room());
        assert_eq!(table.add(open(), false, 0), Err(Errno::EMFILE));
        table.remove(0).unwrap();
        assert_eq!(table.add(open(), false, 0), Ok(0));
    }

    #[test]
    fn the_table_is_bounded() {
        let mut table = Descriptors::default();
        let shared = open();
        for _ in 0..DESCRIPTORS_MAX {
            table
                .set(DESCRIPTORS_MAX as u64 - 1, Rc::clone(&shared), false)
                .unwrap();
        }
        assert_eq!(
            table.add(Rc::clone(&shared), false, DESCRIPTORS_MAX as u64 - 1),
            Err(Errno::EMFILE)
        );
    }
}
