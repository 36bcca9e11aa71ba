//! What guest and tender agree on: Solo5's ABI for `hvt`, version 2, on x86-64 (`hvt_abi.h`, `mft_abi.h` and `elf_abi.h` of Solo5), as
//! far as it is numbers.
//!
//! ```text
//!   0x0      nothing
//!   0x1000   segment descriptors        ┐
//!   0x2000   page tables                │ not mapped for the guest
//!   0x10000  boot information, manifest, command line   ┐ mapped, but not to be written to
//!   0x20000  page tables of large kernels               ┘
//!   0x100000 kernel, heap ... stack     up to the end of memory
//! ```

use std::fmt;

/// What the ABI note of a kernel for this tender says: kind of tender, and version.
pub(crate) const TARGET: u32 = 1;
pub(crate) const VERSION: u32 = 2;
/// Where kernels may begin.
pub(crate) const KERNEL_START: u64 = 0x10_0000;
/// Sizes of pages, in bytes.
pub(crate) const PAGE_BYTES: u64 = 4096;
pub(crate) const LARGE_PAGE_BYTES: u64 = 2 << 20;
/// The most memory that a guest can have, in bytes: hypercalls have addresses of 32 bits.
pub const MEMORY_BYTES_MAX: u64 = 4 << 30;
/// Room for the command line, in bytes, with the zero behind it.
pub(crate) const COMMAND_LINE_BYTES: usize = 8192;
/// Longest command line, in bytes.
pub const COMMAND_LINE_BYTES_MAX: usize = COMMAND_LINE_BYTES - 1;

/// The port of hypercall 0, which there is not.
const FIRST_PORT: u16 = 0x500;

/// A hypercall. Its argument is the address of a structure in guest memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Call {
    /// What time it is: nanoseconds since 1970.
    WallTime,
    /// Text for the console.
    Puts,
    /// Waits until a frame is there, or for a time.
    Poll,
    /// Writes to the disk.
    BlockWrite,
    /// Reads from the disk.
    BlockRead,
    /// Sends a frame.
    NetWrite,
    /// Takes a frame that has come.
    NetRead,
    /// Ends the guest.
    Halt,
}

impl Call {
    /// All of them, in the order of their numbers, from 1 on.
    pub const ALL: [Self; 8] = [
        Self::WallTime,
        Self::Puts,
        Self::Poll,
        Self::BlockWrite,
        Self::BlockRead,
        Self::NetWrite,
        Self::NetRead,
        Self::Halt,
    ];

    /// The one that a write to this port is.
    pub(crate) fn from_port(port: u16) -> Option<Self> {
        let number = port.checked_sub(FIRST_PORT)?;
        Self::ALL.get(usize::from(number.checked_sub(1)?)).copied()
    }
}

impl fmt::Display for Call {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::WallTime => "WALLTIME",
            Self::Puts => "PUTS",
            Self::Poll => "POLL",
            Self::BlockWrite => "BLOCK_WRITE",
            Self::BlockRead => "BLOCK_READ",
            Self::NetWrite => "NET_WRITE",
            Self::NetRead => "NET_READ",
            Self::Halt => "HALT",
        })
    }
}

/// How a hypercall to a device went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    Done = 0,
    /// Nothing is there yet.
    Again = 1,
    /// An argument is wrong.
    Invalid = 2,
    /// It is not to be had.
    Unspecified = 3,
}

/// The status with which a guest halts that has given up: by an assertion, an exception, a panic.
pub(crate) const ABORTED: i32 = 255;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_have_the_ports_of_their_numbers() {
        assert_eq!(Call::from_port(0x501), Some(Call::WallTime));
        assert_eq!(Call::from_port(0x508), Some(Call::Halt));
        for port in [0, 0x4ff, 0x500, 0x509, 0x600, u16::MAX] {
            assert_eq!(Call::from_port(port), None);
        }
    }
}
