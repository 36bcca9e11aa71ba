//! Start and end of the daemon.
//!
//! ```text
//!  start ──> accepting ──shutdown──> draining (at most the grace period) ──> instances stopped, logs written
//! ```

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hyper_util::server::graceful::GracefulShutdown;
use spore_nats::{ConnectError, Connection};
use spore_queue::{Limits, NatsOptions, Queue};
use spore_registry::Registries;
use spore_sandbox::Sandbox;
use spore_store::{OpenError, Store};
#[cfg(feature = "fuzzing")]
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

use crate::admission::{Admission, Place};
use crate::authentication::{Authentication, CredentialsError, NewCredentials};
use crate::config::{DaemonConfig, Role};
use crate::errors::ApiError;
use crate::functions::Functions;
use crate::images::{Names, collect};
use crate::metrics::RequestCounts;
use crate::queued::{Callbacks, dispatch, tell_pools};
use crate::registry::Uploads;
use crate::routes::Gateway;
use crate::serving::{self, Bounds};
use crate::shortage::Shortage;
use crate::spans::{Spans, SpansError};
use crate::tls::{Tls, TlsError};
use crate::triggers::{Subjects, TriggerCalls, follow_subjects, keep_schedules, watch_folders};

/// Pause after a failed accept, for example for want of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Connections that wait to be accepted, at most; the kernel has a limit of its own (`net.core.somaxconn`). One that finds no
/// room comes back after a second.
const BACKLOG: u32 = 4096;
/// Messages that wait in each subscription of the queue, at most: they are short.
const QUEUE_MESSAGES_MAX: usize = 64 << 10;
/// Messages of a subject that wait for their function to be called, at most: each may be as long as the server takes.
const SUBJECT_MESSAGES_MAX: usize = 256;
/// How often failed accepts are told of.
const ACCEPT_WARNING_PAUSE: Duration = Duration::from_secs(10);

/// Why the daemon could not start.
#[derive(Debug, thiserror::Error)]
pub enum DaemonStartError {
    /// The data directory could not be opened.
    #[error("the data directory could not be opened")]
    Store(#[from] OpenError),
    /// There are no credentials to compare with.
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
    /// The certificate cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The NATS server cannot be used.
    #[error("the queue cannot be kept on the NATS server")]
    Nats(#[from] ConnectError),
    /// Traces cannot be sent where they should be.
    #[error(transparent)]
    Spans(#[from] SpansError),
    /// The functions of an earlier start could not be read.
    #[error("the deployed functions could not be read")]
    Functions(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The address could not be listened on.
    #[error("cannot listen on {address}: choose another address, or stop what listens there")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl From<ApiError> for DaemonStartError {
    fn from(error: ApiError) -> Self {
        Self::Functions(Box::new(error))
    }
}

/// A running daemon. Dropping it leaves it running; [`Daemon::shutdown`] ends it.
pub struct Daemon {
    local_address: SocketAddr,
    gateway: Arc<Gateway>,
    stop: watch::Sender<bool>,
    server: JoinHandle<()>,
    dispatcher: JoinHandle<()>,
    /// Tasks that end by themselves when the daemon stops.
    others: Vec<JoinHandle<()>>,
    grace: Duration,
    new_credentials: Option<NewCredentials>,
}

impl Daemon {
    /// Opens the data directory, loads the functions in it, and listens. Requests are answered from the return on.
    pub async fn start(config: DaemonConfig, sandbox: Arc<dyn Sandbox>) -> Result<Self, DaemonStartError> {
        let data = config.data.clone();
        let store = tokio::task::spawn_blocking(move || Store::open(&data))
            .await
            .map_err(ApiError::from)??;
        let store = Arc::new(store);
        let (authentication, new_credentials) = Authentication::of(&config.basic_auth, &store.credentials)?;
        let tls = config.tls.clone().map(Tls::load).transpose()?;
        let (address, grace) = (config.listen, config.shutdown_grace);
        let bounds = Bounds {
            head_bytes_max: config.max_head_bytes,
            head_timeout: config.head_timeout,
            body_timeout: config.body_timeout,
        };
        let nats = queue_server(&config).await?;
        let subjects = subject_server(&config).await?;
        let (data, max_connections) = (config.data.clone(), config.max_connections);
        let listen_error = |source| DaemonStartError::Listen { address, source };
        let listener = listen(address).map_err(listen_error)?;
        let local_address = listener.local_addr().map_err(listen_error)?;
        let sandbox_kind = sandbox.kind().name();
        let layers = sandbox.layers();
        let names = Names::new(store.clone(), config.registries.clone().map(Registries::new));
        let spans = config.otlp_endpoint.as_deref().map(Spans::start).transpose()?;
        let functions = Functions::load(config, store.clone(), names.clone(), sandbox, spans).await?;
        let (stop, stopping) = watch::channel(false);
        let uploads = Uploads::default();
        let queue = match nats {
            Some(options) => Queue::open_nats(options, Limits::default()).await,
            None => {
                let store = store.clone();
                tokio::task::spawn_blocking(move || Queue::open(store, Limits::default()))
                    .await
                    .map_err(ApiError::from)?
                    .map_err(ApiError::from)?
            }
        };
        let gateway = Gateway {
            functions,
            store,
            uploads,
            names,
            queue,
            callbacks: Callbacks::new(local_address),
            data,
            sandbox_kind,
            layers,
            local_address,
            authentication,
            tls,
            triggers: TriggerCalls::default(),
            subjects,
            bounds,
            requests: RequestCounts::default(),
            stopping,
        };
        let gateway = Arc::new(gateway);
        let server = tokio::spawn(serve(listener, gateway.clone(), max_connections, grace));
        let dispatcher = tokio::spawn(dispatch(gateway.clone(), grace));
        let mut others = vec![tokio::spawn(tell_pools(gateway.clone()))];
        // Behind a gateway of OpenFaaS's its connectors go by the same annotations.
        if gateway.functions.config.role == Role::Gateway {
            others.push(tokio::spawn(keep_schedules(gateway.clone())));
            others.push(tokio::spawn(watch_folders(gateway.clone())));
            others.push(tokio::spawn(follow_subjects(gateway.clone())));
        }
        tokio::spawn(collect(gateway.clone()));
        tracing::info!(%local_address, sandbox = sandbox_kind, "the gateway is listening");
        Ok(Self {
            local_address,
            gateway,
            stop,
            server,
            dispatcher,
            others,
            grace,
            new_credentials,
        })
    }

    /// The address that it listens on.
    pub fn local_address(&self) -> SocketAddr {
        self.local_address
    }

    /// Credentials that clients need from now on, if they were made at this start; nobody tells them again.
    pub fn new_credentials(&self) -> Option<&NewCredentials> {
        self.new_credentials.as_ref()
    }

    /// Whether the listener speaks TLS.
    pub fn has_tls(&self) -> bool {
        self.gateway.tls.is_some()
    }

    /// Reads the certificate again, for connections from now on. If it cannot be used, nothing changes.
    pub fn reload_certificate(&self) -> Result<(), TlsError> {
        self.gateway.tls.as_ref().map_or(Ok(()), Tls::reload)
    }

    /// Serves a connection that came some other way, until it ends. For the fuzz targets.
    #[cfg(feature = "fuzzing")]
    pub async fn serve_stream<S>(&self, stream: S)
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let graceful = GracefulShutdown::new();
        let peer = SocketAddr::from(([192, 0, 2, 1], 4242));
        serving::serve_http1(stream, peer, self.gateway.clone(), graceful.watcher()).await;
    }

    /// Stops accepting, waits for invocations under way, at most the grace period, and stops all instances.
    pub async fn shutdown(self) {
        self.stop.send_replace(true);
        if let Err(error) = self.server.await {
            tracing::error!(%error, "the server has failed");
        }
        if let Err(error) = self.dispatcher.await {
            tracing::error!(%error, "the task that runs queued invocations has failed");
        }
        for task in self.others {
            if let Err(error) = task.await {
                tracing::error!(%error, "a task of the daemon has failed");
            }
        }
        // Invocations that outlasted the grace period were broken off with their connections.
        self.gateway
            .functions
            .shutdown(self.grace.min(Duration::from_secs(1)))
            .await;
        if let Some(spans) = self.gateway.functions.spans.clone() {
            let sent = tokio::task::spawn_blocking(move || spans.shutdown()).await;
            if let Err(error) = sent {
                tracing::error!(%error, "the last spans could not be sent");
            }
        }
        let store = self.gateway.store.clone();
        if let Err(error) = tokio::task::spawn_blocking(move || store.logs.flush()).await {
            tracing::error!(%error, "the functions' logs could not be written");
        }
    }
}

/// The NATS server that keeps the queue, if one does.
async fn queue_server(config: &DaemonConfig) -> Result<Option<NatsOptions>, ConnectError> {
    let Some(address) = &config.queue else {
        return Ok(None);
    };
    Ok(Some(NatsOptions {
        connection: Connection::open(address, config.nats_credentials.as_deref(), QUEUE_MESSAGES_MAX).await?,
        name: address.name().to_owned(),
        data: config.data.clone(),
    }))
}

/// The NATS server whose messages call functions, if one's do. It is spoken to on a connection of its own: many messages there
/// are not to keep the queue from hearing its own.
async fn subject_server(config: &DaemonConfig) -> Result<Option<Subjects>, ConnectError> {
    let Some(address) = config.nats.as_ref().or(config.queue.as_ref()) else {
        return Ok(None);
    };
    let credentials = config.nats_credentials.as_deref();
    let connection = Connection::open(address, credentials, SUBJECT_MESSAGES_MAX).await?;
    Ok(Some(Subjects::new(connection, address.name().to_owned())))
}

/// Tells of failed accepts, now and then.
#[derive(Default)]
struct AcceptFailures {
    untold: u64,
    told_at: Option<Instant>,
}

impl AcceptFailures {
    fn count(&mut self, error: &io::Error) {
        self.untold += 1;
        if self
            .told_at
            .is_none_or(|told_at| told_at.elapsed() >= ACCEPT_WARNING_PAUSE)
        {
            let advice = Shortage::of(error).map_or("", Shortage::advice_for_instances);
            tracing::warn!(%error, attempts = self.untold, "connections cannot be accepted; {advice}");
            *self = Self {
                untold: 0,
                told_at: Some(Instant::now()),
            };
        }
    }
}

/// Listens with room for a burst of connections.
fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    // As every server: connections of an earlier daemon may be on their way out.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Accepts connections until the daemon stops, then lets those under way come to their end.
async fn serve(listener: TcpListener, gateway: Arc<Gateway>, max_connections: usize, grace: Duration) {
    let mut stopping = gateway.stopping.clone();
    let graceful = GracefulShutdown::new();
    let mut connections = JoinSet::new();
    let admission = Admission::new(max_connections);
    let mut failures = AcceptFailures::default();
    loop {
        let accepted = tokio::select! {
            accepted = async {
                admission.room().await;
                listener.accept().await
            } => accepted,
            _ = stopping.wait_for(|stopping| *stopping) => break,
        };
        while connections.try_join_next().is_some() {}
        match accepted {
            Ok((stream, peer)) => {
                if let Err(error) = stream.set_nodelay(true) {
                    tracing::debug!(%peer, %error, "a connection waits before it sends small packets");
                }
                // There is room: only this loop takes places.
                match admission.place() {
                    Some(Place::Served(place)) => {
                        let (gateway, watcher) = (gateway.clone(), graceful.watcher());
                        connections.spawn(async move {
                            serving::serve(stream, peer, gateway, watcher).await;
                            drop(place);
                        });
                    }
                    Some(Place::Refused(place)) => {
                        let is_plain = gateway.tls.is_none();
                        connections.spawn(async move {
                            if is_plain {
                                serving::refuse(stream, max_connections).await;
                            }
                            drop(place);
                        });
                    }
                    None => {}
                }
            }
            Err(error) => {
                failures.count(&error);
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    if tokio::time::timeout(grace, graceful.shutdown()).await.is_err() {
        tracing::warn!(
            "invocations are broken off that did not end within {} ms",
            grace.as_millis()
        );
    }
    connections.shutdown().await;
}
