//! The servers of the SDKs for Python and Node as ordinary processes: what they refuse, and that connections get in between
//! each other.
//!
//! Requests are written byte by byte as given here, since a well-behaved HTTP client could not send most of them.

mod common;

use std::ffi::OsStr;
use std::path::Path;

use common::{Server, body_of, status_of};

const PYTHON_HANDLER: &str = "
def handle(event, context):
    if event.path == '/bad-header':
        return {'headers': {'a': 'b\\r\\nc: d'}}
    if event.path == '/bad-status':
        return {'statusCode': 99}
    return f'{event.method} {event.path} {len(event.body)} {event.headers.get(\"X-A\")}'
";
const NODE_HANDLER: &str = "
module.exports = async (event) => {
  if (event.path === '/bad-header') return { headers: { a: 'b\\r\\nc: d' } };
  if (event.path === '/bad-status') return { statusCode: 99 };
  return `${event.method} ${event.path} ${event.rawBody.length} ${event.headers['x-a'] ?? 'None'}`;
};
";

/// Both servers, as far as this machine has the interpreters; at least one.
fn with_servers(test: impl Fn(&Server)) {
    with_servers_in(&[], |_, server| test(server));
}

/// The same, with these in their environment; `test` is told the interpreter.
fn with_servers_in(variables: &[(&str, &str)], test: impl Fn(&str, &Server)) {
    let sdk = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../sdk");
    let languages = [
        ("python3", "python/server.py", "handler.py", PYTHON_HANDLER),
        ("node", "node/server.js", "handler.js", NODE_HANDLER),
    ];
    let path = std::env::var_os("PATH").unwrap();
    for (interpreter, server, file, code) in languages {
        let found = std::env::split_paths(&path)
            .map(|folder| folder.join(interpreter))
            .find(|program| program.is_file());
        let Some(program) = found else {
            eprintln!("skipped: there is no {interpreter}");
            continue;
        };
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(file), code).unwrap();
        let server = sdk.join(server);
        let words: [&OsStr; 3] = [program.as_os_str(), server.as_os_str(), folder.path().as_os_str()];
        let mut environment = vec![("PATH", path.to_str().unwrap()), ("PYTHONDONTWRITEBYTECODE", "1")];
        environment.extend(variables);
        test(interpreter, &Server::start_command(&words, &environment));
    }
}

#[test]
fn requests_are_taken_apart_however_they_are_framed() {
    with_servers(|server| {
        let chunked = b"POST /a?b HTTP/1.1\r\nHost: h\r\nX-A: 1\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n\
                        3;x=y\r\nabc\r\n2\r\nde\r\n0\r\nTrailer: t\r\n\r\n";
        assert_eq!(body_of(&server.exchange(chunked)), "POST /a 5 1");
        let plain = b"PUT /%C3%A4 HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\nConnection: close\r\n\r\nab";
        assert_eq!(body_of(&server.exchange(plain)), "PUT /\u{e4} 2 None");
        let head = b"HEAD / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n";
        let answer = server.exchange(head);
        assert_eq!((status_of(&answer), body_of(&answer)), (200, ""));
    });
}

#[test]
fn what_is_no_request_is_refused_and_harms_nobody() {
    with_servers(|server| {
        for bad in [
            &b"GARBAGE\r\n\r\n"[..],
            b"GET / HTTP/1.1\r\nHost: h\r\nno colon\r\n\r\n",
            b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: -1\r\n\r\n",
            b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            b"POST / HTTP/1.1\r\nHost: h\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n",
        ] {
            let answer = server.exchange(bad);
            let shown = String::from_utf8_lossy(bad);
            assert!(
                answer.is_empty() || status_of(&answer) == 400,
                "{shown}: {answer}"
            );
        }
        let long = format!(
            "GET / HTTP/1.1\r\nHost: h\r\nX-Long: {}\r\n\r\n",
            "a".repeat(70_000)
        );
        let answer = server.exchange(long.as_bytes());
        // A server that does not read on resets the connection, and the answer may be lost.
        assert!(answer.is_empty() || status_of(&answer) == 431, "{answer}");
        for path in ["/bad-header", "/bad-status"] {
            let request = format!("GET {path} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
            let answer = server.exchange(request.as_bytes());
            assert_eq!(status_of(&answer), 500, "{answer}");
            assert!(!answer.contains("c: d"), "{answer}");
        }
        let good = b"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n";
        assert_eq!(body_of(&server.exchange(good)), "GET / 0 None");
    });
}

#[test]
fn an_idle_connection_keeps_nobody_out() {
    with_servers(|server| {
        let _idle = server.connect_raw();
        let mut kept = server.connect();
        for _ in 0..2 {
            kept.send(b"GET /kept HTTP/1.1\r\nHost: h\r\n\r\n");
            assert_eq!(body_of(&kept.receive()), "GET /kept 0 None");
            let other = server.exchange(b"GET /other HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
            assert_eq!(body_of(&other), "GET /other 0 None");
        }
    });
}

#[test]
fn a_server_in_node_practises_one_request_before_its_snapshot_and_no_other() {
    let practice = b"GET /.spore/practice HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n";
    let handled = "GET /.spore/practice 0 None";
    with_servers(|server| assert_eq!(body_of(&server.exchange(practice)), handled));
    with_servers_in(&[("SPORE_INITIALIZATION", "snapshot")], |interpreter, server| {
        let first = server.exchange(practice);
        assert_eq!(status_of(&first), 200, "{first}");
        assert_eq!(body_of(&first) == handled, interpreter != "node", "{first}");
        assert_eq!(
            body_of(&server.exchange(practice)),
            handled,
            "it is the function's again"
        );
    });
}
