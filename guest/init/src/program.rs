//! The function's program: how it is started, bounded, listened to and waited for.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{self, PipeReader, PipeWriter, Read};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{JoinHandle, sleep};
use std::time::{Duration, Instant};

use rustix::mount::MountFlags;
use rustix::process::{Gid, Pid, Uid, WaitOptions, wait};
use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};
use spore_abi::microvm::{CONTENT_BYTES_MAX, Ending, Kind};

use crate::channel::Channel;
use crate::machine::mount_at;
use crate::root::PROGRAM;
use crate::settings::Settings;

/// Stack of a thread, in bytes.
const STACK_BYTES: usize = 128 << 10;
/// How often it is looked whether the program listens.
const LISTEN_PAUSE: Duration = Duration::from_millis(2);
/// How long output is waited for after the program's end: a process that it has left behind may keep the pipe.
const LAST_OUTPUT: Duration = Duration::from_millis(500);
/// The flag of `/proc/PID/stat` of a process that is ending (PF_EXITING of the kernel's sched.h).
const EXITING: u64 = 4;
const CGROUPS: &str = "/cgroups";
const GROUP: &str = "/cgroups/function";
/// State of a socket that listens, in `/proc/net/tcp`.
const LISTENING: &str = "0A";

/// Starts a thread.
pub(crate) fn thread(run: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
    std::thread::Builder::new().stack_size(STACK_BYTES).spawn(run)
}

/// The bound of the program's memory: a cgroup.
pub(crate) struct Limit {
    /// Held from before the root is changed, after which its path means something else.
    folder: rustix::fd::OwnedFd,
}

impl Limit {
    pub(crate) fn new(memory_bytes: u64) -> io::Result<Self> {
        mount_at("cgroup2", CGROUPS, "cgroup2", MountFlags::empty(), None)?;
        fs::write(format!("{CGROUPS}/cgroup.subtree_control"), "+memory")?;
        fs::create_dir(GROUP)?;
        fs::write(format!("{GROUP}/memory.max"), memory_bytes.to_string())?;
        fs::write(format!("{GROUP}/memory.oom.group"), "1")?;
        let folder = fs::File::open(GROUP)?.into();
        Ok(Self { folder })
    }

    fn file(&self, path: &str, flags: rustix::fs::OFlags) -> io::Result<fs::File> {
        let file = rustix::fs::openat(&self.folder, path, flags, rustix::fs::Mode::empty())?;
        Ok(file.into())
    }

    /// Moves this process, 0, there, or back.
    fn enter(&self, path: &str) -> io::Result<()> {
        rustix::io::write(self.file(path, rustix::fs::OFlags::WRONLY)?, b"0")?;
        Ok(())
    }

    fn was_out_of_memory(&self) -> bool {
        let mut text = String::new();
        let read = self
            .file("memory.events", rustix::fs::OFlags::RDONLY)
            .and_then(|mut file| file.read_to_string(&mut text));
        let count = text.lines().find_map(|line| line.strip_prefix("oom_kill "));
        read.is_ok() && count.is_some_and(|count| count.trim() != "0")
    }
}

/// Starts a command as the user of the settings. The kernel keeps users by thread, so this takes a thread that becomes that
/// user and ends.
fn spawn_as(settings: &Settings, mut command: Command) -> io::Result<Child> {
    let (user, group) = (Uid::from_raw(settings.user), Gid::from_raw(settings.group));
    let groups: Vec<Gid> = settings
        .more_groups
        .iter()
        .map(|group| Gid::from_raw(*group))
        .collect();
    std::thread::scope(|scope| {
        let start = move || {
            set_thread_groups(&groups)?;
            set_thread_res_gid(group, group, group)?;
            set_thread_res_uid(user, user, user)?;
            command.spawn()
        };
        let thread = std::thread::Builder::new()
            .stack_size(STACK_BYTES)
            .spawn_scoped(scope, start)?;
        thread
            .join()
            .unwrap_or_else(|_| Err(io::Error::other("the thread that starts it has failed")))
    })
}

/// A pipe for output that the program may also open by name (`/dev/stdout`): it belongs to it, as with container runtimes.
fn pipe_of(settings: &Settings) -> io::Result<(PipeReader, PipeWriter)> {
    let (from, to) = io::pipe()?;
    std::os::unix::fs::fchown(&to, Some(settings.user), Some(settings.group))?;
    Ok((from, to))
}

/// The program that was started.
pub(crate) struct Program {
    pid: Pid,
    limit: Limit,
    /// Threads that pass its output on.
    pumps: Arc<AtomicUsize>,
}

impl Program {
    /// Starts the program within its limit; what it writes goes to the daemon.
    pub(crate) fn start(settings: &Settings, limit: Limit, channel: &Arc<Channel>) -> io::Result<Arc<Self>> {
        let bad = || io::Error::new(io::ErrorKind::InvalidInput, "there is no program to be run");
        let (name, arguments) = settings.arguments.split_first().ok_or_else(bad)?;
        let path = match settings.program_bytes {
            0 => OsStr::from_bytes(name),
            _ => OsStr::new(PROGRAM),
        };
        let text = |bytes: &Vec<u8>| OsString::from_vec(bytes.clone());
        let variables = settings
            .environment
            .iter()
            .map(|(name, value)| (text(name), text(value)));
        let (output, output_end) = pipe_of(settings)?;
        let (errors, errors_end) = pipe_of(settings)?;
        limit.enter("cgroup.procs")?;
        let mut command = Command::new(path);
        command
            .arg0(OsStr::from_bytes(name))
            .args(arguments.iter().map(text))
            .env_clear()
            .envs(variables)
            .current_dir(OsStr::from_bytes(&settings.directory))
            .stdin(Stdio::null())
            .stdout(Stdio::from(output_end))
            .stderr(Stdio::from(errors_end));
        let child = spawn_as(settings, command);
        let is_back = limit.enter("../cgroup.procs");
        let child = child.map_err(|error| {
            let name = String::from_utf8_lossy(name).into_owned();
            io::Error::new(error.kind(), format!("{name} cannot be started: {error}"))
        })?;
        is_back?;
        let pumps = Arc::new(AtomicUsize::new(0));
        pump(output, Kind::Output, &pumps, channel)?;
        pump(errors, Kind::Errors, &pumps, channel)?;
        let pid = Pid::from_child(&child);
        Ok(Arc::new(Self { pid, limit, pumps }))
    }

    /// Whether it is ending: the kernel closes what it has open then, and that means nothing.
    pub(crate) fn is_ending(&self) -> bool {
        let path = format!("/proc/{}/stat", self.pid.as_raw_nonzero());
        // Without the file it has ended.
        let Ok(text) = fs::read_to_string(path) else {
            return true;
        };
        // After the name, which ends with the last parenthesis: state, parent, group, session, terminal, its group, flags.
        let fields = text.rsplit(") ").next().unwrap_or_default();
        let flags = fields
            .split(' ')
            .nth(6)
            .and_then(|flags| flags.parse::<u64>().ok());
        flags.is_none_or(|flags| flags & EXITING != 0)
    }
}

fn pump(
    mut from: impl Read + Send + 'static,
    kind: Kind,
    pumps: &Arc<AtomicUsize>,
    channel: &Arc<Channel>,
) -> io::Result<()> {
    let (pumps, channel) = (Arc::clone(pumps), Arc::clone(channel));
    pumps.fetch_add(1, Ordering::SeqCst);
    thread(move || {
        let mut bytes = vec![0; CONTENT_BYTES_MAX];
        while let Ok(count) = from.read(&mut bytes) {
            if count == 0 || channel.send(kind, 0, &bytes[..count]).is_err() {
                break;
            }
        }
        pumps.fetch_sub(1, Ordering::SeqCst);
    })?;
    Ok(())
}

/// Waits for the program, and for whatever it has left behind, on a thread; tells the daemon how it has ended.
pub(crate) fn watch(program: &Arc<Program>, channel: &Arc<Channel>) -> io::Result<()> {
    let (program, channel) = (Arc::clone(program), Arc::clone(channel));
    thread(move || {
        loop {
            let Ok(Some((pid, status))) = wait(WaitOptions::empty()) else {
                return;
            };
            if pid != program.pid {
                continue;
            }
            let since = Instant::now();
            while program.pumps.load(Ordering::SeqCst) > 0 && since.elapsed() < LAST_OUTPUT {
                sleep(Duration::from_millis(1));
            }
            let (ending, number) = match (status.exit_status(), status.terminating_signal()) {
                _ if program.limit.was_out_of_memory() => (Ending::OutOfMemory, 0),
                (Some(code), _) => (Ending::Exited, code),
                (None, signal) => (Ending::Signalled, signal.unwrap_or_default()),
            };
            let number = u8::try_from(number).unwrap_or(u8::MAX);
            let _ = channel.send(Kind::Ended, 0, &[ending as u8, number]);
            return;
        }
    })?;
    Ok(())
}

/// Tells the daemon, from a thread, when something listens on the port.
pub(crate) fn announce(channel: Arc<Channel>, port: u16) -> io::Result<()> {
    thread(move || {
        while !is_listening(port) {
            sleep(LISTEN_PAUSE);
        }
        let _ = channel.send(Kind::Ready, 0, &[]);
    })?;
    Ok(())
}

/// Whether something listens on the port; nobody is disturbed by the question.
fn is_listening(port: u16) -> bool {
    ["/proc/net/tcp", "/proc/net/tcp6"].iter().any(|path| {
        let text = fs::read_to_string(path).unwrap_or_default();
        // Number, local address, remote address, state.
        text.lines().skip(1).any(|line| {
            let mut fields = line.split_whitespace().skip(1);
            let (local, state) = (fields.next(), fields.nth(1));
            let local = local.and_then(|local| local.rsplit(':').next());
            let found = local.and_then(|port| u16::from_str_radix(port, 16).ok());
            state == Some(LISTENING) && found == Some(port)
        })
    })
}
