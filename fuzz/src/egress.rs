//! What instances ask of the outside: connections, datagrams, names.

use arbitrary::{Result, Unstructured};
use spore_sandbox_unikernel::fuzzing::{datagrams, egress_request, name_query};

const RULES: [&str; 12] = [
    "0.0.0.0/0",
    "::/0",
    "10.0.0.0/8:443",
    "127.0.0.1:80",
    "127.0.0.0/8",
    "169.254.169.254",
    "192.0.2.7",
    "[fd00::/8]:53",
    "example.com",
    "db.example.com:5432",
    "fe80::/10",
    "*",
];
const ADDRESSES: [[u8; 16]; 8] = [
    [0; 16],
    [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1],
    [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 127, 0, 0, 1],
    [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 169, 254, 169, 254],
    [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 192, 0, 2, 7],
    [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 255, 255, 255, 255],
    [0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1],
    [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 127, 0, 0, 1],
];

pub(crate) fn run(bytes: &[u8]) {
    match bytes.split_first() {
        Some((0, packet)) => drop(name_query(packet)),
        Some((1, stream)) => {
            let (first, second) = stream.split_at(stream.len() / 3);
            let _ = datagrams(&[first, second]);
        }
        Some((_, script)) => drop(request(&mut Unstructured::new(script))),
        None => {}
    }
}

fn address(script: &mut Unstructured<'_>) -> Result<[u8; 16]> {
    let mut address = *script.choose(&ADDRESSES)?;
    for _ in 0..script.int_in_range(0..=3)? {
        let index = script.choose_index(address.len())?;
        address[index] = script.arbitrary()?;
    }
    Ok(address)
}

fn request(script: &mut Unstructured<'_>) -> Result<bool> {
    let mut rules = Vec::new();
    for _ in 0..script.int_in_range(0..=4)? {
        rules.push((*script.choose(&RULES)?).to_owned());
    }
    if script.ratio(1, 4)? {
        rules.push(script.arbitrary()?);
    }
    let mut names = Vec::new();
    for _ in 0..script.int_in_range(0..=3)? {
        let name = *script.choose(&["example.com", "db.example.com", ""])?;
        names.push((name.to_owned(), address(script)?));
    }
    let (address, port) = (address(script)?, script.arbitrary()?);
    Ok(egress_request(&rules.join(","), &names, address, port))
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let question = |name: &[&str], kind: u16| {
        let mut packet = vec![0, 0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        for label in name {
            packet.push(label.len() as u8);
            packet.extend_from_slice(label.as_bytes());
        }
        packet.push(0);
        packet.extend_from_slice(&kind.to_be_bytes());
        packet.extend_from_slice(&[0, 1]);
        packet
    };
    let datagram = |length: u16, data: &[u8]| {
        let mut bytes = [0; 24];
        bytes[..2].copy_from_slice(&length.to_le_bytes());
        bytes[4..6].copy_from_slice(&53_u16.to_le_bytes());
        bytes[8..].copy_from_slice(&ADDRESSES[4]);
        [&bytes, data].concat()
    };
    let scripts = (0..16_u8).map(|seed| {
        let byte = |index: u32| (index.wrapping_mul(2_654_435_761) >> 12) as u8 ^ seed.wrapping_mul(71);
        std::iter::once(2).chain((0..80).map(byte)).collect()
    });
    [
        question(&["example", "com"], 1),
        question(&["DB", "Example", "com"], 28),
        question(&["example", "com"], 15),
        [
            vec![1],
            datagram(4, b"data"),
            datagram(0, b""),
            datagram(9, b"some"),
        ]
        .concat(),
        [vec![1], datagram(65_507, b"")].concat(),
    ]
    .into_iter()
    .chain(scripts)
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_seeds_are_understood() {
        let seeds = seeds();
        assert!(name_query(&seeds[0][1..]) && name_query(&seeds[1][1..]));
        assert_eq!(datagrams(&[&seeds[3][1..]]), 2);
        let allowed = seeds[5..]
            .iter()
            .filter(|seed| request(&mut Unstructured::new(&seed[1..])) == Ok(true));
        assert!(allowed.count() > 0);
    }
}
