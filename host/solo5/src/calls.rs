//! What hypercalls do. Pure but for what [`Host`] does; whatever the guest says is copied once, checked, and bounded.
//!
//! ```text
//!   out PORT, ADDRESS ──> structure at ADDRESS: copied out ──> served ──> results copied in ──> the guest goes on, or has halted
//! ```
//!
//! An address that is not within the guest's memory ends the guest: Solo5's own tender does so too.

use std::io;
use std::time::Duration;

use crate::abi::{Call, Outcome};
use crate::manifest::Manifest;
use crate::memory::{Memory, OutOfRange};

/// What is copied at a time, in bytes.
const PIECE_BYTES: usize = 64 << 10;
/// Longest packet that a guest's card takes, in bytes, and longest frame: with its head.
pub(crate) const PACKET_BYTES_MAX: u16 = 1500;
pub(crate) const FRAME_BYTES_MAX: usize = PACKET_BYTES_MAX as usize + 14;

/// Why a guest cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// It has written to a port of no hypercall, or not as they are made.
    #[error("it has used port {port:#x} in a way that is no hypercall")]
    NoCall {
        /// The port.
        port: u16,
    },
    /// It has named memory that it does not have.
    #[error("it has called {call} with memory that it does not have: {range}")]
    Memory {
        /// The call.
        call: Call,
        /// What it has named.
        range: OutOfRange,
    },
    /// What its devices stand for has failed.
    #[error(transparent)]
    Host(#[from] HostError),
}

/// Why a device cannot do what it is to.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// The daemon has closed the other end of the network card's cable.
    #[error("nobody is at the other end of the cable")]
    Unplugged,
    /// What has come from there is no frame.
    #[error("what comes from the cable is no frame")]
    NoFrame,
    /// The cable cannot be used.
    #[error("the cable cannot be used")]
    Cable(#[source] io::Error),
    /// The console cannot be written to.
    #[error("the console cannot be written to")]
    Console(#[source] io::Error),
    /// The disk cannot be read.
    #[error("the disk cannot be read")]
    Disk(#[source] io::Error),
}

/// What is behind the devices of a guest.
pub trait Host {
    /// What time it is, in nanoseconds since 1970.
    fn wall_time_ns(&self) -> u64;

    /// Writes to the console.
    ///
    /// # Errors
    ///
    /// If it cannot be written to.
    fn write_console(&mut self, bytes: &[u8]) -> Result<(), HostError>;

    /// Waits until a frame has come, so long at most; whether one has.
    ///
    /// # Errors
    ///
    /// If the cable cannot be used any more.
    fn wait_for_frame(&mut self, timeout: Duration) -> Result<bool, HostError>;

    /// Takes a frame that has come, if one has.
    ///
    /// # Errors
    ///
    /// As for [`Host::wait_for_frame`].
    fn take_frame(&mut self) -> Result<Option<Vec<u8>>, HostError>;

    /// Sends a frame.
    ///
    /// # Errors
    ///
    /// As for [`Host::wait_for_frame`].
    fn send_frame(&mut self, frame: &[u8]) -> Result<(), HostError>;

    /// Length of the disk, in bytes.
    fn disk_bytes(&self) -> u64;

    /// Writes to the disk, a range that is within it; whether there was room for what is written.
    ///
    /// # Errors
    ///
    /// If it cannot be read.
    fn write_disk(&mut self, offset: u64, bytes: &[u8]) -> Result<bool, HostError>;

    /// Reads from the disk, a range that is within it.
    ///
    /// # Errors
    ///
    /// If it cannot be read.
    fn read_disk(&mut self, offset: u64, bytes: &mut [u8]) -> Result<(), HostError>;
}

/// What becomes of a guest after a hypercall.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum After {
    /// It goes on.
    Resumes,
    /// It has ended, with this status.
    Halted(i32),
}

/// Serves a guest's hypercalls.
pub struct Calls<'a, M, H> {
    /// The guest's memory.
    pub memory: &'a M,
    /// What is behind its devices.
    pub host: &'a mut H,
    /// Its devices.
    pub manifest: &'a Manifest,
}

/// The structure of a call, as so many numbers of 64 bits.
struct Argument<'a, M> {
    call: Call,
    memory: &'a M,
    address: u64,
}

impl<M: Memory> Argument<'_, M> {
    fn out_of_range(&self) -> impl Fn(OutOfRange) -> CallError {
        let call = self.call;
        move |range| CallError::Memory { call, range }
    }

    /// Copies the structure out.
    fn read<const COUNT: usize>(&self) -> Result<[u64; COUNT], CallError> {
        let mut bytes = [[0; 8]; COUNT];
        let range = self.memory.read(self.address, bytes.as_flattened_mut());
        range.map_err(self.out_of_range())?;
        Ok(bytes.map(u64::from_le_bytes))
    }

    /// Copies a number of 64 bits into it.
    fn write(&self, index: u64, value: u64) -> Result<(), CallError> {
        let place = self.address + index * 8;
        let written = self.memory.write(place, &value.to_le_bytes());
        written.map_err(self.out_of_range())
    }

    /// Copies one of 32 bits into it.
    fn write_word(&self, index: u64, value: u32) -> Result<(), CallError> {
        let place = self.address + index * 8;
        let written = self.memory.write(place, &value.to_le_bytes());
        written.map_err(self.out_of_range())
    }

    /// Checks memory that the structure names.
    fn check(&self, address: u64, length: u64) -> Result<(), CallError> {
        self.memory.check(address, length).map_err(self.out_of_range())
    }
}

impl<M: Memory, H: Host> Calls<'_, M, H> {
    /// Serves a call whose structure is at `address`.
    ///
    /// # Errors
    ///
    /// If the guest cannot go on.
    pub fn serve(&mut self, call: Call, address: u32) -> Result<After, CallError> {
        let argument = Argument {
            call,
            memory: self.memory,
            address: address.into(),
        };
        match call {
            Call::WallTime => argument.write(0, self.host.wall_time_ns())?,
            Call::Puts => self.puts(&argument)?,
            Call::Poll => {
                let [timeout_ns, _, _] = argument.read()?;
                let is_ready = self.host.wait_for_frame(Duration::from_nanos(timeout_ns))?;
                let net = self.manifest.net().filter(|_| is_ready);
                argument.write(1, net.map_or(0, |index| 1 << index))?;
                argument.write_word(2, net.is_some().into())?;
            }
            Call::BlockWrite => {
                let outcome = self.block_write(&argument)?;
                argument.write_word(4, outcome as u32)?;
            }
            Call::BlockRead => {
                let outcome = self.block_read(&argument)?;
                argument.write_word(4, outcome as u32)?;
            }
            Call::NetWrite => {
                let outcome = self.net_write(&argument)?;
                argument.write_word(3, outcome as u32)?;
            }
            Call::NetRead => {
                let outcome = self.net_read(&argument)?;
                argument.write_word(3, outcome as u32)?;
            }
            Call::Halt => {
                // Where it says what it knows of its end is nobody's business here.
                let [_, status] = argument.read()?;
                return Ok(After::Halted(status as u32 as i32));
            }
        }
        Ok(After::Resumes)
    }

    fn puts(&mut self, argument: &Argument<'_, M>) -> Result<(), CallError> {
        let [data, length] = argument.read()?;
        argument.check(data, length)?;
        let mut piece = vec![0; length.min(PIECE_BYTES as u64) as usize];
        let mut done = 0;
        while done < length {
            let count = (length - done).min(PIECE_BYTES as u64) as usize;
            let read = self.memory.read(data + done, &mut piece[..count]);
            read.map_err(argument.out_of_range())?;
            self.host.write_console(&piece[..count])?;
            done += count as u64;
        }
        Ok(())
    }

    /// Whether a range is on the disk that a handle stands for.
    fn is_on_disk(&self, handle: u64, offset: u64, length: u64) -> bool {
        let is_disk = self.manifest.block().is_some_and(|block| block as u64 == handle);
        let end = offset.checked_add(length);
        is_disk && offset < self.host.disk_bytes() && end.is_some_and(|end| end <= self.host.disk_bytes())
    }

    fn block_write(&mut self, argument: &Argument<'_, M>) -> Result<Outcome, CallError> {
        let [handle, offset, data, length, _] = argument.read()?;
        argument.check(data, length)?;
        if !self.is_on_disk(handle, offset, length) {
            return Ok(Outcome::Invalid);
        }
        let mut piece = vec![0; length.min(PIECE_BYTES as u64) as usize];
        let mut done = 0;
        while done < length {
            let count = (length - done).min(PIECE_BYTES as u64) as usize;
            let read = self.memory.read(data + done, &mut piece[..count]);
            read.map_err(argument.out_of_range())?;
            if !self.host.write_disk(offset + done, &piece[..count])? {
                return Ok(Outcome::Unspecified);
            }
            done += count as u64;
        }
        Ok(Outcome::Done)
    }

    fn block_read(&mut self, argument: &Argument<'_, M>) -> Result<Outcome, CallError> {
        let [handle, offset, data, length, _] = argument.read()?;
        argument.check(data, length)?;
        if !self.is_on_disk(handle, offset, length) {
            return Ok(Outcome::Invalid);
        }
        let mut piece = vec![0; length.min(PIECE_BYTES as u64) as usize];
        let mut done = 0;
        while done < length {
            let count = (length - done).min(PIECE_BYTES as u64) as usize;
            self.host.read_disk(offset + done, &mut piece[..count])?;
            let written = self.memory.write(data + done, &piece[..count]);
            written.map_err(argument.out_of_range())?;
            done += count as u64;
        }
        Ok(Outcome::Done)
    }

    fn is_card(&self, handle: u64) -> bool {
        self.manifest.net().is_some_and(|net| net as u64 == handle)
    }

    fn net_write(&mut self, argument: &Argument<'_, M>) -> Result<Outcome, CallError> {
        let [handle, data, length, _] = argument.read()?;
        argument.check(data, length)?;
        if !self.is_card(handle) || length > FRAME_BYTES_MAX as u64 {
            return Ok(Outcome::Invalid);
        }
        let mut frame = [0; FRAME_BYTES_MAX];
        let frame = &mut frame[..length as usize];
        self.memory.read(data, frame).map_err(argument.out_of_range())?;
        self.host.send_frame(frame)?;
        Ok(Outcome::Done)
    }

    fn net_read(&mut self, argument: &Argument<'_, M>) -> Result<Outcome, CallError> {
        let [handle, data, length, _] = argument.read()?;
        argument.check(data, length)?;
        if !self.is_card(handle) {
            return Ok(Outcome::Invalid);
        }
        let Some(mut frame) = self.host.take_frame()? else {
            return Ok(Outcome::Again);
        };
        // What there is no room for is lost, as with any card.
        frame.truncate(usize::try_from(length).unwrap_or(usize::MAX));
        self.memory.write(data, &frame).map_err(argument.out_of_range())?;
        argument.write(2, frame.len() as u64)?;
        Ok(Outcome::Done)
    }
}

#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod samples {
    //! A host for tests and the fuzz target.

    use super::*;
    use crate::disk::Overlaid;

    /// Keeps what it is given.
    pub(crate) struct Recorder {
        pub(crate) console: Vec<u8>,
        pub(crate) sent: Vec<Vec<u8>>,
        pub(crate) coming: Vec<Vec<u8>>,
        pub(crate) disk: Overlaid<&'static [u8]>,
    }

    pub(crate) const DISK_BYTES: usize = 8192;

    impl Recorder {
        pub(crate) fn new(coming: Vec<Vec<u8>>) -> Self {
            Self {
                console: Vec::new(),
                sent: Vec::new(),
                coming,
                disk: Overlaid::new(&[b'd'; DISK_BYTES], DISK_BYTES as u64),
            }
        }
    }

    impl Host for Recorder {
        fn wall_time_ns(&self) -> u64 {
            7
        }

        fn write_console(&mut self, bytes: &[u8]) -> Result<(), HostError> {
            assert!(bytes.len() <= PIECE_BYTES);
            self.console.extend_from_slice(bytes);
            Ok(())
        }

        fn wait_for_frame(&mut self, _: Duration) -> Result<bool, HostError> {
            Ok(!self.coming.is_empty())
        }

        fn take_frame(&mut self) -> Result<Option<Vec<u8>>, HostError> {
            Ok(self.coming.pop())
        }

        fn send_frame(&mut self, frame: &[u8]) -> Result<(), HostError> {
            assert!(frame.len() <= FRAME_BYTES_MAX);
            self.sent.push(frame.to_vec());
            Ok(())
        }

        fn disk_bytes(&self) -> u64 {
            self.disk.bytes()
        }

        fn write_disk(&mut self, offset: u64, bytes: &[u8]) -> Result<bool, HostError> {
            self.disk.write(offset, bytes).map_err(HostError::Disk)
        }

        fn read_disk(&mut self, offset: u64, bytes: &mut [u8]) -> Result<(), HostError> {
            self.disk.read(offset, bytes).map_err(HostError::Disk)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::samples::{DISK_BYTES, Recorder};
    use super::*;
    use crate::manifest::samples::manifest;
    use crate::memory::Bytes;

    use proptest::prelude::*;

    const MEMORY_BYTES: u64 = 64 << 10;
    /// Where structures are, and what they name.
    const STRUCTURE: u64 = 0x1000;
    const DATA: u64 = 0x2000;
    /// Numbers of the devices.
    const BLOCK: u64 = 1;
    const NET: u64 = 2;

    struct Guest {
        memory: Bytes,
        host: Recorder,
        manifest: Manifest,
    }

    impl Guest {
        fn new() -> Self {
            Self {
                memory: Bytes(vec![0; MEMORY_BYTES as usize].into()),
                host: Recorder::new(vec![vec![b'f'; 100]]),
                manifest: Manifest::parse(&manifest(&[1, 2])).unwrap(),
            }
        }

        fn call(&mut self, call: Call, structure: &[u64]) -> Result<After, CallError> {
            let bytes: Vec<u8> = structure.iter().flat_map(|number| number.to_le_bytes()).collect();
            self.memory.write(STRUCTURE, &bytes).unwrap();
            self.call_at(call, STRUCTURE as u32)
        }

        fn call_at(&mut self, call: Call, address: u32) -> Result<After, CallError> {
            let mut calls = Calls {
                memory: &self.memory,
                host: &mut self.host,
                manifest: &self.manifest,
            };
            calls.serve(call, address)
        }

        fn number(&self, index: u64) -> u64 {
            let mut bytes = [0; 8];
            self.memory.read(STRUCTURE + index * 8, &mut bytes).unwrap();
            u64::from_le_bytes(bytes)
        }

        fn outcome(&mut self, call: Call, structure: &[u64]) -> u64 {
            assert_eq!(self.call(call, structure).unwrap(), After::Resumes);
            self.number(structure.len() as u64 - 1) & 0xffff_ffff
        }
    }

    #[test]
    fn calls_do_what_they_are_for() {
        let mut guest = Guest::new();
        guest.memory.write(DATA, b"a line\n").unwrap();
        guest.call(Call::WallTime, &[0]).unwrap();
        assert_eq!(guest.number(0), 7);
        guest.call(Call::Puts, &[DATA, 7]).unwrap();
        assert_eq!(guest.host.console, b"a line\n");
        assert_eq!(guest.outcome(Call::Poll, &[u64::MAX, 0, 0]), 1);
        assert_eq!(guest.number(1), 1 << NET);
        assert_eq!(guest.outcome(Call::NetRead, &[NET, DATA, 1514, 9]), 0);
        assert_eq!(guest.number(2), 100);
        assert_eq!(guest.outcome(Call::NetRead, &[NET, DATA, 1514, 9]), 1);
        assert_eq!(guest.outcome(Call::Poll, &[0, 9, 9]), 0);
        assert_eq!(guest.number(1), 0);
        assert_eq!(guest.outcome(Call::NetWrite, &[NET, DATA, 60, 9]), 0);
        assert_eq!(guest.host.sent[0].len(), 60);
        assert_eq!(guest.host.sent[0][0], b'f');
        assert_eq!(guest.outcome(Call::BlockWrite, &[BLOCK, 512, DATA, 512, 9]), 0);
        assert_eq!(
            guest.outcome(Call::BlockRead, &[BLOCK, 0, DATA + 2048, 1024, 9]),
            0
        );
        let memory = guest.memory.0.borrow();
        assert_eq!(memory[DATA as usize + 2048..][..2], *b"dd");
        assert_eq!(memory[DATA as usize + 2048 + 512..][..2], *b"ff");
        drop(memory);
        assert_eq!(guest.call(Call::Halt, &[0, 3]).unwrap(), After::Halted(3));
        let minus_one = u64::from(u32::MAX);
        assert_eq!(
            guest.call(Call::Halt, &[u64::MAX, minus_one]).unwrap(),
            After::Halted(-1)
        );
    }

    #[test]
    fn what_no_device_has_is_invalid() {
        let mut guest = Guest::new();
        let disk = DISK_BYTES as u64;
        for call in [Call::BlockRead, Call::BlockWrite] {
            for (handle, offset, length) in [
                (0, 0, 512),
                (NET, 0, 512),
                (u64::MAX, 0, 512),
                (BLOCK, disk, 0),
                (BLOCK, disk - 511, 512),
                (BLOCK, u64::MAX, 512),
                (BLOCK, u64::MAX - 511, 512),
            ] {
                let outcome = guest.outcome(call, &[handle, offset, DATA, length, 9]);
                assert_eq!(outcome, 2, "{call} {handle} {offset} {length}");
            }
        }
        for handle in [0, BLOCK, 64, u64::MAX] {
            assert_eq!(guest.outcome(Call::NetWrite, &[handle, DATA, 60, 9]), 2);
            assert_eq!(guest.outcome(Call::NetRead, &[handle, DATA, 60, 9]), 2);
        }
        assert_eq!(guest.outcome(Call::NetWrite, &[NET, DATA, 1515, 9]), 2);
        assert!(guest.host.sent.is_empty() && guest.host.coming.len() == 1);
    }

    #[test]
    fn a_frame_is_cut_where_there_is_no_room() {
        let mut guest = Guest::new();
        assert_eq!(guest.outcome(Call::NetRead, &[NET, DATA, 10, 9]), 0);
        assert_eq!(guest.number(2), 10);
        assert_eq!(guest.memory.0.borrow()[DATA as usize + 9..][..2], [b'f', 0]);
    }

    #[test]
    fn memory_that_is_not_there_ends_the_guest() {
        let end = MEMORY_BYTES;
        let is_told = |result: Result<After, CallError>, call: Call| match result {
            Err(CallError::Memory { call: told, .. }) => assert_eq!(told, call),
            other => panic!("{call}: {other:?}"),
        };
        for call in Call::ALL {
            for address in [end as u32, end as u32 - 7, u32::MAX, u32::MAX - 7] {
                is_told(Guest::new().call_at(call, address), call);
            }
        }
        for (data, length) in [
            (end, 1),
            (end - 1, 2),
            (u64::MAX, 1),
            (u64::MAX, u64::MAX),
            (0, u64::MAX),
            (1, u64::MAX),
            (DATA, end),
            (1 << 63, 1 << 63),
        ] {
            for (call, structure) in [
                (Call::Puts, vec![data, length]),
                (Call::NetRead, vec![NET, data, length, 0]),
                (Call::NetWrite, vec![NET, data, length, 0]),
                (Call::BlockRead, vec![BLOCK, 0, data, length, 0]),
                (Call::BlockWrite, vec![BLOCK, 0, data, length, 0]),
            ] {
                let mut guest = Guest::new();
                is_told(guest.call(call, &structure), call);
                assert!(guest.host.console.is_empty() && guest.host.sent.is_empty());
            }
        }
    }

    proptest! {
        #[test]
        fn any_call_is_served_or_ends_the_guest(
            calls in prop::collection::vec(
                (0..Call::ALL.len(), prop::array::uniform5(prop_oneof![any::<u64>(), 0..20_000_u64]), 0..0x1_0040_u32),
                1..20,
            ),
        ) {
            let mut guest = Guest::new();
            for (number, structure, address) in calls {
                let call = Call::ALL[number];
                let bytes: Vec<u8> = structure.iter().flat_map(|number| number.to_le_bytes()).collect();
                // As much of it as there is room for.
                let room = MEMORY_BYTES.saturating_sub(address.into()).min(40) as usize;
                guest.memory.write(u64::from(address).min(MEMORY_BYTES), &bytes[..room]).unwrap();
                let served = guest.call_at(call, address);
                let is_served = matches!(served, Ok(_) | Err(CallError::Memory { .. }));
                prop_assert!(is_served);
            }
        }
    }
}
