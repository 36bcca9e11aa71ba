//! A packet socket to a monitor process.

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};

use rustix::net::{RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, recv, sendmsg};
use spore_monitor::protocol::Request;
use tokio::io::Interest;
use tokio::net::UnixDatagram;

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
        self.0
            .async_io(Interest::WRITABLE, || {
                let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
                let mut ancillary = SendAncillaryBuffer::new(&mut space);
                let descriptors = attachment.as_ref().map(|attachment| [attachment.as_fd()]);
                if let Some(descriptors) = &descriptors {
                    ancillary.push(SendAncillaryMessage::ScmRights(descriptors));
                }
                let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
                sendmsg(&self.0, &[IoSlice::new(&packet)], &mut ancillary, flags)?;
                Ok(())
            })
            .await
    }

    /// Receives a packet; its length, 0 when the monitor has closed its end.
    pub(crate) async fn receive(&self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0
            .async_io(Interest::READABLE, || {
                let (length, _) = recv(&self.0, &mut *buffer, RecvFlags::DONTWAIT)?;
                Ok(length)
            })
            .await
    }

    /// Receives a packet if one is there already.
    pub(crate) fn try_receive(&self, buffer: &mut [u8]) -> Option<usize> {
        recv(&self.0, buffer, RecvFlags::DONTWAIT)
            .ok()
            .map(|(length, _)| length)
    }
}
