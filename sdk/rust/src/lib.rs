//! Spore SDK for Rust: the HTTP server around `async fn handle(Request<Bytes>) -> Response<Bytes>`.
//!
//! ```no_run
//! use bytes::Bytes;
//! use http::{Request, Response};
//!
//! async fn handle(request: Request<Bytes>) -> Response<Bytes> {
//!     Response::new(request.into_body())
//! }
//!
//! fn main() {
//!     spore::serve(handle);
//! }
//! ```
//!
//! The future runs on tokio, on the program's only thread. A handler that panics is answered with status 500, and the
//! log has the message.

use std::convert::Infallible;
use std::error::Error;
use std::fs::File;
use std::future::Future;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr};
use std::pin::pin;
use std::sync::Mutex;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

/// The kernel's number of the generation of this memory; see docs/snapshots.md.
const DEVICE: &str = "/dev/sysgenid";

type Callback = Box<dyn FnMut() + Send>;

static BEFORE_SNAPSHOT: Mutex<Vec<Callback>> = Mutex::new(Vec::new());
static AFTER_RESTORE: Mutex<Vec<Callback>> = Mutex::new(Vec::new());

/// Lets `callback` be called once before the snapshot is made, by [`serve`]: what it loads or computes, every clone has
/// from the start. Where there are no snapshots, it is never called.
pub fn before_snapshot(callback: impl FnMut() + Send + 'static) {
    add(&BEFORE_SNAPSHOT, Box::new(callback));
}

/// Lets `callback` be called in each clone before its first request reaches the program, on a thread of its own. If it
/// panics, the instance ends. Where there are no snapshots, it is never called.
pub fn after_restore(callback: impl FnMut() + Send + 'static) {
    add(&AFTER_RESTORE, Box::new(callback));
}

fn add(callbacks: &Mutex<Vec<Callback>>, callback: Callback) {
    callbacks
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner())
        .push(callback);
}

fn call(callbacks: &Mutex<Vec<Callback>>) {
    let mut callbacks = callbacks.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    for callback in callbacks.iter_mut() {
        callback();
    }
}

/// Answers requests by `handle`, on port `PORT` (8080) of `SPORE_ADDRESS` (all), until the program ends.
///
/// # Panics
///
/// If it cannot listen, or a variable has no meaning.
pub fn serve<H, F>(handle: H)
where
    H: Fn(Request<Bytes>) -> F + Clone + 'static,
    F: Future<Output = Response<Bytes>> + 'static,
{
    watch();
    if std::env::var("SPORE_INITIALIZATION").is_ok_and(|value| value == "snapshot") {
        call(&BEFORE_SNAPSHOT);
    }
    block_on(async {
        if let Err(error) = listen(handle).await {
            panic!("the function cannot serve: {error}");
        }
    });
}

/// Runs a future as [`serve`] does: for tests of handlers.
///
/// # Panics
///
/// If the runtime cannot be started.
pub fn block_on<F: Future>(future: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.unwrap_or_else(|error| panic!("the runtime cannot be started: {error}"));
    tokio::task::LocalSet::new().block_on(&runtime, future)
}

async fn listen<H, F>(handle: H) -> Result<(), Box<dyn Error>>
where
    H: Fn(Request<Bytes>) -> F + Clone + 'static,
    F: Future<Output = Response<Bytes>> + 'static,
{
    let address = match std::env::var("SPORE_ADDRESS") {
        Ok(text) if !text.is_empty() => text.parse()?,
        _ => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
    };
    let port = match std::env::var("PORT") {
        Ok(text) if !text.is_empty() => text.parse()?,
        _ => 8080,
    };
    let listener = TcpListener::bind((address, port)).await?;
    loop {
        let (stream, _) = listener.accept().await?;
        let handle = handle.clone();
        tokio::task::spawn_local(async move {
            let service = service_fn(move |request| answer(request, handle.clone()));
            // A peer that goes away in the middle is nobody's fault here.
            let _ = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
}

async fn answer<H, F>(request: Request<Incoming>, handle: H) -> Result<Response<Full<Bytes>>, Infallible>
where
    H: Fn(Request<Bytes>) -> F + 'static,
    F: Future<Output = Response<Bytes>> + 'static,
{
    let (head, body) = request.into_parts();
    let Ok(body) = body.collect().await else {
        return Ok(text(StatusCode::BAD_REQUEST, "the body broke off\n"));
    };
    let request = Request::from_parts(head, body.to_bytes());
    // As a task of its own, a panic is this request's alone.
    let task = tokio::task::spawn_local(async move { pin!(handle(request)).await });
    Ok(match task.await {
        Ok(response) => response.map(Full::new),
        Err(_) => text(
            StatusCode::INTERNAL_SERVER_ERROR,
            "the function's handler failed: its log says why\n",
        ),
    })
}

fn text(status: StatusCode, text: &'static str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from_static(text.as_bytes())));
    *response.status_mut() = status;
    response
}

/// Waits for this memory to go on as a clone, on a thread of its own; not where there is no such device.
fn watch() {
    let Ok(mut device) = File::options().read(true).write(true).open(DEVICE) else {
        return;
    };
    std::thread::spawn(move || {
        let mut generation = [0; 4];
        while device.read_exact(&mut generation).is_ok() {
            let called = std::panic::catch_unwind(|| call(&AFTER_RESTORE));
            // The first request waits for what is written.
            if called.is_err() || device.write_all(&generation).is_err() {
                std::process::exit(1);
            }
        }
    });
}
