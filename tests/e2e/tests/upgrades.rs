//! Connections that become something else, WebSockets among them, and trailers: what a client and a program say to each other
//! beside a request and its answer.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use http::StatusCode;
use spore_test_harness::daemon::Daemon;
use spore_test_harness::{program, wait_until};

use crate::{Test, with_functions};

pub(crate) const TESTS: &[Test] = with_functions![
    a_websocket_passes_and_its_instance_serves_on,
    bytes_pass_both_ways_until_both_sides_have_ended,
    bytes_that_come_with_the_answer_are_not_lost,
    a_refused_upgrade_is_an_answer_like_others,
    an_upgrade_is_answered_in_time_or_not_at_all,
    other_versions_of_http_are_not_passed_on,
    an_idle_connection_ends_and_so_does_one_without_its_client,
    many_idle_websockets_are_served,
    trailers_pass_both_ways,
];

/// Idle WebSockets that the test holds; more of them take more of the same.
const WEBSOCKETS: usize = 60;
const PATIENCE: Duration = Duration::from_secs(60);

fn daemon_with_upgrade(options: &[&str]) -> Daemon {
    let daemon = Daemon::start();
    daemon.deploy("upgrade", &program::build("upgrade"), options);
    daemon
}

/// A connection to the gateway on which lines and bytes are read.
struct Client(BufReader<TcpStream>);

impl Client {
    /// Sends this head; lines are separated by `\n`.
    fn send(daemon: &Daemon, head: &str) -> Client {
        let stream = TcpStream::connect(daemon.address()).expect("the gateway listens");
        stream
            .set_read_timeout(Some(PATIENCE))
            .expect("a timeout can be set");
        let mut client = Client(BufReader::new(stream));
        let head = format!("{}\r\n\r\n", head.trim().replace('\n', "\r\n"));
        client.write(head.as_bytes());
        client
    }

    fn upgrade(daemon: &Daemon, protocol: &str) -> Client {
        let key = "Sec-WebSocket-Version: 13\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==";
        let head = "GET /function/upgrade/ws HTTP/1.1\nHost: test\nConnection: keep-alive, Upgrade";
        Client::send(daemon, &format!("{head}\nUpgrade: {protocol}\n{key}"))
    }

    fn write(&mut self, bytes: &[u8]) {
        self.0.get_mut().write_all(bytes).expect("the gateway reads");
    }

    /// The head of the answer, in lower case.
    fn head(&mut self) -> String {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            let length = self.0.read_line(&mut head).expect("the gateway answers");
            assert_ne!(length, 0, "the connection has ended after {head:?}");
        }
        head.to_lowercase()
    }

    fn take(&mut self, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        self.0.read_exact(&mut bytes).expect("the gateway answers");
        bytes
    }

    /// Everything until the connection ends.
    fn rest(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.0.read_to_end(&mut bytes).expect("the connection ends");
        bytes
    }

    /// Sends a masked frame (RFC 6455, 5.2).
    fn write_frame(&mut self, kind: u8, content: &[u8]) {
        let mask = [7, 77, 177, 207];
        let mut frame = vec![0x80 | kind];
        match u8::try_from(content.len()) {
            Ok(length) if length < 126 => frame.push(0x80 | length),
            _ => {
                frame.push(0x80 | 126);
                frame.extend(u16::try_from(content.len()).expect("short enough").to_be_bytes());
            }
        }
        frame.extend(mask);
        frame.extend(content.iter().enumerate().map(|(i, byte)| byte ^ mask[i % 4]));
        self.write(&frame);
    }

    /// Kind and content of the next frame.
    fn frame(&mut self) -> (u8, Vec<u8>) {
        let start = self.take(2);
        let length = match start[1] {
            126 => {
                let more = self.take(2);
                usize::from(u16::from_be_bytes([more[0], more[1]]))
            }
            length => usize::from(length),
        };
        (start[0] & 15, self.take(length))
    }
}

/// The answer to the key that [`Client::upgrade`] sends, as RFC 6455 has it in its example.
const ACCEPTED: &str = "sec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo=";

fn instances(daemon: &Daemon) -> u64 {
    let status = daemon.get("/system/function/upgrade").json();
    status["availableReplicas"].as_u64().unwrap_or(0)
}

fn a_websocket_passes_and_its_instance_serves_on() {
    let daemon = daemon_with_upgrade(&["--max", "1"]);
    for round in 0..3 {
        let mut client = Client::upgrade(&daemon, "websocket");
        let head = client.head();
        assert!(head.starts_with("http/1.1 101 "), "{head}");
        for line in [
            ACCEPTED,
            "upgrade: websocket",
            "connection: upgrade",
            "x-call-id: ",
        ] {
            assert!(head.contains(line), "{line:?} is missing in {head}");
        }
        assert!(
            !head.contains("content-length") && !head.contains("transfer-encoding"),
            "{head}"
        );
        for length in [0, 1, 125, 126, 60_000] {
            let content: Vec<u8> = (0..length).map(|i| (i % 251) as u8).collect();
            client.write_frame(2, &content);
            let (kind, back) = client.frame();
            assert!(
                (kind, back.len()) == (2, length) && back == content,
                "{length} bytes"
            );
        }
        client.write_frame(9, b"ping");
        assert_eq!(client.frame(), (10, b"ping".to_vec()));
        client.write_frame(8, &[3, 232]);
        assert_eq!(client.frame(), (8, vec![3, 232]), "round {round}");
        assert!(
            client.rest().is_empty(),
            "the program closes, and so does the gateway"
        );
    }
    assert_eq!(instances(&daemon), 1);
    let status = daemon.get("/system/functions").json();
    assert_eq!(
        status[0]["invocationCount"], 3,
        "each is one invocation: {status}"
    );
    let metrics = daemon.get("/metrics").text();
    assert!(metrics.contains(r#"code="101"} 3"#), "{metrics}");
}

fn bytes_pass_both_ways_until_both_sides_have_ended() {
    let daemon = daemon_with_upgrade(&[]);
    let mut client = Client::upgrade(&daemon, "echo");
    assert!(client.head().starts_with("http/1.1 101 "));
    let mut sender = client
        .0
        .get_ref()
        .try_clone()
        .expect("a descriptor can be duplicated");
    let sent: Vec<u8> = (0..4 << 20).map(|i| (i % 251) as u8).collect();
    let expected = [&sent[..], b"bye"].concat();
    let sending = std::thread::spawn(move || {
        sender.write_all(&sent).expect("the gateway reads");
        sender.shutdown(Shutdown::Write).expect("it is open");
    });
    let back = client.rest();
    sending.join().expect("it was sent");
    assert!(back == expected, "{} bytes came back", back.len());
}

fn bytes_that_come_with_the_answer_are_not_lost() {
    let daemon = daemon_with_upgrade(&[]);
    for _ in 0..20 {
        let mut client = Client::upgrade(&daemon, "greeting");
        assert!(client.head().contains("upgrade: greeting"));
        assert_eq!(client.rest(), b"hello");
    }
}

fn a_refused_upgrade_is_an_answer_like_others() {
    let daemon = daemon_with_upgrade(&["--max", "1"]);
    let mut client = Client::upgrade(&daemon, "refused");
    let head = client.head();
    assert!(head.starts_with("http/1.1 426 "), "{head}");
    assert_eq!(client.take(3), b"no\n");
    client.write(b"GET /function/upgrade HTTP/1.1\r\nHost: test\r\n\r\n");
    assert!(
        client.head().starts_with("http/1.1 200 "),
        "the connection serves on"
    );
    let unasked = daemon.get("/function/upgrade/unasked");
    assert_eq!(unasked.status, StatusCode::BAD_GATEWAY, "{}", unasked.text());
    assert!(
        unasked.text().contains("which nobody has asked for"),
        "{}",
        unasked.text()
    );
}

fn an_upgrade_is_answered_in_time_or_not_at_all() {
    let daemon = daemon_with_upgrade(&["--timeout", "1s"]);
    let mut client = Client::upgrade(&daemon, "never");
    assert!(client.head().starts_with("http/1.1 504 "));
    let mut client = Client::upgrade(&daemon, "echo");
    assert!(client.head().starts_with("http/1.1 101 "));
    // The time limit is for the answer, which has come.
    std::thread::sleep(Duration::from_millis(2500));
    client.write(b"still there");
    assert_eq!(client.take(11), b"still there");
}

fn other_versions_of_http_are_not_passed_on() {
    let daemon = daemon_with_upgrade(&[]);
    for (protocol, more) in [
        ("h2c", "HTTP2-Settings: AAMAAABk"),
        ("websocket", "Connection: close"),
    ] {
        let connection = if protocol == "h2c" {
            "Connection: Upgrade, HTTP2-Settings\n"
        } else {
            ""
        };
        let head =
            format!("GET /function/upgrade HTTP/1.1\nHost: test\n{connection}Upgrade: {protocol}\n{more}");
        let mut client = Client::send(&daemon, &head);
        assert!(client.head().starts_with("http/1.1 200 "), "{head}");
        let seen = String::from_utf8_lossy(&client.take(22)).into_owned();
        assert_eq!(seen, "upgrade: \nconnection: ", "{head}");
    }
}

fn an_idle_connection_ends_and_so_does_one_without_its_client() {
    let annotation = ["--annotation", "dev.spore.upgrade-idle-timeout=1s"];
    let daemon = daemon_with_upgrade(&annotation);
    let mut client = Client::upgrade(&daemon, "websocket");
    assert!(client.head().starts_with("http/1.1 101 "));
    assert!(client.rest().is_empty(), "nobody says anything");
    let daemon = daemon_with_upgrade(&["--max", "1"]);
    for _ in 0..3 {
        let mut client = Client::upgrade(&daemon, "websocket");
        assert!(client.head().starts_with("http/1.1 101 "));
        drop(client);
    }
    // There is one instance, which is free again each time.
    assert_eq!(daemon.get("/function/upgrade").status, StatusCode::OK);
}

fn many_idle_websockets_are_served() {
    let max = WEBSOCKETS.to_string();
    let daemon = daemon_with_upgrade(&["--max", &max, "--memory", "32Mi", "--snapshot"]);
    let open = |_| Client::upgrade(&daemon, "websocket");
    let mut clients: Vec<Client> = (0..WEBSOCKETS).map(open).collect();
    for client in &mut clients {
        let head = client.head();
        assert!(head.starts_with("http/1.1 101 "), "{head}\n{}", daemon.log());
    }
    assert_eq!(instances(&daemon), WEBSOCKETS as u64, "each has an instance");
    for (number, client) in clients.iter_mut().enumerate() {
        client.write_frame(1, number.to_string().as_bytes());
    }
    for (number, client) in clients.iter_mut().enumerate() {
        assert_eq!(client.frame(), (1, number.to_string().into_bytes()));
    }
    drop(clients);
    let is_free = || {
        let metrics = daemon.get("/metrics").text();
        metrics.contains(r#"gateway_function_invocation_inflight{function_name="upgrade.openfaas-fn"} 0"#)
    };
    assert!(wait_until(PATIENCE, is_free), "{}", daemon.get("/metrics").text());
}

fn trailers_pass_both_ways() {
    let daemon = daemon_with_upgrade(&[]);
    let head = "POST /function/upgrade/trailers HTTP/1.1\nHost: test\nTransfer-Encoding: chunked";
    let mut client = Client::send(
        &daemon,
        &format!("{head}\nTrailer: x-sum, x-other\nTE: trailers, gzip;q=0.5"),
    );
    client.write(b"3\r\nabc\r\n0\r\nX-Sum: 42\r\nX-Other: a b\r\n\r\n");
    let head = client.head();
    assert!(head.contains("\r\nx-te: trailers\r\n"), "{head}");
    assert!(head.contains("\r\ntrailer: x-sum, x-other, x-last\r\n"), "{head}");
    let mut body = String::new();
    while !(body.contains("\r\n0\r\n") && body.ends_with("\r\n\r\n")) {
        let length = client.0.read_line(&mut body).expect("the gateway answers");
        assert_ne!(length, 0, "{body:?}");
    }
    let (body, trailers) = body.split_once("\r\n0\r\n").expect("a last chunk");
    for line in ["x-sum: 42", "x-other: a b"] {
        assert!(body.contains(line), "the program saw {body:?}");
        assert!(trailers.contains(line), "the client sees {trailers:?}");
    }
    assert!(trailers.contains("x-last: yes"), "{trailers:?}");
}
