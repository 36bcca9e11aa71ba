//! A server that takes the results of invocations nobody waits for.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use http::header::{HeaderMap, HeaderName, HeaderValue};

/// A result as it came.
#[derive(Debug, Clone)]
pub struct Received {
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Vec<u8>,
}

#[derive(Default)]
struct Results {
    /// By call ID.
    received: Mutex<HashMap<String, Vec<Received>>>,
    more: Condvar,
}

impl Results {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, Vec<Received>>> {
        self.received.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The server. It goes on until the test process ends.
pub struct Callbacks {
    url: String,
    results: Arc<Results>,
}

impl Callbacks {
    /// Starts it on a free port of the loopback address.
    pub fn start() -> Self {
        let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).expect("a port is free");
        let address = listener.local_addr().expect("it is bound");
        let results = Arc::new(Results::default());
        let shared = results.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let shared = shared.clone();
                std::thread::spawn(move || receive(stream, &shared));
            }
        });
        Self {
            url: format!("http://{address}/results"),
            results,
        }
    }

    /// Where results are sent to.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The first result of an invocation, once it is there.
    pub fn wait_for(&self, call_id: &str, timeout: Duration) -> Received {
        let deadline = Instant::now() + timeout;
        let mut received = self.results.lock();
        loop {
            if let Some(result) = received.get(call_id).and_then(|results| results.first()) {
                return result.clone();
            }
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "no result of {call_id} came within {timeout:?}");
            let waited = self.results.more.wait_timeout(received, left);
            received = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// How many results of an invocation have come.
    pub fn count(&self, call_id: &str) -> usize {
        self.results.lock().get(call_id).map_or(0, Vec::len)
    }

    /// Of how many invocations results have come, and how many results.
    pub fn counts(&self) -> (usize, usize) {
        let received = self.results.lock();
        (received.len(), received.values().map(Vec::len).sum())
    }
}

/// Takes one result; a connection that breaks brings none.
fn receive(stream: TcpStream, results: &Results) -> Option<()> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let mut headers = HeaderMap::new();
    loop {
        line.clear();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim_end().split_once(':') else {
            break;
        };
        let name = HeaderName::from_bytes(name.as_bytes()).ok()?;
        headers.append(name, HeaderValue::from_str(value.trim()).ok()?);
    }
    let length = headers.get("content-length")?.to_str().ok()?.parse().ok()?;
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    let call_id = headers.get("x-call-id")?.to_str().ok()?.to_owned();
    results
        .lock()
        .entry(call_id)
        .or_default()
        .push(Received { headers, body });
    results.more.notify_all();
    let answer = b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n";
    reader.get_mut().write_all(answer).ok()
}
