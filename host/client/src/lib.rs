//! HTTP client of the daemon.
