//! The C SDK as an ordinary process: what it understands of HTTP/1.1 and what it refuses.
//!
//! Requests are written byte by byte as given here and answers compared as they arrive, since a well-behaved HTTP
//! client could not send most of them.

mod common;

use common::{Server, body_of, status_of};

fn probe() -> Server {
    Server::start("tests/functions/probe", &[])
}

#[test]
fn a_request_is_taken_apart() {
    let answer = probe().exchange(
        b"POST /a/b%20c?key=v%2B1+2&x HTTP/1.1\r\nHost: h\r\nX-TEST:  some value \r\nContent-Length: 3\r\nConnection: close\r\n\r\nabc",
    );
    assert_eq!(status_of(&answer), 200);
    assert_eq!(
        body_of(&answer),
        "method=POST\npath=/a/b%20c\nquery=key=v%2B1+2&x\nheaders=4\nbody=3\nkey=5:v+1 2\nx-test=some value\n"
    );
    assert!(answer.contains("\r\nConnection: close\r\n"), "{answer}");
}

#[test]
fn missing_parts_of_a_request_are_empty() {
    let answer = probe().exchange(b"GET http://host HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
    assert_eq!(
        body_of(&answer),
        "method=GET\npath=/\nquery=\nheaders=2\nbody=0\nkey=-1:\nx-test=(none)\n"
    );
}

#[test]
fn a_query_parameter_that_is_malformed_or_too_long_is_none() {
    let server = probe();
    for query in [
        "key=%4",
        "key=%zz",
        "key=0123456789abcdef",
        "keys=1",
        "ke=1",
        "xkey=1",
    ] {
        let request = format!("GET /?{query} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
        let answer = server.exchange(request.as_bytes());
        assert!(body_of(&answer).contains("\nkey=-1:\n"), "{query}: {answer}");
    }
    let answer =
        server.exchange(b"GET /?a&k%65y=0123456789abcde HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
    assert!(
        body_of(&answer).contains("\nkey=15:0123456789abcde\n"),
        "{answer}"
    );
}

#[test]
fn one_connection_carries_many_requests_and_others_get_in_between() {
    let server = probe();
    let mut first = server.connect();
    let mut second = server.connect();
    for round in 0..20 {
        let (connection, expected) = if round % 2 == 0 {
            (&mut first, round + 1)
        } else {
            (&mut second, round + 1)
        };
        connection.send(b"GET /calls HTTP/1.1\r\nHost: h\r\n\r\n");
        assert_eq!(body_of(&connection.receive()), expected.to_string());
    }
}

#[test]
fn an_idle_connection_is_given_up_when_there_are_too_many() {
    let server = probe();
    let mut connections: Vec<_> = (0..40).map(|_| server.connect()).collect();
    for connection in &mut connections {
        connection.send(b"GET /calls HTTP/1.1\r\nHost: h\r\n\r\n");
        assert_eq!(status_of(&connection.receive()), 200);
    }
    connections[0].send(b"GET /calls HTTP/1.1\r\nHost: h\r\n\r\n");
    assert_eq!(
        connections[0].receive_to_end(),
        "",
        "the oldest idle connection should have been closed"
    );
    let newest = connections.last_mut().unwrap();
    newest.send(b"GET /calls HTTP/1.1\r\nHost: h\r\n\r\n");
    assert_eq!(body_of(&newest.receive()), "41");
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let mut connection = probe().connect_keeping();
    let mut requests = Vec::new();
    for index in 0..50 {
        let body = format!("body {index}");
        let chunked = format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len());
        requests.extend_from_slice(
            match index % 2 {
                0 => format!(
                    "POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: {}\r\n\r\n{body}",
                    body.len()
                ),
                _ => format!("POST /echo HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n{chunked}"),
            }
            .as_bytes(),
        );
    }
    connection.send(&requests);
    for index in 0..50 {
        assert_eq!(body_of(&connection.receive()), format!("body {index}"));
    }
}

#[test]
fn requests_may_arrive_in_single_bytes() {
    let mut connection = probe().connect_keeping();
    let request = b"\r\nPOST /echo HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n02\r\nde\r\n0\r\nTrailer: t\r\n\r\n";
    for byte in request {
        connection.send(&[*byte]);
        std::thread::sleep(std::time::Duration::from_micros(200));
    }
    assert_eq!(body_of(&connection.receive()), "abcde");
}

#[test]
fn large_bodies_arrive_whole() {
    let mut connection = probe().connect_keeping();
    let body: String = (0..700_000).map(|number: u32| format!("{number:08}\n")).collect();
    for _ in 0..2 {
        connection.send_in_background(
            format!(
                "POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: {}\r\n\r\n{body}",
                body.len()
            )
            .into_bytes(),
        );
        assert!(body_of(&connection.receive()) == body, "the echo differs");
        let mut chunked = b"POST /echo HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
        for chunk in body.as_bytes().chunks(9_999) {
            chunked.extend_from_slice(format!("{:X}\r\n", chunk.len()).as_bytes());
            chunked.extend_from_slice(chunk);
            chunked.extend_from_slice(b"\r\n");
        }
        chunked.extend_from_slice(b"0\r\n\r\n");
        connection.send_in_background(chunked);
        assert!(
            body_of(&connection.receive()) == body,
            "the echo of the chunked body differs"
        );
    }
}

#[test]
fn malformed_requests_are_refused() {
    let server = probe();
    let host = "Host: h\r\n";
    let cases: &[(&str, u16)] = &[
        ("GET\r\n\r\n", 400),
        ("GET / \r\n\r\n", 400),
        ("GET /\r\n\r\n", 400),
        ("GET  / HTTP/1.1\r\nHost: h\r\n\r\n", 400),
        ("GET / HTTP/2.0\r\nHost: h\r\n\r\n", 505),
        ("GET / FTP/1.1\r\nHost: h\r\n\r\n", 400),
        ("G@T / HTTP/1.1\r\nHost: h\r\n\r\n", 400),
        ("GET nothing HTTP/1.1\r\nHost: h\r\n\r\n", 400),
        ("GET /\x01 HTTP/1.1\r\nHost: h\r\n\r\n", 400),
        ("GET /\0 HTTP/1.1\r\nHost: h\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: h\r\nHost: i\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: h\r\nno colon\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: h\r\nName : x\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: h\r\nA: b\r\n folded\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: h\r\nA: b\nC: d\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: h\r\nA: b\rC: d\r\n\r\n", 400),
    ];
    for (request, status) in cases {
        let answer = server.exchange(request.as_bytes());
        assert_eq!(status_of(&answer), *status, "{request:?}: {answer}");
        assert!(
            answer.contains("\r\nConnection: close\r\n"),
            "{request:?}: {answer}"
        );
    }
    let framings: &[(&str, u16)] = &[
        ("Content-Length: -1\r\n\r\n", 400),
        ("Content-Length: 1x\r\n\r\n", 400),
        ("Content-Length:\r\n\r\n", 400),
        ("Content-Length: 1\r\nContent-Length: 2\r\n\r\nab", 400),
        ("Content-Length: 99999999999999999999999\r\n\r\n", 413),
        (
            "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            400,
        ),
        (
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            400,
        ),
        ("Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 501),
        ("Transfer-Encoding: chunked\r\n\r\nxyz\r\n\r\n", 400),
        ("Transfer-Encoding: chunked\r\n\r\n-1\r\n\r\n", 400),
        ("Transfer-Encoding: chunked\r\n\r\n1\r\nabc\r\n0\r\n\r\n", 400),
        ("Transfer-Encoding: chunked\r\n\r\n1\nab\n", 400),
        ("Transfer-Encoding: chunked\r\n\r\nffffffffffffffffffff\r\n", 413),
    ];
    for (rest, status) in framings {
        let request = format!("POST /echo HTTP/1.1\r\n{host}{rest}");
        let answer = server.exchange(request.as_bytes());
        assert_eq!(status_of(&answer), *status, "{request:?}: {answer}");
    }
    assert_eq!(
        body_of(&server.exchange(b"GET /calls HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")),
        "1"
    );
}

#[test]
fn heads_are_bounded() {
    let server = probe();
    let long = format!(
        "GET / HTTP/1.1\r\nHost: h\r\nX-Test: {}\r\n\r\n",
        "x".repeat(70_000)
    );
    assert_eq!(status_of(&server.exchange(long.as_bytes())), 431);
    let endless = "a".repeat(200_000);
    assert_eq!(status_of(&server.exchange(endless.as_bytes())), 431);
    let many = format!("GET / HTTP/1.1\r\nHost: h\r\n{}\r\n", "A: b\r\n".repeat(200));
    assert_eq!(status_of(&server.exchange(many.as_bytes())), 431);
    let fits = format!(
        "GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\nX-Test: {}\r\n\r\n",
        "x".repeat(60_000)
    );
    assert_eq!(status_of(&server.exchange(fits.as_bytes())), 200);
}

#[test]
fn bodies_are_bounded() {
    let server = Server::start("tests/functions/probe", &[("SPORE_BODY_BYTES_MAX", "1000")]);
    let with_length = |length: usize| {
        format!(
            "POST /echo HTTP/1.1\r\nHost: h\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{}",
            "x".repeat(length)
        )
    };
    assert_eq!(status_of(&server.exchange(with_length(1000).as_bytes())), 200);
    assert_eq!(status_of(&server.exchange(with_length(1001).as_bytes())), 413);
    let chunk = format!("190\r\n{}\r\n", "x".repeat(400));
    let chunked = format!(
        "POST /echo HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n{}",
        chunk.repeat(3)
    );
    assert_eq!(status_of(&server.exchange(chunked.as_bytes())), 413);
    let expecting = b"POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 1001\r\nExpect: 100-continue\r\n\r\n";
    assert_eq!(status_of(&server.exchange(expecting)), 413);
}

#[test]
fn a_client_that_waits_for_leave_to_send_gets_it() {
    let mut connection = probe().connect_keeping();
    connection.send(b"POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n");
    assert_eq!(connection.receive_head(), "HTTP/1.1 100 Continue\r\n\r\n");
    connection.send(b"abc");
    assert_eq!(body_of(&connection.receive()), "abc");
}

#[test]
fn head_gets_the_length_without_the_body() {
    let mut connection = probe().connect_keeping();
    connection.send(b"HEAD /calls HTTP/1.1\r\nHost: h\r\n\r\n");
    let head = connection.receive_head();
    assert!(
        head.starts_with("HTTP/1.1 200 OK\r\n") && head.contains("\r\nContent-Length: 1\r\n"),
        "{head}"
    );
    connection.send(b"GET /calls HTTP/1.1\r\nHost: h\r\n\r\n");
    assert_eq!(body_of(&connection.receive()), "2");
}

#[test]
fn http_1_0_closes_unless_asked_to_stay() {
    let server = probe();
    let answer = server.exchange(b"GET /calls HTTP/1.0\r\n\r\n");
    assert_eq!(body_of(&answer), "1");
    let mut connection = server.connect();
    connection.send(b"GET /calls HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n");
    let answer = connection.receive();
    assert!(answer.contains("\r\nConnection: keep-alive\r\n"), "{answer}");
    connection.send(b"GET /calls HTTP/1.0\r\n\r\n");
    assert_eq!(body_of(&connection.receive_to_end()), "3");
}

#[test]
fn the_handler_decides_the_status() {
    let mut connection = probe().connect_keeping();
    connection.send(b"GET /status?404 HTTP/1.1\r\nHost: h\r\n\r\n");
    assert!(connection.receive().starts_with("HTTP/1.1 404 Not Found\r\n"));
    connection.send(b"GET /status?204 HTTP/1.1\r\nHost: h\r\n\r\n");
    assert_eq!(connection.receive_head(), "HTTP/1.1 204 No Content\r\n\r\n");
    for path in ["/fail", "/split", "/status?99", "/status?600"] {
        connection.send(format!("GET {path} HTTP/1.1\r\nHost: h\r\n\r\n").as_bytes());
        let answer = connection.receive();
        assert_eq!(
            (status_of(&answer), body_of(&answer)),
            (500, "the function failed\n"),
            "{path}"
        );
        assert!(!answer.contains("Injected"), "{answer}");
    }
}

#[test]
fn clients_that_leave_do_no_harm() {
    let server = probe();
    for request in [
        &b""[..],
        b"GET",
        b"GET / HTTP/1.1\r\nHost",
        b"POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\n\r\nabc",
        b"POST /echo HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab",
    ] {
        let mut connection = server.connect();
        connection.send(request);
        drop(connection);
    }
    let mut leaves_early = server.connect();
    leaves_early.send_in_background(
        format!(
            "POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 4000000\r\n\r\n{}",
            "x".repeat(4_000_000)
        )
        .into_bytes(),
    );
    leaves_early.receive_head();
    drop(leaves_early);
    assert_eq!(
        body_of(&server.exchange(b"GET /calls HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")),
        "1"
    );
}

#[test]
fn a_bad_setting_ends_the_program_with_the_reason() {
    for (name, value) in [
        ("PORT", "0"),
        ("PORT", "70000"),
        ("PORT", "80a"),
        ("SPORE_ADDRESS", "nowhere"),
    ] {
        let output = common::run_once("tests/functions/probe", &[(name, value)]);
        let message = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{message}");
        assert!(message.contains(name) && message.contains(value), "{message}");
    }
}
