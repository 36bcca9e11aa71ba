//! What the fuzz targets call: what instances ask of the outside, and what monitors say.

use std::net::{IpAddr, SocketAddr};

use spore_monitor::protocol::{Copyable, Event, LogOrigin, Request};
use spore_sandbox::{EgressRule, MAX_LOG_LINE_BYTES};

use crate::egress::datagrams::take_datagram;
use crate::egress::dns::{self, Answer, Wanted};
use crate::egress::policy::{self, Policy};
use crate::snapshot_files::{reseal, samples};
use crate::words;
use spore_sandbox::Lines;

/// Longest answer of the name server: what everybody takes, and some more for a long name.
const REPLY_BYTES_MAX: usize = 1232 + 512;

/// A packet to the name server. Returns whether it is a question.
///
/// # Panics
///
/// If it is answered with something that is no answer.
#[must_use]
pub fn name_query(packet: &[u8]) -> bool {
    let Some(query) = dns::parse(packet) else {
        return false;
    };
    assert!(!query.name.chars().any(|c| c.is_ascii_uppercase()));
    let addresses: Vec<IpAddr> = (0..40_u8).map(|last| IpAddr::from([192, 0, 2, last])).collect();
    for answer in [Answer::Addresses(&addresses), Answer::NoSuchName, Answer::Failed] {
        let reply = dns::reply(packet, query.wanted, answer).expect("a question has an answer");
        assert!(reply.len() <= REPLY_BYTES_MAX, "{} bytes", reply.len());
        assert_eq!(reply[..2], packet[..2], "the answer has the question's number");
        assert_eq!(dns::parse(&reply), None, "an answer is no question");
    }
    query.wanted != Wanted::Other
}

/// Rules of a function and an address that one of its instances asks for. Returns whether it may connect.
///
/// # Panics
///
/// If an address of this host's own, or of nobody, is reached by rules that do not name it.
#[must_use]
pub fn egress_request(rules: &str, names: &[(String, [u8; 16])], address: [u8; 16], port: u16) -> bool {
    let Ok(rules) = EgressRule::parse_list(rules) else {
        return false;
    };
    let is_network = |rule: &EgressRule| match rule {
        EgressRule::Network { network, .. } => {
            network.prefix_len() < network.max_prefix_len() && !is_guarded(network.network())
        }
        EgressRule::Host { .. } => true,
    };
    let names_nothing_guarded = rules.iter().all(is_network);
    let mut policy = Policy::new(rules);
    for (name, address) in names {
        policy.learn(name, &[policy::address(*address)]);
    }
    let target = policy::address(address);
    let is_allowed = policy.allows(target, port, false);
    if is_allowed {
        assert!(port != 0 && !target.is_unspecified() && !target.is_multicast());
        assert!(
            !(names_nothing_guarded && is_guarded(target)),
            "{target} is not named"
        );
        assert!(
            target.to_canonical() == target,
            "addresses are judged in one form"
        );
    }
    let is_own_allowed = policy.allows(target, port, true);
    assert!(
        is_allowed || !is_own_allowed,
        "the host's own addresses are never easier to reach"
    );
    is_allowed
}

/// Addresses of this host or its link.
fn is_guarded(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(v4) => v4.is_loopback() || v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_loopback() || v6.is_unicast_link_local(),
    }
}

/// What comes in on a way for datagrams, in parts. Returns how many datagrams there are.
///
/// # Panics
///
/// If more is kept than one datagram can be.
#[must_use]
pub fn datagrams(parts: &[&[u8]]) -> usize {
    let (mut incoming, mut count, mut total) = (Vec::new(), 0, 0);
    for part in parts {
        incoming.extend_from_slice(part);
        total += part.len();
        loop {
            match take_datagram(&mut incoming) {
                Ok(Some((SocketAddr::V6(target), _))) => {
                    assert!(
                        target.ip().to_ipv4_mapped().is_none(),
                        "addresses are judged in one form"
                    );
                    count += 1;
                }
                Ok(Some(_)) => count += 1,
                Ok(None) => break,
                Err(_) => return count,
            }
        }
        assert!(
            incoming.len() < 24 + 65_507 + 1,
            "what waits is one datagram's beginning"
        );
    }
    assert!(count * 24 <= total);
    count
}

/// A packet on the control socket, in either direction. Returns whether it is a message.
///
/// # Panics
///
/// If a message is not the same when it is passed on.
#[must_use]
pub fn control_packet(packet: &[u8]) -> bool {
    let event = postcard::from_bytes::<Event>(packet).ok();
    if let Some(event) = &event {
        let again = postcard::to_stdvec(event).expect("a message can be written");
        assert_eq!(postcard::from_bytes(&again).as_ref(), Ok(event));
    }
    let request = postcard::from_bytes::<Request>(packet).ok();
    if let Some(request) = &request {
        let again = postcard::to_stdvec(request).expect("a message can be written");
        assert_eq!(postcard::from_bytes(&again).as_ref(), Ok(request));
    }
    if let Some(Event::Ended(end)) = words::event(packet) {
        let shown = format!("{:?}{}", end.cause, end.details.concat());
        assert!(
            shown.len() < 512 << 10 && !shown.contains('\n'),
            "a report is lines"
        );
    }
    if let Ok(own) = postcard::from_bytes::<Copyable>(packet) {
        let again = postcard::to_stdvec(&own).expect("a message can be written");
        assert_eq!(postcard::from_bytes(&again), Ok(own));
    }
    event.is_some() || request.is_some()
}

/// A file of a snapshot. Returns whether it is taken. With `reseals` its digests are right, whatever else is in it.
///
/// # Panics
///
/// If it is taken, and the file of what was in it is another one.
#[must_use]
pub fn snapshot_file(file: &[u8], reseals: bool) -> bool {
    let mut file = file.to_vec();
    if reseals {
        reseal(&mut file);
    }
    samples::take(&file).is_ok()
}

/// Files of snapshots to begin with.
#[must_use]
pub fn snapshot_files() -> Vec<Vec<u8>> {
    samples::files()
}

/// Packets on the log socket. Returns how many lines they are.
///
/// # Panics
///
/// If a line is too long or holds a line feed, or text is made up or lost.
#[must_use]
pub fn log_packets(packets: &[&[u8]]) -> usize {
    let mut lines = [Lines::default(), Lines::default(), Lines::default()];
    let (mut count, mut taken, mut given) = (0, 0, 0);
    let mut take = |text: String| {
        assert!(text.len() <= MAX_LOG_LINE_BYTES && !text.contains('\n'));
        count += 1;
        given += text.len();
    };
    for packet in packets {
        let Some((origin, text)) = packet.split_first() else {
            continue;
        };
        let Some(origin) = LogOrigin::from_number(*origin) else {
            continue;
        };
        taken += text.len();
        lines[origin as usize - 1].push(text, &mut take);
    }
    for lines in &mut lines {
        lines.flush(&mut take);
    }
    assert!(given <= 3 * taken, "{given} bytes of lines were made of {taken}");
    count
}
