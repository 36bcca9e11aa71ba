//! `kill -9` of the daemon at random moments while functions are deployed, replaced, removed and invoked.
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
const LONGEST_LIFE_MS: u64 = 900;

/// What is known of one function: the version that it may have, none if it may be gone.
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

/// Changes functions until the daemon is gone, one change after the other.
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
        let Some(version) = wanted else {
            let body = json!({ "functionName": name }).to_string();
            return self.send(Method::DELETE, body);
        };
        // By the command line with a program that was not there before, or with the image that is.
        if self.random.u8(..3) == 0 {
            return Some(self.push(name, version));
        }
        let body = json!({
            "service": name,
            "image": self.image,
            "envVars": { "VERSION": version.to_string() },
        });
        let method = if now.is_some() { Method::PUT } else { Method::POST };
        self.send(method, body.to_string())
    }

    fn send(&self, method: Method, body: String) -> Option<bool> {
        let request = client::with_body(method, "/system/functions", body);
        match client::send(self.address, request) {
            Ok(answer) => {
                assert_eq!(answer.status, StatusCode::ACCEPTED, "{}", answer.text());
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
    let book: Book = Book::default();
    for worker in 0..2 {
        for number in 0..NAMES {
            let name = format!("f{worker}{number}");
            book.lock().expect("nobody panics").insert(name, Known::For(None));
        }
    }
    let acknowledged = Arc::new(AtomicUsize::new(0));
    for _ in 0..kills {
        let folder = tempfile::tempdir().expect("the temporary folder is writable");
        let stop = Arc::new(AtomicBool::new(false));
        let workers: Vec<JoinHandle<()>> = (0..2)
            .map(|worker| {
                let worker = Worker {
                    address: daemon.address(),
                    names: (0..NAMES).map(|number| format!("f{worker}{number}")).collect(),
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
        check(&daemon, &book);
    }
    let acknowledged = acknowledged.load(Ordering::Relaxed);
    println!("{acknowledged} changes were acknowledged");
    assert!(acknowledged >= kills, "next to nothing was changed");
}

/// Compares the daemon with the book, and settles in the book what was open.
fn check(daemon: &Daemon, book: &Book) {
    let log = daemon.log();
    assert!(!log.contains("left out"), "a record is damaged:\n{log}");
    let uploads = std::fs::read_dir(daemon.data().join("uploads")).expect("it is there");
    assert_eq!(uploads.count(), 0, "half uploads are removed");
    let mut book = book.lock().expect("nobody panics");
    for (name, known) in book.iter_mut() {
        let found = version(daemon, name);
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
