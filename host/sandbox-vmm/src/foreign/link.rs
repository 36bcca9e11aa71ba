//! The cable between a guest's network card and the daemon: Ethernet frames in a stream, each behind its length. Pure; the guest
//! may send anything.
//!
//! Only two are on it, so a frame of IPv4 that arrives is for us, whoever asks by ARP for any address is told ours, and whoever asks
//! by DHCP is told its own.

use super::ADDRESSES;

/// Longest frame that the guest may send, in bytes: more than any card of this kind does.
pub(crate) const FRAME_BYTES_MAX: usize = 65_550;
/// Longest packet that is sent to the guest, in bytes.
pub(crate) const PACKET_BYTES_MAX: usize = 1500;
const LENGTH_BYTES: usize = 4;
const HEADER_BYTES: usize = 14;
const IPV4: [u8; 2] = [0x08, 0x00];
const ARP: [u8; 2] = [0x08, 0x06];
/// An ARP packet for Ethernet and IPv4: kinds and lengths of addresses, and that it is a question.
const ARP_QUESTION: [u8; 8] = [0, 1, 8, 0, 6, 4, 0, 1];
const ARP_BYTES: usize = 28;

/// DHCP (RFC 2131): its ports, its parts, what its options begin with, and kinds of messages.
const UDP: u8 = 17;
const DHCP_SERVER: [u8; 2] = 67_u16.to_be_bytes();
const DHCP_CLIENT: [u8; 2] = 68_u16.to_be_bytes();
const IP_BYTES: usize = 20;
const UDP_BYTES: usize = 8;
const BOOTP_BYTES: usize = 236;
const DHCP_MAGIC: [u8; 4] = [99, 130, 83, 99];
const DHCP_KIND: u8 = 53;
const DHCP_DISCOVER: u8 = 1;
const DHCP_OFFER: u8 = 2;
const DHCP_REQUEST: u8 = 3;
const DHCP_ACKNOWLEDGE: u8 = 5;

/// Addresses of the cards: the guest's, and ours.
pub(crate) const GUEST_CARD: [u8; 6] = [0x52, 0x54, 0x00, 0x53, 0x50, 0x02];
const OUR_CARD: [u8; 6] = [0x52, 0x54, 0x00, 0x53, 0x50, 0x01];

/// What came is no frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("what comes from the guest's network card are no frames")]
pub(crate) struct NoFrame;

/// What is to be done with a frame.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Taken {
    /// It holds a packet.
    Packet(Vec<u8>),
    /// It is to be answered.
    Answer(Vec<u8>),
    /// Nothing.
    Nothing,
}

/// Puts pieces together. It holds one frame at most, and what came with its end.
#[derive(Debug, Default)]
pub(crate) struct Decoder {
    bytes: Vec<u8>,
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
    pub(crate) fn next(&mut self) -> Result<Option<&[u8]>, NoFrame> {
        let rest = &self.bytes[self.at..];
        let Some((length, rest)) = rest.split_first_chunk::<LENGTH_BYTES>() else {
            return Ok(None);
        };
        let length = u32::from_be_bytes(*length) as usize;
        if length > FRAME_BYTES_MAX {
            return Err(NoFrame);
        }
        let Some(frame) = rest.get(..length) else {
            return Ok(None);
        };
        self.at += LENGTH_BYTES + length;
        Ok(Some(frame))
    }
}

/// What a frame of the guest means.
pub(crate) fn take(frame: &[u8]) -> Taken {
    let Some((header, content)) = frame.split_first_chunk::<HEADER_BYTES>() else {
        return Taken::Nothing;
    };
    match [header[12], header[13]] {
        IPV4 => lease(content).map_or_else(|| Taken::Packet(content.to_vec()), Taken::Answer),
        ARP => answer(content).map_or(Taken::Nothing, Taken::Answer),
        _ => Taken::Nothing,
    }
}

/// The answer to a question by ARP: it is us.
fn answer(question: &[u8]) -> Option<Vec<u8>> {
    let question = question.first_chunk::<ARP_BYTES>()?;
    if question[..8] != ARP_QUESTION {
        return None;
    }
    let (asker, wanted) = (&question[8..18], &question[24..28]);
    // Whoever asks for an address that it has itself looks whether it is somebody else's too.
    if asker[6..10] == *wanted || asker[6..10] == [0; 4] {
        return None;
    }
    let mut frame = header(ARP);
    frame.extend_from_slice(&ARP_QUESTION[..7]);
    frame.push(2);
    frame.extend_from_slice(&OUR_CARD);
    frame.extend_from_slice(wanted);
    frame.extend_from_slice(asker);
    Some(frame)
}

/// The answer to a question by DHCP: the guest's address, its mask and us as the way out, for ever. Who is told them on the command
/// line does not ask.
fn lease(packet: &[u8]) -> Option<Vec<u8>> {
    let header_bytes = usize::from(packet.first()? & 15) * 4;
    let (udp, question) = packet.get(header_bytes..)?.split_first_chunk::<UDP_BYTES>()?;
    let (fixed, options) = question.split_first_chunk::<BOOTP_BYTES>()?;
    let is_question = packet.get(9) == Some(&UDP) && udp[2..4] == DHCP_SERVER && fixed[0] == 1;
    let kind = match option(options.strip_prefix(&DHCP_MAGIC)?, DHCP_KIND)? {
        [DHCP_DISCOVER] if is_question => DHCP_OFFER,
        [DHCP_REQUEST] if is_question => DHCP_ACKNOWLEDGE,
        _ => return None,
    };
    let (guest, own) = (ADDRESSES.guest.octets(), ADDRESSES.gateway.octets());
    let mut answer = vec![0; BOOTP_BYTES];
    answer[..3].copy_from_slice(&[2, 1, 6]);
    // Which question it was, whether all are to hear the answer, and whose it is.
    for range in [4..8, 10..12, 28..44] {
        answer[range.clone()].copy_from_slice(&fixed[range]);
    }
    answer[16..20].copy_from_slice(&guest);
    answer.extend_from_slice(&DHCP_MAGIC);
    answer.extend_from_slice(&[DHCP_KIND, 1, kind]);
    for (code, value) in [
        (54, own),
        (51, [0xff; 4]),
        (1, ADDRESSES.mask().octets()),
        (3, own),
    ] {
        answer.extend_from_slice(&[code, 4]);
        answer.extend_from_slice(&value);
    }
    answer.push(255);
    let bytes = |length: usize| (length as u16).to_be_bytes();
    // A checksum of 0 is none.
    let udp = [DHCP_SERVER, DHCP_CLIENT, bytes(UDP_BYTES + answer.len()), [0, 0]].concat();
    let mut header = vec![0x45, 0];
    header.extend_from_slice(&bytes(IP_BYTES + UDP_BYTES + answer.len()));
    header.extend_from_slice(&[0, 0, 0, 0, 64, UDP, 0, 0]);
    header.extend_from_slice(&own);
    header.extend_from_slice(&[255; 4]);
    let words = header
        .chunks_exact(2)
        .map(|word| u32::from(word[0]) << 8 | u32::from(word[1]));
    let sum: u32 = words.sum();
    let sum = !(((sum >> 16) + (sum & 0xffff)) as u16);
    header[10..12].copy_from_slice(&sum.to_be_bytes());
    Some(frame(&[header, udp, answer].concat()))
}

/// The value of an option.
fn option(mut options: &[u8], wanted: u8) -> Option<&[u8]> {
    loop {
        match options {
            [0, rest @ ..] => options = rest,
            [255, ..] | [] | [_] => return None,
            [code, length, rest @ ..] => {
                let (value, rest) = rest.split_at_checked(usize::from(*length))?;
                if *code == wanted {
                    return Some(value);
                }
                options = rest;
            }
        }
    }
}

/// The frame of a packet for the guest.
pub(crate) fn frame(packet: &[u8]) -> Vec<u8> {
    let mut frame = header(IPV4);
    frame.extend_from_slice(packet);
    frame
}

fn header(kind: [u8; 2]) -> Vec<u8> {
    [&GUEST_CARD[..], &OUR_CARD, &kind].concat()
}

/// Puts a frame behind its length.
pub(crate) fn push(frame: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(&(frame.len() as u32).to_be_bytes());
    out.extend_from_slice(frame);
}

#[cfg(test)]
mod tests {
    use super::*;

    use proptest::prelude::*;

    proptest! {
        #[test]
        fn frames_arrive_in_whatever_pieces_they_come(
            frames in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..2000), 0..20),
            piece in 1..3000_usize,
        ) {
            let mut bytes = Vec::new();
            frames.iter().for_each(|frame| push(frame, &mut bytes));
            let mut decoder = Decoder::default();
            let mut found = Vec::new();
            for piece in bytes.chunks(piece) {
                decoder.push(piece);
                while let Some(frame) = decoder.next().unwrap() {
                    found.push(frame.to_vec());
                }
            }
            prop_assert_eq!(found, frames);
        }

        #[test]
        fn any_frame_is_taken(frame in prop::collection::vec(any::<u8>(), 0..100)) {
            if let Taken::Answer(answer) = take(&frame) {
                prop_assert_eq!(answer.len(), HEADER_BYTES + ARP_BYTES);
            }
        }

        #[test]
        fn any_question_by_dhcp_is_taken(
            kind in 0..10_u8,
            changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..8),
            cut in any::<prop::sample::Index>(),
            is_cut in any::<bool>(),
        ) {
            let mut frame = frame(&dhcp_question(kind));
            for (place, byte) in changes {
                let place = place.index(frame.len());
                frame[place] = byte;
            }
            if is_cut {
                frame.truncate(cut.index(frame.len()));
            }
            if let Taken::Answer(answer) = take(&frame) {
                prop_assert!(answer.len() < 400);
            }
        }
    }

    fn dhcp_question(kind: u8) -> Vec<u8> {
        let mut packet = vec![0; IP_BYTES + UDP_BYTES + BOOTP_BYTES];
        packet[0] = 0x45;
        packet[9] = UDP;
        packet[IP_BYTES + 2..IP_BYTES + 4].copy_from_slice(&DHCP_SERVER);
        let fixed = IP_BYTES + UDP_BYTES;
        packet[fixed] = 1;
        packet[fixed + 4..fixed + 8].copy_from_slice(b"what");
        packet[fixed + 28..fixed + 34].copy_from_slice(&GUEST_CARD);
        packet.extend_from_slice(&DHCP_MAGIC);
        packet.extend_from_slice(&[0, 12, 2, b'a', b'b', DHCP_KIND, 1, kind, 255]);
        packet
    }

    #[test]
    fn what_is_too_long_is_refused_before_it_is_there() {
        let mut decoder = Decoder::default();
        decoder.push(&(FRAME_BYTES_MAX as u32 + 1).to_be_bytes());
        assert_eq!(decoder.next(), Err(NoFrame));
    }

    #[test]
    fn who_asks_by_dhcp_is_told_its_address() {
        for (kind, told) in [(DHCP_DISCOVER, DHCP_OFFER), (DHCP_REQUEST, DHCP_ACKNOWLEDGE)] {
            let Taken::Answer(answer) = take(&frame(&dhcp_question(kind))) else {
                panic!("it is answered");
            };
            let message = &answer[HEADER_BYTES + IP_BYTES + UDP_BYTES..];
            assert_eq!(message[4..8], *b"what");
            assert_eq!(message[16..20], ADDRESSES.guest.octets());
            let options = &message[BOOTP_BYTES + 4..];
            assert_eq!(option(options, DHCP_KIND), Some(&[told][..]));
            assert_eq!(option(options, 3), Some(&ADDRESSES.gateway.octets()[..]));
        }
        // A lease that is given back, and what is cut off.
        assert!(matches!(take(&frame(&dhcp_question(7))), Taken::Packet(_)));
        assert!(matches!(take(&frame(&dhcp_question(1)[..270])), Taken::Packet(_)));
    }

    #[test]
    fn packets_are_taken_out_and_questions_are_answered() {
        let packet = b"a packet".to_vec();
        assert_eq!(take(&frame(&packet)), Taken::Packet(packet));
        let (guest, gateway) = ([10, 0, 0, 2], [10, 0, 0, 1]);
        let question = |asker: [u8; 4], wanted: [u8; 4]| {
            let mut frame = header(ARP);
            frame.extend_from_slice(&ARP_QUESTION);
            frame.extend_from_slice(&GUEST_CARD);
            frame.extend_from_slice(&asker);
            frame.extend_from_slice(&[0; 6]);
            frame.extend_from_slice(&wanted);
            frame
        };
        let Taken::Answer(answer) = take(&question(guest, gateway)) else {
            panic!("it is answered");
        };
        assert_eq!(answer[20..22], [0, 2], "an answer");
        assert_eq!(answer[22..28], OUR_CARD);
        assert_eq!(answer[28..32], gateway);
        assert_eq!(answer[32..42], [&GUEST_CARD[..], &guest].concat());
        // Nobody else has the guest's own address.
        for asker in [guest, [0; 4]] {
            assert_eq!(take(&question(asker, guest)), Taken::Nothing);
        }
        let mut other = question(guest, gateway);
        other[21] = 2;
        assert_eq!(take(&other), Taken::Nothing);
        assert_eq!(take(&other[..30]), Taken::Nothing);
    }
}
