//! A body of any length passes through a function and back, and the daemon holds next to nothing of it.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use spore_test_harness::daemon::Daemon;
use spore_test_harness::{process, program};

use crate::{Test, with_functions};

pub(crate) const TESTS: &[Test] = with_functions![a_large_body_passes_and_the_daemon_stays_small];

/// Length of the body in MiB, unless `SPORE_TEST_BODY_MIB` says otherwise.
const BODY_MIB: u64 = 96;
/// How much more memory the daemon may have than before: some buffers of a connection.
const MORE_BYTES_MAX: u64 = 24 << 20;
const PIECE_BYTES: usize = 1 << 20;

/// A piece of the body: bytes that repeat at no power of two, so that a lost or doubled page shows.
fn piece() -> Vec<u8> {
    (0..PIECE_BYTES).map(|i| (i % 251) as u8).collect()
}

fn a_large_body_passes_and_the_daemon_stays_small() {
    let wanted = std::env::var("SPORE_TEST_BODY_MIB");
    let mebibytes = wanted.map_or(BODY_MIB, |text| {
        text.parse().expect("SPORE_TEST_BODY_MIB is a number")
    });
    let daemon = Daemon::start();
    daemon.deploy("httpd", &program::build("httpd"), &["--timeout", "30m"]);
    daemon.get("/function/httpd/");
    for is_chunked in [false, true] {
        let before = process::resident_bytes(daemon.pid());
        let most = AtomicU64::new(before);
        let is_over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let sampling = scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    most.fetch_max(process::resident_bytes(daemon.pid()), Ordering::Relaxed);
                    std::thread::sleep(Duration::from_millis(10));
                }
            });
            let echoed = std::panic::catch_unwind(|| echo(&daemon, mebibytes, is_chunked));
            is_over.store(true, Ordering::Relaxed);
            sampling.join().expect("the daemon runs");
            if let Err(panic) = echoed {
                std::panic::resume_unwind(panic);
            }
        });
        let more = most.into_inner() - before;
        println!(
            "{mebibytes} MiB both ways, chunked {is_chunked}: {} KiB resident before, {} KiB more at most",
            before >> 10,
            more >> 10
        );
        assert!(more < MORE_BYTES_MAX, "the daemon took {more} bytes more");
    }
}

/// Sends so much to the function, and compares what comes back.
fn echo(daemon: &Daemon, mebibytes: u64, is_chunked: bool) {
    let mut sender = TcpStream::connect(daemon.address()).expect("the gateway listens");
    sender
        .set_read_timeout(Some(Duration::from_secs(60)))
        .expect("a timeout can be set");
    let mut receiver = BufReader::with_capacity(256 << 10, sender.try_clone().expect("a descriptor"));
    let length = mebibytes * PIECE_BYTES as u64;
    let framing = match is_chunked {
        true => "Transfer-Encoding: chunked".to_owned(),
        false => format!("Content-Length: {length}"),
    };
    let head = format!("POST /function/httpd/echo HTTP/1.1\r\nHost: t\r\n{framing}\r\n\r\n");
    std::thread::scope(|scope| {
        scope.spawn(move || {
            sender.write_all(head.as_bytes()).expect("the gateway reads");
            let piece = piece();
            for _ in 0..mebibytes {
                if is_chunked {
                    write!(sender, "{PIECE_BYTES:x}\r\n").expect("the gateway reads");
                }
                sender.write_all(&piece).expect("the gateway reads");
                if is_chunked {
                    sender.write_all(b"\r\n").expect("the gateway reads");
                }
            }
            if is_chunked {
                sender.write_all(b"0\r\n\r\n").expect("the gateway reads");
            }
        });
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            assert_ne!(receiver.read_line(&mut head).expect("an answer"), 0, "{head}");
        }
        assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
        let mut body = Dechunked {
            stream: receiver,
            is_chunked: head.to_lowercase().contains("transfer-encoding: chunked"),
            left: 0,
        };
        let (expected, mut found) = (piece(), vec![0; PIECE_BYTES]);
        for number in 0..mebibytes {
            body.read_exact(&mut found)
                .unwrap_or_else(|error| panic!("MiB {number} of {mebibytes}: {error}"));
            assert!(found == expected, "MiB {number} came back changed");
        }
    });
}

/// A body, with the chunks' heads taken out if it has any.
struct Dechunked {
    stream: BufReader<TcpStream>,
    is_chunked: bool,
    left: u64,
}

impl Read for Dechunked {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        if !self.is_chunked {
            return self.stream.read(into);
        }
        let mut line = String::new();
        while self.left == 0 {
            line.clear();
            self.stream.read_line(&mut line)?;
            // An empty line is the end of the chunk before.
            if !line.trim().is_empty() {
                self.left = u64::from_str_radix(line.trim(), 16).map_err(std::io::Error::other)?;
                if self.left == 0 {
                    return Ok(0);
                }
            }
        }
        let room = into.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        let count = self.stream.read(&mut into[..room])?;
        self.left -= count as u64;
        Ok(count)
    }
}
