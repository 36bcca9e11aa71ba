//! `/dev/sysgenid`: tells programs that their memory has become another instance's, as Linux's SysGenID driver was proposed
//! to do it (docs/snapshots.md).
//!
//! Each open file is a *watcher*. It is outdated from the moment at which a clone goes on until it has confirmed the new
//! generation by writing it. As long as a watcher that may write is outdated, the clone gets no invocation.

use alloc::rc::{Rc, Weak};
use alloc::vec::Vec;
use core::cell::{Cell, RefCell};

use linux_raw_sys::general::{IN_MODIFY, O_ACCMODE, O_RDONLY};

use super::metadata::device_number;
use super::tree::Entry;
use super::{File, Kind, Mapping, Metadata, Positions, Readiness};
use crate::errno::Errno;
use crate::kernel::Kernel;
use crate::memory::Buffers;
use crate::memory::frames::SharedFrames;
use crate::memory::pages::Pages;
use crate::task::{ReadyQueue, WaitQueue};

/// Its major and minor number; the driver takes any minor number of the miscellaneous devices that is free.
pub(crate) const NUMBER: (u32, u32) = (10, 126);
/// A generation as programs read and write it.
const GENERATION_BYTES: u64 = 4;
/// `ioctl`: whether clones wait for the watcher (`SYSGENID_SET_WATCHER_TRACKING`).
pub(crate) const SET_TRACKING: u32 = 0xe401;

/// The generation, and who watches it.
pub(crate) struct Generation {
    current: Cell<u32>,
    watchers: RefCell<Vec<Weak<State>>>,
    moved: WaitQueue,
    /// What programs map: the generation is in its first bytes.
    page: Rc<Pages>,
    /// The device's name, for those who watch that.
    entry: RefCell<Option<Rc<Entry>>>,
}

/// What is known of a watcher.
struct State {
    confirmed: Cell<u32>,
    is_tracked: Cell<bool>,
}

/// A watcher.
pub(crate) struct Watcher {
    generation: Rc<Generation>,
    state: Rc<State>,
}

impl Generation {
    /// The first one.
    pub(crate) fn new(frames: &SharedFrames, ready: &Rc<ReadyQueue>) -> Rc<Self> {
        Rc::new(Self {
            current: Cell::new(0),
            watchers: RefCell::default(),
            moved: WaitQueue::new(ready),
            page: Pages::new(frames),
            entry: RefCell::default(),
        })
    }

    /// Says what the device is called.
    pub(crate) fn set_entry(&self, entry: Rc<Entry>) {
        self.entry.replace(Some(entry));
    }

    /// A new watcher, opened with these flags.
    pub(crate) fn watch(self: &Rc<Self>, flags: u32) -> Watcher {
        let state = Rc::new(State {
            confirmed: Cell::new(self.current.get()),
            is_tracked: Cell::new(flags & O_ACCMODE != O_RDONLY),
        });
        let mut watchers = self.watchers.borrow_mut();
        watchers.retain(|watcher| watcher.strong_count() > 0);
        watchers.push(Rc::downgrade(&state));
        Watcher {
            generation: Rc::clone(self),
            state,
        }
    }

    /// Begins the next generation, and tells all watchers.
    pub(crate) fn advance(&self) {
        self.current.set(self.current.get().wrapping_add(1));
        if self.page.frame(0).is_some() {
            // It has its frame, so it can be written.
            let _ = self.page.write(0, &self.current.get().to_le_bytes());
        }
        self.moved.wake();
        if let Some(entry) = &*self.entry.borrow() {
            entry.notify(IN_MODIFY);
        }
    }

    /// Whether a watcher that is waited for has not confirmed the generation yet.
    pub(crate) fn is_awaited(&self) -> bool {
        let current = self.current.get();
        let is_outdated = |state: Rc<State>| state.is_tracked.get() && state.confirmed.get() != current;
        self.watchers
            .borrow()
            .iter()
            .filter_map(Weak::upgrade)
            .any(is_outdated)
    }
}

impl Watcher {
    fn is_outdated(&self) -> bool {
        self.state.confirmed.get() != self.generation.current.get()
    }

    /// Whether clones are to wait for it from now on.
    pub(crate) fn set_tracked(&self, is_tracked: bool) {
        self.state.is_tracked.set(is_tracked);
    }
}

impl File for Watcher {
    fn kind(&self) -> Kind {
        Kind::CharacterDevice
    }

    fn positions(&self) -> Positions {
        Positions::Ignored
    }

    fn metadata(&self) -> Metadata {
        Metadata::of_device(NUMBER.0, NUMBER.1)
    }

    fn read(&self, kernel: &mut Kernel, buffers: &mut Buffers) -> Result<u64, Errno> {
        if buffers.remaining() < GENERATION_BYTES {
            return Err(Errno::EINVAL);
        }
        if !self.is_outdated() {
            return Err(Errno::EAGAIN);
        }
        let generation = self.generation.current.get().to_le_bytes();
        buffers.put(&mut kernel.process.space, &generation)
    }

    fn write(&self, kernel: &mut Kernel, buffers: &mut Buffers) -> Result<u64, Errno> {
        if buffers.remaining() != GENERATION_BYTES {
            return Err(Errno::EINVAL);
        }
        let mut bytes = [0; GENERATION_BYTES as usize];
        buffers.take(&mut kernel.process.space, &mut bytes)?;
        let confirmed = u32::from_le_bytes(bytes);
        if confirmed != self.generation.current.get() {
            return Err(Errno::EINVAL);
        }
        self.state.confirmed.set(confirmed);
        Ok(GENERATION_BYTES)
    }

    fn readiness(&self) -> Readiness {
        let mut readiness = Readiness::WRITE;
        readiness.set(Readiness::READ, self.is_outdated());
        readiness
    }

    fn wait_queue(&self) -> Option<&WaitQueue> {
        Some(&self.generation.moved)
    }

    fn mapping(&self) -> Result<Mapping, Errno> {
        let page = &self.generation.page;
        page.write(0, &self.generation.current.get().to_le_bytes())?;
        Ok(Mapping::Pages(Rc::clone(page)))
    }

    fn as_watcher(&self) -> Option<&Watcher> {
        Some(self)
    }
}

/// Whether a device has this number.
pub(crate) fn is_meant(rdev: u64) -> bool {
    rdev == device_number(NUMBER.0, NUMBER.1)
}
