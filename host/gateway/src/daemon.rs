//! Start and end of the daemon.
//!
//! ```text
//!  start ──> accepting ──shutdown──> draining (at most the grace period) ──> instances stopped, logs written
//! ```

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use spore_sandbox::Sandbox;
use spore_store::{OpenError, Store};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

use crate::config::DaemonConfig;
use crate::errors::ApiError;
use crate::functions::Functions;
use crate::registry::Uploads;
use crate::routes::Gateway;

/// How long a client may take to send the head of a request; bounds idle connections too.
const HEAD_TIMEOUT: Duration = Duration::from_secs(75);
/// Pause after a failed accept, for example for want of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Why the daemon could not start.
#[derive(Debug, thiserror::Error)]
pub enum DaemonStartError {
    /// The data directory could not be opened.
    #[error("the data directory could not be opened")]
    Store(#[from] OpenError),
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
    grace: Duration,
}

impl Daemon {
    /// Opens the data directory, loads the functions in it, and listens. Requests are answered from the return on.
    pub async fn start(config: DaemonConfig, sandbox: Arc<dyn Sandbox>) -> Result<Self, DaemonStartError> {
        let data = config.data.clone();
        let store = tokio::task::spawn_blocking(move || Store::open(&data))
            .await
            .map_err(ApiError::from)??;
        let store = Arc::new(store);
        let (address, grace) = (config.listen, config.shutdown_grace);
        let listen_error = |source| DaemonStartError::Listen { address, source };
        let listener = TcpListener::bind(address).await.map_err(listen_error)?;
        let local_address = listener.local_addr().map_err(listen_error)?;
        let sandbox_kind = sandbox.kind();
        let layers = sandbox.layers();
        let functions = Functions::load(config, store.clone(), sandbox).await?;
        let (stop, stopping) = watch::channel(false);
        let uploads = Uploads::default();
        let gateway = Gateway {
            functions,
            store,
            uploads,
            sandbox_kind,
            layers,
            local_address,
            stopping,
        };
        let gateway = Arc::new(gateway);
        let server = tokio::spawn(serve(listener, gateway.clone(), grace));
        tracing::info!(%local_address, sandbox = sandbox_kind, "the gateway is listening");
        Ok(Self {
            local_address,
            gateway,
            stop,
            server,
            grace,
        })
    }

    /// The address that it listens on.
    pub fn local_address(&self) -> SocketAddr {
        self.local_address
    }

    /// Stops accepting, waits for invocations under way, at most the grace period, and stops all instances.
    pub async fn shutdown(self) {
        self.stop.send_replace(true);
        if let Err(error) = self.server.await {
            tracing::error!(%error, "the server has failed");
        }
        // Invocations that outlasted the grace period were broken off with their connections.
        self.gateway
            .functions
            .shutdown(self.grace.min(Duration::from_secs(1)))
            .await;
        let store = self.gateway.store.clone();
        if let Err(error) = tokio::task::spawn_blocking(move || store.logs.flush()).await {
            tracing::error!(%error, "the functions' logs could not be written");
        }
    }
}

/// Accepts connections until the daemon stops, then lets those under way come to their end.
async fn serve(listener: TcpListener, gateway: Arc<Gateway>, grace: Duration) {
    let mut stopping = gateway.stopping.clone();
    let graceful = GracefulShutdown::new();
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stopping.wait_for(|stopping| *stopping) => break,
        };
        while connections.try_join_next().is_some() {}
        match accepted {
            Ok((stream, peer)) => {
                connections.spawn(serve_connection(
                    stream,
                    peer,
                    gateway.clone(),
                    graceful.watcher(),
                ));
            }
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
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

async fn serve_connection(stream: TcpStream, peer: SocketAddr, gateway: Arc<Gateway>, watcher: Watcher) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%peer, %error, "a connection waits before it sends small packets");
    }
    let service = service_fn(move |request| {
        let gateway = gateway.clone();
        async move { Ok::<_, Infallible>(gateway.answer(request, peer).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service);
    if let Err(error) = watcher.watch(connection).await {
        // The client's doing, or a function's whose answer broke off.
        tracing::debug!(%peer, error = &error as &dyn std::error::Error, "a connection broke");
    }
}
