//! What the gateway adds to an invocation, beside a plain proxy that does nothing but pass requests on:
//!
//! ```text
//!   client ───────────────────────┐ direct
//!   client ──> proxy of hyper ────┼──TCP──> instance (spore run --port)
//!   client ──> gateway ───────────┘
//! ```
//!
//! It is one and the same instance in all three, and the ways to it are the same: proxy and gateway are processes of their own,
//! with one thread each, that connect to it by TCP. The gateway is the daemon's, code and settings, with a sandbox that starts
//! nothing but has this instance; pool, lease and statistics of an invocation are in it. What a daemon's own stream to an
//! instance costs is another matter (`scripts/bench`). Rounds of all three are taken in random order.
//! `cargo bench -p spore-test-e2e --bench gateway`; `SPORE_BIN` names the binary.

use std::io::{BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;

use hyper::body::Incoming;
use hyper::client::conn::http1::SendRequest;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use spore_gateway::{Daemon, DaemonConfig};
use spore_sandbox::{
    ConnectError, EndCause, EndReport, IngressStream, Instance, InstanceSpec, Isolation, IsolationError,
    LogSink, Sandbox, SandboxKind, StartError, StopReason,
};
use spore_test_harness::daemon::binary;
use spore_test_harness::{program, wait_until};
use tokio::net::{TcpListener, TcpStream as AsyncStream};

const CONNECTIONS: usize = 8;
const ROUNDS: usize = 30;
const LONE_REQUESTS: usize = 400;
const LOAD: Duration = Duration::from_millis(500);

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    if let [_, word, listen, upstream, more @ ..] = &arguments[..] {
        let (listen, upstream) = (listen.parse(), upstream.parse());
        match (word.as_str(), listen, upstream, more) {
            ("proxy", Ok(listen), Ok(upstream), []) => proxy(listen, upstream),
            ("gateway", Ok(listen), Ok(upstream), [data]) => gateway(listen, upstream, Path::new(data)),
            _ => {}
        }
    }
    compare();
    ExitCode::SUCCESS
}

/// A process that ends with its value.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn start(command: &mut Command, address: SocketAddr) -> Running {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let running = Running(command.spawn().expect("it can be run"));
    let listens = wait_until(Duration::from_secs(20), || TcpStream::connect(address).is_ok());
    assert!(listens, "{command:?} does not listen on {address}");
    running
}

fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

/// One of the three.
struct Subject {
    name: &'static str,
    address: SocketAddr,
    path: &'static str,
    /// Median of each round, in microseconds.
    lone_us: Vec<f64>,
    /// Requests in a second of each round.
    rates: Vec<f64>,
    /// Median of each round with all connections, in microseconds.
    loaded_us: Vec<f64>,
}

fn compare() {
    let httpd = program::build("httpd");
    let [instance, plain, gateway] = [(); 3].map(|()| loopback(program::free_port()));
    let mut run = Command::new(binary());
    run.args(["run", "--port", &instance.port().to_string()])
        .arg(&httpd);
    let _instance = start(&mut run, instance);
    let own = |words: &[&str], address: SocketAddr| {
        let mut own = Command::new(std::env::current_exe().expect("a running program has a path"));
        own.args(words);
        start(&mut own, address)
    };
    let _proxy = own(&["proxy", &plain.to_string(), &instance.to_string()], plain);
    let data = tempfile::tempdir().expect("the temporary folder is writable");
    let folder = data.path().to_str().expect("the temporary folder is UTF-8");
    let _gateway = own(
        &["gateway", &gateway.to_string(), &instance.to_string(), folder],
        gateway,
    );
    deploy(gateway, &httpd);
    let subject = |name, address, path| Subject {
        name,
        address,
        path,
        lone_us: Vec::new(),
        rates: Vec::new(),
        loaded_us: Vec::new(),
    };
    let mut subjects = [
        subject("direct", instance, "/"),
        subject("proxy", plain, "/"),
        subject("gateway", gateway, "/function/httpd/"),
    ];
    for subject in &subjects {
        // Warms connections and instances up.
        load(subject);
    }
    for _ in 0..ROUNDS {
        let mut order = [0, 1, 2];
        fastrand::shuffle(&mut order);
        for at in order {
            let (lone, (rate, loaded)) = (lone(&subjects[at]), load(&subjects[at]));
            subjects[at].lone_us.push(lone);
            subjects[at].rates.push(rate);
            subjects[at].loaded_us.push(loaded);
        }
    }
    for subject in &subjects {
        println!(
            "{:8} one connection: p50 {:6.1} us    {CONNECTIONS} connections: p50 {:6.1} us, {:8.0} requests/s",
            subject.name,
            median(&subject.lone_us),
            median(&subject.loaded_us),
            median(&subject.rates),
        );
    }
    let [direct, plain, gateway] = &subjects;
    println!(
        "the gateway adds {:.1} us to a lone request, the proxy {:.1} us; with {CONNECTIONS} connections {:.1} us and {:.1} us; \
         throughput: {:.2} of the proxy's",
        median(&gateway.lone_us) - median(&direct.lone_us),
        median(&plain.lone_us) - median(&direct.lone_us),
        median(&gateway.loaded_us) - median(&direct.loaded_us),
        median(&plain.loaded_us) - median(&direct.loaded_us),
        median(&gateway.rates) / median(&plain.rates),
    );
}

/// Deploys the function whose every instance is the one that there is: it is given all connections at a time, as the others
/// give them to it.
fn deploy(gateway: SocketAddr, program: &Path) {
    let deployed = Command::new(binary())
        .args(["deploy", "httpd", "--max", "1", "--binary"])
        .arg(program)
        .args(["--annotation", &format!("dev.spore.concurrency={CONNECTIONS}")])
        .env("OPENFAAS_URL", format!("http://{gateway}"))
        .stdin(Stdio::null())
        .output()
        .expect("the spore binary can be run");
    let said = String::from_utf8_lossy(&deployed.stderr);
    assert!(deployed.status.success(), "{said}");
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}

/// A connection on which answers of known length are read.
struct Client {
    stream: BufReader<TcpStream>,
    request: String,
}

impl Client {
    fn open(subject: &Subject) -> Client {
        let stream = TcpStream::connect(subject.address).expect("it listens");
        stream.set_nodelay(true).expect("an option can be set");
        Client {
            stream: BufReader::new(stream),
            request: format!("GET {} HTTP/1.1\r\nHost: test\r\n\r\n", subject.path),
        }
    }

    fn ask(&mut self) {
        self.stream
            .get_mut()
            .write_all(self.request.as_bytes())
            .expect("it reads");
        let mut buffer = [0; 2048];
        let mut filled = 0;
        loop {
            let count = self.stream.read(&mut buffer[filled..]).expect("it answers");
            assert_ne!(count, 0, "the connection has ended");
            filled += count;
            if buffer[..filled].ends_with(b"hello from an ordinary Linux program\n") {
                assert!(buffer.starts_with(b"HTTP/1.1 200 "));
                return;
            }
        }
    }
}

/// The median of requests one after the other, in microseconds.
fn lone(subject: &Subject) -> f64 {
    let mut client = Client::open(subject);
    client.ask();
    let times: Vec<f64> = (0..LONE_REQUESTS)
        .map(|_| {
            let start = Instant::now();
            client.ask();
            start.elapsed().as_secs_f64() * 1e6
        })
        .collect();
    median(&times)
}

/// Requests in a second by several connections, each of which asks as soon as it has its answer, and the median of these
/// requests, in microseconds.
fn load(subject: &Subject) -> (f64, f64) {
    let start = Instant::now();
    let times: Vec<f64> = std::thread::scope(|scope| {
        let callers: Vec<_> = (0..CONNECTIONS)
            .map(|_| {
                scope.spawn(|| {
                    let mut client = Client::open(subject);
                    let mut times = Vec::new();
                    while start.elapsed() < LOAD {
                        let asked = Instant::now();
                        client.ask();
                        times.push(asked.elapsed().as_secs_f64() * 1e6);
                    }
                    times
                })
            })
            .collect();
        callers
            .into_iter()
            .flat_map(|caller| caller.join().expect("it was answered"))
            .collect()
    });
    (times.len() as f64 / start.elapsed().as_secs_f64(), median(&times))
}

/// As many threads as the daemon has on a machine of two processors.
fn runtime() -> tokio::runtime::Runtime {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build();
    runtime.expect("a runtime")
}

/// The daemon's gateway, in front of an instance that is there already.
fn gateway(listen: SocketAddr, upstream: SocketAddr, data: &Path) -> ! {
    let config = DaemonConfig {
        listen,
        data: data.to_owned(),
        ..DaemonConfig::default()
    };
    runtime().block_on(async {
        let daemon = Daemon::start(config, Arc::new(Present { upstream })).await;
        let _daemon = daemon.expect("the daemon starts");
        std::future::pending().await
    })
}

/// A sandbox that has one instance, which somebody else has started.
struct Present {
    upstream: SocketAddr,
}

#[async_trait]
impl Sandbox for Present {
    fn kind(&self) -> SandboxKind {
        SandboxKind::Unikernel
    }

    fn isolation(&self, _: SandboxKind, wanted: Option<Isolation>) -> Result<Isolation, IsolationError> {
        Ok(wanted.unwrap_or(Isolation::Process))
    }

    async fn start(&self, spec: InstanceSpec, _: Arc<dyn LogSink>) -> Result<Arc<dyn Instance>, StartError> {
        Ok(Arc::new(There {
            id: spec.instance,
            upstream: self.upstream,
        }))
    }
}

struct There {
    id: String,
    upstream: SocketAddr,
}

#[async_trait]
impl Instance for There {
    fn id(&self) -> &str {
        &self.id
    }

    async fn connect(&self) -> Result<Box<dyn IngressStream>, ConnectError> {
        let stream = AsyncStream::connect(self.upstream).await;
        let stream = stream.map_err(ConnectError::Host)?;
        stream.set_nodelay(true).map_err(ConnectError::Host)?;
        Ok(Box::new(stream))
    }

    async fn ended(&self) -> EndReport {
        std::future::pending().await
    }

    async fn stop(&self, _: StopReason) -> EndReport {
        EndReport {
            cause: EndCause::Stopped,
            details: Vec::new(),
            read_bytes: None,
        }
    }
}

/// Passes each connection's requests on over one of its own, and answers back.
fn proxy(listen: SocketAddr, upstream: SocketAddr) -> ! {
    runtime().block_on(async {
        let listener = TcpListener::bind(listen).await.expect("the port is free");
        loop {
            let (stream, _) = listener.accept().await.expect("a connection");
            tokio::spawn(serve(stream, upstream));
        }
    })
}

async fn serve(stream: AsyncStream, upstream: SocketAddr) {
    stream.set_nodelay(true).expect("an option can be set");
    let connected = AsyncStream::connect(upstream).await.expect("it listens");
    connected.set_nodelay(true).expect("an option can be set");
    let handshake = hyper::client::conn::http1::handshake(TokioIo::new(connected)).await;
    let (sender, connection) = handshake.expect("a handshake without bytes");
    tokio::spawn(connection);
    let sender = Arc::new(tokio::sync::Mutex::new(sender));
    let service = service_fn(move |request| {
        let sender = sender.clone();
        async move { pass_on(sender, request).await }
    });
    // Clients go as they like.
    let _ = hyper::server::conn::http1::Builder::new()
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

async fn pass_on(
    sender: Arc<tokio::sync::Mutex<SendRequest<Incoming>>>,
    request: http::Request<Incoming>,
) -> hyper::Result<http::Response<Incoming>> {
    let mut sender = sender.lock().await;
    sender.ready().await?;
    sender.send_request(request).await
}
