//! Answers that come before the request has: a client that looks only after its last byte finds them.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::json;
use spore_sandbox::fake::{FakeFunction, FakeSandbox, response};

mod support;

use support::{Fixture, static_program};

/// More than all buffers between client and gateway hold.
const BODY_BYTES: usize = 64 << 20;

/// Sends a head and a long body, and looks for the answer only then.
fn upload(address: SocketAddr, path: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(60)))?;
    let head = format!("POST {path} HTTP/1.1\r\nHost: test\r\nContent-Length: {BODY_BYTES}\r\n\r\n");
    stream.write_all(head.as_bytes())?;
    let piece = vec![b'x'; 1 << 20];
    for _ in 0..BODY_BYTES / piece.len() {
        stream.write_all(&piece)?;
    }
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_hears_why_nobody_reads_what_it_sends() {
    let function = FakeFunction::http(|request, control| async move {
        if request.uri().path() == "/crash" {
            control.crash("null call");
            std::future::pending::<()>().await;
        }
        response(401, "who are you?")
    });
    let sandbox = FakeSandbox::new(move |_| function.clone());
    let fixture = Fixture::start_with(sandbox, |config| config.max_body_bytes = Some(100 << 20)).await;
    fixture.push("hello", &static_program()).await;
    fixture.deploy(json!({})).await;
    let limited = Fixture::start_with(FakeSandbox::new(|_| FakeFunction::echo()), |config| {
        config.max_body_bytes = Some(1000)
    })
    .await;
    limited.push("hello", &static_program()).await;
    limited.deploy(json!({})).await;
    for (address, path, status) in [
        (limited.address, "/function/hello", "413"),
        (limited.address, "/function/nobody", "404"),
        (fixture.address, "/function/hello/crash", "502"),
        (fixture.address, "/function/hello", "401"),
    ] {
        let sent = tokio::task::spawn_blocking(move || upload(address, path)).await;
        let answer = sent.expect("it does not panic");
        let answer = answer.unwrap_or_else(|error| panic!("{path}, which should be {status}: {error}"));
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status} ")),
            "{path}: {answer}"
        );
    }
}
