//! Upgraded connections that break: of either side's end nothing is left.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use spore_test_harness::daemon::Daemon;
use spore_test_harness::{program, wait_until};

use crate::{Test, with_functions};

pub(crate) const TESTS: &[Test] = with_functions![
    a_tunnel_whose_instance_dies_ends_with_it,
    a_tunnel_whose_client_dies_takes_its_instance_along,
];

const PATIENCE: Duration = Duration::from_secs(30);
const TUNNELS: usize = 4;

fn daemon() -> Daemon {
    let daemon = Daemon::start();
    daemon.deploy("upgrade", &program::build("upgrade"), &[]);
    daemon
}

/// Opens a connection that is upgraded to one that sends all bytes back, and sees that it is.
fn open(daemon: &Daemon) -> TcpStream {
    let mut stream = TcpStream::connect(daemon.address()).expect("the gateway listens");
    stream
        .set_read_timeout(Some(PATIENCE))
        .expect("a timeout can be set");
    let head =
        "GET /function/upgrade/ HTTP/1.1\r\nHost: test\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n";
    stream.write_all(head.as_bytes()).expect("the gateway reads");
    let mut reader = BufReader::new(stream.try_clone().expect("a descriptor can be duplicated"));
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        let length = reader.read_line(&mut head).expect("the gateway answers");
        assert_ne!(length, 0, "the connection has ended after {head:?}");
    }
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    stream.write_all(b"ping").expect("the gateway reads");
    let mut back = [0; 4];
    reader.read_exact(&mut back).expect("the function answers");
    assert_eq!(&back, b"ping");
    stream
}

/// Connections with the gateway's port that are not closed on its side.
fn connections(daemon: &Daemon) -> usize {
    let port = format!(":{:04X}", daemon.address().port());
    let table = std::fs::read_to_string("/proc/net/tcp").expect("/proc is mounted");
    let of_gateway = table.lines().skip(1).filter(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        // Neither those that wait for late packets, nor the listener.
        fields[1].ends_with(&port) && !["06", "0A"].contains(&fields[3])
    });
    of_gateway.count()
}

fn in_flight(daemon: &Daemon) -> bool {
    let metrics = daemon.get("/metrics").text();
    !metrics.contains(r#"gateway_function_invocation_inflight{function_name="upgrade.openfaas-fn"} 0"#)
}

/// Waits until neither connection, invocation nor instance is left, and asks for another one.
fn nothing_is_left(daemon: &Daemon) {
    let is_free = wait_until(PATIENCE, || !in_flight(daemon));
    assert!(is_free, "{}", daemon.get("/metrics").text());
    let is_closed = wait_until(PATIENCE, || connections(daemon) == 0);
    assert!(is_closed, "{} connections are left", connections(daemon));
    let has_ended = wait_until(PATIENCE, || daemon.descendants().is_empty());
    assert!(has_ended, "{:?}\n{}", daemon.descendants(), daemon.log());
    drop(open(daemon));
}

fn a_tunnel_whose_instance_dies_ends_with_it() {
    let daemon = daemon();
    let mut clients: Vec<_> = (0..TUNNELS).map(|_| open(&daemon)).collect();
    for instance in daemon.descendants() {
        // The guest's process may have gone with its monitor meanwhile.
        let _ = kill_process(
            Pid::from_raw(instance.pid).expect("a process number"),
            Signal::KILL,
        );
    }
    for client in &mut clients {
        let mut rest = Vec::new();
        // It is cut off, which is an end or an error; nothing that the function did not send comes before.
        let _ = client.read_to_end(&mut rest);
        assert!(rest.is_empty(), "{rest:?}");
    }
    drop(clients);
    nothing_is_left(&daemon);
}

fn a_tunnel_whose_client_dies_takes_its_instance_along() {
    let daemon = daemon();
    let clients: Vec<_> = (0..TUNNELS).map(|_| open(&daemon)).collect();
    for client in &clients {
        // As of a client that is killed with bytes unread: the connection is reset.
        rustix::net::sockopt::set_socket_linger(client, Some(Duration::ZERO)).expect("an option can be set");
    }
    drop(clients);
    nothing_is_left(&daemon);
}
