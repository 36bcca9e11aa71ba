//! Connections to the outside: what a rule allows works, everything else is refused and said in the log.

use std::io::{Read, Write};
use std::net::{TcpListener, UdpSocket};
use std::process::{Command, Output, Stdio};
use std::thread;

use spore_test_harness::daemon::{Daemon, binary};
use spore_test_harness::program;

use crate::{Test, with_functions};

pub(crate) const TESTS: &[Test] = with_functions![
    a_connection_that_a_rule_allows_works,
    a_connection_without_a_rule_is_refused_and_said,
    datagrams_go_where_a_rule_allows,
    names_are_found_if_a_rule_has_them,
    the_daemon_applies_a_functions_rules,
];

/// The error numbers that a program sees.
const EACCES: &str = "error 13\n";
const ECONNREFUSED: &str = "error 111\n";

fn outgoing(rules: &[String], arguments: &[&str]) -> Output {
    let mut command = Command::new(binary());
    command.arg("run").args(spore_test_harness::isolation_options());
    for rule in rules {
        command.args(["--allow-egress", rule]);
    }
    command.arg(program::build("outgoing")).args(arguments);
    command.stdin(Stdio::null());
    command.output().expect("the spore binary can be run")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A server that answers each connection with what it was sent, in capital letters; its port.
fn server() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let port = listener.local_addr().expect("it has an address").port();
    // Ends with the process.
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut buffer = [0; 64];
            let length = stream.read(&mut buffer).unwrap_or(0);
            // The other side may have gone.
            let _ = stream.write_all(&buffer[..length].to_ascii_uppercase());
        }
    });
    port
}

fn a_connection_that_a_rule_allows_works() {
    let port = server();
    let run = outgoing(
        &[format!("127.0.0.1:{port}")],
        &["tcp", "127.0.0.1", &port.to_string()],
    );
    assert_eq!(text(&run.stdout), "PING\n", "{}", text(&run.stderr));
}

fn a_connection_without_a_rule_is_refused_and_said() {
    let port = server();
    // Loopback is the program's own unless a rule names it.
    let run = outgoing(&[], &["tcp", "127.0.0.1", &port.to_string()]);
    assert_eq!(text(&run.stdout), ECONNREFUSED);
    let everywhere = ["0.0.0.0/0".to_owned(), "::/0".to_owned()];
    let run = outgoing(&everywhere, &["tcp", "127.0.0.1", &port.to_string()]);
    assert_eq!(text(&run.stdout), ECONNREFUSED);

    let run = outgoing(&[], &["tcp", "192.0.2.1", "80"]);
    assert_eq!(text(&run.stdout), EACCES);
    assert!(
        text(&run.stderr).contains("192.0.2.1:80"),
        "{}",
        text(&run.stderr)
    );
    let run = outgoing(&everywhere, &["tcp", "169.254.169.254", "80"]);
    assert_eq!(text(&run.stdout), EACCES, "{}", text(&run.stderr));
}

fn datagrams_go_where_a_rule_allows() {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a port is free");
    let port = socket.local_addr().expect("it has an address").port();
    thread::spawn(move || {
        let mut buffer = [0; 64];
        while let Ok((length, source)) = socket.recv_from(&mut buffer) {
            // The other side may have gone.
            let _ = socket.send_to(&buffer[..length].to_ascii_uppercase(), source);
        }
    });
    let run = outgoing(
        &[format!("127.0.0.1:{port}")],
        &["udp", "127.0.0.1", &port.to_string()],
    );
    assert_eq!(text(&run.stdout), "PING\n", "{}", text(&run.stderr));
    let run = outgoing(&[], &["udp", "192.0.2.1", "9"]);
    assert_eq!(text(&run.stdout), EACCES, "{}", text(&run.stderr));
}

fn names_are_found_if_a_rule_has_them() {
    let run = outgoing(&["localhost:80".to_owned()], &["name", "localhost"]);
    assert_eq!(text(&run.stdout), "127.0.0.1\n", "{}", text(&run.stderr));
    let run = outgoing(&["localhost:80".to_owned()], &["name", "other.example.com"]);
    assert_eq!(text(&run.stdout), "code 3\n", "{}", text(&run.stderr));
    assert!(
        text(&run.stderr).contains("other.example.com"),
        "{}",
        text(&run.stderr)
    );
}

fn the_daemon_applies_a_functions_rules() {
    let (allowed, other) = (server(), server());
    let daemon = Daemon::start();
    let rule = format!("127.0.0.1:{allowed}");
    let program = program::build("outgoing");
    daemon.deploy("outgoing", &program, &["--allow-egress", &rule]);
    let answer = daemon.get(&format!("/function/outgoing/{allowed}"));
    assert_eq!(answer.text(), "PING", "{}", daemon.log());
    let answer = daemon.get(&format!("/function/outgoing/{other}"));
    assert_eq!(answer.text(), ECONNREFUSED.trim_end());
    daemon.wait_for_log(
        "outgoing",
        &format!("a connection to 127.0.0.1:{other} was denied"),
    );
}
