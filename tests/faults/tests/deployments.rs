//! `kill -9` of the daemon at random moments while functions, secrets and namespaces are made, replaced and removed, and
//! functions invoked.
//!
//! What was acknowledged holds after the restart. What was under way at the moment of the kill is done or not done,
//! nothing in between.

use std::collections::BTreeMap;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use fastrand::Rng;
use http::{Method, StatusCode};
use serde_json::json;
use spore_test_harness::client::{self, RequestError};
use spore_test_harness::daemon::{Daemon, binary};
use spore_test_harness::{program, wait_until};

use crate::{Needs, Test, tests};

pub(crate) const TESTS: &[Test] = tests![Needs::Nothing; what_was_acknowledged_survives_kills_at_any_moment];

const KILLS: usize = 5;
/// Names that each of the two workers uses; none is used by both.
const NAMES: usize = 3;
/// A namespace that is there all the time, with functions of the same names as in the default one.
const NAMESPACE: &str = "other";
/// What the names of secrets and of namespaces begin with, rather than those of functions.
const SECRET: &str = "secret-";
const SPACE: &str = "space-";
const LONGEST_LIFE_MS: u64 = 900;

/// What is known of one function, secret or namespace: the version that it may have, none if it may be gone.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Known {
    /// As acknowledged.
    For(Option<u32>),
    /// A change was under way when the daemon was killed.
    Either(Option<u32>, Option<u32>),
}

type Book = Arc<Mutex<BTreeMap<String, Known>>>;

pub(crate) fn setting(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|_| panic!("{name} is a number, not {text:?}")),
    )
}

/// Changes functions, secrets and namespaces until the daemon is gone, one change after the other.
struct Worker {
    address: std::net::SocketAddr,
    names: Vec<String>,
    book: Book,
    random: Rng,
    image: String,
    folder: PathBuf,
    stop: Arc<AtomicBool>,
    acknowledged: Arc<AtomicUsize>,
}

impl Worker {
    fn run(mut self) {
        while !self.stop.load(Ordering::Relaxed) {
            let name = self.names[self.random.usize(..self.names.len())].clone();
            let Some(Known::For(now)) = self.book.lock().expect("nobody panics").get(&name).cloned() else {
                return;
            };
            let wanted = if now.is_some() && self.random.u8(..3) == 0 {
                None
            } else {
                Some(self.random.u32(1..))
            };
            self.note(&name, Known::Either(now, wanted));
            match self.change(&name, now, wanted) {
                Some(true) => {
                    self.note(&name, Known::For(wanted));
                    self.acknowledged.fetch_add(1, Ordering::Relaxed);
                }
                // The daemon is gone, and nobody knows how far it had come.
                _ => {
                    let is_killed = wait_until(Duration::from_secs(5), || self.stop.load(Ordering::Relaxed));
                    assert!(
                        is_killed,
                        "a change of {name} has failed, and nobody killed the daemon"
                    );
                    return;
                }
            }
            if let Some(version) = wanted
                && is_function(&name)
                && self.random.bool()
            {
                self.invoke(&name, version);
            }
        }
    }

    fn note(&self, name: &str, known: Known) {
        self.book
            .lock()
            .expect("nobody panics")
            .insert(name.to_owned(), known);
    }

    /// Whether the change was acknowledged; none if there was no answer.
    fn change(&mut self, name: &str, now: Option<u32>, wanted: Option<u32>) -> Option<bool> {
        let method = match (now, wanted) {
            (_, None) => Method::DELETE,
            (None, Some(_)) => Method::POST,
            (Some(_), Some(_)) => Method::PUT,
        };
        if name.starts_with(SECRET) {
            let value = wanted.map(|version| version.to_string());
            return self.send(
                method,
                "/system/secrets",
                &json!({ "name": name, "value": value }),
            );
        }
        if name.starts_with(SPACE) {
            let labels = wanted.map(|version| json!({ "version": version.to_string() }));
            let path = format!("/system/namespace/{name}");
            let body = json!({ "name": name, "labels": labels.unwrap_or_else(|| json!({})) });
            return self.send(method, &path, &body);
        }
        let (service, namespace) = name.split_once('.').unwrap_or((name, ""));
        let Some(version) = wanted else {
            let body = json!({ "functionName": service, "namespace": namespace });
            return self.send(method, "/system/functions", &body);
        };
        // By the command line with a program that was not there before, or with the image that is.
        if namespace.is_empty() && self.random.u8(..3) == 0 {
            return Some(self.push(name, version));
        }
        let body = json!({
            "service": service,
            "namespace": namespace,
            "image": self.image,
            "envVars": { "VERSION": version.to_string() },
        });
        self.send(method, "/system/functions", &body)
    }

    fn send(&self, method: Method, path: &str, body: &serde_json::Value) -> Option<bool> {
        let request = client::with_body(method, path, body.to_string());
        match client::send(self.address, request) {
            Ok(answer) => {
                assert!(
                    answer.status.is_success(),
                    "{path}: {} {}",
                    answer.status,
                    answer.text()
                );
                Some(true)
            }
            Err(RequestError::TimedOut { after }) => panic!("no answer within {after:?}"),
            Err(_) => None,
        }
    }

    /// Deploys a program alone, or in a root file system.
    fn push(&mut self, name: &str, version: u32) -> bool {
        // What follows a program in its file does not matter to it, and makes the image another one.
        let mut bytes = std::fs::read(program::build("httpd")).expect("it was built");
        bytes.extend((0..self.random.usize(1..1 << 20)).map(|_| self.random.u8(..)));
        let root = self.folder.join(name);
        std::fs::create_dir_all(root.join("bin")).expect("the temporary folder is writable");
        let program = root.join("bin/httpd");
        // Written anew, for the one before may be mapped.
        std::fs::write(root.join("new"), bytes).expect("the temporary folder is writable");
        std::fs::rename(root.join("new"), &program).expect("the temporary folder is writable");
        std::fs::set_permissions(&program, Permissions::from_mode(0o755)).expect("it is ours");
        let mut command = Command::new(binary());
        command.args(["deploy", name, "--env", &format!("VERSION={version}")]);
        if self.random.bool() {
            command.arg("--binary").arg(&program);
        } else {
            command
                .arg("--rootfs")
                .arg(&root)
                .args(["--entrypoint", "/bin/httpd"]);
        }
        let url = format!("http://{}", self.address);
        let output = command.env("OPENFAAS_URL", url).output();
        output.expect("the spore binary can be run").status.success()
    }

    fn invoke(&self, name: &str, version: u32) {
        let path = format!("/function/{name}/environment");
        if let Ok(answer) = client::send(self.address, client::request(Method::GET, &path)) {
            let text = answer.text();
            // A daemon that is killed may cut the answer off, but not falsify it.
            assert!(
                answer.status == StatusCode::OK && text.contains(&format!("VERSION={version}\n")),
                "{name} {version}: {} {text}",
                answer.status
            );
        }
    }
}

fn what_was_acknowledged_survives_kills_at_any_moment() {
    let seed = setting("SPORE_FAULTS_SEED").unwrap_or_else(|| fastrand::u64(..));
    let kills = setting("SPORE_FAULTS_KILLS").map_or(KILLS, |kills| kills as usize);
    println!("SPORE_FAULTS_SEED={seed} SPORE_FAULTS_KILLS={kills}");
    let mut random = Rng::with_seed(seed);
    let mut daemon = Daemon::start();
    daemon.deploy("base", &program::build("httpd"), &[]);
    let image = daemon.get("/system/function/base").json()["image"].clone();
    let image = image.as_str().expect("an image").to_owned();
    daemon.send_body(
        Method::POST,
        &format!("/system/namespace/{NAMESPACE}"),
        json!({ "name": NAMESPACE }).to_string(),
    );
    daemon.deploy("peek", &program::build("secrets"), &[]);
    let peek = daemon.get("/system/function/peek").json()["image"].clone();
    let book: Book = Book::default();
    for name in (0..2).flat_map(names) {
        book.lock().expect("nobody panics").insert(name, Known::For(None));
    }
    let acknowledged = Arc::new(AtomicUsize::new(0));
    for _ in 0..kills {
        let folder = tempfile::tempdir().expect("the temporary folder is writable");
        let stop = Arc::new(AtomicBool::new(false));
        let workers: Vec<JoinHandle<()>> = (0..2)
            .map(|worker| {
                let worker = Worker {
                    address: daemon.address(),
                    names: names(worker),
                    book: book.clone(),
                    random: random.fork(),
                    image: image.replace(&daemon.address().to_string(), "localhost"),
                    folder: folder.path().to_owned(),
                    stop: stop.clone(),
                    acknowledged: acknowledged.clone(),
                };
                std::thread::spawn(move || worker.run())
            })
            .collect();
        std::thread::sleep(Duration::from_millis(random.u64(1..LONGEST_LIFE_MS)));
        let monitors = daemon.descendants();
        daemon.kill();
        stop.store(true, Ordering::Relaxed);
        for worker in workers {
            worker.join().expect("a worker found nothing wrong");
        }
        let gone = wait_until(Duration::from_secs(2), || {
            !monitors.iter().any(|monitor| monitor.is_alive())
        });
        assert!(gone, "monitors outlive the daemon");
        daemon.start_again();
        check(&daemon, &book, &peek);
    }
    let acknowledged = acknowledged.load(Ordering::Relaxed);
    println!("{acknowledged} changes were acknowledged");
    assert!(acknowledged >= kills, "next to nothing was changed");
}

fn is_function(name: &str) -> bool {
    !name.starts_with(SECRET) && !name.starts_with(SPACE)
}

/// What one worker changes.
fn names(worker: usize) -> Vec<String> {
    let of = |number: usize| {
        [
            format!("f{worker}{number}"),
            format!("f{worker}{number}.{NAMESPACE}"),
            format!("{SECRET}{worker}{number}"),
            format!("{SPACE}{worker}{number}"),
        ]
    };
    (0..NAMES).flat_map(of).collect()
}

/// The values of all secrets that are there, as a function sees them that is deployed with them.
fn secrets(daemon: &Daemon, image: &serde_json::Value) -> BTreeMap<String, u32> {
    let listed = daemon.get("/system/secrets").json();
    let listed = listed.as_array().expect("a list");
    let names: Vec<_> = listed.iter().map(|secret| secret["name"].clone()).collect();
    let deploy = |secrets: &[serde_json::Value]| {
        let body = json!({ "service": "peek", "image": image, "secrets": secrets });
        let answer = daemon.send_body(Method::PUT, "/system/functions", body.to_string());
        assert_eq!(answer.status, StatusCode::ACCEPTED, "{}", answer.text());
    };
    deploy(&names);
    let shown = if names.is_empty() {
        String::new()
    } else {
        daemon.get("/function/peek").text()
    };
    // A secret that a function uses is not removed.
    deploy(&[]);
    let found: BTreeMap<String, u32> = shown
        .lines()
        .filter_map(|line| {
            let mut words = line.split(' ');
            let name = words.next().filter(|name| name.starts_with(SECRET))?;
            Some((name.to_owned(), words.nth(1)?.parse().ok()?))
        })
        .collect();
    assert_eq!(found.len(), names.len(), "{names:?}: {shown}");
    found
}

/// The version of a namespace; none if it is not there.
fn space(daemon: &Daemon, name: &str) -> Option<u32> {
    let answer = daemon.get(&format!("/system/namespace/{name}"));
    if answer.status == StatusCode::NOT_FOUND {
        return None;
    }
    let version = answer.json()["labels"]["version"].clone();
    let version = version.as_str().unwrap_or_else(|| panic!("{}", answer.text()));
    Some(version.parse().expect("a number"))
}

/// Compares the daemon with the book, and settles in the book what was open.
fn check(daemon: &Daemon, book: &Book, peek: &serde_json::Value) {
    let log = daemon.log();
    assert!(!log.contains("left out"), "a record is damaged:\n{log}");
    let uploads = std::fs::read_dir(daemon.data().join("uploads")).expect("it is there");
    assert_eq!(uploads.count(), 0, "half uploads are removed");
    let mut book = book.lock().expect("nobody panics");
    let secrets = secrets(daemon, peek);
    for (name, known) in book.iter_mut() {
        let found = match name {
            name if name.starts_with(SECRET) => secrets.get(name).copied(),
            name if name.starts_with(SPACE) => space(daemon, name),
            name => version(daemon, name),
        };
        let is_right = match known {
            Known::For(version) => found == *version,
            Known::Either(before, after) => found == *before || found == *after,
        };
        assert!(
            is_right,
            "{name} should be {known:?}, and is {found:?}\n{}",
            daemon.log()
        );
        *known = Known::For(found);
    }
    assert_eq!(daemon.get("/function/base/").status, StatusCode::OK);
}

/// The version that answers; none if the function is not deployed.
fn version(daemon: &Daemon, name: &str) -> Option<u32> {
    let answer = daemon.get(&format!("/function/{name}/environment"));
    if answer.status == StatusCode::NOT_FOUND {
        return None;
    }
    assert_eq!(
        answer.status,
        StatusCode::OK,
        "{name}: {}\n{}",
        answer.text(),
        daemon.log()
    );
    let text = answer.text();
    let version = text.lines().find_map(|line| line.strip_prefix("VERSION="));
    Some(
        version
            .unwrap_or_else(|| panic!("{name} has no version: {text}"))
            .parse()
            .expect("a number"),
    )
}
