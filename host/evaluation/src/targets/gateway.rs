//! The gateway that functions are deployed to, by OpenFaaS's API: a daemon that was started for the run, or one that is there.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use http::header::HeaderValue;
use http::{Method, StatusCode};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::client::{Ask, AskError, Place, PlaceError, ask_once};
use crate::context::Clock;

/// How long a daemon may take to listen.
const START_TIMEOUT: Duration = Duration::from_secs(60);
/// How long it may take to end after SIGTERM.
const STOP_TIMEOUT: Duration = Duration::from_secs(30);
/// How long instances may take to be there, or to be gone.
const SCALE_TIMEOUT: Duration = Duration::from_secs(120);
const PAUSE: Duration = Duration::from_millis(5);
/// What begins the names of functions that are deployed, so that those of others are left alone.
pub(crate) const PREFIX: &str = "bench-";
/// Most instances of a function: requests that are meant to be simultaneous must not wait for each other.
const MAX_INSTANCES: u32 = 1000;
const ANNOUNCEMENT: &str = "spore is ready at ";

/// Why the gateway does not do what it is asked.
#[derive(Debug, thiserror::Error)]
pub enum GatewayError {
    /// Its address is none.
    #[error(transparent)]
    Address(#[from] PlaceError),
    /// The daemon cannot be started.
    #[error("{} cannot be run", program.display())]
    Start {
        /// The program.
        program: PathBuf,
        /// What the system says.
        #[source]
        source: std::io::Error,
    },
    /// It ends at once, or never says that it is ready.
    #[error("the daemon does not come up; its log ends with: {log}")]
    NotReady {
        /// The end of its log.
        log: String,
    },
    /// It does not answer, or refuses.
    #[error("{what} failed")]
    Request {
        /// What was asked for.
        what: String,
        /// What came back.
        #[source]
        source: AskError,
    },
    /// Instances do not come or go.
    #[error("{function} has {found} instances after {} s, not {wanted}", SCALE_TIMEOUT.as_secs())]
    Scale {
        /// The function.
        function: String,
        /// How many there are.
        found: u64,
        /// How many should be.
        wanted: u32,
    },
}

/// A gateway with an API.
pub(crate) struct Gateway {
    pub(crate) url: String,
    place: Place,
    daemon: Option<OwnDaemon>,
    /// Names of what was deployed.
    deployed: Vec<String>,
    /// What `GET /system/info` says.
    pub(crate) info: Value,
}

/// A daemon that was started for the run, in a process group of its own: what interrupts the run at the terminal must not end
/// it in the middle of a step.
struct OwnDaemon {
    process: Child,
    data: PathBuf,
}

impl Drop for OwnDaemon {
    fn drop(&mut self) {
        if let Some(pid) = Pid::from_raw(self.process.id() as i32) {
            let _ = kill_process(pid, Signal::TERM); // it may have ended by itself
        }
        let begun = Instant::now();
        while matches!(self.process.try_wait(), Ok(None)) {
            if begun.elapsed() > STOP_TIMEOUT {
                let _ = self.process.kill();
                let _ = self.process.wait();
                return;
            }
            std::thread::sleep(PAUSE);
        }
    }
}

impl Gateway {
    /// Starts a daemon on a free port of the loopback address, with its data and log below `folder`, and `mark` in its
    /// environment.
    pub(crate) fn start(
        clock: &Clock,
        spore: &Path,
        folder: &Path,
        mark: &str,
    ) -> Result<Self, GatewayError> {
        let (data, log) = (folder.join("data"), folder.join("daemon.log"));
        let start = |source| GatewayError::Start {
            program: spore.to_owned(),
            source,
        };
        let log_file = std::fs::File::create(&log).map_err(start)?;
        let mut command = Command::new(spore);
        command
            .args(["serve", "--listen", "127.0.0.1:0", "--no-pull", "--log", "warn"])
            .args(["--end-with-parent", "--data"])
            .arg(&data)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log_file)
            .process_group(0);
        if let Some((name, value)) = mark.split_once('=') {
            command.env(name, value);
        }
        let mut process = command.spawn().map_err(start)?;
        let output = process.stdout.take();
        let daemon = OwnDaemon { process, data };
        // The thread ends with the daemon's output.
        let (sender, receiver) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            for line in output
                .into_iter()
                .flat_map(|output| BufReader::new(output).lines())
            {
                let Ok(line) = line else { return };
                if let Some(url) = line.strip_prefix(ANNOUNCEMENT) {
                    let _ = sender.send(url.to_owned()); // nobody waits any more
                }
            }
        });
        let url = receiver.recv_timeout(START_TIMEOUT).map_err(|_| {
            let text = std::fs::read_to_string(&log).unwrap_or_default();
            let last = text.lines().rev().take(5).collect::<Vec<_>>();
            GatewayError::NotReady {
                log: last.into_iter().rev().collect::<Vec<_>>().join(" | "),
            }
        })?;
        Self::new(clock, url, None, Some(daemon))
    }

    /// Uses a gateway that is there.
    pub(crate) fn connect(
        clock: &Clock,
        url: &str,
        credentials: Option<HeaderValue>,
    ) -> Result<Self, GatewayError> {
        Self::new(clock, url.trim_end_matches('/').to_owned(), credentials, None)
    }

    fn new(
        clock: &Clock,
        url: String,
        credentials: Option<HeaderValue>,
        daemon: Option<OwnDaemon>,
    ) -> Result<Self, GatewayError> {
        let place = Place::parse(&url)?.with_authorization(credentials);
        let mut gateway = Self {
            url,
            place,
            daemon,
            deployed: Vec::new(),
            info: Value::Null,
        };
        gateway.info = gateway.get(clock, "/system/info")?;
        Ok(gateway)
    }

    /// The daemon's process, if it was started for the run.
    pub(crate) fn pid(&self) -> Option<i32> {
        self.daemon.as_ref().map(|daemon| daemon.process.id() as i32)
    }

    /// Its data folder, likewise.
    pub(crate) fn data(&self) -> Option<&Path> {
        self.daemon.as_ref().map(|daemon| daemon.data.as_path())
    }

    /// Where a function is asked.
    pub(crate) fn function(&self, name: &str) -> Place {
        self.place.with_prefix(&format!("/function/{name}"))
    }

    /// Where it is asked without waiting.
    pub(crate) fn queue(&self, name: &str) -> Place {
        self.place.with_prefix(&format!("/async-function/{name}"))
    }

    /// Why it has no sandbox of a kind; none if it has, with what it says of it.
    ///
    /// `sandboxes` of `/system/info` lists what there is, each a name, or an object with `name` and, if it cannot be used,
    /// the reason.
    pub(crate) fn sandbox(&self, kind: &str) -> Result<Value, String> {
        let listed = self.info["sandboxes"].as_array().into_iter().flatten();
        let name_of = |one: &Value| one.as_str().or_else(|| one["name"].as_str()).map(str::to_owned);
        let found = listed
            .into_iter()
            .find(|one| name_of(one).as_deref() == Some(kind));
        let Some(found) = found else {
            return Err(format!(
                "the daemon knows no sandbox {kind} (sandboxes of /system/info)"
            ));
        };
        let reason = ["missing", "reason", "unavailable"]
            .iter()
            .find_map(|field| found[*field].as_str());
        let is_available = found["available"].as_bool().unwrap_or(reason.is_none());
        if is_available {
            Ok(found.clone())
        } else {
            Err(reason
                .unwrap_or("the daemon says that it cannot be used")
                .to_owned())
        }
    }

    pub(crate) fn get(&self, clock: &Clock, path: &str) -> Result<Value, GatewayError> {
        let answer = self.request(clock, Ask::get(path))?;
        Ok(serde_json::from_slice(&answer).unwrap_or(Value::Null))
    }

    fn request(&self, clock: &Clock, ask: Ask) -> Result<bytes::Bytes, GatewayError> {
        let what = format!("{} {}", ask.method, ask.path);
        let answer = clock.block_on(ask_once(&self.place, &ask));
        let (_, answer) = answer.map_err(|source| GatewayError::Request { what, source })?;
        Ok(answer.body)
    }

    /// Deploys an image that was pushed; a function of that name is replaced.
    pub(crate) fn deploy(
        &mut self,
        clock: &Clock,
        name: &str,
        image: &str,
        annotations: &BTreeMap<String, String>,
        memory: Option<&str>,
    ) -> Result<(), GatewayError> {
        let mut body = json!({
            "service": name,
            "image": image,
            "annotations": annotations,
            "labels": { "com.openfaas.scale.max": MAX_INSTANCES.to_string() },
        });
        if let Some(memory) = memory {
            body["limits"] = json!({ "memory": memory });
        }
        let ask = |method| {
            let mut ask = Ask::new(method, "/system/functions", body.to_string());
            ask.header = Some(("content-type", "application/json".to_owned()));
            ask
        };
        self.deployed.push(name.to_owned());
        match self.request(clock, ask(Method::POST)) {
            Err(GatewayError::Request {
                source: AskError::Refused { status, .. },
                ..
            }) if status == StatusCode::CONFLICT => self.request(clock, ask(Method::PUT)).map(drop),
            other => other.map(drop),
        }
    }

    /// Removes a function.
    pub(crate) fn remove(&mut self, clock: &Clock, name: &str) -> Result<(), GatewayError> {
        let body = json!({ "functionName": name }).to_string();
        let mut ask = Ask::new(Method::DELETE, "/system/functions", body);
        ask.header = Some(("content-type", "application/json".to_owned()));
        self.deployed.retain(|deployed| deployed != name);
        self.request(clock, ask).map(drop)
    }

    /// Starts or ends instances until there are so many that can be asked.
    pub(crate) fn scale(&self, clock: &Clock, name: &str, instances: u32) -> Result<(), GatewayError> {
        let path = format!("/system/scale-function/{name}");
        let body = json!({ "serviceName": name, "replicas": instances }).to_string();
        let mut ask = Ask::new(Method::POST, &path, body);
        ask.header = Some(("content-type", "application/json".to_owned()));
        self.request(clock, ask)?;
        let begun = Instant::now();
        let field = if instances == 0 {
            "replicas"
        } else {
            "availableReplicas"
        };
        loop {
            let status = self.get(clock, &format!("/system/function/{name}"))?;
            let found = status[field].as_u64().unwrap_or(0);
            let is_done = if instances == 0 {
                found == 0
            } else {
                found >= u64::from(instances)
            };
            if is_done {
                return Ok(());
            }
            if begun.elapsed() > SCALE_TIMEOUT {
                return Err(GatewayError::Scale {
                    function: name.to_owned(),
                    found,
                    wanted: instances,
                });
            }
            std::thread::sleep(PAUSE);
        }
    }

    /// Removes everything that was deployed from a gateway that goes on; that of the run goes as a whole.
    pub(crate) fn clean_up(&mut self, clock: &Clock) {
        if self.daemon.is_none() {
            for name in std::mem::take(&mut self.deployed) {
                let _ = self.remove(clock, &name); // what is gone is gone
            }
        }
    }
}
