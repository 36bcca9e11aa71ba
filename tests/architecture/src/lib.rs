//! Fails on a wrong arrow between crates and on untidy sources: everything is in `tests/`.
