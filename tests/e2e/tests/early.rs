//! Answers that come before the request has: a client finds them however late it looks.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use http::StatusCode;
use spore_test_harness::daemon::Daemon;
use spore_test_harness::program;

use crate::{Test, with_functions};

pub(crate) const TESTS: &[Test] = with_functions![
    a_body_that_is_too_long_is_told_so_after_all_of_it,
    a_function_that_dies_during_the_body_is_told_of_after_all_of_it,
    a_function_that_answers_during_the_body_is_heard,
    a_head_that_is_too_long_is_told_so_after_all_of_it,
    a_client_that_never_ends_is_cut_off,
];

const PATIENCE: Duration = Duration::from_secs(60);
/// More than all buffers between client and gateway hold, so that nobody sends it to the end whose peer does not read.
const BODY_BYTES: usize = 64 << 20;
const PIECE_BYTES: usize = 256 << 10;

/// How a client sends: the time between two pieces.
const PAUSES: [Duration; 2] = [Duration::ZERO, Duration::from_millis(2)];

fn connect(daemon: &Daemon) -> TcpStream {
    let stream = TcpStream::connect(daemon.address()).expect("the gateway listens");
    stream
        .set_read_timeout(Some(PATIENCE))
        .expect("a timeout can be set");
    stream
}

/// Sends a head and a long body, and looks for the answer only then.
fn upload(daemon: &Daemon, path: &str, pause: Duration) -> String {
    let mut stream = connect(daemon);
    let head = format!("POST {path} HTTP/1.1\r\nHost: test\r\nContent-Length: {BODY_BYTES}\r\n\r\n");
    stream.write_all(head.as_bytes()).expect("the gateway reads");
    let piece = vec![b'x'; PIECE_BYTES];
    for sent in 0..BODY_BYTES / PIECE_BYTES {
        let written = stream.write_all(&piece);
        written.unwrap_or_else(|error| panic!("{path}: piece {sent} of the body cannot be sent: {error}"));
        std::thread::sleep(pause);
    }
    rest(stream)
}

/// Everything that comes until the connection ends well.
fn rest(mut stream: TcpStream) -> String {
    let mut bytes = Vec::new();
    stream
        .read_to_end(&mut bytes)
        .unwrap_or_else(|error| panic!("after {} bytes: {error}", bytes.len()));
    String::from_utf8_lossy(&bytes).into_owned()
}

fn a_body_that_is_too_long_is_told_so_after_all_of_it() {
    let daemon = Daemon::start_with(&["--body-limit", "10k"]);
    daemon.deploy("httpd", &program::build("httpd"), &[]);
    for pause in PAUSES {
        let answer = upload(&daemon, "/function/httpd/echo", pause);
        assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
        assert!(answer.contains("--body-limit"), "{answer}");
    }
    // To a name that is none, too.
    let answer = upload(&daemon, "/function/nobody", Duration::ZERO);
    assert!(answer.starts_with("HTTP/1.1 404 "), "{answer}");
    assert_eq!(daemon.get("/function/httpd/").status, StatusCode::OK);
}

fn a_function_that_dies_during_the_body_is_told_of_after_all_of_it() {
    let daemon = Daemon::start();
    daemon.deploy("faults", &program::build("faults"), &[]);
    for pause in PAUSES {
        let answer = upload(&daemon, "/function/faults/half", pause);
        assert!(answer.starts_with("HTTP/1.1 502 "), "{answer}");
        assert!(answer.contains("status 4"), "{answer}");
    }
    assert_eq!(daemon.get("/function/faults/").status, StatusCode::OK);
}

fn a_function_that_answers_during_the_body_is_heard() {
    let daemon = Daemon::start();
    daemon.deploy("faults", &program::build("faults"), &[]);
    // The program answers when it has the head, and looks at the body as at another request.
    let answer = upload(&daemon, "/function/faults/wait?ms=100", Duration::ZERO);
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert_eq!(daemon.get("/function/faults/").status, StatusCode::OK);
}

fn a_head_that_is_too_long_is_told_so_after_all_of_it() {
    let daemon = Daemon::start_with(&["--head-limit", "16Ki"]);
    let mut stream = connect(&daemon);
    let head = format!(
        "GET / HTTP/1.1\r\nHost: test\r\nX-Long: {}\r\n\r\n",
        "a".repeat(16 << 20)
    );
    stream.write_all(head.as_bytes()).expect("the gateway reads");
    let answer = rest(stream);
    assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
}

fn a_client_that_never_ends_is_cut_off() {
    let daemon = Daemon::start_with(&["--body-limit", "10k"]);
    daemon.deploy("httpd", &program::build("httpd"), &[]);
    let mut stream = connect(&daemon);
    let head = "POST /function/httpd/echo HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n";
    stream.write_all(head.as_bytes()).expect("the gateway reads");
    let mut chunk = format!("{PIECE_BYTES:x}\r\n").into_bytes();
    chunk.resize(chunk.len() + PIECE_BYTES, b'x');
    chunk.extend(b"\r\n");
    // Far more than it is listened to.
    let was_cut = (0..16_384).any(|_| stream.write_all(&chunk).is_err());
    assert!(was_cut, "the gateway listens for ever");
    assert_eq!(daemon.get("/function/httpd/").status, StatusCode::OK);
}
