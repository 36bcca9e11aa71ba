//! Messages that are followed.

use std::pin::Pin;

use async_nats::Subscriber;
use bytes::Bytes;
use futures_core::Stream as _;

/// The messages on a subject. Dropping it ends the subscription.
#[derive(Debug)]
pub struct Messages(pub(crate) Subscriber);

impl Messages {
    /// The next message; none once the connection is closed for good.
    pub async fn next(&mut self) -> Option<Message> {
        let next = std::future::poll_fn(|context| Pin::new(&mut self.0).poll_next(context)).await?;
        Some(Message {
            subject: next.subject.into_string(),
            body: next.payload,
            headers: next.headers,
        })
    }
}

/// A message.
#[derive(Debug, Clone)]
pub struct Message {
    /// Where it was published.
    pub subject: String,
    /// What it says.
    pub body: Bytes,
    headers: Option<async_nats::HeaderMap>,
}

impl Message {
    /// The value of a header, whose name is written in any case.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut headers = self.headers.as_ref()?.iter();
        let (_, values) = headers.find(|(own, _)| AsRef::<str>::as_ref(*own).eq_ignore_ascii_case(name))?;
        Some(values.first()?.as_str())
    }
}
