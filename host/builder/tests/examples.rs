//! The examples, as ordinary processes: what each says of itself is true on Linux too.

mod common;

use std::os::unix::process::ExitStatusExt;

use common::{Server, body_of, status_of};

const HELLO: &str = "../../examples/hello-c";
const MISBEHAVE: &str = "../../examples/misbehave-c";

fn get(path: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n").into_bytes()
}

#[test]
fn hello_greets_from_query_body_and_environment() {
    let server = Server::start(HELLO, &[("GREETING", "Good morning")]);
    assert_eq!(body_of(&server.exchange(&get("/"))), "Good morning, world!\n");
    assert_eq!(
        body_of(&server.exchange(&get("/?name=Ada+L%2e"))),
        "Good morning, Ada L.!\n"
    );
    let post = b"POST / HTTP/1.1\r\nHost: h\r\nConnection: close\r\nContent-Length: 4\r\n\r\nBob\n";
    assert_eq!(body_of(&server.exchange(post)), "Good morning, Bob!\n");
}

#[test]
fn crashes_end_the_process_by_the_expected_signal() {
    const ILL: i32 = 4;
    const ABORT: i32 = 6;
    const FPE: i32 = 8;
    const SEGV: i32 = 11;
    for (path, signal) in [
        ("/null-call", SEGV),
        ("/null-write", SEGV),
        ("/stack-overflow", SEGV),
        ("/illegal-instruction", ILL),
        ("/privileged-instruction", SEGV),
        ("/divide-by-zero", FPE),
        ("/abort", ABORT),
        ("/scribble", SEGV),
        ("/scribble/streams", SEGV),
    ] {
        let server = Server::start(MISBEHAVE, &[]);
        assert_eq!(server.exchange(&get(path)), "", "{path} should not answer");
        assert_eq!(server.wait().signal(), Some(signal), "{path}");
    }
}

#[test]
fn exits_have_their_status() {
    for (path, code) in [("/exit", 0), ("/exit-status", 3)] {
        let server = Server::start(MISBEHAVE, &[]);
        assert_eq!(server.exchange(&get(path)), "", "{path} should not answer");
        assert_eq!(server.wait().code(), Some(code), "{path}");
    }
}

#[test]
fn what_survives_answers() {
    let mut server = Server::start(MISBEHAVE, &[]);
    for path in ["/print-long-line", "/print-gigabyte"] {
        assert_eq!(
            body_of(&server.exchange(&get(path))),
            format!("survived {path}\n")
        );
    }
    assert_eq!(status_of(&server.exchange(&get("/no-such-mode"))), 404);
    assert_eq!(status_of(&server.exchange(&get("/scribble/nowhere"))), 404);
    let list = server.exchange(&get("/"));
    assert_eq!(status_of(&list), 200);
    assert!(body_of(&list).lines().all(|line| line.starts_with('/')), "{list}");

    // A client that gives up does not end a hang: that is the platform's part.
    let mut connection = server.connect();
    connection.send(&get("/hang"));
    drop(connection);
    std::thread::sleep(std::time::Duration::from_millis(50));
    assert!(server.is_running());
}
