//! HTTP client of the daemon: its API, the functions behind it, and its registry.
//!
//! [`Client`] opens one connection a request: the command line sends few, and none is left open.
//!
//! - [`transport`]: addresses, connections, bodies; everything that can go wrong before an answer is there.
//! - [`api`]: the OpenFaaS REST API in typed form.
//! - [`statistics`]: how long a function's instances took.
//! - [`registry`]: pushing an image by the OCI distribution specification.

pub mod api;
pub mod registry;
pub mod statistics;
mod tls;
pub mod transport;

pub use transport::{Client, RequestError};
