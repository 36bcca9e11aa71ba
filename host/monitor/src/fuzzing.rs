//! What the fuzz targets call: the shared pages and rings as a hostile guest writes them, and what a guest and its
//! program say of an end.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

use rustix::event::{Timespec, poll};
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType, recv, socketpair};
use spore_abi::layout::{
    FREE_GPA, GUEST_PAGE_GPA, LOG_RING_BYTES, LOG_RING_GPA, PAGE_BYTES, STREAM_RING_BYTES, STREAM_SLOTS,
};
use spore_abi::pages::{EGRESS_PLACES, EgressRequest, ExitRecord, GuestPage, GuestSlot, Upcall};
use zerocopy::FromBytes;

use crate::egress::Egress;
use crate::log::Log;
use crate::memory::Region;
use crate::protocol::LogOrigin;
use crate::report;
use crate::streams::Streams;
use spore_allowance::BURST_BYTES;

/// Rounds after the last act in which nothing but waiting happens.
const ROUNDS: usize = 6;
/// Longest line about dropped output.
const REPORT_BYTES: usize = 200;

/// What happens next around the rings. Numbers are taken as they come; what they index is wrapped.
#[derive(Debug, Clone)]
pub enum Act {
    /// The guest writes anywhere into its page.
    Page {
        /// From where on.
        offset: u16,
        /// What.
        bytes: Vec<u8>,
    },
    /// The guest says something of a stream.
    Slot {
        /// Which one.
        slot: u8,
        /// Whether its generation is the host's.
        is_current: bool,
        /// Flags.
        flags: u8,
        /// Added to where the receive ring is read.
        received: u32,
        /// Added to where the transmit ring is written.
        sent: u32,
    },
    /// The guest writes into the log ring and says how much that is.
    Log {
        /// What.
        bytes: Vec<u8>,
        /// Added to the length that it says.
        excess: i32,
    },
    /// The guest writes frames into the log ring, as it should.
    Lines {
        /// Number of the origin.
        origin: u8,
        /// Length of each.
        length: u16,
        /// How many.
        count: u8,
    },
    /// The guest asks for a connection.
    Egress {
        /// Place.
        place: u8,
        /// Kind.
        kind: u16,
    },
    /// The daemon answers a connection.
    Answer {
        /// Place, also one where nothing was asked for.
        place: u8,
        /// Whether it was made.
        is_made: bool,
    },
    /// The daemon opens a stream.
    Open,
    /// The far end of a stream sends.
    Send {
        /// Which far end.
        peer: u8,
        /// How many bytes.
        count: u16,
    },
    /// The far end of a stream reads.
    Receive {
        /// Which far end.
        peer: u8,
    },
    /// The far end of a stream goes.
    Close {
        /// Which far end.
        peer: u8,
    },
    /// The daemon reads the log.
    ReadLog,
    /// The guest rings the doorbell.
    Serve,
}

/// Everything around one guest.
struct Stage {
    ram: Region,
    streams: Streams,
    egress: Egress,
    log: Log,
    daemon: std::os::fd::OwnedFd,
    peers: Vec<UnixStream>,
    /// The guest's log tail, and text that the daemon has got.
    tail: u32,
    logged: usize,
}

fn page_place(offset: usize) -> u64 {
    GUEST_PAGE_GPA + offset as u64
}

/// Plays the acts; returns whether the guest is still sound at the end.
///
/// # Panics
///
/// If the monitor believes something that cannot be, takes or passes on more than it may, or would wait without waiting.
#[must_use]
pub fn rings(acts: &[Act]) -> bool {
    let Some(mut stage) = Stage::new() else {
        return false;
    };
    let is_sound = acts.iter().all(|act| stage.play(act)) && stage.settle();
    if !is_sound {
        // As the loop does when a guest has damaged itself: what can still leave leaves.
        for _ in 0..ROUNDS {
            if stage.serve().is_none() {
                break;
            }
        }
        let _ = stage.log.unsaid(&stage.ram);
    }
    stage.read_log();
    is_sound
}

impl Stage {
    fn new() -> Option<Self> {
        let ram = Region::anonymous(FREE_GPA as usize, PAGE_BYTES as usize).ok()?;
        let kind = SocketType::SEQPACKET;
        let (ours, daemon) = socketpair(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None).ok()?;
        Some(Self {
            ram,
            streams: Streams::new(true),
            egress: Egress::default(),
            log: Log::new(ours, true, 0),
            daemon,
            peers: Vec::new(),
            tail: 0,
            logged: 0,
        })
    }

    fn say<T: zerocopy::IntoBytes + zerocopy::Immutable>(&self, offset: usize, value: T) {
        self.ram
            .write(page_place(offset), value)
            .expect("the guest page is there");
    }

    /// Whether the guest is still sound.
    fn play(&mut self, act: &Act) -> bool {
        match act {
            Act::Page { offset, bytes } => {
                let offset = usize::from(*offset) % size_of::<GuestPage>();
                let length = bytes.len().min(size_of::<GuestPage>() - offset);
                let written = self.ram.write_bytes(page_place(offset), &bytes[..length]);
                written.expect("the guest page is there");
            }
            Act::Slot {
                slot,
                is_current,
                flags,
                received,
                sent,
            } => self.say_of_slot(
                usize::from(*slot) % STREAM_SLOTS,
                *is_current,
                *flags,
                *received,
                *sent,
            ),
            Act::Log { bytes, excess } => {
                self.put_log(bytes);
                self.tail = self.tail.wrapping_add_signed(*excess);
                self.say_tail();
            }
            Act::Lines {
                origin,
                length,
                count,
            } => {
                let mut frame = vec![b'x'; usize::from(*length) + 4];
                frame[..2].copy_from_slice(&length.to_le_bytes());
                frame[2..4].copy_from_slice(&[*origin, 0]);
                (0..*count).for_each(|_| self.put_log(&frame));
                self.say_tail();
            }
            Act::Egress { place, kind } => {
                let place = usize::from(*place) % EGRESS_PLACES;
                let offset = std::mem::offset_of!(GuestPage, egress) + place * size_of::<EgressRequest>();
                let before: EgressRequest = self.ram.read(page_place(offset)).expect("it is there");
                let request = EgressRequest {
                    sequence: before.sequence.wrapping_add(1),
                    kind: *kind,
                    port: 80,
                    address: [1; 16],
                };
                self.say(offset, request);
            }
            Act::Answer { place, is_made } => {
                if self.egress.is_pending((*place).into()) {
                    self.answer(*place, *is_made);
                }
            }
            Act::Open => {
                if let Some(socket) = self.peer() {
                    self.streams.add(socket);
                }
            }
            Act::Send { peer, count } => {
                if let Some(peer) = self.peer_at(*peer) {
                    // What does not fit is not sent.
                    let _ = (&*peer).write(&vec![b'y'; usize::from(*count)]);
                }
            }
            Act::Receive { peer } => {
                if let Some(peer) = self.peer_at(*peer) {
                    let _ = (&*peer).read(&mut [0; 4096]);
                }
            }
            Act::Close { peer } => {
                if !self.peers.is_empty() {
                    let index = usize::from(*peer) % self.peers.len();
                    drop(self.peers.swap_remove(index));
                }
            }
            Act::ReadLog => self.read_log(),
            Act::Serve => return self.serve().is_some(),
        }
        true
    }

    fn say_of_slot(&self, slot: usize, is_current: bool, flags: u8, received: u32, sent: u32) {
        let offset = std::mem::offset_of!(GuestPage, slots) + slot * size_of::<GuestSlot>();
        let before: GuestSlot = self.ram.read(page_place(offset)).expect("it is there");
        let host = self.streams.generation(slot);
        self.say(
            offset,
            GuestSlot {
                generation: if is_current { host } else { host.wrapping_add(1) },
                flags: flags.into(),
                receive_head: before.receive_head.wrapping_add(received),
                transmit_tail: before.transmit_tail.wrapping_add(sent),
            },
        );
    }

    fn put_log(&mut self, bytes: &[u8]) {
        for byte in bytes {
            let place = LOG_RING_GPA + u64::from(self.tail % LOG_RING_BYTES);
            self.ram.write(place, *byte).expect("the log ring is there");
            self.tail = self.tail.wrapping_add(1);
        }
    }

    fn say_tail(&self) {
        self.say(std::mem::offset_of!(GuestPage, log_tail), self.tail);
    }

    /// A stream's near end, whose far end is kept.
    fn peer(&mut self) -> Option<std::os::fd::OwnedFd> {
        let (near, far) = UnixStream::pair().ok()?;
        far.set_nonblocking(true).ok()?;
        self.peers.push(far);
        Some(near.into())
    }

    fn peer_at(&self, index: u8) -> Option<&UnixStream> {
        self.peers.get(usize::from(index) % self.peers.len().max(1))
    }

    fn answer(&mut self, place: u8, is_made: bool) {
        match is_made.then(|| self.peer()).flatten() {
            Some(socket) => self.streams.add_egress(socket, place.into()),
            None => {
                let answered = self.egress.answer(&self.ram, place.into(), 111);
                answered.expect("the host page is there");
            }
        }
    }

    /// What the loop does at a doorbell: whether the guest has news, or nothing if it has damaged itself.
    fn serve(&mut self) -> Option<bool> {
        let has_news = self.streams.serve(&self.ram, &mut self.egress).ok()?;
        let requests = self.egress.take_requests(&self.ram).ok()?;
        for request in &requests {
            assert!(
                self.egress.is_pending(request.place),
                "a request waits for its answer"
            );
        }
        assert!(requests.len() <= EGRESS_PLACES && self.egress.pending() <= EGRESS_PLACES);
        let tail: u32 = self
            .ram
            .read(page_place(std::mem::offset_of!(GuestPage, log_tail)))
            .ok()?;
        let head = self.log.drain(&self.ram, tail).ok()?;
        assert!(
            tail.wrapping_sub(head) <= LOG_RING_BYTES,
            "the log's head is behind its tail"
        );
        Some(has_news)
    }

    /// Waits as the loop does, without anybody else doing anything: it must come to rest. Whether the guest is sound.
    fn settle(&mut self) -> bool {
        let mut idle_wakes = 0;
        for _ in 0..ROUNDS + STREAM_SLOTS {
            let Some(has_news) = self.serve() else {
                return false;
            };
            let mut list = Vec::new();
            if self.streams.poll_list(&self.ram, &mut list).is_err() {
                return false;
            }
            let no_time = Timespec {
                tv_sec: 0,
                tv_nsec: 0,
            };
            let ready = poll(&mut list, Some(&no_time)).unwrap_or(0);
            if ready == 0 && !has_news {
                return true;
            }
            idle_wakes = if has_news { 0 } else { idle_wakes + 1 };
            assert!(
                idle_wakes < ROUNDS,
                "the monitor is woken for ever and has nothing to do"
            );
        }
        true
    }

    fn read_log(&mut self) {
        let mut packet = vec![0; 256 * 1024];
        while let Ok((length, _)) = recv(&self.daemon, packet.as_mut_slice(), RecvFlags::DONTWAIT) {
            if length == 0 {
                break;
            }
            let origin = LogOrigin::from_number(packet[0]).expect("packets begin with an origin");
            assert!(
                length - 1 <= LOG_RING_BYTES as usize,
                "a packet is no longer than the ring"
            );
            if origin != LogOrigin::Platform {
                self.logged += length - 1;
            }
        }
        // Runs take far less than a second.
        let bound = 2 * BURST_BYTES as usize + REPORT_BYTES;
        assert!(self.logged <= bound, "{} bytes were logged", self.logged);
    }
}

const _: () = assert!(STREAM_RING_BYTES <= 1 << 20);

/// A guest's last words: an exit record and an upcall as they lie in memory, and the program's file. Returns whether the
/// guest is said to have crashed.
#[must_use]
pub fn exit(record: &[u8], upcall: &[u8], program: &[u8]) -> bool {
    let mut bytes = [0; size_of::<ExitRecord>()];
    let length = record.len().min(bytes.len());
    bytes[..length].copy_from_slice(&record[..length]);
    let record = ExitRecord::read_from_bytes(&bytes).expect("it has this length");
    let mut bytes = [0; size_of::<Upcall>()];
    let length = upcall.len().min(bytes.len());
    bytes[..length].copy_from_slice(&upcall[..length]);
    let upcall = Upcall::read_from_bytes(&bytes).expect("it has this length");
    let (cause, details) = report::exit(&record, &upcall, program);
    let said = format!("{cause:?} {}", details.concat());
    assert!(
        said.len() < 4096 && !said.chars().any(char::is_control),
        "{said:?}"
    );
    matches!(cause, crate::protocol::Cause::Crashed { .. })
}

/// An address with the symbol that a program's file has for it.
#[must_use]
pub fn symbol(program: &[u8], address: u64) -> String {
    let place = report::place(program, address);
    assert!(
        place.len() < 1024 && !place.chars().any(char::is_control),
        "{place:?}"
    );
    place
}
