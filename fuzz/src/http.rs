//! What callers send to the gateway and functions answer: bytes on both sides of a daemon whose sandbox is made up.
//!
//! ```text
//!   input: how the function behaves │ length of the first part │ what the caller sends │ what the function sends
//! ```

use std::cell::RefCell;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::json;
use sha2::{Digest as _, Sha256};
use spore_gateway::{Daemon, DaemonConfig};
use spore_sandbox::fake::{FakeControl, FakeFunction, FakeSandbox};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::runtime::Runtime;
use tokio::sync::Notify;

/// Bytes that a connection takes before its writer waits.
const BUFFER_BYTES: usize = 256 * 1024;
/// Runs with one daemon. What callers have pushed to it goes with it.
const RUNS_MAX: usize = 2000;
/// How long an answer may take, in the runtime's time: longer than every limit of the daemon's together.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(600);
/// Bits of the first byte.
const ANSWERS_FIRST: u8 = 1;
const CLOSES: u8 = 2;
const CRASHES: u8 = 4;

/// How the function behaves in this run.
#[derive(Default)]
struct Script {
    behaviour: u8,
    answer: Vec<u8>,
}

/// A daemon with the function `hello`.
struct World {
    runtime: Runtime,
    daemon: Arc<Daemon>,
    script: Arc<Mutex<Script>>,
    run_is_over: Arc<Notify>,
    runs: usize,
    _data: TempDir,
}

thread_local! {
    static WORLD: RefCell<Option<World>> = const { RefCell::new(None) };
}

pub(crate) fn run(bytes: &[u8]) {
    let Some(([behaviour, low, high], rest)) = bytes.split_first_chunk::<3>() else {
        return;
    };
    let (request, answer) = rest.split_at(usize::from(u16::from_le_bytes([*low, *high])).min(rest.len()));
    WORLD.with_borrow_mut(|world| {
        let current = world.get_or_insert_with(|| World::new().expect("a daemon starts"));
        let (answer, is_as_before) = current.play(request, *behaviour, answer);
        let is_http = answer.is_empty() || answer.starts_with(b"HTTP/1.");
        assert!(is_http, "the caller gets {:?}", String::from_utf8_lossy(&answer));
        if !is_as_before {
            *world = None;
        }
    });
}

/// What the made-up function does with a connection.
async fn serve(
    mut stream: DuplexStream,
    control: FakeControl,
    script: Arc<Mutex<Script>>,
    over: Arc<Notify>,
) {
    let (behaviour, answer) = {
        let script = script.lock().unwrap_or_else(PoisonError::into_inner);
        (script.behaviour, script.answer.clone())
    };
    let mut buffer = vec![0; 4096];
    if behaviour & ANSWERS_FIRST == 0 {
        // A caller that is gone is noticed below.
        let _ = stream.read(&mut buffer).await;
    }
    let _ = stream.write_all(&answer).await;
    if behaviour & CRASHES != 0 {
        control.crash("it was told to");
    }
    if behaviour & CLOSES != 0 {
        return;
    }
    let read_all = async { while stream.read(&mut buffer).await.is_ok_and(|length| length > 0) {} };
    tokio::select! {
        () = read_all => {}
        () = over.notified() => {}
    }
}

impl World {
    fn new() -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build()?;
        let data = tempfile::tempdir()?;
        let script = Arc::new(Mutex::new(Script::default()));
        let run_is_over = Arc::new(Notify::new());
        let sandbox = {
            let (script, over) = (script.clone(), run_is_over.clone());
            FakeSandbox::new(move |_| {
                let (script, over) = (script.clone(), over.clone());
                FakeFunction::raw(move |stream, control| serve(stream, control, script.clone(), over.clone()))
            })
        };
        let config = DaemonConfig {
            listen: ([127, 0, 0, 1], 0).into(),
            data: data.path().join("data"),
            ..DaemonConfig::default()
        };
        let daemon = runtime
            .block_on(Daemon::start(config, Arc::new(sandbox)))
            .map_err(io::Error::other)?;
        let world = Self {
            runtime,
            daemon: Arc::new(daemon),
            script,
            run_is_over,
            runs: 0,
            _data: data,
        };
        world.deploy();
        Ok(world)
    }

    /// Pushes an image and deploys it, as a client would.
    fn deploy(&self) {
        let program = [&b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x02\0\x3e\0\x01\0\0\0\0\x10\x40\0\0\0\0\0\x40\0\0\0\0\0\0\0"[..],
            &[0; 8], &[0; 4], &[64, 0, 56, 0, 1, 0, 64, 0, 0, 0, 0, 0], &[1, 0, 0, 0, 5, 0, 0, 0], &[0; 48]].concat();
        let mut builder = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_size(program.len() as u64);
        header.set_mode(0o755);
        builder
            .append_data(&mut header, "function", program.as_slice())
            .expect("writes to memory");
        let layer = builder.into_inner().expect("writes to memory");
        let config = json!({"architecture": "amd64", "os": "linux", "config": {"Entrypoint": ["/function"]},
            "rootfs": {"type": "layers", "diff_ids": []}});
        let config = config.to_string().into_bytes();
        let digest = |bytes: &[u8]| format!("sha256:{}", hex::encode(Sha256::digest(bytes)));
        for blob in [&layer, &config] {
            let started = self.call("POST", "/v2/hello/blobs/uploads/", b"");
            let location = started
                .lines()
                .find_map(|line| line.strip_prefix("location: "))
                .expect("an upload has a place");
            let stored = self.call("PUT", &format!("{location}?digest={}", digest(blob)), blob);
            assert!(stored.starts_with("HTTP/1.1 201"), "{stored}");
        }
        let describe = |kind: &str, blob: &[u8]| json!({"mediaType": format!("application/vnd.oci.image.{kind}"), "digest": digest(blob), "size": blob.len()});
        let manifest = json!({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": describe("config.v1+json", &config), "layers": [describe("layer.v1.tar", &layer)]});
        let stored = self.call(
            "PUT",
            "/v2/hello/manifests/latest",
            manifest.to_string().as_bytes(),
        );
        assert!(stored.starts_with("HTTP/1.1 201"), "{stored}");
        let deployed = self.call(
            "POST",
            "/system/functions",
            br#"{"service": "hello", "image": "hello:latest"}"#,
        );
        assert!(deployed.starts_with("HTTP/1.1 202"), "{deployed}");
    }

    /// A request of a caller that keeps to the rules.
    fn call(&self, method: &str, path: &str, body: &[u8]) -> String {
        let length = body.len();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n"
        );
        String::from_utf8_lossy(&self.send(&[head.as_bytes(), body].concat())).into_owned()
    }

    /// Sends bytes on a connection of their own; all that is answered.
    fn send(&self, bytes: &[u8]) -> Vec<u8> {
        let (mut ours, theirs) = duplex(BUFFER_BYTES);
        let daemon = self.daemon.clone();
        self.runtime.block_on(async move {
            let serving = tokio::spawn(async move { daemon.serve_stream(theirs).await });
            let mut answer = Vec::new();
            let talk = async {
                // A daemon that has heard enough closes the connection.
                let _ = ours.write_all(bytes).await;
                let _ = ours.read_to_end(&mut answer).await;
            };
            let _ = tokio::time::timeout(ANSWER_TIMEOUT, talk).await;
            drop(ours);
            let ended = tokio::time::timeout(ANSWER_TIMEOUT, serving).await;
            assert!(
                ended.is_ok_and(|ended| ended.is_ok()),
                "a connection ends with its caller"
            );
            answer
        })
    }

    /// A run; what the caller is answered, and whether the next one finds the daemon as this one did.
    fn play(&mut self, request: &[u8], behaviour: u8, answer: &[u8]) -> (Vec<u8>, bool) {
        *self.script.lock().unwrap_or_else(PoisonError::into_inner) = Script {
            behaviour,
            answer: answer.to_vec(),
        };
        let got = self.send(request);
        self.run_is_over.notify_waiters();
        let health = self.call("GET", "/healthz", b"");
        assert!(health.starts_with("HTTP/1.1 200"), "the daemon answers others");
        let functions = self.call("GET", "/system/functions", b"");
        assert!(functions.starts_with("HTTP/1.1 200"), "{functions}");
        self.runs += 1;
        let is_as_before = functions.matches("\"name\"").count() == 1 && functions.contains("hello");
        (got, is_as_before && self.runs < RUNS_MAX)
    }
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let seed = |behaviour: u8, request: &str, answer: &str| {
        let length = (request.len() as u16).to_le_bytes();
        [&[behaviour], &length[..], request.as_bytes(), answer.as_bytes()].concat()
    };
    let get = "GET /function/hello/a?b=c HTTP/1.1\r\nhost: x\r\n\r\n";
    let post = "POST /function/hello HTTP/1.1\r\nhost: x\r\ncontent-length: 4\r\nconnection: x-a\r\nx-a: 1\r\n\r\nbody";
    let chunked = "POST /function/hello HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\nexpect: 100-continue\r\n\r\n\
        4\r\nbody\r\n0\r\ntrailer: 1\r\n\r\n";
    let whole = "HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-type: text/html\r\n\r\nhello";
    vec![
        seed(0, get, whole),
        seed(
            0,
            post,
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        ),
        seed(2, chunked, "HTTP/1.0 200 OK\r\n\r\nuntil the end"),
        seed(
            0,
            &[get, get].concat(),
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n",
        ),
        seed(1, get, &[whole, whole].concat()),
        seed(4, get, "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhello"),
        seed(
            2,
            get,
            "HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n",
        ),
        seed(2, "HEAD /function/hello HTTP/1.0\r\n\r\n", "no http at all"),
        seed(0, "GET /system/functions HTTP/1.1\r\nhost: x\r\n\r\n", ""),
        seed(
            0,
            "GET /system/logs?name=hello&tail=3&follow=false HTTP/1.1\r\nhost: x\r\n\r\n",
            "",
        ),
        seed(
            0,
            "DELETE /system/functions HTTP/1.1\r\nhost: x\r\ncontent-length: 24\r\n\r\n{\"functionName\":\"hello\"}",
            "",
        ),
        seed(
            0,
            "PUT /system/functions HTTP/1.1\r\nhost: x\r\ncontent-length: 68\r\n\r\n{\"service\":\"hello\",\"image\":\"hello:latest\",\"limits\":{\"memory\":\"64Mi\"}}",
            "",
        ),
        seed(
            0,
            "POST /v2/hello/blobs/uploads/?digest=sha256:00 HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\n\r\nx",
            "",
        ),
        seed(
            0,
            "GET /v2/hello/tags/list?n=1&last=a HTTP/1.1\r\nhost: x\r\n\r\n",
            "",
        ),
        seed(
            0,
            "PATCH /v2/hello/blobs/uploads/00000000-0000-0000-0000-000000000000 HTTP/1.1\r\nhost: x\r\ncontent-range: 0-3\r\ncontent-length: 4\r\n\r\nblob",
            "",
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(world: &mut World, seed: &[u8]) -> String {
        let (request, answer) = seed[3..].split_at(usize::from(u16::from_le_bytes([seed[1], seed[2]])));
        let (got, _) = world.play(request, seed[0], answer);
        String::from_utf8_lossy(&got)
            .lines()
            .next()
            .unwrap_or_default()
            .to_owned()
    }

    #[test]
    fn the_seeds_reach_the_function_and_the_interfaces() {
        let mut world = World::new().unwrap();
        let statuses: Vec<_> = seeds().iter().map(|seed| status(&mut world, seed)).collect();
        let count = |code: &str| statuses.iter().filter(|status| status.contains(code)).count();
        assert!(count(" 200 ") >= 6, "{statuses:#?}");
        assert!(count(" 502 ") >= 1 && count(" 404 ") >= 1, "{statuses:#?}");
    }
}
