//! Damaged requests against the C SDK under the compiler's sanitizers: whatever arrives, it must neither touch memory
//! that is not its own nor stop serving.
//!
//! The damage is random but repeatable; a failure names the seed and the round.

mod common;

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use common::{Server, body_of, damage};

const ROUNDS: u32 = 1500;

const GOOD_REQUESTS: [&str; 4] = [
    "POST /echo?key=a%20b HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello",
    "POST /x?key=a&b=c HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5;a=b\r\nhello\r\n3\r\nabc\r\n0\r\nT: x\r\n\r\n",
    "GET /calls HTTP/1.1\r\nHost: h\r\nX-Test:  v \r\nExpect: 100-continue\r\n\r\nHEAD /x HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
    "GET http://a/b?key HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n",
];

const FRAGMENTS: [&[u8]; 13] = [
    b"\r\n",
    b"\r",
    b"\n",
    b"\0",
    b":",
    b" ",
    b"?",
    b"%",
    b"&key=%",
    b"Content-Length: 99999\r\n",
    b"0\r\n\r\n",
    b"ffffff\r\n",
    b"\xff",
];

fn program_with_sanitizers(folder: &Path) -> PathBuf {
    let crate_folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    let sdk = crate_folder.join("../../sdk/c");
    let program = folder.join("function");
    let status = Command::new("gcc")
        .args([
            "-g",
            "-O1",
            "-fsanitize=address,undefined",
            "-fno-sanitize-recover=all",
            "-I",
        ])
        .arg(&sdk)
        .arg("-o")
        .arg(&program)
        .arg(crate_folder.join("tests/functions/probe/handler.c"))
        .args(["clones.c", "request.c", "server.c", "text.c"].map(|name| sdk.join(name)))
        .status()
        .unwrap();
    assert!(status.success());
    program
}

fn damaged_request(random: &mut fastrand::Rng) -> Vec<u8> {
    let mut request = Vec::new();
    for _ in 0..random.usize(1..=3) {
        request.extend_from_slice(GOOD_REQUESTS[random.usize(..GOOD_REQUESTS.len())].as_bytes());
    }
    if random.u8(..) == 0 {
        request.extend(std::iter::repeat_n(b'x', 100_000));
    }
    damage(&mut request, random, &FRAGMENTS);
    request
}

#[test]
fn damaged_requests_do_no_harm() {
    let folder = tempfile::tempdir().unwrap();
    let program = program_with_sanitizers(folder.path());
    let mut server = Server::start_program(&program, &[("SPORE_BODY_BYTES_MAX", "100000")]);
    let seed = fastrand::u64(..);
    let mut random = fastrand::Rng::with_seed(seed);
    for round in 0..ROUNDS {
        let request = damaged_request(&mut random);
        let piece_bytes = if request.len() > 5_000 {
            request.len()
        } else {
            [3, 100, 5_000][random.usize(..3)]
        };
        let mut stream = server.connect_raw();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        // The server may close in the middle of a bad request; only its own end would be an error.
        for piece in request.chunks(piece_bytes) {
            if stream.write_all(piece).is_err() {
                break;
            }
        }
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let _ = stream.read_to_end(&mut Vec::new());
        assert!(
            server.is_running(),
            "the function ended: seed {seed}, round {round}"
        );
    }
    let answer = server
        .exchange(b"POST /echo HTTP/1.1\r\nHost: h\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok");
    assert_eq!(body_of(&answer), "ok", "seed {seed}");
}
