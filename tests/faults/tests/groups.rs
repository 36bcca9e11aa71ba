//! Control groups around a daemon, of version 1 or 2, whichever the machine has.

use std::fs;
use std::path::{Path, PathBuf};

use spore_test_harness::daemon::Setup;

const MOUNT: &str = "/sys/fs/cgroup";

/// The file of a limit in both versions.
fn limit_file(controller: &str, is_unified: bool) -> &'static str {
    match (controller, is_unified) {
        ("memory", false) => "memory.limit_in_bytes",
        ("memory", true) => "memory.max",
        _ => "pids.max",
    }
}

/// Where groups of this controller are made, and whether it is version 2.
fn hierarchy(controller: &str) -> Option<(PathBuf, bool)> {
    let separate = Path::new(MOUNT).join(controller);
    if separate.join("cgroup.procs").exists() {
        return Some((separate, false));
    }
    let controllers = fs::read_to_string(Path::new(MOUNT).join("cgroup.subtree_control")).ok()?;
    let is_passed_on = controllers.split_whitespace().any(|name| name == controller);
    is_passed_on.then(|| (PathBuf::from(MOUNT), true))
}

/// Whether groups of this controller can be made here.
pub(crate) fn is_there(controller: &str) -> bool {
    hierarchy(controller).is_some()
}

/// The file with the limit of memory of the group in which a process is, if it is in one of its own for that.
pub(crate) fn limit_of_memory(pid: i32) -> Option<PathBuf> {
    let (hierarchy, is_unified) = hierarchy("memory")?;
    let memberships = fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
    let path = memberships.lines().find_map(|line| {
        let (_, rest) = line.split_once(':')?;
        let (controllers, path) = rest.split_once(':')?;
        let is_it = match is_unified {
            true => controllers.is_empty(),
            false => controllers.split(',').any(|name| name == "memory"),
        };
        is_it.then(|| path.trim_start_matches('/').to_owned())
    })?;
    let file = hierarchy.join(path).join(limit_file("memory", is_unified));
    (file.ancestors().any(|folder| folder.ends_with("spore")) && file.exists()).then_some(file)
}

/// A group, removed when it is dropped; by then its processes have to be gone.
pub(crate) struct Group {
    folder: PathBuf,
    limit_file: &'static str,
}

impl Group {
    /// Makes a group with this limit.
    pub(crate) fn new(controller: &str, limit: u64) -> Self {
        let (hierarchy, is_unified) = hierarchy(controller).expect("checked before");
        let folder = hierarchy.join(format!("spore-test-{}-{controller}", std::process::id()));
        fs::create_dir(&folder).expect("a group can be made");
        let group = Self {
            folder,
            limit_file: limit_file(controller, is_unified),
        };
        group.set_limit(limit);
        group
    }

    pub(crate) fn set_limit(&self, limit: u64) {
        fs::write(self.folder.join(self.limit_file), limit.to_string()).expect("a limit can be set");
    }

    /// Starts a daemon in it.
    pub(crate) fn setup(&self) -> Setup {
        let procs = self.folder.join("cgroup.procs");
        let procs = procs.to_str().expect("UTF-8");
        let join = r#"echo $$ > "$1" && shift && exec "$@""#;
        Setup {
            prefix: ["sh", "-c", join, "sh", procs].map(str::to_owned).to_vec(),
            ..Setup::default()
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let removed = spore_test_harness::wait_until(crate::fixtures::PATIENCE, || {
            fs::remove_dir(&self.folder).is_ok()
        });
        if !removed && !std::thread::panicking() {
            panic!("{} cannot be removed", self.folder.display());
        }
    }
}
