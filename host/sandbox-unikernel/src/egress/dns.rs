//! The name server that instances see: questions in, answers out. Pure but for the names' addresses, which the caller
//! looks up.

use std::net::IpAddr;

use simple_dns::rdata::{A, AAAA, RData};
use simple_dns::{CLASS, OPCODE, Packet, PacketFlag, QCLASS, QTYPE, RCODE, ResourceRecord, TYPE};

/// How long an answer holds, in seconds.
const TTL_S: u32 = 30;
/// Addresses in an answer, at most: so many fit into the 512 bytes that everybody takes.
const ADDRESSES_MAX: usize = 12;
/// Longest question that is read, in bytes.
const QUERY_BYTES_MAX: usize = 1232;

/// Which addresses are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wanted {
    V4,
    V6,
    /// Something else, of which there is nothing.
    Other,
}

/// A question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Query {
    /// The name in lower case, without a dot at its end.
    pub(crate) name: String,
    pub(crate) wanted: Wanted,
}

/// What is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer<'a> {
    Addresses(&'a [IpAddr]),
    NoSuchName,
    Failed,
}

/// The question in a packet, if it is one.
pub(crate) fn parse(packet: &[u8]) -> Option<Query> {
    if packet.len() > QUERY_BYTES_MAX {
        return None;
    }
    let packet = Packet::parse(packet).ok()?;
    let [question] = packet.questions.as_slice() else {
        return None;
    };
    let is_question = !packet.has_flags(PacketFlag::RESPONSE) && packet.opcode() == OPCODE::StandardQuery;
    if !is_question || question.qclass != QCLASS::CLASS(CLASS::IN) {
        return None;
    }
    let wanted = match question.qtype {
        QTYPE::TYPE(TYPE::A) => Wanted::V4,
        QTYPE::TYPE(TYPE::AAAA) => Wanted::V6,
        _ => Wanted::Other,
    };
    let name = question.qname.to_string().to_ascii_lowercase();
    Some(Query { name, wanted })
}

/// The packet that answers a packet in which [`parse`] has found a question.
pub(crate) fn reply(query: &[u8], wanted: Wanted, answer: Answer<'_>) -> Option<Vec<u8>> {
    let query = Packet::parse(query).ok()?;
    let question = query.questions.first()?;
    let mut reply = Packet::new_reply(query.id());
    reply.set_flags(PacketFlag::RECURSION_AVAILABLE);
    if query.has_flags(PacketFlag::RECURSION_DESIRED) {
        reply.set_flags(PacketFlag::RECURSION_DESIRED);
    }
    reply.questions.push(question.clone());
    let addresses = match answer {
        Answer::Addresses(addresses) => addresses,
        Answer::NoSuchName => {
            *reply.rcode_mut() = RCODE::NameError;
            &[]
        }
        Answer::Failed => {
            *reply.rcode_mut() = RCODE::ServerFailure;
            &[]
        }
    };
    let records = addresses.iter().filter_map(|address| match (address, wanted) {
        (IpAddr::V4(v4), Wanted::V4) => Some(RData::A(A::from(*v4))),
        (IpAddr::V6(v6), Wanted::V6) => Some(RData::AAAA(AAAA::from(*v6))),
        _ => None,
    });
    for data in records.take(ADDRESSES_MAX) {
        let name = question.qname.clone();
        reply
            .answers
            .push(ResourceRecord::new(name, CLASS::IN, TTL_S, data));
    }
    reply.build_bytes_vec_compressed().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    use simple_dns::{Name, Question};

    fn query(name: &str, kind: TYPE) -> Vec<u8> {
        let mut packet = Packet::new_query(0x1234);
        packet.set_flags(PacketFlag::RECURSION_DESIRED);
        let name = Name::new(name).unwrap();
        packet
            .questions
            .push(Question::new(name, kind.into(), CLASS::IN.into(), false));
        packet.build_bytes_vec().unwrap()
    }

    #[test]
    fn a_question_is_answered_with_addresses_of_its_kind() {
        let question = query("DB.Example.com", TYPE::A);
        let parsed = parse(&question).unwrap();
        assert_eq!(
            (parsed.name.as_str(), parsed.wanted),
            ("db.example.com", Wanted::V4)
        );
        let addresses = ["192.0.2.1".parse().unwrap(), "2001:db8::1".parse().unwrap()];
        let answer = reply(&question, Wanted::V4, Answer::Addresses(&addresses)).unwrap();
        let packet = Packet::parse(&answer).unwrap();
        assert_eq!(
            (packet.id(), packet.rcode(), packet.answers.len()),
            (0x1234, RCODE::NoError, 1)
        );
        assert!(packet.has_flags(PacketFlag::RESPONSE | PacketFlag::RECURSION_DESIRED));
        let other = reply(&question, Wanted::Other, Answer::Addresses(&addresses)).unwrap();
        assert!(Packet::parse(&other).unwrap().answers.is_empty());
        let none = reply(&question, Wanted::V4, Answer::NoSuchName).unwrap();
        assert_eq!(Packet::parse(&none).unwrap().rcode(), RCODE::NameError);
    }

    #[test]
    fn long_answers_fit_into_512_bytes() {
        let question = query(&format!("{0}.{0}.{0}.example.com", "x".repeat(60)), TYPE::AAAA);
        let addresses = vec!["2001:db8::1".parse().unwrap(); 100];
        let answer = reply(&question, Wanted::V6, Answer::Addresses(&addresses)).unwrap();
        assert!(answer.len() <= 560, "{}", answer.len());
    }

    #[test]
    fn damaged_questions_are_passed_over() {
        let whole = query("example.com", TYPE::A);
        for length in 0..whole.len() {
            assert_eq!(parse(&whole[..length]), None);
        }
        for index in 0..whole.len() {
            for value in [0, 1, 0x3f, 0x40, 0xc0, 0xff] {
                let mut damaged = whole.clone();
                damaged[index] = value;
                if let Some(query) = parse(&damaged) {
                    let _ = reply(&damaged, query.wanted, Answer::Failed);
                }
            }
        }
        assert_eq!(parse(&[0xff; 4096]), None);
        // An answer is no question.
        let answer = reply(&whole, Wanted::V4, Answer::Failed).unwrap();
        assert_eq!(parse(&answer), None);
    }
}
