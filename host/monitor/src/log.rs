//! The function's log: from the log ring to the daemon, at a bounded rate.

use std::os::fd::OwnedFd;
use std::time::Instant;

use rustix::io::Errno;
use rustix::net::{SendFlags, send};
use spore_abi::layout::{LOG_RING_BYTES, LOG_RING_GPA};
use spore_abi::ring::{self, LOG_HEADER_BYTES};

use crate::memory::Region;
use crate::protocol::LogOrigin;

/// Bytes that may be logged at once after a pause.
const BURST_BYTES: f64 = 1_048_576.0;
/// Bytes that may be logged each second in the long run.
const RATE_BYTES_PER_S: f64 = 262_144.0;

/// How often a line may say that output was dropped.
const DROPPED_REPORT_INTERVAL_S: f64 = 1.0;

/// The guest wrote something into the log ring that no guest of ours does.
#[derive(Debug, thiserror::Error)]
#[error("the log ring is damaged")]
pub(crate) struct DamagedRing;

/// How much may be logged now: a token bucket. Pure.
#[derive(Debug)]
struct Allowance {
    bytes: f64,
    dropped_bytes: u64,
    /// Until when nothing is said of dropped bytes, in seconds from now.
    quiet_s: f64,
}

impl Allowance {
    fn new() -> Self {
        Self {
            bytes: BURST_BYTES,
            dropped_bytes: 0,
            quiet_s: 0.0,
        }
    }

    fn grow(&mut self, elapsed_s: f64) {
        self.bytes = (self.bytes + elapsed_s * RATE_BYTES_PER_S).min(BURST_BYTES);
        self.quiet_s = (self.quiet_s - elapsed_s).max(0.0);
    }

    /// Whether `bytes` may pass; if not, they are counted.
    fn admit(&mut self, bytes: usize) -> bool {
        if self.bytes < bytes as f64 {
            self.dropped_bytes += bytes as u64;
            return false;
        }
        self.bytes -= bytes as f64;
        true
    }

    /// The bytes dropped since the last time, if a line about them may pass.
    fn take_dropped(&mut self) -> Option<u64> {
        const LINE_BYTES: f64 = 200.0;
        if self.dropped_bytes == 0 || self.bytes < LINE_BYTES || self.quiet_s > 0.0 {
            return None;
        }
        self.quiet_s = DROPPED_REPORT_INTERVAL_S;
        Some(std::mem::take(&mut self.dropped_bytes))
    }
}

/// The log socket and what may still pass.
pub(crate) struct Log {
    socket: OwnedFd,
    head: u32,
    allowance: Allowance,
    grown_at: Instant,
}

impl Log {
    /// A log that goes to this socket.
    pub(crate) fn new(socket: OwnedFd) -> Self {
        Self {
            socket,
            head: 0,
            allowance: Allowance::new(),
            grown_at: Instant::now(),
        }
    }

    /// Takes what the guest has put into the ring up to `tail`. Returns the new head.
    pub(crate) fn drain(&mut self, ram: &Region, tail: u32) -> Result<u32, DamagedRing> {
        if tail == self.head {
            return Ok(self.head);
        }
        self.grow();
        let mut waiting = ring::used(self.head, tail, LOG_RING_BYTES).ok_or(DamagedRing)?;
        while waiting > 0 {
            let header_bytes = self.copy(ram, self.head, LOG_HEADER_BYTES)?;
            let header: [u8; LOG_HEADER_BYTES as usize] = header_bytes.try_into().map_err(|_| DamagedRing)?;
            let (origin, length) = ring::parse_log_header(header).ok_or(DamagedRing)?;
            let frame = LOG_HEADER_BYTES + length;
            if frame > waiting {
                return Err(DamagedRing);
            }
            let origin = match origin {
                ring::LogOrigin::Stdout => LogOrigin::Stdout,
                ring::LogOrigin::Stderr => LogOrigin::Stderr,
                ring::LogOrigin::LibraryOs => LogOrigin::Platform,
            };
            if self.allowance.admit(length as usize) {
                let text = self.copy(ram, self.head.wrapping_add(LOG_HEADER_BYTES), length)?;
                self.send(origin, &text);
            }
            self.head = self.head.wrapping_add(frame);
            waiting -= frame;
        }
        self.report_dropped();
        Ok(self.head)
    }

    /// Says in the log how much did not pass, once that fits.
    pub(crate) fn report_dropped(&mut self) {
        if self.allowance.dropped_bytes == 0 {
            return;
        }
        self.grow();
        if let Some(bytes) = self.allowance.take_dropped() {
            let text =
                format!("{bytes} bytes of output were dropped: the function logs faster than it may\n");
            self.send(LogOrigin::Platform, text.as_bytes());
        }
    }

    /// What has not been said yet when the instance ends.
    pub(crate) fn finish(&mut self) {
        self.allowance = Allowance {
            dropped_bytes: self.allowance.dropped_bytes,
            ..Allowance::new()
        };
        self.report_dropped();
    }

    fn grow(&mut self) {
        let now = Instant::now();
        self.allowance
            .grow(now.duration_since(self.grown_at).as_secs_f64());
        self.grown_at = now;
    }

    fn copy(&self, ram: &Region, from: u32, length: u32) -> Result<Vec<u8>, DamagedRing> {
        let mut bytes = vec![0; length as usize];
        let mut done = 0;
        for (offset, part) in ring::stretches(from, length, LOG_RING_BYTES) {
            let end = done + part as usize;
            let place = LOG_RING_GPA + u64::from(offset);
            ram.read_bytes(place, &mut bytes[done..end])
                .map_err(|_| DamagedRing)?;
            done = end;
        }
        Ok(bytes)
    }

    fn send(&mut self, origin: LogOrigin, text: &[u8]) {
        let mut packet = Vec::with_capacity(text.len() + 1);
        packet.push(origin as u8);
        packet.extend_from_slice(text);
        // A daemon that does not keep up must not stop the instance: the bytes count as dropped. Should it be gone,
        // the control socket says so.
        let sent = send(&self.socket, &packet, SendFlags::DONTWAIT | SendFlags::NOSIGNAL);
        if let Err(Errno::AGAIN | Errno::NOBUFS) = sent {
            self.allowance.dropped_bytes += text.len() as u64;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_passes_then_the_rate_holds_and_the_rest_is_counted() {
        let mut allowance = Allowance::new();
        let mut passed = 0;
        for _ in 0..2000 {
            passed += if allowance.admit(1024) { 1024 } else { 0 };
        }
        assert_eq!(passed, BURST_BYTES as u64);
        assert_eq!(allowance.take_dropped(), None);
        allowance.grow(1.0);
        assert_eq!(allowance.take_dropped(), Some(2000 * 1024 - passed));
        assert_eq!(allowance.take_dropped(), None);
        allowance.dropped_bytes = 7;
        assert_eq!(allowance.take_dropped(), None, "it was said a moment ago");
        let second: u64 = (0..2000)
            .map(|_| if allowance.admit(1024) { 1024 } else { 0 })
            .sum();
        assert!(second <= RATE_BYTES_PER_S as u64);
        allowance.grow(1e9);
        assert!(allowance.bytes <= BURST_BYTES);
    }

    #[test]
    fn damaged_rings_are_refused() {
        let (ours, _theirs) = std::os::unix::net::UnixDatagram::pair().unwrap();
        let ram = Region::anonymous(2 << 20, 4096).unwrap();
        let mut log = Log::new(ours.into());
        assert!(log.drain(&ram, LOG_RING_BYTES + 1).is_err());
        // Zero bytes are no header.
        assert!(log.drain(&ram, 16).is_err());
        let header = ring::log_header(ring::LogOrigin::Stdout, 100);
        ram.write_bytes(LOG_RING_GPA, &header).unwrap();
        assert!(log.drain(&ram, 50).is_err(), "a frame longer than what waits");
        assert_eq!(log.drain(&ram, 104).unwrap(), 104);
    }
}
