//! Removes containers of a daemon that is gone. Their processes are ended with their cgroups; here the runtime forgets
//! them, and takes with it what it has made elsewhere.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::runtime::Runtime;

/// How often, and after what pause, the removal of a cgroup is tried again.
const REMOVALS: u32 = 100;
const REMOVAL_PAUSE: Duration = Duration::from_millis(5);

/// Removes the cgroups that runc had made, in hierarchies of version 1 that the daemon itself leaves alone, before it was
/// killed together with its keeper and the daemon and could note that there is a container.
pub(crate) fn remove_cgroups() {
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    for parent in parents(&read("/proc/self/mounts"), &read("/proc/self/cgroup")) {
        for entry in fs::read_dir(&parent).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if daemon_of(&name).is_some_and(|daemon| !Path::new("/proc").join(daemon).exists()) {
                spore_cgroups::kill_all(&entry.path());
                // What is not empty yet is for the next start.
                let _ = fs::remove_dir(entry.path());
            }
        }
    }
}

/// The same of one container, whose processes have ended: of runc's, some may still be there a moment after it has said that
/// they are not.
pub(crate) fn remove_cgroups_of(container: &str) {
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    for parent in parents(&read("/proc/self/mounts"), &read("/proc/self/cgroup")) {
        let folder = parent.join(container);
        for _ in 0..REMOVALS {
            match fs::remove_dir(&folder) {
                Err(error) if error.kind() == std::io::ErrorKind::ResourceBusy => {
                    std::thread::sleep(REMOVAL_PAUSE);
                }
                _ => break,
            }
        }
    }
}

/// The process number of the daemon in the name of a container: `spore-DAEMON-NUMBER`.
fn daemon_of(name: &str) -> Option<&str> {
    let (daemon, number) = name.strip_prefix("spore-")?.split_once('-')?;
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    (is_number(daemon) && is_number(number)).then_some(daemon)
}

/// This process's cgroups.
fn parents(mounts: &str, memberships: &str) -> Vec<PathBuf> {
    let own = |options: Option<&str>| {
        memberships.lines().find_map(|line| {
            let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
            let mut names = controllers.split(',');
            let is_it = match options {
                None => controllers.is_empty(),
                Some(options) => {
                    names.all(|name| !name.is_empty() && options.split(',').any(|option| option == name))
                }
            };
            is_it.then_some(path)
        })
    };
    let mounts = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    mounts
        .filter_map(|fields| match fields.as_slice() {
            [_, point, "cgroup", options, ..] => {
                Some(Path::new(point).join(own(Some(options))?.trim_start_matches('/')))
            }
            [_, point, "cgroup2", ..] => Some(Path::new(point).join(own(None)?.trim_start_matches('/'))),
            _ => None,
        })
        .collect()
}

/// Removes all containers that the runtime knows, which are those of earlier daemons.
pub(crate) fn remove(runtime: &Runtime) {
    let entries = fs::read_dir(&runtime.state).into_iter().flatten().flatten();
    let ids: BTreeSet<_> = entries
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            // runsc appends to the name.
            let id = name.split('_').next()?.trim_end_matches(".lock").to_owned();
            id.starts_with("spore-").then_some(id)
        })
        .collect();
    for id in ids {
        tracing::info!(
            container = id,
            runtime = runtime.family.program(),
            "removing what a daemon has left"
        );
        runtime.forget(&id);
    }
    for entry in fs::read_dir(&runtime.state).into_iter().flatten().flatten() {
        // What the runtime could not make sense of; what stays is tried again at the next start.
        let path = entry.path();
        let _ = match path.is_dir() {
            true => fs::remove_dir_all(&path),
            false => fs::remove_file(&path),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cgroups_are_found_where_runc_makes_them_and_are_nobody_elses() {
        let mounts = "tmpfs /sys/fs/cgroup tmpfs rw 0 0\n\
             cgroup /sys/fs/cgroup/cpu,cpuacct cgroup rw,cpu,cpuacct 0 0\n\
             cgroup /sys/fs/cgroup/freezer cgroup rw,freezer 0 0\n\
             cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n";
        let memberships = "8:freezer:/\n2:cpu,cpuacct:/jobs/7\n0::/\n";
        let expected = [
            "/sys/fs/cgroup/cpu,cpuacct/jobs/7",
            "/sys/fs/cgroup/freezer/",
            "/sys/fs/cgroup/unified/",
        ]
        .map(PathBuf::from);
        assert_eq!(parents(mounts, memberships), expected);
        assert_eq!(daemon_of("spore-12-3"), Some("12"));
        for other in [
            "spore",
            "spore-1",
            "spore-1-x",
            "spore--1",
            "docker-1-2",
            "spore-unit-test-7",
        ] {
            assert_eq!(daemon_of(other), None, "{other}");
        }
    }
}
