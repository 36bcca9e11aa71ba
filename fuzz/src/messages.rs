//! What processes of the platform tell each other, and what the store has written: control and log sockets, records, and
//! a guest's last words.

use spore_sandbox_unikernel::fuzzing::{control_packet, log_packets};

/// Length of an exit record.
const EXIT_RECORD_BYTES: usize = 256;

pub(crate) fn run(bytes: &[u8]) {
    match bytes.split_first() {
        Some((0, packet)) => drop(control_packet(packet)),
        Some((1, packets)) => {
            let packets: Vec<&[u8]> = packets.split(|&byte| byte == 0xff).collect();
            let _ = log_packets(&packets);
        }
        Some((2, record)) => drop(spore_store::fuzzing::record(record)),
        Some((_, memory)) => {
            let (record, upcall) = memory.split_at(memory.len().min(EXIT_RECORD_BYTES));
            let _ = spore_monitor::fuzzing::exit(record, upcall, memory);
        }
        None => {}
    }
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let record = r#"{"deployment":{"service":"hello","image":"hello:latest","namespace":"openfaas-fn",
        "envProcess":"","envVars":{"A":"1"},"limits":{"memory":"64Mi","cpu":"1"}},
        "created_at":"2026-01-01T00:00:00Z","image_digest":"sha256:DIGEST"}"#;
    let record = record.replace("DIGEST", &"0123456789abcdef".repeat(4));
    let exit = |kind: u8, code: u8, message: &[u8]| {
        let mut bytes = vec![0; 1 + EXIT_RECORD_BYTES + 168];
        (bytes[0], bytes[1], bytes[5], bytes[9]) = (3, kind, code, message.len() as u8);
        bytes[17..17 + message.len()].copy_from_slice(message);
        bytes[1 + EXIT_RECORD_BYTES + 4] = 14;
        bytes
    };
    vec![
        // Ready; a connection; an end with its cause; that of a command.
        vec![0, 0],
        [&[0, 5, 3, 0][..], &[7; 16], &[80]].concat(),
        [&[0, 10, 5, 4][..], b"late", &[1, 4], b"line"].concat(),
        vec![0, 6, 1, 3, 0],
        // A request to open, an answer, a request to stop.
        vec![0, 3],
        vec![0, 4, 5, 111],
        vec![0, 6, 1],
        [
            &[1, 1][..],
            b"a line\nand more",
            &[0xff, 2],
            b"\r\n\n",
            &[0xff, 1],
            b" of it",
        ]
        .concat(),
        [&[2], record.as_bytes()].concat(),
        exit(1, 3, b""),
        exit(2, 6, b""),
        exit(3, 11, b""),
        exit(4, 0, b"it is no program"),
        exit(5, 0, b"index out of bounds\x1b[31m\xff"),
        exit(6, 0, b""),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_seeds_are_understood() {
        let seeds = seeds();
        let messages = seeds[..7]
            .iter()
            .filter(|seed| control_packet(&seed[1..]))
            .count();
        assert_eq!(messages, 7);
        assert!(spore_store::fuzzing::record(&seeds[8][1..]));
        assert!(spore_monitor::fuzzing::exit(
            &seeds[11][1..],
            &seeds[11][1 + EXIT_RECORD_BYTES..],
            &[]
        ));
    }
}
