//! Queues of bytes in frames: what sockets of the program send to each other.
//!
//! The bytes lie in the function's own memory and not in the library OS's small heap; a frame is taken when the first
//! byte for it comes, and given back when its last byte has been read.

use alloc::collections::VecDeque;

use spore_abi::layout::PAGE_BYTES;
use spore_machine::user::{self, Place};

use crate::errno::Errno;
use crate::memory::frames::SharedFrames;
use crate::memory::{AddressSpace, Buffers};

/// Bytes, first in first out.
pub(crate) struct ByteQueue {
    memory: SharedFrames,
    frames: VecDeque<u64>,
    /// Where the first byte lies in the first frame.
    offset: u64,
    length: u64,
    /// How many bytes have ever been taken out.
    position: u64,
}

impl ByteQueue {
    /// An empty queue.
    pub(crate) fn new(memory: &SharedFrames) -> Self {
        Self {
            memory: SharedFrames::clone(memory),
            frames: VecDeque::new(),
            offset: 0,
            length: 0,
            position: 0,
        }
    }

    /// Bytes in the queue.
    pub(crate) fn len(&self) -> u64 {
        self.length
    }

    /// How many bytes have been taken out before the first one that is there.
    pub(crate) fn position(&self) -> u64 {
        self.position
    }

    /// Where the next byte goes, and how many go there in one stretch.
    fn next_stretch(&mut self) -> Result<(u64, u64), Errno> {
        let end = self.offset + self.length;
        if end == self.frames.len() as u64 * PAGE_BYTES {
            let gpa = self.memory.borrow_mut().take(PAGE_BYTES).ok_or(Errno::ENOBUFS)?;
            self.frames.push_back(gpa);
        }
        let frame = self.frames[(end / PAGE_BYTES) as usize];
        Ok((frame + end % PAGE_BYTES, PAGE_BYTES - end % PAGE_BYTES))
    }

    /// Takes up to `count` bytes out of the buffers; how many. An error only if it is none.
    pub(crate) fn push(
        &mut self,
        space: &mut AddressSpace,
        buffers: &mut Buffers,
        count: u64,
    ) -> Result<u64, Errno> {
        let wanted = count.min(buffers.remaining());
        let mut done = 0;
        while done < wanted {
            let step = self.next_stretch().and_then(|(gpa, room)| {
                let asked = room.min(wanted - done);
                Ok((buffers.take_to(space, Place::Frame(gpa), asked)?, asked))
            });
            match step {
                Ok((taken, asked)) => {
                    self.length += taken;
                    done += taken;
                    if taken < asked {
                        break;
                    }
                }
                Err(error) if done == 0 => {
                    self.drop_unused();
                    return Err(error);
                }
                Err(_) => break,
            }
        }
        self.drop_unused();
        Ok(done)
    }

    /// Adds bytes of the library OS's: all or none.
    pub(crate) fn push_bytes(&mut self, bytes: &[u8]) -> Result<(), Errno> {
        let before = self.length;
        let mut rest = bytes;
        while !rest.is_empty() {
            let (gpa, room) = match self.next_stretch() {
                Ok(stretch) => stretch,
                Err(error) => {
                    self.cut(before);
                    return Err(error);
                }
            };
            let (part, more) = rest.split_at(rest.len().min(room as usize));
            // The frame is ours, so the place exists.
            let _ = user::write_place(Place::Frame(gpa), part);
            self.length += part.len() as u64;
            rest = more;
        }
        Ok(())
    }

    /// Forgets what was added last, down to `length` bytes.
    pub(crate) fn cut(&mut self, length: u64) {
        self.length = self.length.min(length);
        self.drop_unused();
    }

    /// Gives back frames that hold no byte.
    fn drop_unused(&mut self) {
        let needed = if self.length == 0 {
            self.offset = 0;
            0
        } else {
            (self.offset + self.length).div_ceil(PAGE_BYTES)
        };
        while self.frames.len() as u64 > needed {
            if let Some(gpa) = self.frames.pop_back() {
                self.memory.borrow_mut().give_back(gpa, PAGE_BYTES);
            }
        }
    }

    /// Each stretch of the first `count` bytes, after `skipped` others: `(place, done, length)`; until one says no.
    fn each(
        &self,
        skipped: u64,
        count: u64,
        mut visit: impl FnMut(Place, u64, u64) -> Result<u64, Errno>,
    ) -> Result<u64, Errno> {
        let wanted = count.min(self.length.saturating_sub(skipped));
        let mut done = 0;
        while done < wanted {
            let at = self.offset + skipped + done;
            let within = at % PAGE_BYTES;
            let length = (PAGE_BYTES - within).min(wanted - done);
            let place = Place::Frame(self.frames[(at / PAGE_BYTES) as usize] + within);
            match visit(place, done, length) {
                Ok(moved) => {
                    done += moved;
                    if moved < length {
                        break;
                    }
                }
                Err(error) if done == 0 => return Err(error),
                Err(_) => break,
            }
        }
        Ok(done)
    }

    /// Copies up to `count` of the first bytes into the buffers, and leaves them in the queue; how many.
    pub(crate) fn copy_to(
        &self,
        space: &mut AddressSpace,
        buffers: &mut Buffers,
        count: u64,
    ) -> Result<u64, Errno> {
        let wanted = count.min(buffers.remaining());
        self.each(0, wanted, |place, _, length| {
            buffers.put_from(space, place, length)
        })
    }

    /// Fills `bytes` with the first ones after `skipped`, and leaves them in the queue; how many.
    pub(crate) fn copy_bytes(&self, skipped: u64, bytes: &mut [u8]) -> usize {
        let copied = self.each(skipped, bytes.len() as u64, |place, done, length| {
            let part = &mut bytes[done as usize..(done + length) as usize];
            // The frame is ours, so the place exists.
            let _ = user::read_place(place, part);
            Ok(length)
        });
        copied.unwrap_or(0) as usize
    }

    /// Drops the first `count` bytes.
    pub(crate) fn consume(&mut self, count: u64) {
        let count = count.min(self.length);
        self.length -= count;
        self.position += count;
        self.offset += count;
        while self.offset >= PAGE_BYTES {
            self.offset -= PAGE_BYTES;
            if let Some(gpa) = self.frames.pop_front() {
                self.memory.borrow_mut().give_back(gpa, PAGE_BYTES);
            }
        }
        self.drop_unused();
    }
}

impl Drop for ByteQueue {
    fn drop(&mut self) {
        self.length = 0;
        self.drop_unused();
    }
}
