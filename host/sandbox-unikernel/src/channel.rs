//! A packet socket to a monitor process.

use std::cell::RefCell;
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::{Errno, retry_on_intr};
use rustix::net::{RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, recv, sendmsg};
use spore_monitor::protocol::{ATTACHMENTS_MAX, PACKET_BYTES_MAX, Request};
use tokio::io::Interest;
use tokio::net::UnixDatagram;

/// Whether an error in sending says that the monitor has closed its end; it may have sent its report before.
pub(crate) fn is_gone(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset
    )
}

thread_local! {
    /// What is received goes in here first. Of thousands of channels few have a packet at a time.
    static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Our end of a packet socket. The type is tokio's for datagrams, which has the same calls; only this kind of socket
/// also tells of the end of the other side.
pub(crate) struct Channel(UnixDatagram);

impl Channel {
    /// Watches a socket.
    pub(crate) fn new(socket: OwnedFd) -> io::Result<Self> {
        let socket = std::os::unix::net::UnixDatagram::from(socket);
        socket.set_nonblocking(true)?;
        UnixDatagram::from_std(socket).map(Self)
    }

    /// Sends a request with a descriptor.
    pub(crate) async fn send(&self, request: &Request, attachment: Option<OwnedFd>) -> io::Result<()> {
        let packet = postcard::to_stdvec(request).map_err(io::Error::other)?;
        let attachments: Vec<_> = attachment.iter().map(AsFd::as_fd).collect();
        self.send_packet(&packet, &attachments).await
    }

    /// Sends an encoded request with descriptors.
    pub(crate) async fn send_packet(&self, packet: &[u8], attachments: &[BorrowedFd<'_>]) -> io::Result<()> {
        self.0
            .async_io(Interest::WRITABLE, || {
                let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
                Ok(send_now(&self.0, packet, attachments, flags)?)
            })
            .await
    }

    /// Waits until there is a packet, or the end, to receive.
    pub(crate) async fn readable(&self) -> io::Result<()> {
        self.0.readable().await
    }

    /// Receives a packet and lets `take` have it: an empty one when the monitor has closed its end.
    pub(crate) async fn receive<T>(&self, take: impl Fn(&[u8]) -> T) -> io::Result<T> {
        self.0
            .async_io(Interest::READABLE, || self.receive_now(&take))
            .await
    }

    /// Receives a packet if one is there; if not, [`Channel::readable`] waits for the next one.
    pub(crate) fn receive_if_any<T>(&self, take: impl Fn(&[u8]) -> T) -> io::Result<Option<T>> {
        match self.0.try_io(Interest::READABLE, || self.receive_now(&take)) {
            Ok(taken) => Ok(Some(taken)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Receives a packet if one is there already.
    pub(crate) fn try_receive<T>(&self, take: impl Fn(&[u8]) -> T) -> Option<T> {
        self.receive_now(take).ok()
    }

    fn receive_now<T>(&self, take: impl Fn(&[u8]) -> T) -> io::Result<T> {
        BUFFER.with_borrow_mut(|buffer| {
            buffer.resize(PACKET_BYTES_MAX, 0);
            loop {
                match recv(&self.0, &mut buffer[..], RecvFlags::DONTWAIT) {
                    Ok((length, _)) => return Ok(take(&buffer[..length])),
                    // The monitor has closed its end before it read all that we have sent. The kernel says so once, and
                    // first: what the monitor had sent before is still to come, then the end.
                    Err(Errno::INTR | Errno::CONNRESET) => {}
                    Err(error) => return Err(error.into()),
                }
            }
        })
    }
}

/// Sends a packet with descriptors, at most [`ATTACHMENTS_MAX`] of them.
pub(crate) fn send_now(
    socket: impl AsFd,
    packet: &[u8],
    attachments: &[BorrowedFd<'_>],
    flags: SendFlags,
) -> Result<(), Errno> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(ATTACHMENTS_MAX))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !attachments.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(attachments)) {
        return Err(Errno::INVAL);
    }
    retry_on_intr(|| sendmsg(&socket, &[IoSlice::new(packet)], &mut ancillary, flags))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    use rustix::net::{AddressFamily, SocketFlags, SocketType, send, socketpair};

    #[tokio::test]
    async fn what_was_sent_before_a_reset_is_received() {
        let kind = SocketType::SEQPACKET;
        let (ours, theirs) = socketpair(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None).unwrap();
        let channel = Channel::new(ours).unwrap();
        channel.send(&Request::Open, None).await.unwrap();
        send(&theirs, b"the end", SendFlags::NOSIGNAL).unwrap();
        // With our request unread in it, this resets the connection.
        drop(theirs);
        assert_eq!(channel.receive(<[u8]>::to_vec).await.unwrap(), b"the end");
        assert!(channel.receive(<[u8]>::is_empty).await.unwrap());
        let error = channel.send(&Request::Open, None).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
    }

    #[tokio::test]
    async fn sending_tells_of_a_reset_once() {
        let kind = SocketType::SEQPACKET;
        let (ours, theirs) = socketpair(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None).unwrap();
        let channel = Channel::new(ours).unwrap();
        channel.send(&Request::Open, None).await.unwrap();
        send(&theirs, b"the end", SendFlags::NOSIGNAL).unwrap();
        drop(theirs);
        let error = channel.send(&Request::Open, None).await.unwrap_err();
        assert!(is_gone(&error), "{error}");
        assert_eq!(channel.try_receive(<[u8]>::len), Some(7));
    }
}
