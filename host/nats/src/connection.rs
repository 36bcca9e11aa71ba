//! The connection.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_nats::connection::State;
use async_nats::{Client, ConnectErrorKind, ConnectOptions, Event, SubscribeError};
use tokio::sync::watch;

use crate::address::Address;
use crate::messages::Messages;

/// How long the first attempt may take before the rest is done in the background.
const FIRST_TIMEOUT: Duration = Duration::from_secs(3);
/// Longest pause between attempts.
const PAUSE_MAX: Duration = Duration::from_secs(2);
/// Longest file of credentials.
const CREDENTIALS_BYTES_MAX: u64 = 64 << 10;
/// What a file of NATS's own begins with.
const JWT: &str = "-----BEGIN NATS USER JWT-----";

/// Why there is no connection, and none will be made.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The credentials are none.
    #[error(
        "{path} has no credentials for NATS: it holds a .creds file of NATS, or one line with USER:PASSWORD or a token"
    )]
    Credentials {
        /// The file.
        path: PathBuf,
    },
    /// The file cannot be read.
    #[error("{path} cannot be read")]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The server does not accept them.
    #[error(
        "the NATS server at {address} refuses the credentials: give others by --queue-credentials or in the address"
    )]
    Refused {
        /// The server.
        address: Address,
    },
    /// TLS cannot be set up.
    #[error("no connection to the NATS server at {address} can be set up")]
    Setup {
        /// The server.
        address: Address,
        /// Why.
        #[source]
        source: async_nats::ConnectError,
    },
}

/// A connection to a server, which comes back whenever it is lost.
#[derive(Debug, Clone)]
pub struct Connection {
    client: Client,
    /// How often something may have been missed.
    interruptions: Arc<watch::Sender<u64>>,
}

impl Connection {
    /// Connects. Returns without a connection if the server is away: it is tried again until it is there. Of each
    /// subscription up to `waiting_max` messages wait for who reads them; more are lost.
    pub async fn open(
        address: &Address,
        credentials: Option<&Path>,
        waiting_max: usize,
    ) -> Result<Self, ConnectError> {
        let secret = credentials.map(read).transpose()?;
        let interruptions = Arc::new(watch::Sender::new(0));
        let options = || {
            let options = options(address, credentials, secret.as_deref(), &interruptions)?;
            Ok(options.subscription_capacity(waiting_max))
        };
        let first = options()?
            .connection_timeout(FIRST_TIMEOUT)
            .connect(address.servers());
        let client = match first.await {
            Ok(client) => client,
            Err(error) => match error.kind() {
                ConnectErrorKind::Authentication | ConnectErrorKind::AuthorizationViolation => {
                    return Err(ConnectError::Refused {
                        address: address.clone(),
                    });
                }
                ConnectErrorKind::ServerParse => {
                    return Err(ConnectError::Setup {
                        address: address.clone(),
                        source: error,
                    });
                }
                _ => {
                    tracing::warn!(%address, %error, "the NATS server cannot be reached; it is tried again until it can");
                    let later = options()?.retry_on_initial_connect().connect(address.servers());
                    later.await.map_err(|source| ConnectError::Setup {
                        address: address.clone(),
                        source,
                    })?
                }
            },
        };
        Ok(Self {
            client,
            interruptions,
        })
    }

    /// The client.
    #[must_use]
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Whether the server can be spoken to now.
    #[must_use]
    pub fn is_there(&self) -> bool {
        self.client.connection_state() == State::Connected
    }

    /// The messages on a subject from now on; of those who follow it in a group, one gets each.
    pub async fn follow(&self, subject: String, group: String) -> Result<Messages, SubscribeError> {
        Ok(Messages(self.client.queue_subscribe(subject, group).await?))
    }

    /// Changes whenever something that was published meanwhile may have been missed.
    #[must_use]
    pub fn interruptions(&self) -> watch::Receiver<u64> {
        self.interruptions.subscribe()
    }
}

fn read(path: &Path) -> Result<String, ConnectError> {
    let error = |source| ConnectError::File {
        path: path.to_owned(),
        source,
    };
    if std::fs::metadata(path).map_err(error)?.len() > CREDENTIALS_BYTES_MAX {
        return Err(ConnectError::Credentials {
            path: path.to_owned(),
        });
    }
    std::fs::read_to_string(path).map_err(error)
}

fn options(
    address: &Address,
    path: Option<&Path>,
    secret: Option<&str>,
    interruptions: &Arc<watch::Sender<u64>>,
) -> Result<ConnectOptions, ConnectError> {
    let shown = address.clone();
    let interruptions = interruptions.clone();
    let options = ConnectOptions::new()
        .name("spore")
        .reconnect_delay_callback(|attempts| {
            let attempts = u32::try_from(attempts).unwrap_or(u32::MAX);
            Duration::from_millis(100).saturating_mul(attempts).min(PAUSE_MAX)
        })
        .event_callback(move |event| {
            match &event {
                Event::Connected => tracing::info!(address = %shown, "connected to the NATS server"),
                Event::Disconnected => tracing::warn!(address = %shown, "the NATS server is away; it is tried again until it is back"),
                Event::ServerError(error) => tracing::warn!(address = %shown, %error, "the NATS server has refused something"),
                Event::ClientError(error) => tracing::warn!(address = %shown, %error, "the connection to the NATS server has failed"),
                Event::SlowConsumer(_) | Event::LameDuckMode | Event::Draining | Event::Closed => {}
            }
            if matches!(event, Event::Connected | Event::SlowConsumer(_)) {
                interruptions.send_modify(|count| *count += 1);
            }
            std::future::ready(())
        });
    let Some((path, secret)) = path.zip(secret) else {
        return Ok(match address.user() {
            Some((name, Some(password))) => options.user_and_password(name.to_owned(), password.to_owned()),
            Some((token, None)) => options.token(token.to_owned()),
            None => options,
        });
    };
    let wrong = || ConnectError::Credentials {
        path: path.to_owned(),
    };
    if secret.contains(JWT) {
        return options.credentials(secret).map_err(|_| wrong());
    }
    let line = secret.trim();
    if line.is_empty() || line.contains(char::is_whitespace) {
        return Err(wrong());
    }
    Ok(match line.split_once(':') {
        Some((name, password)) => options.user_and_password(name.to_owned(), password.to_owned()),
        None => options.token(line.to_owned()),
    })
}
