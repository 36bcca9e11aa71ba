//! Frames on a port of the virtual serial device, or on a connection by vsock where the monitor has no such device.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::AsFd as _;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::sleep;
use std::time::Duration;

use rustix::net::{Shutdown, shutdown};
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

/// How long nobody is called after the connection was ended, so that a machine is saved which calls nobody.
const AWAY: Duration = Duration::from_millis(20);

/// Where frames to the daemon go; any thread may send.
pub(crate) struct Channel {
    /// None while there is no connection.
    file: Mutex<Option<File>>,
    is_back: Condvar,
}

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
        file: buffered(&file)?,
        ends: is_vsock,
    };
    let channel = Channel {
        file: Mutex::new(Some(file)),
        is_back: Condvar::new(),
    };
    Ok((Arc::new(channel), reader))
}

fn buffered(file: &File) -> io::Result<io::BufReader<File>> {
    let file = file.try_clone()?;
    Ok(io::BufReader::with_capacity(
        CONTENT_BYTES_MAX + HEADER_BYTES,
        file,
    ))
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
        let file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.is_back.wait_while(file, |file| file.is_none());
        let mut file = waited.unwrap_or_else(PoisonError::into_inner);
        file.as_mut().map_or(Ok(()), |file| file.write_all(&frame))
    }

    /// Says that init is there and waits, for the first time on a new connection where the channel is one by vsock: the old one ends, however
    /// long it takes to make another. Frames of other threads wait for [`Channel::resume`].
    pub(crate) fn leave(&self, reader: &mut Reader) -> io::Result<Away> {
        let old = self.file.lock().unwrap_or_else(PoisonError::into_inner).take();
        let mut file = match old {
            Some(port) if !reader.ends => port,
            old => reconnect(old, reader)?,
        };
        let here = Header {
            kind: Kind::Here,
            stream: 0,
            length: 0,
        };
        file.write_all(&here.to_bytes())?;
        Ok(Away(file))
    }

    /// Lets other threads send again.
    pub(crate) fn resume(&self, Away(file): Away) {
        *self.file.lock().unwrap_or_else(PoisonError::into_inner) = Some(file);
        self.is_back.notify_all();
    }
}

/// Where frames will go again.
pub(crate) struct Away(File);

/// Ends the connection by vsock, and makes another one.
fn reconnect(old: Option<File>, reader: &mut Reader) -> io::Result<File> {
    if let Some(old) = old {
        shutdown(&old, Shutdown::Both)?;
    }
    sleep(AWAY);
    let file = loop {
        match connect() {
            Ok(file) => break file,
            Err(_) => sleep(LOOK_PAUSE),
        }
    };
    reader.file = buffered(&file)?;
    Ok(file)
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
