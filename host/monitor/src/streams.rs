//! Stream slots: sockets on one side, rings in guest memory on the other.
//!
//! ```text
//!   free ──Open, Connected──> offered ──guest takes note──> open ──guest closes, ring empty──> free
//! ```
//!
//! The socket of a stream that the guest has closed is shut for writing and stays until the daemon closes its end: so the
//! daemon can tell an end that the program meant (nothing more to read) from one that it did not (the socket is gone).
//!
//! The indices that count are the monitor's own copies. What the guest says is used only after `ring::used` has
//! found it possible; anything else ends the instance.

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, Shutdown, shutdown};
use spore_abi::layout::{
    GUEST_PAGE_GPA, HOST_PAGE_GPA, STREAM_RING_BYTES, STREAM_SLOTS, receive_ring_gpa, transmit_ring_gpa,
};
use spore_abi::pages::{
    EGRESS_SLOT, GuestPage, GuestSlot, HostPage, HostSlot, guest_slot_flags, host_slot_flags,
};
use spore_abi::ring;

use crate::egress::Egress;
use crate::memory::{OutOfRange, Region};

/// Streams that wait for a slot; more are refused.
const WAITING_MAX: usize = 1024;

/// The guest's shared pages hold something that no guest of ours writes.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StreamError {
    #[error("the indices of stream {0} are impossible")]
    DamagedRing(usize),
    #[error(transparent)]
    Memory(#[from] OutOfRange),
}

struct Stream {
    socket: OwnedFd,
    state: HostSlot,
    /// The guest's end of stream has been passed on.
    is_write_shut: bool,
    /// The socket takes no more at the moment.
    is_blocked: bool,
    /// Which of the daemon's streams it is, from 0; none if the guest has asked for it.
    number: Option<u32>,
    /// Bytes that came in.
    received_bytes: u64,
}

/// All slots.
pub(crate) struct Streams {
    slots: [Option<Stream>; STREAM_SLOTS],
    generations: [u32; STREAM_SLOTS],
    waiting: VecDeque<Waiting>,
    /// Streams that the daemon has opened.
    opened: u32,
    /// Sockets of streams that the guest has closed.
    closed: Vec<OwnedFd>,
    /// Whether sockets are kept after that; otherwise their far end is no daemon.
    keeps_closed: bool,
    /// Whether the guest has sent anything on a stream of the daemon's.
    has_answered: bool,
}

/// A stream that waits for a slot.
struct Waiting {
    socket: OwnedFd,
    number: Option<u32>,
    /// The place in which the guest has asked for it, if it has.
    place: Option<u32>,
}

fn host_slot_place(slot: usize) -> u64 {
    HOST_PAGE_GPA + (std::mem::offset_of!(HostPage, slots) + slot * size_of::<HostSlot>()) as u64
}

fn guest_slot(ram: &Region, slot: usize) -> Result<GuestSlot, OutOfRange> {
    let offset = std::mem::offset_of!(GuestPage, slots) + slot * size_of::<GuestSlot>();
    ram.read(GUEST_PAGE_GPA + offset as u64)
}

impl Streams {
    /// No streams; `keeps_closed` says whether it is a daemon that opens them.
    pub(crate) fn new(keeps_closed: bool) -> Self {
        Self {
            slots: [const { None }; STREAM_SLOTS],
            generations: [0; STREAM_SLOTS],
            waiting: VecDeque::new(),
            opened: 0,
            closed: Vec::new(),
            keeps_closed,
            has_answered: false,
        }
    }

    /// The same as they were before there was any.
    pub(crate) fn renewed(&self) -> Self {
        Self::new(self.keeps_closed)
    }

    /// Takes a stream; it waits if no slot is free. Too many are closed at once.
    pub(crate) fn add(&mut self, socket: OwnedFd) {
        let number = Some(self.opened);
        self.opened = self.opened.wrapping_add(1);
        if self.waiting.len() < WAITING_MAX {
            self.waiting.push_back(Waiting {
                socket,
                number,
                place: None,
            });
        }
    }

    /// Takes a stream that the guest has asked for.
    pub(crate) fn add_egress(&mut self, socket: OwnedFd, place: u32) {
        self.waiting.push_back(Waiting {
            socket,
            number: None,
            place: Some(place),
        });
    }

    /// Whether there has been any stream.
    pub(crate) fn were_used(&self) -> bool {
        !self.waiting.is_empty() || self.generations.iter().any(|&generation| generation != 0)
    }

    /// Whether the guest has sent anything on a stream of the daemon's.
    pub(crate) fn has_answered(&self) -> bool {
        self.has_answered
    }

    /// The generation of a slot, for a guest that is made up.
    #[cfg(feature = "fuzzing")]
    pub(crate) fn generation(&self, slot: usize) -> u32 {
        self.generations[slot]
    }

    /// How many streams the guest has asked for and has, or will have.
    pub(crate) fn egress_count(&self) -> usize {
        let open = self.slots.iter().flatten();
        let is_egress = |stream: &&Stream| stream.state.flags & host_slot_flags::EGRESS != 0;
        open.filter(is_egress).count()
            + self
                .waiting
                .iter()
                .filter(|waiting| waiting.place.is_some())
                .count()
    }

    /// Moves bytes in both directions, as far as they go. Returns whether the guest has news.
    pub(crate) fn serve(&mut self, ram: &Region, egress: &mut Egress) -> Result<bool, StreamError> {
        let mut changed = 0_u64;
        self.forget_closed();
        for slot in 0..STREAM_SLOTS {
            let Some(stream) = self.slots[slot].as_mut() else {
                continue;
            };
            let guest = guest_slot(ram, slot)?;
            let guest = if guest.generation == stream.state.generation {
                Some(guest)
            } else {
                None
            };
            let before = stream.state;
            let was_full = guest.is_some_and(|guest| {
                guest.transmit_tail.wrapping_sub(before.transmit_head) == STREAM_RING_BYTES
            });
            if let Some(guest) = guest {
                stream.transmit(ram, slot, guest)?;
                self.has_answered |=
                    stream.number.is_some() && stream.state.transmit_head != before.transmit_head;
            }
            let is_closed = guest.is_some_and(|guest| guest.flags & guest_slot_flags::CLOSED != 0);
            if is_closed {
                if guest.is_some_and(|guest| guest.transmit_tail == stream.state.transmit_head) {
                    ram.write(
                        host_slot_place(slot),
                        HostSlot {
                            flags: 0,
                            ..stream.state
                        },
                    )?;
                    if let Some(stream) = self.slots[slot].take()
                        && self.keeps_closed
                        && stream.number.is_some()
                    {
                        // Fails only if the daemon has closed its end already.
                        let _ = shutdown(&stream.socket, Shutdown::Write);
                        self.closed.push(stream.socket);
                    }
                }
                continue;
            }
            stream.receive(ram, slot, guest.map_or(0, |guest| guest.receive_head))?;
            if stream.state != before {
                ram.write(host_slot_place(slot), stream.state)?;
            }
            // Room is news only where there was none: a guest that has sent its answer need not hear that it left.
            let sent_only = HostSlot {
                transmit_head: before.transmit_head,
                ..stream.state
            } == before;
            if stream.state != before && (was_full || !sent_only) {
                changed |= 1 << slot;
            }
        }
        changed |= self.offer_waiting(ram, egress)?;
        if changed != 0 {
            let place = HOST_PAGE_GPA + std::mem::offset_of!(HostPage, changed_slots) as u64;
            let known: u64 = ram.read(place)?;
            ram.write(place, known | changed)?;
        }
        Ok(changed != 0)
    }

    /// Gives free slots to waiting streams; returns the slots.
    fn offer_waiting(&mut self, ram: &Region, egress: &mut Egress) -> Result<u64, StreamError> {
        let mut changed = 0;
        while !self.waiting.is_empty() {
            let Some(slot) = self.slots.iter().position(Option::is_none) else {
                break;
            };
            let Some(Waiting {
                socket,
                number,
                place,
            }) = self.waiting.pop_front()
            else {
                break;
            };
            self.generations[slot] = self.generations[slot].wrapping_add(1).max(1);
            let state = HostSlot {
                generation: self.generations[slot],
                flags: match place {
                    Some(_) => host_slot_flags::OPEN | host_slot_flags::EGRESS,
                    None => host_slot_flags::OPEN,
                },
                receive_tail: 0,
                transmit_head: 0,
            };
            let mut stream = Stream {
                socket,
                state,
                is_write_shut: false,
                is_blocked: false,
                number,
                received_bytes: 0,
            };
            stream.receive(ram, slot, 0)?;
            ram.write(host_slot_place(slot), stream.state)?;
            self.slots[slot] = Some(stream);
            if let Some(place) = place {
                egress.answer(ram, place as usize, EGRESS_SLOT + slot as u32)?;
            }
            changed |= 1 << slot;
        }
        Ok(changed)
    }

    /// What to wait for, for each stream that can move.
    pub(crate) fn poll_list<'a>(
        &'a self,
        ram: &Region,
        list: &mut Vec<PollFd<'a>>,
    ) -> Result<(), StreamError> {
        for (slot, stream) in self.slots.iter().enumerate() {
            let Some(stream) = stream else { continue };
            let mut flags = PollFlags::empty();
            let ended = host_slot_flags::END_OF_STREAM | host_slot_flags::RESET;
            let guest = guest_slot(ram, slot)?;
            let is_current = guest.generation == stream.state.generation;
            // A closed stream receives nothing any more: bytes that come in would wake us for ever.
            let is_closed = is_current && guest.flags & guest_slot_flags::CLOSED != 0;
            if stream.state.flags & ended == 0 && !is_closed {
                let head = if is_current { guest.receive_head } else { 0 };
                let used = ring::used(head, stream.state.receive_tail, STREAM_RING_BYTES);
                let has_room = used.ok_or(StreamError::DamagedRing(slot))? < STREAM_RING_BYTES;
                flags.set(PollFlags::IN, has_room);
            }
            flags.set(PollFlags::OUT, stream.is_blocked);
            if !flags.is_empty() {
                list.push(PollFd::from_borrowed_fd(stream.socket.as_fd(), flags));
            }
        }
        list.extend(self.closed.iter().map(closed_entry));
        Ok(())
    }

    /// Lets sockets go whose far end the daemon has closed.
    fn forget_closed(&mut self) {
        if self.closed.is_empty() {
            return;
        }
        let gone = PollFlags::HUP | PollFlags::ERR;
        let mut list: Vec<_> = self.closed.iter().map(closed_entry).collect();
        // Should it fail, the next time will do.
        let known = poll(&mut list, Some(&Timespec::default())).is_ok();
        let is_gone: Vec<bool> = list
            .iter()
            .map(|entry| known && entry.revents().intersects(gone))
            .collect();
        let mut is_gone = is_gone.into_iter();
        self.closed.retain(|_| !is_gone.next().unwrap_or(false));
    }

    /// How many streams the daemon has opened, and how many bytes of the newest the program had read: all of them if it
    /// has closed it.
    pub(crate) fn read_of_newest(&self, ram: &Region) -> (u32, u64) {
        let newest = self.opened.checked_sub(1);
        if newest.is_none() || self.waiting.iter().any(|waiting| waiting.number == newest) {
            return (self.opened, 0);
        }
        let mut slots = self.slots.iter().enumerate();
        let found = slots.find_map(|(slot, stream)| {
            let stream = stream.as_ref().filter(|stream| stream.number == newest)?;
            Some((slot, stream))
        });
        let Some((slot, stream)) = found else {
            return (self.opened, u64::MAX);
        };
        let unread = guest_slot(ram, slot).ok().and_then(|guest| {
            let is_current = guest.generation == stream.state.generation;
            if is_current && guest.flags & guest_slot_flags::CLOSED != 0 {
                return None;
            }
            let head = if is_current { guest.receive_head } else { 0 };
            ring::used(head, stream.state.receive_tail, STREAM_RING_BYTES)
        });
        let read = unread.map_or(u64::MAX, |unread| {
            stream.received_bytes.saturating_sub(unread.into())
        });
        (self.opened, read)
    }

    /// The sockets that still take bytes which the guest has written.
    pub(crate) fn unsent(&self) -> Vec<BorrowedFd<'_>> {
        self.slots
            .iter()
            .flatten()
            .filter(|stream| stream.is_blocked)
            .map(|stream| stream.socket.as_fd())
            .collect()
    }
}

impl Stream {
    /// From the guest's ring to the socket.
    fn transmit(&mut self, ram: &Region, slot: usize, guest: GuestSlot) -> Result<(), StreamError> {
        self.is_blocked = false;
        let used = ring::used(self.state.transmit_head, guest.transmit_tail, STREAM_RING_BYTES);
        let used = used.ok_or(StreamError::DamagedRing(slot))?;
        for (offset, length) in ring::stretches(self.state.transmit_head, used, STREAM_RING_BYTES) {
            let mut sent = 0;
            while sent < length && !self.is_blocked {
                let place = transmit_ring_gpa(slot) + u64::from(offset + sent);
                match send_from(&self.socket, ram, place, (length - sent) as usize)? {
                    Ok(count) => sent += count as u32,
                    Err(Errno::AGAIN) => self.is_blocked = true,
                    Err(Errno::INTR) => {}
                    Err(_) => {
                        // Nobody reads any more: what the guest writes goes nowhere.
                        self.state.flags |= host_slot_flags::RESET;
                        sent = length;
                    }
                }
            }
            self.state.transmit_head = self.state.transmit_head.wrapping_add(sent);
            if self.is_blocked {
                return Ok(());
            }
        }
        if guest.flags & guest_slot_flags::SHUT_WRITE != 0 && !self.is_write_shut {
            self.is_write_shut = true;
            // Fails only if the peer is gone already.
            let _ = shutdown(&self.socket, Shutdown::Write);
        }
        Ok(())
    }

    /// From the socket to the guest's ring.
    fn receive(&mut self, ram: &Region, slot: usize, receive_head: u32) -> Result<(), StreamError> {
        let ended = host_slot_flags::END_OF_STREAM | host_slot_flags::RESET;
        if self.state.flags & ended != 0 {
            return Ok(());
        }
        let used = ring::used(receive_head, self.state.receive_tail, STREAM_RING_BYTES);
        let room = STREAM_RING_BYTES - used.ok_or(StreamError::DamagedRing(slot))?;
        for (offset, length) in ring::stretches(self.state.receive_tail, room, STREAM_RING_BYTES) {
            if length == 0 {
                continue;
            }
            let place = receive_ring_gpa(slot) + u64::from(offset);
            match receive_into(&self.socket, ram, place, length as usize)? {
                Ok(0) => {
                    self.state.flags |= host_slot_flags::END_OF_STREAM;
                    break;
                }
                Ok(count) => {
                    self.state.receive_tail = self.state.receive_tail.wrapping_add(count as u32);
                    self.received_bytes += count as u64;
                    if count < length as usize {
                        break;
                    }
                }
                Err(Errno::AGAIN | Errno::INTR) => break,
                Err(_) => {
                    self.state.flags |= host_slot_flags::RESET;
                    break;
                }
            }
        }
        Ok(())
    }
}

/// Waits for the end of the far end only, which is always told.
fn closed_entry(socket: &OwnedFd) -> PollFd<'_> {
    PollFd::from_borrowed_fd(socket.as_fd(), PollFlags::empty())
}

/// Sends straight out of guest memory.
fn send_from(
    socket: &OwnedFd,
    ram: &Region,
    offset: u64,
    length: usize,
) -> Result<Result<usize, Errno>, OutOfRange> {
    use std::os::fd::AsRawFd;
    let place = ram.place(offset, length)?;
    let flags = (SendFlags::DONTWAIT | SendFlags::NOSIGNAL).bits();
    // SAFETY: `place` is valid for `length` bytes; the kernel copies them, and the guest does not run meanwhile.
    let result = unsafe { libc::send(socket.as_raw_fd(), place.cast(), length, flags as i32) };
    Ok(usize::try_from(result).map_err(|_| last_error()))
}

/// Receives straight into guest memory.
fn receive_into(
    socket: &OwnedFd,
    ram: &Region,
    offset: u64,
    length: usize,
) -> Result<Result<usize, Errno>, OutOfRange> {
    use std::os::fd::AsRawFd;
    let place = ram.place(offset, length)?;
    // SAFETY: as for `send_from`, the other way round; no reference into guest memory exists.
    let result = unsafe {
        libc::recv(
            socket.as_raw_fd(),
            place.cast(),
            length,
            RecvFlags::DONTWAIT.bits() as i32,
        )
    };
    Ok(usize::try_from(result).map_err(|_| last_error()))
}

fn last_error() -> Errno {
    Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    fn say(ram: &Region, slot: usize, guest: GuestSlot) {
        let offset = std::mem::offset_of!(GuestPage, slots) + slot * size_of::<GuestSlot>();
        ram.write(GUEST_PAGE_GPA + offset as u64, guest).unwrap();
    }

    fn polled(streams: &Streams, ram: &Region) -> Vec<PollFlags> {
        let mut list = Vec::new();
        streams.poll_list(ram, &mut list).unwrap();
        // What is asked for shows in the debug form only; so count what is reported, without waiting.
        let timeout = rustix::event::Timespec::default();
        rustix::event::poll(&mut list, Some(&timeout)).unwrap();
        list.iter().map(PollFd::revents).collect()
    }

    #[test]
    fn a_closed_stream_with_unsent_bytes_waits_for_room_only_and_then_is_free() {
        let ram = Region::anonymous(spore_abi::layout::FREE_GPA as usize, 4096).unwrap();
        let mut streams = Streams::new(false);
        let (mut peer, ours) = UnixStream::pair().unwrap();
        streams.add(ours.into());
        assert!(streams.serve(&ram, &mut Egress::default()).unwrap());
        let mut guest = GuestSlot {
            generation: 1,
            flags: 0,
            receive_head: 0,
            transmit_tail: 0,
        };
        // The guest writes until the socket takes no more.
        while streams.unsent().is_empty() {
            let sent = streams.slots[0].as_ref().unwrap().state.transmit_head;
            guest.transmit_tail = sent.wrapping_add(STREAM_RING_BYTES);
            say(&ram, 0, guest);
            streams.serve(&ram, &mut Egress::default()).unwrap();
        }
        guest.flags = guest_slot_flags::CLOSED;
        say(&ram, 0, guest);
        peer.write_all(b"nobody reads this").unwrap();
        streams.serve(&ram, &mut Egress::default()).unwrap();
        assert_eq!(
            polled(&streams, &ram),
            [PollFlags::empty()],
            "it would wake for ever"
        );

        peer.set_nonblocking(true).unwrap();
        let mut received = 0;
        let mut buffer = vec![0; 1 << 16];
        while streams.slots[0].is_some() {
            while let Ok(count @ 1..) = peer.read(&mut buffer) {
                received += count as u32;
            }
            assert!(polled(&streams, &ram)[0].contains(PollFlags::OUT));
            streams.serve(&ram, &mut Egress::default()).unwrap();
        }
        while let Ok(count @ 1..) = peer.read(&mut buffer) {
            received += count as u32;
        }
        assert_eq!(received, guest.transmit_tail);
        assert!(polled(&streams, &ram).is_empty());
    }

    #[test]
    fn a_closed_stream_ends_without_its_socket_going() {
        let ram = Region::anonymous(spore_abi::layout::FREE_GPA as usize, 4096).unwrap();
        let mut streams = Streams::new(true);
        let (mut peer, ours) = UnixStream::pair().unwrap();
        streams.add(ours.into());
        streams.serve(&ram, &mut Egress::default()).unwrap();
        let guest = GuestSlot {
            generation: 1,
            flags: guest_slot_flags::CLOSED,
            receive_head: 0,
            transmit_tail: 0,
        };
        say(&ram, 0, guest);
        streams.serve(&ram, &mut Egress::default()).unwrap();
        assert_eq!(peer.read(&mut [0; 1]).unwrap(), 0, "the end is told");
        assert_eq!(
            polled(&streams, &ram),
            [PollFlags::empty()],
            "the socket is there"
        );
        assert_eq!(streams.read_of_newest(&ram), (1, u64::MAX));
        drop(peer);
        // Another test's child may have a copy of the far end for a moment.
        for _ in 0..1000 {
            streams.serve(&ram, &mut Egress::default()).unwrap();
            if polled(&streams, &ram).is_empty() {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        panic!("it goes with the far end");
    }

    #[test]
    fn bytes_to_the_outside_are_no_answer() {
        let ram = Region::anonymous(spore_abi::layout::FREE_GPA as usize, 4096).unwrap();
        let mut streams = Streams::new(true);
        let (_outside, egress) = UnixStream::pair().unwrap();
        streams.add_egress(egress.into(), 0);
        streams.serve(&ram, &mut Egress::default()).unwrap();
        let sends = GuestSlot {
            generation: 1,
            flags: 0,
            receive_head: 0,
            transmit_tail: 5,
        };
        say(&ram, 0, sends);
        streams.serve(&ram, &mut Egress::default()).unwrap();
        assert!(!streams.has_answered());
        let (_daemon, ingress) = UnixStream::pair().unwrap();
        streams.add(ingress.into());
        streams.serve(&ram, &mut Egress::default()).unwrap();
        assert!(!streams.has_answered(), "it has not sent anything yet");
        say(&ram, 1, sends);
        streams.serve(&ram, &mut Egress::default()).unwrap();
        assert!(streams.has_answered());
    }

    #[test]
    fn what_the_program_has_read_is_known() {
        let ram = Region::anonymous(spore_abi::layout::FREE_GPA as usize, 4096).unwrap();
        let mut streams = Streams::new(true);
        assert_eq!(streams.read_of_newest(&ram), (0, 0));
        let (mut peer, ours) = UnixStream::pair().unwrap();
        streams.add(ours.into());
        assert_eq!(streams.read_of_newest(&ram), (1, 0), "it waits for a slot");
        peer.write_all(b"a request").unwrap();
        streams.serve(&ram, &mut Egress::default()).unwrap();
        assert_eq!(streams.read_of_newest(&ram), (1, 0), "the guest has not looked");
        let guest = GuestSlot {
            generation: 1,
            flags: 0,
            receive_head: 4,
            transmit_tail: 0,
        };
        say(&ram, 0, guest);
        assert_eq!(streams.read_of_newest(&ram), (1, 4));
    }
}
