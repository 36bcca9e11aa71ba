//! HTTP/1.1 with an instance, without a task of its own: whoever waits for the answer drives the connection.
//!
//! ```text
//!  open ──> idle ──exchange──> answering (FunctionBody) ──last byte──> idle, kept with the instance
//!                     │                 └─ broken, timed out, client gone: instance discarded
//!                     └─ closed before any byte of the request got through: the request comes back
//! ```

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use http::{Request, Response};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use spore_pool::Lease;
use spore_sandbox::{ConnectError, EndCause, EndReport, IngressStream, Instance, StopReason};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

use crate::request_body::{CallerBodyError, RequestBody};
use crate::statistics::Recording;
use crate::upgrade::{Asked, Tunnel};

/// Lease of an instance together with the connection that may be kept with it.
pub(crate) type FunctionLease = Lease<FunctionConnection>;

type Stream = TokioIo<Counted>;

/// How long a broken connection waits for the report why its instance has ended.
const END_REPORT_TIMEOUT: Duration = Duration::from_secs(1);

/// Why the instance has ended whose connection has just broken; none if it seems to live on. The connection is often
/// noticed first, and a stop at that moment would hide the cause from the function's log.
pub(crate) async fn end_report(lease: &mut FunctionLease) -> Option<EndReport> {
    let instance = lease.instance().clone();
    tokio::time::timeout(END_REPORT_TIMEOUT, instance.ended())
        .await
        .ok()
}

/// A connection with a function.
pub(crate) struct FunctionConnection {
    sender: http1::SendRequest<RequestBody>,
    driver: Box<http1::Connection<Stream, RequestBody>>,
    /// The driver has come to its end.
    is_over: bool,
    /// Bytes that were sent to the function.
    sent_bytes: Arc<AtomicU64>,
    /// How many that were before the last request.
    sent_before: u64,
}

/// How many bytes were sent to an instance before a request.
pub(crate) struct RequestStart(u64);

impl RequestStart {
    /// Whether an instance that ended like this has surely read nothing of the request.
    pub(crate) fn is_unread(&self, report: &EndReport) -> bool {
        report.read_bytes.is_some_and(|read| read <= self.0)
    }
}

/// Why no connection could be opened.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OpenError {
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error("the connection could not be set up")]
    Handshake(#[source] hyper::Error),
}

/// Why an exchange brought no response.
pub(crate) enum ExchangeError {
    /// Nothing of the request got through; here it is again.
    NotSent(Box<Request<RequestBody>>),
    /// The connection broke, or what came is not HTTP.
    Broken(hyper::Error),
    /// The deadline has passed.
    DeadlinePassed,
}

impl FunctionConnection {
    /// Opens a connection to the function's port.
    pub(crate) async fn open(instance: &Arc<dyn Instance>) -> Result<Self, OpenError> {
        let stream = instance.connect().await?;
        let sent_bytes = Arc::new(AtomicU64::new(0));
        let stream = Counted {
            stream,
            written: sent_bytes.clone(),
        };
        let (sender, driver) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(OpenError::Handshake)?;
        Ok(Self {
            sender,
            driver: Box::new(driver),
            is_over: false,
            sent_bytes,
            sent_before: 0,
        })
    }

    /// Closes the connection; where the last request began is left.
    pub(crate) fn close(self) -> RequestStart {
        RequestStart(self.sent_before)
    }

    /// Moves bytes in both directions as far as possible without waiting.
    fn drive(&mut self, context: &mut Context<'_>) {
        // An error reaches those who wait for the response or its body too, so it is told there.
        if !self.is_over {
            self.is_over = Pin::new(&mut *self.driver).poll(context).is_ready();
        }
    }

    /// Sends the request and waits for the head of the response.
    pub(crate) async fn exchange(
        &mut self,
        request: Request<RequestBody>,
        deadline: &mut Pin<Box<Sleep>>,
    ) -> Result<Response<Incoming>, ExchangeError> {
        self.sent_before = self.sent_bytes.load(Ordering::Relaxed);
        let mut response = std::pin::pin!(self.sender.try_send_request(request));
        let (driver, is_over) = (&mut self.driver, &mut self.is_over);
        std::future::poll_fn(|context| {
            if !*is_over {
                *is_over = Pin::new(&mut **driver).poll(context).is_ready();
            }
            if let Poll::Ready(result) = response.as_mut().poll(context) {
                return Poll::Ready(result.map_err(|mut error| match error.take_message() {
                    Some(request) => ExchangeError::NotSent(Box::new(request)),
                    None => ExchangeError::Broken(error.into_error()),
                }));
            }
            deadline
                .as_mut()
                .poll(context)
                .map(|()| Err(ExchangeError::DeadlinePassed))
        })
        .await
    }

    /// The stream below after the function has switched protocols, and what was read of it; none if that takes longer.
    async fn into_stream(mut self, deadline: &mut Pin<Box<Sleep>>) -> Option<(Counted, Bytes)> {
        tokio::select! {
            () = std::future::poll_fn(|context| {
                self.drive(context);
                if self.is_over { Poll::Ready(()) } else { Poll::Pending }
            }) => {}
            () = deadline => return None,
        }
        let parts = self.driver.into_parts();
        Some((parts.io.into_inner(), parts.read_buf))
    }

    /// The connection, if another request can be sent on it.
    fn reusable(mut self) -> Option<Self> {
        // The end of a message is noticed only when the connection is driven past it. Nobody is to be woken up by it:
        // whatever happens on an idle connection is noticed when it is used again.
        self.drive(&mut Context::from_waker(Waker::noop()));
        (!self.is_over && self.sender.is_ready()).then_some(self)
    }
}

/// A stream that counts what is written.
pub(crate) struct Counted {
    stream: Box<dyn IngressStream>,
    written: Arc<AtomicU64>,
}

impl Counted {
    fn count(&self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(bytes)) = &written {
            self.written.fetch_add(*bytes as u64, Ordering::Relaxed);
        }
        written
    }
}

impl AsyncRead for Counted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Counted {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.count(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, pieces);
        self.count(written)
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

/// Why a function's body broke off.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FunctionBodyError {
    #[error("the connection broke")]
    Broken(#[source] hyper::Error),
    #[error("the request's body broke off")]
    BadRequestBody(#[source] Box<CallerBodyError>),
    #[error("{0}")]
    Ended(EndCause),
    #[error("the function did not finish within {} ms", after.as_millis())]
    TimedOut { after: Duration },
    #[error("the function reported an error of type {kind} in the middle of its answer")]
    Failed { kind: String },
}

/// An invocation whose answer is on its way.
pub(crate) struct Running {
    pub(crate) lease: FunctionLease,
    connection: FunctionConnection,
    recording: Recording,
}

impl Running {
    pub(crate) fn new(lease: FunctionLease, connection: FunctionConnection, recording: Recording) -> Self {
        Self {
            lease,
            connection,
            recording,
        }
    }

    /// The rest of the invocation, whose answer was that the function switches protocols.
    pub(crate) async fn into_tunnel(
        self,
        asked: Asked,
        mut deadline: Pin<Box<Sleep>>,
        idle_timeout: Duration,
    ) -> Option<Tunnel> {
        let Self {
            mut lease,
            connection,
            recording,
        } = self;
        let Some(function) = connection.into_stream(&mut deadline).await else {
            lease.discard(StopReason::NotNeeded);
            return None;
        };
        recording.finish(lease.instance());
        Some(Tunnel {
            asked,
            function,
            lease,
            idle_timeout,
        })
    }
}

/// The body of a function's response. It owns the lease: at the last byte the instance goes back to the pool; a body that
/// breaks, runs past the deadline or is dropped before discards it.
pub(crate) struct FunctionBody {
    incoming: Incoming,
    running: Option<Running>,
    deadline: Pin<Box<Sleep>>,
    timeout: Duration,
    /// Whether only the end of the connection ends the body.
    until_close: bool,
    /// Waits for the word of an instance that has gone at the end of such a body.
    ending: Option<Ending>,
}

/// Whether an instance that has gone with its connection has said all that it had to say: its program ended by itself, and
/// well.
fn is_complete(report: Option<&EndReport>) -> bool {
    report.is_some_and(|report| report.cause == EndCause::Exited { code: 0 })
}

type Ending = Pin<Box<dyn Future<Output = Option<EndReport>> + Send>>;

impl FunctionBody {
    /// `timeout` is the span that `deadline` was made from.
    pub(crate) fn new(
        response: Response<Incoming>,
        running: Running,
        deadline: Pin<Box<Sleep>>,
        timeout: Duration,
    ) -> Response<Self> {
        let headers = response.headers();
        let until_close = !headers.contains_key(CONTENT_LENGTH) && !headers.contains_key(TRANSFER_ENCODING);
        response.map(|incoming| {
            let mut body = Self {
                incoming,
                running: Some(running),
                deadline,
                timeout,
                until_close,
                ending: None,
            };
            if body.incoming.is_end_stream() {
                body.finish();
            }
            body
        })
    }

    /// The answer is there in full.
    fn finish(&mut self) {
        if let Some(mut running) = self.running.take() {
            running.recording.finish(running.lease.instance());
            running.lease.finish(running.connection.reusable());
        }
    }

    /// The answer has ended, and the instance too: the pool will hear of it.
    fn give_back(&mut self) {
        if let Some(running) = self.running.take() {
            running.lease.finish(running.connection.reusable());
        }
    }

    /// Discards the instance.
    fn discard(&mut self, reason: StopReason) {
        if let Some(Running {
            lease, connection, ..
        }) = self.running.take()
        {
            drop(connection);
            lease.discard(reason);
        }
    }

    /// Discards the instance whose connection broke, once it had a moment to say why. The client is not kept waiting.
    fn discard_broken(&mut self) {
        if let Some(Running {
            mut lease,
            connection,
            ..
        }) = self.running.take()
        {
            drop(connection);
            tokio::spawn(async move {
                if let Some(report) = end_report(&mut lease).await {
                    tracing::debug!(cause = %report.cause, "an instance has ended in the middle of its answer");
                }
                lease.discard(StopReason::NotNeeded);
            });
        }
    }

    /// The end of the connection is the end of the body, unless the instance has ended with it.
    fn end_by_close(&mut self) -> Option<FunctionBodyError> {
        let instance = self.running.as_mut()?.lease.instance().clone();
        let mut ended = instance.ended();
        match ended.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(report) => Some(FunctionBodyError::Ended(report.cause)),
            Poll::Pending => None,
        }
    }

    /// The instance has gone with the connection.
    fn poll_ending(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, FunctionBodyError>>> {
        let Some(ending) = &mut self.ending else {
            return Poll::Ready(None);
        };
        let report = std::task::ready!(ending.as_mut().poll(context));
        self.ending = None;
        if is_complete(report.as_ref()) {
            return Poll::Ready(None);
        }
        let cause = report.map_or(EndCause::Stopped, |report| report.cause);
        Poll::Ready(Some(Err(FunctionBodyError::Ended(cause))))
    }

    pub(crate) fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    pub(crate) fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }

    pub(crate) fn poll_frame(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, FunctionBodyError>>> {
        if self.ending.is_some() {
            return self.poll_ending(context);
        }
        let mut frame = Pin::new(&mut self.incoming).poll_frame(context);
        if frame.is_pending() {
            if let Some(running) = &mut self.running {
                running.connection.drive(context);
            }
            frame = Pin::new(&mut self.incoming).poll_frame(context);
        }
        match frame {
            Poll::Ready(Some(Ok(frame))) => {
                if self.incoming.is_end_stream() {
                    self.finish();
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(None) => {
                let broken = if self.until_close {
                    self.end_by_close()
                } else {
                    None
                };
                match broken {
                    Some(_) => self.give_back(),
                    None => self.finish(),
                }
                Poll::Ready(broken.map(Err))
            }
            Poll::Ready(Some(Err(_))) if self.until_close && self.running.is_some() => {
                self.ending = self.running.take().map(|running| -> Ending {
                    let Running {
                        mut lease,
                        connection,
                        recording,
                    } = running;
                    drop(connection);
                    Box::pin(async move {
                        let report = end_report(&mut lease).await;
                        if is_complete(report.as_ref()) {
                            recording.finish(lease.instance());
                        }
                        lease.discard(StopReason::NotNeeded);
                        report
                    })
                });
                self.poll_ending(context)
            }
            Poll::Ready(Some(Err(error))) => {
                self.discard_broken();
                Poll::Ready(Some(Err(FunctionBodyError::Broken(error))))
            }
            Poll::Pending => self.deadline.as_mut().poll(context).map(|()| {
                self.discard(StopReason::TimedOut { after: self.timeout });
                Some(Err(FunctionBodyError::TimedOut { after: self.timeout }))
            }),
        }
    }
}
