//! Commands: programs that are started for one invocation, with its stream as their standard input and output.
//!
//! ```text
//!   stream to the guest:    length │ NAME=VALUE\0 NAME=VALUE\0 … │ standard input … end of stream
//!   stream from the guest:  standard output …
//! ```
//!
//! The variables are those of the invocation; one that the function has too takes its place.

/// Length of what comes before the variables, in bytes: their length, a little-endian 32-bit number.
pub const PREAMBLE_HEADER_BYTES: usize = 4;

/// Longest all variables of an invocation together, in bytes, with their zeroes.
pub const VARIABLES_BYTES_MAX: usize = 128 << 10;
