//! Starts a monitor process.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use rustix::net::sockopt::set_socket_send_buffer_size;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use spore_monitor::protocol::{PACKET_BYTES_MAX, Request, StartRequest};
use spore_sandbox::StartError;

/// The program that is started as the monitor: this very one.
const OWN_EXECUTABLE: &str = "/proc/self/exe";
/// The hidden subcommand that runs [`spore_monitor::main`].
const MONITOR_SUBCOMMAND: &str = "monitor";

/// Our ends of a monitor's sockets, and the command that starts it.
pub(crate) struct Launch {
    pub(crate) command: Command,
    pub(crate) control: OwnedFd,
    pub(crate) log: OwnedFd,
}

pub(crate) fn host_error(what: &'static str) -> impl Fn(io::Error) -> StartError {
    move |source| StartError::Host { what, source }
}

/// Two connected packet sockets: the first for this process, the second for the monitor.
pub(crate) fn packet_sockets() -> Result<(OwnedFd, OwnedFd), StartError> {
    let flags = SocketFlags::CLOEXEC;
    let pair = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None);
    pair.map_err(|error| host_error("making sockets")(error.into()))
}

/// Prepares a monitor process whose title is `title`.
pub(crate) fn prepare(title: String) -> Result<Launch, StartError> {
    let (control, monitor_control) = packet_sockets()?;
    set_socket_send_buffer_size(&control, PACKET_BYTES_MAX)
        .map_err(|error| host_error("making room in a socket")(error.into()))?;
    let (log, monitor_log) = packet_sockets()?;
    let mut command = Command::new(OWN_EXECUTABLE);
    command
        .arg0(title)
        .arg(MONITOR_SUBCOMMAND)
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::from(monitor_control))
        .stdout(Stdio::from(monitor_log))
        .stderr(Stdio::inherit())
        // An interrupt typed at the terminal is for the process that started the monitor.
        .process_group(0);
    Ok(Launch {
        command,
        control,
        log,
    })
}

/// The encoded request that starts an instance.
pub(crate) fn encode(request: StartRequest) -> Result<Vec<u8>, StartError> {
    let packet = postcard::to_stdvec(&Request::Start(request))
        .map_err(|error| host_error("encoding the request")(io::Error::other(error)))?;
    if packet.len() > PACKET_BYTES_MAX {
        return Err(too_large(packet.len()));
    }
    Ok(packet)
}

/// What is said of a request that does not fit.
pub(crate) fn too_large(bytes: usize) -> StartError {
    let reason =
        format!("its arguments and environment take {bytes} bytes, which is too much: make them shorter");
    StartError::BadProgram { reason }
}
