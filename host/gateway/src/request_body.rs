//! The body of a request on its way to a function, which can be sent once more to another instance as long as little of
//! it has passed.

use std::error::Error;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::StatusCode;
use http_body::{Body, Frame, SizeHint};

use crate::chain::LinkBody;
use crate::client_body::{ClientBody, ClientBodyError};

/// How much of a body is kept to be sent again, in bytes.
const KEPT_BYTES_MAX: usize = 64 << 10;

/// The body of a request as it comes to the gateway.
pub(crate) enum CallerBody {
    /// On its way from a client.
    Client(ClientBody),
    /// In memory; none when read or empty.
    Kept(Option<Bytes>),
    /// On its way from another function, whose answer it is.
    Link(Box<LinkBody>),
}

/// Why the body of a request broke off.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CallerBodyError {
    /// The client has gone, or sent what it may not.
    #[error(transparent)]
    Client(#[from] ClientBodyError),
    /// The function has, whose answer it is.
    #[error("the answer of the link before it")]
    Link(#[source] Box<dyn Error + Send + Sync>),
}

impl CallerBodyError {
    /// The status of the answer to whoever sent it.
    pub(crate) fn status(&self) -> StatusCode {
        match self {
            Self::Client(error) => error.status(),
            Self::Link(_) => StatusCode::BAD_GATEWAY,
        }
    }

    /// Why a connection that sent a body on has failed with this error of its user.
    pub(crate) fn of(error: hyper::Error) -> Self {
        match error.source().and_then(|source| source.downcast_ref::<Self>()) {
            Some(&Self::Client(ClientBodyError::Stalled { after })) => {
                ClientBodyError::Stalled { after }.into()
            }
            Some(&Self::Client(ClientBodyError::TooLong { limit_bytes })) => {
                ClientBodyError::TooLong { limit_bytes }.into()
            }
            Some(Self::Link(_)) => Self::Link(Box::new(error)),
            Some(Self::Client(ClientBodyError::Broken(_))) | None => ClientBodyError::Broken(error).into(),
        }
    }
}

impl CallerBody {
    /// One that is in memory.
    pub(crate) fn kept(bytes: Bytes) -> Self {
        Self::Kept(Some(bytes).filter(|bytes| !bytes.is_empty()))
    }
}

impl Body for CallerBody {
    type Data = Bytes;
    type Error = CallerBodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, CallerBodyError>>> {
        match &mut *self {
            Self::Client(body) => Pin::new(body)
                .poll_frame(context)
                .map(|frame| frame.map(|frame| frame.map_err(Into::into))),
            Self::Kept(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Link(body) => body.poll_frame(context).map(|frame| {
                frame.map(|frame| frame.map_err(|error| CallerBodyError::Link(Box::new(error))))
            }),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Client(body) => body.is_end_stream(),
            Self::Kept(bytes) => bytes.is_none(),
            Self::Link(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Client(body) => body.size_hint(),
            Self::Kept(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)),
            Self::Link(body) => body.size_hint(),
        }
    }
}

/// What has passed of a body, and the rest.
struct Source<B> {
    rest: B,
    kept: Vec<Bytes>,
    kept_bytes: usize,
    /// Everything that has passed is kept.
    is_whole: bool,
}

impl<B: Body<Data = Bytes> + Unpin> Source<B> {
    fn keep(&mut self, frame: &Frame<Bytes>) {
        if !self.is_whole {
            return;
        }
        let data = frame.data_ref();
        self.kept_bytes += data.map_or(0, Bytes::len);
        match data {
            Some(data) if self.kept_bytes <= KEPT_BYTES_MAX => self.kept.push(data.clone()),
            // Too much, or trailers.
            _ => {
                self.is_whole = false;
                self.kept.clear();
            }
        }
    }
}

/// A body as it is sent.
pub(crate) struct RequestBody<B = CallerBody> {
    /// None if there is no body.
    source: Option<Arc<Mutex<Source<B>>>>,
    /// How many of the kept pieces were sent.
    sent: usize,
}

/// The means to send a body once more.
pub(crate) struct Replay<B = CallerBody>(Option<Arc<Mutex<Source<B>>>>);

fn lock<B>(source: &Mutex<Source<B>>) -> MutexGuard<'_, Source<B>> {
    source.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<B: Body<Data = Bytes> + Unpin> RequestBody<B> {
    /// A body, and the means to send it once more.
    pub(crate) fn new(body: B) -> (Self, Replay<B>) {
        let source = (!body.is_end_stream()).then(|| {
            Arc::new(Mutex::new(Source {
                rest: body,
                kept: Vec::new(),
                kept_bytes: 0,
                is_whole: true,
            }))
        });
        let replay = Replay(source.clone());
        (Self { source, sent: 0 }, replay)
    }
}

impl Replay {
    /// The answer has begun: whatever has not come of the body may take its time.
    pub(crate) fn may_stall(&self) {
        if let Some(source) = &self.0
            && let CallerBody::Client(body) = &mut lock(source).rest
        {
            body.may_stall();
        }
    }
}

impl<B: Body<Data = Bytes> + Unpin> Replay<B> {
    /// The same body from its beginning; none if too much of it has passed. The one before must not be read any more.
    pub(crate) fn again(&self) -> Option<RequestBody<B>> {
        let is_whole = self.0.as_ref().is_none_or(|source| lock(source).is_whole);
        is_whole.then(|| RequestBody {
            source: self.0.clone(),
            sent: 0,
        })
    }

    /// What has not passed. The one before must not be read any more.
    pub(crate) fn into_rest(self) -> RequestBody<B> {
        let sent = self.0.as_ref().map_or(0, |source| lock(source).kept.len());
        RequestBody { source: self.0, sent }
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for RequestBody<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let this = &mut *self;
        let Some(source) = &this.source else {
            return Poll::Ready(None);
        };
        let mut source = lock(source);
        if let Some(kept) = source.kept.get(this.sent) {
            this.sent += 1;
            return Poll::Ready(Some(Ok(Frame::data(kept.clone()))));
        }
        let polled = Pin::new(&mut source.rest).poll_frame(context);
        if let Poll::Ready(Some(Ok(frame))) = &polled {
            source.keep(frame);
            this.sent = source.kept.len();
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.source.as_ref().is_none_or(|source| {
            let source = lock(source);
            self.sent >= source.kept.len() && source.rest.is_end_stream()
        })
    }

    fn size_hint(&self) -> SizeHint {
        let Some(source) = &self.source else {
            return SizeHint::with_exact(0);
        };
        let source = lock(source);
        let unsent: u64 = source
            .kept
            .iter()
            .skip(self.sent)
            .map(|kept| kept.len() as u64)
            .sum();
        let rest = source.rest.size_hint();
        let mut hint = SizeHint::new();
        hint.set_lower(rest.lower() + unsent);
        if let Some(upper) = rest.upper() {
            hint.set_upper(upper + unsent);
        }
        hint
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::{BodyExt, Full};

    use super::*;

    #[tokio::test]
    async fn a_short_body_is_sent_again_whole() {
        let (mut first, replay) = RequestBody::new(Full::new(Bytes::from_static(b"short")));
        assert_eq!(first.size_hint().exact(), Some(5));
        let piece = first.frame().await.expect("a frame").expect("no error");
        assert_eq!(piece.into_data().expect("data"), "short");
        drop(first);
        let second = replay.again().expect("it is kept");
        assert_eq!(second.size_hint().exact(), Some(5));
        assert_eq!(second.collect().await.expect("no error").to_bytes(), "short");
    }

    #[tokio::test]
    async fn a_long_body_is_sent_once() {
        let long = Bytes::from(vec![0; KEPT_BYTES_MAX + 1]);
        let (first, replay) = RequestBody::new(Full::new(long.clone()));
        assert!(replay.again().is_some(), "nothing has passed yet");
        assert_eq!(first.collect().await.expect("no error").to_bytes(), long);
        assert!(replay.again().is_none());
    }

    #[tokio::test]
    async fn no_body_can_always_be_sent() {
        let (first, replay) = RequestBody::new(Full::new(Bytes::new()));
        assert!(first.is_end_stream());
        assert!(replay.again().expect("nothing is needed").is_end_stream());
    }
}
