//! The dashboard in a real browser: everything is in `tests/`.
