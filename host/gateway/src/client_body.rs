//! The body of a request as it comes from a client: bounded in length and in how long it may stand still.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::{Instant, Sleep};

/// Why the rest of a body will not come.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClientBodyError {
    #[error("the connection broke, or what came is no body")]
    Broken(#[source] hyper::Error),
    #[error("nothing of it came for {} ms (spore serve --body-timeout)", after.as_millis())]
    Stalled { after: Duration },
    #[error(
        "it is longer than {limit_bytes} bytes, which is all that this daemon takes (spore serve --body-limit)"
    )]
    TooLong { limit_bytes: u64 },
}

impl ClientBodyError {
    /// The status of the answer to whoever sent it.
    pub(crate) fn status(&self) -> StatusCode {
        match self {
            Self::Broken(_) => StatusCode::BAD_REQUEST,
            Self::Stalled { .. } => StatusCode::REQUEST_TIMEOUT,
            Self::TooLong { .. } => StatusCode::PAYLOAD_TOO_LARGE,
        }
    }
}

/// Whether more of a request's body may come on a connection of HTTP/1.1, where nothing else can come before all of it.
#[derive(Clone, Default)]
pub(crate) struct BodyDue(Arc<AtomicBool>);

impl BodyDue {
    /// Whether the last request's body was not read to its end.
    pub(crate) fn is_due(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// Notes it of a body as it is now.
    pub(crate) fn note(&self, incoming: &Incoming) {
        self.0.store(!incoming.is_end_stream(), Ordering::Relaxed);
    }
}

/// The body of a client's request.
pub(crate) struct ClientBody {
    incoming: Incoming,
    /// Is told whether all of it was read.
    due: Option<BodyDue>,
    /// How long it may stand still; none if that does not matter any more.
    stall_timeout: Option<Duration>,
    /// Rings when it has stood still for so long; made when it does for the first time.
    stalled: Option<Pin<Box<Sleep>>>,
    is_standing: bool,
    limit: Option<Limit>,
}

struct Limit {
    limit_bytes: u64,
    left_bytes: u64,
}

impl ClientBody {
    pub(crate) fn new(incoming: Incoming, stall_timeout: Duration) -> Self {
        Self {
            incoming,
            due: None,
            stall_timeout: Some(stall_timeout),
            stalled: None,
            is_standing: false,
            limit: None,
        }
    }

    /// Keeps the connection informed whether more of it may come.
    pub(crate) fn tell(mut self, due: &BodyDue) -> Self {
        due.note(&self.incoming);
        self.due = Some(due.clone());
        self
    }

    /// Bounds its length; fails if it is longer as announced.
    pub(crate) fn limit(&mut self, limit_bytes: u64) -> Result<(), ClientBodyError> {
        if self.incoming.size_hint().lower() > limit_bytes {
            return Err(ClientBodyError::TooLong { limit_bytes });
        }
        self.limit = Some(Limit {
            limit_bytes,
            left_bytes: limit_bytes,
        });
        Ok(())
    }

    /// From now on it may stand still: the answer has begun, and whoever reads it may have nothing more to say for a while.
    pub(crate) fn may_stall(&mut self) {
        self.stall_timeout = None;
    }

    fn poll_stalled(&mut self, context: &mut Context<'_>) -> Poll<ClientBodyError> {
        let Some(after) = self.stall_timeout else {
            return Poll::Pending;
        };
        let stalled = self
            .stalled
            .get_or_insert_with(|| Box::pin(tokio::time::sleep(after)));
        if !std::mem::replace(&mut self.is_standing, true) {
            stalled.as_mut().reset(Instant::now() + after);
        }
        stalled
            .as_mut()
            .poll(context)
            .map(|()| ClientBodyError::Stalled { after })
    }
}

impl Body for ClientBody {
    type Data = Bytes;
    type Error = ClientBodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, ClientBodyError>>> {
        let Poll::Ready(frame) = Pin::new(&mut self.incoming).poll_frame(context) else {
            return self.poll_stalled(context).map(|error| Some(Err(error)));
        };
        self.is_standing = false;
        if let Some(due) = &self.due {
            match &frame {
                // A body in chunks does not know its end before.
                None => due.0.store(false, Ordering::Relaxed),
                Some(_) => due.note(&self.incoming),
            }
        }
        let frame = frame.transpose().map_err(ClientBodyError::Broken);
        if let (Some(limit), Ok(Some(frame))) = (&mut self.limit, &frame) {
            let length = frame.data_ref().map_or(0, Bytes::len) as u64;
            match limit.left_bytes.checked_sub(length) {
                Some(left) => limit.left_bytes = left,
                None => {
                    let limit_bytes = limit.limit_bytes;
                    return Poll::Ready(Some(Err(ClientBodyError::TooLong { limit_bytes })));
                }
            }
        }
        Poll::Ready(frame.transpose())
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}
