//! The command line against the real daemon, whose instances are ordinary processes here: from C source through
//! registry, store and pool to an answer, on machines without KVM too.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use spore_gateway::{BasicAuth, Daemon, DaemonConfig, TlsFiles};
use spore_sandbox::{
    Awaited, ConnectError, EndCause, EndReport, IngressStream, Instance, InstanceSpec, Isolation,
    IsolationError, LogSink, Sandbox, SandboxKind, StartError, StopReason,
};

/// Runs the program of an instance as a process on a loopback port. No isolation: for this test's own functions.
struct ProcessSandbox;

struct ProcessInstance {
    id: String,
    address: SocketAddr,
    process: Mutex<Child>,
    _folder: tempfile::TempDir,
}

fn host_error(what: &'static str) -> impl FnOnce(std::io::Error) -> StartError {
    move |source| StartError::Host { what, source }
}

#[async_trait]
impl Sandbox for ProcessSandbox {
    fn kind(&self) -> SandboxKind {
        SandboxKind::default()
    }

    fn isolation(&self, _: SandboxKind, _: Option<Isolation>) -> Result<Isolation, IsolationError> {
        Ok(Isolation::Process)
    }

    async fn start(&self, spec: InstanceSpec, _: Arc<dyn LogSink>) -> Result<Arc<dyn Instance>, StartError> {
        let folder = tempfile::tempdir().map_err(host_error("make a folder"))?;
        let program = folder.path().join("function");
        std::fs::copy(spec.root.path(), &program).map_err(host_error("copy the program"))?;
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755))
            .map_err(host_error("make the program executable"))?;
        let port = free_port();
        let process = Command::new(&program)
            .env_clear()
            .envs(spec.environment)
            .env("PORT", port.to_string())
            .env("SPORE_ADDRESS", "127.0.0.1")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .map_err(host_error("start the program"))?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let instance = ProcessInstance {
            id: spec.instance,
            address,
            process: Mutex::new(process),
            _folder: folder,
        };
        for _ in 0..1000 {
            if tokio::net::TcpStream::connect(address).await.is_ok() {
                return Ok(Arc::new(instance));
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Err(StartError::NotReady {
            after: spec.ready_timeout,
            awaited: Awaited::Listening { port },
        })
    }
}

/// Outside the range from which clients get theirs, and never the same twice, for tests run side by side.
fn free_port() -> u16 {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    loop {
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let offset = std::process::id().wrapping_mul(97).wrapping_add(count) % 8_000;
        let port = 10_000 + u16::try_from(offset).expect("the remainder is small");
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
}

#[async_trait]
impl Instance for ProcessInstance {
    fn id(&self) -> &str {
        &self.id
    }

    async fn connect(&self) -> Result<Box<dyn IngressStream>, ConnectError> {
        let stream = tokio::net::TcpStream::connect(self.address)
            .await
            .map_err(ConnectError::Host)?;
        Ok(Box::new(stream))
    }

    async fn ended(&self) -> EndReport {
        loop {
            if let Ok(Some(status)) = self.process.lock().unwrap().try_wait() {
                let code = status
                    .code()
                    .map_or(255, |code| u8::try_from(code).unwrap_or(255));
                return EndReport {
                    cause: EndCause::Exited { code },
                    details: Vec::new(),
                    read_bytes: None,
                };
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn stop(&self, _: StopReason) -> EndReport {
        self.end();
        EndReport {
            cause: EndCause::Stopped,
            details: Vec::new(),
            read_bytes: None,
        }
    }
}

impl ProcessInstance {
    fn end(&self) {
        let mut process = self.process.lock().unwrap();
        let _ = process.kill();
        let _ = process.wait();
    }
}

impl Drop for ProcessInstance {
    fn drop(&mut self) {
        self.end();
    }
}

struct Session {
    url: String,
    folder: tempfile::TempDir,
    /// More of the commands' environment.
    variables: Vec<(String, String)>,
}

impl Session {
    /// Runs `spore` in the folder; standard output of a success, standard error of a failure.
    fn spore(&self, arguments: &[&str]) -> Result<String, String> {
        self.spore_with(arguments, "")
    }

    /// The same with something at standard input.
    fn spore_with(&self, arguments: &[&str], input: &str) -> Result<String, String> {
        let output = assert_cmd::Command::cargo_bin("spore")
            .unwrap()
            .current_dir(self.folder.path())
            .env("OPENFAAS_URL", &self.url)
            .env("XDG_CONFIG_HOME", self.folder.path().join("configuration"))
            .envs(self.variables.clone())
            .args(arguments)
            .write_stdin(input)
            .timeout(Duration::from_secs(60))
            .output()
            .unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        if output.status.success() {
            Ok(text(output.stdout))
        } else {
            Err(text(output.stderr))
        }
    }
}

fn with_daemon(test: impl FnOnce(&Session)) {
    with_daemon_as(|_| {}, test);
}

fn with_daemon_as(change: impl FnOnce(&mut DaemonConfig), test: impl FnOnce(&Session)) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    let data = tempfile::tempdir().unwrap();
    let mut config = DaemonConfig {
        listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
        data: data.path().to_owned(),
        ..DaemonConfig::default()
    };
    change(&mut config);
    let daemon = runtime
        .block_on(Daemon::start(config, Arc::new(ProcessSandbox)))
        .unwrap();
    let url = match daemon.has_tls() {
        true => format!("https://localhost:{}", daemon.local_address().port()),
        false => format!("http://{}", daemon.local_address()),
    };
    test(&Session {
        url,
        variables: Vec::new(),
        folder: tempfile::tempdir().unwrap(),
    });
    runtime.block_on(daemon.shutdown());
}

#[test]
fn a_c_function_goes_from_source_to_an_answer() {
    with_daemon(|session| {
        session.spore(&["new", "hello", "--lang", "c"]).unwrap();
        let deployed = session
            .spore(&["deploy", "hello", "--memory", "64Mi", "--timeout", "10s"])
            .unwrap();
        assert_eq!(
            deployed,
            format!("hello deployed: {}/function/hello\n", session.url)
        );
        for name in ["Ada", "Grace H."] {
            let query = format!("name={name}");
            let answer = session
                .spore(&["invoke", "hello", "--query", &query, "--data", "12345"])
                .unwrap();
            assert_eq!(
                answer,
                format!("Hello, {name}, from a unikernel!\nYou sent 5 bytes.\n")
            );
        }
        let list: serde_json::Value =
            serde_json::from_str(&session.spore(&["list", "--json"]).unwrap()).unwrap();
        assert_eq!(list[0]["name"], "hello");
        assert_eq!(list[0]["limits"]["memory"], "64Mi");
        assert_eq!(list[0]["invocationCount"], 2.0);
        assert_eq!(list[0]["replicas"], 1);
        let described = session.spore(&["describe", "hello"]).unwrap();
        assert!(described.contains("dev.spore.timeout=10s"), "{described}");

        let duplicate = session.spore(&["deploy", "hello", "--no-replace"]).unwrap_err();
        assert!(
            duplicate.contains("there is a function hello already"),
            "{duplicate}"
        );
        let handler = session.folder.path().join("hello/handler.c");
        let source = std::fs::read_to_string(&handler)
            .unwrap()
            .replace("Hello, %s", "Good evening, %s");
        std::fs::write(handler, source).unwrap();
        assert!(
            session
                .spore(&["deploy", "hello"])
                .unwrap()
                .starts_with("hello updated: ")
        );
        let answer = session.spore(&["invoke", "hello", "--data", ""]).unwrap();
        assert_eq!(answer, "Good evening, world, from a unikernel!\n");

        assert_eq!(session.spore(&["remove", "hello"]).unwrap(), "hello removed\n");
        let gone = session.spore(&["invoke", "hello", "--data", ""]).unwrap_err();
        assert!(gone.starts_with("error: hello answered 404 Not Found"), "{gone}");
        let logs = session.spore(&["logs", "nobody"]);
        assert_eq!(
            logs.unwrap_err(),
            "error: there is no function nobody: see spore list\n"
        );
    });
}

#[test]
fn a_crash_is_an_error_of_that_call_only() {
    with_daemon(|session| {
        let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/misbehave-c");
        let copy = session.folder.path().join("misbehave");
        std::fs::create_dir(&copy).unwrap();
        for entry in std::fs::read_dir(examples).unwrap() {
            let path = entry.unwrap().path();
            if path.is_file() {
                std::fs::copy(&path, copy.join(path.file_name().unwrap())).unwrap();
            }
        }
        session.spore(&["deploy", "misbehave"]).unwrap();
        let list = session.spore(&["invoke", "misbehave", "--data", ""]).unwrap();
        assert!(list.contains("/null-call"), "{list}");
        let error = session
            .spore(&["invoke", "misbehave", "--path", "/exit-status", "--data", ""])
            .unwrap_err();
        assert!(
            error.starts_with("error: misbehave answered 502 Bad Gateway"),
            "{error}"
        );
        assert_eq!(
            session.spore(&["invoke", "misbehave", "--data", ""]).unwrap(),
            list
        );
    });
}

#[test]
fn credentials_are_asked_for_kept_and_forgotten() {
    let folder = tempfile::tempdir().unwrap();
    let credentials = folder.path().to_owned();
    std::fs::write(folder.path().join("basic-auth-user"), "ada").unwrap();
    std::fs::write(folder.path().join("basic-auth-password"), "hush").unwrap();
    with_daemon_as(
        |config| config.basic_auth = BasicAuth::in_folder(&credentials),
        |session| {
            let error = session.spore(&["list"]).unwrap_err();
            assert!(error.contains("spore login"), "{error}");
            let login = ["login", "--username", "ada"];
            let error = session.spore_with(&login, "wrong\n").unwrap_err();
            assert!(error.contains("spore login"), "{error}");
            assert!(
                session.spore(&["list"]).is_err(),
                "nothing is kept of what is wrong"
            );
            let said = session.spore_with(&login, "hush\n").unwrap();
            assert_eq!(said, format!("logged in to {}\n", session.url));
            session.spore(&["new", "hello", "--lang", "c"]).unwrap();
            session.spore(&["deploy", "hello"]).unwrap();
            assert!(session.spore(&["list"]).unwrap().contains("hello"));
            session.spore(&["logout"]).unwrap();
            assert!(session.spore(&["list"]).is_err());
            assert!(session.spore(&["logout"]).is_err(), "there is nothing to forget");
            assert!(
                session.spore(&["invoke", "hello", "--data", ""]).is_ok(),
                "functions are for all"
            );
        },
    );
}

#[test]
fn secrets_are_made_listed_changed_and_removed() {
    with_daemon(|session| {
        let file = session.folder.path().join("value");
        std::fs::write(&file, "from a file\n").unwrap();
        let file = file.to_str().unwrap();
        session
            .spore_with(&["secret", "create", "one"], "hush\n")
            .unwrap();
        session
            .spore(&["secret", "create", "two", "--from-file", file])
            .unwrap();
        let error = session.spore(&["secret", "create", "three"]).unwrap_err();
        assert!(error.contains("--from-file"), "{error}");
        assert_eq!(session.spore(&["secret", "list"]).unwrap(), "NAME\none\ntwo\n");
        session.spore(&["new", "hello", "--lang", "c"]).unwrap();
        let error = session
            .spore(&["deploy", "hello", "--secret", "none"])
            .unwrap_err();
        assert!(error.contains("none"), "{error}");
        session
            .spore(&["deploy", "hello", "--secret", "one", "--secret", "two"])
            .unwrap();
        assert!(
            session
                .spore(&["describe", "hello"])
                .unwrap()
                .contains("one, two")
        );
        session.spore_with(&["secret", "update", "one"], "other").unwrap();
        let error = session.spore(&["secret", "remove", "one"]).unwrap_err();
        assert!(error.contains("hello"), "{error}");
        session.spore(&["remove", "hello"]).unwrap();
        session.spore(&["secret", "remove", "one"]).unwrap();
        let json = session.spore(&["secret", "list", "--json"]).unwrap();
        let list: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(
            list,
            serde_json::json!([{ "name": "two", "namespace": "openfaas-fn" }])
        );
    });
}

#[test]
fn a_certificate_is_checked() {
    let folder = tempfile::tempdir().unwrap();
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let files = TlsFiles {
        certificate: folder.path().join("certificate.pem"),
        key: folder.path().join("key.pem"),
    };
    std::fs::write(&files.certificate, made.cert.pem()).unwrap();
    std::fs::write(&files.key, made.signing_key.serialize_pem()).unwrap();
    let certificate = files.certificate.to_str().unwrap().to_owned();
    with_daemon_as(
        |config| config.tls = Some(files),
        |session| {
            let error = session.spore(&["list"]).unwrap_err();
            assert!(error.contains("SSL_CERT_FILE"), "{error}");
            let trusting = Session {
                url: session.url.clone(),
                variables: vec![("SSL_CERT_FILE".to_owned(), certificate)],
                folder: tempfile::tempdir().unwrap(),
            };
            assert!(trusting.spore(&["list"]).is_ok());
        },
    );
}
