//! What is measured. Every subject runs the same static C program: the function that `spore new` writes.

use std::any::Any;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use http::Method;
use spore_test_harness::client::{Connection, request};
use spore_test_harness::daemon::Daemon;
use spore_test_harness::program::{self, Native, free_port};
use tempfile::TempDir;

/// How long anything may take to give its first answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(20);
/// Pause between two attempts to connect to a program that does not listen yet.
const CONNECT_PAUSE: Duration = Duration::from_micros(100);
/// A connection that was not used for so long is opened again.
const UNUSED_MAX: Duration = Duration::from_secs(2);
/// Iterations of the compute loop in one sample: some tens of milliseconds.
const COMPUTE_ITERATIONS: u32 = 20_000_000;

/// What separates functions in processes from the host.
const IN_PROCESS: &str = "process, no virtual machine";

/// One thing to measure.
pub(crate) trait Subject {
    /// Name in the report.
    fn name(&self) -> &str;
    /// What separates it from the host.
    fn isolation(&self) -> &str;
    /// What one sample is; the same for all subjects of a series.
    fn meaning(&self) -> &'static str;
    /// Takes one sample, and cleans up outside of the time that it reports.
    fn measure(&mut self) -> Result<Duration>;
}

/// What all series share: a daemon with the functions deployed, and the same programs as files.
pub(crate) struct SetUp {
    /// The daemon, with functions `cold`, `warm` and `compute`.
    pub(crate) daemon: Daemon,
    folder: TempDir,
    function: PathBuf,
    compute: PathBuf,
    /// What separates functions from the host.
    pub(crate) isolation: String,
}

impl SetUp {
    /// Starts a daemon, and builds and deploys the functions.
    pub(crate) fn new() -> Result<SetUp> {
        SetUp::with(Daemon::start())
    }

    /// The same with a daemon whose functions run in processes; none if this one's do. It is to be dropped first.
    pub(crate) fn in_processes(&self) -> Result<Option<SetUp>> {
        let is_process = self.isolation == IN_PROCESS;
        (!is_process)
            .then(|| SetUp::with(Daemon::start_with(&["--isolation", "process"])))
            .transpose()
    }

    fn with(daemon: Daemon) -> Result<SetUp> {
        let folder = tempfile::tempdir().context("the temporary folder is not writable")?;
        let source = folder.path().join("hello");
        let source_text = source
            .to_str()
            .context("the temporary folder's path is not UTF-8")?;
        daemon.spore_ok(&["new", "hello", "--lang", "c", "--directory", source_text]);
        daemon.spore_ok(&["build", source_text]);
        let function = source.join("build/function");
        // With no idle time an instance is discarded after its invocation, so each invocation boots an image.
        daemon.deploy("cold", &function, &["--annotation", "dev.spore.idle-timeout=0s"]);
        daemon.deploy("warm", &function, &["--annotation", "dev.spore.idle-timeout=1h"]);
        let compute = program::build("compute");
        daemon.deploy(
            "compute",
            &compute,
            &["--annotation", "dev.spore.idle-timeout=1h"],
        );
        let probe: serde_json::Value = serde_json::from_str(&daemon.spore_ok(&["info", "--json"]))?;
        let kind = probe
            .get("kvm_kind")
            .or_else(|| probe.get("kvm"))
            .unwrap_or(&probe);
        let kind = kind.as_str().unwrap_or("unknown");
        let info = daemon.get("/system/info").json();
        let isolation = match info["isolation"].as_str() {
            Some("process") => IN_PROCESS.to_owned(),
            _ => format!("virtual machine, KVM {kind}"),
        };
        Ok(SetUp {
            daemon,
            folder,
            function,
            compute,
            isolation,
        })
    }
}

impl SetUp {
    /// Builds a function in C from another source, and returns the program.
    pub(crate) fn build_from(&self, source: &str) -> Result<PathBuf> {
        let folder = tempfile::tempdir_in(self.folder.path())
            .context("the temporary folder is not writable")?
            .keep()
            .join("function");
        let text = folder
            .to_str()
            .context("the temporary folder's path is not UTF-8")?;
        self.daemon
            .spore_ok(&["new", "function", "--lang", "c", "--directory", text]);
        std::fs::write(folder.join("handler.c"), source).context("the temporary folder is not writable")?;
        self.daemon.spore_ok(&["build", text]);
        Ok(folder.join("build/function"))
    }

    /// A folder that is removed at the end.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The function in C, as a program.
    pub(crate) fn function(&self) -> &Path {
        &self.function
    }

    /// Deploys the function in C under another name.
    pub(crate) fn deploy_function(&self, name: &str, annotations: &[(&str, &str)]) {
        let options = annotation_options(annotations);
        let options: Vec<&str> = options.iter().map(String::as_str).collect();
        self.daemon.deploy(name, &self.function, &options);
    }
}

/// The options of `spore deploy` for annotations.
pub(crate) fn annotation_options(annotations: &[(&str, &str)]) -> Vec<String> {
    let options = annotations
        .iter()
        .flat_map(|(key, value)| ["--annotation".to_owned(), format!("{key}={value}")]);
    options.collect()
}

impl Drop for SetUp {
    fn drop(&mut self) {
        program::remove_built();
    }
}

/// From the start of a sandbox to the last byte of its first answer.
pub(crate) fn starts(set_up: &SetUp) -> Result<Vec<Box<dyn Subject>>> {
    Ok(vec![
        Box::new(ColdFunction::new(set_up, "cold")),
        native_start(set_up),
    ])
}

/// The same program's start as a process.
pub(crate) fn native_start(set_up: &SetUp) -> Box<dyn Subject> {
    Box::new(BareProcess {
        program: set_up.function.clone(),
    })
}

/// One request on a kept connection to something that runs.
pub(crate) fn warm(set_up: &SetUp) -> Result<Vec<Box<dyn Subject>>> {
    let native = Native::start(&set_up.function, &[]);
    let gateway = set_up.daemon.address();
    Ok(vec![
        Box::new(Warm::new(
            "spore",
            &set_up.isolation,
            gateway,
            "/function/warm",
            None,
        )?),
        Box::new(Warm::new(
            "process",
            "none",
            native.address(),
            "/",
            Some(Box::new(native)),
        )?),
    ])
}

/// A fixed compute loop, timed inside the program.
pub(crate) fn compute(set_up: &SetUp) -> Result<Vec<Box<dyn Subject>>> {
    let native = Native::start(&set_up.compute, &[]);
    let gateway = set_up.daemon.address();
    let path = format!("?iterations={COMPUTE_ITERATIONS}");
    let guest = Warm::new(
        "spore",
        &set_up.isolation,
        gateway,
        &format!("/function/compute{path}"),
        None,
    )?;
    let native = Warm::new(
        "process",
        "none",
        native.address(),
        &format!("/{path}"),
        Some(Box::new(native)),
    )?;
    Ok(vec![Box::new(Compute(guest)), Box::new(Compute(native))])
}

/// What one sample of a start series is.
pub(crate) const START_MEANING: &str = "start of the sandbox to the last byte of its first HTTP answer";

/// Sends one request on a connection of its own and returns the whole answer.
pub(crate) fn exchange(address: SocketAddr, path: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(ANSWER_TIMEOUT))?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

/// Waits for a program that is starting to give its first whole answer.
pub(crate) fn first_answer(port: u16) -> Result<()> {
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let start = Instant::now();
    loop {
        match exchange(address, "/") {
            Ok(answer) => {
                ensure!(
                    answer.starts_with("HTTP/1.") && answer.get(8..12) == Some(" 200"),
                    "the first answer is {answer:?}"
                );
                return Ok(());
            }
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => {
                ensure!(
                    start.elapsed() < ANSWER_TIMEOUT,
                    "no answer within {ANSWER_TIMEOUT:?}"
                );
                std::thread::sleep(CONNECT_PAUSE);
            }
            Err(error) => bail!("the first answer was cut off: {error}"),
        }
    }
}

/// A function whose every invocation starts a new instance: request into the gateway to the last byte of the answer.
pub(crate) struct ColdFunction {
    name: &'static str,
    gateway: SocketAddr,
    isolation: String,
    path: String,
}

impl ColdFunction {
    /// A function that is deployed with no idle time.
    pub(crate) fn new(set_up: &SetUp, name: &str) -> ColdFunction {
        ColdFunction {
            name: "spore",
            gateway: set_up.daemon.address(),
            isolation: set_up.isolation.clone(),
            path: format!("/function/{name}"),
        }
    }

    /// The same with another name in the report.
    pub(crate) fn called(self, name: &'static str) -> ColdFunction {
        ColdFunction { name, ..self }
    }
}

impl Subject for ColdFunction {
    fn name(&self) -> &str {
        self.name
    }

    fn isolation(&self) -> &str {
        &self.isolation
    }

    fn meaning(&self) -> &'static str {
        START_MEANING
    }

    fn measure(&mut self) -> Result<Duration> {
        let start = Instant::now();
        let answer = exchange(self.gateway, &self.path).context("the gateway cut the request off")?;
        let elapsed = start.elapsed();
        ensure!(
            answer.starts_with("HTTP/1.") && answer.get(8..12) == Some(" 200"),
            "the gateway answered {answer:?}"
        );
        let is_cold = answer.to_ascii_lowercase().contains("x-spore-start: cold");
        ensure!(is_cold, "the invocation was not a cold start");
        Ok(elapsed)
    }
}

/// The program as an ordinary process.
struct BareProcess {
    program: PathBuf,
}

impl Subject for BareProcess {
    fn name(&self) -> &str {
        "process"
    }

    fn isolation(&self) -> &str {
        "none"
    }

    fn meaning(&self) -> &'static str {
        START_MEANING
    }

    fn measure(&mut self) -> Result<Duration> {
        let port = free_port();
        let start = Instant::now();
        let mut process = spawn(
            Command::new(&self.program)
                .env_clear()
                .env("PORT", port.to_string()),
        )?;
        let answered = first_answer(port);
        let elapsed = start.elapsed();
        process.kill().context("the process cannot be ended")?;
        process.wait().context("the process cannot be waited for")?;
        answered.map(|()| elapsed)
    }
}

/// Starts a command with its streams closed.
pub(crate) fn spawn(command: &mut Command) -> Result<Child> {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command
        .spawn()
        .with_context(|| format!("{} cannot be run", Path::new(command.get_program()).display()))
}

/// Requests on a kept connection.
pub(crate) struct Warm {
    name: &'static str,
    isolation: String,
    path: String,
    address: SocketAddr,
    connection: Connection,
    used_at: Instant,
    /// Keeps the process running that the connection leads to.
    _native: Option<Box<dyn Any + Send>>,
}

impl Warm {
    /// Connects and asks once, which starts the instance. `native` is what must live as long.
    pub(crate) fn new(
        name: &'static str,
        isolation: &str,
        address: SocketAddr,
        path: &str,
        native: Option<Box<dyn Any + Send>>,
    ) -> Result<Warm> {
        let connection = Connection::open(address, ANSWER_TIMEOUT)?;
        let mut warm = Warm {
            name,
            isolation: isolation.to_owned(),
            path: path.to_owned(),
            address,
            connection,
            used_at: Instant::now(),
            _native: native,
        };
        warm.ask()?; // the first request starts the instance
        Ok(warm)
    }

    fn ask(&mut self) -> Result<(Duration, String)> {
        // Servers close connections that are not used; a series may wait for an idle machine first.
        if self.used_at.elapsed() > UNUSED_MAX {
            self.connection = Connection::open(self.address, ANSWER_TIMEOUT)?;
        }
        let request = request(Method::GET, &self.path);
        let start = Instant::now();
        let answer = self.connection.send(request)?;
        let elapsed = start.elapsed();
        self.used_at = Instant::now();
        ensure!(answer.status.is_success(), "{}: {}", answer.status, answer.text());
        Ok((elapsed, answer.text()))
    }
}

impl Subject for Warm {
    fn name(&self) -> &str {
        self.name
    }

    fn isolation(&self) -> &str {
        &self.isolation
    }

    fn meaning(&self) -> &'static str {
        "request to the last byte of the answer, on a kept connection to something that runs"
    }

    fn measure(&mut self) -> Result<Duration> {
        self.ask().map(|(elapsed, _)| elapsed)
    }
}

/// The compute loop of something warm, timed by itself.
struct Compute(Warm);

impl Subject for Compute {
    fn name(&self) -> &str {
        self.0.name
    }

    fn isolation(&self) -> &str {
        &self.0.isolation
    }

    fn meaning(&self) -> &'static str {
        "a fixed compute loop, timed inside the program"
    }

    fn measure(&mut self) -> Result<Duration> {
        elapsed_inside(&mut self.0)
    }
}

/// Asks a program that answers with `elapsed_ns=` and returns that time.
pub(crate) fn elapsed_inside(warm: &mut Warm) -> Result<Duration> {
    let (_, answer) = warm.ask()?;
    let elapsed = answer
        .split_whitespace()
        .find_map(|word| word.strip_prefix("elapsed_ns="));
    let elapsed = elapsed.with_context(|| format!("the program answered {answer:?}"))?;
    Ok(Duration::from_nanos(
        elapsed.parse().context("elapsed_ns is a number")?,
    ))
}
