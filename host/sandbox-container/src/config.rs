//! The configuration of a container in the form of the OCI runtime specification, 1.0.2. Pure.

use std::path::Path;

use serde_json::{Value, json};
use spore_sandbox::{InstanceSpec, SECRETS_DIRECTORY};

use crate::runtime::Family;
use crate::seccomp;

/// Folders and files of the keeper's place.
pub(crate) const ROOT: &str = "root";
pub(crate) const SECRETS: &str = "secrets";

/// Files that a container may have open.
const DESCRIPTORS_MAX: u64 = 4096;
/// What of the kernel's files a container does not see: they tell of the host, or reach it.
const MASKED: &[&str] = &[
    "/proc/acpi",
    "/proc/asound",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/firmware",
];
/// What it cannot write to.
const READ_ONLY: &[&str] = &[
    "/proc/bus",
    "/proc/fs",
    "/proc/irq",
    "/proc/sys",
    "/proc/sysrq-trigger",
];

/// The configuration of an instance whose parts are mounted below `place`.
pub(crate) fn configuration(
    spec: &InstanceSpec,
    family: Family,
    place: &Path,
    cgroup: Option<&Path>,
) -> String {
    let environment: Vec<_> = spec
        .environment
        .iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    let namespaces = ["pid", "ipc", "uts", "mount"].map(|name| json!({ "type": name }));
    let none: [&str; 0] = [];
    let mut linux = json!({
        "namespaces": namespaces,
        "maskedPaths": MASKED,
        "readonlyPaths": READ_ONLY,
        "seccomp": seccomp::list(),
    });
    if family == Family::Runc {
        // The others are told to leave cgroups alone; nobody can make devices, and mounts have none.
        linux["resources"] = json!({ "devices": [{ "allow": false, "access": "rwm" }] });
        if let Some(cgroup) = cgroup {
            linux["cgroupsPath"] = json!(cgroup);
        }
    }
    json!({
        "ociVersion": "1.0.2",
        "hostname": "localhost",
        "process": {
            "terminal": false,
            "user": { "uid": spec.user.id, "gid": spec.user.group, "additionalGids": spec.user.more_groups },
            "args": spec.arguments,
            "env": environment,
            "cwd": spec.working_directory,
            "capabilities": {
                "bounding": none, "effective": none, "permitted": none, "inheritable": none, "ambient": none,
            },
            "rlimits": [
                { "type": "RLIMIT_NOFILE", "soft": DESCRIPTORS_MAX, "hard": DESCRIPTORS_MAX },
                { "type": "RLIMIT_CORE", "soft": 0, "hard": 0 },
            ],
            "noNewPrivileges": true,
        },
        "root": { "path": place.join(ROOT), "readonly": false },
        "mounts": mounts(place),
        "linux": linux,
    })
    .to_string()
}

fn mounts(place: &Path) -> Value {
    json!([
        { "destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid", "noexec", "nodev"] },
        {
            "destination": "/dev", "type": "tmpfs", "source": "tmpfs",
            "options": ["nosuid", "strictatime", "mode=755", "size=64k"],
        },
        {
            "destination": "/dev/shm", "type": "tmpfs", "source": "shm",
            "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=16m"],
        },
        {
            "destination": "/sys", "type": "sysfs", "source": "sysfs",
            "options": ["nosuid", "noexec", "nodev", "ro"],
        },
        {
            "destination": SECRETS_DIRECTORY, "type": "bind", "source": place.join(SECRETS),
            "options": ["bind", "ro", "nosuid", "noexec", "nodev"],
        },
    ])
}
