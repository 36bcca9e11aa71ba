//! Byte rings: index arithmetic shared by both sides.
//!
//! `head` counts the bytes consumed, `tail` the bytes produced, both modulo 2^32; the ring's size is a power of two.
//! The reader owns `head`, the writer owns `tail`. A side takes the other's index through [`used`], which refuses
//! values that no correct peer can produce.

/// Bytes waiting in a ring of `ring_bytes`, or `None` if the indices are impossible.
#[must_use]
pub const fn used(head: u32, tail: u32, ring_bytes: u32) -> Option<u32> {
    let used = tail.wrapping_sub(head);
    if used <= ring_bytes { Some(used) } else { None }
}

/// The two stretches of a ring that `count` bytes from index `from` cover: `(offset, length)` each.
#[must_use]
pub const fn stretches(from: u32, count: u32, ring_bytes: u32) -> [(u32, u32); 2] {
    let offset = from & (ring_bytes - 1);
    let first = if count < ring_bytes - offset {
        count
    } else {
        ring_bytes - offset
    };
    [(offset, first), (0, count - first)]
}

/// What comes before each datagram in a slot that carries datagrams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DatagramHeader {
    /// Bytes of the datagram, at most [`DATAGRAM_BYTES_MAX`]; none if there is an error.
    pub length: u16,
    /// 0, or an error number of Linux: what was sent to this address did not arrive.
    pub error: u16,
    /// Port of the far end.
    pub port: u16,
    /// Address of the far end in its IPv6 form (IPv4 mapped).
    pub address: [u8; 16],
}

/// Length of an encoded [`DatagramHeader`], in bytes.
pub const DATAGRAM_HEADER_BYTES: usize = 24;
/// Longest datagram, in bytes.
pub const DATAGRAM_BYTES_MAX: u16 = 65_507;

impl DatagramHeader {
    /// The header in bytes.
    #[must_use]
    pub fn encode(&self) -> [u8; DATAGRAM_HEADER_BYTES] {
        let mut bytes = [0; DATAGRAM_HEADER_BYTES];
        bytes[..2].copy_from_slice(&self.length.to_le_bytes());
        bytes[2..4].copy_from_slice(&self.error.to_le_bytes());
        bytes[4..6].copy_from_slice(&self.port.to_le_bytes());
        bytes[8..].copy_from_slice(&self.address);
        bytes
    }

    /// The header in these bytes; `None` if it is not one that [`DatagramHeader::encode`] makes.
    #[must_use]
    pub fn decode(bytes: [u8; DATAGRAM_HEADER_BYTES]) -> Option<Self> {
        let number = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
        let mut address = [0; 16];
        address.copy_from_slice(&bytes[8..]);
        let header = Self {
            length: number(0),
            error: number(2),
            port: number(4),
            address,
        };
        let is_sound = header.length <= DATAGRAM_BYTES_MAX && (header.error == 0 || header.length == 0);
        if is_sound && number(6) == 0 {
            Some(header)
        } else {
            None
        }
    }
}

/// Header of a frame in the log ring, followed by `length` bytes of text.
pub const LOG_HEADER_BYTES: u32 = 4;
/// Longest text of a frame in the log ring, in bytes.
pub const LOG_FRAME_BYTES_MAX: u32 = 4096;

/// Where output comes from: in a frame of the log ring, and on the monitor's log socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum LogOrigin {
    /// The program's standard output.
    Stdout = 1,
    /// The program's standard error.
    Stderr = 2,
    /// The platform: the library OS, or the monitor.
    Platform = 3,
}

impl LogOrigin {
    /// The origin with this number, if there is one.
    #[must_use]
    pub const fn from_number(number: u8) -> Option<Self> {
        match number {
            1 => Some(Self::Stdout),
            2 => Some(Self::Stderr),
            3 => Some(Self::Platform),
            _ => None,
        }
    }
}

/// Encodes a log frame header: two bytes of length, one of origin, one of zero.
#[must_use]
pub const fn log_header(origin: LogOrigin, length: u16) -> [u8; LOG_HEADER_BYTES as usize] {
    let [low, high] = length.to_le_bytes();
    [low, high, origin as u8, 0]
}

/// Decodes a log frame header; `None` if it is not one that [`log_header`] makes.
#[must_use]
pub const fn parse_log_header(bytes: [u8; LOG_HEADER_BYTES as usize]) -> Option<(LogOrigin, u32)> {
    let length = u16::from_le_bytes([bytes[0], bytes[1]]) as u32;
    match LogOrigin::from_number(bytes[2]) {
        Some(origin) if bytes[3] == 0 && length <= LOG_FRAME_BYTES_MAX => Some((origin, length)),
        _ => None,
    }
}
