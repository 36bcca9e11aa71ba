//! What the fuzz target calls: what a guest and its monitor say, and what is to be a kernel.

use spore_abi::microvm::{CONTENT_BYTES_MAX, Kind};
use tokio::sync::mpsc;

use crate::foreign::{link, network::Network};
use crate::frames::Decoder;
use crate::qmp::{LINE_BYTES_MAX, Lines, Message};
use crate::streams::Streams;
use crate::{api, payload};

/// Streams that are open while the guest's frames arrive.
const STREAMS: u16 = 3;

/// What a guest sends, in pieces of a length. To be called within a runtime.
///
/// # Panics
///
/// If a frame is longer than it may be, or the guest opens a stream.
pub fn guest(bytes: &[u8], piece: usize) {
    let (frames, _kept) = mpsc::channel(64);
    let streams = Streams::new(frames);
    let _open: Vec<_> = (0..STREAMS)
        .map(|_| streams.open().expect("few are open"))
        .collect();
    let mut decoder = Decoder::default();
    for piece in bytes.chunks(piece.max(1)) {
        decoder.push(piece);
        while let Ok(Some(frame)) = decoder.next() {
            assert!(frame.content.len() <= CONTENT_BYTES_MAX);
            let (kind, stream) = (frame.kind, frame.stream);
            let taken = streams.take(frame);
            assert!(taken.is_err() || stream < STREAMS && kind != Kind::Open);
        }
    }
    streams.fail();
}

/// What QEMU sends on its control socket, in pieces of a length.
///
/// # Panics
///
/// If a line is longer than it may be.
pub fn qemu(bytes: &[u8], piece: usize) {
    let mut lines = Lines::default();
    for piece in bytes.chunks(piece.max(1)) {
        let pushed = lines.push(piece, &mut |line| {
            assert!(line.len() <= LINE_BYTES_MAX);
            // Whether it is a message is all that is asked.
            let _ = Message::parse(line);
        });
        if pushed.is_err() {
            return;
        }
    }
}

/// A file that is to be a kernel.
///
/// # Panics
///
/// If what was unpacked is none.
pub fn kernel(bytes: &[u8]) {
    assert!(payload::unpack(bytes).is_none_or(|kernel| payload::is_unpacked(&kernel)));
}

/// What a monitor answers to a request that it refuses.
///
/// # Panics
///
/// If the reason is longer than it may be, or no line.
pub fn refusal(bytes: &[u8]) {
    let reason = api::reason(bytes);
    assert!(reason.chars().count() <= api::REASON_CHARS_MAX && !reason.contains(char::is_control));
}

/// What a guest's network card sends to the daemon's end of its cable, in pieces of a length, while a stream is being opened. To be
/// called within a runtime.
///
/// # Panics
///
/// If what is sent to the guest are no frames.
pub fn cable(bytes: &[u8], piece: usize) {
    let network = Network::new(crate::foreign::ADDRESSES);
    let (mut decoder, mut sent) = (link::Decoder::default(), link::Decoder::default());
    // It is not waited for: the guest may never accept it.
    let _stream = network.open(80);
    for piece in bytes.chunks(piece.max(1)) {
        decoder.push(piece);
        let mut out = Vec::new();
        if network.take(&mut decoder, &mut out).is_err() {
            return;
        }
        network.turn(&mut out);
        sent.push(&out);
        while sent.next().expect("what is sent is bounded").is_some() {}
    }
}
