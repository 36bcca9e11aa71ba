//! Requests that are too long, too slow or not what they seem: each gets its answer, and nobody else notices.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{Method, StatusCode};
use spore_test_harness::client::{self, Answer};
use spore_test_harness::daemon::Daemon;
use spore_test_harness::{program, repository};

use crate::{Test, with_functions};

pub(crate) const TESTS: &[Test] = with_functions![
    a_body_beyond_the_limit_is_refused,
    a_head_beyond_the_limit_is_refused,
    slow_heads_are_cut_off,
    bodies_that_stand_still_are_given_up,
    a_slow_body_that_moves_is_taken,
    paths_are_taken_as_they_are,
    what_is_no_request_is_refused,
    wrong_credentials_reach_no_handler,
];

const PATIENCE: Duration = Duration::from_secs(60);

fn daemon_with_httpd(options: &[&str]) -> Daemon {
    let daemon = Daemon::start_with(options);
    daemon.deploy("httpd", &program::build("httpd"), &[]);
    daemon
}

fn connect(daemon: &Daemon) -> TcpStream {
    let stream = TcpStream::connect(daemon.address()).expect("the gateway listens");
    stream
        .set_read_timeout(Some(PATIENCE))
        .expect("a timeout can be set");
    stream
}

/// Everything that comes until the connection ends; one that is reset in the middle has ended too.
fn rest(mut stream: TcpStream) -> String {
    let mut bytes = Vec::new();
    let mut piece = [0; 4096];
    loop {
        match stream.read(&mut piece) {
            Ok(0) => break,
            Ok(length) => bytes.extend_from_slice(&piece[..length]),
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => break,
            Err(error) => panic!("the connection does not end: {error}"),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Sends these bytes on a connection of their own, and returns everything that comes back.
fn raw(daemon: &Daemon, bytes: &[u8]) -> String {
    let mut stream = connect(daemon);
    // The gateway may answer, and close, before it has read all.
    let _ = stream.write_all(bytes);
    rest(stream)
}

fn status(answer: &str) -> &str {
    answer.split(' ').nth(1).unwrap_or(answer)
}

fn still_answers(daemon: &Daemon) {
    assert_eq!(daemon.get("/function/httpd/").status, StatusCode::OK);
}

fn a_body_beyond_the_limit_is_refused() {
    let daemon = daemon_with_httpd(&["--body-limit", "10k"]);
    let fits = daemon.send_body(Method::POST, "/function/httpd/echo", vec![b'x'; 10_000]);
    assert_eq!((fits.status, fits.body.len()), (StatusCode::OK, 10_000));
    let path = "/function/httpd/echo";
    let announced =
        format!("POST {path} HTTP/1.1\r\nHost: t\r\nContent-Length: 10001\r\nConnection: close\r\n\r\n");
    let answer = raw(&daemon, announced.as_bytes());
    assert_eq!(status(&answer), "413", "{answer}");
    assert!(answer.contains("--body-limit"), "{answer}");
    // Not announced, to a path whose answer begins only after the whole body.
    let path = "/function/httpd/inspect";
    let mut chunked = format!("POST {path} HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n");
    for _ in 0..3 {
        chunked.push_str(&format!("fa0\r\n{}\r\n", "y".repeat(4000)));
    }
    let answer = raw(&daemon, chunked.as_bytes());
    assert_eq!(status(&answer), "413", "{answer}");
    // Images are no invocations.
    daemon.deploy("again", &program::build("httpd"), &[]);
    still_answers(&daemon);
}

fn a_head_beyond_the_limit_is_refused() {
    let daemon = daemon_with_httpd(&["--head-limit", "16Ki"]);
    let head = |fields: &str| {
        format!("GET /function/httpd/ HTTP/1.1\r\nHost: t\r\nConnection: close\r\n{fields}\r\n")
    };
    let long = |length: usize| head(&format!("X-Long: {}\r\n", "a".repeat(length)));
    let many = |count: usize| head(&(0..count).map(|i| format!("X-{i}: b\r\n")).collect::<String>());
    for (head, expected) in [
        (long(15_000), "200"),
        (long(17_000), "431"),
        (long(1 << 20), "431"),
        (many(90), "200"),
        (many(101), "431"),
        (many(100_000), "431"),
    ] {
        let answer = raw(&daemon, head.as_bytes());
        assert_eq!(status(&answer), expected, "{} bytes: {answer}", head.len());
    }
    // A head that never ends.
    let mut stream = connect(&daemon);
    stream
        .write_all(b"GET / HTTP/1.1\r\nX-Long: ")
        .expect("the gateway reads");
    while stream.write_all(&[b'a'; 1000]).is_ok() {}
    assert!(["431", ""].contains(&status(&rest(stream))));
    still_answers(&daemon);
}

fn slow_heads_are_cut_off() {
    let daemon = daemon_with_httpd(&["--head-timeout", "1s"]);
    // Nothing, half a head, and a head of which a byte comes now and then.
    assert_eq!(raw(&daemon, b""), "");
    let half = raw(&daemon, b"GET /function/httpd/ HTTP/1.1\r\nHost: t\r\n");
    assert!(["408", ""].contains(&status(&half)), "{half}");
    let mut stream = connect(&daemon);
    let mut bytes = b"GET /function/httpd/ HTTP/1.1\r\nX-Slow: "
        .iter()
        .chain(std::iter::repeat(&b'a'));
    let was_cut = (0..600).any(|_| {
        std::thread::sleep(Duration::from_millis(100));
        stream
            .write_all(&[*bytes.next().expect("it has no end")])
            .is_err()
    });
    assert!(was_cut, "it went on for a minute");
    // A kept connection without another request.
    let kept = raw(&daemon, b"GET /function/httpd/ HTTP/1.1\r\nHost: t\r\n\r\n");
    assert_eq!(status(&kept), "200");
    still_answers(&daemon);
}

fn bodies_that_stand_still_are_given_up() {
    let daemon = daemon_with_httpd(&["--body-timeout", "1s"]);
    for path in [
        "/function/httpd/inspect",
        "/async-function/httpd/inspect",
        "/system/functions",
        "/system/secrets",
        "/v2/some/blobs/uploads/?digest=sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    ] {
        let head = format!("POST {path} HTTP/1.1\r\nHost: t\r\nContent-Length: 9\r\n\r\n{{");
        let answer = raw(&daemon, head.as_bytes());
        assert_eq!(status(&answer), "408", "{path}: {answer}");
        assert!(
            answer.contains("nothing of it came for 1000 ms"),
            "{path}: {answer}"
        );
    }
    // Once the answer has begun, whoever reads it may have nothing to say for a while.
    let mut stream = connect(&daemon);
    let head = "POST /function/httpd/echo HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n";
    stream
        .write_all(format!("{head}3\r\none\r\n").as_bytes())
        .expect("the gateway reads");
    std::thread::sleep(Duration::from_millis(2500));
    stream
        .write_all(b"3\r\ntwo\r\n0\r\n\r\n")
        .expect("the gateway reads");
    let answer = rest(stream);
    assert!(status(&answer) == "200" && answer.contains("two"), "{answer}");
    still_answers(&daemon);
}

fn a_slow_body_that_moves_is_taken() {
    let daemon = daemon_with_httpd(&["--body-timeout", "2s"]);
    let mut stream = connect(&daemon);
    let head =
        "POST /function/httpd/inspect HTTP/1.1\r\nHost: t\r\nContent-Length: 12\r\nConnection: close\r\n\r\n";
    stream.write_all(head.as_bytes()).expect("the gateway reads");
    for _ in 0..12 {
        std::thread::sleep(Duration::from_millis(300));
        stream.write_all(b"x").expect("the gateway reads");
    }
    let answer = rest(stream);
    assert!(answer.contains("body 12 bytes"), "{answer}");
}

fn paths_are_taken_as_they_are() {
    let daemon = daemon_with_httpd(&[]);
    let ask = |target: &str| {
        raw(
            &daemon,
            format!("GET {target} HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n").as_bytes(),
        )
    };
    // What the function sees is what was asked for: nothing is decoded, joined or left out.
    for path in [
        "/inspect",
        "//inspect",
        "/../inspect",
        "/%2e%2e/%2e%2e/inspect",
        "/a/../../system/functions",
        "/%00",
        "/%2fsystem%2ffunctions",
        "/;x=y",
    ] {
        let answer = ask(&format!("/function/httpd{path}"));
        let is_seen = match path {
            "/inspect" => answer.contains("\npath /inspect\n"),
            // The program knows no other path.
            _ => status(&answer) == "404" && answer.ends_with("no such path\n"),
        };
        assert!(is_seen, "{path}: {answer}");
    }
    // None of these is another address than it says, so none is a function or the API.
    for target in [
        "//function/httpd/",
        "/%66unction/httpd/",
        "/function/%68ttpd/",
        "/function/../system/functions",
        "/function/%2e%2e/system/functions",
        "/function/..%2fsystem%2ffunctions/",
        "/function/httpd%00/",
        "/system/../system/functions",
        "/system//functions",
        "/SYSTEM/functions",
        "/ui/../system/functions",
        "/ui/%2e%2e/system/functions",
        "/v2/../system/functions",
    ] {
        let answer = ask(target);
        assert_eq!(status(&answer), "404", "{target}: {answer}");
    }
    // The absolute form is for proxies, and servers have to take it (RFC 9112, 3.2.2).
    let answer = ask("http://other.example/function/httpd/inspect?a=1");
    assert!(answer.contains("path /inspect\nquery a=1\n"), "{answer}");
    assert_eq!(
        status(&ask("/function/httpd/%zz")),
        "404",
        "the program knows no such path"
    );
    for (target, expected) in [
        ("*", "404"),
        ("other.example:443", "404"),
        ("/function/httpd/\0", "400"),
    ] {
        assert_eq!(status(&ask(target)), expected, "{target:?}");
    }
    let long = |length: usize| ask(&format!("/function/httpd/{}", "a".repeat(length)));
    assert_eq!(status(&long(1000)), "404");
    for length in [65_600, 1 << 20] {
        let answer = long(length);
        assert!(["414", "431"].contains(&status(&answer)), "{length}: {answer}");
    }
    still_answers(&daemon);
}

fn what_is_no_request_is_refused() {
    let daemon = daemon_with_httpd(&[]);
    for request in [
        "GET\r\n\r\n",
        "GET /function/httpd/ HTTP/1.1\r\nHo st: t\r\n\r\n",
        "GET /function/httpd/ HTTP/1.1\r\nX-Zero: a\0b\r\n\r\n",
        "GET /function/httpd/ HTTP/9.9\r\n\r\n",
        "POST /function/httpd/echo HTTP/1.1\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
        "POST /function/httpd/echo HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        "POST /function/httpd/echo HTTP/1.1\r\nTransfer-Encoding: chunked, gzip\r\n\r\n",
        "\u{16}\u{3}\u{1}\u{2}\u{0}\u{1}\u{0}\r\n\r\n",
    ] {
        let answer = raw(&daemon, request.as_bytes());
        assert!(["400", ""].contains(&status(&answer)), "{request:?}: {answer}");
    }
    // A body whose length is told twice is read in one way, by the gateway and the function alike.
    let both = "POST /function/httpd/inspect HTTP/1.1\r\nHost: t\r\nContent-Length: 40\r\nTransfer-Encoding: chunked\r\n\
                Connection: close\r\n\r\n3\r\nabc\r\n0\r\n\r\n";
    let answer = raw(&daemon, both.as_bytes());
    assert!(
        status(&answer) == "400" || answer.contains("body 3 bytes"),
        "{answer}"
    );
    still_answers(&daemon);
}

/// Every operation of the OpenAPI document: method, and path with something for each parameter.
fn operations() -> Vec<(Method, String)> {
    let text = std::fs::read_to_string(repository().join("docs/openapi.json")).expect("it is checked in");
    let document: serde_json::Value = serde_json::from_str(&text).expect("it is JSON");
    let paths = document["paths"].as_object().expect("an object");
    let mut operations = Vec::new();
    for (path, item) in paths {
        let path = path.replace(['{', '}'], "");
        for method in item.as_object().expect("an object").keys() {
            if let Ok(method) = method.to_uppercase().parse::<Method>()
                && ["GET", "POST", "PUT", "DELETE", "PATCH", "HEAD"].contains(&method.as_str())
            {
                operations.push((method, path.clone()));
            }
        }
    }
    operations
}

fn wrong_credentials_reach_no_handler() {
    let folder = tempfile::tempdir().expect("the temporary folder is writable");
    std::fs::write(folder.path().join("basic-auth-user"), "admin").expect("it is ours");
    std::fs::write(folder.path().join("basic-auth-password"), "right").expect("it is ours");
    let secrets = folder.path().to_str().expect("UTF-8");
    let daemon = Daemon::start_with(&["--secrets", secrets]);
    let basic = |pair: &str| format!("Basic {}", STANDARD.encode(pair));
    let send = |method: &Method, path: &str, credentials: Option<&str>| -> Answer {
        let mut request = client::with_body(method.clone(), path, "{}");
        if let Some(credentials) = credentials {
            let value = credentials.parse().expect("a header value");
            request.headers_mut().insert(http::header::AUTHORIZATION, value);
        }
        daemon.send(request).expect("an answer")
    };
    let mut all = operations();
    assert!(all.len() > 30, "{all:?}");
    let more = [
        "/v2/",
        "/v2/x/tags/list",
        "/ui/",
        "/ui/app.js",
        "/",
        "/system/nothing",
        "/pre-boot/1",
    ];
    all.extend(more.map(|path| (Method::GET, path.to_owned())));
    let mut refused = 0;
    for (method, path) in &all {
        let is_open =
            path == "/healthz" || path.starts_with("/function/") || path.starts_with("/async-function/");
        if is_open {
            assert_ne!(
                send(method, path, None).status,
                StatusCode::UNAUTHORIZED,
                "{method} {path}"
            );
            continue;
        }
        refused += 1;
        let (wrong, other, short) = (basic("admin:wrong"), basic("root:right"), basic("admin"));
        for credentials in [
            None,
            Some(&*wrong),
            Some(&*other),
            Some(&*short),
            Some("Basic"),
            Some("Bearer right"),
        ] {
            let answer = send(method, path, credentials);
            assert_eq!(
                answer.status,
                StatusCode::UNAUTHORIZED,
                "{method} {path} {credentials:?}"
            );
            assert!(
                answer.header("www-authenticate").starts_with("Basic "),
                "{method} {path}"
            );
        }
    }
    assert!(refused > 30, "{refused} of {}", all.len());
    let admitted = send(&Method::GET, "/system/functions", Some(&basic("admin:right")));
    assert_eq!(
        (admitted.status, admitted.text().as_str()),
        (StatusCode::OK, "[]")
    );
    // Encoded, doubled or absolute, an address is not another way in.
    for target in [
        "//system/functions",
        "/%73ystem/functions",
        "/function/../system/functions",
        "http://t/system/functions",
    ] {
        let answer = raw(
            &daemon,
            format!("GET {target} HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n").as_bytes(),
        );
        assert!(["401", "404"].contains(&status(&answer)), "{target}: {answer}");
    }
}
