//! The process beside a container: `spore container-keeper`. It makes the namespaces and mounts, calls the runtime, is
//! the parent of the container's first process, and sees it off.
//!
//! ```text
//!   daemon ──request──> keeper: cgroups, namespaces, mounts ──> runtime run ──> the container's first process
//!                          │  <── Started
//!                          ├── the process ends: Ended, then it waits for the daemon
//!                          └── the daemon closes the stream, or is gone: it ends the container
//!                                   └──> runtime delete, exit
//! ```
//!
//! The mounts are in a namespace that nobody has but keeper and container, so they go with these, whatever ends them.
//! One thread, small, and without an asynchronous runtime: there is one for each instance.

use std::fs;
use std::io::{self, BufRead, BufReader, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::mount::{
    MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_change, mount_remount, unmount,
};
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitOptions, getpid, kill_process, pidfd_open, set_child_subreaper, setsid,
    waitpid,
};
use rustix::thread::UnshareFlags;

use crate::config::{ROOT, SECRETS};
use crate::leftovers;
use crate::network;
use crate::protocol::{End, Lower, Report, Request};
use crate::runtime::Family;

const LOWER: &str = "lower";
const UPPER: &str = "upper";
const WORK: &str = "work";
const LOG: &str = "runtime.log";
const PROCESS: &str = "process";
/// How long the processes of a container that are killed may take to end.
const END_PATIENCE: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(2);
/// How much of what a runtime says of a failure is passed on, in bytes.
const REASON_BYTES_MAX: usize = 1000;

/// Runs beside one container; called before any thread exists.
#[must_use]
pub fn main() -> ExitCode {
    // The stream to the daemon takes the place of the standard input; what is written to the others is the function's log.
    let Ok(control) = io::stdin().as_fd().try_clone_to_owned() else {
        return ExitCode::FAILURE;
    };
    let mut control = BufReader::new(UnixStream::from(control));
    let mut line = String::new();
    if control.read_line(&mut line).is_err() {
        return ExitCode::FAILURE;
    }
    let Ok(request) = serde_json::from_str::<Request>(&line) else {
        return ExitCode::FAILURE;
    };
    let stream = control.into_inner();
    let mut keeper = Keeper { request, stream };
    match keeper.run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            keeper.remove(None);
            keeper.tell(&Report::Failed {
                reason: failure.reason,
                is_program: failure.is_program,
            });
            ExitCode::SUCCESS
        }
    }
}

struct Keeper {
    request: Request,
    stream: UnixStream,
}

/// Why there is no container.
struct Failure {
    reason: String,
    is_program: bool,
}

fn failed(what: &str) -> impl Fn(io::Error) -> Failure {
    let what = what.to_owned();
    move |error| Failure {
        reason: format!("{what}: {error}"),
        is_program: false,
    }
}

impl Keeper {
    fn run(&mut self) -> Result<(), Failure> {
        // A Ctrl-C in the daemon's terminal is the daemon's business.
        let _ = setsid();
        set_child_subreaper(Some(getpid())).map_err(|error| failed("becoming a parent")(error.into()))?;
        enter(&self.request.inner_doors).map_err(failed("entering the cgroups"))?;
        self.isolate().map_err(failed("making namespaces"))?;
        self.prepare().map_err(failed("mounting the root"))?;
        let first = self.start()?;
        enter(&self.request.outer_doors).map_err(failed("leaving the cgroups"))?;
        self.tell(&Report::Started {
            process: first.as_raw_nonzero().get(),
        });
        let end = self.watch(first).map_err(failed("watching the container"))?;
        if let Some(end) = end {
            self.tell(&Report::Ended(end));
            // What the cgroups tell of the end is there until the container is removed.
            self.wait_for_daemon();
        }
        self.remove(end.is_none().then_some(first));
        Ok(())
    }

    #[allow(
        deprecated,
        reason = "its successor is unsafe for flags that part threads of one process, of which there is one here"
    )]
    fn isolate(&self) -> io::Result<()> {
        rustix::thread::unshare(UnshareFlags::NEWNS | UnshareFlags::NEWNET)?;
        mount_change("/", MountPropagationFlags::REC | MountPropagationFlags::PRIVATE)?;
        network::set_loopback_up()?;
        // Everybody may listen on any port of a network that is its own, as with other container runtimes. Where it cannot be
        // said only the superuser may, as programs are told.
        let _ = fs::write("/proc/sys/net/ipv4/ip_unprivileged_port_start", "0");
        Ok(())
    }

    /// Mounts the root below the place, and writes what belongs beside it.
    fn prepare(&self) -> io::Result<()> {
        let place = &self.request.place;
        let flags = MountFlags::NODEV | MountFlags::NOSUID;
        let size = format!("mode=755,size={}", self.request.written_bytes_max);
        mount("tmpfs", place, "tmpfs", flags, Some(&*c_string(&size)?))?;
        for folder in [LOWER, UPPER, WORK, ROOT, SECRETS] {
            fs::create_dir(place.join(folder))?;
        }
        // The root itself, like everything else in the image, belongs to whoever runs the program.
        let (user, group) = self.request.owner;
        chown(place.join(UPPER), Some(user), Some(group))?;
        let lower = match &self.request.lower {
            Lower::Image(image) => {
                let lower = place.join(LOWER);
                mount_image(image, &lower)?;
                lower
            }
            Lower::Folder(folder) => folder.clone(),
        };
        let is_plain = |path: &Path| {
            !path
                .as_os_str()
                .as_encoded_bytes()
                .iter()
                .any(|byte| b",:\\".contains(byte))
        };
        if !is_plain(&lower) || !is_plain(place) {
            let text = "the data folder's path holds a comma, a colon or a backslash, which overlay file systems do not take";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
        let layers = format!(
            "lowerdir={},upperdir={},workdir={}",
            lower.display(),
            place.join(UPPER).display(),
            place.join(WORK).display()
        );
        mount(
            "overlay",
            place.join(ROOT),
            "overlay",
            flags,
            Some(&*c_string(&layers)?),
        )?;
        // A file system of its own, for one that can be written to says of each attempt something else.
        let secrets = place.join(SECRETS);
        mount(
            "tmpfs",
            &secrets,
            "tmpfs",
            flags,
            Some(&*c_string("mode=755,size=1m")?),
        )?;
        for (name, value) in &self.request.secrets {
            let file = secrets.join(name);
            fs::write(&file, value)?;
            fs::set_permissions(&file, fs::Permissions::from_mode(0o444))?;
        }
        mount_remount(&secrets, flags | MountFlags::RDONLY, c"")?;
        fs::write(place.join("config.json"), &self.request.configuration)?;
        for hidden in &self.request.hidden {
            unmount(hidden, UnmountFlags::DETACH)?;
        }
        Ok(())
    }

    /// Calls the runtime; the process to watch.
    fn start(&mut self) -> Result<Pid, Failure> {
        let Request {
            runtime, id, place, ..
        } = &self.request;
        let process = place.join(PROCESS);
        let mut child = runtime
            .run(id, place, &place.join(LOG), &process)
            .stdin(Stdio::null())
            .spawn()
            .map_err(failed("calling the runtime"))?;
        if runtime.family.stays() {
            return pid(i32::try_from(child.id()).unwrap_or_default());
        }
        let status = self
            .wait_for_runtime(&mut child)
            .map_err(failed("calling the runtime"))?;
        if !status.is_some_and(|status| status.success()) {
            return Err(self.refusal(status.is_none()));
        }
        if let Some(mut command) = runtime.start(id, &place.join(LOG)) {
            let mut child = command
                .stdin(Stdio::null())
                .spawn()
                .map_err(failed("calling the runtime"))?;
            let status = self
                .wait_for_runtime(&mut child)
                .map_err(failed("calling the runtime"))?;
            if !status.is_some_and(|status| status.success()) {
                return Err(self.refusal(status.is_none()));
            }
        }
        let number =
            fs::read_to_string(&process).map_err(failed("reading the container's process number"))?;
        pid(number.trim().parse().unwrap_or_default())
    }

    /// Why the runtime has failed, in its own words.
    fn refusal(&self, is_given_up: bool) -> Failure {
        if is_given_up {
            return Failure {
                reason: "the start was given up".to_owned(),
                is_program: false,
            };
        }
        let log = fs::read_to_string(self.request.place.join(LOG)).unwrap_or_default();
        let last = log.lines().last().unwrap_or("it does not say why");
        let end = (0..=last.len().min(REASON_BYTES_MAX))
            .rev()
            .find(|&at| last.is_char_boundary(at));
        let name = self.request.runtime.family.program();
        Failure {
            reason: format!("{name} could not start it: {}", &last[..end.unwrap_or(0)]),
            is_program: ["exec", "executable", "no such file"]
                .iter()
                .any(|word| last.contains(word)),
        }
    }

    /// Waits for a runtime that starts a container; none if the daemon does not want it any more.
    fn wait_for_runtime(&self, child: &mut Child) -> io::Result<Option<std::process::ExitStatus>> {
        let number = i32::try_from(child.id()).unwrap_or_default();
        let process = Pid::from_raw(number).ok_or(io::ErrorKind::InvalidData)?;
        let watch = pidfd_open(process, PidfdFlags::empty())?;
        if !self.ends_before_daemon(&watch)? {
            let _ = child.kill();
            let _ = child.wait();
            return Ok(None);
        }
        child.wait().map(Some)
    }

    /// Waits until the process has ended; false if the daemon closes the stream before that.
    fn ends_before_daemon(&self, watch: &OwnedFd) -> io::Result<bool> {
        loop {
            let mut list = [
                PollFd::new(watch, PollFlags::IN),
                PollFd::new(&self.stream, PollFlags::IN),
            ];
            match poll(&mut list, None) {
                Ok(_) => {}
                Err(rustix::io::Errno::INTR) => continue,
                Err(error) => return Err(error.into()),
            }
            if !list[0].revents().is_empty() {
                return Ok(true);
            }
            if !list[1].revents().is_empty() {
                return Ok(false);
            }
        }
    }

    /// How the container has ended; none if it is to be ended.
    fn watch(&self, first: Pid) -> io::Result<Option<End>> {
        let watch = pidfd_open(first, PidfdFlags::empty())?;
        if !self.ends_before_daemon(&watch)? {
            return Ok(None);
        }
        let Some((_, status)) = waitpid(Some(first), WaitOptions::empty())? else {
            return Err(io::ErrorKind::WouldBlock.into());
        };
        let status = std::process::ExitStatus::from_raw(status.as_raw());
        let stays = self.request.runtime.family.stays();
        Ok(Some(match (status.code(), status.signal()) {
            // As a shell would say it.
            (Some(code @ 129..=192), _) if stays => End::Signal(code - 128),
            (Some(code), _) => End::Exited(u8::try_from(code).unwrap_or(u8::MAX)),
            (None, signal) => End::Signal(signal.unwrap_or(Signal::KILL.as_raw())),
        }))
    }

    /// The stream has nothing more to say: its end is what is waited for.
    fn wait_for_daemon(&self) {
        let mut list = [PollFd::new(&self.stream, PollFlags::IN)];
        while poll(&mut list, None) == Err(rustix::io::Errno::INTR) {}
    }

    /// Ends all processes of the container, and lets the runtime forget it.
    fn remove(&self, first: Option<Pid>) {
        // Otherwise this process would be among them.
        let _ = enter(&self.request.outer_doors);
        if let Some(first) = first {
            let _ = kill_process(first, Signal::KILL);
        }
        let deadline = Instant::now() + END_PATIENCE;
        while kill_all(&self.request.inner_doors) && Instant::now() < deadline {
            reap();
            std::thread::sleep(PAUSE);
        }
        reap();
        let Request { runtime, id, .. } = &self.request;
        runtime.forget(id);
        if runtime.family == Family::Runc {
            leftovers::remove_cgroups_of(id);
        }
    }

    fn tell(&mut self, report: &Report) {
        if let Ok(mut text) = serde_json::to_string(report) {
            text.push('\n');
            // Fails only if the daemon is gone, which is noticed elsewhere.
            let _ = self.stream.write_all(text.as_bytes());
        }
    }
}

fn pid(number: i32) -> Result<Pid, Failure> {
    Pid::from_raw(number).ok_or_else(|| Failure {
        reason: "the runtime tells no process number".to_owned(),
        is_program: false,
    })
}

fn c_string(text: &str) -> io::Result<std::ffi::CString> {
    std::ffi::CString::new(text).map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))
}

/// Moves this process through doors. Those that are not there any more lead nowhere.
fn enter(doors: &[PathBuf]) -> io::Result<()> {
    doors.iter().try_for_each(|door| fs::write(door, "0"))
}

/// Mounts an EROFS image: the kernel reads it as it is, or by a loop device before Linux 6.12, which goes with the mount.
fn mount_image(image: &Path, at: &Path) -> io::Result<()> {
    let flags = MountFlags::RDONLY | MountFlags::NODEV | MountFlags::NOSUID;
    let Err(error) = mount(image, at, "erofs", flags, None) else {
        return Ok(());
    };
    let mut command = Command::new("/bin/mount");
    let options = ["-n", "-t", "erofs", "-o", "ro,nodev,nosuid,loop"];
    let output = command
        .args(options)
        .arg(image)
        .arg(at)
        .stdin(Stdio::null())
        .output()?;
    match output.status.success() {
        true => Ok(()),
        false => Err(io::Error::other(format!(
            "{} cannot be mounted, neither as it is ({error}) nor by a loop device ({})",
            image.display(),
            String::from_utf8_lossy(&output.stderr).trim()
        ))),
    }
}

/// Ends all processes of the cgroups; whether there were any.
fn kill_all(doors: &[PathBuf]) -> bool {
    let folders = doors.iter().filter_map(|door| door.parent());
    let mut had_any = false;
    for folder in folders {
        had_any |= spore_cgroups::kill_all(folder);
    }
    had_any
}

/// Takes leave of children that have ended.
fn reap() {
    while let Ok(Some(_)) = waitpid(None, WaitOptions::NOHANG) {}
}
