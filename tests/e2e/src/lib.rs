//! The real daemon, real functions, real HTTP: everything is in `tests/`.
