//! The stream: what is asked of the server, and what its answers mean.

use std::pin::Pin;
use std::time::Duration;

use async_nats::jetstream::consumer::pull::{Ordered, OrderedConfig};
use async_nats::jetstream::context::{Context, PublishErrorKind};
use async_nats::jetstream::message::PublishMessage;
use async_nats::jetstream::response::Response;
use async_nats::jetstream::stream::{
    Config, DeleteStatus, DiscardPolicy, RawMessageErrorKind, RetentionPolicy, StorageType,
};
use async_nats::jetstream::{self, ErrorCode, consumer};
use async_nats::{HeaderMap, Message as Received, Subscriber};
use bytes::Bytes;
use futures_core::Stream as _;
use spore_nats::Connection;

use super::index::Claim;
use super::record::{self, About, Call, Record, Subjects};
use crate::message::Message;
use crate::queue::AcceptError;

/// How long an answer of the server is waited for.
const TIMEOUT: Duration = Duration::from_secs(5);
/// How long a reading may stand still before what is left of it is counted anew.
pub(super) const RECOUNT_PAUSE: Duration = Duration::from_millis(100);
/// What a message may have in its headers besides what is counted.
const FRAMING_BYTES: u64 = 256;

type Source = Box<dyn std::error::Error + Send + Sync>;

/// What the NATS server has not done.
#[derive(Debug, thiserror::Error)]
pub enum NatsError {
    /// It cannot be reached.
    #[error("the NATS server cannot be reached")]
    Away,
    /// It has not answered.
    #[error("the NATS server has not answered within {} s", TIMEOUT.as_secs())]
    TimedOut,
    /// The stream is not there.
    #[error("the NATS server keeps no queue (yet): is JetStream on (`nats-server -js`)?")]
    NoStream,
    /// The stream is another's.
    #[error(
        "the stream {stream} of the NATS server is not one that Spore makes ({what}): remove it, or give the queue another name \
         (nats://HOST/NAME)"
    )]
    WrongStream {
        /// Its name.
        stream: String,
        /// In what it differs.
        what: &'static str,
    },
    /// It has refused it.
    #[error("the NATS server has refused it")]
    Refused(#[source] Source),
}

/// Why a state was not written.
#[derive(Debug)]
pub(super) enum WriteError {
    /// Another one was written meanwhile, or the last was removed.
    Contested,
    Nats(NatsError),
}

impl From<NatsError> for WriteError {
    fn from(error: NatsError) -> Self {
        Self::Nats(error)
    }
}

/// The stream, which need not be there yet.
pub(super) struct Stream {
    connection: Connection,
    context: Context,
    name: String,
    pub(super) subjects: Subjects,
}

impl Stream {
    pub(super) fn new(connection: Connection, name: &str) -> Self {
        let mut context = jetstream::new(connection.client().clone());
        context.set_timeout(TIMEOUT);
        Self {
            connection,
            context,
            name: format!("{name}-queue"),
            subjects: Subjects::new(name),
        }
    }

    /// Whether the server can be spoken to now.
    pub(super) fn is_there(&self) -> bool {
        self.connection.is_there()
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn context(&self) -> &Context {
        &self.context
    }

    pub(super) fn connection(&self) -> &Connection {
        &self.connection
    }

    /// Makes the stream if it is not there. One that somebody else has made beforehand, with copies on several servers for
    /// example, is taken if it can be used.
    pub(super) async fn make(&self) -> Result<(), NatsError> {
        if !self.is_there() {
            return Err(NatsError::Away);
        }
        let config = Config {
            name: self.name.clone(),
            description: Some("Spore: invocations that nobody waits for".to_owned()),
            subjects: vec![self.subjects.call("*"), self.subjects.state("*")],
            retention: RetentionPolicy::Limits,
            discard: DiscardPolicy::New,
            storage: StorageType::File,
            max_messages_per_subject: 1,
            num_replicas: 1,
            ..Config::default()
        };
        let made = self.context.get_or_create_stream(config).await;
        let stream = made.map_err(|error| NatsError::Refused(Box::new(error)))?;
        let config = &stream.cached_info().config;
        let what = if config.max_messages_per_subject != 1 {
            "it keeps another number of messages of a subject than 1"
        } else if config.retention != RetentionPolicy::Limits {
            "its retention is not `limits`"
        } else if config.deny_delete {
            "nothing can be deleted in it"
        } else if !config.max_age.is_zero() {
            "it forgets what is old"
        } else {
            return Ok(());
        };
        Err(NatsError::WrongStream {
            stream: self.name.clone(),
            what,
        })
    }

    /// Puts an invocation into the stream. Returns its number there once the server has it.
    pub(super) async fn put_call(&self, key: &str, call: &Call, body: Bytes) -> Result<u64, AcceptError> {
        let headers = record::call_headers(call);
        let limit_bytes = self.connection.client().max_payload() as u64;
        let bytes = body.len() as u64 + length(&headers) + FRAMING_BYTES;
        if bytes > limit_bytes {
            return Err(AcceptError::TooLong { bytes, limit_bytes });
        }
        // Nobody else has the key; if so, what is there is not replaced.
        match self.put(self.subjects.call(key), headers, 0, body).await {
            Ok(sequence) => Ok(sequence),
            Err(WriteError::Nats(error)) => Err(error.into()),
            Err(WriteError::Contested) => Err(NatsError::Refused("its key is taken".into()).into()),
        }
    }

    /// Writes a state, if the last one has that number.
    pub(super) async fn put_state(&self, key: &str, last: u64, record: &Record) -> Result<u64, WriteError> {
        let headers = record::state_headers(record);
        self.put(self.subjects.state(key), headers, last, Bytes::new())
            .await
    }

    async fn put(
        &self,
        subject: String,
        headers: HeaderMap,
        last: u64,
        body: Bytes,
    ) -> Result<u64, WriteError> {
        if !self.is_there() {
            return Err(NatsError::Away.into());
        }
        let message = PublishMessage::build()
            .headers(headers)
            .payload(body)
            .expected_last_subject_sequence(last)
            .expected_stream(&self.name);
        let put = async { self.context.send_publish(subject, message).await?.await };
        let error = match put.await {
            Ok(taken) => return Ok(taken.sequence),
            Err(error) => error,
        };
        Err(match error.kind() {
            PublishErrorKind::WrongLastSequence => WriteError::Contested,
            PublishErrorKind::TimedOut => NatsError::TimedOut.into(),
            PublishErrorKind::StreamNotFound => NatsError::NoStream.into(),
            PublishErrorKind::BrokenPipe => NatsError::Away.into(),
            _ => NatsError::Refused(Box::new(error)).into(),
        })
    }

    /// The invocation and its body, if it is there. Asks the server that orders the stream, not one with a copy that may be
    /// behind: what is missing there is taken for answered.
    pub(super) async fn get_call(&self, claim: &Claim) -> Result<Option<(Message, Bytes)>, NatsError> {
        if !self.is_there() {
            return Err(NatsError::Away);
        }
        let refused = |error: Source| NatsError::Refused(error);
        let stream = self.context.get_stream_no_info(&self.name).await;
        let stream = stream.map_err(|error| refused(Box::new(error)))?;
        let found = match stream.get_raw_message(claim.call_sequence).await {
            Ok(found) => found,
            Err(error) => {
                return match error.kind() {
                    RawMessageErrorKind::NoMessageFound => Ok(None),
                    RawMessageErrorKind::JetStream(told) if is_absent(told.error_code()) => Ok(None),
                    _ => Err(refused(Box::new(error))),
                };
            }
        };
        if found.subject.as_str() != self.subjects.call(&claim.key) {
            return Ok(None);
        }
        match record::read_call(Some(&found.headers), found.payload.len()) {
            Ok(call) => Ok(Some((call.message, found.payload))),
            Err(error) => {
                tracing::error!(key = %claim.key, %error, "an invocation in the queue is damaged: it is left there");
                Err(refused(Box::new(error)))
            }
        }
    }

    /// Takes an invocation out of the stream, and tells other daemons. One that is gone already is none to mind.
    pub(super) async fn remove(&self, claim: &Claim) -> Result<(), NatsError> {
        self.delete(claim.call_sequence).await?;
        if claim.state_sequence != 0 {
            self.delete(claim.state_sequence).await?;
        }
        // Whoever does not hear it finds out when it claims it.
        let key = Bytes::copy_from_slice(claim.key.as_bytes());
        let _ = self.connection.client().publish(self.subjects.gone(), key).await;
        Ok(())
    }

    /// Deletes a message, without writing over where it was.
    pub(super) async fn delete(&self, sequence: u64) -> Result<(), NatsError> {
        if !self.is_there() {
            return Err(NatsError::Away);
        }
        let subject = format!("STREAM.MSG.DELETE.{}", self.name);
        let request = serde_json::json!({ "seq": sequence, "no_erase": true });
        let answer: Result<Response<DeleteStatus>, _> = self.context.request(subject, &request).await;
        match answer {
            Ok(Response::Ok(_)) => Ok(()),
            Ok(Response::Err { error }) if is_absent(error.error_code()) => Ok(()),
            Ok(Response::Err { error }) => Err(NatsError::Refused(Box::new(error))),
            Err(error) => Err(NatsError::Refused(Box::new(error))),
        }
    }

    /// Says that this daemon is there.
    pub(super) async fn beat(&self, daemon: &str) {
        if self.is_there() {
            let daemon = Bytes::copy_from_slice(daemon.as_bytes());
            let _ = self
                .connection
                .client()
                .publish(self.subjects.beat(), daemon)
                .await;
        }
    }

    /// What other daemons tell: what is gone, and that they are there.
    pub(super) async fn told(&self) -> Result<(Subscriber, Subscriber), NatsError> {
        let client = self.connection.client();
        let refused = |error: async_nats::SubscribeError| NatsError::Refused(Box::new(error));
        let gone = client.subscribe(self.subjects.gone()).await.map_err(refused)?;
        let beats = client.subscribe(self.subjects.beat()).await.map_err(refused)?;
        Ok((gone, beats))
    }

    /// Reads the stream from its beginning, without bodies: of a subject, or what there is and what comes.
    pub(super) async fn read(&self, subject: Option<String>) -> Result<Reading, NatsError> {
        if !self.is_there() {
            return Err(NatsError::Away);
        }
        let refused = |error: Source| NatsError::Refused(error);
        let config = OrderedConfig {
            filter_subject: subject.unwrap_or_default(),
            headers_only: true,
            deliver_policy: consumer::DeliverPolicy::All,
            ..OrderedConfig::default()
        };
        let consumer = self
            .context
            .create_consumer_on_stream(config, self.name.clone())
            .await;
        let consumer = consumer.map_err(|error| refused(Box::new(error)))?;
        let info = consumer.cached_info();
        let (name, pending) = (info.name.clone(), info.num_pending);
        let messages = consumer
            .messages()
            .await
            .map_err(|error| refused(Box::new(error)))?;
        Ok(Reading {
            messages,
            name,
            pending,
        })
    }

    /// Asks how many messages of a reading are left: what was deleted before it came is not told of.
    pub(super) async fn recount(&self, reading: &mut Reading) -> Result<(), NatsError> {
        let refused = |error: Source| NatsError::Refused(error);
        let stream = self.context.get_stream_no_info(&self.name).await;
        let stream = stream.map_err(|error| refused(Box::new(error)))?;
        let info = stream.consumer_info(&reading.name).await;
        reading.pending = info.map_err(|error| refused(Box::new(error)))?.num_pending;
        Ok(())
    }

    /// All calls that are there now.
    pub(super) async fn read_calls(&self) -> Result<Calls<'_>, NatsError> {
        let reading = self.read(Some(self.subjects.call("*"))).await?;
        Ok(Calls {
            stream: self,
            reading,
        })
    }
}

/// A reading of the stream.
pub(super) struct Reading {
    messages: Ordered,
    name: String,
    /// How many messages are left of those that are there.
    pub(super) pending: u64,
}

impl Reading {
    /// The next message and its number.
    pub(super) async fn next(&mut self) -> Result<(Received, u64), NatsError> {
        let next = std::future::poll_fn(|context| Pin::new(&mut self.messages).poll_next(context)).await;
        let message = match next {
            Some(Ok(message)) => message,
            Some(Err(error)) => return Err(NatsError::Refused(Box::new(error))),
            None => return Err(NatsError::Away),
        };
        let info = message.info().map_err(NatsError::Refused)?;
        let sequence = info.stream_sequence;
        self.pending = info.pending;
        Ok((message.into(), sequence))
    }
}

/// A reading of the calls.
pub(super) struct Calls<'a> {
    stream: &'a Stream,
    reading: Reading,
}

impl Calls<'_> {
    /// The next call, and its key.
    pub(super) async fn next(&mut self) -> Result<Option<(String, Message)>, NatsError> {
        let mut waited = Duration::ZERO;
        while self.reading.pending > 0 {
            let Ok(next) = tokio::time::timeout(RECOUNT_PAUSE, self.reading.next()).await else {
                waited += RECOUNT_PAUSE;
                if waited >= TIMEOUT {
                    return Err(NatsError::TimedOut);
                }
                self.stream.recount(&mut self.reading).await?;
                continue;
            };
            let (received, _) = next?;
            let call = record::read_call(received.headers.as_ref(), received.payload.len());
            if let (Ok(About::Call(key)), Ok(call)) = (self.stream.subjects.about(&received.subject), call) {
                return Ok(Some((key.to_owned(), call.message)));
            }
        }
        Ok(None)
    }

    /// Lets the server forget it.
    pub(super) async fn end(self) {
        let Self { stream, reading } = self;
        drop(reading.messages);
        let context = &stream.context;
        // It would anyway, a little later.
        let _ = context
            .delete_consumer_from_stream(&reading.name, &stream.name)
            .await;
    }
}

pub(super) fn is_absent(code: ErrorCode) -> bool {
    code == ErrorCode::NO_MESSAGE_FOUND || code == ErrorCode::SEQUENCE_NOT_FOUND
}

fn length(headers: &HeaderMap) -> u64 {
    let values = headers.iter().flat_map(|(name, values)| {
        let name = AsRef::<str>::as_ref(name).len();
        values.iter().map(move |value| name + value.as_str().len() + 4)
    });
    values.sum::<usize>() as u64
}
