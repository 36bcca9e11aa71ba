//! Functions after functions: each gets what the one before has answered, and adds a byte.
//!
//! The client passes answers on, so that the same is measured in every target: functions that may connect to nothing are in
//! it too. All links are invocations of the same program.

use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Method;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::cold::LONE_IDLE;
use super::warm::with_instances;
use super::{MeasureError, Reading};
use crate::client::{Ask, Place, ask_once};
use crate::context::Context;
use crate::targets::subject::Subject;

/// How long a result may take to be called back.
const CALLBACK_TIMEOUT: Duration = Duration::from_secs(30);
/// Longest callback that is read, in bytes.
const CALLBACK_BYTES_MAX: usize = 64 << 10;

/// A chain of so many, in three ways.
pub(super) fn all(context: &Context, subject: &Subject, length: u32) -> Result<Vec<Reading>, MeasureError> {
    if !subject.has_workloads() {
        return Err(MeasureError::NotApplicable);
    }
    let mut readings = Vec::new();
    std::thread::sleep(LONE_IDLE);
    let begun = Instant::now();
    if let Some(function) = subject.fresh_function() {
        let place = context.gateway()?.function(function);
        context.clock.block_on(synchronous(&[place], length))?;
    } else {
        for _ in 0..length {
            subject.fresh(context, &next(Bytes::new()), false)?;
        }
    }
    readings.push(Reading::times("chain-cold", [begun.elapsed()]));
    readings.extend(with_instances(context, subject, 1, |context, held| {
        context.clock.block_on(async {
            synchronous(&held.places, 1).await?; // connections inside, first bytes
            let begun = Instant::now();
            synchronous(&held.places, length).await?;
            let mut readings = vec![Reading::times("chain-warm", [begun.elapsed()])];
            if let Some(function) = subject.kept_function() {
                let queue = context.gateway()?.queue(function);
                let elapsed = asynchronous(&queue, length).await?;
                readings.push(Reading::times("chain-async", [elapsed]));
            }
            Ok(readings)
        })
    })?);
    Ok(readings)
}

fn next(body: Bytes) -> Ask {
    Ask::new(Method::POST, "/next", body)
}

async fn synchronous(places: &[Place], length: u32) -> Result<(), MeasureError> {
    let mut body = Bytes::new();
    for index in 0..length as usize {
        let (_, answer) = ask_once(&places[index % places.len()], &next(body)).await?;
        body = answer.body;
    }
    check_length(&body, length)
}

/// Every link adds a byte, so the last answer tells how many there were.
fn check_length(body: &[u8], length: u32) -> Result<(), MeasureError> {
    if body.len() == length as usize {
        return Ok(());
    }
    Err(MeasureError::WrongAnswer {
        what: "a chain".to_owned(),
        found: body.len() as f64,
        expected: f64::from(length),
    })
}

/// Each link is accepted by the queue, and its result called back.
async fn asynchronous(queue: &Place, length: u32) -> Result<Duration, MeasureError> {
    let listener = TcpListener::bind("127.0.0.1:0")
        .await
        .map_err(MeasureError::Listen)?;
    let address = listener.local_addr().map_err(MeasureError::Listen)?;
    let begun = Instant::now();
    let mut body = Bytes::new();
    for _ in 0..length {
        let mut ask = next(body);
        ask.header = Some(("x-callback-url", format!("http://{address}/")));
        ask_once(queue, &ask).await?;
        let called = tokio::time::timeout(CALLBACK_TIMEOUT, callback(&listener)).await;
        body = called
            .map_err(|_| MeasureError::NoCallback)?
            .map_err(MeasureError::Listen)?;
    }
    let elapsed = begun.elapsed();
    check_length(&body, length)?;
    Ok(elapsed)
}

/// Takes one callback, and answers it; its body.
async fn callback(listener: &TcpListener) -> std::io::Result<Bytes> {
    let (mut stream, _) = listener.accept().await?;
    let mut data = Vec::new();
    let (head, length) = loop {
        let end = data.windows(4).position(|part| part == b"\r\n\r\n");
        if let Some(end) = end {
            let head = String::from_utf8_lossy(&data[..end]).to_ascii_lowercase();
            let value = head.lines().find_map(|line| line.strip_prefix("content-length:"));
            break (
                end + 4,
                value.and_then(|value| value.trim().parse().ok()).unwrap_or(0),
            );
        }
        read_more(&mut stream, &mut data).await?;
    };
    while data.len() < head + length {
        read_more(&mut stream, &mut data).await?;
    }
    stream
        .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        .await?;
    Ok(Bytes::copy_from_slice(&data[head..head + length]))
}

async fn read_more(stream: &mut tokio::net::TcpStream, data: &mut Vec<u8>) -> std::io::Result<()> {
    if data.len() > CALLBACK_BYTES_MAX {
        return Err(std::io::ErrorKind::InvalidData.into());
    }
    match stream.read_buf(data).await? {
        0 => Err(std::io::ErrorKind::UnexpectedEof.into()),
        _ => Ok(()),
    }
}
