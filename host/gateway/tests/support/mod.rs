//! What the gateway's tests share: a daemon with the fake sandbox, and a client over real HTTP.

// Each test program uses a part of this.
#![allow(dead_code, unreachable_pub)]

use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Incoming};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use spore_gateway::{Daemon, DaemonConfig};
use spore_sandbox::fake::{FakeFunction, FakeSandbox, response};
use tempfile::TempDir;
use tokio::net::TcpStream;

/// A daemon on a free port with a data directory of its own.
pub struct Fixture {
    pub daemon: Option<Daemon>,
    pub address: SocketAddr,
    pub sandbox: FakeSandbox,
    pub data: TempDir,
}

pub fn config(data: &TempDir) -> DaemonConfig {
    DaemonConfig {
        listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
        data: data.path().to_owned(),
        shutdown_grace: Duration::from_secs(5),
        ..DaemonConfig::default()
    }
}

impl Fixture {
    /// A daemon whose functions all behave like `function`.
    pub async fn start(function: FakeFunction) -> Self {
        Self::start_with(FakeSandbox::new(move |_| function.clone()), |_| {}).await
    }

    pub async fn start_with(sandbox: FakeSandbox, change: impl FnOnce(&mut DaemonConfig)) -> Self {
        let data = tempfile::tempdir().expect("a temporary folder");
        let mut config = config(&data);
        change(&mut config);
        let daemon = Daemon::start(config, Arc::new(sandbox.clone()))
            .await
            .expect("the daemon starts");
        Self {
            address: daemon.local_address(),
            daemon: Some(daemon),
            sandbox,
            data,
        }
    }

    /// A daemon with the function `hello` deployed; `settings` are added to its deployment.
    pub async fn with_hello(function: FakeFunction, settings: Value) -> Self {
        let fixture = Self::start(function).await;
        fixture.push("hello", &static_program()).await;
        fixture.deploy(settings).await;
        fixture
    }

    /// Deploys `hello`.
    pub async fn deploy(&self, settings: Value) {
        let (status, body) = self
            .json(Method::POST, "/system/functions", &deployment(settings))
            .await;
        assert_eq!(status, StatusCode::ACCEPTED, "{body}");
    }

    /// Stops the daemon and starts another one on the same data.
    pub async fn restart(&mut self) {
        self.daemon.take().expect("a running daemon").shutdown().await;
        let daemon = Daemon::start(config(&self.data), Arc::new(self.sandbox.clone())).await;
        let daemon = daemon.expect("the daemon starts again");
        self.address = daemon.local_address();
        self.daemon = Some(daemon);
    }

    pub async fn send<B>(&self, request: Request<B>) -> Response<Incoming>
    where
        B: Body + Send + Unpin + 'static,
        B::Data: Send,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        self.try_send(request).await.expect("an answer")
    }

    pub async fn try_send<B>(&self, request: Request<B>) -> hyper::Result<Response<Incoming>>
    where
        B: Body + Send + Unpin + 'static,
        B::Data: Send,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let stream = TcpStream::connect(self.address).await.expect("a connection");
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        // Its error reaches whoever waits for the answer.
        tokio::spawn(connection);
        sender.send_request(request).await
    }

    /// Sends a request whose body is known and reads the answer in full.
    pub async fn call(&self, method: Method, path: &str, body: impl Into<Bytes>) -> (Response<()>, String) {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", self.address.to_string());
        let response = self
            .send(request.body(Full::new(body.into())).expect("a request"))
            .await;
        let (parts, body) = response.into_parts();
        let body = body.collect().await.expect("a whole body").to_bytes();
        (
            Response::from_parts(parts, ()),
            String::from_utf8_lossy(&body).into_owned(),
        )
    }

    pub async fn get(&self, path: &str) -> (StatusCode, String) {
        let (response, body) = self.call(Method::GET, path, "").await;
        (response.status(), body)
    }

    pub async fn json(&self, method: Method, path: &str, body: &Value) -> (StatusCode, String) {
        let (response, body) = self.call(method, path, body.to_string()).await;
        (response.status(), body)
    }

    /// Pushes an image whose one layer holds `program` as `/function`, as `NAME:latest`; returns its digest.
    pub async fn push(&self, name: &str, program: &[u8]) -> String {
        self.push_layer(name, layer(&[("function", program)])).await
    }

    /// Pushes an image of this layer, whose entry point is `/function`, as `NAME:latest`; returns its digest.
    pub async fn push_layer(&self, name: &str, layer: Vec<u8>) -> String {
        let config = json!({
            "architecture": "amd64", "os": "linux",
            "config": { "Entrypoint": ["/function"], "Cmd": ["--fast"], "Env": ["COLOUR=blue"], "ExposedPorts": {"9000/tcp": {}} },
            "rootfs": { "type": "layers", "diff_ids": [] },
        });
        let config = config.to_string().into_bytes();
        for blob in [&layer, &config] {
            let (started, _) = self
                .call(Method::POST, &format!("/v2/{name}/blobs/uploads/"), "")
                .await;
            let location = started.headers()["location"]
                .to_str()
                .expect("an address")
                .to_owned();
            let path = format!("{location}?digest={}", digest(blob));
            let (stored, body) = self.call(Method::PUT, &path, blob.clone()).await;
            assert_eq!(stored.status(), StatusCode::CREATED, "{body}");
        }
        let manifest = manifest(&config, &layer).to_string();
        let (stored, body) = self
            .call(
                Method::PUT,
                &format!("/v2/{name}/manifests/latest"),
                manifest.clone(),
            )
            .await;
        assert_eq!(stored.status(), StatusCode::CREATED, "{body}");
        digest(manifest.as_bytes())
    }

    /// Waits, for ten seconds at most, until `condition` holds.
    pub async fn until(&self, what: &str, condition: impl Fn(&Self) -> bool) {
        for _ in 0..1000 {
            if condition(self) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("{what} did not happen");
    }
}

/// Deployment of the function `hello`, with `settings` added.
pub fn deployment(settings: Value) -> Value {
    let mut deployment = json!({ "service": "hello", "image": "hello:latest" });
    for (name, value) in settings.as_object().into_iter().flatten() {
        deployment[name] = value.clone();
    }
    deployment
}

pub fn manifest(config: &[u8], layer: &[u8]) -> Value {
    json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": { "mediaType": "application/vnd.oci.image.config.v1+json", "digest": digest(config), "size": config.len() },
        "layers": [{ "mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", "digest": digest(layer), "size": layer.len() }],
    })
}

pub fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}

/// A compressed layer with these files.
pub fn layer(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (path, content) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o755);
        builder
            .append_data(&mut header, path, *content)
            .expect("writes to memory");
    }
    let archive = builder.into_inner().expect("writes to memory");
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(&archive).expect("writes to memory");
    encoder.finish().expect("writes to memory")
}

/// An ELF file with one segment of this type that holds `content`.
pub fn program(segment: u32, content: &[u8]) -> Vec<u8> {
    let mut file = vec![
        0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 62, 0, 1, 0, 0, 0,
    ];
    for word in [0x40_1000u64, 64, 0] {
        file.extend(word.to_le_bytes());
    }
    file.extend([0, 0, 0, 0, 64, 0, 56, 0, 1, 0, 64, 0, 0, 0, 0, 0]);
    file.extend(segment.to_le_bytes());
    file.extend(5u32.to_le_bytes());
    for word in [
        120,
        0x40_0000,
        0x40_0000,
        content.len() as u64,
        content.len() as u64,
        4096,
    ] {
        file.extend(word.to_le_bytes());
    }
    file.extend(content);
    file
}

/// What passes for a static program.
pub fn static_program() -> Vec<u8> {
    program(1, b"code")
}

/// Headers of the requests that a function has got.
pub type Seen = Arc<Mutex<Vec<HeaderMap>>>;

/// Keeps the headers that it gets; ends at `/crash`, and answers 500 to whatever is sent twice at most at `/again`.
pub fn watching() -> (FakeFunction, Seen) {
    let seen = Seen::default();
    let kept = seen.clone();
    let function = FakeFunction::http(move |request, control| {
        let kept = kept.clone();
        async move {
            let count = {
                let mut kept = kept.lock().expect("nobody panicked");
                kept.push(request.headers().clone());
                kept.len()
            };
            match request.uri().path() {
                "/crash" => {
                    control.crash("null call");
                    std::future::pending::<()>().await;
                    response(200, "never")
                }
                "/again" if count < 2 => response(500, "not yet"),
                _ => response(200, "done"),
            }
        }
    });
    (function, seen)
}
