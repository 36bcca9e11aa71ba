//! A stream to a function in a container, which tells how it ends.
//!
//! The kernel closes the sockets of a process that ends before anybody can hear that it has ended. So the end of a stream
//! is passed on only when it is known whose it is: the program's, or the instance's.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use spore_cgroups::Group;
use spore_sandbox::EndReport;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::watch;

use crate::of_process;
use crate::runtime::Family;

/// How long the report of an instance is waited for whose process is ending.
const REPORT_PATIENCE: Duration = Duration::from_secs(5);
/// The same where the process cannot be looked at, for it is one of another kernel's.
const DOUBT_PATIENCE: Duration = Duration::from_millis(300);
/// The flag `PF_EXITING` of a process (linux/sched.h).
const EXITING: u64 = 4;

/// Whether a process is about to end, or has ended.
pub(crate) fn is_ending(process: i32) -> bool {
    let Ok(text) = std::fs::read_to_string(of_process(process, "stat")) else {
        return true;
    };
    // The name, in parentheses, may hold anything; then come state and, as the seventh, the flags (proc_pid_stat(5)).
    let fields = text.rsplit_once(')').map_or("", |(_, fields)| fields);
    let mut fields = fields.split_whitespace();
    let state = fields.next().unwrap_or("X");
    let flags = fields.nth(5).and_then(|flags| flags.parse::<u64>().ok());
    matches!(state, "Z" | "X") || flags.is_none_or(|flags| flags & EXITING != 0)
}

/// The same of a runtime that stays with its container: it needs its children.
fn is_losing_children(process: i32) -> bool {
    /// The kernel in user space, and the server of its files.
    const CHILDREN: usize = 2;
    let list = of_process(process, "task")
        .join(process.to_string())
        .join("children");
    let children = std::fs::read_to_string(list).unwrap_or_default();
    let children = children.split_whitespace().filter_map(|child| child.parse().ok());
    children.filter(|child| !is_ending(*child)).count() < CHILDREN
}

type Question = Pin<Box<dyn Future<Output = bool> + Send>>;

/// This end of a stream.
pub(crate) struct Stream {
    stream: TcpStream,
    process: i32,
    family: Family,
    group: Group,
    end: watch::Receiver<Option<EndReport>>,
    /// Whether the instance has ended, once the stream has.
    question: Option<Question>,
}

impl Stream {
    pub(crate) fn new(
        stream: TcpStream,
        process: i32,
        family: Family,
        group: Group,
        end: watch::Receiver<Option<EndReport>>,
    ) -> Self {
        Self {
            stream,
            process,
            family,
            group,
            end,
            question: None,
        }
    }

    fn ask(&self) -> Option<Question> {
        let is_ending = match self.family {
            Family::Runsc => {
                is_ending(self.process) || is_losing_children(self.process) || self.group.was_out_of_memory()
            }
            Family::Runc | Family::Crun => is_ending(self.process),
        };
        let patience = match (is_ending, self.family) {
            (true, _) => REPORT_PATIENCE,
            (false, Family::Runsc) => DOUBT_PATIENCE,
            (false, Family::Runc | Family::Crun) => return None,
        };
        let mut end = self.end.clone();
        Some(Box::pin(async move {
            let report = tokio::time::timeout(patience, end.wait_for(Option::is_some));
            report.await.is_ok()
        }))
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.remaining();
        if self.question.is_none() {
            ready!(Pin::new(&mut self.stream).poll_read(context, buffer))?;
            if before == 0 || buffer.remaining() < before {
                return Poll::Ready(Ok(()));
            }
            self.question = self.ask();
        }
        let Some(question) = &mut self.question else {
            return Poll::Ready(Ok(()));
        };
        let has_ended = ready!(question.as_mut().poll(context));
        self.question = Some(Box::pin(std::future::ready(has_ended)));
        match has_ended {
            true => Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
            false => Poll::Ready(Ok(())),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, pieces)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
