//! What is left: nothing, whoever is killed.

use std::fs;
use std::path::Path;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use spore_test_harness::daemon::Daemon;
use spore_test_harness::wait_until;

use crate::life::{PATIENCE, answer, deploy, replicas};
use crate::{Test, daemon};

pub(crate) const TESTS: &[Test] = &[
    ("nothing_is_left_of_a_daemon_that_was_stopped", stopped),
    ("nothing_is_left_of_a_daemon_that_was_killed", killed),
    (
        "a_process_of_an_instance_that_is_killed_ends_that_instance",
        instance_killed,
    ),
];

/// Whatever names an instance of this daemon: processes in its cgroups, and those, mounts within its data folder, what
/// container runtimes know.
fn traces(daemon: u32, data: &Path) -> Vec<String> {
    let mut traces = Vec::new();
    let mark = format!("/spore/{daemon}-");
    let container = format!("spore-{daemon}-");
    cgroups(Path::new("/sys/fs/cgroup"), &[&mark, &container], 8, &mut traces);
    for process in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let text = |file: &str| fs::read_to_string(process.path().join(file)).unwrap_or_default();
        let is_number = process.file_name().to_string_lossy().parse::<u32>().is_ok();
        // A monitor that waits for demand belongs to no instance.
        let command = text("cmdline");
        let is_monitor = command.starts_with("spore-monitor ready");
        // KVM on hardware virtualisation has one for each machine, also for those that wait for demand; it ends with the machine.
        let is_kernel_thread = command.is_empty();
        let is_ended = text("stat")
            .rsplit(')')
            .next()
            .is_some_and(|rest| rest.trim_start().starts_with('Z'));
        let groups = text("cgroup");
        let is_of_nobody = is_monitor || is_kernel_thread || is_ended;
        if is_number && !is_of_nobody && (groups.contains(&mark) || groups.contains(&container)) {
            traces.push(format!("process {}", process.file_name().to_string_lossy()));
        }
        if is_number
            && !is_ended
            && text("mountinfo").contains(&data.display().to_string())
            && !shares_our_mounts(&process.path())
        {
            traces.push(format!(
                "mounts of process {}",
                process.file_name().to_string_lossy()
            ));
        }
    }
    for kind in ["runc", "crun", "runsc"] {
        let folder = data.join("containers").join(kind);
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        traces.extend(entries.map(|entry| format!("container {}", entry.path().display())));
    }
    traces
}

fn shares_our_mounts(process: &Path) -> bool {
    let ours = fs::read_link("/proc/self/ns/mnt").ok();
    fs::read_link(process.join("ns/mnt")).ok() == ours
}

fn cgroups(folder: &Path, marks: &[&str], depth: usize, traces: &mut Vec<String>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if depth == 0 || !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            continue;
        }
        let text = path.display().to_string();
        // A group that has a monitor ready in it is of no instance.
        let processes = fs::read_to_string(path.join("cgroup.procs")).unwrap_or_default();
        let waits = processes.lines().any(|process| {
            fs::read_to_string(format!("/proc/{process}/cmdline"))
                .is_ok_and(|line| line.starts_with("spore-monitor ready"))
        });
        let is_instance = marks.iter().any(|mark| {
            text.split_once(mark)
                .is_some_and(|(_, rest)| rest.contains('/') || mark.starts_with("spore-"))
        });
        if is_instance && !waits {
            traces.push(format!("cgroup {text}"));
        }
        cgroups(&path, marks, depth - 1, traces);
    }
}

/// Waits until nothing is left of any instance of the daemon.
pub(crate) fn nothing_of(daemon: &Daemon, patience: Duration) {
    nothing_left(daemon.pid(), &daemon.data(), patience);
}

fn nothing_left(daemon: u32, data: &Path, patience: Duration) {
    let is_clean = wait_until(patience, || traces(daemon, data).is_empty());
    assert!(is_clean, "left:\n{}", traces(daemon, data).join("\n"));
}

fn stopped(kind: &'static str) {
    let mut daemon = daemon(kind);
    deploy(&daemon, kind, "web", &["--min", "2"]);
    answer(&daemon, "web");
    let (number, data) = (daemon.pid(), daemon.data());
    assert!(daemon.stop().success(), "{}", daemon.log());
    nothing_left(number, &data, PATIENCE);
}

fn killed(kind: &'static str) {
    let mut daemon = daemon(kind);
    deploy(&daemon, kind, "web", &["--max", "3"]);
    let before = answer(&daemon, "web/identity");
    let number = daemon.pid();
    // Some run, one is about to.
    let address = daemon.address();
    let _asking: Vec<_> = (0..2)
        .map(|_| {
            std::thread::spawn(move || {
                let request =
                    spore_test_harness::client::request(http::Method::GET, "/function/web/sleep?ms=600000");
                let _ = spore_test_harness::client::send(address, request);
            })
        })
        .collect();
    assert!(wait_until(PATIENCE, || replicas(&daemon, "web") >= 2));
    let family = daemon.descendants();
    daemon.kill();
    daemon.start_again();
    assert_ne!(answer(&daemon, "web/identity"), before);
    let are_gone = || !family.iter().any(|process| process.is_alive());
    assert!(
        wait_until(PATIENCE, are_gone),
        "processes of the daemon that was killed live on"
    );
    let of_old = || {
        let mut traces = traces(number, &daemon.data());
        // The new daemon's own.
        traces.retain(|trace| !trace.starts_with("mounts") && !trace.starts_with("container"));
        traces
    };
    assert!(
        wait_until(PATIENCE, || of_old().is_empty()),
        "left:\n{}",
        of_old().join("\n")
    );
    daemon.spore_ok(&["remove", "web"]);
    nothing_of(&daemon, PATIENCE);
}

fn instance_killed(kind: &'static str) {
    let daemon = daemon(kind);
    deploy(&daemon, kind, "web", &[]);
    let before = answer(&daemon, "web/identity");
    let processes: Vec<_> = daemon.descendants().into_iter().collect();
    let waiting = daemon.waiting_monitors();
    for process in processes.iter().filter(|process| !waiting.contains(process)) {
        if let Some(pid) = Pid::from_raw(process.pid) {
            // Some go with others.
            let _ = kill_process(pid, Signal::KILL);
        }
    }
    assert!(
        wait_until(PATIENCE, || {
            let asked = daemon.get("/function/web/identity");
            asked.status.is_success() && asked.text() != before
        }),
        "{}",
        daemon.log()
    );
    daemon.spore_ok(&["remove", "web"]);
    nothing_of(&daemon, PATIENCE);
}
