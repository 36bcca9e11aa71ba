//! What confines the monitors of a real daemon, as `/proc` and the cgroup files tell it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use http::StatusCode;
use spore_test_harness::daemon::Daemon;
use spore_test_harness::process::ProcessIdentity;
use spore_test_harness::{guests_are_processes, program, wait_until};

use crate::{Test, with_functions};

pub(crate) const TESTS: &[Test] = with_functions![
    a_monitor_holds_nothing_but_what_it_needs,
    a_forbidden_call_is_told_in_the_log_or_cannot_be_caused,
    limits_are_in_the_cgroup_and_go_with_the_instance,
    limits_follow_the_function,
    what_a_killed_daemon_left_is_removed_by_the_next,
    a_limit_that_is_none_is_refused,
    an_ordinary_user_is_confined_too,
];

fn read(path: impl AsRef<Path>) -> String {
    let path = path.as_ref();
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// The layers that the daemon says are there.
fn active_layers(daemon: &Daemon) -> BTreeSet<String> {
    let info = daemon.get("/system/info").json();
    let layers = info["layers"].as_array().expect("the API lists layers").iter();
    layers
        .filter(|layer| layer["active"] == true)
        .map(|layer| layer["name"].as_str().expect("a layer has a name").to_owned())
        .collect()
}

fn field<'a>(status: &'a str, name: &str) -> &'a str {
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    line.unwrap_or_else(|| panic!("{name} is missing in {status}"))
        .trim()
}

fn only_monitor(daemon: &Daemon) -> ProcessIdentity {
    let mut processes = daemon.descendants();
    // In the process form the guest is one besides, which the monitor has started.
    let expected = if guests_are_processes() { 2 } else { 1 };
    assert_eq!(processes.len(), expected, "{processes:?}");
    processes.sort_by_key(|process| (process.start_ticks, process.pid));
    processes[0]
}

fn a_monitor_holds_nothing_but_what_it_needs() {
    let daemon = Daemon::start();
    daemon.deploy("httpd", &program::build("httpd"), &[]);
    assert_eq!(daemon.get("/function/httpd").status, StatusCode::OK);
    let layers = active_layers(&daemon);
    let process = PathBuf::from(format!("/proc/{}", only_monitor(&daemon).pid));
    let status = read(process.join("status"));
    assert!(
        layers.contains("system call list") && layers.contains("no capabilities"),
        "{layers:?}"
    );
    assert_eq!(field(&status, "Seccomp:"), "2");
    assert_eq!(field(&status, "NoNewPrivs:"), "1");
    for set in ["CapInh:", "CapPrm:", "CapEff:", "CapAmb:"] {
        assert_eq!(field(&status, set), "0000000000000000", "{set}");
    }
    // What follows is shown to root only: the process is not dumpable.
    if !is_root() {
        assert!(
            std::fs::read_dir(process.join("fd")).is_err(),
            "anybody can look into it"
        );
        return;
    }
    assert_eq!(field(&status, "CapBnd:"), "0000000000000000");
    assert!(!field(&status, "Uid:").starts_with("0\t"), "it is still root");
    let namespace = |process: &Path, name: &str| {
        std::fs::read_link(process.join("ns").join(name)).expect("every process has namespaces")
    };
    for name in ["mnt", "pid", "net", "ipc", "uts", "cgroup"] {
        let (its, ours) = (
            namespace(&process, name),
            namespace(Path::new("/proc/self"), name),
        );
        assert_ne!(its, ours, "{name}");
    }
    let root: Vec<_> = std::fs::read_dir(process.join("root"))
        .expect("it has a root")
        .collect();
    assert!(root.is_empty(), "{root:?}");
    let descriptors: BTreeSet<String> = std::fs::read_dir(process.join("fd"))
        .expect("it is there")
        .map(|entry| {
            let target = std::fs::read_link(entry.expect("it is there").path()).expect("it is there");
            let text = target.display().to_string();
            text.split(':').next().unwrap_or_default().to_owned()
                + text.split_once("kvm").map_or("", |(_, rest)| rest)
        })
        .collect();
    // The one of a process's end is an anonymous inode before Linux 6.9.
    let expected = match guests_are_processes() {
        true => ["/dev/null", "anon_inode", "pidfd", "socket"],
        false => ["/dev/null", "anon_inode-vcpu", "anon_inode-vm", "socket"],
    };
    let unexpected: Vec<_> = descriptors
        .iter()
        .filter(|name| !expected.iter().any(|expected| name.starts_with(expected)))
        .collect();
    assert!(unexpected.is_empty(), "{descriptors:?}");
    let limits = read(process.join("limits"));
    for limit in ["Max processes", "Max file size", "Max core file size"] {
        let values: Vec<_> = field(&limits, limit).split_whitespace().take(2).collect();
        assert_eq!(values, ["0", "0"], "{limit}");
    }
}

/// A guest cannot make its monitor do anything that the list does not have: after all that `misbehave` can do, no log
/// tells of such an end.
fn a_forbidden_call_is_told_in_the_log_or_cannot_be_caused() {
    let daemon = Daemon::start();
    crate::faults::deploy_misbehave(&daemon, &[]);
    for path in [
        "/abort",
        "/null-call",
        "/stack-overflow",
        "/exit",
        "/illegal-instruction",
    ] {
        daemon.get(&format!("/function/misbehave{path}"));
    }
    let log = daemon.spore_ok(&["logs", "misbehave"]);
    assert!(!log.contains("list of system calls"), "{log}");
}

/// Folders of the cgroup of a process that have these controllers, by version.
fn cgroups(pid: i32) -> Vec<(String, PathBuf)> {
    let mounts = read("/proc/self/mountinfo");
    let memberships = read(format!("/proc/{pid}/cgroup"));
    let mount_of = |controller: &str| {
        mounts.lines().find_map(|line| {
            let (place, kind) = line.split_once(" - cgroup ")?;
            let has = kind
                .split(' ')
                .nth(1)?
                .split(',')
                .any(|option| option == controller);
            has.then(|| PathBuf::from(place.split(' ').nth(4).expect("a mount has a place")))
        })
    };
    let each = memberships.lines().filter_map(|line| {
        let mut fields = line.splitn(3, ':').skip(1);
        let (controllers, path) = (fields.next()?, fields.next()?);
        let controller = controllers.split(',').next()?;
        Some((
            controllers.to_owned(),
            mount_of(controller)?.join(path.trim_start_matches('/')),
        ))
    });
    each.filter(|(_, folder)| folder.join("cgroup.procs").exists())
        .collect()
}

fn cgroup_of(pid: i32, controller: &str) -> Option<PathBuf> {
    let mut all = cgroups(pid).into_iter();
    all.find(|(controllers, _)| controllers.split(',').any(|name| name == controller))
        .map(|(_, folder)| folder)
}

/// Version 1 only: version 2 is tried in the lane (`tests/lane/limits`), where it has the controllers.
/// What waits for an instance has limits already: those of the instance take their place, whichever are larger.
fn limits_follow_the_function() {
    let daemon = Daemon::start();
    for (name, mebibytes, millis) in [
        ("large", 512_u64, 2000_u32),
        ("small", 32, 250),
        ("larger", 700, 1000),
    ] {
        let (memory, processor) = (format!("{mebibytes}Mi"), format!("{millis}m"));
        let options = ["--memory", &memory, "--cpu", &processor];
        daemon.deploy(name, &program::build("httpd"), &options);
        let answer = daemon.get(&format!("/function/{name}"));
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
        if !active_layers(&daemon).contains("cgroup for memory, version 1") {
            continue;
        }
        let pid = only_monitor(&daemon).pid;
        let [memory, processor] =
            ["memory", "cpu"].map(|name| cgroup_of(pid, name).expect("it is in a cgroup"));
        let limit: u64 = read(memory.join("memory.limit_in_bytes"))
            .trim()
            .parse()
            .expect("a number");
        let least = mebibytes << 20;
        assert!((least..least + (96 << 20)).contains(&limit), "{name}: {limit}");
        let quota = (millis * 100).to_string();
        assert_eq!(read(processor.join("cpu.cfs_quota_us")).trim(), quota);
        daemon.spore_ok(&["remove", name]);
        assert!(wait_until(Duration::from_secs(15), || daemon
            .descendants()
            .is_empty()));
    }
}

fn limits_are_in_the_cgroup_and_go_with_the_instance() {
    let daemon = Daemon::start();
    let options = ["--memory", "64Mi", "--cpu", "500m"];
    daemon.deploy("httpd", &program::build("httpd"), &options);
    assert_eq!(daemon.get("/function/httpd").status, StatusCode::OK);
    let layers = active_layers(&daemon);
    if !layers.contains("cgroup for memory, version 1") {
        eprintln!("no cgroups of version 1 here: {layers:?}");
        return;
    }
    let pid = only_monitor(&daemon).pid;
    let folders = ["memory", "cpu", "pids"].map(|name| cgroup_of(pid, name).expect("it is in a cgroup"));
    let [memory, processor, processes] = &folders;
    assert!(
        memory.components().any(|part| part.as_os_str() == "spore"),
        "{memory:?}"
    );
    let limit: u64 = read(memory.join("memory.limit_in_bytes"))
        .trim()
        .parse()
        .expect("a number");
    assert!((64 << 20..(64 << 20) + (96 << 20)).contains(&limit), "{limit}");
    assert_eq!(read(processor.join("cpu.cfs_quota_us")).trim(), "50000");
    assert_eq!(read(processor.join("cpu.cfs_period_us")).trim(), "100000");
    assert_eq!(read(processes.join("pids.max")).trim(), "4");
    daemon.spore_ok(&["remove", "httpd"]);
    let gone = wait_until(Duration::from_secs(15), || {
        folders.iter().all(|folder| !folder.exists())
    });
    assert!(gone, "the instance is gone, its cgroups are not: {folders:?}");
}

fn what_a_killed_daemon_left_is_removed_by_the_next() {
    let mut daemon = Daemon::start();
    daemon.deploy("httpd", &program::build("httpd"), &[]);
    assert_eq!(daemon.get("/function/httpd").status, StatusCode::OK);
    let Some(memory) = cgroup_of(only_monitor(&daemon).pid, "memory") else {
        eprintln!("no cgroups of version 1 here");
        return;
    };
    if !active_layers(&daemon).contains("cgroup for memory, version 1") {
        return;
    }
    let own = memory.parent().expect("the daemon's folder").to_path_buf();
    let everyone = [daemon.descendants(), daemon.waiting_monitors()].concat();
    daemon.kill();
    let gone = wait_until(Duration::from_secs(2), || {
        !everyone.iter().any(ProcessIdentity::is_alive)
    });
    assert!(
        gone,
        "2 s after kill -9 of the daemon, of {everyone:?} some are alive"
    );
    daemon.start_again();
    let removed = wait_until(Duration::from_secs(10), || !own.exists());
    assert!(removed, "{} is still there", own.display());
    assert_eq!(daemon.get("/function/httpd").status, StatusCode::OK);
}

fn a_limit_that_is_none_is_refused() {
    let daemon = Daemon::start();
    let program = program::build("httpd");
    let path = program.to_str().expect("UTF-8");
    let output = daemon.spore(&["deploy", "httpd", "--binary", path, "--cpu", "much"]);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        !output.status.success() && text.contains("CPU limit `much`"),
        "{text}"
    );
}

/// A member of the group that may use KVM needs nothing else. The group and its device are made for the test alone.
fn an_ordinary_user_is_confined_too() {
    if !is_root() {
        eprintln!("the test must be root to become somebody else");
        return;
    }
    let folder = tempfile::tempdir().expect("the temporary folder is writable");
    let place = |name: &str| folder.path().join(name).display().to_string();
    let everybody = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(folder.path(), everybody).expect("the folder is ours");
    std::fs::create_dir(place("device")).expect("the folder is ours");
    std::fs::copy(spore_test_harness::daemon::binary(), place("spore")).expect("the folder is ours");
    std::fs::copy(program::build("ending"), place("program")).expect("the folder is ours");
    // Where there is no such device, the form of a process needs none.
    let script = "mount --make-rprivate / && if [ -e /dev/kvm ]; then
        mount -t tmpfs -o mode=755 none \"$1/device\" && mknod -m 660 \"$1/device/kvm\" c 10 232 &&
        chgrp 4242 \"$1/device/kvm\" && mount --bind \"$1/device/kvm\" /dev/kvm; fi && cd / &&
        setpriv --reuid=65533 --regid=65533 --groups=4242 \"$1/spore\" info --json &&
        setpriv --reuid=65533 --regid=65533 --groups=4242 \"$1/spore\" run \"$1/program\" exit 0 >&2";
    let output = std::process::Command::new("unshare")
        .args(["--mount", "sh", "-c", script, "sh"])
        .arg(folder.path())
        .output()
        .expect("unshare is there");
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{}: {errors}", output.status);
    let info: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let layers = info["layers"].as_array().expect("a list");
    let state = |name: &str| {
        let layer = layers.iter().find(|layer| layer["name"] == name);
        layer.unwrap_or_else(|| panic!("{name} is not listed")).clone()
    };
    // These take no rights at all. The others take user namespaces, which not every machine gives to everybody.
    for name in [
        "no capabilities",
        "no new privileges",
        "not dumpable",
        "resource limits",
        "system call list",
    ] {
        assert_eq!(state(name)["active"], true, "{}", state(name));
    }
    let has_namespaces = state("own user")["active"] == true;
    for name in [
        "PID namespace",
        "mount namespace",
        "network namespace",
        "empty root",
    ] {
        assert_eq!(state(name)["active"], has_namespaces, "{}", state(name));
    }
}
