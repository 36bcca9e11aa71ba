//! Measures Spore against its peers and keeps the raw samples.

fn main() {}
