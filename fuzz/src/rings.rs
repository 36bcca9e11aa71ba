//! The shared pages and rings, as the monitor finds them.

use arbitrary::{Result, Unstructured};
use spore_monitor::fuzzing::{Act, rings};

/// Acts of one run.
const ACTS_MAX: usize = 64;

pub(crate) fn run(script: &[u8]) {
    let _ = rings(&acts(script));
}

fn acts(script: &[u8]) -> Vec<Act> {
    let mut script = Unstructured::new(script);
    let mut acts = Vec::new();
    while acts.len() < ACTS_MAX && !script.is_empty() {
        match act(&mut script) {
            Ok(act) => acts.push(act),
            Err(_) => break,
        }
    }
    acts
}

/// Mostly the numbers that a guest of ours has, and the others too.
fn distance(script: &mut Unstructured<'_>) -> Result<u32> {
    Ok(match script.int_in_range(0..=7)? {
        0 => 0,
        1 => 0x1_0000,
        2 => 0x1_0001,
        3 => script.arbitrary()?,
        4 => 0xffff_ffff,
        _ => script.arbitrary::<u16>()?.into(),
    })
}

fn some_bytes(script: &mut Unstructured<'_>, most: u8) -> Result<Vec<u8>> {
    let length = script.arbitrary::<u8>()? % most;
    Ok(script.bytes(usize::from(length).min(script.len()))?.to_vec())
}

fn act(script: &mut Unstructured<'_>) -> Result<Act> {
    Ok(match script.int_in_range(0..=14)? {
        0 => Act::Page {
            offset: script.arbitrary()?,
            bytes: some_bytes(script, 32)?,
        },
        1 | 2 => Act::Slot {
            slot: script.int_in_range(0..=3)?,
            is_current: script.ratio(7, 8)?,
            flags: script.int_in_range(0..=4)?,
            received: distance(script)?,
            sent: distance(script)?,
        },
        3 => Act::Log {
            bytes: some_bytes(script, 64)?,
            excess: script.arbitrary::<i16>()?.into(),
        },
        4 => Act::Lines {
            origin: script.int_in_range(0..=4)?,
            length: script.int_in_range(0..=4200)?,
            count: script.int_in_range(0..=20)?,
        },
        5 => Act::Egress {
            place: script.int_in_range(0..=40)?,
            kind: script.int_in_range(0..=3)?,
        },
        6 => Act::Answer {
            place: script.int_in_range(0..=40)?,
            is_made: script.arbitrary()?,
        },
        7 => Act::Open,
        8 => Act::Send {
            peer: script.arbitrary()?,
            count: script.arbitrary()?,
        },
        9 => Act::Receive {
            peer: script.arbitrary()?,
        },
        10 => Act::Close {
            peer: script.arbitrary()?,
        },
        11 => Act::ReadLog,
        _ => Act::Serve,
    })
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    (0..24_u8)
        .map(|seed| {
            let byte = |index: u32| (index.wrapping_mul(2_654_435_761) >> 11) as u8 ^ seed.wrapping_mul(59);
            (0..160).map(byte).collect()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_seeds_do_something() {
        let scripts: Vec<_> = seeds().iter().map(|seed| acts(seed)).collect();
        assert!(scripts.iter().map(Vec::len).sum::<usize>() > 200);
        assert!(
            scripts.iter().any(|acts| !rings(acts)),
            "some guests damage themselves"
        );
    }

    #[test]
    fn a_guest_that_keeps_to_the_rules_stays_sound() {
        let stream = |sent, received| Act::Slot {
            slot: 0,
            is_current: true,
            flags: 0,
            received,
            sent,
        };
        let log = Act::Lines {
            origin: 1,
            length: 100,
            count: 3,
        };
        let send = Act::Send { peer: 0, count: 40 };
        let acts = [
            Act::Open,
            Act::Serve,
            stream(100, 0),
            log,
            Act::Serve,
            send,
            Act::Serve,
            stream(0, 40),
        ];
        assert!(rings(&acts));
        assert!(!rings(&[Act::Open, Act::Serve, stream(0, 41)]));
        assert!(!rings(&[Act::Open, Act::Serve, stream(0x1_0001, 0)]));
    }
}
