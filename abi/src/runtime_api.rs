//! The Runtime API of AWS Lambda, which the library OS serves to programs that ask for their invocations
//! ([`crate::pages::boot_flags::RUNTIME_API`]).
//!
//! Each request that the host sends on a stream is then an invocation: its body is the event, and its fields
//! `Lambda-Runtime-…` are those that the program finds beside it. The answer is what the program has posted: with status
//! 200 as response, with 500 as error.

/// TCP port on which the library OS serves it, at 127.0.0.1.
pub const RUNTIME_API_PORT: u16 = 9001;
