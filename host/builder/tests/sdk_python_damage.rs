//! Damaged requests against the HTTP reader of the SDK for Python: whatever arrives, it refuses or serves it, and goes on.
//!
//! The damage is random but repeatable; a failure names the seed and the round.

mod common;

use std::ffi::OsStr;
use std::io::{Read, Write};
use std::path::Path;
use std::time::Duration;

use common::{Server, body_of, damage, status_of};

const ROUNDS: u32 = 1500;

const HANDLER: &str = "
def handle(event, context):
    return f'{event.method} {event.path!r} {len(event.body)} {len(event.query)} {event.headers.get(\"X-Test\")!r}'
";

const GOOD_REQUESTS: [&str; 4] = [
    "POST /echo?key=a%20b HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello",
    "POST /x?key=a&b=c HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5;a=b\r\nhello\r\n0\r\nT: x\r\n\r\n",
    "GET /calls HTTP/1.1\r\nX-Test:  v \r\nExpect: 100-continue\r\n\r\nHEAD /x HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
    "GET http://a/b?key HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n",
];

const FRAGMENTS: [&[u8]; 15] = [
    b"\r\n",
    b"\r",
    b"\n",
    b"\0",
    b":",
    b" ",
    b"?",
    b"%",
    b"&key=%ff",
    b"Content-Length: 99999\r\n",
    b"0\r\n\r\n",
    b"ffffff\r\n",
    b"\xff",
    // A digit to Python's own tests, but none of HTTP's.
    b"\xb2",
    b"://[",
];

fn damaged_request(random: &mut fastrand::Rng) -> Vec<u8> {
    let mut request = Vec::new();
    for _ in 0..random.usize(1..=3) {
        request.extend_from_slice(GOOD_REQUESTS[random.usize(..GOOD_REQUESTS.len())].as_bytes());
    }
    damage(&mut request, random, &FRAGMENTS);
    request
}

#[test]
fn damaged_requests_do_no_harm() {
    let path = std::env::var_os("PATH").unwrap();
    let found = std::env::split_paths(&path)
        .map(|folder| folder.join("python3"))
        .find(|program| program.is_file());
    let Some(python) = found else {
        eprintln!("skipped: there is no python3");
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("handler.py"), HANDLER).unwrap();
    let server = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../sdk/python/server.py");
    let words: [&OsStr; 3] = [python.as_os_str(), server.as_os_str(), folder.path().as_os_str()];
    let environment = [("PATH", path.to_str().unwrap()), ("PYTHONDONTWRITEBYTECODE", "1")];
    let mut server = Server::start_command(&words, &environment);
    let seed = fastrand::u64(..);
    let mut random = fastrand::Rng::with_seed(seed);
    for round in 0..ROUNDS {
        let request = damaged_request(&mut random);
        let piece_bytes = [3, 100, 5_000][random.usize(..3)];
        let mut stream = server.connect_raw();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        for piece in request.chunks(piece_bytes) {
            // It may close in the middle of a bad request.
            if stream.write_all(piece).is_err() {
                break;
            }
        }
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        let answer = String::from_utf8_lossy(&answer);
        let shown = request.escape_ascii();
        assert!(
            server.is_running(),
            "seed {seed}, round {round}: it ended by {shown}"
        );
        // The handler never fails: a 500 would be the reader's own failure.
        let is_expected = answer.is_empty() || [100, 200, 400, 431].contains(&status_of(&answer));
        assert!(is_expected, "seed {seed}, round {round}: {answer} to {shown}");
    }
    let good = b"POST /a HTTP/1.1\r\nHost: h\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok";
    assert_eq!(
        body_of(&server.exchange(good)),
        "POST '/a' 2 0 None",
        "seed {seed}"
    );
}
