//! The `spore` binary.
fn main() {}
