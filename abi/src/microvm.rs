//! The channel between the daemon and the first process of a microVM: frames on a byte stream.
//!
//! ```text
//!   kind (1) │ 0 (1) │ stream (2) │ length (4) │ length bytes …      all little endian
//!
//!   init ──> daemon   HERE
//!   daemon ──> init   what to run (ARGUMENT … PORT), START; OPEN, DATA, CLOSE, CREDIT, RESET of streams
//!   init ──> daemon   READY, OUTPUT, ERRORS; DATA, CLOSE, CREDIT, RESET, OVER of streams; one of ENDED, FAILED
//!
//!   a machine that is saved:  READY ──> LEAVE, and init ends the connection ──> init connects anew, in each copy: HERE ──>
//!                             SEED, CLOCK, START ──> READY
//!
//!   a stream:  OPEN ──> DATA … ──> CLOSE (a side sends no more) ──> RESET by the daemon ──> OVER
//!                └───────┴──> RESET by init (it has failed) ──────────────┘
//! ```
//!
//! A side sends no more bytes of a stream than the other has room for: [`WINDOW_BYTES`] at first, and what CREDIT frames say
//! since. So neither side ever has to wait with a frame in its hand.
//!
//! Init is the guest's: the daemon believes nothing of what it sends. The daemon is trusted by it.

/// What the kernel's command line has where the byte stream is no virtual serial port but a connection that init makes by vsock.
pub const VSOCK_OPTION: &str = "spore.channel=vsock";
/// The host's number as guests have it by vsock (vsock(7): `VMADDR_CID_HOST`).
pub const VSOCK_HOST: u32 = 2;
/// The port there at which the daemon waits for init.
pub const VSOCK_PORT: u32 = 1024;

/// Bytes of a frame before its content.
pub const HEADER_BYTES: usize = 8;
/// Longest content of a frame, in bytes.
pub const CONTENT_BYTES_MAX: usize = 32 << 10;
/// How much of a stream may be on its way in one direction, in bytes.
pub const WINDOW_BYTES: usize = 256 << 10;
/// Streams that are open at a time; their numbers are lower.
pub const STREAMS_MAX: u16 = 1024;

/// What a frame is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// To init: a further entry of the program's `argv`.
    Argument = 1,
    /// To init: a further variable, `NAME=VALUE`.
    Variable = 2,
    /// To init: the folder in which the program starts.
    Directory = 3,
    /// To init: the name of a secret; its value follows in [`Kind::SecretPart`]s.
    Secret = 4,
    /// To init: a further part of the value of the secret that was named last.
    SecretPart = 5,
    /// To init: three numbers of 64 bits: the port, the limit of the program's memory in bytes, and the length of the root in
    /// bytes if it is the program itself, or 0 if it is a file system.
    Settings = 6,
    /// To init: nanoseconds since 1970, 64 bits; what the clock is to be set to.
    Clock = 7,
    /// To init: all was said, the program is to be started.
    Start = 8,
    /// To init: who the program runs as: the numbers of the user, of its group and of its further groups, 32 bits each.
    User = 9,
    /// To init: bytes that nobody knows, from which the kernel is to make its random numbers anew.
    Seed = 10,
    /// To init: the machine is about to be saved. It ends the connection, makes another one as soon as that is to be had, says
    /// [`Kind::Here`], and when it was told clock and seed, [`Kind::Ready`]. Only where the channel is vsock, and while no stream is open.
    Leave = 11,
    /// To init: a connection to the program's port is to be made.
    Open = 16,
    /// Bytes of a stream.
    Data = 17,
    /// No more bytes of a stream follow.
    Close = 18,
    /// Room for so many bytes more, 32 bits.
    Credit = 19,
    /// To init: the stream is over, and its number is wanted back. From init: it has failed, and no more bytes follow.
    Reset = 20,
    /// From init: the answer to [`Kind::Reset`]; nothing else of the stream follows, so that its number can be used again.
    Over = 21,
    /// From init: it is there, and waits for what it is to run.
    Here = 31,
    /// From init: the program listens on its port.
    Ready = 32,
    /// From init: what the program has written to its standard output.
    Output = 33,
    /// From init: what the program has written to its standard error.
    Errors = 34,
    /// From init: how the program has ended: what it was (a byte, see [`Ending`]), and the status or signal (a byte).
    Ended = 35,
    /// From init: why the program cannot be run; a line of text.
    Failed = 36,
    /// From init: why this machine could not be set up; a line of text.
    Broken = 37,
}

impl Kind {
    const ALL: [Self; 24] = [
        Self::Argument,
        Self::Variable,
        Self::Directory,
        Self::Secret,
        Self::SecretPart,
        Self::Settings,
        Self::Clock,
        Self::Start,
        Self::User,
        Self::Seed,
        Self::Leave,
        Self::Open,
        Self::Data,
        Self::Close,
        Self::Credit,
        Self::Reset,
        Self::Over,
        Self::Here,
        Self::Ready,
        Self::Output,
        Self::Errors,
        Self::Ended,
        Self::Failed,
        Self::Broken,
    ];

    /// The kind of this number, if there is one.
    #[must_use]
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| *kind as u8 == number)
    }
}

/// What the end of a program was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Ending {
    /// It exited, with a status.
    Exited = 0,
    /// A signal ended it.
    Signalled = 1,
    /// The kernel ended it, for it had used up its memory.
    OutOfMemory = 2,
}

/// What comes before the content of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// What it is.
    pub kind: Kind,
    /// Which stream it is about, where it is about one.
    pub stream: u16,
    /// Length of the content, in bytes; at most [`CONTENT_BYTES_MAX`].
    pub length: u32,
}

impl Header {
    /// As it is sent.
    #[must_use]
    pub fn to_bytes(self) -> [u8; HEADER_BYTES] {
        let [s0, s1] = self.stream.to_le_bytes();
        let [l0, l1, l2, l3] = self.length.to_le_bytes();
        [self.kind as u8, 0, s0, s1, l0, l1, l2, l3]
    }

    /// What was sent; none if it is no header.
    #[must_use]
    pub fn from_bytes(bytes: [u8; HEADER_BYTES]) -> Option<Self> {
        let [kind, zero, s0, s1, l0, l1, l2, l3] = bytes;
        let header = Self {
            kind: Kind::from_number(kind)?,
            stream: u16::from_le_bytes([s0, s1]),
            length: u32::from_le_bytes([l0, l1, l2, l3]),
        };
        let is_right =
            zero == 0 && header.length as usize <= CONTENT_BYTES_MAX && header.stream < STREAMS_MAX;
        is_right.then_some(header)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_read_as_written_and_nothing_else_is() {
        for kind in Kind::ALL {
            let header = Header {
                kind,
                stream: 1023,
                length: CONTENT_BYTES_MAX as u32,
            };
            assert_eq!(Header::from_bytes(header.to_bytes()), Some(header));
            let mut bytes = header.to_bytes();
            bytes[1] = 1;
            assert_eq!(Header::from_bytes(bytes), None);
            bytes = header.to_bytes();
            bytes[3] = 4;
            assert_eq!(Header::from_bytes(bytes), None, "stream 1024");
            bytes = header.to_bytes();
            bytes[4] = 1;
            assert_eq!(Header::from_bytes(bytes), None, "a byte too long");
        }
        assert_eq!(Header::from_bytes([0; HEADER_BYTES]), None);
    }
}
