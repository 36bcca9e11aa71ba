//! One run of a command, driven by whoever waits for its output.
//!
//! ```text
//!   request's body ──> standard input          standard output ──> pieces
//!        └── the command may end, or close it, before all of it was read
//!   end of the output ──> the command's end ──> instance back to the pool
//! ```

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body::Frame;
use http_body_util::BodyExt as _;
use spore_sandbox::{EndCause, EndReport, IngressStream, StopReason};
use tokio::io::{AsyncRead, AsyncWriteExt as _, ReadBuf, ReadHalf, WriteHalf};
use tokio::time::Sleep;

use crate::connection::{FunctionBodyError, FunctionLease};
use crate::request_body::{CallerBodyError, Replay, RequestBody};
use crate::statistics::Recording;

/// Most of the output that is read at once, in bytes.
const PIECE_BYTES_MAX: usize = 64 << 10;

type Stream = Box<dyn IngressStream>;
type Input = Pin<Box<dyn Future<Output = Result<(), CallerBodyError>> + Send>>;
type Finished = Pin<Box<dyn Future<Output = EndReport> + Send>>;

/// What comes next of a command.
pub(crate) enum Output {
    Piece(Bytes),
    /// The command has ended, or its instance.
    Finished(EndReport),
    TimedOut,
    /// The caller's body broke off.
    BadRequestBody(CallerBodyError),
}

/// A command that runs. Dropped before its end, its instance is discarded.
pub(crate) struct Execution {
    /// None when it is over.
    running: Option<(FunctionLease, Recording)>,
    output: Option<ReadHalf<Stream>>,
    buffer: BytesMut,
    input: Option<Input>,
    replay: Option<Replay>,
    finished: Finished,
    deadline: Pin<Box<Sleep>>,
    timeout: Duration,
}

impl Execution {
    /// `timeout` is the span that `deadline` was made from.
    pub(crate) fn new(
        mut lease: FunctionLease,
        recording: Recording,
        stream: Stream,
        (body, replay): (RequestBody, Replay),
        deadline: Pin<Box<Sleep>>,
        timeout: Duration,
    ) -> Self {
        let instance = lease.instance().clone();
        let (output, input) = tokio::io::split(stream);
        Self {
            running: Some((lease, recording)),
            output: Some(output),
            buffer: BytesMut::new(),
            input: Some(Box::pin(pass_on(body, input))),
            replay: Some(replay),
            finished: Box::pin(async move { instance.finished().await }),
            deadline,
            timeout,
        }
    }

    pub(crate) async fn next(&mut self) -> Output {
        std::future::poll_fn(|context| self.poll(context)).await
    }

    /// Moves everything as far as it goes without waiting.
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Output> {
        if let Some(input) = &mut self.input
            && let Poll::Ready(passed) = input.as_mut().poll(context)
        {
            self.input = None;
            if let Err(source) = passed {
                self.discard(StopReason::CallerGone);
                return Poll::Ready(Output::BadRequestBody(source));
            }
        }
        match self.poll_output(context) {
            Poll::Ready(output) => Poll::Ready(output),
            Poll::Pending => self.deadline.as_mut().poll(context).map(|()| {
                self.discard(StopReason::TimedOut { after: self.timeout });
                Output::TimedOut
            }),
        }
    }

    fn poll_output(&mut self, context: &mut Context<'_>) -> Poll<Output> {
        if let Some(output) = &mut self.output {
            self.buffer.reserve(PIECE_BYTES_MAX);
            let piece = ready!(read(output, &mut self.buffer, context));
            if let Some(piece) = piece {
                return Poll::Ready(Output::Piece(piece));
            }
            self.output = None;
        }
        let report = ready!(self.finished.as_mut().poll(context));
        self.finish(&report);
        Poll::Ready(Output::Finished(report))
    }

    /// The command has ended, and all that it wrote is read.
    fn finish(&mut self, report: &EndReport) {
        let Some((mut lease, recording)) = self.running.take() else {
            return;
        };
        match report.cause {
            EndCause::Exited { code: 0 } => {
                recording.finish(lease.instance());
                lease.finish(None);
            }
            EndCause::Exited { .. } | EndCause::Crashed { .. } | EndCause::OutOfMemory { .. } => {
                lease.finish(None);
            }
            EndCause::Stopped | EndCause::TimedOut { .. } | EndCause::SandboxFailed { .. } => {
                lease.discard(StopReason::NotNeeded);
            }
        }
        self.read_rest();
    }

    /// A caller that is still sending its body gets to see the answer: what the command did not read goes nowhere.
    fn read_rest(&mut self) {
        if self.input.take().is_none() {
            return;
        }
        let Some(replay) = self.replay.take() else { return };
        let mut rest = replay.into_rest();
        let reading = async move { while let Some(Ok(_)) = rest.frame().await {} };
        tokio::spawn(tokio::time::timeout(self.timeout, reading));
    }

    /// The answer has begun: whatever has not come of the body may take its time.
    pub(crate) fn may_stall(&self) {
        if let Some(replay) = &self.replay {
            replay.may_stall();
        }
    }

    /// The means to send the body once more, before the end is noticed.
    pub(crate) fn take_replay(&mut self) -> Option<Replay> {
        self.input = None;
        self.replay.take()
    }

    fn discard(&mut self, reason: StopReason) {
        self.output = None;
        self.input = None;
        if let Some((lease, _)) = self.running.take() {
            lease.discard(reason);
        }
    }
}

/// Passes a body on until its end, or until the command reads no more.
async fn pass_on(mut body: RequestBody, mut input: WriteHalf<Stream>) -> Result<(), CallerBodyError> {
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame?.into_data() else { continue };
        if input.write_all(&data).await.is_err() {
            // It need not read all of it. Whoever sends it is to get its answer.
            while let Some(frame) = body.frame().await {
                frame?;
            }
            return Ok(());
        }
    }
    // Fails only if nobody reads any more.
    let _ = input.shutdown().await;
    Ok(())
}

/// The next piece of the output; none at its end, however that came: how the command ended is told elsewhere.
fn read(
    output: &mut ReadHalf<Stream>,
    buffer: &mut BytesMut,
    context: &mut Context<'_>,
) -> Poll<Option<Bytes>> {
    let mut read = ReadBuf::uninit(buffer.spare_capacity_mut());
    let result = ready!(Pin::new(output).poll_read(context, &mut read));
    let count = read.filled().len();
    if result.is_err() || count == 0 {
        return Poll::Ready(None);
    }
    let piece = Bytes::copy_from_slice(read.filled());
    Poll::Ready(Some(piece))
}

/// The body of an answer that goes out while the command runs.
pub(crate) struct CommandBody {
    held: std::vec::IntoIter<Bytes>,
    execution: Execution,
    /// Told of the end.
    report: Option<Box<dyn FnOnce(u64) + Send>>,
    sent_bytes: u64,
}

impl CommandBody {
    /// `held` is what has been read; `report` is told how many bytes there were in all when the command has ended.
    pub(crate) fn new(held: Vec<Bytes>, execution: Execution, report: Box<dyn FnOnce(u64) + Send>) -> Self {
        Self {
            held: held.into_iter(),
            execution,
            report: Some(report),
            sent_bytes: 0,
        }
    }

    pub(crate) fn poll_frame(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, FunctionBodyError>>> {
        let piece = match self.held.next() {
            Some(piece) => Output::Piece(piece),
            None => ready!(self.execution.poll(context)),
        };
        Poll::Ready(match piece {
            Output::Piece(piece) => {
                self.sent_bytes += piece.len() as u64;
                Some(Ok(Frame::data(piece)))
            }
            Output::Finished(report) => {
                if let Some(told) = self.report.take() {
                    told(self.sent_bytes);
                }
                match report.cause {
                    EndCause::Exited { code: 0 } => None,
                    cause => Some(Err(FunctionBodyError::Ended(cause))),
                }
            }
            Output::TimedOut => {
                let after = self.execution.timeout;
                Some(Err(FunctionBodyError::TimedOut { after }))
            }
            Output::BadRequestBody(source) => Some(Err(FunctionBodyError::BadRequestBody(Box::new(source)))),
        })
    }
}
