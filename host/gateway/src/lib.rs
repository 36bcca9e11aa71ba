//! The daemon: one HTTP server for invocations, the OpenFaaS API, and the registry that images are pushed to.
//!
//! ```text
//!  /function/NAME[.NAMESPACE][/path]  invoke    lease of the pool, then HTTP/1.1 with the instance, streamed both ways
//!  /async-function/NAME…               queued    accepted when it is on disk, run by a task of the daemon
//!  /system/…, /healthz                system    deploy, list, scale, remove, logs, in OpenFaaS's shapes
//!  /system/images…                    images    list, inspect, pull, push, remove, prune, check
//!  /ui/                               ui        the dashboard: files, a client of the addresses above
//!  /v2/…                              registry  the part of the OCI distribution specification that a push needs
//! ```
//!
//! An invocation runs in the task of its client's connection from the first byte to the last: no other task, and so no
//! wake-up across threads, lies between client and function. With HTTP/2 each invocation has a task of its own.

mod activity;
mod admission;
mod alerts;
mod authentication;
mod body;
mod chain;
mod client_body;
mod config;
mod connection;
mod daemon;
mod durations;
mod errors;
mod exec;
mod fixed_request;
mod functions;
mod headers;
mod images;
mod invoke;
mod lambda;
mod logs;
mod metrics;
mod names;
mod namespaces;
mod openapi;
mod origin;
mod provider;
mod quantity;
mod queued;
mod recent;
mod registry;
mod reply;
mod request_body;
mod routes;
mod scale;
mod scaling;
mod secrets;
mod serving;
mod settings;
mod shortage;
mod spans;
mod statistics;
mod system;
mod tls;
mod trace;
mod triggers;
mod ui;
mod upgrade;
mod usage;

pub use authentication::{BasicAuth, CredentialsError, NewCredentials};
/// What a program has posted as a Lambda function, made an answer; whatever it is.
#[cfg(feature = "fuzzing")]
pub fn fuzz_lambda_answer(bytes: &[u8]) {
    lambda::fuzzing::posted(bytes);
}

pub use config::{DaemonConfig, Role};
pub use daemon::{Daemon, DaemonStartError};
pub use openapi::openapi;
pub use quantity::parse_memory;
pub use spans::SpansError;
pub use spore_nats::Address as NatsAddress;
pub use tls::{TlsError, TlsFiles};
