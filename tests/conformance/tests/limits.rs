//! Memory and processor time that an instance may take.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use spore_test_harness::wait_until;

use crate::life::{PATIENCE, answer, deploy, deploy_program};
use crate::{Test, daemon};

pub(crate) const TESTS: &[Test] = &[
    ("memory_ends_with_the_limit_and_the_instance_alone", memory),
    ("processor_time_is_held_to_the_limit", processor),
];

fn memory(kind: &'static str) {
    let daemon = daemon(kind);
    deploy_program(&daemon, kind, "faults", "faults", &["--memory", "64Mi"]);
    deploy(&daemon, kind, "neighbour", &[]);
    let neighbour = answer(&daemon, "neighbour/identity");
    let ended = daemon.get("/function/faults/memory");
    assert!(ended.status.is_server_error(), "{}", ended.text());
    assert!(
        ended.text().contains("ran out of its 67108864 bytes of memory"),
        "{}",
        ended.text()
    );
    daemon.wait_for_log("faults", "ran out of its 67108864 bytes of memory");
    assert_eq!(answer(&daemon, "faults"), "ok\n");
    assert_eq!(answer(&daemon, "neighbour/identity"), neighbour);
}

/// A function that computes all the time is stopped by the kernel again and again, which counts that.
fn processor(kind: &'static str) {
    let daemon = daemon(kind);
    deploy_program(
        &daemon,
        kind,
        "faults",
        "faults",
        &["--cpu", "200m", "--timeout", "600s"],
    );
    answer(&daemon, "faults");
    let groups = groups_of(daemon.pid());
    if groups.is_empty() {
        // Without cgroups there is no such limit, and `spore info` says so.
        assert_eq!(kind, "unikernel");
        return;
    }
    let address = daemon.address();
    // It ends with the daemon.
    std::thread::spawn(move || {
        let request = spore_test_harness::client::request(http::Method::GET, "/function/faults/spin");
        let _ = spore_test_harness::client::send(address, request);
    });
    let is_throttled = || {
        let mut groups = groups_of(daemon.pid()).into_iter();
        groups.any(|group| throttled(&group) > 3)
    };
    assert!(wait_until(PATIENCE.max(Duration::from_secs(60)), is_throttled));
}

/// The cgroups of a daemon's instances that have a limit of processor time.
fn groups_of(daemon: u32) -> Vec<PathBuf> {
    let mut found = Vec::new();
    collect(
        Path::new("/sys/fs/cgroup"),
        &format!("/spore/{daemon}-"),
        8,
        &mut found,
    );
    found
}

fn collect(folder: &Path, mark: &str, depth: usize, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if depth > 0 && entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            if path.to_string_lossy().contains(mark) && path.join("cpu.stat").exists() {
                found.push(path.clone());
            }
            collect(&path, mark, depth - 1, found);
        }
    }
}

/// How often the kernel has stopped the processes of a group until their next period.
fn throttled(group: &Path) -> u64 {
    let text = fs::read_to_string(group.join("cpu.stat")).unwrap_or_default();
    let count = text.lines().find_map(|line| line.strip_prefix("nr_throttled "));
    count.and_then(|count| count.trim().parse().ok()).unwrap_or(0)
}
