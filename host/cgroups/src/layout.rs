//! Which cgroup hierarchies there are, and where this process is in each: pure, from what `/proc` says.

use std::fmt;
use std::path::{Path, PathBuf};

/// What is limited, or held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Controller {
    Memory,
    Processor,
    Processes,
    /// Whether processes run at all. In version 2 every group can be held, without a controller.
    Freezer,
}

impl Controller {
    /// Those that limit something.
    pub(crate) const LIMITS: [Self; 3] = [Self::Memory, Self::Processor, Self::Processes];
    /// All of them.
    pub(crate) const ALL: [Self; 4] = [Self::Memory, Self::Processor, Self::Processes, Self::Freezer];

    /// Its name in the kernel's files.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Processor => "cpu",
            Self::Processes => "pids",
            Self::Freezer => "freezer",
        }
    }
}

/// Version of the interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Version {
    /// A hierarchy for each controller (cgroups(7), "cgroups version 1").
    One,
    /// One hierarchy for all.
    Two,
}

impl fmt::Display for Version {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::One => "version 1",
            Self::Two => "version 2",
        })
    }
}

/// A hierarchy with some of the controllers, and the folder in it below which our cgroups go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Hierarchy {
    pub(crate) version: Version,
    pub(crate) controllers: Vec<Controller>,
    /// This process's own cgroup, or the one that was named instead.
    pub(crate) parent: PathBuf,
    /// This process's own cgroup.
    pub(crate) home: PathBuf,
    /// Whether the parent is the hierarchy's root, which may hold processes beside cgroups.
    pub(crate) is_root: bool,
}

/// The hierarchies that have the controllers that are wanted. `mounts` is `/proc/self/mountinfo`, `memberships` is `/proc/self/cgroup`,
/// `named` a path within each hierarchy to use instead of this process's own. `controllers_of` tells which controllers a
/// folder of version 2 has (its file `cgroup.controllers`).
pub(crate) fn hierarchies(
    mounts: &str,
    memberships: &str,
    named: Option<&Path>,
    wanted: &[Controller],
    controllers_of: impl Fn(&Path) -> String,
) -> Vec<Hierarchy> {
    let mut found: Vec<Hierarchy> = Vec::new();
    let mut wanted = wanted.to_vec();
    // A controller that is in a hierarchy of version 1 is not in that of version 2.
    let mounts: Vec<Mount<'_>> = mounts.lines().filter_map(Mount::parse).collect();
    for version in [Version::One, Version::Two] {
        for mount in mounts.iter().filter(|mount| mount.version == version) {
            let Some(own) = membership(memberships, mount) else {
                continue;
            };
            let home = mount.point.join(&own);
            let path = named.map_or(own, |named| {
                named.strip_prefix("/").unwrap_or(named).to_path_buf()
            });
            let parent = mount.point.join(&path);
            let offered = match version {
                Version::One => mount.options.replace(',', " "),
                Version::Two => controllers_of(&parent),
            };
            let has =
                |controller: &Controller| offered.split_whitespace().any(|name| name == controller.name());
            let controllers: Vec<_> = wanted.iter().copied().filter(has).collect();
            if controllers.is_empty() {
                continue;
            }
            wanted.retain(|controller| !controllers.contains(controller));
            found.push(Hierarchy {
                version,
                controllers,
                parent,
                home,
                is_root: path.as_os_str().is_empty(),
            });
        }
    }
    found
}

/// A line of `/proc/self/mountinfo` (proc_pid_mountinfo(5)) about a cgroup hierarchy.
struct Mount<'a> {
    version: Version,
    /// The cgroup that is mounted: the hierarchy's root, or one below it.
    root: PathBuf,
    point: PathBuf,
    options: &'a str,
}

impl<'a> Mount<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let (place, kind) = line.split_once(" - ")?;
        let mut place = place.split(' ').skip(3);
        let (root, point) = (place.next()?, place.next()?);
        let mut kind = kind.split(' ');
        let version = match kind.next()? {
            "cgroup" => Version::One,
            "cgroup2" => Version::Two,
            _ => return None,
        };
        Some(Self {
            version,
            root: unescaped(root),
            point: unescaped(point),
            options: kind.nth(1)?,
        })
    }
}

/// Spaces and the like are written as `\` and three octal digits there.
fn unescaped(text: &str) -> PathBuf {
    let mut parts = text.split('\\');
    let mut whole = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let code = part
            .get(..3)
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match code {
            Some(code) => {
                whole.push(char::from(code));
                whole.push_str(&part[3..]);
            }
            None => {
                whole.push('\\');
                whole.push_str(part);
            }
        }
    }
    PathBuf::from(whole)
}

/// Where this process is below the mounted cgroup; none if it is elsewhere.
fn membership(memberships: &str, mount: &Mount<'_>) -> Option<PathBuf> {
    let path = memberships.lines().find_map(|line| {
        // Number, controllers, path.
        let mut fields = line.splitn(3, ':');
        let (_, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
        let is_it = match mount.version {
            Version::Two => controllers.is_empty(),
            Version::One => {
                let mut options = mount.options.split(',');
                controllers
                    .split(',')
                    .all(|name| !name.is_empty() && options.any(|option| option == name))
            }
        };
        is_it.then_some(path)
    })?;
    Path::new(path)
        .strip_prefix(&mount.root)
        .ok()
        .map(Path::to_path_buf)
}

#[cfg(test)]
mod tests {
    use super::*;

    const VERSION_ONE: &str = "\
30 25 0:27 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
31 30 0:28 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:9 - cgroup cgroup rw,cpu,cpuacct
32 30 0:29 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
33 30 0:30 / /sys/fs/cgroup/my\\040pids rw,relatime - cgroup cgroup rw,pids
34 30 0:31 / /sys/fs/cgroup/freezer rw,relatime - cgroup cgroup rw,freezer
35 30 0:32 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
";
    const MEMBERSHIPS: &str =
        "8:pids:/\n6:freezer:/\n4:memory:/jobs/7\n2:cpu,cpuacct:/\n1:name=systemd:/init.scope\n0::/\n";

    #[test]
    fn version_one_has_a_hierarchy_for_each_controller() {
        let found = hierarchies(VERSION_ONE, MEMBERSHIPS, None, &Controller::ALL, |_| {
            "hugetlb".into()
        });
        let parents: Vec<_> = found
            .iter()
            .map(|hierarchy| (hierarchy.parent.to_str().unwrap(), hierarchy.controllers.clone()))
            .collect();
        assert_eq!(
            parents,
            [
                ("/sys/fs/cgroup/cpu,cpuacct/", vec![Controller::Processor]),
                ("/sys/fs/cgroup/memory/jobs/7", vec![Controller::Memory]),
                ("/sys/fs/cgroup/my pids/", vec![Controller::Processes]),
                ("/sys/fs/cgroup/freezer/", vec![Controller::Freezer]),
            ]
        );
        let limits = hierarchies(VERSION_ONE, MEMBERSHIPS, None, &Controller::LIMITS, |_| {
            String::new()
        });
        assert_eq!(limits, found[..3]);
        assert!(found.iter().all(|hierarchy| hierarchy.version == Version::One));
    }

    #[test]
    fn version_two_has_one_for_all_and_a_container_sees_its_part() {
        let mounts = "40 30 0:31 /box /sys/fs/cgroup rw - cgroup2 cgroup2 rw,nsdelegate\n";
        let found = hierarchies(mounts, "0::/box/init\n", None, &Controller::ALL, |folder| {
            assert_eq!(folder, Path::new("/sys/fs/cgroup/init"));
            "cpu io memory pids\n".into()
        });
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].controllers, Controller::LIMITS);
        assert!(!found[0].is_root);
        assert!(
            hierarchies(mounts, "0::/elsewhere\n", None, &Controller::ALL, |_| "cpu"
                .into())
            .is_empty()
        );
    }

    #[test]
    fn a_named_parent_replaces_the_own_cgroup() {
        let parent = Some(Path::new("/functions"));
        let found = hierarchies(VERSION_ONE, MEMBERSHIPS, parent, &Controller::LIMITS, |_| {
            String::new()
        });
        assert_eq!(found[1].parent, Path::new("/sys/fs/cgroup/memory/functions"));
    }
}
