//! The function's log: from the log ring to the daemon, at a bounded rate.
//!
//! ```text
//!   ring ──frames of one origin──> packet ──sent──> head moves on
//!     │                               └── the socket is full: the frames stay in the ring, nothing is charged
//!     ├── more than the allowance ──> dropped, counted
//!     └── ring full, socket full for PATIENCE ──> dropped, counted
//! ```
//!
//! The daemon is trusted to read, so a full socket is a matter of moments, in which the guest waits. Should it not
//! read for long, the guest goes on without its log. The count of what was dropped is kept until the line that tells
//! of it was sent.

use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};
use rustix::io::{Errno, retry_on_intr};
use rustix::net::{SendFlags, send};
use spore_abi::layout::{LOG_RING_BYTES, LOG_RING_GPA};
use spore_abi::ring::{self, LOG_FRAME_BYTES_MAX, LOG_HEADER_BYTES};
use spore_allowance::{Allowance, cost};

use crate::memory::Region;
use crate::protocol::LogOrigin;

/// Longest packet, in bytes. A packet costs the socket's buffer about a kilobyte more than its text, so one for each
/// frame would fill it with little text.
const PACKET_BYTES_MAX: usize = 64 * 1024;
/// How long a guest whose log ring is full waits for a daemon that does not read.
const PATIENCE: Duration = Duration::from_secs(1);
/// The room in the ring that lets the guest write its longest frame.
const ROOM_BYTES: u32 = LOG_HEADER_BYTES + LOG_FRAME_BYTES_MAX;

/// The guest wrote something into the log ring that no guest of ours does.
#[derive(Debug, thiserror::Error)]
#[error("the log ring is damaged")]
pub(crate) struct DamagedRing;

/// Frames on their way into one packet.
#[derive(Default)]
struct Batch {
    /// The origin's number, then text; empty if there is none.
    packet: Vec<u8>,
    cost: f64,
    /// Index in the ring behind the last frame.
    end: u32,
}

impl Batch {
    fn takes(&self, origin: LogOrigin, length: u32) -> bool {
        match self.packet.first() {
            None => true,
            Some(&number) => {
                number == origin as u8 && self.packet.len() + length as usize <= PACKET_BYTES_MAX
            }
        }
    }
}

/// The log socket and what may still pass.
pub(crate) struct Log {
    socket: OwnedFd,
    head: u32,
    batch: Batch,
    allowance: Allowance,
    /// Without a limit everything passes, and the guest waits for as long as nobody reads.
    is_limited: bool,
    grown_at: Instant,
    /// The socket takes nothing.
    is_blocked: bool,
    /// Since when the ring is full besides: the guest stands still, or has given its log up.
    held_since: Option<Instant>,
    /// Bytes in the ring that wait for the socket.
    waiting: u32,
}

impl Log {
    /// A log that goes to this socket, with or without limits. The guest's ring has been read up to `head`.
    pub(crate) fn new(socket: OwnedFd, is_limited: bool, head: u32) -> Self {
        Self {
            socket,
            head,
            batch: Batch::default(),
            allowance: Allowance::new(),
            is_limited,
            grown_at: Instant::now(),
            is_blocked: false,
            held_since: None,
            waiting: 0,
        }
    }

    /// Takes what the guest has put into the ring up to `tail`, as far as the socket does. Returns the new head.
    pub(crate) fn drain(&mut self, ram: &Region, tail: u32) -> Result<u32, DamagedRing> {
        if tail == self.head && self.allowance.dropped_bytes().is_none() {
            self.waiting = 0;
            return Ok(self.head);
        }
        self.drain_at(ram, tail, Instant::now())
    }

    fn drain_at(&mut self, ram: &Region, tail: u32, now: Instant) -> Result<u32, DamagedRing> {
        let elapsed = now.saturating_duration_since(self.grown_at);
        self.allowance.grow(elapsed);
        self.grown_at = now;
        let collected = self.collect(ram, tail);
        // What came before the damage counts.
        self.flush();
        collected?;
        self.waiting = tail.wrapping_sub(self.head);
        if self.is_blocked && !self.has_room() {
            self.held_since.get_or_insert(now);
            if self.patience_left(now).is_none() {
                self.drop_waiting(ram)?;
            }
        }
        self.report_dropped();
        Ok(self.head)
    }

    /// Packs frames and sends them, up to the last packet, which [`Log::flush`] sends.
    fn collect(&mut self, ram: &Region, tail: u32) -> Result<(), DamagedRing> {
        let mut at = self.head;
        let mut waiting = ring::used(at, tail, LOG_RING_BYTES).ok_or(DamagedRing)?;
        while waiting > 0 {
            let (origin, length) = frame(ram, at, waiting)?;
            if !self.batch.takes(origin, length) && !self.flush() {
                return Ok(());
            }
            if self.batch.packet.is_empty() {
                self.batch.packet.push(origin as u8);
            }
            let start = self.batch.packet.len();
            let text = append(
                ram,
                at.wrapping_add(LOG_HEADER_BYTES),
                length,
                &mut self.batch.packet,
            )?;
            let cost = if self.is_limited { cost(text) } else { 0.0 };
            at = at.wrapping_add(LOG_HEADER_BYTES + length);
            waiting -= LOG_HEADER_BYTES + length;
            if self.allowance.admit(cost) {
                self.batch.cost += cost;
                self.batch.end = at;
                continue;
            }
            self.batch.packet.truncate(start);
            if !self.flush() {
                return Ok(());
            }
            self.allowance.count_dropped(u64::from(length));
            self.head = at;
        }
        Ok(())
    }

    /// Sends the packet; `false` if the socket takes nothing now, and the frames stay in the ring.
    fn flush(&mut self) -> bool {
        let batch = std::mem::take(&mut self.batch);
        let is_sent = batch.packet.len() <= 1 || self.send(&batch.packet);
        if !is_sent {
            self.allowance.refund(batch.cost);
        } else if batch.packet.len() > 1 {
            self.head = batch.end;
        }
        // The allocation is used again.
        self.batch.packet = batch.packet;
        self.batch.packet.clear();
        is_sent
    }

    /// Drops what is in the ring: the daemon has not read for long, and the guest must go on.
    fn drop_waiting(&mut self, ram: &Region) -> Result<(), DamagedRing> {
        while self.waiting > 0 {
            let (_, length) = frame(ram, self.head, self.waiting)?;
            self.allowance.count_dropped(u64::from(length));
            self.head = self.head.wrapping_add(LOG_HEADER_BYTES + length);
            self.waiting -= LOG_HEADER_BYTES + length;
        }
        Ok(())
    }

    /// Says in the log how much did not pass, if it may be said now.
    fn report_dropped(&mut self) {
        let Some(bytes) = self.allowance.to_report() else {
            return;
        };
        let mut packet = vec![LogOrigin::Platform as u8];
        packet.extend_from_slice(dropped_line(bytes).as_bytes());
        packet.push(b'\n');
        if self.send(&packet) {
            self.allowance.reported();
        }
    }

    /// The guest begins again: its ring has been read up to `head`. What may still pass is what it was.
    pub(crate) fn begin_again(&mut self, head: u32) {
        self.head = head;
        self.batch = Batch::default();
        self.held_since = None;
        self.waiting = 0;
    }

    /// Whether something in the ring waits for the socket.
    pub(crate) fn is_waiting(&self) -> bool {
        self.waiting > 0
    }

    /// The instance ends: what was dropped is said now, whenever the last time was.
    pub(crate) fn allow_last_report(&mut self) {
        self.allowance.allow_last_report();
    }

    /// What could not be said in the log, as a line for the report: the socket took nothing to the end.
    pub(crate) fn unsaid(&mut self, ram: &Region) -> Option<String> {
        // Damage in the ring is of no matter any more.
        let _ = self.drop_waiting(ram);
        self.allowance.dropped_bytes().map(dropped_line)
    }

    /// What to wait for, if something waits for the socket.
    pub(crate) fn poll_entry(&self) -> Option<PollFd<'_>> {
        let waits = self.waiting > 0 || self.allowance.to_report().is_some();
        (waits && self.is_blocked).then(|| PollFd::from_borrowed_fd(self.socket.as_fd(), PollFlags::OUT))
    }

    /// How long until there is something to say that may not be said yet.
    pub(crate) fn until_report(&self) -> Option<Duration> {
        self.allowance.until_report()
    }

    /// Whether the log has limits.
    pub(crate) fn is_limited(&self) -> bool {
        self.is_limited
    }

    /// How long the guest is to stand still for the daemon to read; none if it may go on.
    pub(crate) fn hold_guest(&self) -> Option<Duration> {
        if self.has_room() {
            return None;
        }
        self.patience_left(Instant::now())
    }

    fn has_room(&self) -> bool {
        self.waiting + ROOM_BYTES <= LOG_RING_BYTES
    }

    fn patience_left(&self, now: Instant) -> Option<Duration> {
        if !self.is_limited {
            return self.held_since.map(|_| PATIENCE);
        }
        let held = now.saturating_duration_since(self.held_since?);
        PATIENCE.checked_sub(held).filter(|left| !left.is_zero())
    }

    /// Sends a packet; `false` if the socket takes nothing now.
    fn send(&mut self, packet: &[u8]) -> bool {
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        match retry_on_intr(|| send(&self.socket, packet, flags)) {
            Ok(_) => {
                self.is_blocked = false;
                self.held_since = None;
            }
            Err(Errno::AGAIN) => {
                self.is_blocked = true;
                return false;
            }
            // The daemon is gone, as the control socket will say, or out of memory: these bytes are lost.
            Err(_) => self.allowance.count_dropped(packet.len() as u64 - 1),
        }
        true
    }
}

/// What a log says of bytes that it never saw.
#[must_use]
pub fn dropped_line(bytes: u64) -> String {
    format!("{bytes} bytes of output were dropped: the function logs faster than it may")
}

/// Origin and length of the text of the frame at `at`, of which `waiting` bytes are there.
fn frame(ram: &Region, at: u32, waiting: u32) -> Result<(LogOrigin, u32), DamagedRing> {
    let mut header = Vec::with_capacity(LOG_HEADER_BYTES as usize);
    append(ram, at, LOG_HEADER_BYTES.min(waiting), &mut header)?;
    let header = header.try_into().map_err(|_| DamagedRing)?;
    let (origin, length) = ring::parse_log_header(header).ok_or(DamagedRing)?;
    // The guest never writes an empty frame; one would cost nothing and be there for ever.
    if length == 0 || LOG_HEADER_BYTES + length > waiting {
        return Err(DamagedRing);
    }
    Ok((origin, length))
}

/// Copies bytes of the ring to the end of `bytes`; returns them.
fn append<'a>(ram: &Region, from: u32, length: u32, bytes: &'a mut Vec<u8>) -> Result<&'a [u8], DamagedRing> {
    let start = bytes.len();
    let mut done = start;
    bytes.resize(start + length as usize, 0);
    for (offset, part) in ring::stretches(from, length, LOG_RING_BYTES) {
        let end = done + part as usize;
        let place = LOG_RING_GPA + u64::from(offset);
        ram.read_bytes(place, &mut bytes[done..end])
            .map_err(|_| DamagedRing)?;
        done = end;
    }
    Ok(&bytes[start..])
}

#[cfg(test)]
mod tests {
    use super::*;

    use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType, recv, socketpair};

    /// A guest that logs, and the daemon's end of the socket.
    struct Setup {
        ram: Region,
        log: Log,
        daemon: OwnedFd,
        tail: u32,
    }

    impl Setup {
        fn new() -> Self {
            let pair = socketpair(
                AddressFamily::UNIX,
                SocketType::SEQPACKET,
                SocketFlags::CLOEXEC,
                None,
            );
            let (ours, daemon) = pair.unwrap();
            let ram = Region::anonymous(2 << 20, 4096).unwrap();
            Self {
                ram,
                log: Log::new(ours, true, 0),
                daemon,
                tail: 0,
            }
        }

        fn has_room(&self, text: &[u8]) -> bool {
            let used = self.tail.wrapping_sub(self.log.head);
            used + LOG_HEADER_BYTES + text.len() as u32 <= LOG_RING_BYTES
        }

        fn put(&mut self, origin: LogOrigin, text: &[u8]) {
            assert!(self.has_room(text));
            let header = ring::log_header(origin, text.len() as u16);
            for byte in header.iter().chain(text) {
                let place = LOG_RING_GPA + u64::from(self.tail % LOG_RING_BYTES);
                self.ram.write(place, *byte).unwrap();
                self.tail = self.tail.wrapping_add(1);
            }
        }

        fn drain_at(&mut self, now: Instant) {
            let head = self.log.drain_at(&self.ram, self.tail, now).unwrap();
            assert_eq!(head, self.log.head);
        }

        fn packets(&mut self) -> Vec<(u8, String)> {
            let mut buffer = vec![0; 2 * PACKET_BYTES_MAX];
            let mut packets = Vec::new();
            while let Ok((length @ 1.., _)) = recv(&self.daemon, &mut buffer[..], RecvFlags::DONTWAIT) {
                packets.push((buffer[0], String::from_utf8(buffer[1..length].to_vec()).unwrap()));
            }
            packets
        }
    }

    #[test]
    fn frames_of_one_origin_share_a_packet_in_order() {
        use LogOrigin::{Stderr, Stdout};
        let mut setup = Setup::new();
        for (origin, text) in [(Stdout, "a\n"), (Stdout, "b"), (Stderr, "c\n"), (Stdout, "d\n")] {
            setup.put(origin, text.as_bytes());
        }
        setup.drain_at(Instant::now());
        let expected = [(1, "a\nb"), (2, "c\n"), (1, "d\n")];
        assert_eq!(
            setup.packets(),
            expected.map(|(origin, text)| (origin, text.to_owned()))
        );
        assert_eq!(setup.log.head, setup.tail);
    }

    #[test]
    fn a_daemon_that_reads_late_gets_everything() {
        let mut setup = Setup::new();
        let start = Instant::now();
        let (mut wrote, mut got, mut held) = (String::new(), String::new(), 0);
        // Origins in turn, and lines of some length so that a full ring is within the burst, make a packet of each frame, the worst case for the socket's buffer. The clock advances so
        // that the allowance always suffices.
        for number in 0..20_000_u32 {
            let now = start + Duration::from_millis(2) * number;
            let line = format!("line {number:100}\n");
            while !setup.has_room(line.as_bytes()) {
                held += 1;
                setup.drain_at(now);
                got.extend(setup.packets().into_iter().map(|(_, text)| text));
            }
            let origins = [LogOrigin::Stdout, LogOrigin::Stderr];
            setup.put(origins[number as usize % 2], line.as_bytes());
            wrote.push_str(&line);
            if number % 100 == 0 {
                setup.drain_at(now);
            }
        }
        while setup.log.head != setup.tail {
            setup.drain_at(start + Duration::from_secs(60));
            got.extend(setup.packets().into_iter().map(|(_, text)| text));
        }
        got.extend(setup.packets().into_iter().map(|(_, text)| text));
        assert!(held > 0, "the socket was never full: the test shows nothing");
        assert!(
            wrote == got,
            "{} bytes written, {} arrived",
            wrote.len(),
            got.len()
        );
        assert_eq!(setup.log.unsaid(&setup.ram), None);
    }

    #[test]
    fn a_daemon_that_never_reads_holds_the_guest_for_a_while_only_and_the_count_is_true() {
        let mut setup = Setup::new();
        let start = Instant::now();
        let line = [b'x'; 4096];
        let mut wrote = 0;
        let mut now = start;
        let mut waits = 0;
        for _ in 0..200 {
            while !setup.has_room(&line) {
                setup.drain_at(now);
                if let Some(left) = setup.log.patience_left(now).filter(|_| !setup.log.has_room()) {
                    assert!(setup.log.poll_entry().is_some());
                    now += left;
                    waits += 1;
                }
            }
            setup.put(LogOrigin::Stdout, &line);
            wrote += line.len();
        }
        assert_eq!(waits, 1, "held once, then never again while nothing is read");
        assert_eq!(now, start + PATIENCE);
        // The daemon reads again: the rest passes, and with the line about it nothing is missing.
        let mut arrived = 0;
        let mut told = 0;
        for second in 1..10 {
            for (origin, text) in setup.packets() {
                if origin == LogOrigin::Stdout as u8 {
                    arrived += text.len();
                } else {
                    let bytes: usize = text.split(' ').next().unwrap().parse().unwrap();
                    told += bytes;
                }
            }
            setup.drain_at(now + Duration::from_secs(second));
        }
        assert!(told > 0);
        assert_eq!(arrived + told, wrote);
        assert_eq!(setup.log.unsaid(&setup.ram), None);
    }

    #[test]
    fn a_line_about_dropped_output_that_cannot_leave_is_not_forgotten() {
        let mut setup = Setup::new();
        let now = Instant::now();
        let filler = [1_u8; 32 * 1024];
        while setup.log.send(&filler) {}
        setup.log.allowance.count_dropped(77);
        setup.drain_at(now);
        assert!(setup.log.unsaid(&setup.ram).unwrap().starts_with("77 bytes"));
        assert!(setup.log.poll_entry().is_some());
        assert!(setup.packets().len() > 1);
        setup.drain_at(now);
        let packets = setup.packets();
        assert!(packets[0].1.starts_with("77 bytes"), "{packets:?}");
        assert_eq!(setup.log.unsaid(&setup.ram), None);
    }

    #[test]
    fn without_limits_everything_passes_and_the_guest_waits() {
        let mut setup = Setup::new();
        setup.log.is_limited = false;
        let start = Instant::now();
        let line = [b'\n'; 4096];
        let (mut wrote, mut got, mut waits) = (0, 0, 0);
        for second in 0..600 {
            let now = start + Duration::from_secs(second);
            while !setup.has_room(&line) {
                setup.drain_at(now);
                if !setup.log.has_room() {
                    assert!(setup.log.patience_left(now).is_some());
                    waits += 1;
                    got += setup.packets().iter().map(|(_, text)| text.len()).sum::<usize>();
                }
            }
            setup.put(LogOrigin::Stdout, &line);
            wrote += line.len();
        }
        setup.drain_at(start);
        got += setup.packets().iter().map(|(_, text)| text.len()).sum::<usize>();
        setup.drain_at(start);
        got += setup.packets().iter().map(|(_, text)| text.len()).sum::<usize>();
        assert!(waits > 0, "the socket was never full: the test shows nothing");
        assert_eq!(wrote, got);
    }

    #[test]
    fn damaged_rings_are_refused() {
        let mut setup = Setup::new();
        assert!(setup.log.drain(&setup.ram, LOG_RING_BYTES + 1).is_err());
        // Zero bytes are no header.
        assert!(setup.log.drain(&setup.ram, 16).is_err());
        let header = ring::log_header(LogOrigin::Stdout, 100);
        setup.ram.write_bytes(LOG_RING_GPA, &header).unwrap();
        for tail in [1, 3, 50] {
            assert!(
                setup.log.drain(&setup.ram, tail).is_err(),
                "a frame longer than {tail}"
            );
        }
        assert_eq!(setup.log.drain(&setup.ram, 104).unwrap(), 104);
        let empty = ring::log_header(LogOrigin::Stdout, 0);
        setup.ram.write_bytes(LOG_RING_GPA + 104, &empty).unwrap();
        assert!(setup.log.drain(&setup.ram, 108).is_err(), "an empty frame");
    }
}
