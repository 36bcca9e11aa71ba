//! A cgroup for each instance: monitor and guest together take no more memory and processor time than they may.
//!
//! ```text
//!   the daemon's own cgroup, or the one named with --cgroup-parent
//!     └─ spore/              all daemons that run there
//!          └─ PID-TIME/      one daemon; locked by it for as long as it lives
//!               └─ NUMBER/   one instance, from before its monitor starts until that has ended
//! ```
//!
//! In version 1 that tree is in the hierarchies of `memory`, `cpu` and `pids`; in version 2 there is one. A daemon that
//! was killed leaves its folder, without the lock: the next one removes it.
//!
//! In version 2 a cgroup has either processes or children with controllers, so the daemon moves itself to a child of its
//! cgroup, `spore-daemon`, if it is alone in there.

mod layout;

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process};
use spore_sandbox::{Layer, StartError};

use layout::{Controller, Hierarchy, Version, hierarchies};

/// The folder of all daemons.
const FOLDER: &str = "spore";
/// Where the daemon itself goes in version 2.
const DAEMON_FOLDER: &str = "spore-daemon";
/// Period of the limit of processor time, in microseconds: the kernel's default, and that of container runtimes.
const PERIOD_US: u64 = 100_000;
/// Least processor time in a period that the kernel takes, in microseconds.
const QUOTA_US_MIN: u64 = 1_000;
/// What all instances together weigh when processor time is short, in processes of the daemon's kind. With the weight of
/// one, an instance that wakes up on a busy machine waits for everybody else.
const WEIGHT: u64 = 4;
/// What holds a cgroup of version 1, and lets it go (cgroups(7), "freezer").
const HOLD_FILE: &str = "freezer.state";
const HOLD: &str = "FROZEN";
const LET_GO: &str = "THAWED";
/// The same in version 2.
const HOLD_FILE_TWO: &str = "cgroup.freeze";
/// How near to its limit a group has come that had no memory left, in bytes: the kernel hands memory out in pieces.
const NEAR_BYTES: u64 = 1 << 20;
/// How often, and after what pause, the removal of a cgroup is tried again whose processes have not quite gone.
const REMOVALS: u32 = 100;
const REMOVAL_PAUSE: Duration = Duration::from_millis(5);

/// Why there are no cgroups.
#[derive(Debug, thiserror::Error)]
pub enum CgroupError {
    /// There is no hierarchy that has one.
    #[error("no hierarchy with memory, cpu or pids is mounted where this process is")]
    None,
    /// The kernel has refused something.
    #[error("{path} cannot be {what}")]
    Refused {
        /// Folder or file.
        path: PathBuf,
        /// What was tried.
        what: &'static str,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The daemon's own cgroup is not its own.
    #[error(
        "the cgroup {path} holds other processes besides this one: start the daemon in one of its own, or name one with \
         --cgroup-parent"
    )]
    Shared {
        /// The cgroup.
        path: PathBuf,
    },
    /// A process was tried in one, in vain.
    #[error("a process cannot be kept in one")]
    Trial(#[source] Box<StartError>),
}

fn host_error(what: &'static str) -> impl Fn(io::Error) -> StartError {
    move |source| StartError::Host { what, source }
}

fn refused(path: &Path, what: &'static str) -> impl FnOnce(io::Error) -> CgroupError {
    let path = path.to_path_buf();
    move |source| CgroupError::Refused { path, what, source }
}

/// This daemon's folder in a hierarchy.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Place {
    version: Version,
    controllers: Vec<Controller>,
    folder: PathBuf,
    /// Where the daemon itself is.
    home: PathBuf,
}

/// The cgroups of this daemon's instances. Dropping it removes its folders, if no instance is left.
#[derive(Debug)]
pub struct Groups {
    places: Vec<Place>,
    /// Tells other daemons that the folder is in use.
    _lock: File,
}

impl Groups {
    /// Makes the daemon's folder, below its own cgroup or the one named.
    pub fn new(named: Option<&Path>) -> Result<Self, CgroupError> {
        Self::with(named, &Controller::LIMITS)
    }

    /// The same, of cgroups that can be held ([`Group::hold`]) where the kernel has that.
    ///
    /// # Errors
    ///
    /// As of [`Groups::new`].
    pub fn holdable(named: Option<&Path>) -> Result<Self, CgroupError> {
        Self::with(named, &Controller::ALL)
    }

    fn with(named: Option<&Path>, controllers: &[Controller]) -> Result<Self, CgroupError> {
        let read = |path: &str| fs::read_to_string(path).map_err(refused(Path::new(path), "read"));
        let (mounts, memberships) = (read("/proc/self/mountinfo")?, read("/proc/self/cgroup")?);
        let controllers_of = |folder: &Path| {
            // A folder that is not there yet has what is in the one above.
            let existing = folder.ancestors().find(|folder| folder.exists());
            let file = existing.map(|folder| folder.join("cgroup.controllers"));
            file.and_then(|file| fs::read_to_string(file).ok())
                .unwrap_or_default()
        };
        let mut found = hierarchies(&mounts, &memberships, named, controllers, controllers_of);
        for hierarchy in &mut found {
            // Where the daemon has moved to make room for the cgroups of another kind of instance.
            if hierarchy.version == Version::Two && hierarchy.parent.ends_with(DAEMON_FOLDER) {
                hierarchy.parent.pop();
            }
        }
        Self::within(&found)
    }

    fn within(hierarchies: &[Hierarchy]) -> Result<Self, CgroupError> {
        let first = hierarchies.first().ok_or(CgroupError::None)?;
        // Nobody else makes or removes anything meanwhile.
        let shared = first.parent.join(FOLDER);
        let _turn = lock(&make_folder(&shared)?)?;
        let name = unused_name(&shared)?;
        // What was made goes again if the rest cannot be made.
        let mut groups = Self {
            places: Vec::new(),
            _lock: lock(&shared.join(&name))?,
        };
        for hierarchy in hierarchies {
            let folder = make_folder(&hierarchy.parent.join(FOLDER).join(&name))?;
            groups.places.push(Place {
                version: hierarchy.version,
                controllers: hierarchy.controllers.clone(),
                folder,
                home: hierarchy.home.clone(),
            });
            prepare(hierarchy, &name)?;
        }
        Ok(groups)
    }

    /// What is limited, as layers.
    pub fn layers(&self) -> Vec<Layer> {
        let version_of = |controller: &Controller| {
            let mut places = self.places.iter();
            places
                .find(|place| place.controllers.contains(controller))
                .map(|place| place.version)
        };
        let layer = |controller: Controller| match version_of(&controller) {
            Some(version) => Layer {
                name: format!("{}, {version}", layer_name(controller)),
                missing: None,
            },
            None => Layer {
                name: layer_name(controller),
                missing: Some(format!("no hierarchy has the controller `{}`", controller.name())),
            },
        };
        Controller::LIMITS.map(layer).into()
    }

    /// What daemons may have left that are gone.
    pub fn stale(&self) -> Stale {
        let places = self.places.iter().map(|place| place.folder.clone());
        Stale(places.collect())
    }

    /// A cgroup to try things with.
    pub fn trial(&self) -> Result<Group, CgroupError> {
        let folder = || {
            self.places
                .first()
                .map(|place| place.folder.clone())
                .unwrap_or_default()
        };
        self.make("0", 4)
            .map_err(|error| refused(&folder(), "used")(error))
    }

    /// The cgroup of this name, which is there.
    #[must_use]
    pub fn existing(&self, name: &str) -> Group {
        let folders = self.places.iter().map(|place| Place {
            folder: place.folder.join(name),
            ..place.clone()
        });
        Group {
            places: folders.collect(),
        }
    }

    /// Makes the cgroup of an instance that may have so many processes, threads included.
    pub fn make(&self, name: &str, processes_max: u32) -> io::Result<Group> {
        let group = self.existing(name);
        let made = group
            .places
            .iter()
            .try_for_each(|place| fs::create_dir(&place.folder));
        if let Err(error) = made.and_then(|()| group.set(Controller::Processes, processes_max.into())) {
            group.remove();
            return Err(error);
        }
        Ok(group)
    }
}

fn layer_name(controller: Controller) -> String {
    match controller {
        Controller::Memory => "cgroup for memory",
        Controller::Processor => "cgroup for processor time",
        Controller::Processes => "cgroup for processes",
        Controller::Freezer => "cgroup to hold processes",
    }
    .into()
}

/// The layers that are not there without cgroups.
pub fn missing_layers(error: &CgroupError) -> Vec<Layer> {
    let mut reason = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        reason = format!("{reason}: {cause}");
        source = cause.source();
    }
    let layer = |controller| Layer {
        name: layer_name(controller),
        missing: Some(reason.clone()),
    };
    Controller::LIMITS.map(layer).into()
}

/// The folders of a daemon, one in each hierarchy, beside which those of others may lie that are gone.
#[derive(Debug)]
pub struct Stale(Vec<PathBuf>);

impl Stale {
    /// Removes what daemons have left that are gone; whether nothing of it remains.
    pub fn remove(&self) -> bool {
        let Some(shared) = self.0.first().and_then(|folder| folder.parent()) else {
            return true;
        };
        // Without the folder nothing is left.
        let Ok(_turn) = lock(shared) else { return true };
        let is_alive = |name: &std::ffi::OsStr| {
            let lock = File::open(shared.join(name));
            lock.is_ok_and(|file| flock(&file, FlockOperation::NonBlockingLockExclusive).is_err())
        };
        let folders = self.0.iter().filter_map(|folder| folder.parent());
        let stale: Vec<PathBuf> = folders
            .flat_map(|folder| names(folder).into_iter().map(move |name| (folder, name)))
            .filter(|(_, name)| !is_alive(name))
            .map(|(folder, name)| folder.join(name))
            .collect();
        // Containers outlive a daemon that is killed; held ones die when they are let go, which another hierarchy does.
        for folder in &stale {
            kill_all(folder);
        }
        let mut is_clean = true;
        for folder in &stale {
            is_clean &= remove_tree(folder).is_ok();
        }
        is_clean
    }
}

impl Drop for Groups {
    fn drop(&mut self) {
        for place in &self.places {
            // Where instances are left, or other daemons, the next start removes it.
            let _ = fs::remove_dir(&place.folder);
            if let Some(shared) = place.folder.parent() {
                let _ = fs::remove_dir(shared);
            }
        }
    }
}

/// Passes the controllers on to the children of the daemon's folder, and gives all of them together their weight.
fn prepare(hierarchy: &Hierarchy, name: &str) -> Result<(), CgroupError> {
    let shared = hierarchy.parent.join(FOLDER);
    let folders = [&shared, &shared.join(name)];
    if hierarchy.version == Version::Two {
        enable_below(hierarchy)?;
        for folder in folders {
            enable(folder, &hierarchy.controllers).map_err(refused(folder, "given controllers"))?;
        }
    }
    if hierarchy.controllers.contains(&Controller::Processor) {
        let (file, one) = match hierarchy.version {
            Version::One => ("cpu.shares", 1024),
            Version::Two => ("cpu.weight", 100),
        };
        for folder in folders {
            let weight = (WEIGHT * one).to_string();
            fs::write(folder.join(file), weight).map_err(refused(folder, "given a weight"))?;
        }
    }
    Ok(())
}

/// Ends all processes of a cgroup and of those below it; whether there were any. They may take a moment, and in version 1 held
/// ones until this is done with the cgroup that holds them.
pub fn kill_all(folder: &Path) -> bool {
    let mut had_any = false;
    let holder = folder.join(HOLD_FILE);
    if holder.exists() {
        // A process that is held takes no signal.
        let _ = fs::write(holder, LET_GO);
    }
    for name in names(folder) {
        had_any |= kill_all(&folder.join(name));
    }
    let processes = fs::read_to_string(folder.join("cgroup.procs")).unwrap_or_default();
    for process in processes.lines().filter_map(|line| line.trim().parse().ok()) {
        // Not 0, which is a process that this one cannot see.
        if let Some(process) = Pid::from_raw(process) {
            had_any = true;
            // Fails only if it is gone already.
            let _ = kill_process(process, Signal::KILL);
        }
    }
    had_any
}

/// Removes a cgroup and those below it.
fn remove_tree(folder: &Path) -> io::Result<()> {
    for name in names(folder) {
        remove_tree(&folder.join(name))?;
    }
    fs::remove_dir(folder)
}

/// Makes a folder of a name that no other daemon has, in a container with process numbers of its own either.
fn unused_name(shared: &Path) -> Result<String, CgroupError> {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let mut number = since_epoch.as_millis();
    loop {
        let name = format!("{}-{number}", std::process::id());
        match fs::create_dir(shared.join(&name)) {
            Ok(()) => return Ok(name),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => number += 1,
            Err(error) => return Err(refused(&shared.join(&name), "made")(error)),
        }
    }
}

/// Names of the cgroups below one.
fn names(folder: &Path) -> Vec<std::ffi::OsString> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.file_name())
        .collect()
}

fn make_folder(folder: &Path) -> Result<PathBuf, CgroupError> {
    fs::create_dir_all(folder).map_err(refused(folder, "made"))?;
    Ok(folder.to_path_buf())
}

/// Waits for the lock of a folder.
fn lock(folder: &Path) -> Result<File, CgroupError> {
    let file = File::open(folder).map_err(refused(folder, "opened"))?;
    flock(&file, FlockOperation::LockExclusive).map_err(|error| refused(folder, "locked")(error.into()))?;
    Ok(file)
}

/// Lets the children of a cgroup have these controllers.
fn enable(folder: &Path, controllers: &[Controller]) -> io::Result<()> {
    let names: Vec<_> = controllers
        .iter()
        .map(|controller| format!("+{}", controller.name()))
        .collect();
    fs::write(folder.join("cgroup.subtree_control"), names.join(" "))
}

/// Lets children of the parent have its controllers, from which this process moves out if need be.
fn enable_below(hierarchy: &Hierarchy) -> Result<(), CgroupError> {
    let parent = &hierarchy.parent;
    let failure = match enable(parent, &hierarchy.controllers) {
        Ok(()) => return Ok(()),
        Err(error) => error,
    };
    if hierarchy.is_root || Errno::from_io_error(&failure) != Some(Errno::BUSY) {
        return Err(refused(parent, "given controllers")(failure));
    }
    let own = make_folder(&parent.join(DAEMON_FOLDER))?;
    // 0 stands for the process that writes.
    fs::write(own.join("cgroup.procs"), "0").map_err(refused(&own, "entered"))?;
    enable(parent, &hierarchy.controllers).map_err(|_| {
        // Others are in there: everything as before.
        let _ = fs::write(parent.join("cgroup.procs"), "0");
        let _ = fs::remove_dir(&own);
        CgroupError::Shared { path: parent.clone() }
    })
}

/// The cgroup of one instance.
#[derive(Debug)]
pub struct Group {
    places: Vec<Place>,
}

/// How a process gets into a cgroup and out of it: files into which it writes `0`, which stands for the thread that writes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Doors {
    /// Those that lead into the group.
    pub inner: Vec<PathBuf>,
    /// Those that lead back to where the daemon is.
    pub outer: Vec<PathBuf>,
}

/// How a process that another one makes gets into a cgroup, whatever it sees of the file system.
#[derive(Debug, Default)]
pub struct Entrances {
    /// The folder that it is to be born in (version 2).
    pub folder: Option<File>,
    /// Files into which it writes `0` afterwards (version 1).
    pub files: Vec<File>,
}

impl Group {
    /// A cgroup of version 2 that is there already, without limits, and the one of this process.
    #[must_use]
    pub fn unified(folder: PathBuf, home: PathBuf) -> Self {
        let place = Place {
            version: Version::Two,
            controllers: Vec::new(),
            folder,
            home,
        };
        Self { places: vec![place] }
    }

    /// How a process of one thread gets into it and out of it.
    #[must_use]
    pub fn doors(&self) -> Doors {
        let door = |version, folder: &Path| match version {
            // The kernel lets a thread move itself without waiting for all others.
            Version::One => folder.join("tasks"),
            Version::Two => folder.join("cgroup.procs"),
        };
        let places = self.places.iter();
        let (inner, outer) = places
            .map(|place| {
                (
                    door(place.version, &place.folder),
                    door(place.version, &place.home),
                )
            })
            .unzip();
        Doors { inner, outer }
    }

    /// How a process that is not one of this one's own gets into it.
    ///
    /// # Errors
    ///
    /// If the group is gone, or no descriptor is left.
    pub fn entrances(&self) -> io::Result<Entrances> {
        let mut entrances = Entrances::default();
        for place in &self.places {
            match place.version {
                // As `doors` has it.
                Version::One => {
                    let tasks = File::options().write(true).open(place.folder.join("tasks"))?;
                    entrances.files.push(tasks);
                }
                Version::Two => entrances.folder = Some(File::open(&place.folder)?),
            }
        }
        Ok(entrances)
    }

    /// Its path below the root of the hierarchy, if there is one hierarchy for all.
    #[must_use]
    pub fn unified_path(&self) -> Option<PathBuf> {
        let [place] = self.places.as_slice() else {
            return None;
        };
        let mount = place
            .folder
            .ancestors()
            .filter(|folder| folder.join("cgroup.procs").exists())
            .last()?;
        let path = place.folder.strip_prefix(mount).ok()?;
        (place.version == Version::Two).then(|| Path::new("/").join(path))
    }

    /// Memory that its processes take now, in bytes, with what they have of files; none if it is not counted.
    #[must_use]
    pub fn memory_bytes(&self) -> Option<u64> {
        let mut places = self.places.iter();
        let place = places.find(|place| place.controllers.contains(&Controller::Memory))?;
        let file = match place.version {
            Version::One => "memory.usage_in_bytes",
            Version::Two => "memory.current",
        };
        let text = fs::read_to_string(place.folder.join(file)).ok()?;
        text.trim().parse().ok()
    }

    /// Holds all processes in it and below: they take no processor time until they are let go. Returns before the last one
    /// stands still.
    ///
    /// # Errors
    ///
    /// If its cgroups have no means to ([`Groups::holdable`]), or the kernel refuses.
    pub fn hold(&self, is_held: bool) -> io::Result<()> {
        let has_holder = |place: &&Place| match place.version {
            Version::One => place.controllers.contains(&Controller::Freezer),
            Version::Two => true,
        };
        let place = self.places.iter().find(has_holder);
        let place = place.ok_or(io::ErrorKind::Unsupported)?;
        match place.version {
            Version::One => fs::write(place.folder.join(HOLD_FILE), if is_held { HOLD } else { LET_GO }),
            Version::Two => fs::write(place.folder.join(HOLD_FILE_TWO), if is_held { "1" } else { "0" }),
        }
    }

    /// Ends all processes in it and below; whether there were any. They may take a moment.
    pub fn kill(&self) -> bool {
        let mut had_any = false;
        for place in &self.places {
            had_any |= kill_all(&place.folder);
        }
        had_any
    }

    /// Starts a process in the group, in which it is born. The calling thread visits the group for that in version 1: the
    /// kernel lets a thread move *itself* without waiting for all others, which takes some 10 ms otherwise.
    ///
    /// # Errors
    ///
    /// If the process cannot be started, or the thread cannot go in or back; `end` then ends a process that was started.
    pub fn start_within<T>(
        &self,
        start: impl FnOnce(Option<BorrowedFd<'_>>) -> Result<T, StartError>,
        end: impl FnOnce(T),
    ) -> Result<T, StartError> {
        let unified = self.places.iter().find(|place| place.version == Version::Two);
        let folder = unified.map(|place| File::open(&place.folder)).transpose();
        let folder = folder.map_err(host_error("opening a cgroup"))?;
        let visited = || self.places.iter().filter(|place| place.version == Version::One);
        // 0 stands for the thread that writes.
        let launch = visited()
            .try_for_each(|place| fs::write(place.folder.join("tasks"), "0"))
            .map_err(host_error("entering a cgroup"))
            .and_then(|()| start(folder.as_ref().map(AsFd::as_fd)));
        let mut is_back = Ok(());
        for place in visited() {
            is_back = is_back.and(fs::write(place.home.join("tasks"), "0"));
        }
        match (launch, is_back) {
            (Ok(launch), Err(error)) => {
                end(launch);
                Err(host_error("leaving a cgroup")(error))
            }
            (launch, _) => launch,
        }
    }

    /// Limits memory, in bytes, and processor time, in thousandths of a processor.
    pub fn limit(&self, memory_bytes: u64, processor_millis: u32) -> io::Result<()> {
        self.set(Controller::Memory, memory_bytes)?;
        self.set(Controller::Processor, processor_millis.into())
    }

    /// Limits memory only, in bytes.
    ///
    /// # Errors
    ///
    /// If the kernel refuses.
    pub fn limit_memory(&self, memory_bytes: u64) -> io::Result<()> {
        self.set(Controller::Memory, memory_bytes)
    }

    fn set(&self, controller: Controller, limit: u64) -> io::Result<()> {
        let Some(place) = self
            .places
            .iter()
            .find(|place| place.controllers.contains(&controller))
        else {
            return Ok(());
        };
        let write = |file: &str, text: String| fs::write(place.folder.join(file), text);
        let quota_us = (limit.saturating_mul(PERIOD_US) / 1000).max(QUOTA_US_MIN);
        match (controller, place.version) {
            (Controller::Memory, Version::One) => {
                let memory = || write("memory.limit_in_bytes", limit.to_string());
                // Where swap is accounted, none may be used on top. That limit may at no time be the lower of the two.
                let with_swap = || write("memory.memsw.limit_in_bytes", limit.to_string());
                if memory().is_err() {
                    let _ = with_swap();
                    memory()?;
                }
                let _ = with_swap();
                Ok(())
            }
            (Controller::Memory, Version::Two) => {
                write("memory.max", limit.to_string())?;
                // As above; and all processes of an instance end together.
                let _ = write("memory.swap.max", "0".into());
                let _ = write("memory.oom.group", "1".into());
                Ok(())
            }
            (Controller::Processor, Version::One) => {
                write("cpu.cfs_period_us", PERIOD_US.to_string())?;
                write("cpu.cfs_quota_us", quota_us.to_string())
            }
            (Controller::Processor, Version::Two) => write("cpu.max", format!("{quota_us} {PERIOD_US}")),
            (Controller::Freezer, _) => Ok(()),
            (Controller::Processes, _) => write("pids.max", limit.to_string()),
        }
    }

    /// Whether the kernel has ended a process of the group because the group was out of memory, rather than one that it
    /// lies in, or the host.
    pub fn was_out_of_memory(&self) -> bool {
        let mut memory = self
            .places
            .iter()
            .filter(|place| place.controllers.contains(&Controller::Memory));
        memory.any(|place| {
            let file = match place.version {
                Version::One => "memory.oom_control",
                Version::Two => "memory.events",
            };
            // In version 1 it is counted where the process was, which may be below.
            let below = names(&place.folder)
                .into_iter()
                .map(|name| place.folder.join(name));
            let folders = std::iter::once(place.folder.clone()).chain(below);
            let texts: Vec<_> = folders
                .map(|folder| fs::read_to_string(folder.join(file)).unwrap_or_default())
                .collect();
            let is_counted = |name| {
                let counts = texts.iter().flat_map(|text| text.lines());
                let mut counts = counts.filter_map(|line| line.strip_prefix(name));
                counts.any(|count| count.trim() != "0")
            };
            let is_full = match place.version {
                // Not every kernel counts how often the limit was met, so how near it was counts as well.
                Version::One => {
                    let number = |file: &str| -> Option<u64> {
                        let text = fs::read_to_string(place.folder.join(file)).ok()?;
                        text.trim().parse().ok()
                    };
                    let most = number("memory.max_usage_in_bytes");
                    let limit = number("memory.limit_in_bytes");
                    let is_near = most
                        .zip(limit)
                        .is_some_and(|(most, limit)| most.saturating_add(NEAR_BYTES) >= limit);
                    is_near || number("memory.failcnt").is_some_and(|count| count > 0)
                }
                Version::Two => is_counted("oom "),
            };
            is_full && is_counted("oom_kill ")
        })
    }

    /// Removes the group. Its processes have ended, or are about to.
    pub fn remove(&self) {
        for place in &self.places {
            for _ in 0..REMOVALS {
                match remove_tree(&place.folder) {
                    Err(error) if Errno::from_io_error(&error) == Some(Errno::BUSY) => {
                        std::thread::sleep(REMOVAL_PAUSE);
                    }
                    // Whatever else is in the way, the next start of a daemon tries again.
                    _ => break,
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
