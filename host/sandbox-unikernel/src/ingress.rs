//! A stream to a function, which tells how it ends.
//!
//! A monitor shuts the socket of a stream that the program has closed, and keeps it until this end is closed. So where
//! the far end is gone as well, the instance has ended, and what was read last may be half of something.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::UnixStream;

/// This end of a stream.
pub(crate) struct Ingress(pub(crate) UnixStream);

impl Ingress {
    fn is_far_end_gone(&self) -> bool {
        let mut list = [PollFd::new(&self.0, PollFlags::empty())];
        poll(&mut list, Some(&Timespec::default())).is_ok() && list[0].revents().contains(PollFlags::HUP)
    }
}

impl AsyncRead for Ingress {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.remaining();
        ready!(Pin::new(&mut self.0).poll_read(context, buffer))?;
        if before > 0 && buffer.remaining() == before && self.is_far_end_gone() {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Ingress {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write_vectored(context, pieces)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    #[tokio::test]
    async fn an_end_that_is_meant_is_told_from_one_that_is_not() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let mut ours = Ingress(ours);
        theirs.write_all(b"all").await.unwrap();
        theirs.shutdown().await.unwrap();
        let mut text = String::new();
        ours.read_to_string(&mut text).await.unwrap();
        assert_eq!(text, "all");

        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let mut ours = Ingress(ours);
        theirs.write_all(b"half").await.unwrap();
        drop(theirs);
        let mut bytes = Vec::new();
        let error = ours.read_to_end(&mut bytes).await.unwrap_err();
        assert_eq!(
            (bytes.as_slice(), error.kind()),
            (&b"half"[..], io::ErrorKind::ConnectionReset)
        );
    }
}
