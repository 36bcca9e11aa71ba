//! Frames on a port of the virtual serial device, or on a connection by vsock where the monitor has no such device.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::AsFd as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::sleep;
use std::time::Duration;

use spore_abi::microvm::{
    CONTENT_BYTES_MAX, HEADER_BYTES, Header, Kind, VSOCK_HOST, VSOCK_OPTION, VSOCK_PORT,
};
use vsock::VsockStream;

/// Name of the port, as the daemon gives it.
const PORT_NAME: &str = "spore";
/// Where the kernel lists ports.
const PORTS: &str = "/sys/class/virtio-ports";
/// What the kernel was told.
const COMMAND_LINE: &str = "/proc/cmdline";
/// How often it is looked for the port or the host, which the kernel finds on its own time.
const LOOKS: u32 = 2000;
const LOOK_PAUSE: Duration = Duration::from_millis(1);

/// Where frames to the daemon go; any thread may send.
pub(crate) struct Channel(Mutex<File>);

/// Where frames of the daemon come from.
pub(crate) struct Reader {
    file: io::BufReader<File>,
    /// Whether what reads as ended is.
    ends: bool,
}

/// Opens the port, or connects to the host.
pub(crate) fn open() -> io::Result<(Arc<Channel>, Reader)> {
    let is_vsock = names_vsock(&fs::read_to_string(COMMAND_LINE)?);
    let file = match is_vsock {
        true => connect()?,
        false => OpenOptions::new().read(true).write(true).open(find()?)?,
    };
    let reader = Reader {
        file: io::BufReader::with_capacity(CONTENT_BYTES_MAX + HEADER_BYTES, file.try_clone()?),
        ends: is_vsock,
    };
    Ok((Arc::new(Channel(Mutex::new(file))), reader))
}

fn names_vsock(command_line: &str) -> bool {
    command_line
        .split_whitespace()
        .any(|option| option == VSOCK_OPTION)
}

fn connect() -> io::Result<File> {
    let mut last = None;
    for _ in 0..LOOKS {
        match VsockStream::connect_with_cid_port(VSOCK_HOST, VSOCK_PORT) {
            // The same connection, as what it is read and written as here.
            Ok(stream) => return Ok(File::from(stream.as_fd().try_clone_to_owned()?)),
            Err(error) => last = Some(error),
        }
        sleep(LOOK_PAUSE);
    }
    let error = last.unwrap_or_else(|| io::ErrorKind::NotConnected.into());
    let text = format!("no connection to the daemon by vsock: {error}");
    Err(io::Error::new(error.kind(), text))
}

fn find() -> io::Result<String> {
    for _ in 0..LOOKS {
        for entry in fs::read_dir(PORTS).into_iter().flatten().flatten() {
            let name = fs::read_to_string(entry.path().join("name")).unwrap_or_default();
            if name.trim() == PORT_NAME {
                return Ok(format!("/dev/{}", entry.file_name().to_string_lossy()));
            }
        }
        sleep(LOOK_PAUSE);
    }
    Err(io::Error::new(
        io::ErrorKind::NotFound,
        "no channel to the daemon",
    ))
}

impl Channel {
    /// Sends a frame, of at most [`CONTENT_BYTES_MAX`] bytes, once those of others have left.
    pub(crate) fn send(&self, kind: Kind, stream: u16, content: &[u8]) -> io::Result<()> {
        let content = &content[..content.len().min(CONTENT_BYTES_MAX)];
        let header = Header {
            kind,
            stream,
            length: content.len() as u32,
        };
        let mut frame = Vec::with_capacity(HEADER_BYTES + content.len());
        frame.extend_from_slice(&header.to_bytes());
        frame.extend_from_slice(content);
        let mut file = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        file.write_all(&frame)
    }
}

impl Reader {
    /// The next frame.
    pub(crate) fn read(&mut self) -> io::Result<(Header, Vec<u8>)> {
        let mut header = [0; HEADER_BYTES];
        self.fill(&mut header)?;
        let bad = || io::Error::new(io::ErrorKind::InvalidData, "no frame of the daemon");
        let header = Header::from_bytes(header).ok_or_else(bad)?;
        let mut content = vec![0; header.length as usize];
        self.fill(&mut content)?;
        Ok((header, content))
    }

    /// A port whose far end is not there reads as ended: it may come yet. A connection that has ended does not.
    fn fill(&mut self, mut bytes: &mut [u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            match self.file.read(bytes) {
                Ok(0) if self.ends => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(0) => sleep(LOOK_PAUSE),
                Ok(count) => bytes = &mut bytes[count..],
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_channel_is_what_the_kernel_was_told() {
        assert!(names_vsock("console=ttyS0 spore.channel=vsock quiet\n"));
        for line in ["", "quiet\n", "spore.channel=vsocks", "xspore.channel=vsock"] {
            assert!(!names_vsock(line), "{line}");
        }
    }
}
