//! The body of an answer on its way to the next link.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt as _;

use crate::body::{BodyError, GatewayBody};
use crate::request_body::CallerBody;

/// How much of an answer is read before the next link is asked for an instance, in bytes. One that is shorter gives its own
/// instance back before.
const AHEAD_BYTES_MAX: usize = 64 << 10;
/// How long that waits for an answer that comes slowly.
const AHEAD_PATIENCE: Duration = Duration::from_millis(20);

/// What was read ahead of an answer, and the rest as it comes.
pub(crate) struct LinkBody {
    ahead: VecDeque<Bytes>,
    rest: GatewayBody,
}

/// The answer of one link as the request's body of the next one.
pub(super) async fn hand_over(mut body: GatewayBody) -> Result<CallerBody, BodyError> {
    let mut ahead = VecDeque::new();
    let mut bytes = 0;
    let reading = async {
        while let Some(frame) = body.frame().await {
            // Trailers are of the answer alone.
            if let Ok(piece) = frame?.into_data() {
                bytes += piece.len();
                ahead.push_back(piece);
            }
            if bytes > AHEAD_BYTES_MAX {
                return Ok::<_, BodyError>(false);
            }
        }
        Ok(true)
    };
    let is_whole = match tokio::time::timeout(AHEAD_PATIENCE, reading).await {
        Ok(read) => read?,
        Err(_) => false,
    };
    if is_whole {
        let ahead: Vec<Bytes> = ahead.into();
        return Ok(CallerBody::kept(match <[Bytes; 1]>::try_from(ahead) {
            Ok([only]) => only,
            Err(ahead) => ahead.concat().into(),
        }));
    }
    Ok(CallerBody::Link(Box::new(LinkBody { ahead, rest: body })))
}

impl LinkBody {
    pub(crate) fn poll_frame(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let Some(piece) = self.ahead.pop_front() {
            return Poll::Ready(Some(Ok(Frame::data(piece))));
        }
        loop {
            let frame = std::task::ready!(Pin::new(&mut self.rest).poll_frame(context));
            match frame {
                Some(Ok(frame)) if !frame.is_data() => {}
                frame => return Poll::Ready(frame),
            }
        }
    }

    pub(crate) fn is_end_stream(&self) -> bool {
        self.ahead.is_empty() && self.rest.is_end_stream()
    }

    pub(crate) fn size_hint(&self) -> SizeHint {
        let ahead: u64 = self.ahead.iter().map(|piece| piece.len() as u64).sum();
        let rest = self.rest.size_hint();
        let mut hint = SizeHint::new();
        hint.set_lower(rest.lower() + ahead);
        if let Some(upper) = rest.upper() {
            hint.set_upper(upper + ahead);
        }
        hint
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc;

    use super::*;

    #[tokio::test]
    async fn what_is_short_comes_whole_and_what_is_slow_as_it_comes() {
        let whole = hand_over(GatewayBody::full("short")).await.expect("it is there");
        assert_eq!(whole.size_hint().exact(), Some(5));
        assert!(matches!(whole, CallerBody::Kept(_)));

        let (sender, receiver) = mpsc::channel(4);
        sender.try_send(Ok(Bytes::from_static(b"first "))).expect("room");
        let slow = hand_over(GatewayBody::Pieces(receiver)).await.expect("no error");
        assert!(matches!(slow, CallerBody::Link(_)));
        sender.try_send(Ok(Bytes::from_static(b"second"))).expect("room");
        drop(sender);
        let bytes = slow.collect().await.expect("no error").to_bytes();
        assert_eq!(bytes, "first second");
    }

    #[tokio::test]
    async fn what_is_long_is_not_kept() {
        let (sender, receiver) = mpsc::channel(1);
        let long = Bytes::from(vec![7; AHEAD_BYTES_MAX]);
        let sent = long.clone();
        tokio::spawn(async move {
            for _ in 0..3 {
                sender.send(Ok(sent.clone())).await.expect("it is read");
            }
        });
        let body = hand_over(GatewayBody::Pieces(receiver)).await.expect("no error");
        assert!(matches!(body, CallerBody::Link(_)));
        let bytes = body.collect().await.expect("no error").to_bytes();
        assert_eq!(bytes, [&long[..], &long, &long].concat());
    }

    #[tokio::test]
    async fn what_breaks_off_is_no_body() {
        let (sender, receiver) = mpsc::channel(1);
        sender
            .try_send(Err(std::io::ErrorKind::BrokenPipe.into()))
            .expect("room");
        assert!(hand_over(GatewayBody::Pieces(receiver)).await.is_err());
    }
}
