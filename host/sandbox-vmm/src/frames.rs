//! Frames of a guest, from bytes in any pieces. Pure; the guest may send anything.

use spore_abi::microvm::{HEADER_BYTES, Header, Kind};

/// A frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) kind: Kind,
    pub(crate) stream: u16,
    pub(crate) content: Vec<u8>,
}

impl Frame {
    pub(crate) fn new(kind: Kind, stream: u16, content: impl Into<Vec<u8>>) -> Self {
        let content = content.into();
        Self {
            kind,
            stream,
            content,
        }
    }

    /// As it is sent; the content is no longer than a frame's may be.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let header = Header {
            kind: self.kind,
            stream: self.stream,
            length: self.content.len() as u32,
        };
        let mut bytes = Vec::with_capacity(HEADER_BYTES + self.content.len());
        bytes.extend_from_slice(&header.to_bytes());
        bytes.extend_from_slice(&self.content);
        bytes
    }
}

/// What was sent is no frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the guest has sent what is no frame")]
pub(crate) struct NoFrame;

/// Puts pieces together. It holds one frame at most, and what came with its end.
#[derive(Debug, Default)]
pub(crate) struct Decoder {
    bytes: Vec<u8>,
    /// Where the next frame begins.
    at: usize,
}

impl Decoder {
    /// Takes bytes that were sent.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.bytes.drain(..self.at);
        self.at = 0;
        self.bytes.extend_from_slice(bytes);
    }

    /// The next frame, if all of it is there. To be asked until there is none, before more is pushed.
    pub(crate) fn next(&mut self) -> Result<Option<Frame>, NoFrame> {
        let rest = &self.bytes[self.at..];
        let Some((header, rest)) = rest.split_first_chunk::<HEADER_BYTES>() else {
            return Ok(None);
        };
        let header = Header::from_bytes(*header).ok_or(NoFrame)?;
        let Some(content) = rest.get(..header.length as usize) else {
            return Ok(None);
        };
        let frame = Frame::new(header.kind, header.stream, content);
        self.at += HEADER_BYTES + content.len();
        Ok(Some(frame))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use proptest::prelude::*;

    fn frames() -> impl Strategy<Value = Vec<Frame>> {
        let kinds = prop::sample::select(vec![Kind::Data, Kind::Ready, Kind::Output, Kind::Ended]);
        let frame = (kinds, 0..1024_u16, prop::collection::vec(any::<u8>(), 0..200));
        let frame = frame.prop_map(|(kind, stream, content)| Frame::new(kind, stream, content));
        prop::collection::vec(frame, 0..20)
    }

    proptest! {
        #[test]
        fn frames_arrive_in_whatever_pieces_they_come(frames in frames(), piece in 1..300_usize) {
            let bytes: Vec<u8> = frames.iter().flat_map(Frame::to_bytes).collect();
            let mut decoder = Decoder::default();
            let mut found = Vec::new();
            for piece in bytes.chunks(piece) {
                decoder.push(piece);
                while let Some(frame) = decoder.next().unwrap() {
                    found.push(frame);
                }
            }
            prop_assert_eq!(found, frames);
        }
    }

    #[test]
    fn what_is_no_frame_is_refused_before_its_content_is_there() {
        let mut bytes = Frame::new(Kind::Data, 0, []).to_bytes();
        bytes[6] = 1;
        let mut decoder = Decoder::default();
        decoder.push(&bytes);
        assert_eq!(decoder.next(), Err(NoFrame));
    }
}
