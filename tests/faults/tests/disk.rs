//! The disk of the data folder is full: who needs it is told, who does not goes on, and room is all that is needed.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use http::{Method, StatusCode};
use serde_json::json;
use spore_test_harness::daemon::{Daemon, Setup, data_folder};
use spore_test_harness::{guests_are_processes, program, wait_until};

use crate::fixtures::{Neighbour, PATIENCE, check_failure, deploy_faults};
use crate::{Needs, Test, tests};

pub(crate) const TESTS: &[Test] = tests![Needs::Mounts;
    a_full_disk_stops_changes_only_and_room_is_enough,
    a_full_disk_does_not_keep_a_daemon_from_starting,
    a_full_disk_keeps_snapshots_in_memory,
];

/// Snapshots are written a second after their first answer; this is more.
const SNAPSHOT_DELAY: Duration = Duration::from_secs(3);

/// Mounts a small file system at its second argument, in a mount namespace of the daemon's own, and lets the daemon
/// write its own log there too.
const ON_A_SMALL_DISK: &str = r#"mkdir -p "$1" && mount -t tmpfs -o size=24m tmpfs "$1" && data=$1 && shift &&
    exec "$@" 2>>"$data/daemon-errors.log""#;

/// A daemon with a small disk of its own for its data.
struct SmallDisk {
    daemon: Daemon,
    /// The data folder as the daemon sees it.
    data: PathBuf,
}

impl SmallDisk {
    fn start() -> Self {
        let folder = data_folder();
        let data = folder.path().join("data");
        let path = data.to_str().expect("UTF-8").to_owned();
        let prefix = ["unshare", "--mount", "sh", "-c", ON_A_SMALL_DISK, "sh", &path];
        let setup = Setup {
            prefix: prefix.map(str::to_owned).to_vec(),
            ..Setup::default()
        };
        let daemon = Daemon::start_in(folder, setup);
        let data = Path::new("/proc")
            .join(daemon.pid().to_string())
            .join("root")
            .join(data.strip_prefix("/").expect("absolute"));
        Self { daemon, data }
    }

    fn filler(&self) -> PathBuf {
        self.data.join("filler")
    }

    /// Writes until nothing goes any more.
    fn fill(&self) {
        let mut file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.filler())
            .expect("the small disk is there");
        for size in [1 << 20, 1 << 12, 1] {
            while file.write_all(&vec![b'x'; size]).is_ok() {}
        }
    }

    fn free(&self) {
        std::fs::remove_file(self.filler()).expect("it is there");
    }

    /// All files but the filler and the logs, with their lengths.
    fn files(&self) -> Vec<(PathBuf, u64)> {
        let mut found = Vec::new();
        let mut folders = vec![self.data.clone()];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).expect("readable") {
                let entry = entry.expect("readable");
                let metadata = entry.metadata().expect("readable");
                let name = entry.file_name();
                if metadata.is_dir() {
                    folders.extend((name != "logs").then(|| entry.path()));
                } else if name != "filler" && name != "daemon-errors.log" && name != "spore.redb" {
                    found.push((entry.path(), metadata.len()));
                }
            }
        }
        found.sort();
        found
    }
}

const IS_FULL: &[&str] = &["is full", "free some space", "data"];

fn a_full_disk_stops_changes_only_and_room_is_enough() {
    let disk = SmallDisk::start();
    let daemon = &disk.daemon;
    deploy_faults(daemon, "talks", &["--max", "1"]);
    let image = daemon.get("/system/function/talks").json()["image"].clone();
    assert_eq!(daemon.get("/function/talks/line").status, StatusCode::OK);
    daemon.wait_for_log("talks", "a line");
    deploy_faults(daemon, "spare", &[]);
    let neighbour = Neighbour::start(daemon);
    disk.fill();
    let before = disk.files();

    // A push, and a deployment of what is there.
    let output = daemon.spore(&[
        "deploy",
        "large",
        "--binary",
        program::build("corners").to_str().expect("UTF-8"),
    ]);
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success(), "{error}");
    for part in IS_FULL {
        assert!(error.contains(part), "{part:?} is missing in {error}");
    }
    let mut failures = 0;
    for number in 0..50 {
        let body = json!({ "service": format!("more{number}"), "image": image, "envVars": { "X": "x".repeat(1 << 15) } });
        let answer = daemon.send_body(Method::POST, "/system/functions", body.to_string());
        if answer.status == StatusCode::ACCEPTED {
            continue; // the database had some room left in its file
        }
        check_failure(&answer, StatusCode::INSUFFICIENT_STORAGE, IS_FULL);
        failures += 1;
        if failures == 2 {
            let name = format!("/function/more{number}");
            assert_eq!(
                daemon.get(&name).status,
                StatusCode::NOT_FOUND,
                "nothing is half deployed"
            );
            break;
        }
    }
    assert_eq!(failures, 2, "a database without room takes no more records");
    assert_eq!(disk.files(), before, "nothing is left of what failed");

    // A removal needs next to no room; where there is not even that, nothing has changed.
    let body = json!({ "functionName": "spare" });
    let answer = daemon.send_body(Method::DELETE, "/system/functions", body.to_string());
    let spare = daemon.get("/function/spare").status;
    if answer.status == StatusCode::ACCEPTED {
        assert_eq!(spare, StatusCode::NOT_FOUND);
    } else {
        check_failure(&answer, StatusCode::INSUFFICIENT_STORAGE, IS_FULL);
        assert_eq!(spare, StatusCode::OK);
    }

    // Functions go on, those that log too.
    for _ in 0..300 {
        assert_eq!(daemon.get("/function/talks/line").status, StatusCode::OK);
    }
    assert_eq!(daemon.get("/healthz").status, StatusCode::OK);

    disk.free();
    let works = wait_until(PATIENCE, || {
        daemon.get("/function/talks/line").status == StatusCode::OK
    });
    assert!(works);
    daemon.wait_for_log("talks", "lines are missing here");
    let program = program::build("corners");
    daemon.spore_ok(&["deploy", "large", "--binary", program.to_str().expect("UTF-8")]);
    let body = json!({ "service": "after", "image": image });
    let answer = daemon.send_body(Method::POST, "/system/functions", body.to_string());
    assert_eq!(answer.status, StatusCode::ACCEPTED, "{}", answer.text());
    assert_eq!(daemon.get("/function/after").status, StatusCode::OK);
    daemon.spore_ok(&["remove", "after"]);
    neighbour.check();
}

fn a_full_disk_does_not_keep_a_daemon_from_starting() {
    let disk = SmallDisk::start();
    deploy_faults(&disk.daemon, "talks", &[]);
    disk.fill();
    // A second mount namespace would have another disk, so the daemon starts in that of the first, whose place a
    // sleeping process keeps.
    let mut keeper = std::process::Command::new("nsenter")
        .args([
            "--mount",
            "--target",
            &disk.daemon.pid().to_string(),
            "sleep",
            "600",
        ])
        .spawn()
        .expect("nsenter is there");
    let keeper_pid = keeper.id().to_string();
    let moved = wait_until(PATIENCE, || {
        let namespace = |pid: &str| std::fs::read_link(format!("/proc/{pid}/ns/mnt")).ok();
        namespace(&keeper_pid) == namespace(&disk.daemon.pid().to_string())
    });
    let SmallDisk { mut daemon, .. } = disk;
    daemon.kill();
    let prefix = ["nsenter", "--mount", "--target", &keeper_pid];
    daemon.start_again_as(Setup {
        prefix: prefix.map(str::to_owned).to_vec(),
        ..Setup::default()
    });
    let answer = daemon.get("/function/talks");
    drop(daemon);
    keeper.kill().expect("it is our child");
    keeper.wait().expect("it is our child");
    assert!(moved);
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
}

fn a_full_disk_keeps_snapshots_in_memory() {
    if guests_are_processes() {
        return;
    }
    let disk = SmallDisk::start();
    let options = ["--snapshot", "--annotation", "dev.spore.idle-timeout=0s"];
    disk.daemon.deploy("cloned", &program::build("cloned"), &options);
    disk.fill();
    let drawn_before = || {
        let answer = disk.daemon.get("/function/cloned");
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
        answer.text().lines().next().map(str::to_owned)
    };
    let first = drawn_before();
    // The daemon's own log is on the full disk too: nothing comes, and nothing is left.
    std::thread::sleep(SNAPSHOT_DELAY);
    assert_eq!(drawn_before(), first, "clones of one boot");
    let left = std::fs::read_dir(disk.data.join("snapshots")).map(Iterator::count);
    assert!(matches!(left, Ok(0) | Err(_)), "{left:?}");
}
