//! Settings of the daemon.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use spore_nats::Address;
use spore_registry::RegistryOptions;

use crate::authentication::BasicAuth;
use crate::tls::TlsFiles;

/// Which part of OpenFaaS the daemon takes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Role {
    /// Gateway and provider in one, queue and dashboard included.
    #[default]
    Gateway,
    /// The provider alone, behind a gateway of OpenFaaS's that has the rest.
    Provider,
}

/// Settings of the daemon; those of a function override them where both exist.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DaemonConfig {
    /// Which part of OpenFaaS it takes.
    pub role: Role,
    /// Address to listen on; port 0 lets the host choose one.
    pub listen: SocketAddr,
    /// Data directory, made if it does not exist.
    pub data: PathBuf,
    /// How long an instance stays idle before it is removed, unless the function says otherwise.
    pub idle_timeout: Duration,
    /// How long an invocation may take until its last byte, unless the function says otherwise.
    pub invocation_timeout: Duration,
    /// How long an instance may take until it accepts connections.
    pub ready_timeout: Duration,
    /// Most requests per function that wait for a busy instance.
    pub max_waiting: usize,
    /// Most connections of clients that are served at a time; more are answered that there are too many. Each takes a
    /// descriptor, of which instances need some too.
    pub max_connections: usize,
    /// Who may use the API and the registry.
    pub basic_auth: BasicAuth,
    /// Certificate of the listener; without one it speaks plain HTTP.
    pub tls: Option<TlsFiles>,
    /// How other registries are found, from which images are pulled that are not stored; none if nothing is ever pulled or
    /// pushed there.
    pub registries: Option<RegistryOptions>,
    /// NATS server that keeps the invocations nobody waits for; none if they are in the data directory.
    pub queue: Option<Address>,
    /// NATS server whose messages call functions; that of the queue, if there is one, unless another is named.
    pub nats: Option<Address>,
    /// File with what the NATS servers ask for, unless it is in their addresses.
    pub nats_credentials: Option<PathBuf>,
    /// Longest body of an invocation that nobody waits for, in bytes.
    pub max_queued_body_bytes: usize,
    /// Folder below which functions may watch others, if they may.
    pub trigger_folder: Option<PathBuf>,
    /// Longest body of an invocation, in bytes; none if it may be of any length.
    pub max_body_bytes: Option<u64>,
    /// Longest head of a request, in bytes: its first line and its header fields.
    pub max_head_bytes: u32,
    /// How long a client may take to send the head of a request; bounds idle connections too.
    pub head_timeout: Duration,
    /// How long a request's body may stand still before its answer has begun.
    pub body_timeout: Duration,
    /// Where spans of invocations are sent by OTLP over HTTP, a URL without the path of traces; none if nowhere.
    pub otlp_endpoint: Option<String>,
    /// How long a shutdown waits for invocations under way.
    pub shutdown_grace: Duration,
}

impl Default for DaemonConfig {
    fn default() -> Self {
        Self {
            role: Role::default(),
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 8080)),
            data: PathBuf::from("spore-data"),
            idle_timeout: Duration::from_secs(30),
            invocation_timeout: Duration::from_secs(60),
            ready_timeout: Duration::from_secs(10),
            max_waiting: 1000,
            max_connections: 10_000,
            basic_auth: BasicAuth::Off,
            tls: None,
            registries: None,
            queue: None,
            nats: None,
            nats_credentials: None,
            max_queued_body_bytes: 1 << 20,
            trigger_folder: None,
            max_body_bytes: None,
            max_head_bytes: 64 << 10,
            head_timeout: Duration::from_secs(75),
            body_timeout: Duration::from_secs(30),
            otlp_endpoint: None,
            shutdown_grace: Duration::from_secs(10),
        }
    }
}
