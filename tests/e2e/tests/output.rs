//! What a function writes arrives whole: answers at its very end, and its log.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http::StatusCode;
use rustix::net::sockopt::set_socket_recv_buffer_size;
use spore_test_harness::daemon::Daemon;
use spore_test_harness::program;

use crate::{Test, with_functions};

pub(crate) const TESTS: &[Test] = with_functions![
    an_answer_outlives_the_program_that_wrote_it,
    every_line_within_the_limit_reaches_the_log,
    a_large_environment_arrives_and_a_too_large_one_is_named,
];

/// Requests `bytes` bytes of a program that ends at once, and reads them only after a pause. A request may come to an
/// instance that is just about to end, which is told as such; then it is made again.
fn read_late(daemon: &Daemon, bytes: usize, pause: Duration) {
    const ATTEMPTS_MAX: usize = 20;
    let read = (0..ATTEMPTS_MAX).any(|_| try_to_read_late(daemon, bytes, pause));
    assert!(read, "{ATTEMPTS_MAX} times the instance had just ended");
}

fn try_to_read_late(daemon: &Daemon, bytes: usize, pause: Duration) -> bool {
    let mut stream = TcpStream::connect(daemon.address()).expect("the gateway listens");
    // So that the bytes wait in the gateway, the monitor and the guest rather than here.
    set_socket_recv_buffer_size(&stream, 64 * 1024).expect("a socket takes a size");
    stream
        .set_read_timeout(Some(Duration::from_secs(60)))
        .expect("a valid timeout");
    let request =
        format!("GET /function/farewell?bytes={bytes} HTTP/1.1\r\nHost: spore\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).expect("the gateway reads");
    let mut answer = vec![0; 1];
    stream.read_exact(&mut answer).expect("the answer begins");
    std::thread::sleep(pause);
    let outcome = stream.read_to_end(&mut answer);
    let head_end = answer.windows(4).position(|end| end == b"\r\n\r\n");
    let head = String::from_utf8_lossy(&answer[..head_end.unwrap_or(answer.len())]);
    let body = head_end.map_or(&[][..], |end| &answer[end + 4..]);
    if head.starts_with("HTTP/1.1 502") && String::from_utf8_lossy(body).contains("exited with status 0") {
        return false;
    }
    assert!(
        head.starts_with("HTTP/1.1 200") && body.len() == bytes,
        "{} of {bytes} bytes, {outcome:?}\n{head}\n{}",
        body.len(),
        daemon.log()
    );
    let mut letters = body.iter().zip((b'a'..=b'z').cycle());
    assert!(letters.all(|(&byte, expected)| byte == expected));
    true
}

fn an_answer_outlives_the_program_that_wrote_it() {
    const CALLERS: usize = 16;
    let daemon = Daemon::start();
    daemon.deploy("farewell", &program::build("farewell"), &[]);
    let repeated = (0..30).map(|_| (300_000, Duration::from_millis(300)));
    // About 4 MB fit into the sockets on the way, depending on the host. Of these sizes some leave their last bytes in
    // the guest's ring of 64 KiB, with nobody reading, when the program has ended.
    let sizes = (0..72).map(|step| (3_900_000 + step * 60_000, Duration::from_secs(1)));
    let reads: Vec<(usize, Duration)> = repeated.chain(sizes).collect();
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..CALLERS {
            scope.spawn(|| {
                while let Some(&(bytes, pause)) = reads.get(next.fetch_add(1, Ordering::Relaxed)) {
                    read_late(&daemon, bytes, pause);
                }
            });
        }
    });
}

fn every_line_within_the_limit_reaches_the_log() {
    const LINES: usize = 1200;
    let daemon = Daemon::start();
    daemon.deploy("httpd", &program::build("httpd"), &[]);
    daemon.get(&format!("/function/httpd/log?lines={LINES}"));
    daemon.wait_for_log("httpd", &format!("stderr line {LINES} of {LINES}"));
    let log = daemon.spore_ok(&["logs", "httpd"]);
    assert!(
        !log.contains("dropped"),
        "{}",
        log.lines().last().unwrap_or_default()
    );
    for stream in ["stdout", "stderr"] {
        let expected = (1..=LINES).map(|line| format!("{stream} line {line} of {LINES}"));
        let missing: Vec<String> = expected.filter(|line| !log.contains(line)).collect();
        assert!(
            missing.is_empty(),
            "{} lines are missing, first {:?}",
            missing.len(),
            missing[0]
        );
    }
}

fn a_large_environment_arrives_and_a_too_large_one_is_named() {
    let daemon = Daemon::start();
    let variables: Vec<String> = ["A", "B", "C", "D"]
        .iter()
        .map(|name| format!("{name}={}", "v".repeat(75_000)))
        .collect();
    let options = |count: usize| -> Vec<&str> {
        variables[..count]
            .iter()
            .flat_map(|variable| ["--env", variable.as_str()])
            .collect()
    };
    daemon.deploy("large", &program::build("httpd"), &options(3));
    let answer = daemon.get("/function/large/");
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
    daemon.deploy("too-large", &program::build("httpd"), &options(4));
    let answer = daemon.get("/function/too-large/");
    assert!(answer.status.is_server_error(), "{}", answer.status);
    assert!(answer.text().contains("environment"), "{}", answer.text());
}
