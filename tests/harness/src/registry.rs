//! A real registry (`docker-registry`) on loopback, with or without users.

use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use crate::program::free_port;
use crate::wait_until;

/// How long it may take to listen.
const START_TIMEOUT: Duration = Duration::from_secs(20);

/// Whether all of these commands can be run here; says so on standard error if one cannot.
pub fn has_tools(names: &[&str]) -> bool {
    let is_missing = |name: &&&str| {
        let found = Command::new("sh")
            .args(["-c", &format!("command -v {name}")])
            .stdout(Stdio::null())
            .status();
        !found.is_ok_and(|status| status.success())
    };
    let missing: Vec<_> = names.iter().filter(is_missing).collect();
    if !missing.is_empty() {
        eprintln!("skipped, for these are not installed: {missing:?}");
    }
    missing.is_empty()
}

/// A running registry; it ends when dropped.
pub struct Registry {
    process: Child,
    address: SocketAddr,
    folder: TempDir,
}

impl Registry {
    /// Starts one that anybody may use.
    pub fn start() -> Self {
        Self::start_in(
            TempDir::with_prefix("spore-registry-").expect("the temporary folder is writable"),
            "",
        )
    }

    /// Starts one for one user.
    pub fn start_for(user: &str, password: &str) -> Self {
        let folder = TempDir::with_prefix("spore-registry-").expect("the temporary folder is writable");
        let users = run("htpasswd", &["-Bbn", user, password], folder.path());
        std::fs::write(folder.path().join("users"), users.stdout).expect("writable");
        let auth = format!(
            "auth: {{htpasswd: {{realm: test, path: {}}}}}\n",
            folder.path().join("users").display()
        );
        Self::start_in(folder, &auth)
    }

    /// Starts one that speaks HTTPS as `localhost`, with a certificate that nobody knows.
    pub fn start_with_tls() -> Self {
        let folder = TempDir::with_prefix("spore-registry-").expect("the temporary folder is writable");
        let settings = "[req]\ndistinguished_name = name\nprompt = no\n[name]\nCN = localhost\n\
                        [extensions]\nsubjectAltName = DNS:localhost\nbasicConstraints = CA:FALSE\n";
        std::fs::write(folder.path().join("openssl.cnf"), settings).expect("writable");
        let words = "req -x509 -newkey rsa:2048 -nodes -days 2 -config openssl.cnf -extensions extensions \
                     -keyout key.pem -out certificate.pem";
        run(
            "openssl",
            &words.split_whitespace().collect::<Vec<_>>(),
            folder.path(),
        );
        let at = |name: &str| folder.path().join(name).display().to_string();
        let tls = format!(
            "  tls: {{certificate: {}, key: {}}}\n",
            at("certificate.pem"),
            at("key.pem")
        );
        Self::start_in(folder, &tls)
    }

    /// The certificate of one that speaks HTTPS.
    pub fn certificate(&self) -> PathBuf {
        self.folder.path().join("certificate.pem")
    }

    /// `more` goes below the settings of HTTP, or beside them.
    fn start_in(folder: TempDir, more: &str) -> Self {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
        let settings = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\nhttp:\n  addr: '{address}'\n{more}",
            folder.path().join("data").display()
        );
        let path = folder.path().join("config.yml");
        std::fs::write(&path, settings).expect("writable");
        let log = std::fs::File::create(folder.path().join("log")).expect("writable");
        let process = Command::new("docker-registry")
            .arg("serve")
            .arg(&path)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("docker-registry can be run");
        let registry = Self {
            process,
            address,
            folder,
        };
        let listens = wait_until(START_TIMEOUT, || TcpStream::connect(address).is_ok());
        let log = std::fs::read_to_string(registry.folder.path().join("log")).unwrap_or_default();
        assert!(listens, "docker-registry does not listen: {log}");
        registry
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Runs a tool in a folder; it has to succeed.
pub fn run(program: &str, arguments: &[&str], folder: &Path) -> Output {
    let output = Command::new(program)
        .args(arguments)
        .current_dir(folder)
        .stdin(Stdio::null())
        .output();
    let output = output.unwrap_or_else(|error| panic!("{program} cannot be run: {error}"));
    assert!(
        output.status.success(),
        "{program} {arguments:?}: {}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    output
}
