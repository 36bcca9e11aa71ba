//! Settings of the daemon.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use crate::authentication::BasicAuth;
use crate::tls::TlsFiles;

/// Settings of the daemon; those of a function override them where both exist.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DaemonConfig {
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
    /// How long a shutdown waits for invocations under way.
    pub shutdown_grace: Duration,
}

impl Default for DaemonConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 8080)),
            data: PathBuf::from("spore-data"),
            idle_timeout: Duration::from_secs(60),
            invocation_timeout: Duration::from_secs(60),
            ready_timeout: Duration::from_secs(10),
            max_waiting: 1000,
            max_connections: 10_000,
            basic_auth: BasicAuth::Off,
            tls: None,
            shutdown_grace: Duration::from_secs(10),
        }
    }
}
