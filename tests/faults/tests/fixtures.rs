//! What the tests share: monitors found and signalled, raw requests, a neighbour that must not notice.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use http::{Method, StatusCode};
use rustix::process::{Pid, Signal, kill_process};
use spore_test_harness::client::{self, Answer};
use spore_test_harness::daemon::Daemon;
use spore_test_harness::process::{ProcessIdentity, descendants};
use spore_test_harness::{program, wait_until};

/// How long anything may take on a busy machine that takes a moment otherwise.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Deploys the misbehaving program under a name.
pub(crate) fn deploy_faults(daemon: &Daemon, name: &str, options: &[&str]) {
    daemon.deploy(name, &program::build("faults"), options);
}

/// The monitors of a function, found by their titles.
pub(crate) fn monitors(daemon: &Daemon, function: &str) -> Vec<ProcessIdentity> {
    let prefix = format!("spore-monitor {function} ");
    let mut found = daemon.descendants();
    found.retain(|monitor| {
        let process = procfs::process::Process::new(monitor.pid);
        let title = process.and_then(|process| process.cmdline());
        title.is_ok_and(|title| title.first().is_some_and(|title| title.starts_with(&prefix)))
    });
    found
}

/// The one monitor of a function, once it is there.
pub(crate) fn monitor(daemon: &Daemon, function: &str) -> ProcessIdentity {
    let mut found = Vec::new();
    let is_there = wait_until(PATIENCE, || {
        found = monitors(daemon, function);
        found.len() == 1
    });
    assert!(
        is_there,
        "{function} has {} monitors: {}",
        found.len(),
        daemon.log()
    );
    found[0]
}

pub(crate) fn signal(process: ProcessIdentity, signal: Signal) {
    let pid = Pid::from_raw(process.pid).expect("a process number");
    // It may have gone by itself meanwhile.
    let _ = kill_process(pid, signal);
}

/// Waits until a process has gone.
pub(crate) fn wait_for_end(process: ProcessIdentity) {
    let gone = wait_until(PATIENCE, || !process.is_alive());
    assert!(gone, "process {} is still there", process.pid);
}

/// Waits until a process computes: the guest runs, not the set-up of its machine.
pub(crate) fn wait_until_it_computes(process: ProcessIdentity) {
    let ticks_of = |pid| {
        let stat = procfs::process::Process::new(pid).and_then(|process| process.stat());
        stat.map_or(0, |stat| stat.utime + stat.stime)
    };
    // The guest may be a process of its own, below its monitor.
    let ticks = || {
        let guests = descendants(process.pid as u32);
        ticks_of(process.pid) + guests.iter().map(|guest| ticks_of(guest.pid)).sum::<u64>()
    };
    let before = ticks();
    let computes = wait_until(PATIENCE, || ticks() > before + 10);
    assert!(computes, "process {} does not compute", process.pid);
}

/// A request whose answer another thread waits for.
pub(crate) struct Pending(JoinHandle<Result<Answer, client::RequestError>>);

impl Pending {
    pub(crate) fn get(daemon: &Daemon, path: &str) -> Self {
        let (address, path) = (daemon.address(), path.to_owned());
        Self(std::thread::spawn(move || {
            client::send(address, client::request(Method::GET, &path))
        }))
    }

    pub(crate) fn outcome(self) -> Result<Answer, client::RequestError> {
        self.0.join().expect("the client does not panic")
    }

    pub(crate) fn answer(self) -> Answer {
        self.outcome().expect("there is an answer")
    }
}

/// A connection with the daemon on which a test writes and reads what it wants.
pub(crate) struct Raw(TcpStream);

impl Raw {
    /// Connects and sends these bytes.
    pub(crate) fn send(address: SocketAddr, bytes: &str) -> Self {
        let stream = TcpStream::connect(address).expect("the gateway listens");
        stream
            .set_read_timeout(Some(Duration::from_secs(60)))
            .expect("a timeout can be set");
        let mut raw = Self(stream);
        raw.write(bytes.as_bytes());
        raw
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).expect("the gateway reads");
    }

    /// Reads until the text has come, or the end.
    pub(crate) fn read_until(&mut self, text: &str) -> String {
        let mut bytes = Vec::new();
        let mut buffer = [0; 4096];
        while !String::from_utf8_lossy(&bytes).contains(text) {
            match self.0.read(&mut buffer) {
                Ok(count @ 1..) => bytes.extend_from_slice(&buffer[..count]),
                _ => break,
            }
        }
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Reads the rest, up to the end of the connection, however it ends; the last bytes of it.
    pub(crate) fn read_tail(&mut self) -> Vec<u8> {
        let mut tail = Vec::new();
        let mut buffer = [0; 65536];
        loop {
            match self.0.read(&mut buffer) {
                Ok(count @ 1..) => {
                    tail.extend_from_slice(&buffer[..count]);
                    let surplus = tail.len().saturating_sub(256);
                    tail.drain(..surplus);
                }
                Ok(0) => return tail,
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return tail,
                Err(error) => panic!("the connection does not end: {error}"),
            }
        }
    }
}

/// A function that is asked all the time, and whose every answer has to be right.
pub(crate) struct Neighbour {
    stop: Arc<AtomicBool>,
    asking: JoinHandle<Vec<String>>,
    asked: Arc<std::sync::atomic::AtomicU64>,
}

impl Neighbour {
    /// Deploys it and begins to ask.
    pub(crate) fn start(daemon: &Daemon) -> Self {
        daemon.deploy("neighbour", &program::build("httpd"), &[]);
        let first = daemon.get("/function/neighbour/count");
        assert_eq!(first.status, StatusCode::OK, "{}", first.text());
        Self::watch(daemon.address())
    }

    fn watch(address: SocketAddr) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let asked = Arc::new(std::sync::atomic::AtomicU64::new(0));
        let (stopped, count) = (stop.clone(), asked.clone());
        let asking = std::thread::spawn(move || {
            let mut failures = Vec::new();
            while !stopped.load(Ordering::Relaxed) {
                let request = client::request(Method::GET, "/function/neighbour/count");
                match client::send(address, request) {
                    Ok(answer) if answer.status == StatusCode::OK => {}
                    Ok(answer) => failures.push(format!("{}: {}", answer.status, answer.text())),
                    Err(error) => failures.push(spore_test_harness::daemon::chain(&error)),
                }
                count.fetch_add(1, Ordering::Relaxed);
                std::thread::sleep(Duration::from_millis(20));
            }
            failures
        });
        Self { stop, asking, asked }
    }

    /// Waits until it was asked some more times, and ends it: nothing may have gone wrong.
    pub(crate) fn check(self) {
        let before = self.asked.load(Ordering::Relaxed);
        let asked = wait_until(PATIENCE, || self.asked.load(Ordering::Relaxed) > before + 5);
        self.stop.store(true, Ordering::Relaxed);
        let failures = self.asking.join().expect("it does not panic");
        assert!(asked, "the neighbour hangs");
        assert!(failures.is_empty(), "the neighbour noticed: {failures:#?}");
    }
}

/// Checks a failed answer: its status, that it is one line of the platform's own, and what it says.
pub(crate) fn check_failure(answer: &Answer, status: StatusCode, says: &[&str]) {
    let text = answer.text();
    assert_eq!(answer.status, status, "{text}");
    assert_eq!(text.trim_end().lines().count(), 1, "one line: {text:?}");
    for part in says {
        assert!(text.contains(part), "{part:?} is missing in {text:?}");
    }
}
