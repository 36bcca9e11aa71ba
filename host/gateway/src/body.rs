//! Bodies of the gateway's answers.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::sync::mpsc;

use crate::connection::{FunctionBody, FunctionBodyError};
use crate::exec::CommandBody;
use crate::spans::OpenSpan;
use crate::upgrade::Tunnel;

/// Why a body broke off; the client sees its connection break.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BodyError {
    #[error("the function's answer broke off")]
    Function(#[from] FunctionBodyError),
    #[error("the content could not be read")]
    Io(#[from] io::Error),
}

/// Any body that the gateway sends.
pub(crate) enum GatewayBody {
    /// Known in full; none when sent or empty.
    Full(Option<Bytes>),
    /// A function's answer on its way through.
    Function(Box<FunctionBody>),
    /// The same, with what was read of it first.
    Streamed(StreamedBody),
    /// What a command writes, on its way through.
    Command(Box<CommandBody>),
    /// Nothing; what comes after the head of the answer.
    Upgraded(Option<Box<Tunnel>>),
    /// Any other one, with the span that ends with it.
    Traced(
        Box<GatewayBody>,
        #[expect(dead_code, reason = "it ends when it is dropped")] OpenSpan,
    ),
    /// Pieces that another task makes.
    Pieces(mpsc::Receiver<io::Result<Bytes>>),
    /// One that has broken off, until that is told.
    Broken(Option<BodyError>),
}

impl GatewayBody {
    pub(crate) fn empty() -> Self {
        Self::Full(None)
    }

    /// What is left to do after the head of the answer, once.
    pub(crate) fn take_tunnel(&mut self) -> Option<Box<Tunnel>> {
        match self {
            Self::Upgraded(tunnel) => tunnel.take(),
            Self::Traced(body, _) => body.take_tunnel(),
            _ => None,
        }
    }

    /// The same, with a span that ends with it.
    pub(crate) fn traced(self, span: Option<OpenSpan>) -> Self {
        match span {
            Some(span) => Self::Traced(Box::new(self), span),
            None => self,
        }
    }

    pub(crate) fn full(bytes: impl Into<Bytes>) -> Self {
        Self::Full(Some(bytes.into()).filter(|bytes| !bytes.is_empty()))
    }
}

impl Body for GatewayBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let polled = match &mut *self {
            // It says so itself.
            Self::Traced(body, _) => return Pin::new(&mut **body).poll_frame(context),
            Self::Broken(error) => return Poll::Ready(error.take().map(Err)),
            Self::Upgraded(_) => Poll::Ready(None),
            Self::Full(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Function(body) => body
                .poll_frame(context)
                .map(|frame| frame.map(|frame| frame.map_err(Into::into))),
            Self::Streamed(body) => body
                .poll_frame(context)
                .map(|frame| frame.map(|frame| frame.map_err(Into::into))),
            Self::Command(body) => body
                .poll_frame(context)
                .map(|frame| frame.map(|frame| frame.map_err(Into::into))),
            Self::Pieces(pieces) => pieces
                .poll_recv(context)
                .map(|piece| piece.map(|piece| piece.map(Frame::data).map_err(Into::into))),
        };
        match polled {
            // An error ends the connection with whatever was not written yet: the head of the answer and what came of the
            // body. These go first, which is what a body that waits is for.
            Poll::Ready(Some(Err(error))) => {
                *self = Self::Broken(Some(error));
                context.waker().wake_by_ref();
                Poll::Pending
            }
            polled => polled,
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Traced(body, _) => body.is_end_stream(),
            Self::Upgraded(_) => true,
            Self::Full(bytes) => bytes.is_none(),
            Self::Function(body) => body.is_end_stream(),
            Self::Streamed(_) | Self::Command(_) | Self::Pieces(_) | Self::Broken(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Traced(body, _) => body.size_hint(),
            Self::Upgraded(_) => SizeHint::with_exact(0),
            Self::Full(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)),
            Self::Function(body) => body.size_hint(),
            Self::Streamed(_) | Self::Command(_) | Self::Pieces(_) | Self::Broken(_) => SizeHint::default(),
        }
    }
}

/// The rest of a function's answer, and what was read of it before. An error that the function reports behind it breaks it
/// off.
pub(crate) struct StreamedBody {
    first: Bytes,
    rest: Box<FunctionBody>,
}

impl StreamedBody {
    pub(crate) fn new(first: Bytes, rest: FunctionBody) -> Self {
        let rest = Box::new(rest);
        Self { first, rest }
    }

    fn poll_frame(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, FunctionBodyError>>> {
        if !self.first.is_empty() {
            return Poll::Ready(Some(Ok(Frame::data(std::mem::take(&mut self.first)))));
        }
        let frame = std::task::ready!(self.rest.poll_frame(context));
        let Some(Ok(frame)) = frame else {
            return Poll::Ready(frame);
        };
        let failure = frame
            .trailers_ref()
            .and_then(|trailers| trailers.get("lambda-runtime-function-error-type"))
            .filter(|kind| !kind.is_empty());
        Poll::Ready(Some(match failure {
            Some(kind) => Err(FunctionBodyError::Failed {
                kind: String::from_utf8_lossy(kind.as_bytes())
                    .chars()
                    .take(100)
                    .collect(),
            }),
            None => Ok(frame),
        }))
    }
}

impl From<StreamedBody> for GatewayBody {
    fn from(body: StreamedBody) -> Self {
        Self::Streamed(body)
    }
}
