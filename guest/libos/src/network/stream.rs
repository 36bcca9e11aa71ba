//! One stream slot in use: two byte rings shared with the monitor.

use alloc::rc::Rc;
use alloc::vec::Vec;
use core::cell::Cell;

use spore_abi::layout::STREAM_RING_BYTES;
use spore_abi::pages::{GuestSlot, guest_slot_flags, host_slot_flags};
use spore_abi::ring::{self, DATAGRAM_HEADER_BYTES, DatagramHeader};
use spore_machine::{processor, shared};

use super::bytes::ByteQueue;
use super::socket::Condition;
use crate::errno::Errno;
use crate::files::Readiness;
use crate::kernel::Kernel;
use crate::memory::Buffers;
use crate::task::{ReadyQueue, WaitQueue};

/// A stream. Dropping it closes it; what was written before still goes out.
pub(crate) struct Stream {
    slot: usize,
    generation: u32,
    state: Cell<GuestSlot>,
    /// The program will read no more.
    read_shut: Cell<bool>,
    pub(super) condition: Rc<Condition>,
}

impl Stream {
    /// Takes over the stream that the host has put into `slot`; `None` if there is none.
    pub(super) fn accept(slot: usize, condition: Rc<Condition>) -> Option<Rc<Self>> {
        let host = shared::host_slot(slot);
        let is_new = host.generation != shared::guest_slot(slot).generation;
        if host.flags & host_slot_flags::OPEN == 0 || !is_new {
            return None;
        }
        let state = GuestSlot {
            generation: host.generation,
            flags: 0,
            receive_head: 0,
            transmit_tail: 0,
        };
        shared::set_guest_slot(slot, state);
        Some(Rc::new(Self {
            slot,
            generation: host.generation,
            state: Cell::new(state),
            read_shut: Cell::new(false),
            condition,
        }))
    }

    /// Takes over the stream in `slot` for nobody: dropping it closes it.
    pub(super) fn accept_unwanted(slot: usize, ready: &Rc<ReadyQueue>) -> Option<Rc<Self>> {
        Self::accept(slot, Condition::new(ready))
    }

    /// Whether the slot still carries this stream.
    pub(super) fn is_current(&self) -> bool {
        shared::host_slot(self.slot).generation == self.generation
    }

    pub(super) fn is_reset(&self) -> bool {
        let host = shared::host_slot(self.slot);
        !self.is_current() || host.flags & host_slot_flags::RESET != 0
    }

    /// Whether the host sends no more.
    pub(super) fn has_peer_ended(&self) -> bool {
        self.is_reset() || shared::host_slot(self.slot).flags & host_slot_flags::END_OF_STREAM != 0
    }

    fn received(&self) -> u32 {
        if !self.is_current() {
            return 0;
        }
        let tail = shared::host_slot(self.slot).receive_tail;
        ring::used(self.state.get().receive_head, tail, STREAM_RING_BYTES).unwrap_or(0)
    }

    /// How many bytes can be sent at once.
    pub(super) fn room(&self) -> u32 {
        let head = shared::host_slot(self.slot).transmit_head;
        let used = ring::used(head, self.state.get().transmit_tail, STREAM_RING_BYTES);
        used.map_or(0, |used| STREAM_RING_BYTES - used)
    }

    fn publish(&self, change: impl FnOnce(&mut GuestSlot)) {
        let mut state = self.state.get();
        change(&mut state);
        self.state.set(state);
        shared::set_guest_slot(self.slot, state);
    }

    /// Reads what has come in; `peek` leaves it there.
    pub(crate) fn read(&self, kernel: &mut Kernel, buffers: &mut Buffers, peek: bool) -> Result<u64, Errno> {
        let waiting = self.received();
        if waiting == 0 || self.read_shut.get() {
            return match () {
                () if self.read_shut.get() => Ok(0),
                () if self.is_reset() => Err(Errno::ECONNRESET),
                () if self.has_peer_ended() || buffers.remaining() == 0 => Ok(0),
                () => Err(Errno::EAGAIN),
            };
        }
        let head = self.state.get().receive_head;
        let count = u64::from(waiting).min(buffers.remaining()) as u32;
        let done = shared::with_receive_ring(self.slot, head, count, |[first, second]| {
            let mut done = buffers.put(&mut kernel.process.space, first)?;
            if done == first.len() as u64 && !second.is_empty() {
                done += buffers.put(&mut kernel.process.space, second).unwrap_or(0);
            }
            Ok(done)
        })?;
        if !peek {
            self.note_read(head);
            let was_full = waiting > STREAM_RING_BYTES / 2;
            self.publish(|state| state.receive_head = head.wrapping_add(done as u32));
            if was_full {
                // The host stopped reading from its side for want of room; it need not wait for us to go idle.
                kernel.notify_due = true;
            }
        }
        Ok(done)
    }

    /// Takes note of the first bytes that are read.
    fn note_read(&self, head: u32) {
        // Read on from there, a stream costs nothing for this.
        if head == 0 && shared::host_slot(self.slot).flags & host_slot_flags::EGRESS == 0 {
            shared::note_first_read(processor::time_stamp());
        }
    }

    /// Reads up to `count` bytes for the library OS; how many.
    pub(super) fn receive_own(&self, bytes: &mut Vec<u8>, count: usize) -> usize {
        let count = u32::try_from(count).unwrap_or(u32::MAX).min(self.received());
        if count == 0 {
            return 0;
        }
        let head = self.state.get().receive_head;
        shared::with_receive_ring(self.slot, head, count, |[first, second]| {
            bytes.extend_from_slice(first);
            bytes.extend_from_slice(second);
        });
        self.note_read(head);
        self.publish(|state| state.receive_head = head.wrapping_add(count));
        count as usize
    }

    /// Takes what has come in for the library OS itself; how much.
    pub(crate) fn take_own(&self, buffer: &mut [u8]) -> usize {
        let count = self
            .received()
            .min(u32::try_from(buffer.len()).unwrap_or(u32::MAX));
        let head = self.state.get().receive_head;
        shared::with_receive_ring(self.slot, head, count, |[first, second]| {
            buffer[..first.len()].copy_from_slice(first);
            buffer[first.len()..first.len() + second.len()].copy_from_slice(second);
        });
        self.publish(|state| state.receive_head = head.wrapping_add(count));
        count as usize
    }

    /// Sends bytes of the library OS's, as many as there is room for.
    pub(super) fn send_own(&self, bytes: &[u8]) {
        let count = u32::try_from(bytes.len()).unwrap_or(u32::MAX).min(self.room());
        let tail = self.state.get().transmit_tail;
        shared::with_transmit_ring(self.slot, tail, count, |[first, second]| {
            let (start, end) = bytes[..count as usize].split_at(first.len());
            first.copy_from_slice(start);
            second.copy_from_slice(end);
        });
        self.publish(|state| state.transmit_tail = tail.wrapping_add(count));
    }

    /// It has changed.
    pub(crate) fn moved(&self) -> &WaitQueue {
        &self.condition.moved
    }

    /// Sends as much as there is room for.
    pub(crate) fn write(&self, kernel: &mut Kernel, buffers: &mut Buffers) -> Result<u64, Errno> {
        if self.state.get().flags & guest_slot_flags::SHUT_WRITE != 0 || self.is_reset() {
            return Err(Errno::EPIPE);
        }
        let room = self.room();
        if room == 0 && buffers.remaining() > 0 {
            return Err(Errno::EAGAIN);
        }
        let tail = self.state.get().transmit_tail;
        let count = u64::from(room).min(buffers.remaining()) as u32;
        let done = shared::with_transmit_ring(self.slot, tail, count, |[first, second]| {
            let mut done = buffers.take(&mut kernel.process.space, first)?;
            if done == first.len() as u64 && !second.is_empty() {
                done += buffers.take(&mut kernel.process.space, second).unwrap_or(0);
            }
            Ok(done)
        })?;
        self.publish(|state| state.transmit_tail = tail.wrapping_add(done as u32));
        Ok(done)
    }

    /// Sends the whole of a queue that is no longer than the ring, before anything else is sent.
    pub(super) fn send_queued(&self, queue: &mut ByteQueue) {
        let count = u32::try_from(queue.len()).unwrap_or(u32::MAX).min(self.room());
        let tail = self.state.get().transmit_tail;
        shared::with_transmit_ring(self.slot, tail, count, |[first, second]| {
            queue.copy_bytes(0, first);
            queue.copy_bytes(first.len() as u64, second);
        });
        self.publish(|state| state.transmit_tail = tail.wrapping_add(count));
        queue.consume(queue.len());
    }

    /// Sends a datagram: all of the buffers, which are no longer than one can be.
    pub(super) fn write_datagram(
        &self,
        kernel: &mut Kernel,
        header: DatagramHeader,
        buffers: &mut Buffers,
    ) -> Result<u64, Errno> {
        if self.is_reset() {
            return Err(Errno::EPIPE);
        }
        let length = u64::from(header.length);
        if u64::from(self.room()) < DATAGRAM_HEADER_BYTES as u64 + length {
            // The host makes room when it is asked to serve.
            kernel.notify_due = true;
            return Err(Errno::EAGAIN);
        }
        let tail = self.state.get().transmit_tail;
        let data = tail.wrapping_add(DATAGRAM_HEADER_BYTES as u32);
        let done =
            shared::with_transmit_ring(self.slot, data, u32::from(header.length), |[first, second]| {
                let mut done = buffers.take(&mut kernel.process.space, first)?;
                if done == first.len() as u64 && !second.is_empty() {
                    done += buffers.take(&mut kernel.process.space, second)?;
                }
                Ok::<u64, Errno>(done)
            })?;
        if done < length {
            return Err(Errno::EFAULT);
        }
        let bytes = header.encode();
        shared::with_transmit_ring(self.slot, tail, bytes.len() as u32, |[first, second]| {
            let (start, end) = bytes.split_at(first.len());
            first.copy_from_slice(start);
            second.copy_from_slice(end);
        });
        self.publish(|state| state.transmit_tail = data.wrapping_add(u32::from(header.length)));
        kernel.notify_due = true;
        Ok(done)
    }

    /// Header of the datagram that has come in first, if the whole of it is there.
    pub(super) fn next_datagram(&self) -> Option<DatagramHeader> {
        let waiting = self.received();
        if (waiting as usize) < DATAGRAM_HEADER_BYTES {
            return None;
        }
        let mut bytes = [0; DATAGRAM_HEADER_BYTES];
        let head = self.state.get().receive_head;
        shared::with_receive_ring(self.slot, head, bytes.len() as u32, |[first, second]| {
            bytes[..first.len()].copy_from_slice(first);
            bytes[first.len()..].copy_from_slice(second);
        });
        let header = DatagramHeader::decode(bytes)?;
        let whole = DATAGRAM_HEADER_BYTES as u32 + u32::from(header.length);
        (whole <= waiting).then_some(header)
    }

    /// Copies as much of the first datagram as fits into the buffers.
    pub(super) fn copy_datagram(
        &self,
        kernel: &mut Kernel,
        header: DatagramHeader,
        buffers: &mut Buffers,
    ) -> Result<u64, Errno> {
        let data = self
            .state
            .get()
            .receive_head
            .wrapping_add(DATAGRAM_HEADER_BYTES as u32);
        let count = u64::from(header.length).min(buffers.remaining()) as u32;
        shared::with_receive_ring(self.slot, data, count, |[first, second]| {
            let mut done = buffers.put(&mut kernel.process.space, first)?;
            if done == first.len() as u64 && !second.is_empty() {
                done += buffers.put(&mut kernel.process.space, second)?;
            }
            Ok(done)
        })
    }

    /// Drops the first datagram.
    pub(super) fn consume_datagram(&self, header: DatagramHeader) {
        let length = DATAGRAM_HEADER_BYTES as u32 + u32::from(header.length);
        self.publish(|state| state.receive_head = state.receive_head.wrapping_add(length));
    }

    /// `shutdown`: no more reading, no more writing, or both.
    pub(crate) fn shut(&self, read: bool, write: bool) {
        if read {
            self.read_shut.set(true);
        }
        if write {
            self.publish(|state| state.flags |= guest_slot_flags::SHUT_WRITE);
        }
        self.condition.moved.wake();
    }

    /// What it is ready for.
    pub(crate) fn readiness(&self) -> Readiness {
        let ended = self.has_peer_ended() || self.read_shut.get();
        let write_shut = self.state.get().flags & guest_slot_flags::SHUT_WRITE != 0;
        let mut readiness = Readiness::empty();
        readiness.set(Readiness::READ, self.received() > 0 || ended);
        readiness.set(Readiness::READ_HANG_UP, ended);
        readiness.set(Readiness::WRITE, self.room() > 0 || write_shut || self.is_reset());
        readiness.set(Readiness::HANG_UP, self.is_reset() || (ended && write_shut));
        readiness.set(Readiness::ERROR, self.is_reset());
        readiness
    }

    /// Bytes that the host has not taken yet.
    pub(crate) fn unsent_bytes(&self) -> u32 {
        STREAM_RING_BYTES - self.room()
    }

    /// Bytes that can be read at once (`FIONREAD`).
    pub(crate) fn waiting_bytes(&self) -> u32 {
        self.received()
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.publish(|state| state.flags |= guest_slot_flags::CLOSED);
    }
}
