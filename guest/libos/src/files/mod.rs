//! Files in the widest sense: everything that a descriptor can name.
//!
//! * [`descriptors`]: the table from numbers to open files; [`budget`]: what all of them may take;
//! * [`console`]: standard input, output and error; [`command`]: those of commands;
//! * [`contents`], [`memory`]: bytes in memory, and the files that are nothing else (`memfd`);
//! * [`devices`]: `/dev/null` and its kin;
//! * [`pipe`], [`event`]: pipes and event counters;
//! * [`timer`], [`signal`]: timers and signals that are read;
//! * [`generation`]: `/dev/sysgenid`, which tells clones that they are some;
//! * [`epoll`]: waiting for many files;
//! * [`erofs`]: the image of the root file system; [`tree`]: named files over it; [`generated`]: `/proc` and `/sys`;
//! * [`locks`], [`notify`]: locks on files, and news of them.
//!
//! A file that cannot serve a call at once answers [`Errno::EAGAIN`]; whether the caller then waits or gets the
//! error is decided in `calls`, by the open file's flags.

pub(crate) mod budget;
pub(crate) mod command;
pub(crate) mod console;
pub(crate) mod contents;
pub(crate) mod descriptors;
pub(crate) mod devices;
pub(crate) mod epoll;
pub(crate) mod erofs;
pub(crate) mod event;
pub(crate) mod generated;
pub(crate) mod generation;
pub(crate) mod locks;
pub(crate) mod memory;
pub(crate) mod metadata;
pub(crate) mod notify;
pub(crate) mod pipe;
pub(crate) mod process;
pub(crate) mod signal;
pub(crate) mod timer;
pub(crate) mod tree;

use alloc::rc::Rc;
use alloc::vec::Vec;

use bitflags::bitflags;
use linux_raw_sys::general::{POLLERR, POLLHUP, POLLIN, POLLOUT, POLLRDHUP, POLLRDNORM, POLLWRNORM};

use crate::errno::Errno;
use crate::kernel::Kernel;
use crate::memory::Buffers;
use crate::memory::pages::Pages;
use crate::network::socket::Socket;
use crate::task::WaitQueue;
use epoll::Epoll;
use memory::MemoryFile;
pub(crate) use metadata::{Kind, Metadata};
use tree::Entry;
pub(crate) use tree::opening::open_program;

bitflags! {
    /// What a file is ready for; the numbers are those of `poll` and `epoll`.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub(crate) struct Readiness: u32 {
        const READ = POLLIN;
        const WRITE = POLLOUT;
        const ERROR = POLLERR;
        const HANG_UP = POLLHUP;
        const READ_HANG_UP = POLLRDHUP;
    }
}

impl Readiness {
    /// The bits that `poll` and `epoll` report, with those that mean the same for all files here.
    pub(crate) fn poll_bits(self) -> u32 {
        let mut bits = self.bits();
        if self.contains(Self::READ) {
            bits |= POLLRDNORM;
        }
        if self.contains(Self::WRITE) {
            bits |= POLLWRNORM;
        }
        bits
    }
}

/// What a file that can be mapped has its contents in.
pub(crate) enum Mapping {
    /// A file of the root file system: this part of the module, from its first byte (at a page's start) on.
    Module { offset: u64, bytes: u64 },
    /// A file in memory.
    Pages(Rc<Pages>),
    /// `/dev/zero`: memory of its own.
    Zero,
}

/// What a position means to a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Positions {
    /// Nothing: bytes come and go in order. Seeking fails with ESPIPE.
    None,
    /// Nothing, but it may be named (devices): it is 0 for ever.
    Ignored,
    /// It counts bytes from the file's start; the open file has one.
    Kept,
}

/// Something that descriptors name.
///
/// Files with positions implement [`File::read_at`] and [`File::write_at`], the others [`File::read`] and
/// [`File::write`].
pub(crate) trait File {
    /// Its kind.
    fn kind(&self) -> Kind;

    /// Reads into the program's buffers; returns the number of bytes, 0 at the end.
    fn read(&self, _kernel: &mut Kernel, _buffers: &mut Buffers) -> Result<u64, Errno> {
        Err(Errno::EINVAL)
    }

    /// Writes from the program's buffers; returns the number of bytes taken.
    fn write(&self, _kernel: &mut Kernel, _buffers: &mut Buffers) -> Result<u64, Errno> {
        Err(Errno::EINVAL)
    }

    /// What positions mean to it.
    fn positions(&self) -> Positions {
        Positions::None
    }

    /// Reads from `position` on into the program's buffers; returns the number of bytes, 0 at the end.
    fn read_at(&self, kernel: &mut Kernel, _position: u64, buffers: &mut Buffers) -> Result<u64, Errno> {
        match self.positions() {
            Positions::None => Err(Errno::ESPIPE),
            _ => self.read(kernel, buffers),
        }
    }

    /// Writes from the program's buffers to `position` and on; returns the number of bytes taken.
    fn write_at(&self, kernel: &mut Kernel, _position: u64, buffers: &mut Buffers) -> Result<u64, Errno> {
        match self.positions() {
            Positions::None => Err(Errno::ESPIPE),
            _ => self.write(kernel, buffers),
        }
    }

    /// Its length in bytes, if it is a regular file.
    fn size(&self) -> Option<u64> {
        None
    }

    /// Copies contents from `offset` on into memory of the library OS; returns how many bytes there were.
    fn peek(&self, _offset: u64, _buffer: &mut [u8]) -> Result<usize, Errno> {
        Err(Errno::EINVAL)
    }

    /// The first byte from `offset` on that is data, or (`hole`) that is not.
    fn seek_data(&self, offset: u64, hole: bool) -> Result<u64, Errno> {
        match self.size() {
            Some(size) if offset < size => Ok(if hole { size } else { offset }),
            Some(_) => Err(Errno::ENXIO),
            None => Err(Errno::EINVAL),
        }
    }

    /// Gives it this length.
    fn truncate(&self, _kernel: &mut Kernel, _bytes: u64) -> Result<(), Errno> {
        Err(Errno::EINVAL)
    }

    /// `fallocate`: gives a range memory, or takes it away.
    fn allocate(&self, _kernel: &mut Kernel, _mode: u32, _offset: u64, _bytes: u64) -> Result<(), Errno> {
        Err(match self.kind() {
            Kind::Pipe => Errno::ESPIPE,
            _ => Errno::ENODEV,
        })
    }

    /// `fsync`: nothing here outlives the instance, so that there is nothing to do where it makes sense at all.
    fn sync(&self) -> Result<(), Errno> {
        if self.size().is_some() {
            Ok(())
        } else {
            Err(Errno::EINVAL)
        }
    }

    /// What `stat` shows.
    fn metadata(&self) -> Metadata {
        Metadata::of_kind(self.kind())
    }

    /// Bytes that can be read at once, if it is something that bytes come out of in order (FIONREAD).
    fn waiting_bytes(&self) -> Option<u64> {
        None
    }

    /// What it is ready for.
    fn readiness(&self) -> Readiness;

    /// Whether a write that did part of its work goes on with the rest, as on pipes and streams.
    fn is_stream(&self) -> bool {
        matches!(self.kind(), Kind::Pipe | Kind::Socket)
    }

    /// Where to wait for a change of readiness; `None` if it never changes.
    fn wait_queue(&self) -> Option<&WaitQueue> {
        None
    }

    /// What a private mapping of it leads to; an error if it cannot be mapped.
    fn mapping(&self) -> Result<Mapping, Errno> {
        Err(Errno::ENODEV)
    }

    /// What a shared mapping leads to through which the file can be written.
    fn shared_mapping(&self, _kernel: &mut Kernel) -> Result<Mapping, Errno> {
        self.mapping()
    }

    /// The file that opening it through `/proc/self/fd` gives.
    fn reopened(self: Rc<Self>, _flags: u32) -> Result<Rc<dyn File>, Errno> {
        Err(Errno::ENXIO)
    }

    /// The last descriptor of it was closed.
    fn release(&self, _kernel: &mut Kernel) {}

    /// What `/proc/self/fd` calls it if it has no path.
    fn label(&self) -> Vec<u8> {
        let name: &[u8] = match self.kind() {
            Kind::Pipe => b"pipe:[1]",
            Kind::Socket => b"socket:[1]",
            _ => b"anon_inode:[file]",
        };
        name.to_vec()
    }

    /// The entry of the tree that it is, if it is one.
    fn entry(self: Rc<Self>) -> Option<Rc<Entry>> {
        None
    }

    /// The socket that it is, if it is one.
    fn as_socket(&self) -> Option<&Socket> {
        None
    }

    /// The timer that it is, if it is one.
    fn as_timer(&self) -> Option<&timer::TimerFile> {
        None
    }

    /// The reader of signals that it is, if it is one.
    fn as_signals(&self) -> Option<&signal::SignalFile> {
        None
    }

    /// The epoll instance that it is, if it is one.
    fn as_epoll(&self) -> Option<&Epoll> {
        None
    }

    /// The process that it names, if it is a descriptor of one.
    fn as_process(&self) -> Option<&process::ProcessHandle> {
        None
    }

    /// The end of a pipe that it is, if it is one.
    fn as_pipe(&self) -> Option<&pipe::End> {
        None
    }

    /// The watcher of the generation that it is, if it is one.
    fn as_watcher(&self) -> Option<&generation::Watcher> {
        None
    }

    /// The inotify instance that it is, if it is one.
    fn as_inotify(&self) -> Option<&notify::Inotify> {
        None
    }

    /// The memory file that it is, if it is one.
    fn as_memory_file(&self) -> Option<&MemoryFile> {
        None
    }
}
