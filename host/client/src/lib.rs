//! HTTP client of the daemon: its API, the functions behind it, and its registry.
//!
//! [`Client`] opens one connection a request: the command line sends few, and none is left open.
//!
//! - [`transport`]: addresses, connections, bodies; everything that can go wrong before an answer is there.
//! - [`api`]: the OpenFaaS REST API in typed form.
//! - [`images`]: the images in its store.
//! - [`queued`]: invocations that nobody waits for.
//! - [`triggers`]: what calls functions without a caller.
//! - [`statistics`]: how long a function's instances took.
//! - [`registry`]: pushing an image by the OCI distribution specification.

pub mod api;
pub mod images;
pub mod queued;
pub mod registry;
pub mod statistics;
mod tls;
pub mod transport;
pub mod triggers;

pub use transport::{Client, RequestError};
