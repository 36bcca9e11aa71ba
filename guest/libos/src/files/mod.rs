//! Files in the widest sense: everything that a descriptor can name.
//!
//! * [`descriptors`]: the table from numbers to open files; [`budget`]: what all of them may take;
//! * [`console`]: standard input, output and error;
//! * [`devices`]: `/dev/null` and its kin;
//! * [`pipe`], [`event`]: pipes and event counters;
//! * [`timer`], [`signal`]: timers and signals that are read;
//! * [`epoll`]: waiting for many files.
//!
//! A file that cannot serve a call at once answers [`Errno::EAGAIN`]; whether the caller then waits or gets the
//! error is decided in `calls`, by the open file's flags.

pub(crate) mod budget;
pub(crate) mod console;
pub(crate) mod descriptors;
pub(crate) mod devices;
pub(crate) mod epoll;
pub(crate) mod event;
pub(crate) mod pipe;
pub(crate) mod signal;
pub(crate) mod timer;

use alloc::rc::Rc;

use bitflags::bitflags;
use linux_raw_sys::general::{
    POLLERR, POLLHUP, POLLIN, POLLOUT, POLLRDHUP, POLLRDNORM, POLLWRNORM, S_IFCHR, S_IFIFO, S_IFSOCK,
};

use crate::errno::Errno;
use crate::kernel::Kernel;
use crate::memory::Buffers;
use crate::memory::pages::Pages;
use crate::network::socket::Socket;
use crate::task::WaitQueue;
use epoll::Epoll;

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

/// Kind of a file, as `stat` shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    CharacterDevice,
    Pipe,
    Socket,
    Anonymous,
}

impl Kind {
    /// The file type bits of `st_mode`.
    pub(crate) fn mode(self) -> u32 {
        match self {
            Self::CharacterDevice => S_IFCHR,
            Self::Pipe => S_IFIFO,
            Self::Socket => S_IFSOCK,
            Self::Anonymous => 0,
        }
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

/// Something that descriptors name.
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

    /// What a mapping of it leads to; an error if it cannot be mapped.
    fn mapping(&self) -> Result<Mapping, Errno> {
        Err(Errno::ENODEV)
    }

    /// The last descriptor of it was closed.
    fn release(&self, _kernel: &mut Kernel) {}

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
}
