//! Restartable sequences (`rseq`): stretches of code that begin anew if their thread was interrupted within.
//!
//! There is one processor, so what a thread reads of the processor's number never changes. What is left to do is to
//! send a thread to the place that its sequence names for that when a kick or a handler has come in between.

use spore_machine::user;

use crate::errno::Errno;
use crate::kernel::Kernel;
use crate::signals::SignalInfo;
use linux_raw_sys::general::SIGSEGV;

/// Size of the area that the first version has, which is also its alignment.
pub(crate) const AREA_BYTES: u32 = 32;
/// Where the area has the address of the sequence that runs.
const CURRENT: u64 = 8;

/// The area that a thread has registered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Area {
    pub(crate) address: u64,
    pub(crate) bytes: u32,
    /// What must stand before every place that threads are sent to.
    pub(crate) signature: u32,
}

/// `struct rseq_cs`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Sequence {
    start: u64,
    bytes: u64,
    restart: u64,
}

impl Sequence {
    fn parse(bytes: &[u8; 32]) -> Self {
        let word = |at: usize| {
            let mut word = [0; 8];
            word.copy_from_slice(&bytes[at..at + 8]);
            u64::from_le_bytes(word)
        };
        Self {
            start: word(8),
            bytes: word(16),
            restart: word(24),
        }
    }

    fn contains(&self, address: u64) -> bool {
        address.wrapping_sub(self.start) < self.bytes
    }
}

impl Area {
    /// Whether an area of this place and size can be registered.
    pub(crate) fn check(address: u64, bytes: u32) -> Result<(), Errno> {
        if bytes < AREA_BYTES || !address.is_multiple_of(u64::from(AREA_BYTES)) {
            return Err(Errno::EINVAL);
        }
        if !user::is_program_range(address, bytes.into()) {
            return Err(Errno::EFAULT);
        }
        Ok(())
    }
}

impl Kernel {
    /// The running task was interrupted: a sequence that it is within begins anew.
    pub(crate) fn interrupt_sequence(&mut self) {
        let Some(area) = self.task().sequences else { return };
        if self.restart_sequence(area).is_err() {
            let current = self.current;
            self.task().sequences = None;
            self.raise_thread(current, SignalInfo::kernel(SIGSEGV));
        }
    }

    fn restart_sequence(&mut self, area: Area) -> Result<(), Errno> {
        let current = area.address.wrapping_add(CURRENT);
        let address = self.process.space.read_u64(current)?;
        if address == 0 {
            return Ok(());
        }
        let sequence = Sequence::parse(&self.process.space.read_array(address)?);
        self.process.space.write(current, &[0; 8])?;
        let rip = self.task().context.registers.rip;
        if !sequence.contains(rip) {
            return Ok(());
        }
        let signature = self.process.space.read_u32(sequence.restart.wrapping_sub(4))?;
        if sequence.contains(sequence.restart) || signature != area.signature {
            return Err(Errno::EINVAL);
        }
        self.task().context.registers.rip = sequence.restart;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sequence_holds_the_addresses_between_its_ends() {
        let mut bytes = [0; 32];
        bytes[8] = 100;
        bytes[16] = 20;
        bytes[24] = 200;
        let sequence = Sequence::parse(&bytes);
        assert!(!sequence.contains(99) && sequence.contains(100));
        assert!(sequence.contains(119) && !sequence.contains(120));
        assert_eq!(sequence.restart, 200);
    }

    #[test]
    fn small_and_crooked_areas_are_refused() {
        assert_eq!(Area::check(0x1000, 16), Err(Errno::EINVAL));
        assert_eq!(Area::check(0x1010, 32), Err(Errno::EINVAL));
        assert_eq!(Area::check(0xffff_8000_0000_0000, 32), Err(Errno::EFAULT));
    }
}
