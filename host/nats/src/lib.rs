//! Where a NATS server is, who may speak to it, and the connection.
//!
//! ```text
//!   nats://[USER:PASSWORD@]HOST[:PORT][,…][/NAME] ──> Address ──┐
//!   a file: NATS credentials, USER:PASSWORD or a token ─────────┴─ connect ──> Connection, which comes back by itself
//! ```
//!
//! A server that is not there yet is waited for in the background: whatever starts a machine starts services in any order.
//! One that refuses the credentials is told of at once.

mod address;
mod connection;
mod messages;

pub use address::{Address, AddressError};
pub use connection::{ConnectError, Connection};
pub use messages::{Message, Messages};
