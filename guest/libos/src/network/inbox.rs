//! What has come in for a socket and was not read yet: bytes, and what belongs to some of them.

use alloc::collections::VecDeque;
use alloc::rc::Rc;
use alloc::vec::Vec;

use super::bytes::ByteQueue;
use crate::errno::Errno;
use crate::files::budget::{Budget, Share};
use crate::files::descriptors::OpenFile;
use crate::kernel::Kernel;
use crate::memory::Buffers;
use crate::memory::frames::SharedFrames;

/// Process, user and group of a sender (`struct ucred`).
pub(crate) type Credentials = [u32; 3];

/// What travels beside the bytes.
#[derive(Default)]
pub(crate) struct Ancillary {
    pub(crate) rights: Vec<Rc<OpenFile>>,
    pub(crate) credentials: Option<Credentials>,
    /// Counts the rights while they are under way.
    pub(crate) share: Option<Share>,
}

impl Ancillary {
    /// Whether there is nothing.
    pub(crate) fn is_empty(&self) -> bool {
        self.rights.is_empty() && self.credentials.is_none()
    }

    fn copy(&self) -> Self {
        Self {
            rights: self.rights.clone(),
            credentials: self.credentials,
            share: None,
        }
    }
}

/// Bytes that belong together: a datagram, a record, or the part of a stream that something travels with.
struct Message {
    start: u64,
    end: u64,
    source: Option<Rc<[u8]>>,
    ancillary: Ancillary,
    _share: Share,
}

/// What a read found.
#[derive(Default)]
pub(crate) struct Incoming {
    /// Bytes that were copied.
    pub(crate) count: u64,
    /// Bytes of the datagram, however many were copied.
    pub(crate) full: u64,
    /// The sender's address, if the kind of socket tells it.
    pub(crate) source: Option<Rc<[u8]>>,
    pub(crate) ancillary: Ancillary,
    /// It was a record.
    pub(crate) is_record: bool,
    /// A stream's read may go on with what comes next.
    pub(crate) may_go_on: bool,
}

/// Bytes and messages, first in first out.
pub(crate) struct Inbox {
    bytes: ByteQueue,
    messages: VecDeque<Message>,
    budget: Rc<Budget>,
}

impl Inbox {
    /// An empty one.
    pub(crate) fn new(memory: &SharedFrames, budget: &Rc<Budget>) -> Self {
        Self {
            bytes: ByteQueue::new(memory),
            messages: VecDeque::new(),
            budget: Rc::clone(budget),
        }
    }

    /// An empty one of this kernel.
    pub(crate) fn of(kernel: &Kernel) -> Self {
        Self::new(&kernel.frames, &kernel.budget)
    }

    /// Bytes that wait.
    pub(crate) fn len(&self) -> u64 {
        self.bytes.len()
    }

    /// Messages that wait.
    pub(crate) fn messages(&self) -> usize {
        self.messages.len()
    }

    /// Whether nothing waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.bytes.len() == 0 && self.messages.is_empty()
    }

    /// Bytes of the message that comes next.
    pub(crate) fn next_length(&self) -> Option<u64> {
        self.messages.front().map(|message| message.end - message.start)
    }

    /// Adds up to `count` bytes to a stream.
    pub(crate) fn push_stream(
        &mut self,
        kernel: &mut Kernel,
        buffers: &mut Buffers,
        count: u64,
        ancillary: &mut Ancillary,
    ) -> Result<u64, Errno> {
        let start = self.end();
        let share = if ancillary.is_empty() {
            None
        } else {
            Some(self.budget.message().ok_or(Errno::ENOBUFS)?)
        };
        let done = self.bytes.push(&mut kernel.process.space, buffers, count)?;
        if let Some(last) = self.messages.back_mut()
            && last.end == start
            && last.ancillary.rights.is_empty()
            && ancillary.rights.is_empty()
            && last.ancillary.credentials == ancillary.credentials
        {
            last.end += done;
            return Ok(done);
        }
        if let Some(share) = share
            && done > 0
        {
            self.messages.push_back(Message {
                start,
                end: start + done,
                source: None,
                ancillary: core::mem::take(ancillary),
                _share: share,
            });
        }
        Ok(done)
    }

    /// Adds all of the buffers as one message.
    pub(crate) fn push_message(
        &mut self,
        kernel: &mut Kernel,
        buffers: &mut Buffers,
        source: Option<Rc<[u8]>>,
        ancillary: &mut Ancillary,
    ) -> Result<u64, Errno> {
        let share = self.budget.message().ok_or(Errno::ENOBUFS)?;
        let (start, before) = (self.end(), self.bytes.len());
        let wanted = buffers.remaining();
        let done = self.bytes.push(&mut kernel.process.space, buffers, wanted)?;
        if done < wanted {
            self.bytes.cut(before);
            return Err(Errno::EFAULT);
        }
        self.messages.push_back(Message {
            start,
            end: start + done,
            source,
            ancillary: core::mem::take(ancillary),
            _share: share,
        });
        Ok(done)
    }

    /// Adds a message of the library OS's own.
    pub(crate) fn push_own_message(&mut self, bytes: &[u8], source: Option<Rc<[u8]>>) -> Result<(), Errno> {
        let share = self.budget.message().ok_or(Errno::ENOBUFS)?;
        let start = self.end();
        self.bytes.push_bytes(bytes)?;
        self.messages.push_back(Message {
            start,
            end: start + bytes.len() as u64,
            source,
            ancillary: Ancillary::default(),
            _share: share,
        });
        Ok(())
    }

    /// Adds bytes of the library OS's own to a stream: all or none.
    pub(crate) fn push_own_bytes(&mut self, bytes: &[u8]) -> Result<(), Errno> {
        self.bytes.push_bytes(bytes)
    }

    /// Takes bytes that nothing travels with out of a stream; how many.
    pub(crate) fn pull_own_bytes(&mut self, bytes: &mut [u8]) -> usize {
        let count = self.bytes.copy_bytes(0, bytes);
        self.bytes.consume(count as u64);
        count
    }

    fn end(&self) -> u64 {
        self.bytes.position() + self.bytes.len()
    }

    /// Reads from a stream, not across the borders of what something travels with. `EAGAIN` if nothing is there.
    pub(crate) fn pull_stream(
        &mut self,
        kernel: &mut Kernel,
        buffers: &mut Buffers,
        peek: bool,
    ) -> Result<Incoming, Errno> {
        let position = self.bytes.position();
        let mut limit = self.bytes.len();
        let mut is_here = false;
        match self.messages.front() {
            Some(message) if message.start > position => limit = message.start - position,
            Some(message) => {
                limit = message.end - position;
                is_here = true;
            }
            None => {}
        }
        if limit == 0 {
            return Err(Errno::EAGAIN);
        }
        let count = self.bytes.copy_to(&mut kernel.process.space, buffers, limit)?;
        let mut incoming = Incoming {
            count,
            full: count,
            may_go_on: true,
            ..Incoming::default()
        };
        if is_here && count > 0 {
            incoming.may_go_on = false;
            if peek {
                if let Some(message) = self.messages.front() {
                    incoming.ancillary = message.ancillary.copy();
                }
            } else if let Some(message) = self.messages.pop_front() {
                incoming.ancillary = message.ancillary;
            }
        }
        if !peek {
            self.bytes.consume(count);
        }
        Ok(incoming)
    }

    /// Reads a message; what does not fit into the buffers is lost. `EAGAIN` if none is there.
    pub(crate) fn pull_message(
        &mut self,
        kernel: &mut Kernel,
        buffers: &mut Buffers,
        peek: bool,
    ) -> Result<Incoming, Errno> {
        let Some(message) = self.messages.front() else {
            return Err(Errno::EAGAIN);
        };
        let full = message.end - message.start;
        let count = self.bytes.copy_to(&mut kernel.process.space, buffers, full)?;
        let mut incoming = Incoming {
            count,
            full,
            source: message.source.clone(),
            is_record: true,
            ..Incoming::default()
        };
        if peek {
            incoming.ancillary = message.ancillary.copy();
        } else if let Some(message) = self.messages.pop_front() {
            incoming.ancillary = message.ancillary;
            self.bytes.consume(full);
        }
        Ok(incoming)
    }

    /// Drops everything; files that were under way go to `discarded`, for their release.
    pub(crate) fn clear(&mut self, discarded: &mut Vec<Rc<OpenFile>>) {
        for message in self.messages.drain(..) {
            discarded.extend(message.ancillary.rights);
        }
        self.bytes.consume(self.bytes.len());
    }
}
