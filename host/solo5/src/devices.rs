//! What is behind the devices of a guest: a socket to the daemon, a file, the console, the clock.
//!
//! Frames are in a stream, each behind its length in four bytes, big-endian: the form in which QEMU has them, so that the daemon need not
//! know who is at the other end.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::AsFd;
use std::time::{Duration, Instant, SystemTime};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send};

use crate::calls::{FRAME_BYTES_MAX, Host, HostError};
use crate::disk::Overlaid;

/// What is read at a time, in bytes.
const READ_BYTES: usize = 64 << 10;
const LENGTH_BYTES: usize = 4;

/// The devices of a guest. The console is the standard error of this process.
#[derive(Debug)]
pub(crate) struct Devices<C> {
    cable: C,
    disk: Option<Overlaid<File>>,
    /// What has come and was not taken: from `at` on, up to `end`.
    bytes: Vec<u8>,
    at: usize,
    end: usize,
}

impl<C: AsFd> Devices<C> {
    /// With this socket to the daemon, and this disk.
    pub(crate) fn new(cable: C, disk: Option<File>) -> io::Result<Self> {
        let disk = disk.map(|file| {
            file.metadata()
                .map(|metadata| Overlaid::new(file, metadata.len()))
        });
        Ok(Self {
            cable,
            disk: disk.transpose()?,
            bytes: vec![0; READ_BYTES],
            at: 0,
            end: 0,
        })
    }

    /// Where the next frame is, if all of it is there.
    fn frame(&self) -> Result<Option<std::ops::Range<usize>>, HostError> {
        let waiting = &self.bytes[self.at..self.end];
        let Some((length, rest)) = waiting.split_first_chunk::<LENGTH_BYTES>() else {
            return Ok(None);
        };
        let length = u32::from_be_bytes(*length) as usize;
        if length > FRAME_BYTES_MAX {
            return Err(HostError::NoFrame);
        }
        let begin = self.at + LENGTH_BYTES;
        Ok((rest.len() >= length).then_some(begin..begin + length))
    }

    /// Reads what has come, without waiting; whether anything has.
    fn read(&mut self) -> Result<bool, HostError> {
        // A frame is shorter than this, so there is room for the rest of one.
        self.bytes.copy_within(self.at..self.end, 0);
        (self.at, self.end) = (0, self.end - self.at);
        match recv(&self.cable, &mut self.bytes[self.end..], RecvFlags::DONTWAIT) {
            Ok((0, _)) => Err(HostError::Unplugged),
            Ok((count, _)) => {
                self.end += count;
                Ok(true)
            }
            Err(Errno::AGAIN | Errno::INTR) => Ok(false),
            Err(Errno::CONNRESET) => Err(HostError::Unplugged),
            Err(error) => Err(HostError::Cable(error.into())),
        }
    }
}

impl<C: AsFd> Host for Devices<C> {
    fn wall_time_ns(&self) -> u64 {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let ns = since.unwrap_or_default().as_nanos();
        u64::try_from(ns).unwrap_or(u64::MAX)
    }

    fn write_console(&mut self, bytes: &[u8]) -> Result<(), HostError> {
        io::stderr().write_all(bytes).map_err(HostError::Console)
    }

    fn wait_for_frame(&mut self, timeout: Duration) -> Result<bool, HostError> {
        let begun = Instant::now();
        loop {
            if self.frame()?.is_some() {
                return Ok(true);
            }
            let mut waited = [PollFd::new(&self.cable, PollFlags::IN)];
            let left = timeout.saturating_sub(begun.elapsed());
            // A time that is too long for the kernel is for ever.
            let left_or_ever = Timespec::try_from(left).ok();
            match poll(&mut waited, left_or_ever.as_ref()) {
                Ok(0) => return Ok(false),
                Ok(_) => {
                    self.read()?;
                }
                Err(Errno::INTR) => {}
                Err(error) => return Err(HostError::Cable(error.into())),
            }
        }
    }

    fn take_frame(&mut self) -> Result<Option<Vec<u8>>, HostError> {
        if self.frame()?.is_none() {
            self.read()?;
        }
        let range = self.frame()?;
        Ok(range.map(|range| {
            self.at = range.end;
            self.bytes[range].to_vec()
        }))
    }

    fn send_frame(&mut self, frame: &[u8]) -> Result<(), HostError> {
        let mut bytes = Vec::with_capacity(LENGTH_BYTES + frame.len());
        bytes.extend_from_slice(&(frame.len() as u32).to_be_bytes());
        bytes.extend_from_slice(frame);
        let mut left = &bytes[..];
        while !left.is_empty() {
            // The daemon takes what it is sent, whatever it has to send itself.
            match send(&self.cable, left, SendFlags::NOSIGNAL) {
                Ok(count) => left = &left[count..],
                Err(Errno::INTR) => {}
                Err(Errno::PIPE | Errno::CONNRESET) => return Err(HostError::Unplugged),
                Err(error) => return Err(HostError::Cable(error.into())),
            }
        }
        Ok(())
    }

    fn disk_bytes(&self) -> u64 {
        self.disk.as_ref().map_or(0, Overlaid::bytes)
    }

    fn write_disk(&mut self, offset: u64, bytes: &[u8]) -> Result<bool, HostError> {
        let Some(disk) = &mut self.disk else {
            return Ok(false);
        };
        disk.write(offset, bytes).map_err(HostError::Disk)
    }

    fn read_disk(&mut self, offset: u64, bytes: &mut [u8]) -> Result<(), HostError> {
        let Some(disk) = &self.disk else {
            return Err(HostError::Disk(io::ErrorKind::NotFound.into()));
        };
        disk.read(offset, bytes).map_err(HostError::Disk)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::io::Read as _;
    use std::os::unix::net::UnixStream;

    fn cable() -> (UnixStream, Devices<UnixStream>) {
        let (daemon, tender) = UnixStream::pair().unwrap();
        (daemon, Devices::new(tender, None).unwrap())
    }

    fn framed(frame: &[u8]) -> Vec<u8> {
        [&(frame.len() as u32).to_be_bytes()[..], frame].concat()
    }

    #[test]
    fn frames_arrive_in_whatever_pieces_they_come() {
        let (mut daemon, mut devices) = cable();
        let frames: Vec<_> = (0..200_usize)
            .map(|index| vec![index as u8; index * 7 % 1500])
            .collect();
        let bytes: Vec<u8> = frames.iter().flat_map(|frame| framed(frame)).collect();
        let mut found = Vec::new();
        for piece in bytes.chunks(4099) {
            daemon.write_all(piece).unwrap();
            while let Some(frame) = devices.take_frame().unwrap() {
                found.push(frame);
            }
        }
        assert_eq!(found, frames);
        assert!(!devices.wait_for_frame(Duration::from_millis(1)).unwrap());
        // Half a frame is none.
        daemon.write_all(&framed(b"frame")[..6]).unwrap();
        assert!(!devices.wait_for_frame(Duration::from_millis(1)).unwrap());
        daemon.write_all(&framed(b"frame")[6..]).unwrap();
        assert!(devices.wait_for_frame(Duration::MAX).unwrap());
        assert_eq!(devices.take_frame().unwrap().unwrap(), b"frame");
    }

    #[test]
    fn frames_are_sent_behind_their_lengths() {
        let (mut daemon, mut devices) = cable();
        devices.send_frame(b"frame").unwrap();
        let mut bytes = [0; 9];
        daemon.read_exact(&mut bytes).unwrap();
        assert_eq!(bytes[..], framed(b"frame"));
    }

    #[test]
    fn an_end_and_what_is_no_frame_are_told() {
        let (mut daemon, mut devices) = cable();
        daemon.write_all(&u32::MAX.to_be_bytes()).unwrap();
        assert!(matches!(devices.take_frame(), Err(HostError::NoFrame)));
        let (daemon, mut devices) = cable();
        drop(daemon);
        assert!(matches!(devices.send_frame(b"frame"), Err(HostError::Unplugged)));
        assert!(matches!(
            devices.wait_for_frame(Duration::MAX),
            Err(HostError::Unplugged)
        ));
    }
}
