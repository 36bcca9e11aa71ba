//! The machine before any program: file systems of the kernel, its modules, the clock, the loopback device.

use std::ffi::CStr;
use std::fs::{self, File};
use std::io;
use std::path::Path;

use rustix::fs::Mode;
use rustix::io::Errno;
use rustix::mount::{MountFlags, mount};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketType, recv, send, socket};
use rustix::system::finit_module;
use rustix::time::{ClockId, Timespec, clock_settime};

/// Where the initial file system has the modules, named in the order in which they are to be loaded.
const MODULES: &str = "/modules";
/// How a refusal is told.
pub(crate) fn context(what: impl AsRef<str>) -> impl Fn(Errno) -> io::Error {
    move |error| {
        let error = io::Error::from(error);
        io::Error::new(error.kind(), format!("{}: {error}", what.as_ref()))
    }
}

/// Makes a folder unless it is there.
pub(crate) fn make_folder(path: &str) -> io::Result<()> {
    match rustix::fs::mkdir(path, Mode::from_raw_mode(0o755)) {
        Ok(()) | Err(Errno::EXIST) => Ok(()),
        Err(error) => Err(context(format!("making {path}"))(error)),
    }
}

/// Makes a folder and mounts a file system there.
pub(crate) fn mount_at(
    source: &str,
    target: &str,
    kind: &str,
    flags: MountFlags,
    options: Option<&CStr>,
) -> io::Result<()> {
    make_folder(target)?;
    mount(source, target, kind, flags, options).map_err(context(format!("mounting {target}")))
}

/// What tells of processes and devices.
pub(crate) fn mount_kernel_file_systems() -> io::Result<()> {
    let flags = MountFlags::NOSUID | MountFlags::NOEXEC | MountFlags::NODEV;
    mount_at("proc", "/proc", "proc", flags, None)?;
    mount_at("sysfs", "/sys", "sysfs", flags, None)?;
    let flags = MountFlags::NOSUID | MountFlags::NOEXEC;
    mount_at("devtmpfs", "/dev", "devtmpfs", flags, None)
}

/// Loads the drivers.
pub(crate) fn load_modules() -> io::Result<()> {
    let Ok(entries) = fs::read_dir(MODULES) else {
        return Ok(());
    };
    let mut paths: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
    paths.sort();
    for path in paths {
        load_module(&path)?;
    }
    Ok(())
}

fn load_module(path: &Path) -> io::Result<()> {
    match finit_module(File::open(path)?, c"", 0) {
        Ok(()) | Err(Errno::EXIST) => Ok(()),
        Err(error) => Err(context(format!("loading {}", path.display()))(error)),
    }
}

/// Sets the clock to nanoseconds since 1970.
pub(crate) fn set_clock(clock_ns: u64) -> io::Result<()> {
    let time = Timespec {
        tv_sec: (clock_ns / 1_000_000_000) as i64,
        tv_nsec: (clock_ns % 1_000_000_000) as i64,
    };
    clock_settime(ClockId::Realtime, time).map_err(context("setting the clock"))
}

/// Lets everybody listen on any port: there is nobody else, and container runtimes do it too.
pub(crate) fn open_low_ports() {
    // Without it only the superuser may, as programs are told.
    let _ = fs::write("/proc/sys/net/ipv4/ip_unprivileged_port_start", "0");
}

/// The loopback device is up when the kernel has taken the message (rtnetlink(7)).
pub(crate) fn bring_loopback_up() -> io::Result<()> {
    const LENGTH: usize = 32;
    const RTM_NEWLINK: u16 = 16;
    const NLM_F_REQUEST_AND_ACK: u16 = 1 | 4;
    const NLMSG_ERROR: u16 = 2;
    const LOOPBACK_INDEX: u32 = 1;
    const IFF_UP: u32 = 1;
    // A header (length, type, flags, sequence, port) and `struct ifinfomsg` (family, type, index, flags, mask).
    let mut message = Vec::with_capacity(LENGTH);
    message.extend_from_slice(&(LENGTH as u32).to_ne_bytes());
    message.extend_from_slice(&RTM_NEWLINK.to_ne_bytes());
    message.extend_from_slice(&NLM_F_REQUEST_AND_ACK.to_ne_bytes());
    message.extend_from_slice(&[0; 12]);
    message.extend_from_slice(&LOOPBACK_INDEX.to_ne_bytes());
    message.extend_from_slice(&IFF_UP.to_ne_bytes());
    message.extend_from_slice(&IFF_UP.to_ne_bytes());
    let what = "bringing the loopback device up";
    let socket = socket(AddressFamily::NETLINK, SocketType::RAW, None).map_err(context(what))?;
    send(&socket, &message, SendFlags::empty()).map_err(context(what))?;
    let mut answer = [0; 256];
    let (count, _) = recv(&socket, &mut answer, RecvFlags::empty()).map_err(context(what))?;
    let is_answer = count >= 20 && u16::from_ne_bytes([answer[4], answer[5]]) == NLMSG_ERROR;
    let code = i32::from_ne_bytes([answer[16], answer[17], answer[18], answer[19]]);
    match (is_answer, code) {
        (true, 0) => Ok(()),
        (true, code) => Err(context(what)(Errno::from_raw_os_error(-code))),
        (false, _) => Err(io::Error::other("the kernel has not answered")),
    }
}
